//! Each message names the state and the action to take, and the stream, key or permission concerned.

mod encrypted;
mod failures;
mod keys;

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

#[test]
#[allow(clippy::too_many_lines, reason = "one row for each message")]
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
        (
            seen(Observation::Off).wants(DesiredEncryption::AnyKey).calls(),
            Reason::Enabling,
            &["with the AWS-owned key"],
        ),
        (
            seen(Observation::Off).calls().wants(DesiredEncryption::UnknownKey),
            Reason::Enabling,
            &["enabling encryption with", KEY_1],
        ),
        (
            seen(failed(Action::Start)).calls(),
            Reason::Enabling,
            &[KEY_1, "Records written meanwhile may be in plaintext."],
        ),
        (seen(Observation::Off).calls(), Reason::Enabling, &["Records are still in plaintext."]),
        (
            Scenario::of(Service::Firehose).converged(),
            Reason::Enabling,
            &["or changing the key, and the operator did not request this", "still encrypted with"],
        ),
        (
            Scenario::of(Service::Firehose).converged(),
            Reason::Disabling,
            &["is disabling encryption, and the operator did not request this"],
        ),
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
        (firehose(), Reason::CallRefused, &["the encryption call: no reason given"]),
        (
            firehose().cannot_see(ErrorKind::Invalid),
            Reason::CallRefused,
            &["AWS refused firehose:DescribeDeliveryStream: Code."],
        ),
        (refused("KMSOptInRequired"), Reason::KeyAccessDenied, &["KMSOptInRequired", "kms:CreateGrant"]),
        (firehose(), Reason::KeyNotFound, &[KEY_1, "eu-west-1"]),
        (
            firehose(),
            Reason::KeyDescribeDenied,
            &["kms:DescribeKey in its key policy and in the operator's role"],
        ),
        (firehose(), Reason::KeyInOtherRegion, &["eu-west-1"]),
        (firehose(), Reason::StreamNotFound, &["Firehose", "orders", "eu-west-1"]),
        (
            seen(Observation::NotOperational("CREATING_FAILED".into())),
            Reason::StreamFailed,
            &["CREATING_FAILED"],
        ),
        (
            seen(Observation::NotOperational("DELETING_FAILED".into())),
            Reason::StreamFailed,
            &["DELETING_FAILED", "Enable its key", "--allow-force-delete"],
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
            &["Grant kinesis:StopStreamEncryption to the operator's role, on", KINESIS, "and on the KMS key"],
        ),
        (
            cannot_see(Service::Kinesis, Operation::DescribeStreamSummary),
            Reason::AwsUnreachable,
            &["kinesis:DescribeStreamSummary: AccessDeniedException"],
        ),
        (firehose(), Reason::AwsUnreachable, &["the encryption call"]),
        (firehose(), Reason::LedgerInvalid, &["stream-"]),
        (firehose().spent(20), Reason::CallLimitReached, &["20 of 20 encryption calls", "25 at most"]),
        (
            firehose().spent_by_others(19).spent(6),
            Reason::CallLimitReached,
            &["25 of 25 encryption calls", "19 of them by other callers"],
        ),
        (
            seen(Observation::Off).calls().refused(ErrorKind::LimitReached, "LimitExceededException"),
            Reason::CallLimitReached,
            &["the operator has counted fewer", "LimitExceededException"],
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
fn unconfirmed_state_is_reported_as_aws_shows_it() {
    let waiting = seen(Observation::Off).calls().accepted().after(3).sees(Observation::Off);
    let words = ready(&waiting.input(), &waiting.decide());
    let state = "AWS reports DISABLED, which may still be the state before the operator's last call";
    assert!(words.contains(state) && words.contains("checks again within 30 seconds"), "{words}");
    assert!(!words.contains("Records"), "nothing is claimed of them: {words}");
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
