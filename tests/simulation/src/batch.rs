//! Runs many seeds on all processors, and returns their statistics and the first seeds that break a promise.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::generator::plan;
use crate::invariants::Broken;
use crate::run::run;
use crate::stats::Tally;
use crate::wiring::Faithful;

/// The result of many seeds.
#[derive(Debug, Default)]
pub struct Many {
    /// The statistics of all runs.
    pub tally: Tally,
    /// The seeds that broke a promise, in ascending order.
    pub broken: Vec<(u64, Broken)>,
}

/// Runs the seeds `from..from + count`, and stops when this many of them have broken a promise.
pub fn many(from: u64, count: u64, enough: usize) -> Many {
    let next = AtomicU64::new(from);
    let failures = AtomicUsize::new(0);
    let sum = Mutex::new(Many::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Many::default();
                while failures.load(Ordering::Relaxed) < enough {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from.saturating_add(count) {
                        break;
                    }
                    let report = run(&plan(seed), &Faithful, false);
                    own.tally.add(&report.tally);
                    if let Some(broken) = report.broken {
                        failures.fetch_add(1, Ordering::Relaxed);
                        own.broken.push((seed, broken));
                    }
                }
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.tally.add(&own.tally);
                sum.broken.extend(own.broken);
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.broken.sort_by_key(|(seed, _)| *seed);
    sum
}
