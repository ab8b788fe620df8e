//! The words of a condition: what is the case, and what a person can do about it.
//!
//! Our own words and AWS's codes. AWS's full messages go to the log, because they may name what is not the reader's.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::claims;
use super::credentials::{Missing, Rejection};
use super::decision::{Decision, Input, Seen, Wanted, budget};
use super::fault::{Class, Fault, Operation};
use super::key::{Key, KeyArn, KeyProblem};
use super::observation::Observation;
use crate::api::condition::{Reason, next_whole_second};
use crate::api::ledger::{Action, InForce, Outcome};
use crate::api::stream_encryption::{EncryptionStatus, KeyStatus, KeyType, Service};

mod encrypted;

pub use encrypted::encrypted;

/// The message of `Ready` (and of `Reconciling` or `Stalled`) for a decision.
#[must_use]
pub fn ready(i: &Input<'_>, decision: &Decision) -> String {
    let mut message = match key_lost_first(i, decision.reason) {
        Some((lost, true)) => lost,
        Some((lost, false)) => format!("{lost} {}", says(i, decision.reason)),
        None => says(i, decision.reason),
    };
    if let Some(shown) = claims::unconfirmed(i).filter(|_| encrypted::confirms(decision.reason)) {
        let _ = write!(message, " {}", encrypted::still_shows(shown));
    }
    if let Some(at) = decision.next_attempt {
        let _ = write!(message, " Next attempt at {}.", whole_seconds(at));
    }
    message
}

/// What is told before anything else, where records are being lost; and whether that is all that `reason` is about.
fn key_lost_first(i: &Input<'_>, reason: Reason) -> Option<(String, bool)> {
    let problem = i.active_key_problem.filter(|_| matches!(i.seen, Seen::At(..)))?;
    // What a ledger holds is told to its owner only; and what is suspended stays as it was.
    let untold = matches!(
        reason,
        Reason::NotPermitted
            | Reason::RolesDiffer
            | Reason::StreamOwnedByAnother
            | Reason::LedgerUnreadable
            | Reason::Suspended
    );
    let key = claims::customer_key_in_force(i).filter(|_| !untold)?;
    let asked_for = match &i.intent.wanted {
        Wanted::Key(asked) => *asked == Key::Customer(key.clone()),
        Wanted::AnyKey => true,
        Wanted::UnknownKey | Wanted::Off => false,
    };
    Some((key_lost(i, &key, problem), asked_for && reason == problem.reason()))
}

/// The message of `KeyUsable`, of the key asked for.
#[must_use]
pub fn key_usable(i: &Input<'_>) -> String {
    match (i.intent.key_problem, claims::key_asked_for(i)) {
        (Some(problem), _) => says(i, problem.reason()),
        (None, Some(key @ Key::Customer(_))) => format!("{key} can encrypt the stream. {}", others(i)),
        (None, Some(key)) => format!("{key} can encrypt the stream."),
        (None, None) => "Any key will do.".to_owned(),
    }
}

