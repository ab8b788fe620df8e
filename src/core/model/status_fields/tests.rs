//! The status at each point of each scenario, for both services: it never claims more than was observed.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::{ConditionStatus, Reason};
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::EncryptionStatus::{
    self, Disabled, Disabling, DisablingFailed, Enabled, Enabling, EnablingFailed,
};
use stream_encryption_api::stream_encryption::Service::{self, Firehose, Kinesis};

use super::{
    active_key, encrypted, encrypted_since_time, encryption_status, failure_code, plaintext_since_time,
    specified_key,
};
use crate::model::aws_error::ErrorKind;
use crate::model::desired::DesiredEncryption;
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::scenario::{Scenario, failed, key};

/// The claims of a status: the encryption status, the active key, whether records are encrypted, and the
/// failure.
type Claims = (Option<EncryptionStatus>, Option<Key>, ConditionStatus, Option<String>);

fn claims(situation: &Scenario) -> Claims {
    let input = situation.input();
    let reason = situation.decide().reason;
    (
        encryption_status(&input),
        active_key(&input).as_ref().map(Key::of),
        encrypted(&input, reason),
        failure_code(&input),
    )
}

fn claim(status: EncryptionStatus, key: Option<Key>, truth: ConditionStatus) -> Claims {
    (Some(status), key, truth, None)
}

fn fails(status: EncryptionStatus, key: Option<Key>, truth: ConditionStatus, failure_code: &str) -> Claims {
    (Some(status), key, truth, Some(failure_code.to_owned()))
}

/// Returns the state that AWS reports while it applies a call.
fn in_progress(service: Service, action: Action) -> Observation {
    match service {
        Firehose => Observation::InProgress(Some(action)),
        Kinesis => Observation::InProgress(None),
    }
}

/// Returns the state that AWS reports after a failed call: Kinesis reports the previous state.
fn after_failure(service: Service, action: Action, before: Observation) -> Observation {
    match service {
        Firehose => failed(action),
        Kinesis => before,
    }
}

/// Returns AWS's failure type, or the operator's own if AWS has none.
fn word(service: Service) -> &'static str {
    match service {
        Firehose => "KMS_ACCESS_DENIED",
        Kinesis => "NOT_APPLIED",
    }
}

fn holds(service: Service, story: &[(&str, &Scenario, Claims)]) {
    for (sentence, situation, expected) in story {
        assert_eq!(claims(situation), *expected, "{service:?}: {sentence}");
    }
}

#[test]
fn first_enable_is_plaintext_until_settled() {
    for service in [Firehose, Kinesis] {
        let nothing = Scenario::of(service);
        let off = nothing.clone().sees(Observation::Off);
        let sent = off.clone().calls();
        let accepted = sent.clone().accepted();
        let stale = accepted.clone().after(1).sees(Observation::Off);
        let changing = stale.clone().after(3).sees(in_progress(service, Action::Start));
        let on = changing.clone().after(60).sees(Observation::On(key(1)));
        let nearly = on.clone().after(4);
        let done = on.clone().after(5);
        holds(
            service,
            &[
                ("not described yet", &nothing, (None, None, ConditionStatus::Unknown, None)),
                ("plaintext was seen", &off, claim(Disabled, None, ConditionStatus::False)),
                (
                    "the call is reserved, and AWS has not answered",
                    &sent,
                    claim(Disabled, None, ConditionStatus::False),
                ),
                ("AWS has accepted", &accepted, claim(Enabling, None, ConditionStatus::False)),
                ("AWS shows an old state", &stale, claim(Disabled, None, ConditionStatus::False)),
                ("in progress", &changing, claim(Enabling, None, ConditionStatus::False)),
                (
                    "AWS says ENABLED, and it has not settled",
                    &on,
                    claim(Enabled, Some(key(1)), ConditionStatus::False),
                ),
                ("4 seconds later", &nearly, claim(Enabled, Some(key(1)), ConditionStatus::False)),
                ("5 seconds later", &done, claim(Enabled, Some(key(1)), ConditionStatus::True)),
            ],
        );
    }
}

