//! The plan of a resource agrees with the following reconciles in thousands of random scenarios, and the same
//! comparison finds a wrong plan.
//!
//! With `--nocapture` the tests print the steps and the reasons of the plans, and the seed in which each
//! wrong plan is found.

use std::collections::BTreeSet;

use simulation::agreement::scenarios::{PlanCounts, PlanKind, compare_seed};
use simulation::explore::parallel_map;
use simulation::planted_bugs::{Bug, WithBug};
use simulation::ports::{AwsPort, KubernetesPort};
use simulation::statistics::decide_and_record;
use simulation::wiring::{Unmodified, Wiring};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::StreamLedgerSpec;
use stream_encryption_core::controller::Decide;
use stream_encryption_core::model::decision::{Decision, DecisionInput};

const SEEDS: u64 = 1_000;
/// Minimum number of plans of all seeds together.
const MIN_PLANS: u64 = 4_000;
/// Maximum number of differences that are printed.
const MAX_PRINTED: usize = 4;
/// Maximum number of seeds in which a wrong plan may stay undetected.
const MAX_SEEDS: u64 = 300;

/// A planner with a different decision than the operator.
struct Planner(Decide);

impl Wiring for Planner {
    type StreamApi = AwsPort;
    type KubeApi = KubernetesPort;

    fn stream_api(&self, port: AwsPort) -> AwsPort {
        port
    }

    fn kube_api(&self, port: KubernetesPort) -> KubernetesPort {
        port
    }

    fn decide(&self) -> Decide {
        self.0
    }
}

/// Decides as if the ledger had no calls, so that the budget is always full.
fn ignoring_budget(input: &DecisionInput<'_>) -> Decision {
    let calls = Vec::new();
    decide_and_record(&DecisionInput {
        ledger: &StreamLedgerSpec { calls, ..input.ledger.clone() },
        ..input.clone()
    })
}

/// Decides as if the ledger held only the result of the last Describe.
fn ignoring_ledger(input: &DecisionInput<'_>) -> Decision {
    let ledger =
        StreamLedgerSpec { calls: Vec::new(), attempts: None, satisfied: None, ..input.ledger.clone() };
    decide_and_record(&DecisionInput { ledger: &ledger, ..input.clone() })
}

#[test]
fn plan_agrees_with_the_following_reconciles() {
    let seeds: Vec<u64> = (0..SEEDS).collect();
    let (mut counts, mut differences) = (PlanCounts::new(), Vec::new());
    for compared in parallel_map(&seeds, |seed| compare_seed(*seed, &Unmodified)) {
        match compared {
            Ok(plans) => plans.into_iter().for_each(|(row, count)| *counts.entry(row).or_default() += count),
            Err(disagreement) => differences.push(disagreement.to_string()),
        }
    }
    let number = differences.len();
    differences.truncate(MAX_PRINTED);
    assert!(differences.is_empty(), "{number} seeds with a difference:\n{}", differences.join("\n\n"));
    println!("| step | reason | plans |\n|---|---|---|");
    for ((kind, reason), count) in &counts {
        println!("| {kind:?} | {} | {count} |", reason.map_or("-", Reason::as_str));
    }
    let plans: u64 = counts.values().sum();
    assert!(plans >= MIN_PLANS, "only {plans} plans");
    let missing = missing(&counts);
    assert!(missing.is_empty(), "never planned: {missing:?}");
}

/// Returns the steps and reasons that a plan must have, and none had.
fn missing(counts: &PlanCounts) -> Vec<String> {
    let kinds = [
        PlanKind::Start,
        PlanKind::Stop,
        PlanKind::TestRecord,
        PlanKind::RemoveFinalizer,
        PlanKind::Wait,
        PlanKind::Nothing,
    ];
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
    let planned_kinds: BTreeSet<PlanKind> = counts.keys().map(|(kind, _)| *kind).collect();
    let planned_reasons: BTreeSet<Reason> = counts.keys().filter_map(|(_, reason)| *reason).collect();
    let kinds = kinds.iter().filter(|kind| !planned_kinds.contains(kind)).map(|kind| format!("{kind:?}"));
    let reasons = reasons.iter().filter(|reason| !planned_reasons.contains(reason)).map(ToString::to_string);
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
        find(&format!("{bug:?}"), &WithBug(bug));
    }
}

/// Searches a seed in which the plans of a wrong planner differ from the actions of the operator.
fn find<P: Wiring>(description: &str, planner: &P) {
    let found = (0..MAX_SEEDS).find_map(|seed| compare_seed(seed, planner).err());
    let found = found.unwrap_or_else(|| panic!("not found: {description}"));
    println!("{description}: seed {}, plan {}", found.seed, found.number);
}
