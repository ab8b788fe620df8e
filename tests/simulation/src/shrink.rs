//! Minimises a plan that breaks a promise: removes events and replicas one by one, as long as the same
//! promise breaks.

use crate::environment::BEGIN;
use crate::invariants::Broken;
use crate::plan::{Happening, Plan};
use crate::run::run;
use crate::wiring::Parts;

/// Maximum number of runs, by default.
const MOST_RUNS: usize = 400;

/// Returns the smallest plan found that breaks the same promise, and how.
pub fn shrink<P: Parts>(plan: &Plan, broken: &Broken, parts: &P) -> (Plan, Broken) {
    within(MOST_RUNS, plan, broken, parts)
}

/// Returns the smallest plan found within this many runs.
pub fn within<P: Parts>(most_runs: usize, plan: &Plan, broken: &Broken, parts: &P) -> (Plan, Broken) {
    let mut best = (plan.clone(), broken.clone());
    // Events after the broken promise are irrelevant.
    best.0.happenings.retain(|(at, _)| BEGIN + *at <= broken.at);
    let mut runs = 0;
    loop {
        let before = best.0.happenings.len();
        let mut size = before.max(1);
        while size > 0 {
            let mut begin = 0;
            while begin < best.0.happenings.len() && runs < most_runs {
                let mut smaller = best.0.clone();
                let end = (begin + size).min(smaller.happenings.len());
                smaller.happenings.drain(begin..end);
                runs += 1;
                match still(&smaller, broken, parts) {
                    Some(same) => best = (smaller, same),
                    None => begin += size,
                }
            }
            size /= 2;
        }
        if best.0.replicas > 1 && runs < most_runs {
            let mut fewer = best.0.clone();
            fewer.replicas -= 1;
            fewer.clocks.truncate(fewer.replicas);
            fewer
                .happenings
                .retain(|(_, happening)| replica_of(happening).is_none_or(|one| one < fewer.replicas));
            runs += 1;
            if let Some(same) = still(&fewer, broken, parts) {
                best = (fewer, same);
                continue;
            }
        }
        if best.0.happenings.len() == before || runs >= most_runs {
            return best;
        }
    }
}

fn still<P: Parts>(plan: &Plan, broken: &Broken, parts: &P) -> Option<Broken> {
    run(plan, parts, false).broken.filter(|again| again.promise == broken.promise)
}

fn replica_of(happening: &Happening) -> Option<usize> {
    match happening {
        Happening::Doom(replica, ..)
        | Happening::Kill(replica, _)
        | Happening::ClockSet(replica, _)
        | Happening::Credentials(replica, _)
        | Happening::SessionStuck(replica, _)
        | Happening::WatchLag(replica, _)
        | Happening::WatchFrozen(replica, _)
        | Happening::WatchDrops(replica, _)
        | Happening::WatchBackInTime(replica, _) => Some(*replica),
        _ => None,
    }
}
