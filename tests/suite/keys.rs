//! The keys of a stream beside the one that is asked for: the one in force, without which records are lost, and the one before
//! it, which may be retired later than people think.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, KeyState, PlantedStream, Rule, Service, Settings, Snapshot, StreamKey};
use stream_encryption_operator::api::condition::{ConditionType, find};
use stream_encryption_operator::api::stream_encryption::StreamEncryptionStatus;
use stream_encryption_operator::controller::reconcile;

use crate::play::{Play, firehose, kinesis, truth};

/// A Firehose stream `orders` and a Kinesis stream `clicks`, both encrypted with a key that somebody chose.
async fn encrypted() -> (Play, String) {
    let play = Play::start(Settings { enabling: SignedDuration::from_secs(5), ..Settings::default() }).await;
    let key = play.plant_key();
    for (service, name) in [(Service::Firehose, "orders"), (Service::Kinesis, "clicks")] {
        let (name, state) = (name.to_owned(), Snapshot::enabled(StreamKey::arn(&key)));
        play.aws.world().plant_stream(PlantedStream { service, name, state, ..PlantedStream::default() });
    }
    (play, key)
}

fn with_key(stream: &str, key: &str) -> Value {
    json!({"stream": {"arn": stream}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key}})
}

fn set(play: &Play, key: &str, state: KeyState) {
    play.aws.world().key_mut(key).expect("the key").state = state;
}

/// Reason and message of `KeyUsable`.
fn key_usable(status: &StreamEncryptionStatus) -> (String, String) {
    let condition = find(&status.conditions, ConditionType::KeyUsable);
    condition.map(|condition| (condition.reason.clone(), condition.message.clone())).unwrap_or_default()
}

#[tokio::test]
async fn a_key_in_force_that_nobody_asked_for_is_watched_and_its_loss_is_told_within_minutes() {
    let (play, key) = encrypted().await;
    for (name, stream) in [("orders", firehose("orders")), ("clicks", kinesis("clicks"))] {
        play.apply(name, &json!({"stream": {"arn": stream}})).await;
        play.until_it_says(name, "Encrypted").await;
        assert_eq!(truth(&play.status(name).await, ConditionType::KeyUsable), "");
    }
    for (state, reason, records) in [
        (KeyState::Disabled, "KeyDisabled", ["discards them after 24 hours", "neither written"]),
        (KeyState::PendingDeletion, "KeyPendingDeletion", ["Cancel its deletion", "Cancel its deletion"]),
    ] {
        for (name, records) in ["orders", "clicks"].into_iter().zip(records) {
            set(&play, &key, state);
            play.let_pass(name, SignedDuration::from_mins(12)).await;
            let status = play.status(name).await;
            assert_eq!(truth(&status, ConditionType::KeyUsable), "False", "{name}");
            let (told, message) = key_usable(&status);
            assert_eq!(told, reason);
            assert!(
                message.contains(&format!("{key} is the active key")) && message.contains(records),
                "{message}"
            );
            assert!(play.events(name).await.contains(reason));
            let ready = find(&status.conditions, ConditionType::Ready).expect("Ready");
            assert_eq!((&*ready.status, &ready.reason), ("False", &told), "{name}");
            assert_eq!(ready.message, message, "the first thing in the column MESSAGE");
            assert!(status.active_key_unusable_since_time.is_some(), "{name}");
            assert_eq!(
                truth(&status, ConditionType::Encrypted),
                "True",
                "{name}: what is written is encrypted"
            );

            set(&play, &key, KeyState::Enabled);
            play.let_pass(name, SignedDuration::from_mins(12)).await;
            let status = play.status(name).await;
            assert_eq!(truth(&status, ConditionType::KeyUsable), "");
            assert_eq!(truth(&status, ConditionType::Ready), "True");
            assert_eq!(status.active_key_unusable_since_time, None);
        }
    }
}

