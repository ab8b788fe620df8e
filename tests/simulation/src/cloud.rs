//! The simulated AWS in the operator's verbs, without HTTP and SDK: a request for each verb, and the meaning of the answer.
//!
//! It decides nothing about encryption and waits for nothing. `tests/real_adapters.rs` holds it against the operator's own
//! adapters over HTTP, so that what the simulation shows the controller is what the SDKs would.

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};
use simulated_aws::world::{AwsError, Caller, Delivery, Reply, Request, World};
use stream_encryption_operator::api::ledger::Action;
use stream_encryption_operator::api::stream_encryption::Service;
use stream_encryption_operator::model::fault::{Answer, Class, Fault, Operation, classify};
use stream_encryption_operator::model::key::{KINESIS_ALIAS, Key, KeyArn, KeyFacts, KeyName, KeyState};
use stream_encryption_operator::model::observation::{Look, Shown, StreamState};
use stream_encryption_operator::model::stream::StreamArn;

/// The key of a stream of which Kinesis says that it is encrypted, but not with what.
const UNNAMED: &str = "unknown";
/// The longest code or other word of AWS's that the adapters keep, in bytes.
const LONGEST_WORD: usize = 128;

/// What came of a request, and how the answer travels.
pub type Told<T> = (Result<T, Fault>, Delivery);

/// One look at a stream.
pub fn look(world: &mut World, now: Timestamp, who: &Caller, stream: &StreamArn) -> Told<Option<Look>> {
    let operation = Operation::look(stream.service);
    let request = match stream.service {
        Service::Firehose => {
            Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": stream.name() }))
        }
        Service::Kinesis => {
            Request::kinesis("DescribeStreamSummary", json!({ "StreamARN": stream.to_string() }))
        }
    };
    let (answer, delivery) = told(operation, world.call(now, who, stream.region.as_str(), &request));
    let read = match answer {
        Ok(body) => match stream.service {
            Service::Firehose => firehose_look(&body["DeliveryStreamDescription"]).map(Some),
            Service::Kinesis => {
                kinesis_look(world, now, who, stream, &body["StreamDescriptionSummary"]).map(Some)
            }
        },
        Err(Fault { class: Class::NotFound, .. }) => Ok(None),
        Err(fault) => Err(fault),
    };
    (read, delivery)
}

/// What KMS says of a key.
pub fn key(
    world: &mut World,
    now: Timestamp,
    who: &Caller,
    stream: &StreamArn,
    name: &KeyName,
) -> Told<Option<KeyFacts>> {
    let region = match name {
        KeyName::Arn(arn) => arn.region.as_str(),
        KeyName::Alias(_) => stream.region.as_str(),
    };
    describe_key(world, now, who, region, &name.to_string())
}