/// Who else needs the key: nobody but they can tell whether they have the right.
fn others(i: &Input<'_>) -> &'static str {
    match i.stream.service {
        Service::Kinesis => {
            "Not checked: whoever writes needs kms:GenerateDataKey on it, and whoever reads kms:Decrypt."
        }
        Service::Firehose => {
            "Not checked: whoever writes needs kms:GenerateDataKey and kms:Decrypt on it, by 2027-02-28 for each stream."
        }
    }
}

/// The message of `KeyUsable` where the key in force cannot be used: what becomes of records, and what to do at once.
#[must_use]
pub fn key_lost(i: &Input<'_>, key: &KeyArn, problem: KeyProblem) -> String {
    let (state, remedy) = match problem {
        KeyProblem::Disabled => ("is disabled", "Enable it."),
        KeyProblem::PendingDeletion => ("is pending deletion", "Cancel its deletion and enable it."),
        KeyProblem::Missing => ("does not exist any more", "Name another key in spec.key."),
        KeyProblem::PendingImport => ("has no key material", "Import it."),
        _ => ("cannot be used", "Look at it and at its key store in KMS."),
    };
    let records = match i.stream.service {
        Service::Kinesis => "Records can be neither written to the stream nor read from it",
        Service::Firehose => {
            "Records are being lost: they are not delivered, and AWS discards them after 24 hours"
        }
    };
    format!("{records}. {key} is the active key and {state}. {remedy}")
}

/// The message of `Ready` while a resource is suspended: what suspends it, since when, and how old the rest of its status is.
#[must_use]
pub fn suspended(
    by: &str,
    since: Timestamp,
    described: Option<Timestamp>,
    shown: Option<EncryptionStatus>,
) -> String {
    let since = whole_seconds(since);
    let last = match (described.map(whole_seconds), shown.map(EncryptionStatus::as_str)) {
        (Some(at), Some(shown)) => format!("The stream was last described at {at}, as {shown}."),
        (Some(at), None) => format!("The stream was last described at {at}."),
        (None, Some(shown)) => format!("The stream was last described as {shown}."),
        (None, None) => "The stream has not been described yet.".to_owned(),
    };
    format!(
        "Reconciliation is suspended since {since} by {by}. {last} Changes since then are neither noticed nor corrected."
    )
}

/// The message of a condition of which nothing newer is known since `described`: with what was known then. A message that says so
/// already stays as it is.
#[must_use]
pub fn outdated(described: Option<Timestamp>, message: &str) -> String {
    match described {
        _ if is_outdated(message) => message.to_owned(),
        Some(at) => format!("{AS_OF}{}, when AWS last answered: {message}", whole_seconds(at)),
        None => format!("{AS_OF}an earlier answer of AWS: {message}"),
    }
}

/// Whether a message says that it is older than its status.
#[must_use]
pub fn is_outdated(message: &str) -> bool {
    message.starts_with(AS_OF)
}

/// How a message begins that is older than its status.
const AS_OF: &str = "As of ";

/// The message of `Ready` while AWS does not tell whose credentials the operator has.
#[must_use]
pub fn identity(fault: &Fault) -> String {
    match fault.class {
        Class::NoCredentials => no_credentials(fault.code.as_deref()).to_owned(),
        Class::CredentialsRejected => rejected(fault.code.as_deref(), &fault.message).to_owned(),
        Class::Denied | Class::Invalid => NO_IDENTITY.to_owned(),
        Class::Throttled => THROTTLED.to_owned(),
        _ => unanswered(fault.operation.iam_action(), fault.code.as_deref()),
    }
}

const NO_IDENTITY: &str = "AWS does not tell the operator whose credentials it has. Look at its role, its service account and the endpoint.";
const THROTTLED: &str = "AWS asks to slow down; the operator does, and tries again by itself.";

/// Nothing was sent, because there is nothing to sign with.
fn no_credentials(code: Option<&str>) -> &'static str {
    code.and_then(Missing::of).unwrap_or(Missing::NotFound).words()
}

/// AWS does not accept what the request was signed with.
fn rejected(code: Option<&str>, message: &str) -> &'static str {
    code.and_then(|code| Rejection::of(code, message)).unwrap_or(Rejection::SignatureWrong).words()
}

/// No answer came, or one that helps nobody: by the code that came with it.
fn unanswered(action: &str, code: Option<&str>) -> String {
    match code {
        None => format!(
            "AWS does not answer ({action}). Look at the operator's network and endpoint; it tries again by itself."
        ),
        Some("NotSent") => {
            "The operator was paused, and the call was not sent. It tries again by itself.".to_owned()
        }
        Some("SignerChanged") => {
            "The operator's AWS credentials changed just before the call, and the call was not sent. It tries again by itself.".to_owned()
        }
        Some("UnreadableAnswer") => format!(
            "AWS's answer to {action} cannot be read. Look at the operator's endpoint and proxy; it tries again by itself."
        ),
        Some(status) if status.bytes().all(|byte| byte.is_ascii_digit()) => format!(
            "HTTP status {status} came back, and no error of AWS ({action}). Look at the endpoint, proxy or gateway on the way to AWS; the operator tries again by itself."
        ),
        Some(code) => format!(
            "AWS answered with an internal error ({action}: {code}). Look at AWS's health page if it stays; the operator tries again by itself."
        ),
    }
}

