//! Compares the plan of a resource with what the operator then does: plans the resource, and lets an operator that has just
//! started reconcile it, with nothing else happening in between.
//!
//! Time stands still during a comparison, and no request fails: the operator sees what the plan saw. The planner can be
//! given other parts than the operator, which proves that a wrong plan is found.

pub mod situations;

use std::sync::Arc;

use jiff::SignedDuration;
use simulated_aws::world::Call;
use stream_encryption_api::condition::{ConditionType, Reason, find};
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::{KeyType, Service, StreamEncryption};
use stream_encryption_core::controller::plan::{self, CallBudget, Plan, PlannedStep};
use stream_encryption_core::model::key::KINESIS_ALIAS;
use stream_encryption_core::model::schedule::AFTER_STEP;
use stream_encryption_core::model::service::Operation;

use crate::environment::Scene;
use crate::plan::Plan as Run;
use crate::single;
use crate::store::{Name, name_of};
use crate::wiring::{Faithful, Parts};

/// Maximum number of reconciles until the operator has done the next step: two for the finalizer, and one more.
const MOST_RECONCILES: usize = 3;

/// What the operator did.
struct Done {
    /// The resource afterwards; `None` if it was deleted.
    resource: Option<Arc<StreamEncryption>>,
    /// The Starts, Stops and test records that reached AWS.
    sent: Vec<Call>,
}

/// Plans a resource with these parts, applies it with `apply`, and lets the operator reconcile it. Returns the plan, or how it
/// differs from what the operator did.
pub fn compare<P: Parts>(
    scene: &Arc<Scene>,
    run: &Run,
    planner: &P,
    resource: &StreamEncryption,
    apply: impl FnOnce(),
) -> Result<Plan, String> {
    let plan = plan_only(scene, run, planner, resource)?;
    apply();
    let done = reconcile_until_step(scene, run, &name_of(resource), &plan)?;
    check(&plan, &done).map_err(|difference| {
        let sent: Vec<_> = done.sent.iter().map(|call| (&call.operation, &call.key)).collect();
        let resource = done.resource.as_deref().map(|resource| serde_json::json!(resource).to_string());
        format!("{difference}\nplan: {plan:?}\nsent: {sent:?}\nresource: {resource:?}")
    })?;
    Ok(plan)
}

/// Plans a resource. Returns an error if the planner sent anything but reads.
fn plan_only<P: Parts>(
    scene: &Arc<Scene>,
    run: &Run,
    planner: &P,
    resource: &StreamEncryption,
) -> Result<Plan, String> {
    let before = Counts::of(scene);
    let context = single::context(scene, run, planner);
    let plan = single::drive(scene, &name_of(resource), plan::plan(&context, resource));
    let sent = changes_since(scene, before.aws);
    if !sent.is_empty() || Counts::of(scene).kubernetes != before.kubernetes {
        return Err(format!("the planner sent {sent:?}, or wrote to Kubernetes"));
    }
    plan.map_err(|error| format!("no plan: {error}"))
}

/// Reconciles a resource with an operator that has just started, until it sends a Start, a Stop or a test record, or
/// requests a later time.
fn reconcile_until_step(scene: &Arc<Scene>, run: &Run, name: &Name, plan: &Plan) -> Result<Done, String> {
    let before = Counts::of(scene);
    let operator = single::context(scene, run, &Faithful);
    for _ in 0..MOST_RECONCILES {
        let Some(wake) = single::reconcile(scene, &operator, name) else { break };
        let wake = wake.map_err(|error| error.to_string())?;
        let now = operator.clock.now();
        // A reconcile that learns only at its end that a step is possible does it in the next one.
        let follows = !matches!(plan.step, PlannedStep::Nothing) && wake <= now + AFTER_STEP;
        if !changes_since(scene, before.aws).is_empty() || (wake > now && !follows) {
            break;
        }
        let state = &mut *scene.state();
        let later = state.now + wake.duration_since(now).max(SignedDuration::ZERO);
        scene.advance(state, later);
    }
    Ok(Done { resource: single::stored(scene, name), sent: changes_since(scene, before.aws) })
}

