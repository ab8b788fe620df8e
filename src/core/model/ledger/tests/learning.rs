//! The effect of an observation on the ledger.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use stream_encryption_api::ledger::{Action, KnownEncryption, Outcome, StreamLedgerSpec, Target};
use stream_encryption_api::stream_encryption::Service;

use super::{aws_error, empty, forget_version, seconds, with_call};
use crate::model::aws_error::ErrorKind;
use crate::model::key::Key;
use crate::model::ledger::{
    MAX_IN_FLIGHT, apply_observation, budget, corrections, in_flight_until, last_unrefused_call,
    may_be_stale, satisfies, stale_until,
};
use crate::model::observation::{DescribeTimes, Observation, Requested};
use crate::model::scenario::{failed, key, midnight};

/// Returns the ledger after an observation, with key 1 as the desired key.
pub(super) fn seen(ledger: &StreamLedgerSpec, observation: &Observation, at: i64) -> StreamLedgerSpec {
    apply_observation(ledger, observation, None, Some(&key(1).target()), false, seconds(at))
}

fn made_at(ledger: &StreamLedgerSpec, created: Timestamp, at: i64) -> StreamLedgerSpec {
    apply_observation(
        ledger,
        &Observation::InProgress(None),
        Some(created),
        Some(&key(1).target()),
        false,
        seconds(at),
    )
}

pub(super) fn known_encryption(key: Option<&Key>, since: i64) -> KnownEncryption {
    let since = MicroTime(seconds(since));
    KnownEncryption {
        key: key.map(Key::to_api),
        encrypted_since_time: key.map(|_| since.clone()),
        since_time: since,
    }
}

pub(super) const BOTH: [Service; 2] = [Service::Firehose, Service::Kinesis];

#[test]
fn stable_encryption_is_in_force_since_first_seen() {
    let first = seen(&empty(Service::Firehose), &Observation::Off, 0);
    assert_eq!(first.known_encryption, Some(known_encryption(None, 0)));
    let same = seen(&first, &Observation::Off, 60);
    assert_eq!(same.known_encryption, Some(known_encryption(None, 0)), "seen again");
    let other = seen(&same, &Observation::On(key(1)), 120);
    assert_eq!(other.known_encryption, Some(known_encryption(Some(&key(1)), 120)));
}

#[test]
fn observation_is_as_old_as_its_request() {
    let called = with_call(&empty(Service::Firehose), seconds(0), Some(Ok(())));
    let at = |requested, answered| {
        let times = DescribeTimes { requested: seconds(requested).into(), answered: seconds(answered) };
        apply_observation(&called, &Observation::Off, None, Some(&key(1).target()), false, times)
    };
    // AWS may have made the response at the time of the request, when it may still have been outdated.
    assert_eq!(at(25, 35).known_encryption, None);
    assert_eq!(at(30, 35).known_encryption, Some(known_encryption(None, 35)), "known since the response");
}

#[test]
fn unstable_observation_keeps_old_key_active() {
    let old = seen(&empty(Service::Firehose), &Observation::On(key(2)), 0);
    for observation in [
        Observation::InProgress(None),
        Observation::InProgress(Some(Action::Stop)),
        Observation::Missing,
        Observation::Creating,
        Observation::Deleting,
        Observation::NotOperational("x".into()),
        Observation::Unrecognized("x".into()),
    ] {
        assert_eq!(
            seen(&old, &observation, 60).known_encryption,
            Some(known_encryption(Some(&key(2)), 0)),
            "{observation:?}"
        );
    }
}

#[test]
fn reaching_desired_encryption_clears_attempts() {
    let called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let other = seen(&called, &Observation::On(key(2)), 60);
    assert!(other.attempts.is_some() && other.satisfied.is_none(), "another key");
    let done = seen(&called, &Observation::On(key(1)), 60);
    assert_eq!((done.attempts, done.satisfied), (None, Some(key(1).target())));
}

#[test]
fn unknown_desired_key_is_never_satisfied() {
    let called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let updated = apply_observation(&called, &Observation::On(key(1)), None, None, false, seconds(60));
    assert!(updated.attempts.is_some() && updated.satisfied.is_none());
    assert_eq!(
        updated.known_encryption,
        Some(known_encryption(Some(&key(1)), 60)),
        "what is in force is known all the same"
    );
}

#[test]
fn start_without_key_accepts_any_key_and_stop_plaintext() {
    let any = Target { action: Action::Start, key: None };
    let off = Target { action: Action::Stop, key: None };
    let on = Observation::On(key(7));
    let encrypted = seen(&empty(Service::Kinesis), &on, 0);
    let plain = seen(&empty(Service::Kinesis), &Observation::Off, 0);
    assert!(satisfies(&encrypted, &on, &any) && !satisfies(&plain, &Observation::Off, &any));
    assert!(!satisfies(&encrypted, &on, &off) && satisfies(&plain, &Observation::Off, &off));
    assert!(satisfies(&encrypted, &on, &key(7).target()) && !satisfies(&encrypted, &on, &key(1).target()));
    assert!(!satisfies(&empty(Service::Kinesis), &failed(Action::Start), &any), "nothing is known");
    assert!(!satisfies(&encrypted, &Observation::InProgress(None), &any), "it is changing");
}

