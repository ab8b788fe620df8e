//! Measures the operator with many resources: `cargo run --release --example benchmark`.
//!
//! Starts a real API server and a simulated AWS with AWS's limits, creates the streams and their resources, and
//! then starts the operator as a process of its own, so that its memory and its CPU time are its own. Prints one
//! table. Must never judge: no figure makes it fail, because times depend on the machine. Most figures are
//! therefore ratios or counts of one run. Memory and CPU time are read from `/proc`, which needs Linux.

mod counts;
mod measure;
mod process;
mod readiness;
mod report;
mod scenario;
mod stage;
mod stops;

use std::process::ExitCode;

use clap::Parser as _;
use stream_encryption_operator::settings::Arguments;

use scenario::Scenario;

fn main() -> anyhow::Result<ExitCode> {
    // The operator is this program, started again with the argument `run`: it has the same profile, and no
    // second program has to be built.
    if std::env::args().nth(1).as_deref() == Some("run") {
        process::end_with_parent();
        stream_encryption_operator::commands::run(Arguments::parse())?;
        return Ok(ExitCode::SUCCESS);
    }
    let scenario = Scenario::parse();
    anyhow::ensure!(scenario.stops <= scenario.resources, "--stops must be at most --resources");
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS implementation is already installed"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&scenario))
}

/// Measures, and prints the result. Everything that was started has ended when this function returns.
async fn run(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let measured = tokio::select! {
        measured = measure::measure(scenario) => measured?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("Interrupted.");
            return Ok(ExitCode::FAILURE);
        }
    };
    let rows = report::rows(scenario, &measured);
    if scenario.json {
        println!("{}", report::json(scenario, &rows)?);
    } else {
        print!("{}", report::table(scenario, &rows));
    }
    Ok(ExitCode::SUCCESS)
}
