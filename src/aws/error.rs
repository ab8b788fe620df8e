//! Conversion of SDK errors to [`AwsError`], for every operation.
//!
//! This module parses the response, and [`classify`] interprets it. It sends nothing, and reports a request
//! as not sent only if the SDK shows that the request never left the process.

use std::error::Error;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::RequestId;
use hyper_util::client::legacy;
use serde_json::Value;
use stream_encryption_core::model::aws_error::{
    Accepted, AwsError, ErrorKind, NOT_CONNECTED, RawError, SIGNER_CHANGED, classify,
};
use stream_encryption_core::model::credentials::CredentialsProblem;
use stream_encryption_core::model::service::Operation;

/// The error code for a response that the operator cannot parse.
const INVALID_RESPONSE: &str = "InvalidResponse";
/// Maximum length of a code or another value from AWS, in bytes: the maximum in the schema of `StreamLedger`.
/// With a longer code, the outcome of a call could not be written.
pub(super) const MAX_CODE_BYTES: usize = 128;
/// Maximum length of a message, in bytes: enough for every message of AWS, and for a line of the log.
pub(super) const MAX_MESSAGE_BYTES: usize = 4096;
/// Maximum length of the cause of missing credentials, in bytes: each reconciliation of each resource logs
/// it.
const LONGEST_CAUSE: usize = 160;

/// The reason why there are no credentials to sign a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoSession {
    /// The kind of failure.
    pub(super) problem: CredentialsProblem,
    /// The source's own message, for the log.
    pub(super) cause: String,
}

impl From<&CredentialsError> for NoSession {
    fn from(error: &CredentialsError) -> Self {
        let problem = match error {
            CredentialsError::CredentialsNotLoaded(_) => CredentialsProblem::NotFound,
            CredentialsError::ProviderTimedOut(_) => CredentialsProblem::TimedOut,
            CredentialsError::InvalidConfiguration(_) => CredentialsProblem::Misconfigured,
            _ => CredentialsProblem::SourceFailed,
        };
        Self { problem, cause: error_chain(error) }
    }
}

/// The text that the SDKs insert for a required value that is missing in AWS's response.
pub(super) const MISSING_VALUE: &str = "no value was set";

/// Converts `error` of `operation`.
pub(super) fn aws_error<E>(operation: Operation, error: &SdkError<E, HttpResponse>) -> AwsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let http = error.raw_response().map(|response| response.status().as_u16());
    // Credentials are fetched before a request is sent, so such a request never left the process.
    if let (SdkError::DispatchFailure(_), Some(why)) = (error, cause_of::<CredentialsError>(error)) {
        return no_session(operation, &why.into());
    }
    let converted = match error {
        SdkError::ConstructionFailure(_) => without_code(operation, error, RawError::NotBuilt),
        // For a response with a success status that cannot be parsed, the SDKs of XML services (STS) return
        // an error without a code.
        SdkError::ServiceError(_) if http.is_some_and(|http| (200..300).contains(&http)) => {
            without_code(operation, error, RawError::NoResponse)
        }
        SdkError::ServiceError(_) => {
            let body = error.raw_response().map(Body::of).unwrap_or_default();
            let message = error.message().unwrap_or_default();
            let code = body.code.as_deref().or(error.code());
            answered(operation, code, body.kms_code.as_deref(), message, http.unwrap_or_default())
        }
        // The SDK cannot parse the body of a response with an error status.
        SdkError::ResponseError(_) if http.is_some_and(|http| http >= 400) => {
            let body = error.raw_response().map(Body::of).unwrap_or_default();
            let message = error_chain(error);
            let code = body.code.as_deref();
            answered(operation, code, body.kms_code.as_deref(), &message, http.unwrap_or_default())
        }
        SdkError::DispatchFailure(_) if is_connect_failure(error) => {
            let code = Some(NOT_CONNECTED.to_owned());
            AwsError { code, ..without_code(operation, error, RawError::NotConnected) }
        }
        _ => without_code(operation, error, RawError::NoResponse),
    };
    AwsError {
        request_id: error.raw_response().and_then(RequestId::request_id).and_then(request_id),
        ..converted
    }
}

