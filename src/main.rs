//! The operator's binary: arguments in, exit code out.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use stream_encryption_operator::settings::Arguments;
use stream_encryption_operator::{commands, telemetry};

fn main() -> ExitCode {
    let Err(error) = commands::run(Arguments::parse()) else { return ExitCode::SUCCESS };
    // Without a backtrace, regardless of RUST_BACKTRACE: the release binary has no symbols to name in it.
    let _ = writeln!(std::io::stderr(), "Error: {}", telemetry::error_chain(error.as_ref()));
    ExitCode::FAILURE
}
