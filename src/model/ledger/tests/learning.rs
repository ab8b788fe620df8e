//! What an observation teaches a ledger, and what it does not.

use super::{empty, fault, read_again, seconds, with_call};
use crate::api::ledger::{Action, InForce, Outcome, StreamLedgerSpec, Target};
use crate::api::stream_encryption::Service;
use crate::model::fault::Class;
use crate::model::key::Key;
use crate::model::ledger::{
    DAY, WINDOW, budget, corrections, last_open, learn, may_arrive_until, may_be_stale, satisfies,
};
use crate::model::observation::Observation;
use crate::model::situation::{failed, key, midnight};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The ledger after a look, with key 1 asked for.
fn seen(ledger: &StreamLedgerSpec, observation: &Observation, at: i64) -> StreamLedgerSpec {
    learn(ledger, observation, None, Some(&key(1).target()), false, seconds(at))
}

fn made_at(ledger: &StreamLedgerSpec, created: Timestamp, at: i64) -> StreamLedgerSpec {
    learn(ledger, &Observation::Changing(None), Some(created), Some(&key(1).target()), false, seconds(at))
}

fn in_force(key: Option<&Key>, since: i64) -> InForce {
    let since = MicroTime(seconds(since));
    InForce { key: key.map(Key::status), encrypted_since: key.map(|_| since.clone()), since }
}

const BOTH: [Service; 2] = [Service::Firehose, Service::Kinesis];

#[test]
fn what_is_settled_is_in_force_since_it_was_first_seen() {
    let first = seen(&empty(Service::Firehose), &Observation::Off, 0);
    assert_eq!(first.in_force, Some(in_force(None, 0)));
    let same = seen(&first, &Observation::Off, 60);
    assert_eq!(same.in_force, Some(in_force(None, 0)), "seen again");
    let other = seen(&same, &Observation::On(key(1)), 120);
    assert_eq!(other.in_force, Some(in_force(Some(&key(1)), 120)));
}

#[test]
fn what_is_not_settled_leaves_the_old_key_in_force() {
    let old = seen(&empty(Service::Firehose), &Observation::On(key(2)), 0);
    for observation in [
        Observation::Changing(None),
        Observation::Changing(Some(Action::Start)),
        failed(Action::Start),
        failed(Action::Stop),
        Observation::Missing,
        Observation::Creating,
        Observation::Deleting,
        Observation::Broken("x".into()),
        Observation::Unrecognized("x".into()),
    ] {
        assert_eq!(
            seen(&old, &observation, 60).in_force,
            Some(in_force(Some(&key(2)), 0)),
            "{observation:?}"
        );
    }
}

#[test]
fn what_was_asked_for_and_is_true_ends_the_attempts() {
    let called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let other = seen(&called, &Observation::On(key(2)), 60);
    assert!(other.attempts.is_some() && other.satisfied.is_none(), "another key");
    let done = seen(&called, &Observation::On(key(1)), 60);
    assert_eq!((done.attempts, done.satisfied), (None, Some(key(1).target())));
}

#[test]
fn a_key_that_nobody_knows_is_never_satisfied() {
    let called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let learned = learn(&called, &Observation::On(key(1)), None, None, false, seconds(60));
    assert!(learned.attempts.is_some() && learned.satisfied.is_none());
    assert_eq!(learned.in_force, Some(in_force(Some(&key(1)), 60)), "what is in force is known all the same");
}

#[test]
fn any_key_satisfies_where_any_will_do_and_plain_text_where_that_is_asked_for() {
    let any = Target { action: Action::Start, key: None };
    let off = Target { action: Action::Stop, key: None };
    let on = Observation::On(key(7));
    let encrypted = seen(&empty(Service::Kinesis), &on, 0);
    let plain = seen(&empty(Service::Kinesis), &Observation::Off, 0);
    assert!(satisfies(&encrypted, &on, &any) && !satisfies(&plain, &Observation::Off, &any));
    assert!(!satisfies(&encrypted, &on, &off) && satisfies(&plain, &Observation::Off, &off));
    assert!(satisfies(&encrypted, &on, &key(7).target()) && !satisfies(&encrypted, &on, &key(1).target()));
    assert!(!satisfies(&empty(Service::Kinesis), &failed(Action::Start), &any), "nothing is known");
    assert!(!satisfies(&encrypted, &Observation::Changing(None), &any), "it is changing");
}

