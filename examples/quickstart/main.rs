//! The operator's main job in one command: `cargo run --example quickstart`.
//!
//! Starts a real API server, a simulated AWS and the operator, applies the YAML of `config/samples`, plays the people
//! around it, and prints what a user would see. Exits with 0 when all is as it must be. `--keep` leaves it running.

mod stage;
mod story;
mod timeline;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use stream_encryption_operator::settings::Arguments;

/// Shows the operator's main job on a real API server and a simulated AWS.
#[derive(clap::Parser)]
struct Quickstart {
    /// Leave everything running at the end, and print how to explore it.
    #[arg(long)]
    keep: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    // The operator is a process of its own: this program, started again.
    if std::env::args().nth(1).as_deref() == Some("run") {
        stream_encryption_operator::commands::run(Arguments::parse())?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Quickstart::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS implementation is installed already"))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(show(&arguments))
}

async fn show(arguments: &Quickstart) -> anyhow::Result<ExitCode> {
    println!(
        "Starting etcd, kube-apiserver, a simulated AWS and the operator. The first time, etcd and kube-apiserver are built."
    );
    let stage = stage::Stage::set().await.context("the stage could not be set")?;
    println!(
        "Up. Applying config/samples; what follows is what `kubectl get events` and `kubectl get strenc` would show.\n"
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
        "\n{} after {:.0} s.",
        if good { "All as it must be" } else { "Not as it must be" },
        started.elapsed().as_secs_f64()
    );
    if !good {
        println!("The operator's log: {}", stage.keep_log()?.display());
    }
    if arguments.keep {
        println!(
            "\nStill running. In another terminal:\n\n  export KUBECONFIG={}\n  kubectl get strenc -n data -o wide\n  kubectl describe strenc payments -n data\n\nThe simulated AWS: {} (docs/simulated-aws.md). Ctrl-C ends it all.",
            stage.kubeconfig().display(),
            stage.aws_url()
        );
        tokio::signal::ctrl_c().await?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
