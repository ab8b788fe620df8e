//! P2, P3, P7, P8, P9: each Start and Stop that reaches AWS. It must stand in the ledger, be asked for by the live spec, be of the
//! operator's own stream and key, be alone, and not come before its time.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_operator::api::condition::{ConditionType, Reason, find};
use stream_encryption_operator::api::ledger::{Action, Call, Outcome, Target};
use stream_encryption_operator::model::fault::{Class, Fault};
use stream_encryption_operator::model::key::Key;
use stream_encryption_operator::model::ledger::{self, ARRIVAL};
use stream_encryption_operator::model::principal::Principal;
use stream_encryption_operator::model::stream::StreamArn;

use crate::policies::Act;
use crate::scene::{Process, State};
use crate::story::since_begin;

/// Up to here clocks are said to differ; beyond it only the safety of the count is promised.
pub const USUAL_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How much older than its reservation the spec may be that a call follows: the live read, and the write that comes after it.
const LIVE: SignedDuration = SignedDuration::from_secs(40);

/// A Start or Stop.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Who sends it.
    pub by: Process,
    /// With whose rights, and for which resource.
    pub as_whom: &'a Principal,
    /// Of which stream.
    pub stream: &'a StreamArn,
    /// Start or Stop.
    pub action: Action,
    /// With which key.
    pub key: Option<&'a Key>,
    /// As of when the ledger holds it.
    pub reserved: Timestamp,
}

impl State {
    /// P8: a visit asks AWS of nothing that no policy has allowed its namespace since it began.
    pub fn causes(&mut self, as_whom: &Principal, stream: &StreamArn, act: &Act<'_>) {
        let since = self.visit_began();
        self.causes_since(since, as_whom, stream, act);
    }

    fn causes_since(&mut self, since: Timestamp, as_whom: &Principal, stream: &StreamArn, act: &Act<'_>) {
        self.promises.judged += usize::from(!matches!(act, Act::Ask(_)));
        // Ledgers are looked after for no resource, and nothing of a stream is asked for that.
        let (namespace, name) = self.polled.name.clone().unwrap_or_default();
        if as_whom.resource != name || !self.policies.allowed_since(since, &namespace, as_whom, stream, act) {
            let now = self.now;
            self.promises.break_with("P8", now, || {
                format!("{act:?} of {stream} for {namespace}/{name} as {as_whom:?}, which no policy allows")
            });
        }
    }

    /// P2, P3, P7, P8, P9: a Start or Stop that has just reached AWS.
    pub fn sent(&mut self, sent: &Sent<'_>, answer: &Result<(), Fault>) {
        let Sent { by, as_whom, stream, action, key, reserved } = *sent;
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
        self.promises.called.insert(arn.clone(), now);
        let stored = self.promises.stored.get(&(arn.clone(), entry.id.clone())).cloned();
        let (reserved_at, owner) = stored.unwrap_or((now, ledger.spec.owner.uid.clone()));
        let prompt = now.duration_since(reserved_at) < SignedDuration::from_secs(10);
        // The stream may have been handed over while the call was under way.
        let owner_is_alive = self.store.resource_by_uid(&owner).is_some();
        if prompt && owner_is_alive && !uid.is_empty() && owner != uid {
            self.promises
                .break_with("P3", now, || format!("{action:?} of {stream} for {uid}, and {owner} owned it"));
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
        // Somebody else's change is taken for what came of the operator's own call, while that may still arrive.
        let mistaken = self.promises.touched.get(&arn).is_some_and(|touched| *touched >= reserved);
        if let Some(open) = open
            && now >= self.promises.wild_until
            && !mistaken
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
        // The resource may have gone while the call was under way, and the stream been taken over.
        if !self.promises.asked_since(&owner, target.key.as_ref(), since) {
            self.promises.break_with("P7", now, || {
                format!("{action:?} of {stream} with {:?}, and the spec does not ask for it", target.key)
            });
        }
        // What cannot work costs no call.
        if let Some(Key::Customer(key)) = key
            && self.promises.unusable.get(&key.to_string()).is_some_and(|broken| *broken < since)
        {
            self.promises
                .break_with("P7", now, || format!("{action:?} of {stream} with {key}, which cannot be used"));
        }
        // P8: what was taken away before the reservation is not used any more.
        self.causes_since(since, as_whom, stream, &key.map_or(Act::Stop, Act::Start));
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
}
