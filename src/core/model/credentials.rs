//! Problems with the operator's credentials (none are usable, or AWS rejects them), and the remedy for each.
//!
//! The messages name the state first and the remedy second. They contain no text from AWS or from a source of
//! credentials; that text goes to the log.

/// The reason why there are no usable credentials for a request. Each has its own code, which errors and
/// ledgers record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsProblem {
    /// No source of credentials is configured.
    NotFound,
    /// A source is configured in a way that cannot work, such as a profile that does not exist.
    Misconfigured,
    /// A source failed: SSO, a `credential_process`, STS for the role of the service account.
    SourceFailed,
    /// No source responded in time.
    TimedOut,
    /// A source provided a value with which no request can be signed.
    Unsignable,
    /// The session is too old for Firehose to create a grant with it.
    SessionTooOld,
}

impl CredentialsProblem {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NotFound,
        Self::Misconfigured,
        Self::SourceFailed,
        Self::TimedOut,
        Self::Unsignable,
        Self::SessionTooOld,
    ];

    /// Returns the code that errors and ledgers record.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "NoCredentials",
            Self::Misconfigured => "CredentialsMisconfigured",
            Self::SourceFailed => "CredentialsSourceFailed",
            Self::TimedOut => "CredentialsTimedOut",
            Self::Unsignable => "CredentialsUnsignable",
            Self::SessionTooOld => "SessionTooOld",
        }
    }

    /// Returns the reason with this code, or `None` if the code is another one.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|problem| problem.code() == code)
    }

    /// Returns the message for a condition.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NotFound => {
                "The operator has no AWS credentials, so no request was sent: the service account has no role, and no file and no variable names credentials. Give it a role (\"Permissions in AWS\" in docs/install.md)."
            }
            Self::Misconfigured => {
                "The configuration of the operator's AWS credentials is invalid, so no request was sent. The operator's log names the profile or the setting; correct it (\"Permissions in AWS\" in docs/install.md)."
            }
            Self::SourceFailed => {
                "The source of the operator's AWS credentials failed (STS for the service account's role, SSO, or a credential_process), so no request was sent. The operator's log has the details; for a service account, check the role's ARN and trust policy (\"Permissions in AWS\" in docs/install.md)."
            }
            Self::TimedOut => {
                "The source of the operator's AWS credentials does not respond, so no request was sent. Check the operator's network, and the Pod Identity agent, STS or metadata service that provides them."
            }
            Self::Unsignable => {
                "The operator's AWS credentials contain an invalid character, such as a line break, so no request was sent. The operator's log names the field; remove the character from the Secret, file or variable."
            }
            Self::SessionTooOld => {
                "The encryption call was not sent: the operator's AWS session is older than 6 hours, and with such a session Firehose cannot start to use a customer managed key. Give the operator credentials that are renewed."
            }
        }
    }
}

/// The cause for which AWS rejected the authentication of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsRejection {
    /// The session has ended.
    SessionEnded,
    /// AWS does not know the access key, or not in this region.
    KeyUnknown,
    /// The date of the request is too far from AWS's clock.
    ClockWrong,
    /// The endpoint is of another region or service than the request.
    WrongEndpoint,
    /// The signature does not match the access key.
    SignatureWrong,
    /// The region is not enabled for the account, or the account has not subscribed to the service.
    NotEnabled,
    /// STS in the operator's region is not active in the account of the role to assume.
    StsInactive,
}

impl CredentialsRejection {
    /// Every cause.
    pub const ALL: [Self; 7] = [
        Self::SessionEnded,
        Self::KeyUnknown,
        Self::ClockWrong,
        Self::WrongEndpoint,
        Self::SignatureWrong,
        Self::NotEnabled,
        Self::StsInactive,
    ];

