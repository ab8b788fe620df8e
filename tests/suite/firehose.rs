//! Firehose streams, from `kubectl apply` to encrypted: this file the way there, those beside it all that can happen on it.

mod drift;
mod ending;
mod keys;
mod replies;

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{
    EncryptionStatus as Shown, FailureType, NeverEncryptedShows, PlantedKey, PlantedStream, Settings,
    Snapshot, Source, StreamKey,
};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::{
    Enabled, Enabling, EnablingFailed,
};
use stream_encryption_operator::api::stream_encryption::{KeyType, StreamEncryptionStatus};

use crate::play::{Play, firehose, message, truth};

const DESCRIBE: &str = "DescribeDeliveryStream";
const START: &str = "StartDeliveryStreamEncryption";
const STOP: &str = "StopDeliveryStreamEncryption";

/// A world with one Firehose stream `orders` in this state; ENABLING and DISABLING take 5 s.
async fn play_with(state: Snapshot) -> Play {
    let five = SignedDuration::from_secs(5);
    let play = Play::start(Settings { enabling: five, disabling: five, ..Settings::default() }).await;
    play.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    play
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

/// A key whose policy keeps Firehose from it.
fn plant_denied_key(play: &Play) -> String {
    play.aws.world().plant_key(PlantedKey { policy: Some(denying()), ..PlantedKey::default() })
}

fn denying() -> Value {
    let all = json!({"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Principal": {"Service": "firehose.amazonaws.com"}, "Action": "kms:*", "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [all, deny]})
}

fn word(
    status: Option<stream_encryption_operator::api::stream_encryption::EncryptionStatus>,
    reason: &str,
) -> crate::play::Word {
    (status, reason.to_owned())
}

#[tokio::test]
async fn a_plain_text_stream_becomes_encrypted_with_one_start_and_at_most_four_looks() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    let words = play.until_it_says("orders", "Encrypted").await;
    assert_eq!(
        words,
        [word(Some(Enabling), "Enabling"), word(Some(Enabled), "Settling"), word(Some(Enabled), "Encrypted")]
    );
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(play.calls(DESCRIBE, "orders") <= 4, "{} looks", play.calls(DESCRIBE, "orders"));

    let status = play.status("orders").await;
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.key_in_force.expect("a key").kind, KeyType::AwsOwned);
    assert_eq!(status.calls.expect("the budget").used, 1);
    assert_eq!(status.plain_text_since, None);
    let events = play.events("orders").await;
    assert!(events.contains("Enabling") && events.contains("Encrypted"), "{events:?}");
}

#[tokio::test]
async fn a_stream_that_is_already_right_costs_one_look_and_no_call() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!((play.calls(START, "orders"), play.calls(DESCRIBE, "orders")), (0, 1));
}

#[tokio::test]
async fn at_rest_a_look_costs_no_write_but_of_its_time_each_hour() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let before = play.status("orders").await;
    let ledger_before = play.ledger(&firehose("orders")).await.expect("the ledger").metadata.resource_version;
    let looks_before = play.calls(DESCRIBE, "orders");
    play.let_pass("orders", SignedDuration::from_hours(10)).await;
    let looks = play.calls(DESCRIBE, "orders") - looks_before;
    // Ten minutes, up to a tenth more or less for each resource.
    assert!((54..=67).contains(&looks), "{looks} looks in 10 hours");
    let after = play.status("orders").await;
    // Once an hour it tells when AWS last answered, and nothing else.
    assert_ne!(after.last_describe_time, before.last_describe_time);
    assert_eq!(
        StreamEncryptionStatus { last_describe_time: before.last_describe_time.clone(), ..after },
        before
    );
    assert_eq!(
        play.ledger(&firehose("orders")).await.expect("the ledger").metadata.resource_version,
        ledger_before
    );
}

#[tokio::test]
async fn encrypted_is_said_only_after_the_settle_time() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Settling").await;
    let status = play.status("orders").await;
    assert_eq!(
        truth(&status, ConditionType::Encrypted),
        "False",
        "AWS says ENABLED, and records may still be in plain text"
    );
    let enabled_at = play.aws.now();
    play.until_it_says("orders", "Encrypted").await;
    assert!(play.aws.now().duration_since(enabled_at) >= SignedDuration::from_secs(5));
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    assert!(status.encrypted_since.expect("a time").0 >= enabled_at + SignedDuration::from_secs(5));
}

#[tokio::test]
async fn while_a_stream_is_being_enabled_its_records_are_said_to_be_in_plain_text() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force, None);
    assert!(status.plain_text_since.is_some());
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert!(message(&status).contains("still in plain text"), "{}", message(&status));
}

