//! The product keeps every promise in every order of events, within bounds that are explored in seconds.
//!
//! Each test widens one thing. What must be reachable is said as well, so that no test passes because nothing happens.

use exhaustive::bounds::{Bounds, Fault};
use exhaustive::names::{Encryption, Wish};
use exhaustive::report::{Report, check};
use exhaustive::world::SKEW;
use jiff::SignedDuration;
use stream_encryption_operator::api::condition::Reason;
use stream_encryption_operator::api::stream_encryption::Service;

/// Explores, and tells what was broken.
fn explored(name: &str, bounds: Bounds) -> Report {
    let report = check(bounds, 2);
    println!("{name}: {report}");
    assert!(report.broken.is_empty(), "{report}");
    report
}

fn reached(report: &Report, reason: Reason) {
    assert!(report.reasons.iter().any(|(decided, _)| *decided == reason), "never {reason}: {report}");
}

#[test]
fn with_one_fault_of_any_kind_and_one_call_a_day() {
    let report = explored("one fault", Bounds::new(1, 1, 0, 3, 0));
    // Nobody changes the resource here; the next test is for that.
    assert_eq!(report.unreached, ["ResourceChanged"], "{report}");
    for reason in
        [Reason::CallLimitReached, Reason::OutcomeUnknown, Reason::EnablingFailed, Reason::StreamInUse]
    {
        reached(&report, reason);
    }
}

#[test]
fn with_a_user_who_changes_the_key_or_turns_encryption_off() {
    let wishes = &[Wish::One, Wish::Two, Wish::Off, Wish::Any];
    let report = explored("a change of mind", Bounds { wishes, ..Bounds::new(2, 0, 1, 1, 0) });
    assert!(!report.unreached.contains(&"ResourceChanged".to_owned()), "{report}");
    reached(&report, Reason::Disabling);
}

#[test]
fn with_replicas_that_are_paused_between_reservation_and_call() {
    let pause = SignedDuration::from_secs(10);
    let kinds = &[Fault::TimeOut];
    explored("pauses", Bounds { pause, kinds, ..Bounds::new(2, 1, 0, 2, 1) });
}

#[test]
fn with_clocks_that_are_wrong_in_both_directions() {
    let kinds = &[Fault::TimeOut, Fault::Failure];
    explored("wrong clocks", Bounds { kinds, ahead: [-SKEW, SKEW], ..Bounds::new(1, 1, 0, 3, 0) });
}

#[test]
fn with_a_kinesis_stream_that_is_encrypted_with_another_key() {
    let kinds = &[Fault::TimeOut, Fault::LostReply, Fault::Failure, Fault::Refusal];
    let (service, found) = (Service::Kinesis, Encryption::Foreign);
    explored("Kinesis", Bounds { service, found, kinds, ..Bounds::new(1, 1, 0, 3, 0) });
}
