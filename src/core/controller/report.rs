//! The report step: the status that results from a reconcile, and the entry for the memory.
//! [`publish`](super::publish) writes the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stream_encryption_api::condition::{
    ConditionStatus, ConditionType, DescribePurpose, LedgerContent, ReadyState, Reason, condition, find,
    next_whole_second, ready_conditions, whole_second,
};
use stream_encryption_api::stream_encryption::{
    Calls, Failure, PreviousKey, StreamEncryption, StreamEncryptionStatus, StreamStatus,
};

use super::annotations::retry_token;
use super::context::Context;
use super::finalize;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, KubeError};
use super::memory::LastReconcile;
use super::outdated_status;
use super::publish::update_status;
use super::resolve::ResolveError;
use super::state::{Observed, ReconcileState};
use super::stream_api::StreamApi;
use crate::model::decision::{self, Decision, Ownership, Step};
use crate::model::desired::DesiredEncryption;
use crate::model::key::KeyProblem;
use crate::model::message;
use crate::model::observation::Observation;
use crate::model::previous_key;
use crate::model::schedule;
use crate::model::service::profile;
use crate::model::status_fields;

/// Reports the state after the steps of a reconcile. Returns the time of the next reconcile.
pub(super) async fn report<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: ReconcileState,
) -> Result<Timestamp, Interruption> {
    let decision = decision_to_report(context, &state);
    let undescribed = undescribed(&state);
    let make = |before: &StreamEncryptionStatus| status(resource, before, &state, &decision, undescribed);
    let written = update_status(
        context,
        &resource.metadata,
        resource.status.as_ref(),
        &state.last,
        state.is_fresh(),
        make,
    )
    .await;
    let since = schedule::reason_since(state.last.reason, decision.reason, state.now);
    // A description is used again only with the ledger that records what it showed. If the ledger cannot be read
    // or written, its current version is unknown. The version that was seen last is kept, so that a cache that is older than
    // it is not believed.
    let is_recorded = state.ledger.ownership != Ownership::LedgerInvalid;
    learn_change_time(context, &state, &decision);
    let (remembered, next_record) = (state.remembered(resource, &decision), next_record(&state, &decision));
    let described = state.described_at().or(state.successful_describe).or(state.last.described);
    let unacknowledged_writes = state.ledger.unacknowledged_writes;
    // If the ledger cannot be read, it may still be the one that lacks what an earlier reconcile has learned.
    let kept = state.last.unwritten_encryption.clone().filter(|_| !is_recorded && !state.ledger.is_stored());
    let unwritten_encryption = state.ledger.unwritten_encryption().or(kept);
    let changing_at = changing_at(&state, &decision);
    let last = LastReconcile {
        remembered: remembered.filter(|_| is_recorded),
        next_record,
        known_call: state.known_call(context.clock.monotonic()),
        unsent_calls: state.last.unsent_calls,
        unacknowledged_ledger_writes: state.last.unacknowledged_ledger_writes,
        unwritten_encryption,
        ledger_version: if is_recorded {
            state.ledger.version().map(ToOwned::to_owned)
        } else {
            state.last.ledger_version
        },
        reason: Some((decision.reason, since)),
        status: written.status,
        unacknowledged_write: written.unacknowledged_write,
        version: written.version,
        undescribed,
        changing_at,
        verified: state.spec.desired.verified.map(|time| (state.spec.stream_identity(), time)),
        described,
        failures: if state.finalizer_failure.is_some() { state.last.failures } else { written.failures },
        retry_due: None,
        is_interrupted: false,
        is_removal_reported: state.last.is_removal_reported,
    };
    // A write of the ledger without an acknowledgement is repeated as after any other failed request to the API server.
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    let rewrite = (unacknowledged_writes > 0)
        .then(|| state.now + schedule::after_kube_error(uid, unacknowledged_writes));
    let due = [written.reread_by, state.last.retry_due, next_record, rewrite];
    let wake = due.into_iter().flatten().fold(decision.wake, Timestamp::min);
    context.memory.keep(resource, last);
    match written.failed.or(state.finalizer_failure) {
        Some(error) => Err(Interruption::Kubernetes(error)),
        None => Ok(wake),
    }
}

