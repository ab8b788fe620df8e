//! Runs many seeds and prints a report: `cargo run --release --example simulate -- --seeds 1000000`. With
//! `--seed N` it prints the trace of one seed.
//!
//! With `--explore` it explores the small environments instead, and with `--setting NAME --choices LIST` it
//! prints the trace of one list of choices.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::batch::{Batch, Selection, run_batch};
use simulation::choices::Choice;
use simulation::explore::settings::{self, Setting};
use simulation::explore::{Pruning, explore, parallel_map, run_traced};
use simulation::generator::generate_plan;
use simulation::run::{Report, run};
use simulation::shrink::shrink;
use simulation::wiring::Unmodified;

/// Runs the operator in random environments, each reproducible from its seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run only the seeds of the range whose operator receives AWS's events: about half of them, at random.
    #[arg(long)]
    with_events: bool,
    /// Stop after this many seeds have violated an invariant.
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
    let Arguments { seeds, from, with_events, failures, seed, explore, most, setting, choices } =
        Arguments::parse();
    if let Some(seed) = seed {
        return print_trace(run(&generate_plan(seed), &Unmodified, true));
    }
    if explore || setting.is_some() {
        let is_named = |candidate: &Setting| setting.as_ref().is_none_or(|name| *name == candidate.name);
        let selected: Vec<Setting> = settings::all().into_iter().filter(is_named).collect();
        let Some(first) = selected.first() else {
            println!(
                "settings: {}",
                settings::all().iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ")
            );
            return ExitCode::FAILURE;
        };
        return if explore {
            explore_all(selected, most)
        } else {
            print_trace(run_traced(first, &Unmodified, &choices))
        };
    }
    let started = Instant::now();
    let selection = if with_events { Selection::WithEvents } else { Selection::All };
    let batch = run_batch(from, seeds, selection, failures);
    print(&batch, started.elapsed().as_secs_f64());
    for (seed, violation) in &batch.violations {
        println!("seed {seed}: {violation}");
    }
    let Some((seed, violation)) = batch.violations.first() else { return ExitCode::SUCCESS };
    if failures == 1 {
        let (smallest, violation) = shrink(&generate_plan(*seed), violation, &Unmodified);
        println!("\nThe smallest trace of seed {seed}, {} events:", smallest.operations.len());
        print!("{}", run(&smallest, &Unmodified, true).trace);
        println!("{violation}");
    }
    ExitCode::FAILURE
}

/// Prints the trace of one run.
fn print_trace(report: Report) -> ExitCode {
    print!("{}", report.trace);
    let Some(violation) = report.violation else { return ExitCode::SUCCESS };
    println!("{violation}");
    ExitCode::FAILURE
}

/// Explores environments, and prints a table as in docs/checking.md.
fn explore_all(mut selected: Vec<Setting>, most: Option<u8>) -> ExitCode {
    for setting in &mut selected {
        setting.bounds.choices = most.unwrap_or(setting.bounds.choices);
    }
    println!("| setting | choices | runs | states | s |\n|---|---|---|---|---|");
    let violations = parallel_map(&selected, |setting| {
        let started = Instant::now();
        let exploration = explore(setting, &Unmodified, Pruning::SeenStates, u64::MAX);
        let (runs, states, seconds) = (exploration.runs, exploration.states, started.elapsed().as_secs());
        println!("| {} | {} | {runs} | {states} | {seconds} |", setting.name, setting.bounds.choices);
        exploration.violation.map(|(choices, _)| (setting.clone(), choices))
    });
    let Some((setting, choices)) = violations.into_iter().flatten().next() else { return ExitCode::SUCCESS };
    let list: Vec<String> = choices.iter().map(ToString::to_string).collect();
    println!("\n--setting {} --choices {}", setting.name, list.join(","));
    print_trace(run_traced(&setting, &Unmodified, &choices))
}

/// Prints the report, as in docs/simulation.md.
#[allow(clippy::cast_precision_loss, reason = "for people")]
fn print(batch: &Batch, seconds: f64) {
    let statistics = &batch.statistics;
    println!("| quantity | value |\n|---|---|");
    println!("| seeds | {} |", statistics.runs);
    println!("| seeds that broke a promise | {} |", batch.violations.len());
    println!("| seeds per second | {:.0} |", statistics.runs as f64 / seconds);
    println!("| simulated years | {:.0} |", statistics.seconds as f64 / (365.25 * 86_400.0));
    println!("| reconciles | {} |", statistics.reconciles);
    println!("| Describes | {} |", statistics.describes);
    println!("| Starts and Stops | {} |", statistics.calls);
    println!("| restarts | {} |", statistics.restarts);
    println!("| resources that match their spec in the end | {} |", statistics.converged);
    println!("| resources that do not, and report why | {} |", statistics.blocked);
    println!("\n| fault or event | count |\n|---|---|");
    for (kind, count) in &statistics.faults {
        println!("| {kind} | {count} |");
    }
    println!("\n| step | reason | count |\n|---|---|---|");
    let mut rows = BTreeMap::new();
    for (row, count) in &statistics.rows {
        let suffix = if row.has_next_attempt { ", until a time" } else { "" };
        rows.insert(format!("| {:?} | {}{suffix} |", row.step, row.reason), count);
    }
    for (row, count) in rows {
        println!("{row} {count} |");
    }
}
