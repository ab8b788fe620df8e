//! What people read: each message says what is the case and what to do, and names the stream, the key or the right that it is about.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::api::policy::StreamEncryptionPolicySpec;
use crate::model::decision::Step;
use crate::model::fault::Fault;
use crate::model::key::{Key, KeyProblem};
use crate::model::permission::{Permission, Policy};
use crate::model::situation::{Sight, Situation, failed, fault, key, midnight};

const KEY_1: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";
const FIREHOSE: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
const KINESIS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";

/// The message of `Ready` if `reason` were the decision's.
fn says(situation: &Situation, reason: Reason) -> String {
    let decision = Decision {
        step: Step::Rest,
        reason,
        wake: situation.now,
        look_due: situation.now,
        next_attempt: None,
    };
    ready(&situation.input(), &decision)
}

fn cannot_see(service: Service, operation: Operation) -> Situation {
    let asked = Fault { operation, ..fault(Class::Denied, "AccessDeniedException") };
    Situation::of(service).with(|s| s.sight = Sight::Failed(asked))
}

fn seen(observation: Observation) -> Situation {
    Situation::of(Service::Firehose).sees(observation)
}

/// The key was in force before the policy was changed, or somebody else has set it.
#[test]
fn a_key_that_no_policy_allows_is_not_named_to_the_namespace() {
    let only_the_aws_owned = StreamEncryptionPolicySpec {
        keys: vec!["AWS_OWNED_CMK".to_owned()],
        ..StreamEncryptionPolicySpec::own_account()
    };
    let own = Situation::of(Service::Firehose).permission.own().clone();
    let restricted = Permission::of(Policy::read(&only_the_aws_owned).0.into_iter().collect(), own);
    let s = Situation::of(Service::Firehose).converged().with(|s| s.permission = restricted).after(60);
    assert_eq!(
        claims::key_in_force(&s.input()),
        Some(KeyStatus { kind: KeyType::CustomerManaged, arn: None })
    );
    for reason in Reason::ALL {
        let wants_another = s.clone().wants(Wanted::AnyKey);
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
fn a_message_names_what_it_is_about_and_what_to_do() {
    let firehose = || Situation::of(Service::Firehose);
    let converged = || firehose().converged();
    let rekeying = || converged().wants(Wanted::Key(key(2))).calls().accepted().after(60);
    let refused = |code: &str| seen(Observation::Off).calls().refused(Class::KeyRefused, code).after(60);
    for (situation, reason, pieces) in vec![
        (converged(), Reason::Encrypted, &["Records are encrypted with", KEY_1][..]),
        (firehose(), Reason::Encrypted, &["Records are encrypted."]),
        (converged(), Reason::KeyEnabled, &[KEY_1, "can encrypt"]),
        (firehose(), Reason::Verifying, &["grant firehose:PutRecord on", FIREHOSE]),
        (Situation::of(Service::Kinesis), Reason::Verifying, &["grant kinesis:PutRecord on", KINESIS]),
        (firehose().wants(Wanted::AnyKey), Reason::Enabling, &["with the AWS-owned key"]),
        (firehose().wants(Wanted::UnknownKey), Reason::Enabling, &["with the key asked for"]),
        (firehose(), Reason::Enabling, &[KEY_1, "Records written meanwhile may be in plain text."]),
        (seen(Observation::Off), Reason::Enabling, &["Records are still in plain text."]),
        (rekeying(), Reason::Enabling, &["key/2", "Records are still encrypted with", KEY_1]),
        (converged(), Reason::Disabling, &["Records are still encrypted with", KEY_1]),
        (
            rekeying().sees(failed(Action::Start)),
            Reason::EnablingFailed,
            &["KMS_ACCESS_DENIED", "key/1 is in force", "streamencryption.dev/retry"],
        ),
        (seen(failed(Action::Stop)), Reason::DisablingFailed, &["Which key is in force is not known."]),
        (seen(Observation::Off), Reason::NotApplied, &["Records are in plain text."]),
        (refused("SomethingNew"), Reason::CallRefused, &["SomethingNew"]),
        (firehose(), Reason::CallRefused, &["no reason given"]),
        (refused("KMSOptInRequired"), Reason::KeyRefused, &["KMSOptInRequired", "kms:CreateGrant"]),
        (firehose(), Reason::KeyNotFound, &[KEY_1, "eu-west-1"]),
        (firehose(), Reason::KeyUnreadable, &["Grant kms:DescribeKey"]),
        (firehose(), Reason::KeyInOtherRegion, &["eu-west-1"]),
        (firehose(), Reason::StreamNotFound, &["Firehose", "orders", "eu-west-1"]),
        (seen(Observation::Broken("CREATING_FAILED".into())), Reason::StreamBroken, &["CREATING_FAILED"]),
        (firehose(), Reason::StreamBroken, &["nothing more"]),
        (
            seen(Observation::Unrecognized("the stream status \"SUSPENDED\"".into())),
            Reason::StreamStateUnrecognized,
            &["AWS reports the stream status \"SUSPENDED\"", "no call is made", "update the operator"],
        ),
        (firehose(), Reason::StreamStateUnrecognized, &["a state"]),
        (
            seen(Observation::NotEncryptable("MSKAsSource".into())),
            Reason::SourceNotDirectPut,
            &["MSKAsSource", "delete this resource"],
        ),
        (firehose(), Reason::SourceNotDirectPut, &["another one"]),
        (
            cannot_see(Service::Firehose, Operation::DescribeDeliveryStream),
            Reason::AccessDenied,
            &["Grant firehose:DescribeDeliveryStream on", FIREHOSE],
        ),
        (
            cannot_see(Service::Firehose, Operation::GetCallerIdentity),
            Reason::AccessDenied,
            &["whose credentials it has"],
        ),
        (
            Situation::of(Service::Kinesis),
            Reason::StreamNotFound,
            &["of account 111122223333", "Compare name, account"],
        ),
        (
            cannot_see(Service::Kinesis, Operation::AssumeRole),
            Reason::AccessDenied,
            &["sts:AssumeRole", "sts:TagSession", "trust policy", "external id"],
        ),
        (firehose(), Reason::AccessDenied, &["Grant firehose:StartDeliveryStreamEncryption on"]),
        (
            Situation::of(Service::Kinesis).wants(Wanted::Off),
            Reason::AccessDenied,
            &["Grant kinesis:StopStreamEncryption on", KINESIS],
        ),
        (
            cannot_see(Service::Kinesis, Operation::DescribeStreamSummary),
            Reason::AwsUnreachable,
            &["kinesis:DescribeStreamSummary: AccessDeniedException"],
        ),
        (firehose(), Reason::AwsUnreachable, &["no answer"]),
        (firehose(), Reason::LedgerUnreadable, &["stream-"]),
        (firehose().spent(20), Reason::CallLimitReached, &["20 of the 20 calls", "AWS allows 25"]),
        (
            seen(Observation::Off).calls().refused(Class::LimitReached, "LimitExceededException"),
            Reason::CallLimitReached,
            &["others have used", "LimitExceededException"],
        ),
    ] {
        let words = says(&situation, reason);
        for piece in pieces {
            assert!(words.contains(piece), "{reason:?} without {piece:?}: {words}");
        }
    }
}

#[test]
fn a_wait_for_the_next_attempt_says_until_when_in_whole_seconds() {
    let situation = seen(Observation::Off).calls().refused(Class::Denied, "AccessDeniedException");
    let decision = situation.after(1).sees(Observation::Off);
    let words = ready(&decision.input(), &decision.decide());
    assert!(words.ends_with(" Next attempt at 2026-01-01T00:05:00Z."), "{words}");
    let at = midnight() + SignedDuration::from_millis(1999);
    assert_eq!(whole_seconds(at), "2026-01-01T00:00:02Z", "as the field has it: not too early");
    assert!(!whole_seconds(Timestamp::MAX).is_empty());
}

#[test]
fn what_is_said_of_the_records_is_what_was_seen() {
    let words = |situation: Situation| encrypted(&situation.input());
    let plain = "Records are in plain text, since 2026-01-01T00:00:00Z at the latest.";
    assert_eq!(words(Situation::of(Service::Kinesis)), "Unknown: AWS has not been asked about the stream.");
    assert_eq!(words(seen(Observation::Off)), plain);
    let fresh = words(seen(Observation::On(key(1))));
    assert!(fresh.contains("up to 5 seconds"), "{fresh}");
    assert_eq!(
        words(seen(Observation::On(key(1))).after(5)),
        format!("Records are encrypted with {KEY_1} since 2026-01-01T00:00:05Z.")
    );
    assert_eq!(
        words(seen(Observation::On(Key::AwsOwned)).after(5)),
        "Records are encrypted with the AWS-owned key since 2026-01-01T00:00:05Z."
    );
}

#[test]
fn what_is_said_of_the_key_is_about_the_key_that_is_asked_for() {
    let words = |situation: Situation| key_usable(&situation.input());
    assert_eq!(
        words(Situation::of(Service::Kinesis)),
        format!(
            "{KEY_1} can encrypt the stream. Not checked: whoever writes needs kms:GenerateDataKey on it, and whoever reads kms:Decrypt."
        )
    );
    assert_eq!(words(Situation::of(Service::Kinesis).wants(Wanted::AnyKey)), "Any key will do.");
    let disabled = words(Situation::of(Service::Kinesis).key_is(KeyProblem::Disabled));
    assert_eq!(
        disabled,
        format!("{KEY_1} is disabled. Enable it or name another one; no call is spent meanwhile.")
    );
}

#[test]
fn no_credentials_rejected_ones_and_no_answer_are_told_apart() {
    let look = Operation::DescribeDeliveryStream;
    let expired = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z";
    for (class, code, message, pieces) in [
        (
            Class::NoCredentials,
            Some("NoCredentials"),
            "",
            &["AWS was not asked", "service account has no role"][..],
        ),
        (
            Class::NoCredentials,
            Some("CredentialsMisconfigured"),
            "",
            &["AWS was not asked", "docs/install.md"],
        ),
        (Class::NoCredentials, Some("CredentialsSourceFailed"), "", &["AWS was not asked", "trust policy"]),
        (Class::NoCredentials, Some("CredentialsTimedOut"), "", &["AWS was not asked", "does not answer"]),
        (Class::NoCredentials, Some("CredentialsUnsignable"), "", &["line break", "create the Secret"]),
        (Class::CredentialsRejected, Some("ExpiredTokenException"), "", &["has ended", "renew"]),
        (
            Class::CredentialsRejected,
            Some("UnrecognizedClientException"),
            "",
            &["does not know", "access key"],
        ),
        (Class::CredentialsRejected, Some("InvalidSignatureException"), expired, &["clock", "node"]),
        (Class::CredentialsRejected, Some("RequestTimeTooSkewed"), "", &["clock"]),
        (Class::CredentialsRejected, Some("SignatureDoesNotMatch"), "", &["secret access key"]),
        (Class::CredentialsRejected, Some("OptInRequired"), "", &["region is not enabled"]),
        (Class::Transient, None, "", &["AWS does not answer", "network"]),
        (
            Class::Transient,
            Some("InternalFailure"),
            "",
            &["AWS answered with an internal error", "InternalFailure"],
        ),
        (Class::Transient, Some("502"), "", &["HTTP status 502", "proxy"]),
        (Class::Transient, Some("UnreadableAnswer"), "", &["cannot be read"]),
        (Class::Throttled, Some("ThrottlingException"), "", &["slow down"]),
    ] {
        let asked = |operation| Fault {
            operation,
            class,
            code: code.map(str::to_owned),
            message: message.to_owned(),
        };
        let seen = Situation::of(Service::Firehose).with(|s| s.sight = Sight::Failed(asked(look)));
        for words in [identity(&asked(Operation::GetCallerIdentity)), says(&seen, class.reason())] {
            for piece in pieces {
                assert!(words.contains(piece), "{class:?} {code:?} without {piece:?}: {words}");
            }
            assert!(!words.contains("Grant") && !words.contains("20260101"), "{words}");
            assert_eq!(
                words.contains("network and endpoint"),
                (class, code) == (Class::Transient, None),
                "{words}"
            );
        }
    }
    let strange = Fault { operation: Operation::GetCallerIdentity, ..fault(Class::Invalid, "Strange") };
    assert!(identity(&strange).contains("does not tell the operator whose credentials"));
}

#[test]
fn a_call_refused_for_its_credentials_is_told_by_its_code() {
    for (code, class, piece) in [
        ("ExpiredTokenException", Class::CredentialsRejected, "has ended"),
        ("SessionTooOld", Class::NoCredentials, "older than 6 hours"),
        ("NotSent", Class::Transient, "paused"),
        ("SignerChanged", Class::Transient, "credentials changed"),
    ] {
        let refused = seen(Observation::Off).calls().refused(class, code).after(1).sees(Observation::Off);
        let decision = refused.decide();
        assert_eq!(decision.reason, class.reason());
        let words = ready(&refused.input(), &decision);
        assert!(words.contains(piece) && words.contains("Next attempt at"), "{words}");
    }
}

#[test]
fn an_unknown_outcome_after_an_error_of_the_server_is_not_told_as_silence() {
    let unknown = |code| seen(Observation::Off).calls().refused(Class::UnknownOutcome, code);
    let words = says(&unknown("InternalFailure"), Reason::OutcomeUnknown);
    assert!(words.contains("internal error (InternalFailure)"), "{words}");
    let silent = says(&seen(Observation::Off), Reason::OutcomeUnknown);
    assert!(silent.contains("No answer came"), "{silent}");
}

#[test]
fn each_failure_that_aws_documents_has_advice_of_its_own() {
    let nothing = advice("SOMETHING_NEW");
    assert!(nothing.contains("log"), "{nothing}");
    for (codes, piece) in [
        (&["KMS_ACCESS_DENIED", "KMSAccessDeniedException"][..], "policy"),
        (&["DISABLED_KMS_KEY", "KMSDisabledException"], "enable it"),
        (&["KMS_KEY_NOT_FOUND", "KMSNotFoundException"], "does not exist"),
        (&["INVALID_KMS_KEY", "KMSInvalidStateException"], "present state"),
        (&["CREATE_KMS_GRANT_FAILED"], "allow kms:CreateGrant"),
        (&["RETIRE_KMS_GRANT_FAILED"], "old key"),
        (&["KMS_OPT_IN_REQUIRED", "KMSOptInRequired"], "subscribe"),
        (&["InvalidKMSResourceException"], "KMS refuses the key"),
        (&["AccessDeniedException"], "lacks a right"),
        (&["LimitExceededException"], "limit"),
        (&["NOT_APPLIED"], "shows what was before"),
    ] {
        for code in codes {
            assert!(advice(code).contains(piece), "{code}: {}", advice(code));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_is_longer_than_an_event_takes_whatever_aws_says_in_a_word(
        reason in prop::sample::select(Reason::ALL), word in "\\PC{0,40}", off in any::<bool>(),
    ) {
        let observation = Observation::Failed { action: Action::Start, reason: word.clone() };
        let situation = Situation::of(Service::Kinesis).converged().sees(observation).after(60);
        let situation = situation.wants(if off { Wanted::Off } else { Wanted::Key(Key::Unresolved(word)) });
        let words = says(&situation, reason);
        prop_assert!((1..=1024).contains(&words.len()), "{} bytes: {}", words.len(), words);
        prop_assert!(words.ends_with('.'), "{}", words);
    }
}

#[test]
fn a_key_in_force_that_is_lost_is_told_with_what_becomes_of_records_and_what_to_do() {
    let Key::Customer(arn) = key(1) else { unreachable!() };
    for (service, records) in
        [(Service::Kinesis, "neither written"), (Service::Firehose, "discards them after 24 hours")]
    {
        for (problem, remedy) in [
            (KeyProblem::Disabled, "Enable it."),
            (KeyProblem::PendingDeletion, "Cancel its deletion"),
            (KeyProblem::Missing, "Name another key"),
            (KeyProblem::PendingImport, "Import it."),
            (KeyProblem::Unavailable, "key store"),
        ] {
            let words = key_lost(&Situation::of(service).input(), &arn, problem);
            for part in ["key/1 is the active key", records, remedy] {
                assert!(words.contains(part), "{problem:?}: {words}");
            }
        }
    }
}

#[test]
fn encrypted_has_a_time_of_its_own_for_the_active_key() {
    let rekeyed = Situation::of(Service::Kinesis)
        .converged()
        .wants(Wanted::Key(key(2)))
        .calls()
        .accepted()
        .after(100)
        .sees(Observation::On(key(2)));
    let words = encrypted(&rekeyed.input());
    assert!(
        words.starts_with("Records are encrypted since 2026-01-01T00:00:05Z. AWS has changed"),
        "{words}"
    );
    let words = encrypted(&rekeyed.after(5).input());
    let both = "Records are encrypted since 2026-01-01T00:00:05Z, with arn:aws:kms:eu-west-1:111122223333:key/2 since 2026-01-01T00:02:45Z.";
    assert_eq!(words, both);
}

#[test]
fn times_in_messages_are_those_of_the_fields() {
    let s = Situation::of(Service::Kinesis).with(|s| s.now += SignedDuration::from_millis(300)).converged();
    let field = next_whole_second(claims::encrypted_since(&s.input()).unwrap()).0;
    assert!(encrypted(&s.input()).ends_with(&format!("since {field}.")), "{}", encrypted(&s.input()));
    let plain = s.wants(Wanted::Off).converged();
    let field = next_whole_second(claims::plain_text_since(&plain.input()).unwrap()).0;
    assert!(encrypted(&plain.input()).contains(&format!("since {field}")), "{}", encrypted(&plain.input()));
}

#[test]
fn unknown_encryption_says_why_it_is_unknown() {
    let of = || Situation::of(Service::Firehose);
    let source = Observation::NotEncryptable("KinesisStreamAsSource".into());
    for (situation, words) in [
        (of(), "has not been asked"),
        (of().cannot_see(Class::Transient), "could not be asked"),
        (seen(Observation::Missing), "no such stream"),
        (seen(Observation::Creating), "is being made"),
        (seen(Observation::Broken("CREATING_FAILED".into())), "CREATING_FAILED"),
        (of().with(|s| s.sight = Sight::At(s.now, source)), "its source is KinesisStreamAsSource"),
        (seen(failed(Action::Start)), "not which key is active"),
        (seen(Observation::Changing(None)), "not reported a settled state"),
    ] {
        let message = encrypted(&situation.input());
        assert!(message.starts_with("Unknown: ") && message.contains(words), "{message}");
    }
}

#[test]
fn unconfirmed_state_is_told_as_aws_shows_it() {
    let waiting = seen(Observation::Off).calls().accepted().after(3).sees(Observation::Off);
    let words = ready(&waiting.input(), &waiting.decide());
    assert!(
        words.contains("AWS reports DISABLED") && words.contains("confirmed within 30 seconds"),
        "{words}"
    );
    assert!(!words.contains("Records"), "nothing is claimed of them: {words}");
}

#[test]
fn key_and_owner_are_named_where_the_reader_may_know_them() {
    let by_name = |name: &str| {
        let name = Some(name.to_owned());
        Situation::of(Service::Kinesis).wants(Wanted::UnknownKey).with(|s| s.intent.key_name = name)
    };
    assert!(
        says(&by_name("alias/orders"), Reason::KeyNotFound).contains("the key alias/orders in eu-west-1")
    );
    assert!(says(&by_name("orders"), Reason::KeyReferenceNotReady).contains("Key orders"));
    let owned = Situation::of(Service::Kinesis);
    assert!(says(&owned, Reason::StreamOwnedByAnother).contains("of another namespace"));
    let named = owned.with(|s| s.other_owner = Some("clicks"));
    assert!(says(&named, Reason::StreamOwnedByAnother).contains("StreamEncryption clicks of this namespace"));
}

#[test]
fn deletion_without_permission_is_told_before_it_happens() {
    let kept = Situation::of(Service::Kinesis).with(|s| s.intent.disable_on_deletion = true);
    let words = says(&kept, Reason::DisableNotPermitted);
    assert!(words.contains("deleting this resource leaves the stream encrypted"), "{words}");
    let deleting = kept.wants(Wanted::Off).with(|s| s.intent.deleting = true);
    let words = says(&deleting, Reason::DisableNotPermitted);
    assert!(words.contains("so the resource stays"), "{words}");
}

#[test]
fn lost_active_key_is_the_first_thing_in_the_message() {
    let converged = Situation::of(Service::Firehose).converged();
    let lost = converged.clone().active_key_is(KeyProblem::Disabled);
    let Key::Customer(arn) = key(1) else { unreachable!() };
    let alone = key_lost(&lost.input(), &arn, KeyProblem::Disabled);
    assert_eq!(ready(&lost.input(), &lost.decide()), alone);
    let any = lost.clone().wants(Wanted::AnyKey);
    assert_eq!(ready(&any.input(), &any.decide()), alone);
    // The key asked for is another one, and cannot be used either.
    let other = lost.clone().wants(Wanted::Key(key(2))).key_is(KeyProblem::Disabled);
    let words = ready(&other.input(), &other.decide());
    assert!(words.starts_with(&alone) && words.contains("key/2 is disabled"), "{words}");
    let rekeying = lost.clone().wants(Wanted::Key(key(2))).calls().accepted();
    let words = ready(&rekeying.input(), &rekeying.decide());
    assert!(words.starts_with(&alone) && words.contains("key/2"), "{words}");
    // Nothing is claimed where AWS could not be asked, and nobody but the owner is told.
    let unseen = lost.clone().cannot_see(Class::Transient);
    assert!(!ready(&unseen.input(), &unseen.decide()).contains("key/1"));
    for reason in [Reason::NotPermitted, Reason::StreamOwnedByAnother, Reason::Suspended] {
        assert!(!says(&lost, reason).contains("key/1"), "{reason}");
    }
}

#[test]
fn before_a_customers_key_is_used_those_are_named_who_need_rights_on_it() {
    for (service, rights) in [
        (Service::Kinesis, ["kms:GenerateDataKey", "kms:Decrypt"]),
        (Service::Firehose, ["kms:GenerateDataKey and kms:Decrypt", "2027-02-28"]),
    ] {
        let words = key_usable(&Situation::of(service).input());
        assert!(rights.iter().all(|right| words.contains(right)), "{words}");
        let aws_owned = key_usable(&Situation::of(service).wants(Wanted::Key(Key::AwsOwned)).input());
        assert!(!aws_owned.contains("kms:"), "{aws_owned}");
    }
}
