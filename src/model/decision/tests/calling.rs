//! Rows in which nothing stands in the way: one call is made.

use super::{Row, starts, stops};
use crate::api::ledger::Action;
use crate::api::stream_encryption::Service;
use crate::model::decision::{OLDEST_SESSION, Step, Wanted};
use crate::model::fault::Class;
use crate::model::key::{Key, KeyProblem};
use crate::model::ledger::{ARRIVAL, DAY, WINDOW};
use crate::model::observation::Observation;
use crate::model::situation::{Situation, failed, key};

pub(super) fn rows(service: Service) -> Vec<Row> {
    [changes(service), tries_again(service)].concat()
}

fn changes(service: Service) -> Vec<Row> {
    vec![
        (
            "a plain-text stream gets the key asked for",
            Situation::of(service).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "a plain-text stream gets the AWS-owned key when any will do",
            Situation::of(service).wants(Wanted::AnyKey).sees(Observation::Off),
            starts(Key::AwsOwned),
        ),
        (
            "a stream with another key is re-keyed without a Stop",
            Situation::of(service).sees(Observation::On(key(2))),
            starts(key(1)),
        ),
        (
            "a customer's key gives way to the AWS-owned one when that is asked for",
            Situation::of(service).wants(Wanted::Key(Key::AwsOwned)).sees(Observation::On(key(2))),
            starts(Key::AwsOwned),
        ),
        (
            "a key that KMS does not resolve equals no key that was asked for",
            Situation::of(service).sees(Observation::On(Key::Unresolved("1".into()))),
            starts(key(1)),
        ),
        (
            "encryption is turned off when that is asked for and allowed",
            Situation::of(service).wants(Wanted::Off).sees(Observation::On(key(1))),
            stops(),
        ),
        (
            "a failure of somebody else's attempt does not keep from using the key asked for",
            Situation::of(service).sees(failed(Action::Start)),
            starts(key(1)),
        ),
        (
            "a first failure is corrected when any key will do and plain text is known to be in force",
            Situation::of(service)
                .wants(Wanted::AnyKey)
                .sees(Observation::Off)
                .after(60)
                .sees(failed(Action::Start)),
            starts(Key::AwsOwned),
        ),
        (
            "drift is corrected",
            Situation::of(service).converged().after(60).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "a session of nearly 6 hours is young enough",
            Situation::of(service)
                .with(|s| s.session_age = Some(crate::model::decision::OLDEST_SESSION))
                .sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "the nineteenth call does not keep from the twentieth",
            Situation::of(service).spent(19).after(60).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "when the oldest call has aged out there is room for one",
            Situation::of(service).spent(20).after(WINDOW.as_secs()).sees(Observation::Off),
            starts(key(1)),
        ),
    ]
}

fn tries_again(service: Service) -> Vec<Row> {
    let failed_once = || {
        Situation::of(service).sees(Observation::Off).calls().accepted().after(60).sees(failed(Action::Start))
    };
    vec![
        (
            "after the backoff a failed attempt is made again",
            failed_once().after(240).sees(failed(Action::Start)),
            starts(key(1)),
        ),
        ("another key is tried at once", failed_once().wants(Wanted::Key(key(2))), starts(key(2))),
        (
            "a person's wish to try now cuts the wait short",
            failed_once().with(|s| s.intent.retry = Some("2026-01-01T00:01:00Z".into())),
            starts(key(1)),
        ),
        (
            "a key that was unusable and works again is tried at once",
            failed_once()
                .key_is(KeyProblem::Disabled)
                .sees(failed(Action::Start))
                .with(|s| s.intent.key_problem = None)
                .after(1)
                .sees(failed(Action::Start)),
            starts(key(1)),
        ),
        (
            "a call that can no longer arrive is made again",
            Situation::of(service)
                .sees(Observation::Off)
                .calls()
                .refused(Class::UnknownOutcome, "InternalFailure")
                .after((WINDOW - DAY).as_secs())
                .sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "a refused call is made again after its wait",
            Situation::of(service)
                .sees(Observation::Off)
                .calls()
                .refused(Class::InUse, "ResourceInUseException")
                .after(30)
                .sees(Observation::Off),
            starts(key(1)),
        ),
    ]
}

/// Whether the call that is decided is a correction.
fn is_correction(situation: &Situation) -> bool {
    let Step::Call(call) = situation.decide().step else { panic!("{:?}", situation.decide()) };
    call.correction
}

#[test]
fn only_what_was_true_before_and_is_changed_by_others_is_a_correction() {
    for service in [Service::Firehose, Service::Kinesis] {
        let first = Situation::of(service).sees(Observation::Off);
        assert!(!is_correction(&first), "the first enable");
        let drifted = Situation::of(service).converged().after(60).sees(Observation::Off);
        assert!(is_correction(&drifted), "somebody turned it off");
        let again = drifted.calls().accepted().after(300).sees(failed(Action::Start));
        assert!(!is_correction(&again), "the second attempt of a correction");
        let changed = Situation::of(service).converged().wants(Wanted::Key(key(2)));
        assert!(!is_correction(&changed), "a person asks for another key");
    }
}

#[test]
fn a_call_takes_the_wish_to_try_now_with_it_so_that_it_works_once() {
    let story = Situation::of(Service::Firehose).sees(Observation::Off).calls().accepted().after(60);
    let wished = story.sees(failed(Action::Start)).with(|s| s.intent.retry = Some("once".into()));
    let after = wished.calls().accepted().after(60).sees(failed(Action::Start));
    assert_eq!(after.decide().step, Step::Rest);
}

#[test]
fn a_session_is_renewed_before_firehose_refuses_it() {
    // Firehose makes no grant with a session of 6 hours; a reserved call may take 15 minutes to arrive.
    assert_eq!(OLDEST_SESSION + ARRIVAL, jiff::SignedDuration::from_hours(6));
}