/// Returns whether the connection for a request could not be opened: because of DNS, the network, TLS or a proxy. No byte
/// of the request was sent then.
fn is_connect_failure(error: &(dyn Error + 'static)) -> bool {
    cause_of(error).is_some_and(legacy::Error::is_connect)
}

/// Returns AWS's response to a call that it accepted.
pub(super) fn accepted(answer: &impl RequestId) -> Accepted {
    Accepted { request_id: answer.request_id().and_then(request_id) }
}

/// Returns the id of a request; `None` if the ledger cannot hold it.
fn request_id(id: &str) -> Option<String> {
    (!id.is_empty() && id.len() <= MAX_CODE_BYTES).then(|| id.to_owned())
}

/// Returns the error for a successful response whose `what` cannot be parsed. Another read may help later; a
/// call cannot be based on this response.
pub(super) fn invalid_response(operation: Operation, what: &str) -> AwsError {
    let message = format!("the response has no valid {what}");
    let code = Some(INVALID_RESPONSE.to_owned());
    AwsError { operation, kind: ErrorKind::Transient, code, message, request_id: None }
}

/// Returns the error for a request that the operator itself refuses to send.
pub(super) fn not_sent(operation: Operation, kind: ErrorKind, code: &str, message: &str) -> AwsError {
    let message = truncate(message, MAX_MESSAGE_BYTES);
    AwsError { operation, kind, code: Some(code.to_owned()), message, request_id: None }
}

/// Returns the error for a request that is not sent because there are no credentials. The log already has the
/// whole cause.
pub(super) fn no_session(operation: Operation, why: &NoSession) -> AwsError {
    not_signed(operation, why.problem, &truncate(&why.cause, LONGEST_CAUSE))
}

/// Returns the error for a request that is not sent because no credentials were available in time.
pub(super) fn no_session_in_time(operation: Operation) -> AwsError {
    not_signed(operation, CredentialsProblem::TimedOut, "no credentials were available in time")
}

/// Returns the error for a request that is not sent because it cannot be signed.
pub(super) fn not_signed(operation: Operation, problem: CredentialsProblem, message: &str) -> AwsError {
    not_sent(operation, classify(operation, RawError::NotSigned), problem.code(), message)
}

/// Returns the error of a request that is not sent because other credentials signed the Describe before it.
pub(super) fn signer_changed(operation: Operation) -> AwsError {
    let message = "other credentials signed the Describe that the request follows";
    not_sent(operation, ErrorKind::Transient, SIGNER_CHANGED, message)
}

/// Converts the result of a read; `None` if AWS reports that the requested object does not exist. If the error
/// is of another operation (`AssumeRole`, which obtains the session), it remains an error.
pub(super) fn not_found_as_none<T>(
    operation: Operation,
    answer: Result<T, AwsError>,
) -> Result<Option<T>, AwsError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.operation == operation && error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns an error and its causes in one line, for the log. The request and the response are left out: they
/// may be long, and may contain data that does not belong in a log.
fn error_chain(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(chain, ": {error}");
        cause = error.source();
    }
    chain
}

/// Returns the error of a response with this code of AWS, KMS's own code, this message and this HTTP status.
pub(super) fn answered(
    operation: Operation,
    code: Option<&str>,
    kms_code: Option<&str>,
    message: &str,
    http: u16,
) -> AwsError {
    let code = code.map(without_namespace).unwrap_or_default();
    let kind = classify(operation, RawError::Service { code, kms_code, message, http });
    let status = http.to_string();
    let code = if code.is_empty() { &status } else { code };
    AwsError {
        operation,
        kind,
        code: Some(truncate(code, MAX_CODE_BYTES)),
        message: truncate(message, MAX_MESSAGE_BYTES),
        request_id: None,
    }
}

fn without_code<E>(operation: Operation, error: &SdkError<E, HttpResponse>, answer: RawError<'_>) -> AwsError
where
    E: Error + 'static,
{
    let message = truncate(&error_chain(error), MAX_MESSAGE_BYTES);
    AwsError { operation, kind: classify(operation, answer), code: None, message, request_id: None }
}

/// Returns a value of AWS as in the response; `None` if the response has none and the SDK inserted
/// [`MISSING_VALUE`].
pub(super) fn present_value(value: &str) -> Option<&str> {
    (value != MISSING_VALUE).then_some(value)
}

/// Returns the beginning of a text, at most `longest` bytes.
pub(super) fn truncate(text: &str, longest: usize) -> String {
    text[..text.floor_char_boundary(longest)].to_owned()
}

/// Strips the namespace and the URL: `com.amazonaws.firehose#LimitExceededException:http://…` is
/// `LimitExceededException`.
fn without_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code)
}

/// Returns the first error of this type in the chain of causes.
fn cause_of<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// The error codes of a response, from its header or its JSON or XML body. Firehose's
/// `InvalidKMSResourceException` has KMS's own code in a member named `code`, where other services put the
/// code of the error itself
/// ([InvalidKMSResourceException](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html)).
#[derive(Default)]
struct Body {
    code: Option<String>,
    kms_code: Option<String>,
}

impl Body {
    fn of(response: &HttpResponse) -> Self {
        let body: Option<Value> =
            response.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let text = |name: &str| body.as_ref()?.get(name)?.as_str().map(ToOwned::to_owned);
        let header = response.headers().get("x-amzn-errortype").map(ToOwned::to_owned);
        let xml = || code_in_xml(response.body().bytes()?);
        let Some(code) = header.or_else(|| text("__type")).or_else(xml) else { return Self::default() };
        let kms_code = text("code").filter(|_| without_namespace(&code) == "InvalidKMSResourceException");
        Self { code: Some(code), kms_code }
    }
}

/// Returns the code of an error in XML. Some of AWS's own front ends, and moto with policies enabled, return
/// XML for any operation.
fn code_in_xml(body: &[u8]) -> Option<String> {
    let (_, error) = std::str::from_utf8(body).ok()?.split_once("<ErrorResponse")?;
    let (code, _) = error.split_once("<Code>")?.1.split_once("</Code>")?;
    Some(code.to_owned())
}

#[cfg(test)]
mod tests;