/// What one process remembers of the key, another one does not, and a restart forgets it.
#[tokio::test]
async fn lost_key_is_reported_by_each_replica_without_kms() {
    let (mut play, key) = encrypted().await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "Encrypted").await;
    set(&play, &key, KeyState::Disabled);
    play.let_pass("orders", SignedDuration::from_mins(12)).await;
    let reported = play.status("orders").await;
    assert_eq!(key_usable(&reported).0, "KeyDisabled");

    play.aws.world().script(Rule::always(Fault::AccessDenied).on("DescribeKey"));
    play.restart();
    play.let_pass("orders", SignedDuration::from_mins(12)).await;
    let status = play.status("orders").await;
    assert_eq!(status.conditions, reported.conditions, "the new process has nothing else to report");
    assert_eq!(status.active_key_unusable_since_time, reported.active_key_unusable_since_time);

    play.aws.world().clear_faults();
    set(&play, &key, KeyState::Enabled);
    play.let_pass("orders", SignedDuration::from_mins(12)).await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Ready), "True");
    assert_eq!(status.active_key_unusable_since_time, None);

    // A process that remembers the key as disabled, after another one has read that it is enabled.
    set(&play, &key, KeyState::Disabled);
    play.let_pass("orders", SignedDuration::from_mins(12)).await;
    assert_eq!(key_usable(&play.status("orders").await).0, "KeyDisabled");
    set(&play, &key, KeyState::Enabled);
    let other = play.replica();
    let resource = play.resource("orders").await.expect("the resource");
    Box::pin(reconcile(&other, &resource)).await.expect("Kubernetes can be asked");
    assert_eq!(truth(&play.status("orders").await, ConditionType::Ready), "True");
    play.aws.world().script(Rule::always(Fault::AccessDenied).on("DescribeKey"));
    play.let_pass("orders", SignedDuration::from_mins(12)).await;
    assert_eq!(truth(&play.status("orders").await, ConditionType::Ready), "True");
}

/// The key that is asked for works; the stream is not changed to it, and loses records with the one that it has.
#[tokio::test]
async fn where_drift_is_only_told_the_key_in_force_is_watched_and_not_the_one_asked_for_alone() {
    let (play, old) = encrypted().await;
    let new = play.plant_key();
    let mut spec = with_key(&firehose("orders"), &new);
    spec["drift"] = json!("Report");
    play.apply("orders", &spec).await;
    play.until_it_says("orders", "Drifted").await;
    assert_eq!(truth(&play.status("orders").await, ConditionType::KeyUsable), "True");
    set(&play, &old, KeyState::Disabled);
    play.let_pass("orders", SignedDuration::from_mins(12)).await;
    let (reason, message) = key_usable(&play.status("orders").await);
    assert_eq!(reason, "KeyDisabled");
    assert!(
        message.starts_with(&format!(
            "Records are being lost: they are not delivered, and AWS discards them after 24 hours. {old}"
        )),
        "{message}"
    );
    let status = play.status("orders").await;
    let ready = find(&status.conditions, ConditionType::Ready).expect("Ready");
    assert!(ready.reason == "Drifted" && ready.message.starts_with(&message), "{}", ready.message);
}

#[tokio::test]
async fn after_a_re_key_it_is_told_until_when_the_old_key_is_needed() {
    let (play, old) = encrypted().await;
    for (name, stream) in [("orders", firehose("orders")), ("clicks", kinesis("clicks"))] {
        play.apply(name, &with_key(&stream, &old)).await;
        play.until_it_says(name, "Encrypted").await;
        assert_eq!(play.status(name).await.previous_key, None);
        let new = play.plant_key();
        play.apply(name, &with_key(&stream, &new)).await;
        play.until_it_says(name, "Encrypted").await;
        let now = play.aws.now();
        let previous = play.status(name).await.previous_key.expect("the old key");
        assert_eq!(previous.arn, old);
        let left = previous.needed_until.0.duration_since(now);
        let day = SignedDuration::from_hours(24);
        assert!(
            left > day - SignedDuration::from_mins(2) && left <= day + SignedDuration::from_secs(6),
            "{left:#}"
        );
        // It is neither forgotten nor put off.
        play.let_pass(name, SignedDuration::from_hours(30)).await;
        assert_eq!(play.status(name).await.previous_key, Some(previous));
    }
}

#[tokio::test]
async fn before_the_first_customers_key_the_status_names_who_else_needs_rights_on_it() {
    let play = Play::start(Settings { enabling: SignedDuration::from_secs(60), ..Settings::default() }).await;
    play.aws.world().plant_stream(PlantedStream::default());
    let key = play.plant_key();
    play.apply("orders", &with_key(&firehose("orders"), &key)).await;
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert!(status.plain_text_since.is_some(), "the key is not in force yet");
    let (_, message) = key_usable(&status);
    assert!(
        message.contains("kms:GenerateDataKey and kms:Decrypt") && message.contains("2027-02-28"),
        "{message}"
    );
}
