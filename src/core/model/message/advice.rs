//! The message of `status.failure`: what a failure means, and the remedy.

use crate::model::aws_error::{OPERATOR_PAUSED, SIGNER_CHANGED};
use crate::model::credentials::CredentialsProblem;
use crate::model::status_fields::NOT_APPLIED;

/// Returns the remedy for a failure: AWS's `DeliveryStreamFailureType`, or the code of an error.
#[must_use]
pub fn advice(failure: &str) -> &'static str {
    match failure {
        "KMS_ACCESS_DENIED" | "KMSAccessDeniedException" => {
            "The key policy or the operator's role does not allow its use."
        }
        "DISABLED_KMS_KEY" | "KMSDisabledException" => "The key is disabled. Enable it.",
        "KMS_KEY_NOT_FOUND" | "KMSNotFoundException" => "The key does not exist.",
        "INVALID_KMS_KEY" | "KMSInvalidStateException" => {
            "The key's current state does not allow encryption."
        }
        "CREATE_KMS_GRANT_FAILED" => {
            "Firehose could not create a grant on the key. Allow kms:CreateGrant to the operator's role."
        }
        "RETIRE_KMS_GRANT_FAILED" => "Firehose could not retire its grant on the old key.",
        "KMS_OPT_IN_REQUIRED" | "KMSOptInRequired" => {
            "The account is not subscribed to KMS. Subscribe it first."
        }
        "InvalidKMSResourceException" => "KMS rejects the key. Check its state and its policy.",
        "AccessDeniedException" => "The operator's role lacks a permission.",
        "LimitExceededException" => "The AWS limit is reached.",
        NOT_APPLIED => "AWS accepted the encryption call, and the stream is unchanged.",
        OPERATOR_PAUSED | SIGNER_CHANGED => "The operator did not send the call, and retries.",
        code => match CredentialsProblem::of(code) {
            Some(problem) => problem.words(),
            None => "AWS returned no further details; see the operator log.",
        },
    }
}