/// Returns the number of consecutive reconciles in which AWS did not describe the stream, including this one.
pub(super) fn undescribed(state: &ReconcileState) -> u32 {
    match state.observed {
        // KMS did not answer, and the ledger holds what the description has shown.
        Observed::Failed(_) if state.successful_describe.is_some() => 0,
        Observed::Failed(_) => state.last.undescribed.saturating_add(1),
        Observed::Described { .. } => 0,
        Observed::NotYet => state.last.undescribed,
    }
}

/// Returns the decision on the state after the steps. If it requires another step, the next reconcile begins with
/// a Describe and executes that step.
fn decision_to_report<A, R>(context: &Context<A, R>, state: &ReconcileState) -> Decision {
    let decision = (context.decide)(&state.input());
    if decision.step == Step::Wait {
        return decision;
    }
    let wake = decision.wake.max(state.now + schedule::AFTER_STEP);
    Decision { wake, describe_due: decision.describe_due.min(wake), ..decision }
}

fn is_change(reason: Reason) -> bool {
    matches!(reason, Reason::Enabling | Reason::Disabling)
}

/// Returns when the stream was last described in the middle of a change that is not complete.
fn changing_at(state: &ReconcileState, decision: &Decision) -> Option<Timestamp> {
    let described = match &state.observed {
        Observed::Described { at, observation: Observation::InProgress(_), fresh: true, .. } => Some(at.wall),
        _ => state.last.changing_at,
    };
    described.filter(|_| is_change(decision.reason))
}

/// Learns how long a change took that AWS has completed.
fn learn_change_time<A, R>(context: &Context<A, R>, state: &ReconcileState, decision: &Decision) {
    if let Observed::Described { at, observation: Observation::On(_) | Observation::Off, fresh: true, .. } =
        &state.observed
        && let Some((last_reason, since)) = state.last.reason
        && is_change(last_reason)
        && !is_change(decision.reason)
    {
        let in_progress = state.last.changing_at.map(|changing| changing.duration_since(since));
        context.memory.learn_change_time(
            state.spec.stream.service,
            in_progress,
            at.wall.duration_since(since),
        );
    }
}

/// Returns the time before which no further test record may be written.
fn next_record(state: &ReconcileState, decision: &Decision) -> Option<Timestamp> {
    let next = state.next_record();
    match (&state.observed, decision.reason) {
        (_, Reason::Verifying) => Some(next.into_iter().fold(decision.describe_due, Timestamp::min)),
        // The same record will be expected again.
        (Observed::Failed(_) | Observed::NotYet, _) => next,
        (Observed::Described { .. }, _) => None,
    }
}

/// Reports a resource that could not be resolved, or removes its finalizer if it is being deleted and its spec is
/// invalid. Returns the time of the next reconcile, or the error of a request to Kubernetes, which may be that of an
/// earlier change of the finalizer.
pub(super) async fn unresolved<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    last: &LastReconcile,
    why: ResolveError,
    finalizer_failure: Option<KubeError>,
) -> Result<Timestamp, Interruption> {
    let mut undescribed = last.undescribed;
    match &why {
        ResolveError::Spec(why) if resource.metadata.deletion_timestamp.is_some() => {
            return finalize::release_unresolved(context, resource, why).await;
        }
        ResolveError::Identity(error) => {
            tracing::warn!(
                code = error.code,
                aws_message = error.message,
                "failed to identify the account of the AWS credentials"
            );
            undescribed = undescribed.saturating_add(1);
        }
        ResolveError::Spec(_) | ResolveError::Suspended | ResolveError::Kubernetes(_) => {}
    }
    let (reason, words) = why.report()?;
    let now = context.clock.now();
    let make = |before: &StreamEncryptionStatus| {
        unresolved_status(resource, before, (reason, &words), undescribed, now)
    };
    let written =
        update_status(context, &resource.metadata, resource.status.as_ref(), last, false, make).await;
    let since = schedule::reason_since(last.reason, reason, now);
    let wait = if reason == Reason::Suspended {
        context.config.drift_interval
    } else {
        schedule::poll_interval(since, now, schedule::POLL_AWS_ERROR)
    };
    let last = LastReconcile {
        reason: Some((reason, since)),
        status: written.status,
        unacknowledged_write: written.unacknowledged_write,
        version: written.version,
        undescribed,
        remembered: None,
        failures: if finalizer_failure.is_some() { last.failures } else { written.failures },
        is_interrupted: false,
        ..last.clone()
    };
    context.memory.keep(resource, last);
    match written.failed.or(finalizer_failure) {
        Some(error) => Err(Interruption::Kubernetes(error)),
        None => Ok(written.reread_by.into_iter().fold(now + wait, Timestamp::min)),
    }
}

