//! One table: a sentence for each row of [`decide`](super::decide), for both services, and properties over
//! random input.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;

use super::{Decision, PROPAGATION_DELAY, Step};
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::scenario::Scenario;

mod calling;
mod hands_off;
mod looking;
mod messages;
mod observing;
mod properties;
mod waiting;

/// A sentence, the scenario that it describes, and the expected decision.
type Row = (&'static str, Scenario, Expected);

/// The expected decision; times in seconds from now.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    step: Kind,
    reason: Reason,
    wake: i64,
    next_attempt: Option<i64>,
}

/// A step without the parts that only the ledger uses.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Describe,
    Rest,
    Start(Key),
    Stop,
    Verify,
    Release,
}

fn rests(reason: Reason, wake: i64) -> Expected {
    Expected { step: Kind::Rest, reason, wake, next_attempt: None }
}

fn waits(reason: Reason, wake: i64, until: i64) -> Expected {
    Expected { next_attempt: Some(until), ..rests(reason, wake) }
}

fn starts(key: Key) -> Expected {
    Expected { step: Kind::Start(key), ..rests(Reason::Enabling, 2) }
}

fn stops() -> Expected {
    Expected { step: Kind::Stop, ..rests(Reason::Disabling, 2) }
}

fn releases(reason: Reason, wake: i64) -> Expected {
    Expected { step: Kind::Release, ..rests(reason, wake) }
}

/// Returns the decision in the form of the table.
fn decided(situation: &Scenario) -> Expected {
    let Decision { step, reason, wake, next_attempt, .. } = situation.decide();
    let seconds = |at: jiff::Timestamp| {
        let wait = at.duration_since(situation.now);
        assert_eq!(wait, SignedDuration::from_secs(wait.as_secs()), "not a whole second");
        wait.as_secs()
    };
    let step = match step {
        Step::Describe => Kind::Describe,
        Step::Wait => Kind::Rest,
        Step::Verify => Kind::Verify,
        Step::RemoveFinalizer => Kind::Release,
        Step::ChangeEncryption(call) => match (call.target.action, call.target.key) {
            (Action::Start, Some(key)) => Kind::Start(Key::of(&key)),
            (Action::Stop, None) => Kind::Stop,
            meaningless => panic!("{meaningless:?}"),
        },
    };
    Expected { step, reason, wake: seconds(wake), next_attempt: next_attempt.map(seconds) }
}

fn rows(service: Service) -> Vec<Row> {
    [hands_off::rows(service), looking::rows(service), waiting::rows(service), calling::rows(service)]
        .concat()
}

#[test]
fn every_table_row_holds_for_both_services() {
    let wrong: Vec<String> = [Service::Firehose, Service::Kinesis]
        .into_iter()
        .flat_map(|service| rows(service).into_iter().map(move |row| (service, row)))
        .filter(|(_, (_, situation, expected))| decided(situation) != *expected)
        .map(|(service, (sentence, situation, expected))| {
            format!("{service:?}: {sentence}:\n  decided  {:?}\n  expected {expected:?}", decided(&situation))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn next_describe_coincides_with_wake_unless_settling() {
    for (sentence, situation, _) in [rows(Service::Firehose), rows(Service::Kinesis)].concat() {
        let Decision { reason, wake, describe_due, .. } = situation.decide();
        // During the propagation delay no new state is expected: one Describe serves the decisions before and
        // after it.
        let known = situation.ledger.known_encryption.as_ref();
        let settles = known.is_some_and(|known| known.since_time.0 + PROPAGATION_DELAY == wake);
        let is_settling = settles && wake < describe_due;
        assert!(wake == describe_due || is_settling, "{sentence}, {reason}: {wake} and {describe_due}");
    }
}

#[test]
fn table_covers_every_reason() {
    let given: BTreeSet<Reason> = rows(Service::Firehose)
        .into_iter()
        .chain(rows(Service::Kinesis))
        .map(|(_, situation, _)| situation.decide().reason)
        .collect();
    // Other modules report these two: for an invalid spec, and for a usable key.
    let elsewhere = [Reason::SpecInvalid, Reason::KeyEnabled];
    let all: BTreeSet<Reason> =
        Reason::ALL.iter().copied().filter(|reason| !elsewhere.contains(reason)).collect();
    assert_eq!(given, all, "left: the table; right: the enum");
}

/// The first call received no response and can no longer arrive. After the second call, the clock was set
/// back.
#[test]
fn expired_call_is_not_awaited_while_newer_call_is_unconfirmed() {
    let first = Scenario::of(Service::Firehose).sees(Observation::Off).calls().after(3 * 3600);
    let second = first.sees(Observation::Off).calls().accepted();
    let set_back = second.after(-2).sees(Observation::Off);
    assert_eq!(decided(&set_back), rests(Reason::Enabling, 2));
}

#[test]
fn table_sentences_are_unique() {
    let sentences: Vec<&str> = rows(Service::Kinesis).iter().map(|(sentence, ..)| *sentence).collect();
    assert_eq!(sentences.iter().collect::<BTreeSet<_>>().len(), sentences.len());
}
