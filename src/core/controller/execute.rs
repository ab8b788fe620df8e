//! The execute step: the only place that calls Start or Stop. It decides only whether the description is new
//! enough for the decided step.
//!
//! The order is fixed: the rate limiter's permit, the current resource and policies, the reservation in the
//! ledger, the call, its outcome in the ledger. No call is sent before the reservation is acknowledged, and
//! none is sent twice. The call carries the date of its reservation, and AWS refuses a date that differs from
//! its own clock by more than 15 minutes. Whatever happens to the operator's clock, AWS therefore counts a call
//! within 15 minutes of its time in the ledger, or not at all.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::StreamEncryption;
use tracing::{info, warn};

use super::context::Context;
use super::finalize;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, KubeError, ReconcileEvent};
use super::ledger_store::resource_identity;
use super::recheck::{ensure_owner_lost_stream, ensure_policies_unchanged, ensure_spec_unchanged};
use super::state::{MAX_AGE_AFTER_PERMIT, MAX_AGE_AT_CALL, MAX_CHECK_DURATION, ReconcileState};
use super::stream_api::{Signer, StreamApi};
use crate::model::arn::StreamArn;
use crate::model::aws_error::{Accepted, AwsError, ErrorKind, NOT_RESERVED, OPERATOR_PAUSED, RESPONSE_LATE};
use crate::model::aws_event::EventScope;
use crate::model::decision::{self, Decision, Ownership, Step};
use crate::model::desired::DesiredEncryption;
use crate::model::key::Key;
use crate::model::ledger::{self, PlannedCall};
use crate::model::message;
use crate::model::service::Operation;

/// Maximum time from the start of the resolve step to a write of the ledger. Usually it is a second. If it is
/// longer, the process was paused, or several requests have used up their deadlines; in both cases the desired
/// key may be another one by now. A reconcile that is late is given up, and repeated later, as after a conflict.
const MAX_AGE_AT_LEDGER_WRITE: Duration = Duration::from_mins(2);

/// Number of consecutive writes of a ledger without an acknowledgement after which a reconcile reports that the ledger cannot be
/// written. A webhook may fail the writes of ledgers only. Without this limit, no reconcile would then report anything.
const UNACKNOWLEDGED_BEFORE_REPORT: u32 = 3;

/// Maximum time from the reservation of a call to AWS's response. If it is longer, the process was paused, or the API server or
/// AWS was slow. AWS may then have received the call long after the reservation. [`READ_LAG`](ledger::READ_LAG) is counted from
/// the reservation. So it may have passed while AWS still reports the state from before the call. The outcome therefore counts
/// as unknown.
const MAX_RESPONSE_TIME: SignedDuration = SignedDuration::from_secs(15);

/// Prepares a decision. Returns whether it can be executed; if not, the caller describes the stream first, and decides
/// again. Waits for the rate limiter's permit for a call, unless this reconcile already has a permit for the same action. After
/// a long wait the description is too old for the call: the stream is then described a second time, and the permit remains.
/// Returns [`Interruption::Outdated`] if that description is too old, too.
pub(super) async fn prepare<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    state: &mut ReconcileState,
    decision: &Decision,
) -> Result<bool, Interruption> {
    Ok(match &decision.step {
        Step::Describe => false,
        Step::ChangeEncryption(_) if !state.is_fresh() => false,
        Step::ChangeEncryption(call) if state.permit == Some(call.target.action) => {
            if state.age(context.clock.monotonic()) > MAX_AGE_AFTER_PERMIT {
                return Err(Interruption::Outdated);
            }
            true
        }
        Step::ChangeEncryption(call) => acquire_permit(context, state, call.target.action).await?,
        // A test record needs a fresh description. Before `describe_due` no test record is due, so a remembered description
        // suffices: `execute` then only saves the ledger.
        Step::Verify => state.is_fresh() || decision.describe_due > state.now,
        Step::RemoveFinalizer | Step::Wait => true,
    })
}

/// Waits for the rate limiter's permit for the call, unless this replica stops leading meanwhile. The limit is that of the
/// principal (the operator's identity, or the role of the policies); the signer is the access key that signed the Describe.
/// Returns `false` if the description or the resolved spec is too old by then, or if the operator's credentials have changed;
/// the stream must then be described again.
async fn acquire_permit<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    state: &mut ReconcileState,
    action: Action,
) -> Result<bool, Interruption> {
    let Some(signer) = &state.signer else { return Ok(false) };
    let (stream, principal) = (&state.spec.stream, &state.spec.principal);
    let permit = context.aws.acquire_permit(stream, action, principal, signer);
    let is_same_signer = state.term_end.in_term(&context.clock, permit).await?;
    state.permit = Some(action);
    Ok(is_same_signer && state.age(context.clock.monotonic()) <= MAX_AGE_AFTER_PERMIT)
}

