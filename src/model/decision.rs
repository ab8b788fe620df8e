//! The decision: what to do about one stream now, and what to say of it.
//!
//! [`decide`] is one table, read from the top; the first row that matches wins. It is total and pure: everything that
//! is uncertain is in its input. It never calls, writes or waits; it only says what should be done.

use jiff::{SignedDuration, Timestamp};

use super::backoff;
use super::fault::Fault;
use super::key::{Key, KeyProblem};
use super::ledger::{self, Budget, Reservation, later};
use super::observation::Observation;
use super::permission::{Permission, Refusal};
use super::stream::StreamArn;
use crate::api::condition::Reason;
use crate::api::ledger::{Action, Attempts, Outcome, StreamLedgerSpec, Target};
use crate::api::stream_encryption::{Drift, Service};

/// How long AWS takes, after it says ENABLED or DISABLED, until that holds for all records
/// ([Firehose](https://docs.aws.amazon.com/firehose/latest/dev/encryption.html)).
pub const SETTLE: SignedDuration = SignedDuration::from_secs(5);
/// Firehose makes no grant with a session older than 6 hours; the rest is for the call to arrive.
pub const OLDEST_SESSION: SignedDuration = SignedDuration::from_mins(5 * 60 + 45);
/// Corrections in 24 hours before the operator stops fighting with whoever changes the stream.
pub const MOST_CORRECTIONS: usize = 3;

/// What a resource asks for, resolved.
#[allow(clippy::struct_excessive_bools, reason = "each is a question of its own to the spec")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The encryption.
    pub wanted: Wanted,
    /// Why the key asked for cannot be used, if it cannot.
    pub key_problem: Option<KeyProblem>,
    /// What to do about drift.
    pub drift: Drift,
    /// Whether to keep the hands off.
    pub suspended: bool,
    /// Whether deleting the resource turns encryption off.
    pub disable_on_deletion: bool,
    /// Whether it is being deleted, and waits for encryption to be off.
    pub deleting: bool,
    /// Whether a record is to be written as a proof.
    pub verify: bool,
    /// When the last proof succeeded.
    pub verified: Option<Timestamp>,
    /// The value of the retry annotation.
    pub retry: Option<String>,
    /// The alias or the object that the spec names the key by, if it does not name the key itself.
    pub key_name: Option<String>,
}

impl Intent {
    /// Returns why policies refuse what is asked for of the stream, if they do.
    pub fn permitted(&self, permission: &Permission, stream: &StreamArn) -> Result<(), Refusal> {
        permission.stream(stream)?;
        if self.wanted == Wanted::Off || self.disable_on_deletion {
            permission.disable(stream)?;
        }
        match &self.wanted {
            Wanted::Key(key) => permission.key(stream, key),
            // It is what a plain-text stream would get.
            Wanted::AnyKey => permission.key(stream, &Key::AwsOwned),
            Wanted::UnknownKey if self.key_problem == Some(KeyProblem::NotPermitted) => Err(Refusal::Key),
            Wanted::UnknownKey | Wanted::Off => Ok(()),
        }
    }
}

/// The encryption that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Encrypted, with whatever key; a plain-text stream gets the AWS-owned one.
    AnyKey,
    /// Encrypted with this key.
    Key(Key),
    /// Encrypted with a key that cannot be told yet; `key_problem` says why.
    UnknownKey,
    /// Plain text.
    Off,
}

impl Wanted {
    /// As the ledger writes it; nothing while the key is not known.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::AnyKey => Some(Target { action: Action::Start, key: None }),
            Self::Key(key) => Some(key.target()),
            Self::UnknownKey => None,
            Self::Off => Some(Target { action: Action::Stop, key: None }),
        }
    }
}

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This resource's, or nobody's yet.
    Own,
    /// Another resource's.
    Another,
    /// The ledger cannot be read or believed.
    Unreadable,
}

