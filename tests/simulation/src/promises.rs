//! The promises of the design, watched over after every event, against AWS's own log and the true state of the streams.
//!
//! What is checked here is not what the operator believes: the time is AWS's, the key in force is the real one, and the ledger
//! is what the API server stored. The first broken promise ends the run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Call as AwsCall, Service as AwsService, StreamKey, World};
use stream_encryption_operator::api::condition::{ConditionType, Reason, Truth, find};
use stream_encryption_operator::api::ledger::{Action, Call, Outcome, Owner, StreamLedgerSpec, Target};
use stream_encryption_operator::api::stream_encryption::{
    DeletionPolicy, Drift, Encryption, EncryptionStatus, KeyStatus, KeyType, Service, StreamEncryption,
    StreamEncryptionStatus,
};
use stream_encryption_operator::controller::book::owner;
use stream_encryption_operator::model::fault::{Class, Fault};
use stream_encryption_operator::model::key::{Key, KeyName};
use stream_encryption_operator::model::ledger::{self, ARRIVAL, DAY};
use stream_encryption_operator::model::observation::Look;
use stream_encryption_operator::model::stream::StreamArn;

use crate::scene::{ACCOUNT, MISTAKEN, OPERATOR, Process, State};
use crate::story::since_begin;

/// Up to here clocks are said to differ; beyond it only the safety of the count is promised.
pub const USUAL_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How long the operator may rightly disbelieve what contradicts its last call, and some seconds. The last call may be another
/// replica's, dated by a clock that is ahead.
const DISBELIEF: SignedDuration = SignedDuration::from_secs(75);
/// AWS's settle time.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// How much older than its reservation the spec may be that a call follows: the live read, and the write that comes after it.
const LIVE: SignedDuration = SignedDuration::from_secs(40);

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which: P1 to P10 of the design.
    pub promise: &'static str,
    /// How.
    pub how: String,
    /// When.
    pub at: Timestamp,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {}: {}", self.promise, since_begin(self.at), self.how)
    }
}

/// What is watched.
#[derive(Debug)]
pub struct Promises {
    /// The first that was broken.
    pub broken: Option<Broken>,
    /// Writes to Kubernetes that changed something, and statuses that were sent.
    pub writes: u64,
    /// Starts and Stops of the operator that reached AWS.
    pub calls: u64,
    /// The calls a stream gets in 24 hours.
    limit: usize,
    /// Whether encryption may be turned off.
    allow_disable: bool,
    /// The calls that AWS counts, by stream and kind.
    arrived: BTreeMap<(AwsService, String, &'static str), VecDeque<Timestamp>>,
    /// How much of AWS's log has been read.
    read: usize,
    /// When each entry was first stored, on the true clock; by ledger and id.
    stored: BTreeMap<(String, String), Timestamp>,
    /// The entries whose call was sent.
    sent: BTreeSet<(String, String)>,
    /// Those of them to which nobody got an answer: only a look can tell what came of them.
    unanswered: BTreeSet<(String, String)>,
    /// What the operator was shown of each stream.
    shown: BTreeMap<String, ShownOf>,
    /// When somebody last changed something that may rightly cut a wait short.
    pub stirred: Timestamp,
    /// When somebody else last touched a stream.
    pub touched: BTreeMap<String, Timestamp>,
    /// When a status was last written, by uid.
    told: BTreeMap<String, Timestamp>,
    /// What each resource's live spec has asked for, and since when, by uid.
    asked: BTreeMap<String, Vec<(Timestamp, Asked)>>,
    /// When a replica last got other credentials.
    pub exchanged: Timestamp,
    /// Until when clocks differ more than usual.
    pub wild_until: Timestamp,
}

/// What a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    start: Starts,
    plain_text: bool,
}

/// Which Start a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Starts {
    /// None.
    None,
    /// With a key that only AWS or another object can tell.
    WithAny,
    /// With this key.
    With(KeyStatus),
}

