//! Messages of conditions: the state, and the action to take.
//!
//! Messages contain the operator's own words and AWS's codes. AWS's full messages go to the log, because they
//! may name resources that the reader must not see.

use std::fmt::Write as _;

use jiff::Timestamp;
use stream_encryption_api::condition::{LedgerContent, ReadyState, Reason, next_whole_second};
use stream_encryption_api::ledger::{Action, KnownEncryption, Outcome};
use stream_encryption_api::stream_encryption::{EncryptionStatus, KeyIdentity, KeyType};

use super::arn::KeyArn;
use super::decision::{Decision, DecisionInput, LastObservation, action_in_progress, budget};
use super::desired::DesiredEncryption;
use super::key::{Key, KeyProblem};
use super::observation::Observation;
use super::service::{Words, profile};
use super::status_fields::{self, NOT_APPLIED};

mod advice;
mod encrypted;
mod planned;
mod unanswered;

pub use advice::advice;
pub use encrypted::encrypted;
#[cfg(test)]
pub(super) use encrypted::still_reported;
pub use planned::planned_call;
pub use unanswered::identity;
use unanswered::{THROTTLED, denied, no_credentials, rejected, unanswered};

/// Returns the message of `Ready` (and of `Reconciling` or `Stalled`) for a decision.
#[must_use]
pub fn ready(input: &DecisionInput<'_>, decision: &Decision) -> String {
    let mut message = match active_key_warning(input, decision.reason) {
        Some(Warning::Instead(warning)) => warning,
        Some(Warning::Before(warning)) => format!("{warning} {}", message_for(input, decision.reason)),
        None => message_for(input, decision.reason),
    };
    if let Some(shown) = status_fields::unconfirmed_observation(input)
        .filter(|_| encrypted::awaits_confirmation(decision.reason))
    {
        let _ = write!(message, " {}", encrypted::still_reported(shown));
    }
    if let Some(at) = decision.next_attempt {
        let _ = write!(message, " Next attempt at {}.", whole_seconds(at));
    }
    message
}

/// The message about an unusable active key.
enum Warning {
    /// It stands in place of the message of the reason, which would say the same.
    Instead(String),
    /// It precedes the message of the reason.
    Before(String),
}

/// Returns the message about the unusable active key; `None` if the active key is usable, or if the reader must
/// not see which key is active.
fn active_key_warning(input: &DecisionInput<'_>, reason: Reason) -> Option<Warning> {
    let problem = input
        .active_key_problem
        .filter(|_| matches!(input.last_observation, LastObservation::Described(..)))?;
    // The content of a ledger is shown to its owner only, and a suspended resource keeps its status.
    let hidden =
        reason.ledger_content() == LedgerContent::Hidden || reason.ready_state() == ReadyState::Unchanged;
    let key = status_fields::active_customer_key(input).filter(|_| !hidden)?;
    let is_desired = match &input.desired.encryption {
        DesiredEncryption::Key(asked) => *asked == Key::Customer(key.clone()),
        DesiredEncryption::AnyKey => true,
        DesiredEncryption::UnknownKey | DesiredEncryption::Off => false,
    };
    let warning = active_key_unusable(input, &key, problem);
    let says_the_same = is_desired && reason == problem.reason();
    Some(if says_the_same { Warning::Instead(warning) } else { Warning::Before(warning) })
}

/// Returns the message of `KeyUsable` for the desired key.
#[must_use]
pub fn key_usable(input: &DecisionInput<'_>) -> String {
    match (input.desired.key_problem, status_fields::specified_key(input)) {
        (Some(problem), _) => message_for(input, problem.reason()),
        (None, Some(key @ Key::Customer(_))) => {
            let others = words(input).others_on_key;
            format!(
                "{key} is enabled and of the right kind. Its key policy is not verified: {others} on this key."
            )
        }
        (None, _) => message_for(input, Reason::KeyEnabled) + words(input).aws_key_limit,
    }
}