/// Returns an error if the operator did something else than planned.
fn check(plan: &Plan, done: &Done) -> Result<(), String> {
    let sent = done.sent.as_slice();
    match (&plan.step, sent) {
        (PlannedStep::Call(target), [call]) => check_call(plan, target, call, done),
        (PlannedStep::TestRecord, [call]) if call.operation == "PutRecord" => Ok(()),
        (PlannedStep::RemoveFinalizer, []) if done.resource.is_none() => Ok(()),
        (PlannedStep::Nothing, []) => match (plan.reason, &done.resource) {
            (Some(reason), Some(resource)) => check_status(plan, reason, resource),
            (None, None) => Ok(()),
            _ => Err("the resource was deleted, or was not".to_owned()),
        },
        _ => Err("another step than planned".to_owned()),
    }
}

fn check_call(plan: &Plan, target: &Target, call: &Call, done: &Done) -> Result<(), String> {
    let stream = plan.stream.as_ref().ok_or("a call for no stream")?;
    let operation = Operation::change(stream.service, target.action).name();
    let key = target.key.as_ref().and_then(|key| match (key.kind, stream.service) {
        (KeyType::AwsOwned, Service::Kinesis) => Some(KINESIS_ALIAS),
        (KeyType::AwsOwned, Service::Firehose) => Some("AWS_OWNED_CMK"),
        (KeyType::CustomerManaged, _) => key.arn.as_deref(),
    });
    // Kinesis's Stop names the active key.
    let same_key = target.action == Action::Stop || call.key.as_deref() == key;
    if call.operation != operation || !call.target.ends_with(stream.name()) || !same_key {
        return Err(format!("another call: {call:?}"));
    }
    let status = done.resource.as_ref().and_then(|resource| resource.status.as_ref());
    let calls = status.and_then(|status| status.calls.as_ref()).ok_or("no calls in the status")?;
    let planned = plan.calls.ok_or("a call without a budget")?;
    let left = calls.limit.saturating_sub(calls.used);
    // A refused call does not always count.
    let is_counted = call.outcome != "OK"
        || (calls.used == planned.used + 1
            && plan.message.contains(&format!("{left} of {} calls in 24 hours would be left", calls.limit)));
    if calls.limit == planned.limit && is_counted { Ok(()) } else { Err(format!("other calls: {calls:?}")) }
}

/// Returns an error if the status that the operator wrote is another one than planned.
fn check_status(plan: &Plan, reason: Reason, resource: &StreamEncryption) -> Result<(), String> {
    let status = resource.status.as_ref().ok_or("no status")?;
    let ready = find(&status.conditions, ConditionType::Ready).ok_or("no condition Ready")?;
    let calls = status.calls.as_ref().map(|calls| CallBudget { used: calls.used, limit: calls.limit });
    let next_attempt = status.next_attempt_time.as_ref().map(|time| time.0);
    let stream = status.stream.as_ref().and_then(|stream| stream.arn.as_deref());
    for (part, same) in [
        ("reason", ready.reason == reason.as_str()),
        ("message", ready.message == plan.message),
        ("generation", status.observed_generation == resource.metadata.generation),
        ("calls", calls == plan.calls),
        ("next attempt", next_attempt == plan.next_attempt),
        ("active key", status.active_key == plan.active_key),
        // A namespace that may not use a stream learns no more of it than its name.
        (
            "stream",
            plan.stream.is_none()
                || stream.is_none()
                || plan.stream == stream.and_then(|arn| arn.parse().ok()),
        ),
    ] {
        if !same {
            return Err(format!("another {part}"));
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
    /// Returns the numbers, once the requests have arrived that were sent earlier and are due by now.
    fn of(scene: &Scene) -> Self {
        let state = &mut *scene.state();
        state.world.settle(state.now);
        Self { aws: state.world.calls().len(), kubernetes: state.kubernetes_writes }
    }
}

/// Returns the requests to AWS, after the first ones, that change a stream or write to it.
fn changes_since(scene: &Scene, first: usize) -> Vec<Call> {
    let state = scene.state();
    let later = state.world.calls()[first..].iter();
    later.filter(|call| call.changes_encryption() || call.operation == "PutRecord").cloned().collect()
}