/// What was shown of a stream.
#[derive(Clone, Debug, Default)]
struct ShownOf {
    /// The last look of each replica.
    last: BTreeMap<usize, Timestamp>,
    /// What was really in force when it was last shown as settled, and at every look since, for good; what was so before, until
    /// nobody may rightly hold it for true any more: AWS's answers lag, and a visit under way has not heard of the others.
    in_force: Vec<(Option<StreamKey>, Timestamp)>,
    /// When it was last shown as settled.
    settled: Option<Timestamp>,
    /// Whether it was shown last that there is no such stream.
    missing: bool,
    /// Whether a look showed the past by an unknown time.
    blurred: bool,
}

impl ShownOf {
    /// What was shown so far is not so any more; until then it may still be held for true.
    fn forget(&mut self, disbelieved: Timestamp) {
        self.settled = None;
        for (_, until) in &mut self.in_force {
            *until = (*until).min(disbelieved);
        }
    }
}

impl Promises {
    /// Watches over a run with this budget.
    #[must_use]
    pub fn new(limit: u32, allow_disable: bool) -> Self {
        Self {
            broken: None,
            writes: 0,
            calls: 0,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            allow_disable,
            arrived: BTreeMap::new(),
            read: 0,
            stored: BTreeMap::new(),
            sent: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            shown: BTreeMap::new(),
            stirred: Timestamp::MIN,
            touched: BTreeMap::new(),
            told: BTreeMap::new(),
            asked: BTreeMap::new(),
            exchanged: Timestamp::MIN,
            wild_until: Timestamp::MIN,
        }
    }

    /// Notes that a promise was broken.
    pub fn break_with(&mut self, promise: &'static str, at: Timestamp, how: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(Broken { promise, how: how(), at });
        }
    }

    /// Whether encryption may be turned off.
    #[must_use]
    pub fn allow_disable(&self) -> bool {
        self.allow_disable
    }

    /// P1: reads what is new in AWS's log, and counts.
    pub fn read_log(&mut self, world: &World) {
        let calls = world.calls();
        for call in &calls[self.read.min(calls.len())..] {
            self.arrived(call);
        }
        self.read = calls.len();
    }

    fn arrived(&mut self, call: &AwsCall) {
        let ours = [OPERATOR, MISTAKEN].contains(&call.principal.access_key.as_str());
        if !ours || !call.changes_encryption() {
            return;
        }
        // Between the look that showed whose stream it is and the call lie some seconds, in which credentials can be exchanged.
        let exchanged = call.time.duration_since(self.exchanged) < SignedDuration::from_secs(25);
        if call.account != ACCOUNT && !exchanged {
            self.break_with("P8", call.time, || {
                format!("{} on {} of account {}", call.operation, call.target, call.account)
            });
        }
        let starts = call.operation.starts_with("Start");
        let (kind, counts) = match call.service {
            AwsService::Firehose => ("call", call.outcome != "RequestLost"),
            _ => (if starts { "Start" } else { "Stop" }, call.counted),
        };
        if !counts {
            return;
        }
        self.calls += 1;
        let recent = self.arrived.entry((call.service, call.target.clone(), kind)).or_default();
        while recent.front().is_some_and(|first| call.time.duration_since(*first) >= DAY) {
            recent.pop_front();
        }
        recent.push_back(call.time);
        if recent.len() > self.limit {
            let (count, limit) = (recent.len(), self.limit);
            self.break_with("P1", call.time, || {
                format!("{count} {kind}s of {} in 24 hours, and {limit} are allowed", call.target)
            });
        }
    }

    /// P10: an entry that AWS still counts stays as it is; only an open one gets an outcome.
    pub fn ledger_changed(
        &mut self,
        before: Option<&StreamLedgerSpec>,
        after: Option<&StreamLedgerSpec>,
        now: Timestamp,
    ) {
        for call in after.iter().flat_map(|ledger| &ledger.calls) {
            let key = (after.map_or(String::new(), |ledger| ledger.stream_arn.clone()), call.id.clone());
            self.stored.entry(key).or_insert(now);
        }
        let Some(before) = before else { return };
        for call in &before.calls {
            let key = (before.stream_arn.clone(), call.id.clone());
            let stored = self.stored.get(&key).copied().unwrap_or(now);
            let kept = after.and_then(|ledger| ledger.calls.iter().find(|kept| kept.id == call.id));
            match kept {
                Some(kept) if kept.time != call.time || kept.target != call.target => {
                    self.break_with("P10", now, || format!("entry {} was rewritten", call.id));
                }
                Some(kept) if !may_become(call.outcome, kept.outcome) => {
                    self.break_with("P10", now, || {
                        format!("entry {} went from {:?} to {:?}", call.id, call.outcome, kept.outcome)
                    });
                }
                // What turns out to be refused may count no more: whoever waited for room need not.
                Some(kept) if kept.outcome != call.outcome && kept.outcome == Outcome::Refused => {
                    self.stirred = now;
                }
                // AWS refuses what is dated wrongly, so such an entry never counted.
                None if now.duration_since(stored) < DAY
                    && stored.duration_since(call.at()).abs() <= ARRIVAL =>
                {
                    self.break_with("P10", now, || {
                        format!(
                            "entry {} was dropped {:#} after it was made",
                            call.id,
                            now.duration_since(stored)
                        )
                    });
                }
                Some(_) | None => {}
            }
        }
    }

    /// Notes what a resource asks for from now on.
    pub fn note_change(&mut self, resource: &StreamEncryption, deleted: bool, now: Timestamp) {
        let asked = if deleted {
            Asked { start: Starts::None, plain_text: false }
        } else {
            Asked { start: starts(resource), plain_text: asks_for_plain_text(resource) }
        };
        let history = self.asked.entry(resource.metadata.uid.clone().unwrap_or_default()).or_default();
        if history.last().is_none_or(|(_, last)| *last != asked) {
            history.push((now, asked));
        }
    }

    /// Whether the spec of this resource has asked for this call at any time since then: a Start with this key, or a Stop.
    fn asked_since(&self, uid: &str, key: Option<&KeyStatus>, since: Timestamp) -> bool {
        let history = self.asked.get(uid).map_or(&[][..], Vec::as_slice);
        // What was in effect at that time counts as well.
        let first = history.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        history[first..].iter().any(|(_, asked)| match (key, &asked.start) {
            (None, _) => asked.plain_text,
            (Some(_), Starts::None) => false,
            (Some(_), Starts::WithAny) => true,
            (Some(key), Starts::With(asked)) => asked == key,
        })
    }
}

