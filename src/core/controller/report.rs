//! The report step: the status that results from a reconcile, and the entry for the memory.
//! [`publish`](super::publish) writes the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stream_encryption_api::condition::{
    ConditionStatus, ConditionType, ReadyState, Reason, condition, find, next_whole_second, ready_conditions,
    whole_second,
};
use stream_encryption_api::stream_encryption::{
    Calls, Failure, PreviousKey, StreamEncryption, StreamEncryptionStatus, StreamStatus,
};

use super::age;
use super::annotations::retry_token;
use super::context::Context;
use super::kube_api::{KubeApi, KubeError};
use super::memory::Visit;
use super::publish::update_status;
use super::resolve::ResolveError;
use super::state::{Observed, ReconcileState};
use crate::controller::stream_api::StreamApi;
use crate::model::backoff;
use crate::model::decision::{self, Decision, Ownership};
use crate::model::desired::DesiredEncryption;
use crate::model::key::KeyProblem;
use crate::model::message;
use crate::model::observation::Observation;
use crate::model::permission::Denial;
use crate::model::previous_key;
use crate::model::status_fields;

/// Reports a decision. Returns the time of the next reconcile.
pub(super) async fn report<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
    case: ReconcileState,
    decision: Decision,
) -> Result<Timestamp, KubeError> {
    let unanswered = match case.sight {
        Observed::Failed(_) => case.visit.unanswered.saturating_add(1),
        Observed::At { .. } => 0,
        Observed::NotYet => case.visit.unanswered,
    };
    let make = |before: &StreamEncryptionStatus| status(resource, before, &case, &decision, unanswered);
    let said = update_status(
        operator,
        &resource.metadata,
        resource.status.as_ref(),
        &case.visit,
        case.look_is_fresh(),
        make,
    )
    .await?;
    let since = backoff::reason_since(case.visit.waiting, decision.reason, case.now);
    // A description is used again only with the ledger that records what it showed. A ledger that cannot be
    // read or written is still the one that was seen last.
    let is_recorded = case.book.ownership != Ownership::LedgerInvalid;
    let visit = Visit {
        look: case.look().filter(|_| is_recorded).map(|(at, look)| (at, look.clone())),
        ledger: if is_recorded {
            case.book.version().map(ToOwned::to_owned)
        } else {
            case.visit.ledger.clone()
        },
        key: case.subject.key.clone(),
        active_key: case.active_key.clone(),
        waiting: Some((decision.reason, since)),
        status: said.status,
        unheard: said.unheard,
        version: said.version,
        unanswered,
        describe_due: Some(decision.describe_due),
        ..case.visit
    };
    let wake = [said.again, visit.retry_due].into_iter().flatten().fold(decision.wake, Timestamp::min);
    operator.memory.keep(resource, visit);
    Ok(wake)
}

/// Reports a resource that could not be resolved. Returns the time of the next reconcile.
pub(super) async fn unresolved<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
    visit: &Visit,
    why: ResolveError,
) -> Result<Timestamp, KubeError> {
    let mut unanswered = visit.unanswered;
    let (reason, words) = match why {
        ResolveError::Suspended => (Reason::Suspended, String::new()),
        ResolveError::Spec(words) => (Reason::SpecInvalid, format!("Invalid spec: {words}.")),
        ResolveError::Identity(error) => {
            tracing::warn!(
                code = error.code,
                message = error.message,
                "AWS does not tell whose credentials these are"
            );
            unanswered = unanswered.saturating_add(1);
            (error.kind.reason(), message::identity(&error))
        }
    };
    let now = operator.clock.now();
    let make = |before: &StreamEncryptionStatus| {
        if reason == Reason::Suspended {
            return age::suspended(resource, before, now);
        }
        let generation = resource.metadata.generation;
        let mut status = before.clone();
        status.observed_generation = generation;
        status.suspended_since_time = None;
        status.conditions = ready_conditions(&before.conditions, reason, &words, generation, now);
        // The conditions of the stream and the key were true for the spec that they refer to, so they are
        // kept.
        let kept = [ConditionType::Encrypted, ConditionType::KeyUsable];
        let kept = kept.into_iter().filter_map(|kind| find(&before.conditions, kind));
        status.conditions.extend(kept.map(|old| {
            let encrypted = old.type_ == ConditionType::Encrypted.as_str();
            if encrypted && age::is_outdated(before, unanswered) {
                age::outdated(old, before, reason, generation, now)
            } else {
                old.clone()
            }
        }));
        // No attempt is planned for the current spec.
        status.next_attempt_time = None;
        status
    };
    let said =
        update_status(operator, &resource.metadata, resource.status.as_ref(), visit, false, make).await?;
    let since = backoff::reason_since(visit.waiting, reason, now);
    let wait = if reason == Reason::Suspended {
        operator.config.drift_interval
    } else {
        backoff::poll_interval(since, now, backoff::POLL_AWS_ERROR)
    };
    let visit = Visit {
        waiting: Some((reason, since)),
        status: said.status,
        unheard: said.unheard,
        version: said.version,
        unanswered,
        describe_due: None,
        ..visit.clone()
    };
    operator.memory.keep(resource, visit);
    Ok(said.again.unwrap_or(now + wait))
}

