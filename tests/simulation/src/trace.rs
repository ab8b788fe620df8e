//! The trace: what happened, line by line, for the reader of a failed run. It is recorded only on request.

use std::fmt;

use jiff::Timestamp;

use crate::environment::BEGIN;

/// The lines of the trace, ordered by time.
#[derive(Clone, Debug, Default)]
pub struct Story {
    wanted: bool,
    lines: Vec<(Timestamp, String)>,
}

impl Story {
    /// Creates a trace that is recorded, or one that is not.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, lines: Vec::new() }
    }

    /// Adds a line; its text is computed only if the trace is recorded.
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

/// Returns the hours, minutes, seconds and milliseconds since the start of the run.
pub fn since_begin(at: Timestamp) -> String {
    let millis = at.duration_since(BEGIN).as_millis();
    let (hours, rest) = (millis / 3_600_000, millis % 3_600_000);
    format!("{hours:3}:{:02}:{:02}.{:03}", rest / 60_000, rest % 60_000 / 1000, rest % 1000)
}
