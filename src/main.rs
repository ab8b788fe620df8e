//! The operator's binary, which is also the kubectl plugin: arguments in, exit code out.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use stream_encryption_operator::settings::{Arguments, PluginArguments};
use stream_encryption_operator::{commands, plugin, telemetry};

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    // kubectl finds a plugin, and its completion, by the names of files.
    let ended = match Path::new(&program).file_stem().and_then(|name| name.to_str()) {
        Some(plugin::FILE_NAME) => commands::run_plugin(PluginArguments::parse().command),
        Some(plugin::completion::FILE_NAME) => {
            commands::complete_plugin(&std::env::args().skip(1).collect::<Vec<_>>());
            return ExitCode::SUCCESS;
        }
        _ => commands::run(Arguments::parse()),
    };
    let error = match ended {
        Ok(code) => return code,
        Err(error) => error,
    };
    // Without a backtrace, regardless of RUST_BACKTRACE: the release binary has no symbols to name in it.
    let _ = writeln!(std::io::stderr(), "Error: {}", telemetry::error_chain(error.as_ref()));
    ExitCode::FAILURE
}