/// Executes a decision that is ready: one call, one test record, the removal of the finalizer, or nothing but
/// a write of the ledger. Returns [`Interruption::Outdated`] if the decision is no longer valid.
pub(super) async fn execute<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
    decision: &Decision,
) -> Result<(), Interruption> {
    let executed = match &decision.step {
        Step::ChangeEncryption(call) => change_encryption(context, resource, state, call).await,
        Step::Verify if state.may_write_record() => verify(context, resource, state).await,
        Step::RemoveFinalizer => {
            // The ledger in memory may differ from the stored one: by AWS's events, by the description, or because it was
            // rebuilt or taken over. The finalizer is removed even if the ledger cannot be written.
            let saved = save_ledger(context, resource, state).await;
            continue_without_ledger(state, saved)?;
            return finalize::remove_decided_finalizer(context, resource, state, decision).await;
        }
        Step::Describe | Step::Verify | Step::Wait => save_ledger(context, resource, state).await,
    };
    continue_without_ledger(state, executed)
}

/// If the API server has rejected the write of the ledger, or has not acknowledged several writes in succession, logs that and
/// returns no error: the reconcile goes on, and its report has the reason `LedgerInvalid`. Returns every other result
/// unchanged.
fn continue_without_ledger(
    state: &mut ReconcileState,
    executed: Result<(), Interruption>,
) -> Result<(), Interruption> {
    let why = match executed {
        Err(Interruption::Kubernetes(KubeError::Rejected(why)))
            if state.ledger.ownership == Ownership::LedgerInvalid =>
        {
            why
        }
        Err(Interruption::Kubernetes(KubeError::Unavailable(why)))
            if state.ledger.unacknowledged_writes >= UNACKNOWLEDGED_BEFORE_REPORT =>
        {
            state.ledger.ownership = Ownership::LedgerInvalid;
            why
        }
        executed => return executed,
    };
    warn!(stream = %state.spec.stream, why, "failed to write the ledger");
    Ok(())
}

