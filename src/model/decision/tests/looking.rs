//! Rows in which what was seen says all: a stream that cannot be changed now, that is changing, or that is as it should be.

use super::{Expected, Kind, Row, releases, rests, starts, stops, waits};
use crate::api::condition::Reason;
use crate::api::ledger::Action;
use crate::api::stream_encryption::{Drift, Service};
use crate::model::decision::Wanted;
use crate::model::fault::Class;
use crate::model::key::{Key, KeyProblem};
use crate::model::observation::Observation;
use crate::model::situation::{Situation, failed, key};

pub(super) fn rows(service: Service) -> Vec<Row> {
    [unchangeable(service), changing(service), as_asked(service), differing(service)].concat()
}

fn deleted(service: Service) -> Situation {
    Situation::of(service).wants(Wanted::Off).with(|s| {
        s.intent.disable_on_deletion = true;
        s.intent.deleting = true;
    })
}

fn unchangeable(service: Service) -> Vec<Row> {
    let sees = |observation| Situation::of(service).sees(observation);
    let other_source = || Observation::NotEncryptable("KinesisStreamAsSource".into());
    vec![
        (
            "a missing stream is looked for again",
            sees(Observation::Missing),
            rests(Reason::StreamNotFound, 5),
        ),
        (
            "a deleted resource whose stream is gone is let go",
            deleted(service).sees(Observation::Missing),
            releases(Reason::StreamNotFound, 5),
        ),
        (
            "another account's stream of that name is not touched",
            sees(Observation::OtherStream),
            rests(Reason::WrongStream, 30),
        ),
        (
            "another account's stream of that name does not let a deleted resource go",
            deleted(service).sees(Observation::OtherStream),
            rests(Reason::WrongStream, 30),
        ),
        (
            "a stream that is being made is awaited",
            sees(Observation::Creating),
            rests(Reason::StreamCreating, 5),
        ),
        (
            "a stream that is being deleted is awaited",
            sees(Observation::Deleting),
            rests(Reason::StreamDeleting, 5),
        ),
        (
            "a stream that does not serve is not changed",
            sees(Observation::Broken("CREATING_FAILED".into())),
            rests(Reason::StreamBroken, 30),
        ),
        (
            "a stream that AWS describes in unknown words is not changed",
            sees(Observation::Unrecognized("the stream status \"SUSPENDED\"".into())),
            rests(Reason::StreamStateUnrecognized, 30),
        ),
        (
            "unknown words of AWS do not let a deleted resource go",
            deleted(service).sees(Observation::Unrecognized("the encryption \"ROT13\"".into())),
            rests(Reason::StreamStateUnrecognized, 30),
        ),
        (
            "a stream that reads from Kinesis cannot be encrypted",
            sees(other_source()),
            rests(Reason::SourceNotDirectPut, 600),
        ),
        (
            "a stream that cannot be encrypted is off, as asked",
            Situation::of(service).wants(Wanted::Off).sees(other_source()),
            rests(Reason::EncryptionDisabled, 600),
        ),
        (
            "a deleted resource of a stream that cannot be encrypted is let go",
            deleted(service).sees(other_source()),
            releases(Reason::EncryptionDisabled, 600),
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn changing(service: Service) -> Vec<Row> {
    let called = || Situation::of(service).sees(Observation::Off).calls();
    let stopping = || Situation::of(service).wants(Wanted::Off).sees(Observation::On(key(1))).calls();
    let unknown = || Observation::Changing(None);
    vec![
        (
            "ENABLING is looked at again in 2 seconds",
            Situation::of(service).sees(Observation::Changing(Some(Action::Start))),
            rests(Reason::Enabling, 2),
        ),
        (
            "DISABLING is said even to those who want encryption",
            Situation::of(service).sees(Observation::Changing(Some(Action::Stop))),
            rests(Reason::Disabling, 2),
        ),
        (
            "a stream that somebody else is changing is awaited",
            Situation::of(service).sees(unknown()),
            rests(Reason::StreamUpdating, 2),
        ),
        (
            "a stream that changes after our Start is being encrypted",
            called().accepted().after(1).sees(unknown()),
            rests(Reason::Enabling, 2),
        ),
        (
            "a stream that changes after our Stop is being decrypted",
            stopping().accepted().after(1).sees(unknown()),
            rests(Reason::Disabling, 2),
        ),
        (
            "a stream that changes after AWS refused our call is changed by somebody else",
            called()
                .accepted()
                .after(400)
                .sees(Observation::Off)
                .calls()
                .refused(Class::InUse, "ResourceInUseException")
                .after(1)
                .sees(unknown()),
            rests(Reason::StreamUpdating, 2),
        ),
        (
            "looks at a stream that changes grow to 30 seconds",
            called().accepted().after(1000).sees(unknown()).with(|s| {
                s.waiting = Some((Reason::Enabling, s.now - jiff::SignedDuration::from_secs(1000)));
            }),
            rests(Reason::Enabling, 30),
        ),
        (
            "plain text right after an accepted Start is not believed",
            called().accepted().after(10).sees(Observation::Off),
            rests(Reason::Enabling, 2),
        ),
        (
            "plain text after an accepted Start is looked at again as soon as it can be believed",
            called().accepted().after(29).sees(Observation::Off),
            rests(Reason::Enabling, 1),
        ),
        (
            "encryption right after an accepted Stop is not believed",
            stopping().accepted().after(29).sees(Observation::On(key(1))),
            rests(Reason::Disabling, 1),
        ),
        (
            "plain text after an accepted Start that was seen under way is believed at once",
            called().accepted().after(3).sees(unknown()).after(3).sees(Observation::Off),
            waits(
                match service {
                    Service::Firehose => Reason::NotApplied,
                    Service::Kinesis => Reason::EnablingFailed,
                },
                294,
                294,
            ),
        ),
        (
            "plain text right after a Start that was seen to be done is corrected at once",
            called().accepted().after(3).sees(Observation::On(key(1))).after(9).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "plain text right after a Start without an answer says nothing",
            called().refused(Class::UnknownOutcome, "InternalFailure").after(29).sees(Observation::Off),
            rests(Reason::OutcomeUnknown, 1),
        ),
        (
            "a look that was too early stays so when time goes by without another",
            called().accepted().after(29).sees(Observation::Off).after(2),
            rests(Reason::Enabling, 0),
        ),
        (
            "a failure that was seen before the last call is not this call's failure",
            called().accepted().after(31).sees(failed(Action::Start)).after(270).calls().accepted(),
            rests(Reason::Enabling, 0),
        ),
        (
            "a failure seen right after a call may be the one before",
            called()
                .accepted()
                .after(301)
                .sees(failed(Action::Start))
                .calls()
                .accepted()
                .after(3)
                .sees(failed(Action::Start)),
            rests(Reason::Enabling, 2),
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn as_asked(service: Service) -> Vec<Row> {
    let on = || Situation::of(service).sees(Observation::On(key(1)));
    let proof = |s: &mut Situation| s.intent.verify = true;
    vec![
        ("the key asked for counts once it has settled", on(), rests(Reason::Settling, 5)),
        ("after 5 seconds records are encrypted", on().after(5), rests(Reason::Encrypted, 595)),
        (
            "a look that shows what was asked for is good until the next look for drift",
            Situation::of(service).converged(),
            rests(Reason::Encrypted, 600),
        ),
        (
            "a key that has become unusable does not change what is in force",
            Situation::of(service).converged().key_is(KeyProblem::Disabled),
            rests(Reason::Encrypted, 600),
        ),
        (
            "an active key that is lost is not ready, whatever AWS shows",
            Situation::of(service).converged().active_key_is(KeyProblem::Disabled),
            rests(Reason::KeyDisabled, 15),
        ),
        (
            "an active key that is lost is not ready either when any key will do",
            Situation::of(service).wants(Wanted::AnyKey).converged().active_key_is(KeyProblem::Missing),
            rests(Reason::KeyNotFound, 15),
        ),
        (
            "an active key that is lost is not proved by a record",
            Situation::of(service).with(proof).converged().active_key_is(KeyProblem::Disabled),
            rests(Reason::KeyDisabled, 15),
        ),
        (
            "a stream is re-keyed away from a key that is lost",
            Situation::of(service)
                .converged()
                .wants(Wanted::Key(key(2)))
                .active_key_is(KeyProblem::PendingDeletion),
            starts(key(2)),
        ),
        (
            "encryption with a key that is lost is turned off as asked",
            Situation::of(service).converged().wants(Wanted::Off).active_key_is(KeyProblem::Disabled),
            stops(),
        ),
        (
            "a lost key of before keeps no deleted resource whose stream is in plain text",
            deleted(service).converged().active_key_is(KeyProblem::Disabled),
            releases(Reason::EncryptionDisabled, 600),
        ),
        (
            "somebody's own key is left alone when any key will do",
            Situation::of(service).wants(Wanted::AnyKey).sees(Observation::On(key(7))).after(5),
            rests(Reason::Encrypted, 595),
        ),
        (
            "a key that KMS does not resolve is a key, when any will do",
            Situation::of(service)
                .wants(Wanted::AnyKey)
                .sees(Observation::On(Key::Unresolved("x".into())))
                .after(5),
            rests(Reason::Encrypted, 595),
        ),
        (
            "plain text as asked settles too",
            Situation::of(service).wants(Wanted::Off).sees(Observation::Off),
            rests(Reason::Settling, 5),
        ),
        (
            "plain text as asked is ready",
            Situation::of(service).wants(Wanted::Off).converged(),
            rests(Reason::EncryptionDisabled, 600),
        ),
        (
            "a deleted resource is let go once encryption is off",
            deleted(service).converged(),
            releases(Reason::EncryptionDisabled, 600),
        ),
        (
            "a deleted resource waits until off has settled",
            deleted(service).sees(Observation::Off),
            rests(Reason::Settling, 5),
        ),
        (
            "the proof that was asked for is made once the key has settled",
            Situation::of(service).with(proof).converged(),
            Expected { step: Kind::Verify, ..rests(Reason::Verifying, 5) },
        ),
        (
            "a proof from before the key changed proves nothing",
            Situation::of(service).with(proof).with(|s| s.intent.verified = Some(s.now)).after(1).converged(),
            Expected { step: Kind::Verify, ..rests(Reason::Verifying, 5) },
        ),
        (
            "one proof is enough",
            Situation::of(service).with(proof).converged().with(|s| s.intent.verified = Some(s.now)),
            rests(Reason::Encrypted, 600),
        ),
        (
            "a proof of the moment in which the key was seen in force is one",
            Situation::of(service)
                .with(proof)
                .sees(Observation::On(key(1)))
                .with(|s| s.intent.verified = Some(s.now))
                .after(60)
                .sees(Observation::On(key(1))),
            rests(Reason::Encrypted, 600),
        ),
        (
            "no proof is made of plain text",
            Situation::of(service).with(proof).wants(Wanted::Off).converged(),
            rests(Reason::EncryptionDisabled, 600),
        ),
    ]
}

fn differing(service: Service) -> Vec<Row> {
    vec![
        (
            "after a failed re-key the old key needs no call when it is asked for again",
            Situation::of(service)
                .converged()
                .wants(Wanted::Key(key(2)))
                .calls()
                .accepted()
                .after(60)
                .sees(failed(Action::Start))
                .wants(Wanted::Key(key(1)))
                .sees(failed(Action::Start)),
            rests(Reason::Encrypted, 600),
        ),
        (
            "what differs is reported and not corrected, when that is asked",
            Situation::of(service).with(|s| s.intent.drift = Drift::Report).sees(Observation::Off),
            rests(Reason::Drifted, 600),
        ),
        (
            "whether a key that nobody knows differs is not known either",
            Situation::of(service)
                .wants(Wanted::UnknownKey)
                .key_is(KeyProblem::Unreadable)
                .with(|s| s.intent.drift = Drift::Report)
                .sees(Observation::On(key(1))),
            rests(Reason::KeyUnreadable, 15),
        ),
        (
            "what is as asked is ready also where drift is only reported",
            Situation::of(service).with(|s| s.intent.drift = Drift::Report).converged(),
            rests(Reason::Encrypted, 600),
        ),
    ]
}
