//! The report step: the status, an event on a transition, and what is remembered. Writes to Kubernetes only what changed.
//!
//! A status that is already there is not written again: in the steady state a look costs no write. Nor is one that this
//! process has written before and another replica has changed since, unless it has just looked: two memories would write
//! against each other for ever.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use tracing::info;

use super::book::owner;
use super::case::{Case, Sight};
use super::context::Operator;
use super::memory::Visit;
use super::records::{AFTER_CONFLICT, Happening, RecordError, Records};
use super::resolve::Unresolved;
use crate::api::condition::{
    ConditionType, Reason, Standing, Truth, condition, find, standing, whole_second,
};
use crate::api::stream_encryption::{
    Calls, Failure, PreviousKey, Service, StreamEncryption, StreamEncryptionStatus, StreamStatus,
};
use crate::aws::Streams;
use crate::model::backoff;
use crate::model::claims;
use crate::model::decision::{self, Decision, Wanted};
use crate::model::key::KeyProblem;
use crate::model::message;
use crate::model::permission::Refusal;
use crate::model::replaced;

/// Reports a decision. Returns when to be back.
pub(super) async fn report<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: Case,
    decision: Decision,
) -> Result<Timestamp, RecordError> {
    let make = |before: &StreamEncryptionStatus| status(resource, before, &case, &decision);
    let said = say(operator, resource, &case.visit, case.look_is_fresh(), make).await?;
    let since = backoff::given_since(case.visit.waiting, decision.reason, case.now);
    let visit = Visit {
        look: case.look().map(|(at, look)| (at, look.clone())),
        ledger: case.book.version().map(ToOwned::to_owned),
        key: case.subject.key.clone(),
        key_in_force: case.key_in_force.clone(),
        waiting: Some((decision.reason, since)),
        status: said.status,
        unheard: said.unheard,
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
    let (reason, words) = match why {
        Unresolved::Spec(words) => (Reason::SpecInvalid, format!("The spec has no meaning: {words}.")),
        Unresolved::Identity(fault) => {
            tracing::warn!(
                code = fault.code,
                message = fault.message,
                "AWS does not tell whose credentials these are"
            );
            (fault.class.reason(), message::identity(&fault))
        }
    };
    let now = operator.clock.now();
    let make = |before: &StreamEncryptionStatus| {
        let generation = resource.metadata.generation;
        let mut status = before.clone();
        status.observed_generation = generation;
        status.conditions = standing(&before.conditions, reason, &words, generation, now);
        // What was seen of the stream and the key was so of the spec that it speaks of, and is not taken back.
        let kept = [ConditionType::Encrypted, ConditionType::KeyUsable];
        status.conditions.extend(kept.into_iter().filter_map(|kind| find(&before.conditions, kind).cloned()));
        // No attempt is planned for what is asked for now.
        status.next_attempt_time = None;
        status
    };
    let said = say(operator, resource, visit, false, make).await?;
    let since = backoff::given_since(visit.waiting, reason, now);
    let wait = backoff::look_again(since, now, SignedDuration::from_secs(5), SignedDuration::from_mins(5));
    let visit = Visit {
        waiting: Some((reason, since)),
        status: said.status,
        unheard: said.unheard,
        look_due: None,
        ..visit.clone()
    };
    operator.memory.keep(resource, visit);
    Ok(said.again.unwrap_or(now + wait))
}

/// Reports a resource whose content is not what its schema says. Its own status cannot be read either, so what was last
/// written is remembered: each write brings the resource back, and must not lead to another.
pub async fn malformed<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    read: &ObjectMeta,
    why: &str,
) -> Result<(), RecordError> {
    let words = format!("The resource cannot be read: {why}. Write it anew.");
    let uid = read.uid.as_deref().unwrap_or_default();
    let before = operator.memory.status_of(uid);
    let known = before.as_ref().map_or(&[][..], |before| &before.conditions);
    let status = StreamEncryptionStatus {
        observed_generation: read.generation,
        conditions: standing(known, Reason::SpecInvalid, &words, read.generation, operator.clock.now()),
        ..StreamEncryptionStatus::default()
    };
    if before.as_ref() == Some(&status) {
        return Ok(());
    }
    operator.records.write_status(read, &status).await?;
    operator.memory.keep_status(uid, status);
    Ok(())
}

/// What became of a status.
struct Said {
    /// What this process said last.
    status: Option<StreamEncryptionStatus>,
    /// Whether what it tried to say since went unheard.
    unheard: bool,
    /// When to try again, if somebody else wrote first.
    again: Option<Timestamp>,
}

/// Says the status that `make` makes of what was said before, where it is news. To repeat what this process said last is none,
/// unless it has just `looked`, or what stands there may be its own: what it said in between and nobody answered.
async fn say<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    visit: &Visit,
    looked: bool,
    make: impl Fn(&StreamEncryptionStatus) -> StreamEncryptionStatus,
) -> Result<Said, RecordError> {
    let before = resource.status.clone().unwrap_or_default();
    let status = make(&before);
    let last = visit.status.as_ref();
    let may_repeat = looked || visit.unheard || last.is_none_or(|last| *last != make(last));
    let mut unheard = visit.unheard;
    if resource.status.as_ref() != Some(&status) && may_repeat {
        match operator.records.write_status(&resource.metadata, &status).await {
            Ok(()) => {
                unheard = false;
                tell(operator, resource, &before, &status).await;
            }
            // The next visit says it, of what is true then; a new look would only give cause to write again.
            Err(RecordError::Conflict) => {
                let again = operator.clock.now() + AFTER_CONFLICT;
                return Ok(Said { status: last.cloned(), unheard, again: Some(again) });
            }
            Err(error) => {
                operator.memory.unheard(resource);
                return Err(error);
            }
        }
    }
    Ok(Said { status: Some(status), unheard, again: None })
}

