//! What a status claims at each point of each story, for both services: never more than was seen.

use jiff::{SignedDuration, Timestamp};

use super::{
    encrypted, encrypted_since, encryption_status, failure, key_asked_for, key_in_force, plain_text_since,
};
use crate::api::condition::{Reason, Truth};
use crate::api::ledger::Action;
use crate::api::stream_encryption::EncryptionStatus::{
    self, Disabled, Disabling, DisablingFailed, Enabled, Enabling, EnablingFailed,
};
use crate::api::stream_encryption::Service::{self, Firehose, Kinesis};
use crate::model::decision::Wanted;
use crate::model::fault::Class;
use crate::model::key::Key;
use crate::model::observation::Observation;
use crate::model::situation::{Situation, failed, key};

/// What is claimed: the status in AWS's words, the key in force, whether records are encrypted, why it failed.
type Claims = (Option<EncryptionStatus>, Option<Key>, Truth, Option<String>);

fn claims(situation: &Situation) -> Claims {
    let input = situation.input();
    let reason = situation.decide().reason;
    (
        encryption_status(&input),
        key_in_force(&input).as_ref().map(Key::of),
        encrypted(&input, reason),
        failure(&input),
    )
}

fn claim(status: EncryptionStatus, key: Option<Key>, truth: Truth) -> Claims {
    (Some(status), key, truth, None)
}

fn fails(status: EncryptionStatus, key: Option<Key>, truth: Truth, failure: &str) -> Claims {
    (Some(status), key, truth, Some(failure.to_owned()))
}

/// What AWS shows while it carries out a call.
fn on_the_way(service: Service, action: Action) -> Observation {
    match service {
        Firehose => Observation::Changing(Some(action)),
        Kinesis => Observation::Changing(None),
    }
}

/// What AWS shows after it could not carry out a call: Kinesis shows what was before.
fn after_failure(service: Service, action: Action, before: Observation) -> Observation {
    match service {
        Firehose => failed(action),
        Kinesis => before,
    }
}

/// AWS's word for the failure, or ours where AWS has none.
fn word(service: Service) -> &'static str {
    match service {
        Firehose => "KMS_ACCESS_DENIED",
        Kinesis => "NOT_APPLIED",
    }
}

fn holds(service: Service, story: &[(&str, &Situation, Claims)]) {
    for (sentence, situation, expected) in story {
        assert_eq!(claims(situation), *expected, "{service:?}: {sentence}");
    }
}

#[test]
fn a_first_enable_is_plain_text_until_it_has_settled() {
    for service in [Firehose, Kinesis] {
        let nothing = Situation::of(service);
        let off = nothing.clone().sees(Observation::Off);
        let sent = off.clone().calls();
        let accepted = sent.clone().accepted();
        let stale = accepted.clone().after(1).sees(Observation::Off);
        let changing = stale.clone().after(3).sees(on_the_way(service, Action::Start));
        let on = changing.clone().after(60).sees(Observation::On(key(1)));
        let nearly = on.clone().after(4);
        let done = on.clone().after(5);
        holds(
            service,
            &[
                ("nobody has looked", &nothing, (None, None, Truth::Unknown, None)),
                ("plain text was seen", &off, claim(Disabled, None, Truth::False)),
                (
                    "the call is reserved, and AWS has not answered",
                    &sent,
                    claim(Disabled, None, Truth::False),
                ),
                ("AWS has accepted", &accepted, claim(Enabling, None, Truth::False)),
                ("AWS shows an old state", &stale, claim(Disabled, None, Truth::False)),
                ("AWS is at it", &changing, claim(Enabling, None, Truth::False)),
                ("AWS says ENABLED, and it has not settled", &on, claim(Enabled, Some(key(1)), Truth::False)),
                ("4 seconds later", &nearly, claim(Enabled, Some(key(1)), Truth::False)),
                ("5 seconds later", &done, claim(Enabled, Some(key(1)), Truth::True)),
            ],
        );
    }
}

