//! The observe step: one Describe of the stream, its effect on the ledger in memory, and the state of the
//! active key. Reads; writes nothing.
//!
//! A Describe may wait minutes for the rate limiter's permit. After such a wait the spec is resolved again:
//! an alias or an object may stand for another key by then, and the ledger would be updated for the old key.

use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::StreamEncryption;
use tracing::{debug, warn};

use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, ReadFrom};
use super::resolve::{self, ResolveError};
use super::state::{MAX_STATE_AGE, Observed, ReconcileState};
use crate::controller::stream_api::{Priority, StreamApi};
use crate::model::key::{KeyProblem, KmsKeyId};
use crate::model::ledger;
use crate::model::observation::{Observation, ReportedEncryption};
use crate::model::status_fields;

/// Describes the stream of a reconcile, and applies the observation to its ledger.
pub(super) async fn observe<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
    case: &mut ReconcileState,
) -> Result<Result<(), ResolveError>, Interruption> {
    look(operator, case).await;
    if case.resolved_before(operator.clock.monotonic()) > MAX_STATE_AGE {
        match resolve::resolve(operator, resource, &case.visit, ReadFrom::ApiServer).await? {
            Ok(subject) => case.resolve_again(subject)?,
            Err(unresolved) => return Ok(Err(unresolved)),
        }
    }
    // The observation is applied even if KMS does not answer by now: the description of the stream is valid
    // regardless.
    apply_observation(case);
    if let Some(error) = &case.subject.error {
        case.sight = Observed::Failed(error.clone());
    }
    Ok(Ok(()))
}

/// Describes the active customer managed key in KMS, unless the key is the desired one. A failed request does
/// not stop the reconcile.
pub(super) async fn active_key<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    case: &mut ReconcileState,
) {
    if !case.look_is_fresh() {
        return;
    }
    let Some(arn) = status_fields::active_customer_key(&case.input()) else { return };
    let stream = &case.subject.stream;
    if let Some((_, Some(metadata))) = &case.subject.key
        && metadata.arn == arn
    {
        case.active_key = Some((arn, metadata.problem(stream)));
        return;
    }
    let (name, principal) = (KmsKeyId::Arn(arn.clone()), &case.subject.principal);
    match operator.aws.describe_key(stream, &name, principal, Priority::Drift).await {
        Ok(metadata) => {
            let problem = metadata.map_or(Some(KeyProblem::NotFound), |metadata| metadata.problem(stream));
            case.active_key = Some((arn, problem));
        }
        // The status keeps its report about the key.
        Err(error) => {
            debug!(key = %arn, code = error.code, message = error.message, "failed to describe the active key");
        }
    }
}

async fn look<A: StreamApi, R: KubeApi>(operator: &Context<A, R>, case: &mut ReconcileState) {
    let at = operator.clock.now();
    case.observed_at = operator.clock.monotonic();
    let principal = &case.subject.principal;
    let seen = operator.aws.describe_stream(&case.subject.stream, principal, priority(case)).await;
    case.now = operator.clock.now();
    match seen {
        Ok(seen) => {
            let (look, signer) = seen.unzip();
            if let Some(ReportedEncryption::Failed { reason, details, .. }) =
                look.as_ref().map(|look| &look.encryption)
            {
                debug!(stream = %case.subject.stream, reason, details, "AWS reported a failure");
            }
            case.signer = signer;
            case.sight = Observed::of(&case.subject, at, look, true);
        }
        Err(error) => {
            warn!(stream = %case.subject.stream, code = error.code, message = error.message, "failed to describe stream");
            case.sight = Observed::Failed(error);
        }
    }
}

/// Returns the priority of a Describe: the first one, and those of a changing stream, precede those that
/// detect drift. A stream that cannot be encrypted in its current state, or does not exist, is not changing.
fn priority(case: &ReconcileState) -> Priority {
    match case.visit.waiting {
        Some((
            Reason::Encrypted
            | Reason::EncryptionDisabled
            | Reason::Drifted
            | Reason::StreamNotFound
            | Reason::StreamDeleting
            | Reason::StreamFailed
            | Reason::SourceNotDirectPut
            | Reason::StreamARNMismatch,
            _,
        )) => Priority::Drift,
        _ => Priority::Changing,
    }
}

/// Applies the observation to the ledger. The observation of another stream, of no stream, or of a stream
/// that cannot be encrypted has no effect.
fn apply_observation(case: &mut ReconcileState) {
    let Observed::At { look: Some(look), observation, .. } = &case.sight else { return };
    if matches!(observation, Observation::OtherStream | Observation::NotEncryptable(_)) {
        return;
    }
    let wanted = case.subject.desired.encryption.target();
    let unusable = case.subject.desired.key_problem.is_some();
    case.book.spec = ledger::apply_observation(
        &case.book.spec,
        observation,
        look.created,
        wanted.as_ref(),
        unusable,
        case.now,
    );
}
