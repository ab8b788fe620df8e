//! The trace: the events of a run, one line each, for the analysis of a failed run. It is recorded only on
//! request.

use std::fmt;

use jiff::Timestamp;

use crate::environment::START;

/// The lines of the trace, ordered by time.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    enabled: bool,
    lines: Vec<(Timestamp, String)>,
}

impl Trace {
    /// Creates a trace that is recorded, or one that is not.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, lines: Vec::new() }
    }

    /// Adds a line; its text is computed only if the trace is recorded.
    pub fn record(&mut self, at: Timestamp, text: impl FnOnce() -> String) {
        if self.enabled {
            self.lines.push((at, text()));
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, text) in &self.lines {
            writeln!(f, "{}  {text}", since_start(*at))?;
        }
        Ok(())
    }
}

/// Returns the hours, minutes, seconds and milliseconds since the start of the run.
pub fn since_start(at: Timestamp) -> String {
    let millis = at.duration_since(START).as_millis();
    let (hours, rest) = (millis / 3_600_000, millis % 3_600_000);
    format!("{hours:3}:{:02}:{:02}.{:03}", rest / 60_000, rest % 60_000 / 1000, rest % 1000)
}
