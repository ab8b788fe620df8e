//! The message of `status.failure`: what a failure means, and the remedy.

use crate::model::aws_error::{NOT_CONNECTED, NOT_RESERVED, OPERATOR_PAUSED, SIGNER_CHANGED};
use crate::model::credentials::CredentialsProblem;
use crate::model::status_fields::NOT_APPLIED;

/// Returns the remedy for a failure: AWS's `DeliveryStreamFailureType`, or the code of an error.
#[must_use]
pub fn advice(failure: &str) -> &'static str {
    match failure {
        "KMS_ACCESS_DENIED" | "KMSAccessDeniedException" => {
            "The key policy or the operator's role does not allow its use. Allow it in both."
        }
        "DISABLED_KMS_KEY" | "KMSDisabledException" => "The key is disabled. Enable it.",
        "KMS_KEY_NOT_FOUND" | "KMSNotFoundException" => "The key does not exist. Set another key.",
        "INVALID_KMS_KEY" | "KMSInvalidStateException" => {
            "The key's current state does not allow encryption. Enable it, or set another key."
        }
        "CREATE_KMS_GRANT_FAILED" => {
            "Firehose could not create a grant on the key. Allow kms:CreateGrant to the operator's role, or renew its session, which may be older than 6 hours."
        }
        "RETIRE_KMS_GRANT_FAILED" => {
            "Firehose could not retire its grant on a key. Check that the key is enabled and that its policy allows Firehose; the operator retries. Do not revoke a grant on the key in status.activeKey: Firehose would lose records."
        }
        "KMS_OPT_IN_REQUIRED" | "KMSOptInRequired" => {
            "The account is not subscribed to KMS. Subscribe it first."
        }
        "InvalidKMSResourceException" => "KMS rejects the key. Check its state and its policy.",
        "AccessDeniedException" => {
            "The operator's role lacks a permission. Grant the one that the message of Ready names."
        }
        "LimitExceededException" => {
            "AWS's limit of calls for the stream, or of streams for the key, is reached. The message of Ready states what to do."
        }
        NOT_APPLIED => "AWS accepted the encryption call, and the stream is unchanged. The operator retries.",
        NOT_CONNECTED => {
            "The operator could not connect to AWS, so it did not send the call. Check its DNS, network, proxy and endpoint. It retries."
        }
        NOT_RESERVED => {
            "The API server did not acknowledge the entry of the call in the ledger, so the operator did not send the call. It retries."
        }
        OPERATOR_PAUSED => {
            "The operator's process did not run for some seconds, or the API server responded slowly, so the operator did not send the call. It retries."
        }
        SIGNER_CHANGED => {
            "The operator's AWS credentials changed just before the call, so it did not send the call. It retries."
        }
        code => match CredentialsProblem::of(code) {
            Some(problem) => problem.words(),
            None => "AWS returned no further details; see the operator log.",
        },
    }
}