#[test]
fn failure_soon_after_call_may_be_that_of_an_earlier_one() {
    for after_failure in [false, true] {
        let mut called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
        called.calls[0].after_failure = after_failure;
        assert_eq!(may_be_stale(&called, &failed(Action::Start), seconds(29)), after_failure);
        assert!(!may_be_stale(&called, &failed(Action::Start), seconds(30)));
        // Somebody else's Stop, which failed before the call.
        assert!(may_be_stale(&called, &failed(Action::Stop), seconds(29)));
        assert!(!may_be_stale(&called, &failed(Action::Stop), seconds(30)));
    }
}

#[test]
fn old_state_within_30_seconds_of_call_is_ignored() {
    for service in BOTH {
        let before = seen(&empty(service), &Observation::On(key(2)), -60);
        let called = with_call(&before, midnight(), Some(Ok(())));
        for observation in [Observation::On(key(2)), Observation::Off] {
            assert!(may_be_stale(&called, &observation, seconds(29)), "{observation:?}");
            assert_eq!(seen(&called, &observation, 29), called, "{observation:?}");
            assert!(!may_be_stale(&called, &observation, seconds(30)), "{observation:?}");
        }
        for observation in [Observation::On(key(1)), Observation::InProgress(None), Observation::Missing] {
            assert!(!may_be_stale(&called, &observation, seconds(1)), "{observation:?}");
        }
        let encrypted_since = before.known_encryption.and_then(|known| known.encrypted_since_time);
        let known_encryption =
            KnownEncryption { encrypted_since_time: encrypted_since, ..known_encryption(Some(&key(1)), 1) };
        assert_eq!(
            seen(&called, &Observation::On(key(1)), 1).known_encryption,
            Some(known_encryption),
            "encrypted all along"
        );
    }
}

/// The clock of a replica that has just begun to lead may be ahead of the one that sent the call.
#[test]
fn old_state_is_stale_until_call_is_known_for_30_seconds() {
    let mut called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    called.calls[0].after_failure = true;
    let after =
        |at: i64, known: u64| Requested { at: seconds(at), call_known_for: Duration::from_secs(known) };
    for observation in [Observation::Off, failed(Action::Start)] {
        for (at, known, trusted_from) in [
            (29, 30, Some(30)),
            (30, 29, Some(31)),
            (30, 30, None),
            (600, 0, Some(630)),
            (600, 30, None),
            // No clock is wrong by so much: AWS has accepted the dates of both requests.
            (31 * 60 - 1, 0, Some(31 * 60 + 29)),
            (31 * 60, 0, None),
        ] {
            let until = stale_until(&called, &observation, after(at, known));
            assert_eq!(until, trusted_from.map(seconds), "{observation:?} {at} {known}");
            assert_eq!(may_be_stale(&called, &observation, after(at, known)), trusted_from.is_some());
        }
    }
}

#[test]
fn new_state_after_confirmed_call_is_trusted() {
    for service in BOTH {
        let called = with_call(&empty(service), midnight(), Some(Ok(())));
        for effect in [
            Observation::On(key(1)),
            Observation::InProgress(None),
            Observation::InProgress(Some(Action::Start)),
            failed(Action::Start),
        ] {
            let confirmed = forget_version(&seen(&called, &effect, 2));
            assert!(confirmed.calls[0].confirmed, "{effect:?}");
            assert!(!may_be_stale(&confirmed, &Observation::Off, seconds(4)), "{effect:?}");
            assert_eq!(
                seen(&confirmed, &Observation::Off, 4).known_encryption,
                Some(known_encryption(None, 4)),
                "{effect:?}"
            );
            let called_again = with_call(&confirmed, seconds(5), Some(Ok(())));
            assert!(may_be_stale(&called_again, &Observation::Off, seconds(6)), "the next call is another");
        }
        for other in [Observation::InProgress(Some(Action::Stop)), failed(Action::Stop), Observation::Missing]
        {
            assert!(!seen(&called, &other, 2).calls[0].confirmed, "{other:?}");
        }
    }
}

#[test]
fn refused_call_makes_no_observation_stale() {
    let refused =
        with_call(&empty(Service::Kinesis), midnight(), Some(Err(&aws_error(ErrorKind::InUse, "Code"))));
    assert!(!may_be_stale(&refused, &Observation::Off, seconds(1)));
    assert_eq!(last_unrefused_call(&refused), None);
}

