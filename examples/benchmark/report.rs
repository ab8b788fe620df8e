//! The report: each figure as one row, with a ratio to another figure of the same run where there is one.
//!
//! It only computes and formats.

#![allow(clippy::cast_precision_loss, reason = "all numbers are far below 2^52")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{Measured, Phase};
use crate::process::Usage;
use crate::scenario::{Scenario, word};

/// One figure.
#[derive(Serialize)]
pub(crate) struct Row {
    figure: &'static str,
    value: f64,
    unit: &'static str,
    /// What the figure consists of, or how it compares with another one.
    detail: String,
}

/// Returns the rows of the report.
pub(crate) fn rows(scenario: &Scenario, measured: &Measured) -> Vec<Row> {
    let resources = scenario.resources as f64;
    let mut rows = until_ready(resources, measured);
    rows.extend(measured.rest.iter().flat_map(|rest| at_rest(resources, measured, rest)));
    rows.extend(corrections(scenario, &measured.corrections));
    rows
}

fn row(figure: &'static str, value: f64, unit: &'static str, detail: String) -> Row {
    Row { figure, value, unit, detail }
}

/// Returns what was measured until all resources were Ready.
fn until_ready(resources: f64, Measured { empty, floor, ready, sweep, .. }: &Measured) -> Vec<Row> {
    let all = ready.last().copied().unwrap_or_default().as_secs_f64();
    let half = median(ready);
    let compared = format!(
        "{:.2} times the {:.1} s that 80 % of AWS's limits permit",
        all / floor.as_secs_f64(),
        floor.as_secs_f64()
    );
    let aws = &sweep.aws;
    let requests: u64 = sweep.api.values().sum();
    let share = format!("{:.2} % of all requests", percent(aws.throttled, aws.total()));
    let start = format!("without the {:.0} ms of an operator without resources", milliseconds(empty.cpu));
    vec![
        row("time until all are Ready", all, "s", compared),
        row("time until the median is Ready", half, "s", format!("{:.0} % of that time", 100.0 * half / all)),
        row(
            "AWS requests per stream until Ready",
            aws.total() as f64 / resources,
            "",
            per(&aws.by_operation, resources),
        ),
        row("throttled AWS requests until Ready", aws.throttled as f64, "", share),
        row(
            "API server requests per stream until Ready",
            requests as f64 / resources,
            "",
            per(&sweep.api, resources),
        ),
        row("CPU time per resource until Ready", adopting(resources, sweep, empty), "ms", start),
        row("memory without resources", megabytes(empty.resident), "MB", anonymous(empty.anonymous)),
        row(
            "peak memory until all are Ready",
            megabytes(sweep.usage.peak),
            "MB",
            times(sweep.usage.peak, empty.resident),
        ),
    ]
}

/// Returns what was measured while nothing changed.
fn at_rest(resources: f64, Measured { empty, sweep, .. }: &Measured, rest: &Phase) -> Vec<Row> {
    let (aws, seconds) = (&rest.aws, rest.lasted.as_secs_f64());
    let describes = aws.describes as f64;
    let requests: u64 = rest.api.values().sum();
    let throttled = format!("{:.2} % of all requests", percent(aws.throttled, aws.total()));
    let looking = milliseconds(rest.cpu) / describes;
    let compared = format!(
        "{:.2} times that of a resource until Ready; {describes} Describes, {:.1} % of a core",
        looking / adopting(resources, sweep, empty),
        100.0 * rest.cpu.as_secs_f64() / seconds
    );
    let each = |total: u64| total.saturating_sub(empty.resident) as f64 * 1.024 / resources;
    let peak = format!("{:.2} kB at the peak until all are Ready", each(sweep.usage.peak));
    vec![
        row(
            "AWS requests per second at rest",
            aws.total() as f64 / seconds,
            "",
            per(&aws.by_operation, seconds),
        ),
        row("throttled AWS requests at rest", aws.throttled as f64, "", throttled),
        row(
            "API server requests per Describe at rest",
            requests as f64 / describes,
            "",
            per(&rest.api, describes),
        ),
        row("CPU time per Describe at rest", looking, "ms", compared),
        row("memory at rest", megabytes(rest.usage.resident), "MB", anonymous(rest.usage.anonymous)),
        row("peak memory at rest", megabytes(rest.usage.peak), "MB", times(rest.usage.peak, empty.resident)),
        row("memory per resource at rest", each(rest.usage.resident), "kB", peak),
    ]
}

/// Returns how soon the Stops by somebody else were corrected; nothing if there were none.
fn corrections(scenario: &Scenario, times: &[Duration]) -> Option<Row> {
    let slowest = times.last()?.as_secs_f64();
    let interval = scenario.drift_interval().as_secs_f64();
    let detail = format!(
        "the slowest of {}: {slowest:.2} s; half of the drift interval: {:.0} s",
        times.len(),
        interval / 2.0
    );
    Some(row("median time from a foreign Stop to the Start", median(times), "s", detail))
}

/// Returns the median in seconds of times that are in order.
fn median(times: &[Duration]) -> f64 {
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64()
}

/// Returns the CPU time per resource until all were Ready, in milliseconds.
fn adopting(resources: f64, sweep: &Phase, empty: &Usage) -> f64 {
    milliseconds(sweep.cpu.saturating_sub(empty.cpu)) / resources
}

/// Returns the rows as a table.
pub(crate) fn table(scenario: &Scenario, rows: &[Row]) -> String {
    let mut table = format!("\n{}\n\n", scenario.words());
    for Row { figure, value, unit, detail } in rows {
        let _ = writeln!(table, "{figure:<44} {value:>9.2} {unit:<3} {detail}");
    }
    table
}

/// Returns the rows as JSON.
pub(crate) fn json(scenario: &Scenario, rows: &[Row]) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&serde_json::json!({
        "resources": scenario.resources,
        "service": word(&scenario.service),
        "state": word(&scenario.state),
        "limits": word(&scenario.limits),
        "regions": scenario.regions,
        "events": scenario.events,
        "driftIntervalSeconds": scenario.drift_interval().as_secs(),
        "release": !cfg!(debug_assertions),
        "figures": rows,
    }))?)
}

/// Returns each count divided by the number of resources or looks.
fn per(counts: &BTreeMap<String, u64>, number: f64) -> String {
    let each = counts.iter().map(|(what, count)| format!("{what} {:.2}", *count as f64 / number));
    each.collect::<Vec<_>>().join(", ")
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Converts the kB of Linux, which are 1024 bytes, to megabytes of a million bytes.
fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 * 1.024 / 1000.0
}

fn anonymous(kilobytes: u64) -> String {
    format!("{:.1} MB of it anonymous; the rest is the program's file", megabytes(kilobytes))
}

fn times(size: u64, empty: u64) -> String {
    format!("{:.2} times that without resources", size as f64 / empty as f64)
}
