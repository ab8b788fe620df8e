//! The budget: the operator never makes more calls than allowed, and continues by itself once a call expires.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{
    Caller, Calls as _, Fault, PlantedStream, Request, Rule, Service, Settings, Snapshot, StreamKey,
};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;

use crate::harness::{Harness, firehose, kinesis, message, truth};

const START: &str = "StartDeliveryStreamEncryption";
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A stream whose calls for the day are used up by a user who changes the key repeatedly.
async fn spent() -> (Harness, String, String) {
    let second = SignedDuration::from_secs(1);
    let harness = Harness::start(Settings { enabling: second, ..Settings::default() }).await;
    harness.aws.world().plant_stream(PlantedStream::default());
    let keys = [harness.plant_key(), harness.plant_key()];
    for turn in 0..20 {
        ask_for(&harness, &keys[turn % 2]).await;
        harness.until_it_says("orders", "Encrypted").await;
    }
    assert_eq!(harness.calls(START, "orders"), 20);
    let [one, other] = keys;
    (harness, one, other)
}

async fn ask_for(harness: &Harness, key: &str) {
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
}

#[tokio::test]
async fn no_call_beyond_budget_until_oldest_call_expires() {
    let (harness, one, _) = spent().await;
    let first_call =
        harness.aws.world().calls().iter().find(|call| call.operation == START).expect("a call").time;
    ask_for(&harness, &one).await;
    harness.until_it_says("orders", "CallLimitReached").await;
    let status = harness.status("orders").await;
    let calls = status.calls.clone().expect("the budget");
    assert_eq!((calls.used, calls.limit), (20, 20));
    let next = status.next_attempt_time.clone().expect("a time").0;
    assert_eq!(calls.next_available_time.expect("a time").0, next);
    let waits = next.duration_since(first_call);
    assert!(
        waits >= DAY && waits <= DAY + SignedDuration::from_mins(31),
        "the next slot is free {waits:#} after the first call"
    );
    assert!(message(&status).contains("20 of 20"), "{}", message(&status));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "with the active key");

    harness.let_pass("orders", next.duration_since(harness.aws.now()) - SignedDuration::from_secs(2)).await;
    assert_eq!(harness.calls(START, "orders"), 20, "not before its time");
    harness.let_pass("orders", SignedDuration::from_secs(4)).await;
    assert_eq!(harness.calls(START, "orders"), 21, "and then by itself");
    harness.until_it_says("orders", "Encrypted").await;
    assert!(harness.aws.world().calls().busiest_window("orders", DAY) <= 20);
}

#[tokio::test]
async fn restart_does_not_reset_budget() {
    let (mut harness, one, _) = spent().await;
    ask_for(&harness, &one).await;
    harness.until_it_says("orders", "CallLimitReached").await;
    for _ in 0..5 {
        harness.restart();
        harness.visit("orders").await.expect("a reconcile");
    }
    assert_eq!(harness.calls(START, "orders"), 20);
    harness.let_pass("orders", SignedDuration::from_hours(23)).await;
    assert_eq!(harness.calls(START, "orders"), 20);
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(harness.calls(START, "orders"), 21);
}

#[tokio::test]
async fn recreated_resource_does_not_reset_budget() {
    let (harness, one, _) = spent().await;
    for _ in 0..3 {
        harness.kubectl(&["delete", "strenc", "orders"]).await;
        ask_for(&harness, &one).await;
        harness.until_it_says("orders", "CallLimitReached").await;
    }
    assert_eq!(harness.calls(START, "orders"), 20);
    harness.let_pass("orders", SignedDuration::from_hours(25)).await;
    assert_eq!(harness.calls(START, "orders"), 21);
}

