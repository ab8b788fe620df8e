//! The events that AWS sends about streams and keys, through EventBridge and a queue: which stream or key an event is
//! about, and which call it reports.
//!
//! An event only says that something happened: what is true now, a Describe tells. An event may be late, repeated,
//! out of order, or forged by whoever can write to the queue. An event that contradicts itself, or claims anything
//! about a stream or key of another account or region than the one that EventBridge names, is invalid. Pure.

use jiff::Timestamp;
use serde::Deserialize;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;

use super::arn::{Account, KeyArn, Region, StreamArn};

/// Maximum length of an event that is parsed, in bytes: that of a message of
/// [SQS](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html) before 2025.
/// CloudTrail's events are at most 256 kB.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Maximum length of an id that is kept, in bytes: that of the ledger's schema.
const MAX_ID_BYTES: usize = 64;

/// An event of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsEvent {
    /// Where it happened.
    pub scope: EventScope,
    /// When it happened, by AWS's clock.
    pub time: Timestamp,
    /// What it is about.
    pub subject: Subject,
}

/// The account and region whose events arrive together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventScope {
    /// The account.
    pub account: Account,
    /// The region.
    pub region: Region,
}

impl EventScope {
    /// Returns the scope of a stream's events.
    #[must_use]
    pub fn of(stream: &StreamArn) -> Self {
        Self { account: stream.account.clone(), region: stream.region.clone() }
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A call of Start or Stop on a stream.
    Call(StreamArn, CallEvent),
    /// The creation or deletion of a stream.
    Stream(StreamArn),
    /// A change of a key's state or policy.
    Key(KeyArn),
    /// A change of the key that an alias stands for. The name, such as `alias/orders`, in the scope of the event.
    Alias(String),
    /// None: an event by which the queue proves that events arrive.
    Heartbeat,
}

/// A call of Start or Stop, as CloudTrail reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEvent {
    /// The id of the event, the same in each copy.
    pub event_id: String,
    /// The id that AWS gave the request.
    pub request_id: String,
    /// Start or Stop.
    pub action: Action,
    /// When AWS received the call, by AWS's clock.
    pub time: Timestamp,
    /// The type of the caller's identity, such as `AssumedRole`.
    pub caller_type: Option<String>,
    /// The AWS error code, if AWS refused the call.
    pub code: Option<String>,
}

/// Why a message is no event that the operator uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The message is too long.
    #[error("the message is longer than {MAX_EVENT_BYTES} bytes")]
    TooLong,
    /// The message is not JSON of the expected form.
    #[error("the message is no event of EventBridge")]
    NotAnEvent,
    /// A value is missing, invalid, or contradicts another one.
    #[error("the event has no valid {0}")]
    Invalid(&'static str),
    /// The event is valid, but says nothing about a stream or key.
    #[error("the event is about something else")]
    Unrelated,
}

/// The envelope of [EventBridge](https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html).
#[derive(Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    account: String,
    region: String,
    time: Timestamp,
    #[serde(default)]
    detail: serde_json::Value,
}

/// The record of
/// [CloudTrail](https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html),
/// as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_source: String,
    event_name: String,
    event_time: Timestamp,
    aws_region: String,
    #[serde(rename = "eventID")]
    event_id: String,
    #[serde(rename = "requestID", default)]
    request_id: Option<String>,
    #[serde(default)]
    error_code: Option<String>,
    #[serde(default)]
    user_identity: Option<Identity>,
    #[serde(default)]
    request_parameters: Option<Parameters>,
    /// The parameters of an event that no request has caused.
    #[serde(default)]
    service_event_details: Option<Parameters>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    delivery_stream_name: Option<String>,
    stream_name: Option<String>,
    #[serde(rename = "streamARN")]
    stream_arn: Option<String>,
    key_id: Option<String>,
    alias_name: Option<String>,
}

/// Parses the message of a queue.
///
/// # Errors
/// Returns why the message is no event that the operator uses.
pub fn parse(message: &str) -> Result<AwsEvent, EventError> {
    if message.len() > MAX_EVENT_BYTES {
        return Err(EventError::TooLong);
    }
    let envelope: Envelope = serde_json::from_str(message).map_err(|_| EventError::NotAnEvent)?;
    let scope = EventScope {
        account: envelope.account.parse().map_err(|_| EventError::Invalid("account"))?,
        region: envelope.region.parse().map_err(|_| EventError::Invalid("region"))?,
    };
    match (envelope.source.as_str(), envelope.detail_type.as_str()) {
        ("aws.events", "Scheduled Event") => {
            Ok(AwsEvent { scope, time: envelope.time, subject: Subject::Heartbeat })
        }
        (source, "AWS API Call via CloudTrail" | "AWS Service Event via CloudTrail") => {
            let record: Record =
                serde_json::from_value(envelope.detail).map_err(|_| EventError::NotAnEvent)?;
            let service = source.strip_prefix("aws.").unwrap_or_default();
            if record.event_source.strip_suffix(".amazonaws.com") != Some(service) {
                return Err(EventError::Invalid("eventSource"));
            }
            if record.aws_region != scope.region.as_str() {
                return Err(EventError::Invalid("awsRegion"));
            }
            let time = record.event_time;
            Ok(AwsEvent { subject: subject(&scope, service, record)?, scope, time })
        }
        _ => Err(EventError::Unrelated),
    }
}

