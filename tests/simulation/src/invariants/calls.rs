//! P2, P3, P7, P8 and P9: checks each Start and Stop that reaches AWS. The call must have a ledger entry, be
//! required by the live spec, concern the operator's own stream and key, be the only open call, and respect
//! the reported wait.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::{ConditionType, Reason, find};
use stream_encryption_api::ledger::{Action, Call, Outcome, StreamLedgerSpec, Target};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::ledger::{self, MAX_CLOCK_SKEW, READ_LAG, external};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::profile;

use crate::environment::{Process, State};
use crate::policies::Access;
use crate::trace::since_start;

/// Maximum normal error of a clock; beyond it only the limit of calls is guaranteed.
pub const NORMAL_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Maximum age of the spec at the reservation of a call that is based on it: the live read, and the write
/// after it.
const MAX_SPEC_AGE: SignedDuration = SignedDuration::from_secs(40);

/// A Start or Stop.
#[derive(Clone, Copy, Debug)]
pub struct SentCall<'a> {
    /// The process that sends it.
    pub process: Process,
    /// The principal, including the resource on whose behalf it acts.
    pub principal: &'a Principal,
    pub stream: &'a StreamArn,
    /// Start or Stop.
    pub action: Action,
    pub key: Option<&'a Key>,
    /// The time of its reservation in the ledger.
    pub reserved: Timestamp,
}

impl State {
    /// P8: checks that the policies have allowed a read to the reconcile's namespace since the reconcile
    /// began, or since the change of the policies that its cache last returned.
    pub fn check_access(&mut self, principal: &Principal, stream: &StreamArn, access: &Access<'_>) {
        let since = self.reconcile_began().min(self.cached_policies_since());
        self.check_access_since(since, principal, stream, access);
    }

    /// P8: checks that the policies have allowed a write to the reconcile's namespace since the reconcile
    /// began.
    pub fn check_live_access(&mut self, principal: &Principal, stream: &StreamArn, access: &Access<'_>) {
        let since = self.reconcile_began();
        self.check_access_since(since, principal, stream, access);
    }

    /// P8: checks that the reconcile has waited for a permit, and has read the live policies after that wait.
    pub fn check_policies_read_after_permit(&mut self, request: &str) {
        if self.invariants.policies_read_since_permit.get(&self.current_task.task) != Some(&true) {
            let now = self.now;
            self.invariants.record_violation("P8", now, || {
                format!("{request}, although the policies were not read after the wait for a permit")
            });
        }
    }

    fn check_access_since(
        &mut self,
        since: Timestamp,
        principal: &Principal,
        stream: &StreamArn,
        access: &Access<'_>,
    ) {
        self.invariants.checked_requests += usize::from(!matches!(access, Access::DescribeKey(_)));
        // The cleanup of ledgers has no resource, and needs no request for a stream.
        let (namespace, name) = self.current_task.name.clone().unwrap_or_default();
        if principal.resource != name
            || !self.policies.allowed_since(since, &namespace, principal, stream, access)
        {
            let now = self.now;
            self.invariants.record_violation("P8", now, || {
                format!(
                    "{access:?} of {stream} for {namespace}/{name} as {principal:?}, which no policy allows"
                )
            });
        }
    }

