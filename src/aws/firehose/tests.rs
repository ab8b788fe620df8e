//! How the Firehose adapter reads and writes AWS, against recorded answers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::recorded::{Recorded, calls, signer, somebody};
use super::*;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn orders() -> StreamArn {
    "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap()
}

fn firehose(recorded: &Recorded) -> Firehose {
    Firehose::new(recorded.config(), calls())
}

fn described(status: &str, source: &str, encryption: &Value) -> String {
    let mut description = json!({
        "DeliveryStreamARN": orders().to_string(), "DeliveryStreamName": "orders", "DeliveryStreamStatus": status,
        "DeliveryStreamType": source, "VersionId": "1", "CreateTimestamp": 1.763_683_200_5e9, "HasMoreDestinations": false,
        "Destinations": [{"DestinationId": "destinationId-000000000001"}],
    });
    if !encryption.is_null() {
        description["DeliveryStreamEncryptionConfiguration"] = encryption.clone();
    }
    json!({ "DeliveryStreamDescription": description }).to_string()
}

async fn look_at(body: String) -> Look {
    let recorded = Recorded::answers([(200, body)]);
    firehose(&recorded).look(&orders(), &somebody(), Urgency::Drift).await.unwrap().unwrap().0
}

#[tokio::test(start_paused = true)]
async fn every_way_in_which_firehose_shows_encryption_is_read() {
    let customer = || Key::Customer(KEY.parse().unwrap());
    let alias = "arn:aws:kms:eu-west-1:111122223333:alias/orders";
    let failed = |action, reason: &str, details: &str| Shown::Failed {
        action,
        reason: reason.to_owned(),
        details: details.to_owned(),
    };
    let denied = json!({"Type": "KMS_ACCESS_DENIED", "Details": "no grant"});
    for (encryption, shown) in [
        (Value::Null, Shown::Off),
        (json!({}), Shown::Off),
        // moto after Create with encryption asked for.
        (json!({"KeyType": "AWS_OWNED_CMK"}), Shown::Off),
        (json!({"Status": "DISABLED"}), Shown::Off),
        // moto after Stop.
        (json!({"Status": "DISABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}), Shown::Off),
        (json!({"Status": "ENABLED", "KeyType": "AWS_OWNED_CMK"}), Shown::On(Key::AwsOwned)),
        (
            json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}),
            Shown::On(customer()),
        ),
        (
            json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": alias}),
            Shown::On(Key::Unresolved(alias.to_owned())),
        ),
        (
            json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK"}),
            Shown::On(Key::Unresolved("CUSTOMER_MANAGED_CMK".to_owned())),
        ),
        (json!({"Status": "ENABLED"}), Shown::Unknown("ENABLED, no KeyType".to_owned())),
        (
            json!({"Status": "ENABLED", "KeyType": "NEW", "KeyARN": KEY}),
            Shown::Unknown("ENABLED, KeyType NEW".to_owned()),
        ),
        (json!({"Status": "ENABLING", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}), Shown::Enabling),
        (json!({"Status": "DISABLING"}), Shown::Disabling),
        (
            json!({"Status": "ENABLING_FAILED", "FailureDescription": denied}),
            failed(Action::Start, "KMS_ACCESS_DENIED", "no grant"),
        ),
        (json!({"Status": "ENABLING_FAILED"}), failed(Action::Start, "UNKNOWN_ERROR", "")),
        (
            json!({"Status": "DISABLING_FAILED", "FailureDescription": {"Type": "RETIRE_KMS_GRANT_FAILED", "Details": "x"}}),
            failed(Action::Stop, "RETIRE_KMS_GRANT_FAILED", "x"),
        ),
        (json!({"Status": "DISABLING_FAILED"}), failed(Action::Stop, "UNKNOWN_ERROR", "")),
        (json!({"Status": "ROTATING"}), Shown::Unknown("ROTATING".to_owned())),
    ] {
        assert_eq!(
            look_at(described("ACTIVE", "DirectPut", &encryption)).await.encryption,
            shown,
            "{encryption}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_itself_is_read() {
    for (word, state) in [
        ("CREATING", StreamState::Creating),
        ("ACTIVE", StreamState::Active),
        ("DELETING", StreamState::Deleting),
        ("CREATING_FAILED", StreamState::Broken),
        ("DELETING_FAILED", StreamState::Broken),
        ("SUSPENDED", StreamState::Unrecognized),
    ] {
        let look = look_at(described(word, "MSKAsSource", &Value::Null)).await;
        assert_eq!((look.state, look.state_word.as_str()), (state, word));
        assert_eq!(look.arn, orders());
        assert_eq!(look.source.as_deref(), Some("MSKAsSource"));
        assert_eq!(look.created, Some("2025-11-21T00:00:00.5Z".parse().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn member_that_firehose_leaves_out_is_no_word() {
    let without = |member: &str| {
        let mut body: Value = serde_json::from_str(&described("ACTIVE", "DirectPut", &Value::Null)).unwrap();
        body["DeliveryStreamDescription"].as_object_mut().unwrap().remove(member);
        body.to_string()
    };
    let look = look_at(without("DeliveryStreamType")).await;
    assert_eq!((look.source, look.state), (None, StreamState::Active));
    let look = look_at(without("DeliveryStreamStatus")).await;
    assert_eq!((look.state_word.as_str(), look.state), ("", StreamState::Unrecognized));
}

#[tokio::test(start_paused = true)]
async fn encryption_beside_a_left_out_member_is_read() {
    let denied = json!({"Type": "KMS_ACCESS_DENIED", "Details": "no grant"});
    for encryption in [
        json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}),
        json!({"Status": "ENABLING_FAILED", "FailureDescription": denied}),
    ] {
        let whole = described("ACTIVE", "DirectPut", &encryption);
        let mut body: Value = serde_json::from_str(&whole).unwrap();
        body["DeliveryStreamDescription"].as_object_mut().unwrap().remove("DeliveryStreamType");
        let (left_out, whole) = (look_at(body.to_string()).await, look_at(whole).await);
        assert_eq!(left_out.encryption, whole.encryption, "{encryption}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_firehose_does_not_know_is_no_fault() {
    let recorded =
        Recorded::answers([(400, r#"{"__type":"ResourceNotFoundException","message":"not found"}"#)]);
    assert_eq!(firehose(&recorded).look(&orders(), &somebody(), Urgency::Drift).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_an_unreadable_arn_is_a_fault_and_no_look() {
    let body = described("ACTIVE", "DirectPut", &Value::Null).replace("arn:aws:firehose", "arn:gcp:firehose");
    let recorded = Recorded::answers([(200, body)]);
    let fault = firehose(&recorded).look(&orders(), &somebody(), Urgency::Drift).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Transient, Some("UnreadableAnswer")));
}

#[tokio::test(start_paused = true)]
async fn start_always_says_which_type_of_key_it_wants() {
    for (key, asked) in [
        (Key::AwsOwned, json!({"KeyType": "AWS_OWNED_CMK"})),
        (Key::Customer(KEY.parse().unwrap()), json!({"KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY})),
    ] {
        let recorded = Recorded::answers([(200, "{}")]);
        firehose(&recorded)
            .start(&orders(), &key, &somebody(), &signer(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.operation, "StartDeliveryStreamEncryption");
        assert_eq!(sent.host, "firehose.eu-west-1.amazonaws.com");
        assert_eq!(
            sent.body,
            json!({"DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": asked})
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_without_an_arn_is_never_asked_for() {
    let recorded = Recorded::default();
    let fault = firehose(&recorded)
        .start(&orders(), &Key::Unresolved("x".to_owned()), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap_err();
    assert_eq!((fault.class, recorded.sent().len()), (Class::Invalid, 0));
}

#[tokio::test(start_paused = true)]
async fn stop_names_the_stream() {
    let recorded = Recorded::answers([(200, "{}")]);
    firehose(&recorded).stop(&orders(), &somebody(), &signer(), Timestamp::UNIX_EPOCH).await.unwrap();
    let [sent] = recorded.sent().try_into().unwrap();
    assert_eq!(sent.operation, "StopDeliveryStreamEncryption");
    assert_eq!(sent.body, json!({"DeliveryStreamName": "orders"}));
}

#[tokio::test(start_paused = true)]
async fn only_an_answer_that_says_so_proves_that_a_record_was_encrypted() {
    for (answer, encrypted) in [
        (json!({"RecordId": "1", "Encrypted": true}), true),
        (json!({"RecordId": "1", "Encrypted": false}), false),
        (json!({"RecordId": "1"}), false),
    ] {
        let recorded = Recorded::answers([(200, answer.to_string())]);
        assert_eq!(
            firehose(&recorded).put_record(&orders(), "marked", &somebody(), &signer()).await,
            Ok(encrypted)
        );
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.body, json!({"DeliveryStreamName": "orders", "Record": {"Data": "bWFya2Vk"}}));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_another_region_is_looked_for_there() {
    let recorded = Recorded::answers([(400, r#"{"__type":"ResourceNotFoundException"}"#)]);
    let stream = "arn:aws:firehose:us-east-2:111122223333:deliverystream/orders".parse().unwrap();
    firehose(&recorded).look(&stream, &somebody(), Urgency::Drift).await.unwrap();
    assert_eq!(recorded.sent()[0].host, "firehose.us-east-2.amazonaws.com");
}
