//! Ledgers that were edited by hand, damaged, or written by another version: each is either refused, or believed soundly.
//!
//! Soundly means: no entry is lost, each that counts is counted (those of the future too), what is decided from it calls
//! only within what is left by a count of the test's own, and nothing panics at whatever time.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{empty, plan, seconds, with_call};
use crate::api::condition::{Reason, Truth};
use crate::api::damage::{damaged, damages};
use crate::api::ledger::{Action, Call, Outcome, StreamLedgerSpec};
use crate::api::stream_encryption::Service;
use crate::model::decision::{Step, Wanted};
use crate::model::fault::Class;
use crate::model::key::Key;
use crate::model::ledger::{self, AWS_LIMIT, WINDOW, budget, check, learn, record, reserve};
use crate::model::observation::Observation;
use crate::model::situation::{Situation, fault, key, midnight, stream};
use crate::model::{claims, message};

/// Ledgers as they come about.
fn grown(service: Service) -> impl Strategy<Value = StreamLedgerSpec> {
    let outcome = prop_oneof![
        Just(None),
        Just(Some(Ok(()))),
        Just(Some(Err(fault(Class::Denied, "AccessDeniedException")))),
        Just(Some(Err(fault(Class::UnknownOutcome, "InternalFailure")))),
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
            learn(&ledger, &seen, Some(seconds(-200_000)), Some(&wanted), false, midnight())
        })
    })
}

/// What may stand in a ledger, at another place.
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
const MEMBERS: [&str; 7] = ["code", "key", "retry", "reason", "encryptedSince", "tomorrow", "arn"];

fn services() -> impl Strategy<Value = Service> {
    prop_oneof![Just(Service::Firehose), Just(Service::Kinesis)]
}

/// A ledger that is nearly right.
fn suspicious() -> impl Strategy<Value = (Service, Value)> {
    services().prop_flat_map(|service| {
        let midnight = midnight().as_second();
        let damages = damages(3, &MEMBERS, &WORDS, midnight - 200_000..midnight + 200_000);
        (grown(service), damages).prop_map(move |(ledger, damages)| {
            (service, damaged(serde_json::to_value(ledger).unwrap(), &damages))
        })
    })
}

/// The ledger, if it is believed.
fn believed(service: Service, value: &Value) -> Option<StreamLedgerSpec> {
    let ledger: StreamLedgerSpec = serde_json::from_value(value.clone()).ok()?;
    check(&ledger, &stream(service)).is_ok().then_some(ledger)
}

/// How many entries count against the limit, by a count that shares nothing with the ledger's own.
fn counting(ledger: &Value, service: Service, action: &str, now: Timestamp) -> usize {
    let calls = ledger["calls"].as_array().map_or(&[][..], Vec::as_slice);
    let counts = |call: &&Value| {
        let at: Timestamp = call["time"].as_str().unwrap().parse().unwrap();
        let over = now.duration_since(at) >= WINDOW;
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
        Observation::Changing(None),
        Observation::Changing(Some(Action::Stop)),
        Observation::Failed { action: Action::Start, reason: String::new() },
        Observation::Missing,
        Observation::Creating,
    ])
}

