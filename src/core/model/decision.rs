//! The decision: the next step for one stream, and the reason to report.
//!
//! [`decide`] is a list of rules, read from the top; the first rule that matches applies. It is total and pure:
//! everything uncertain is in its input. It never makes requests, writes or waits; it only returns the next
//! step.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::{Action, Attempts, Outcome, StreamLedgerSpec, Target};
use stream_encryption_api::stream_encryption::{Mode, Service};

use super::arn::StreamArn;
use super::aws_error::AwsError;
use super::desired::{DesiredEncryption, DesiredState};
use super::key::{Key, KeyProblem};
use super::ledger::{self, Budget, PlannedCall, saturating_add};
use super::observation::{Observation, Requested};
use super::permission::{Denial, EffectivePolicy};
use super::schedule::{
    self, POLL_AFTER_STEP, POLL_AWS_ERROR, POLL_IN_PROGRESS, POLL_KEY_PROBLEM, POLL_MISSING,
    POLL_OLD_SESSION, POLL_OTHER_OWNER, POLL_UNUSABLE, PollInterval,
};
use super::service::profile;

/// Time until a change applies to all records after AWS reports ENABLED or DISABLED
/// ([Firehose](https://docs.aws.amazon.com/firehose/latest/dev/encryption.html)).
pub const PROPAGATION_DELAY: SignedDuration = SignedDuration::from_secs(5);
/// Maximum age of a session for a call. For the grant on the key to be created, AWS requires session
/// credentials of at most 6 hours; the other 15 minutes are for the call to arrive.
pub const MAX_SESSION_AGE_FOR_CALL: SignedDuration = SignedDuration::from_mins(5 * 60 + 45);
/// Number of corrections in 24 hours after which the operator stops correcting drift.
const MAX_CORRECTIONS_PER_DAY: usize = 3;

/// Which resource manages the stream, according to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This resource manages the stream, or the stream has no ledger yet. In the second case, the policies decide whether the
    /// resource may claim the stream.
    Owned,
    /// Another resource manages the stream.
    Another,
    /// The ledger is inaccessible or invalid.
    LedgerInvalid,
}

/// The last observation of the stream.
#[derive(Clone, Debug)]
pub enum LastObservation<'a> {
    /// The stream has not been described yet.
    NotYet,
    /// The stream, or the desired key, could not be described.
    Failed(&'a AwsError),
    /// The stream was described at this time.
    Described(Requested, &'a Observation),
}

/// Everything on which a decision depends.
#[derive(Clone, Debug)]
pub struct DecisionInput<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The stream.
    pub stream: &'a StreamArn,
    /// The desired state.
    pub desired: &'a DesiredState,
    /// The permissions that policies grant.
    pub permission: &'a EffectivePolicy,
    /// Which resource manages the stream, according to the ledger.
    pub ownership: Ownership,
    /// The name of the resource that manages the stream, if that is another one of the same namespace.
    pub other_owner: Option<&'a str>,
    /// The ledger, updated with the last observation.
    pub ledger: &'a StreamLedgerSpec,
    /// The last observation of the stream.
    pub last_observation: LastObservation<'a>,
    /// Whether the last status reports the active key, or that records are in plaintext.
    pub is_encryption_reported: bool,
    /// The problem that makes the active key unusable; `None` if there is no such problem.
    pub active_key_problem: Option<KeyProblem>,
    /// The age of the session that signed the last Describe, as a lower bound; `None` for credentials without a
    /// session.
    pub session_age: Option<SignedDuration>,
    /// The reason given last, and since when. Waits grow while the reason stays the same.
    pub last_reason: Option<(Reason, Timestamp)>,
    /// The interval between two checks for drift.
    pub drift_interval: SignedDuration,
    /// The time that AWS is expected to take to change the encryption; zero if it is not known.
    pub expected_change: SignedDuration,
}

/// The next step, the reason to report, and the times at which to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The next step.
    pub step: Step,
    /// The reason to report. [`super::message`] has its message.
    pub reason: Reason,
    /// When to decide again.
    pub wake: Timestamp,
    /// The time until which the last observation is recent enough to decide again without a Describe. With the reason
    /// `Verifying`, also the time of the next test record.
    pub describe_due: Timestamp,
    /// The time of the next call, if the operator is waiting for that time.
    pub next_attempt: Option<Timestamp>,
}

