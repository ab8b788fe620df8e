//! Explores small environments with every list of choices within bounds: no invariant is violated, and
//! planted bugs are found within the same bounds.
//!
//! With `--nocapture` the tests print the numbers of runs, and the choices that lead to each bug.

use simulation::choices::Choice;
use simulation::explore::settings::{self, Setting};
use simulation::explore::{Pruning, explore, parallel_map, run_traced};
use simulation::planted_bugs::{Bug, WithBug};
use simulation::statistics::Statistics;
use simulation::wiring::Unmodified;
use stream_encryption_api::condition::Reason;

/// Minimum number of runs of all environments together.
const MIN_RUNS: u64 = 10_000;
/// Maximum number of runs in which a bug may stay undetected.
const MAX_RUNS: u64 = 2_000;

/// The bugs that are searched, and the environment in which each is found.
const BUGS: [(Bug, &str); 28] = [
    (Bug::NoCompareAndSwap, "mind"),
    (Bug::CachedResource, "caches"),
    (Bug::SdkRetries, "call"),
    (Bug::UnknownRefunded, "call"),
    (Bug::LedgerCollected, "deletion"),
    (Bug::SharpWindow, "clocks"),
    (Bug::EnabledIsEnough, "describe"),
    (Bug::StopOnDeletion, "deletion"),
    (Bug::LeaseOnly, "pause"),
    (Bug::UnacknowledgedCounts, "call"),
    (Bug::CachedDescribe, "pause"),
    (Bug::CachedKeyDescribe, "keys"),
    (Bug::FailedShownAsDone, "attempts"),
    (Bug::OwnershipIgnored, "owner"),
    (Bug::PauseNotNoticed, "pause"),
    (Bug::LedgerDeletedEarly, "deletion"),
    (Bug::NoResponseIsRefusal, "describe"),
    (Bug::BudgetIgnored, "call"),
    (Bug::PoliciesReadOnce, "policies"),
    (Bug::CachedPolicies, "policies"),
    (Bug::StatusRewritten, "stop"),
    (Bug::EffectForgotten, "stop"),
    (Bug::DescribeBeforeLedger, "clock set"),
    (Bug::RecordedAfterwards, "call"),
    (Bug::NoWaitForLateCalls, "attempts"),
    (Bug::EnablingIsEnabled, "call"),
    (Bug::StopBeforeReKey, "mind"),
    (Bug::GivesUpAtTheLimit, "attempts"),
];

/// Returns choices in the form that the example `simulate` accepts.
fn join(choices: &[Choice]) -> String {
    choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn no_order_and_no_fault_within_bounds_breaks_a_promise() {
    let all = settings::all();
    let explorations =
        parallel_map(&all, |setting| explore(setting, &Unmodified, Pruning::SeenStates, u64::MAX));
    println!("| setting | choices | runs | cut short | states | choice points |\n|---|---|---|---|---|---|");
    let mut statistics = Statistics::default();
    for (Setting { name, bounds, .. }, exploration) in all.iter().zip(&explorations) {
        let (runs, pruned, states, points) =
            (exploration.runs, exploration.pruned, exploration.states, exploration.points);
        println!("| {name} | {} | {runs} | {pruned} | {states} | {points} |", bounds.choices);
        statistics.add(&exploration.statistics);
    }
    for (setting, exploration) in all.iter().zip(&explorations) {
        let Some((choices, violation)) = &exploration.violation else { continue };
        let trace = run_traced(setting, &Unmodified, choices).trace;
        panic!("{violation}\n{trace}\n--setting {} --choices {}", setting.name, join(choices));
    }
    assert!(statistics.runs >= MIN_RUNS, "only {} runs", statistics.runs);
    let missing = missing(&statistics);
    assert!(missing.is_empty(), "never: {missing:?}");
}

/// Returns the reasons and faults that a run must reach, and none has reached.
fn missing(statistics: &Statistics) -> Vec<String> {
    let reasons = [
        Reason::CallLimitReached,
        Reason::OutcomeUnknown,
        Reason::EnablingFailed,
        Reason::Disabling,
        Reason::KeyDisabled,
        Reason::StreamInUse,
        Reason::NotPermitted,
        Reason::StreamAlreadyManaged,
    ];
    let faults = [
        "a process is killed within a request",
        "a process is paused within a request",
        "a request arrives late at AWS",
        "AWS's reply is lost, executed",
        "AWS accepts and fails later",
        "AWS returns a stale answer",
        "API server executes a write late",
        "API server's answer is lost",
    ];
    let is_reached = |reason: &Reason| statistics.rows.keys().any(|row| row.reason == *reason);
    let unreached_reasons = reasons.iter().filter(|reason| !is_reached(reason)).map(ToString::to_string);
    let unreached_faults =
        faults.iter().filter(|fault| !statistics.faults.contains_key(*fault)).map(ToString::to_string);
    unreached_reasons.chain(unreached_faults).collect()
}

#[test]
fn cut_short_runs_hide_no_decision() {
    let all = settings::all();
    let setting = all.iter().find(|setting| setting.name == "clocks").expect("a setting");
    let [complete, pruned] =
        [Pruning::Never, Pruning::SeenStates].map(|pruning| explore(setting, &Unmodified, pruning, u64::MAX));
    assert!(pruned.pruned > 0 && pruned.runs < complete.runs, "{} of {} runs", pruned.runs, complete.runs);
    let rows = |statistics: &Statistics| statistics.rows.keys().copied().collect::<Vec<_>>();
    assert_eq!(rows(&pruned.statistics), rows(&complete.statistics));
}

#[test]
fn planted_bugs_are_found_within_the_same_bounds() {
    let all = settings::all();
    let explorations = parallel_map(&BUGS, |(bug, name)| {
        let setting = all.iter().find(|setting| setting.name == *name).expect("a setting");
        explore(setting, &WithBug(*bug), Pruning::Never, MAX_RUNS)
    });
    println!("| bug | setting | promise | runs | choices |\n|---|---|---|---|---|");
    for ((bug, name), exploration) in BUGS.iter().zip(&explorations) {
        let (promise, choices) = exploration
            .violation
            .as_ref()
            .map_or(("none", String::new()), |(choices, violation)| (violation.promise, join(choices)));
        println!("| {bug:?} | {name} | {promise} | {} | {choices} |", exploration.runs);
    }
    for ((bug, name), exploration) in BUGS.iter().zip(&explorations) {
        let Some((choices, violation)) = &exploration.violation else {
            panic!("{bug:?} was not found in {name}")
        };
        assert!(bug.may_break(violation.promise), "{bug:?}, choices {}: {violation}", join(choices));
    }
}

#[test]
fn same_choices_give_same_trace_each_time() {
    for setting in settings::all() {
        let choices = [Choice { point: 9, alternative: 1 }];
        let [first, second] = [(); 2].map(|()| run_traced(&setting, &Unmodified, &choices));
        assert_eq!(first.trace.to_string(), second.trace.to_string());
        assert!(first.trace.to_string().contains("-> choice 9"), "{}: {}", setting.name, first.trace);
    }
}
