//! Random situations for comparisons: the environment of a seed at a random time, and what happens to its resources then.
//!
//! It decides nothing about plans; it only counts which ones were made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::SignedDuration;
use simulated_aws::world::{Fault, Rule};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::{
    KeyReference, KeyType, Mode, StreamEncryption, StreamEncryptionSpec,
};
use stream_encryption_core::controller::plan::{Plan, PlannedStep};

use super::compare;
use crate::choices::Choices;
use crate::environment::{Scene, State};
use crate::generator::{another_spec, plan};
use crate::keys;
use crate::operations;
use crate::plan::{CALM, Plan as Run};
use crate::run::until;
use crate::store::Name;
use crate::wiring::{Faithful, Parts};

/// How often the resources of one environment are planned.
const ROUNDS: usize = 4;

/// The kind of a planned step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Start,
    Stop,
    TestRecord,
    RemoveFinalizer,
    /// Nothing, until the time of an attempt.
    Wait,
    Nothing,
}

/// The plans that agreed, by their step and their reason.
pub type Met = BTreeMap<(Kind, Option<Reason>), u64>;

/// A plan that differs from what the operator did.
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

/// What a user or an administrator does before the plan of a resource, or would do after it.
enum Change {
    /// Nothing.
    Unchanged,
    /// The spec is planned before it is applied.
    Applied(Box<StreamEncryptionSpec>),
}

/// Compares the plans of the resources of a seed's environment, made with these parts, with what the operator does.
pub fn compare_seed<P: Parts>(seed: u64, planner: &P) -> Result<Met, Disagreement> {
    let run = plan(seed);
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x00A6_4EED);
    let scene = scene(&run, &mut dice);
    let mut met = Met::new();
    let mut number = 0;
    for _ in 0..ROUNDS {
        let names: Vec<Name> = {
            let state = &mut *scene.state();
            // Mostly seconds, so that changes are in progress, and sometimes hours.
            let later = SignedDuration::from_secs([0, 1, 7, 40, 600, 20_000][dice.usize(..6)]);
            let later = state.now + later;
            scene.advance(state, later);
            let resources = state.store.resources();
            resources.map(|resource| crate::store::name_of(resource)).collect()
        };
        for name in names {
            end_conditions(&scene, &run);
            begin_condition(&scene, &mut dice);
            let change = change(&scene, &run, &name, &mut dice);
            let Some(stored) = scene.state().store.resource(&name).cloned() else { continue };
            let (resource, apply) = match change {
                Change::Unchanged => ((*stored).clone(), None),
                Change::Applied(spec) => match changed(&stored, &spec) {
                    Some(resource) => (resource, Some(spec)),
                    None => continue,
                },
            };
            number += 1;
            let compared = compare(&scene, &run, planner, &resource, || {
                if let Some(spec) = apply {
                    let state = &mut *scene.state();
                    let now = state.now;
                    state.store.apply(&name, &spec, now);
                }
            });
            let plan = compared.map_err(|difference| Disagreement { seed, number, difference })?;
            *met.entry((Kind::of(&plan), plan.reason)).or_default() += 1;
        }
    }
    Ok(met)
}

/// Returns the environment of a seed at a random time, mostly soon after an event, without faults. Nothing takes time.
fn scene(run: &Run, dice: &mut fastrand::Rng) -> Arc<Scene> {
    let (event, _) = &run.happenings[dice.usize(..run.happenings.len())];
    let longest = [3_000, 60_000, 3_600_000][dice.usize(..3)];
    let after = SignedDuration::from_millis(dice.i64(50..longest));
    let scene = until(run, &Faithful, (*event + after).min(CALM));
    {
        let state = &mut *scene.state();
        state.choices = Choices::none();
        // All requests of a comparison have the same time.
        state.world.settings().rate_limits = false;
    }
    operations::end_faults(&scene, run);
    scene
}

/// Begins a condition that lasts as long as a comparison, and that plan and operator see in the same way; mostly none.
fn begin_condition(scene: &Scene, dice: &mut fastrand::Rng) {
    let state = &mut *scene.state();
    match dice.u8(..60) {
        0 => {
            state.world.script(Rule::always(Fault::AccessDenied).on("Describe*"));
        }
        1 => {
            state.world.script(Rule::always(Fault::Throttle));
        }
        2 => state.replicas[0].mistaken = true,
        3 => damage_ledger(state),
        4 => state.replicas[0].session = Some(state.now - SignedDuration::from_hours(7)),
        _ => {}
    }
}

/// Damages a ledger, which stays so.
fn damage_ledger(state: &mut State) {
    let Some(mut ledger) = state.store.ledgers().next().cloned() else { return };
    ledger.spec.owner.uid.clear();
    let damaged = state.store.replace_ledger(&ledger);
    damaged.expect("the schema allows it");
    state.ledger_times.resize(state.store.ledger_changes().len(), state.now);
}

fn end_conditions(scene: &Scene, run: &Run) {
    operations::end_faults(scene, run);
    let state = &mut *scene.state();
    state.replicas[0].session = run.sessions.then_some(state.now);
}

/// Changes a resource, or returns the change that is to be planned before it is applied.
fn change(scene: &Scene, run: &Run, name: &Name, dice: &mut fastrand::Rng) -> Change {
    let state = &mut *scene.state();
    let now = state.now;
    let Some(stored) = state.store.resource(name).cloned() else { return Change::Unchanged };
    let spec = match dice.u8(..12) {
        0..=4 => return Change::Unchanged,
        5 => {
            state.store.delete(name, now);
            return Change::Unchanged;
        }
        6 => {
            state.store.annotate(name, &format!("{now} {}", dice.u32(..)));
            return Change::Unchanged;
        }
        7 => StreamEncryptionSpec { mode: Mode::Observe, ..stored.spec.clone() },
        8 if dice.bool() => invalid(&stored.spec),
        _ => another_spec(run, name, dice.u64(..)),
    };
    Change::Applied(Box::new(spec))
}

/// Returns a spec with two keys, which the schema rejects, and which an older version of the schema may have accepted.
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

/// Returns the resource as a dry run of the change would: with the next generation. `None` if the change is rejected.
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

impl Kind {
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
