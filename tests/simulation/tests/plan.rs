//! The plan of a resource agrees with what the operator then does, in thousands of random situations, and a wrong plan is
//! found by the same comparison.
//!
//! With `--nocapture` the tests print the steps and the reasons of the plans, and how soon each wrong plan is found.

use std::collections::BTreeSet;

use simulation::agreement::situations::{Kind, Met, compare_seed};
use simulation::explore::each;
use simulation::planted_bugs::{Bug, Spoiled};
use simulation::ports::{Aws, Cluster};
use simulation::stats::noted;
use simulation::wiring::{Faithful, Parts};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::StreamLedgerSpec;
use stream_encryption_core::controller::Decide;
use stream_encryption_core::model::decision::{Decision, DecisionInput};

const SEEDS: u64 = 1_000;
/// The fewest plans of all seeds together.
const FEWEST_PLANS: u64 = 4_000;
/// Maximum number of differences that are printed.
const MOST_SHOWN: usize = 4;
/// Maximum number of seeds in which a wrong plan may stay undetected.
const MOST_SEEDS: u64 = 300;

/// A planner with another decision than the operator.
struct Planner(Decide);

impl Parts for Planner {
    type Aws = Aws;
    type KubeApi = Cluster;

    fn aws(&self, aws: Aws) -> Aws {
        aws
    }

    fn records(&self, records: Cluster) -> Cluster {
        records
    }

    fn decide(&self) -> Decide {
        self.0
    }
}

/// Decides as if the ledger had no calls, so that the budget is always full.
fn ignoring_budget(input: &DecisionInput<'_>) -> Decision {
    let calls = Vec::new();
    noted(&DecisionInput { ledger: &StreamLedgerSpec { calls, ..input.ledger.clone() }, ..input.clone() })
}

/// Decides as if the ledger held only what the last Describe has shown.
fn ignoring_ledger(input: &DecisionInput<'_>) -> Decision {
    let ledger =
        StreamLedgerSpec { calls: Vec::new(), attempts: None, satisfied: None, ..input.ledger.clone() };
    noted(&DecisionInput { ledger: &ledger, ..input.clone() })
}

#[test]
fn plan_agrees_with_what_the_operator_then_does() {
    let seeds: Vec<u64> = (0..SEEDS).collect();
    let (mut met, mut differences) = (Met::new(), Vec::new());
    for compared in each(&seeds, |seed| compare_seed(*seed, &Faithful)) {
        match compared {
            Ok(of_seed) => of_seed.into_iter().for_each(|(row, count)| *met.entry(row).or_default() += count),
            Err(differs) => differences.push(differs.to_string()),
        }
    }
    let number = differences.len();
    differences.truncate(MOST_SHOWN);
    assert!(differences.is_empty(), "{number} seeds with a difference:\n{}", differences.join("\n\n"));
    println!("| step | reason | plans |\n|---|---|---|");
    for ((kind, reason), count) in &met {
        println!("| {kind:?} | {} | {count} |", reason.map_or("-", Reason::as_str));
    }
    let plans: u64 = met.values().sum();
    assert!(plans >= FEWEST_PLANS, "only {plans} plans");
    let missed = missed(&met);
    assert!(missed.is_empty(), "never planned: {missed:?}");
}

/// Returns the steps and reasons that no plan had, and some plan must have.
fn missed(met: &Met) -> Vec<String> {
    let kinds = [Kind::Start, Kind::Stop, Kind::TestRecord, Kind::RemoveFinalizer, Kind::Wait, Kind::Nothing];
    let reasons = [
        Reason::Encrypted,
        Reason::CallLimitReached,
        Reason::NotPermitted,
        Reason::DisableNotPermitted,
        Reason::StreamAlreadyManaged,
        Reason::Drifted,
        Reason::SpecInvalid,
        Reason::Suspended,
        Reason::KeyDisabled,
        Reason::KeyPendingDeletion,
        Reason::KeyDescribeDenied,
        Reason::KeyReferenceNotReady,
        Reason::KeyAccessDenied,
        Reason::EnablingFailed,
        Reason::OutcomeUnknown,
        Reason::StreamNotFound,
        Reason::StreamARNMismatch,
        Reason::AccessDenied,
        Reason::AwsThrottled,
        Reason::LedgerInvalid,
        Reason::SessionTooOld,
    ];
    let met_kinds: BTreeSet<Kind> = met.keys().map(|(kind, _)| *kind).collect();
    let met_reasons: BTreeSet<Reason> = met.keys().filter_map(|(_, reason)| *reason).collect();
    let kinds = kinds.iter().filter(|kind| !met_kinds.contains(kind)).map(|kind| format!("{kind:?}"));
    let reasons = reasons.iter().filter(|reason| !met_reasons.contains(reason)).map(ToString::to_string);
    kinds.chain(reasons).collect()
}

#[test]
fn wrong_plan_is_found() {
    find("the budget is ignored", &Planner(ignoring_budget));
    find("the ledger's calls and attempts are ignored", &Planner(ignoring_ledger));
    for bug in [
        Bug::EnabledIsEnough,
        Bug::NoSettling,
        Bug::LostKeyIsReady,
        Bug::NoWaitForLateCalls,
        Bug::StopBeforeReKey,
        Bug::OwnershipIgnored,
        Bug::ForeignStream,
    ] {
        find(&format!("{bug:?}"), &Spoiled(bug));
    }
}

/// Searches a seed in which the plans of a wrong planner differ from what the operator does.
fn find<P: Parts>(wrong: &str, planner: &P) {
    let found = (0..MOST_SEEDS).find_map(|seed| compare_seed(seed, planner).err());
    let found = found.unwrap_or_else(|| panic!("not found: {wrong}"));
    println!("{wrong}: seed {}, plan {}", found.seed, found.number);
}
