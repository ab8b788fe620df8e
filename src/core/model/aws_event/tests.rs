//! Events in the form of EventBridge and CloudTrail, as AWS documents and as recorded.

use serde_json::{Value, json};

use super::*;

const ACCOUNT: &str = "111122223333";
const REGION: &str = "eu-west-1";

/// Returns an event of EventBridge with this record of CloudTrail.
fn envelope(service: &str, record: &Value) -> Value {
    json!({
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "AWS API Call via CloudTrail", "source": format!("aws.{service}"),
        "account": ACCOUNT, "time": "2026-11-28T07:00:01Z", "region": REGION, "resources": [], "detail": record,
    })
}

fn record(service: &str, name: &str, parameters: &Value) -> Value {
    json!({
        "eventVersion": "1.11", "eventSource": format!("{service}.amazonaws.com"), "eventName": name,
        "eventTime": "2026-11-28T07:00:00Z", "awsRegion": REGION, "eventID": "efeccbd9-0000-4000-8000-000000000001",
        "requestID": "c0ffee00-0000-4000-8000-000000000001", "requestParameters": parameters,
        "responseElements": null, "readOnly": false, "managementEvent": true, "recipientAccountId": ACCOUNT,
        "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/ci/me"},
    })
}

fn event(service: &str, name: &str, parameters: &Value) -> Value {
    envelope(service, &record(service, name, parameters))
}

fn subject_of(event: &Value) -> Result<Subject, EventError> {
    parse(&event.to_string()).map(|event| event.subject)
}

fn kinesis_call() -> Value {
    let arn = format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks");
    event(
        "kinesis",
        "StopStreamEncryption",
        &json!({"encryptionType": "KMS", "keyId": "alias/aws/kinesis", "streamARN": arn}),
    )
}