/// Returns the message of `KeyUsable` for an unusable active key: the effect on records, and the remedy.
#[must_use]
pub fn active_key_unusable(input: &DecisionInput<'_>, key: &KeyArn, problem: KeyProblem) -> String {
    let (state, remedy) = match problem {
        KeyProblem::Disabled => ("is disabled", "Enable it."),
        KeyProblem::PendingDeletion => ("is pending deletion", "Cancel its deletion and enable it."),
        KeyProblem::NotFound => ("no longer exists", "Set another key in spec.key."),
        KeyProblem::PendingImport => ("has no key material", "Import it."),
        _ => ("cannot be used", "Check the key and its key store in KMS."),
    };
    let records = words(input).key_unusable;
    format!("{records}. {key} is the active key and {state}. {remedy}")
}

/// Returns the message of `Ready` while a resource is suspended: by which setting, since when, and the age of
/// the rest of its status.
#[must_use]
pub fn suspended(
    by: &str,
    since: Timestamp,
    described: Option<Timestamp>,
    shown: Option<EncryptionStatus>,
) -> String {
    let since = whole_seconds(since);
    let last = match (described.map(whole_seconds), shown.map(EncryptionStatus::as_str)) {
        (Some(at), Some(shown)) => {
            format!("The last known state is {shown}, as of {at} or up to a day later.")
        }
        (Some(at), None) => format!("The stream was last described at {at} or later."),
        (None, Some(shown)) => format!("The last known state is {shown}."),
        (None, None) => "The stream has not been described yet.".to_owned(),
    };
    format!(
        "Reconciliation has been suspended since {since} by {by}. {last} Later changes are neither detected nor corrected. To resume, set suspend: false and remove the annotation streamencryption.dev/suspend."
    )
}

/// Prefixes a message with the time of the description on which it is based. The time in a status lags, so the description
/// may be a later one. A message that is already marked as outdated is returned unchanged.
#[must_use]
pub fn outdated(described: Option<Timestamp>, message: &str) -> String {
    match described {
        _ if is_outdated(message) => message.to_owned(),
        Some(at) => format!("{AS_OF}{} or later: {message}", whole_seconds(at)),
        None => format!("{AS_OF}an earlier AWS response: {message}"),
    }
}

/// Returns whether a message is marked as older than its status.
#[must_use]
pub fn is_outdated(message: &str) -> bool {
    message.starts_with(AS_OF)
}

/// The beginning of a message that is older than its status.
const AS_OF: &str = "As of ";