/// A step of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Describe the stream, then decide again.
    Describe,
    /// Wait.
    Wait,
    /// Call Start or Stop once.
    ChangeEncryption(PlannedCall),
    /// Write one record and read from the response whether it was encrypted.
    Verify,
    /// Remove the finalizer of the deleted resource.
    RemoveFinalizer,
}

/// Returns the budget for the call that the desired state would require.
#[must_use]
pub fn budget(input: &DecisionInput<'_>) -> Budget {
    let action =
        if input.desired.encryption == DesiredEncryption::Off { Action::Stop } else { Action::Start };
    let limit = input.permission.max_calls_per_day(input.stream);
    ledger::budget(input.ledger, input.stream.service, action, limit, input.now)
}

/// Returns the decision. The first rule that matches applies; `decision/tests` has a table with a row for each.
#[must_use]
pub fn decide(input: &DecisionInput<'_>) -> Decision {
    let decision = first_matching_rule(input);
    let is_encrypted = input.ledger.known_encryption.as_ref().is_some_and(|known| known.key.is_some());
    let is_due = input.ownership == Ownership::Owned && (is_encrypted || decision.reason == Reason::Settling);
    // Once the key applies to all records, the status reports it, whatever the operator waits for.
    match settled_at(input).filter(|_| is_due) {
        Some(at) if at < decision.wake && decision.step == Step::Wait => Decision { wake: at, ..decision },
        _ => decision,
    }
}

/// Returns when the encryption that AWS reports applies to all records, if that is in the future.
fn settled_at(input: &DecisionInput<'_>) -> Option<Timestamp> {
    let known = input.ledger.known_encryption.as_ref()?;
    Some(saturating_add(known.since_time.0, PROPAGATION_DELAY)).filter(|at| *at > input.now)
}

fn first_matching_rule(input: &DecisionInput<'_>) -> Decision {
    // No request is sent for a stream that is not permitted, is suspended, or is managed by another resource.
    if let Err(denial) = input.desired.check_policies(input.permission, input.stream) {
        return or_remove_finalizer(input, idle(input, denial_reason(denial)));
    }
    if input.desired.suspended {
        return idle(input, Reason::Suspended);
    }
    match input.ownership {
        Ownership::Owned => {}
        Ownership::Another => {
            let managed = poll(input, Reason::StreamAlreadyManaged, POLL_OTHER_OWNER);
            return or_remove_finalizer(input, managed);
        }
        Ownership::LedgerInvalid => return poll(input, Reason::LedgerInvalid, POLL_AWS_ERROR),
    }
    let observation = match input.last_observation {
        LastObservation::NotYet => {
            // Never reported: the controller describes the stream and decides again.
            return Decision { step: Step::Describe, ..poll(input, Reason::Settling, POLL_AFTER_STEP) };
        }
        LastObservation::Failed(error) => return poll(input, error.kind.reason(), POLL_AWS_ERROR),
        LastObservation::Described(_, observation) => observation,
    };

    // The stream cannot be changed now.
    match observation {
        Observation::NotEncryptable(_) if input.desired.encryption != DesiredEncryption::Off => {
            return idle(input, Reason::SourceNotDirectPut);
        }
        Observation::NotEncryptable(_) => {
            return or_remove_finalizer(input, idle(input, Reason::EncryptionDisabled));
        }
        Observation::Missing => {
            return or_remove_finalizer(input, poll(input, Reason::StreamNotFound, POLL_MISSING));
        }
        Observation::OtherStream => return poll(input, Reason::StreamARNMismatch, POLL_UNUSABLE),
        Observation::Creating => return poll(input, Reason::StreamCreating, POLL_AWS_ERROR),
        Observation::Deleting => return poll(input, Reason::StreamDeleting, POLL_AWS_ERROR),
        Observation::NotOperational(_) => return poll(input, Reason::StreamFailed, POLL_UNUSABLE),
        Observation::Unrecognized(_) => return poll(input, Reason::StreamStateUnrecognized, POLL_UNUSABLE),
        Observation::InProgress(action) => {
            return follow(input, changing(input, *action));
        }
        Observation::Off | Observation::On(_) | Observation::Failed { .. } => {}
    }
    if let Some(wait) = wait_for_confirmation(input, observation) {
        return wait;
    }

    // The stream matches the spec.
    let desired_target = input.desired.encryption.target();
    if let Some(desired_target) = &desired_target
        && ledger::satisfies(input.ledger, observation, desired_target)
    {
        // The Start could enable the encryption after the removal of the finalizer.
        if input.desired.deleting && ledger::may_apply_start(input.ledger, input.now) {
            return poll(input, Reason::OutcomeUnknown, POLL_IN_PROGRESS);
        }
        return or_remove_finalizer(input, satisfied(input, desired_target));
    }

    // The stream differs from the spec, and a call would be wrong, useless or too early.
    if input.desired.mode == Mode::Observe && desired_target.is_some() {
        return idle(input, Reason::Drifted);
    }
    if let Some(problem) = input.desired.key_problem {
        return poll(input, problem.reason(), POLL_KEY_PROBLEM);
    }
    match desired_target {
        Some(desired_target) => call_or_wait(input, observation, desired_target),
        // Not reached by the controller: it reports a problem of the key, or the failed DescribeKey, instead.
        None => poll(input, Reason::KeyDescribeDenied, POLL_KEY_PROBLEM),
    }
}