#[test]
fn a_failure_soon_after_a_call_is_the_calls_own_unless_one_was_there_before_it() {
    for after_failure in [false, true] {
        let mut called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
        called.calls[0].after_failure = after_failure;
        assert_eq!(may_be_stale(&called, &failed(Action::Start), seconds(29)), after_failure);
        assert!(!may_be_stale(&called, &failed(Action::Start), seconds(30)));
    }
}

#[test]
fn a_look_within_30_seconds_of_a_call_teaches_nothing_unless_it_shows_what_was_asked_for() {
    for service in BOTH {
        let before = seen(&empty(service), &Observation::On(key(2)), -60);
        let called = with_call(&before, midnight(), Some(Ok(())));
        for observation in [Observation::On(key(2)), Observation::Off] {
            assert!(may_be_stale(&called, &observation, seconds(29)), "{observation:?}");
            assert_eq!(seen(&called, &observation, 29), called, "{observation:?}");
            assert!(!may_be_stale(&called, &observation, seconds(30)), "{observation:?}");
        }
        for observation in [Observation::On(key(1)), Observation::Changing(None), Observation::Missing] {
            assert!(!may_be_stale(&called, &observation, seconds(1)), "{observation:?}");
        }
        let all_along = before.in_force.and_then(|known| known.encrypted_since);
        let in_force = InForce { encrypted_since: all_along, ..in_force(Some(&key(1)), 1) };
        assert_eq!(
            seen(&called, &Observation::On(key(1)), 1).in_force,
            Some(in_force),
            "encrypted all along"
        );
    }
}

#[test]
fn look_after_a_confirmed_call_is_news_also_after_a_restart() {
    for service in BOTH {
        let called = with_call(&empty(service), midnight(), Some(Ok(())));
        for effect in [
            Observation::On(key(1)),
            Observation::Changing(None),
            Observation::Changing(Some(Action::Start)),
            failed(Action::Start),
        ] {
            let confirmed = read_again(&seen(&called, &effect, 2));
            assert!(confirmed.calls[0].confirmed, "{effect:?}");
            assert!(!may_be_stale(&confirmed, &Observation::Off, seconds(4)), "{effect:?}");
            assert_eq!(
                seen(&confirmed, &Observation::Off, 4).in_force,
                Some(in_force(None, 4)),
                "{effect:?}"
            );
            let called_again = with_call(&confirmed, seconds(5), Some(Ok(())));
            assert!(may_be_stale(&called_again, &Observation::Off, seconds(6)), "the next call is another");
        }
        for other in [Observation::Changing(Some(Action::Stop)), failed(Action::Stop), Observation::Missing] {
            assert!(!seen(&called, &other, 2).calls[0].confirmed, "{other:?}");
        }
    }
}

#[test]
fn a_refused_call_makes_no_look_stale() {
    let refused = with_call(&empty(Service::Kinesis), midnight(), Some(Err(&fault(Class::InUse, "Code"))));
    assert!(!may_be_stale(&refused, &Observation::Off, seconds(1)));
    assert_eq!(last_open(&refused), None);
}

#[test]
fn a_stop_without_an_answer_is_accepted_once_plain_text_or_its_way_there_is_seen() {
    for service in BOTH {
        let mut called = with_call(&empty(service), midnight(), None);
        called.calls[0].target = Target { action: Action::Stop, key: None };
        for effect in
            [Observation::Off, Observation::Changing(Some(Action::Stop)), Observation::Changing(None)]
        {
            assert_eq!(seen(&called, &effect, 60).calls[0].outcome, Outcome::Accepted, "{effect:?}");
        }
        for nothing in [Observation::On(key(1)), Observation::Changing(Some(Action::Start))] {
            assert_eq!(seen(&called, &nothing, 60).calls[0].outcome, Outcome::Pending, "{nothing:?}");
        }
    }
}

