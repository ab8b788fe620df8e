//! The observe step: one Describe of the stream, its effect on the ledger in memory, and the state of the
//! active key. Reads; writes nothing.
//!
//! A Describe may wait minutes for the rate limiter's permit. After such a wait the spec is resolved again:
//! an alias or an object may stand for another key by then, and the ledger would be updated for the old key.

use stream_encryption_api::stream_encryption::StreamEncryption;
use tracing::{debug, warn};

use super::clock::Moment;
use super::context::Context;
use super::due_work;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, ReadFrom};
use super::memory::LastOutcome;
use super::resolve::{self, ResolveError, ResolvedSpec};
use super::state::{MAX_AGE_AFTER_PERMIT, Observed, ReconcileState};
use super::stream_api::{Priority, StreamApi};
use crate::model::arn::KmsKeyId;
use crate::model::aws_error::ErrorKind;
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::ledger;
use crate::model::observation::{DescribeTimes, Observation, ReportedEncryption};
use crate::model::status_fields;
use crate::work_queue::Lane;

/// Describes the stream of a reconcile, and applies the observation to its ledger. Returns
/// [`Interruption::RememberedNotFresh`] if the reconcile began with an earlier description.
pub(super) async fn describe_stream<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
) -> Result<(), Interruption> {
    if state.last.remembered.is_some() {
        return Err(Interruption::RememberedNotFresh);
    }
    send_describe(context, resource, state).await?;
    if state.spec_age(context.clock.monotonic()) > MAX_AGE_AFTER_PERMIT {
        let resolving = resolve::resolve(context, resource, &state.last, ReadFrom::ApiServer);
        match state.term_end.in_term(&context.clock, resolving).await? {
            Ok(spec) => state.replace_spec(spec)?,
            Err(ResolveError::Kubernetes(error)) => return Err(error.into()),
            // The next reconcile reports it.
            Err(_) => return Err(Interruption::Outdated),
        }
    }
    if state.permit.is_some() && matches!(state.observed, Observed::Failed(_)) {
        // This is the second Describe, after the wait for a permit. The ledger in memory already has the effect of
        // the first one, so a failure cannot be reported from this state.
        return Err(Interruption::Outdated);
    }
    // The observation is applied even if KMS does not answer by now: the description of the stream is valid
    // regardless.
    apply_observation(state);
    if let Some(error) = &state.spec.key_error {
        state.observed = Observed::Failed(error.clone());
    }
    Ok(())
}

/// Describes the active customer managed key in KMS, unless the key is the desired one. A failed request does
/// not stop the reconcile.
pub(super) async fn describe_active_key<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    state: &mut ReconcileState,
) {
    if !state.is_fresh() {
        return;
    }
    let Some(arn) = status_fields::active_customer_key(&state.input()) else { return };
    let stream = &state.spec.stream;
    if let Some((_, Some(metadata))) = &state.spec.described_key
        && metadata.arn == arn
    {
        state.active_key_report = Some((arn, metadata.problem(stream)));
        return;
    }
    if let Some((KmsKeyId::Arn(name), None)) = &state.spec.described_key
        && *name == arn
    {
        state.active_key_report = Some((arn, Some(KeyProblem::NotFound)));
        return;
    }
    if state.spec.desired.encryption == DesiredEncryption::Key(Key::Customer(arn.clone())) {
        // The resolve step has not received an answer about it.
        return;
    }
    let (name, principal) = (KmsKeyId::Arn(arn.clone()), &state.spec.principal);
    match context.aws.describe_key(stream, &name, principal, Priority::Drift).await {
        Ok(metadata) => {
            let problem = metadata.map_or(Some(KeyProblem::NotFound), |metadata| metadata.problem(stream));
            state.active_key_report = Some((arn, problem));
        }
        // The status keeps its report about the key.
        Err(error) => {
            debug!(key = %arn, code = error.code, aws_message = error.message, "failed to describe the active key");
        }
    }
}

async fn send_describe<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
) -> Result<(), Interruption> {
    let at = context.clock.moment();
    let principal = &state.spec.principal;
    let priority = match due_work::lane(resource, LastOutcome::from(&state.last)) {
        Lane::Changed => Priority::Changing,
        Lane::InProgress if !state.is_for_event => Priority::Changing,
        Lane::InProgress | Lane::Event | Lane::Drift => Priority::Drift,
    };
    let request = context.aws.describe_stream(&state.spec.stream, principal, priority);
    let seen = state.term_end.unless_ended(request).await.ok_or(Interruption::Ended(at.wall))?;
    context.metrics.described(state.spec.stream.service, seen.is_ok());
    state.answered = match &seen {
        Ok(_) => Some(true),
        Err(error) => match error.kind {
            ErrorKind::Transient => Some(false),
            ErrorKind::NoCredentials => None,
            // A refusal is a response, too.
            _ => Some(true),
        },
    };
    state.now = context.clock.now();
    // The second Describe may have waited for the rate limiter again. With that wait included, a busy rate
    // limiter would prevent every call.
    state.description_start = if state.permit.is_some() { context.clock.monotonic() } else { at.monotonic };
    match seen {
        Ok(seen) => {
            let (description, signer) = seen.unzip();
            let is_stream =
                description.as_ref().is_some_and(|description| description.arn == state.spec.stream);
            let same = is_same_account(context, &state.spec);
            if !is_stream && !state.term_end.in_term(&context.clock, same).await? {
                return Err(Interruption::Outdated);
            }
            if let Some(ReportedEncryption::Failed { reason, details, .. }) =
                description.as_ref().map(|description| &description.encryption)
            {
                debug!(stream = %state.spec.stream, reason, details, "AWS reported a failure");
            }
            state.signer = signer;
            state.successful_describe = Some(at.wall);
            state.observed = Observed::of(&state.spec, at, description, true);
        }
        Err(error) => {
            warn!(stream = %state.spec.stream, code = error.code, aws_message = error.message, "failed to describe stream");
            state.observed = Observed::Failed(error);
        }
    }
    Ok(())
}

/// Returns whether the operator's credentials are still those of the account with which the spec was resolved. Those of another
/// account may have replaced them before the Describe. That account has no stream of this name, or another one. If the principal
/// has a role, returns `true`: requests then reach the account of the role, whatever the operator's credentials are.
async fn is_same_account<A: StreamApi, R: KubeApi>(context: &Context<A, R>, spec: &ResolvedSpec) -> bool {
    let own = spec.permission.own_account();
    spec.principal.role.is_some() || context.aws.identity().await.is_ok_and(|identity| identity == *own)
}

/// Applies the observation to the ledger. The observation of another stream, of no stream, or of a stream
/// that cannot be encrypted has no effect.
fn apply_observation(state: &mut ReconcileState) {
    let Observed::Described { at, description: Some(description), observation, .. } = &state.observed else {
        return;
    };
    if matches!(observation, Observation::OtherStream | Observation::NotEncryptable(_)) {
        return;
    }
    // A clock that was set back during the Describe must not make the observation newer.
    let requested = state.requested(Moment { wall: at.wall.min(state.now), ..*at });
    let wanted = state.spec.desired.encryption.target();
    let has_problem = state.spec.desired.key_problem.is_some();
    state.ledger.spec = ledger::apply_observation(
        &state.ledger.spec,
        observation,
        description.created,
        wanted.as_ref(),
        has_problem,
        DescribeTimes { requested, answered: state.now },
    );
}
