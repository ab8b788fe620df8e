//! The simulated AWS with the operations of the operator's AWS port, without HTTP and SDK: sends the request
//! of each operation and interprets the response.
//!
//! It makes no decisions about encryption, and never waits. `tests/suite/simulated_requests.rs` compares it
//! with the operator's own adapters over HTTP, so that the controller observes the same as with the SDKs.

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};
use simulated_aws::world::{AwsError as SimulatedError, Call, Caller, Delivery, Reply, Request, World};
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{KeyArn, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind, RawError, classify};
use stream_encryption_core::model::key::{KINESIS_ALIAS, Key, KeyMetadata, KeyState};
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use stream_encryption_core::model::service::{Operation as AwsOperation, profile};

use crate::aws_events;

/// The key id of a Kinesis stream that is reported as encrypted without a key.
const UNKNOWN_KEY_ID: &str = "unknown";
/// Maximum length of an AWS code or other text that the adapters keep, in bytes.
const MAX_TEXT_BYTES: usize = 128;

/// The result of a request, and the delivery of its response.
pub type Response<T> = (Result<T, AwsError>, Delivery);

/// The simulated AWS at one time, and the caller of the requests to it.
#[derive(Debug)]
pub struct AwsModel<'a> {
    pub world: &'a mut World,
    pub now: Timestamp,
    pub caller: &'a Caller,
}