#[test]
fn failed_first_enable_leaves_plaintext() {
    for service in [Firehose, Kinesis] {
        let called = Scenario::of(service).sees(Observation::Off).calls().accepted();
        let failed = called.after(60).sees(after_failure(service, Action::Start, Observation::Off));
        let again = failed
            .clone()
            .after(300)
            .sees(after_failure(service, Action::Start, Observation::Off))
            .calls()
            .accepted();
        let at_it = again.clone().after(3).sees(in_progress(service, Action::Start));
        holds(
            service,
            &[
                (
                    "AWS could not",
                    &failed,
                    fails(EnablingFailed, None, ConditionStatus::False, word(service)),
                ),
                ("the next attempt is accepted", &again, claim(Enabling, None, ConditionStatus::False)),
                ("the next attempt is on its way", &at_it, claim(Enabling, None, ConditionStatus::False)),
            ],
        );
    }
}

#[test]
fn rekey_keeps_old_key_active_until_new_one_is_shown() {
    for service in [Firehose, Kinesis] {
        let old = Scenario::of(service).converged();
        let called = old.clone().wants(DesiredEncryption::Key(key(2))).calls().accepted();
        let stale = called.clone().after(1).sees(Observation::On(key(1)));
        let changing = called.clone().after(3).sees(in_progress(service, Action::Start));
        let done = changing.clone().after(60).sees(Observation::On(key(2))).after(5);
        holds(
            service,
            &[
                ("before", &old, claim(Enabled, Some(key(1)), ConditionStatus::True)),
                ("AWS has accepted", &called, claim(Enabling, Some(key(1)), ConditionStatus::True)),
                ("AWS shows an old state", &stale, claim(Enabled, Some(key(1)), ConditionStatus::True)),
                ("in progress", &changing, claim(Enabling, Some(key(1)), ConditionStatus::True)),
                ("done", &done, claim(Enabled, Some(key(2)), ConditionStatus::True)),
            ],
        );
    }
}

#[test]
fn failed_rekey_keeps_old_key_active() {
    for service in [Firehose, Kinesis] {
        let called =
            Scenario::of(service).converged().wants(DesiredEncryption::Key(key(2))).calls().accepted();
        let failed = called.after(60).sees(after_failure(service, Action::Start, Observation::On(key(1))));
        let given_up = failed.clone().wants(DesiredEncryption::Key(key(1))).after(10).sees(after_failure(
            service,
            Action::Start,
            Observation::On(key(1)),
        ));
        let status = if service == Firehose { EnablingFailed } else { Enabled };
        let why = (service == Firehose).then(|| word(service).to_owned());
        holds(
            service,
            &[
                (
                    "AWS could not",
                    &failed,
                    fails(EnablingFailed, Some(key(1)), ConditionStatus::True, word(service)),
                ),
                (
                    "the old key is asked for again",
                    &given_up,
                    (Some(status), Some(key(1)), ConditionStatus::True, why),
                ),
            ],
        );
    }
}

#[test]
fn stop_keeps_records_encrypted_until_plaintext_is_shown() {
    for service in [Firehose, Kinesis] {
        let called = Scenario::of(service).converged().wants(DesiredEncryption::Off).calls().accepted();
        let changing = called.clone().after(3).sees(in_progress(service, Action::Stop));
        let off = changing.clone().after(60).sees(Observation::Off);
        holds(
            service,
            &[
                ("AWS has accepted", &called, claim(Disabling, Some(key(1)), ConditionStatus::True)),
                ("in progress", &changing, claim(Disabling, Some(key(1)), ConditionStatus::True)),
                ("off", &off, claim(Disabled, None, ConditionStatus::False)),
            ],
        );
        let unanswered = Scenario::of(service)
            .converged()
            .wants(DesiredEncryption::Off)
            .calls()
            .refused(ErrorKind::UnknownOutcome, "x");
        assert_eq!(
            claims(&unanswered),
            claim(Enabled, Some(key(1)), ConditionStatus::True),
            "{service:?}: nobody knows"
        );
    }
}

#[test]
fn failed_stop_keeps_key_active() {
    for service in [Firehose, Kinesis] {
        let called = Scenario::of(service).converged().wants(DesiredEncryption::Off).calls().accepted();
        let failed = called.after(60).sees(after_failure(service, Action::Stop, Observation::On(key(1))));
        // Kinesis reports no failure: somebody else may have enabled the encryption again, a moment ago.
        let known = if service == Firehose { ConditionStatus::True } else { ConditionStatus::False };
        assert_eq!(
            claims(&failed),
            fails(DisablingFailed, Some(key(1)), known, word(service)),
            "{service:?}"
        );
        assert_eq!(
            claims(&failed.after(5)),
            fails(DisablingFailed, Some(key(1)), ConditionStatus::True, word(service)),
            "{service:?}"
        );
    }
}

