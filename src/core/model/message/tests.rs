//! Each message names the state and the action to take, and the stream, key or permission concerned.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::Service;

use super::*;
use crate::model::aws_error::{AwsError, ErrorKind};
use crate::model::decision::Step;
use crate::model::key::{Key, KeyProblem};
use crate::model::permission::{EffectivePolicy, Policy};
use crate::model::scenario::{Scenario, Sight, aws_error, failed, key, midnight};
use crate::model::service::Operation;

const KEY_1: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";
const FIREHOSE: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
const KINESIS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";

/// Returns the message of `Ready` for `reason`.
fn says(situation: &Scenario, reason: Reason) -> String {
    let decision = Decision {
        step: Step::Wait,
        reason,
        wake: situation.now,
        describe_due: situation.now,
        next_attempt: None,
    };
    ready(&situation.input(), &decision)
}

fn cannot_see(service: Service, operation: Operation) -> Scenario {
    let asked = AwsError { operation, ..aws_error(ErrorKind::Denied, "AccessDeniedException") };
    Scenario::of(service).with(|s| s.sight = Sight::Failed(asked))
}

fn seen(observation: Observation) -> Scenario {
    Scenario::of(Service::Firehose).sees(observation)
}

/// The key was active before the policy was changed, or was set outside the operator.
#[test]
fn disallowed_key_is_not_named_in_messages() {
    let only_the_aws_owned = StreamEncryptionPolicySpec {
        keys: vec!["AWS_OWNED_CMK".to_owned()],
        ..StreamEncryptionPolicySpec::own_account()
    };
    let own = Scenario::of(Service::Firehose).permission.own_account().clone();
    let restricted = EffectivePolicy::of(Policy::read(&only_the_aws_owned).0.into_iter().collect(), own);
    let s = Scenario::of(Service::Firehose).converged().with(|s| s.permission = restricted).after(60);
    assert_eq!(
        status_fields::active_key(&s.input()),
        Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: None })
    );
    for reason in Reason::ALL {
        let wants_another = s.clone().wants(DesiredEncryption::AnyKey);
        assert!(
            !says(&wants_another, *reason).contains("key/1"),
            "{reason}: {}",
            says(&wants_another, *reason)
        );
    }
    assert!(!encrypted(&s.input()).contains("key/1"), "{}", encrypted(&s.input()));
    assert!(encrypted(&s.input()).contains("a customer managed key"), "{}", encrypted(&s.input()));
}

