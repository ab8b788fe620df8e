//! The messages of requests that were not sent, that AWS did not answer, or whose sender AWS rejected.

use crate::model::aws_error::{AwsError, ErrorKind};
use crate::model::credentials::{Missing, Rejection};

/// Returns the message of `Ready` while AWS does not identify the operator's credentials.
#[must_use]
pub fn identity(fault: &AwsError) -> String {
    match fault.class {
        ErrorKind::NoCredentials => no_credentials(fault.code.as_deref()).to_owned(),
        ErrorKind::CredentialsRejected => rejected(fault.code.as_deref(), &fault.message).to_owned(),
        ErrorKind::Denied | ErrorKind::Invalid => NO_IDENTITY.to_owned(),
        ErrorKind::Throttled => THROTTLED.to_owned(),
        _ => unanswered(fault.operation.iam_action(), fault.code.as_deref()),
    }
}

pub(super) const NO_IDENTITY: &str = "AWS does not identify the operator's credentials. Check its IAM role, its service account and the endpoint.";
pub(super) const THROTTLED: &str = "AWS is throttling requests; the operator backs off and retries.";

/// Returns the message if no request was sent because there were no credentials to sign it with.
pub(super) fn no_credentials(code: Option<&str>) -> &'static str {
    code.and_then(Missing::of).unwrap_or(Missing::NotFound).words()
}

/// Returns the message if AWS rejected the signature or the credentials.
pub(super) fn rejected(code: Option<&str>, message: &str) -> &'static str {
    code.and_then(|code| Rejection::of(code, message)).unwrap_or(Rejection::SignatureWrong).words()
}

/// Returns the message if no response was received, or none that names a cause, by its code.
pub(super) fn unanswered(action: &str, code: Option<&str>) -> String {
    match code {
        None => format!(
            "AWS does not respond ({action}). Check the operator's network and endpoint; the operator retries."
        ),
        Some("NotSent") => {
            "The operator was paused, and the encryption call was not sent. The operator retries.".to_owned()
        }
        Some("SignerChanged") => {
            "The operator's AWS credentials changed just before the encryption call, which was not sent. The operator retries.".to_owned()
        }
        Some("UnreadableAnswer") => format!(
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