/// Returns the status of a resource that could not be resolved, for this reason and with its message.
pub(super) fn unresolved_status(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    (reason, words): (Reason, &str),
    undescribed: u32,
    now: Timestamp,
) -> StreamEncryptionStatus {
    if reason == Reason::Suspended {
        return outdated_status::suspended(resource, before, now);
    }
    let generation = resource.metadata.generation;
    let mut status = before.clone();
    status.observed_generation = generation;
    status.suspended_since_time = None;
    status.conditions = ready_conditions(&before.conditions, reason, words, generation, now);
    // The conditions of the stream and the key were true for the spec that they refer to, so they are kept.
    let kept = [ConditionType::Encrypted, ConditionType::KeyUsable];
    let kept = kept.into_iter().filter_map(|kind| find(&before.conditions, kind));
    status.conditions.extend(kept.map(|old| {
        let is_encrypted = old.type_ == ConditionType::Encrypted.as_str();
        // Without a failed request (`undescribed` is 0), the condition is kept as it is. This applies even if it reports an
        // outdated state already.
        if is_encrypted && undescribed > 0 && outdated_status::is_outdated(before, undescribed, false) {
            outdated_status::encrypted(old, before, reason, generation, now)
        } else {
            old.clone()
        }
    }));
    // No attempt is planned for the current spec.
    status.next_attempt_time = None;
    status
}

/// Returns the status that results from a decision.
pub(super) fn status(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    state: &ReconcileState,
    decision: &Decision,
    undescribed: u32,
) -> StreamEncryptionStatus {
    // Only `Suspended` has this state. The status stays that of the last Describe, with the ARN of the stream that was described.
    if decision.reason.ready_state() == ReadyState::Unchanged {
        return outdated_status::suspended(resource, before, state.now);
    }
    // Of a status about another stream, `about` keeps only the last handled retry.
    let before = &*status_fields::about(before, &state.spec.stream);
    let mut status = decided(resource, before, state, decision);
    let was_described =
        matches!(state.observed, Observed::Described { .. }) || state.successful_describe.is_some();
    // With `DisableNotPermitted`, the stream is not described any more.
    let reason_excludes_describe = decision.reason.describe_purpose() == DescribePurpose::Absent;
    let is_outdated = outdated_status::is_outdated(before, undescribed, was_described);
    let is_known = |encrypted: &Condition| encrypted.status != ConditionStatus::Unknown.as_str();
    if let Some(encrypted) =
        status.conditions.iter_mut().find(|one| one.type_ == ConditionType::Encrypted.as_str())
        && (is_outdated || reason_excludes_describe && is_known(encrypted))
    {
        *encrypted = outdated_status::encrypted(
            encrypted,
            before,
            decision.reason,
            resource.metadata.generation,
            state.now,
        );
    }
    status.last_handled_retry = match state.observed {
        // The retry waits, like everything else.
        Observed::Failed(_) => before.last_handled_retry.clone(),
        // The retry came too soon after the last Describe, and takes effect later.
        _ if state.last.retry_due.is_some() => before.last_handled_retry.clone(),
        Observed::NotYet | Observed::Described { .. } => retry_token(resource),
    };
    outdated_status::set_describe_time(
        &mut status,
        before,
        state.described_at().or(state.successful_describe),
    );
    status
}

