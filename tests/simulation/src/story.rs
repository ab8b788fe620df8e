//! The story: what happened, line by line, for a person. It is kept only when somebody wants to read it.

use std::fmt;

use jiff::Timestamp;

use crate::scene::BEGIN;

/// What happened, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Story {
    wanted: bool,
    lines: Vec<(Timestamp, String)>,
}

impl Story {
    /// A story that is kept, or one that is not.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        Self { wanted, lines: Vec::new() }
    }

    /// Adds a line; its words are made only if it is kept.
    pub fn tell(&mut self, at: Timestamp, words: impl FnOnce() -> String) {
        if self.wanted {
            self.lines.push((at, words()));
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, words) in &self.lines {
            writeln!(f, "{}  {words}", since_begin(*at))?;
        }
        Ok(())
    }
}

/// Hours, minutes, seconds and milliseconds since the beginning of the run.
#[must_use]
pub fn since_begin(at: Timestamp) -> String {
    let millis = at.duration_since(BEGIN).as_millis();
    let (hours, rest) = (millis / 3_600_000, millis % 3_600_000);
    format!("{hours:3}:{:02}:{:02}.{:03}", rest / 60_000, rest % 60_000 / 1000, rest % 1000)
}