/// What is known of the stream.
#[derive(Clone, Debug)]
pub enum Seen<'a> {
    /// Nobody has looked yet.
    NotYet,
    /// AWS could not be asked.
    Failed(&'a Fault),
    /// It was looked at.
    At(Timestamp, &'a Observation),
}

/// Everything that a decision depends on.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Now.
    pub now: Timestamp,
    /// The stream.
    pub stream: &'a StreamArn,
    /// What is asked for.
    pub intent: &'a Intent,
    /// What is allowed.
    pub permission: &'a Permission,
    /// Whose stream it is.
    pub ownership: Ownership,
    /// The name of the resource that owns the stream, if that is another one of the same namespace.
    pub other_owner: Option<&'a str>,
    /// The ledger, after it learned from what was seen.
    pub ledger: &'a StreamLedgerSpec,
    /// What is known of the stream.
    pub seen: Seen<'a>,
    /// What is wrong with the active key, if records are lost with it.
    pub active_key_problem: Option<KeyProblem>,
    /// How old the session is, at least.
    pub session_age: Option<SignedDuration>,
    /// The reason given last, and since when: waits grow while it stays.
    pub waiting: Option<(Reason, Timestamp)>,
    /// How often to look for drift.
    pub drift_interval: SignedDuration,
}

/// What to do, what to say, and when to be back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// What to say. [`super::message`] has the words.
    pub reason: Reason,
    /// When to decide again.
    pub wake: Timestamp,
    /// Until when what was seen is good enough to decide again without a call.
    pub look_due: Timestamp,
    /// When AWS will be called again, where that is what it waits for.
    pub next_attempt: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look at the stream, then decide again.
    Look,
    /// Nothing.
    Rest,
    /// Call Start or Stop, once.
    Call(Reservation),
    /// Write one record and read whether it was encrypted.
    Verify,
    /// Let the deleted resource go.
    Release,
}

/// The budget for what the intent would call.
#[must_use]
pub fn budget(i: &Input<'_>) -> Budget {
    let action = if i.intent.wanted == Wanted::Off { Action::Stop } else { Action::Start };
    let limit = i.permission.max_calls_per_day(i.stream);
    ledger::budget(&i.ledger.calls, i.stream.service, action, limit, i.now)
}

