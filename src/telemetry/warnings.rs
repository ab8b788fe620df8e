//! The limit of warnings about one lasting problem: one a minute. It decides only whether to log. One limit must never
//! serve two problems, because the first would hide the second.

use std::time::Duration;

use tokio::time::Instant;

/// Minimum time between two warnings about the same problem.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Limits the warnings about one problem, such as the failures of one watch.
#[derive(Clone, Copy, Default)]
pub struct Warnings {
    warned_at: Option<Instant>,
}

impl Warnings {
    /// Returns whether the problem is to be logged now: it was last logged at least a minute ago. If so, the caller must log it.
    pub fn take_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.warned_at.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY);
        if is_due {
            self.warned_at = Some(now);
        }
        is_due
    }
}
