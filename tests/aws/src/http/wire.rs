//! The wire formats: AWS JSON 1.1 for Firehose, Kinesis and KMS, 1.0 for SQS; the query protocol with XML
//! answers for STS.
//!
//! Pure translation between HTTP messages and [`Request`] and [`Reply`](crate::world::Reply). It must never
//! decide an answer.

use std::fmt::Write as _;

use hyper::http::request::Parts;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::sqs;
use crate::world::date::BASIC;
use crate::world::request::request_id;
use crate::world::{AwsError, Caller, Request, Service};

/// Returns the caller and region of an `Authorization: AWS4-HMAC-SHA256
/// Credential=KEY/date/region/service/aws4_request, …` header. An unsigned request has neither. Signatures
/// are not verified, but the model checks the date in `x-amz-date`.
pub(super) fn signature(parts: &Parts) -> (Caller, String) {
    let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scope =
        header.split_once("Credential=").map_or("", |(_, rest)| rest.split(',').next().unwrap_or_default());
    let mut scope = scope.split('/');
    let access_key = scope.next().unwrap_or_default();
    let region = scope.nth(1).unwrap_or_default();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let user_agent = header("user-agent").unwrap_or_default().to_owned();
    let date = header("x-amz-date").and_then(date);
    let caller = Caller { date, user_agent, ..Caller::new(access_key.trim()) };
    (caller, region.to_owned())
}

/// Parses a date such as `20260301T120000Z`.
fn date(text: &str) -> Option<Timestamp> {
    let date = DateTime::strptime(BASIC, text).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Returns the request in an HTTP message.
pub(super) fn request(parts: &Parts, body: &[u8]) -> Result<Request, AwsError> {
    let Some(target) = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok()) else {
        return query(body);
    };
    let (prefix, operation) = target.split_once('.').unwrap_or((target, ""));
    let service = match prefix {
        "Firehose_20150804" => Service::Firehose,
        "Kinesis_20131202" => Service::Kinesis,
        "TrentService" => Service::Kms,
        "AmazonSQS" => Service::Sqs,
        _ => return Err(AwsError::new("UnknownOperationException", format!("{target} is not simulated"))),
    };
    let body = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
    let body = body.map_err(|error| AwsError::new("SerializationException", error.to_string()))?;
    Ok(Request { service, operation: operation.to_owned(), body })
}

/// Parses the query protocol: `Action=AssumeRole&Version=2011-06-15&RoleArn=…`.
fn query(body: &[u8]) -> Result<Request, AwsError> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        let number = value.parse::<u64>().ok().filter(|_| name == "DurationSeconds");
        fields.insert(name.into_owned(), number.map_or_else(|| json!(value), |number| json!(number)));
    }
    match fields.remove("Action") {
        Some(Value::String(operation)) => Ok(Request::sts(&operation, Value::Object(fields))),
        _ => Err(AwsError::new(
            "MissingAction",
            "The request names no operation: neither X-Amz-Target nor Action.",
        )),
    }
}

/// Returns the content type and body of a successful answer.
pub(super) fn answer(service: Service, operation: &str, result: &Value, call: u64) -> (&'static str, String) {
    if service == Service::Sqs {
        return (sqs::JSON, result.to_string());
    }
    if service != Service::Sts {
        // The empty answers of Firehose and Kinesis have no body; the SDKs accept both forms.
        let body =
            if result.as_object().is_some_and(Map::is_empty) { String::new() } else { result.to_string() };
        return (JSON, body);
    }
    let mut xml = format!(
        "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{operation}Result>"
    );
    elements(&mut xml, result);
    let id = request_id(call);
    let _ = write!(
        xml,
        "</{operation}Result><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{operation}Response>"
    );
    (XML, xml)
}

/// Returns the content type and body of an error.
pub(super) fn error(service: Option<Service>, error: &AwsError, call: u64) -> (&'static str, String) {
    if service == Some(Service::Sqs) {
        return (sqs::JSON, sqs::error(error));
    }
    if service != Some(Service::Sts) {
        return (JSON, error.body().to_string());
    }
    let side = if error.status >= 500 { "Receiver" } else { "Sender" };
    let (code, message, id) = (escape(&error.code), escape(&error.message), request_id(call));
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
    );
    (XML, xml)
}

const JSON: &str = "application/x-amz-json-1.1";
const XML: &str = "text/xml";

fn elements(xml: &mut String, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let _ = write!(xml, "<{name}>");
        match value {
            Value::Object(_) => elements(xml, value),
            Value::String(text) => xml.push_str(&escape(text)),
            other => xml.push_str(&other.to_string()),
        }
        let _ = write!(xml, "</{name}>");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
