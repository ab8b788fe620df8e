//! The plan of a resource: what the operator would do next about it, without doing it.
//!
//! Runs the steps of a reconcile up to the decision: resolve, open the ledger, decide, describe. It sends only
//! reads to AWS and to the API server. It never writes, never calls Start or Stop, and remembers nothing. The
//! resource need not be stored: a change can be planned before it is applied.

use jiff::Timestamp;
use stream_encryption_api::condition::{LedgerContent, Reason};
use stream_encryption_api::ledger::Target;
use stream_encryption_api::stream_encryption::{KeyIdentity, StreamEncryption};

use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, KubeError, ReadFrom};
use super::memory::LastReconcile;
use super::resolve::{self, ResolveError};
use super::state::ReconcileState;
use super::stream_api::StreamApi;
use super::{ledger_store, observe};
use crate::model::arn::StreamArn;
use crate::model::decision::{Step, budget};
use crate::model::message;
use crate::model::status_fields;

/// What the operator would do next about a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The stream; `None` if the spec could not be resolved.
    pub stream: Option<StreamArn>,
    /// The key that encrypts records now; `None` for plaintext, or while unknown.
    pub active_key: Option<KeyIdentity>,
    /// What the operator would do.
    pub step: PlannedStep,
    /// The reason that the operator would report.
    pub reason: Reason,
    /// The message of that reason; for a call, what it is and how many calls it leaves.
    pub message: String,
    /// The calls that count now; `None` if the resource may not see them.
    pub calls: Option<CallBudget>,
    /// When the next call would be made, if the operator would wait for that time.
    pub next_attempt: Option<Timestamp>,
}

/// The next step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedStep {
    /// One call of Start or Stop.
    Call(Target),
    /// One test record.
    TestRecord,
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

/// Why a resource could not be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A request to Kubernetes failed.
    #[error(transparent)]
    Kubernetes(#[from] KubeError),
    /// Something changed meanwhile.
    #[error("the resource, its policies or its key have changed meanwhile; plan again")]
    Changed,
}

/// Plans a resource by the current state of the cluster and of AWS.
pub async fn plan<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
) -> Result<Plan, PlanError> {
    let (last, from) = (LastReconcile::default(), ReadFrom::ApiServer);
    let spec = match resolve::resolve(operator, resource, &last, from).await {
        Ok(spec) => spec,
        Err(why) => return unresolved(&why),
    };
    let ledger = ledger_store::open(operator, resource, &spec.claim(), None, from).await?;
    let expected = operator.memory.change_times().expected(spec.stream.service);
    let mut state = ReconcileState::new(operator.clock.now(), spec, ledger, last, resource, expected);
    let decision = loop {
        let decision = (operator.decide)(&state.input());
        let needs_description = match decision.step {
            Step::Describe => true,
            Step::ChangeEncryption(_) | Step::Verify => !state.is_fresh(),
            Step::RemoveFinalizer | Step::Wait => false,
        };
        if !needs_description {
            break decision;
        }
        observe::describe_stream(operator, resource, &mut state).await.map_err(|interruption| {
            match interruption {
                Interruption::Kubernetes(error) => PlanError::Kubernetes(error),
                Interruption::Outdated | Interruption::DescriptionNotFresh | Interruption::Ended(_) => {
                    PlanError::Changed
                }
            }
        })?;
    };
    observe::describe_active_key(operator, &mut state).await;
    let input = state.input();
    let is_shown = decision.reason.ledger_content() == LedgerContent::Shown;
    let (step, message) = match decision.step {
        Step::ChangeEncryption(ref call) => {
            (PlannedStep::Call(call.target.clone()), message::planned_call(&input, call))
        }
        Step::Verify => (PlannedStep::TestRecord, message::ready(&input, &decision)),
        Step::Describe | Step::RemoveFinalizer | Step::Wait => {
            (PlannedStep::Nothing, message::ready(&input, &decision))
        }
    };
    Ok(Plan {
        stream: Some(state.spec.stream.clone()),
        active_key: status_fields::active_key(&input).filter(|_| is_shown),
        step,
        reason: decision.reason,
        message,
        calls: is_shown
            .then(|| budget(&input))
            .map(|budget| CallBudget { used: budget.used, limit: budget.limit }),
        next_attempt: decision.next_attempt,
    })
}

/// Returns the plan of a resource that could not be resolved: the operator does nothing about it.
fn unresolved(why: &ResolveError) -> Result<Plan, PlanError> {
    let (reason, message) = why.report()?;
    Ok(Plan {
        stream: None,
        active_key: None,
        step: PlannedStep::Nothing,
        reason,
        message,
        calls: None,
        next_attempt: None,
    })
}