/// Start.
pub fn start(world: &mut World, now: Timestamp, who: &Caller, stream: &StreamArn, key: &Key) -> Told<()> {
    let request = match (stream.service, key) {
        (_, Key::Unresolved(_)) => return (Err(never_sent(stream, Action::Start)), Delivery::Prompt),
        (Service::Firehose, Key::AwsOwned) => start_firehose(stream, &json!({ "KeyType": "AWS_OWNED_CMK" })),
        (Service::Firehose, Key::Customer(arn)) => {
            start_firehose(stream, &json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": arn.to_string() }))
        }
        (Service::Kinesis, Key::AwsOwned) => change_kinesis("StartStreamEncryption", stream, KINESIS_ALIAS),
        (Service::Kinesis, Key::Customer(arn)) => {
            change_kinesis("StartStreamEncryption", stream, &arn.to_string())
        }
    };
    change(world, now, who, stream, Action::Start, &request)
}

/// Stop.
pub fn stop(
    world: &mut World,
    now: Timestamp,
    who: &Caller,
    stream: &StreamArn,
    in_force: Option<&Key>,
) -> Told<()> {
    let request = match (stream.service, in_force) {
        (Service::Firehose, _) => {
            Request::firehose("StopDeliveryStreamEncryption", json!({ "DeliveryStreamName": stream.name() }))
        }
        (Service::Kinesis, Some(Key::Customer(arn))) => {
            change_kinesis("StopStreamEncryption", stream, &arn.to_string())
        }
        (Service::Kinesis, Some(Key::Unresolved(name))) if name != UNNAMED => {
            change_kinesis("StopStreamEncryption", stream, name)
        }
        (Service::Kinesis, _) => change_kinesis("StopStreamEncryption", stream, KINESIS_ALIAS),
    };
    change(world, now, who, stream, Action::Stop, &request)
}

/// Whether a record comes back as encrypted.
pub fn put_record(world: &mut World, now: Timestamp, who: &Caller, stream: &StreamArn) -> Told<bool> {
    let (operation, request) = match stream.service {
        Service::Firehose => (
            Operation::PutFirehoseRecord,
            Request::firehose(
                "PutRecord",
                json!({ "DeliveryStreamName": stream.name(), "Record": { "Data": "" } }),
            ),
        ),
        Service::Kinesis => (
            Operation::PutKinesisRecord,
            Request::kinesis(
                "PutRecord",
                json!({ "StreamARN": stream.to_string(), "PartitionKey": "p", "Data": "" }),
            ),
        ),
    };
    let (answer, delivery) = told(operation, world.call(now, who, stream.region.as_str(), &request));
    let encrypted = |body: Value| body["Encrypted"] == json!(true) || body["EncryptionType"] == json!("KMS");
    (answer.map(encrypted), delivery)
}

/// Whose credentials these are: the account, or why AWS does not tell.
pub fn identity(world: &mut World, now: Timestamp, who: &Caller, region: &str) -> Told<String> {
    let request = Request::sts("GetCallerIdentity", json!({}));
    let (answer, delivery) = told(Operation::GetCallerIdentity, world.call(now, who, region, &request));
    (answer.map(|body| body["Account"].as_str().unwrap_or_default().to_owned()), delivery)
}

fn change(
    world: &mut World,
    now: Timestamp,
    who: &Caller,
    stream: &StreamArn,
    action: Action,
    request: &Request,
) -> Told<()> {
    let operation = Operation::change(stream.service, action);
    let (answer, delivery) = told(operation, world.call(now, who, stream.region.as_str(), request));
    (answer.map(drop), delivery)
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

fn never_sent(stream: &StreamArn, action: Action) -> Fault {
    let operation = Operation::change(stream.service, action);
    Fault { operation, class: Class::Invalid, code: Some("UnresolvedKey".to_owned()), message: String::new() }
}

/// The answer as the caller gets it: one that is lost or held back is none.
fn told(operation: Operation, reply: Reply) -> Told<Value> {
    let answer = match (reply.delivery, reply.result) {
        (Delivery::Lost | Delivery::Held, _) => Err(fault(operation, None)),
        (_, Ok(body)) => Ok(body),
        (_, Err(error)) => Err(fault(operation, Some(&error))),
    };
    (answer, reply.delivery)
}

/// What an error of AWS, or no answer at all, means.
#[must_use]
pub fn fault(operation: Operation, error: Option<&AwsError>) -> Fault {
    let Some(error) = error else {
        let class = classify(operation, Answer::None);
        return Fault { operation, class, code: None, message: String::new() };
    };
    let (status, said) = (error.status.to_string(), without_namespace(&error.code));
    let code = if said.is_empty() { status.as_str() } else { said };
    let answer = if said.is_empty() && operation.changes() {
        // Only a code shows that AWS itself refused. A status alone may be a proxy's, which may have passed the call on.
        Answer::None
    } else {
        let kms_code = error.kms_code.as_deref();
        Answer::Error { code, kms_code, message: &error.message, http: error.status }
    };
    let class = classify(operation, answer);
    Fault { operation, class, code: Some(word(code)), message: error.message.clone() }
}

/// AWS answered OK, but what it said cannot be read.
fn unreadable(operation: Operation) -> Fault {
    let code = Some("UnreadableAnswer".to_owned());
    Fault { operation, class: Class::Transient, code, message: String::new() }
}

/// `com.amazonaws.firehose#LimitExceededException:http://…` is `LimitExceededException`.
fn without_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code)
}

/// A word of AWS's, short enough to be kept.
fn word(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_WORD)].to_owned()
}

fn describe_key(
    world: &mut World,
    now: Timestamp,
    who: &Caller,
    region: &str,
    id: &str,
) -> Told<Option<KeyFacts>> {
    let request = Request::kms("DescribeKey", json!({ "KeyId": id }));
    let (answer, delivery) = told(Operation::DescribeKey, world.call(now, who, region, &request));
    let facts = match answer {
        Ok(body) => facts(&body["KeyMetadata"]).map(Some).ok_or_else(|| unreadable(Operation::DescribeKey)),
        Err(Fault { class: Class::NotFound, .. }) => Ok(None),
        Err(fault) => Err(fault),
    };
    (facts, delivery)
}