/// STS says the same of each of these, so that nobody can find out which roles there are.
const NO_ROLE: &str = "AWS does not let the operator assume the stream's role. Grant sts:AssumeRole and sts:TagSession on it to the operator, in the role's trust policy too, and compare the external id.";

/// What a person can do about a failure: AWS's `DeliveryStreamFailureType`, or the code of an error.
#[must_use]
pub fn advice(failure: &str) -> &'static str {
    match failure {
        "KMS_ACCESS_DENIED" | "KMSAccessDeniedException" => {
            "The key's policy, or the operator's role, does not allow its use."
        }
        "DISABLED_KMS_KEY" | "KMSDisabledException" => "The key is disabled: enable it.",
        "KMS_KEY_NOT_FOUND" | "KMSNotFoundException" => "The key does not exist.",
        "INVALID_KMS_KEY" | "KMSInvalidStateException" => {
            "The key cannot encrypt streams, or not in its present state."
        }
        "CREATE_KMS_GRANT_FAILED" => {
            "Firehose could not make a grant on the key: allow kms:CreateGrant to the operator's role."
        }
        "RETIRE_KMS_GRANT_FAILED" => "Firehose could not retire its grant on the old key.",
        "KMS_OPT_IN_REQUIRED" | "KMSOptInRequired" => "The account must subscribe to KMS first.",
        "InvalidKMSResourceException" => "KMS refuses the key: look at its state and its policy.",
        "AccessDeniedException" => "The operator's role lacks a right.",
        "LimitExceededException" => "AWS's limit is reached.",
        "NOT_APPLIED" => "AWS accepted the call and shows what was before.",
        _ => "AWS gives no more than this word; the operator's log may have more.",
    }
}