fn may_become(before: Outcome, after: Outcome) -> bool {
    before == after
        || match before {
            Outcome::Pending => true,
            Outcome::Unknown => after == Outcome::Accepted,
            Outcome::Accepted | Outcome::Refused => false,
        }
}

fn starts(resource: &StreamEncryption) -> Starts {
    let spec = &resource.spec;
    let hands_off = spec.suspend || spec.drift == Drift::Report || spec.encryption == Encryption::Disabled;
    if hands_off || resource.metadata.deletion_timestamp.is_some() {
        return Starts::None;
    }
    match &spec.key {
        None => Starts::With(Key::AwsOwned.status()),
        Some(key) => match (key.kind, &key.arn) {
            (KeyType::AwsOwned, _) => Starts::With(Key::AwsOwned.status()),
            (KeyType::CustomerManaged, Some(arn)) => {
                Starts::With(KeyStatus { kind: KeyType::CustomerManaged, arn: Some(arn.clone()) })
            }
            (KeyType::CustomerManaged, None) => Starts::WithAny,
        },
    }
}

fn asks_for_plain_text(resource: &StreamEncryption) -> bool {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    if deleting {
        resource.spec.deletion_policy == DeletionPolicy::Disable
    } else {
        resource.spec.encryption == Encryption::Disabled
    }
}

/// A key of AWS as the status writes it.
#[must_use]
pub fn written(key: &StreamKey) -> KeyStatus {
    match key {
        StreamKey::AwsOwned => KeyStatus { kind: KeyType::AwsOwned, arn: None },
        StreamKey::Kms { given, .. } if given == "alias/aws/kinesis" => {
            KeyStatus { kind: KeyType::AwsOwned, arn: None }
        }
        StreamKey::Kms { arn, .. } => KeyStatus { kind: KeyType::CustomerManaged, arn: Some(arn.clone()) },
    }
}

