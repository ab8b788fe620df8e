//! Requests and answers of AWS, without any wire format.
//!
//! Pure data. It decides nothing and must never know HTTP: `http::wire` translates.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The services that are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Service {
    /// Amazon Data Firehose, `Firehose_20150804`.
    #[serde(rename = "firehose")]
    Firehose,
    /// Kinesis Data Streams, `Kinesis_20131202`.
    #[serde(rename = "kinesis")]
    Kinesis,
    /// Key Management Service, `TrentService`.
    #[serde(rename = "kms")]
    Kms,
    /// Security Token Service, the query protocol of 2011-06-15.
    #[serde(rename = "sts")]
    Sts,
    /// Simple Queue Service, `AmazonSQS`.
    #[serde(rename = "sqs")]
    Sqs,
}

impl Service {
    /// Returns the prefix in ARNs and IAM actions.
    pub fn prefix(self) -> &'static str {
        match self {
            Service::Firehose => "firehose",
            Service::Kinesis => "kinesis",
            Service::Kms => "kms",
            Service::Sts => "sts",
            Service::Sqs => "sqs",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

/// One request: a service, an operation in AWS's spelling, and the body as AWS JSON (for STS, its parameters
/// as one flat object).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The requested service.
    pub service: Service,
    /// For example `StartDeliveryStreamEncryption`.
    pub operation: String,
    /// The request body.
    #[serde(default)]
    pub body: Value,
}

impl Request {
    pub fn firehose(operation: &str, body: Value) -> Request {
        Request { service: Service::Firehose, operation: operation.to_owned(), body }
    }

    /// Creates a Kinesis Data Streams request.
    pub fn kinesis(operation: &str, body: Value) -> Request {
        Request { service: Service::Kinesis, operation: operation.to_owned(), body }
    }

    pub fn kms(operation: &str, body: Value) -> Request {
        Request { service: Service::Kms, operation: operation.to_owned(), body }
    }

    /// Creates an STS request, for example `AssumeRole` with `{"RoleArn": …, "RoleSessionName": …,
    /// "ExternalId": …}`.
    pub fn sts(operation: &str, body: Value) -> Request {
        Request { service: Service::Sts, operation: operation.to_owned(), body }
    }

    pub fn sqs(operation: &str, body: Value) -> Request {
        Request { service: Service::Sqs, operation: operation.to_owned(), body }
    }

    /// Returns the target of the request: the name of a stream or a queue, a key or alias as given, or a role's
    /// ARN; empty if there is none.
    pub fn target(&self) -> &str {
        let text = |field: &str| self.body.get(field).and_then(Value::as_str);
        match self.service {
            Service::Firehose => text("DeliveryStreamName"),
            Service::Kinesis => text("StreamName")
                .or_else(|| text("StreamARN").map(|arn| arn.rsplit_once('/').map_or(arn, |(_, name)| name))),
            Service::Kms => text("KeyId").or_else(|| text("AliasName")),
            Service::Sts => text("RoleArn"),
            Service::Sqs => text("QueueName").or_else(|| text("QueueUrl")?.rsplit('/').next()),
        }
        .unwrap_or_default()
    }

    /// Returns the key that a Start, Stop or Create requests, as given; `AWS_OWNED_CMK` for Firehose's own
    /// key.
    pub fn key(&self) -> Option<&str> {
        match self.service {
            Service::Firehose => {
                let block = self.body.get("DeliveryStreamEncryptionConfigurationInput");
                let field = |name: &str| block.and_then(|b| b.get(name)).and_then(Value::as_str);
                let default = (self.operation == "StartDeliveryStreamEncryption").then_some("AWS_OWNED_CMK");
                field("KeyARN").or_else(|| field("KeyType")).or(default)
            }
            Service::Kinesis => self.body.get("KeyId").and_then(Value::as_str),
            Service::Kms | Service::Sts | Service::Sqs => None,
        }
    }
}

/// The caller according to the signature. The access key id determines the account (`Settings::accounts`) or
/// the session (STS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The access key id; for session credentials, the one that `AssumeRole` returned.
    pub access_key: String,
    /// The date of the signature (`x-amz-date`), by the caller's own clock; if absent, no date is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
    /// The `User-Agent` header, which events of `CloudTrail` contain; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
}

impl Caller {
    /// Creates a caller with this access key id.
    pub fn new(access_key: &str) -> Caller {
        Caller { access_key: access_key.to_owned(), date: None, user_agent: String::new() }
    }

    /// Returns the same caller with a signature of this date.
    pub fn dated(self, date: Timestamp) -> Caller {
        Caller { date: Some(date), ..self }
    }
}

impl Default for Caller {
    /// Returns a user of the default account.
    fn default() -> Caller {
        Caller::new("AKIAIOSFODNN7EXAMPLE")
    }
}

/// The result of a request, and how its answer is delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The number of the request in the log.
    pub call: u64,
    /// The answer's body, or AWS's error. With [`Delivery::Lost`] the caller never receives it.
    pub result: Result<Value, AwsError>,
    /// How the answer is delivered.
    pub delivery: Delivery,
}

impl Reply {
    /// Returns the request id of the answer (`x-amzn-RequestId`), which the event of the call contains too.
    pub fn request_id(&self) -> String {
        request_id(self.call)
    }

    /// Returns the answer that the caller receives at once; `None` if it is lost or delayed.
    pub fn seen(&self) -> Option<&Result<Value, AwsError>> {
        matches!(self.delivery, Delivery::Prompt).then_some(&self.result)
    }
}

/// Returns the request id of a call: its number in the log, formatted as a UUID.
pub(crate) fn request_id(call: u64) -> String {
    format!("00000000-0000-4000-8000-{call:012x}")
}

/// How an answer is delivered. The in-process simulation interprets it; the HTTP server implements it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The answer is sent at once.
    Prompt,
    /// The answer is never sent: the connection is closed.
    Lost,
    /// The answer is sent after this delay.
    After(SignedDuration),
    /// The answer is sent when the test releases it.
    Held,
}

/// An AWS error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsError {
    /// The HTTP status.
    pub status: u16,
    /// The error code, `ResourceInUseException` for example.
    pub code: String,
    /// The message; not part of AWS's contract.
    pub message: String,
    /// KMS's own error. Only `InvalidKMSResourceException` has this additional member, `code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_code: Option<String>,
}

impl AwsError {
    /// Creates a client error: status 400, as for every modelled error of these services.
    pub fn new(code: &str, message: impl Into<String>) -> AwsError {
        AwsError { status: 400, code: code.to_owned(), message: message.into(), kms_code: None }
    }

    /// Returns the body in AWS JSON 1.1.
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("__type".to_owned(), json!(self.code));
        // The error of IAM has its own spelling.
        let message = if self.code == "AccessDeniedException" { "Message" } else { "message" };
        body.insert(message.to_owned(), json!(self.message));
        if let Some(code) = &self.kms_code {
            body.insert("code".to_owned(), json!(code));
        }
        Value::Object(body)
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP {}): {}", self.code, self.status, self.message)
    }
}

impl std::error::Error for AwsError {}
