//! The states from which everything within the bounds has been explored, or will be explored.
//!
//! This module stores fingerprints only. A state counts as seen if an earlier run had at least as many
//! choices left there, of every kind.

use std::collections::HashMap;

use super::bounds::Remaining;

/// The states.
#[derive(Debug)]
pub struct Seen {
    states: HashMap<u64, Vec<Remaining>>,
    /// The choices that the current run may still make.
    pub remaining: Remaining,
}

impl Seen {
    /// Returns an empty set, for a first run that may make these choices.
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