/// Returns the status that results from a decision.
fn status(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    case: &ReconcileState,
    decision: &Decision,
    unanswered: u32,
) -> StreamEncryptionStatus {
    if decision.reason.ready_state() == ReadyState::Unchanged {
        return age::suspended(resource, before, case.now);
    }
    let mut status = decided(resource, before, case, decision);
    if age::is_outdated(before, unanswered)
        && let Some(known) =
            status.conditions.iter_mut().find(|one| one.type_ == ConditionType::Encrypted.as_str())
    {
        *known = age::outdated(known, before, decision.reason, resource.metadata.generation, case.now);
    }
    status.last_handled_retry = match case.sight {
        // The retry waits, like everything else.
        Observed::Failed(_) => before.last_handled_retry.clone(),
        // The retry came too soon after the last Describe, and takes effect later.
        _ if case.visit.retry_due.is_some() => before.last_handled_retry.clone(),
        Observed::NotYet | Observed::At { .. } => retry_token(resource),
    };
    age::set_describe_time(&mut status, before, case.look().map(|(at, _)| at));
    status
}

/// Returns the status without the fields and the conditions that depend on its age.
fn decided(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    case: &ReconcileState,
    decision: &Decision,
) -> StreamEncryptionStatus {
    let generation = resource.metadata.generation;
    let input = case.input();
    let mut status = StreamEncryptionStatus {
        observed_generation: generation,
        stream: Some(stream(resource, before, case)),
        desired_key: status_fields::specified_key(&input).map(crate::model::key::Key::to_api),
        next_attempt_time: decision.next_attempt.map(next_whole_second),
        conditions: ready_conditions(
            &before.conditions,
            decision.reason,
            &message::ready(&input, decision),
            generation,
            case.now,
        ),
        verified_time: case.subject.desired.verified.map(next_whole_second),
        ..StreamEncryptionStatus::default()
    };
    // The content of a ledger is reported to its owner only.
    if matches!(
        decision.reason,
        Reason::NotPermitted
            | Reason::ConflictingPolicyRoles
            | Reason::StreamAlreadyManaged
            | Reason::LedgerInvalid
    ) {
        // Without a valid ledger, the status is the only count of the calls.
        let is_only_count = decision.reason == Reason::LedgerInvalid || !case.book.is_stored();
        status.calls = before.calls.clone().filter(|_| is_only_count);
        return status;
    }
    let budget = decision::budget(&input);
    status.calls = Some(Calls {
        used: budget.used,
        limit: budget.limit,
        next_available_time: budget.next_available_time.map(next_whole_second),
    });
    status.active_key = status_fields::active_key(&input);
    status.encryption_status = match case.sight {
        // The last value applies as long as the active key has not changed.
        Observed::Failed(_) => before.encryption_status.filter(|_| before.active_key == status.active_key),
        Observed::NotYet | Observed::At { .. } => status_fields::encryption_status(&input),
    };
    status.encrypted_since_time = status_fields::encrypted_since_time(&input).map(next_whole_second);
    status.plaintext_since_time = status_fields::plaintext_since_time(&input).map(next_whole_second);
    // The loss of another key would have begun at another time.
    let known_since = before.active_key_unusable_since_time.clone();
    let known_since = known_since.filter(|_| before.active_key == status.active_key);
    status.active_key_unusable_since_time =
        case.active_key_unusable().map(|_| known_since.unwrap_or_else(|| whole_second(case.now)));
    status.previous_key = previous_key(before, case);
    status.failure = failure(before, case);
    status.conditions.push(encrypted(&before.conditions, case, decision, generation));
    status.conditions.extend(key_usable(&before.conditions, case, decision, generation));
    status
}

