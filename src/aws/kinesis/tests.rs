//! How the Kinesis adapter reads and writes AWS, against recorded answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::recorded::{Recorded, assuming, calls, calls_of, session, signer, somebody};
use super::*;

const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ALIAS_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:alias/orders";

fn clicks() -> StreamArn {
    "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap()
}

fn kinesis(recorded: &Recorded) -> Kinesis {
    let kms = Kms::new(recorded.config(), calls());
    Kinesis::new(recorded.config(), calls(), Arc::new(kms))
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
async fn every_form_in_which_kinesis_names_a_key_is_read() {
    let customer = || Shown::On(Key::Customer(KEY.parse().unwrap()));
    let owned = || Shown::On(Key::AwsOwned);
    let unresolved = |name: &str| Shown::On(Key::Unresolved(name.to_owned()));
    let kms = |key_id: &str| json!({"EncryptionType": "KMS", "KeyId": key_id});
    let ours = || Some(key_metadata("CUSTOMER"));
    let of_aws = || Some(key_metadata("AWS"));
    for (encryption, answer_of_kms, asked_of_kms, shown) in [
        (json!({}), None, None, Shown::Off),
        (json!({"EncryptionType": "NONE"}), None, None, Shown::Off),
        (json!({"EncryptionType": "NONE", "KeyId": KEY}), None, None, Shown::Off),
        (json!({"EncryptionType": "ROT13"}), None, None, Shown::Unknown("ROT13".to_owned())),
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
        let recorded = Recorded::answers([summary("ACTIVE", &encryption)].into_iter().chain(answer_of_kms));
        let look = kinesis(&recorded).look(&clicks(), &somebody(), Urgency::Drift).await.unwrap().unwrap().0;
        assert_eq!(look.encryption, shown, "{encryption}");
        let asked: Vec<Value> = recorded.sent().into_iter().skip(1).map(|sent| sent.body).collect();
        assert_eq!(
            asked,
            asked_of_kms.map(|key_id| json!({"KeyId": key_id})).into_iter().collect::<Vec<_>>()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_kms_cannot_name_just_now_does_not_look_like_another_key() {
    for key_id in [KEY, "alias/orders"] {
        let shown = summary("ACTIVE", &json!({"EncryptionType": "KMS", "KeyId": key_id}));
        let recorded =
            Recorded::answers([shown].into_iter().chain((0..3).map(|_| refusal("ThrottlingException"))));
        let fault = kinesis(&recorded).look(&clicks(), &somebody(), Urgency::Drift).await.unwrap_err();
        assert_eq!((fault.operation, fault.class), (Operation::DescribeKey, Class::Throttled));
        assert_eq!(recorded.sent().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_cannot_be_assumed_to_ask_kms_does_not_make_a_key_look_like_another_one() {
    // On this clock an hour passes whenever it is read: no session lasts until the next request.
    let hours = Arc::new(AtomicU64::new(0));
    let hasty = Arc::new(move || {
        SystemTime::now()
            + Duration::from_hours(1) * u32::try_from(hours.fetch_add(1, Ordering::Relaxed)).unwrap()
    });
    for key_id in [KEY, "alias/orders"] {
        let denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
        let shown = summary("ACTIVE", &json!({"EncryptionType": "KMS", "KeyId": key_id}));
        let recorded = Recorded::answers([(200, session("ASIA")), shown, (403, denied.to_owned())]);
        let calls = calls_of(&recorded, hasty.clone());
        let kms = Arc::new(Kms::new(recorded.config(), calls.clone()));
        let kinesis = Kinesis::new(recorded.config(), calls, kms);
        let fault = kinesis.look(&clicks(), &assuming("clicks"), Urgency::Drift).await.unwrap_err();
        assert_eq!((fault.operation, fault.class), (Operation::AssumeRole, Class::Denied));
        assert_eq!(recorded.operations(), ["AssumeRole", "DescribeStreamSummary", "AssumeRole"]);
    }
}

#[tokio::test(start_paused = true)]
async fn kms_is_asked_once_whether_aws_manages_a_key() {
    let shown = || summary("ACTIVE", &json!({"EncryptionType": "KMS", "KeyId": KEY}));
    let recorded = Recorded::answers([shown(), key_metadata("AWS"), shown(), shown()]);
    let kinesis = kinesis(&recorded);
    for _ in 0..3 {
        let look = kinesis.look(&clicks(), &somebody(), Urgency::Drift).await.unwrap().unwrap().0;
        assert_eq!(look.encryption, Shown::On(Key::AwsOwned));
    }
    assert_eq!(recorded.operations().iter().filter(|operation| *operation == "DescribeKey").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_stream_itself_is_read_by_its_arn() {
    for (word, state) in [
        ("CREATING", StreamState::Creating),
        ("ACTIVE", StreamState::Active),
        ("UPDATING", StreamState::Updating),
        ("DELETING", StreamState::Deleting),
        ("FROZEN", StreamState::Unrecognized),
    ] {
        let recorded = Recorded::answers([summary(word, &json!({"EncryptionType": "NONE"}))]);
        let look = kinesis(&recorded).look(&clicks(), &somebody(), Urgency::Drift).await.unwrap().unwrap().0;
        assert_eq!((look.state, look.state_word.as_str()), (state, word));
        assert_eq!((look.arn, look.source), (clicks(), None));
        assert_eq!(look.created, Some("2025-11-21T00:00:00Z".parse().unwrap()));
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.operation, "DescribeStreamSummary");
        assert_eq!(sent.body, json!({"StreamARN": clicks().to_string()}));
        assert_eq!(sent.host, "111122223333.control-kinesis.eu-west-1.amazonaws.com");
    }
}

#[tokio::test(start_paused = true)]
async fn retention_that_kinesis_does_not_show_is_the_longest() {
    let (status, body) = summary("ACTIVE", &json!({}));
    let body = body.replace("\"RetentionPeriodHours\":24,", "");
    assert!(!body.contains("Retention"));
    let recorded = Recorded::answers([(status, body)]);
    let look = kinesis(&recorded).look(&clicks(), &somebody(), Urgency::Drift).await.unwrap().unwrap().0;
    assert_eq!(look.retention, longest_retention(Service::Kinesis));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_kinesis_does_not_know_is_no_fault() {
    let recorded = Recorded::answers([refusal("ResourceNotFoundException")]);
    assert_eq!(kinesis(&recorded).look(&clicks(), &somebody(), Urgency::Drift).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn start_names_the_key_by_arn_or_by_the_alias_of_kinesis() {
    for (key, key_id) in [(Key::AwsOwned, "alias/aws/kinesis"), (Key::Customer(KEY.parse().unwrap()), KEY)] {
        let recorded = Recorded::answers([(200, "")]);
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
    let recorded = Recorded::default();
    let fault = kinesis(&recorded)
        .start(&clicks(), &Key::Unresolved("x".to_owned()), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap_err();
    assert_eq!((fault.class, recorded.sent().len()), (Class::Invalid, 0));
}

#[tokio::test(start_paused = true)]
async fn stop_names_the_key_in_force() {
    let unresolved = |name: &str| Some(Key::Unresolved(name.to_owned()));
    for (in_force, key_id) in [
        (None, "alias/aws/kinesis"),
        (Some(Key::AwsOwned), "alias/aws/kinesis"),
        (Some(Key::Customer(KEY.parse().unwrap())), KEY),
        (unresolved("alias/gone"), "alias/gone"),
        (unresolved(UNNAMED), "alias/aws/kinesis"),
    ] {
        let recorded = Recorded::answers([(200, "")]);
        kinesis(&recorded)
            .stop(&clicks(), in_force.as_ref(), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
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
async fn only_an_answer_that_says_so_proves_that_a_record_was_encrypted() {
    for (encryption, encrypted) in [
        (json!({"EncryptionType": "KMS"}), true),
        (json!({"EncryptionType": "NONE"}), false),
        (json!({}), false),
    ] {
        let mut answer = encryption;
        answer["ShardId"] = json!("shardId-000000000000");
        answer["SequenceNumber"] = json!("1");
        let recorded = Recorded::answers([(200, answer.to_string())]);
        assert_eq!(
            kinesis(&recorded).put_record(&clicks(), "marked", &somebody(), &signer()).await,
            Ok(encrypted)
        );
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.body["PartitionKey"], json!(PARTITION_KEY));
        assert_eq!(sent.body["StreamARN"], json!(clicks().to_string()));
    }
}