/// Returns the status that follows from the decision, the observation and the ledger. The caller, `status`, adds the last
/// handled retry and the time of the last Describe, and replaces the condition `Encrypted` if its state is outdated.
fn decided(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    state: &ReconcileState,
    decision: &Decision,
) -> StreamEncryptionStatus {
    let generation = resource.metadata.generation;
    let input = state.input();
    let mut status = StreamEncryptionStatus {
        observed_generation: generation,
        stream: Some(stream(resource, before, state)),
        desired_key: status_fields::specified_key(&input).map(crate::model::key::Key::to_api),
        next_attempt_time: decision.next_attempt.map(next_whole_second),
        conditions: ready_conditions(
            &before.conditions,
            decision.reason,
            &message::ready(&input, decision),
            generation,
            state.now,
        ),
        verified_time: state.spec.desired.verified.map(next_whole_second),
        ..StreamEncryptionStatus::default()
    };
    // Without a valid ledger, only the previous status records how many calls count.
    let status_is_only_record = (decision.reason == Reason::LedgerInvalid || !state.ledger.is_stored())
        && status_fields::may_be_of(before, &state.spec.stream);
    let calls_in_status = before.calls.clone().filter(|_| status_is_only_record);
    // The content of a ledger is reported to its owner only.
    if decision.reason.ledger_content() == LedgerContent::Hidden {
        status.calls = calls_in_status;
        return status;
    }
    let budget = decision::budget(&input);
    let counted = Calls {
        used: budget.used,
        external: (budget.external > 0).then_some(budget.external),
        limit: budget.limit,
        next_available_time: budget.next_available_time.map(next_whole_second),
    };
    // A resource that may not claim the stream does not restore a deleted ledger, so `counted` lacks the calls of that ledger.
    // The status keeps the number that it has.
    status.calls = calls_in_status.filter(|_| !state.spec.claim().allowed).or(Some(counted));
    status.active_key = status_fields::active_key(&input);
    status.encryption_status = match state.observed {
        // The last value applies as long as the active key has not changed.
        Observed::Failed(_) => before.encryption_status.filter(|_| before.active_key == status.active_key),
        Observed::NotYet | Observed::Described { .. } => status_fields::encryption_status(&input),
    };
    status.encrypted_since_time = status_fields::encrypted_since_time(&input).map(next_whole_second);
    status.plaintext_since_time = status_fields::plaintext_since_time(&input).map(next_whole_second);
    // The time belongs to one key: another key became unusable at another time.
    let known_since = before.active_key_unusable_since_time.clone();
    let known_since = known_since.filter(|_| before.active_key == status.active_key);
    status.active_key_unusable_since_time =
        state.active_key_unusable().map(|_| known_since.unwrap_or_else(|| whole_second(state.now)));
    status.previous_key = previous_key(before, state);
    status.failure = failure(before, state);
    status.conditions.push(encrypted(&before.conditions, state, decision, generation));
    status.conditions.extend(key_usable(&before.conditions, state, decision, generation));
    status
}

fn stream(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    state: &ReconcileState,
) -> StreamStatus {
    let arn = &state.spec.stream;
    let old = before.stream.clone().filter(|old| old.arn.as_ref() == Some(&arn.to_string()));
    // A stream given by name is in the operator's own account, which is not disclosed to a namespace for which no
    // policy allows the stream.
    let may_disclose = resource.spec.stream.arn.is_some() || state.spec.permission.allows(arn);
    let description = state.description().filter(|description| description.arn == *arn);
    let is_observed = state.described_at().is_some();
    let (source, aws_state) = match (description, old) {
        (Some(description), _) => (description.source.clone(), Some(description.raw_status.clone())),
        (None, Some(old)) if !is_observed => (old.source, old.state),
        (None, _) => (None, None),
    };
    StreamStatus {
        arn: may_disclose.then(|| arn.to_string()),
        service: arn.service,
        account: may_disclose.then(|| arn.account.to_string()),
        region: arn.region.to_string(),
        name: arn.name().to_owned(),
        source,
        state: aws_state,
    }
}

