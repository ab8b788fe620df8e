//! The preview of a resource: what the operator would do next about it, without doing it. The plugin shows it
//! as a plan.
//!
//! Runs the steps of a reconcile up to the decision: resolve, open the ledger, decide, describe. It sends
//! only reads to AWS and to the API server. It never writes, never calls Start or Stop, and remembers
//! nothing. The resource need not be stored: a change can be previewed before it is applied.
//!
//! What the preview shows is the status that `report` computes. The simulation compares previews with what
//! the operator then does.

use jiff::Timestamp;
use stream_encryption_api::condition::{ConditionType, Reason, find};
use stream_encryption_api::has_finalizer;
use stream_encryption_api::ledger::Target;
use stream_encryption_api::stream_encryption::{KeyIdentity, StreamEncryption, StreamEncryptionStatus};

use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, KubeError, ReadFrom};
use super::memory::LastReconcile;
use super::resolve::{self, ResolveError};
use super::state::ReconcileState;
use super::stream_api::StreamApi;
use super::{finalize, ledger_store, observe, report};
use crate::model::arn::StreamArn;
use crate::model::decision::{Decision, Step};
use crate::model::message;

/// What the operator would do next about a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The stream; `None` if the spec was not resolved.
    pub stream: Option<StreamArn>,
    /// The key that encrypts records now, as the status would report it; `None` for plaintext, or while unknown.
    pub active_key: Option<KeyIdentity>,
    /// What the operator would do.
    pub step: PlannedStep,
    /// The reason that the operator would report; `None` if it would report none, because the resource is
    /// being deleted and the operator has nothing to disable.
    pub reason: Option<Reason>,
    /// The message of that reason; for a call, what it is and how many calls it leaves.
    pub message: String,
    /// The calls, as the status would report them without the planned one; `None` if it would report none.
    pub calls: Option<CallBudget>,
    /// When the next call would be made, if the operator would wait for that time.
    pub next_attempt: Option<Timestamp>,
}

/// The next step of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedStep {
    /// One call of Start or Stop.
    Call(Target),
    /// One test record.
    TestRecord,
    /// The removal of the operator's finalizer, so that the API server deletes the resource.
    RemoveFinalizer,
    /// Nothing now.
    Nothing,
}

/// The calls of a stream in 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallBudget {
    /// The calls that count now.
    pub used: u32,
    /// The calls that may count.
    pub limit: u32,
}

/// Why a resource could not be previewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreviewError {
    /// A request to Kubernetes failed.
    #[error(transparent)]
    Kubernetes(#[from] KubeError),
    /// Something changed meanwhile.
    #[error("the resource, its policies or its key have changed meanwhile; plan again")]
    Changed,
}

/// Previews a resource by the current state of the cluster and of AWS.
pub async fn preview<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
) -> Result<Preview, PreviewError> {
    if finalize::is_deleted_without_disabling(resource) {
        return Ok(Preview::of_released(resource));
    }
    let (last, from) = (LastReconcile::default(), ReadFrom::ApiServer);
    let spec = match resolve::resolve(context, resource, &last, from).await {
        Ok(spec) => spec,
        Err(why) => return unresolved(context, resource, &why),
    };
    let ledger = ledger_store::open(context, resource, &spec.claim(), None, from).await?;
    let expected = context.memory.change_times().expected(spec.stream.service);
    let mut state = ReconcileState::new(context.clock.now(), spec, ledger, last, resource, expected);
    state.ignores_known_call = true;
    let decision = loop {
        let decision = (context.decide)(&state.input());
        let needs_description = match decision.step {
            Step::Describe => true,
            Step::ChangeEncryption(_) | Step::Verify => !state.is_fresh(),
            Step::RemoveFinalizer | Step::Wait => false,
        };
        if !needs_description {
            break decision;
        }
        observe::describe_stream(context, resource, &mut state).await.map_err(PreviewError::of)?;
    };
    // The active key affects the result only if the step is `Wait`: it may then change the reason.
    let decision = if matches!(decision.step, Step::Wait) {
        observe::describe_active_key(context, &mut state).await;
        (context.decide)(&state.input())
    } else {
        decision
    };
    Ok(Preview::of_decision(resource, &state, &decision))
}

/// Returns the preview of a resource that could not be resolved: the operator makes no call about it.
fn unresolved<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    why: &ResolveError,
) -> Result<Preview, PreviewError> {
    if matches!(why, ResolveError::Spec(_)) && resource.metadata.deletion_timestamp.is_some() {
        return Ok(Preview::of_released(resource));
    }
    let (reason, words) = why.report()?;
    let undescribed = u32::from(matches!(why, ResolveError::Identity(_)));
    let before = resource.status.clone().unwrap_or_default();
    let now = context.clock.now();
    let status = report::unresolved_status(resource, &before, (reason, &words), undescribed, now);
    Ok(Preview::of_status(None, PlannedStep::Nothing, reason, &status))
}

impl PreviewError {
    fn of(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Kubernetes(error) => Self::Kubernetes(error),
            Interruption::Outdated | Interruption::RememberedNotFresh | Interruption::Ended(_) => {
                Self::Changed
            }
        }
    }
}

impl Preview {
    fn of_decision(resource: &StreamEncryption, state: &ReconcileState, decision: &Decision) -> Self {
        let before = resource.status.clone().unwrap_or_default();
        let status = report::status(resource, &before, state, decision, report::undescribed(state));
        let step = match &decision.step {
            Step::ChangeEncryption(call) => PlannedStep::Call(call.target.clone()),
            Step::Verify => PlannedStep::TestRecord,
            Step::RemoveFinalizer => PlannedStep::RemoveFinalizer,
            Step::Describe | Step::Wait => PlannedStep::Nothing,
        };
        let preview = Self::of_status(Some(state.spec.stream.clone()), step, decision.reason, &status);
        match &decision.step {
            Step::ChangeEncryption(call) => {
                Self { message: message::planned_call(&state.input(), call), ..preview }
            }
            Step::Describe | Step::Verify | Step::RemoveFinalizer | Step::Wait => preview,
        }
    }

    /// Returns the preview with what the status would report.
    fn of_status(
        stream: Option<StreamArn>,
        step: PlannedStep,
        reason: Reason,
        status: &StreamEncryptionStatus,
    ) -> Self {
        let ready = find(&status.conditions, ConditionType::Ready);
        Self {
            stream,
            active_key: status.active_key.clone(),
            step,
            reason: Some(reason),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            calls: status.calls.as_ref().map(|calls| CallBudget { used: calls.used, limit: calls.limit }),
            next_attempt: status.next_attempt_time.as_ref().map(|time| time.0),
        }
    }

    /// Returns the preview of a deleted resource for which nothing is to be disabled.
    fn of_released(resource: &StreamEncryption) -> Self {
        let is_held = has_finalizer(&resource.metadata);
        Self {
            stream: None,
            active_key: None,
            step: if is_held { PlannedStep::RemoveFinalizer } else { PlannedStep::Nothing },
            reason: None,
            message: "The resource is being deleted, and the encryption of its stream stays as it is."
                .to_owned(),
            calls: None,
            next_attempt: None,
        }
    }
}
