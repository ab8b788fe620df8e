//! Requests and responses of the Kinesis adapter, with recorded responses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::replay::{ReplayClient, assuming, sender, sender_with_sts, session, signer, somebody};
use super::*;

const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ALIAS_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:alias/orders";

fn clicks() -> StreamArn {
    "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap()
}

fn kinesis(recorded: &ReplayClient) -> Kinesis {
    let kms = Kms::new(recorded.config(), sender());
    Kinesis::new(recorded.config(), sender(), Arc::new(kms))
}

fn summary(status: &str, encryption: &Value) -> (u16, String) {
    let mut summary = json!({
        "StreamName": "clicks", "StreamARN": clicks().to_string(), "StreamStatus": status, "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_763_683_200, "EnhancedMonitoring": [], "OpenShardCount": 1,
    });
    for (name, value) in encryption.as_object().unwrap() {
        summary[name] = value.clone();
    }
    (200, json!({ "StreamDescriptionSummary": summary }).to_string())
}

fn key_metadata(manager: &str) -> (u16, String) {
    let metadata = json!({
        "KeyId": ID, "Arn": KEY, "KeyManager": manager, "KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT", "Enabled": true,
    });
    (200, json!({ "KeyMetadata": metadata }).to_string())
}

fn refusal(code: &str) -> (u16, String) {
    (400, json!({"__type": code, "message": "recorded"}).to_string())
}

