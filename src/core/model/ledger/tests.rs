//! Properties of a ledger: its name, its validation, its round trip through Kubernetes, and reservations.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use stream_encryption_api::ledger::{
    Action, Call, KnownEncryption, Outcome, Owner, StreamLedgerSpec, Target,
};
use stream_encryption_api::stream_encryption::{KeyIdentity, KeyType, Service};

use super::{LedgerError, PlannedCall, expires_at, name, prune_expired, record_outcome, reserve, validate};
use crate::model::arn::StreamArn;
use crate::model::aws_error::{AwsError, ErrorKind};
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::scenario::{ACCEPTED, aws_error, key, midnight, owner, stream};

mod budget;
mod corrupt;
mod learning;
mod unknown_key;
mod window;

/// Returns an empty ledger of a stream of this service.
fn empty(service: Service) -> StreamLedgerSpec {
    super::new(&stream(service), owner())
}

/// Returns a Start with key 1, which is also the desired key.
fn plan() -> PlannedCall {
    PlannedCall {
        target: key(1).target(),
        desired_target: key(1).target(),
        retry: None,
        correction: false,
        after_failure: false,
    }
}

/// Returns a ledger with these calls.
fn of_calls(calls: &[Call]) -> StreamLedgerSpec {
    StreamLedgerSpec { calls: calls.to_vec(), ..empty(Service::Kinesis) }
}

fn seconds(seconds: i64) -> Timestamp {
    midnight() + SignedDuration::from_secs(seconds)
}

/// Returns the ledger with one more call and its outcome.
fn with_call(
    ledger: &StreamLedgerSpec,
    at: Timestamp,
    outcome: Option<Result<(), &AwsError>>,
) -> StreamLedgerSpec {
    let (reserved, id) = reserve(ledger, &plan(), at);
    outcome
        .map_or(reserved.clone(), |outcome| record_outcome(&reserved, &id, outcome.map(|()| &ACCEPTED), at))
}

/// Returns the ledger as Kubernetes returns it.
fn forget_version(ledger: &StreamLedgerSpec) -> StreamLedgerSpec {
    serde_json::from_str(&serde_json::to_string(ledger).unwrap()).unwrap()
}

#[test]
fn ledger_name_is_valid_in_kubernetes() {
    for service in [Service::Firehose, Service::Kinesis] {
        let name = name(&stream(service));
        assert!(name.len() <= 63, "{name} does not fit into a label");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.ends_with('-'), "{name}");
    }
}

#[test]
fn ledger_name_is_stable() {
    let stream: StreamArn = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders".parse().unwrap();
    // printf %s ARN | sha256sum
    assert_eq!(name(&stream), "stream-473e5ca2eb217fd39be6cd218b6b0bb60eb87b61");
}

#[test]
fn distinct_streams_have_distinct_ledger_names() {
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
fn ledger_of_another_stream_is_invalid() {
    let other: StreamArn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap();
    assert_eq!(validate(&empty(Service::Kinesis), &other), Err(LedgerError::OtherStream));
    assert_eq!(validate(&empty(Service::Kinesis), &stream(Service::Firehose)), Err(LedgerError::OtherStream));
    assert_eq!(validate(&empty(Service::Kinesis), &stream(Service::Kinesis)), Ok(()));
}

#[test]
fn ledger_with_duplicate_call_id_is_invalid() {
    let mut ledger = with_call(&empty(Service::Kinesis), midnight(), None);
    assert_eq!(validate(&ledger, &stream(Service::Kinesis)), Ok(()));
    ledger.calls.push(ledger.calls[0].clone());
    assert_eq!(validate(&ledger, &stream(Service::Kinesis)), Err(LedgerError::RepeatedCall));
}

#[test]
fn ledger_with_inconsistent_call_target_is_invalid() {
    for target in [
        Target { action: Action::Start, key: None },
        Target { action: Action::Stop, key: Some(Key::AwsOwned.to_api()) },
        Target {
            action: Action::Start,
            key: Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: None }),
        },
        Target {
            action: Action::Start,
            key: Some(KeyIdentity { arn: Some("x".into()), ..Key::AwsOwned.to_api() }),
        },
    ] {
        let mut ledger = with_call(&empty(Service::Kinesis), midnight(), None);
        ledger.calls[0].target = target;
        assert_eq!(validate(&ledger, &stream(Service::Kinesis)), Err(LedgerError::InvalidCall));
    }
}

#[test]
fn ledger_with_impossible_owner_is_invalid() {
    for owner in [
        Owner { uid: String::new(), ..owner() },
        Owner { name: String::new(), ..owner() },
        Owner { namespace: String::new(), ..owner() },
        Owner { name: "../secrets".into(), ..owner() },
        Owner { namespace: "my data".into(), ..owner() },
    ] {
        let ledger = StreamLedgerSpec { owner, ..empty(Service::Kinesis) };
        assert_eq!(
            validate(&ledger, &stream(Service::Kinesis)),
            Err(LedgerError::InvalidOwner),
            "{:?}",
            ledger.owner
        );
    }
}

