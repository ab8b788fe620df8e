//! The invariants of the design, which its documents call promises: checked after every event against AWS's
//! own log and the true state of the streams.
//!
//! The checks do not use the operator's view: the time is AWS's, the active key is the actual one, and the
//! ledger is as stored by the API server. The first violation ends the run.

mod calls;
mod external_calls;
mod observations;
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

use crate::environment::{ACCOUNT, FOREIGN_ACCESS_KEY, OPERATOR_ACCESS_KEY};
use crate::trace::since_start;

pub use calls::{NORMAL_SKEW, SentCall};
use external_calls::LoggedCall;
use observations::{DescribeObservation, FirstDescribe, ObservedStream, TrustedDescribe};
pub use status::key_identity;

/// A violation of an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise of the design, P1 to P10.
    pub promise: &'static str,
    /// The details of the violation.
    pub details: String,
    /// The time of the violation.
    pub at: Timestamp,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {}: {}", self.promise, since_start(self.at), self.details)
    }
}

/// The last written status of a resource.
#[derive(Debug)]
struct LastStatus {
    /// The replica that wrote it.
    replica: usize,
    /// The time of the write.
    written_at: Timestamp,
    /// The time of the observation in it. It is [`Timestamp::MAX`] if the reported wait may have ended without the knowledge of
    /// this replica: another one had changed the ledger, or changes it in a reconcile that began before this write.
    observed_at: Timestamp,
}

/// The state of all checks.
#[derive(Debug, Default)]
pub struct Invariants {
    /// The first violation.
    pub violation: Option<Violation>,
    /// The number of writes to Kubernetes that changed an object, and of statuses sent.
    pub writes: u64,
    /// The number of Starts and Stops of the operator that AWS received.
    pub calls: u64,
    /// The limit of calls per stream in 24 hours.
    limit: usize,
    /// The calls that AWS counts, by stream and kind.
    counted_calls: BTreeMap<(AwsService, String, &'static str), VecDeque<Timestamp>>,
    /// The calls of other callers that AWS received, by the service and name of their stream.
    external_calls: BTreeMap<(AwsService, String), Vec<LoggedCall>>,
    /// The forged request ids that ledgers of a stream have held.
    forged_requests: BTreeMap<(AwsService, String), BTreeSet<String>>,
    /// The number of entries of AWS's log that have been read.
    log_entries_read: usize,
    /// The number of requests for streams that were checked against the policies.
    checked_requests: usize,
    /// The number of the operator's requests for streams in AWS's log.
    logged_requests: usize,
    /// The true time at which each entry was first stored, and the owner of the stream at that time; by
    /// ledger and id.
    reservations: BTreeMap<(String, String), (Timestamp, String)>,
    /// The entries whose call was sent.
    sent_calls: BTreeSet<(String, String)>,
    /// The sent entries whose call received no response: only a Describe can show the outcome.
    unanswered_calls: BTreeSet<(String, String)>,
    /// The time of the operator's last call for each stream.
    last_call: BTreeMap<String, Timestamp>,
    /// The observations of each stream by the operator.
    observed: BTreeMap<String, ObservedStream>,
    /// The start of each reconcile in progress, by task.
    pub reconcile_started: BTreeMap<usize, Timestamp>,
    /// The time since which the policies have been in effect that a reconcile last read from a cache, by
    /// task.
    pub cached_policies_since: BTreeMap<usize, Timestamp>,
    /// Whether a reconcile has read the live policies since it last waited for a permit of the rate limiter,
    /// by task.
    pub policies_read_since_permit: BTreeMap<usize, bool>,
    /// The observations of reconciles in progress that no status contains yet, by task.
    unreported: BTreeMap<usize, Vec<DescribeObservation>>,
    /// The replicas that may still remember a Describe of a stream, which no status contains, and which has shown an active
    /// key: the replica and the ARN.
    remembered_encrypted: BTreeSet<(usize, String)>,
    /// The first Describe of a process after the last call of a stream, by replica, uid of the resource and ARN.
    first_describes: BTreeMap<(usize, Option<String>, String), FirstDescribe>,
    /// The last Describe of each reconcile in progress that the operator must trust, by task.
    trusted: BTreeMap<usize, TrustedDescribe>,
    /// The time of the last external change that may shorten a wait.
    pub last_trigger: Timestamp,
    /// The time of the last change of each stream by another caller.
    pub external_changes: BTreeMap<String, Timestamp>,
    /// The last written status, by uid.
    last_status: BTreeMap<String, LastStatus>,
    /// The last write of each stream's ledger: the replica, the time, and the number of changes of all ledgers with it.
    pub ledger_writes: BTreeMap<String, (usize, Timestamp, usize)>,
    /// The number of changes of all ledgers that each reconcile's last read of a ledger included.
    pub ledgers_read: BTreeMap<usize, usize>,
    /// The requirements of each resource's live spec, with the time since which each holds, by uid.
    requirements: BTreeMap<String, Vec<(Timestamp, Requirement)>>,
    /// The time since which each unusable key is unusable, by ARN.
    pub unusable_since: BTreeMap<String, Timestamp>,
    /// The times at which clocks were set.
    pub clock_changes: Vec<Timestamp>,
    /// The time until which clocks differ more than usual.
    pub unusual_skew_until: Timestamp,
}

/// The requirements of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    start: RequiredStart,
    plaintext: bool,
}

