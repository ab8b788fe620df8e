//! Classification of AWS errors, decided once from the operation, the codes, the message and the HTTP
//! status.
//!
//! The class determines how the operator reacts, and the code goes into conditions. AWS's full message goes
//! to the log only, because it may name accounts and resources of others.

use stream_encryption_api::condition::Reason;

use super::credentials::{CredentialsProblem, CredentialsRejection};
use super::key::KeyProblem;
use super::service::Operation;

/// The class of an error, which determines the reaction to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Too many requests. The operator backs off and retries.
    Throttled,
    /// A temporary cause: AWS or the network is unavailable, AWS's response is invalid, or the operator did not
    /// send the request (it was not built, its signer changed, or the process was paused).
    Transient,
    /// A call that changes a stream received no response that proves whether AWS applied it: none at all, an
    /// HTTP status such as 500 or 408, or a timeout.
    UnknownOutcome,
    /// There were no usable credentials, so the request was not sent: see
    /// [`CredentialsProblem`].
    NoCredentials,
    /// AWS rejected the authentication of the request: see [`CredentialsRejection`].
    CredentialsRejected,
    /// The operator lacks a permission, which an administrator must grant.
    Denied,
    /// The key is unusable.
    Key(KeyProblem),
    /// KMS denied use of the key. The cause is its policy, state or existence; KMS does not report which.
    KeyAccessDenied,
    /// The stream or key does not exist.
    NotFound,
    /// The stream is being changed already.
    InUse,
    /// AWS's limit of calls, or of streams per key, is reached.
    LimitReached,
    /// AWS rejected the request as invalid. The same request never succeeds.
    Invalid,
}

impl ErrorKind {
    /// Every class once. One key problem represents all key problems.
    pub const ALL: [Self; 12] = [
        Self::Throttled,
        Self::Transient,
        Self::UnknownOutcome,
        Self::NoCredentials,
        Self::CredentialsRejected,
        Self::Denied,
        Self::Key(KeyProblem::Disabled),
        Self::KeyAccessDenied,
        Self::NotFound,
        Self::InUse,
        Self::LimitReached,
        Self::Invalid,
    ];

    /// Returns whether the error concerns the request or its sender only, and so gives no information about
    /// the stream or key.
    #[must_use]
    pub fn is_inconclusive(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient | Self::NoCredentials | Self::CredentialsRejected)
    }

    /// Returns the reason to report in conditions.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Throttled => Reason::AwsThrottled,
            Self::Transient => Reason::AwsUnreachable,
            Self::UnknownOutcome => Reason::OutcomeUnknown,
            Self::NoCredentials => Reason::NoCredentials,
            Self::CredentialsRejected => Reason::CredentialsRejected,
            Self::Denied => Reason::AccessDenied,
            Self::Key(problem) => problem.reason(),
            Self::KeyAccessDenied => Reason::KeyAccessDenied,
            Self::NotFound => Reason::StreamNotFound,
            Self::InUse => Reason::StreamInUse,
            Self::LimitReached => Reason::CallLimitReached,
            Self::Invalid => Reason::CallRefused,
        }
    }
}

/// A classified AWS error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} failed: {}", operation.iam_action(), code.as_deref().unwrap_or("no error code"))]
pub struct AwsError {
    /// The operation that failed.
    pub operation: Operation,
    /// The class of the error.
    pub kind: ErrorKind,
    /// The AWS error code; for an error response without one, the HTTP status. A code of the operator's own,
    /// such as `SignerChanged` or `InvalidResponse`, if the operator did not send the request, or if a required
    /// value of a successful response is missing or invalid. `None` if there was no response, or if the SDK
    /// could not build the request or parse a successful response.
    pub code: Option<String>,
    /// The full message of AWS or of the transport. For the log, never for a condition.
    pub message: String,
    /// The id that AWS gave the request, if it responded with one.
    pub request_id: Option<String>,
}

/// AWS's response to a call that it accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The id that AWS gave the request, if it responded with one.
    pub request_id: Option<String>,
}

impl AwsError {
    /// Returns the error of a call that the operator did not send, for a temporary cause with this code of the operator.
    #[must_use]
    pub fn not_sent(operation: Operation, code: &str, message: &str) -> Self {
        let (kind, message) = (ErrorKind::Transient, message.to_owned());
        Self { operation, kind, code: Some(code.to_owned()), message, request_id: None }
    }

