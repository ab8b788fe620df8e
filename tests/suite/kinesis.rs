//! Kinesis data streams: the same promises, for a service that has no word for enabling or for a failure.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{
    FailureType, Fault, KeyIdEcho, KeyState, PlantedKey, PlantedStream, Rule, Service, Settings,
    ShownWhileUpdating, Snapshot, StreamKey,
};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::{
    Disabled, Disabling, Enabled, Enabling, EnablingFailed,
};
use stream_encryption_operator::api::stream_encryption::KeyType;

use crate::play::{Play, kinesis, truth};

const DESCRIBE: &str = "DescribeStreamSummary";
const START: &str = "StartStreamEncryption";
const STOP: &str = "StopStreamEncryption";

async fn play_in(settings: Settings, state: Snapshot) -> Play {
    let play = Play::start(settings).await;
    play.aws.world().plant_stream(clicks(state));
    play
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
async fn a_plain_text_stream_becomes_encrypted_with_one_start_and_at_most_four_looks() {
    for shows in [ShownWhileUpdating::New, ShownWhileUpdating::Old] {
        let play =
            play_in(Settings { while_updating: shows, ..Settings::default() }, Snapshot::default()).await;
        play.apply("clicks", &spec(&aws_owned())).await;
        let words = play.until_it_says("clicks", "Encrypted").await;
        let statuses: Vec<_> = words.iter().map(|(status, reason)| (*status, reason.as_str())).collect();
        assert_eq!(
            statuses,
            [(Some(Enabling), "Enabling"), (Some(Enabled), "Settling"), (Some(Enabled), "Encrypted")],
            "{shows:?}"
        );
        assert_eq!(play.calls(START, "clicks"), 1);
        assert!(play.calls(DESCRIBE, "clicks") <= 4);
        assert_eq!(play.status("clicks").await.key_in_force.expect("a key").kind, KeyType::AwsOwned);
    }
}

#[tokio::test]
async fn a_stream_that_is_already_right_costs_one_look_and_no_call_whichever_name_kinesis_echoes() {
    for echo in [KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias] {
        let play = Play::start(Settings { kinesis_key_id: echo, ..Settings::default() }).await;
        let key = play.plant_key();
        play.aws.world().plant_alias("alias/clicks", &key);
        let given = key.rsplit('/').next().expect("an id").to_owned();
        play.aws.world().plant_stream(clicks(Snapshot::enabled(StreamKey::Kms { arn: key.clone(), given })));
        play.apply("clicks", &spec(&cmk(&key))).await;
        play.until_it_says("clicks", "Encrypted").await;
        assert_eq!((play.calls(START, "clicks"), play.calls(DESCRIBE, "clicks")), (0, 1), "{echo:?}");
        assert_eq!(play.status("clicks").await.key_in_force.expect("a key").arn, Some(key), "{echo:?}");
    }
}

#[tokio::test]
async fn the_aws_owned_key_is_known_by_its_alias_and_by_its_arn() {
    for echo in [KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias] {
        let play =
            play_in(Settings { kinesis_key_id: echo, ..Settings::default() }, Snapshot::default()).await;
        play.apply("clicks", &spec(&aws_owned())).await;
        play.until_it_says("clicks", "Encrypted").await;
        play.let_pass("clicks", SignedDuration::from_hours(3)).await;
        assert_eq!(play.calls(START, "clicks"), 1, "{echo:?}");
    }
}

#[tokio::test]
async fn a_re_key_names_the_old_key_until_the_new_one_is_in_force() {
    let play = play_in(Settings::default(), Snapshot::default()).await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.apply("clicks", &spec(&cmk(&old))).await;
    play.until_it_says("clicks", "Encrypted").await;
    play.apply("clicks", &spec(&cmk(&new))).await;
    play.until_it_says("clicks", "Enabling").await;
    assert_eq!(play.status("clicks").await.key_in_force.expect("a key").arn, Some(old));
    play.until_it_says("clicks", "Encrypted").await;
    assert_eq!(play.status("clicks").await.key_in_force.expect("a key").arn, Some(new));
    assert_eq!(play.calls(START, "clicks"), 2);
}

#[tokio::test]
async fn a_start_that_kms_refuses_reads_as_enabling_failed() {
    let play = play_in(Settings::default(), Snapshot::default()).await;
    let key = play.plant_key();
    play.aws.world().script(
        Rule::always(Fault::Refuse {
            code: "KMSAccessDeniedException".into(),
            message: "no".into(),
            status: 400,
        })
        .on(START),
    );
    play.apply("clicks", &spec(&cmk(&key))).await;
    play.until_it_says("clicks", "KeyRefused").await;
    let status = play.status("clicks").await;
    assert_eq!((status.encryption_status, status.key_in_force.clone()), (Some(EnablingFailed), None));
    assert_eq!(status.failure.expect("a failure").kind, "KMSAccessDeniedException");
}

#[tokio::test]
async fn a_re_key_that_ends_with_the_old_key_reads_as_enabling_failed() {
    let play = play_in(Settings::default(), Snapshot::default()).await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.apply("clicks", &spec(&cmk(&old))).await;
    play.until_it_says("clicks", "Encrypted").await;
    play.aws.world().script(Rule::once(Fault::FailsLater { failure: FailureType::UnknownError }).on(START));
    play.apply("clicks", &spec(&cmk(&new))).await;
    play.until_it_says("clicks", "EnablingFailed").await;
    let status = play.status("clicks").await;
    assert_eq!(status.encryption_status, Some(EnablingFailed));
    assert_eq!(status.key_in_force.clone().expect("a key").arn, Some(old));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    play.until_it_says("clicks", "Encrypted").await;
    assert_eq!(play.calls(START, "clicks"), 3, "the next attempt, after the backoff, succeeds");
}

#[tokio::test]
async fn a_disabled_key_waits_without_a_call() {
    let play = play_in(Settings::default(), Snapshot::default()).await;
    let key = play.aws.world().plant_key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
    play.apply("clicks", &spec(&cmk(&key))).await;
    play.until_it_says("clicks", "KeyDisabled").await;
    play.let_pass("clicks", SignedDuration::from_hours(1)).await;
    assert_eq!(play.calls(START, "clicks"), 0);
}

#[tokio::test]
async fn encryption_is_turned_off_where_that_is_asked_for_and_allowed() {
    let play = play_in(Settings::default(), Snapshot::default()).await;
    let key = play.plant_key();
    play.apply("clicks", &spec(&cmk(&key))).await;
    play.until_it_says("clicks", "Encrypted").await;
    play.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}, "encryption": "Disabled"})).await;
    let words = play.until_it_says("clicks", "EncryptionDisabled").await;
    assert!(words.contains(&(Some(Disabling), "Disabling".to_owned())), "{words:?}");
    let status = play.status("clicks").await;
    assert_eq!((status.encryption_status, status.key_in_force), (Some(Disabled), None));
    assert_eq!(play.calls(STOP, "clicks"), 1);
}

#[tokio::test]
async fn a_stream_that_is_being_resharded_is_waited_for() {
    let updating = Snapshot { status: simulated_aws::world::StreamStatus::Updating, ..Snapshot::default() };
    let play = play_in(Settings::default(), updating).await;
    play.apply("clicks", &spec(&aws_owned())).await;
    play.until_it_says("clicks", "StreamUpdating").await;
    play.let_pass("clicks", SignedDuration::from_mins(10)).await;
    assert_eq!(play.calls(START, "clicks"), 0);
    play.aws.world().plant_stream(clicks(Snapshot::default()));
    play.until_it_says("clicks", "Encrypted").await;
    assert_eq!(play.calls(START, "clicks"), 1);
}

#[tokio::test]
async fn a_record_proves_that_records_are_encrypted_where_that_is_asked_for() {
    let play = play_in(Settings::default(), Snapshot::default()).await;
    play.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}, "verify": {"putRecord": true}})).await;
    play.until_it_says("clicks", "Encrypted").await;
    assert!(play.status("clicks").await.verified_time.is_some());
}