/// The Start that a spec requires.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RequiredStart {
    /// No Start.
    None,
    /// A Start with a key that only AWS or another object identifies.
    AnyKey,
    /// A Start with this key.
    Key(KeyIdentity),
}

impl Invariants {
    /// Creates the checks of a run with this limit of calls.
    pub fn new(limit: u32) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            last_trigger: Timestamp::MIN,
            unusual_skew_until: Timestamp::MIN,
            ..Self::default()
        }
    }

    /// Adds the state of the checks between two reconciles, without mere counters.
    pub fn add_to_fingerprint(&self, add: &mut dyn FnMut(&dyn fmt::Debug)) {
        let Self {
            violation,
            writes: _,
            calls: _,
            limit: _,
            counted_calls,
            log_entries_read: _,
            checked_requests,
            logged_requests,
            ..
        } = self;
        let Self {
            reservations,
            sent_calls,
            unanswered_calls,
            last_call,
            observed,
            last_status,
            ledger_writes,
            ledgers_read,
            requirements,
            unusable_since,
            ..
        } = self;
        let Self {
            reconcile_started,
            cached_policies_since,
            unreported,
            remembered_encrypted,
            trusted,
            last_trigger,
            external_changes,
            clock_changes,
            unusual_skew_until,
            ..
        } = self;
        add(&(&self.policies_read_since_permit, &self.first_describes));
        add(&(violation, counted_calls, checked_requests.abs_diff(*logged_requests)));
        add(&(
            reservations,
            sent_calls,
            unanswered_calls,
            last_call,
            observed,
            last_status,
            ledger_writes,
            ledgers_read,
            requirements,
            unusable_since,
        ));
        add(&(
            reconcile_started,
            cached_policies_since,
            unreported,
            remembered_encrypted,
            trusted,
            last_trigger,
            external_changes,
            clock_changes,
            unusual_skew_until,
        ));
    }

    /// Records a violation, unless there was one already.
    pub fn record_violation(
        &mut self,
        promise: &'static str,
        at: Timestamp,
        details: impl FnOnce() -> String,
    ) {
        if self.violation.is_none() {
            self.violation = Some(Violation { promise, details: details(), at });
        }
    }

    /// Returns the time of the operator's last call for a stream.
    pub fn last_call(&self, stream: &str) -> Option<Timestamp> {
        self.last_call.get(stream).copied()
    }

    /// Returns the true time at which the last entry of a stream's ledger was first stored.
    fn last_reservation(&self, arn: &str) -> Option<Timestamp> {
        let of_stream = self.reservations.iter().filter(|((stream, _), _)| stream == arn);
        of_stream.map(|(_, (at, _))| *at).max()
    }

    /// Returns whether a call of the ledger has a wrong date because the clock was set after the Describe
    /// that had proved the clock right. A wrong date without such a change means that there was no Describe.
    pub fn has_call_dated_after_clock_change(&self, ledger: &StreamLedgerSpec) -> bool {
        ledger.calls.iter().any(|call| {
            let reserved = self.reservations.get(&(ledger.stream_arn.clone(), call.id.clone()));
            reserved.is_some_and(|(reserved, _)| {
                call.at().duration_since(*reserved) > MAX_CLOCK_SKEW && self.clock_changed_recently(*reserved)
            })
        })
    }

    /// Returns whether a clock was set within the preceding minute.
    fn clock_changed_recently(&self, at: Timestamp) -> bool {
        self.clock_changes
            .iter()
            .any(|set| *set <= at && at.duration_since(*set) < SignedDuration::from_mins(1))
    }

    /// Reads the new entries of AWS's log. P1: counts the calls. P8: every request of the operator was
    /// checked against the policies.
    pub fn check_log(&mut self, world: &World) {
        let calls = world.calls();
        for call in &calls[self.log_entries_read.min(calls.len())..] {
            self.check_log_entry(call);
        }
        self.log_entries_read = calls.len();
        if self.logged_requests > self.checked_requests {
            let now = calls.last().map_or(Timestamp::MIN, |call| call.time);
            self.record_violation("P8", now, || {
                "AWS received a request that was not checked against the policies".to_owned()
            });
        }
    }

    fn check_log_entry(&mut self, call: &AwsCall) {
        self.record_external_call(call);
        let is_own = [OPERATOR_ACCESS_KEY, FOREIGN_ACCESS_KEY].contains(&call.principal.access_key.as_str());
        // A request to KMS may be part of a Describe.
        let is_for_stream = !matches!(call.operation.as_str(), "GetCallerIdentity" | "DescribeKey");
        // A delayed request has two entries in the log: one when it is sent, and one when it arrives.
        let is_in_flight = call.fault.as_deref() == Some("Late") && call.outcome == "RequestLost";
        self.logged_requests += usize::from(is_own && is_for_stream && !is_in_flight);
        let writes = call.changes_encryption() || call.operation == "PutRecord";
        if !is_own || !writes {
            return;
        }
        // Even if its credentials have changed since the Describe that showed the stream's account.
        if call.account != ACCOUNT {
            self.record_violation("P8", call.time, || {
                format!("{} on {} of account {}", call.operation, call.target, call.account)
            });
        }
        if !call.changes_encryption() {
            return;
        }
        let is_start = call.operation.starts_with("Start");
        let (kind, is_counted) = match call.service {
            AwsService::Firehose => ("call", call.outcome != "RequestLost"),
            _ => (if is_start { "Start" } else { "Stop" }, call.counted),
        };
        if !is_counted {
            return;
        }
        self.calls += 1;
        let recent = self.counted_calls.entry((call.service, call.target.clone(), kind)).or_default();
        while recent.front().is_some_and(|first| call.time.duration_since(*first) >= DAY) {
            recent.pop_front();
        }
        recent.push_back(call.time);
        if recent.len() > self.limit {
            let (count, limit) = (recent.len(), self.limit);
            self.record_violation("P1", call.time, || {
                format!("{count} {kind}s of {} in 24 hours, but only {limit} are allowed", call.target)
            });
        }
    }

    /// P10: checks that an entry that AWS still counts is unchanged, except that an open entry may get an
    /// outcome.
    pub fn check_ledger_change(
        &mut self,
        before: Option<&StreamLedgerSpec>,
        after: Option<&StreamLedgerSpec>,
        now: Timestamp,
    ) {
        self.check_external_calls(before, after, now);
        for call in after.iter().flat_map(|ledger| &ledger.calls) {
            let key = (after.map_or(String::new(), |ledger| ledger.stream_arn.clone()), call.id.clone());
            self.reservations
                .entry(key)
                .or_insert_with(|| (now, after.map_or(String::new(), |ledger| ledger.owner.uid.clone())));
        }
        let Some(before) = before else { return };
        for call in &before.calls {
            let key = (before.stream_arn.clone(), call.id.clone());
            let reserved = self.reservations.get(&key).map_or(now, |(at, _)| *at);
            let kept = after.and_then(|ledger| ledger.calls.iter().find(|kept| kept.id == call.id));
            match kept {
                Some(kept) if kept.time != call.time || kept.target != call.target => {
                    self.record_violation("P10", now, || format!("entry {} was rewritten", call.id));
                }
                Some(kept) if !is_valid_outcome_change(call.outcome, kept.outcome) => {
                    self.record_violation("P10", now, || {
                        format!("entry {} changed from {:?} to {:?}", call.id, call.outcome, kept.outcome)
                    });
                }
                // A call that was refused may no longer count, so a wait for the limit may be shortened.
                Some(kept) if kept.outcome != call.outcome && kept.outcome == Outcome::Refused => {
                    self.last_trigger = now;
                }
                // AWS refuses a call with a wrong date, so such an entry never counted.
                None if now.duration_since(reserved) < DAY
                    && reserved.duration_since(call.at()).abs() <= MAX_CLOCK_SKEW =>
                {
                    self.record_violation("P10", now, || {
                        format!(
                            "entry {} was dropped {:#} after its creation",
                            call.id,
                            now.duration_since(reserved)
                        )
                    });
                }
                Some(_) | None => {}
            }
        }
    }

    /// Records the requirements of a resource from now on.
    pub fn record_spec(&mut self, resource: &StreamEncryption, deleted: bool, now: Timestamp) {
        let requirement = if deleted {
            Requirement { start: RequiredStart::None, plaintext: false }
        } else {
            Requirement { start: required_start(resource), plaintext: requires_plaintext(resource) }
        };
        let history = self.requirements.entry(resource.metadata.uid.clone().unwrap_or_default()).or_default();
        if history.last().is_none_or(|(_, last)| *last != requirement) {
            history.push((now, requirement));
        }
    }

    /// Returns whether the spec of this resource has required this call at any time since then: a Start with
    /// this key, or a Stop.
    fn required_since(&self, uid: &str, key: Option<&KeyIdentity>, since: Timestamp) -> bool {
        let history = self.requirements.get(uid).map_or(&[][..], Vec::as_slice);
        // The spec in effect at that time counts as well.
        let first = history.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        history[first..].iter().any(|(_, requirement)| match (key, &requirement.start) {
            (None, _) => requirement.plaintext,
            (Some(_), RequiredStart::None) => false,
            (Some(_), RequiredStart::AnyKey) => true,
            (Some(key), RequiredStart::Key(required)) => required == key,
        })
    }
}

fn is_valid_outcome_change(before: Outcome, after: Outcome) -> bool {
    before == after
        || match before {
            Outcome::Pending => true,
            Outcome::Unknown => after == Outcome::Accepted,
            Outcome::Accepted | Outcome::Refused => false,
        }
}

fn required_start(resource: &StreamEncryption) -> RequiredStart {
    let spec = &resource.spec;
    let is_passive = spec.suspend || spec.mode == Mode::Observe || spec.encryption == Encryption::Disabled;
    if is_passive || resource.metadata.deletion_timestamp.is_some() {
        return RequiredStart::None;
    }
    match &spec.key {
        None => RequiredStart::Key(Key::AwsOwned.to_api()),
        Some(key) => match (key.kind, &key.arn) {
            (KeyType::AwsOwned, _) => RequiredStart::Key(Key::AwsOwned.to_api()),
            (KeyType::CustomerManaged, Some(arn)) => {
                RequiredStart::Key(KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.clone()) })
            }
            (KeyType::CustomerManaged, None) => RequiredStart::AnyKey,
        },
    }
}

fn requires_plaintext(resource: &StreamEncryption) -> bool {
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