/// Returns the call that makes the stream match the spec, or the wait until that call may be made.
fn call_or_wait(input: &DecisionInput<'_>, observation: &Observation, desired_target: Target) -> Decision {
    if matches!(observation, Observation::Failed { .. })
        && input.ledger.known_encryption.is_none()
        && input.desired.encryption == DesiredEncryption::AnyKey
    {
        return idle(input, Reason::ActiveKeyUnknown);
    }
    if let Some(until) = ledger::in_flight_until(input.ledger).filter(|until| *until > input.now) {
        let wait = poll(input, Reason::OutcomeUnknown, POLL_IN_PROGRESS);
        return Decision { next_attempt: Some(until), ..wait };
    }
    if desired_key_may_be_active(input, observation, &desired_target) {
        return idle(input, Reason::ActiveKeyUnknown);
    }
    if let Some((reason, until)) = backing_off(input, observation, &desired_target) {
        return wait_until(input, reason, until);
    }
    let corrections = ledger::corrections(input.ledger, input.now);
    let is_first_attempt = input.ledger.attempts.is_none() || ledger::is_correction_unsent(input.ledger);
    let correction = input.ledger.satisfied.as_ref() == Some(&desired_target) && is_first_attempt;
    if correction
        && !retry_requested(input)
        && let Some(limiting) = corrections.iter().rev().nth(MAX_CORRECTIONS_PER_DAY - 1)
    {
        return wait_until(
            input,
            Reason::DriftCorrectionLimitReached,
            saturating_add(*limiting, ledger::DAY),
        );
    }
    let budget = budget(input);
    if !budget.has_room() {
        let available = budget.next_available_time.unwrap_or(saturating_add(input.now, POLL_AWS_ERROR.1));
        return wait_until(input, Reason::CallLimitReached, available);
    }
    let target = match &input.desired.encryption {
        DesiredEncryption::AnyKey => Key::AwsOwned.target(),
        DesiredEncryption::Key(_) | DesiredEncryption::UnknownKey | DesiredEncryption::Off => {
            desired_target.clone()
        }
    };
    if input.session_age.is_some_and(|age| age > MAX_SESSION_AGE_FOR_CALL)
        && needs_grant(input.stream, &input.desired.encryption)
    {
        return poll(input, Reason::SessionTooOld, POLL_OLD_SESSION);
    }

    // A call can be made.
    let reason = if target.action == Action::Start { Reason::Enabling } else { Reason::Disabling };
    let after_failure = matches!(observation, Observation::Failed { .. });
    let call =
        PlannedCall { target, desired_target, retry: input.desired.retry.clone(), correction, after_failure };
    Decision { step: Step::ChangeEncryption(call), ..poll(input, reason, POLL_AFTER_STEP) }
}

/// Returns a wait while AWS's report may be older than the last call.
fn wait_for_confirmation(input: &DecisionInput<'_>, observation: &Observation) -> Option<Decision> {
    let LastObservation::Described(requested, _) = input.last_observation else { return None };
    let requested = Requested { at: observed_at(input), ..requested };
    let trusted_from = ledger::stale_until(input.ledger, observation, requested)?;
    let accepted =
        ledger::last_unrefused_call(input.ledger).is_some_and(|call| call.outcome == Outcome::Accepted);
    let wait = match (accepted, &input.ledger.attempts) {
        (false, _) => poll(input, Reason::OutcomeUnknown, POLL_IN_PROGRESS),
        (true, Some(_)) => follow(input, changing(input, None)),
        // The call was made on an earlier stream of that name, or is only known from a status: it counts as
        // accepted, but its effect on this stream was never observed.
        (true, None) => poll(input, Reason::Settling, POLL_IN_PROGRESS),
    };
    let due = wait.describe_due.min(trusted_from).max(input.now);
    // If the clock was ahead when the last call was reserved, the time of that call is in the future. The next
    // attempt may then be hours away, so its time is reported.
    let next_attempt = ledger::in_flight_until(input.ledger)
        .filter(|until| *until > input.now && trusted_from > saturating_add(input.now, ledger::READ_LAG));
    Some(Decision { wake: due, describe_due: due, next_attempt, ..wait })
}

