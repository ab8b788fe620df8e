//! The operator's binary, which is also the kubectl plugin: arguments in, exit code out.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use stream_encryption_operator::settings::{Arguments, PluginArguments};
use stream_encryption_operator::{commands, plugin, telemetry};

fn main() -> ExitCode {
    let is_plugin = std::env::args_os().next().is_some_and(|name| is_plugin(Path::new(&name)));
    let ended = if is_plugin {
        commands::run_plugin(PluginArguments::parse().command)
    } else {
        commands::run(Arguments::parse())
    };
    let error = match ended {
        Ok(code) => return code,
        Err(error) => error,
    };
    // Without a backtrace, regardless of RUST_BACKTRACE: the release binary has no symbols to name in it.
    let _ = writeln!(std::io::stderr(), "Error: {}", telemetry::error_chain(error.as_ref()));
    ExitCode::FAILURE
}

/// Returns whether the program was started under the name by which kubectl finds a plugin.
fn is_plugin(program: &Path) -> bool {
    program.file_stem().is_some_and(|name| name == plugin::FILE_NAME)
}