/// Decides. The rows are those of the table in the documentation; a test has one sentence for each.
#[must_use]
pub fn decide(i: &Input<'_>) -> Decision {
    // Nothing of AWS is asked for what is not allowed, not wanted now, or not ours.
    if let Err(refusal) = i.intent.permitted(i.permission, i.stream) {
        return release_or(i, rest(i, refused(refusal), i.drift_interval, i.drift_interval));
    }
    if i.intent.suspended {
        return rest(i, Reason::Suspended, i.drift_interval, i.drift_interval);
    }
    match i.ownership {
        Ownership::Own => {}
        Ownership::Another => {
            return release_or(i, rest(i, Reason::StreamOwnedByAnother, SECONDS_30, MINUTES_10));
        }
        Ownership::Unreadable => return rest(i, Reason::LedgerUnreadable, SECONDS_5, MINUTES_5),
    }
    let observation = match i.seen {
        Seen::NotYet => {
            return Decision { step: Step::Look, ..rest(i, Reason::Settling, SECONDS_2, SECONDS_2) };
        }
        Seen::Failed(fault) => return rest(i, fault.class.reason(), SECONDS_5, MINUTES_5),
        Seen::At(_, observation) => observation,
    };

    // A stream that cannot be changed now.
    match observation {
        Observation::NotEncryptable(_) if i.intent.wanted != Wanted::Off => {
            return rest(i, Reason::SourceNotDirectPut, i.drift_interval, i.drift_interval);
        }
        Observation::NotEncryptable(_) => {
            return release_or(i, rest(i, Reason::EncryptionDisabled, i.drift_interval, i.drift_interval));
        }
        Observation::Missing => return release_or(i, rest(i, Reason::StreamNotFound, SECONDS_5, MINUTES_10)),
        Observation::OtherStream => return rest(i, Reason::WrongStream, SECONDS_30, MINUTES_5),
        Observation::Creating => return rest(i, Reason::StreamCreating, SECONDS_5, MINUTES_5),
        Observation::Deleting => return rest(i, Reason::StreamDeleting, SECONDS_5, MINUTES_5),
        Observation::Broken(_) => return rest(i, Reason::StreamBroken, SECONDS_30, MINUTES_5),
        Observation::Unrecognized(_) => {
            return rest(i, Reason::StreamStateUnrecognized, SECONDS_30, MINUTES_5);
        }
        Observation::Changing(action) => return rest(i, changing(i, *action), SECONDS_2, SECONDS_30),
        Observation::Off | Observation::On(_) | Observation::Failed { .. } => {}
    }
    if let Some(wait) = unconfirmed(i, observation) {
        return wait;
    }

    // As it should be.
    let wanted = i.intent.wanted.target();
    if let Some(wanted) = &wanted
        && ledger::satisfies(i.ledger, observation, wanted)
    {
        return release_or(i, satisfied(i, wanted));
    }

    // Not as it should be, and a call would be wrong, useless or too early.
    if i.intent.drift == Drift::Report && wanted.is_some() {
        return rest(i, Reason::Drifted, i.drift_interval, i.drift_interval);
    }
    if let Some(problem) = i.intent.key_problem {
        return rest(i, problem.reason(), SECONDS_15, MINUTES_10);
    }
    let Some(wanted) = wanted else { return rest(i, Reason::KeyUnreadable, SECONDS_15, MINUTES_10) };
    if matches!(observation, Observation::Failed { .. })
        && i.ledger.in_force.is_none()
        && i.intent.wanted == Wanted::AnyKey
    {
        return rest(i, Reason::KeyInForceUnknown, i.drift_interval, i.drift_interval);
    }
    if let Some(until) = ledger::may_arrive_until(i.ledger).filter(|until| *until > i.now) {
        let look = rest(i, Reason::OutcomeUnknown, SECONDS_2, SECONDS_30);
        return Decision { next_attempt: Some(until), ..look };
    }
    if may_be_in_force(i, observation, &wanted) {
        return rest(i, Reason::KeyInForceUnknown, i.drift_interval, i.drift_interval);
    }
    if let Some((reason, until)) = backing_off(i, observation, &wanted) {
        return wait(i, reason, until);
    }
    let correction = i.ledger.satisfied.as_ref() == Some(&wanted) && i.ledger.attempts.is_none();
    if correction
        && !is_asked_for_again(i)
        && let [.., third, _, _] = ledger::corrections(i.ledger, i.now)[..]
    {
        return wait(i, Reason::Contested, later(third, ledger::DAY));
    }
    let budget = budget(i);
    if !budget.has_room() {
        return wait(i, Reason::CallLimitReached, budget.next_free.unwrap_or(later(i.now, MINUTES_5)));
    }
    let target = match &i.intent.wanted {
        Wanted::AnyKey => Key::AwsOwned.target(),
        Wanted::Key(_) | Wanted::UnknownKey | Wanted::Off => wanted.clone(),
    };
    if i.session_age.is_some_and(|age| age > OLDEST_SESSION) && needs_grant(i.stream, &i.intent.wanted) {
        return rest(i, Reason::SessionTooOld, MINUTES_1, MINUTES_5);
    }

    // Nothing stands in the way.
    let reason = if target.action == Action::Start { Reason::Enabling } else { Reason::Disabling };
    let after_failure = matches!(observation, Observation::Failed { .. });
    let call = Reservation { target, wanted, retry: i.intent.retry.clone(), correction, after_failure };
    Decision { step: Step::Call(call), ..rest(i, reason, SECONDS_2, SECONDS_2) }
}

const SECONDS_2: SignedDuration = SignedDuration::from_secs(2);
const SECONDS_5: SignedDuration = SignedDuration::from_secs(5);
const SECONDS_15: SignedDuration = SignedDuration::from_secs(15);
const SECONDS_30: SignedDuration = SignedDuration::from_secs(30);
const MINUTES_1: SignedDuration = SignedDuration::from_mins(1);
const MINUTES_5: SignedDuration = SignedDuration::from_mins(5);
const MINUTES_10: SignedDuration = SignedDuration::from_mins(10);