#[test]
fn ledger_with_contradictory_active_key_is_invalid() {
    let since = MicroTime(midnight());
    let good = KnownEncryption {
        key: Some(key(1).to_api()),
        since_time: since.clone(),
        encrypted_since_time: Some(since),
    };
    let plain = KnownEncryption { key: None, encrypted_since_time: None, ..good.clone() };
    let nameless = KeyIdentity { kind: KeyType::CustomerManaged, arn: None };
    let check = |known_encryption: &KnownEncryption| {
        let ledger =
            StreamLedgerSpec { known_encryption: Some(known_encryption.clone()), ..empty(Service::Kinesis) };
        validate(&ledger, &stream(Service::Kinesis))
    };
    assert_eq!((check(&good), check(&plain)), (Ok(()), Ok(())));
    for bad in [
        KnownEncryption { key: None, ..good.clone() },
        KnownEncryption { encrypted_since_time: None, ..good.clone() },
        // The status would show it as the AWS-owned key.
        KnownEncryption { key: Some(nameless), ..good.clone() },
    ] {
        assert_eq!(check(&bad), Err(LedgerError::InvalidActiveKey), "{bad:?}");
    }
}

#[test]
fn reserved_call_is_pending_and_matches_plan() {
    let plan = PlannedCall { retry: Some("now".into()), correction: true, ..plan() };
    let (ledger, id) = reserve(&empty(Service::Firehose), &plan, midnight());
    let [
        Call {
            id: kept,
            target,
            time,
            outcome,
            code,
            request_id,
            correction,
            after_failure: _,
            confirmed,
            retry,
        },
    ] = &ledger.calls[..]
    else {
        panic!("{ledger:?}")
    };
    assert_eq!((kept, target, time), (&id, &plan.target, &MicroTime(midnight())));
    assert_eq!((outcome, code, correction), (&Outcome::Pending, &None, &true));
    assert!(!confirmed, "not described since");
    assert_eq!(*request_id, None, "not sent yet");
    assert_eq!(*retry, plan.retry);
    assert_eq!(ledger.attempts.unwrap().retry, plan.retry);
}

#[test]
fn entry_is_pruned_once_it_no_longer_counts() {
    let ledger = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let over = expires_at(&ledger.calls[0]);
    for (verified_now, kept) in [(over - SignedDuration::from_micros(1), 1), (over, 0)] {
        assert_eq!(prune_expired(&ledger, verified_now).calls.len(), kept, "{verified_now}");
    }
}

#[test]
fn outcome_is_recorded_on_its_own_call() {
    let denied = aws_error(ErrorKind::Denied, "AccessDeniedException");
    for (outcome, kept, code) in [
        (Ok(()), Outcome::Accepted, None),
        (Err(&denied), Outcome::Refused, Some("AccessDeniedException")),
        (
            Err(&aws_error(ErrorKind::UnknownOutcome, "InternalFailure")),
            Outcome::Unknown,
            Some("InternalFailure"),
        ),
    ] {
        let (first, id) = reserve(&empty(Service::Firehose), &plan(), midnight());
        let second = with_call(&first, seconds(1000), None);
        let ledger = record_outcome(&second, &id, outcome.map(|()| &ACCEPTED), seconds(1001));
        assert_eq!(ledger.calls[0].outcome, kept);
        assert_eq!(ledger.calls[0].code.as_deref(), code);
        assert_eq!(ledger.calls[1], second.calls[1], "the other call is as it was");
    }
    let ledger = with_call(&empty(Service::Firehose), midnight(), None);
    assert_eq!(record_outcome(&ledger, "no such call", Ok(&ACCEPTED), midnight()), ledger);
}

#[test]
fn late_error_does_not_override_observed_outcome() {
    let (reserved, id) = reserve(&empty(Service::Firehose), &plan(), midnight());
    let adopted = super::apply_observation(
        &reserved,
        &Observation::InProgress(Some(Action::Start)),
        None,
        Some(&key(1).target()),
        false,
        seconds(2),
    );
    assert_eq!(adopted.calls[0].outcome, Outcome::Accepted, "it was seen being carried out");
    for kind in [ErrorKind::UnknownOutcome, ErrorKind::InUse, ErrorKind::Denied, ErrorKind::LimitReached] {
        let late = aws_error(kind, "Code");
        assert_eq!(record_outcome(&adopted, &id, Err(&late), seconds(10)), adopted, "{kind:?}");
        let unknown = StreamLedgerSpec {
            calls: vec![Call { outcome: Outcome::Unknown, ..reserved.calls[0].clone() }],
            ..reserved.clone()
        };
        assert_eq!(record_outcome(&unknown, &id, Err(&late), seconds(10)), unknown, "{kind:?}");
    }
    // The response that AWS accepted the call is more reliable than any observation.
    let unknown = record_outcome(
        &reserved,
        &id,
        Err(&aws_error(ErrorKind::UnknownOutcome, "InternalFailure")),
        seconds(1),
    );
    assert_eq!(record_outcome(&unknown, &id, Ok(&ACCEPTED), seconds(2)).calls[0].outcome, Outcome::Accepted);
}

