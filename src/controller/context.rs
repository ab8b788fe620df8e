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

/// What the administrator set for all resources.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The region of streams given by name without one.
    pub region: Region,
    /// How often to look for drift.
    pub drift_interval: SignedDuration,
    /// Calls per stream in 24 hours, of AWS's 25.
    pub max_calls_per_day: u32,
    /// Whether encryption may be turned off.
    pub allow_disable: bool,
}