fn stream(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    case: &ReconcileState,
) -> StreamStatus {
    let arn = &case.subject.stream;
    let old = before.stream.clone().filter(|old| old.arn.as_ref() == Some(&arn.to_string()));
    // A stream given by name is in the operator's own account, which is not disclosed to a namespace that no
    // policy allows the stream.
    let told =
        resource.spec.stream.arn.is_some() || case.subject.permission.role_for(arn) != Err(Denial::Stream);
    let look = match &case.sight {
        Observed::At { look: Some(look), .. } if look.arn == *arn => Some(look),
        Observed::At { .. } | Observed::NotYet | Observed::Failed(_) => None,
    };
    let seen = matches!(case.sight, Observed::At { .. });
    let (source, state) = match (look, old) {
        (Some(look), _) => (look.source.clone(), Some(look.raw_status.clone())),
        (None, Some(old)) if !seen => (old.source, old.state),
        (None, _) => (None, None),
    };
    StreamStatus {
        arn: told.then(|| arn.to_string()),
        service: arn.service,
        account: told.then(|| arn.account.to_string()),
        region: arn.region.to_string(),
        name: arn.name().to_owned(),
        source,
        state,
    }
}

fn failure(before: &StreamEncryptionStatus, case: &ReconcileState) -> Option<Failure> {
    let input = case.input();
    let kind = status_fields::failure_code(&input)?;
    let attempts = case.book.spec.attempts.as_ref().map_or(0, |attempts| attempts.count);
    let known = before.failure.as_ref().filter(|known| known.kind == kind && known.attempts == attempts);
    let last_failure_time = known.map_or(whole_second(case.now), |known| known.last_failure_time.clone());
    Some(Failure { message: message::advice(&kind).to_owned(), kind, last_failure_time, attempts })
}

fn encrypted(
    before: &[Condition],
    case: &ReconcileState,
    decision: &Decision,
    generation: Option<i64>,
) -> Condition {
    let input = case.input();
    let truth = status_fields::encrypted(&input, decision.reason);
    let reason = if truth == ConditionStatus::True { Reason::Encrypted } else { decision.reason };
    let words = message::encrypted(&input);
    condition(before, ConditionType::Encrypted, truth, reason, &words, generation, case.now)
}

fn key_usable(
    before: &[Condition],
    case: &ReconcileState,
    decision: &Decision,
    generation: Option<i64>,
) -> Option<Condition> {
    let input = case.input();
    let say = |truth, reason, words: &str| {
        Some(condition(before, ConditionType::KeyUsable, truth, reason, words, generation, case.now))
    };
    if let Some((key, problem)) = case.active_key_unusable() {
        return say(
            ConditionStatus::False,
            problem.reason(),
            &message::active_key_unusable(&input, &key, problem),
        );
    }
    if matches!(&case.sight, Observed::At { observation: Observation::NotEncryptable(_), .. }) {
        // No key can encrypt this stream.
        return None;
    }
    let (truth, reason) = match (case.subject.desired.key_problem, &case.subject.desired.encryption) {
        (Some(KeyProblem::DescribeDenied), _) => (ConditionStatus::Unknown, Reason::KeyDescribeDenied),
        (Some(problem), _) => (ConditionStatus::False, problem.reason()),
        // KMS has not reported that the key is usable.
        (None, DesiredEncryption::Key(_)) if case.subject.error.is_some() => {
            (ConditionStatus::Unknown, decision.reason)
        }
        (None, DesiredEncryption::Key(_)) => (ConditionStatus::True, Reason::KeyEnabled),
        (None, DesiredEncryption::AnyKey | DesiredEncryption::UnknownKey | DesiredEncryption::Off) => {
            return None;
        }
    };
    let words = match truth {
        ConditionStatus::Unknown if case.subject.error.is_some() => message::ready(&input, decision),
        ConditionStatus::True | ConditionStatus::False | ConditionStatus::Unknown => {
            message::key_usable(&input)
        }
    };
    say(truth, reason, &words)
}

fn previous_key(before: &StreamEncryptionStatus, case: &ReconcileState) -> Option<PreviousKey> {
    let retention = match &case.sight {
        Observed::At { look: Some(look), .. } => look.retention,
        Observed::At { look: None, .. } | Observed::NotYet | Observed::Failed(_) => {
            previous_key::longest_retention(case.subject.stream.service)
        }
    };
    let replaced = previous_key::previous_key(&case.input(), before, retention)?;
    Some(PreviousKey {
        arn: replaced.arn,
        required_until_time: next_whole_second(replaced.required_until_time),
    })
}