#[test]
fn a_failed_first_enable_leaves_plain_text() {
    for service in [Firehose, Kinesis] {
        let called = Situation::of(service).sees(Observation::Off).calls().accepted();
        let failed = called.after(60).sees(after_failure(service, Action::Start, Observation::Off));
        let again = failed
            .clone()
            .after(300)
            .sees(after_failure(service, Action::Start, Observation::Off))
            .calls()
            .accepted();
        let at_it = again.clone().after(3).sees(on_the_way(service, Action::Start));
        holds(
            service,
            &[
                ("AWS could not", &failed, fails(EnablingFailed, None, Truth::False, word(service))),
                ("the next attempt is accepted", &again, claim(Enabling, None, Truth::False)),
                ("the next attempt is on its way", &at_it, claim(Enabling, None, Truth::False)),
            ],
        );
    }
}

#[test]
fn a_re_key_keeps_the_old_key_in_force_until_aws_shows_the_new_one() {
    for service in [Firehose, Kinesis] {
        let old = Situation::of(service).converged();
        let called = old.clone().wants(Wanted::Key(key(2))).calls().accepted();
        let stale = called.clone().after(1).sees(Observation::On(key(1)));
        let changing = called.clone().after(3).sees(on_the_way(service, Action::Start));
        let done = changing.clone().after(60).sees(Observation::On(key(2))).after(5);
        holds(
            service,
            &[
                ("before", &old, claim(Enabled, Some(key(1)), Truth::True)),
                ("AWS has accepted", &called, claim(Enabling, Some(key(1)), Truth::True)),
                ("AWS shows an old state", &stale, claim(Enabled, Some(key(1)), Truth::True)),
                ("AWS is at it", &changing, claim(Enabling, Some(key(1)), Truth::True)),
                ("done", &done, claim(Enabled, Some(key(2)), Truth::True)),
            ],
        );
    }
}

#[test]
fn a_failed_re_key_leaves_the_old_key_in_force_whichever_key_aws_shows() {
    for service in [Firehose, Kinesis] {
        let called = Situation::of(service).converged().wants(Wanted::Key(key(2))).calls().accepted();
        let failed = called.after(60).sees(after_failure(service, Action::Start, Observation::On(key(1))));
        let given_up = failed.clone().wants(Wanted::Key(key(1))).after(10).sees(after_failure(
            service,
            Action::Start,
            Observation::On(key(1)),
        ));
        let status = if service == Firehose { EnablingFailed } else { Enabled };
        let why = (service == Firehose).then(|| word(service).to_owned());
        holds(
            service,
            &[
                ("AWS could not", &failed, fails(EnablingFailed, Some(key(1)), Truth::True, word(service))),
                ("the old key is asked for again", &given_up, (Some(status), Some(key(1)), Truth::True, why)),
            ],
        );
    }
}

#[test]
fn a_stop_leaves_records_encrypted_until_aws_shows_plain_text() {
    for service in [Firehose, Kinesis] {
        let called = Situation::of(service).converged().wants(Wanted::Off).calls().accepted();
        let changing = called.clone().after(3).sees(on_the_way(service, Action::Stop));
        let off = changing.clone().after(60).sees(Observation::Off);
        holds(
            service,
            &[
                ("AWS has accepted", &called, claim(Disabling, Some(key(1)), Truth::True)),
                ("AWS is at it", &changing, claim(Disabling, Some(key(1)), Truth::True)),
                ("off", &off, claim(Disabled, None, Truth::False)),
            ],
        );
        let unanswered =
            Situation::of(service).converged().wants(Wanted::Off).calls().refused(Class::UnknownOutcome, "x");
        assert_eq!(
            claims(&unanswered),
            claim(Enabled, Some(key(1)), Truth::True),
            "{service:?}: nobody knows"
        );
    }
}

#[test]
fn a_failed_stop_leaves_the_key_in_force() {
    for service in [Firehose, Kinesis] {
        let called = Situation::of(service).converged().wants(Wanted::Off).calls().accepted();
        let failed = called.after(60).sees(after_failure(service, Action::Stop, Observation::On(key(1))));
        assert_eq!(
            claims(&failed),
            fails(DisablingFailed, Some(key(1)), Truth::True, word(service)),
            "{service:?}"
        );
    }
}