#[test]
fn a_call_without_an_answer_is_accepted_once_its_effect_is_seen_and_never_refunded() {
    for service in BOTH {
        for unanswered in [None, Some(Err(&fault(Class::UnknownOutcome, "InternalFailure")))] {
            let called = with_call(&empty(service), midnight(), unanswered);
            for effect in [
                Observation::On(key(1)),
                Observation::Changing(Some(Action::Start)),
                Observation::Changing(None),
            ] {
                assert_eq!(seen(&called, &effect, 60).calls[0].outcome, Outcome::Accepted, "{effect:?}");
            }
            for nothing in [
                Observation::Off,
                Observation::On(key(2)),
                Observation::Changing(Some(Action::Stop)),
                Observation::Missing,
            ] {
                let learned = seen(&called, &nothing, 60);
                assert_eq!(learned.calls, called.calls, "{nothing:?}");
                assert_eq!(may_arrive_until(&learned), Some(midnight() + (WINDOW - DAY)), "{nothing:?}");
            }
            let day_later = seen(&called, &Observation::Off, 86_400);
            assert_eq!(
                budget(&day_later.calls, service, Action::Start, 20, seconds(86_400)).used,
                1,
                "it counts to the end"
            );
        }
    }
}

#[test]
fn a_refusal_is_never_taken_back_by_what_is_seen() {
    let refused = with_call(&empty(Service::Kinesis), midnight(), Some(Err(&fault(Class::Denied, "Code"))));
    assert_eq!(seen(&refused, &Observation::On(key(1)), 60).calls[0].outcome, Outcome::Refused);
}

#[test]
fn a_stream_made_again_under_its_name_keeps_its_calls_and_loses_its_key() {
    let first = made_at(&empty(Service::Firehose), midnight(), 0);
    let called = with_call(&first, seconds(1), Some(Ok(())));
    let known = seen(&seen(&called, &Observation::On(key(1)), 60), &Observation::On(key(1)), 90);
    let failing = with_call(&known, seconds(100), Some(Ok(())));
    assert!(failing.in_force.is_some() && failing.satisfied.is_some() && failing.attempts.is_some());

    let same = made_at(&failing, midnight(), 200);
    // AWS is at the second call.
    let mut shown = failing.clone();
    shown.calls[1].confirmed = true;
    assert_eq!(same, shown, "the same stream");
    let again = made_at(&failing, seconds(150), 200);
    assert_eq!(again.calls, shown.calls);
    assert_eq!((&again.in_force, &again.satisfied, &again.attempts), (&None, &None, &None));
    assert_eq!(again.stream_created, Some(MicroTime(seconds(150))));
}

#[test]
fn a_look_that_does_not_say_when_the_stream_was_made_changes_nothing_of_that() {
    let known = seen(&made_at(&empty(Service::Kinesis), midnight(), 0), &Observation::On(key(1)), 60);
    assert_eq!(seen(&known, &Observation::On(key(1)), 120), known);
}

#[test]
fn a_key_seen_unusable_after_an_attempt_is_remembered_until_the_next() {
    let called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let unusable = learn(&called, &Observation::Off, None, Some(&key(1).target()), true, seconds(60));
    assert!(unusable.attempts.as_ref().unwrap().key_was_unusable);
    assert!(
        seen(&unusable, &Observation::Off, 120).attempts.unwrap().key_was_unusable,
        "also when it works again"
    );
    assert!(!with_call(&unusable, seconds(180), None).attempts.unwrap().key_was_unusable);
}

#[test]
fn what_is_in_force_since_the_future_is_in_force_since_now() {
    let later = seen(&empty(Service::Firehose), &Observation::On(key(1)), 3600);
    let set_back = seen(&later, &Observation::On(key(1)), 0);
    assert_eq!(set_back.in_force, Some(in_force(Some(&key(1)), 0)));
}

#[test]
fn only_corrections_of_the_last_24_hours_are_held_against_somebody() {
    let mut ledger = empty(Service::Firehose);
    for (n, correction) in [true, false, true].into_iter().enumerate() {
        ledger = with_call(&ledger, seconds(i64::try_from(n).unwrap() * 3600), Some(Ok(())));
        ledger.calls[n].correction = correction;
    }
    assert_eq!(corrections(&ledger, seconds(7200)), [seconds(0), seconds(7200)]);
    assert_eq!(corrections(&ledger, seconds(86_400 - 1)).len(), 2);
    assert_eq!(corrections(&ledger, seconds(86_400)), [seconds(7200)]);
}
