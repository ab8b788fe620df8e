//! The clocks of a reconcile. No other file of the controller asks for the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The clock, as a value: tests and the simulation provide their own.
///
/// It consists of two clocks. The wall clock returns the time of day and may be set. The monotonic clock only
/// measures elapsed time, and also runs while the process is paused.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// One moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub wall: Timestamp,
    /// The time since an arbitrary start.
    pub monotonic: Duration,
}

impl Clock {
    /// Creates a clock from these two clocks.
    #[must_use]
    pub fn new(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        monotonic: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { wall: Arc::new(wall), monotonic: Arc::new(monotonic) }
    }

    /// Returns the system's clocks.
    #[must_use]
    pub fn system() -> Self {
        let start = Instant::now();
        Self::new(Timestamp::now, move || start.elapsed())
    }

    /// Returns the current time in whole microseconds, so that a time read back from Kubernetes equals the
    /// time that was written.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.exact();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Returns the current time as exactly as the system's clock measures it.
    #[must_use]
    pub fn exact(&self) -> Timestamp {
        (self.wall)()
    }

    /// Returns the current time of both clocks.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now(), monotonic: self.monotonic() }
    }

    /// Returns the time elapsed since an arbitrary start, independent of the wall clock.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        (self.monotonic)()
    }
}
