//! From an error of the SDK to a [`Fault`], for every operation alike.
//!
//! It reads what came back and leaves what it means to [`classify`]. It never sends anything, and never says that a
//! request was not sent unless the SDK shows that it never left.

use std::error::Error;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use serde_json::Value;

use crate::model::credentials::Missing;
use crate::model::fault::{Answer, Class, Fault, Operation, classify};

/// The code of a request that follows a look which other credentials signed.
const SIGNER_CHANGED: &str = "SignerChanged";
/// The code of a fault for an answer that the operator cannot read.
const UNREADABLE: &str = "UnreadableAnswer";
/// The longest code or other word of AWS's, in bytes: what a ledger can hold. An outcome that could not be recorded would stay open.
pub(super) const LONGEST_CODE: usize = 128;
/// The longest message, in bytes: enough for every message of AWS's, and for a line of the log.
pub(super) const LONGEST_MESSAGE: usize = 4096;
/// The longest cause of missing credentials, in bytes: each visit of each resource logs it.
const LONGEST_CAUSE: usize = 160;

/// Why there is nothing to sign a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoSession {
    /// Of which kind it is.
    pub(super) missing: Missing,
    /// The source's words, for the log.
    pub(super) cause: String,
}

impl From<&CredentialsError> for NoSession {
    fn from(error: &CredentialsError) -> Self {
        let missing = match error {
            CredentialsError::CredentialsNotLoaded(_) => Missing::NotFound,
            CredentialsError::ProviderTimedOut(_) => Missing::TimedOut,
            CredentialsError::InvalidConfiguration(_) => Missing::Misconfigured,
            _ => Missing::SourceFailed,
        };
        Self { missing, cause: words(error) }
    }
}

/// The SDKs' own text for a word that AWS promises to show and did not.
pub(super) const NOT_SHOWN: &str = "no value was set";

/// What `error` means for `operation`.
pub(super) fn fault<E>(operation: Operation, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let http = error.raw_response().map(|response| response.status().as_u16());
    if let (SdkError::DispatchFailure(_), Some(why)) = (error, credentials_error(error)) {
        return no_session(operation, &why.into());
    }
    match error {
        SdkError::ConstructionFailure(_) => without_code(operation, error, Answer::NotSent),
        // Of what cannot be read under a status that says yes, the SDKs of services that speak XML make an error without a code.
        SdkError::ServiceError(_) if http.is_some_and(|http| (200..300).contains(&http)) => {
            without_code(operation, error, Answer::None)
        }
        SdkError::ServiceError(_) => {
            let body = error.raw_response().map(Body::of).unwrap_or_default();
            let message = error.message().unwrap_or_default();
            let code = body.code.as_deref().or(error.code());
            answered(operation, code, body.kms_code.as_deref(), message, http.unwrap_or_default())
        }
        // A body that the SDK cannot read, under a status that says no.
        SdkError::ResponseError(_) if http.is_some_and(|http| http >= 400) => {
            let body = error.raw_response().map(Body::of).unwrap_or_default();
            let message = words(error);
            let code = body.code.as_deref();
            answered(operation, code, body.kms_code.as_deref(), &message, http.unwrap_or_default())
        }
        _ => without_code(operation, error, Answer::None),
    }
}

/// AWS answered OK, but what it said of `what` cannot be read. Looking again later may help; acting on it cannot.
pub(super) fn unreadable(operation: Operation, what: &str) -> Fault {
    let message = format!("AWS's answer holds no readable {what}");
    Fault { operation, class: Class::Transient, code: Some(UNREADABLE.to_owned()), message }
}

/// The operator itself refuses to send the request.
pub(super) fn not_sent(operation: Operation, class: Class, code: &str, message: &str) -> Fault {
    Fault { operation, class, code: Some(code.to_owned()), message: cut(message, LONGEST_MESSAGE) }
}

/// There are no credentials for the request, so it is not sent. The whole cause is in the log already.
pub(super) fn no_session(operation: Operation, why: &NoSession) -> Fault {
    not_signed(operation, why.missing, &cut(&why.cause, LONGEST_CAUSE))
}

/// The same, because nobody provided any in time.
pub(super) fn no_session_in_time(operation: Operation) -> Fault {
    not_signed(operation, Missing::TimedOut, "no session could be had in time")
}

/// There is nothing to sign the request with, so it is not sent.
pub(super) fn not_signed(operation: Operation, missing: Missing, message: &str) -> Fault {
    not_sent(operation, classify(operation, Answer::NotSigned), missing.code(), message)
}

/// The request follows a look that other credentials signed, so it is not sent.
pub(super) fn signer_changed(operation: Operation) -> Fault {
    let message = "other credentials signed the look that the request follows";
    not_sent(operation, Class::Transient, SIGNER_CHANGED, message)
}

/// What a read found; nothing for what AWS does not know. Only what was asked for can be missing: where the session for it
/// could not be had, that is a fault.
pub(super) fn found<T>(operation: Operation, answer: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(fault) if fault.operation == operation && fault.class == Class::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// An error and its causes in one line, for the log: without the request and the answer, which may be long and not ours to keep.
fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(words, ": {error}");
        cause = error.source();
    }
    words
}

fn answered(
    operation: Operation,
    code: Option<&str>,
    kms_code: Option<&str>,
    message: &str,
    http: u16,
) -> Fault {
    let status = http.to_string();
    let said = code.map(without_namespace).filter(|code| !code.is_empty());
    let code = said.unwrap_or(&status);
    let answer = match said {
        // Only a code shows that AWS itself refused. A status alone may be a proxy's, which may have passed the call on.
        None if operation.changes() => Answer::None,
        Some(_) | None => Answer::Error { code, kms_code, message, http },
    };
    let class = classify(operation, answer);
    Fault { operation, class, code: Some(cut(code, LONGEST_CODE)), message: cut(message, LONGEST_MESSAGE) }
}

fn without_code<E>(operation: Operation, error: &SdkError<E, HttpResponse>, answer: Answer<'_>) -> Fault
where
    E: Error + 'static,
{
    let message = cut(&words(error), LONGEST_MESSAGE);
    Fault { operation, class: classify(operation, answer), code: None, message }
}

/// A word of AWS's as it stands in the answer; `None` where the answer has none, and [`NOT_SHOWN`] in its
/// place.
pub(super) fn shown_word(word: &str) -> Option<&str> {
    (word != NOT_SHOWN).then_some(word)
}

/// The beginning of a text, at most so many bytes.
pub(super) fn cut(text: &str, longest: usize) -> String {
    text[..text.floor_char_boundary(longest)].to_owned()
}

/// `com.amazonaws.firehose#LimitExceededException:http://…` is `LimitExceededException`.
fn without_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code)
}

/// Credentials are fetched before a request is sent, so a request without them never left.
fn credentials_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CredentialsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// What the body says beside what the SDK reads: `InvalidKMSResourceException` of Firehose carries KMS's own code in a
/// member named `code`, where other services put the error's own code
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

/// The code of an error in XML: so do moto, with its policies on, and some of AWS's own front doors, whatever was asked for.
fn code_in_xml(body: &[u8]) -> Option<String> {
    let (_, error) = std::str::from_utf8(body).ok()?.split_once("<ErrorResponse")?;
    let (code, _) = error.split_once("<Code>")?.1.split_once("</Code>")?;
    Some(code.to_owned())
}

#[cfg(test)]
mod tests;
