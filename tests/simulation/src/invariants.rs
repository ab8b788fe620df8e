//! The promises (invariants) of the design, checked after every event against AWS's own log and the true
//! state of the streams.
//!
//! The checks do not use the operator's view: the time is AWS's, the active key is the real one, and the
//! ledger is as stored by the API server. The first broken promise ends the run.

mod calls;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Call as AwsCall, Service as AwsService, World};
use stream_encryption_api::ledger::{Outcome, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyIdentity, KeyType, Mode, Service, StreamEncryption,
};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::ledger::{DAY, MAX_CLOCK_SKEW};

use crate::environment::{ACCOUNT, MISTAKEN, OPERATOR};
use crate::trace::since_begin;

pub use calls::{Sent, USUAL_SKEW};
pub use status::written;
use status::{Believed, Glimpse, ShownOf};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The promise, P1 to P10 of the design.
    pub promise: &'static str,
    /// How it was broken.
    pub how: String,
    /// The time at which it was broken.
    pub at: Timestamp,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {}: {}", self.promise, since_begin(self.at), self.how)
    }
}

/// The state of all checks.
#[derive(Debug, Default)]
pub struct Promises {
    /// The first broken promise.
    pub broken: Option<Broken>,
    /// The number of writes to Kubernetes that changed an object, and of statuses sent.
    pub writes: u64,
    /// The number of Starts and Stops of the operator that AWS received.
    pub calls: u64,
    /// The limit of calls per stream in 24 hours.
    limit: usize,
    /// The calls that AWS counts, by stream and kind.
    arrived: BTreeMap<(AwsService, String, &'static str), VecDeque<Timestamp>>,
    /// The number of entries of AWS's log that have been read.
    read: usize,
    /// The number of requests for streams that were checked against the policies.
    judged: usize,
    /// The number of the operator's requests for streams in AWS's log.
    logged: usize,
    /// The true time at which each entry was first stored, and the owner of the stream at that time; by
    /// ledger and id.
    stored: BTreeMap<(String, String), (Timestamp, String)>,
    /// The entries whose call was sent.
    sent: BTreeSet<(String, String)>,
    /// The sent entries whose call received no answer: only a Describe can show the outcome.
    unanswered: BTreeSet<(String, String)>,
    /// The time of the operator's last call for each stream.
    called: BTreeMap<String, Timestamp>,
    /// What the operator observed of each stream.
    shown: BTreeMap<String, ShownOf>,
    /// The start of each reconcile in progress, by task.
    pub begun: BTreeMap<usize, Timestamp>,
    /// Since when the policies had been in effect that a reconcile last read from a cache, by task.
    pub policies_shown: BTreeMap<usize, Timestamp>,
    /// Whether a reconcile has read the live policies since it last waited for a permit of the rate limiter, by task.
    pub read_since_permit: BTreeMap<usize, bool>,
    /// The observations of reconciles in progress that no status contains yet, by task.
    unsaid: BTreeMap<usize, Vec<Glimpse>>,
    /// The last Describe of each reconcile in progress that the operator must trust, by task.
    believed: BTreeMap<usize, Believed>,
    /// The time of the last external change that may shorten a wait.
    pub stirred: Timestamp,
    /// The time of the last change of each stream by another caller.
    pub touched: BTreeMap<String, Timestamp>,
    /// The time of the knowledge in the last written status, by uid.
    told: BTreeMap<String, Timestamp>,
    /// What each resource's live spec has required, with its start time, by uid.
    asked: BTreeMap<String, Vec<(Timestamp, Asked)>>,
    /// The time since which each unusable key is unusable, by ARN.
    pub unusable: BTreeMap<String, Timestamp>,
    /// The times at which clocks were set.
    pub clocks_set: Vec<Timestamp>,
    /// The time until which clocks differ more than usual.
    pub wild_until: Timestamp,
}

/// What a spec requires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    start: Starts,
    plaintext: bool,
}

/// The Start that a spec requires.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Starts {
    /// No Start.
    None,
    /// A Start with a key that only AWS or another object identifies.
    WithAny,
    /// A Start with this key.
    With(KeyIdentity),
}

