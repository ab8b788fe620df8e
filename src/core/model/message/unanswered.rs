//! The messages for requests that were not sent, got no response, or were denied, and for rejected
//! credentials.

use stream_encryption_api::ledger::Action;

use crate::model::aws_error::{
    AwsError, DenyingPolicy, ErrorKind, NOT_CONNECTED, NOT_RESERVED, OPERATOR_PAUSED, SIGNER_CHANGED,
};
use crate::model::credentials::{CredentialsProblem, CredentialsRejection};
use crate::model::decision::{DecisionInput, LastObservation};
use crate::model::desired::DesiredEncryption;
use crate::model::service::Operation;

/// Returns the message of `Ready` if `GetCallerIdentity` failed, so that the operator's own account is unknown.
#[must_use]
pub fn identity(error: &AwsError) -> String {
    match error.kind {
        ErrorKind::NoCredentials => no_credentials(error.code.as_deref()).to_owned(),
        ErrorKind::CredentialsRejected => rejected(error.code.as_deref(), &error.message).to_owned(),
        ErrorKind::Denied | ErrorKind::Invalid => IDENTITY_DENIED.to_owned(),
        ErrorKind::Throttled => THROTTLED.to_owned(),
        _ => unanswered(error.operation.iam_action(), error.code.as_deref()),
    }
}

/// STS returns the same error for a missing role, a missing permission and a wrong external id, so that a
/// caller cannot find out which roles exist.
const ASSUME_ROLE_DENIED: &str = "The operator is not allowed to assume the role that the StreamEncryptionPolicy sets for this stream. Grant sts:AssumeRole and sts:TagSession on the role to the operator, also in the role's trust policy, and compare the policy's external id with the one in the trust policy. If the operator's session has a source identity, grant sts:SetSourceIdentity, too.";
const IDENTITY_DENIED: &str = "AWS refused sts:GetCallerIdentity, for which no permission is required, so the operator's own account is unknown. Check the STS endpoint and, if it is a VPC endpoint, the endpoint's policy.";
pub(super) const THROTTLED: &str = "AWS is throttling requests; the operator backs off and retries.";

/// Returns the message if no request was sent because there were no credentials to sign it with.
pub(super) fn no_credentials(code: Option<&str>) -> &'static str {
    code.and_then(CredentialsProblem::of).unwrap_or(CredentialsProblem::NotFound).words()
}

/// Returns the message if AWS rejected the signature or the credentials.
pub(super) fn rejected(code: Option<&str>, message: &str) -> &'static str {
    code.and_then(|code| CredentialsRejection::of(code, message))
        .unwrap_or(CredentialsRejection::SignatureWrong)
        .words()
}

/// Returns the message if AWS denied the last request. It names the missing permission, or the kind of policy that denies
/// the action although the role may have the permission. For a call, the kind is unknown: only its code was stored.
pub(super) fn denied(input: &DecisionInput<'_>) -> String {
    let (operation, policy) = match input.last_observation {
        LastObservation::Failed(error) => (error.operation, error.denying_policy()),
        LastObservation::NotYet | LastObservation::Described(..) => {
            let action =
                if input.desired.encryption == DesiredEncryption::Off { Action::Stop } else { Action::Start };
            (Operation::change(input.stream.service, action), None)
        }
    };
    match (operation, policy) {
        (Operation::GetCallerIdentity, _) => IDENTITY_DENIED.to_owned(),
        (Operation::AssumeRole, None) => ASSUME_ROLE_DENIED.to_owned(),
        (Operation::AssumeRole, Some(policy)) => {
            let role = "the role that the StreamEncryptionPolicy sets for this stream";
            denied_by(policy, "sts:AssumeRole or sts:TagSession", role)
        }
        (operation, Some(policy)) => denied_by(policy, operation.iam_action(), &input.stream.to_string()),
        // IAM checks the permission of these two on both resources.
        (Operation::StartStreamEncryption | Operation::StopStreamEncryption, None) => format!(
            "AWS denied the request. Grant {} to the operator's role, on {} and on the KMS key (for AWS_OWNED_CMK, on the key of alias/aws/kinesis).",
            operation.iam_action(),
            input.stream
        ),
        (operation, None) => format!(
            "AWS denied the request. Grant {} on {} to the operator's role.",
            operation.iam_action(),
            input.stream
        ),
    }
}

/// Returns the message if a policy denies an action on a resource.
fn denied_by(policy: DenyingPolicy, action: &str, resource: &str) -> String {
    let (policy, remedy) = match policy {
        DenyingPolicy::IdentityBased => {
            ("A policy of the operator's role", "Remove the statement that denies it.")
        }
        DenyingPolicy::ResourceBased => ("A resource-based policy", "Remove the statement that denies it."),
        DenyingPolicy::ServiceControl => {
            ("A service control policy", "Ask the administrator of the AWS organization to allow it.")
        }
        DenyingPolicy::ResourceControl => {
            ("A resource control policy", "Ask the administrator of the AWS organization to allow it.")
        }
        DenyingPolicy::PermissionsBoundary => {
            ("The permissions boundary of the operator's role", "Allow it in the permissions boundary.")
        }
        DenyingPolicy::Session => {
            ("A session policy of the operator's credentials", "Allow it in the session policy.")
        }
        DenyingPolicy::VpcEndpoint => {
            ("The policy of a VPC endpoint", "Allow it in the policy of the endpoint.")
        }
    };
    format!("{policy} denies {action} on {resource}. {remedy}")
}

/// Returns the message of a request that failed for a temporary cause: without a response, with one that
/// names no cause, or before it was sent. `action` is the request, and `code` the code of the error.
pub(super) fn unanswered(action: &str, code: Option<&str>) -> String {
    match code {
        None => format!(
            "No readable response to {action} was received. Check the operator's network and endpoint; the operator retries."
        ),
        Some(NOT_CONNECTED) => format!(
            "The operator could not connect to AWS for {action}, and sent nothing. Check the operator's DNS, network, proxy and endpoint; the operator retries."
        ),
        Some(NOT_RESERVED) => {
            "The Kubernetes API server did not acknowledge the entry of the encryption call in the ledger, so the operator did not send the call. The operator retries.".to_owned()
        }
        Some(OPERATOR_PAUSED) => {
            "Too much time passed before the encryption call, so the operator did not send it. Either the operator's process did not run for some seconds, for example because its node was overloaded, or the Kubernetes API server responded slowly, for example because an admission webhook does not respond. The operator retries.".to_owned()
        }
        Some(SIGNER_CHANGED) => {
            "The operator's AWS credentials changed just before the encryption call, which was not sent. The operator retries.".to_owned()
        }
        Some("InvalidResponse") => format!(
            "The response to {action} is not valid. Check the operator's endpoint and proxy; the operator retries."
        ),
        Some(status) if status.bytes().all(|byte| byte.is_ascii_digit()) => format!(
            "The response to {action} is HTTP status {status} without an AWS error. Check the endpoint, proxy or gateway between the operator and AWS; the operator retries."
        ),
        Some(code) => format!(
            "AWS returned an internal error ({action}: {code}). The operator retries; if this persists, check the AWS Health Dashboard."
        ),
    }
}