#[test]
fn a_refused_call_tells_its_code_and_is_on_no_way() {
    for service in [Firehose, Kinesis] {
        let off = Situation::of(service).sees(Observation::Off);
        let denied = off.clone().calls().refused(Class::Denied, "AccessDeniedException");
        let in_use = off.clone().calls().refused(Class::InUse, "ResourceInUseException");
        let resharded = in_use.clone().after(1).sees(Observation::Changing(None));
        holds(
            service,
            &[
                ("denied", &denied, fails(Disabled, None, Truth::False, "AccessDeniedException")),
                ("in use", &in_use, fails(Disabled, None, Truth::False, "ResourceInUseException")),
                (
                    "AWS changes something else",
                    &resharded,
                    fails(Disabled, None, Truth::False, "ResourceInUseException"),
                ),
            ],
        );
    }
    let refused = Situation::of(Kinesis)
        .sees(Observation::Off)
        .calls()
        .refused(Class::KeyRefused, "KMSAccessDeniedException");
    let expected = fails(EnablingFailed, None, Truth::False, "KMSAccessDeniedException");
    assert_eq!(claims(&refused), expected, "Kinesis tells at once what Firehose tells later");
}

#[test]
fn a_look_that_was_too_early_is_not_turned_into_a_failure_by_time_alone() {
    for service in [Firehose, Kinesis] {
        let early =
            Situation::of(service).sees(Observation::Off).calls().accepted().after(29).sees(Observation::Off);
        assert_eq!(claims(&early.after(10)), claim(Disabled, None, Truth::False), "{service:?}");
    }
}

#[test]
fn change_behind_the_back_soon_after_a_call_is_reported_at_once() {
    for service in [Firehose, Kinesis] {
        let called = Situation::of(service).sees(Observation::Off).calls().accepted();
        let enabled =
            called.after(3).sees(on_the_way(service, Action::Start)).after(3).sees(Observation::On(key(1)));
        let settled = enabled.after(6).sees(Observation::On(key(1)));
        let stopped = settled.clone().after(2).sees(Observation::Off);
        let other = settled.clone().after(2).sees(Observation::On(key(2)));
        holds(
            service,
            &[
                ("encrypted, 12 seconds after the call", &settled, claim(Enabled, Some(key(1)), Truth::True)),
                ("stopped by somebody else", &stopped, claim(Disabled, None, Truth::False)),
                ("re-keyed by somebody else", &other, claim(Enabled, Some(key(2)), Truth::True)),
            ],
        );
        assert_eq!(stopped.decide().reason, Reason::Enabling, "{service:?}: it is corrected at once");
        assert!(stopped.calls().ledger.calls[1].correction, "{service:?}: and counted as a correction");
    }
}

#[test]
fn unconfirmed_state_that_contradicts_the_ledger_leaves_encrypted_unknown() {
    for service in [Firehose, Kinesis] {
        let called = Situation::of(service).converged().wants(Wanted::Key(key(2))).calls().accepted();
        let off = called.clone().after(3).sees(Observation::Off);
        assert_eq!(claims(&off), claim(Disabled, Some(key(1)), Truth::Unknown), "{service:?}");
        let believed = called.after(30).sees(Observation::Off);
        let status = if service == Firehose { Disabled } else { EnablingFailed };
        assert_eq!(claims(&believed), fails(status, None, Truth::False, "NOT_APPLIED"), "{service:?}");
    }
}

#[test]
fn applied_call_is_no_failure_when_another_key_is_asked_for_since() {
    let called = Situation::of(Kinesis).sees(Observation::Off).calls().accepted();
    let moved_on = called.wants(Wanted::Key(key(2))).after(60).sees(Observation::On(key(1))).after(5);
    assert_eq!(claims(&moved_on), claim(Enabled, Some(key(1)), Truth::True));
}

#[test]
fn somebody_elses_failure_says_nothing_of_the_key_in_force() {
    let story = Situation::of(Firehose).sees(failed(Action::Start));
    assert_eq!(claims(&story), fails(EnablingFailed, None, Truth::Unknown, "KMS_ACCESS_DENIED"));
}