    /// P2, P3, P7, P8, P9: checks a Start or Stop that has just reached AWS.
    pub fn check_call(&mut self, sent: &SentCall<'_>, response: &Result<Accepted, AwsError>) {
        let SentCall { process, principal, stream, action, key, reserved } = *sent;
        let now = self.now;
        let resource = self.current_task.name.as_ref().and_then(|name| self.store.resource(name));
        let uid = resource.and_then(|resource| resource.metadata.uid.clone()).unwrap_or_default();
        self.statistics.calls += 1;
        self.trace.record(now, || {
            let response = match response {
                Ok(_) => "accepted".to_owned(),
                Err(error) => format!("{:?} {:?}", error.kind, error.code),
            };
            let key = key.map(ToString::to_string).unwrap_or_default();
            format!(
                "AWS receives {action:?} of {} with {key} from operator {}: {response}",
                stream.name(),
                process.replica
            )
        });
        let arn = stream.to_string();
        let target = Target { action, key: key.map(Key::to_api) };
        let Some(ledger) = self.store.ledger(&ledger::name(stream)).cloned() else {
            self.invariants
                .record_violation("P2", now, || format!("{action:?} of {stream} without a ledger"));
            return;
        };
        let is_entry = |call: &&Call| {
            call.at() == reserved
                && call.target == target
                && !self.invariants.sent_calls.contains(&(arn.clone(), call.id.clone()))
        };
        let Some(entry) = ledger.spec.calls.iter().find(is_entry).cloned() else {
            self.invariants.record_violation("P2", now, || {
                format!("{action:?} of {stream} without an entry in its ledger")
            });
            return;
        };
        self.invariants.sent_calls.insert((arn.clone(), entry.id.clone()));
        self.invariants.last_call.insert(arn.clone(), now);
        let reservation = self.invariants.reservations.get(&(arn.clone(), entry.id.clone())).cloned();
        let (reserved_at, owner) = reservation.unwrap_or((now, ledger.spec.owner.uid.clone()));
        let is_prompt = now.duration_since(reserved_at) < SignedDuration::from_secs(10);
        // The stream may have got another owner while the call was in flight.
        let owner_exists = self.store.resource_by_uid(&owner).is_some();
        if is_prompt && owner_exists && !uid.is_empty() && owner != uid {
            self.invariants.record_violation("P3", now, || {
                format!("{action:?} of {stream} for {uid}, but its owner was {owner}")
            });
        }
        let unanswered = &self.invariants.unanswered_calls;
        let is_open = |other: &Call| match other.outcome {
            Outcome::Pending | Outcome::Unknown => true,
            // The ledger must not record a call without a response as refused.
            Outcome::Refused => unanswered.contains(&(arn.clone(), other.id.clone())),
            Outcome::Accepted => false,
        };
        let open =
            ledger.spec.calls.iter().find(|other| {
                other.id != entry.id && is_open(other) && other.at() + MAX_CLOCK_SKEW > reserved
            });
        // While the operator's own call may still arrive, a change by another caller may be mistaken for its
        // effect.
        let may_be_mistaken =
            self.invariants.external_changes.get(&arn).is_some_and(|changed| *changed >= reserved);
        if let Some(open) = open
            && now >= self.invariants.unusual_skew_until
            && !may_be_mistaken
        {
            self.invariants.record_violation("P3", now, || {
                format!("{action:?} of {stream} while call {} is still open", open.id)
            });
        }
        self.check_last_call_was_given_time(stream, &ledger.spec, &entry);
        if matches!(response, Err(error) if error.kind == ErrorKind::LimitReached) {
            self.check_refusal_by_limit(stream, &ledger.spec);
        }
        if matches!(response, Err(error) if error.kind == ErrorKind::UnknownOutcome) {
            self.invariants.unanswered_calls.insert((arn.clone(), entry.id.clone()));
        }
        // AWS counts a call at its arrival, the ledger at its reservation.
        if now.duration_since(reserved).abs() > MAX_CLOCK_SKEW {
            self.invariants.record_violation("P1", now, || {
                format!(
                    "{action:?} of {stream} reaches AWS {:#} after its reservation time",
                    now.duration_since(reserved)
                )
            });
        }
        let since = reserved_at - MAX_SPEC_AGE;
        // The resource may have been deleted and the stream claimed by another resource while the call was in
        // flight.
        if !self.invariants.required_since(&owner, target.key.as_ref(), since) {
            self.invariants.record_violation("P7", now, || {
                format!("{action:?} of {stream} with {:?}, which the spec does not require", target.key)
            });
        }
        // An unusable key must consume no calls.
        if let Some(Key::Customer(key)) = key
            && self.invariants.unusable_since.get(&key.to_string()).is_some_and(|unusable| *unusable < since)
        {
            self.invariants.record_violation("P7", now, || {
                format!("{action:?} of {stream} with {key}, which is unusable")
            });
        }
        // P8: a permission that was revoked before the reservation must not be used.
        self.check_access_since(since, principal, stream, &key.map_or(Access::Stop, Access::Start));
        self.check_reported_wait(&uid, stream, reserved_at);
    }