/// Returns a wait for `reason` until the next Describe.
fn poll(input: &DecisionInput<'_>, reason: Reason, interval: PollInterval) -> Decision {
    let since = schedule::reason_since(input.last_reason, reason, input.now);
    let wait = schedule::poll_interval(since, input.now, interval);
    let describe_due = saturating_add(observed_at(input), wait).max(input.now);
    Decision { step: Step::Wait, reason, wake: describe_due, describe_due, next_attempt: None }
}

/// Returns a wait while AWS changes the stream, until the next Describe.
fn follow(input: &DecisionInput<'_>, reason: Reason) -> Decision {
    let since = schedule::reason_since(input.last_reason, reason, input.now);
    let observed = observed_at(input);
    let wait = schedule::change_poll_interval(since, observed, input.expected_change);
    let describe_due = saturating_add(observed, wait).max(input.now);
    Decision { step: Step::Wait, reason, wake: describe_due, describe_due, next_attempt: None }
}

/// Returns a wait until the next check for drift.
fn idle(input: &DecisionInput<'_>, reason: Reason) -> Decision {
    poll(input, reason, (input.drift_interval, input.drift_interval))
}

/// Returns a wait until a call may be made; checks for drift continue meanwhile.
fn wait_until(input: &DecisionInput<'_>, reason: Reason, until: Timestamp) -> Decision {
    let drift = idle(input, reason);
    let due = until.min(drift.describe_due).max(input.now);
    Decision { wake: due, describe_due: due, next_attempt: Some(until), ..drift }
}

/// Replaces the step by [`Step::RemoveFinalizer`] if the resource is being deleted and the operator has nothing
/// more to disable. The stream may stay encrypted if another resource manages it, or if no policy allows the
/// stream any more. If only the permission to disable is missing, the resource is kept.
fn or_remove_finalizer(input: &DecisionInput<'_>, decision: Decision) -> Decision {
    let no_further_step = matches!(
        decision.reason,
        Reason::EncryptionDisabled
            | Reason::StreamNotFound
            | Reason::StreamAlreadyManaged
            | Reason::NotPermitted
    );
    if input.desired.deleting && no_further_step {
        Decision { step: Step::RemoveFinalizer, ..decision }
    } else {
        decision
    }
}

fn observed_at(input: &DecisionInput<'_>) -> Timestamp {
    match input.last_observation {
        // A clock that was set back must not extend the validity of an observation.
        LastObservation::Described(requested, _) => requested.at.min(input.now),
        LastObservation::NotYet | LastObservation::Failed(_) => input.now,
    }
}

fn denial_reason(refusal: Denial) -> Reason {
    match refusal {
        Denial::Stream | Denial::Key => Reason::NotPermitted,
        Denial::Roles => Reason::ConflictingPolicyRoles,
        Denial::Disable => Reason::DisableNotPermitted,
    }
}

/// Returns the reason for a stream that is changing: the change that AWS reports, otherwise that of the last
/// call.
fn changing(input: &DecisionInput<'_>, reported: Option<Action>) -> Reason {
    match reported.or_else(|| action_in_progress(input)) {
        Some(Action::Start) => Reason::Enabling,
        Some(Action::Stop) => Reason::Disabling,
        None => Reason::StreamUpdating,
    }
}

/// Returns the action of the attempt in progress; `None` if AWS refused its last call, because AWS is then
/// applying a different change.
pub(super) fn action_in_progress(input: &DecisionInput<'_>) -> Option<Action> {
    let last = input.ledger.attempts.as_ref().and_then(|_| input.ledger.calls.last())?;
    (last.outcome != Outcome::Refused).then_some(last.target.action)
}