#[test]
fn refused_call_reports_code_and_is_not_in_progress() {
    for service in [Firehose, Kinesis] {
        let off = Scenario::of(service).sees(Observation::Off);
        let denied = off.clone().calls().refused(ErrorKind::Denied, "AccessDeniedException");
        let in_use = off.clone().calls().refused(ErrorKind::InUse, "ResourceInUseException");
        let resharded = in_use.clone().after(1).sees(Observation::InProgress(None));
        holds(
            service,
            &[
                ("denied", &denied, fails(Disabled, None, ConditionStatus::False, "AccessDeniedException")),
                ("in use", &in_use, fails(Disabled, None, ConditionStatus::False, "ResourceInUseException")),
                (
                    "AWS changes something else",
                    &resharded,
                    fails(Disabled, None, ConditionStatus::False, "ResourceInUseException"),
                ),
            ],
        );
    }
    let refused = Scenario::of(Kinesis)
        .sees(Observation::Off)
        .calls()
        .refused(ErrorKind::KeyAccessDenied, "KMSAccessDeniedException");
    let expected = fails(EnablingFailed, None, ConditionStatus::False, "KMSAccessDeniedException");
    assert_eq!(claims(&refused), expected, "Kinesis tells at once what Firehose tells later");
}

#[test]
fn early_observation_does_not_become_failure_with_time() {
    for service in [Firehose, Kinesis] {
        let early =
            Scenario::of(service).sees(Observation::Off).calls().accepted().after(29).sees(Observation::Off);
        assert_eq!(claims(&early.after(10)), claim(Disabled, None, ConditionStatus::False), "{service:?}");
    }
}

#[test]
fn external_change_soon_after_call_is_reported() {
    for service in [Firehose, Kinesis] {
        let called = Scenario::of(service).sees(Observation::Off).calls().accepted();
        let enabled =
            called.after(3).sees(in_progress(service, Action::Start)).after(3).sees(Observation::On(key(1)));
        let stable_encryption = enabled.after(6).sees(Observation::On(key(1)));
        let stopped = stable_encryption.clone().after(2).sees(Observation::Off);
        let other = stable_encryption.clone().after(2).sees(Observation::On(key(2)));
        holds(
            service,
            &[
                (
                    "encrypted, 12 seconds after the call",
                    &stable_encryption,
                    claim(Enabled, Some(key(1)), ConditionStatus::True),
                ),
                ("stopped externally", &stopped, claim(Disabled, None, ConditionStatus::False)),
                ("re-keyed externally", &other, claim(Enabled, Some(key(2)), ConditionStatus::True)),
            ],
        );
        assert_eq!(stopped.decide().reason, Reason::Enabling, "{service:?}: it is corrected at once");
        assert!(stopped.calls().ledger.calls[1].correction, "{service:?}: and counted as a correction");
    }
}

#[test]
fn encrypted_is_unknown_if_stale_state_contradicts_ledger() {
    for service in [Firehose, Kinesis] {
        let called =
            Scenario::of(service).converged().wants(DesiredEncryption::Key(key(2))).calls().accepted();
        let off = called.clone().after(3).sees(Observation::Off);
        assert_eq!(claims(&off), claim(Disabled, Some(key(1)), ConditionStatus::Unknown), "{service:?}");
        let believed = called.after(30).sees(Observation::Off);
        let status = if service == Firehose { Disabled } else { EnablingFailed };
        assert_eq!(
            claims(&believed),
            fails(status, None, ConditionStatus::False, "NOT_APPLIED"),
            "{service:?}"
        );
    }
}

#[test]
fn applied_call_is_no_failure_after_spec_change() {
    let called = Scenario::of(Kinesis).sees(Observation::Off).calls().accepted();
    let moved_on =
        called.wants(DesiredEncryption::Key(key(2))).after(60).sees(Observation::On(key(1))).after(5);
    assert_eq!(claims(&moved_on), claim(Enabled, Some(key(1)), ConditionStatus::True));
}

