//! Tests the HTTP server: lost, held and slow replies are real, and admin routes reach the model.

use std::time::Duration;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::raw_client::{Answer, RawClient};
use simulated_aws::{Clock, Fault, PlantedStream, Rule, Service, Settings, SimulatedAws, World};

async fn serve(settings: Settings) -> (SimulatedAws, RawClient) {
    let mut world = World::new(settings);
    world.plant_stream(PlantedStream::default());
    let start: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
    let aws = SimulatedAws::start(world, Clock::Virtual(start)).await.expect("it starts");
    // The virtual clock differs from the machine's clock.
    let client = RawClient { date: None, ..RawClient::new(&aws.url()) };
    (aws, client)
}

async fn describe(client: &RawClient) -> anyhow::Result<Answer> {
    client.json(Service::Firehose, "DescribeDeliveryStream", &json!({ "DeliveryStreamName": "orders" })).await
}

/// Waits until the server has logged this many requests.
async fn arrived(aws: &SimulatedAws, calls: usize) {
    while aws.world().calls().len() < calls {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn lost_reply_closes_connection_after_execution() {
    let (aws, client) = serve(Settings::default()).await;
    aws.world().script(Rule::once(Fault::LoseReply));
    assert!(describe(&client).await.is_err());
    assert!(aws.world().calls()[0].executed);
    assert_eq!(describe(&client).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn held_reply_is_sent_on_release() {
    let (aws, client) = serve(Settings::default()).await;
    aws.world().script(Rule::once(Fault::Hold));
    let held = tokio::spawn(async move { describe(&client).await });
    arrived(&aws, 1).await;
    assert!(!held.is_finished());
    aws.release_held();
    assert_eq!(held.await.expect("no panic").expect("an answer").status, 200);
}

#[tokio::test]
async fn slow_reply_waits_for_virtual_clock() {
    let (aws, client) = serve(Settings::default()).await;
    aws.world().script(Rule::once(Fault::Slow { by: SignedDuration::from_hours(1) }));
    let slow = tokio::spawn(async move { describe(&client).await });
    arrived(&aws, 1).await;
    aws.advance(SignedDuration::from_mins(59));
    assert!(!slow.is_finished());
    aws.advance(SignedDuration::from_mins(1));
    assert_eq!(slow.await.expect("no panic").expect("an answer").status, 200);
}

#[tokio::test]
async fn admin_routes_match_handle() {
    let (aws, client) = serve(Settings::default()).await;
    let ask = |method: Method, path: &'static str, body: Value| {
        let client = client.clone();
        async move { client.plain(method, path, &body).await.expect("an answer") }
    };
    let arn = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
    // The example in the documentation is what this route takes.
    let docs = include_str!("../../../docs/simulated-aws.md");
    let (_, example) = docs.split_once("in any state, for example `").expect("an example of a state");
    let example = example.split('`').next().unwrap_or_default();
    let state: Value = serde_json::from_str(example).expect("JSON");
    let answer = ask(Method::PATCH, "/_admin/streams", json!({ "arn": arn, "state": state })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let block = describe(&client).await.expect("an answer").json();
    let status =
        block.pointer("/DeliveryStreamDescription/DeliveryStreamEncryptionConfiguration/Status").cloned();
    assert_eq!(status, Some(json!("ENABLED")));
    let answer =
        ask(Method::PATCH, "/_admin/settings", json!({ "enabling": "2m", "failed_re_key_shows": "Active" }))
            .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(aws.world().settings().enabling, SignedDuration::from_mins(2));
    let refused = ask(Method::PATCH, "/_admin/settings", json!({ "no_such_setting": 1 })).await;
    assert_eq!(refused.status, 400);
    let outside = json!({ "service": "firehose", "operation": "StopDeliveryStreamEncryption", "body": { "DeliveryStreamName": "orders" } });
    assert_eq!(ask(Method::POST, "/_admin/calls", outside).await.status, 200);
    let log =
        ask(Method::GET, "/_admin/log?operation=StopDeliveryStreamEncryption", Value::Null).await.json();
    assert_eq!(log[0]["principal"]["access_key"], "AKIASOMEBODYELSE");
    assert_eq!(ask(Method::DELETE, "/_admin/streams", json!({ "arn": arn })).await.status, 200);
    assert_eq!(
        describe(&client).await.expect("an answer").code().as_deref(),
        Some("ResourceNotFoundException")
    );
    assert_eq!(ask(Method::GET, "/_admin/nothing", Value::Null).await.status, 404);
    assert_eq!(ask(Method::POST, "/_admin/reset", Value::Null).await.status, 200);
    assert!(aws.world().calls().is_empty());
}

#[tokio::test]
async fn request_dated_15_minutes_off_is_refused_and_not_counted() {
    let (aws, client) = serve(Settings::default()).await;
    let start = async |date: &str| {
        let client = RawClient { date: Some(date.to_owned()), ..client.clone() };
        let body = json!({ "DeliveryStreamName": "orders" });
        client.json(Service::Firehose, "StartDeliveryStreamEncryption", &body).await.expect("an answer")
    };
    for (date, message) in [
        (
            "20260101T234459Z",
            "Signature expired: 20260101T234459Z is now earlier than 20260101T234500Z (20260102T000000Z - 15 min.)",
        ),
        (
            "20260102T001501Z",
            "Signature not yet current: 20260102T001501Z is still later than 20260102T001500Z (20260102T000000Z + 15 min.)",
        ),
    ] {
        aws.world().script(Rule::once(Fault::AccessDenied));
        let answer = start(date).await;
        assert_eq!((answer.status, answer.code().as_deref()), (400, Some("InvalidSignatureException")));
        assert_eq!(answer.json()["message"], message);
        let client = RawClient { date: Some(date.to_owned()), ..client.clone() };
        let answer = client.query("Action=GetCallerIdentity&Version=2011-06-15").await.expect("an answer");
        assert_eq!(answer.status, 403);
        assert!(answer.text.contains("<Code>SignatureDoesNotMatch</Code>"), "{}", answer.text);
        aws.world().clear_faults();
    }
    assert!(aws.world().calls().iter().all(|call| !call.executed && !call.counted));
    for date in ["20260101T234500Z", "20260102T001500Z"] {
        assert_ne!(start(date).await.code().as_deref(), Some("InvalidSignatureException"), "{date}");
    }
    assert!(aws.world().calls().iter().any(|call| call.executed), "a date at the limit is accepted");
    aws.world().settings().checks_dates = false;
    assert_ne!(start("20200101T000000Z").await.code().as_deref(), Some("InvalidSignatureException"));
}

#[tokio::test]
async fn dated_request_arriving_after_15_minutes_is_refused() {
    let (aws, client) = serve(Settings::default()).await;
    let client = RawClient { date: Some("20260102T000000Z".to_owned()), ..client };
    let body = json!({ "DeliveryStreamName": "orders" });
    for (late, executed) in [(14, true), (16, false)] {
        aws.world().script(Rule::once(Fault::Late { by: SignedDuration::from_mins(late) }));
        assert!(client.json(Service::Firehose, "StartDeliveryStreamEncryption", &body).await.is_err());
        aws.advance(SignedDuration::from_mins(late));
        let call = aws.world().calls().last().cloned().expect("logged");
        assert_eq!(call.executed, executed, "{late} minutes: {call:?}");
        aws.advance(SignedDuration::from_mins(-late));
    }
}

#[tokio::test]
async fn dropped_handle_closes_port() {
    let (aws, client) = serve(Settings::default()).await;
    assert!(describe(&client).await.is_ok());
    drop(aws);
    // The task ends at its next poll, not within drop.
    while describe(&client).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