#[tokio::test(start_paused = true)]
async fn every_form_of_key_name_is_resolved() {
    let customer = || ReportedEncryption::On(Key::Customer(KEY.parse().unwrap()));
    let owned = || ReportedEncryption::On(Key::AwsOwned);
    let unresolved = |name: &str| ReportedEncryption::On(Key::Unresolved(name.to_owned()));
    let kms = |key_id: &str| json!({"EncryptionType": "KMS", "KeyId": key_id});
    let ours = || Some(key_metadata("CUSTOMER"));
    let of_aws = || Some(key_metadata("AWS"));
    for (encryption, answer_of_kms, asked_of_kms, shown) in [
        (json!({}), None, None, ReportedEncryption::Off),
        (json!({"EncryptionType": "NONE"}), None, None, ReportedEncryption::Off),
        (json!({"EncryptionType": "NONE", "KeyId": KEY}), None, None, ReportedEncryption::Off),
        (json!({"EncryptionType": "ROT13"}), None, None, ReportedEncryption::Unknown("ROT13".to_owned())),
        (json!({"EncryptionType": "KMS"}), None, None, unresolved(UNNAMED)),
        (kms("alias/aws/kinesis"), None, None, owned()),
        (kms("arn:aws:kms:eu-west-1:111122223333:alias/aws/kinesis"), None, None, owned()),
        (kms(KEY), ours(), Some(KEY), customer()),
        (kms(KEY), of_aws(), Some(KEY), owned()),
        (kms(KEY), Some(refusal("AccessDeniedException")), Some(KEY), customer()),
        (kms(KEY), Some(refusal("NotFoundException")), Some(KEY), customer()),
        (kms(ID), ours(), Some(KEY), customer()),
        (kms(ID), of_aws(), Some(KEY), owned()),
        (kms("alias/orders"), ours(), Some("alias/orders"), customer()),
        (kms("alias/orders"), of_aws(), Some("alias/orders"), owned()),
        (kms(ALIAS_ARN), ours(), Some(ALIAS_ARN), customer()),
        (kms(ALIAS_ARN), Some(refusal("AccessDeniedException")), Some(ALIAS_ARN), unresolved(ALIAS_ARN)),
        (kms("alias/gone"), Some(refusal("NotFoundException")), Some("alias/gone"), unresolved("alias/gone")),
        (kms("not a key"), None, None, unresolved("not a key")),
    ] {
        let recorded =
            ReplayClient::answers([summary("ACTIVE", &encryption)].into_iter().chain(answer_of_kms));
        let description = kinesis(&recorded)
            .describe_stream(&clicks(), &somebody(), Priority::Drift)
            .await
            .unwrap()
            .unwrap()
            .0;
        assert_eq!(description.encryption, shown, "{encryption}");
        let asked: Vec<Value> = recorded.sent().into_iter().skip(1).map(|sent| sent.body).collect();
        assert_eq!(
            asked,
            asked_of_kms.map(|key_id| json!({"KeyId": key_id})).into_iter().collect::<Vec<_>>()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_kms_is_not_reported_as_another_key() {
    for key_id in [KEY, "alias/orders"] {
        let shown = summary("ACTIVE", &json!({"EncryptionType": "KMS", "KeyId": key_id}));
        let recorded =
            ReplayClient::answers([shown].into_iter().chain((0..3).map(|_| refusal("ThrottlingException"))));
        let error =
            kinesis(&recorded).describe_stream(&clicks(), &somebody(), Priority::Drift).await.unwrap_err();
        assert_eq!((error.operation, error.kind), (Operation::DescribeKey, ErrorKind::Throttled));
        assert_eq!(recorded.sent().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn denied_assume_role_is_not_reported_as_another_key() {
    // Each read of this clock advances it by an hour, so no session lasts until the next request.
    let hours = Arc::new(AtomicU64::new(0));
    let hasty = Arc::new(move || {
        SystemTime::now()
            + Duration::from_hours(1) * u32::try_from(hours.fetch_add(1, Ordering::Relaxed)).unwrap()
    });
    for key_id in [KEY, "alias/orders"] {
        let denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
        let shown = summary("ACTIVE", &json!({"EncryptionType": "KMS", "KeyId": key_id}));
        let assumed = || (200, session("ASIA"));
        let recorded = ReplayClient::answers([assumed(), assumed(), shown, (403, denied.to_owned())]);
        let sender = sender_with_sts(&recorded, hasty.clone());
        let kms = Arc::new(Kms::new(recorded.config(), sender.clone()));
        let kinesis = Kinesis::new(recorded.config(), sender, kms);
        let error =
            kinesis.describe_stream(&clicks(), &assuming("clicks"), Priority::Drift).await.unwrap_err();
        assert_eq!((error.operation, error.kind), (Operation::AssumeRole, ErrorKind::Denied));
        // The first session is obtained before the wait for the rate limiter.
        let sent = ["AssumeRole", "AssumeRole", "DescribeStreamSummary", "AssumeRole"];
        assert_eq!(recorded.operations(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn aws_managed_flag_of_a_key_is_cached() {
    let shown = || summary("ACTIVE", &json!({"EncryptionType": "KMS", "KeyId": KEY}));
    let recorded = ReplayClient::answers([shown(), key_metadata("AWS"), shown(), shown()]);
    let kinesis = kinesis(&recorded);
    for _ in 0..3 {
        let description =
            kinesis.describe_stream(&clicks(), &somebody(), Priority::Drift).await.unwrap().unwrap().0;
        assert_eq!(description.encryption, ReportedEncryption::On(Key::AwsOwned));
    }
    assert_eq!(recorded.operations().iter().filter(|operation| *operation == "DescribeKey").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn stream_is_described_by_its_arn() {
    for (word, state) in [
        ("CREATING", StreamState::Creating),
        ("ACTIVE", StreamState::Active),
        ("UPDATING", StreamState::Updating),
        ("DELETING", StreamState::Deleting),
        ("FROZEN", StreamState::Unrecognized),
    ] {
        let recorded = ReplayClient::answers([summary(word, &json!({"EncryptionType": "NONE"}))]);
        let description = kinesis(&recorded)
            .describe_stream(&clicks(), &somebody(), Priority::Drift)
            .await
            .unwrap()
            .unwrap()
            .0;
        assert_eq!((description.state, description.raw_status.as_str()), (state, word));
        assert_eq!((description.arn, description.source), (clicks(), None));
        assert_eq!(description.created, Some("2025-11-21T00:00:00Z".parse().unwrap()));
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.operation, "DescribeStreamSummary");
        assert_eq!(sent.body, json!({"StreamARN": clicks().to_string()}));
        assert_eq!(sent.host, "111122223333.control-kinesis.eu-west-1.amazonaws.com");
    }
}

#[tokio::test(start_paused = true)]
async fn omitted_retention_is_the_longest() {
    let (status, body) = summary("ACTIVE", &json!({}));
    let body = body.replace("\"RetentionPeriodHours\":24,", "");
    assert!(!body.contains("Retention"));
    let recorded = ReplayClient::answers([(status, body)]);
    let description =
        kinesis(&recorded).describe_stream(&clicks(), &somebody(), Priority::Drift).await.unwrap().unwrap().0;
    assert_eq!(description.retention, profile(Service::Kinesis).longest_retention);
}

#[tokio::test(start_paused = true)]
async fn missing_stream_is_not_an_error() {
    let recorded = ReplayClient::answers([refusal("ResourceNotFoundException")]);
    assert_eq!(kinesis(&recorded).describe_stream(&clicks(), &somebody(), Priority::Drift).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn start_names_key_by_arn_or_kinesis_alias() {
    for (key, key_id) in [(Key::AwsOwned, "alias/aws/kinesis"), (Key::Customer(KEY.parse().unwrap()), KEY)] {
        let recorded = ReplayClient::answers([(200, "")]);
        kinesis(&recorded)
            .start(&clicks(), &key, &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.operation, "StartStreamEncryption");
        assert_eq!(
            sent.body,
            json!({"StreamARN": clicks().to_string(), "EncryptionType": "KMS", "KeyId": key_id})
        );
    }
    let recorded = ReplayClient::default();
    let error = kinesis(&recorded)
        .start(&clicks(), &Key::Unresolved("x".to_owned()), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap_err();
    assert_eq!((error.kind, recorded.sent().len()), (ErrorKind::Invalid, 0));
}

#[tokio::test(start_paused = true)]
async fn stop_names_the_active_key() {
    let unresolved = |name: &str| Some(Key::Unresolved(name.to_owned()));
    for (active_key, key_id) in [
        (None, "alias/aws/kinesis"),
        (Some(Key::AwsOwned), "alias/aws/kinesis"),
        (Some(Key::Customer(KEY.parse().unwrap())), KEY),
        (unresolved("alias/gone"), "alias/gone"),
        (unresolved(UNNAMED), "alias/aws/kinesis"),
    ] {
        let recorded = ReplayClient::answers([(200, "")]);
        kinesis(&recorded)
            .stop(&clicks(), active_key.as_ref(), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.operation, "StopStreamEncryption");
        assert_eq!(
            sent.body,
            json!({"StreamARN": clicks().to_string(), "EncryptionType": "KMS", "KeyId": key_id})
        );
    }
}

#[tokio::test(start_paused = true)]
async fn record_is_encrypted_only_if_response_confirms_it() {
    for (encryption, encrypted) in [
        (json!({"EncryptionType": "KMS"}), true),
        (json!({"EncryptionType": "NONE"}), false),
        (json!({}), false),
    ] {
        let mut answer = encryption;
        answer["ShardId"] = json!("shardId-000000000000");
        answer["SequenceNumber"] = json!("1");
        let recorded = ReplayClient::answers([(200, answer.to_string())]);
        assert_eq!(
            kinesis(&recorded).put_record(&clicks(), "marked", &somebody(), &signer()).await,
            Ok(encrypted)
        );
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.body["PartitionKey"], json!(PARTITION_KEY));
        assert_eq!(sent.body["StreamARN"], json!(clicks().to_string()));
    }
}