    /// Returns the rejection that an AWS error reports, or `None` if the error is about something else.
    #[must_use]
    pub fn of(code: &str, message: &str) -> Option<Self> {
        Some(match code {
            "ExpiredToken" | "ExpiredTokenException" => Self::SessionEnded,
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => Self::KeyUnknown,
            "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => Self::ClockWrong,
            // AWS writes "Signature expired: DATE is now earlier than DATE (DATE - 5 min.)", or "Signature
            // not yet current: …".
            "InvalidSignatureException" | "SignatureDoesNotMatch"
                if ["Signature expired", "Signature not yet current"]
                    .iter()
                    .any(|start| message.starts_with(start)) =>
            {
                Self::ClockWrong
            }
            // AWS writes "Credential should be scoped to a valid region, not 'us-east-1'.", or "Credential should be scoped to
            // correct service: 'kinesis'."
            "InvalidSignatureException" | "SignatureDoesNotMatch"
                if message.starts_with("Credential should be scoped to") =>
            {
                Self::WrongEndpoint
            }
            "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "AuthFailure" => Self::SignatureWrong,
            "OptInRequired" | "SubscriptionRequiredException" => Self::NotEnabled,
            // Only STS returns this code, and only for a request for a session.
            "RegionDisabledException" => Self::StsInactive,
            _ => return None,
        })
    }

    /// Returns whether other credentials from the same source may be accepted.
    #[must_use]
    pub fn is_solved_by_new_session(self) -> bool {
        matches!(self, Self::SessionEnded | Self::KeyUnknown | Self::SignatureWrong)
    }

    /// Returns the message for a condition.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::SessionEnded => {
                "The session of the operator's AWS credentials has ended. The operator requests another one within a minute; if this persists, renew the credentials or check what renews them."
            }
            Self::KeyUnknown => {
                "AWS does not recognize the operator's access key: it was deleted or deactivated, its session was ended, or the region is not enabled for the account. Give the operator other credentials, or enable the region."
            }
            Self::ClockWrong => {
                "AWS does not accept the date of the operator's requests: the clock is wrong. Correct the clock of the operator's node; the operator retries."
            }
            Self::WrongEndpoint => {
                "The endpoint to which the operator sent the request is of another region or service. Correct the operator's endpoint (AWS_ENDPOINT_URL, or the variable of the service). If spec.stream names a wrong region, delete the resource and create another one: stream is immutable."
            }
            Self::SignatureWrong => {
                "AWS does not accept the operator's signature. Compare the secret access key with the access key id, and check for anything that changes requests on their way, such as a proxy."
            }
            Self::NotEnabled => {
                "The region is not enabled for the account, or the account has not subscribed to the service. Enable the region in the account's settings, or subscribe. If spec.stream names a wrong region, delete the resource and create another one: stream is immutable."
            }
            Self::StsInactive => {
                "STS in the operator's region is not active in the account of the role. Enable the operator's region there, or run the operator in a region that is enabled by default."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_code_round_trips() {
        for missing in CredentialsProblem::ALL {
            assert_eq!(CredentialsProblem::of(missing.code()), Some(missing));
        }
        assert_eq!(CredentialsProblem::of("AccessDenied"), None);
    }

    #[test]
    fn rejected_date_or_endpoint_is_no_wrong_signature() {
        let expired = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z (20260101T002000Z - 5 min.)";
        let early = "Signature not yet current: 20260101T003000Z is still later than 20260101T001500Z (20260101T001000Z + 5 min.)";
        let region = "Credential should be scoped to a valid region, not 'us-east-1'. ";
        let service = "Credential should be scoped to correct service: 'kinesis'. ";
        let wrong = "The request signature we calculated does not match the signature you provided.";
        for code in ["InvalidSignatureException", "SignatureDoesNotMatch"] {
            for (message, rejection) in [
                (expired, CredentialsRejection::ClockWrong),
                (early, CredentialsRejection::ClockWrong),
                (region, CredentialsRejection::WrongEndpoint),
                (service, CredentialsRejection::WrongEndpoint),
                (wrong, CredentialsRejection::SignatureWrong),
                ("", CredentialsRejection::SignatureWrong),
            ] {
                assert_eq!(CredentialsRejection::of(code, message), Some(rejection), "{code} {message}");
            }
        }
    }
}
