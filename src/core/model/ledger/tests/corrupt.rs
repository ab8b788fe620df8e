//! Ledgers that were edited by hand, corrupted, or written by another version: each is either rejected or
//! used safely.
//!
//! Safely means: no entry is lost, each entry that counts is counted (future ones too), a decision makes only
//! calls that the test's own count allows, and no time causes a panic.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use stream_encryption_api::condition::{ConditionStatus, Reason};
use stream_encryption_api::ledger::{Action, Call, Outcome, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::Service;

use super::{empty, plan, seconds, with_call};
use crate::json_mutation::{mutated, mutations};
use crate::model::aws_error::ErrorKind;
use crate::model::decision::Step;
use crate::model::desired::DesiredEncryption;
use crate::model::key::Key;
use crate::model::ledger::{
    self, AWS_LIMIT, QUOTA_WINDOW, apply_observation, budget, record_outcome, reserve, validate,
};
use crate::model::observation::Observation;
use crate::model::scenario::{Scenario, aws_error, key, midnight, stream};
use crate::model::{message, status_fields};

/// Generates ledgers as the operator produces them.
fn grown(service: Service) -> impl Strategy<Value = StreamLedgerSpec> {
    let outcome = prop_oneof![
        Just(None),
        Just(Some(Ok(()))),
        Just(Some(Err(aws_error(ErrorKind::Denied, "AccessDeniedException")))),
        Just(Some(Err(aws_error(ErrorKind::UnknownOutcome, "InternalFailure")))),
    ];
    let calls = prop::collection::vec((-100_000_i64..0, outcome), 1..30);
    let seen = prop::option::of(prop_oneof![Just(Observation::Off), Just(Observation::On(key(1)))]);
    (calls, seen).prop_map(move |(mut calls, seen)| {
        calls.sort_by_key(|(at, _)| *at);
        let ledger = calls.iter().fold(empty(service), |ledger, (at, outcome)| {
            with_call(&ledger, seconds(*at), outcome.as_ref().map(|outcome| outcome.as_ref().copied()))
        });
        let wanted = key(1).target();
        seen.map_or(ledger.clone(), |seen| {
            apply_observation(&ledger, &seen, Some(seconds(-200_000)), Some(&wanted), false, midnight())
        })
    })
}

/// Values of a ledger, to be put in other places.
const WORDS: [&str; 10] = [
    "Start",
    "Stop",
    "Pause",
    "Pending",
    "Accepted",
    "Refused",
    "AWS_OWNED_CMK",
    "CUSTOMER_MANAGED_CMK",
    "2026-01-01T00:00:00Z",
    "2026-01-01T12:00:00.000000Z",
];
const MEMBERS: [&str; 7] = ["code", "key", "retry", "reason", "encryptedSinceTime", "tomorrow", "arn"];

fn services() -> impl Strategy<Value = Service> {
    prop_oneof![Just(Service::Firehose), Just(Service::Kinesis)]
}

/// Generates ledgers that are nearly valid.
fn suspicious() -> impl Strategy<Value = (Service, Value)> {
    services().prop_flat_map(|service| {
        let midnight = midnight().as_second();
        let damages = mutations(3, &MEMBERS, &WORDS, midnight - 200_000..midnight + 200_000);
        (grown(service), damages).prop_map(move |(ledger, damages)| {
            (service, mutated(serde_json::to_value(ledger).unwrap(), &damages))
        })
    })
}

/// Returns the ledger if it is valid.
fn believed(service: Service, value: &Value) -> Option<StreamLedgerSpec> {
    let ledger: StreamLedgerSpec = serde_json::from_value(value.clone()).ok()?;
    validate(&ledger, &stream(service)).is_ok().then_some(ledger)
}

/// Returns the number of entries that count against the limit, computed independently of the ledger's own
/// code.
fn counting(ledger: &Value, service: Service, action: &str, now: Timestamp) -> usize {
    let calls = ledger["calls"].as_array().map_or(&[][..], Vec::as_slice);
    let counts = |call: &&Value| {
        let at: Timestamp = call["time"].as_str().unwrap().parse().unwrap();
        let over = now.duration_since(at) >= QUOTA_WINDOW;
        let kinesis = call["target"]["action"] == action && call["outcome"] != "Refused";
        !over && (service == Service::Firehose || kinesis)
    };
    calls.iter().filter(counts).count()
}

fn moments() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        6 => (-200_000_i64..200_000).prop_map(seconds),
        1 => Just(Timestamp::MIN),
        1 => Just(Timestamp::MAX),
        1 => any::<i64>().prop_map(|at| Timestamp::from_second(at % 200_000_000_000).unwrap()),
    ]
}

