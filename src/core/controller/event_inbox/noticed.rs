//! How far the reconciles of a resource are with the events that concern it. Pure.

/// Whether there are events that concern a resource and that no reconcile of it has finished with. The number is that of the
/// last of these events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Noticed {
    /// There are none.
    #[default]
    Nothing,
    /// A reconcile is due, and has not begun.
    Due(u64),
    /// A reconcile has begun to take them into account: it runs, has failed, or could not enter the calls in the ledger.
    Begun(u64),
}

impl Noticed {
    /// Returns the number of the last event; `None` if there are no events.
    pub(super) fn last_number(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Due(number) | Self::Begun(number) => Some(number),
        }
    }

    /// Records a new event. Returns whether the resource becomes due by it: otherwise an earlier event has made it due, and no
    /// reconcile has begun since.
    pub(super) fn record(&mut self, number: u64) -> bool {
        let was_due = matches!(self, Self::Due(_));
        *self = Self::Due(number);
        !was_due
    }

    /// Records that a reconcile has begun to take the events into account.
    pub(super) fn begin(&mut self) {
        if let Self::Due(number) = *self {
            *self = Self::Begun(number);
        }
    }
}
