//! The states from which everything within the bounds has been explored, or will be.
//!
//! It stores fingerprints only. A state counts as seen if as much was left to choose there as now, in every respect.

use std::collections::HashMap;

use super::bounds::Remaining;

/// The states.
#[derive(Debug)]
pub struct Seen {
    states: HashMap<u64, Vec<Remaining>>,
    /// What the current run may still choose.
    pub remaining: Remaining,
}

impl Seen {
    /// Returns an empty set, for a first run that may choose this much.
    pub fn new(remaining: Remaining) -> Self {
        Self { states: HashMap::new(), remaining }
    }

    /// Returns whether a state is contained; adds it otherwise.
    pub fn contains_or_insert(&mut self, state: u64) -> bool {
        let known = self.states.entry(state).or_default();
        if known.iter().any(|known| known.includes(self.remaining)) {
            return true;
        }
        known.push(self.remaining);
        false
    }

    /// Returns the number of states.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Returns whether there is no state.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}