fn satisfied(input: &DecisionInput<'_>, desired_target: &Target) -> Decision {
    // AWS reports ENABLED although the key is unusable, and no call would help.
    if let Some(problem) = input.active_key_problem.filter(|_| desired_target.action == Action::Start) {
        return poll(input, problem.reason(), POLL_KEY_PROBLEM);
    }
    if settled_at(input).is_some() {
        return idle(input, Reason::Settling);
    }
    if desired_target.action == Action::Stop {
        return idle(input, Reason::EncryptionDisabled);
    }
    let since = input.ledger.known_encryption.as_ref().map_or(input.now, |known| known.since_time.0);
    if input.desired.verify && input.desired.verified.is_none_or(|verified| verified < since) {
        return Decision { step: Step::Verify, ..poll(input, Reason::Verifying, POLL_AWS_ERROR) };
    }
    idle(input, Reason::Encrypted)
}

/// Returns whether the retry annotation is set and differs from its value at the last call that was sent.
fn retry_requested(input: &DecisionInput<'_>) -> bool {
    let last = ledger::last_sent_call(input.ledger).and_then(|call| call.retry.as_ref());
    input.desired.retry.is_some() && input.desired.retry.as_ref() != last
}

/// Returns whether the desired key may be the active key already, so that AWS fails each call with it. This
/// is the case if AWS reports a failure, the active key is unknown, and an attempt with the desired key has
/// failed.
fn desired_key_may_be_active(
    input: &DecisionInput<'_>,
    observation: &Observation,
    desired_target: &Target,
) -> bool {
    let is_failure = matches!(observation, Observation::Failed { action: Action::Start, .. });
    let tried = input
        .ledger
        .attempts
        .as_ref()
        .filter(|attempts| !retry_conditions_changed(input, attempts, desired_target));
    // A refusal for a temporary cause gives no information about the key.
    let failed_with_it = tried.is_some_and(|attempts| {
        let refused = attempts.reason.as_ref().map(|text| text.parse().unwrap_or(Reason::CallRefused));
        refused.is_none_or(|reason| matches!(reason, Reason::CallRefused | Reason::KeyAccessDenied))
    });
    is_failure
        && input.ledger.known_encryption.is_none()
        && desired_target.action == Action::Start
        && failed_with_it
}

/// Returns whether a change since the last attempt may make the next one succeed.
fn retry_conditions_changed(input: &DecisionInput<'_>, attempts: &Attempts, desired_target: &Target) -> bool {
    attempts.target != *desired_target
        || (input.desired.retry.is_some() && input.desired.retry != attempts.retry)
        || attempts.key_was_unusable
}

/// Returns why the last attempt had no success and until when to wait. `None` if there is no reason to wait: there was no
/// attempt, the wait is over, a clock that was far ahead wrote its end, or a relevant change has occurred since.
fn backing_off(
    input: &DecisionInput<'_>,
    observation: &Observation,
    desired_target: &Target,
) -> Option<(Reason, Timestamp)> {
    let attempts = input.ledger.attempts.as_ref()?;
    let until = attempts.not_before_time.0;
    // No wait is so long, and two clocks that AWS accepts do not differ so much.
    let is_ahead = |time: Timestamp, by: SignedDuration| time > saturating_add(input.now, by);
    let is_dated_ahead = is_ahead(until, schedule::MAX_RETRY_DELAY + ledger::MAX_CLOCK_SKEW)
        || input.ledger.calls.last().is_some_and(|call| is_ahead(call.time.0, ledger::MAX_CLOCK_SKEW * 2));
    if retry_conditions_changed(input, attempts, desired_target) || is_dated_ahead || input.now >= until {
        return None;
    }
    let refused = attempts.reason.as_ref().map(|text| text.parse().unwrap_or(Reason::CallRefused));
    let reason = refused.unwrap_or_else(|| failed(input.stream.service, observation, desired_target));
    Some((reason, until))
}

fn failed(service: Service, observation: &Observation, desired_target: &Target) -> Reason {
    let action = match observation {
        Observation::Failed { action, .. } => *action,
        _ if profile(service).reports_failures => return Reason::NotApplied,
        // The failure is not reported: the stream returns to its previous state.
        _ => desired_target.action,
    };
    match action {
        Action::Start => Reason::EnablingFailed,
        Action::Stop => Reason::DisablingFailed,
    }
}

fn needs_grant(stream: &StreamArn, desired: &DesiredEncryption) -> bool {
    stream.service == Service::Firehose && matches!(desired, DesiredEncryption::Key(Key::Customer(_)))
}

#[cfg(test)]
mod tests;
