//! The simulated AWS as a standalone program: parses the arguments, then serves until interrupted.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use simulated_aws::{Clock, Settings, SimulatedAws, World};

/// Simulates Amazon Data Firehose, Kinesis Data Streams, KMS, STS and SQS, as far as they concern stream
/// encryption and its events.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on. Signatures are not verified, so keep it on loopback.
    #[arg(long, env = "SIMULATED_AWS_LISTEN", default_value = "127.0.0.1:4599")]
    listen: SocketAddr,
    /// Account of callers that are not listed in the settings.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// Duration of ENABLING and DISABLING on Firehose, in seconds.
    #[arg(long, default_value_t = Settings::default().enabling.as_secs())]
    enabling_seconds: i64,
    /// Duration of UPDATING on Kinesis, in seconds.
    #[arg(long, default_value_t = Settings::default().updating.as_secs())]
    updating_seconds: i64,
    /// Use a virtual clock that starts at this time, for example 2026-01-01T00:00:00Z, and that only
    /// /_admin/clock moves.
    #[arg(long)]
    virtual_clock: Option<Timestamp>,
    /// Accept requests whose signature is dated more than 15 minutes from this AWS's clock. Use it when this
    /// AWS has a virtual clock and the client has the machine's.
    #[arg(long)]
    no_date_checks: bool,
    /// Disable the limits on requests per second.
    #[arg(long)]
    no_rate_limits: bool,
    /// Create an SQS queue with this name, and send the events of `CloudTrail` to it.
    #[arg(long, value_name = "NAME")]
    events_queue: Option<String>,
    /// Send a heartbeat (the event of a scheduled rule) to that queue at this interval, in seconds.
    #[arg(long, value_name = "SECONDS", requires = "events_queue", value_parser = clap::value_parser!(u32).range(1..))]
    heartbeat_seconds: Option<u32>,
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
    if let Some(queue) = arguments.events_queue {
        let every = arguments.heartbeat_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
        let now = aws.now();
        let mut world = aws.world();
        world.send_events_to(&queue);
        world.send_heartbeats(now, every);
    }
    println!("simulated AWS on {}", aws.url());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("cannot wait for SIGTERM")?;
    tokio::select! {
        stop = tokio::signal::ctrl_c() => stop.context("cannot wait for an interrupt")?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
