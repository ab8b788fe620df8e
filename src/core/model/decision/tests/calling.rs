//! Rows in which nothing prevents a call: one call is made.

use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;

use super::{Row, starts, stops};
use crate::model::aws_error::{ErrorKind, OPERATOR_PAUSED};
use crate::model::decision::{MAX_SESSION_AGE_FOR_CALL, Step};
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::ledger::{self, MAX_CLOCK_SKEW, MAX_IN_FLIGHT, QUOTA_WINDOW};
use crate::model::observation::Observation;
use crate::model::scenario::{Scenario, failed, key};

pub(super) fn rows(service: Service) -> Vec<Row> {
    [changes(service), tries_again(service)].concat()
}

fn changes(service: Service) -> Vec<Row> {
    vec![
        (
            "a plaintext stream gets the desired key",
            Scenario::of(service).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "a plaintext stream gets the AWS-owned key when any will do",
            Scenario::of(service).wants(DesiredEncryption::AnyKey).sees(Observation::Off),
            starts(Key::AwsOwned),
        ),
        (
            "a stream with another key is re-keyed without a Stop",
            Scenario::of(service).sees(Observation::On(key(2))),
            starts(key(1)),
        ),
        (
            "a customer's key gives way to the AWS-owned one when that is asked for",
            Scenario::of(service).wants(DesiredEncryption::Key(Key::AwsOwned)).sees(Observation::On(key(2))),
            starts(Key::AwsOwned),
        ),
        (
            "a key that KMS does not resolve equals no key that was asked for",
            Scenario::of(service).sees(Observation::On(Key::Unresolved("1".into()))),
            starts(key(1)),
        ),
        (
            "encryption is turned off when that is asked for and allowed",
            Scenario::of(service).wants(DesiredEncryption::Off).sees(Observation::On(key(1))),
            stops(),
        ),
        (
            "a failed attempt made outside the operator does not prevent a call",
            Scenario::of(service).sees(failed(Action::Start)),
            starts(key(1)),
        ),
        (
            "a first failure is corrected when any key will do and plaintext is known to be in force",
            Scenario::of(service)
                .wants(DesiredEncryption::AnyKey)
                .sees(Observation::Off)
                .after(60)
                .sees(failed(Action::Start)),
            starts(Key::AwsOwned),
        ),
        (
            "drift is corrected",
            Scenario::of(service).converged().after(60).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "a session of nearly 6 hours is young enough",
            Scenario::of(service)
                .with(|s| s.session_age = Some(crate::model::decision::MAX_SESSION_AGE_FOR_CALL))
                .sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "the nineteenth call leaves room for the twentieth",
            Scenario::of(service).spent(19).after(60).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "when the oldest call has aged out there is room for one",
            Scenario::of(service).spent(20).after(QUOTA_WINDOW.as_secs()).sees(Observation::Off),
            starts(key(1)),
        ),
    ]
}

fn tries_again(service: Service) -> Vec<Row> {
    let failed_once = || {
        Scenario::of(service).sees(Observation::Off).calls().accepted().after(60).sees(failed(Action::Start))
    };
    vec![
        (
            "after the backoff a failed attempt is made again",
            failed_once().after(240).sees(failed(Action::Start)),
            starts(key(1)),
        ),
        ("another key is tried at once", failed_once().wants(DesiredEncryption::Key(key(2))), starts(key(2))),
        (
            "the retry annotation ends the wait",
            failed_once().with(|s| s.desired.retry = Some("2026-01-01T00:01:00Z".into())),
            starts(key(1)),
        ),
        (
            "a key that was unusable and works again is tried at once",
            failed_once()
                .key_is(KeyProblem::Disabled)
                .sees(failed(Action::Start))
                .with(|s| s.desired.key_problem = None)
                .after(1)
                .sees(failed(Action::Start)),
            starts(key(1)),
        ),
        (
            "a call that can no longer arrive is made again",
            Scenario::of(service)
                .sees(Observation::Off)
                .calls()
                .refused(ErrorKind::UnknownOutcome, "InternalFailure")
                .after(MAX_IN_FLIGHT.as_secs())
                .sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "a refused call is made again after its wait",
            Scenario::of(service)
                .sees(Observation::Off)
                .calls()
                .refused(ErrorKind::InUse, "ResourceInUseException")
                .after(30)
                .sees(Observation::Off),
            starts(key(1)),
        ),
    ]
}

/// Returns whether the decided call is a correction.
fn is_correction(situation: &Scenario) -> bool {
    let Step::ChangeEncryption(call) = situation.decide().step else { panic!("{:?}", situation.decide()) };
    call.correction
}

/// Returns the scenario twenty minutes after a call that the operator did not send.
fn drifted_unsent(drifted: &Scenario, shown: Observation) -> Scenario {
    let unsent = drifted.clone().calls().refused(ErrorKind::Transient, OPERATOR_PAUSED);
    unsent.after(1200).sees(shown)
}

#[test]
fn correction_is_counted_only_for_external_drift() {
    for service in [Service::Firehose, Service::Kinesis] {
        let first = Scenario::of(service).sees(Observation::Off);
        assert!(!is_correction(&first), "the first enable");
        let drifted = Scenario::of(service).converged().after(60).sees(Observation::Off);
        assert!(is_correction(&drifted), "somebody turned it off");
        let again = drifted.clone().calls().accepted().after(300).sees(failed(Action::Start));
        assert!(!is_correction(&again), "the second attempt of a correction");
        let unsent = drifted_unsent(&drifted, Observation::Off);
        assert!(is_correction(&unsent), "nothing was sent yet");
        assert_eq!(ledger::corrections(&unsent.ledger, unsent.now).len(), 0);
        let resent = unsent.calls().accepted().after(1200).sees(failed(Action::Start));
        assert!(!is_correction(&resent), "the second attempt that is sent");
        let reverted =
            Scenario::of(service).converged().wants(DesiredEncryption::Key(key(2))).calls().accepted();
        let reverted = reverted.after(60).wants(DesiredEncryption::Key(key(1))).sees(Observation::On(key(2)));
        assert!(
            !is_correction(&drifted_unsent(&reverted, Observation::On(key(2)))),
            "the operator itself has set the key"
        );
        let changed = Scenario::of(service).converged().wants(DesiredEncryption::Key(key(2)));
        assert!(!is_correction(&changed), "a person asks for another key");
    }
}

#[test]
fn retry_annotation_triggers_one_call_only() {
    let story = Scenario::of(Service::Firehose).sees(Observation::Off).calls().accepted().after(60);
    let wished = story.sees(failed(Action::Start)).with(|s| s.desired.retry = Some("once".into()));
    let after = wished.calls().accepted().after(60).sees(failed(Action::Start));
    assert_eq!(after.decide().step, Step::Wait);
}

#[test]
fn session_age_limit_leaves_time_for_call_to_arrive() {
    // Firehose creates no grant with a session of 6 hours; a reserved call may take 15 minutes to arrive.
    assert_eq!(MAX_SESSION_AGE_FOR_CALL + MAX_CLOCK_SKEW, jiff::SignedDuration::from_hours(6));
}