#[test]
fn external_failure_leaves_active_key_unknown() {
    let story = Scenario::of(Firehose).sees(failed(Action::Start));
    assert_eq!(claims(&story), fails(EnablingFailed, None, ConditionStatus::Unknown, "KMS_ACCESS_DENIED"));
}

#[test]
fn missing_or_other_stream_has_no_claims() {
    for service in [Firehose, Kinesis] {
        for gone in [Observation::Missing, Observation::OtherStream] {
            let story = Scenario::of(service).converged().after(60).sees(gone);
            assert_eq!(claims(&story), (None, None, ConditionStatus::Unknown, None), "{service:?}");
            assert_eq!(
                (encrypted_since_time(&story.input()), plaintext_since_time(&story.input())),
                (None, None)
            );
        }
    }
}

#[test]
fn unreachable_aws_keeps_known_state() {
    let story = Scenario::of(Firehose).converged().after(60).cannot_see(ErrorKind::Transient);
    assert_eq!(claims(&story), (None, Some(key(1)), ConditionStatus::True, None));
}

#[test]
fn unencryptable_stream_is_disabled() {
    let story = Scenario::of(Firehose).with(|s| {
        s.sight = crate::model::scenario::Sight::At(s.now, Observation::NotEncryptable("MSKAsSource".into()));
    });
    assert_eq!(encryption_status(&story.input()), Some(Disabled));
    // A stream with another source may have existed under its name before.
    let before = Scenario::of(Firehose).converged().with(|s| s.sight = story.sight.clone());
    assert_eq!(claims(&before), claim(Disabled, None, ConditionStatus::Unknown));
}

#[test]
fn encrypted_is_unknown_until_verified() {
    let verified_now = |verified: bool| {
        let story = Scenario::of(Firehose).with(|s| s.desired.verify = true).converged();
        story.with(|s| s.desired.verified = verified.then_some(s.now))
    };
    assert_eq!(claims(&verified_now(false)).2, ConditionStatus::Unknown);
    assert_eq!(claims(&verified_now(true)).2, ConditionStatus::True);
}

#[test]
fn encrypted_since_time_is_5_seconds_after_enabled() {
    let since = |situation: &Scenario| {
        (encrypted_since_time(&situation.input()), plaintext_since_time(&situation.input()))
    };
    let at = |start: Timestamp, seconds| Some(start + SignedDuration::from_secs(seconds));
    let off = Scenario::of(Firehose).sees(Observation::Off);
    let start = off.now;
    assert_eq!(since(&off), (None, Some(start)));
    let on = off.calls().accepted().after(60).sees(Observation::On(key(1)));
    assert_eq!(since(&on), (None, None));
    assert_eq!(since(&on.clone().after(5)), (at(start, 65), None));
    assert_eq!(since(&on.after(500).sees(Observation::On(key(1)))), (at(start, 65), None), "seen again");
}

#[test]
fn plaintext_is_reported_for_every_reason() {
    for service in [Firehose, Kinesis] {
        let plain = Scenario::of(service).sees(Observation::Off);
        for reason in Reason::ALL {
            assert_eq!(encrypted(&plain.input(), *reason), ConditionStatus::False, "{reason}");
        }
    }
}

#[test]
fn encrypted_depends_on_verification_and_propagation() {
    for service in [Firehose, Kinesis] {
        let seen = |seconds| Scenario::of(service).sees(Observation::On(key(1))).after(seconds);
        assert_eq!(encrypted(&seen(5).input(), Reason::Verifying), ConditionStatus::Unknown);
        assert_eq!(encrypted(&seen(5).input(), Reason::Encrypted), ConditionStatus::True);
        assert_eq!(encrypted(&seen(4).input(), Reason::Settling), ConditionStatus::False);
        assert_eq!(encrypted(&Scenario::of(service).input(), Reason::Settling), ConditionStatus::Unknown);
    }
}

#[test]
fn desired_key_is_reported_if_known() {
    for (wanted, told) in [
        (DesiredEncryption::Key(key(1)), Some(key(1))),
        (DesiredEncryption::Key(Key::AwsOwned), Some(Key::AwsOwned)),
        (DesiredEncryption::AnyKey, None),
        (DesiredEncryption::UnknownKey, None),
        (DesiredEncryption::Off, None),
    ] {
        let situation = Scenario::of(Firehose).wants(wanted);
        assert_eq!(specified_key(&situation.input()), told.as_ref());
    }
}