impl Promises {
    /// Creates the checks of a run with this limit of calls.
    pub fn new(limit: u32) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            stirred: Timestamp::MIN,
            wild_until: Timestamp::MIN,
            ..Self::default()
        }
    }

    /// Shows the state of the checks between two reconciles, without what only counts.
    pub fn show(&self, add: &mut dyn FnMut(&dyn fmt::Debug)) {
        let Self { broken, writes: _, calls: _, limit: _, arrived, read: _, judged, logged, .. } = self;
        let Self { stored, sent, unanswered, called, shown, told, asked, unusable, .. } = self;
        let Self {
            begun, policies_shown, unsaid, believed, stirred, touched, clocks_set, wild_until, ..
        } = self;
        add(&self.read_since_permit);
        add(&(broken, arrived, judged.abs_diff(*logged)));
        add(&(stored, sent, unanswered, called, shown, told, asked, unusable));
        add(&(begun, policies_shown, unsaid, believed, stirred, touched, clocks_set, wild_until));
    }

    /// Records a broken promise.
    pub fn break_with(&mut self, promise: &'static str, at: Timestamp, how: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(Broken { promise, how: how(), at });
        }
    }

    /// Returns the time of the operator's last call for a stream.
    pub fn called(&self, stream: &str) -> Option<Timestamp> {
        self.called.get(stream).copied()
    }

    /// Returns the true time at which the last entry of a stream's ledger was first stored.
    fn last_reserved(&self, arn: &str) -> Option<Timestamp> {
        let of_stream = self.stored.iter().filter(|((stream, _), _)| stream == arn);
        of_stream.map(|(_, (at, _))| *at).max()
    }

    /// Returns whether a call of the ledger has a wrong date because the clock was set after the Describe
    /// that had proved it right. A wrong date without such a change means that there was no Describe.
    pub fn dated_while_a_clock_was_set(&self, ledger: &StreamLedgerSpec) -> bool {
        ledger.calls.iter().any(|call| {
            let stored = self.stored.get(&(ledger.stream_arn.clone(), call.id.clone()));
            stored.is_some_and(|(stored, _)| {
                call.at().duration_since(*stored) > MAX_CLOCK_SKEW
                    && self.a_clock_was_set_shortly_before(*stored)
            })
        })
    }

    /// Returns whether a clock was set within the preceding minute.
    fn a_clock_was_set_shortly_before(&self, at: Timestamp) -> bool {
        self.clocks_set.iter().any(|set| *set <= at && at.duration_since(*set) < SignedDuration::from_mins(1))
    }

    /// Reads the new entries of AWS's log. P1: counts the calls. P8: every request of the operator was
    /// checked against the policies.
    pub fn read_log(&mut self, world: &World) {
        let calls = world.calls();
        for call in &calls[self.read.min(calls.len())..] {
            self.arrived(call);
        }
        self.read = calls.len();
        if self.logged > self.judged {
            let now = calls.last().map_or(Timestamp::MIN, |call| call.time);
            self.break_with("P8", now, || {
                "AWS received a request that was not checked against the policies".to_owned()
            });
        }
    }

    fn arrived(&mut self, call: &AwsCall) {
        let ours = [OPERATOR, MISTAKEN].contains(&call.principal.access_key.as_str());
        // A request to KMS may be part of a Describe.
        let about_a_stream = !matches!(call.operation.as_str(), "GetCallerIdentity" | "DescribeKey");
        // A late request has two entries in the log: when it is sent, and when it arrives.
        let is_under_way = call.fault.as_deref() == Some("Late") && call.outcome == "RequestLost";
        self.logged += usize::from(ours && about_a_stream && !is_under_way);
        let writes = call.changes_encryption() || call.operation == "PutRecord";
        if !ours || !writes {
            return;
        }
        // Even if its credentials have changed since the Describe that showed the stream's account.
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
                format!("{count} {kind}s of {} in 24 hours, but only {limit} are allowed", call.target)
            });
        }
    }

    /// P10: checks that an entry that AWS still counts is unchanged, except that an open entry may get an
    /// outcome.
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
                        format!("entry {} changed from {:?} to {:?}", call.id, call.outcome, kept.outcome)
                    });
                }
                // A call that was refused may no longer count, so a wait for the limit may be shortened.
                Some(kept) if kept.outcome != call.outcome && kept.outcome == Outcome::Refused => {
                    self.stirred = now;
                }
                // AWS refuses a call with a wrong date, so such an entry never counted.
                None if now.duration_since(stored) < DAY
                    && stored.duration_since(call.at()).abs() <= MAX_CLOCK_SKEW =>
                {
                    self.break_with("P10", now, || {
                        format!(
                            "entry {} was dropped {:#} after its creation",
                            call.id,
                            now.duration_since(stored)
                        )
                    });
                }
                Some(_) | None => {}
            }
        }
    }

    /// Records what a resource requires from now on.
    pub fn note_change(&mut self, resource: &StreamEncryption, deleted: bool, now: Timestamp) {
        let asked = if deleted {
            Asked { start: Starts::None, plaintext: false }
        } else {
            Asked { start: starts(resource), plaintext: asks_for_plaintext(resource) }
        };
        let history = self.asked.entry(resource.metadata.uid.clone().unwrap_or_default()).or_default();
        if history.last().is_none_or(|(_, last)| *last != asked) {
            history.push((now, asked));
        }
    }

    /// Returns whether the spec of this resource has required this call at any time since then: a Start with
    /// this key, or a Stop.
    fn asked_since(&self, uid: &str, key: Option<&KeyIdentity>, since: Timestamp) -> bool {
        let history = self.asked.get(uid).map_or(&[][..], Vec::as_slice);
        // The spec in effect at that time counts as well.
        let first = history.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        history[first..].iter().any(|(_, asked)| match (key, &asked.start) {
            (None, _) => asked.plaintext,
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
    let hands_off = spec.suspend || spec.mode == Mode::Observe || spec.encryption == Encryption::Disabled;
    if hands_off || resource.metadata.deletion_timestamp.is_some() {
        return Starts::None;
    }
    match &spec.key {
        None => Starts::With(Key::AwsOwned.to_api()),
        Some(key) => match (key.kind, &key.arn) {
            (KeyType::AwsOwned, _) => Starts::With(Key::AwsOwned.to_api()),
            (KeyType::CustomerManaged, Some(arn)) => {
                Starts::With(KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.clone()) })
            }
            (KeyType::CustomerManaged, None) => Starts::WithAny,
        },
    }
}

fn asks_for_plaintext(resource: &StreamEncryption) -> bool {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    if deleting {
        resource.spec.deletion_policy == DeletionPolicy::Disable
    } else {
        resource.spec.encryption == Encryption::Disabled
    }
}

/// Returns the service of a stream, in the simulated AWS's type.
pub fn aws_service(service: Service) -> AwsService {
    match service {
        Service::Firehose => AwsService::Firehose,
        Service::Kinesis => AwsService::Kinesis,
    }
}
