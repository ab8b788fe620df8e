//! Compares the plan of a resource with the following reconciles: plans the resource, and reconciles it with
//! an operator that has just started, without other events in between.
//!
//! The time does not advance during a comparison, and no request fails: planner and operator observe the same
//! state. The planner can have another wiring than the operator, which proves that a wrong plan is found.

pub mod scenarios;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use simulated_aws::world::Call;
use stream_encryption_api::condition::{ConditionType, Reason, find};
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::{KeyType, Service, StreamEncryption};
use stream_encryption_core::controller::memory::KnownCall;
use stream_encryption_core::controller::preview::{self, CallBudget, PlannedStep, Preview as Plan};
use stream_encryption_core::model::key::KINESIS_ALIAS;
use stream_encryption_core::model::ledger;
use stream_encryption_core::model::schedule::AFTER_STEP;
use stream_encryption_core::model::service::Operation as AwsOperation;

use crate::environment::Environment;
use crate::plan::Plan as SimulationPlan;
use crate::single;
use crate::store::{Name, name_of};
use crate::wiring::{Unmodified, Wiring};

/// Maximum number of reconciles until the operator has executed the next step: two for the finalizer, and one
/// more.
const MAX_RECONCILES: usize = 3;

/// The actions of the operator.
struct Execution {
    /// The resource afterwards; `None` if it was deleted.
    resource: Option<Arc<StreamEncryption>>,
    /// The Starts, Stops and test records that reached AWS.
    sent: Vec<Call>,
}

/// Plans a resource with this wiring, applies it with `apply`, and reconciles it. Returns the plan, or its
/// difference from the actions of the operator.
pub fn compare<P: Wiring>(
    environment: &Arc<Environment>,
    simulation_plan: &SimulationPlan,
    planner: &P,
    resource: &StreamEncryption,
    apply: impl FnOnce(),
) -> Result<Plan, String> {
    let plan = plan_only(environment, simulation_plan, planner, resource)?;
    apply();
    let execution = reconcile_until_step(environment, simulation_plan, &name_of(resource), &plan)?;
    check(&plan, &execution).map_err(|difference| {
        let sent: Vec<_> = execution.sent.iter().map(|call| (&call.operation, &call.key)).collect();
        let resource = execution.resource.as_deref().map(|resource| serde_json::json!(resource).to_string());
        format!("{difference}\nplan: {plan:?}\nsent: {sent:?}\nresource: {resource:?}")
    })?;
    Ok(plan)
}

/// Plans a resource. Returns an error if the planner sent anything but reads.
fn plan_only<P: Wiring>(
    environment: &Arc<Environment>,
    simulation_plan: &SimulationPlan,
    planner: &P,
    resource: &StreamEncryption,
) -> Result<Plan, String> {
    let before = Counts::of(environment);
    let context = single::context(environment, simulation_plan, planner);
    let plan = single::drive(environment, &name_of(resource), preview::preview(&context, resource));
    let sent = changes_since(environment, before.aws);
    if !sent.is_empty() || Counts::of(environment).kubernetes != before.kubernetes {
        return Err(format!("the planner sent {sent:?}, or wrote to Kubernetes"));
    }
    plan.map_err(|error| format!("no plan: {error}"))
}

/// Reconciles a resource with an operator that has just started, until it sends a Start, a Stop or a test
/// record, or requests a later time.
fn reconcile_until_step(
    environment: &Arc<Environment>,
    simulation_plan: &SimulationPlan,
    name: &Name,
    plan: &Plan,
) -> Result<Execution, String> {
    let before = Counts::of(environment);
    let operator = single::context(environment, simulation_plan, &Unmodified);
    if let Some(resource) = single::stored(environment, name)
        && let Some(call) = last_call(environment, plan)
    {
        // The planner believes the time of day, as an operator does that has known the last call for long.
        let known = KnownCall { id: call, since: Duration::ZERO };
        operator.memory.record_known_call(&resource, Some(Box::new(known)));
    }
    for _ in 0..MAX_RECONCILES {
        let Some(wake) = single::reconcile(environment, &operator, name) else { break };
        let wake = wake.map_err(|error| error.to_string())?;
        let now = operator.clock.now();
        // If a step becomes possible only at the end of a reconcile, the next reconcile executes it.
        let step_follows = !matches!(plan.step, PlannedStep::Nothing) && wake <= now + AFTER_STEP;
        if !changes_since(environment, before.aws).is_empty() || (wake > now && !step_follows) {
            break;
        }
        let state = &mut *environment.state();
        let later = state.now + wake.duration_since(now).max(SignedDuration::ZERO);
        environment.advance(state, later);
    }
    Ok(Execution {
        resource: single::stored(environment, name),
        sent: changes_since(environment, before.aws),
    })
}