fn subject(scope: &EventScope, service: &str, record: Record) -> Result<Subject, EventError> {
    let call = |record, action| -> Result<Subject, EventError> {
        let stream = stream(scope, &record)?;
        Ok(Subject::Call(stream, call_event(record, action)?))
    };
    match (service, record.event_name.as_str()) {
        ("firehose", "StartDeliveryStreamEncryption") | ("kinesis", "StartStreamEncryption") => {
            call(record, Action::Start)
        }
        ("firehose", "StopDeliveryStreamEncryption") | ("kinesis", "StopStreamEncryption") => {
            call(record, Action::Stop)
        }
        ("firehose", "CreateDeliveryStream" | "DeleteDeliveryStream")
        | ("kinesis", "CreateStream" | "DeleteStream") => Ok(Subject::Stream(stream(scope, &record)?)),
        (
            "kms",
            "DisableKey"
            | "EnableKey"
            | "ScheduleKeyDeletion"
            | "CancelKeyDeletion"
            | "PutKeyPolicy"
            | "ImportKeyMaterial"
            | "DeleteImportedKeyMaterial"
            | "DeleteExpiredKeyMaterial"
            | "CreateAlias"
            | "UpdateAlias"
            | "DeleteAlias",
        ) => key(scope, &record),
        _ => Err(EventError::Unrelated),
    }
}

/// Returns the stream of a record. It must lie in the account and region that EventBridge names.
fn stream(scope: &EventScope, record: &Record) -> Result<StreamArn, EventError> {
    let parameters = record.request_parameters.as_ref().ok_or(EventError::Invalid("requestParameters"))?;
    let (service, name) = if record.event_source == "firehose.amazonaws.com" {
        (Service::Firehose, parameters.delivery_stream_name.as_deref())
    } else {
        (Service::Kinesis, parameters.stream_name.as_deref())
    };
    if let Some(arn) = parameters.stream_arn.as_deref() {
        let arn: StreamArn = arn.parse().map_err(|_| EventError::Invalid("streamARN"))?;
        return if arn.service == service && EventScope::of(&arn) == *scope {
            Ok(arn)
        } else {
            Err(EventError::Invalid("streamARN"))
        };
    }
    let EventScope { account, region } = scope.clone();
    let partition = region.partition();
    let name = name.ok_or(EventError::Invalid("name of the stream"))?;
    StreamArn::new(partition, service, region, account, name)
        .map_err(|_| EventError::Invalid("name of the stream"))
}

/// Returns the key or alias of a record.
fn key(scope: &EventScope, record: &Record) -> Result<Subject, EventError> {
    let parameters = record.request_parameters.as_ref().or(record.service_event_details.as_ref());
    let parameters = parameters.ok_or(EventError::Invalid("requestParameters"))?;
    if let Some(alias) = &parameters.alias_name {
        return Ok(Subject::Alias(alias.clone()));
    }
    let name = parameters.key_id.as_deref().ok_or(EventError::Invalid("keyId"))?;
    let key: Result<KeyArn, _> = if name.starts_with("arn:") {
        name.parse()
    } else {
        let EventScope { account, region } = scope.clone();
        KeyArn::new(region.partition(), region, account, name)
    };
    match key {
        Ok(key) if key.account == scope.account && key.region == scope.region => Ok(Subject::Key(key)),
        _ => Err(EventError::Invalid("keyId")),
    }
}

fn call_event(record: Record, action: Action) -> Result<CallEvent, EventError> {
    let is_id = |id: &String| !id.is_empty() && id.len() <= MAX_ID_BYTES;
    let is_word = |word: &String| {
        !word.is_empty() && word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let is_code = |code: &String| code.len() <= 128;
    Ok(CallEvent {
        event_id: Some(record.event_id).filter(is_id).ok_or(EventError::Invalid("eventID"))?,
        request_id: record.request_id.filter(is_id).ok_or(EventError::Invalid("requestID"))?,
        action,
        time: record.event_time,
        caller_type: record.user_identity.and_then(|identity| identity.kind).filter(is_word),
        code: match record.error_code.filter(|code| !code.is_empty()) {
            Some(code) => Some(Some(code).filter(is_code).ok_or(EventError::Invalid("errorCode"))?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests;
