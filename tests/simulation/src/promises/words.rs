//! P6 and P9: what a status says. Held against what its visit was shown, and against the true state of the stream.
//!
//! What the operator cannot know is not held against it: what AWS has not shown it yet, what lay between two looks, and what
//! another replica has seen a moment ago.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::StreamKey;
use stream_encryption_operator::api::condition::{ConditionType, Reason, Standing, Truth, find};
use stream_encryption_operator::api::ledger::Owner;
use stream_encryption_operator::api::stream_encryption::{
    EncryptionStatus, KeyStatus, KeyType, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_operator::controller::book::owner;
use stream_encryption_operator::model::fault::Fault;
use stream_encryption_operator::model::ledger::{self, READ_LAG};
use stream_encryption_operator::model::observation::{Look, Observation};
use stream_encryption_operator::model::stream::StreamArn;

use super::Promises;
use crate::scene::{ACCOUNT, Process, State};
use crate::story::since_begin;

/// How long the operator may rightly disbelieve what contradicts its last call, and some seconds. The last call may be another
/// replica's, dated by a clock that is ahead.
const DISBELIEF: SignedDuration = SignedDuration::from_secs(75);
/// AWS's settle time.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// What was shown of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct ShownOf {
    /// The last look of each replica.
    last: BTreeMap<usize, Timestamp>,
    /// What was really in force when it was last shown as settled, and at every look since, for good; what was so before, until
    /// nobody may rightly hold it for true any more: AWS's answers lag, and a visit under way has not heard of the others.
    in_force: Vec<(Option<StreamKey>, Timestamp)>,
    /// When it was last shown as settled.
    settled: Option<Timestamp>,
    /// And when the time before.
    settled_before: Option<Timestamp>,
    /// Whether it was shown last that there is no such stream.
    missing: bool,
    /// Whether a look showed the past by an unknown time.
    blurred: bool,
    /// When a visit began whose look showed the effect of the operator's last call, and when it first said something.
    confirmed: Option<(Timestamp, Timestamp)>,
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

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Glimpse {
    replica: usize,
    arn: String,
    /// The time that it shows.
    at: Timestamp,
    /// When its visit began.
    begun: Timestamp,
    /// Until when what contradicts it may be held for true.
    disbelieved: Timestamp,
    what: What,
}

/// What a look shows.
#[derive(Clone, Debug)]
enum What {
    /// That there is no such stream.
    Missing,
    /// The stream.
    Stream {
        /// What is really in force.
        real: Option<StreamKey>,
        /// Whether the operator must take that for true.
        settled: bool,
        /// Whether the past was shown, by an unknown time.
        blurred: bool,
        /// Whether the effect of the operator's last call is shown.
        effect: bool,
    },
}

/// The last look of a visit, where it must be believed: it came after one that has shown the effect of the operator's last call.
#[derive(Clone, Debug)]
pub(super) struct Believed {
    arn: String,
    /// Whether the stream was shown as encrypted.
    on: bool,
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

/// Whether a status tells this key: whole, or only that it is a customer's, to a namespace that may not use it.
fn is_told(real: Option<&StreamKey>, key: &KeyStatus) -> bool {
    real.map(written).is_some_and(|real| real.kind == key.kind && (key.arn.is_none() || key.arn == real.arn))
}

/// What a status claims of the stream: the key, the state, and whether it is encrypted.
type Claimed<'a> = (Option<&'a KeyStatus>, Option<EncryptionStatus>, Option<&'a String>);

/// Whether a status claims nothing new: what was known is taken back where AWS has not answered for long.
fn is_repeated(before: Claimed<'_>, after: Claimed<'_>) -> bool {
    let taken_back = after.2.is_some_and(|encrypted| encrypted == Truth::Unknown.as_str());
    (before.0, before.1) == (after.0, after.1) && (before.2 == after.2 || taken_back)
}

/// What a status claims of the stream.
fn claimed(status: &StreamEncryptionStatus) -> Claimed<'_> {
    let encrypted = find(&status.conditions, ConditionType::Encrypted);
    (status.key_in_force.as_ref(), status.encryption_status, encrypted.map(|condition| &condition.status))
}

impl Promises {
    /// A visit has ended well, or has written something: what it was shown counts from now on. Tells whether it was shown
    /// something at all.
    pub fn visit_says(&mut self, task: usize, now: Timestamp) -> bool {
        let Some(glimpses) = self.unsaid.get_mut(&task).map(std::mem::take) else { return false };
        for Glimpse { replica, arn, at, begun, disbelieved, what } in glimpses {
            let shown = self.shown.entry(arn).or_default();
            match what {
                What::Missing => {
                    shown.forget(disbelieved);
                    shown.missing = true;
                }
                What::Stream { real, settled, blurred, effect } => {
                    if effect {
                        shown.confirmed = Some((begun, now));
                    }
                    shown.last.insert(replica, at);
                    shown.missing = false;
                    if settled {
                        shown.settled_before = shown.settled;
                        shown.forget(disbelieved);
                        shown.settled = Some(at);
                        shown.blurred = blurred;
                    }
                    shown.blurred |= blurred;
                    shown.in_force.retain(|(known, until)| *known != real && *until > at);
                    shown.in_force.push((real, Timestamp::MAX));
                }
            }
        }
        true
    }

    /// A visit may not write into its ledger: what it was shown is kept nowhere, and its status says no more than that.
    pub fn visit_forgets(&mut self, task: usize) {
        self.unsaid.remove(&task);
    }

    /// A visit goes on, or begins.
    pub fn visit_goes_on(&mut self, task: usize, now: Timestamp) {
        self.begun.entry(task).or_insert(now);
    }

    /// A visit is over.
    pub fn visit_ends(&mut self, task: usize) {
        self.unsaid.remove(&task);
        self.believed.remove(&task);
        self.begun.remove(&task);
    }
}

impl State {
    /// P8: nothing is asked of AWS about what is not the operator's. What a look showed is noted: it counts once its visit says
    /// something, for a visit that is dropped has seen nothing.
    pub fn looked(&mut self, replica: usize, stream: &StreamArn, seen: &Result<Option<Look>, Fault>) {
        let now = self.now;
        self.tally.looks += 1;
        if stream.account.as_str() != ACCOUNT {
            self.promises.break_with("P8", now, || format!("a look at {stream}"));
        }
        let arn = stream.to_string();
        let lag = self.world.settings().read_lag;
        self.must_be_believed(stream, seen);
        let what = match seen {
            Ok(None) if !self.replicas[replica].mistaken => What::Missing,
            Ok(Some(look)) if look.arn == *stream => {
                let real = self.world.stream(&arn, now - lag).and_then(|real| real.in_force.clone());
                // Soon after a call what is shown may rightly be taken for old.
                let called = self.promises.called.get(&arn).is_some_and(|at| now < *at + READ_LAG + lag);
                let settled = !called && Observation::of(stream, Some(look)).settled().is_some();
                // A look at a Kinesis stream may ask KMS of the key, after it.
                let mut calls = self.world.calls().iter().rev();
                let described = calls
                    .find(|call| call.operation.starts_with("Describe") && call.operation != "DescribeKey");
                let fault = described.and_then(|call| call.fault.as_deref());
                self.story.tell(now, || {
                    let (state, encryption) = (&look.state, &look.encryption);
                    format!("operator {replica} looks at {}: {state:?} {encryption:?}", stream.name())
                });
                let effect = self.shows_the_effect_of_the_last_call(stream, look);
                What::Stream { real, settled, blurred: fault == Some("ReadLag"), effect }
            }
            Ok(_) | Err(_) => return,
        };
        let disbelieved = now + DISBELIEF + self.clocks_apart();
        let begun = self.visit_began();
        let glimpse = Glimpse { replica, arn, at: now - lag, begun, disbelieved, what };
        self.promises.unsaid.entry(self.polled.task).or_default().push(glimpse);
    }

    /// When the visit began that is under way.
    pub(super) fn visit_began(&self) -> Timestamp {
        self.promises.begun.get(&self.polled.task).copied().unwrap_or(self.now)
    }

    /// Whether a look shows that the last call of the stream's ledger is being carried out, or was.
    fn shows_the_effect_of_the_last_call(&self, stream: &StreamArn, look: &Look) -> bool {
        let Some(ledger) = self.store.ledger(&ledger::name(stream)) else { return false };
        let observation = Observation::of(stream, Some(look));
        ledger::last_open(&ledger.spec).is_some_and(|call| ledger::shows(&observation, &call.target))
    }

    /// Notes the last look of a visit, if the operator has no reason to take it for old.
    fn must_be_believed(&mut self, stream: &StreamArn, seen: &Result<Option<Look>, Fault>) {
        let task = self.polled.task;
        self.promises.believed.remove(&task);
        let arn = stream.to_string();
        let observation = match seen {
            Ok(Some(look)) if look.arn == *stream => Observation::of(stream, Some(look)),
            Ok(_) | Err(_) => return,
        };
        let Some(on) = observation.settled().map(|key| key.is_some()) else { return };
        let begun = self.visit_began();
        let confirmed = self.promises.shown.get(&arn).and_then(|shown| shown.confirmed);
        // A visit that had read the ledger before the call was written into it could not write there what it saw of the call.
        let last = self.promises.last_reserved(&arn);
        if confirmed.is_some_and(|(read, said)| last.is_some_and(|last| last < read) && said < begun) {
            self.promises.believed.insert(task, Believed { arn, on });
        }
    }

    /// P6: what AWS has just shown, after it had shown the effect of the operator's last call, is not contradicted.
    fn contradicts(&mut self, of: &Owner, status: &StreamEncryptionStatus) {
        let Some(Believed { arn, on }) = self.promises.believed.get(&self.polled.task).cloned() else {
            return;
        };
        if status.stream.as_ref().is_none_or(|stream| stream.arn.as_ref() != Some(&arn)) {
            return;
        }
        let now = self.now;
        let said_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == Truth::True.as_str());
        let said = status.encryption_status;
        let contradicted = if on {
            said == Some(EncryptionStatus::Disabled)
        } else {
            said_encrypted || said == Some(EncryptionStatus::Enabled) || status.key_in_force.is_some()
        };
        if contradicted {
            self.promises.break_with("P6", now, || {
                let shown = if on { "ENABLED" } else { "DISABLED" };
                format!("{} says {said:?}, and AWS has just shown {shown}", of.name)
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
        let looked = self.promises.visit_says(self.polled.task, now);
        let of = owner(before);
        let known = before.status.clone().unwrap_or_default();
        // Calls age out, and the status tells of it: that is news, and comes to an end by itself. And once an hour, not more
        // often, it tells when AWS last answered.
        let answered =
            |status: &StreamEncryptionStatus| status.last_describe_time.as_ref().map(|time| time.0);
        let hourly = answered(&known)
            .zip(answered(status))
            .is_some_and(|(old, new)| new.duration_since(old) >= SignedDuration::from_hours(1));
        let news = |status: StreamEncryptionStatus| StreamEncryptionStatus {
            calls: None,
            last_describe_time: None,
            ..status
        };
        let only_aged = (known.calls != status.calls || hourly) && news(known) == news(status.clone());
        // Looks of several replicas that fall together may be too many for AWS; the pacer, which spreads them, is not simulated.
        let says = |status: Option<&StreamEncryptionStatus>, reason: Reason| {
            let ready = status.and_then(|status| find(&status.conditions, ConditionType::Ready));
            ready.is_some_and(|ready| ready.reason == reason.as_str())
        };
        let throttled =
            says(before.status.as_ref(), Reason::AwsThrottled) || says(Some(status), Reason::AwsThrottled);
        self.promises.writes += u64::from(!only_aged && !throttled);
        let begun = self.visit_began();
        // What it says may be from the look of a visit before.
        let shown = status.stream.as_ref().and_then(|stream| self.promises.shown.get(stream.arn.as_deref()?));
        let known = shown.and_then(|shown| shown.last.get(&by.replica)).map_or(begun, |at| begun.min(*at));
        // What another replica has seen since, it cannot know.
        let overtaken = shown
            .is_some_and(|shown| shown.last.iter().any(|(other, at)| *other != by.replica && *at > known));
        self.promises.told.insert(of.uid.clone(), known);
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
        // Where AWS could not be asked of all that there is to know, what was last known is kept.
        let not_of_the_look = matches!(reason.standing(), Standing::Unknown | Standing::Unchanged)
            || matches!(
                reason,
                Reason::NotPermitted
                    | Reason::RolesDiffer
                    | Reason::DisableNotPermitted
                    | Reason::AccessDenied
                    | Reason::SpecInvalid
            );
        if !not_of_the_look {
            self.contradicts(&of, status);
        }
        let waits = matches!(
            reason,
            Reason::EnablingFailed | Reason::DisablingFailed | Reason::NotApplied | Reason::Contested
        );
        if waits && !before.spec.suspend && status.next_attempt_time.is_none() {
            self.promises
                .break_with("P9", now, || format!("{} waits because of {reason} without an end", of.name));
        }
        // Where nothing is looked at, what is said of the key is what was last known. What was said before and is still said,
        // because nobody looked, was held against the truth then.
        let repeated =
            before.status.as_ref().is_some_and(|before| is_repeated(claimed(before), claimed(status)));
        if reason != Reason::DisableNotPermitted && (looked || !repeated) && !overtaken {
            self.claims(&of, status);
        }
    }

    fn claims(&mut self, of: &Owner, status: &StreamEncryptionStatus) {
        let now = self.now;
        let Some(arn) = status.stream.as_ref().and_then(|stream| stream.arn.as_deref()) else { return };
        let Some(shown) = self.promises.shown.get(arn) else { return };
        if shown.missing {
            // What is said of the key is what was last known; when the stream is there again, that counts no more.
            return;
        }
        let Some(settled) = shown.settled else {
            if let Some(key) = &status.key_in_force
                && !shown.in_force.iter().any(|(real, until)| *until > now && is_told(real.as_ref(), key))
            {
                let key = key.clone();
                self.promises.break_with("P6", now, || {
                    format!("{} says that {key:?} is in force, and AWS never showed it", of.name)
                });
            }
            return;
        };
        let touched = self.promises.touched.get(arn).copied().unwrap_or(Timestamp::MIN);
        if shown.blurred || touched >= settled {
            return;
        }
        // Kinesis may name a key by an alias that KMS does not resolve: then nobody can say more.
        // Nor whether AWS manages a key, while KMS does not let itself be asked; a customer's that no policy allows is not named.
        let is_aws_managed = |arn: &str| arn.contains(":key/0000");
        let may_be_aws_managed = shown
            .in_force
            .iter()
            .any(|(real, _)| matches!(real, Some(StreamKey::Kms { arn, .. }) if is_aws_managed(arn)));
        let by_arn = |key: &KeyStatus| match &key.arn {
            Some(arn) => arn.starts_with("arn:") && !is_aws_managed(arn),
            None => key.kind == KeyType::AwsOwned || !may_be_aws_managed,
        };
        if let Some(key) = status.key_in_force.as_ref().filter(|key| by_arn(key))
            && !shown.in_force.iter().any(|(real, _)| is_told(real.as_ref(), key))
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
        // The settle time is waited for by the operator's clock: with two of them nobody can say by which, and with one that was
        // just set, nobody can say how long. And who turned encryption off and on again between two looks was not seen.
        let clock_is_steady = !self.promises.a_clock_was_set_shortly_before(now);
        let seen_all_along = shown.settled_before.is_none_or(|before| touched < before);
        let waited_for =
            self.replicas.len() == 1 && now >= self.promises.wild_until && clock_is_steady && seen_all_along;
        let at = if said_encrypted && waited_for { looked.min(now - SETTLE) } else { looked };
        let plain = |at| self.world.stream(arn, at).is_none_or(|real| real.in_force.is_none());
        // It was encrypted until a moment ago, and what says otherwise may not be believed yet.
        let off = shown.in_force.last().is_some_and(|(real, _)| real.is_none());
        let until_lately = |until: Timestamp| until > now && (off || until < Timestamp::MAX);
        let lately = shown.in_force.iter().any(|(real, until)| real.is_some() && until_lately(*until));
        let said = (said_encrypted || said_enabled) && !lately;
        if said && touched < at && plain(at) && plain(now - DISBELIEF - self.clocks_apart()) {
            self.promises.break_with("P6", now, || {
                format!("{} says encrypted, and at {} records were in plain text", of.name, since_begin(at))
            });
        }
    }
}