    /// Returns whether the operator did not send the request: it had no usable credentials, or held the request back.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.kind == ErrorKind::NoCredentials || self.code.as_deref().is_some_and(is_unsent_code)
    }

    /// Returns whether the error gives no information about the rate of requests in the account: a shard of the stream
    /// is full, so that only records for this shard are throttled.
    #[must_use]
    pub fn is_of_full_shard(&self) -> bool {
        self.operation == Operation::PutKinesisRecord && self.code.as_deref() == Some(THROUGHPUT_EXCEEDED)
    }

    /// Returns whether other credentials from the same source may be accepted.
    #[must_use]
    pub fn may_succeed_with_new_session(&self) -> bool {
        self.is_denied_by_own_policy()
            || self.rejection().is_some_and(CredentialsRejection::is_solved_by_new_session)
    }

    /// Returns whether a policy of the session's own role or user denies the request explicitly. The policy
    /// [`AWSRevokeOlderSessions`](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html)
    /// denies every request of the sessions that were issued before it.
    #[must_use]
    pub fn is_denied_by_own_policy(&self) -> bool {
        self.kind == ErrorKind::Denied && self.denying_policy() == Some(DenyingPolicy::IdentityBased)
    }

    /// Returns the kind of policy that denies the request; `None` if AWS names none.
    #[must_use]
    pub fn denying_policy(&self) -> Option<DenyingPolicy> {
        let is_named =
            |policy: &DenyingPolicy| policy.phrases().iter().any(|phrase| self.message.contains(*phrase));
        DenyingPolicy::ALL.into_iter().find(is_named)
    }

    /// Returns whether AWS refused the request for another cause than the session that signed it.
    #[must_use]
    pub fn is_of_accepted_session(&self) -> bool {
        match self.kind {
            ErrorKind::CredentialsRejected
            | ErrorKind::NoCredentials
            | ErrorKind::Transient
            | ErrorKind::UnknownOutcome => false,
            _ => !self.is_unsent() && !self.is_denied_by_own_policy(),
        }
    }

    /// Returns whether AWS does not know the access key: it was deleted, or the account has not enabled the region.
    #[must_use]
    pub fn is_key_unknown(&self) -> bool {
        self.rejection() == Some(CredentialsRejection::KeyUnknown)
    }

    fn rejection(&self) -> Option<CredentialsRejection> {
        let rejection = self.code.as_deref().and_then(|code| CredentialsRejection::of(code, &self.message));
        rejection.filter(|_| self.kind == ErrorKind::CredentialsRejected)
    }
}

/// The kind of a policy that denies a request, so that a permission for the role does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyingPolicy {
    /// A policy of the role or user itself.
    IdentityBased,
    /// The policy of the resource; for a role, its trust policy.
    ResourceBased,
    /// A policy of the AWS organization for its accounts.
    ServiceControl,
    /// A policy of the AWS organization for its resources.
    ResourceControl,
    /// The permissions boundary of the role or user.
    PermissionsBoundary,
    /// A policy that applies to the session only.
    Session,
    /// The policy of the VPC endpoint that received the request.
    VpcEndpoint,
}

impl DenyingPolicy {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::IdentityBased,
        Self::ResourceBased,
        Self::ServiceControl,
        Self::ResourceControl,
        Self::PermissionsBoundary,
        Self::Session,
        Self::VpcEndpoint,
    ];

    /// Returns the phrases of AWS's messages that
    /// [name this kind](https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html). If no policy of the
    /// role or of the resource allows the action, no policy denies it: a permission for the role helps.
    pub(super) fn phrases(self) -> &'static [&'static str] {
        match self {
            Self::IdentityBased => &["explicit deny in an identity-based policy"],
            Self::ResourceBased => {
                &["explicit deny in a resource-based policy", "explicit deny in the role trust policy"]
            }
            Self::ServiceControl => {
                &["explicit deny in a service control policy", "no service control policy allows"]
            }
            Self::ResourceControl => &["explicit deny in a resource control policy"],
            Self::PermissionsBoundary => {
                &["explicit deny in a permissions boundary", "no permissions boundary allows"]
            }
            Self::Session => &["explicit deny in a session policy", "no session policy allows"],
            Self::VpcEndpoint => &["explicit deny in a VPC endpoint policy", "no VPC endpoint policy allows"],
        }
    }
}

/// Returns whether this is a code of the operator for a request that it did not send.
#[must_use]
pub fn is_unsent_code(code: &str) -> bool {
    matches!(code, NOT_CONNECTED | NOT_RESERVED | OPERATOR_PAUSED | SIGNER_CHANGED | UNRESOLVED_KEY)
        || CredentialsProblem::of(code).is_some()
}

/// The failure of a request, before its classification.
#[derive(Clone, Copy, Debug)]
pub enum RawError<'a> {
    /// An error of the service.
    Service {
        /// The error's code, without namespace (`LimitExceededException`); empty if the response has none.
        code: &'a str,
        /// KMS's own code, which `InvalidKMSResourceException` of Firehose carries.
        kms_code: Option<&'a str>,
        /// AWS's message.
        message: &'a str,
        /// The HTTP status.
        http: u16,
    },
    /// The request could not be built and was not sent.
    NotBuilt,
    /// No connection could be opened, and the request was not sent.
    NotConnected,
    /// The request could not be signed and was not sent.
    NotSigned,
    /// The request may have been sent, and no readable response was received.
    NoResponse,
}