fn observations() -> impl Strategy<Value = Observation> {
    prop::sample::select(vec![
        Observation::Off,
        Observation::On(Key::AwsOwned),
        Observation::On(key(1)),
        Observation::On(Key::Unresolved(String::new())),
        Observation::InProgress(None),
        Observation::InProgress(Some(Action::Stop)),
        Observation::Failed { action: Action::Start, reason: String::new() },
        Observation::Missing,
        Observation::Creating,
    ])
}

fn wishes() -> impl Strategy<Value = DesiredEncryption> {
    prop::sample::select(vec![
        DesiredEncryption::AnyKey,
        DesiredEncryption::Key(key(1)),
        DesiredEncryption::Key(Key::AwsOwned),
        DesiredEncryption::Off,
        DesiredEncryption::UnknownKey,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_counting_entry_of_valid_ledger_is_counted((service, value) in suspicious(), now in moments()) {
        let Some(ledger) = believed(service, &value) else { return Ok(()) };
        prop_assert_eq!(ledger.calls.len(), value["calls"].as_array().map_or(0, Vec::len), "an entry was lost");
        for (action, word) in [(Action::Start, "Start"), (Action::Stop, "Stop")] {
            let counting = counting(&value, service, word, now);
            let budget = budget(&ledger, service, action, AWS_LIMIT, now);
            prop_assert!(budget.used as usize >= counting, "{} of {}", budget.used, counting);
            prop_assert!(!budget.has_room() || counting < AWS_LIMIT as usize);
        }
    }

    #[test]
    fn decision_from_valid_ledger_stays_within_budget(
        (service, value) in suspicious(), now in moments(), observation in observations(), wanted in wishes(),
    ) {
        let Some(ledger) = believed(service, &value) else { return Ok(()) };
        let word = if wanted == DesiredEncryption::Off { "Stop" } else { "Start" };
        let mut s = Scenario::of(service).wants(wanted);
        (s.now, s.ledger) = (now, ledger);
        let s = s.sees(observation);
        let decision = s.decide();
        let calls = matches!(decision.step, Step::ChangeEncryption(_));
        prop_assert!(!calls || counting(&value, service, word, now) < s.permission.max_calls_per_day(&s.stream) as usize);
        prop_assert!(decision.wake >= now);
        // Messages and status fields are computed without a panic and without a contradiction.
        let i = s.input();
        prop_assert!(!message::ready(&i, &decision).is_empty());
        prop_assert!(!message::encrypted(&i).is_empty());
        prop_assert!(!message::key_usable(&i).is_empty());
        prop_assert!(status_fields::encrypted_since_time(&i).is_none() || status_fields::plaintext_since_time(&i).is_none());
        prop_assert!(status_fields::encrypted_since_time(&i).is_none() || status_fields::active_key(&i).is_some());
        let truth = status_fields::encrypted(&i, decision.reason);
        prop_assert_eq!(truth == ConditionStatus::True, status_fields::encrypted_since_time(&i).is_some() && decision.reason != Reason::Verifying);
        let _ = (status_fields::encryption_status(&i), status_fields::failure_code(&i));
    }

    #[test]
    fn valid_ledger_stays_valid_after_every_operation(
        (service, value) in suspicious(), now in moments(), observation in observations(),
    ) {
        let Some(ledger) = believed(service, &value) else { return Ok(()) };
        let wanted = key(1).target();
        let updated = apply_observation(&ledger, &observation, Some(now), Some(&wanted), true, now);
        let (reserved, id) = reserve(&updated, &plan(), now);
        let recorded = record_outcome(&reserved, &id, Err(&aws_error(ErrorKind::UnknownOutcome, "InternalFailure")), now);
        for after in [&updated, &reserved, &recorded] {
            prop_assert_eq!(validate(after, &stream(service)), Ok(()));
            prop_assert!(serde_json::to_value(after).is_ok());
        }
        prop_assert_eq!(reserved.calls.len(), ledger.calls.len() + 1);
        let shorter = ledger::prune_expired(&reserved, now);
        prop_assert_eq!(validate(&shorter, &stream(service)), Ok(()));
        let kept = |call: &&Call| ledger::expires_at(call) > now;
        prop_assert_eq!(shorter.calls.len(), reserved.calls.iter().filter(kept).count());
        prop_assert_eq!(recorded.calls.last().map(|call| call.outcome), Some(Outcome::Unknown));
    }
}

#[test]
fn random_ledgers_are_often_valid_and_often_invalid() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let ledgers = suspicious();
    let some = (0..200).map(|_| ledgers.new_tree(&mut runner).unwrap().current());
    let believed = some.filter(|(service, value)| believed(*service, value).is_some()).count();
    assert!((60..140).contains(&believed), "{believed} of 200");
}

#[test]
fn unknown_or_missing_value_makes_ledger_invalid() {
    let ledger = with_call(&empty(Service::Kinesis), midnight(), Some(Ok(())));
    let good = serde_json::to_value(&ledger).unwrap();
    assert!(believed(Service::Kinesis, &good).is_some());
    for (place, word) in [
        ("/calls/0/outcome", json!("Perhaps")),
        ("/calls/0/outcome", json!("refused")),
        ("/calls/0/target/action", json!("Pause")),
        ("/calls/0/target/key/type", json!("SHARED_CMK")),
        ("/attempts/count", json!(-1)),
        ("/attempts/count", json!(4_294_967_296_u64)),
        ("/attempts/notBeforeTime", json!("later")),
        ("/calls/0/time", json!(null)),
        ("/calls", json!({})),
        ("/owner", json!("data/orders")),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(place).unwrap() = word;
        assert!(believed(Service::Kinesis, &value).is_none(), "{place}: {value}");
    }
    for (place, member) in [
        ("/calls/0", "id"),
        ("/calls/0", "time"),
        ("/calls/0", "outcome"),
        ("/calls/0", "target"),
        ("", "owner"),
    ] {
        let mut value = good.clone();
        value.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(member);
        assert!(believed(Service::Kinesis, &value).is_none(), "without {place}/{member}");
    }
}

#[test]
fn oversized_ledger_has_no_room_until_calls_expire() {
    let mut ledger =
        with_call(&empty(Service::Kinesis), midnight(), Some(Err(&aws_error(ErrorKind::InUse, "Code"))));
    let call = ledger.calls.remove(0);
    ledger.calls = (0..10_000).map(|n| Call { id: n.to_string(), ..call.clone() }).collect();
    assert_eq!(validate(&ledger, &stream(Service::Kinesis)), Ok(()));
    let mut s = Scenario::of(Service::Kinesis);
    s.ledger = ledger;
    let s = s.after(100_000 - 15_000).sees(Observation::Off);
    assert_eq!((s.decide().step, s.decide().reason), (Step::Wait, Reason::CallLimitReached));
    let s = s.after(QUOTA_WINDOW.as_secs() - 85_000).sees(Observation::Off).calls();
    let kept = ledger::prune_expired(&s.ledger, s.now).calls;
    assert_eq!(kept.len(), 1, "with the next call, those that are too old to count go");
    assert!(s.now.duration_since(midnight()) < QUOTA_WINDOW + SignedDuration::from_secs(1));
}
