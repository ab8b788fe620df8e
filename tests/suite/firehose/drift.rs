//! What somebody changes behind the operator's back: it is corrected, or told.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Snapshot, StreamKey};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::Disabled;

use crate::play::{firehose, truth};

use super::{START, aws_owned, orders, play_with, stopped};

#[tokio::test]
async fn encryption_that_somebody_turned_off_is_corrected_and_told() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    play.until_it_says("orders", "Enabling").await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(play.events("orders").await.contains("DriftCorrected"));
}

#[tokio::test]
async fn after_three_corrections_in_a_day_the_operator_stops_fighting() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    for _ in 0..3 {
        play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
        play.until_it_says("orders", "Enabling").await;
        play.until_it_says("orders", "Encrypted").await;
    }
    play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    play.until_it_says("orders", "Contested").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Reconciling), "True", "it goes on by itself");
    assert!(status.next_attempt_time.is_some(), "a day after the first correction");
    play.let_pass("orders", SignedDuration::from_hours(20)).await;
    assert_eq!(play.calls(START, "orders"), 3);
    play.let_pass("orders", SignedDuration::from_hours(5)).await;
    assert_eq!(play.calls(START, "orders"), 4, "a day later it is corrected again");
}

#[tokio::test]
async fn retry_annotation_corrects_once_more_after_three_corrections() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let stop =
        || play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    for _ in 0..3 {
        stop();
        play.until_it_says("orders", "Enabling").await;
        play.until_it_says("orders", "Encrypted").await;
    }
    stop();
    play.until_it_says("orders", "Contested").await;
    play.kubectl(&["annotate", "strenc", "orders", "streamencryption.dev/retry=2026-03-01T12:01:00Z"]).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 4);
    stop();
    play.until_it_says("orders", "Contested").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(play.calls(START, "orders"), 4, "one value of the annotation is good for one correction");
}

#[tokio::test]
async fn with_drift_report_a_difference_is_told_and_nothing_is_called() {
    let play = play_with(stopped()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "drift": "Report"})).await;
    play.until_it_says("orders", "Drifted").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    let status = play.status("orders").await;
    assert_eq!(status.encryption_status, Some(Disabled));
    assert_eq!(truth(&status, ConditionType::Ready), "False");
    assert_eq!(truth(&status, ConditionType::Reconciling) + &truth(&status, ConditionType::Stalled), "");
    assert_eq!(play.calls(START, "orders"), 0);
}
