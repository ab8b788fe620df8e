//! Runs many seeds and prints a report: `cargo run --release --example simulate -- --seeds 1000000`. With
//! `--seed N` it prints the trace of one seed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::batch::{Many, many};
use simulation::generator::plan;
use simulation::run::run;
use simulation::shrink::shrink;
use simulation::wiring::Faithful;

/// Runs the operator in random environments, each reproducible from its seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Stop after this many seeds have broken a promise.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Print the trace of this seed only.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { seeds, from, failures, seed } = Arguments::parse();
    if let Some(seed) = seed {
        let report = run(&plan(seed), &Faithful, true);
        print!("{}", report.story);
        return match report.broken {
            Some(broken) => {
                println!("{broken}");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        };
    }
    let begin = Instant::now();
    let all = many(from, seeds, failures);
    print(&all, begin.elapsed().as_secs_f64());
    for (seed, broken) in &all.broken {
        println!("seed {seed}: {broken}");
    }
    let Some((seed, broken)) = all.broken.first() else { return ExitCode::SUCCESS };
    if failures == 1 {
        let (smallest, broken) = shrink(&plan(*seed), broken, &Faithful);
        println!("\nThe smallest trace of seed {seed}, {} events:", smallest.happenings.len());
        print!("{}", run(&smallest, &Faithful, true).story);
        println!("{broken}");
    }
    ExitCode::FAILURE
}

/// Prints the report, as in docs/simulation.md.
#[allow(clippy::cast_precision_loss, reason = "for people")]
fn print(all: &Many, seconds: f64) {
    let tally = &all.tally;
    println!("| quantity | value |\n|---|---|");
    println!("| seeds | {} |", tally.runs);
    println!("| seeds that broke a promise | {} |", all.broken.len());
    println!("| seeds per second | {:.0} |", tally.runs as f64 / seconds);
    println!("| simulated years | {:.0} |", tally.seconds as f64 / (365.25 * 86_400.0));
    println!("| reconciles | {} |", tally.visits);
    println!("| Describes | {} |", tally.looks);
    println!("| Starts and Stops | {} |", tally.calls);
    println!("| restarts | {} |", tally.restarts);
    println!("| resources that match their spec in the end | {} |", tally.converged);
    println!("| resources that do not, and report why | {} |", tally.blocked);
    println!("\n| fault or event | count |\n|---|---|");
    for (kind, count) in &tally.faults {
        println!("| {kind} | {count} |");
    }
    println!("\n| step | reason | count |\n|---|---|---|");
    let mut rows = BTreeMap::new();
    for (row, count) in &tally.rows {
        let until = if row.until { ", until a time" } else { "" };
        rows.insert(format!("| {:?} | {}{until} |", row.step, row.reason), count);
    }
    for (row, count) in rows {
        println!("{row} {count} |");
    }
}