fn says(i: &Input<'_>, reason: Reason) -> String {
    let stream = i.stream;
    let key = asked_key(i);
    match reason {
        Reason::Encrypted => match i.ledger.in_force.as_ref().and_then(|known| known.key.as_ref()) {
            Some(key) => format!("Records are encrypted with {}.", key_name(i, key)),
            None => "Records are encrypted.".to_owned(),
        },
        Reason::KeyEnabled => format!("{key} can encrypt the stream."),
        Reason::EncryptionDisabled if claims::gone(i) => "Encryption is off, as asked.".to_owned(),
        Reason::EncryptionDisabled => "Encryption is off, as asked: records are in plain text.".to_owned(),
        Reason::Settling if claims::unconfirmed(i).is_some() => "The operator waits to see the effect of its last call.".to_owned(),
        Reason::Settling => "AWS is done; it takes some seconds until that holds for all records, and shows in all answers.".to_owned(),
        Reason::Verifying => format!(
            "A marked record is to prove it, and AWS has not said yet that one was encrypted. If this stays, grant {} on {stream}, and the use of the key to the operator.",
            put_record(stream.service).iam_action()
        ),
        Reason::Enabling if claims::unconfirmed(i).is_some() => format!("AWS has accepted the call to enable encryption with {key}."),
        Reason::Disabling if claims::unconfirmed(i).is_some() => "AWS has accepted the call to disable encryption.".to_owned(),
        Reason::Enabling => format!("AWS is enabling encryption with {key}. {}", meanwhile(i)),
        Reason::Disabling => format!("AWS is disabling encryption. {}", meanwhile(i)),
        Reason::StreamUpdating => "AWS is changing the stream; its encryption can be changed after that.".to_owned(),
        Reason::EnablingFailed => format!(
            "AWS could not encrypt with {key}: {}. {} Mend the key or its policy, then set the annotation streamencryption.dev/retry to try at once.",
            failure(i), in_force(i)
        ),
        Reason::DisablingFailed => format!("AWS could not disable encryption: {}. {}", failure(i), in_force(i)),
        Reason::NotApplied => format!("AWS accepted the call and nothing changed. {}", in_force(i)),
        Reason::OutcomeUnknown => outcome_unknown(i),
        Reason::CallLimitReached => limit_reached(i),
        Reason::StreamInUse => "AWS was changing the stream when the operator called.".to_owned(),
        Reason::CallRefused => format!("AWS refused the call: {}. The operator's log has AWS's words.", failure(i)),
        Reason::KeyNotFound => format!("KMS does not know {key} in {}. Make the key or name another one.", stream.region),
        Reason::KeyDisabled => format!("{key} is disabled. Enable it or name another one; no call is spent meanwhile."),
        Reason::KeyPendingDeletion => format!("{key} is going to be deleted. Cancel that or name another one."),
        Reason::KeyPendingImport => format!("{key} has no key material. Import it or name another one."),
        Reason::KeyUnavailable => format!("{key} cannot be used for now. Look at its key store, or name another one."),
        Reason::KeyStateUnrecognized => format!("KMS describes {key} in words that this version of the operator does not know, so no call is made. The operator's log has them: update the operator, or name another key."),
        Reason::KeyUnreadable => format!("The operator may not read {key}. Grant kms:DescribeKey on it to the operator's role."),
        Reason::KeyRefused => format!(
            "AWS would not use {key} ({}). Its policy, or the operator's role, must allow kms:DescribeKey, kms:CreateGrant, kms:GenerateDataKey and kms:Decrypt. {}",
            failure(i), in_force(i)
        ),
        Reason::KeyReferenceNotReady => match &i.intent.key_name {
            Some(name) => format!("The Key {name} that key.ref names does not exist or shows no ARN yet."),
            None => "The Key that key.ref names does not exist or shows no ARN yet.".to_owned(),
        },
        Reason::KeyReferenceKindMissing => {
            "The cluster has no kind Key of kms.services.k8s.aws/v1alpha1. Install the KMS controller of ACK, or write the key's arn or alias.".to_owned()
        }
        Reason::KeyNotSymmetric => format!("{key} is not symmetric. Name a symmetric encryption key."),
        Reason::KeyUsageWrong => format!("{key} is not for encryption. Name a key whose usage is ENCRYPT_DECRYPT."),
        Reason::KeyManagedByAws => format!("{key} is managed by AWS. Write type: AWS_OWNED_CMK, or name a customer managed key."),
        Reason::KeyInOtherRegion => format!("{key} is not in {}. Name a key of the stream's region.", stream.region),
        Reason::StreamNotFound => format!(
            "AWS knows no {:?} stream {} of account {} in {}. Compare name, account and region; it is looked for again by itself.",
            stream.service, stream.name(), stream.account, stream.region
        ),
        Reason::StreamCreating => "The stream is being made.".to_owned(),
        Reason::StreamDeleting => "The stream is being deleted.".to_owned(),
        Reason::StreamBroken => format!("The stream does not serve: AWS says {}.", broken(i)),
        Reason::StreamStateUnrecognized => format!(
            "AWS reports {}, which this version of the operator does not know, so no call is made. Look at the stream in AWS, and update the operator.",
            unrecognized(i)
        ),
        Reason::WrongStream => "AWS answers with another stream of this name. Give the operator credentials of the stream's account.".to_owned(),
        Reason::AccessDenied => denied(i),
        Reason::NoCredentials => no_credentials(code(i).as_deref()).to_owned(),
        Reason::CredentialsRejected => rejected(code(i).as_deref(), fault_message(i)).to_owned(),
        Reason::AwsUnreachable => unanswered(failed_operation(i), code(i).as_deref()),
        Reason::AwsThrottled => THROTTLED.to_owned(),
        Reason::SessionTooOld => "The operator's session is older than 6 hours, and Firehose makes no grant with it. Give the operator credentials that are renewed.".to_owned(),
        Reason::LedgerUnreadable => format!(
            "The ledger {} cannot be read, written or believed, so nothing is called. Look at it in the operator's namespace; the operator's log says what is wrong.",
            super::ledger::name(stream)
        ),
        Reason::SourceNotDirectPut => format!(
            "The stream's source is {}, and only DirectPut streams can be encrypted. Encrypt its source instead, and delete this resource.",
            source(i)
        ),
        Reason::StreamOwnedByAnother => match i.other_owner {
            Some(name) => format!("StreamEncryption {name} of this namespace owns this stream. Delete one of the two."),
            None => "A StreamEncryption of another namespace owns this stream. Delete one of the two.".to_owned(),
        },
        Reason::NotPermitted => not_permitted(i).to_owned(),
        Reason::RolesDiffer => "Several StreamEncryptionPolicies allow this namespace this stream, and they name different roles or external ids for it. Have an administrator leave one.".to_owned(),
        Reason::DisableNotPermitted => disable_not_permitted(i).to_owned(),
        Reason::Contested => format!(
            "The operator has corrected the stream's encryption three times in 24 hours, and it was changed again. {} Find out who else changes it, or write drift: Report. To correct it once more now, change the annotation streamencryption.dev/retry.",
            in_force(i)
        ),
        Reason::KeyInForceUnknown => active_key_unknown(i),
        Reason::SpecInvalid => "The spec cannot be read.".to_owned(),
        Reason::Drifted => format!("It differs from the spec, and drift is Report. {}", in_force(i)),
        Reason::Suspended => "Reconciliation is suspended.".to_owned(),
    }
}

