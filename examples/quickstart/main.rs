//! The operator's main features in one command: `cargo run --example quickstart`.
//!
//! Starts a real API server, a simulated AWS and the operator, applies the YAML of `config/samples`,
//! simulates the actions of users and administrators, and prints the output that a user would see. Exits with
//! 0 if all checks pass. `--keep` leaves everything running.

mod stage;
mod story;
mod timeline;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use stream_encryption_operator::settings::Arguments;
use stream_encryption_operator::{commands, plugin};

/// Demonstrates the operator on a real API server and a simulated AWS.
#[derive(clap::Parser)]
struct Quickstart {
    /// Leave everything running at the end and print how to explore it.
    #[arg(long)]
    keep: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let program = std::env::args_os().next().unwrap_or_default();
    if Path::new(&program).file_name().is_some_and(|name| name == plugin::FILE_NAME) {
        return Ok(commands::plugin_main());
    }
    // The operator runs in a separate process: this program, started again with the argument `run`.
    if std::env::args().nth(1).as_deref() == Some("run") {
        return commands::run(Arguments::parse());
    }
    let arguments = Quickstart::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS implementation is already installed"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(show(&arguments))
}

async fn show(arguments: &Quickstart) -> anyhow::Result<ExitCode> {
    println!(
        "Starting etcd, kube-apiserver, a simulated AWS and the operator. The first run downloads or builds etcd and kube-apiserver."
    );
    let stage = stage::Stage::set().await.context("failed to start the environment")?;
    println!(
        "Started. Applying config/samples; the lines below are what `kubectl get events` and `kubectl get strenc` show.\n"
    );

    let started = Instant::now();
    let told = tokio::spawn(timeline::tell(stage.client(), started));
    let played = story::play(&stage).await;
    told.abort();

    println!();
    let good = match played {
        Ok(()) => {
            println!("{}", stage.kubectl(&["get", "strenc", "-n", "data"]).await?);
            let checks = story::checks(&stage).await?;
            for check in &checks {
                println!("{} {}", if check.holds { "ok  " } else { "FAIL" }, check.sentence);
            }
            checks.iter().all(|check| check.holds)
        }
        Err(error) => {
            println!("FAIL {error:#}");
            false
        }
    };
    println!(
        "\n{} in {:.0} s.",
        if good { "All checks passed" } else { "Some checks failed" },
        started.elapsed().as_secs_f64()
    );
    if !good {
        println!("The operator's log: {}", stage.keep_log()?.display());
    }
    if arguments.keep {
        println!(
            "\nStill running. In another terminal:\n\n  . {}\n  kubectl get strenc -n data -o wide\n  kubectl streamencryption status -n data\n\nThe file sets KUBECONFIG, PATH (kubectl and its plugin) and the variables of the simulated AWS ({}).\ndocs/tutorial.md continues from here. Ctrl-C ends it all.",
            stage.shell()?.display(),
            stage.aws_url()
        );
        tokio::signal::ctrl_c().await?;
        println!("Ended.");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
