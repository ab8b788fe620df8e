//! The simulated AWS as a program of its own: arguments, then serve until interrupted.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use simulated_aws::{Clock, Settings, SimulatedAws, World};

/// Amazon Data Firehose, Kinesis Data Streams, KMS and STS as far as stream encryption goes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The address to listen on. Nothing here checks signatures: keep it on loopback.
    #[arg(long, env = "SIMULATED_AWS_LISTEN", default_value = "127.0.0.1:4599")]
    listen: SocketAddr,
    /// The account of callers that no setting names.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// How long Firehose's ENABLING and DISABLING last, in seconds.
    #[arg(long, default_value_t = Settings::default().enabling.as_secs())]
    enabling_seconds: i64,
    /// How long Kinesis's UPDATING lasts, in seconds.
    #[arg(long, default_value_t = Settings::default().updating.as_secs())]
    updating_seconds: i64,
    /// A clock that stands still at this time until /_admin/clock moves it, for example 2026-01-01T00:00:00Z.
    #[arg(long)]
    virtual_clock: Option<Timestamp>,
    /// Takes calls whose signature is dated more than 15 minutes from this AWS's clock: for a virtual clock and a tool that
    /// has the machine's.
    #[arg(long)]
    no_date_checks: bool,
    /// Switches the limits of calls per second off.
    #[arg(long)]
    no_rate_limits: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let settings = Settings {
        account: arguments.account,
        enabling: SignedDuration::from_secs(arguments.enabling_seconds),
        disabling: SignedDuration::from_secs(arguments.enabling_seconds),
        updating: SignedDuration::from_secs(arguments.updating_seconds),
        checks_dates: !arguments.no_date_checks,
        rate_limits: !arguments.no_rate_limits,
        ..Settings::default()
    };
    let clock = arguments.virtual_clock.map_or(Clock::Real, Clock::Virtual);
    let aws = SimulatedAws::start_on(arguments.listen, World::new(settings), clock).await?;
    println!("simulated AWS on {}", aws.url());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("cannot wait for SIGTERM")?;
    tokio::select! {
        stop = tokio::signal::ctrl_c() => stop.context("cannot wait for an interrupt")?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
