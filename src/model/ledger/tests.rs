//! What a ledger is and keeps: its name, what is believed of it, what survives Kubernetes, what a reservation adds.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;

use super::{Corrupt, Reservation, check, counts_until, name, record, reserve, without_old_calls};
use crate::api::ledger::{Action, Call, InForce, Outcome, Owner, StreamLedgerSpec, Target};
use crate::api::stream_encryption::{KeyStatus, KeyType, Service};
use crate::model::fault::{Class, Fault};
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::situation::{fault, key, midnight, owner, stream};
use crate::model::stream::StreamArn;

mod budget;
mod corrupt;
mod learning;
mod window;

/// An empty ledger of a stream of this service.
fn empty(service: Service) -> StreamLedgerSpec {
    super::new(&stream(service), owner())
}

/// A Start with key 1, asked for as such.
fn plan() -> Reservation {
    Reservation {
        target: key(1).target(),
        wanted: key(1).target(),
        retry: None,
        correction: false,
        after_failure: false,
    }
}

fn seconds(seconds: i64) -> Timestamp {
    midnight() + SignedDuration::from_secs(seconds)
}

/// A ledger with one more call, and what came of it.
fn with_call(
    ledger: &StreamLedgerSpec,
    at: Timestamp,
    outcome: Option<Result<(), &Fault>>,
) -> StreamLedgerSpec {
    let (reserved, id) = reserve(ledger, &plan(), at);
    outcome.map_or(reserved.clone(), |outcome| record(&reserved, &id, outcome, at))
}

/// What Kubernetes gives back when the ledger is read again.
fn read_again(ledger: &StreamLedgerSpec) -> StreamLedgerSpec {
    serde_json::from_str(&serde_json::to_string(ledger).unwrap()).unwrap()
}

#[test]
fn the_name_of_a_ledger_is_one_that_kubernetes_takes() {
    for service in [Service::Firehose, Service::Kinesis] {
        let name = name(&stream(service));
        assert!(name.len() <= 63, "{name} does not fit into a label");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.ends_with('-'), "{name}");
    }
}

#[test]
fn the_name_of_a_ledger_never_changes_for_it_is_how_the_calls_are_found_again() {
    let stream: StreamArn = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders".parse().unwrap();
    // printf %s ARN | sha256sum
    assert_eq!(name(&stream), "stream-473e5ca2eb217fd39be6cd218b6b0bb60eb87b61");
}

#[test]
fn streams_that_differ_in_anything_have_ledgers_of_their_own() {
    let arns = [
        "arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/Orders",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/orders.",
        "arn:aws:kinesis:eu-west-2:111122223333:stream/orders",
        "arn:aws:kinesis:eu-west-1:111122223334:stream/orders",
        "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/orders",
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders",
    ];
    let names: BTreeSet<String> = arns.iter().map(|arn| name(&arn.parse().unwrap())).collect();
    assert_eq!(names.len(), arns.len());
}

#[test]
fn a_ledger_of_another_stream_is_not_believed() {
    let other: StreamArn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap();
    assert_eq!(check(&empty(Service::Kinesis), &other), Err(Corrupt::OtherStream));
    assert_eq!(check(&empty(Service::Kinesis), &stream(Service::Firehose)), Err(Corrupt::OtherStream));
    assert_eq!(check(&empty(Service::Kinesis), &stream(Service::Kinesis)), Ok(()));
}

#[test]
fn a_ledger_with_two_calls_of_one_id_is_not_believed() {
    let mut ledger = with_call(&empty(Service::Kinesis), midnight(), None);
    assert_eq!(check(&ledger, &stream(Service::Kinesis)), Ok(()));
    ledger.calls.push(ledger.calls[0].clone());
    assert_eq!(check(&ledger, &stream(Service::Kinesis)), Err(Corrupt::RepeatedCall));
}

#[test]
fn a_ledger_with_a_start_without_key_or_a_stop_with_one_is_not_believed() {
    for target in [
        Target { action: Action::Start, key: None },
        Target { action: Action::Stop, key: Some(Key::AwsOwned.status()) },
        Target { action: Action::Start, key: Some(KeyStatus { kind: KeyType::CustomerManaged, arn: None }) },
        Target {
            action: Action::Start,
            key: Some(KeyStatus { arn: Some("x".into()), ..Key::AwsOwned.status() }),
        },
    ] {
        let mut ledger = with_call(&empty(Service::Kinesis), midnight(), None);
        ledger.calls[0].target = target;
        assert_eq!(check(&ledger, &stream(Service::Kinesis)), Err(Corrupt::MeaninglessCall));
    }
}

