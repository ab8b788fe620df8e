//! P2, P3, P7, P8 and P9: checks each Start and Stop that reaches AWS. The call must have a ledger entry, be
//! required by the live spec, concern the operator's own stream and key, be the only open call, and respect
//! the reported wait.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::{ConditionType, Reason, find};
use stream_encryption_api::ledger::{Action, Call, Outcome, Target};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::ledger::{self, MAX_CLOCK_SKEW};
use stream_encryption_core::model::principal::Principal;

use crate::environment::{Process, State};
use crate::policies::Act;
use crate::trace::since_begin;

/// Maximum usual error of a clock; beyond it only the limit of calls is guaranteed.
pub const USUAL_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Maximum age of the spec at the reservation of a call that is based on it: the live read, and the write
/// after it.
const LIVE: SignedDuration = SignedDuration::from_secs(40);

/// A Start or Stop.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The process that sends it.
    pub by: Process,
    /// The principal, including the resource on whose behalf it acts.
    pub as_whom: &'a Principal,
    pub stream: &'a StreamArn,
    /// Start or Stop.
    pub action: Action,
    pub key: Option<&'a Key>,
    /// The time of its reservation in the ledger.
    pub reserved: Timestamp,
}

impl State {
    /// P8: checks that the policies have allowed a read to the reconcile's namespace since the reconcile began,
    /// or since the change of the policies that its cache showed last.
    pub fn causes(&mut self, as_whom: &Principal, stream: &StreamArn, act: &Act<'_>) {
        let since = self.reconcile_began().min(self.policies_shown());
        self.causes_since(since, as_whom, stream, act);
    }

    /// P8: checks that the policies have allowed a write to the reconcile's namespace since the reconcile
    /// began.
    pub fn causes_live(&mut self, as_whom: &Principal, stream: &StreamArn, act: &Act<'_>) {
        let since = self.reconcile_began();
        self.causes_since(since, as_whom, stream, act);
    }

    /// P8: checks that the reconcile has waited for a permit, and has read the live policies after that wait.
    pub fn is_checked_after_permit(&mut self, what: &str) {
        if self.promises.read_since_permit.get(&self.polled.task) != Some(&true) {
            let now = self.now;
            self.promises.break_with("P8", now, || {
                format!("{what}, although the policies were not read after the wait for a permit")
            });
        }
    }

    fn causes_since(&mut self, since: Timestamp, as_whom: &Principal, stream: &StreamArn, act: &Act<'_>) {
        self.promises.judged += usize::from(!matches!(act, Act::Ask(_)));
        // The cleanup of ledgers has no resource, and needs no request for a stream.
        let (namespace, name) = self.polled.name.clone().unwrap_or_default();
        if as_whom.resource != name || !self.policies.allowed_since(since, &namespace, as_whom, stream, act) {
            let now = self.now;
            self.promises.break_with("P8", now, || {
                format!("{act:?} of {stream} for {namespace}/{name} as {as_whom:?}, which no policy allows")
            });
        }
    }

    /// P2, P3, P7, P8, P9: checks a Start or Stop that has just reached AWS.
    pub fn sent(&mut self, sent: &Sent<'_>, answer: &Result<(), AwsError>) {
        let Sent { by, as_whom, stream, action, key, reserved } = *sent;
        let now = self.now;
        let asking = self.polled.name.as_ref().and_then(|name| self.store.resource(name));
        let uid = asking.and_then(|resource| resource.metadata.uid.clone()).unwrap_or_default();
        self.tally.calls += 1;
        self.story.tell(now, || {
            let answer = match answer {
                Ok(()) => "accepted".to_owned(),
                Err(fault) => format!("{:?} {:?}", fault.kind, fault.code),
            };
            let key = key.map(ToString::to_string).unwrap_or_default();
            format!(
                "AWS receives {action:?} of {} with {key} from operator {}: {answer}",
                stream.name(),
                by.replica
            )
        });
        let arn = stream.to_string();
        let target = Target { action, key: key.map(Key::to_api) };
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
        self.promises.called.insert(arn.clone(), now);
        let stored = self.promises.stored.get(&(arn.clone(), entry.id.clone())).cloned();
        let (reserved_at, owner) = stored.unwrap_or((now, ledger.spec.owner.uid.clone()));
        let prompt = now.duration_since(reserved_at) < SignedDuration::from_secs(10);
        // The stream may have got another owner while the call was in flight.
        let owner_is_alive = self.store.resource_by_uid(&owner).is_some();
        if prompt && owner_is_alive && !uid.is_empty() && owner != uid {
            self.promises.break_with("P3", now, || {
                format!("{action:?} of {stream} for {uid}, but its owner was {owner}")
            });
        }
        let unanswered = &self.promises.unanswered;
        let is_open = |other: &Call| match other.outcome {
            Outcome::Pending | Outcome::Unknown => true,
            // The ledger must not record a call without an answer as refused.
            Outcome::Refused => unanswered.contains(&(arn.clone(), other.id.clone())),
            Outcome::Accepted => false,
        };
        let open =
            ledger.spec.calls.iter().find(|other| {
                other.id != entry.id && is_open(other) && other.at() + MAX_CLOCK_SKEW > reserved
            });
        // While the operator's own call may still arrive, a change by another caller may be mistaken for its
        // effect.
        let mistaken = self.promises.touched.get(&arn).is_some_and(|touched| *touched >= reserved);
        if let Some(open) = open
            && now >= self.promises.wild_until
            && !mistaken
        {
            self.promises.break_with("P3", now, || {
                format!("{action:?} of {stream} while call {} is still open", open.id)
            });
        }
        if matches!(answer, Err(fault) if fault.kind == ErrorKind::UnknownOutcome) {
            self.promises.unanswered.insert((arn.clone(), entry.id.clone()));
        }
        // AWS counts a call at its arrival, the ledger at its reservation.
        if now.duration_since(reserved).abs() > MAX_CLOCK_SKEW {
            self.promises.break_with("P1", now, || {
                format!(
                    "{action:?} of {stream} reaches AWS {:#} after its reservation time",
                    now.duration_since(reserved)
                )
            });
        }
        let since = reserved_at - LIVE;
        // The resource may have been deleted and the stream claimed by another resource while the call was in
        // flight.
        if !self.promises.asked_since(&owner, target.key.as_ref(), since) {
            self.promises.break_with("P7", now, || {
                format!("{action:?} of {stream} with {:?}, which the spec does not require", target.key)
            });
        }
        // An unusable key must consume no calls.
        if let Some(Key::Customer(key)) = key
            && self.promises.unusable.get(&key.to_string()).is_some_and(|broken| *broken < since)
        {
            self.promises
                .break_with("P7", now, || format!("{action:?} of {stream} with {key}, which is unusable"));
        }
        // P8: a permission that was revoked before the reservation must not be used.
        self.causes_since(since, as_whom, stream, &key.map_or(Act::Stop, Act::Start));
        self.called_before_its_time(&uid, stream, reserved_at);
    }

    /// P9: checks that the operator keeps to a reported wait, unless an event since then justifies an earlier
    /// call.
    fn called_before_its_time(&mut self, uid: &str, stream: &StreamArn, reserved_at: Timestamp) {
        let now = self.now;
        let Some(resource) = self.store.resource_by_uid(uid) else { return };
        let Some(status) = &resource.status else { return };
        let Some(next) = status.next_attempt_time.as_ref() else { return };
        // A wait for a lost answer ends as soon as AWS shows the effect of the call.
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
                    "a call for {stream} now, but the status reports the next attempt at {}",
                    since_begin(next)
                )
            });
        }
    }
}
