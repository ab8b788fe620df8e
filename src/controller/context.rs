//! What a reconcile works with: the two ports, the clock, the administrator's rules and the process's memory.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::memory::Memory;
use crate::model::stream::Region;

/// What a reconcile works with.
pub struct Operator<A, R> {
    /// AWS.
    pub aws: A,
    /// Kubernetes.
    pub records: R,
    /// The clock.
    pub clock: Clock,
    /// What the administrator set.
    pub rules: Rules,
    /// What this process remembers between two visits; nothing that may not be lost.
    pub memory: Memory,
}

/// The clock, as a value: tests and the simulation bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that tells what `now` tells.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// Now, in whole microseconds: what Kubernetes stores is then equal to what was written.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = (self.0)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
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