#[tokio::test]
async fn budget_is_limited_by_policy() {
    let mut harness = Harness::start(Settings::default()).await;
    harness.policy = Some(StreamEncryptionPolicySpec {
        max_calls_per_day: 2,
        ..StreamEncryptionPolicySpec::own_account()
    });
    harness.restart();
    harness.aws.world().plant_stream(PlantedStream::default());
    let keys: Vec<String> = (0..3).map(|_| harness.plant_key()).collect();
    for key in &keys[..2] {
        ask_for(&harness, key).await;
        harness.until_it_says("orders", "Encrypted").await;
    }
    ask_for(&harness, &keys[2]).await;
    harness.until_it_says("orders", "CallLimitReached").await;
    assert_eq!(harness.status("orders").await.calls.expect("the budget").limit, 2);
    assert_eq!(harness.calls(START, "orders"), 2);
}

#[tokio::test]
async fn aws_call_limit_is_reported_and_retried_rarely() {
    let harness = Harness::start(Settings::default()).await;
    harness.aws.world().plant_stream(PlantedStream {
        state: Snapshot::enabled(StreamKey::AwsOwned),
        ..PlantedStream::default()
    });
    let limit = Fault::Refuse {
        code: "LimitExceededException".into(),
        message: "You have already reached the limit".into(),
        status: 400,
    };
    harness.aws.world().script(Rule::always(limit).on(START));
    let key = harness.plant_key();
    ask_for(&harness, &key).await;
    harness.until_it_says("orders", "CallLimitReached").await;
    let next = harness.status("orders").await.next_attempt_time.expect("a time").0;
    assert!(next.duration_since(harness.aws.now()) >= SignedDuration::from_mins(59));
    harness.let_pass("orders", DAY).await;
    let sent = harness.calls(START, "orders");
    assert!((4..=7).contains(&sent), "{sent} calls in a day");
}

#[tokio::test]
async fn kinesis_calls_used_up_by_others_are_reported_as_limit() {
    let harness = Harness::start(Settings::default()).await;
    let clicks =
        PlantedStream { service: Service::Kinesis, name: "clicks".to_owned(), ..PlantedStream::default() };
    harness.aws.world().plant_stream(clicks.clone());
    let start = json!({"StreamName": "clicks", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    let start = Request::kinesis("StartStreamEncryption", start);
    for _ in 0..25 {
        let now = harness.aws.now();
        let reply = harness.aws.world().call(now, &Caller::default(), "", &start);
        reply.result.expect("someone else starts encryption");
        harness.aws.advance(SignedDuration::from_secs(60));
    }
    harness.aws.world().plant_stream(clicks);
    harness.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}})).await;
    harness.until_it_says("clicks", "CallLimitReached").await;
    let status = harness.status("clicks").await;
    assert!(message(&status).contains("25 encryption calls"), "{}", message(&status));
    let next = status.next_attempt_time.expect("a time").0;
    assert!(next.duration_since(harness.aws.now()) >= SignedDuration::from_mins(59));
    assert_eq!(harness.calls("StartStreamEncryption", "clicks"), 26);
    harness.until_it_says("clicks", "Encrypted").await;
    let sent = harness.calls("StartStreamEncryption", "clicks") - 25;
    assert!(sent <= 7, "{sent} calls until the oldest one of the others was a day old");
}

#[tokio::test]
async fn refused_kinesis_calls_use_no_budget_and_back_off() {
    let harness = Harness::start(Settings::default()).await;
    let clicks =
        PlantedStream { service: Service::Kinesis, name: "clicks".to_owned(), ..PlantedStream::default() };
    harness.aws.world().plant_stream(clicks);
    let denied = Fault::Refuse { code: "KMSAccessDeniedException".into(), message: "no".into(), status: 400 };
    harness.aws.world().script(Rule::always(denied).on("StartStreamEncryption"));
    harness.apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}})).await;
    harness.until_it_says("clicks", "KeyAccessDenied").await;
    harness.let_pass("clicks", DAY).await;
    assert_eq!(harness.status("clicks").await.calls.expect("the budget").used, 0);
    assert_eq!(harness.calls("StartStreamEncryption", "clicks"), 10);
}
