//! The report step: the status that a visit leads to, and what is remembered of the visit. [`publish`](super::publish) writes it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::age;
use super::asked::retry_of;
use super::case::{Case, Sight};
use super::context::Operator;
use super::memory::Visit;
use super::publish::say;
use super::records::{RecordError, Records};
use super::resolve::Unresolved;
use crate::api::condition::{
    ConditionType, Reason, Standing, Truth, condition, find, next_whole_second, standing, whole_second,
};
use crate::api::stream_encryption::{
    Calls, Failure, PreviousKey, StreamEncryption, StreamEncryptionStatus, StreamStatus,
};
use crate::aws::Streams;
use crate::model::backoff;
use crate::model::claims;
use crate::model::decision::{self, Decision, Wanted};
use crate::model::key::KeyProblem;
use crate::model::message;
use crate::model::observation::Observation;
use crate::model::permission::Refusal;
use crate::model::replaced;

/// Reports a decision. Returns when to be back.
pub(super) async fn report<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: Case,
    decision: Decision,
) -> Result<Timestamp, RecordError> {
    let unanswered = match case.sight {
        Sight::Failed(_) => case.visit.unanswered.saturating_add(1),
        Sight::At { .. } => 0,
        Sight::NotYet => case.visit.unanswered,
    };
    let make = |before: &StreamEncryptionStatus| status(resource, before, &case, &decision, unanswered);
    let said =
        say(operator, &resource.metadata, resource.status.as_ref(), &case.visit, case.look_is_fresh(), make)
            .await?;
    let since = backoff::given_since(case.visit.waiting, decision.reason, case.now);
    let visit = Visit {
        look: case.look().map(|(at, look)| (at, look.clone())),
        ledger: case.book.version().map(ToOwned::to_owned),
        key: case.subject.key.clone(),
        active_key: case.active_key.clone(),
        waiting: Some((decision.reason, since)),
        status: said.status,
        unheard: said.unheard,
        unanswered,
        look_due: Some(decision.look_due),
        ..case.visit
    };
    let wake = [said.again, visit.retry_due].into_iter().flatten().fold(decision.wake, Timestamp::min);
    operator.memory.keep(resource, visit);
    Ok(wake)
}

