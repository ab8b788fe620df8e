//! Changes made outside the operator: drift is corrected, or only reported.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Snapshot, StreamKey};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::stream_encryption::EncryptionStatus::Disabled;

use super::{START, aws_owned, harness_with, orders, stopped};
use crate::harness::{firehose, truth};

#[tokio::test]
async fn drift_to_disabled_is_corrected_and_reported() {
    let harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    harness.until_it_says("orders", "Enabling").await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
    assert!(harness.events("orders").await.contains("DriftCorrected"));
}

#[tokio::test]
async fn drift_correction_stops_after_three_in_a_day() {
    let harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    for _ in 0..3 {
        harness.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
        harness.until_it_says("orders", "Enabling").await;
        harness.until_it_says("orders", "Encrypted").await;
    }
    harness.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    harness.until_it_says("orders", "DriftCorrectionLimitReached").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Reconciling), "True", "the operator continues by itself");
    assert!(status.next_attempt_time.is_some(), "a day after the first correction");
    harness.let_pass("orders", SignedDuration::from_hours(20)).await;
    assert_eq!(harness.calls(START, "orders"), 3);
    harness.let_pass("orders", SignedDuration::from_hours(5)).await;
    assert_eq!(harness.calls(START, "orders"), 4, "a day later it is corrected again");
}

#[tokio::test]
async fn retry_annotation_allows_one_more_drift_correction() {
    let harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    let stop =
        || harness.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    for _ in 0..3 {
        stop();
        harness.until_it_says("orders", "Enabling").await;
        harness.until_it_says("orders", "Encrypted").await;
    }
    stop();
    harness.until_it_says("orders", "DriftCorrectionLimitReached").await;
    harness
        .kubectl(&["annotate", "strenc", "orders", "streamencryption.dev/retry=2026-03-01T12:01:00Z"])
        .await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 4);
    stop();
    harness.until_it_says("orders", "DriftCorrectionLimitReached").await;
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(harness.calls(START, "orders"), 4, "one value of the annotation allows one correction");
}

#[tokio::test]
async fn observe_mode_reports_drift_without_a_call() {
    let harness = harness_with(stopped()).await;
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "mode": "Observe"})).await;
    harness.until_it_says("orders", "Drifted").await;
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    let status = harness.status("orders").await;
    assert_eq!(status.encryption_status, Some(Disabled));
    assert_eq!(truth(&status, ConditionType::Ready), "False");
    assert_eq!(truth(&status, ConditionType::Reconciling) + &truth(&status, ConditionType::Stalled), "");
    assert_eq!(harness.calls(START, "orders"), 0);
}