/// Returns the words of the stream's service.
fn words(input: &DecisionInput<'_>) -> &'static Words {
    &profile(input.stream.service).words
}

/// Returns the message of a reason.
fn message_for(input: &DecisionInput<'_>, reason: Reason) -> String {
    sentence(raw_message(input, reason).trim_end().to_owned())
}

/// Capitalizes a message that begins with the description of a key.
fn sentence(text: String) -> String {
    for (article, capitalized) in [("the ", "The "), ("a ", "A ")] {
        if let Some(rest) = text.strip_prefix(article) {
            return format!("{capitalized}{rest}");
        }
    }
    text
}

fn raw_message(input: &DecisionInput<'_>, reason: Reason) -> String {
    let stream = input.stream;
    let key = describe_desired_key(input);
    match reason {
        Reason::Encrypted => match input.ledger.known_encryption.as_ref().and_then(|known| known.key.as_ref()) {
            Some(key) => format!("Records are encrypted with {}.", describe_key(input, key)),
            None => "Records are encrypted.".to_owned(),
        },
        Reason::KeyEnabled => format!("{key} can encrypt the stream."),
        Reason::EncryptionDisabled if status_fields::known_encryption_is_void(input) => "Encryption is off, as specified.".to_owned(),
        Reason::EncryptionDisabled => "Encryption is off, as specified. Records are in plaintext.".to_owned(),
        Reason::Settling if status_fields::unconfirmed_observation(input).is_some() => "The operator is waiting for AWS to report the effect of its last encryption call.".to_owned(),
        Reason::Settling => "AWS reports completion; the change can take up to 5 seconds to apply to all records.".to_owned(),
        Reason::Verifying => {
            let (on_stream, on_key) = (profile(stream.service).put_record.iam_action(), words(input).put_record_on_key);
            format!("Waiting for a test record to be reported as encrypted. If this persists, grant {on_stream} on {stream} to the operator's role and, on a customer managed key, {on_key}.")
        }
        Reason::Enabling => changing(input, Action::Start),
        Reason::Disabling => changing(input, Action::Stop),
        Reason::StreamUpdating => "AWS is updating the stream; encryption can be changed after that.".to_owned(),
        Reason::EnablingFailed if is_not_applied(input) => format!(
            "AWS accepted the call to encrypt with {key}, and the stream is unchanged. {} Check the key and its policy, then change the annotation streamencryption.dev/retry to retry immediately.",
            known_active_key(input)
        ),
        Reason::DisablingFailed if is_not_applied(input) => format!("AWS accepted the call to disable encryption, and the stream is unchanged. {}", known_active_key(input)),
        Reason::EnablingFailed => format!(
            "AWS could not encrypt with {key}: {}. {} Fix the key or its policy, then change the annotation streamencryption.dev/retry to retry immediately.",
            failure(input), known_active_key(input)
        ),
        Reason::DisablingFailed => format!("AWS could not disable encryption: {}. {}", failure(input), known_active_key(input)),
        Reason::NotApplied => format!("AWS accepted the encryption call, and the stream is unchanged. {} If this happens again, contact AWS Support.", known_active_key(input)),
        Reason::OutcomeUnknown => outcome_unknown(input),
        Reason::CallLimitReached => limit_reached(input),
        Reason::StreamInUse => "AWS was changing the stream when the operator made the encryption call.".to_owned(),
        Reason::CallRefused => refused_request(input),
        Reason::KeyNotFound => format!("{key} was not found in {}. {}", stream.region, key_to_set(input)),
        Reason::KeyDisabled => format!("{key} is disabled, so no encryption call is made. Enable it, or set another key in spec.key."),
        Reason::KeyPendingDeletion => format!("{key} is pending deletion. Cancel the deletion and enable the key, or set another key in spec.key."),
        Reason::KeyPendingImport => format!("{key} has no key material. Import the key material, or set another key in spec.key."),
        Reason::KeyUnavailable => format!("{key} is unavailable. Check its key store, or set another key in spec.key."),
        Reason::KeyStateUnrecognized => format!("KMS reports a state of {key} that this operator version does not support, so no encryption call is made. See the operator log; update the operator, or set another key in spec.key."),
        Reason::KeyDescribeDenied => format!("The operator is not allowed to describe {key}. Allow kms:DescribeKey in its key policy and in the operator's role."),
        Reason::KeyAccessDenied => format!(
            "KMS denied the use of {key} ({}). {}. If the error persists, also allow kms:GenerateDataKey and kms:Decrypt. {}",
            failure(input), words(input).allow_key, known_active_key(input)
        ),
        Reason::KeyReferenceNotReady => format!(
            "The Key {} of key.objectRef does not exist or has no ARN yet. Create it, or wait until its controller has created the key.",
            input.desired.key_reference.as_deref().unwrap_or_default()
        ),
        Reason::KeyReferenceCRDMissing => {
            "The kind of key.objectRef is not installed in the cluster. Install the KMS controller of ACK or Crossplane, or set key.arn or key.alias instead.".to_owned()
        }
        Reason::KeyNotSymmetric => format!("{key} is not a symmetric encryption key. Set one in spec.key."),
        Reason::KeyUsageWrong => format!("{key} is not for encryption. Set a key in spec.key whose usage is ENCRYPT_DECRYPT."),
        Reason::KeyManagedByAws => format!("{key} is an AWS managed key. Set type: AWS_OWNED_CMK, or set a customer managed key."),
        Reason::KeyInOtherRegion => format!("{key} is not in {}. Set a key in the stream's region in spec.key.", stream.region),
        Reason::StreamNotFound => format!(
            "{:?} stream {} of account {} was not found in {}. Check name, account and region; the operator keeps checking.",
            stream.service, stream.name(), stream.account, stream.region
        ),
        Reason::StreamCreating => "The stream is being created.".to_owned(),
        Reason::StreamDeleting => "The stream is being deleted. Delete this resource, too, or create the stream again.".to_owned(),
        Reason::StreamFailed => not_operational(input),
        Reason::StreamStateUnrecognized => format!(
            "AWS reports {}, which this operator version does not support, so no encryption call is made. Check the stream in AWS and update the operator.",
            unrecognized(input)
        ),
        Reason::StreamARNMismatch => "The operator's credentials for this stream are of another account. Ask an administrator to set a role of the stream's account in the StreamEncryptionPolicy, or to run the operator with credentials of that account.".to_owned(),
        Reason::AccessDenied => denied(input),
        Reason::NoCredentials => no_credentials(code(input).as_deref()).to_owned(),
        Reason::CredentialsRejected => rejected(code(input).as_deref(), fault_message(input)).to_owned(),
        Reason::AwsUnreachable => unanswered(failed_operation(input), code(input).as_deref()),
        Reason::AwsThrottled => THROTTLED.to_owned(),
        Reason::SessionTooOld => "The session of the operator's AWS credentials is older than 5 hours and 45 minutes. With a session older than 6 hours, Firehose cannot start using a customer managed key. Give the operator credentials that are renewed.".to_owned(),
        Reason::LedgerInvalid => format!(
            "StreamLedger {} in the operator's namespace is inaccessible or invalid, so no encryption call is made. The operator's log states the cause, and \"LedgerInvalid\" in docs/conditions.md the remedy.",
            super::ledger::name(stream)
        ),
        Reason::SourceNotDirectPut => format!(
            "The stream's source is {}, and only DirectPut streams can be encrypted. Encrypt the source instead and delete this resource.",
            source(input)
        ),
        Reason::StreamAlreadyManaged => match input.other_owner {
            Some(name) => format!("StreamEncryption {name} of this namespace already manages this stream. Delete this resource: nothing changes in AWS."),
            None => "A StreamEncryption of another namespace already manages this stream. Delete this resource, or ask an administrator to remove the stream from the policies of that namespace.".to_owned(),
        },
        Reason::NotPermitted => not_permitted(input).to_owned(),
        Reason::ConflictingPolicyRoles => "The StreamEncryptionPolicies that allow this stream specify different roles or external ids. Ask an administrator to set the same role and external id in all of them.".to_owned(),
        Reason::DisableNotPermitted => disable_not_permitted(input).to_owned(),
        Reason::DriftCorrectionLimitReached => format!(
            "The operator has corrected drift three times in 24 hours, and the stream was changed again. {} Find out who else changes it, or set mode: Observe. To correct it once more now, change the annotation streamencryption.dev/retry.",
            known_active_key(input)
        ),
        Reason::ActiveKeyUnknown => active_key_unknown(input),
        Reason::Drifted => planned::drifted(input),
        // Not printed: the message of `Suspended` is [`suspended`], and the controller has that of
        // `SpecInvalid`.
        Reason::SpecInvalid => "Invalid spec.".to_owned(),
        Reason::Suspended => "Reconciliation is suspended.".to_owned(),
    }
}

/// Returns the message of a change that AWS has accepted or reports, of the operator or of another caller.
fn changing(input: &DecisionInput<'_>, action: Action) -> String {
    // The spec may name another key by now.
    let last = input.ledger.calls.last().and_then(|call| call.target.key.as_ref());
    let key = last.map_or_else(|| describe_desired_key(input), |key| describe_key(input, key));
    if status_fields::unconfirmed_observation(input).is_some() {
        return match action {
            Action::Start => format!("AWS has accepted the call to enable encryption with {key}."),
            Action::Stop => "AWS has accepted the call to disable encryption.".to_owned(),
        };
    }
    let change = match (action, action_in_progress(input) == Some(action)) {
        (Action::Start, true) => format!("AWS is enabling encryption with {key}."),
        (Action::Stop, true) => "AWS is disabling encryption.".to_owned(),
        (Action::Start, false) => {
            "AWS is enabling encryption or changing the key, and the operator did not request this."
                .to_owned()
        }
        (Action::Stop, false) => {
            "AWS is disabling encryption, and the operator did not request this.".to_owned()
        }
    };
    format!("{change} {}", current_encryption(input))
}

fn disable_not_permitted(input: &DecisionInput<'_>) -> &'static str {
    match (&input.desired.encryption, input.desired.deleting) {
        (_, true) => {
            "No StreamEncryptionPolicy allows this namespace to disable encryption of this stream, so the resource is kept. Ask an administrator to allow it, or set deletionPolicy: Retain to leave the stream encrypted."
        }
        (DesiredEncryption::Off, false) => {
            "No StreamEncryptionPolicy allows this namespace to disable encryption of this stream. Set encryption: Enabled and deletionPolicy: Retain, or ask an administrator to allow it."
        }
        (_, false) => {
            "No StreamEncryptionPolicy allows this namespace to disable encryption of this stream, so the operator leaves the stream as it is: it neither encrypts the stream now nor disables encryption on deletion. Set deletionPolicy: Retain, or ask an administrator to allow it."
        }
    }
}

fn active_key_unknown(input: &DecisionInput<'_>) -> String {
    if input.desired.encryption == DesiredEncryption::AnyKey {
        return "An attempt failed, and AWS does not report which key is active. Set the desired key in spec.key.".to_owned();
    }
    let key = describe_desired_key(input);
    format!(
        "AWS could not encrypt with {key}: {}. If this key is already the active key, Firehose fails every attempt with it, so the operator does not retry. Set another key in spec.key. When that key is active, set {key} again. Or fix the cause and change the annotation streamencryption.dev/retry.",
        failure(input)
    )
}

/// Returns whether AWS accepted the last call and the stream is unchanged.
fn is_not_applied(input: &DecisionInput<'_>) -> bool {
    status_fields::failure_code(input).as_deref() == Some(NOT_APPLIED)
}

/// Returns a message that does not reveal what exists, because the namespace may not use it.
fn not_permitted(input: &DecisionInput<'_>) -> &'static str {
    if input.permission.role_for(input.stream).is_err() {
        "No StreamEncryptionPolicy allows this namespace to use this stream. Ask an administrator to allow it."
    } else if input.desired.encryption == DesiredEncryption::AnyKey {
        "No StreamEncryptionPolicy allows this namespace to use AWS_OWNED_CMK for this stream. Set a key in spec.key."
    } else {
        "No StreamEncryptionPolicy allows this namespace to use this key for this stream. Set another key in spec.key, or ask an administrator to allow this one."
    }
}

/// Formats a time in whole seconds, the same as in the fields of the status.
fn whole_seconds(at: Timestamp) -> String {
    next_whole_second(at).0.to_string()
}

fn describe_key(input: &DecisionInput<'_>, key: &KeyIdentity) -> String {
    match (key.kind, status_fields::redacted_key(input, key).arn) {
        (KeyType::AwsOwned, _) => words(input).aws_key.to_owned(),
        (KeyType::CustomerManaged, Some(arn)) => arn,
        (KeyType::CustomerManaged, None) => {
            "a customer managed key that no StreamEncryptionPolicy allows this namespace to use".to_owned()
        }
    }
}

fn describe_desired_key(input: &DecisionInput<'_>) -> String {
    match &input.desired.encryption {
        DesiredEncryption::Key(Key::AwsOwned) | DesiredEncryption::AnyKey | DesiredEncryption::Off => {
            words(input).aws_key.to_owned()
        }
        DesiredEncryption::Key(key) => key.to_string(),
        DesiredEncryption::UnknownKey => match &input.desired.key_reference {
            Some(name) => format!("the key {name}"),
            None => "the specified key".to_owned(),
        },
    }
}

/// Returns the remedy for a key that was not found.
fn key_to_set(input: &DecisionInput<'_>) -> &'static str {
    match &input.desired.encryption {
        // A key that is named by its ARN is `Key` even if KMS does not find it, so `UnknownKey` means here
        // that the alias does not exist.
        DesiredEncryption::UnknownKey => "Create the alias, or set another key in spec.key.",
        DesiredEncryption::Key(Key::Customer(_)) => "Set an existing key in spec.key.",
        _ => "Set another key in spec.key.",
    }
}

fn current_encryption(input: &DecisionInput<'_>) -> String {
    // The message already begins with the unusable active key.
    if input.active_key_problem.is_some() {
        return String::new();
    }
    match input.ledger.known_encryption.as_ref().map(|known| &known.key) {
        Some(Some(key)) => format!("Records are still encrypted with {}.", describe_key(input, key)),
        Some(None) => "Records are still in plaintext.".to_owned(),
        None => "Records written meanwhile may be in plaintext.".to_owned(),
    }
}

fn known_active_key(input: &DecisionInput<'_>) -> String {
    active_key(input, input.ledger.known_encryption.as_ref())
}

/// Returns a sentence about the key that encrypts records now.
#[must_use]
pub fn active_key(input: &DecisionInput<'_>, known: Option<&KnownEncryption>) -> String {
    match known.map(|known| &known.key) {
        Some(Some(key)) => sentence(format!("{} is the active key.", describe_key(input, key))),
        Some(None) => "Records are in plaintext.".to_owned(),
        None => "The active key is unknown.".to_owned(),
    }
}

fn failure(input: &DecisionInput<'_>) -> String {
    status_fields::failure_code(input).unwrap_or_else(|| "no reason given".to_owned())
}

fn refused_request(input: &DecisionInput<'_>) -> String {
    let code = code(input).unwrap_or_else(|| "no reason given".to_owned());
    format!("AWS refused {}: {code}. See the operator log for the AWS message.", failed_operation(input))
}

fn limit_reached(input: &DecisionInput<'_>) -> String {
    let budget = budget(input);
    if budget.has_room() {
        return format!(
            "AWS reports that its limit is reached ({}). Either this stream's 25 encryption calls in 24 hours are used up although the operator has counted fewer: find out in CloudTrail who makes the calls. Or 500 Firehose streams use the key: set another key.",
            failure(input)
        );
    }
    if budget.external > 0 {
        return format!(
            "{} of {} encryption calls in 24 hours are used, {} of them by other callers. Wait, and find the other callers in CloudTrail.",
            budget.used, budget.limit, budget.external
        );
    }
    format!(
        "{} of {} encryption calls in 24 hours are used. Wait, or ask an administrator to raise maxCallsPerDay in the StreamEncryptionPolicy (25 at most).",
        budget.used, budget.limit
    )
}

fn failed_operation(input: &DecisionInput<'_>) -> &'static str {
    match input.last_observation {
        LastObservation::Failed(error) => error.operation.iam_action(),
        LastObservation::NotYet | LastObservation::Described(..) => "the encryption call",
    }
}

/// Returns the code of the failed Describe, otherwise that of the failed call.
fn code(input: &DecisionInput<'_>) -> Option<String> {
    match input.last_observation {
        LastObservation::Failed(error) => error.code.clone(),
        LastObservation::NotYet | LastObservation::Described(..) => status_fields::failure_code(input),
    }
}

/// Returns AWS's message of the failed Describe. It is only evaluated, never shown.
fn fault_message<'a>(input: &DecisionInput<'a>) -> &'a str {
    match input.last_observation {
        LastObservation::Failed(error) => &error.message,
        LastObservation::NotYet | LastObservation::Described(..) => "",
    }
}

fn outcome_unknown(input: &DecisionInput<'_>) -> String {
    let unknown = input.ledger.calls.last().filter(|call| call.outcome == Outcome::Unknown);
    match unknown.and_then(|call| call.code.as_deref()) {
        Some(code) => {
            format!(
                "The last encryption call ended without a definite answer ({code}), and AWS may still apply it."
            )
        }
        None => "The last encryption call received no response, and AWS may still apply it.".to_owned(),
    }
}

fn source<'a>(input: &DecisionInput<'a>) -> &'a str {
    match input.last_observation {
        LastObservation::Described(_, Observation::NotEncryptable(source)) => source,
        _ => "another service",
    }
}

fn not_operational(input: &DecisionInput<'_>) -> String {
    let status = match input.last_observation {
        LastObservation::Described(_, Observation::NotOperational(status)) => status,
        _ => "unknown",
    };
    let remedy = "Enable its key, and delete the stream again, if necessary with --allow-force-delete.";
    let (state, remedy) = match status {
        "DELETING_FAILED" => ("could not be deleted", remedy),
        _ => ("is not operational", "Delete the stream and create it again."),
    };
    format!("The stream {state} (status {status}). {remedy}")
}

fn unrecognized<'a>(input: &DecisionInput<'a>) -> &'a str {
    match input.last_observation {
        LastObservation::Described(_, Observation::Unrecognized(state)) => state,
        _ => "a state",
    }
}

#[cfg(test)]
mod tests;