/// Tells of a transition.
async fn tell<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    status: &StreamEncryptionStatus,
) {
    let Some(mut happening) = transition(&before.conditions, &status.conditions) else { return };
    happening.encrypted_after = encrypted_after(before, status, operator.clock.now());
    let me = owner(resource);
    info!(
        namespace = me.namespace,
        name = me.name,
        reason = happening.reason,
        note = happening.note,
        "status"
    );
    operator.records.tell(&me, &happening).await;
}

/// For how long records were in plain text, if that has just ended.
fn encrypted_after(
    before: &StreamEncryptionStatus,
    after: &StreamEncryptionStatus,
    now: Timestamp,
) -> Option<(Service, SignedDuration)> {
    let since = before.plain_text_since.as_ref().filter(|_| after.key_in_force.is_some())?;
    Some((after.stream.as_ref()?.service, now.duration_since(since.0)))
}

/// What a person is told when `Ready` changes its reason, or the key stops being usable.
fn transition(before: &[Condition], after: &[Condition]) -> Option<Happening> {
    let changed = |kind| {
        let new = find(after, kind)?;
        let same = find(before, kind).is_some_and(|old| old.status == new.status && old.reason == new.reason);
        (!same).then_some(new)
    };
    let key = changed(ConditionType::KeyUsable).filter(|condition| condition.status == Truth::False.as_str());
    let condition = changed(ConditionType::Ready).or(key)?;
    let reason = condition.reason.parse::<Reason>().ok();
    let at_ease = [
        Reason::Settling,
        Reason::Verifying,
        Reason::Enabling,
        Reason::Disabling,
        Reason::StreamUpdating,
        Reason::StreamCreating,
        Reason::Suspended,
    ];
    let warning =
        condition.status != Truth::True.as_str() && !reason.is_some_and(|reason| at_ease.contains(&reason));
    let note = condition.message.clone();
    Some(Happening {
        warning,
        reason: condition.reason.clone(),
        action: "Reconcile",
        note,
        encrypted_after: None,
    })
}

/// The status that a decision leads to.
fn status(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    case: &Case,
    decision: &Decision,
) -> StreamEncryptionStatus {
    let generation = resource.metadata.generation;
    if decision.reason.standing() == Standing::Unchanged {
        return unchanged(before, generation, case.now, &message::ready(&case.input(), decision));
    }
    let input = case.input();
    let mut status = StreamEncryptionStatus {
        observed_generation: generation,
        stream: Some(stream(resource, before, case)),
        key: claims::key_asked_for(&input).map(crate::model::key::Key::status),
        next_attempt_time: decision.next_attempt.map(rounded_up),
        conditions: standing(
            &before.conditions,
            decision.reason,
            &message::ready(&input, decision),
            generation,
            case.now,
        ),
        verified_time: case.subject.intent.verified.map(rounded_up),
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
    status.calls =
        Some(Calls { used: budget.used, limit: budget.limit, next_free: budget.next_free.map(rounded_up) });
    status.key_in_force = claims::key_in_force(&input);
    status.encryption_status = match case.sight {
        // As long as nobody has learned more since.
        Sight::Failed(_) => before.encryption_status.filter(|_| before.key_in_force == status.key_in_force),
        Sight::NotYet | Sight::At { .. } => claims::encryption_status(&input),
    };
    status.encrypted_since = claims::encrypted_since(&input).map(rounded_up);
    status.plain_text_since = claims::plain_text_since(&input).map(rounded_up);
    status.previous_key = previous_key(before, case);
    status.failure = failure(before, case);
    status.conditions.push(encrypted(&before.conditions, case, decision, generation));
    status.conditions.extend(key_usable(&before.conditions, case, decision, generation));
    status
}

/// Suspended: all stays as it was but the generation that is spoken of.
fn unchanged(
    before: &StreamEncryptionStatus,
    generation: Option<i64>,
    now: Timestamp,
    words: &str,
) -> StreamEncryptionStatus {
    let mut status = before.clone();
    status.observed_generation = generation;
    status.next_attempt_time = None;
    status.conditions.retain(|old| {
        old.type_ != ConditionType::Reconciling.as_str() && old.type_ != ConditionType::Stalled.as_str()
    });
    for condition in &mut status.conditions {
        condition.observed_generation = generation;
    }
    if find(&status.conditions, ConditionType::Ready).is_none() {
        let ready =
            condition(&[], ConditionType::Ready, Truth::Unknown, Reason::Suspended, words, generation, now);
        status.conditions.insert(0, ready);
    }
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
    Some(PreviousKey { arn: replaced.arn, needed_until: rounded_up(replaced.needed_until) })
}

/// What holds *from* a time on is told as the next whole second: never too early.
fn rounded_up(at: Timestamp) -> Time {
    let floor = whole_second(at).0;
    if floor == at {
        Time(at)
    } else {
        Time(crate::model::ledger::later(floor, SignedDuration::from_secs(1)))
    }
}
