//! The clock of the HTTP server: the machine's clock, or a virtual clock that only a test moves.
//!
//! It returns the time and delays replies until a time. The model must never read it: the model takes the
//! time as an argument.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::world::stream::later;

/// The kind of clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The machine's clock; `advance` shifts it for the simulation only.
    Real,
    /// Stays at this time until it is set or advanced.
    Virtual(Timestamp),
}

/// A running clock.
#[derive(Debug)]
pub(super) struct Running {
    kind: Clock,
    /// The total of what `advance` has added so far.
    shift: watch::Sender<SignedDuration>,
}

impl Running {
    pub(super) fn new(kind: Clock) -> Running {
        Running { kind, shift: watch::Sender::new(SignedDuration::ZERO) }
    }

    pub(super) fn now(&self) -> Timestamp {
        let base = match self.kind {
            Clock::Real => Timestamp::now(),
            Clock::Virtual(start) => start,
        };
        later(base, *self.shift.borrow())
    }

    pub(super) fn advance(&self, by: SignedDuration) {
        self.shift.send_modify(|shift| *shift = shift.saturating_add(by));
    }

    pub(super) fn set(&self, to: Timestamp) {
        self.advance(self.now().duration_until(to));
    }

    /// Returns when this clock has reached the time.
    pub(super) async fn reach(&self, time: Timestamp) {
        let mut shifted = self.shift.subscribe();
        loop {
            let rest = self.now().duration_until(time);
            let Ok(rest) = Duration::try_from(rest) else { return };
            if rest.is_zero() {
                return;
            }
            match self.kind {
                Clock::Real => {
                    tokio::select! {
                        () = tokio::time::sleep(rest) => {}
                        _ = shifted.changed() => {}
                    }
                }
                Clock::Virtual(_) => {
                    if shifted.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