fn wishes() -> impl Strategy<Value = Wanted> {
    prop::sample::select(vec![
        Wanted::AnyKey,
        Wanted::Key(key(1)),
        Wanted::Key(Key::AwsOwned),
        Wanted::Off,
        Wanted::UnknownKey,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_of_a_believed_ledger_that_counts_is_counted((service, value) in suspicious(), now in moments()) {
        let Some(ledger) = believed(service, &value) else { return Ok(()) };
        prop_assert_eq!(ledger.calls.len(), value["calls"].as_array().map_or(0, Vec::len), "an entry was lost");
        for (action, word) in [(Action::Start, "Start"), (Action::Stop, "Stop")] {
            let counting = counting(&value, service, word, now);
            let budget = budget(&ledger.calls, service, action, AWS_LIMIT, now);
            prop_assert!(budget.used as usize >= counting, "{} of {}", budget.used, counting);
            prop_assert!(!budget.has_room() || counting < AWS_LIMIT as usize);
        }
    }

    #[test]
    fn what_is_decided_from_a_believed_ledger_calls_only_within_what_is_left(
        (service, value) in suspicious(), now in moments(), observation in observations(), wanted in wishes(),
    ) {
        let Some(ledger) = believed(service, &value) else { return Ok(()) };
        let word = if wanted == Wanted::Off { "Stop" } else { "Start" };
        let mut s = Situation::of(service).wants(wanted);
        (s.now, s.ledger) = (now, ledger);
        let s = s.sees(observation);
        let decision = s.decide();
        let calls = matches!(decision.step, Step::Call(_));
        prop_assert!(!calls || counting(&value, service, word, now) < s.permission.max_calls_per_day(&s.stream) as usize);
        prop_assert!(decision.wake >= now);
        // What is told is told without a panic, and without a contradiction.
        let i = s.input();
        prop_assert!(!message::ready(&i, &decision).is_empty());
        prop_assert!(!message::encrypted(&i).is_empty());
        prop_assert!(!message::key_usable(&i).is_empty());
        prop_assert!(claims::encrypted_since(&i).is_none() || claims::plain_text_since(&i).is_none());
        prop_assert!(claims::encrypted_since(&i).is_none() || claims::key_in_force(&i).is_some());
        let truth = claims::encrypted(&i, decision.reason);
        prop_assert_eq!(truth == Truth::True, claims::encrypted_since(&i).is_some() && decision.reason != Reason::Verifying);
        let _ = (claims::encryption_status(&i), claims::failure(&i));
    }

    #[test]
    fn a_believed_ledger_is_believed_after_all_that_the_operator_does_with_it(
        (service, value) in suspicious(), now in moments(), observation in observations(),
    ) {
        let Some(ledger) = believed(service, &value) else { return Ok(()) };
        let wanted = key(1).target();
        let learned = learn(&ledger, &observation, Some(now), Some(&wanted), true, now);
        let (reserved, id) = reserve(&learned, &plan(), now);
        let recorded = record(&reserved, &id, Err(&fault(Class::UnknownOutcome, "InternalFailure")), now);
        for after in [&learned, &reserved, &recorded] {
            prop_assert_eq!(check(after, &stream(service)), Ok(()));
            prop_assert!(serde_json::to_value(after).is_ok());
        }
        prop_assert_eq!(reserved.calls.len(), ledger.calls.len() + 1);
        let shorter = ledger::without_old_calls(&reserved, now);
        prop_assert_eq!(check(&shorter, &stream(service)), Ok(()));
        let kept = |call: &&Call| ledger::counts_until(call) > now;
        prop_assert_eq!(shorter.calls.len(), reserved.calls.iter().filter(kept).count());
        prop_assert_eq!(recorded.calls.last().map(|call| call.outcome), Some(Outcome::Unknown));
    }
}

#[test]
fn the_random_ledgers_are_believed_often_and_refused_often() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let ledgers = suspicious();
    let some = (0..200).map(|_| ledgers.new_tree(&mut runner).unwrap().current());
    let believed = some.filter(|(service, value)| believed(*service, value).is_some()).count();
    assert!((60..140).contains(&believed), "{believed} of 200");
}

#[test]
fn a_word_of_another_version_is_not_guessed() {
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
        ("/attempts/notBefore", json!("later")),
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
fn more_calls_than_a_ledger_holds_leave_no_room_until_they_have_aged_out() {
    let mut ledger = with_call(&empty(Service::Kinesis), midnight(), Some(Err(&fault(Class::InUse, "Code"))));
    let call = ledger.calls.remove(0);
    ledger.calls = (0..10_000).map(|n| Call { id: n.to_string(), ..call.clone() }).collect();
    assert_eq!(check(&ledger, &stream(Service::Kinesis)), Ok(()));
    let mut s = Situation::of(Service::Kinesis);
    s.ledger = ledger;
    let s = s.after(100_000 - 15_000).sees(Observation::Off);
    assert_eq!((s.decide().step, s.decide().reason), (Step::Rest, Reason::CallLimitReached));
    let s = s.after(WINDOW.as_secs() - 85_000).sees(Observation::Off).calls();
    let kept = ledger::without_old_calls(&s.ledger, s.now).calls;
    assert_eq!(kept.len(), 1, "with the next call, those that are too old to count go");
    assert!(s.now.duration_since(midnight()) < WINDOW + SignedDuration::from_secs(1));
}
