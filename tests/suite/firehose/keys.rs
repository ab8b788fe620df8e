//! Keys of a Firehose stream: re-keys, failed re-keys, disabled keys and changed aliases.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{KeyState, PlantedKey, PlantedStream, Settings, ShownKey, Snapshot, StreamKey};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::stream_encryption::EncryptionStatus::EnablingFailed;

use super::{START, cmk, harness_with, orders, plant_denied_key};
use crate::harness::{Harness, firehose, message, truth};

#[tokio::test]
async fn spec_without_key_accepts_any_active_key() {
    let harness = harness_with(Snapshot::default()).await;
    let key = harness.plant_key();
    let state = Snapshot::enabled(StreamKey::arn(&key));
    harness.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 0);
    assert_eq!(harness.status("orders").await.active_key.expect("a key").arn, Some(key));
}

#[tokio::test]
async fn old_key_stays_active_until_re_key_completes() {
    let harness = harness_with(Snapshot::default()).await;
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.apply("orders", &orders(&cmk(&old))).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.apply("orders", &orders(&cmk(&new))).await;
    harness.until_it_says("orders", "Enabling").await;
    let status = harness.status("orders").await;
    assert_eq!(status.active_key.clone().expect("a key").arn, Some(old));
    assert_eq!(status.desired_key.clone().expect("a key").arn, Some(new.clone()));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "with the old key");
    harness.until_it_says("orders", "Settling").await;
    assert_eq!(
        truth(&harness.status("orders").await, ConditionType::Encrypted),
        "True",
        "records were encrypted all along"
    );
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.status("orders").await.active_key.expect("a key").arn, Some(new));
    assert_eq!(harness.calls(START, "orders"), 2);
}

#[tokio::test]
async fn old_key_stays_active_after_failed_re_key() {
    for shows in [ShownKey::Asked, ShownKey::Active] {
        let harness = Harness::start(Settings { failed_re_key_shows: shows, ..Settings::default() }).await;
        harness.aws.world().plant_stream(PlantedStream::default());
        let (old, denied) = (harness.plant_key(), plant_denied_key(&harness));
        harness.apply("orders", &orders(&cmk(&old))).await;
        harness.until_it_says("orders", "Encrypted").await;
        harness.apply("orders", &orders(&cmk(&denied))).await;
        harness.until_it_says("orders", "EnablingFailed").await;
        let status = harness.status("orders").await;
        assert_eq!(status.encryption_status, Some(EnablingFailed), "{shows:?}");
        assert_eq!(status.active_key.clone().expect("a key").arn, Some(old.clone()), "{shows:?}");
        assert_eq!(truth(&status, ConditionType::Encrypted), "True", "{shows:?}");
        assert!(message(&status).contains(&old), "{}", message(&status));
        assert_eq!(harness.calls(START, "orders"), 2, "{shows:?}");

        // A spec that returns to the old key is satisfied without a call.
        harness.apply("orders", &orders(&cmk(&old))).await;
        harness.until_it_says("orders", "Encrypted").await;
        assert_eq!(harness.calls(START, "orders"), 2, "{shows:?}");
    }
}

#[tokio::test]
async fn fixed_key_policy_and_retry_repeat_re_key_immediately() {
    let harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    let key = plant_denied_key(&harness);
    harness.apply("orders", &orders(&cmk(&key))).await;
    harness.until_it_says("orders", "EnablingFailed").await;
    let failed_at = harness.aws.now();
    harness.aws.world().plant_key(PlantedKey {
        id: key.rsplit('/').next().expect("an id").to_owned(),
        ..PlantedKey::default()
    });
    harness
        .kubectl(&["annotate", "strenc", "orders", "streamencryption.dev/retry=2026-03-01T12:01:00Z"])
        .await;
    let words = harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
    let took = harness.aws.now().duration_since(failed_at);
    assert!(took < SignedDuration::from_mins(1), "it waited for the backoff: {took:#}, {words:?}");
}

#[tokio::test]
async fn disabled_key_blocks_calls_until_enabled() {
    let harness = harness_with(Snapshot::default()).await;
    let key =
        harness.aws.world().plant_key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
    harness.apply("orders", &orders(&cmk(&key))).await;
    harness.until_it_says("orders", "KeyDisabled").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::KeyUsable), "False");
    harness.let_pass("orders", SignedDuration::from_hours(3)).await;
    assert_eq!(harness.calls(START, "orders"), 0);
    let id = key.rsplit('/').next().expect("an id").to_owned();
    harness.aws.world().plant_key(PlantedKey { id, ..PlantedKey::default() });
    let enabled_at = harness.aws.now();
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
    assert!(harness.aws.now().duration_since(enabled_at) <= SignedDuration::from_mins(11));
}

#[tokio::test]
async fn retargeted_alias_triggers_re_key() {
    let harness = harness_with(Snapshot::default()).await;
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.aws.world().plant_alias("alias/orders", &old);
    harness.apply("orders", &orders(&json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"}))).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.aws.world().plant_alias("alias/orders", &new);
    harness
        .until("orders", |status| {
            status.active_key.as_ref().is_some_and(|key| key.arn.as_ref() == Some(&new))
        })
        .await;
    assert_eq!(harness.calls(START, "orders"), 2);
}