fn facts(metadata: &Value) -> Option<KeyFacts> {
    Some(KeyFacts {
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

fn text<'a>(of: &'a Value, member: &str) -> &'a str {
    of[member].as_str().unwrap_or_default()
}

fn created(description: &Value, member: &str) -> Option<Timestamp> {
    let seconds = description[member].as_f64()?;
    #[allow(clippy::cast_possible_truncation, reason = "microseconds of this century are exact in both")]
    let time = Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok()?;
    // As the adapters keep it: AWS writes milliseconds.
    time.round(Unit::Millisecond).ok()
}

fn arn_of(operation: Operation, description: &Value, member: &str) -> Result<StreamArn, Fault> {
    text(description, member).parse().map_err(|_| unreadable(operation))
}

fn firehose_look(description: &Value) -> Result<Look, Fault> {
    let word = text(description, "DeliveryStreamStatus");
    Ok(Look {
        arn: arn_of(Operation::DescribeDeliveryStream, description, "DeliveryStreamARN")?,
        created: created(description, "CreateTimestamp"),
        source: Some(text(description, "DeliveryStreamType").to_owned()),
        state: match word {
            "CREATING" => StreamState::Creating,
            "ACTIVE" => StreamState::Active,
            "DELETING" => StreamState::Deleting,
            "CREATING_FAILED" | "DELETING_FAILED" => StreamState::Broken,
            _ => StreamState::Unrecognized,
        },
        state_word: word.to_owned(),
        encryption: firehose_shown(&description["DeliveryStreamEncryptionConfiguration"]),
        retention: SignedDuration::from_hours(24),
    })
}

fn firehose_shown(block: &Value) -> Shown {
    let failed = |action| Shown::Failed {
        action,
        // AWS's own word for a failure of which it tells no more.
        reason: block["FailureDescription"]["Type"].as_str().unwrap_or("UNKNOWN_ERROR").to_owned(),
        details: text(&block["FailureDescription"], "Details").to_owned(),
    };
    match text(block, "Status") {
        "" | "DISABLED" => Shown::Off,
        "ENABLED" => firehose_key(block).map_or_else(Shown::Unknown, Shown::On),
        "ENABLING" => Shown::Enabling,
        "DISABLING" => Shown::Disabling,
        "ENABLING_FAILED" => failed(Action::Start),
        "DISABLING_FAILED" => failed(Action::Stop),
        word => Shown::Unknown(word.to_owned()),
    }
}

/// The key of a stream that is `ENABLED`, or the words for a key that the operator does not know.
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

fn kinesis_look(
    world: &mut World,
    now: Timestamp,
    who: &Caller,
    stream: &StreamArn,
    summary: &Value,
) -> Result<Look, Fault> {
    let state_word = text(summary, "StreamStatus");
    let encryption = match summary["EncryptionType"].as_str().unwrap_or("NONE") {
        "NONE" => Shown::Off,
        "KMS" => {
            let id = summary["KeyId"].as_str().unwrap_or(UNNAMED);
            Shown::On(kinesis_key(world, now, who, stream, id)?)
        }
        other => Shown::Unknown(other.to_owned()),
    };
    Ok(Look {
        arn: arn_of(Operation::DescribeStreamSummary, summary, "StreamARN")?,
        created: created(summary, "StreamCreationTimestamp"),
        source: None,
        state: match state_word {
            "CREATING" => StreamState::Creating,
            "ACTIVE" => StreamState::Active,
            "UPDATING" => StreamState::Updating,
            "DELETING" => StreamState::Deleting,
            _ => StreamState::Unrecognized,
        },
        state_word: state_word.to_owned(),
        encryption,
        retention: SignedDuration::from_hours(summary["RetentionPeriodHours"].as_i64().unwrap_or_default()),
    })
}

/// The key that Kinesis names in one of its forms.
fn kinesis_key(
    world: &mut World,
    now: Timestamp,
    who: &Caller,
    stream: &StreamArn,
    id: &str,
) -> Result<Key, Fault> {
    let unresolved = || Key::Unresolved(id.to_owned());
    let alias = id.rsplit(':').next().filter(|name| name.starts_with("alias/"));
    if alias == Some(KINESIS_ALIAS) {
        return Ok(Key::AwsOwned);
    }
    if alias.is_some() {
        return match describe_key(world, now, who, stream.region.as_str(), id).0 {
            Ok(Some(facts)) if facts.aws_managed => Ok(Key::AwsOwned),
            Ok(Some(facts)) => Ok(Key::Customer(facts.arn)),
            Err(fault) if may_answer_later(&fault) => Err(fault),
            Ok(None) | Err(_) => Ok(unresolved()),
        };
    }
    let by_id =
        || KeyArn::new(stream.partition.clone(), stream.region.clone(), stream.account.clone(), id).ok();
    let arn = id.parse().ok().or_else(by_id);
    let Some(arn) = arn.filter(|_| id != UNNAMED) else { return Ok(unresolved()) };
    match describe_key(world, now, who, arn.region.as_str(), &arn.to_string()).0 {
        Ok(Some(facts)) if facts.aws_managed => Ok(Key::AwsOwned),
        Err(fault) if may_answer_later(&fault) => Err(fault),
        Ok(_) | Err(_) => Ok(Key::Customer(arn)),
    }
}

/// A key that KMS cannot name just now must not look like another key.
fn may_answer_later(fault: &Fault) -> bool {
    fault.class.leaves_the_question_open()
}
