//! Explores small environments with every list of choices within bounds: no promise is broken, and planted bugs are found
//! within the same bounds.
//!
//! With `--nocapture` the tests print the numbers of runs, and the choices that lead to each bug.

use simulation::choices::Choice;
use simulation::explore::settings::{self, Setting};
use simulation::explore::{Cut, each, explore, traced};
use simulation::planted_bugs::{Bug, Spoiled};
use simulation::stats::Tally;
use simulation::wiring::Faithful;
use stream_encryption_api::condition::Reason;

/// The fewest runs of all environments together.
const FEWEST_RUNS: u64 = 10_000;
/// Maximum number of runs in which a bug may stay undetected.
const MOST_RUNS: u64 = 2_000;

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
    (Bug::OldLook, "pause"),
    (Bug::OldKey, "keys"),
    (Bug::FailedShownAsDone, "attempts"),
    (Bug::OwnershipIgnored, "owner"),
    (Bug::PauseNotNoticed, "pause"),
    (Bug::RetiredEarly, "deletion"),
    (Bug::SilenceIsRefusal, "describe"),
    (Bug::BudgetIgnored, "call"),
    (Bug::PoliciesKept, "policies"),
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
fn listed(choices: &[Choice]) -> String {
    choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn no_order_and_no_fault_within_bounds_breaks_a_promise() {
    let all = settings::all();
    let explored = each(&all, |setting| explore(setting, &Faithful, Cut::States, u64::MAX));
    println!("| setting | choices | runs | cut short | states | choice points |\n|---|---|---|---|---|---|");
    let mut tally = Tally::default();
    for (Setting { name, bounds, .. }, one) in all.iter().zip(&explored) {
        let (runs, cut, states, points) = (one.runs, one.cut, one.states, one.points);
        println!("| {name} | {} | {runs} | {cut} | {states} | {points} |", bounds.choices);
        tally.add(&one.tally);
    }
    for (setting, one) in all.iter().zip(&explored) {
        let Some((choices, broken)) = &one.broken else { continue };
        let story = traced(setting, &Faithful, choices).story;
        panic!("{broken}\n{story}\n--setting {} --choices {}", setting.name, listed(choices));
    }
    assert!(tally.runs >= FEWEST_RUNS, "only {} runs", tally.runs);
    let missed = missed(&tally);
    assert!(missed.is_empty(), "never: {missed:?}");
}

/// Returns what no run has reached, and some run must reach.
fn missed(tally: &Tally) -> Vec<String> {
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
    let decided = |reason: &Reason| tally.rows.keys().any(|row| row.reason == *reason);
    let unreached = reasons.iter().filter(|reason| !decided(reason)).map(ToString::to_string);
    let without = faults.iter().filter(|fault| !tally.faults.contains_key(*fault)).map(ToString::to_string);
    unreached.chain(without).collect()
}

#[test]
fn cut_short_runs_hide_no_decision() {
    let all = settings::all();
    let setting = all.iter().find(|setting| setting.name == "clocks").expect("a setting");
    let [whole, cut] = [Cut::Never, Cut::States].map(|cut| explore(setting, &Faithful, cut, u64::MAX));
    assert!(cut.cut > 0 && cut.runs < whole.runs, "{} of {} runs", cut.runs, whole.runs);
    let rows = |tally: &Tally| tally.rows.keys().copied().collect::<Vec<_>>();
    assert_eq!(rows(&cut.tally), rows(&whole.tally));
}

#[test]
fn planted_bugs_are_found_within_the_same_bounds() {
    let all = settings::all();
    let explored = each(&BUGS, |(bug, name)| {
        let setting = all.iter().find(|setting| setting.name == *name).expect("a setting");
        explore(setting, &Spoiled(*bug), Cut::Never, MOST_RUNS)
    });
    println!("| bug | setting | promise | runs | choices |\n|---|---|---|---|---|");
    for ((bug, name), one) in BUGS.iter().zip(&explored) {
        let (promise, choices) = one
            .broken
            .as_ref()
            .map_or(("none", String::new()), |(choices, broken)| (broken.promise, listed(choices)));
        println!("| {bug:?} | {name} | {promise} | {} | {choices} |", one.runs);
    }
    for ((bug, name), one) in BUGS.iter().zip(&explored) {
        let Some((choices, broken)) = &one.broken else { panic!("{bug:?} was not found in {name}") };
        assert!(bug.may_break(broken.promise), "{bug:?}, choices {}: {broken}", listed(choices));
    }
}

#[test]
fn same_choices_give_same_trace_each_time() {
    for setting in settings::all() {
        let choices = [Choice { point: 9, alternative: 1 }];
        let [one, other] = [(); 2].map(|()| traced(&setting, &Faithful, &choices));
        assert_eq!(one.story.to_string(), other.story.to_string());
        assert!(one.story.to_string().contains("-> choice 9"), "{}: {}", setting.name, one.story);
    }
}
