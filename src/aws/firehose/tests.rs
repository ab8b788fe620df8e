//! Requests and responses of the Firehose adapter, with recorded responses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::replay::{ReplayClient, sender, signer, somebody};
use super::*;
use crate::test_log::Log;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn orders() -> StreamArn {
    "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap()
}

fn firehose(recorded: &ReplayClient) -> Firehose {
    Firehose::new(recorded.config(), sender())
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

async fn parsed(body: String) -> StreamDescription {
    let recorded = ReplayClient::answers([(200, body)]);
    firehose(&recorded).describe_stream(&orders(), &somebody(), Priority::Drift).await.unwrap().unwrap().0
}

#[tokio::test(start_paused = true)]
async fn every_form_of_reported_encryption_is_parsed() {
    let customer = || Key::Customer(KEY.parse().unwrap());
    let alias = "arn:aws:kms:eu-west-1:111122223333:alias/orders";
    let failed = |action, reason: &str, details: &str| ReportedEncryption::Failed {
        action,
        reason: reason.to_owned(),
        details: details.to_owned(),
    };
    let denied = json!({"Type": "KMS_ACCESS_DENIED", "Details": "no grant"});
    for (encryption, shown) in [
        (Value::Null, ReportedEncryption::Off),
        (json!({}), ReportedEncryption::Off),
        // moto after Create with encryption requested.
        (json!({"KeyType": "AWS_OWNED_CMK"}), ReportedEncryption::Off),
        (json!({"Status": "DISABLED"}), ReportedEncryption::Off),
        // moto after Stop.
        (
            json!({"Status": "DISABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}),
            ReportedEncryption::Off,
        ),
        (json!({"Status": "ENABLED", "KeyType": "AWS_OWNED_CMK"}), ReportedEncryption::On(Key::AwsOwned)),
        (
            json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}),
            ReportedEncryption::On(customer()),
        ),
        (
            json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": alias}),
            ReportedEncryption::On(Key::Unresolved(alias.to_owned())),
        ),
        (
            json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK"}),
            ReportedEncryption::On(Key::Unresolved("CUSTOMER_MANAGED_CMK".to_owned())),
        ),
        (json!({"Status": "ENABLED"}), ReportedEncryption::Unknown("ENABLED, no KeyType".to_owned())),
        (
            json!({"Status": "ENABLED", "KeyType": "NEW", "KeyARN": KEY}),
            ReportedEncryption::Unknown("ENABLED, KeyType NEW".to_owned()),
        ),
        (
            json!({"Status": "ENABLING", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}),
            ReportedEncryption::Enabling,
        ),
        (json!({"Status": "DISABLING"}), ReportedEncryption::Disabling),
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
        (json!({"Status": "ROTATING"}), ReportedEncryption::Unknown("ROTATING".to_owned())),
    ] {
        assert_eq!(
            parsed(described("ACTIVE", "DirectPut", &encryption)).await.encryption,
            shown,
            "{encryption}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn failure_of_the_stream_is_that_of_a_failed_encryption() {
    let failure = |kind: &str| json!({"Type": kind, "Details": "no grant"});
    let inner = failure("KMS_ACCESS_DENIED");
    let failed = |action, reason: &str| ReportedEncryption::Failed {
        action,
        reason: reason.to_owned(),
        details: "no grant".to_owned(),
    };
    for (encryption, shown) in [
        (json!({"Status": "ENABLING_FAILED"}), failed(Action::Start, "DISABLED_KMS_KEY")),
        (json!({"Status": "DISABLING_FAILED"}), failed(Action::Stop, "DISABLED_KMS_KEY")),
        (
            json!({"Status": "ENABLING_FAILED", "FailureDescription": inner}),
            failed(Action::Start, "KMS_ACCESS_DENIED"),
        ),
        (json!({"Status": "ENABLED", "KeyType": "AWS_OWNED_CMK"}), ReportedEncryption::On(Key::AwsOwned)),
    ] {
        let mut body: Value = serde_json::from_str(&described("ACTIVE", "DirectPut", &encryption)).unwrap();
        body["DeliveryStreamDescription"]["FailureDescription"] = failure("DISABLED_KMS_KEY");
        assert_eq!(parsed(body.to_string()).await.encryption, shown, "{encryption}");
        body["DeliveryStreamDescription"].as_object_mut().unwrap().remove("DeliveryStreamType");
        assert_eq!(parsed(body.to_string()).await.encryption, shown, "{encryption} without a source");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_state_source_and_creation_time_are_parsed() {
    for (word, state) in [
        ("CREATING", StreamState::Creating),
        ("ACTIVE", StreamState::Active),
        ("DELETING", StreamState::Deleting),
        ("CREATING_FAILED", StreamState::NotOperational),
        ("DELETING_FAILED", StreamState::NotOperational),
        ("SUSPENDED", StreamState::Unrecognized),
    ] {
        let description = parsed(described(word, "MSKAsSource", &Value::Null)).await;
        assert_eq!((description.state, description.raw_status.as_str()), (state, word));
        assert_eq!(description.arn, orders());
        assert_eq!(description.source.as_deref(), Some("MSKAsSource"));
        assert_eq!(description.created, Some("2025-11-21T00:00:00.5Z".parse().unwrap()));
    }
}

/// The encryption is still ENABLED, so only the stream itself has the failure.
#[tokio::test(start_paused = true)]
async fn cause_of_a_failed_deletion_is_logged() {
    let encryption = json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY});
    for (status, is_logged) in [("DELETING_FAILED", true), ("ACTIVE", false)] {
        let mut body: Value = serde_json::from_str(&described(status, "DirectPut", &encryption)).unwrap();
        body["DeliveryStreamDescription"]["FailureDescription"] =
            json!({"Type": "RETIRE_KMS_GRANT_FAILED", "Details": "the key is disabled"});
        let (log, _guard) = Log::capture();
        parsed(body.to_string()).await;
        for words in ["RETIRE_KMS_GRANT_FAILED", "the key is disabled"] {
            assert_eq!(log.text().contains(words), is_logged, "{status}: {}", log.text());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn omitted_members_are_reported_as_missing() {
    let without = |member: &str| {
        let mut body: Value = serde_json::from_str(&described("ACTIVE", "DirectPut", &Value::Null)).unwrap();
        body["DeliveryStreamDescription"].as_object_mut().unwrap().remove(member);
        body.to_string()
    };
    let description = parsed(without("DeliveryStreamType")).await;
    assert_eq!((description.source, description.state), (None, StreamState::Active));
    let description = parsed(without("DeliveryStreamStatus")).await;
    assert_eq!((description.raw_status.as_str(), description.state), ("", StreamState::Unrecognized));
}

#[tokio::test(start_paused = true)]
async fn encryption_is_parsed_when_a_member_is_omitted() {
    let denied = json!({"Type": "KMS_ACCESS_DENIED", "Details": "no grant"});
    for encryption in [
        json!({"Status": "ENABLED", "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}),
        json!({"Status": "ENABLING_FAILED", "FailureDescription": denied}),
    ] {
        let whole = described("ACTIVE", "DirectPut", &encryption);
        let mut body: Value = serde_json::from_str(&whole).unwrap();
        body["DeliveryStreamDescription"].as_object_mut().unwrap().remove("DeliveryStreamType");
        let (left_out, whole) = (parsed(body.to_string()).await, parsed(whole).await);
        assert_eq!(left_out.encryption, whole.encryption, "{encryption}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_stream_is_not_an_error() {
    let recorded =
        ReplayClient::answers([(400, r#"{"__type":"ResourceNotFoundException","message":"not found"}"#)]);
    assert_eq!(firehose(&recorded).describe_stream(&orders(), &somebody(), Priority::Drift).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn response_without_usable_description_is_an_error() {
    let of_another_cloud =
        described("ACTIVE", "DirectPut", &Value::Null).replace("arn:aws:firehose", "arn:gcp:firehose");
    // An empty response does not mean that the stream does not exist.
    for body in [of_another_cloud, "{}".to_owned()] {
        let recorded = ReplayClient::answers([(200, body)]);
        let error =
            firehose(&recorded).describe_stream(&orders(), &somebody(), Priority::Drift).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Transient, Some("InvalidResponse")));
    }
}

#[tokio::test(start_paused = true)]
async fn start_always_names_the_key_type() {
    for (key, asked) in [
        (Key::AwsOwned, json!({"KeyType": "AWS_OWNED_CMK"})),
        (Key::Customer(KEY.parse().unwrap()), json!({"KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY})),
    ] {
        let recorded = ReplayClient::answers([(200, "{}")]);
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
async fn start_with_unresolved_key_is_not_sent() {
    let recorded = ReplayClient::default();
    let error = firehose(&recorded)
        .start(&orders(), &Key::Unresolved("x".to_owned()), &somebody(), &signer(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap_err();
    assert_eq!((error.kind, recorded.sent().len()), (ErrorKind::Invalid, 0));
}

#[tokio::test(start_paused = true)]
async fn stop_names_the_stream() {
    let recorded = ReplayClient::answers([(200, "{}")]);
    firehose(&recorded).stop(&orders(), &somebody(), &signer(), Timestamp::UNIX_EPOCH).await.unwrap();
    let [sent] = recorded.sent().try_into().unwrap();
    assert_eq!(sent.operation, "StopDeliveryStreamEncryption");
    assert_eq!(sent.body, json!({"DeliveryStreamName": "orders"}));
}

#[tokio::test(start_paused = true)]
async fn record_is_encrypted_only_if_response_confirms_it() {
    for (answer, encrypted) in [
        (json!({"RecordId": "1", "Encrypted": true}), true),
        (json!({"RecordId": "1", "Encrypted": false}), false),
        (json!({"RecordId": "1"}), false),
    ] {
        let recorded = ReplayClient::answers([(200, answer.to_string())]);
        assert_eq!(
            firehose(&recorded).put_record(&orders(), "marked", &somebody(), &signer()).await,
            Ok(encrypted)
        );
        let [sent] = recorded.sent().try_into().unwrap();
        assert_eq!(sent.body, json!({"DeliveryStreamName": "orders", "Record": {"Data": "bWFya2Vk"}}));
    }
}

#[tokio::test(start_paused = true)]
async fn stream_of_another_region_is_described_there() {
    let recorded = ReplayClient::answers([(400, r#"{"__type":"ResourceNotFoundException"}"#)]);
    let stream = "arn:aws:firehose:us-east-2:111122223333:deliverystream/orders".parse().unwrap();
    firehose(&recorded).describe_stream(&stream, &somebody(), Priority::Drift).await.unwrap();
    assert_eq!(recorded.sent()[0].host, "firehose.us-east-2.amazonaws.com");
}
