//! Kinesis data streams: the same behaviour, for a service that reports neither ENABLING nor a failure.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{
    FailureType, Fault, KeyIdEcho, KeyState, PlantedKey, PlantedStream, Rule, Service, Settings,
    ShownWhileUpdating, Snapshot, StreamKey,
};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::stream_encryption::EncryptionStatus::{
    Disabled, Disabling, Enabled, Enabling, EnablingFailed,
};
use stream_encryption_api::stream_encryption::KeyType;

use crate::harness::{Harness, kinesis, truth};

const DESCRIBE: &str = "DescribeStreamSummary";
const START: &str = "StartStreamEncryption";
const STOP: &str = "StopStreamEncryption";

async fn play_in(settings: Settings, state: Snapshot) -> Harness {
    let harness = Harness::start(settings).await;
    harness.aws.world().plant_stream(clicks(state));
    harness
}

fn clicks(state: Snapshot) -> PlantedStream {
    PlantedStream { service: Service::Kinesis, name: "clicks".to_owned(), state, ..PlantedStream::default() }
}

fn spec(key: &Value) -> Value {
    json!({"stream": {"arn": kinesis("clicks")}, "key": key})
}

fn aws_owned() -> Value {
    json!({"type": "AWS_OWNED_CMK"})
}

fn cmk(arn: &str) -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": arn})
}

#[tokio::test]
async fn encryption_takes_one_start_and_at_most_four_describes() {
    for shows in [ShownWhileUpdating::New, ShownWhileUpdating::Old] {
        let harness =
            play_in(Settings { while_updating: shows, ..Settings::default() }, Snapshot::default()).await;
        harness.apply("clicks", &spec(&aws_owned())).await;
        let words = harness.until_it_says("clicks", "Encrypted").await;
        let statuses: Vec<_> = words.iter().map(|(status, reason)| (*status, reason.as_str())).collect();
        assert_eq!(
            statuses,
            [(Some(Enabling), "Enabling"), (Some(Enabled), "Settling"), (Some(Enabled), "Encrypted")],
            "{shows:?}"
        );
        assert_eq!(harness.calls(START, "clicks"), 1);
        assert!(harness.calls(DESCRIBE, "clicks") <= 4);
        assert_eq!(harness.status("clicks").await.active_key.expect("a key").kind, KeyType::AwsOwned);
    }
}

#[tokio::test]
async fn encrypted_stream_costs_one_describe_for_every_key_id_form() {
    for echo in [KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias] {
        let harness = Harness::start(Settings { kinesis_key_id: echo, ..Settings::default() }).await;
        let key = harness.plant_key();
        harness.aws.world().plant_alias("alias/clicks", &key);
        let given = key.rsplit('/').next().expect("an id").to_owned();
        harness
            .aws
            .world()
            .plant_stream(clicks(Snapshot::enabled(StreamKey::Kms { arn: key.clone(), given })));
        harness.apply("clicks", &spec(&cmk(&key))).await;
        harness.until_it_says("clicks", "Encrypted").await;
        assert_eq!((harness.calls(START, "clicks"), harness.calls(DESCRIBE, "clicks")), (0, 1), "{echo:?}");
        assert_eq!(harness.status("clicks").await.active_key.expect("a key").arn, Some(key), "{echo:?}");
    }
}

#[tokio::test]
async fn aws_owned_key_is_recognized_by_alias_and_arn() {
    for echo in [KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias] {
        let harness =
            play_in(Settings { kinesis_key_id: echo, ..Settings::default() }, Snapshot::default()).await;
        harness.apply("clicks", &spec(&aws_owned())).await;
        harness.until_it_says("clicks", "Encrypted").await;
        harness.let_pass("clicks", SignedDuration::from_hours(3)).await;
        assert_eq!(harness.calls(START, "clicks"), 1, "{echo:?}");
    }
}

#[tokio::test]
async fn old_key_stays_active_until_re_key_completes() {
    let harness = play_in(Settings::default(), Snapshot::default()).await;
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.apply("clicks", &spec(&cmk(&old))).await;
    harness.until_it_says("clicks", "Encrypted").await;
    harness.apply("clicks", &spec(&cmk(&new))).await;
    harness.until_it_says("clicks", "Enabling").await;
    assert_eq!(harness.status("clicks").await.active_key.expect("a key").arn, Some(old));
    harness.until_it_says("clicks", "Encrypted").await;
    assert_eq!(harness.status("clicks").await.active_key.expect("a key").arn, Some(new));
    assert_eq!(harness.calls(START, "clicks"), 2);
}

