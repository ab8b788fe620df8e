//! The message of `Drifted` agrees with what the operator decides with `mode: Enforce`, in every row of the table.

use std::collections::BTreeSet;

use jiff::Timestamp;
use stream_encryption_api::condition::{Reason, next_whole_second};
use stream_encryption_api::stream_encryption::{Mode, Service};

use super::rows;
use crate::model::decision::{Decision, Step, budget};
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::message;
use crate::model::observation::Observation;
use crate::model::scenario::{Scenario, key};
use crate::model::service::{Operation, profile};

fn observing(scenario: &Scenario) -> Scenario {
    scenario.clone().with(|s| s.desired.mode = Mode::Observe)
}

fn message_of(scenario: &Scenario) -> String {
    message::ready(&scenario.input(), &scenario.decide())
}

/// Returns what the message must state of the decision with `mode: Enforce`.
fn expected(enforced: &Scenario, decision: &Decision) -> String {
    let time = |at: Timestamp| next_whole_second(at).0;
    match (&decision.step, decision.next_attempt) {
        (Step::ChangeEncryption(call), _) => {
            let operation = Operation::change(enforced.stream.service, call.target.action).name();
            let with = match call.target.key.as_ref().map(Key::of) {
                None => String::new(),
                Some(Key::AwsOwned) => format!(" with {}", profile(enforced.stream.service).words.aws_key),
                Some(key) => format!(" with {key}"),
            };
            let budget = budget(&enforced.input());
            let left = budget.limit - budget.used - 1;
            format!(
                "would call {operation}{with} now; {left} of {} calls in 24 hours would be left.",
                budget.limit
            )
        }
        (_, Some(at)) => format!("would make no call before {} ({}): ", time(at), decision.reason),
        (_, None) => format!("would make no call now ({}): ", decision.reason),
    }
}

#[test]
fn drifted_states_what_enforce_would_do() {
    let mut met: BTreeSet<(bool, bool, Reason)> = BTreeSet::new();
    for service in [Service::Firehose, Service::Kinesis] {
        for (sentence, scenario, _) in rows(service) {
            let enforced = scenario.with(|s| s.desired.mode = Mode::Enforce);
            let observed = observing(&enforced);
            if observed.decide().reason != Reason::Drifted {
                continue;
            }
            let (decision, text) = (enforced.decide(), message_of(&observed));
            assert!(text.contains(&expected(&enforced, &decision)), "{sentence}: {text}");
            let is_call = matches!(decision.step, Step::ChangeEncryption(_));
            assert_eq!(text.contains("would call"), is_call, "{sentence}: {text}");
            assert!(!text.contains("Next attempt"), "{sentence}: {text}");
            assert!(!text.contains("mode: Observe"), "{sentence}: {text}");
            let sentences: Vec<&str> = text.split_inclusive(". ").collect();
            assert_eq!(
                sentences.iter().collect::<BTreeSet<_>>().len(),
                sentences.len(),
                "{sentence}: {text}"
            );
            met.insert((is_call, decision.next_attempt.is_some(), decision.reason));
        }
    }
    for row in [
        (true, false, Reason::Enabling),
        (true, false, Reason::Disabling),
        (false, true, Reason::CallLimitReached),
        (false, true, Reason::EnablingFailed),
        (false, true, Reason::DriftCorrectionLimitReached),
        (false, false, Reason::KeyDisabled),
    ] {
        assert!(met.contains(&row), "{row:?} is not among {met:?}");
    }
}

#[test]
fn drifted_reads_well_for_call_wait_and_key_problem() {
    let plain = || Scenario::of(Service::Firehose);
    let of = |scenario: Scenario| message_of(&observing(&scenario.sees(Observation::Off)));
    let drifted = "The stream differs from the spec, and mode is Observe. Records are in plaintext. With mode: Enforce, the operator would";
    let key = key(1);
    assert_eq!(
        of(plain().spent(3).after(60)),
        format!(
            "{drifted} call StartDeliveryStreamEncryption with {key} now; 16 of 20 calls in 24 hours would be left."
        )
    );
    assert_eq!(
        of(plain().wants(DesiredEncryption::AnyKey)),
        format!(
            "{drifted} call StartDeliveryStreamEncryption with the AWS-owned key now; 19 of 20 calls in 24 hours would be left."
        )
    );
    assert_eq!(
        of(plain().spent(20).after(60)),
        format!(
            "{drifted} make no call before 2026-01-02T00:31:00Z (CallLimitReached): 20 of 20 encryption calls in 24 hours are used. Wait, or ask an administrator to raise maxCallsPerDay in the StreamEncryptionPolicy (25 at most)."
        )
    );
    assert_eq!(
        of(plain().key_is(KeyProblem::Disabled)),
        format!(
            "{drifted} make no call now (KeyDisabled): {key} is disabled, so no encryption call is made. Enable it, or set another key in spec.key."
        )
    );
}
