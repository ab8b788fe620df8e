//! The active key of a stream, without which records are lost, whatever key the spec names.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Fault, KeyState, PlantedStream, Rule, Service, Settings, Snapshot, StreamKey};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::stream_encryption::StreamEncryptionStatus;
use stream_encryption_core::controller::reconcile;

use crate::harness::{Harness, firehose, kinesis, truth};

/// A Firehose stream `orders` and a Kinesis stream `clicks`, both encrypted with a key that was set outside
/// the operator.
async fn encrypted() -> (Harness, String) {
    let harness =
        Harness::start(Settings { enabling: SignedDuration::from_secs(5), ..Settings::default() }).await;
    let key = harness.plant_key();
    for (service, name) in [(Service::Firehose, "orders"), (Service::Kinesis, "clicks")] {
        let (name, state) = (name.to_owned(), Snapshot::enabled(StreamKey::arn(&key)));
        harness.aws.world().plant_stream(PlantedStream { service, name, state, ..PlantedStream::default() });
    }
    (harness, key)
}

fn set(harness: &Harness, key: &str, state: KeyState) {
    harness.aws.world().key_mut(key).expect("the key").state = state;
}

/// Reason and message of `KeyUsable`.
fn key_usable(status: &StreamEncryptionStatus) -> (String, String) {
    let condition = find(&status.conditions, ConditionType::KeyUsable);
    condition.map(|condition| (condition.reason.clone(), condition.message.clone())).unwrap_or_default()
}

#[tokio::test]
async fn loss_of_active_key_is_reported_without_a_desired_key() {
    let (harness, key) = encrypted().await;
    for (name, stream) in [("orders", firehose("orders")), ("clicks", kinesis("clicks"))] {
        harness.apply(name, &json!({"stream": {"arn": stream}})).await;
        harness.until_it_says(name, "Encrypted").await;
        assert_eq!(truth(&harness.status(name).await, ConditionType::KeyUsable), "");
    }
    for (state, reason, records) in [
        (KeyState::Disabled, "KeyDisabled", ["discards each of them after 24 hours", "neither written"]),
        (KeyState::PendingDeletion, "KeyPendingDeletion", ["Cancel its deletion", "Cancel its deletion"]),
    ] {
        for (name, records) in ["orders", "clicks"].into_iter().zip(records) {
            set(&harness, &key, state);
            harness.let_pass(name, SignedDuration::from_mins(12)).await;
            let status = harness.status(name).await;
            assert_eq!(truth(&status, ConditionType::KeyUsable), "False", "{name}");
            let (told, message) = key_usable(&status);
            assert_eq!(told, reason);
            assert!(
                message.contains(&format!("{key} is the active key")) && message.contains(records),
                "{message}"
            );
            assert!(harness.events(name).await.contains(reason));
            let ready = find(&status.conditions, ConditionType::Ready).expect("Ready");
            assert_eq!((&*ready.status, &ready.reason), ("False", &told), "{name}");
            assert_eq!(ready.message, message, "the first thing in the column MESSAGE");
            assert!(status.active_key_unusable_since_time.is_some(), "{name}");
            assert_eq!(truth(&status, ConditionType::Encrypted), "True", "{name}: new records are encrypted");

            set(&harness, &key, KeyState::Enabled);
            harness.let_pass(name, SignedDuration::from_mins(12)).await;
            let status = harness.status(name).await;
            assert_eq!(truth(&status, ConditionType::KeyUsable), "");
            assert_eq!(truth(&status, ConditionType::Ready), "True");
            assert_eq!(status.active_key_unusable_since_time, None);
        }
    }
}

/// What one process remembers of the key, another one does not, and a restart forgets it.
#[tokio::test]
async fn lost_key_is_reported_by_each_replica_without_kms() {
    let (mut harness, key) = encrypted().await;
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.until_it_says("orders", "Encrypted").await;
    set(&harness, &key, KeyState::Disabled);
    harness.let_pass("orders", SignedDuration::from_mins(12)).await;
    let reported = harness.status("orders").await;
    assert_eq!(key_usable(&reported).0, "KeyDisabled");

    harness.aws.world().script(Rule::always(Fault::AccessDenied).on("DescribeKey"));
    harness.restart();
    harness.let_pass("orders", SignedDuration::from_mins(12)).await;
    let status = harness.status("orders").await;
    assert_eq!(status.conditions, reported.conditions, "the new process has nothing else to report");
    assert_eq!(status.active_key_unusable_since_time, reported.active_key_unusable_since_time);

    harness.aws.world().clear_faults();
    set(&harness, &key, KeyState::Enabled);
    harness.let_pass("orders", SignedDuration::from_mins(12)).await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Ready), "True");
    assert_eq!(status.active_key_unusable_since_time, None);

    // A process that remembers the key as disabled, after another one has read that it is enabled.
    set(&harness, &key, KeyState::Disabled);
    harness.let_pass("orders", SignedDuration::from_mins(12)).await;
    assert_eq!(key_usable(&harness.status("orders").await).0, "KeyDisabled");
    set(&harness, &key, KeyState::Enabled);
    let other = harness.replica();
    let resource = harness.resource("orders").await.expect("the resource");
    Box::pin(reconcile(&other, &resource)).await.expect("Kubernetes can be asked");
    assert_eq!(truth(&harness.status("orders").await, ConditionType::Ready), "True");
    harness.aws.world().script(Rule::always(Fault::AccessDenied).on("DescribeKey"));
    harness.let_pass("orders", SignedDuration::from_mins(12)).await;
    assert_eq!(truth(&harness.status("orders").await, ConditionType::Ready), "True");
}
