//! Turns of checks for drift among more urgent work: the latter precedes, but every fourth turn is a check if one waits.
//!
//! Without these turns, a namespace that causes changes without end would keep every other one from being checked. Pure.

/// Number of other turns after which a check for drift is next.
const OTHERS_BEFORE_DRIFT: u8 = 3;

/// Counts the turns of other work while a check for drift waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriftTurns {
    others: u8,
}

impl DriftTurns {
    /// Returns the next of the two, each `None` if it does not wait or may not go.
    #[must_use]
    pub fn next<T>(self, other: Option<T>, drift: Option<T>) -> Option<T> {
        if self.others >= OTHERS_BEFORE_DRIFT { drift.or(other) } else { other.or(drift) }
    }

    /// Records a turn of other work. `drift_waits` states whether a check for drift waits.
    pub fn record_other(&mut self, drift_waits: bool) {
        self.others = if drift_waits { self.others.saturating_add(1) } else { 0 };
    }

    /// Records a turn of a check for drift.
    pub fn record_drift(&mut self) {
        self.others = 0;
    }
}