/// The operator's own code for a request that was not sent because no connection to AWS could be opened.
pub const NOT_CONNECTED: &str = "NotConnected";
/// The operator's own code for a call that was not sent because the API server did not acknowledge its reservation.
pub const NOT_RESERVED: &str = "NotReserved";
/// The operator's own code for a call that was not sent because too much time had passed: the process was paused, or the API server
/// was slow.
pub const OPERATOR_PAUSED: &str = "OperatorPaused";
/// The operator's own code for a call that AWS accepted long after its reservation, because the process was paused before it
/// sent the call, or before it received the response.
pub const RESPONSE_LATE: &str = "ResponseLate";
/// The operator's own code for a call that was not sent because the credentials changed after the Describe.
pub const SIGNER_CHANGED: &str = "SignerChanged";
/// The operator's own code for a call that was not sent because its key is not the ARN of a key.
pub const UNRESOLVED_KEY: &str = "UnresolvedKey";
/// AWS's code for an unknown access key, and for an unknown account.
const UNRECOGNIZED: &str = "UnrecognizedClientException";
/// Kinesis' code for a shard that receives more than it can hold.
const THROUGHPUT_EXCEEDED: &str = "ProvisionedThroughputExceededException";
/// The beginning of Kinesis' message if the 12 digits in a stream's ARN are not an account (recorded
/// 2026-09).
const NO_ACCOUNT: &str = "No account found";

/// Returns the kind of an error.
#[must_use]
pub fn classify(operation: Operation, answer: RawError<'_>) -> ErrorKind {
    let (code, kms_code, message, http) = match answer {
        // Only a code proves that AWS itself refused the request. A status alone may come from a proxy, which may have
        // forwarded a call. It says nothing about the stream, the key or a permission.
        RawError::Service { code: "", http, .. } if operation.is_mutating() || http != 429 => {
            return classify(operation, RawError::NoResponse);
        }
        RawError::Service { code, kms_code, message, http } => (code, kms_code, message, http),
        RawError::NoResponse if operation.is_mutating() => return ErrorKind::UnknownOutcome,
        RawError::NoResponse | RawError::NotBuilt | RawError::NotConnected => return ErrorKind::Transient,
        RawError::NotSigned => return ErrorKind::NoCredentials,
    };
    if code == UNRECOGNIZED && message.starts_with(NO_ACCOUNT) {
        return ErrorKind::NotFound;
    }
    if CredentialsRejection::of(code, message).is_some() {
        return ErrorKind::CredentialsRejected;
    }
    match code {
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "KMSThrottlingException"
        | THROUGHPUT_EXCEEDED
        | "SlowDown" => ErrorKind::Throttled,
        // A Describe has no limit other than its rate. A Start or Stop has two: the stream's quota of calls
        // in 24 hours, and the account's rate limit. Only the message distinguishes them. That of Kinesis is
        // "Rate exceeded for stream S under account N." for the quota, and "Rate exceeded for account N." for
        // the rate limit.
        "LimitExceededException" if !operation.is_mutating() || is_rate_of_account(message) => {
            ErrorKind::Throttled
        }
        "LimitExceededException" => ErrorKind::LimitReached,
        "ResourceInUseException" => ErrorKind::InUse,
        "ResourceNotFoundException"
        | "NotFoundException"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => ErrorKind::NotFound,
        "KMSNotFoundException" => ErrorKind::Key(KeyProblem::NotFound),
        "KMSDisabledException" => ErrorKind::Key(KeyProblem::Disabled),
        "KMSInvalidStateException" => ErrorKind::Key(KeyProblem::Unavailable),
        "KMSAccessDeniedException" | "KMSOptInRequired" => ErrorKind::KeyAccessDenied,
        "InvalidKMSResourceException" => match kms_code {
            Some("NotFoundException" | "KMSNotFoundException") => ErrorKind::Key(KeyProblem::NotFound),
            Some("DisabledException" | "KMSDisabledException") => ErrorKind::Key(KeyProblem::Disabled),
            Some("InvalidStateException" | "KMSInvalidStateException") => {
                ErrorKind::Key(KeyProblem::Unavailable)
            }
            _ => ErrorKind::KeyAccessDenied,
        },
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "NotAuthorized" => {
            ErrorKind::Denied
        }
        "InvalidArgumentException"
        | "ValidationException"
        | "ValidationError"
        | "SerializationException"
        | "InvalidArnException"
        | "InvalidParameterValue" => ErrorKind::Invalid,
        // A server error or a timeout may be returned after the change was applied.
        "RequestTimeout" | "RequestTimeoutException" if operation.is_mutating() => ErrorKind::UnknownOutcome,
        _ if (http >= 500 || http == 408) && operation.is_mutating() => ErrorKind::UnknownOutcome,
        "RequestTimeout" | "RequestTimeoutException" => ErrorKind::Transient,
        // 407: a proxy requires authentication, and the request did not reach AWS.
        _ if http >= 500 || http == 408 || http == 407 => ErrorKind::Transient,
        _ if http == 429 => ErrorKind::Throttled,
        _ if http == 401 || http == 403 => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    }
}

/// Returns whether the message of a `LimitExceededException` reports the account's rate limit. A message that
/// names a stream concerns that stream alone; calls for the account's other streams need not slow down.
fn is_rate_of_account(message: &str) -> bool {
    message.contains("Rate exceeded") && !message.contains("for stream")
}

#[cfg(test)]
mod tests;