/// Returns the id of the last call in the ledger of the planned stream that AWS may have applied.
fn last_call(environment: &Arc<Environment>, plan: &Plan) -> Option<String> {
    let name = ledger::name(plan.stream.as_ref()?);
    let state = environment.state();
    Some(ledger::last_unrefused_call(&state.store.ledger(&name)?.spec)?.id.clone())
}

/// Returns an error if the actions of the operator differ from the plan.
fn check(plan: &Plan, execution: &Execution) -> Result<(), String> {
    let sent = execution.sent.as_slice();
    match (&plan.step, sent) {
        (PlannedStep::Call(target), [call]) => check_call(plan, target, call, execution),
        (PlannedStep::TestRecord, [call]) if call.operation == "PutRecord" => Ok(()),
        (PlannedStep::RemoveFinalizer, []) if execution.resource.is_none() => Ok(()),
        (PlannedStep::Nothing, []) => match (plan.reason, &execution.resource) {
            (Some(reason), Some(resource)) => check_status(plan, reason, resource),
            (None, None) => Ok(()),
            _ => Err("the resource was deleted, or was not".to_owned()),
        },
        _ => Err("another step than planned".to_owned()),
    }
}

/// Returns an error if a call differs from the plan.
fn check_call(plan: &Plan, target: &Target, call: &Call, execution: &Execution) -> Result<(), String> {
    let stream = plan.stream.as_ref().ok_or("a call for no stream")?;
    let operation = AwsOperation::change(stream.service, target.action).name();
    let key = target.key.as_ref().and_then(|key| match (key.kind, stream.service) {
        (KeyType::AwsOwned, Service::Kinesis) => Some(KINESIS_ALIAS),
        (KeyType::AwsOwned, Service::Firehose) => Some("AWS_OWNED_CMK"),
        (KeyType::CustomerManaged, _) => key.arn.as_deref(),
    });
    // Kinesis's Stop names the active key.
    let is_same_key = target.action == Action::Stop || call.key.as_deref() == key;
    if call.operation != operation || !call.target.ends_with(stream.name()) || !is_same_key {
        return Err(format!("another call: {call:?}"));
    }
    let status = execution.resource.as_ref().and_then(|resource| resource.status.as_ref());
    let calls = status.and_then(|status| status.calls.as_ref()).ok_or("no calls in the status")?;
    let planned = plan.calls.ok_or("a call without a budget")?;
    let calls_left = calls.limit.saturating_sub(calls.used);
    // A refused call does not always count.
    let is_counted = call.outcome != "OK"
        || (calls.used == planned.used + 1
            && plan
                .message
                .contains(&format!("{calls_left} of {} calls in 24 hours would be left", calls.limit)));
    if calls.limit == planned.limit && is_counted { Ok(()) } else { Err(format!("other calls: {calls:?}")) }
}

/// Returns an error if the status that the operator wrote differs from the plan.
fn check_status(plan: &Plan, reason: Reason, resource: &StreamEncryption) -> Result<(), String> {
    let status = resource.status.as_ref().ok_or("no status")?;
    let ready = find(&status.conditions, ConditionType::Ready).ok_or("no condition Ready")?;
    let calls = status.calls.as_ref().map(|calls| CallBudget { used: calls.used, limit: calls.limit });
    let next_attempt = status.next_attempt_time.as_ref().map(|time| time.0);
    let stream = status.stream.as_ref().and_then(|stream| stream.arn.as_deref());
    for (field, is_equal) in [
        ("reason", ready.reason == reason.as_str()),
        ("message", ready.message == plan.message),
        ("generation", status.observed_generation == resource.metadata.generation),
        ("calls", calls == plan.calls),
        ("next attempt", next_attempt == plan.next_attempt),
        ("active key", status.active_key == plan.active_key),
        // A namespace that may not use a stream gets no more of it than its name.
        (
            "stream",
            plan.stream.is_none()
                || stream.is_none()
                || plan.stream == stream.and_then(|arn| arn.parse().ok()),
        ),
    ] {
        if !is_equal {
            return Err(format!("another {field}"));
        }
    }
    Ok(())
}

/// The numbers of requests so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    aws: usize,
    kubernetes: u64,
}

impl Counts {
    /// Returns the numbers after the arrival of all requests that were sent earlier and are due now.
    fn of(environment: &Environment) -> Self {
        let state = &mut *environment.state();
        state.world.settle(state.now);
        Self { aws: state.world.calls().len(), kubernetes: state.kubernetes_writes }
    }
}

/// Returns the requests to AWS, after the first ones, that change a stream or write to it.
fn changes_since(environment: &Environment, first: usize) -> Vec<Call> {
    let state = environment.state();
    let later = state.world.calls()[first..].iter();
    later.filter(|call| call.changes_encryption() || call.operation == "PutRecord").cloned().collect()
}
