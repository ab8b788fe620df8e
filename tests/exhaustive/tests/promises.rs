//! The product keeps every promise in every order of events, within bounds that are explored in seconds.
//!
//! Each test widens one thing. What must be reachable is said as well, so that no test passes because nothing happens.

use exhaustive::bounds::{Bounds, Fault};
use exhaustive::names::{Encryption, Wish};
use exhaustive::report::{Report, check};
use exhaustive::world::SKEW;
use jiff::SignedDuration;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::Service;

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
fn promises_hold_with_one_fault_and_one_call_a_day() {
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
fn promises_hold_while_key_changes_or_encryption_ends() {
    let wishes = &[Wish::One, Wish::Two, Wish::Off, Wish::Any];
    let report = explored("a change of mind", Bounds { wishes, ..Bounds::new(2, 0, 1, 1, 0) });
    assert!(!report.unreached.contains(&"ResourceChanged".to_owned()), "{report}");
    reached(&report, Reason::Disabling);
}

#[test]
fn promises_hold_with_replicas_paused_before_call() {
    let pause = SignedDuration::from_secs(10);
    let kinds = &[Fault::TimeOut];
    explored("pauses", Bounds { pause, kinds, ..Bounds::new(2, 1, 0, 2, 1) });
}

#[test]
fn promises_hold_with_wrong_clocks() {
    let kinds = &[Fault::TimeOut, Fault::Failure];
    explored("wrong clocks", Bounds { kinds, ahead: [-SKEW, SKEW], ..Bounds::new(1, 1, 0, 3, 0) });
}

#[test]
fn promises_hold_for_stream_encrypted_with_another_key() {
    let kinds = &[Fault::TimeOut, Fault::LostReply, Fault::Failure, Fault::Refusal];
    let (service, found) = (Service::Kinesis, Encryption::Foreign);
    explored("Kinesis", Bounds { service, found, kinds, ..Bounds::new(1, 1, 0, 3, 0) });
}