/// Waits while what AWS shows may be older than the last call.
fn unconfirmed(i: &Input<'_>, observation: &Observation) -> Option<Decision> {
    let believed_from = ledger::stale_until(i.ledger, observation, seen_at(i))?;
    let accepted = ledger::last_open(i.ledger).is_some_and(|call| call.outcome == Outcome::Accepted);
    let reason = match (accepted, &i.ledger.attempts) {
        (false, _) => Reason::OutcomeUnknown,
        (true, Some(_)) => changing(i, None),
        // The call was for another stream of that name, or is only told by a status: nobody has seen what came of it.
        (true, None) => Reason::Settling,
    };
    let look = rest(i, reason, SECONDS_2, SECONDS_30);
    let due = look.look_due.min(believed_from).max(i.now);
    // A call that is dated ahead, by a clock that was, is no matter of seconds.
    let next_attempt = ledger::may_arrive_until(i.ledger)
        .filter(|until| *until > i.now && believed_from > later(i.now, ledger::READ_LAG));
    Some(Decision { wake: due, look_due: due, next_attempt, ..look })
}

/// Rests, and looks again after `shortest`, growing to `longest` while the reason stays the same.
fn rest(i: &Input<'_>, reason: Reason, shortest: SignedDuration, longest: SignedDuration) -> Decision {
    let since = backoff::given_since(i.waiting, reason, i.now);
    let look_due = later(seen_at(i), backoff::look_again(since, i.now, shortest, longest)).max(i.now);
    Decision { step: Step::Rest, reason, wake: look_due, look_due, next_attempt: None }
}

/// Rests until a call may be made, and looks for drift meanwhile.
fn wait(i: &Input<'_>, reason: Reason, until: Timestamp) -> Decision {
    let drift = rest(i, reason, i.drift_interval, i.drift_interval);
    let due = until.min(drift.look_due).max(i.now);
    Decision { wake: due, look_due: due, next_attempt: Some(until), ..drift }
}

/// A deleted resource goes once there is nothing left that it could turn off.
fn release_or(i: &Input<'_>, decision: Decision) -> Decision {
    let nothing_left = matches!(
        decision.reason,
        Reason::EncryptionDisabled
            | Reason::StreamNotFound
            | Reason::StreamOwnedByAnother
            | Reason::NotPermitted
    );
    if i.intent.deleting && nothing_left { Decision { step: Step::Release, ..decision } } else { decision }
}

fn seen_at(i: &Input<'_>) -> Timestamp {
    match i.seen {
        // A clock that was set back must not keep a look good for longer.
        Seen::At(at, _) => at.min(i.now),
        Seen::NotYet | Seen::Failed(_) => i.now,
    }
}

fn refused(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Stream | Refusal::Key => Reason::NotPermitted,
        Refusal::Roles => Reason::RolesDiffer,
        Refusal::Disable => Reason::DisableNotPermitted,
    }
}

/// What a stream that is changing is changing to: what AWS says, else what the last call asked for.
fn changing(i: &Input<'_>, shown: Option<Action>) -> Reason {
    match shown.or_else(|| asked_last(i)) {
        Some(Action::Start) => Reason::Enabling,
        Some(Action::Stop) => Reason::Disabling,
        None => Reason::StreamUpdating,
    }
}

/// What the attempt under way asks for: nothing if AWS refused its last call, for then AWS changes something else.
pub(super) fn asked_last(i: &Input<'_>) -> Option<Action> {
    let last = i.ledger.attempts.as_ref().and_then(|_| i.ledger.calls.last())?;
    (last.outcome != Outcome::Refused).then_some(last.target.action)
}

