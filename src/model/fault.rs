//! What an error of AWS means: classified once, from the operation, the code and the HTTP status.
//!
//! The class decides what to do; the code goes into conditions; AWS's full message goes to the log only, because it may
//! name accounts and resources of others.

use super::credentials::Rejection;
use super::key::KeyProblem;
use crate::api::condition::Reason;
use crate::api::ledger::Action;
use crate::api::stream_encryption::Service;

/// Every operation of AWS that the operator uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Firehose `DescribeDeliveryStream`.
    DescribeDeliveryStream,
    /// Firehose `StartDeliveryStreamEncryption`.
    StartDeliveryStreamEncryption,
    /// Firehose `StopDeliveryStreamEncryption`.
    StopDeliveryStreamEncryption,
    /// Firehose `PutRecord`.
    PutFirehoseRecord,
    /// Kinesis `DescribeStreamSummary`.
    DescribeStreamSummary,
    /// Kinesis `StartStreamEncryption`.
    StartStreamEncryption,
    /// Kinesis `StopStreamEncryption`.
    StopStreamEncryption,
    /// Kinesis `PutRecord`.
    PutKinesisRecord,
    /// KMS `DescribeKey`.
    DescribeKey,
    /// STS `GetCallerIdentity`.
    GetCallerIdentity,
    /// STS `AssumeRole`.
    AssumeRole,
}

impl Operation {
    /// Each of them.
    pub const EACH: [Self; 11] = [
        Self::DescribeDeliveryStream,
        Self::StartDeliveryStreamEncryption,
        Self::StopDeliveryStreamEncryption,
        Self::PutFirehoseRecord,
        Self::DescribeStreamSummary,
        Self::StartStreamEncryption,
        Self::StopStreamEncryption,
        Self::PutKinesisRecord,
        Self::DescribeKey,
        Self::GetCallerIdentity,
        Self::AssumeRole,
    ];

    /// The operation that looks at a stream.
    #[must_use]
    pub fn look(service: Service) -> Self {
        match service {
            Service::Firehose => Self::DescribeDeliveryStream,
            Service::Kinesis => Self::DescribeStreamSummary,
        }
    }

    /// The operation that changes a stream.
    #[must_use]
    pub fn change(service: Service, action: Action) -> Self {
        match (service, action) {
            (Service::Firehose, Action::Start) => Self::StartDeliveryStreamEncryption,
            (Service::Firehose, Action::Stop) => Self::StopDeliveryStreamEncryption,
            (Service::Kinesis, Action::Start) => Self::StartStreamEncryption,
            (Service::Kinesis, Action::Stop) => Self::StopStreamEncryption,
        }
    }

    /// The IAM action that allows it, for messages that say what to grant.
    #[must_use]
    pub fn iam_action(self) -> &'static str {
        match self {
            Self::DescribeDeliveryStream => "firehose:DescribeDeliveryStream",
            Self::StartDeliveryStreamEncryption => "firehose:StartDeliveryStreamEncryption",
            Self::StopDeliveryStreamEncryption => "firehose:StopDeliveryStreamEncryption",
            Self::PutFirehoseRecord => "firehose:PutRecord",
            Self::DescribeStreamSummary => "kinesis:DescribeStreamSummary",
            Self::StartStreamEncryption => "kinesis:StartStreamEncryption",
            Self::StopStreamEncryption => "kinesis:StopStreamEncryption",
            Self::PutKinesisRecord => "kinesis:PutRecord",
            Self::DescribeKey => "kms:DescribeKey",
            Self::GetCallerIdentity => "sts:GetCallerIdentity",
            Self::AssumeRole => "sts:AssumeRole",
        }
    }

    /// Whether it changes a stream, so that its outcome matters when no answer came.
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::StartDeliveryStreamEncryption
                | Self::StopDeliveryStreamEncryption
                | Self::StartStreamEncryption
                | Self::StopStreamEncryption
        )
    }
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Too many requests: slow down, then again.
    Throttled,
    /// AWS or the way to it does not work for now.
    Transient,
    /// No answer to a call that changes something: AWS may have carried it out.
    UnknownOutcome,
    /// There were no credentials to sign the request with, so nothing was sent.
    NoCredentials,
    /// AWS answered, and does not accept the credentials or the signature: [`Rejection`].
    CredentialsRejected,
    /// The operator may not do this: somebody must grant it.
    Denied,
    /// The key cannot be used.
    Key(KeyProblem),
    /// KMS refused the key without saying more than that its policy, state or existence is in the way.
    KeyRefused,
    /// The stream or key is not there.
    NotFound,
    /// The stream is being changed already.
    InUse,
    /// AWS's limit of calls, or of streams per key, is reached.
    LimitReached,
    /// AWS does not accept the request; the same request will never work.
    Invalid,
}

impl Class {
    /// Each class once; of the problems of a key one stands for all.
    pub const EACH: [Self; 12] = [
        Self::Throttled,
        Self::Transient,
        Self::UnknownOutcome,
        Self::NoCredentials,
        Self::CredentialsRejected,
        Self::Denied,
        Self::Key(KeyProblem::Disabled),
        Self::KeyRefused,
        Self::NotFound,
        Self::InUse,
        Self::LimitReached,
        Self::Invalid,
    ];

