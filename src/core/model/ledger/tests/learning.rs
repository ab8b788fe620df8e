//! The effect of an observation on the ledger.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use stream_encryption_api::ledger::{Action, Call, KnownEncryption, Outcome, StreamLedgerSpec, Target};
use stream_encryption_api::stream_encryption::Service;

use super::{aws_error, empty, forget_version, plan, seconds, with_call};
use crate::model::aws_error::ErrorKind;
use crate::model::key::Key;
use crate::model::ledger::{
    MAX_IN_FLIGHT, PlannedCall, apply_observation, budget, corrections, in_flight_until, last_unrefused_call,
    may_be_stale, prune_expired, rebuilt_from_status, record_outcome, reserve, satisfies, stale_until,
};
use crate::model::observation::{DescribeTimes, Observation, Requested};
use crate::model::scenario::{ACCEPTED, failed, key, midnight};

/// Returns the ledger after an observation, with key 1 as the desired key.
fn seen(ledger: &StreamLedgerSpec, observation: &Observation, at: i64) -> StreamLedgerSpec {
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

fn known_encryption(key: Option<&Key>, since: i64) -> KnownEncryption {
    let since = MicroTime(seconds(since));
    KnownEncryption {
        key: key.map(Key::to_api),
        encrypted_since_time: key.map(|_| since.clone()),
        since_time: since,
    }
}

const BOTH: [Service; 2] = [Service::Firehose, Service::Kinesis];

#[test]
fn stable_encryption_is_in_force_since_first_seen() {
    let first = seen(&empty(Service::Firehose), &Observation::Off, 0);
    assert_eq!(first.known_encryption, Some(known_encryption(None, 0)));
    let same = seen(&first, &Observation::Off, 60);
    assert_eq!(same.known_encryption, Some(known_encryption(None, 0)), "seen again");
    let other = seen(&same, &Observation::On(key(1)), 120);
    assert_eq!(other.known_encryption, Some(known_encryption(Some(&key(1)), 120)));
}

/// Firehose fails a Start with the key that is already active. If the first Start was applied after a Describe that was too old,
/// the failure of the second one does not show that records are in plaintext.
#[test]
fn failure_after_two_close_starts_leaves_the_key_unknown() {
    let plain = seen(&empty(Service::Firehose), &Observation::Off, 0);
    let start = |ledger: &StreamLedgerSpec, at| with_call(ledger, seconds(at), Some(Ok(())));
    let first = start(&plain, 10);
    for (between, second_at, is_known) in [
        // AWS lagged by seven minutes.
        (Observation::Off, 10 + 7 * 60, false),
        // AWS does not lag by that much.
        (Observation::Off, 10 + MAX_IN_FLIGHT.as_secs(), true),
        // AWS has shown what became of the first one.
        (Observation::InProgress(Some(Action::Start)), 10 + 7 * 60, true),
        (failed(Action::Start), 10 + 7 * 60, true),
    ] {
        let second = start(&seen(&first, &between, second_at - 1), second_at);
        // The change may be that of the first call.
        let changing = seen(&second, &Observation::InProgress(Some(Action::Start)), second_at + 1);
        for before in [second, changing] {
            let after = seen(&before, &failed(Action::Start), second_at + 40);
            assert_eq!(after.known_encryption.is_some(), is_known, "{between:?}, {second_at}");
        }
    }
}

#[test]
fn failure_keeps_what_is_newer_than_the_earlier_call() {
    let k2 = &Observation::On(key(2));
    let start = |ledger: &StreamLedgerSpec, at| with_call(ledger, seconds(at), Some(Ok(())));
    // The calls of a rebuilt ledger are not real, and are dated now.
    let rebuilt = rebuilt_from_status(&empty(Service::Firehose), Service::Firehose, 1, seconds(0));
    let before = seen(&rebuilt, k2, 31);
    let after = seen(&start(&before, 300), &failed(Action::Start), 400);
    assert_eq!(after.known_encryption, before.known_encryption);
    assert!(after.known_encryption.is_some());
    // Nor is a call hidden that would have changed nothing.
    let on = seen(&empty(Service::Firehose), &Observation::On(key(1)), 0);
    let twice = start(&start(&on, 10), 420);
    assert!(seen(&twice, &failed(Action::Start), 500).known_encryption.is_some());
}

/// Returns ledgers of an encrypted stream that AWS may have stopped encrypting at 10 seconds: its response was recorded, did not
/// arrive, or was not recorded.
fn stopped(service: Service) -> [StreamLedgerSpec; 3] {
    let on = seen(&empty(service), &Observation::On(key(1)), 0);
    let stop = PlannedCall { target: Target { action: Action::Stop, key: None }, ..plan() };
    let (reserved, id) = reserve(&on, &stop, seconds(10));
    let lost = aws_error(ErrorKind::UnknownOutcome, "x");
    let record = |outcome| record_outcome(&reserved, &id, outcome, seconds(10));
    [record(Ok(&ACCEPTED)), record(Err(&lost)), reserved.clone()]
}

/// The operator was down for 50 minutes. Meanwhile, AWS applied its Stop, and somebody else has enabled encryption.
#[test]
fn opposite_change_after_unseen_stop_voids_the_key() {
    for service in BOTH {
        let enabling = match service {
            Service::Firehose => Observation::InProgress(Some(Action::Start)),
            Service::Kinesis => Observation::InProgress(None),
        };
        for stopped in stopped(service) {
            let changing = seen(&stopped, &enabling, 3000);
            assert_eq!(changing.known_encryption, None, "{service:?}");
            let on = seen(&changing, &Observation::On(key(1)), 3100);
            assert_eq!(on.known_encryption, Some(known_encryption(Some(&key(1)), 3100)));
        }
    }
    // The operator's own re-key.
    let known = seen(&empty(Service::Firehose), &Observation::On(key(2)), 0);
    let rekeyed = with_call(&known, seconds(10), Some(Ok(())));
    let enabling = Observation::InProgress(Some(Action::Start));
    assert_eq!(seen(&rekeyed, &enabling, 1500).known_encryption, known.known_encryption);
}

#[test]
fn opposite_change_that_may_be_older_keeps_the_key() {
    let disabling = Observation::InProgress(Some(Action::Stop));
    let off = seen(&empty(Service::Firehose), &Observation::Off, 0);
    let started = with_call(&off, seconds(10), Some(Ok(())));
    assert_eq!(seen(&started, &disabling, 12).known_encryption, off.known_encryption, "AWS lags");
    assert_eq!(seen(&started, &disabling, 1500).known_encryption, None);
    // The calls of a rebuilt ledger are not real.
    let rebuilt = rebuilt_from_status(&empty(Service::Firehose), Service::Firehose, 1, seconds(0));
    let on = seen(&rebuilt, &Observation::On(key(1)), 40);
    assert_eq!(seen(&on, &disabling, 100_000).known_encryption, on.known_encryption);
    // AWS needs a while for the operator's own Stop of a Kinesis stream.
    for stopped in stopped(Service::Kinesis) {
        let updating = seen(&stopped, &Observation::InProgress(None), 60);
        assert_eq!(updating.known_encryption, stopped.known_encryption);
    }
}

#[test]
fn encryption_after_a_stop_is_as_old_as_seen() {
    let disabling = Observation::InProgress(Some(Action::Stop));
    for stopped in stopped(Service::Firehose) {
        for before in [seen(&stopped, &disabling, 20), stopped] {
            let on = seen(&before, &Observation::On(key(1)), 1600);
            assert_eq!(on.known_encryption, Some(known_encryption(Some(&key(1)), 1600)));
            let later = seen(&on, &Observation::On(key(1)), 1900);
            assert_eq!(later.known_encryption, on.known_encryption, "it counts only once");
        }
    }
}

/// Somebody changed the encryption, and then changes it again, or fails to. AWS reports only the last call.
/// Before the failure, somebody may have disabled encryption.
#[test]
fn encryption_after_a_failure_is_as_old_as_seen() {
    let on = seen(&empty(Service::Firehose), &Observation::On(key(2)), 0);
    let called = with_call(&on, seconds(10), Some(Ok(())));
    let failed = StreamLedgerSpec {
        calls: vec![Call { after_failure: true, ..called.calls[0].clone() }],
        ..called.clone()
    };
    let since = |ledger: &StreamLedgerSpec, key| {
        let known = seen(ledger, &Observation::On(key), 100).known_encryption.unwrap();
        known.encrypted_since_time.unwrap().0
    };
    assert_eq!(since(&called, key(1)), seconds(0), "the key was changed without an interruption");
    for key in [key(1), key(2)] {
        assert_eq!(since(&failed, key), seconds(100));
    }
    let known = seen(&failed, &Observation::On(key(1)), 100);
    assert_eq!(seen(&known, &Observation::On(key(1)), 200).known_encryption, known.known_encryption);
}

#[test]
fn call_of_another_leaves_the_key_unknown() {
    let empty = empty(Service::Firehose);
    let on = seen(&empty, &Observation::On(key(1)), 0);
    let off = seen(&empty, &Observation::Off, 0);
    let enabled = seen(&with_call(&off, seconds(10), Some(Ok(()))), &Observation::On(key(1)), 20);
    let [stopped, ..] = stopped(Service::Firehose);
    for (ledger, action, is_known) in [
        (&on, Action::Start, false),
        (&enabled, Action::Start, false),
        (&stopped, Action::Start, false),
        // Until a Stop is complete, records are encrypted.
        (&on, Action::Stop, true),
        (&off, Action::Stop, false),
        // Plaintext does not seem better than it is.
        (&off, Action::Start, true),
    ] {
        for observation in [failed(action), Observation::InProgress(Some(action))] {
            let known = seen(ledger, &observation, 1600).known_encryption;
            assert_eq!(known.is_some(), is_known, "{observation:?} of {:?}", ledger.known_encryption);
        }
    }
    // The operator's call was for another key, and this one became known only then.
    let other = with_call(&seen(&empty, &Observation::On(key(2)), 0), seconds(10), Some(Ok(())));
    for at in [11, 39, 41] {
        let known = Some(known_encryption(Some(&key(3)), at));
        let changed = StreamLedgerSpec { known_encryption: known, ..other.clone() };
        assert_eq!(seen(&changed, &failed(Action::Start), 1600).known_encryption, None, "{at}");
    }
    let stop = Target { action: Action::Stop, key: None };
    let desired_off = |ledger, observation: &Observation| {
        apply_observation(ledger, observation, None, Some(&stop), false, seconds(1600)).known_encryption
    };
    assert_eq!(desired_off(&off, &failed(Action::Start)), None, "the stream may be encrypted");
    let own = with_call(&off, seconds(10), Some(Ok(())));
    assert_eq!(desired_off(&own, &failed(Action::Start)), off.known_encryption);
}

#[test]
fn own_failure_keeps_the_key_for_days() {
    let on = seen(&empty(Service::Firehose), &Observation::On(key(2)), 0);
    let rekeyed = with_call(&on, seconds(10), Some(Ok(())));
    let failed_at = |ledger: &StreamLedgerSpec, at| seen(ledger, &failed(Action::Start), at);
    let later = failed_at(&failed_at(&rekeyed, 60), 200_000);
    assert_eq!(later.known_encryption, on.known_encryption);
    // Before the next call, entries that no longer count are removed.
    let denied = aws_error(ErrorKind::Denied, "x");
    let again = with_call(&prune_expired(&later, seconds(200_000)), seconds(200_001), Some(Err(&denied)));
    assert_eq!(failed_at(&again, 200_060).known_encryption, on.known_encryption);
    // A Stop that never reached AWS.
    let stop = PlannedCall { target: Target { action: Action::Stop, key: None }, ..plan() };
    let lost = reserve(&later, &stop, seconds(200_000)).0;
    assert_eq!(failed_at(&lost, 200_060).known_encryption, on.known_encryption);
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
