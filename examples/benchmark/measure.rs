//! The course of one measurement: an operator without resources, the first sweep until all resources are Ready,
//! then the rest, in which nothing changes, and in the end the Stops by somebody else.
//!
//! It prints progress to standard error. It must never read a figure from the operator's metrics: a scrape costs
//! CPU time, which would be measured.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::counts::{ApiRequests, AwsCalls, api_requests, between};
use crate::process::{Operator, Usage};
use crate::readiness::Readiness;
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::stops;

/// How long the operator without resources runs.
const WITHOUT_RESOURCES: Duration = Duration::from_secs(5);
/// How long the operator runs at most until everything is at rest. It writes the last Kubernetes events and ledgers
/// in this time.
const SETTLING: Duration = Duration::from_mins(10);
/// Interval between two readings.
const TICK: Duration = Duration::from_millis(200);
/// Interval between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The result.
pub(crate) struct Measured {
    /// An operator without resources.
    pub(crate) empty: Usage,
    /// The least time until all resources are Ready that AWS's limits permit.
    pub(crate) floor: Duration,
    /// When each resource was Ready, from the start of the operator, in order.
    pub(crate) ready: Vec<Duration>,
    /// From the start until all resources are Ready.
    pub(crate) sweep: Phase,
    /// The drift intervals at rest; `None` if they are not measured.
    pub(crate) rest: Option<Phase>,
    /// How long each correction of a Stop by somebody else took, in order of these times.
    pub(crate) corrections: Vec<Duration>,
}

/// What was used and requested in a part of the measurement.
pub(crate) struct Phase {
    /// How long it lasted.
    pub(crate) lasted: Duration,
    /// CPU time in this phase.
    pub(crate) cpu: Duration,
    /// The state at its end. The peak is that of the phase.
    pub(crate) usage: Usage,
    pub(crate) aws: AwsCalls,
    pub(crate) api: ApiRequests,
}

/// Sets everything up and measures.
pub(crate) async fn measure(scenario: &Scenario) -> anyhow::Result<Measured> {
    say(&scenario.words());
    say("starting etcd, kube-apiserver and a simulated AWS; the first run downloads or builds the programs");
    let stage = Stage::set(scenario).await.context("failed to start the environment")?;
    let start = || Operator::start(scenario, &stage);
    say("measuring an operator without resources");
    let empty = {
        let mut operator = start()?;
        tokio::time::sleep(WITHOUT_RESOURCES).await;
        operator.usage()?
    };
    say(&format!("creating {} resources", scenario.resources));
    let begin = Instant::now();
    stage.create_resources().await?;
    say(&format!("created them in {:.1} s", begin.elapsed().as_secs_f64()));
    let readiness = Readiness::watch(stage.client.clone(), scenario.resources).await?;
    let (api, (_, log)) = (api_requests(&stage.cluster).await?, AwsCalls::since(&stage.aws, 0));
    let mut operator = start()?;
    let phases = phases(scenario, &stage, &readiness, &mut operator, &api, log).await;
    say(&format!("the operator's log: {}", operator.keep_log()?.display()));
    let (ready, sweep, rest, corrections) = phases?;
    Ok(Measured { empty, floor: scenario.floor(stage.change), ready, sweep, rest, corrections })
}

/// Measures a running operator.
async fn phases(
    scenario: &Scenario,
    stage: &Stage,
    readiness: &Readiness,
    operator: &mut Operator,
    api: &ApiRequests,
    log: usize,
) -> anyhow::Result<(Vec<Duration>, Phase, Option<Phase>, Vec<Duration>)> {
    let start = Instant::now();
    let mut next = start + PROGRESS;
    loop {
        let (ready, usage) = (readiness.count(start)?, operator.usage()?);
        if ready >= scenario.resources {
            break;
        }
        if Instant::now() >= next {
            next += PROGRESS;
            let (seconds, megabytes) = (start.elapsed().as_secs(), usage.resident / 1000);
            say(&format!("{seconds} s: {ready} of {} Ready, {megabytes} MB", scenario.resources));
        }
        tokio::time::sleep(TICK).await;
    }
    let ready = readiness.times(start);
    let sweep = end_of_phase(stage, operator, (start, Duration::ZERO), api, log).await?;
    say(&format!("all Ready after {:.1} s", start.elapsed().as_secs_f64()));

    let rest = if scenario.rest == 0 { None } else { Some(rest(scenario, stage, operator).await?) };
    if scenario.stops > 0 {
        say(&format!("stopping encryption of {} streams, one after the other", scenario.stops));
    }
    // An error must not lose what was measured before.
    let corrections = stops::correct(scenario, stage).await.unwrap_or_else(|error| {
        say(&format!("the corrections were not measured: {error:#}"));
        Vec::new()
    });
    Ok((ready, sweep, rest, corrections))
}

/// Measures an operator whose resources are Ready.
async fn rest(scenario: &Scenario, stage: &Stage, operator: &mut Operator) -> anyhow::Result<Phase> {
    let interval = scenario.drift_interval();
    let settling = interval.min(SETTLING);
    say(&format!("waiting {} s until everything is at rest", settling.as_secs()));
    tokio::time::sleep(settling).await;
    operator.reset_peak()?;
    let (api, (_, log)) = (api_requests(&stage.cluster).await?, AwsCalls::since(&stage.aws, 0));
    let before = (Instant::now(), operator.usage()?.cpu);
    say(&format!("measuring {} drift intervals at rest", scenario.rest));
    tokio::time::sleep(interval * scenario.rest).await;
    end_of_phase(stage, operator, before, &api, log).await
}

async fn end_of_phase(
    stage: &Stage,
    operator: &mut Operator,
    (begin, cpu_before): (Instant, Duration),
    api: &ApiRequests,
    log: usize,
) -> anyhow::Result<Phase> {
    let usage = operator.usage()?;
    let (aws, _) = AwsCalls::since(&stage.aws, log);
    let api = between(api, &api_requests(&stage.cluster).await?);
    let lasted = begin.elapsed();
    Ok(Phase { lasted, cpu: usage.cpu.saturating_sub(cpu_before), usage, aws, api })
}

fn say(words: &str) {
    eprintln!("{words}");
}