#[test]
fn a_ledger_whose_owner_cannot_be_looked_for_is_not_believed() {
    for owner in [
        Owner { uid: String::new(), ..owner() },
        Owner { name: String::new(), ..owner() },
        Owner { namespace: String::new(), ..owner() },
        Owner { name: "../secrets".into(), ..owner() },
        Owner { namespace: "my data".into(), ..owner() },
    ] {
        let ledger = StreamLedgerSpec { owner, ..empty(Service::Kinesis) };
        assert_eq!(check(&ledger, &stream(Service::Kinesis)), Err(Corrupt::NoOwner), "{:?}", ledger.owner);
    }
}

#[test]
fn a_ledger_that_contradicts_itself_about_the_key_in_force_is_not_believed() {
    let since = MicroTime(midnight());
    let good = InForce { key: Some(key(1).status()), since: since.clone(), encrypted_since: Some(since) };
    let plain = InForce { key: None, encrypted_since: None, ..good.clone() };
    let nameless = KeyStatus { kind: KeyType::CustomerManaged, arn: None };
    let check = |in_force: &InForce| {
        let ledger = StreamLedgerSpec { in_force: Some(in_force.clone()), ..empty(Service::Kinesis) };
        check(&ledger, &stream(Service::Kinesis))
    };
    assert_eq!((check(&good), check(&plain)), (Ok(()), Ok(())));
    for bad in [
        InForce { key: None, ..good.clone() },
        InForce { encrypted_since: None, ..good.clone() },
        // It would be told as the AWS-owned key.
        InForce { key: Some(nameless), ..good.clone() },
    ] {
        assert_eq!(check(&bad), Err(Corrupt::MeaninglessKey), "{bad:?}");
    }
}

#[test]
fn a_reserved_call_is_pending_and_is_what_was_planned() {
    let plan = Reservation { retry: Some("now".into()), correction: true, ..plan() };
    let (ledger, id) = reserve(&empty(Service::Firehose), &plan, midnight());
    let [Call { id: kept, target, time, outcome, code, correction, after_failure: _, confirmed, retry }] =
        &ledger.calls[..]
    else {
        panic!("{ledger:?}")
    };
    assert_eq!((kept, target, time), (&id, &plan.target, &MicroTime(midnight())));
    assert_eq!((outcome, code, correction), (&Outcome::Pending, &None, &true));
    assert!(!confirmed, "nobody has looked since");
    assert_eq!(*retry, plan.retry);
    assert_eq!(ledger.attempts.unwrap().retry, plan.retry);
}

#[test]
fn an_entry_may_go_from_the_moment_at_which_it_counts_no_more() {
    let ledger = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let over = counts_until(&ledger.calls[0]);
    for (proven, kept) in [(over - SignedDuration::from_micros(1), 1), (over, 0)] {
        assert_eq!(without_old_calls(&ledger, proven).calls.len(), kept, "{proven}");
    }
}

#[test]
fn an_outcome_is_recorded_at_the_call_that_it_belongs_to() {
    let denied = fault(Class::Denied, "AccessDeniedException");
    for (outcome, kept, code) in [
        (Ok(()), Outcome::Accepted, None),
        (Err(&denied), Outcome::Refused, Some("AccessDeniedException")),
        (Err(&fault(Class::UnknownOutcome, "InternalFailure")), Outcome::Unknown, Some("InternalFailure")),
    ] {
        let (first, id) = reserve(&empty(Service::Firehose), &plan(), midnight());
        let second = with_call(&first, seconds(1000), None);
        let ledger = record(&second, &id, outcome, seconds(1001));
        assert_eq!(ledger.calls[0].outcome, kept);
        assert_eq!(ledger.calls[0].code.as_deref(), code);
        assert_eq!(ledger.calls[1], second.calls[1], "the other call is as it was");
    }
    let ledger = with_call(&empty(Service::Firehose), midnight(), None);
    assert_eq!(record(&ledger, "no such call", Ok(()), midnight()), ledger);
}

#[test]
fn an_error_that_comes_late_takes_nothing_back_that_was_seen_of_its_call_meanwhile() {
    let (reserved, id) = reserve(&empty(Service::Firehose), &plan(), midnight());
    let adopted = super::learn(
        &reserved,
        &Observation::Changing(Some(Action::Start)),
        None,
        Some(&key(1).target()),
        false,
        seconds(2),
    );
    assert_eq!(adopted.calls[0].outcome, Outcome::Accepted, "it was seen being carried out");
    for class in [Class::UnknownOutcome, Class::InUse, Class::Denied, Class::LimitReached] {
        let late = fault(class, "Code");
        assert_eq!(record(&adopted, &id, Err(&late), seconds(10)), adopted, "{class:?}");
        let unknown = StreamLedgerSpec {
            calls: vec![Call { outcome: Outcome::Unknown, ..reserved.calls[0].clone() }],
            ..reserved.clone()
        };
        assert_eq!(record(&unknown, &id, Err(&late), seconds(10)), unknown, "{class:?}");
    }
    // That AWS accepted it is more than any look could tell.
    let unknown = record(&reserved, &id, Err(&fault(Class::UnknownOutcome, "InternalFailure")), seconds(1));
    assert_eq!(record(&unknown, &id, Ok(()), seconds(2)).calls[0].outcome, Outcome::Accepted);
}

