//! The timeout for the start of a program, and the error on timeout, which contains the end of its log.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{self, Instant};

/// Maximum time until a program serves; about 3 s on an idle machine.
const LIMIT: Duration = Duration::from_mins(1);
/// The interval between two checks.
const POLL: Duration = Duration::from_millis(50);
/// The number of log lines in an error.
const LINES: usize = 15;

/// One wait for one condition.
pub(crate) struct Patience<'a> {
    what: &'a str,
    log: &'a Path,
    start: Instant,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(what: &'a str, log: &'a Path) -> Self {
        Self { what, log, start: Instant::now() }
    }

    /// Returns when it is time to check again; `exited` is the program's exit status, if it has ended.
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
