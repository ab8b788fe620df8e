//! Keys of a Firehose stream: changed, failed, disabled, and pointed elsewhere.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{KeyState, PlantedKey, PlantedStream, Settings, ShownKey, Snapshot, StreamKey};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::EnablingFailed;

use crate::play::{Play, firehose, message, truth};

use super::{START, cmk, orders, plant_denied_key, play_with};

#[tokio::test]
async fn a_stream_whose_owner_does_not_care_keeps_the_key_that_somebody_chose() {
    let play = play_with(Snapshot::default()).await;
    let key = play.plant_key();
    let state = Snapshot::enabled(StreamKey::arn(&key));
    play.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 0);
    assert_eq!(play.status("orders").await.key_in_force.expect("a key").arn, Some(key));
}

#[tokio::test]
async fn a_re_key_names_the_old_key_until_the_new_one_is_in_force() {
    let play = play_with(Snapshot::default()).await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.apply("orders", &orders(&cmk(&old))).await;
    play.until_it_says("orders", "Encrypted").await;
    play.apply("orders", &orders(&cmk(&new))).await;
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force.clone().expect("a key").arn, Some(old));
    assert_eq!(status.key.clone().expect("a key").arn, Some(new.clone()));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "with the old key");
    play.until_it_says("orders", "Settling").await;
    assert_eq!(
        truth(&play.status("orders").await, ConditionType::Encrypted),
        "True",
        "records were encrypted all along"
    );
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.status("orders").await.key_in_force.expect("a key").arn, Some(new));
    assert_eq!(play.calls(START, "orders"), 2);
}

#[tokio::test]
async fn after_a_failed_re_key_the_old_key_is_in_force_whichever_key_aws_shows() {
    for shows in [ShownKey::Asked, ShownKey::InForce] {
        let play = Play::start(Settings { failed_re_key_shows: shows, ..Settings::default() }).await;
        play.aws.world().plant_stream(PlantedStream::default());
        let (old, denied) = (play.plant_key(), plant_denied_key(&play));
        play.apply("orders", &orders(&cmk(&old))).await;
        play.until_it_says("orders", "Encrypted").await;
        play.apply("orders", &orders(&cmk(&denied))).await;
        play.until_it_says("orders", "EnablingFailed").await;
        let status = play.status("orders").await;
        assert_eq!(status.encryption_status, Some(EnablingFailed), "{shows:?}");
        assert_eq!(status.key_in_force.clone().expect("a key").arn, Some(old.clone()), "{shows:?}");
        assert_eq!(truth(&status, ConditionType::Encrypted), "True", "{shows:?}");
        assert!(message(&status).contains(&old), "{}", message(&status));
        assert_eq!(play.calls(START, "orders"), 2, "{shows:?}");

        // Whoever goes back to the old key has what was asked for, and spends no call on it.
        play.apply("orders", &orders(&cmk(&old))).await;
        play.until_it_says("orders", "Encrypted").await;
        assert_eq!(play.calls(START, "orders"), 2, "{shows:?}");
    }
}

#[tokio::test]
async fn a_mended_policy_and_a_retry_heal_a_failed_re_key_at_once() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    let key = plant_denied_key(&play);
    play.apply("orders", &orders(&cmk(&key))).await;
    play.until_it_says("orders", "EnablingFailed").await;
    let failed_at = play.aws.now();
    play.aws.world().plant_key(PlantedKey {
        id: key.rsplit('/').next().expect("an id").to_owned(),
        ..PlantedKey::default()
    });
    play.kubectl(&["annotate", "strenc", "orders", "streamencryption.dev/retry=2026-03-01T12:01:00Z"]).await;
    let words = play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
    let took = play.aws.now().duration_since(failed_at);
    assert!(took < SignedDuration::from_mins(1), "it waited for the backoff: {took:#}, {words:?}");
}

#[tokio::test]
async fn a_disabled_key_waits_without_a_call_and_goes_on_once_enabled() {
    let play = play_with(Snapshot::default()).await;
    let key = play.aws.world().plant_key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
    play.apply("orders", &orders(&cmk(&key))).await;
    play.until_it_says("orders", "KeyDisabled").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::KeyUsable), "False");
    play.let_pass("orders", SignedDuration::from_hours(3)).await;
    assert_eq!(play.calls(START, "orders"), 0);
    let id = key.rsplit('/').next().expect("an id").to_owned();
    play.aws.world().plant_key(PlantedKey { id, ..PlantedKey::default() });
    let enabled_at = play.aws.now();
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(play.aws.now().duration_since(enabled_at) <= SignedDuration::from_mins(11));
}

#[tokio::test]
async fn an_alias_that_is_pointed_at_another_key_is_a_re_key() {
    let play = play_with(Snapshot::default()).await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.aws.world().plant_alias("alias/orders", &old);
    play.apply("orders", &orders(&json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"}))).await;
    play.until_it_says("orders", "Encrypted").await;
    play.aws.world().plant_alias("alias/orders", &new);
    play.until("orders", |status| {
        status.key_in_force.as_ref().is_some_and(|key| key.arn.as_ref() == Some(&new))
    })
    .await;
    assert_eq!(play.calls(START, "orders"), 2);
}
