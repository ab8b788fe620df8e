//! The budget: whatever happens, no more calls than allowed, and on again by itself at the right time.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{
    Caller, Calls as _, Fault, PlantedStream, Request, Rule, Service, Settings, Snapshot, StreamKey,
};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;

use crate::play::{Play, firehose, kinesis, message, truth};

const START: &str = "StartDeliveryStreamEncryption";
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A stream whose calls of the day are all spent, by a user who changes the key again and again.
async fn spent() -> (Play, String, String) {
    let second = SignedDuration::from_secs(1);
    let play = Play::start(Settings { enabling: second, ..Settings::default() }).await;
    play.aws.world().plant_stream(PlantedStream::default());
    let keys = [play.plant_key(), play.plant_key()];
    for turn in 0..20 {
        ask_for(&play, &keys[turn % 2]).await;
        play.until_it_says("orders", "Encrypted").await;
    }
    assert_eq!(play.calls(START, "orders"), 20);
    let [one, other] = keys;
    (play, one, other)
}

async fn ask_for(play: &Play, key: &str) {
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
}

#[tokio::test]
async fn past_the_budget_no_call_is_sent_until_the_oldest_one_has_aged_out() {
    let (play, one, _) = spent().await;
    let first_call =
        play.aws.world().calls().iter().find(|call| call.operation == START).expect("a call").time;
    ask_for(&play, &one).await;
    play.until_it_says("orders", "CallLimitReached").await;
    let status = play.status("orders").await;
    let calls = status.calls.clone().expect("the budget");
    assert_eq!((calls.used, calls.limit), (20, 20));
    let next = status.next_attempt_time.clone().expect("a time").0;
    assert_eq!(calls.next_free.expect("a time").0, next);
    let waits = next.duration_since(first_call);
    assert!(
        waits >= DAY && waits <= DAY + SignedDuration::from_mins(31),
        "the next slot is free {waits:#} after the first call"
    );
    assert!(message(&status).contains("20 of the 20"), "{}", message(&status));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "with the key that is in force");

    play.let_pass("orders", next.duration_since(play.aws.now()) - SignedDuration::from_secs(2)).await;
    assert_eq!(play.calls(START, "orders"), 20, "not before its time");
    play.let_pass("orders", SignedDuration::from_secs(4)).await;
    assert_eq!(play.calls(START, "orders"), 21, "and then by itself");
    play.until_it_says("orders", "Encrypted").await;
    assert!(play.aws.world().calls().busiest_window("orders", DAY) <= 20);
}

#[tokio::test]
async fn a_restart_gives_no_new_budget() {
    let (mut play, one, _) = spent().await;
    ask_for(&play, &one).await;
    play.until_it_says("orders", "CallLimitReached").await;
    for _ in 0..5 {
        play.restart();
        play.visit("orders").await.expect("a visit");
    }
    assert_eq!(play.calls(START, "orders"), 20);
    play.let_pass("orders", SignedDuration::from_hours(23)).await;
    assert_eq!(play.calls(START, "orders"), 20);
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(play.calls(START, "orders"), 21);
}

#[tokio::test]
async fn a_resource_that_is_deleted_and_made_again_finds_its_calls_counted() {
    let (play, one, _) = spent().await;
    for _ in 0..3 {
        play.kubectl(&["delete", "strenc", "orders"]).await;
        ask_for(&play, &one).await;
        play.until_it_says("orders", "CallLimitReached").await;
    }
    assert_eq!(play.calls(START, "orders"), 20);
    play.let_pass("orders", SignedDuration::from_hours(25)).await;
    assert_eq!(play.calls(START, "orders"), 21);
}

