//! Validates the simulation: each planted bug is found within a bounded number of seeds, by an invariant that
//! it violates.
//!
//! An invariant that no bug can violate is useless. A seed counts only if the unmodified operator violates no
//! invariant in the same plan, so that only the bug is found. With `--nocapture` the test prints the promise
//! and the seed of each bug.

use simulation::explore::parallel_map;
use simulation::generator::generate_plan;
use simulation::invariants::Violation;
use simulation::plan::Plan;
use simulation::planted_bugs::{ALL, Bug, WithBug};
use simulation::run::run;
use simulation::shrink;
use simulation::wiring::Unmodified;

/// Maximum number of seeds in which a bug may stay undetected.
const MAX_SEEDS: usize = 3_000;
/// Maximum number of runs to minimise a trace.
const MAX_SHRINK_RUNS: usize = 40;

/// The seed, the violation and the size of the minimised plan by which a bug was found.
struct Found {
    seed: u64,
    violation: Violation,
    operations: usize,
}

fn find(bug: Bug) -> Option<Found> {
    (bug.first_seed()..).take(MAX_SEEDS).find_map(|seed| {
        let plan = generate_plan(seed);
        let violation = run(&plan, &WithBug(bug), false).violation?;
        if run(&plan, &Unmodified, false).violation.is_some() {
            return None;
        }
        let (smallest, _): (Plan, Violation) =
            shrink::shrink_within(MAX_SHRINK_RUNS, &plan, &violation, &WithBug(bug));
        Some(Found { seed, violation, operations: smallest.operations.len() })
    })
}

#[test]
fn every_planted_bug_breaks_a_promise() {
    let all = parallel_map(&ALL, |(bug, ..)| find(*bug));
    println!("| bug | promise | in seed | events | description |\n|---|---|---|---|---|");
    for ((bug, description, _), found) in ALL.iter().zip(&all) {
        match found {
            Some(Found { seed, violation, operations }) => {
                println!("| {bug:?} | {} | {seed} | {operations} | {description} |", violation.promise);
            }
            None => println!("| {bug:?} | none | {MAX_SEEDS} | - | {description} |"),
        }
    }
    for ((bug, ..), found) in ALL.iter().zip(&all) {
        let Some(Found { seed, violation, .. }) = found else { panic!("{bug:?} was not found") };
        assert!(bug.may_break(violation.promise), "{bug:?} in seed {seed}: {violation}");
    }
}
