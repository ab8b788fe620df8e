//! Runs many seeds on all processors, and returns their statistics and the first seeds that violate an
//! invariant.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::generator::generate_plan;
use crate::invariants::Violation;
use crate::run::run;
use crate::statistics::Statistics;
use crate::wiring::Unmodified;

/// The result of many seeds.
#[derive(Debug, Default)]
pub struct Batch {
    /// The statistics of all runs.
    pub statistics: Statistics,
    /// The seeds that violated an invariant, in ascending order.
    pub violations: Vec<(u64, Violation)>,
}

/// Which seeds of a range run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every seed.
    All,
    /// Only those whose operator receives AWS's events, which is every second one.
    WithEvents,
}

/// Runs the selected seeds of `from..from + count`, and stops when this many of them have violated an
/// invariant.
pub fn run_batch(from: u64, count: u64, selection: Selection, max_violations: usize) -> Batch {
    let next = AtomicU64::new(from);
    let failures = AtomicUsize::new(0);
    let sum = Mutex::new(Batch::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Batch::default();
                while failures.load(Ordering::Relaxed) < max_violations {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from.saturating_add(count) {
                        break;
                    }
                    let plan = generate_plan(seed);
                    if selection == Selection::WithEvents && plan.events.is_none() {
                        continue;
                    }
                    let report = run(&plan, &Unmodified, false);
                    own.statistics.add(&report.statistics);
                    if let Some(violation) = report.violation {
                        failures.fetch_add(1, Ordering::Relaxed);
                        own.violations.push((seed, violation));
                    }
                }
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.statistics.add(&own.statistics);
                sum.violations.extend(own.violations);
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.violations.sort_by_key(|(seed, _)| *seed);
    sum
}
