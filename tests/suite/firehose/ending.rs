//! The ways out: turned off, deleted, suspended.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Snapshot, StreamKey};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::{Disabled, Disabling};

use crate::play::{firehose, reason, truth};

use super::{DESCRIBE, START, STOP, aws_owned, orders, play_with, stopped, word};

#[tokio::test]
async fn turning_encryption_off_needs_permission() {
    let mut play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.policy = Some(StreamEncryptionPolicySpec::own_account());
    play.restart();
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "encryption": "Disabled"})).await;
    play.until_it_says("orders", "DisableNotPermitted").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!((play.calls(STOP, "orders"), play.calls(DESCRIBE, "orders")), (0, 0));

    play.policy =
        Some(StreamEncryptionPolicySpec { allow_disable: true, ..StreamEncryptionPolicySpec::own_account() });
    play.restart();
    let words = play.until_it_says("orders", "EncryptionDisabled").await;
    assert!(words.contains(&word(Some(Disabling), "Disabling")), "{words:?}");
    let status = play.status("orders").await;
    assert_eq!((status.encryption_status, status.key_in_force.clone()), (Some(Disabled), None));
    assert_eq!(truth(&status, ConditionType::Ready), "True");
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert_eq!(play.calls(STOP, "orders"), 1);
}

#[tokio::test]
async fn deleting_a_resource_leaves_the_stream_as_it_is_and_no_finalizer_is_set() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.resource("orders").await.expect("the resource").metadata.finalizers, None);
    play.kubectl(&["delete", "strenc", "orders"]).await;
    assert!(play.resource("orders").await.is_none());
    assert_eq!(play.calls(STOP, "orders"), 0);
    assert!(play.ledger(&firehose("orders")).await.is_some(), "the ledger outlives the resource");
}

#[tokio::test]
async fn deletion_policy_disable_holds_the_resource_until_encryption_is_off() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "deletionPolicy": "Disable"})).await;
    play.until_it_says("orders", "Encrypted").await;
    play.kubectl(&["delete", "strenc", "orders", "--wait=false"]).await;
    play.until_it_says("orders", "Disabling").await;
    for _ in 0..20 {
        if play.resource("orders").await.is_none() {
            break;
        }
        let wake = play.visit("orders").await.expect("a visit");
        play.aws.advance(wake.duration_since(play.aws.now()).max(SignedDuration::from_millis(1)));
    }
    assert!(play.resource("orders").await.is_none(), "it is let go");
    assert_eq!(play.calls(STOP, "orders"), 1);
}

#[tokio::test]
async fn a_suspended_resource_is_left_alone_and_its_ready_stays() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let looks = play.calls(DESCRIBE, "orders");
    let mut spec = orders(&aws_owned());
    spec["suspend"] = json!(true);
    play.apply("orders", &spec).await;
    play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!((play.calls(START, "orders"), play.calls(DESCRIBE, "orders")), (1, looks));
    let status = play.status("orders").await;
    assert_eq!(
        (truth(&status, ConditionType::Ready), reason(&status)),
        ("True".to_owned(), "Encrypted".to_owned())
    );
    assert_eq!(status.observed_generation, Some(2));
}