#[test]
fn message_names_subject_and_action() {
    let firehose = || Scenario::of(Service::Firehose);
    let converged = || firehose().converged();
    let rekeying = || converged().wants(DesiredEncryption::Key(key(2))).calls().accepted().after(60);
    let refused =
        |code: &str| seen(Observation::Off).calls().refused(ErrorKind::KeyAccessDenied, code).after(60);
    for (situation, reason, pieces) in vec![
        (converged(), Reason::Encrypted, &["Records are encrypted with", KEY_1][..]),
        (firehose(), Reason::Encrypted, &["Records are encrypted."]),
        (converged(), Reason::KeyEnabled, &[KEY_1, "can encrypt"]),
        (firehose(), Reason::Verifying, &["grant firehose:PutRecord on", FIREHOSE, "kms:Decrypt"]),
        (
            Scenario::of(Service::Kinesis),
            Reason::Verifying,
            &["grant kinesis:PutRecord on", KINESIS, "kms:GenerateDataKey"],
        ),
        (firehose().wants(DesiredEncryption::AnyKey), Reason::Enabling, &["with the AWS-owned key"]),
        (firehose().wants(DesiredEncryption::UnknownKey), Reason::Enabling, &["with the specified key"]),
        (firehose(), Reason::Enabling, &[KEY_1, "Records written meanwhile may be in plaintext."]),
        (seen(Observation::Off), Reason::Enabling, &["Records are still in plaintext."]),
        (rekeying(), Reason::Enabling, &["key/2", "Records are still encrypted with", KEY_1]),
        (converged(), Reason::Disabling, &["Records are still encrypted with", KEY_1]),
        (
            rekeying().sees(failed(Action::Start)),
            Reason::EnablingFailed,
            &["KMS_ACCESS_DENIED", "key/1 is the active key", "streamencryption.dev/retry"],
        ),
        (seen(failed(Action::Stop)), Reason::DisablingFailed, &["The active key is unknown."]),
        (seen(Observation::Off), Reason::NotApplied, &["Records are in plaintext."]),
        (refused("SomethingNew"), Reason::CallRefused, &["SomethingNew"]),
        (firehose(), Reason::CallRefused, &["no reason given"]),
        (refused("KMSOptInRequired"), Reason::KeyAccessDenied, &["KMSOptInRequired", "kms:CreateGrant"]),
        (firehose(), Reason::KeyNotFound, &[KEY_1, "eu-west-1"]),
        (firehose(), Reason::KeyDescribeDenied, &["Grant kms:DescribeKey"]),
        (firehose(), Reason::KeyInOtherRegion, &["eu-west-1"]),
        (firehose(), Reason::StreamNotFound, &["Firehose", "orders", "eu-west-1"]),
        (
            seen(Observation::NotOperational("CREATING_FAILED".into())),
            Reason::StreamFailed,
            &["CREATING_FAILED"],
        ),
        (firehose(), Reason::StreamFailed, &["status unknown"]),
        (
            seen(Observation::Unrecognized("the stream status \"SUSPENDED\"".into())),
            Reason::StreamStateUnrecognized,
            &["AWS reports the stream status \"SUSPENDED\"", "no encryption call", "update the operator"],
        ),
        (firehose(), Reason::StreamStateUnrecognized, &["a state"]),
        (
            seen(Observation::NotEncryptable("MSKAsSource".into())),
            Reason::SourceNotDirectPut,
            &["MSKAsSource", "delete this resource"],
        ),
        (firehose(), Reason::SourceNotDirectPut, &["another service"]),
        (
            cannot_see(Service::Firehose, Operation::DescribeDeliveryStream),
            Reason::AccessDenied,
            &["Grant firehose:DescribeDeliveryStream on", FIREHOSE],
        ),
        (
            cannot_see(Service::Firehose, Operation::GetCallerIdentity),
            Reason::AccessDenied,
            &["sts:GetCallerIdentity", "STS endpoint"],
        ),
        (
            Scenario::of(Service::Kinesis),
            Reason::StreamNotFound,
            &["of account 111122223333", "Check name, account"],
        ),
        (
            cannot_see(Service::Kinesis, Operation::AssumeRole),
            Reason::AccessDenied,
            &["sts:AssumeRole", "sts:TagSession", "trust policy", "external id"],
        ),
        (firehose(), Reason::AccessDenied, &["Grant firehose:StartDeliveryStreamEncryption on"]),
        (
            Scenario::of(Service::Kinesis).wants(DesiredEncryption::Off),
            Reason::AccessDenied,
            &["Grant kinesis:StopStreamEncryption on", KINESIS],
        ),
        (
            cannot_see(Service::Kinesis, Operation::DescribeStreamSummary),
            Reason::AwsUnreachable,
            &["kinesis:DescribeStreamSummary: AccessDeniedException"],
        ),
        (firehose(), Reason::AwsUnreachable, &["the encryption call"]),
        (firehose(), Reason::LedgerInvalid, &["stream-"]),
        (firehose().spent(20), Reason::CallLimitReached, &["20 of 20 encryption calls", "limit is 25"]),
        (
            seen(Observation::Off).calls().refused(ErrorKind::LimitReached, "LimitExceededException"),
            Reason::CallLimitReached,
            &["were used by others", "LimitExceededException"],
        ),
    ] {
        let words = says(&situation, reason);
        for piece in pieces {
            assert!(words.contains(piece), "{reason:?} without {piece:?}: {words}");
        }
    }
}

#[test]
fn next_attempt_is_shown_in_whole_seconds() {
    let situation = seen(Observation::Off).calls().refused(ErrorKind::Denied, "AccessDeniedException");
    let decision = situation.after(1).sees(Observation::Off);
    let words = ready(&decision.input(), &decision.decide());
    assert!(words.ends_with(" Next attempt at 2026-01-01T00:05:00Z."), "{words}");
    let at = midnight() + SignedDuration::from_millis(1999);
    assert_eq!(whole_seconds(at), "2026-01-01T00:00:02Z", "as the field has it: not too early");
    assert!(!whole_seconds(Timestamp::MAX).is_empty());
}

