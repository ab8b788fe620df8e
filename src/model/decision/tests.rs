//! One table: a sentence for each row of [`decide`](super::decide), for both services, and properties over random input.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{Decision, Step};
use crate::api::condition::Reason;
use crate::api::ledger::Action;
use crate::api::stream_encryption::Service;
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::situation::Situation;

mod calling;
mod hands_off;
mod looking;
mod properties;
mod waiting;

/// A sentence, the situation that it speaks of, and what is decided in it.
type Row = (&'static str, Situation, Expected);

/// What a decision is compared with; times in seconds from now.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    step: Kind,
    reason: Reason,
    wake: i64,
    next_attempt: Option<i64>,
}

/// A step without what only the ledger needs.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Look,
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

/// What was decided, in the table's words.
fn decided(situation: &Situation) -> Expected {
    let Decision { step, reason, wake, next_attempt, .. } = situation.decide();
    let seconds = |at: jiff::Timestamp| {
        let wait = at.duration_since(situation.now);
        assert_eq!(wait, SignedDuration::from_secs(wait.as_secs()), "not a whole second");
        wait.as_secs()
    };
    let step = match step {
        Step::Look => Kind::Look,
        Step::Rest => Kind::Rest,
        Step::Verify => Kind::Verify,
        Step::Release => Kind::Release,
        Step::Call(call) => match (call.target.action, call.target.key) {
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
fn each_row_of_the_table_holds_for_both_services() {
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
fn what_was_seen_is_good_until_the_decision_is_taken_up_again_and_no_longer() {
    for (sentence, situation, _) in [rows(Service::Firehose), rows(Service::Kinesis)].concat() {
        let Decision { reason, wake, look_due, .. } = situation.decide();
        // While it settles, nothing new is to be seen: one look serves for what is said before and after.
        let settling = reason == Reason::Settling && wake < look_due;
        assert!(wake == look_due || settling, "{sentence}: {wake} and {look_due}");
    }
}

#[test]
fn the_table_has_a_row_for_every_reason_that_a_decision_can_give() {
    let given: BTreeSet<Reason> = rows(Service::Firehose)
        .into_iter()
        .chain(rows(Service::Kinesis))
        .map(|(_, situation, _)| situation.decide().reason)
        .collect();
    // These two are said by others: of a spec that cannot be read, and of a key that works.
    let elsewhere = [Reason::SpecInvalid, Reason::KeyEnabled];
    let all: BTreeSet<Reason> =
        Reason::ALL.iter().copied().filter(|reason| !elsewhere.contains(reason)).collect();
    assert_eq!(given, all, "left: the table; right: the enum");
}

/// Nobody has heard of the first call, and it can no longer arrive. After the second, the clock was set back.
#[test]
fn a_call_that_can_no_longer_arrive_is_not_waited_for_while_an_answer_to_a_newer_one_is_not_believed() {
    let first = Situation::of(Service::Firehose).sees(Observation::Off).calls().after(3 * 3600);
    let second = first.sees(Observation::Off).calls().accepted();
    let set_back = second.after(-2).sees(Observation::Off);
    assert_eq!(decided(&set_back), rests(Reason::Enabling, 2));
}

#[test]
fn no_two_rows_have_the_same_sentence() {
    let sentences: Vec<&str> = rows(Service::Kinesis).iter().map(|(sentence, ..)| *sentence).collect();
    assert_eq!(sentences.iter().collect::<BTreeSet<_>>().len(), sentences.len());
}
