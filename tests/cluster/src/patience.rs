//! How long we wait for a program to come up, and what we say when it does not: the end of its log.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{self, Instant};

/// How long a program may take until it serves; about 3 s where the machine is idle.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Lines of the log that an error repeats.
const LINES: usize = 15;

/// One wait for one thing.
pub(crate) struct Patience<'a> {
    what: &'a str,
    log: &'a Path,
    start: Instant,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(what: &'a str, log: &'a Path) -> Self {
        Self { what, log, start: Instant::now() }
    }

    /// Returns when it is time to look again; `exited` is how the program ended, if it did.
    ///
    /// # Errors
    /// The program has ended, or a minute has passed.
    pub(crate) async fn wait(&self, exited: Option<ExitStatus>) -> anyhow::Result<()> {
        let end = match exited {
            Some(status) => format!("the program ended ({status})"),
            None if self.start.elapsed() > LIMIT => format!("not within {} s", LIMIT.as_secs()),
            None => {
                time::sleep(POLL).await;
                return Ok(());
            }
        };
        let text = std::fs::read_to_string(self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        bail!("waiting until {}: {end}. The end of its log:\n{last}", self.what);
    }
}
