//! What a reconcile works with: the two ports, the clock, the decision, the administrator's rules and the process's memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::memory::Memory;
use crate::model::decision::{Decision, Input};
use crate::model::stream::Region;

/// What a reconcile works with.
pub struct Operator<A, R> {
    /// AWS.
    pub aws: A,
    /// Kubernetes.
    pub records: R,
    /// The clock.
    pub clock: Clock,
    /// The decision: [`crate::model::decision::decide`]. The simulation wraps it, to see which rows are reached and to
    /// prove that a wrong one would be found.
    pub decide: Decide,
    /// What the administrator set.
    pub rules: Rules,
    /// What this process remembers between two visits; nothing that may not be lost.
    pub memory: Memory,
}

/// What a visit may ask for at most, where looks for drift are more frequent.
const LONGEST_REST: SignedDuration = SignedDuration::from_mins(10);
/// Between two visits of one resource.
const SHORTEST_REST: SignedDuration = SignedDuration::from_millis(10);

/// A decision as a value.
pub type Decide = fn(&Input<'_>) -> Decision;

/// The clock, as a value: tests and the simulation bring their own.
///
/// It is two clocks. The wall clock tells the time of day, and somebody may set it; the steady one only measures how
/// much time has passed, and also runs while the process is paused.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    steady: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// A clock that tells what `wall` tells, and measures with `steady`.
    #[must_use]
    pub fn new(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { wall: Arc::new(wall), steady: Arc::new(steady) }
    }

    /// The system's clocks.
    #[must_use]
    pub fn system() -> Self {
        let start = Instant::now();
        Self::new(Timestamp::now, move || start.elapsed())
    }

    /// Now, in whole microseconds: what Kubernetes stores is then equal to what was written.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = (self.wall)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// How much time has passed since some beginning, whatever the wall clock says.
    #[must_use]
    pub fn steady(&self) -> Duration {
        (self.steady)()
    }
}

/// What the administrator set for all resources. What is allowed is said by policies.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The region of streams given by name without one.
    pub region: Region,
    /// How often to look for drift.
    pub drift_interval: SignedDuration,
}

impl Rules {
    /// How long a visit that asked to be back at `wake` waits. Every visit asks to be back within the interval of looks for drift, or ten
    /// minutes; what is much longer was asked for by a clock that has been set back since, and nobody would look for days.
    #[must_use]
    pub fn wait(&self, now: Timestamp, wake: Timestamp) -> SignedDuration {
        let longest = self.drift_interval.max(LONGEST_REST).saturating_mul(2);
        wake.duration_since(now).clamp(SHORTEST_REST, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_by_days_after_a_visit_told_the_time_lets_no_resource_sleep_for_days() {
        let rules =
            Rules { region: "eu-west-1".parse().unwrap(), drift_interval: SignedDuration::from_mins(30) };
        let now = Timestamp::UNIX_EPOCH;
        let wait = |wake| rules.wait(now, now + wake);
        assert_eq!(wait(SignedDuration::from_mins(33)), SignedDuration::from_mins(33));
        assert_eq!(wait(SignedDuration::from_hours(48)), SignedDuration::from_hours(1));
        assert_eq!(wait(SignedDuration::from_hours(-48)), SHORTEST_REST);
    }
}