/// Sends the planned call. Returns [`Interruption::Outdated`] in two cases: the decision is no longer valid, and no call was
/// sent; or the call was sent, and another writer may have changed the ledger meanwhile. The next reconcile describes the stream
/// again.
async fn change_encryption<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
    call: &PlannedCall,
) -> Result<(), Interruption> {
    let stream = state.spec.stream.clone();
    let target = &call.target;
    let start = context.clock.monotonic();
    ensure_spec_unchanged(context, resource).await?;
    ensure_policies_unchanged(context, resource, &state.spec.permission).await?;
    ensure_owner_lost_stream(context, state).await?;
    if is_late(context, state, start) {
        return Err(Interruption::Outdated);
    }

    let known_encryption_before = state.ledger.spec.known_encryption.clone();
    let reserved = context.clock.now();
    // `verified_now` reads the time after the Describe. `state.now` has that time only until it is set below.
    let (Some(verified_now), Some(signer)) = (state.verified_now(), state.signer.clone()) else {
        return Err(Interruption::Outdated);
    };
    // Whether the clock was set back after the Describe, which may have set `known_encryption` and its time. In the ledger, this
    // time would be later than the time of the call. The ledger would then say that a Describe after the call has shown this
    // encryption.
    let is_set_back = reserved < state.now;
    state.now = reserved;
    // If the clock was set after the decision, the number of calls that count may have changed.
    if is_set_back || !decision::budget(&state.input()).has_room() {
        return Err(Interruption::Outdated);
    }
    let shorter = ledger::prune_expired(&state.ledger.spec, verified_now);
    // The id is made of the nanoseconds of this time, which `reserved` lacks. It must differ from the ids of other processes.
    let (spec, id) = ledger::reserve(&shorter, call, context.clock.exact().max(reserved));
    state.ledger.spec = spec;
    let operation = Operation::change(stream.service, target.action);
    if let Err(error) = write_ledger(context, resource, state).await {
        // The API server may have applied the write, or may still apply it. If the next reconcile finds the reservation, it
        // records that the call was not sent. Without this record, the stream would wait for the effect of the call.
        if !matches!(error, KubeError::Rejected(_)) {
            let why = "the API server did not acknowledge the reservation";
            context.memory.record_unsent_call(
                resource,
                &id,
                AwsError::not_sent(operation, NOT_RESERVED, why),
            );
        }
        return Err(error.into());
    }

    let is_current = is_current_after_reservation(context, resource, state, start).await;
    let sent = context.clock.monotonic();
    let outcome = if is_current {
        info!(%stream, call = id, action = ?target.action, key = ?target.key, correction = call.correction, "changing encryption");
        send(context, state, target, &signer, reserved).await
    } else {
        let why = "too much time has passed since the Describe, or since the checks";
        Err(AwsError::not_sent(operation, OPERATOR_PAUSED, why))
    };
    let kind = outcome.as_ref().map(|_| ()).map_err(|error| error.kind);
    context.metrics.called(stream.service, target.action, kind);
    let is_unsent = outcome.as_ref().is_err_and(AwsError::is_unsent);
    match &outcome {
        Ok(_) => {
            info!(%stream, call = id, "AWS accepted the call");
            context.memory.events.record_own_call(&EventScope::of(&stream), sent);
        }
        Err(error) => {
            let words = match error.kind {
                _ if is_unsent => "the call was not sent",
                ErrorKind::UnknownOutcome => "AWS may have applied the call: there is no definite answer",
                _ => "AWS refused the call",
            };
            warn!(%stream, call = id, code = error.code, kind = ?error.kind, aws_message = error.message, "{words}");
        }
    }
    let now = context.clock.now();
    // The monotonic clock of a suspended machine stands still.
    let elapsed = SignedDuration::try_from(context.clock.monotonic().saturating_sub(sent));
    let response_time = now.duration_since(reserved).max(elapsed.unwrap_or(SignedDuration::MAX));
    let outcome = match outcome {
        Ok(accepted) if response_time > MAX_RESPONSE_TIME => {
            warn!(%stream, call = id, "the response came late, so the outcome counts as unknown");
            Err(response_late(&stream, target.action, accepted))
        }
        outcome => outcome,
    };
    let recorded = state
        .ledger
        .update_with_retry(&context.kube, |ledger| ledger::record_outcome(ledger, &id, outcome.as_ref(), now))
        .await;
    if let Err(error) = recorded {
        // The reservation stays pending, in the ledger and in the status. The next reconcile finds it pending. It records that
        // the call was not sent, or learns from a Describe whether AWS applied the call.
        warn!(%stream, call = id, %error, "failed to record the outcome");
        state.ledger.discard_changes();
        if let Err(cause) = outcome
            && is_unsent
        {
            context.memory.record_unsent_call(resource, &id, cause);
        }
    }
    if call.correction && !is_unsent {
        let was = message::active_key(&state.input(), known_encryption_before.as_ref());
        let note = format!("Drift detected. {was} The operator is correcting it.");
        let event =
            ReconcileEvent { warning: true, reason: "DriftCorrected".to_owned(), action: "Correct", note };
        context.publish_event(&resource_identity(resource), &event).await;
    }
    state.now = context.clock.now();
    if state.ledger.superseded { Err(Interruption::Outdated) } else { Ok(()) }
}

/// Returns whether too much time has passed for a call whose checks began at `start`: since then, or since the Describe.
fn is_late<A, R>(context: &Context<A, R>, state: &ReconcileState, start: Duration) -> bool {
    let now = context.clock.monotonic();
    now.saturating_sub(start) > MAX_CHECK_DURATION || state.age(now) > MAX_AGE_AT_CALL
}

/// Returns whether the call may be sent, now that it is in the ledger. The checks, which began at `start`, are repeated if they
/// are too old by now. An admission webhook with `failurePolicy: Ignore` that does not respond delays each write by its timeout,
/// which is 10 seconds by default: without a second check no call would ever be sent. An error counts as a change, because the
/// call can be made later.
async fn is_current_after_reservation<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &ReconcileState,
    start: Duration,
) -> bool {
    let now = context.clock.monotonic();
    if now.saturating_sub(start) <= MAX_CHECK_DURATION {
        return !is_late(context, state, start);
    }
    let is_unchanged = ensure_spec_unchanged(context, resource).await.is_ok()
        && ensure_policies_unchanged(context, resource, &state.spec.permission).await.is_ok();
    is_unchanged && !is_late(context, state, now)
}

/// Writes the updated ledger, without a call. If the update depends on the spec, the resource must be unchanged.
/// If it claims the stream, the policies must be unchanged, too: a resource that no policy allows any more must
/// not claim a stream. If it takes the stream over from another owner, that owner must still not hold the stream.
async fn save_ledger<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
) -> Result<(), Interruption> {
    if state.ledger.is_changed() && state.spec_age(context.clock.monotonic()) > MAX_AGE_AT_LEDGER_WRITE {
        return Err(Interruption::Outdated);
    }
    if state.ledger.depends_on_spec() {
        ensure_spec_unchanged(context, resource).await?;
    }
    if state.ledger.claims() {
        if !state.spec.claim().allowed {
            // The key was resolved again after the ledger was opened, and policies do not allow the new one.
            return Err(Interruption::Outdated);
        }
        ensure_policies_unchanged(context, resource, &state.spec.permission).await?;
        ensure_owner_lost_stream(context, state).await?;
    }
    Ok(write_ledger(context, resource, state).await?)
}