    /// P3: checks that a call does not follow another one that AWS has accepted, until its effect was observed or AWS can have
    /// reported it: whatever the clocks of the replicas show.
    fn check_last_call_was_given_time(
        &mut self,
        stream: &StreamArn,
        ledger: &StreamLedgerSpec,
        entry: &Call,
    ) {
        let now = self.now;
        let mut earlier = ledger.calls.iter().rev().skip_while(|other| other.id != entry.id).skip(1);
        let Some(last) = earlier.find(|other| other.outcome != Outcome::Refused) else { return };
        let arn = stream.to_string();
        // A change by another caller, which failed, shows a state after the call.
        let changed = self.invariants.external_changes.get(&arn).copied().unwrap_or(Timestamp::MIN);
        let reserved = self.invariants.reservations.get(&(arn, last.id.clone()));
        let is_too_early = reserved.is_some_and(|(at, _)| now < *at + READ_LAG && changed < *at);
        if is_too_early
            && last.outcome == Outcome::Accepted
            && !last.confirmed
            && now >= self.invariants.unusual_skew_until
        {
            let id = last.id.clone();
            self.invariants.record_violation("P3", now, || {
                format!("a call on {stream} less than 30 s after call {id}, whose effect was not observed")
            });
        }
    }

    /// Returns whether the ledger holds more calls of others than AWS can have accepted.
    fn are_claimed_calls_too_many(&self, stream: &StreamArn) -> bool {
        let ledger = self.store.ledgers().find(|ledger| ledger.spec.stream_arn == stream.to_string());
        let claimed = ledger.iter().flat_map(|ledger| &ledger.spec.external_calls);
        let counted = claimed.filter(|call| external::may_have_used_limit(call.code.as_deref())).count();
        u32::try_from(counted).unwrap_or(u32::MAX) > profile(stream.service).calls_per_day
    }

    /// P9: ends the check of a reported wait if this change of the ledger allows an earlier call, and its reconcile could not know
    /// the status with the wait: another replica has written the status meanwhile. The reconcile has found the key unusable,
    /// with which the wait for a new attempt ends. Its own status conflicts with the other one, so nothing reports that.
    pub fn end_superseded_wait(
        &mut self,
        before: Option<&StreamLedgerSpec>,
        after: &StreamLedgerSpec,
        process: Process,
    ) {
        let was_unusable = |ledger: &StreamLedgerSpec| {
            ledger.attempts.as_ref().is_some_and(|attempts| attempts.key_was_unusable)
        };
        if before.is_some_and(was_unusable) || !was_unusable(after) {
            return;
        }
        let (began, oldest) = (self.reconcile_began(), self.now - MAX_SPEC_AGE);
        if let Some(status) = self.invariants.last_status.get_mut(&after.owner.uid)
            && status.replica != process.replica
            && (oldest..status.written_at).contains(&began)
        {
            status.observed_at = Timestamp::MAX;
        }
    }

    /// P9: checks that the operator keeps to a reported wait, unless an event since then justifies an earlier
    /// call.
    fn check_reported_wait(&mut self, uid: &str, stream: &StreamArn, reserved_at: Timestamp) {
        let now = self.now;
        let Some(resource) = self.store.resource_by_uid(uid) else { return };
        let Some(status) = &resource.status else { return };
        let Some(next) = status.next_attempt_time.as_ref() else { return };
        // With one more event, the operator may notice that AWS cannot have counted all of these calls: some events are forged,
        // or report calls that AWS may have applied although its response was an error. Fewer calls count then.
        if self.messages.are_some_forged || self.are_claimed_calls_too_many(stream) {
            return;
        }
        // A wait for a lost response ends as soon as AWS shows the effect of the call.
        let reason = find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.as_str());
        if reason == Some(Reason::OutcomeUnknown.as_str()) {
            return;
        }
        let observed_at =
            self.invariants.last_status.get(uid).map_or(Timestamp::MIN, |last| last.observed_at);
        let is_undisturbed = observed_at < reserved_at
            && self.invariants.last_trigger < observed_at
            && self.invariants.external_changes.get(&stream.to_string()).is_none_or(|at| *at < observed_at)
            && now >= self.invariants.unusual_skew_until;
        if is_undisturbed
            && status.observed_generation == resource.metadata.generation
            && next.0 > now + NORMAL_SKEW + NORMAL_SKEW
        {
            let next = next.0;
            self.invariants.record_violation("P9", now, || {
                format!(
                    "a call for {stream} now, but the status reports the next attempt at {}",
                    since_start(next)
                )
            });
        }
    }
}