impl AwsModel<'_> {
    /// Describes a stream.
    pub fn describe_stream(&mut self, stream: &StreamArn) -> Response<Option<StreamDescription>> {
        let operation = profile(stream.service).describe;
        let request = match stream.service {
            Service::Firehose => {
                Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": stream.name() }))
            }
            Service::Kinesis => {
                Request::kinesis("DescribeStreamSummary", json!({ "StreamARN": stream.to_string() }))
            }
        };
        let (result, delivery) = self.send(operation, stream.region.as_str(), &request);
        let description = match result {
            Ok(body) => match stream.service {
                Service::Firehose => firehose_description(&body["DeliveryStreamDescription"]).map(Some),
                Service::Kinesis => {
                    self.kinesis_description(stream, &body["StreamDescriptionSummary"]).map(Some)
                }
            },
            Err(AwsError { kind: ErrorKind::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        };
        (description, delivery)
    }

    /// Describes a key in KMS.
    pub fn describe_key(&mut self, stream: &StreamArn, name: &KmsKeyId) -> Response<Option<KeyMetadata>> {
        let region = match name {
            KmsKeyId::Arn(arn) => arn.region.as_str(),
            KmsKeyId::Alias(_) => stream.region.as_str(),
        };
        self.describe_key_in_region(region, &name.to_string())
    }

    /// Calls Start.
    pub fn start(&mut self, stream: &StreamArn, key: &Key) -> Response<Accepted> {
        let request = match (stream.service, key) {
            (_, Key::Unresolved(_)) => {
                return (Err(unresolved_key_error(stream, Action::Start)), Delivery::Prompt);
            }
            (Service::Firehose, Key::AwsOwned) => {
                start_firehose(stream, &json!({ "KeyType": "AWS_OWNED_CMK" }))
            }
            (Service::Firehose, Key::Customer(arn)) => start_firehose(
                stream,
                &json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": arn.to_string() }),
            ),
            (Service::Kinesis, Key::AwsOwned) => {
                change_kinesis("StartStreamEncryption", stream, KINESIS_ALIAS)
            }
            (Service::Kinesis, Key::Customer(arn)) => {
                change_kinesis("StartStreamEncryption", stream, &arn.to_string())
            }
        };
        self.change(stream, Action::Start, &request)
    }

    /// Calls Stop.
    pub fn stop(&mut self, stream: &StreamArn, active_key: Option<&Key>) -> Response<Accepted> {
        let request = match (stream.service, active_key) {
            (Service::Firehose, _) => Request::firehose(
                "StopDeliveryStreamEncryption",
                json!({ "DeliveryStreamName": stream.name() }),
            ),
            (Service::Kinesis, Some(Key::Customer(arn))) => {
                change_kinesis("StopStreamEncryption", stream, &arn.to_string())
            }
            (Service::Kinesis, Some(Key::Unresolved(name))) if name != UNKNOWN_KEY_ID => {
                change_kinesis("StopStreamEncryption", stream, name)
            }
            (Service::Kinesis, _) => change_kinesis("StopStreamEncryption", stream, KINESIS_ALIAS),
        };
        self.change(stream, Action::Stop, &request)
    }

    /// Writes a record, and returns whether AWS reports it as encrypted.
    pub fn put_record(&mut self, stream: &StreamArn) -> Response<bool> {
        let (operation, request) = match stream.service {
            Service::Firehose => (
                AwsOperation::PutFirehoseRecord,
                Request::firehose(
                    "PutRecord",
                    json!({ "DeliveryStreamName": stream.name(), "Record": { "Data": "" } }),
                ),
            ),
            Service::Kinesis => (
                AwsOperation::PutKinesisRecord,
                Request::kinesis(
                    "PutRecord",
                    json!({ "StreamARN": stream.to_string(), "PartitionKey": "p", "Data": "" }),
                ),
            ),
        };
        let (result, delivery) = self.send(operation, stream.region.as_str(), &request);
        let encrypted =
            |body: Value| body["Encrypted"] == json!(true) || body["EncryptionType"] == json!("KMS");
        (result.map(encrypted), delivery)
    }

    /// Returns the account of the credentials, or the reason why AWS does not return it.
    pub fn identity(&mut self, region: &str) -> Response<String> {
        let request = Request::sts("GetCallerIdentity", json!({}));
        let (result, delivery) = self.send(AwsOperation::GetCallerIdentity, region, &request);
        (result.map(|body| body["Account"].as_str().unwrap_or_default().to_owned()), delivery)
    }

    fn change(&mut self, stream: &StreamArn, action: Action, request: &Request) -> Response<Accepted> {
        let operation = AwsOperation::change(stream.service, action);
        let (result, delivery) = self.send(operation, stream.region.as_str(), request);
        let is_sent = |call: &&Call| {
            call.operation == request.operation && call.principal.access_key == self.caller.access_key
        };
        let sent = self.world.calls().iter().rev().find(is_sent);
        let request_id = sent.map(|call| aws_events::request_id(call.id));
        let response = match result {
            Ok(_) => Ok(Accepted { request_id }),
            // Without a code there was no response.
            Err(error) if error.code.is_some() => Err(AwsError { request_id, ..error }),
            Err(error) => Err(error),
        };
        (response, delivery)
    }

    fn describe_key_in_region(&mut self, region: &str, id: &str) -> Response<Option<KeyMetadata>> {
        let request = Request::kms("DescribeKey", json!({ "KeyId": id }));
        let (result, delivery) = self.send(AwsOperation::DescribeKey, region, &request);
        let metadata = match result {
            Ok(body) => key_metadata(&body["KeyMetadata"])
                .map(Some)
                .ok_or_else(|| invalid_response(AwsOperation::DescribeKey)),
            Err(AwsError { kind: ErrorKind::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        };
        (metadata, delivery)
    }

    fn kinesis_description(
        &mut self,
        stream: &StreamArn,
        summary: &Value,
    ) -> Result<StreamDescription, AwsError> {
        let raw_status = text(summary, "StreamStatus");
        let encryption = match summary["EncryptionType"].as_str().unwrap_or("NONE") {
            "NONE" => ReportedEncryption::Off,
            "KMS" => {
                let id = summary["KeyId"].as_str().unwrap_or(UNKNOWN_KEY_ID);
                ReportedEncryption::On(self.kinesis_key(stream, id)?)
            }
            other => ReportedEncryption::Unknown(other.to_owned()),
        };
        Ok(StreamDescription {
            arn: arn_of(AwsOperation::DescribeStreamSummary, summary, "StreamARN")?,
            created: created(summary, "StreamCreationTimestamp"),
            source: None,
            state: match raw_status {
                "CREATING" => StreamState::Creating,
                "ACTIVE" => StreamState::Active,
                "UPDATING" => StreamState::Updating,
                "DELETING" => StreamState::Deleting,
                _ => StreamState::Unrecognized,
            },
            raw_status: raw_status.to_owned(),
            encryption,
            retention: SignedDuration::from_hours(
                summary["RetentionPeriodHours"].as_i64().unwrap_or_default(),
            ),
        })
    }

    /// Returns the key that Kinesis names in one of its forms.
    fn kinesis_key(&mut self, stream: &StreamArn, id: &str) -> Result<Key, AwsError> {
        let unresolved = || Key::Unresolved(id.to_owned());
        let alias = id.rsplit(':').next().filter(|name| name.starts_with("alias/"));
        if alias == Some(KINESIS_ALIAS) {
            return Ok(Key::AwsOwned);
        }
        if alias.is_some() {
            return match self.describe_key_in_region(stream.region.as_str(), id).0 {
                Ok(Some(metadata)) if metadata.aws_managed => Ok(Key::AwsOwned),
                Ok(Some(metadata)) => Ok(Key::Customer(metadata.arn)),
                Err(error) if may_resolve_later(&error) => Err(error),
                Ok(None) | Err(_) => Ok(unresolved()),
            };
        }
        let by_id =
            || KeyArn::new(stream.partition.clone(), stream.region.clone(), stream.account.clone(), id).ok();
        let arn = id.parse().ok().or_else(by_id);
        let Some(arn) = arn.filter(|_| id != UNKNOWN_KEY_ID) else { return Ok(unresolved()) };
        match self.describe_key_in_region(arn.region.as_str(), &arn.to_string()).0 {
            Ok(Some(metadata)) if metadata.aws_managed => Ok(Key::AwsOwned),
            Err(error) if may_resolve_later(&error) => Err(error),
            Ok(_) | Err(_) => Ok(Key::Customer(arn)),
        }
    }

    /// Sends a request. No response is received if it is lost or held back.
    fn send(&mut self, operation: AwsOperation, region: &str, request: &Request) -> Response<Value> {
        let Reply { delivery, result, .. } = self.world.call(self.now, self.caller, region, request);
        let result = match (delivery, result) {
            (Delivery::Lost | Delivery::Held, _) => Err(aws_error(operation, None)),
            (_, Ok(body)) => Ok(body),
            (_, Err(error)) => Err(aws_error(operation, Some(&error))),
        };
        (result, delivery)
    }
}

fn start_firehose(stream: &StreamArn, key: &Value) -> Request {
    let body =
        json!({ "DeliveryStreamName": stream.name(), "DeliveryStreamEncryptionConfigurationInput": key });
    Request::firehose("StartDeliveryStreamEncryption", body)
}

fn change_kinesis(operation: &str, stream: &StreamArn, key: &str) -> Request {
    let body = json!({ "StreamARN": stream.to_string(), "EncryptionType": "KMS", "KeyId": key });
    Request::kinesis(operation, body)
}

fn unresolved_key_error(stream: &StreamArn, action: Action) -> AwsError {
    let operation = AwsOperation::change(stream.service, action);
    AwsError {
        operation,
        kind: ErrorKind::Invalid,
        code: Some("UnresolvedKey".to_owned()),
        message: String::new(),
        request_id: None,
    }
}

/// Returns the classification of an AWS error, or of a missing response.
pub fn aws_error(operation: AwsOperation, error: Option<&SimulatedError>) -> AwsError {
    let Some(error) = error else {
        let kind = classify(operation, RawError::NoResponse);
        return AwsError { operation, kind, code: None, message: String::new(), request_id: None };
    };
    let (code, kms_code) = (without_namespace(&error.code), error.kms_code.as_deref());
    let raw_error = RawError::Service { code, kms_code, message: &error.message, http: error.status };
    let kind = classify(operation, raw_error);
    let status = error.status.to_string();
    let code = if code.is_empty() { &status } else { code };
    AwsError { operation, kind, code: Some(truncate(code)), message: error.message.clone(), request_id: None }
}

/// Returns the error for an OK response that cannot be parsed.
fn invalid_response(operation: AwsOperation) -> AwsError {
    let code = Some("InvalidResponse".to_owned());
    AwsError { operation, kind: ErrorKind::Transient, code, message: String::new(), request_id: None }
}

/// Converts `com.amazonaws.firehose#LimitExceededException:http://…` to `LimitExceededException`.
fn without_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code)
}

/// Truncates a text of AWS's to the length that is kept.
fn truncate(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}

fn key_metadata(metadata: &Value) -> Option<KeyMetadata> {
    Some(KeyMetadata {
        arn: metadata["Arn"].as_str()?.parse().ok()?,
        state: match metadata["KeyState"].as_str()? {
            "Enabled" => KeyState::Enabled,
            "Disabled" => KeyState::Disabled,
            "PendingDeletion" => KeyState::PendingDeletion,
            "PendingImport" => KeyState::PendingImport,
            "Unavailable" => KeyState::Unavailable,
            _ => KeyState::Unrecognized,
        },
        symmetric: metadata["KeySpec"] == json!("SYMMETRIC_DEFAULT"),
        encrypts: metadata["KeyUsage"] == json!("ENCRYPT_DECRYPT"),
        aws_managed: metadata["KeyManager"] == json!("AWS"),
    })
}

fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object[member].as_str().unwrap_or_default()
}

