//! Logs to standard error, as JSON or as text. Traces to a collector, with the feature `otlp`.

use std::io::IsTerminal as _;
use std::{env, io};

use anyhow::Context as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use crate::settings::{DEFAULT_LOG, LogFormat};

#[cfg(feature = "otlp")]
mod traces;
mod warnings;
mod words;

pub use warnings::Warnings;
use words::Lines;
pub use words::{error_chain, printable, printable_json};

/// A guard that sends the last traces when it is dropped.
#[must_use = "dropped at once, it sends no traces"]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    _traces: Option<traces::Traces>,
}

/// Returns whether to use colours: only on a terminal, and not against <https://no-color.org>.
fn colours_are_wanted() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Checks a filter of the log; an empty one is the default. `EnvFilter` accepts a word that is no level as the name of a
/// module, and the operator would log nothing at all.
fn checked(filter: &str) -> anyhow::Result<&str> {
    let parts = || filter.split(',').map(str::trim).filter(|part| !part.is_empty());
    let is_word = |part: &&str| !part.contains(['=', '[', '{']);
    match parts().filter(is_word).find(|part| part.parse::<LevelFilter>().is_err()) {
        Some(word) => anyhow::bail!(
            "invalid log filter {filter:?}: {word:?} is no level; use error, warn, info, debug, trace or off, or MODULE=LEVEL"
        ),
        None if parts().next().is_none() => Ok(DEFAULT_LOG),
        None => Ok(filter),
    }
}

/// Returns whether this text is a filter of the log.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    checked(text).is_ok_and(|filter| EnvFilter::try_new(filter).is_ok())
}

/// Starts logging and tracing, once per process, within a tokio runtime, which sends the traces.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<Telemetry> {
    // The AWS SDK logs a warning for each failed attempt to obtain credentials; the operator logs each cause once. kube
    // logs each request that fails, and the whole text of each object that it cannot parse; the operator logs each
    // error, and a failed watch at most once a minute. kube has a span for each resource that waits for its reconcile, and enters all of them again and
    // again: with thousands of resources that is much CPU time. A reconcile has a span of its own.
    let filter = checked(filter)?;
    let quiet = format!(
        "aws_config=error,kube_client::client=off,kube_runtime::controller=warn,kube_runtime::watcher=error,{filter}"
    );
    let filter = EnvFilter::try_new(quiet).with_context(|| {
        format!("invalid log filter {filter:?}: expected, for example, info or debug,kube=warn")
    })?;
    // A line that cannot be written (a full disk, a closed reader) is lost. By default the subscriber reports
    // that on standard error, which would panic, because standard error is the destination of the logs.
    let coloured = format == LogFormat::Text && colours_are_wanted();
    let stderr = move || Lines { to: io::stderr(), format, coloured };
    let lines = fmt::layer().with_writer(stderr).with_ansi(coloured).log_internal_errors(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    let subscriber = registry().with(filter).with(lines);
    #[cfg(feature = "otlp")]
    let (traces, subscriber) = {
        let traces = traces::Traces::from_env()?;
        let layer = traces.as_ref().map(traces::Traces::layer);
        (traces, subscriber.with(layer))
    };
    subscriber.try_init().map_err(|error| anyhow::anyhow!("logging is already started: {error}"))?;
    Ok(Telemetry {
        #[cfg(feature = "otlp")]
        _traces: traces,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_no_filter() {
        assert!(is_filter("debug,kube=warn") && is_filter(""));
        assert!(!is_filter("/tmp/build.log"));
    }

    #[test]
    fn word_that_is_no_level_is_refused() {
        for word in ["warning", "err", "verbose", "info,kube", "debug,kube=warn,trace2"] {
            let error = checked(word).unwrap_err().to_string();
            assert!(error.contains("is no level; use error, warn, info"), "{word}: {error}");
        }
        for good in
            ["info", "WARN", "off", "debug,kube=warn", "kube=debug", "info,[reconcile{name=orders}]=debug"]
        {
            assert_eq!(checked(good).unwrap(), good);
        }
        for empty in ["", " ", ","] {
            assert_eq!(checked(empty).unwrap(), DEFAULT_LOG, "as every other setting");
        }
    }
}
