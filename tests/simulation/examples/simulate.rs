//! Runs many seeds and prints a report: `cargo run --release --example simulate -- --seeds 1000000`. With
//! `--seed N` it prints the trace of one seed.
//!
//! With `--explore` it explores the small environments instead, and with `--setting NAME --choices LIST` it prints the
//! trace of one list of choices.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::batch::{Many, many};
use simulation::choices::Choice;
use simulation::explore::settings::{self, Setting};
use simulation::explore::{Cut, each, explore, traced};
use simulation::generator::plan;
use simulation::run::{Report, run};
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
    /// Explore the small environments, or the one that --setting names.
    #[arg(long)]
    explore: bool,
    /// The number of choices in a run, instead of that of each environment.
    #[arg(long, requires = "explore")]
    most: Option<u8>,
    /// A small environment. Without --explore, print its trace.
    #[arg(long)]
    setting: Option<String>,
    /// The choices of that trace, POINT:ALTERNATIVE, with commas between them.
    #[arg(long, value_delimiter = ',', requires = "setting")]
    choices: Vec<Choice>,
}

fn main() -> ExitCode {
    let Arguments { seeds, from, failures, seed, explore, most, setting, choices } = Arguments::parse();
    if let Some(seed) = seed {
        return show(run(&plan(seed), &Faithful, true));
    }
    if explore || setting.is_some() {
        let is_named = |one: &Setting| setting.as_ref().is_none_or(|name| *name == one.name);
        let chosen: Vec<Setting> = settings::all().into_iter().filter(is_named).collect();
        let Some(first) = chosen.first() else {
            println!(
                "settings: {}",
                settings::all().iter().map(|one| one.name).collect::<Vec<_>>().join(", ")
            );
            return ExitCode::FAILURE;
        };
        return if explore { explore_all(chosen, most) } else { show(traced(first, &Faithful, &choices)) };
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

/// Prints the trace of one run.
fn show(report: Report) -> ExitCode {
    print!("{}", report.story);
    let Some(broken) = report.broken else { return ExitCode::SUCCESS };
    println!("{broken}");
    ExitCode::FAILURE
}

/// Explores environments, and prints a table as in docs/checking.md.
fn explore_all(mut chosen: Vec<Setting>, most: Option<u8>) -> ExitCode {
    for setting in &mut chosen {
        setting.bounds.choices = most.unwrap_or(setting.bounds.choices);
    }
    println!("| setting | choices | runs | states | s |\n|---|---|---|---|---|");
    let broken = each(&chosen, |setting| {
        let begin = Instant::now();
        let explored = explore(setting, &Faithful, Cut::States, u64::MAX);
        let (runs, states, seconds) = (explored.runs, explored.states, begin.elapsed().as_secs());
        println!("| {} | {} | {runs} | {states} | {seconds} |", setting.name, setting.bounds.choices);
        explored.broken.map(|(choices, _)| (setting.clone(), choices))
    });
    let Some((setting, choices)) = broken.into_iter().flatten().next() else { return ExitCode::SUCCESS };
    let list: Vec<String> = choices.iter().map(ToString::to_string).collect();
    println!("\n--setting {} --choices {}", setting.name, list.join(","));
    show(traced(&setting, &Faithful, &choices))
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
