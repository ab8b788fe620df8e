//! Random scenarios for comparisons: the environment of a seed at a random time, and changes of its
//! resources.
//!
//! This module does not compute plans; it only counts them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::SignedDuration;
use simulated_aws::world::{Fault as AwsFault, Rule};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::{
    KeyReference, KeyType, Mode, StreamEncryption, StreamEncryptionSpec,
};
use stream_encryption_core::controller::preview::{PlannedStep, Preview as Plan};

use super::compare;
use crate::choices::Choices;
use crate::environment::{Environment, State};
use crate::generator::{generate_plan, random_spec};
use crate::keys;
use crate::operations;
use crate::plan::{FAULTS_END, Plan as SimulationPlan};
use crate::run::run_until;
use crate::store::Name;
use crate::wiring::{Unmodified, Wiring};

/// The number of times that the resources of one environment are planned.
const ROUNDS: usize = 4;

/// The kind of a planned step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanKind {
    Start,
    Stop,
    TestRecord,
    RemoveFinalizer,
    /// Nothing, until the time of an attempt.
    Wait,
    Nothing,
}

/// The plans that agreed, by their step and their reason.
pub type PlanCounts = BTreeMap<(PlanKind, Option<Reason>), u64>;

/// A plan that differs from the actions of the operator.
#[derive(Debug)]
pub struct Disagreement {
    pub seed: u64,
    /// The number of the plan in this seed, from 1.
    pub number: usize,
    pub difference: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, plan {}: {}", self.seed, self.number, self.difference)
    }
}

/// The change by a user or an administrator before a resource is planned, or the planned change.
enum Change {
    /// Nothing.
    Unchanged,
    /// The spec is planned before it is applied.
    Applied(Box<StreamEncryptionSpec>),
}