fn created(description: &Value, member: &str) -> Option<Timestamp> {
    let seconds = description[member].as_f64()?;
    #[allow(clippy::cast_possible_truncation, reason = "microseconds of this century are exact in both")]
    let time = Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok()?;
    // As in the adapters: AWS returns milliseconds.
    time.round(Unit::Millisecond).ok()
}

fn arn_of(operation: AwsOperation, description: &Value, member: &str) -> Result<StreamArn, AwsError> {
    text(description, member).parse().map_err(|_| invalid_response(operation))
}

fn firehose_description(description: &Value) -> Result<StreamDescription, AwsError> {
    let raw_status = text(description, "DeliveryStreamStatus");
    Ok(StreamDescription {
        arn: arn_of(AwsOperation::DescribeDeliveryStream, description, "DeliveryStreamARN")?,
        created: created(description, "CreateTimestamp"),
        source: Some(text(description, "DeliveryStreamType").to_owned()),
        state: match raw_status {
            "CREATING" => StreamState::Creating,
            "ACTIVE" => StreamState::Active,
            "DELETING" => StreamState::Deleting,
            "CREATING_FAILED" | "DELETING_FAILED" => StreamState::NotOperational,
            _ => StreamState::Unrecognized,
        },
        raw_status: raw_status.to_owned(),
        encryption: firehose_encryption(&description["DeliveryStreamEncryptionConfiguration"]),
        retention: SignedDuration::from_hours(24),
    })
}

