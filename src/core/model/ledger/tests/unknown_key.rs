//! Observations that leave unknown which key is in force, or since when records have been encrypted.

use stream_encryption_api::ledger::{Action, StreamLedgerSpec, Target};
use stream_encryption_api::stream_encryption::Service;

use super::learning::{BOTH, known_encryption, seen};
use super::{aws_error, empty, plan, seconds, with_call};
use crate::model::aws_error::ErrorKind;
use crate::model::ledger::{
    MAX_IN_FLIGHT, PlannedCall, apply_observation, prune_expired, rebuilt_from_status, record_outcome,
    reserve,
};
use crate::model::observation::Observation;
use crate::model::scenario::{ACCEPTED, failed, key};

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
