//! The explorer: runs a small environment with every list of choices within bounds, shortest lists first.
//!
//! A run shows which alternatives it had; each is the end of a longer list. Nothing is stored between two runs but
//! these lists and the fingerprints of the states: each run begins at the start. The runs are the simulation's own, with
//! the operator's own controller, and the same promises are checked after every event.

pub mod bounds;
pub mod fault;
pub mod seen;
pub mod settings;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bounds::Path;
use seen::Seen;
use settings::Setting;

use crate::choices::{Choice, Choices};
use crate::invariants::Broken;
use crate::run::{Followed, Report, follow};
use crate::stats::Tally;
use crate::wiring::Parts;

/// Whether runs are cut short in states that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// They are. The parts must have no state of their own.
    States,
    /// Every run lasts until its end, or until a promise is broken.
    Never,
}

/// What was explored.
#[derive(Debug, Default)]
pub struct Explored {
    /// The number of runs.
    pub runs: u64,
    /// The number of runs that were cut short.
    pub cut: u64,
    /// The number of different states between two reconciles.
    pub states: usize,
    /// The maximum number of choice points in a run.
    pub points: u32,
    /// The first broken promise, and the list of choices that leads to it.
    pub broken: Option<(Vec<Choice>, Broken)>,
    /// The statistics.
    pub tally: Tally,
}

/// Explores an environment within its bounds, until a promise is broken or `most` runs are done.
pub fn explore<P: Parts>(setting: &Setting, parts: &P, cut: Cut, most: u64) -> Explored {
    let bounds = Arc::new(setting.bounds.clone());
    let mut seen = Seen::new(bounds.remaining());
    let mut explored = Explored::default();
    let mut paths = VecDeque::from([Path { choices: Vec::new(), remaining: bounds.remaining() }]);
    while let Some(path) = paths.pop_front()
        && explored.runs < most
    {
        seen.remaining = path.remaining;
        let choices = Choices::listed(bounds.clone(), path.choices.clone());
        let known = (cut == Cut::States).then_some(&mut seen);
        let Followed { report, choices, cut } = follow(&setting.plan, parts, false, choices, known);
        explored.runs += 1;
        explored.cut += u64::from(cut);
        explored.tally.add(&report.tally);
        if let Some(broken) = report.broken {
            explored.broken = Some((path.choices, broken));
            break;
        }
        let Some(listed) = choices.list() else { continue };
        explored.points = explored.points.max(listed.points());
        for (choice, limit) in listed.offered() {
            if let Some(remaining) = path.remaining.after(*limit) {
                let choices = path.choices.iter().chain([choice]).copied().collect();
                paths.push_back(Path { choices, remaining });
            }
        }
    }
    explored.states = seen.len();
    explored
}

/// Returns the result of `work` for each item, in the same order. Uses all processors.
pub fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let done = work(item);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push((at, done));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, done)| done).collect()
}

/// Returns the trace of one list of choices, and the promise that it breaks, if any.
pub fn traced<P: Parts>(setting: &Setting, parts: &P, list: &[Choice]) -> Report {
    let choices = Choices::listed(Arc::new(setting.bounds.clone()), list.to_vec());
    follow(&setting.plan, parts, true, choices, None).report
}