#[tokio::test]
async fn start_refused_by_kms_is_reported_as_enabling_failed() {
    let harness = play_in(Settings::default(), Snapshot::default()).await;
    let key = harness.plant_key();
    harness.aws.world().script(
        Rule::always(Fault::Refuse {
            code: "KMSAccessDeniedException".into(),
            message: "no".into(),
            status: 400,
        })
        .on(START),
    );
    harness.apply("clicks", &spec(&cmk(&key))).await;
    harness.until_it_says("clicks", "KeyAccessDenied").await;
    let status = harness.status("clicks").await;
    assert_eq!((status.encryption_status, status.active_key.clone()), (Some(EnablingFailed), None));
    assert_eq!(status.failure.expect("a failure").kind, "KMSAccessDeniedException");
}

#[tokio::test]
async fn re_key_ending_with_old_key_is_reported_as_enabling_failed() {
    let harness = play_in(Settings::default(), Snapshot::default()).await;
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.apply("clicks", &spec(&cmk(&old))).await;
    harness.until_it_says("clicks", "Encrypted").await;
    harness
        .aws
        .world()
        .script(Rule::once(Fault::FailsLater { failure: FailureType::UnknownError }).on(START));
    harness.apply("clicks", &spec(&cmk(&new))).await;
    harness.until_it_says("clicks", "EnablingFailed").await;
    let status = harness.status("clicks").await;
    assert_eq!(status.encryption_status, Some(EnablingFailed));
    assert_eq!(status.active_key.clone().expect("a key").arn, Some(old));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    harness.until_it_says("clicks", "Encrypted").await;
    assert_eq!(harness.calls(START, "clicks"), 3, "the next attempt, after the backoff, succeeds");
}

#[tokio::test]
async fn disabled_key_blocks_calls() {
    let harness = play_in(Settings::default(), Snapshot::default()).await;
    let key =
        harness.aws.world().plant_key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
    harness.apply("clicks", &spec(&cmk(&key))).await;
    harness.until_it_says("clicks", "KeyDisabled").await;
    harness.let_pass("clicks", SignedDuration::from_hours(1)).await;
    assert_eq!(harness.calls(START, "clicks"), 0);
}

#[tokio::test]
async fn encryption_is_disabled_if_requested_and_allowed() {
    let harness = play_in(Settings::default(), Snapshot::default()).await;
    let key = harness.plant_key();
    harness.apply("clicks", &spec(&cmk(&key))).await;
    harness.until_it_says("clicks", "Encrypted").await;
    harness.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}, "encryption": "Disabled"})).await;
    let words = harness.until_it_says("clicks", "EncryptionDisabled").await;
    assert!(words.contains(&(Some(Disabling), "Disabling".to_owned())), "{words:?}");
    let status = harness.status("clicks").await;
    assert_eq!((status.encryption_status, status.active_key), (Some(Disabled), None));
    assert_eq!(harness.calls(STOP, "clicks"), 1);
}

#[tokio::test]
async fn resharding_stream_is_not_called_until_active() {
    let updating = Snapshot { status: simulated_aws::world::StreamStatus::Updating, ..Snapshot::default() };
    let harness = play_in(Settings::default(), updating).await;
    harness.apply("clicks", &spec(&aws_owned())).await;
    harness.until_it_says("clicks", "StreamUpdating").await;
    harness.let_pass("clicks", SignedDuration::from_mins(10)).await;
    assert_eq!(harness.calls(START, "clicks"), 0);
    harness.aws.world().plant_stream(clicks(Snapshot::default()));
    harness.until_it_says("clicks", "Encrypted").await;
    assert_eq!(harness.calls(START, "clicks"), 1);
}

#[tokio::test]
async fn test_record_verifies_encryption_if_requested() {
    let harness = play_in(Settings::default(), Snapshot::default()).await;
    harness
        .apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}, "verification": "PutRecord"}))
        .await;
    harness.until_it_says("clicks", "Encrypted").await;
    assert!(harness.status("clicks").await.verified_time.is_some());
}

#[tokio::test]
async fn test_record_is_repeated_only_when_due() {
    let unsettled = Settings { settle: SignedDuration::from_hours(1), ..Settings::default() };
    let harness = play_in(unsettled, Snapshot::default()).await;
    harness
        .apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}, "verification": "PutRecord"}))
        .await;
    harness.until_it_says("clicks", "Verifying").await;
    let requests =
        || (harness.calls("PutRecord", "clicks"), harness.calls("DescribeStreamSummary", "clicks"));
    let sent = requests();
    assert!(sent.0 > 0, "{sent:?}");
    let mut next = harness.aws.now();
    for _ in 0..5 {
        next = harness.visit("clicks").await.expect("a reconcile");
    }
    assert_eq!(requests(), sent, "a reconcile before the time is not the reason for a request");
    harness.aws.advance(next.duration_since(harness.aws.now()));
    harness.visit("clicks").await.expect("a reconcile");
    assert_eq!(requests(), (sent.0 + 1, sent.1 + 1));
}
