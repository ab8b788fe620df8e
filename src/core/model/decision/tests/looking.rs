//! Rows that the observation alone decides: a stream that cannot be changed now, is changing, or matches the
//! spec.

use jiff::SignedDuration;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::{Mode, Service};

use super::{Expected, Kind, Row, releases, rests, starts, stops, waits};
use crate::model::aws_error::ErrorKind;
use crate::model::decision::Ownership;
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::observation::Observation;
use crate::model::scenario::{Scenario, failed, key};

pub(super) fn rows(service: Service) -> Vec<Row> {
    [unchangeable(service), changing(service), as_asked(service), differing(service)].concat()
}

fn deleted(service: Service) -> Scenario {
    Scenario::of(service).wants(DesiredEncryption::Off).with(|s| {
        s.desired.disable_on_deletion = true;
        s.desired.deleting = true;
    })
}

/// A deleted resource whose last Start received no response.
fn deleted_after_unanswered_start(service: Service) -> Scenario {
    let called = Scenario::of(service).sees(Observation::Off).calls();
    let unanswered = called.refused(ErrorKind::UnknownOutcome, "InternalFailure");
    unanswered.wants(DesiredEncryption::Off).with(|s| {
        s.desired.disable_on_deletion = true;
        s.desired.deleting = true;
    })
}

