//! The bounds of an exploration: the number of choices other than the first alternative in one run, by kind,
//! and the time for choices.
//!
//! A bound limits the events, never the reaction of the operator.

use jiff::SignedDuration;

use super::injected_fault::InjectedFault;
use crate::choices::Choice;

/// The limit that an alternative counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Another order of the events.
    Orders,
    Faults,
    /// An operation of the plan ahead of its time.
    EarlyOperations,
}

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The number of changes of the default order of simultaneous events.
    pub orders: u8,
    /// The number of faults.
    pub max_faults: u8,
    /// The number of operations of the plan ahead of their time.
    pub early_operations: u8,
    /// The number of all of these together.
    pub choices: u8,
    /// The faults that are possible.
    pub faults: &'static [InjectedFault],
    /// The time after the start in which there are choices.
    pub window: SignedDuration,
}

/// The choices that are left: orders, faults, early operations, and all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining([u8; 4]);

impl Bounds {
    /// Returns the choices of a run that has made none yet.
    pub fn remaining(&self) -> Remaining {
        Remaining([self.orders, self.max_faults, self.early_operations, self.choices])
    }
}

impl Remaining {
    /// Returns the choices that are left after one more choice; `None` if it is out of bounds.
    pub fn after(self, limit: Limit) -> Option<Self> {
        let mut left = self.0;
        left[limit as usize] = left[limit as usize].checked_sub(1)?;
        left[3] = left[3].checked_sub(1)?;
        Some(Self(left))
    }

    /// Returns whether these choices include all of `other`.
    pub fn includes(self, other: Self) -> bool {
        let [mine, others] = [self, other].map(Self::effective);
        mine.iter().zip(others).all(|(mine, other)| *mine >= other)
    }

    /// Limits each kind to the total, which no kind can exceed.
    fn effective(self) -> [u8; 4] {
        let total = self.0[3];
        self.0.map(|left| left.min(total))
    }
}

/// A list of choices, and the choices that are left after them.
#[derive(Clone, Debug)]
pub struct Path {
    pub choices: Vec<Choice>,
    /// The choices that are left.
    pub remaining: Remaining,
}