#[tokio::test]
async fn a_stream_that_comes_without_any_encryption_block_is_in_plain_text() {
    let play = Play::start(Settings::default()).await;
    let bare =
        PlantedStream { never_encrypted_shows: NeverEncryptedShows::NoBlock, ..PlantedStream::default() };
    play.aws.world().plant_stream(bare);
    play.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_failed_first_enable_leaves_plain_text_and_backs_off() {
    let play = play_with(Snapshot::default()).await;
    let key = plant_denied_key(&play);
    play.apply("orders", &orders(&cmk(&key))).await;
    let words = play.until_it_says("orders", "EnablingFailed").await;
    assert_eq!(words, [word(Some(Enabling), "Enabling"), word(Some(EnablingFailed), "EnablingFailed")]);
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force, None);
    assert!(status.plain_text_since.is_some());
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert_eq!(
        truth(&status, ConditionType::Reconciling),
        "True",
        "a mended policy helps, so it is not stalled"
    );
    let failure = status.failure.expect("a failure");
    assert_eq!((failure.kind.as_str(), failure.attempts), ("KMS_ACCESS_DENIED", 1));
    let next = status.next_attempt_time.expect("a next attempt").0;
    assert!(next.duration_since(play.aws.now()) <= SignedDuration::from_mins(5));

    // Doubling from 5 minutes to 6 hours makes ten attempts in a day, and the budget is never near its end.
    play.let_pass("orders", SignedDuration::from_hours(24)).await;
    assert_eq!(play.calls(START, "orders"), 10);
}

#[tokio::test]
async fn a_stream_fed_by_kinesis_is_refused_without_any_call() {
    let play = Play::start(Settings::default()).await;
    play.aws
        .world()
        .plant_stream(PlantedStream { source: Source::KinesisStreamAsSource, ..PlantedStream::default() });
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "SourceNotDirectPut").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert_eq!(play.calls(START, "orders"), 0);
}

#[tokio::test]
async fn one_stream_has_one_owner_and_the_other_makes_no_call() {
    let play = play_with(Snapshot::default()).await;
    play.apply("first", &orders(&aws_owned())).await;
    play.until_it_says("first", "Encrypted").await;
    let key = play.plant_key();
    play.apply("second", &orders(&cmk(&key))).await;
    play.until_it_says("second", "StreamOwnedByAnother").await;
    play.let_pass("second", SignedDuration::from_hours(1)).await;
    assert_eq!(play.calls(START, "orders"), 1);
    let status = play.status("second").await;
    assert_eq!((status.calls, status.key_in_force), (None, None), "nothing of the owner's is told");

    play.kubectl(&["delete", "strenc", "first"]).await;
    play.until_it_says("second", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
    assert_eq!(
        play.status("second").await.calls.expect("the budget").used,
        2,
        "the owner's calls are inherited"
    );
}

#[tokio::test]
async fn a_failure_that_was_there_before_us_is_not_guessed_at() {
    let play = play_with(Snapshot::default()).await;
    let key = play.plant_key();
    let state = Snapshot::enabling_failed(
        StreamKey::arn(&key),
        Some(StreamKey::AwsOwned),
        FailureType::KmsAccessDenied,
    );
    play.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "KeyInForceUnknown").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "Unknown");
    assert_eq!(status.encryption_status, Some(EnablingFailed));
    play.apply("orders", &orders(&cmk(&key))).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_stream_made_again_under_its_name_keeps_its_calls_and_loses_its_key() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let again = PlantedStream { created: Some(play.aws.now()), ..PlantedStream::default() };
    play.aws.world().plant_stream(again);
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert_eq!((status.key_in_force, status.calls.expect("the budget").used), (None, 2));
    assert!(!play.events("orders").await.contains("DriftCorrected"), "a new stream is no drift");
}

#[tokio::test]
async fn a_record_proves_that_records_are_encrypted_where_that_is_asked_for() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "verify": {"putRecord": true}}))
        .await;
    play.until_it_says("orders", "Encrypted").await;
    assert!(play.calls("PutRecord", "orders") >= 1);
    assert!(play.status("orders").await.verified_time.is_some());
    let records = play.calls("PutRecord", "orders");
    play.let_pass("orders", SignedDuration::from_hours(5)).await;
    assert_eq!(play.calls("PutRecord", "orders"), records, "one proof for each change");
}

/// Encryption was on and is off.
fn stopped() -> Snapshot {
    Snapshot { encryption: Shown::Disabled, ..Snapshot::default() }
}