/// Writes the ledger. If this takes the stream over from another resource, discards the description that this process remembers for
/// that resource. Otherwise a reconcile of that resource could use it again, if a cache that lags still holds the ledger from before
/// the takeover.
async fn write_ledger<A, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
) -> Result<(), KubeError> {
    let replaced = state.ledger.replaced_owner().map(|owner| owner.uid.clone());
    // Whether the result changes the number of unacknowledged writes. A reconcile that has described the stream computes again
    // what these writes contained. If it has nothing to write, the stored ledger has all of it. `save` then returns `Ok`, which sets
    // the number to zero.
    let is_counted = state.ledger.is_changed() || state.is_fresh();
    let saved = state.ledger.save(&context.kube).await;
    if is_counted {
        let is_acknowledged = !matches!(saved, Err(KubeError::Unavailable(_)));
        state.ledger.unacknowledged_writes = context.memory.record_ledger_write(resource, is_acknowledged);
    }
    saved?;
    if let Some(uid) = replaced {
        context.memory.forget_description(&uid);
    }
    Ok(())
}

/// Writes the ledger and one test record, and reads from the response whether the record was encrypted. The
/// signer of the Describe signs the record, as with a call, so that the record cannot reach another account's
/// stream. Returns [`Interruption::Outdated`] if the decision is no longer valid.
async fn verify<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
) -> Result<(), Interruption> {
    save_ledger(context, resource, state).await?;
    let Some(signer) = &state.signer else { return Ok(()) };
    let permit = context.aws.acquire_record_permit(&state.spec.stream, &state.spec.principal, signer);
    let is_same_signer = state.term_end.in_term(&context.clock, permit).await?;
    if !is_same_signer {
        info!(stream = %state.spec.stream, "no test record: the credentials have changed since the Describe");
        return Ok(());
    }
    // After the wait for the permit, which may have been long.
    ensure_spec_unchanged(context, resource).await?;
    ensure_policies_unchanged(context, resource, &state.spec.permission).await?;
    state.ledger.ensure_unchanged(&context.kube).await?;
    let me = resource_identity(resource);
    let record = format!("{{\"streamencryption.dev/verify\":\"{}/{}\"}}\n", me.namespace, me.name);
    match context.aws.put_record(&state.spec.stream, &record, &state.spec.principal, signer).await {
        Ok(true) => state.spec.desired.verified = Some(context.clock.now()),
        Ok(false) => info!(stream = %state.spec.stream, "test record was not encrypted yet"),
        Err(error) => {
            warn!(stream = %state.spec.stream, code = error.code, aws_message = error.message, "failed to write a test record");
        }
    }
    state.now = context.clock.now();
    Ok(())
}

async fn send<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    state: &ReconcileState,
    target: &Target,
    signer: &Signer,
    reserved: Timestamp,
) -> Result<Accepted, AwsError> {
    let (stream, principal) = (&state.spec.stream, &state.spec.principal);
    match (target.action, &state.spec.desired.encryption) {
        (Action::Start, DesiredEncryption::Key(key)) => {
            context.aws.start(stream, key, principal, signer, reserved).await
        }
        // The plan of a Start without a desired key has AWS's key as its target. `UnknownKey` and `Off` lead to no Start.
        (
            Action::Start,
            DesiredEncryption::AnyKey | DesiredEncryption::UnknownKey | DesiredEncryption::Off,
        ) => context.aws.start(stream, &Key::AwsOwned, principal, signer, reserved).await,
        (Action::Stop, _) => {
            let known = state.ledger.spec.known_encryption.as_ref();
            let active_key = known.and_then(|known| known.key.as_ref()).map(Key::of);
            context.aws.stop(stream, active_key.as_ref(), principal, signer, reserved).await
        }
    }
}

/// Returns the outcome of a call that AWS accepted long after its reservation.
fn response_late(stream: &StreamArn, action: Action, accepted: Accepted) -> AwsError {
    AwsError {
        operation: Operation::change(stream.service, action),
        kind: ErrorKind::UnknownOutcome,
        code: Some(RESPONSE_LATE.to_owned()),
        message: "AWS accepted the call long after its reservation".to_owned(),
        request_id: accepted.request_id,
    }
}