#[tokio::test]
async fn the_budget_is_a_setting_and_the_rest_is_left_to_people() {
    let mut play = Play::start(Settings::default()).await;
    play.policy = Some(StreamEncryptionPolicySpec {
        max_calls_per_day: 2,
        ..StreamEncryptionPolicySpec::own_account()
    });
    play.restart();
    play.aws.world().plant_stream(PlantedStream::default());
    let keys: Vec<String> = (0..3).map(|_| play.plant_key()).collect();
    for key in &keys[..2] {
        ask_for(&play, key).await;
        play.until_it_says("orders", "Encrypted").await;
    }
    ask_for(&play, &keys[2]).await;
    play.until_it_says("orders", "CallLimitReached").await;
    assert_eq!(play.status("orders").await.calls.expect("the budget").limit, 2);
    assert_eq!(play.calls(START, "orders"), 2);
}

#[tokio::test]
async fn where_others_have_spent_the_calls_aws_says_so_and_is_asked_again_only_rarely() {
    let play = Play::start(Settings::default()).await;
    play.aws.world().plant_stream(PlantedStream {
        state: Snapshot::enabled(StreamKey::AwsOwned),
        ..PlantedStream::default()
    });
    let limit = Fault::Refuse {
        code: "LimitExceededException".into(),
        message: "You have already reached the limit".into(),
        status: 400,
    };
    play.aws.world().script(Rule::always(limit).on(START));
    let key = play.plant_key();
    ask_for(&play, &key).await;
    play.until_it_says("orders", "CallLimitReached").await;
    let next = play.status("orders").await.next_attempt_time.expect("a time").0;
    assert!(next.duration_since(play.aws.now()) >= SignedDuration::from_mins(59));
    play.let_pass("orders", DAY).await;
    let sent = play.calls(START, "orders");
    assert!((4..=7).contains(&sent), "{sent} calls in a day");
}

#[tokio::test]
async fn kinesis_starts_used_up_by_others_are_a_limit() {
    let play = Play::start(Settings::default()).await;
    let clicks =
        PlantedStream { service: Service::Kinesis, name: "clicks".to_owned(), ..PlantedStream::default() };
    play.aws.world().plant_stream(clicks.clone());
    let start = json!({"StreamName": "clicks", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    let start = Request::kinesis("StartStreamEncryption", start);
    for _ in 0..25 {
        let now = play.aws.now();
        let reply = play.aws.world().call(now, &Caller::default(), "", &start);
        reply.result.expect("somebody else starts encryption");
        play.aws.advance(SignedDuration::from_secs(60));
    }
    play.aws.world().plant_stream(clicks);
    play.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}})).await;
    play.until_it_says("clicks", "CallLimitReached").await;
    let status = play.status("clicks").await;
    assert!(message(&status).contains("25 calls"), "{}", message(&status));
    let next = status.next_attempt_time.expect("a time").0;
    assert!(next.duration_since(play.aws.now()) >= SignedDuration::from_mins(59));
    assert_eq!(play.calls("StartStreamEncryption", "clicks"), 26);
    play.until_it_says("clicks", "Encrypted").await;
    let sent = play.calls("StartStreamEncryption", "clicks") - 25;
    assert!(sent <= 7, "{sent} calls until the oldest one of the others was a day old");
}

#[tokio::test]
async fn refusals_of_kinesis_use_up_no_budget_and_back_off_all_the_same() {
    let play = Play::start(Settings::default()).await;
    let clicks =
        PlantedStream { service: Service::Kinesis, name: "clicks".to_owned(), ..PlantedStream::default() };
    play.aws.world().plant_stream(clicks);
    let denied = Fault::Refuse { code: "KMSAccessDeniedException".into(), message: "no".into(), status: 400 };
    play.aws.world().script(Rule::always(denied).on("StartStreamEncryption"));
    play.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}})).await;
    play.until_it_says("clicks", "KeyRefused").await;
    play.let_pass("clicks", DAY).await;
    assert_eq!(play.status("clicks").await.calls.expect("the budget").used, 0);
    assert_eq!(play.calls("StartStreamEncryption", "clicks"), 10);
}