/// Reports a resource that could not be resolved. Returns when to be back.
pub(super) async fn unresolved<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    visit: &Visit,
    why: Unresolved,
) -> Result<Timestamp, RecordError> {
    let mut unanswered = visit.unanswered;
    let (reason, words) = match why {
        Unresolved::Suspended => (Reason::Suspended, String::new()),
        Unresolved::Spec(words) => (Reason::SpecInvalid, format!("The spec has no meaning: {words}.")),
        Unresolved::Identity(fault) => {
            tracing::warn!(
                code = fault.code,
                message = fault.message,
                "AWS does not tell whose credentials these are"
            );
            unanswered = unanswered.saturating_add(1);
            (fault.class.reason(), message::identity(&fault))
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
        status.conditions = standing(&before.conditions, reason, &words, generation, now);
        // What was seen of the stream and the key was so of the spec that it speaks of, and is not taken back.
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
        // No attempt is planned for what is asked for now.
        status.next_attempt_time = None;
        status
    };
    let said = say(operator, &resource.metadata, resource.status.as_ref(), visit, false, make).await?;
    let since = backoff::given_since(visit.waiting, reason, now);
    let wait = if reason == Reason::Suspended {
        operator.rules.drift_interval
    } else {
        backoff::look_again(since, now, SignedDuration::from_secs(5), SignedDuration::from_mins(5))
    };
    let visit = Visit {
        waiting: Some((reason, since)),
        status: said.status,
        unheard: said.unheard,
        unanswered,
        look_due: None,
        ..visit.clone()
    };
    operator.memory.keep(resource, visit);
    Ok(said.again.unwrap_or(now + wait))
}

/// The status that a decision leads to.
fn status(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    case: &Case,
    decision: &Decision,
    unanswered: u32,
) -> StreamEncryptionStatus {
    if decision.reason.standing() == Standing::Unchanged {
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
        // It waits, like everything else.
        Sight::Failed(_) => before.last_handled_retry.clone(),
        // It came too soon after the last look, and is acted on later.
        _ if case.visit.retry_due.is_some() => before.last_handled_retry.clone(),
        Sight::NotYet | Sight::At { .. } => retry_of(resource),
    };
    age::set_describe_time(&mut status, before, case.look().map(|(at, _)| at));
    status
}

/// What of it is decided.
fn decided(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    case: &Case,
    decision: &Decision,
) -> StreamEncryptionStatus {
    let generation = resource.metadata.generation;
    let input = case.input();
    let mut status = StreamEncryptionStatus {
        observed_generation: generation,
        stream: Some(stream(resource, before, case)),
        key: claims::key_asked_for(&input).map(crate::model::key::Key::status),
        next_attempt_time: decision.next_attempt.map(next_whole_second),
        conditions: standing(
            &before.conditions,
            decision.reason,
            &message::ready(&input, decision),
            generation,
            case.now,
        ),
        verified_time: case.subject.intent.verified.map(next_whole_second),
        ..StreamEncryptionStatus::default()
    };
    // What a ledger holds is told to its owner only.
    if matches!(
        decision.reason,
        Reason::NotPermitted | Reason::RolesDiffer | Reason::StreamOwnedByAnother | Reason::LedgerUnreadable
    ) {
        // Without a ledger nothing but the status has counted the calls.
        status.calls = before.calls.clone().filter(|_| !case.book.is_stored());
        return status;
    }
    let budget = decision::budget(&input);
    status.calls = Some(Calls {
        used: budget.used,
        limit: budget.limit,
        next_free: budget.next_free.map(next_whole_second),
    });
    status.key_in_force = claims::key_in_force(&input);
    status.encryption_status = match case.sight {
        // As long as nobody has learned more since.
        Sight::Failed(_) => before.encryption_status.filter(|_| before.key_in_force == status.key_in_force),
        Sight::NotYet | Sight::At { .. } => claims::encryption_status(&input),
    };
    status.encrypted_since = claims::encrypted_since(&input).map(next_whole_second);
    status.plain_text_since = claims::plain_text_since(&input).map(next_whole_second);
    // Another key would be lost since another time.
    let known_since = before.active_key_unusable_since_time.clone();
    let known_since = known_since.filter(|_| before.key_in_force == status.key_in_force);
    status.active_key_unusable_since_time =
        case.key_lost().map(|_| known_since.unwrap_or_else(|| whole_second(case.now)));
    status.previous_key = previous_key(before, case);
    status.failure = failure(before, case);
    status.conditions.push(encrypted(&before.conditions, case, decision, generation));
    status.conditions.extend(key_usable(&before.conditions, case, decision, generation));
    status
}

fn stream(resource: &StreamEncryption, before: &StreamEncryptionStatus, case: &Case) -> StreamStatus {
    let arn = &case.subject.stream;
    let old = before.stream.clone().filter(|old| old.arn.as_ref() == Some(&arn.to_string()));
    // A name alone is of the operator's own account, which is not for a namespace that no policy allows the stream.
    let told =
        resource.spec.stream.arn.is_some() || case.subject.permission.stream(arn) != Err(Refusal::Stream);
    let look = match &case.sight {
        Sight::At { look: Some(look), .. } if look.arn == *arn => Some(look),
        Sight::At { .. } | Sight::NotYet | Sight::Failed(_) => None,
    };
    let seen = matches!(case.sight, Sight::At { .. });
    let (source, state) = match (look, old) {
        (Some(look), _) => (look.source.clone(), Some(look.state_word.clone())),
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

fn failure(before: &StreamEncryptionStatus, case: &Case) -> Option<Failure> {
    let input = case.input();
    let kind = claims::failure(&input)?;
    let attempts = case.book.spec.attempts.as_ref().map_or(0, |attempts| attempts.count);
    let known = before.failure.as_ref().filter(|known| known.kind == kind && known.attempts == attempts);
    let time = known.map_or(whole_second(case.now), |known| known.time.clone());
    Some(Failure { message: message::advice(&kind).to_owned(), kind, time, attempts })
}

fn encrypted(before: &[Condition], case: &Case, decision: &Decision, generation: Option<i64>) -> Condition {
    let input = case.input();
    let truth = claims::encrypted(&input, decision.reason);
    let reason = if truth == Truth::True { Reason::Encrypted } else { decision.reason };
    let words = message::encrypted(&input);
    condition(before, ConditionType::Encrypted, truth, reason, &words, generation, case.now)
}

fn key_usable(
    before: &[Condition],
    case: &Case,
    decision: &Decision,
    generation: Option<i64>,
) -> Option<Condition> {
    let input = case.input();
    let say = |truth, reason, words: &str| {
        Some(condition(before, ConditionType::KeyUsable, truth, reason, words, generation, case.now))
    };
    if let Some((key, problem)) = case.key_lost() {
        return say(Truth::False, problem.reason(), &message::key_lost(&input, &key, problem));
    }
    if matches!(&case.sight, Sight::At { observation: Observation::NotEncryptable(_), .. }) {
        // No key can encrypt this stream.
        return None;
    }
    let (truth, reason) = match (case.subject.intent.key_problem, &case.subject.intent.wanted) {
        (Some(KeyProblem::Unreadable), _) => (Truth::Unknown, Reason::KeyUnreadable),
        (Some(problem), _) => (Truth::False, problem.reason()),
        // Nobody has said that it can be used.
        (None, Wanted::Key(_)) if case.subject.fault.is_some() => (Truth::Unknown, decision.reason),
        (None, Wanted::Key(_)) => (Truth::True, Reason::KeyEnabled),
        (None, Wanted::AnyKey | Wanted::UnknownKey | Wanted::Off) => return None,
    };
    let words = match truth {
        Truth::Unknown if case.subject.fault.is_some() => message::ready(&input, decision),
        Truth::True | Truth::False | Truth::Unknown => message::key_usable(&input),
    };
    say(truth, reason, &words)
}

fn previous_key(before: &StreamEncryptionStatus, case: &Case) -> Option<PreviousKey> {
    let retention = match &case.sight {
        Sight::At { look: Some(look), .. } => look.retention,
        Sight::At { look: None, .. } | Sight::NotYet | Sight::Failed(_) => {
            replaced::longest_retention(case.subject.stream.service)
        }
    };
    let replaced = replaced::previous_key(&case.input(), before, retention)?;
    Some(PreviousKey { arn: replaced.arn, needed_until: next_whole_second(replaced.needed_until) })
}
