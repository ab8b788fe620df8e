//! Validates the simulation: each planted bug is found within a bounded number of seeds, by a promise that it
//! breaks.
//!
//! A promise that no bug can break is useless. A seed counts only if the faithful operator keeps all promises
//! in the same plan, so that only the bug is found. With `--nocapture` the test prints the promise and the
//! seed of each bug.

use simulation::explore::each;
use simulation::generator::plan;
use simulation::invariants::Broken;
use simulation::plan::Plan;
use simulation::planted_bugs::{ALL, Bug, Spoiled};
use simulation::run::run;
use simulation::shrink;
use simulation::wiring::Faithful;

/// Maximum number of seeds in which a bug may stay undetected.
const MOST_SEEDS: usize = 3_000;
/// Maximum number of runs to minimise a trace.
const MOST_SHRINKING: usize = 40;

/// The seed and the promise by which a bug was found.
struct Found {
    seed: u64,
    broken: Broken,
    story: usize,
}

fn find(bug: Bug) -> Option<Found> {
    (bug.first_seed()..).take(MOST_SEEDS).find_map(|seed| {
        let plan = plan(seed);
        let broken = run(&plan, &Spoiled(bug), false).broken?;
        if run(&plan, &Faithful, false).broken.is_some() {
            return None;
        }
        let (small, _): (Plan, Broken) = shrink::within(MOST_SHRINKING, &plan, &broken, &Spoiled(bug));
        Some(Found { seed, broken, story: small.happenings.len() })
    })
}

#[test]
fn every_planted_bug_breaks_a_promise() {
    let all = each(&ALL, |(bug, ..)| find(*bug));
    println!("| bug | promise | seeds | events | description |\n|---|---|---|---|---|");
    for ((bug, what, _), found) in ALL.iter().zip(&all) {
        match found {
            Some(Found { seed, broken, story }) => {
                println!("| {bug:?} | {} | {} | {story} | {what} |", broken.promise, seed + 1);
            }
            None => println!("| {bug:?} | none | {MOST_SEEDS} | - | {what} |"),
        }
    }
    for ((bug, ..), found) in ALL.iter().zip(&all) {
        let Some(Found { seed, broken, .. }) = found else { panic!("{bug:?} was not found") };
        assert!(bug.may_break(broken.promise), "{bug:?} in seed {seed}: {broken}");
    }
}
