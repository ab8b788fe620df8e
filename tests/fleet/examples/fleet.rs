//! A large fleet in virtual time: `cargo run --release -p fleet --example fleet -- --streams 1000000 --accounts 200
//! --regions 10 --namespaces 1000 --shards 20`.
//!
//! The namespaces, each with its account, are divided among the shards. Shards share nothing but the API server, so each runs on its own, one
//! after the other, and the slowest one counts.

#![allow(clippy::cast_precision_loss, reason = "all numbers are far below 2^52")]

use std::time::{Duration, Instant};

use clap::Parser;
use fleet::run::{Fleet, Run};
use stream_encryption_api::stream_encryption::Service;

/// Encrypts a fleet of plaintext Firehose streams, or adopts one of encrypted Kinesis streams.
#[derive(Parser)]
struct Arguments {
    /// The number of streams, each with its own resource.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// The number of accounts.
    #[arg(long, default_value_t = 20)]
    accounts: usize,
    /// The number of regions.
    #[arg(long, default_value_t = 1)]
    regions: usize,
    /// The number of namespaces, each of which has its streams in one account.
    #[arg(long, default_value_t = 100)]
    namespaces: usize,
    /// The number of shards, among which the accounts are divided.
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// The number of resources that a shard reconciles at a time.
    #[arg(long, default_value_t = 800)]
    concurrency: u16,
    /// Adopt encrypted Kinesis streams instead of encrypting Firehose streams.
    #[arg(long)]
    adopt: bool,
}

/// What a shard has used.
struct Shard {
    /// The time until the last resource was Ready, in virtual time.
    all: Duration,
    /// The time until half of them were Ready.
    median: Duration,
    floor: Duration,
    /// The first and the last time at which half of a namespace was Ready.
    halves: (Duration, Duration),
    /// The time that the computation took, on one core.
    computed: Duration,
    aws: u64,
    throttled: u64,
    kubernetes: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let Arguments { streams, accounts, regions, namespaces, shards, concurrency, adopt } = arguments;
    let fleet = Fleet {
        service: if adopt { Service::Kinesis } else { Service::Firehose },
        namespaces: (0..namespaces / shards)
            .map(|team| (format!("team-{team}"), streams / namespaces))
            .collect(),
        accounts: accounts / shards,
        regions,
        encrypted: adopt,
        concurrency,
        ..Fleet::of(0)
    };
    let (without, mut results) = (resident(), Vec::new());
    for shard in 1..=shards {
        let result = run(&fleet);
        eprintln!(
            "shard {shard} of {shards}: {} streams Ready after {:.0} s, computed in {:.1} s, {} MB",
            fleet.streams(),
            result.all.as_secs_f64(),
            result.computed.as_secs_f64(),
            resident() / 1_000_000,
        );
        results.push(result);
    }
    let total = (fleet.streams() * shards) as f64;
    let Some(slowest) = results.iter().max_by_key(|shard| shard.all) else { return };
    let sum = |of: fn(&Shard) -> u64| results.iter().map(of).sum::<u64>() as f64;
    let computed: f64 = results.iter().map(|shard| shard.computed.as_secs_f64()).sum();
    let memory = (peak().saturating_sub(without)) as f64 / fleet.streams() as f64 / 1000.0;
    let (all, floor) = (slowest.all.as_secs_f64(), slowest.floor.as_secs_f64());
    let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
    let (first, last) = slowest.halves;
    println!(
        "{total} streams, {accounts} accounts, {regions} regions, {namespaces} namespaces, {shards} shards"
    );
    println!("| quantity | value |\n|---|---|");
    for (quantity, value) in [
        ("time until all are Ready", format!("{all:.0} s, {:.3} times the floor", all / floor)),
        ("the median is Ready after", format!("{:.0} % of it", 100.0 * slowest.median.as_secs_f64() / all)),
        ("half of a namespace is Ready after", format!("{} to {}", seconds(first), seconds(last))),
        ("AWS requests per stream", format!("{:.3}", sum(|shard| shard.aws) / total)),
        ("throttled AWS requests", sum(|shard| shard.throttled).to_string()),
        ("API server requests per stream", format!("{:.2}", sum(|shard| shard.kubernetes) / total)),
        ("CPU time per stream, without connections", format!("{:.0} µs", computed * 1e6 / total)),
        ("memory per stream, with its objects and its stream", format!("{memory:.1} kB")),
    ] {
        println!("| {quantity} | {value} |");
    }
}

fn run(fleet: &Fleet) -> Shard {
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let run = Run::start(fleet);
        let ready = run.wait_for_ready(fleet.streams()).await;
        let computed = begin.elapsed();
        let halves: Vec<Duration> = run.halves().into_values().collect();
        let requests = run.operator.aws.requests();
        let shard = Shard {
            all: ready.last().copied().unwrap_or_default(),
            median: ready.get(ready.len() / 2).copied().unwrap_or_default(),
            floor: fleet.floor(),
            halves: (
                halves.iter().min().copied().unwrap_or_default(),
                halves.iter().max().copied().unwrap_or_default(),
            ),
            computed,
            aws: requests.describes + requests.starts,
            throttled: requests.throttled,
            kubernetes: run.operator.kube.requests(),
        };
        run.end().await;
        shard
    })
}

/// Returns the resident memory in bytes, and its peak; 0 on other systems than Linux.
fn resident() -> u64 {
    status("VmRSS:")
}

fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
