//! What a caller says to AWS and what AWS says back, without any wire format.
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
}

impl Service {
    /// The prefix in ARNs and IAM actions.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Service::Firehose => "firehose",
            Service::Kinesis => "kinesis",
            Service::Kms => "kms",
            Service::Sts => "sts",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

/// One call: a service, an operation as AWS spells it, and the body as AWS JSON (for STS its parameters as one flat object).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The service called.
    pub service: Service,
    /// For example `StartDeliveryStreamEncryption`.
    pub operation: String,
    /// The request body.
    #[serde(default)]
    pub body: Value,
}

impl Request {
    /// A call of Firehose.
    #[must_use]
    pub fn firehose(operation: &str, body: Value) -> Request {
        Request { service: Service::Firehose, operation: operation.to_owned(), body }
    }

    /// A call of Kinesis Data Streams.
    #[must_use]
    pub fn kinesis(operation: &str, body: Value) -> Request {
        Request { service: Service::Kinesis, operation: operation.to_owned(), body }
    }

    /// A call of KMS.
    #[must_use]
    pub fn kms(operation: &str, body: Value) -> Request {
        Request { service: Service::Kms, operation: operation.to_owned(), body }
    }

    /// A call of STS, for example `AssumeRole` with `{"RoleArn": …, "RoleSessionName": …, "ExternalId": …}`.
    #[must_use]
    pub fn sts(operation: &str, body: Value) -> Request {
        Request { service: Service::Sts, operation: operation.to_owned(), body }
    }

    /// What the call is aimed at: a stream's name, a key or alias as given, a role's ARN; empty where there is none.
    #[must_use]
    pub fn target(&self) -> &str {
        let text = |field: &str| self.body.get(field).and_then(Value::as_str);
        match self.service {
            Service::Firehose => text("DeliveryStreamName"),
            Service::Kinesis => text("StreamName")
                .or_else(|| text("StreamARN").map(|arn| arn.rsplit_once('/').map_or(arn, |(_, name)| name))),
            Service::Kms => text("KeyId").or_else(|| text("AliasName")),
            Service::Sts => text("RoleArn"),
        }
        .unwrap_or_default()
    }

    /// The key that a Start, Stop or Create asks for, as given; `AWS_OWNED_CMK` for Firehose's own.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self.service {
            Service::Firehose => {
                let block = self.body.get("DeliveryStreamEncryptionConfigurationInput");
                let field = |name: &str| block.and_then(|b| b.get(name)).and_then(Value::as_str);
                let default = (self.operation == "StartDeliveryStreamEncryption").then_some("AWS_OWNED_CMK");
                field("KeyARN").or_else(|| field("KeyType")).or(default)
            }
            Service::Kinesis => self.body.get("KeyId").and_then(Value::as_str),
            Service::Kms | Service::Sts => None,
        }
    }
}

/// Who calls, as the signature says. The key id decides the account (`Settings::accounts`) or the session (STS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The access key id; for session credentials the one that `AssumeRole` answered with.
    pub access_key: String,
    /// The date of the signature (`x-amz-date`), by the caller's own clock; without one, no date is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
}

impl Caller {
    /// A caller with this access key id.
    #[must_use]
    pub fn new(access_key: &str) -> Caller {
        Caller { access_key: access_key.to_owned(), date: None }
    }

    /// The same, whose signature is dated so.
    #[must_use]
    pub fn dated(self, date: Timestamp) -> Caller {
        Caller { date: Some(date), ..self }
    }
}

impl Default for Caller {
    /// A user of the default account.
    fn default() -> Caller {
        Caller::new("AKIAIOSFODNN7EXAMPLE")
    }
}

/// What AWS did with a call, and how the answer travels back.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The number of the call in the log.
    pub call: u64,
    /// The answer's body, or AWS's error. With [`Delivery::Lost`] nobody gets to see it.
    pub result: Result<Value, AwsError>,
    /// How the answer travels.
    pub delivery: Delivery,
}

impl Reply {
    /// What the caller sees at once: nothing when the answer is lost or still under way.
    #[must_use]
    pub fn seen(&self) -> Option<&Result<Value, AwsError>> {
        matches!(self.delivery, Delivery::Prompt).then_some(&self.result)
    }
}

/// How an answer travels. The in-process simulation acts on it as it likes; the HTTP server does as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// At once.
    Prompt,
    /// Never: the connection is closed without an answer.
    Lost,
    /// After this long.
    After(SignedDuration),
    /// When the test releases it.
    Held,
}

/// An error as AWS words it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsError {
    /// The HTTP status.
    pub status: u16,
    /// The error code, `ResourceInUseException` for example.
    pub code: String,
    /// The text; not a contract of AWS.
    pub message: String,
    /// `InvalidKMSResourceException` alone has one more member, `code`: KMS's own error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_code: Option<String>,
}

impl AwsError {
    /// An error of the caller: status 400, as every modelled error of these services.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> AwsError {
        AwsError { status: 400, code: code.to_owned(), message: message.into(), kms_code: None }
    }

    /// The body in AWS JSON 1.1.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("__type".to_owned(), json!(self.code));
        body.insert("message".to_owned(), json!(self.message));
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
