//! Minimises a plan that violates an invariant: removes operations and replicas one by one, as long as the
//! same invariant is violated.

use crate::environment::START;
use crate::invariants::Violation;
use crate::plan::{Operation, Plan};
use crate::run::run;
use crate::wiring::Wiring;

/// Maximum number of runs, by default.
const MAX_RUNS: usize = 400;

/// Returns the smallest plan found that violates the same invariant, and the violation.
pub fn shrink<P: Wiring>(plan: &Plan, violation: &Violation, wiring: &P) -> (Plan, Violation) {
    shrink_within(MAX_RUNS, plan, violation, wiring)
}

/// Returns the smallest plan found within this many runs.
pub fn shrink_within<P: Wiring>(
    max_runs: usize,
    plan: &Plan,
    violation: &Violation,
    wiring: &P,
) -> (Plan, Violation) {
    let mut best = (plan.clone(), violation.clone());
    // Operations after the violation are irrelevant.
    best.0.operations.retain(|(at, _)| START + *at <= violation.at);
    let mut runs = 0;
    loop {
        let size_before = best.0.operations.len();
        let mut size = size_before.max(1);
        while size > 0 {
            let mut start = 0;
            while start < best.0.operations.len() && runs < max_runs {
                let mut smaller = best.0.clone();
                let end = (start + size).min(smaller.operations.len());
                smaller.operations.drain(start..end);
                runs += 1;
                match same_violation(&smaller, violation, wiring) {
                    Some(same) => best = (smaller, same),
                    None => start += size,
                }
            }
            size /= 2;
        }
        if best.0.replicas > 1 && runs < max_runs {
            let mut fewer = best.0.clone();
            fewer.replicas -= 1;
            fewer.clock_errors.truncate(fewer.replicas);
            fewer.operations.retain(|(_, operation)| {
                replica_of(operation).is_none_or(|replica| replica < fewer.replicas)
            });
            runs += 1;
            if let Some(same) = same_violation(&fewer, violation, wiring) {
                best = (fewer, same);
                continue;
            }
        }
        if best.0.operations.len() == size_before || runs >= max_runs {
            return best;
        }
    }
}

/// Returns the violation of the same invariant, if a plan leads to one.
fn same_violation<P: Wiring>(plan: &Plan, violation: &Violation, wiring: &P) -> Option<Violation> {
    run(plan, wiring, false).violation.filter(|found| found.promise == violation.promise)
}

/// Returns the replica that an operation affects, if it affects a single one.
fn replica_of(operation: &Operation) -> Option<usize> {
    match operation {
        Operation::PlannedFailure(replica, ..)
        | Operation::Kill(replica, _)
        | Operation::ClockSet(replica, _)
        | Operation::ForeignCredentials(replica, _)
        | Operation::SessionNotRenewed(replica, _)
        | Operation::WatchLag(replica, _)
        | Operation::WatchFrozen(replica, _)
        | Operation::WatchDrops(replica, _)
        | Operation::WatchBackInTime(replica, _) => Some(*replica),
        _ => None,
    }
}
