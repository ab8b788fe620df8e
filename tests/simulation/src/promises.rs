//! The promises of the design, watched over after every event, against AWS's own log and the true state of the streams.
//!
//! What is checked here is not what the operator believes: the time is AWS's, the key in force is the real one, and the ledger
//! is what the API server stored. The first broken promise ends the run.

mod calls;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Call as AwsCall, Service as AwsService, World};
use stream_encryption_operator::api::ledger::{Outcome, StreamLedgerSpec};
use stream_encryption_operator::api::stream_encryption::{
    DeletionPolicy, Drift, Encryption, KeyStatus, KeyType, Service, StreamEncryption,
};
use stream_encryption_operator::model::key::Key;
use stream_encryption_operator::model::ledger::{ARRIVAL, DAY};

use crate::scene::{ACCOUNT, MISTAKEN, OPERATOR};
use crate::story::since_begin;

pub use calls::{Sent, USUAL_SKEW};
pub use words::written;
use words::{Believed, Glimpse, ShownOf};

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
    /// The calls that AWS counts, by stream and kind.
    arrived: BTreeMap<(AwsService, String, &'static str), VecDeque<Timestamp>>,
    /// How much of AWS's log has been read.
    read: usize,
    /// How many requests about streams have been held against the policies.
    judged: usize,
    /// How many of the operator's requests about streams AWS's log has.
    logged: usize,
    /// When each entry was first stored, on the true clock, and who owned the stream then; by ledger and id.
    stored: BTreeMap<(String, String), (Timestamp, String)>,
    /// The entries whose call was sent.
    sent: BTreeSet<(String, String)>,
    /// Those of them to which nobody got an answer: only a look can tell what came of them.
    unanswered: BTreeSet<(String, String)>,
    /// When the operator last called Start or Stop of each stream.
    called: BTreeMap<String, Timestamp>,
    /// What the operator was shown of each stream.
    shown: BTreeMap<String, ShownOf>,
    /// When each visit under way began, by task.
    pub begun: BTreeMap<usize, Timestamp>,
    /// What the visits under way were shown and have said nothing of, by task.
    unsaid: BTreeMap<usize, Vec<Glimpse>>,
    /// The last look of each visit under way that must be believed, by task.
    believed: BTreeMap<usize, Believed>,
    /// When somebody last changed something that may rightly cut a wait short.
    pub stirred: Timestamp,
    /// When somebody else last touched a stream.
    pub touched: BTreeMap<String, Timestamp>,
    /// From when that is what the last written status knew, by uid.
    told: BTreeMap<String, Timestamp>,
    /// What each resource's live spec has asked for, and since when, by uid.
    asked: BTreeMap<String, Vec<(Timestamp, Asked)>>,
    /// Since when which keys cannot be used, by ARN.
    pub unusable: BTreeMap<String, Timestamp>,
    /// When clocks were set.
    pub clocks_set: Vec<Timestamp>,
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

impl Promises {
    /// Watches over a run with this budget.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            broken: None,
            writes: 0,
            calls: 0,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            arrived: BTreeMap::new(),
            read: 0,
            judged: 0,
            logged: 0,
            stored: BTreeMap::new(),
            sent: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            called: BTreeMap::new(),
            shown: BTreeMap::new(),
            begun: BTreeMap::new(),
            unsaid: BTreeMap::new(),
            believed: BTreeMap::new(),
            stirred: Timestamp::MIN,
            touched: BTreeMap::new(),
            told: BTreeMap::new(),
            asked: BTreeMap::new(),
            unusable: BTreeMap::new(),
            clocks_set: Vec::new(),
            wild_until: Timestamp::MIN,
        }
    }

    /// Notes that a promise was broken.
    pub fn break_with(&mut self, promise: &'static str, at: Timestamp, how: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(Broken { promise, how: how(), at });
        }
    }

    /// When the operator last called Start or Stop of a stream.
    #[must_use]
    pub fn called(&self, stream: &str) -> Option<Timestamp> {
        self.called.get(stream).copied()
    }

    /// When the last entry of a stream's ledger was first stored, on the true clock.
    fn last_reserved(&self, arn: &str) -> Option<Timestamp> {
        let of_stream = self.stored.iter().filter(|((stream, _), _)| stream == arn);
        of_stream.map(|(_, (at, _))| *at).max()
    }

    /// Whether a call of the ledger was dated wrongly because the clock was set after the look that had shown it to be right. Who
    /// dates a call wrongly without that has not looked.
    #[must_use]
    pub fn dated_while_a_clock_was_set(&self, ledger: &StreamLedgerSpec) -> bool {
        ledger.calls.iter().any(|call| {
            let stored = self.stored.get(&(ledger.stream_arn.clone(), call.id.clone()));
            stored.is_some_and(|(stored, _)| {
                call.at().duration_since(*stored) > ARRIVAL && self.a_clock_was_set_shortly_before(*stored)
            })
        })
    }

    /// Whether a clock was set within the minute before.
    fn a_clock_was_set_shortly_before(&self, at: Timestamp) -> bool {
        self.clocks_set.iter().any(|set| *set <= at && at.duration_since(*set) < SignedDuration::from_mins(1))
    }

    /// P1: reads what is new in AWS's log, and counts. P8: there is none of the operator that was not held against the policies.
    pub fn read_log(&mut self, world: &World) {
        let calls = world.calls();
        for call in &calls[self.read.min(calls.len())..] {
            self.arrived(call);
        }
        self.read = calls.len();
        if self.logged > self.judged {
            let now = calls.last().map_or(Timestamp::MIN, |call| call.time);
            self.break_with("P8", now, || "AWS got a request that was held against no policy".to_owned());
        }
    }

    fn arrived(&mut self, call: &AwsCall) {
        let ours = [OPERATOR, MISTAKEN].contains(&call.principal.access_key.as_str());
        // A question to KMS may be part of a look.
        let about_a_stream = !matches!(call.operation.as_str(), "GetCallerIdentity" | "DescribeKey");
        // What arrives late is in the log twice: when it is sent, and when it arrives.
        let is_under_way = call.fault.as_deref() == Some("Late") && call.outcome == "RequestLost";
        self.logged += usize::from(ours && about_a_stream && !is_under_way);
        let writes = call.changes_encryption() || call.operation == "PutRecord";
        if !ours || !writes {
            return;
        }
        // Whatever became of its credentials since the look that showed whose stream it is.
        if call.account != ACCOUNT {
            self.break_with("P8", call.time, || {
                format!("{} on {} of account {}", call.operation, call.target, call.account)
            });
        }
        if !call.changes_encryption() {
            return;
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
            self.stored
                .entry(key)
                .or_insert_with(|| (now, after.map_or(String::new(), |ledger| ledger.owner.uid.clone())));
        }
        let Some(before) = before else { return };
        for call in &before.calls {
            let key = (before.stream_arn.clone(), call.id.clone());
            let stored = self.stored.get(&key).map_or(now, |(at, _)| *at);
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

/// The service of a stream, as the simulated AWS calls it.
#[must_use]
pub fn aws_service(service: Service) -> AwsService {
    match service {
        Service::Firehose => AwsService::Firehose,
        Service::Kinesis => AwsService::Kinesis,
    }
}