    /// Whether the error is about the request and who sent it, so that it tells nothing of the stream or key in question.
    #[must_use]
    pub fn leaves_the_question_open(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient | Self::NoCredentials | Self::CredentialsRejected)
    }

    /// The reason that a person reads.
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
            Self::KeyRefused => Reason::KeyRefused,
            Self::NotFound => Reason::StreamNotFound,
            Self::InUse => Reason::StreamInUse,
            Self::LimitReached => Reason::CallLimitReached,
            Self::Invalid => Reason::CallRefused,
        }
    }
}

/// An error of AWS, classified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} failed: {}", operation.iam_action(), code.as_deref().unwrap_or("no answer"))]
pub struct Fault {
    /// What was asked of AWS.
    pub operation: Operation,
    /// What to do about it.
    pub class: Class,
    /// AWS's code, where AWS answered.
    pub code: Option<String>,
    /// AWS's or the transport's full message. For the log, never for a condition.
    pub message: String,
}

impl Fault {
    /// Whether other credentials from the same source may be accepted where these were not.
    #[must_use]
    pub fn rejects_the_session(&self) -> bool {
        let rejection = self.code.as_deref().and_then(|code| Rejection::of(code, &self.message));
        self.class == Class::CredentialsRejected && rejection.is_some_and(Rejection::is_of_the_session)
    }
}

/// What came back instead of a result.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// An error of the service.
    Error {
        /// The error's code, without namespace (`LimitExceededException`).
        code: &'a str,
        /// `InvalidKMSResourceException` of Firehose carries KMS's own code here.
        kms_code: Option<&'a str>,
        /// AWS's message.
        message: &'a str,
        /// The HTTP status.
        http: u16,
    },
    /// The request could not be built, and was never sent.
    NotSent,
    /// The request could not be signed, and was never sent.
    NotSigned,
    /// It may have been sent, and no readable answer came.
    None,
}

/// AWS's code for a key that it does not know, and for an account that it does not know.
const UNRECOGNIZED: &str = "UnrecognizedClientException";
/// How Kinesis begins its message where the 12 digits of a stream's ARN are no account (recorded 2026-09).
const NO_ACCOUNT: &str = "No account found";

/// The class of an answer.
#[must_use]
pub fn classify(operation: Operation, answer: Answer<'_>) -> Class {
    let (code, kms_code, message, http) = match answer {
        Answer::Error { code, kms_code, message, http } => (code, kms_code, message, http),
        Answer::None if operation.changes() => return Class::UnknownOutcome,
        Answer::None | Answer::NotSent => return Class::Transient,
        Answer::NotSigned => return Class::NoCredentials,
    };
    if code == UNRECOGNIZED && message.starts_with(NO_ACCOUNT) {
        return Class::NotFound;
    }
    if Rejection::of(code, message).is_some() {
        return Class::CredentialsRejected;
    }
    match code {
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "KMSThrottlingException"
        | "ProvisionedThroughputExceededException"
        | "SlowDown" => Class::Throttled,
        // A Describe has no limit but its rate. Of a Start or Stop only the text tells: Kinesis words a quota
        // of one stream in 24 hours as "Rate exceeded for stream S under account N.", and a rate as "Rate
        // exceeded for account N.".
        "LimitExceededException" if !operation.changes() || is_rate_of_account(message) => Class::Throttled,
        "LimitExceededException" => Class::LimitReached,
        "ResourceInUseException" => Class::InUse,
        "ResourceNotFoundException" | "NotFoundException" => Class::NotFound,
        "KMSNotFoundException" => Class::Key(KeyProblem::Missing),
        "KMSDisabledException" => Class::Key(KeyProblem::Disabled),
        "KMSInvalidStateException" => Class::Key(KeyProblem::Unavailable),
        "KMSAccessDeniedException" | "KMSOptInRequired" => Class::KeyRefused,
        "InvalidKMSResourceException" => match kms_code {
            Some("NotFoundException" | "KMSNotFoundException") => Class::Key(KeyProblem::Missing),
            Some("DisabledException" | "KMSDisabledException") => Class::Key(KeyProblem::Disabled),
            Some("InvalidStateException" | "KMSInvalidStateException") => Class::Key(KeyProblem::Unavailable),
            _ => Class::KeyRefused,
        },
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "NotAuthorized" => Class::Denied,
        "InvalidArgumentException"
        | "ValidationException"
        | "ValidationError"
        | "SerializationException"
        | "InvalidArnException"
        | "InvalidParameterValue" => Class::Invalid,
        // A server's error, or its impatience, may come after the work was done.
        "RequestTimeout" | "RequestTimeoutException" if operation.changes() => Class::UnknownOutcome,
        _ if (http >= 500 || http == 408) && operation.changes() => Class::UnknownOutcome,
        "RequestTimeout" | "RequestTimeoutException" => Class::Transient,
        // 407: a proxy wants to know who asks, and AWS has seen nothing.
        _ if http >= 500 || http == 408 || http == 407 => Class::Transient,
        _ if http == 429 => Class::Throttled,
        _ if http == 401 || http == 403 => Class::Denied,
        _ => Class::Invalid,
    }
}

/// Whether the text of a `LimitExceededException` is about the rate of all calls. One that names a stream is
/// about that stream alone, and no reason to slow down the calls for the others of its account and region.
fn is_rate_of_account(message: &str) -> bool {
    message.contains("Rate exceeded") && !message.contains("for stream")
}

#[cfg(test)]
mod tests;
