//! What is wrong with credentials: there are none, or AWS does not accept them; and what a person can do about it.
//!
//! The words name the state first and the remedy second. They hold nothing that AWS or a source of credentials wrote:
//! that goes to the log.

/// Why there is nothing to sign a request with. Each has a code of its own, which stands in faults and in ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No source of credentials is set up.
    NotFound,
    /// A source is set up in a way that cannot work, such as a profile that does not exist.
    Misconfigured,
    /// A source failed: SSO, a `credential_process`, STS for the role of the service account.
    SourceFailed,
    /// No source answered in time.
    TimedOut,
    /// A source provided a text that no request can be signed with.
    Unsignable,
    /// The session is too old for Firehose to make a grant with it.
    SessionTooOld,
}

impl Missing {
    /// Each of them.
    pub const EACH: [Self; 6] = [
        Self::NotFound,
        Self::Misconfigured,
        Self::SourceFailed,
        Self::TimedOut,
        Self::Unsignable,
        Self::SessionTooOld,
    ];

    /// The code of a fault.
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

    /// The one that has this code.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        Self::EACH.into_iter().find(|missing| missing.code() == code)
    }

    /// For a condition.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NotFound => {
                "The operator has no AWS credentials, so AWS was not asked: the service account has no role, and no file and no variable names credentials. Give it a role (\"Rights in AWS\" in docs/install.md)."
            }
            Self::Misconfigured => {
                "The operator's AWS credentials are set up in a way that cannot work, so AWS was not asked. The operator's log names the profile or the setting; correct it (\"Rights in AWS\" in docs/install.md)."
            }
            Self::SourceFailed => {
                "The source of the operator's AWS credentials failed, so AWS was not asked: STS for the service account's role, SSO, or a credential_process. The operator's log has its words; for a service account, compare the role's ARN and trust policy (\"Rights in AWS\" in docs/install.md)."
            }
            Self::TimedOut => {
                "The source of the operator's AWS credentials does not answer, so AWS was not asked. Look at the operator's network, and at the Pod Identity agent, STS or metadata service that provides them."
            }
            Self::Unsignable => {
                "The operator's AWS credentials hold a character that no request can be signed with, such as a line break. The operator's log names the field; create the Secret, file or variable without it."
            }
            Self::SessionTooOld => {
                "The operator's AWS session is older than 6 hours, and Firehose makes no grant with it, so the call was not sent. Give the operator credentials that are renewed."
            }
        }
    }
}

/// What AWS does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The session has ended.
    SessionEnded,
    /// AWS does not know the access key, or not in this region.
    KeyUnknown,
    /// The request's date is not AWS's.
    ClockWrong,
    /// The signature is not that of the access key.
    SignatureWrong,
    /// The region is not enabled for the account, or the account has not subscribed to the service.
    NotEnabled,
}

impl Rejection {
    /// What an error of AWS says of credentials; nothing, where it is about something else.
    #[must_use]
    pub fn of(code: &str, message: &str) -> Option<Self> {
        Some(match code {
            "ExpiredToken" | "ExpiredTokenException" => Self::SessionEnded,
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => Self::KeyUnknown,
            "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => Self::ClockWrong,
            // "Signature expired: DATE is now earlier than DATE (DATE - 5 min.)", "Signature not yet current: …".
            "InvalidSignatureException" | "SignatureDoesNotMatch"
                if ["Signature expired", "Signature not yet current"]
                    .iter()
                    .any(|start| message.starts_with(start)) =>
            {
                Self::ClockWrong
            }
            "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "AuthFailure" => Self::SignatureWrong,
            "OptInRequired" | "SubscriptionRequiredException" | "RegionDisabledException" => Self::NotEnabled,
            _ => return None,
        })
    }

    /// Whether other credentials of the same source may be accepted.
    #[must_use]
    pub fn is_of_the_session(self) -> bool {
        matches!(self, Self::SessionEnded | Self::KeyUnknown | Self::SignatureWrong)
    }

    /// For a condition.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::SessionEnded => {
                "The session of the operator's AWS credentials has ended. The operator requests another one within a minute; if this stays, renew the credentials, or look at what renews them."
            }
            Self::KeyUnknown => {
                "AWS does not know the operator's access key: it was deleted or deactivated, its session was ended, or the region is not enabled for the account. Give the operator other credentials, or enable the region."
            }
            Self::ClockWrong => {
                "AWS does not accept the date of the operator's requests: its clock is wrong. Correct the clock of the operator's node; it tries again by itself."
            }
            Self::SignatureWrong => {
                "AWS does not accept the operator's signature. Compare the secret access key with the access key id, and look at what changes requests on their way, such as a proxy."
            }
            Self::NotEnabled => {
                "The region is not enabled for the account, or the account has not subscribed to the service. Enable it in the account's settings, or name another region."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_credential_is_read_as_it_is_written() {
        for missing in Missing::EACH {
            assert_eq!(Missing::of(missing.code()), Some(missing));
        }
        assert_eq!(Missing::of("AccessDenied"), None);
    }

    #[test]
    fn a_date_that_aws_refuses_is_the_clock_and_not_the_secret() {
        let expired = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z (20260101T002000Z - 5 min.)";
        let early = "Signature not yet current: 20260101T003000Z is still later than 20260101T001500Z (20260101T001000Z + 5 min.)";
        let wrong = "The request signature we calculated does not match the signature you provided.";
        for code in ["InvalidSignatureException", "SignatureDoesNotMatch"] {
            for (message, rejection) in [
                (expired, Rejection::ClockWrong),
                (early, Rejection::ClockWrong),
                (wrong, Rejection::SignatureWrong),
                ("", Rejection::SignatureWrong),
            ] {
                assert_eq!(Rejection::of(code, message), Some(rejection), "{code} {message}");
            }
        }
    }
}