#[test]
fn nothing_is_claimed_of_a_stream_that_is_not_there_or_is_another() {
    for service in [Firehose, Kinesis] {
        for gone in [Observation::Missing, Observation::OtherStream] {
            let story = Situation::of(service).converged().after(60).sees(gone);
            assert_eq!(claims(&story), (None, None, Truth::Unknown, None), "{service:?}");
            assert_eq!((encrypted_since(&story.input()), plain_text_since(&story.input())), (None, None));
        }
    }
}

#[test]
fn an_aws_that_does_not_answer_leaves_what_was_known_in_force() {
    let story = Situation::of(Firehose).converged().after(60).cannot_see(Class::Transient);
    assert_eq!(claims(&story), (None, Some(key(1)), Truth::True, None));
}

#[test]
fn a_stream_that_cannot_be_encrypted_is_off() {
    let story = Situation::of(Firehose).with(|s| {
        s.sight =
            crate::model::situation::Sight::At(s.now, Observation::NotEncryptable("MSKAsSource".into()));
    });
    assert_eq!(encryption_status(&story.input()), Some(Disabled));
    // A stream of another source may have been there under its name before.
    let before = Situation::of(Firehose).converged().with(|s| s.sight = story.sight.clone());
    assert_eq!(claims(&before), claim(Disabled, None, Truth::Unknown));
}

#[test]
fn encryption_is_not_claimed_while_its_proof_is_missing() {
    let proven = |verified: bool| {
        let story = Situation::of(Firehose).with(|s| s.intent.verify = true).converged();
        story.with(|s| s.intent.verified = verified.then_some(s.now))
    };
    assert_eq!(claims(&proven(false)).2, Truth::Unknown);
    assert_eq!(claims(&proven(true)).2, Truth::True);
}

#[test]
fn records_are_encrypted_since_5_seconds_after_aws_said_so_and_in_plain_text_since_it_was_seen() {
    let since =
        |situation: &Situation| (encrypted_since(&situation.input()), plain_text_since(&situation.input()));
    let at = |start: Timestamp, seconds| Some(start + SignedDuration::from_secs(seconds));
    let off = Situation::of(Firehose).sees(Observation::Off);
    let start = off.now;
    assert_eq!(since(&off), (None, Some(start)));
    let on = off.calls().accepted().after(60).sees(Observation::On(key(1)));
    assert_eq!(since(&on), (None, None));
    assert_eq!(since(&on.clone().after(5)), (at(start, 65), None));
    assert_eq!(since(&on.after(500).sees(Observation::On(key(1)))), (at(start, 65), None), "seen again");
}

#[test]
fn plain_text_is_told_as_such_whatever_is_waited_for() {
    for service in [Firehose, Kinesis] {
        let plain = Situation::of(service).sees(Observation::Off);
        for reason in Reason::ALL {
            assert_eq!(encrypted(&plain.input(), *reason), Truth::False, "{reason}");
        }
    }
}

#[test]
fn what_was_not_proved_is_not_claimed_and_what_was_seen_to_be_encrypted_is_after_it_settled() {
    for service in [Firehose, Kinesis] {
        let seen = |seconds| Situation::of(service).sees(Observation::On(key(1))).after(seconds);
        assert_eq!(encrypted(&seen(5).input(), Reason::Verifying), Truth::Unknown);
        assert_eq!(encrypted(&seen(5).input(), Reason::Encrypted), Truth::True);
        assert_eq!(encrypted(&seen(4).input(), Reason::Settling), Truth::False);
        assert_eq!(encrypted(&Situation::of(service).input(), Reason::Settling), Truth::Unknown);
    }
}

#[test]
fn the_key_asked_for_is_told_as_far_as_it_is_known() {
    for (wanted, told) in [
        (Wanted::Key(key(1)), Some(key(1))),
        (Wanted::Key(Key::AwsOwned), Some(Key::AwsOwned)),
        (Wanted::AnyKey, None),
        (Wanted::UnknownKey, None),
        (Wanted::Off, None),
    ] {
        let situation = Situation::of(Firehose).wants(wanted);
        assert_eq!(key_asked_for(&situation.input()), told.as_ref());
    }
}
