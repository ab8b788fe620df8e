//! The explorer: runs a small environment with every list of choices within bounds, shortest lists first.
//!
//! A run returns the alternatives that it had; each one is the end of a longer list. Only these lists and the
//! fingerprints of the states are stored between two runs: each run begins at the start. The runs are those
//! of the simulation, with the operator's own controller, and the same invariants are checked after every
//! event.

pub mod bounds;
pub mod injected_fault;
pub mod seen;
pub mod settings;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bounds::Path;
use seen::Seen;
use settings::Setting;

use crate::choices::{Choice, Choices};
use crate::invariants::Violation;
use crate::run::{Replay, Report, replay};
use crate::statistics::Statistics;
use crate::wiring::Wiring;

/// Defines whether runs are cut short in states that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruning {
    /// Runs are cut short there. The wiring must have no state of its own.
    SeenStates,
    /// Every run lasts until its end, or until a violation.
    Never,
}

/// The result of an exploration.
#[derive(Debug, Default)]
pub struct Exploration {
    /// The number of runs.
    pub runs: u64,
    /// The number of runs that were cut short.
    pub pruned: u64,
    /// The number of different states between two reconciles.
    pub states: usize,
    /// The maximum number of choice points in a run.
    pub points: u32,
    /// The first violation, and the list of choices that leads to it.
    pub violation: Option<(Vec<Choice>, Violation)>,
    /// The statistics.
    pub statistics: Statistics,
}

/// Explores an environment within its bounds, until a violation or until `max_runs` runs are done.
pub fn explore<P: Wiring>(setting: &Setting, wiring: &P, pruning: Pruning, max_runs: u64) -> Exploration {
    let bounds = Arc::new(setting.bounds.clone());
    let mut seen = Seen::new(bounds.remaining());
    let mut exploration = Exploration::default();
    let mut paths = VecDeque::from([Path { choices: Vec::new(), remaining: bounds.remaining() }]);
    while let Some(path) = paths.pop_front()
        && exploration.runs < max_runs
    {
        seen.remaining = path.remaining;
        let choices = Choices::from_list(bounds.clone(), path.choices.clone());
        let seen_states = (pruning == Pruning::SeenStates).then_some(&mut seen);
        let Replay { report, choices, pruned } = replay(&setting.plan, wiring, false, choices, seen_states);
        exploration.runs += 1;
        exploration.pruned += u64::from(pruned);
        exploration.statistics.add(&report.statistics);
        if let Some(violation) = report.violation {
            exploration.violation = Some((path.choices, violation));
            break;
        }
        let Some(listed) = choices.list() else { continue };
        exploration.points = exploration.points.max(listed.points());
        for (choice, limit) in listed.offered() {
            if let Some(remaining) = path.remaining.after(*limit) {
                let choices = path.choices.iter().chain([choice]).copied().collect();
                paths.push_back(Path { choices, remaining });
            }
        }
    }
    exploration.states = seen.len();
    exploration
}

/// Returns the result of `work` for each item, in the same order. Uses all processors.
pub fn parallel_map<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Returns the trace of one list of choices, and the violation, if any.
pub fn run_traced<P: Wiring>(setting: &Setting, wiring: &P, list: &[Choice]) -> Report {
    let choices = Choices::from_list(Arc::new(setting.bounds.clone()), list.to_vec());
    replay(&setting.plan, wiring, true, choices, None).report
}