fn failure(before: &StreamEncryptionStatus, state: &ReconcileState) -> Option<Failure> {
    let input = state.input();
    let kind = status_fields::failure_code(&input)?;
    let attempts = state.ledger.spec.attempts.as_ref().map_or(0, |attempts| attempts.count);
    let known = before.failure.as_ref().filter(|known| known.kind == kind && known.attempts == attempts);
    let last_failure_time = known.map_or(whole_second(state.now), |known| known.last_failure_time.clone());
    Some(Failure { message: message::advice(&kind).to_owned(), kind, last_failure_time, attempts })
}

fn encrypted(
    before: &[Condition],
    state: &ReconcileState,
    decision: &Decision,
    generation: Option<i64>,
) -> Condition {
    let input = state.input();
    let truth = status_fields::encrypted(&input, decision.reason);
    let reason = if truth == ConditionStatus::True { Reason::Encrypted } else { decision.reason };
    let words = message::encrypted(&input);
    condition(before, ConditionType::Encrypted, truth, reason, &words, generation, state.now)
}

fn key_usable(
    before: &[Condition],
    state: &ReconcileState,
    decision: &Decision,
    generation: Option<i64>,
) -> Option<Condition> {
    let input = state.input();
    let say = |truth, reason, words: &str| {
        Some(condition(before, ConditionType::KeyUsable, truth, reason, words, generation, state.now))
    };
    if let Some((key, problem)) = state.active_key_unusable() {
        return say(
            ConditionStatus::False,
            problem.reason(),
            &message::active_key_unusable(&input, &key, problem),
        );
    }
    if matches!(&state.observed, Observed::Described { observation: Observation::NotEncryptable(_), .. }) {
        // No key can encrypt this stream.
        return None;
    }
    let (truth, reason) = match (state.spec.desired.key_problem, &state.spec.desired.encryption) {
        (Some(KeyProblem::DescribeDenied), _) => (ConditionStatus::Unknown, Reason::KeyDescribeDenied),
        (Some(problem), _) => (ConditionStatus::False, problem.reason()),
        // KMS has not reported that the key is usable, nor the key that an alias stands for.
        (None, DesiredEncryption::Key(_) | DesiredEncryption::UnknownKey)
            if state.spec.key_error.is_some() =>
        {
            (ConditionStatus::Unknown, decision.reason)
        }
        (None, DesiredEncryption::Key(_)) => (ConditionStatus::True, Reason::KeyEnabled),
        (None, DesiredEncryption::AnyKey | DesiredEncryption::UnknownKey | DesiredEncryption::Off) => {
            return None;
        }
    };
    let words = match truth {
        ConditionStatus::Unknown if state.spec.key_error.is_some() => message::ready(&input, decision),
        ConditionStatus::True | ConditionStatus::False | ConditionStatus::Unknown => {
            message::key_usable(&input)
        }
    };
    say(truth, reason, &words)
}

fn previous_key(before: &StreamEncryptionStatus, state: &ReconcileState) -> Option<PreviousKey> {
    let description = state.description().filter(|description| description.arn == state.spec.stream);
    let retention = description.map_or_else(
        || profile(state.spec.stream.service).longest_retention,
        |description| description.retention,
    );
    let replaced = previous_key::previous_key(&state.input(), before, retention)?;
    Some(PreviousKey {
        arn: replaced.arn,
        required_until_time: next_whole_second(replaced.required_until_time),
    })
}