impl State {
    /// P8: nothing is asked of AWS about what is not the operator's. And what a look showed is noted.
    pub fn looked(&mut self, replica: usize, stream: &StreamArn, seen: &Result<Option<Look>, Fault>) {
        let now = self.now;
        self.tally.looks += 1;
        if stream.account.as_str() != ACCOUNT {
            self.promises.break_with("P8", now, || format!("a look at {stream}"));
        }
        let arn = stream.to_string();
        let disbelieved = now + DISBELIEF + self.clocks_apart();
        let Ok(Some(look)) = seen else {
            if matches!(seen, Ok(None)) && !self.replicas[replica].mistaken {
                let shown = self.promises.shown.entry(arn).or_default();
                shown.forget(disbelieved);
                shown.missing = true;
            }
            return;
        };
        if look.arn != *stream {
            return;
        }
        let blurred = self.world.calls().last().and_then(|call| call.fault.as_deref()) == Some("ReadLag");
        let lag = self.world.settings().read_lag;
        let real = self.world.stream(&arn, now - lag).and_then(|snapshot| snapshot.in_force.clone());
        let settled = stream_encryption_operator::model::observation::Observation::of(stream, Some(look))
            .settled()
            .is_some();
        let shown = self.promises.shown.entry(arn).or_default();
        shown.last.insert(replica, now - lag);
        shown.missing = false;
        if settled {
            shown.forget(disbelieved);
            shown.settled = Some(now - lag);
            shown.blurred = blurred;
        }
        shown.blurred |= blurred;
        shown.in_force.retain(|(known, until)| *known != real && *until > now);
        shown.in_force.push((real, Timestamp::MAX));
        self.story.tell(now, || {
            format!("operator {replica} looks at {}: {:?} {:?}", stream.name(), look.state, look.encryption)
        });
    }

    /// P8: no key of another account is asked for.
    pub fn asked_for_key(&mut self, name: &KeyName) {
        if let KeyName::Arn(arn) = name
            && arn.account.as_str() != ACCOUNT
        {
            let now = self.now;
            self.promises.break_with("P8", now, || format!("a look at key {arn}"));
        }
    }

    /// P2, P3, P7, P8, P9: a Start or Stop that has just reached AWS.
    pub fn sent(
        &mut self,
        by: Process,
        stream: &StreamArn,
        action: Action,
        key: Option<&Key>,
        reserved: Timestamp,
        answer: &Result<(), Fault>,
    ) {
        let now = self.now;
        let asking = self.polled.name.as_ref().and_then(|name| self.store.resource(name));
        let uid = asking.and_then(|resource| resource.metadata.uid.clone()).unwrap_or_default();
        self.tally.calls += 1;
        self.story.tell(now, || {
            let answer = match answer {
                Ok(()) => "accepted".to_owned(),
                Err(fault) => format!("{:?} {:?}", fault.class, fault.code),
            };
            let key = key.map(ToString::to_string).unwrap_or_default();
            format!(
                "AWS gets {action:?} of {} with {key} from operator {}: {answer}",
                stream.name(),
                by.replica
            )
        });
        if stream.account.as_str() != ACCOUNT {
            self.promises.break_with("P8", now, || format!("{action:?} of {stream}"));
        }
        if let Some(Key::Customer(key)) = key
            && key.account.as_str() != ACCOUNT
        {
            self.promises.break_with("P8", now, || format!("{action:?} of {stream} with {key}"));
        }
        let arn = stream.to_string();
        let target = Target { action, key: key.map(Key::status) };
        let Some(ledger) = self.store.ledger(&ledger::name(stream)).cloned() else {
            self.promises.break_with("P2", now, || format!("{action:?} of {stream} without a ledger"));
            return;
        };
        let fits = |call: &&Call| {
            call.at() == reserved
                && call.target == target
                && !self.promises.sent.contains(&(arn.clone(), call.id.clone()))
        };
        let Some(entry) = ledger.spec.calls.iter().find(fits).cloned() else {
            self.promises
                .break_with("P2", now, || format!("{action:?} of {stream} without an entry in its ledger"));
            return;
        };
        self.promises.sent.insert((arn.clone(), entry.id.clone()));
        let reserved_at = self.promises.stored.get(&(arn.clone(), entry.id.clone())).copied().unwrap_or(now);
        let prompt = now.duration_since(reserved_at) < SignedDuration::from_secs(10);
        let owner_is_alive = self.store.resource_by_uid(&ledger.spec.owner.uid).is_some();
        if prompt && owner_is_alive && !uid.is_empty() && ledger.spec.owner.uid != uid {
            self.promises.break_with("P3", now, || {
                format!("{action:?} of {stream} for {uid}, and {} owns it", ledger.spec.owner.uid)
            });
        }
        let unanswered = &self.promises.unanswered;
        let is_open = |other: &Call| match other.outcome {
            Outcome::Pending | Outcome::Unknown => true,
            // The ledger may not call refused what nobody has answered.
            Outcome::Refused => unanswered.contains(&(arn.clone(), other.id.clone())),
            Outcome::Accepted => false,
        };
        let open = ledger
            .spec
            .calls
            .iter()
            .find(|other| other.id != entry.id && is_open(other) && other.at() + ARRIVAL > reserved);
        if let Some(open) = open
            && now >= self.promises.wild_until
        {
            self.promises.break_with("P3", now, || {
                format!("{action:?} of {stream} while call {} is still open", open.id)
            });
        }
        if matches!(answer, Err(fault) if fault.class == Class::UnknownOutcome) {
            self.promises.unanswered.insert((arn.clone(), entry.id.clone()));
        }
        // AWS counts a call when it arrives, and the ledger when it was reserved.
        if now.duration_since(reserved).abs() > ARRIVAL {
            self.promises.break_with("P1", now, || {
                format!(
                    "{action:?} of {stream} reaches AWS {:#} after the time that it is counted at",
                    now.duration_since(reserved)
                )
            });
        }
        let since = reserved_at - LIVE;
        // The resource may have gone while the call was under way; the ledger still names it.
        if !self.promises.asked_since(&ledger.spec.owner.uid, target.key.as_ref(), since) {
            self.promises.break_with("P7", now, || {
                format!("{action:?} of {stream} with {:?}, and the spec does not ask for it", target.key)
            });
        }
        if action == Action::Stop && !self.promises.allow_disable {
            self.promises.break_with("P7", now, || format!("Stop of {stream}, and nothing allows it"));
        }
        self.called_before_its_time(&uid, stream, reserved_at);
    }