fn unchangeable(service: Service) -> Vec<Row> {
    let sees = |observation| Scenario::of(service).sees(observation);
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
            rests(Reason::StreamARNMismatch, 30),
        ),
        (
            "a deleted resource is kept while AWS describes another account's stream of that name",
            deleted(service).sees(Observation::OtherStream),
            rests(Reason::StreamARNMismatch, 30),
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
            sees(Observation::NotOperational("CREATING_FAILED".into())),
            rests(Reason::StreamFailed, 30),
        ),
        (
            "a stream that AWS describes in unknown words is not changed",
            sees(Observation::Unrecognized("the stream status \"SUSPENDED\"".into())),
            rests(Reason::StreamStateUnrecognized, 30),
        ),
        (
            "a deleted resource is kept while AWS reports an unknown value",
            deleted(service).sees(Observation::Unrecognized("the encryption \"ROT13\"".into())),
            rests(Reason::StreamStateUnrecognized, 30),
        ),
        (
            "a stream that reads from Kinesis cannot be encrypted",
            sees(other_source()),
            rests(Reason::SourceNotDirectPut, 600),
        ),
        (
            "a stream that cannot be encrypted is off, as specified",
            Scenario::of(service).wants(DesiredEncryption::Off).sees(other_source()),
            rests(Reason::EncryptionDisabled, 600),
        ),
        (
            "a deleted resource of a stream that cannot be encrypted is let go",
            deleted(service).sees(other_source()),
            releases(Reason::EncryptionDisabled, 600),
        ),
        (
            "a deleted resource is kept while AWS may still apply a Start",
            deleted_after_unanswered_start(service).after(29 * 60).sees(Observation::Off),
            rests(Reason::OutcomeUnknown, 2),
        ),
        (
            "a failure that AWS shows may be older than an unanswered Start",
            deleted_after_unanswered_start(service)
                .after(60)
                .with(|s| s.ledger.calls[0].after_failure = true)
                .sees(Observation::Off)
                .sees(failed(Action::Start)),
            rests(Reason::OutcomeUnknown, 2),
        ),
        (
            "a deleted resource is let go when AWS can no longer apply a Start",
            deleted_after_unanswered_start(service).after(31 * 60).sees(Observation::Off),
            releases(Reason::EncryptionDisabled, 600),
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn changing(service: Service) -> Vec<Row> {
    let called = || Scenario::of(service).sees(Observation::Off).calls();
    let stopping =
        || Scenario::of(service).wants(DesiredEncryption::Off).sees(Observation::On(key(1))).calls();
    let unknown = || Observation::InProgress(None);
    vec![
        (
            "ENABLING is looked at again in 2 seconds",
            Scenario::of(service).sees(Observation::InProgress(Some(Action::Start))),
            rests(Reason::Enabling, 2),
        ),
        (
            "DISABLING is reported also if encryption is desired",
            Scenario::of(service).sees(Observation::InProgress(Some(Action::Stop))),
            rests(Reason::Disabling, 2),
        ),
        (
            "a stream that somebody else is changing is awaited",
            Scenario::of(service).sees(unknown()),
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
                .refused(ErrorKind::InUse, "ResourceInUseException")
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
            "plaintext right after an accepted Start is not trusted",
            called().accepted().after(10).sees(Observation::Off),
            rests(Reason::Enabling, 2),
        ),
        (
            "plaintext after an accepted Start is described again once the report can be trusted",
            called().accepted().after(29).sees(Observation::Off),
            rests(Reason::Enabling, 1),
        ),
        (
            "encryption right after an accepted Stop is not trusted",
            stopping().accepted().after(29).sees(Observation::On(key(1))),
            rests(Reason::Disabling, 1),
        ),
        (
            "plaintext after a Start that was seen in progress is trusted immediately",
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
            "plaintext right after a Start that was seen to be applied is corrected immediately",
            called().accepted().after(3).sees(Observation::On(key(1))).after(9).sees(Observation::Off),
            starts(key(1)),
        ),
        (
            "plaintext right after a Start without a response is not trusted",
            called().refused(ErrorKind::UnknownOutcome, "InternalFailure").after(29).sees(Observation::Off),
            rests(Reason::OutcomeUnknown, 1),
        ),
        (
            "an early observation does not become reliable with time alone",
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
    let on = || Scenario::of(service).sees(Observation::On(key(1)));
    let proof = |s: &mut Scenario| s.desired.verify = true;
    vec![
        ("the desired key counts once it has settled", on(), rests(Reason::Settling, 5)),
        ("after 5 seconds records are encrypted", on().after(5), rests(Reason::Encrypted, 595)),
        (
            "a stream that matches the spec is described again after the drift interval",
            Scenario::of(service).converged(),
            rests(Reason::Encrypted, 600),
        ),
        (
            "a key that has become unusable does not change the active key",
            Scenario::of(service).converged().key_is(KeyProblem::Disabled),
            rests(Reason::Encrypted, 600),
        ),
        (
            "a lost active key is not ready, whatever AWS reports",
            Scenario::of(service).converged().active_key_is(KeyProblem::Disabled),
            rests(Reason::KeyDisabled, 15),
        ),
        (
            "a lost active key is not ready, also if any key is accepted",
            Scenario::of(service)
                .wants(DesiredEncryption::AnyKey)
                .converged()
                .active_key_is(KeyProblem::NotFound),
            rests(Reason::KeyNotFound, 15),
        ),
        (
            "encryption with a lost active key is not verified",
            Scenario::of(service).with(proof).converged().active_key_is(KeyProblem::Disabled),
            rests(Reason::KeyDisabled, 15),
        ),
        (
            "a stream is re-keyed away from a key that is lost",
            Scenario::of(service)
                .converged()
                .wants(DesiredEncryption::Key(key(2)))
                .active_key_is(KeyProblem::PendingDeletion),
            starts(key(2)),
        ),
        (
            "encryption with a lost key is disabled, as specified",
            Scenario::of(service)
                .converged()
                .wants(DesiredEncryption::Off)
                .active_key_is(KeyProblem::Disabled),
            stops(),
        ),
        (
            "a lost previous key does not keep a deleted resource of a plaintext stream",
            deleted(service).converged().active_key_is(KeyProblem::Disabled),
            releases(Reason::EncryptionDisabled, 600),
        ),
        (
            "a key set outside the operator is kept if any key is accepted",
            Scenario::of(service).wants(DesiredEncryption::AnyKey).sees(Observation::On(key(7))).after(5),
            rests(Reason::Encrypted, 595),
        ),
        (
            "a key that KMS does not resolve is kept if any key is accepted",
            Scenario::of(service)
                .wants(DesiredEncryption::AnyKey)
                .sees(Observation::On(Key::Unresolved("x".into())))
                .after(5),
            rests(Reason::Encrypted, 595),
        ),
        (
            "plaintext as asked settles too",
            Scenario::of(service).wants(DesiredEncryption::Off).sees(Observation::Off),
            rests(Reason::Settling, 5),
        ),
        (
            "plaintext as asked is ready",
            Scenario::of(service).wants(DesiredEncryption::Off).converged(),
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
            Scenario::of(service).with(proof).converged(),
            Expected { step: Kind::Verify, ..rests(Reason::Verifying, 5) },
        ),
        (
            "a verification from before the key change does not count",
            Scenario::of(service).with(proof).with(|s| s.desired.verified = Some(s.now)).after(1).converged(),
            Expected { step: Kind::Verify, ..rests(Reason::Verifying, 5) },
        ),
        (
            "one proof is enough",
            Scenario::of(service).with(proof).converged().with(|s| s.desired.verified = Some(s.now)),
            rests(Reason::Encrypted, 600),
        ),
        (
            "a verification at the time at which the key was first observed counts",
            Scenario::of(service)
                .with(proof)
                .sees(Observation::On(key(1)))
                .with(|s| s.desired.verified = Some(s.now))
                .after(60)
                .sees(Observation::On(key(1))),
            rests(Reason::Encrypted, 600),
        ),
        (
            "plaintext is not verified",
            Scenario::of(service).with(proof).wants(DesiredEncryption::Off).converged(),
            rests(Reason::EncryptionDisabled, 600),
        ),
    ]
}

fn differing(service: Service) -> Vec<Row> {
    vec![
        (
            "after a failed re-key the old key needs no call when it is asked for again",
            Scenario::of(service)
                .converged()
                .wants(DesiredEncryption::Key(key(2)))
                .calls()
                .accepted()
                .after(60)
                .sees(failed(Action::Start))
                .wants(DesiredEncryption::Key(key(1)))
                .sees(failed(Action::Start)),
            rests(Reason::Encrypted, 600),
        ),
        (
            "with mode: Observe, a difference is reported and not corrected",
            Scenario::of(service).with(|s| s.desired.mode = Mode::Observe).sees(Observation::Off),
            rests(Reason::Drifted, 600),
        ),
        (
            "an unknown desired key is not reported as drift",
            Scenario::of(service)
                .wants(DesiredEncryption::UnknownKey)
                .key_is(KeyProblem::DescribeDenied)
                .with(|s| s.desired.mode = Mode::Observe)
                .sees(Observation::On(key(1)))
                .after(5)
                .sees(Observation::On(key(1))),
            rests(Reason::KeyDescribeDenied, 15),
        ),
        (
            "the encryption of a stream with another key is reported as soon as it applies",
            Scenario::of(service)
                .with(|s| s.desired.mode = Mode::Observe)
                .sees(Observation::On(key(2)))
                .after(1),
            rests(Reason::Drifted, 4),
        ),
        (
            "after somebody else's failure the operator encrypts again, for the key is unknown",
            Scenario::of(service).converged().after(600).sees(failed(Action::Start)),
            starts(key(1)),
        ),
        (
            "after somebody else's failed Stop records are still encrypted",
            Scenario::of(service).converged().after(600).sees(failed(Action::Stop)),
            rests(Reason::Encrypted, 600),
        ),
        (
            "after somebody else's failed Start the operator disables again, although it was off",
            Scenario::of(service)
                .wants(DesiredEncryption::Off)
                .converged()
                .after(600)
                .sees(failed(Action::Start)),
            stops(),
        ),
        (
            "after somebody else's failed Stop the operator disables again, although it was off",
            Scenario::of(service)
                .wants(DesiredEncryption::Off)
                .converged()
                .after(600)
                .sees(failed(Action::Stop)),
            stops(),
        ),
        (
            "an invalid ledger is read again less and less often, whatever has settled",
            Scenario::of(service)
                .with(|s| {
                    s.ownership = Ownership::LedgerInvalid;
                    s.waiting = Some((Reason::LedgerInvalid, s.now - SignedDuration::from_hours(1)));
                })
                .sees(Observation::On(key(1))),
            rests(Reason::LedgerInvalid, 300),
        ),
        (
            "with mode: Observe, a stream that matches the spec is ready",
            Scenario::of(service).with(|s| s.desired.mode = Mode::Observe).converged(),
            rests(Reason::Encrypted, 600),
        ),
    ]
}