#[test]
fn attempts_are_counted_for_one_target_and_wait_longer_each_time() {
    let mut ledger = empty(Service::Firehose);
    let mut waits = Vec::new();
    for n in 0..8 {
        ledger = with_call(&ledger, seconds(n * 30_000), Some(Ok(())));
        let attempts = ledger.attempts.clone().unwrap();
        waits.push((attempts.count, attempts.not_before.0.duration_since(seconds(n * 30_000)).as_mins()));
    }
    assert_eq!(waits, [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 320), (8, 360)]);

    let other = Reservation { target: key(2).target(), wanted: key(2).target(), ..plan() };
    assert_eq!(
        reserve(&ledger, &other, seconds(300_000)).0.attempts.unwrap().count,
        1,
        "another key begins anew"
    );
}

#[test]
fn a_refusal_says_why_and_how_long_to_wait() {
    for (class, reason, minutes) in [
        (Class::InUse, "StreamInUse", 0),
        (Class::Denied, "AccessDenied", 5),
        (Class::KeyRefused, "KeyRefused", 5),
        (Class::LimitReached, "CallLimitReached", 60),
    ] {
        let ledger = with_call(&empty(Service::Firehose), midnight(), Some(Err(&fault(class, "Code"))));
        let attempts = ledger.attempts.unwrap();
        assert_eq!(attempts.reason.as_deref(), Some(reason));
        assert_eq!(attempts.not_before.0.duration_since(midnight()).as_mins(), minutes, "{class:?}");
    }
    let next = with_call(&empty(Service::Firehose), midnight(), Some(Err(&fault(Class::InUse, "Code"))));
    assert_eq!(
        with_call(&next, seconds(60), None).attempts.unwrap().reason,
        None,
        "the next attempt begins without"
    );
}

#[test]
fn calls_in_the_same_millisecond_have_ids_of_their_own() {
    let ledger = (0..30).fold(empty(Service::Firehose), |ledger, _| with_call(&ledger, midnight(), None));
    assert_eq!(check(&ledger, &stream(Service::Firehose)), Ok(()));
    assert_eq!(ledger.calls.len(), 30);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ids_are_unique_whatever_the_clock_does(jumps in prop::collection::vec(-3_i64..3, 1..60)) {
        let mut now = midnight();
        let mut ledger = empty(Service::Firehose);
        for jump in jumps {
            now += SignedDuration::from_millis(jump);
            ledger = with_call(&ledger, now, None);
        }
        prop_assert_eq!(check(&ledger, &stream(Service::Firehose)), Ok(()));
    }

    #[test]
    fn a_reservation_drops_nothing_and_what_does_not_count_any_more_goes_by_a_proven_time_only(
        ages in prop::collection::vec(-100_000_i64..100_000, 0..40),
        ahead in -200_000_i64..200_000,
    ) {
        let mut ledger = empty(Service::Firehose);
        for age in &ages {
            ledger.calls.extend(with_call(&empty(Service::Firehose), seconds(-age), None).calls);
        }
        // Whatever the operator's clock shows.
        let (reserved, id) = reserve(&ledger, &plan(), seconds(ahead));
        let kept: Vec<&Call> = reserved.calls.iter().filter(|call| call.id != id).collect();
        prop_assert_eq!(kept, ledger.calls.iter().collect::<Vec<_>>());

        let shorter = without_old_calls(&ledger, midnight());
        let counting: Vec<Call> =
            ledger.calls.iter().filter(|call| counts_until(call) > midnight()).cloned().collect();
        prop_assert_eq!(&shorter.calls, &counting);
        let rest = StreamLedgerSpec { calls: ledger.calls.clone(), ..shorter };
        prop_assert_eq!(rest, ledger);
    }

    #[test]
    fn kubernetes_gives_back_the_ledger_that_was_written(nanoseconds in 0_i64..2_000_000_000, created in 0_i64..2_000_000_000) {
        let at = midnight() + SignedDuration::from_nanos(nanoseconds);
        let created = midnight() - SignedDuration::from_nanos(created);
        let called = with_call(&empty(Service::Kinesis), at, Some(Err(&fault(Class::Denied, "Code"))));
        let seen = at + SignedDuration::from_mins(1);
        let learned = super::learn(&called, &Observation::Off, Some(created), Some(&key(1).target()), true, seen);
        let stored = read_again(&learned);
        prop_assert_eq!(&stored, &learned);
        // A look that shows nothing new teaches nothing, so nothing is written.
        let again = super::learn(&stored, &Observation::Off, Some(created), Some(&key(1).target()), true, seen);
        prop_assert_eq!(again, stored);
    }
}