    /// P9: a wait that was told is kept, unless something has happened since.
    fn called_before_its_time(&mut self, uid: &str, stream: &StreamArn, reserved_at: Timestamp) {
        let now = self.now;
        let Some(resource) = self.store.resource_by_uid(uid) else { return };
        let Some(status) = &resource.status else { return };
        let Some(next) = status.next_attempt_time.as_ref() else { return };
        // The wait for an answer that got lost ends as soon as AWS shows what became of the call.
        let said = find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.as_str());
        if said == Some(Reason::OutcomeUnknown.as_str()) {
            return;
        }
        let told = self.promises.told.get(uid).copied().unwrap_or(Timestamp::MIN);
        let quiet = told < reserved_at
            && self.promises.stirred < told
            && self.promises.touched.get(&stream.to_string()).is_none_or(|at| *at < told)
            && now >= self.promises.wild_until;
        if quiet
            && status.observed_generation == resource.metadata.generation
            && next.0 > now + USUAL_SKEW + USUAL_SKEW
        {
            let next = next.0;
            self.promises.break_with("P9", now, || {
                format!(
                    "a call of {stream} now, and the status says that the next attempt is at {}",
                    since_begin(next)
                )
            });
        }
    }

    /// P6 and P9: what a status says was observed, and every wait has a reason and an end.
    pub fn status_written(
        &mut self,
        by: Process,
        before: &StreamEncryption,
        status: &StreamEncryptionStatus,
    ) {
        let now = self.now;
        let of = owner(before);
        let known = before.status.clone().unwrap_or_default();
        // Calls age out, and the status tells of it: that is news, and comes to an end by itself.
        let only_aged = known.calls != status.calls
            && StreamEncryptionStatus { calls: None, ..known }
                == StreamEncryptionStatus { calls: None, ..status.clone() };
        self.promises.writes += u64::from(!only_aged);
        self.promises.told.insert(of.uid.clone(), now);
        let ready = find(&status.conditions, ConditionType::Ready);
        self.story.tell(now, || {
            format!(
                "operator {} writes the status of {}/{}: {} {:?}, in force {:?}, next attempt {:?}",
                by.replica,
                of.namespace,
                of.name,
                ready.map_or("-", |ready| &ready.reason),
                status.encryption_status,
                status.key_in_force.as_ref().map(|key| key.arn.as_deref().unwrap_or("AWS-owned")),
                status.next_attempt_time.as_ref().map(|next| since_begin(next.0)),
            )
        });
        let Some(reason) = ready.and_then(|ready| ready.reason.parse::<Reason>().ok()) else {
            self.promises.break_with("P9", now, || format!("the status of {} has no reason", of.name));
            return;
        };
        let waits = matches!(
            reason,
            Reason::EnablingFailed | Reason::DisablingFailed | Reason::NotApplied | Reason::Contested
        );
        if waits && !before.spec.suspend && status.next_attempt_time.is_none() {
            self.promises
                .break_with("P9", now, || format!("{} waits because of {reason} without an end", of.name));
        }
        // Where nothing is looked at, what is said of the key is what was last known.
        if !matches!(reason, Reason::Suspended | Reason::DisableNotPermitted) {
            self.claims(&of, status);
        }
    }

    fn claims(&mut self, of: &Owner, status: &StreamEncryptionStatus) {
        let now = self.now;
        let Some(stream) = &status.stream else { return };
        let Some(shown) = self.promises.shown.get(&stream.arn) else { return };
        if shown.missing {
            // What is said of the key is what was last known; when the stream is there again, that counts no more.
            return;
        }
        let Some(settled) = shown.settled else {
            if let Some(key) = &status.key_in_force
                && !shown.in_force.iter().any(|(real, until)| {
                    *until > now && real.as_ref().map(written).as_ref() == Some(key)
                })
            {
                let key = key.clone();
                self.promises.break_with("P6", now, || {
                    format!("{} says that {key:?} is in force, and AWS never showed it", of.name)
                });
            }
            return;
        };
        let touched = self.promises.touched.get(&stream.arn).copied().unwrap_or(Timestamp::MIN);
        if shown.blurred || touched >= settled {
            return;
        }
        // Kinesis may name a key by an alias that KMS does not resolve: then nobody can say more.
        // Nor whether AWS manages a key, while KMS does not let itself be asked.
        let by_arn = |key: &KeyStatus| {
            key.arn.as_ref().is_none_or(|arn| arn.starts_with("arn:") && !arn.contains(":key/0000"))
        };
        if let Some(key) = status.key_in_force.as_ref().filter(|key| by_arn(key))
            && !shown.in_force.iter().any(|(real, _)| real.as_ref().map(written).as_ref() == Some(key))
        {
            let (key, real) = (key.clone(), shown.in_force.clone());
            self.promises.break_with("P6", now, || {
                format!("{} says that {key:?} is in force, and in force was {real:?}", of.name)
            });
            return;
        }
        let said_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == Truth::True.as_str());
        let said_enabled = status.encryption_status == Some(EncryptionStatus::Enabled);
        // What one replica saw the others read in the ledger.
        let Some(looked) = shown.last.values().max().copied() else { return };
        // The settle time is waited for by the operator's clock, and with two of them nobody can say by which.
        let waited_for = self.replicas.len() == 1 && now >= self.promises.wild_until;
        let at = if said_encrypted && waited_for { looked.min(now - SETTLE) } else { looked };
        let plain = |at| self.world.stream(&stream.arn, at).is_none_or(|real| real.in_force.is_none());
        // It was encrypted until a moment ago, and what says otherwise may not be believed yet.
        let lately = shown.in_force.iter().any(|(real, until)| real.is_some() && *until < Timestamp::MAX);
        let said = (said_encrypted || said_enabled) && !lately;
        if said && touched < at && plain(at) && plain(now - DISBELIEF - self.clocks_apart()) {
            self.promises.break_with("P6", now, || {
                format!("{} says encrypted, and at {} records were in plain text", of.name, since_begin(at))
            });
        }
    }
}

/// The service of a stream, as the simulated AWS calls it.
#[must_use]
pub fn aws_service(service: Service) -> AwsService {
    match service {
        Service::Firehose => AwsService::Firehose,
        Service::Kinesis => AwsService::Kinesis,
    }
}