#[test]
fn attempts_are_counted_per_target_with_growing_wait() {
    let mut ledger = empty(Service::Firehose);
    let mut waits = Vec::new();
    for n in 0..8 {
        ledger = with_call(&ledger, seconds(n * 30_000), Some(Ok(())));
        let attempts = ledger.attempts.clone().unwrap();
        waits
            .push((attempts.count, attempts.not_before_time.0.duration_since(seconds(n * 30_000)).as_mins()));
    }
    assert_eq!(waits, [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 320), (8, 360)]);

    let other = PlannedCall { target: key(2).target(), desired_target: key(2).target(), ..plan() };
    assert_eq!(
        reserve(&ledger, &other, seconds(300_000)).0.attempts.unwrap().count,
        1,
        "another key begins anew"
    );
}

#[test]
fn refusal_records_reason_and_wait() {
    for (kind, reason, minutes) in [
        (ErrorKind::InUse, "StreamInUse", 0),
        (ErrorKind::Denied, "AccessDenied", 5),
        (ErrorKind::KeyAccessDenied, "KeyAccessDenied", 5),
        (ErrorKind::LimitReached, "CallLimitReached", 60),
    ] {
        let ledger = with_call(&empty(Service::Firehose), midnight(), Some(Err(&aws_error(kind, "Code"))));
        let attempts = ledger.attempts.unwrap();
        assert_eq!(attempts.reason.as_deref(), Some(reason));
        assert_eq!(attempts.not_before_time.0.duration_since(midnight()).as_mins(), minutes, "{kind:?}");
    }
    let next =
        with_call(&empty(Service::Firehose), midnight(), Some(Err(&aws_error(ErrorKind::InUse, "Code"))));
    assert_eq!(
        with_call(&next, seconds(60), None).attempts.unwrap().reason,
        None,
        "the next attempt begins without"
    );
}

#[test]
fn calls_in_same_millisecond_have_unique_ids() {
    let ledger = (0..30).fold(empty(Service::Firehose), |ledger, _| with_call(&ledger, midnight(), None));
    assert_eq!(validate(&ledger, &stream(Service::Firehose)), Ok(()));
    assert_eq!(ledger.calls.len(), 30);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn call_ids_are_unique_for_any_clock(jumps in prop::collection::vec(-3_i64..3, 1..60)) {
        let mut now = midnight();
        let mut ledger = empty(Service::Firehose);
        for jump in jumps {
            now += SignedDuration::from_millis(jump);
            ledger = with_call(&ledger, now, None);
        }
        prop_assert_eq!(validate(&ledger, &stream(Service::Firehose)), Ok(()));
    }

    #[test]
    fn reservation_keeps_calls_and_pruning_needs_proven_time(
        ages in prop::collection::vec(-100_000_i64..100_000, 0..40),
        ahead in -200_000_i64..200_000,
    ) {
        let mut ledger = empty(Service::Firehose);
        for age in &ages {
            ledger.calls.extend(with_call(&empty(Service::Firehose), seconds(-age), None).calls);
        }
        // For any time of the operator's clock.
        let (reserved, id) = reserve(&ledger, &plan(), seconds(ahead));
        let kept: Vec<&Call> = reserved.calls.iter().filter(|call| call.id != id).collect();
        prop_assert_eq!(kept, ledger.calls.iter().collect::<Vec<_>>());

        let shorter = prune_expired(&ledger, midnight());
        let counting: Vec<Call> =
            ledger.calls.iter().filter(|call| expires_at(call) > midnight()).cloned().collect();
        prop_assert_eq!(&shorter.calls, &counting);
        let rest = StreamLedgerSpec { calls: ledger.calls.clone(), ..shorter };
        prop_assert_eq!(rest, ledger);
    }

    #[test]
    fn ledger_round_trips_through_kubernetes(nanoseconds in 0_i64..2_000_000_000, created in 0_i64..2_000_000_000) {
        let at = midnight() + SignedDuration::from_nanos(nanoseconds);
        let created = midnight() - SignedDuration::from_nanos(created);
        let called = with_call(&empty(Service::Kinesis), at, Some(Err(&aws_error(ErrorKind::Denied, "Code"))));
        let seen = at + SignedDuration::from_mins(1);
        let updated = super::apply_observation(&called, &Observation::Off, Some(created), Some(&key(1).target()), true, seen);
        let stored = forget_version(&updated);
        prop_assert_eq!(&stored, &updated);
        // An observation without news does not change the ledger, so no write is needed.
        let again = super::apply_observation(&stored, &Observation::Off, Some(created), Some(&key(1).target()), true, seen);
        prop_assert_eq!(again, stored);
    }
}
