//! Firehose streams, from `kubectl apply` to encrypted. The modules beside this file cover everything that
//! can happen on the way.

mod disable_delete_suspend;
mod drift;
mod keys;
mod lost_replies;

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{
    EncryptionStatus as Shown, FailureType, NeverEncryptedShows, PlantedKey, PlantedStream, Settings,
    Snapshot, Source, StreamKey,
};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::stream_encryption::EncryptionStatus::{Enabled, Enabling, EnablingFailed};
use stream_encryption_api::stream_encryption::{KeyType, StreamEncryptionStatus};

use crate::harness::{Harness, firehose, message, truth};

const DESCRIBE: &str = "DescribeDeliveryStream";
const START: &str = "StartDeliveryStreamEncryption";
const STOP: &str = "StopDeliveryStreamEncryption";

/// A world with one Firehose stream `orders` in this state, in which ENABLING and DISABLING take 5 s.
async fn harness_with(state: Snapshot) -> Harness {
    let five = SignedDuration::from_secs(5);
    let harness = Harness::start(Settings { enabling: five, disabling: five, ..Settings::default() }).await;
    harness.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    harness
}

fn orders(key: &Value) -> Value {
    json!({"stream": {"arn": firehose("orders")}, "key": key})
}

fn aws_owned() -> Value {
    json!({"type": "AWS_OWNED_CMK"})
}

fn cmk(arn: &str) -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": arn})
}

/// A key whose policy denies access to Firehose.
fn plant_denied_key(harness: &Harness) -> String {
    harness.aws.world().plant_key(PlantedKey { policy: Some(denying()), ..PlantedKey::default() })
}

fn denying() -> Value {
    let all = json!({"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Principal": {"Service": "firehose.amazonaws.com"}, "Action": "kms:*", "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [all, deny]})
}

fn word(
    status: Option<stream_encryption_api::stream_encryption::EncryptionStatus>,
    reason: &str,
) -> crate::harness::Word {
    (status, reason.to_owned())
}

#[tokio::test]
async fn encryption_takes_one_start_and_at_most_four_describes() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    let words = harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(
        words,
        [word(Some(Enabling), "Enabling"), word(Some(Enabled), "Settling"), word(Some(Enabled), "Encrypted")]
    );
    assert_eq!(harness.calls(START, "orders"), 1);
    assert!(
        harness.calls(DESCRIBE, "orders") <= 4,
        "{} Describe requests",
        harness.calls(DESCRIBE, "orders")
    );

    let status = harness.status("orders").await;
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.active_key.expect("a key").kind, KeyType::AwsOwned);
    assert_eq!(status.calls.expect("the budget").used, 1);
    assert_eq!(status.plaintext_since_time, None);
    let events = harness.events("orders").await;
    assert!(events.contains("Enabling") && events.contains("Encrypted"), "{events:?}");
}

#[tokio::test]
async fn encrypted_stream_costs_one_describe_and_no_call() {
    let harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!((harness.calls(START, "orders"), harness.calls(DESCRIBE, "orders")), (0, 1));
}

#[tokio::test]
async fn steady_state_writes_only_describe_time_each_hour() {
    let harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    let before = harness.status("orders").await;
    let ledger_before =
        harness.ledger(&firehose("orders")).await.expect("the ledger").metadata.resource_version;
    let looks_before = harness.calls(DESCRIBE, "orders");
    harness.let_pass("orders", SignedDuration::from_hours(10)).await;
    let looks = harness.calls(DESCRIBE, "orders") - looks_before;
    // Every ten minutes, with a jitter of 10% for each resource.
    assert!((54..=67).contains(&looks), "{looks} Describe requests in 10 hours");
    let after = harness.status("orders").await;
    // Only the time of AWS's last response changes, once an hour.
    assert_ne!(after.last_describe_time, before.last_describe_time);
    assert_eq!(
        StreamEncryptionStatus { last_describe_time: before.last_describe_time.clone(), ..after },
        before
    );
    assert_eq!(
        harness.ledger(&firehose("orders")).await.expect("the ledger").metadata.resource_version,
        ledger_before
    );
}

#[tokio::test]
async fn encrypted_is_reported_only_after_settle_time() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Settling").await;
    let status = harness.status("orders").await;
    assert_eq!(
        truth(&status, ConditionType::Encrypted),
        "False",
        "AWS reports ENABLED, and records may still be in plaintext"
    );
    let enabled_at = harness.aws.now();
    harness.until_it_says("orders", "Encrypted").await;
    assert!(harness.aws.now().duration_since(enabled_at) >= SignedDuration::from_secs(5));
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    assert!(status.encrypted_since_time.expect("a time").0 >= enabled_at + SignedDuration::from_secs(5));
}

#[tokio::test]
async fn enabling_stream_is_reported_as_plaintext() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Enabling").await;
    let status = harness.status("orders").await;
    assert_eq!(status.active_key, None);
    assert!(status.plaintext_since_time.is_some());
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert!(message(&status).contains("still in plaintext"), "{}", message(&status));
}