fn firehose_encryption(block: &Value) -> ReportedEncryption {
    let failed = |action| ReportedEncryption::Failed {
        action,
        // The type of AWS for a failure without further details.
        reason: block["FailureDescription"]["Type"].as_str().unwrap_or("UNKNOWN_ERROR").to_owned(),
        details: text(&block["FailureDescription"], "Details").to_owned(),
    };
    match text(block, "Status") {
        "" | "DISABLED" => ReportedEncryption::Off,
        "ENABLED" => firehose_key(block).map_or_else(ReportedEncryption::Unknown, ReportedEncryption::On),
        "ENABLING" => ReportedEncryption::Enabling,
        "DISABLING" => ReportedEncryption::Disabling,
        "ENABLING_FAILED" => failed(Action::Start),
        "DISABLING_FAILED" => failed(Action::Stop),
        status => ReportedEncryption::Unknown(status.to_owned()),
    }
}

/// Returns the key of an `ENABLED` stream, or the text of a key that the operator does not recognise.
fn firehose_key(block: &Value) -> Result<Key, String> {
    match block["KeyType"].as_str() {
        Some("AWS_OWNED_CMK") => Ok(Key::AwsOwned),
        Some(kind @ "CUSTOMER_MANAGED_CMK") => {
            let name = block["KeyARN"].as_str().unwrap_or(kind);
            Ok(name.parse().map_or_else(|_| Key::Unresolved(name.to_owned()), Key::Customer))
        }
        Some(other) => Err(format!("ENABLED, KeyType {other}")),
        None => Err("ENABLED, no KeyType".to_owned()),
    }
}

/// Returns whether KMS may resolve the key later. Until then the key must not be treated as a different key.
fn may_resolve_later(error: &AwsError) -> bool {
    error.kind.is_inconclusive()
}