#[test]
fn call_is_read_with_its_ids_time_and_caller() {
    let parsed = parse(&kinesis_call().to_string()).unwrap();
    let time = "2026-11-28T07:00:00Z".parse().unwrap();
    assert_eq!(parsed.time, time, "of the call, not of its delivery");
    assert_eq!((parsed.scope.account.as_str(), parsed.scope.region.as_str()), (ACCOUNT, REGION));
    let Subject::Call(stream, call) = parsed.subject else { panic!("{parsed:?}") };
    assert_eq!(stream.to_string(), format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks"));
    let expected = CallEvent {
        event_id: "efeccbd9-0000-4000-8000-000000000001".to_owned(),
        request_id: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
        action: Action::Stop,
        time,
        caller_type: Some("AssumedRole".to_owned()),
        code: None,
    };
    assert_eq!(call, expected);
}

#[test]
fn recorded_event_of_cloudtrail_is_read() {
    let mut recorded: Value = serde_json::from_str(include_str!("cloudtrail-kinesis-start.json")).unwrap();
    let mut detail = record("kinesis", "", &Value::Null);
    // The recording has the members that its source asserts; those of every record are added.
    for (member, value) in recorded["body"].as_object_mut().unwrap() {
        detail[member] = value.take();
    }
    detail["awsRegion"] = json!("us-east-1");
    let mut event = envelope("kinesis", &detail);
    event["region"] = json!("us-east-1");
    let Ok(Subject::Call(stream, call)) = subject_of(&event) else { panic!("{event}") };
    assert_eq!(stream.to_string(), "arn:aws:kinesis:us-east-1:111122223333:stream/clicks");
    assert_eq!(call.action, Action::Start);
}

#[test]
fn stream_is_found_by_its_name_in_the_account_of_the_event() {
    for (service, name, parameter, kind) in [
        ("firehose", "StartDeliveryStreamEncryption", "deliveryStreamName", "deliverystream"),
        ("firehose", "StopDeliveryStreamEncryption", "deliveryStreamName", "deliverystream"),
        ("firehose", "CreateDeliveryStream", "deliveryStreamName", "deliverystream"),
        ("firehose", "DeleteDeliveryStream", "deliveryStreamName", "deliverystream"),
        ("kinesis", "StartStreamEncryption", "streamName", "stream"),
        ("kinesis", "CreateStream", "streamName", "stream"),
        ("kinesis", "DeleteStream", "streamName", "stream"),
    ] {
        let arn: StreamArn = format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{kind}/orders").parse().unwrap();
        match subject_of(&event(service, name, &json!({parameter: "orders"}))) {
            Ok(Subject::Call(stream, _)) if name.ends_with("Encryption") => assert_eq!(stream, arn),
            Ok(Subject::Stream(stream)) => assert_eq!(stream, arn),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn key_and_alias_are_read_in_each_form() {
    let id = "22222222-2222-4222-8222-222222222222";
    let arn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}");
    for name in [
        "DisableKey",
        "EnableKey",
        "ScheduleKeyDeletion",
        "CancelKeyDeletion",
        "PutKeyPolicy",
        "ImportKeyMaterial",
        "DeleteImportedKeyMaterial",
    ] {
        for key in [id, &arn] {
            let subject = subject_of(&event("kms", name, &json!({"keyId": key})));
            assert_eq!(subject, Ok(Subject::Key(arn.parse().unwrap())), "{name} {key}");
        }
    }
    for name in ["CreateAlias", "UpdateAlias", "DeleteAlias"] {
        let subject =
            subject_of(&event("kms", name, &json!({"aliasName": "alias/orders", "targetKeyId": id})));
        assert_eq!(subject, Ok(Subject::Alias("alias/orders".to_owned())), "{name}");
    }
}

/// As AWS documents it
/// ([DeleteExpiredKeyMaterial](https://docs.aws.amazon.com/kms/latest/developerguide/ct-deleteexpiredkeymaterial.html)).
#[test]
fn expiry_of_key_material_is_read_without_a_request() {
    let id = "22222222-2222-4222-8222-222222222222";
    let mut event = event("kms", "DeleteExpiredKeyMaterial", &Value::Null);
    event["detail-type"] = json!("AWS Service Event via CloudTrail");
    event["detail"]["eventType"] = json!("AwsServiceEvent");
    event["detail"]["serviceEventDetails"] = json!({"keyId": id});
    let arn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}");
    assert_eq!(subject_of(&event), Ok(Subject::Key(arn.parse().unwrap())));
}

#[test]
fn key_of_another_account_than_the_event_is_invalid() {
    let id = "22222222-2222-4222-8222-222222222222";
    for arn in [
        format!("arn:aws:kms:{REGION}:444455556666:key/{id}"),
        format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/{id}"),
    ] {
        let subject = subject_of(&event("kms", "DisableKey", &json!({"keyId": arn})));
        assert_eq!(subject, Err(EventError::Invalid("keyId")), "{arn}");
    }
}

#[test]
fn scheduled_event_is_a_heartbeat() {
    let event = json!({
        "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event",
        "source": "aws.events", "account": ACCOUNT, "time": "2026-11-28T07:00:00Z", "region": REGION,
        "resources": ["arn:aws:events:eu-west-1:111122223333:rule/heartbeat"], "detail": {},
    });
    assert_eq!(subject_of(&event), Ok(Subject::Heartbeat));
}

#[test]
fn event_that_contradicts_itself_is_invalid() {
    let changed = |pointer: &str, value: Value| {
        let mut event = kinesis_call();
        *event.pointer_mut(pointer).unwrap() = value;
        event
    };
    let elsewhere = format!("arn:aws:kinesis:{REGION}:444455556666:stream/clicks");
    let mut long_code = kinesis_call();
    long_code["detail"]["errorCode"] = json!("x".repeat(129));
    for (event, what) in [
        (changed("/account", json!("444455556666")), "streamARN"),
        (changed("/account", json!("ops")), "account"),
        (changed("/region", json!("us-east-1")), "awsRegion"),
        (changed("/region", json!("nowhere")), "region"),
        (changed("/detail/awsRegion", json!("us-east-1")), "awsRegion"),
        (changed("/detail/eventSource", json!("firehose.amazonaws.com")), "eventSource"),
        (changed("/source", json!("custom.kinesis")), "eventSource"),
        (changed("/detail/requestParameters/streamARN", json!(elsewhere)), "streamARN"),
        (changed("/detail/requestParameters", Value::Null), "requestParameters"),
        (changed("/detail/requestParameters", json!({"streamName": "a/b"})), "name of the stream"),
        (changed("/detail/eventID", json!("")), "eventID"),
        (changed("/detail/eventID", json!("x".repeat(65))), "eventID"),
        (changed("/detail/requestID", Value::Null), "requestID"),
        (long_code, "errorCode"),
    ] {
        assert_eq!(subject_of(&event), Err(EventError::Invalid(what)), "{event}");
    }
}

#[test]
fn other_events_are_unrelated() {
    for event in [
        event("kinesis", "IncreaseStreamRetentionPeriod", &json!({"streamName": "orders"})),
        event("firehose", "StartStreamEncryption", &json!({"streamName": "orders"})),
        event("s3", "CreateBucket", &json!({"bucketName": "orders"})),
        json!({"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification",
            "account": ACCOUNT, "region": REGION, "time": "2026-11-28T07:00:00Z", "detail": {"state": "running"}}),
    ] {
        assert_eq!(subject_of(&event), Err(EventError::Unrelated), "{event}");
    }
}

#[test]
fn text_of_any_other_form_is_no_event() {
    for text in ["", "null", "[]", "{}", "{\"source\": 7}", "\u{0}", "{\"detail\":"] {
        assert_eq!(parse(text), Err(EventError::NotAnEvent), "{text:?}");
    }
    assert_eq!(parse(&" ".repeat(MAX_EVENT_BYTES + 1)), Err(EventError::TooLong));
    // Deep nesting must not overflow the stack.
    assert_eq!(parse(&"[".repeat(MAX_EVENT_BYTES)), Err(EventError::NotAnEvent));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_fail(text in ".{0,200}", at in 0_usize..900, byte in proptest::prelude::any::<u8>()) {
        let _ = parse(&text);
        let mut valid = kinesis_call().to_string().into_bytes();
        let at = at.min(valid.len() - 1);
        valid[at] = byte;
        if let Ok(text) = String::from_utf8(valid) {
            let _ = parse(&text);
        }
    }
}
