//! Runs many seeds and reports: `cargo run --release --example simulate -- --seeds 1000000`. With `--seed N` it tells one story.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use simulation::dice::plan;
use simulation::parts::Faithful;
use simulation::run::run;
use simulation::shrink::shrink;
use simulation::tally::Tally;

#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one, with its story.
    #[arg(long)]
    seed: Option<u64>,
    /// How many to show before stopping.
    #[arg(long, default_value_t = 1)]
    failures: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let plan = plan(seed);
        let report = run(&plan, &Faithful, true);
        print!("{}", report.story);
        println!("{:?}", report.broken.map(|broken| broken.to_string()));
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let total = Mutex::new(Tally::default());
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.from + arguments.seeds
                        || failed.lock().unwrap().len() as u64 >= arguments.failures
                    {
                        break;
                    }
                    let report = run(&plan(seed), &Faithful, false);
                    sum.add(&report.tally);
                    if let Some(broken) = report.broken {
                        failed.lock().unwrap().push((seed, broken));
                    }
                }
                total.lock().unwrap().add(&sum);
            });
        }
    });
    let tally = total.into_inner().unwrap();
    if arguments.failures == 1 {
        println!("{tally:#?}");
    }
    println!("{} runs, {} visits, {:?}", tally.runs, tally.visits, begin.elapsed());
    let failed = failed.into_inner().unwrap();
    for (seed, broken) in &failed {
        println!("seed {seed}: {broken}");
    }
    if let (Some((seed, broken)), 1) = (failed.first(), arguments.failures) {
        let (small, broken) = shrink(&plan(*seed), broken, &Faithful);
        println!("smallest of seed {seed}: {small:#?}");
        print!("{}", run(&small, &Faithful, true).story);
        println!("{broken}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