#[test]
fn encrypted_message_matches_observation() {
    let words = |situation: Scenario| encrypted(&situation.input());
    let plain = "Records have been in plaintext since 2026-01-01T00:00:00Z or earlier.";
    assert_eq!(words(Scenario::of(Service::Kinesis)), "Unknown: the stream has not been described yet.");
    assert_eq!(words(seen(Observation::Off)), plain);
    let fresh = words(seen(Observation::On(key(1))));
    assert!(fresh.contains("up to 5 seconds"), "{fresh}");
    assert_eq!(
        words(seen(Observation::On(key(1))).after(5)),
        format!("Records have been encrypted since 2026-01-01T00:00:05Z, with {KEY_1}.")
    );
    assert_eq!(
        words(seen(Observation::On(Key::AwsOwned)).after(5)),
        "Records have been encrypted since 2026-01-01T00:00:05Z, with the AWS-owned key."
    );
}

#[test]
fn key_usable_message_is_about_desired_key() {
    let words = |situation: Scenario| key_usable(&situation.input());
    assert_eq!(
        words(Scenario::of(Service::Kinesis)),
        format!(
            "{KEY_1} can encrypt the stream. Not verified: producers need kms:GenerateDataKey and consumers need kms:Decrypt on this key."
        )
    );
    let disabled = words(Scenario::of(Service::Kinesis).key_is(KeyProblem::Disabled));
    assert_eq!(
        disabled,
        format!(
            "{KEY_1} is disabled. Enable it, or set another key in spec.key. No encryption calls are made until then."
        )
    );
}

#[test]
fn missing_and_rejected_credentials_and_no_answer_differ() {
    let look = Operation::DescribeDeliveryStream;
    let expired = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z";
    for (kind, code, message, pieces) in [
        (
            ErrorKind::NoCredentials,
            Some("NoCredentials"),
            "",
            &["no request was sent", "service account has no role"][..],
        ),
        (
            ErrorKind::NoCredentials,
            Some("CredentialsMisconfigured"),
            "",
            &["no request was sent", "docs/install.md"],
        ),
        (
            ErrorKind::NoCredentials,
            Some("CredentialsSourceFailed"),
            "",
            &["no request was sent", "trust policy"],
        ),
        (
            ErrorKind::NoCredentials,
            Some("CredentialsTimedOut"),
            "",
            &["no request was sent", "does not respond"],
        ),
        (ErrorKind::NoCredentials, Some("CredentialsUnsignable"), "", &["line break", "from the Secret"]),
        (ErrorKind::CredentialsRejected, Some("ExpiredTokenException"), "", &["has ended", "renew"]),
        (
            ErrorKind::CredentialsRejected,
            Some("UnrecognizedClientException"),
            "",
            &["does not recognize", "access key"],
        ),
        (ErrorKind::CredentialsRejected, Some("InvalidSignatureException"), expired, &["clock", "node"]),
        (ErrorKind::CredentialsRejected, Some("RequestTimeTooSkewed"), "", &["clock"]),
        (ErrorKind::CredentialsRejected, Some("SignatureDoesNotMatch"), "", &["secret access key"]),
        (ErrorKind::CredentialsRejected, Some("OptInRequired"), "", &["region is not enabled"]),
        (ErrorKind::Transient, None, "", &["No readable response to", "network"]),
        (
            ErrorKind::Transient,
            Some("InternalFailure"),
            "",
            &["AWS returned an internal error", "InternalFailure"],
        ),
        (ErrorKind::Transient, Some("502"), "", &["HTTP status 502", "proxy"]),
        (ErrorKind::Transient, Some("InvalidResponse"), "", &["is not valid"]),
        (ErrorKind::Throttled, Some("ThrottlingException"), "", &["throttling"]),
    ] {
        let asked = |operation| AwsError {
            operation,
            kind,
            code: code.map(str::to_owned),
            message: message.to_owned(),
        };
        let seen = Scenario::of(Service::Firehose).with(|s| s.sight = Sight::Failed(asked(look)));
        for words in [identity(&asked(Operation::GetCallerIdentity)), says(&seen, kind.reason())] {
            for piece in pieces {
                assert!(words.contains(piece), "{kind:?} {code:?} without {piece:?}: {words}");
            }
            assert!(!words.contains("Grant") && !words.contains("20260101"), "{words}");
            assert_eq!(
                words.contains("network and endpoint"),
                (kind, code) == (ErrorKind::Transient, None),
                "{words}"
            );
        }
    }
    let strange =
        AwsError { operation: Operation::GetCallerIdentity, ..aws_error(ErrorKind::Invalid, "Strange") };
    assert!(identity(&strange).contains("AWS refused sts:GetCallerIdentity"));
}