/// Compares the plans of the resources of a seed's environment, made with this wiring, with the actions of
/// the operator.
pub fn compare_seed<P: Wiring>(seed: u64, planner: &P) -> Result<PlanCounts, Disagreement> {
    let simulation_plan = generate_plan(seed);
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x00A6_4EED);
    let environment = environment_at(&simulation_plan, &mut rng);
    let mut counts = PlanCounts::new();
    let mut number = 0;
    for _ in 0..ROUNDS {
        let names: Vec<Name> = {
            let state = &mut *environment.state();
            // Mostly seconds, so that changes are in progress, and sometimes hours.
            let later = SignedDuration::from_secs([0, 1, 7, 40, 600, 20_000][rng.usize(..6)]);
            let later = state.now + later;
            environment.advance(state, later);
            let resources = state.store.resources();
            resources.map(|resource| crate::store::name_of(resource)).collect()
        };
        for name in names {
            clear_conditions(&environment, &simulation_plan);
            begin_condition(&environment, &mut rng);
            let change = change(&environment, &simulation_plan, &name, &mut rng);
            let Some(stored) = environment.state().store.resource(&name).cloned() else { continue };
            let (resource, apply) = match change {
                Change::Unchanged => ((*stored).clone(), None),
                Change::Applied(spec) => match changed(&stored, &spec) {
                    Some(resource) => (resource, Some(spec)),
                    None => continue,
                },
            };
            number += 1;
            let compared = compare(&environment, &simulation_plan, planner, &resource, || {
                if let Some(spec) = apply {
                    let state = &mut *environment.state();
                    let now = state.now;
                    state.store.apply(&name, &spec, now);
                }
            });
            let plan = compared.map_err(|difference| Disagreement { seed, number, difference })?;
            *counts.entry((PlanKind::of(&plan), plan.reason)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Returns the environment of a seed at a random time, mostly soon after an operation, without faults. No
/// request takes time.
fn environment_at(simulation_plan: &SimulationPlan, rng: &mut fastrand::Rng) -> Arc<Environment> {
    let (time, _) = &simulation_plan.operations[rng.usize(..simulation_plan.operations.len())];
    let max_millis = [3_000, 60_000, 3_600_000][rng.usize(..3)];
    let after = SignedDuration::from_millis(rng.i64(50..max_millis));
    let environment = run_until(simulation_plan, &Unmodified, (*time + after).min(FAULTS_END));
    {
        let state = &mut *environment.state();
        state.choices = Choices::none();
        // All requests of a comparison have the same time.
        state.world.settings().rate_limits = false;
    }
    operations::end_faults(&environment, simulation_plan);
    environment
}

/// Begins a condition that lasts as long as a comparison, and that affects planner and operator equally;
/// mostly none.
fn begin_condition(environment: &Environment, rng: &mut fastrand::Rng) {
    let state = &mut *environment.state();
    match rng.u8(..60) {
        0 => {
            state.world.script(Rule::always(AwsFault::AccessDenied).on("Describe*"));
        }
        1 => {
            state.world.script(Rule::always(AwsFault::Throttle));
        }
        2 => state.replicas[0].foreign_credentials = true,
        3 => invalidate_ledger(state),
        4 => state.replicas[0].session = Some(state.now - SignedDuration::from_hours(7)),
        _ => {}
    }
}

/// Makes a ledger invalid permanently.
fn invalidate_ledger(state: &mut State) {
    let Some(mut ledger) = state.store.ledgers().next().cloned() else { return };
    ledger.spec.owner.uid.clear();
    let replaced = state.store.replace_ledger(&ledger);
    replaced.expect("the schema allows it");
    state.ledger_change_times.resize(state.store.ledger_changes().len(), state.now);
}

/// Ends the conditions of the previous comparison.
fn clear_conditions(environment: &Environment, simulation_plan: &SimulationPlan) {
    operations::end_faults(environment, simulation_plan);
    let state = &mut *environment.state();
    state.replicas[0].session = simulation_plan.sessions.then_some(state.now);
}

/// Changes a resource, or returns the change that is to be planned before it is applied.
fn change(
    environment: &Environment,
    simulation_plan: &SimulationPlan,
    name: &Name,
    rng: &mut fastrand::Rng,
) -> Change {
    let state = &mut *environment.state();
    let now = state.now;
    let Some(stored) = state.store.resource(name).cloned() else { return Change::Unchanged };
    let spec = match rng.u8(..12) {
        0..=4 => return Change::Unchanged,
        5 => {
            state.store.delete(name, now);
            return Change::Unchanged;
        }
        6 => {
            state.store.annotate(name, &format!("{now} {}", rng.u32(..)));
            return Change::Unchanged;
        }
        7 => StreamEncryptionSpec { mode: Mode::Observe, ..stored.spec.clone() },
        8 if rng.bool() => invalid(&stored.spec),
        _ => random_spec(simulation_plan, name, rng.u64(..)),
    };
    Change::Applied(Box::new(spec))
}

/// Returns a spec with two keys, which the schema rejects, and which an older version of the schema may have
/// accepted.
fn invalid(spec: &StreamEncryptionSpec) -> StreamEncryptionSpec {
    let key = KeyReference {
        kind: KeyType::CustomerManaged,
        arn: Some(keys::arn(0)),
        alias: Some(keys::ALIAS.to_owned()),
        object_ref: None,
    };
    let encryption = stream_encryption_api::stream_encryption::Encryption::Enabled;
    StreamEncryptionSpec { key: Some(key), encryption, ..spec.clone() }
}

/// Returns the resource as a dry run of the change would: with the next generation. `None` if the change is
/// rejected.
fn changed(stored: &StreamEncryption, spec: &StreamEncryptionSpec) -> Option<StreamEncryption> {
    use stream_encryption_api::stream_encryption::DeletionPolicy;
    let is_rejected = spec.stream != stored.spec.stream
        || (spec.mode == Mode::Observe && spec.deletion_policy == DeletionPolicy::Disable);
    let mut changed = stored.clone();
    if *spec != stored.spec {
        changed.metadata.generation = changed.metadata.generation.map(|generation| generation + 1);
    }
    changed.spec = spec.clone();
    (!is_rejected).then_some(changed)
}

impl PlanKind {
    fn of(plan: &Plan) -> Self {
        use stream_encryption_api::ledger::Action;
        match &plan.step {
            PlannedStep::Call(target) if target.action == Action::Start => Self::Start,
            PlannedStep::Call(_) => Self::Stop,
            PlannedStep::TestRecord => Self::TestRecord,
            PlannedStep::RemoveFinalizer => Self::RemoveFinalizer,
            PlannedStep::Nothing if plan.next_attempt.is_some() => Self::Wait,
            PlannedStep::Nothing => Self::Nothing,
        }
    }
}