fn satisfied(i: &Input<'_>, wanted: &Target) -> Decision {
    // AWS shows ENABLED all the same, and no call of the operator's would help.
    if let Some(problem) = i.active_key_problem.filter(|_| wanted.action == Action::Start) {
        return rest(i, problem.reason(), SECONDS_15, MINUTES_10);
    }
    let since = i.ledger.in_force.as_ref().map_or(i.now, |known| known.since.0);
    let settled = later(since, SETTLE);
    if i.now < settled {
        let settling = rest(i, Reason::Settling, i.drift_interval, i.drift_interval);
        return Decision { wake: settled.min(settling.look_due), ..settling };
    }
    if wanted.action == Action::Stop {
        return rest(i, Reason::EncryptionDisabled, i.drift_interval, i.drift_interval);
    }
    if i.intent.verify && i.intent.verified.is_none_or(|verified| verified < since) {
        return Decision { step: Step::Verify, ..rest(i, Reason::Verifying, SECONDS_5, MINUTES_5) };
    }
    rest(i, Reason::Encrypted, i.drift_interval, i.drift_interval)
}

/// Whether the retry annotation has another value than at the last call.
fn is_asked_for_again(i: &Input<'_>) -> bool {
    let last = i.ledger.calls.last().and_then(|call| call.retry.as_ref());
    i.intent.retry.is_some() && i.intent.retry.as_ref() != last
}

/// Whether the key asked for may be the active one already, so that AWS fails each call with it: a failure is shown, which key
/// is active is not known, and an attempt with this key has failed.
fn may_be_in_force(i: &Input<'_>, observation: &Observation, wanted: &Target) -> bool {
    let is_failure = matches!(observation, Observation::Failed { action: Action::Start, .. });
    let tried = i.ledger.attempts.as_ref().filter(|attempts| !is_another_case(i, attempts, wanted));
    // What AWS refused for a reason that goes away tells nothing of the key.
    let failed_with_it = tried.is_some_and(|attempts| {
        let refused = attempts.reason.as_ref().map(|text| text.parse().unwrap_or(Reason::CallRefused));
        refused.is_none_or(|reason| matches!(reason, Reason::CallRefused | Reason::KeyRefused))
    });
    is_failure && i.ledger.in_force.is_none() && wanted.action == Action::Start && failed_with_it
}

/// Whether something has changed since the last attempt that may make the next one succeed.
fn is_another_case(i: &Input<'_>, attempts: &Attempts, wanted: &Target) -> bool {
    attempts.target != *wanted
        || (i.intent.retry.is_some() && i.intent.retry != attempts.retry)
        || attempts.key_was_unusable
}

/// Why the last attempt did not help and until when to wait, unless something that matters has changed since.
fn backing_off(i: &Input<'_>, observation: &Observation, wanted: &Target) -> Option<(Reason, Timestamp)> {
    let attempts = i.ledger.attempts.as_ref()?;
    let until = attempts.not_before.0;
    // No wait is as long as that: it was written by a clock that was far ahead.
    let impossible = until > later(i.now, backoff::LONGEST + ledger::ARRIVAL);
    if is_another_case(i, attempts, wanted) || impossible || i.now >= until {
        return None;
    }
    let refused = attempts.reason.as_ref().map(|text| text.parse().unwrap_or(Reason::CallRefused));
    let reason = refused.unwrap_or_else(|| failed(i.stream.service, observation, wanted));
    Some((reason, until))
}

fn failed(service: Service, observation: &Observation, wanted: &Target) -> Reason {
    let action = match (observation, service) {
        (Observation::Failed { action, .. }, _) => *action,
        // Kinesis has no word for a failure: it goes back to what it was.
        (_, Service::Kinesis) => wanted.action,
        (_, Service::Firehose) => return Reason::NotApplied,
    };
    match action {
        Action::Start => Reason::EnablingFailed,
        Action::Stop => Reason::DisablingFailed,
    }
}

fn needs_grant(stream: &StreamArn, wanted: &Wanted) -> bool {
    stream.service == Service::Firehose && matches!(wanted, Wanted::Key(Key::Customer(_)))
}

#[cfg(test)]
mod tests;