#[test]
fn unanswered_stop_is_accepted_once_effect_is_seen() {
    for service in BOTH {
        let mut called = with_call(&empty(service), midnight(), None);
        called.calls[0].target = Target { action: Action::Stop, key: None };
        for effect in [Observation::Off, Observation::InProgress(Some(Action::Stop))] {
            assert_eq!(seen(&called, &effect, 60).calls[0].outcome, Outcome::Accepted, "{effect:?}");
        }
        // A Kinesis stream that is resharded is UPDATING, too.
        for nothing in [
            Observation::On(key(1)),
            Observation::InProgress(Some(Action::Start)),
            Observation::InProgress(None),
        ] {
            assert_eq!(seen(&called, &nothing, 60).calls[0].outcome, Outcome::Pending, "{nothing:?}");
        }
    }
}

#[test]
fn unanswered_start_counts_and_is_accepted_on_effect() {
    for service in BOTH {
        for unanswered in [None, Some(Err(&aws_error(ErrorKind::UnknownOutcome, "InternalFailure")))] {
            let called = with_call(&empty(service), midnight(), unanswered);
            for effect in [Observation::On(key(1)), Observation::InProgress(Some(Action::Start))] {
                assert_eq!(seen(&called, &effect, 60).calls[0].outcome, Outcome::Accepted, "{effect:?}");
            }
            for nothing in [
                // A Kinesis stream that is resharded is UPDATING, too.
                Observation::InProgress(None),
                Observation::Off,
                Observation::On(key(2)),
                Observation::InProgress(Some(Action::Stop)),
                Observation::Missing,
            ] {
                let updated = seen(&called, &nothing, 60);
                assert_eq!(updated.calls, called.calls, "{nothing:?}");
                assert_eq!(in_flight_until(&updated), Some(midnight() + MAX_IN_FLIGHT), "{nothing:?}");
            }
            let day_later = seen(&called, &Observation::Off, 86_400);
            assert_eq!(
                budget(&day_later, service, Action::Start, 20, seconds(86_400)).used,
                1,
                "it counts to the end"
            );
        }
    }
}

#[test]
fn refused_outcome_is_not_changed_by_observation() {
    let refused =
        with_call(&empty(Service::Kinesis), midnight(), Some(Err(&aws_error(ErrorKind::Denied, "Code"))));
    assert_eq!(seen(&refused, &Observation::On(key(1)), 60).calls[0].outcome, Outcome::Refused);
}

#[test]
fn recreated_stream_keeps_calls_and_loses_key() {
    let first = made_at(&empty(Service::Firehose), midnight(), 0);
    let called = with_call(&first, seconds(1), Some(Ok(())));
    let known = seen(&seen(&called, &Observation::On(key(1)), 60), &Observation::On(key(1)), 90);
    let failing = with_call(&known, seconds(100), Some(Ok(())));
    assert!(failing.known_encryption.is_some() && failing.satisfied.is_some() && failing.attempts.is_some());

    let same = made_at(&failing, midnight(), 200);
    // AWS is applying the second call.
    let mut shown = failing.clone();
    shown.calls[1].confirmed = true;
    assert_eq!(same, shown, "the same stream");
    let again = made_at(&failing, seconds(150), 200);
    assert_eq!(again.calls, shown.calls);
    assert_eq!((&again.known_encryption, &again.satisfied, &again.attempts), (&None, &None, &None));
    assert_eq!(again.stream_creation_time, Some(MicroTime(seconds(150))));
}

#[test]
fn observation_without_creation_time_keeps_known_one() {
    let known = seen(&made_at(&empty(Service::Kinesis), midnight(), 0), &Observation::On(key(1)), 60);
    assert_eq!(seen(&known, &Observation::On(key(1)), 120), known);
}

#[test]
fn unusable_key_is_recorded_until_next_attempt() {
    let called = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let unusable =
        apply_observation(&called, &Observation::Off, None, Some(&key(1).target()), true, seconds(60));
    assert!(unusable.attempts.as_ref().unwrap().key_was_unusable);
    assert!(
        seen(&unusable, &Observation::Off, 120).attempts.unwrap().key_was_unusable,
        "also when it works again"
    );
    assert!(!with_call(&unusable, seconds(180), None).attempts.unwrap().key_was_unusable);
}

#[test]
fn future_since_time_is_clamped_to_now() {
    let later = seen(&empty(Service::Firehose), &Observation::On(key(1)), 3600);
    let set_back = seen(&later, &Observation::On(key(1)), 0);
    assert_eq!(set_back.known_encryption, Some(known_encryption(Some(&key(1)), 0)));
}

#[test]
fn only_corrections_of_last_24_hours_count() {
    let mut ledger = empty(Service::Firehose);
    for (n, correction) in [true, false, true].into_iter().enumerate() {
        ledger = with_call(&ledger, seconds(i64::try_from(n).unwrap() * 3600), Some(Ok(())));
        ledger.calls[n].correction = correction;
    }
    assert_eq!(corrections(&ledger, seconds(7200)), [seconds(0), seconds(7200)]);
    assert_eq!(corrections(&ledger, seconds(86_400 - 1)).len(), 2);
    assert_eq!(corrections(&ledger, seconds(86_400)), [seconds(7200)]);
}
