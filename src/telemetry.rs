//! Logs: to standard error, as JSON or for people.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Starts logging, once per process.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("{filter:?} is not a log filter: write info, or debug,kube=warn"))?;
    // A line that cannot be written (a full disk, a reader that is gone) is lost. To say so on standard error, as is the
    // default, would panic: it is the same file.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Text => logs.with_target(false).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging is already started: {error}"))
}