fn disable_not_permitted(i: &Input<'_>) -> &'static str {
    match (&i.intent.wanted, i.intent.deleting) {
        (_, true) => {
            "No StreamEncryptionPolicy allows this namespace to turn encryption of this stream off, so the resource stays. Have an administrator allow it, or write deletionPolicy: Retain to leave the stream encrypted."
        }
        (Wanted::Off, false) => {
            "No StreamEncryptionPolicy allows this namespace to turn encryption of this stream off. Write encryption: Enabled and deletionPolicy: Retain, or have an administrator allow it."
        }
        (_, false) => {
            "No StreamEncryptionPolicy allows this namespace to turn encryption of this stream off, so deletionPolicy: Disable has no effect: deleting this resource leaves the stream encrypted. Write deletionPolicy: Retain, or have an administrator allow it."
        }
    }
}

fn active_key_unknown(i: &Input<'_>) -> String {
    if i.intent.wanted == Wanted::AnyKey {
        return "An attempt that the operator did not make failed, and AWS does not report which key is active. Name the key that you want in spec.key.".to_owned();
    }
    let key = asked_key(i);
    format!(
        "AWS could not encrypt with {key}: {}. Which key is active is not known, and AWS also fails a change to the key that is active already, so the operator does not try again by itself. Name another key in spec.key, and {key} after that; or, once the cause is fixed, change the annotation streamencryption.dev/retry.",
        failure(i)
    )
}

/// Says nothing of what exists: that is not for those who may not use it.
fn not_permitted(i: &Input<'_>) -> &'static str {
    if i.permission.stream(i.stream).is_err() {
        "No StreamEncryptionPolicy allows this namespace this stream. Name another one, or have an administrator allow it."
    } else if i.intent.wanted == Wanted::AnyKey {
        "No StreamEncryptionPolicy allows this namespace the AWS-owned key for this stream. Say in key which one you want."
    } else {
        "No StreamEncryptionPolicy allows this namespace this key for this stream. Name another one, or have an administrator allow it."
    }
}

/// A time as people read it: in whole seconds, the same as in the fields of the status.
fn whole_seconds(at: Timestamp) -> String {
    next_whole_second(at).0.to_string()
}

fn key_name(i: &Input<'_>, key: &KeyStatus) -> String {
    match (key.kind, claims::told(i, key).arn) {
        (KeyType::AwsOwned, _) => "the AWS-owned key".to_owned(),
        (KeyType::CustomerManaged, Some(arn)) => arn,
        (KeyType::CustomerManaged, None) => {
            "a customer managed key that no StreamEncryptionPolicy allows this namespace".to_owned()
        }
    }
}

fn asked_key(i: &Input<'_>) -> String {
    match &i.intent.wanted {
        Wanted::Key(key) => key.to_string(),
        Wanted::AnyKey | Wanted::Off => "the AWS-owned key".to_owned(),
        Wanted::UnknownKey => match &i.intent.key_name {
            Some(name) => format!("the key {name}"),
            None => "the key asked for".to_owned(),
        },
    }
}

fn meanwhile(i: &Input<'_>) -> String {
    match i.ledger.in_force.as_ref().map(|known| &known.key) {
        Some(Some(key)) => format!("Records are still encrypted with {}.", key_name(i, key)),
        Some(None) => "Records are still in plain text.".to_owned(),
        None => "Records written meanwhile may be in plain text.".to_owned(),
    }
}

fn in_force(i: &Input<'_>) -> String {
    key_in_force(i, i.ledger.in_force.as_ref())
}

/// Which key encrypts records now, as a sentence.
#[must_use]
pub fn key_in_force(i: &Input<'_>, known: Option<&InForce>) -> String {
    match known.map(|known| &known.key) {
        Some(Some(key)) => format!("{} is in force.", key_name(i, key)),
        Some(None) => "Records are in plain text.".to_owned(),
        None => "Which key is in force is not known.".to_owned(),
    }
}

fn failure(i: &Input<'_>) -> String {
    claims::failure(i).unwrap_or_else(|| "no reason given".to_owned())
}

fn limit_reached(i: &Input<'_>) -> String {
    let budget = budget(i);
    if budget.has_room() {
        return format!(
            "AWS says that the limit is reached ({}): others have used this stream's 25 calls of 24 hours, or 500 Firehose streams use the key.",
            failure(i)
        );
    }
    format!(
        "{} of the {} calls that the operator allows itself in 24 hours are used; AWS allows 25.",
        budget.used, budget.limit
    )
}

fn denied(i: &Input<'_>) -> String {
    let operation = match i.seen {
        Seen::Failed(fault) => fault.operation,
        Seen::NotYet | Seen::At(..) => {
            let action = if i.intent.wanted == Wanted::Off { Action::Stop } else { Action::Start };
            Operation::change(i.stream.service, action)
        }
    };
    if operation == Operation::GetCallerIdentity {
        return NO_IDENTITY.to_owned();
    }
    if operation == Operation::AssumeRole {
        return NO_ROLE.to_owned();
    }
    format!("AWS denies it. Grant {} on {} to the operator's role.", operation.iam_action(), i.stream)
}

fn failed_operation(i: &Input<'_>) -> &'static str {
    match i.seen {
        Seen::Failed(fault) => fault.operation.iam_action(),
        Seen::NotYet | Seen::At(..) => "no answer",
    }
}

/// The code of what went wrong: with the look, else with the last call.
fn code(i: &Input<'_>) -> Option<String> {
    match i.seen {
        Seen::Failed(fault) => fault.code.clone(),
        Seen::NotYet | Seen::At(..) => claims::failure(i),
    }
}

/// What AWS wrote of it. It is read, and never shown.
fn fault_message<'a>(i: &Input<'a>) -> &'a str {
    match i.seen {
        Seen::Failed(fault) => &fault.message,
        Seen::NotYet | Seen::At(..) => "",
    }
}

fn outcome_unknown(i: &Input<'_>) -> String {
    let unknown = i.ledger.calls.last().filter(|call| call.outcome == Outcome::Unknown);
    match unknown.and_then(|call| call.code.as_deref()) {
        Some(code) => {
            format!("The last call ended in an internal error ({code}), and AWS may still carry it out.")
        }
        None => "No answer came to the last call, and AWS may still carry it out.".to_owned(),
    }
}

fn put_record(service: Service) -> Operation {
    match service {
        Service::Firehose => Operation::PutFirehoseRecord,
        Service::Kinesis => Operation::PutKinesisRecord,
    }
}

fn source<'a>(i: &Input<'a>) -> &'a str {
    match i.seen {
        Seen::At(_, Observation::NotEncryptable(source)) => source,
        _ => "another one",
    }
}

fn broken<'a>(i: &Input<'a>) -> &'a str {
    match i.seen {
        Seen::At(_, Observation::Broken(word)) => word,
        _ => "nothing more",
    }
}

fn unrecognized<'a>(i: &Input<'a>) -> &'a str {
    match i.seen {
        Seen::At(_, Observation::Unrecognized(words)) => words,
        _ => "a state",
    }
}

#[cfg(test)]
mod tests;