#[test]
fn credentials_refusal_message_depends_on_code() {
    for (code, kind, piece) in [
        ("ExpiredTokenException", ErrorKind::CredentialsRejected, "has ended"),
        ("SessionTooOld", ErrorKind::NoCredentials, "older than 6 hours"),
        ("OperatorPaused", ErrorKind::Transient, "did not run for some seconds"),
        ("SignerChanged", ErrorKind::Transient, "credentials changed"),
    ] {
        let refused = seen(Observation::Off).calls().refused(kind, code).after(1).sees(Observation::Off);
        let decision = refused.decide();
        assert_eq!(decision.reason, kind.reason());
        let words = ready(&refused.input(), &decision);
        assert!(words.contains(piece) && words.contains("Next attempt at"), "{words}");
    }
}

#[test]
fn server_error_is_distinguished_from_no_response() {
    let unknown = |code| seen(Observation::Off).calls().refused(ErrorKind::UnknownOutcome, code);
    let words = says(&unknown("InternalFailure"), Reason::OutcomeUnknown);
    assert!(words.contains("without a definite answer (InternalFailure)"), "{words}");
    let silent = says(&seen(Observation::Off), Reason::OutcomeUnknown);
    assert!(silent.contains("received no response"), "{silent}");
}

#[test]
fn documented_failure_has_specific_advice() {
    let nothing = advice("SOMETHING_NEW");
    assert!(nothing.contains("log"), "{nothing}");
    for (codes, piece) in [
        (&["KMS_ACCESS_DENIED", "KMSAccessDeniedException"][..], "policy"),
        (&["DISABLED_KMS_KEY", "KMSDisabledException"], "Enable it"),
        (&["KMS_KEY_NOT_FOUND", "KMSNotFoundException"], "does not exist"),
        (&["INVALID_KMS_KEY", "KMSInvalidStateException"], "current state"),
        (&["CREATE_KMS_GRANT_FAILED"], "Allow kms:CreateGrant"),
        (&["RETIRE_KMS_GRANT_FAILED"], "old key"),
        (&["KMS_OPT_IN_REQUIRED", "KMSOptInRequired"], "subscribe"),
        (&["InvalidKMSResourceException"], "KMS rejects the key"),
        (&["AccessDeniedException"], "lacks a permission"),
        (&["LimitExceededException"], "limit"),
        (&["NOT_APPLIED"], "is unchanged"),
        (&["OperatorPaused", "SignerChanged"], "did not send the call"),
        (&["NoCredentials"], "no request was sent"),
        (&["SessionTooOld"], "older than 6 hours"),
    ] {
        for code in codes {
            assert!(advice(code).contains(piece), "{code}: {}", advice(code));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn message_fits_into_event_for_any_failure_code(
        reason in prop::sample::select(Reason::ALL), word in "\\PC{0,40}", off in any::<bool>(),
    ) {
        let observation = Observation::Failed { action: Action::Start, reason: word.clone() };
        let situation = Scenario::of(Service::Kinesis).converged().sees(observation).after(60);
        let situation = situation.wants(if off { DesiredEncryption::Off } else { DesiredEncryption::Key(Key::Unresolved(word)) });
        let words = says(&situation, reason);
        prop_assert!((1..=1024).contains(&words.len()), "{} bytes: {}", words.len(), words);
        prop_assert!(words.ends_with('.'), "{}", words);
    }
}

#[test]
fn lost_key_message_names_impact_and_remedy() {
    let Key::Customer(arn) = key(1) else { unreachable!() };
    for (service, records) in
        [(Service::Kinesis, "neither written"), (Service::Firehose, "discards them after 24 hours")]
    {
        for (problem, remedy) in [
            (KeyProblem::Disabled, "Enable it."),
            (KeyProblem::PendingDeletion, "Cancel its deletion"),
            (KeyProblem::NotFound, "Set another key"),
            (KeyProblem::PendingImport, "Import it."),
            (KeyProblem::Unavailable, "key store"),
        ] {
            let words = active_key_unusable(&Scenario::of(service).input(), &arn, problem);
            for part in ["key/1 is the active key", records, remedy] {
                assert!(words.contains(part), "{problem:?}: {words}");
            }
        }
    }
}

#[test]
fn encrypted_message_has_separate_time_for_active_key() {
    let rekeyed = Scenario::of(Service::Kinesis)
        .converged()
        .wants(DesiredEncryption::Key(key(2)))
        .calls()
        .accepted()
        .after(100)
        .sees(Observation::On(key(2)));
    let words = encrypted(&rekeyed.input());
    assert!(
        words.starts_with("Records have been encrypted since 2026-01-01T00:00:05Z. AWS has changed"),
        "{words}"
    );
    let words = encrypted(&rekeyed.after(5).input());
    let both = "Records have been encrypted since 2026-01-01T00:00:05Z, and with arn:aws:kms:eu-west-1:111122223333:key/2 since 2026-01-01T00:02:45Z.";
    assert_eq!(words, both);
}

#[test]
fn message_times_match_status_fields() {
    let s = Scenario::of(Service::Kinesis).with(|s| s.now += SignedDuration::from_millis(300)).converged();
    let field = next_whole_second(status_fields::encrypted_since_time(&s.input()).unwrap()).0;
    assert!(encrypted(&s.input()).contains(&format!("since {field}, ")), "{}", encrypted(&s.input()));
    let plain = s.wants(DesiredEncryption::Off).converged();
    let field = next_whole_second(status_fields::plaintext_since_time(&plain.input()).unwrap()).0;
    assert!(encrypted(&plain.input()).contains(&format!("since {field}")), "{}", encrypted(&plain.input()));
}

#[test]
fn unknown_encryption_message_names_cause() {
    let of = || Scenario::of(Service::Firehose);
    let source = Observation::NotEncryptable("KinesisStreamAsSource".into());
    for (situation, words) in [
        (of(), "has not been described"),
        (of().cannot_see(ErrorKind::Transient), "could not be described"),
        (seen(Observation::Missing), "was not found"),
        (seen(Observation::Creating), "is being created"),
        (seen(Observation::NotOperational("CREATING_FAILED".into())), "CREATING_FAILED"),
        (of().with(|s| s.sight = Sight::At(s.now, source)), "the stream's source is KinesisStreamAsSource"),
        (seen(failed(Action::Start)), "does not report which key is active"),
        (seen(Observation::InProgress(None)), "not reported a stable encryption state"),
    ] {
        let message = encrypted(&situation.input());
        assert!(message.starts_with("Unknown: ") && message.contains(words), "{message}");
    }
}

#[test]
fn unconfirmed_state_is_reported_as_aws_shows_it() {
    let waiting = seen(Observation::Off).calls().accepted().after(3).sees(Observation::Off);
    let words = ready(&waiting.input(), &waiting.decide());
    assert!(
        words.contains("AWS reports DISABLED") && words.contains("checked again within 30 seconds"),
        "{words}"
    );
    assert!(!words.contains("Records"), "nothing is claimed of them: {words}");
}

#[test]
fn key_and_owner_are_named_if_reader_may_see_them() {
    let by_name = |name: &str| {
        let name = Some(name.to_owned());
        Scenario::of(Service::Kinesis)
            .wants(DesiredEncryption::UnknownKey)
            .with(|s| s.desired.key_reference = name)
    };
    assert!(
        says(&by_name("alias/orders"), Reason::KeyNotFound)
            .contains("The key alias/orders was not found in eu-west-1. Create the alias")
    );
    assert!(says(&by_name("orders"), Reason::KeyReferenceNotReady).contains("Key orders"));
    let owned = Scenario::of(Service::Kinesis);
    assert!(says(&owned, Reason::StreamAlreadyManaged).contains("of another namespace"));
    let named = owned.with(|s| s.other_owner = Some("clicks"));
    assert!(says(&named, Reason::StreamAlreadyManaged).contains("StreamEncryption clicks of this namespace"));
}

#[test]
fn denied_disable_on_deletion_is_reported_early() {
    let kept = Scenario::of(Service::Kinesis).with(|s| s.desired.disable_on_deletion = true);
    let words = says(&kept, Reason::DisableNotPermitted);
    assert!(words.contains("neither encrypts the stream now nor disables encryption on deletion"), "{words}");
    let deleting = kept.wants(DesiredEncryption::Off).with(|s| s.desired.deleting = true);
    let words = says(&deleting, Reason::DisableNotPermitted);
    assert!(words.contains("so the resource is kept"), "{words}");
}

/// Only Firehose creates a grant, and Kinesis requires its own action on the key.
#[test]
fn key_access_message_names_permissions_of_service() {
    for (service, code, named, absent) in [
        (Service::Firehose, "InvalidKMSResourceException", "kms:CreateGrant", "kinesis:"),
        (
            Service::Kinesis,
            "KMSAccessDeniedException",
            "kinesis:StartStreamEncryption on the key in the role",
            "kms:CreateGrant",
        ),
    ] {
        let plain = Scenario::of(service).sees(Observation::Off);
        let words = says(&plain.calls().refused(ErrorKind::KeyAccessDenied, code), Reason::KeyAccessDenied);
        assert!(words.contains(code) && words.contains(named) && !words.contains(absent), "{words}");
    }
}

#[test]
fn call_without_effect_is_not_reported_as_a_failure_code() {
    let started = Scenario::of(Service::Kinesis).sees(Observation::Off).calls().accepted();
    let stopped = Scenario::of(Service::Kinesis).converged().wants(DesiredEncryption::Off);
    let stopped = stopped.calls().accepted();
    for (unchanged, reason, words) in [
        (
            started.after(60).sees(Observation::Off),
            Reason::EnablingFailed,
            format!(
                "AWS accepted the call to encrypt with {KEY_1}, and the stream is unchanged. Records are in plaintext."
            ),
        ),
        (
            stopped.after(60).sees(Observation::On(key(1))),
            Reason::DisablingFailed,
            format!(
                "AWS accepted the call to disable encryption, and the stream is unchanged. {KEY_1} is the active key."
            ),
        ),
    ] {
        let decision = unchanged.decide();
        assert_eq!(decision.reason, reason);
        let message = ready(&unchanged.input(), &decision);
        assert!(message.starts_with(&words) && !message.contains("NOT_APPLIED"), "{message}");
    }
}

#[test]
fn lost_active_key_comes_first_in_message() {
    let converged = Scenario::of(Service::Firehose).converged();
    let lost = converged.clone().active_key_is(KeyProblem::Disabled);
    let Key::Customer(arn) = key(1) else { unreachable!() };
    let alone = active_key_unusable(&lost.input(), &arn, KeyProblem::Disabled);
    assert_eq!(ready(&lost.input(), &lost.decide()), alone);
    let any = lost.clone().wants(DesiredEncryption::AnyKey);
    assert_eq!(ready(&any.input(), &any.decide()), alone);
    // The desired key is another one, and is unusable too.
    let other = lost.clone().wants(DesiredEncryption::Key(key(2))).key_is(KeyProblem::Disabled);
    let words = ready(&other.input(), &other.decide());
    assert!(words.starts_with(&alone) && words.contains("key/2 is disabled"), "{words}");
    let rekeying = lost.clone().wants(DesiredEncryption::Key(key(2))).calls().accepted();
    let words = ready(&rekeying.input(), &rekeying.decide());
    assert!(words.starts_with(&alone) && words.contains("key/2"), "{words}");
    // No claim is made if the stream could not be described, and only the owner sees the key.
    let unseen = lost.clone().cannot_see(ErrorKind::Transient);
    assert!(!ready(&unseen.input(), &unseen.decide()).contains("key/1"));
    for reason in [Reason::NotPermitted, Reason::StreamAlreadyManaged, Reason::Suspended] {
        assert!(!says(&lost, reason).contains("key/1"), "{reason}");
    }
}

#[test]
fn customer_key_message_names_required_permissions() {
    for (service, rights) in [
        (Service::Kinesis, ["kms:GenerateDataKey", "kms:Decrypt"]),
        (Service::Firehose, ["producers need kms:GenerateDataKey", "kms:Decrypt"]),
    ] {
        let words = key_usable(&Scenario::of(service).input());
        assert!(rights.iter().all(|right| words.contains(right)), "{words}");
        let aws_owned =
            key_usable(&Scenario::of(service).wants(DesiredEncryption::Key(Key::AwsOwned)).input());
        assert!(!aws_owned.contains("kms:"), "{aws_owned}");
    }
}