#[tokio::test]
async fn missing_encryption_block_means_plaintext() {
    let harness = Harness::start(Settings::default()).await;
    let bare =
        PlantedStream { never_encrypted_shows: NeverEncryptedShows::NoBlock, ..PlantedStream::default() };
    harness.aws.world().plant_stream(bare);
    harness.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
}

#[tokio::test]
async fn failed_first_enable_leaves_plaintext_and_backs_off() {
    let harness = harness_with(Snapshot::default()).await;
    let key = plant_denied_key(&harness);
    harness.apply("orders", &orders(&cmk(&key))).await;
    let words = harness.until_it_says("orders", "EnablingFailed").await;
    assert_eq!(words, [word(Some(Enabling), "Enabling"), word(Some(EnablingFailed), "EnablingFailed")]);
    let status = harness.status("orders").await;
    assert_eq!(status.active_key, None);
    assert!(status.plaintext_since_time.is_some());
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert_eq!(
        truth(&status, ConditionType::Reconciling),
        "True",
        "a fixed key policy resolves it, so it is not stalled"
    );
    let failure = status.failure.expect("a failure");
    assert_eq!((failure.kind.as_str(), failure.attempts), ("KMS_ACCESS_DENIED", 1));
    let next = status.next_attempt_time.expect("a next attempt").0;
    assert!(next.duration_since(harness.aws.now()) <= SignedDuration::from_mins(5));

    // A backoff that doubles from 5 minutes to 6 hours makes ten attempts in a day, far below the budget.
    harness.let_pass("orders", SignedDuration::from_hours(24)).await;
    assert_eq!(harness.calls(START, "orders"), 10);
}

#[tokio::test]
async fn stream_with_kinesis_source_is_stalled_without_a_call() {
    let harness = Harness::start(Settings::default()).await;
    harness
        .aws
        .world()
        .plant_stream(PlantedStream { source: Source::KinesisStreamAsSource, ..PlantedStream::default() });
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "SourceNotDirectPut").await;
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    let key_usable = find(&status.conditions, ConditionType::KeyUsable);
    assert_eq!(key_usable, None, "no key can be usable for a stream that cannot be encrypted");
    assert_eq!(harness.calls(START, "orders"), 0);
}

#[tokio::test]
async fn second_resource_of_a_stream_makes_no_call() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("first", &orders(&aws_owned())).await;
    harness.until_it_says("first", "Encrypted").await;
    let key = harness.plant_key();
    harness.apply("second", &orders(&cmk(&key))).await;
    harness.until_it_says("second", "StreamAlreadyManaged").await;
    harness.let_pass("second", SignedDuration::from_hours(1)).await;
    assert_eq!(harness.calls(START, "orders"), 1);
    let status = harness.status("second").await;
    assert_eq!((status.calls, status.active_key), (None, None), "no state of the owner is reported");

    harness.kubectl(&["delete", "strenc", "first"]).await;
    harness.until_it_says("second", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
    assert_eq!(
        harness.status("second").await.calls.expect("the budget").used,
        2,
        "the owner's calls are inherited"
    );
}

#[tokio::test]
async fn preexisting_failure_reports_active_key_unknown() {
    let harness = harness_with(Snapshot::default()).await;
    let key = harness.plant_key();
    let state = Snapshot::enabling_failed(
        StreamKey::arn(&key),
        Some(StreamKey::AwsOwned),
        FailureType::KmsAccessDenied,
    );
    harness.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.until_it_says("orders", "ActiveKeyUnknown").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "Unknown");
    assert_eq!(status.encryption_status, Some(EnablingFailed));
    harness.apply("orders", &orders(&cmk(&key))).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
}

#[tokio::test]
async fn recreated_stream_keeps_call_count_but_not_active_key() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    let again = PlantedStream { created: Some(harness.aws.now()), ..PlantedStream::default() };
    harness.aws.world().plant_stream(again);
    harness.until_it_says("orders", "Enabling").await;
    let status = harness.status("orders").await;
    assert_eq!((status.active_key, status.calls.expect("the budget").used), (None, 2));
    assert!(!harness.events("orders").await.contains("DriftCorrected"), "a new stream is no drift");
}

#[tokio::test]
async fn test_record_verifies_encryption_if_requested() {
    let harness = harness_with(Snapshot::default()).await;
    harness
        .apply("orders", &json!({"stream": {"arn": firehose("orders")}, "verification": "PutRecord"}))
        .await;
    harness.until_it_says("orders", "Encrypted").await;
    assert!(harness.calls("PutRecord", "orders") >= 1);
    assert!(harness.status("orders").await.verified_time.is_some());
    let records = harness.calls("PutRecord", "orders");
    harness.let_pass("orders", SignedDuration::from_hours(5)).await;
    assert_eq!(harness.calls("PutRecord", "orders"), records, "one verification for each change");
}

/// A stream whose encryption was enabled and is disabled now.
fn stopped() -> Snapshot {
    Snapshot { encryption: Shown::Disabled, ..Snapshot::default() }
}
