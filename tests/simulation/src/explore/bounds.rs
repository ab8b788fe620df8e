//! How much is explored: how many choices other than the first alternative one run may make, of which kinds, and
//! during which time.
//!
//! A bound says what may happen, never what the operator does about it.

use jiff::SignedDuration;

use super::fault::Fault;
use crate::choices::Choice;

/// What an alternative counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Another order of the events.
    Orders,
    Faults,
    /// An event of the plan ahead of its time.
    Acts,
}

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How often the order of simultaneous events is another one than the usual one.
    pub orders: u8,
    /// The number of faults.
    pub most_faults: u8,
    /// How many events of the plan happen ahead of their time.
    pub acts: u8,
    /// The number of all of these together.
    pub choices: u8,
    /// The faults that are possible.
    pub faults: &'static [Fault],
    /// For how long after the start there are choices.
    pub window: SignedDuration,
}

/// What may still be chosen: orders, faults, acts, and all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining([u8; 4]);

impl Bounds {
    /// Returns what a run may choose that has made no choice yet.
    pub fn remaining(&self) -> Remaining {
        Remaining([self.orders, self.most_faults, self.acts, self.choices])
    }
}

impl Remaining {
    /// Returns what remains after one more choice; `None` if it is out of bounds.
    pub fn after(self, limit: Limit) -> Option<Self> {
        let mut left = self.0;
        left[limit as usize] = left[limit as usize].checked_sub(1)?;
        left[3] = left[3].checked_sub(1)?;
        Some(Self(left))
    }

    /// Returns whether everything may be chosen that `other` may choose.
    pub fn includes(self, other: Self) -> bool {
        let [mine, others] = [self, other].map(Self::effective);
        mine.iter().zip(others).all(|(mine, other)| *mine >= other)
    }

    /// No single limit is of use beyond the total.
    fn effective(self) -> [u8; 4] {
        let total = self.0[3];
        self.0.map(|left| left.min(total))
    }
}

/// A list of choices, and what may be chosen after them.
#[derive(Clone, Debug)]
pub struct Path {
    pub choices: Vec<Choice>,
    /// What may still be chosen.
    pub remaining: Remaining,
}
