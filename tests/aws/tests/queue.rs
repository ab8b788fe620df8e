//! Tests the queue of events over HTTP: the protocol of SQS, long polling, and the admin routes.

use std::time::Duration;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::raw_client::{Answer, RawClient};
use simulated_aws::{Clock, PlantedStream, Service, Settings, SimulatedAws, World};

const URL: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/events";

async fn serve() -> (SimulatedAws, RawClient) {
    let mut world = World::new(Settings::default());
    world.plant_stream(PlantedStream::default());
    world.send_events_to("events");
    let start: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
    let aws = SimulatedAws::start(world, Clock::Virtual(start)).await.expect("it starts");
    let client = RawClient { date: None, ..RawClient::new(&aws.url()) };
    (aws, client)
}

async fn sqs(client: &RawClient, operation: &str, body: Value) -> Answer {
    client.json(Service::Sqs, operation, &body).await.expect("an answer")
}

async fn start(client: &RawClient) -> Answer {
    let body = json!({ "DeliveryStreamName": "orders" });
    client.json(Service::Firehose, "StartDeliveryStreamEncryption", &body).await.expect("an answer")
}

async fn admin(client: &RawClient, method: Method, path: &str, body: Value) -> Answer {
    client.plain(method, &format!("/_admin/{path}"), &body).await.expect("an answer")
}

/// Starts a receive that waits, and returns once it has reached the server and found nothing.
async fn waiting(aws: &SimulatedAws, client: &RawClient) -> tokio::task::JoinHandle<Answer> {
    let before = aws.world().calls().len();
    let client = client.clone();
    let receive = tokio::spawn(async move {
        sqs(&client, "ReceiveMessage", json!({ "QueueUrl": URL, "WaitTimeSeconds": 20 })).await
    });
    while aws.world().calls().len() == before {
        tokio::task::yield_now().await;
    }
    assert!(!receive.is_finished());
    receive
}

/// Returns the answer of a receive that no longer waits. The limit is below its own of 20 s.
async fn answered(receive: tokio::task::JoinHandle<Answer>) -> Value {
    let answer = tokio::time::timeout(Duration::from_secs(15), receive).await.expect("no longer waiting");
    answer.expect("no panic").json()
}

#[tokio::test]
async fn event_has_the_request_id_of_its_response() {
    let (_aws, client) = serve().await;
    let ids = [start(&client).await.request_id, start(&client).await.request_id];
    assert!(ids[0].is_some() && ids[0] != ids[1]);
    let body = json!({ "QueueUrl": URL, "MaxNumberOfMessages": 10 });
    let messages = sqs(&client, "ReceiveMessage", body).await.json()["Messages"].clone();
    let details: Vec<Value> = messages
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| serde_json::from_str::<Value>(message["Body"].as_str().expect("text")).expect("JSON"))
        .map(|event| event["detail"].clone())
        .collect();
    assert_eq!(details.len(), 2);
    for (detail, id) in details.iter().zip(ids) {
        assert_eq!(detail["requestID"].as_str(), id.as_deref());
    }
    assert_eq!(details[0].get("errorCode"), None);
    assert_eq!(details[1]["errorCode"], "ResourceInUseException");
}

#[tokio::test]
async fn missing_queue_has_the_error_of_both_protocols() {
    let (_aws, client) = serve().await;
    let answer = sqs(&client, "ReceiveMessage", json!({ "QueueUrl": URL.replace("events", "none") })).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["__type"], "com.amazonaws.sqs#QueueDoesNotExist");
    assert_eq!(answer.error_type.as_deref(), Some("QueueDoesNotExist"));
    assert_eq!(answer.query_error.as_deref(), Some("AWS.SimpleQueueService.NonExistentQueue;Sender"));
}

#[tokio::test]
async fn queue_url_names_the_host_that_the_client_used() {
    let (aws, client) = serve().await;
    let answer = sqs(&client, "GetQueueUrl", json!({ "QueueName": "events" })).await.json();
    let url = answer["QueueUrl"].as_str().expect("a URL");
    assert_eq!(url, format!("{}/111122223333/events", aws.url()));
    let sent = sqs(&client, "SendMessage", json!({ "QueueUrl": url, "MessageBody": "hi" })).await.json();
    assert_eq!(sent["MD5OfMessageBody"], "49f68a5c8493ec2c0bf489821c21fc3b");
    assert_eq!(
        sqs(&client, "ReceiveMessage", json!({ "QueueUrl": url })).await.json()["Messages"][0]["Body"],
        "hi"
    );
}

#[tokio::test]
async fn waiting_receive_is_answered_by_an_event() {
    let (aws, client) = serve().await;
    let receive = waiting(&aws, &client).await;
    start(&client).await;
    assert_eq!(answered(receive).await["Messages"].as_array().map(Vec::len), Some(1));
    let receive = waiting(&aws, &client).await;
    let now = aws.now();
    aws.world().heartbeat(now);
    assert_eq!(answered(receive).await["Messages"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn waiting_receive_sees_delayed_and_returned_messages() {
    let (aws, client) = serve().await;
    assert_eq!(admin(&client, Method::PATCH, "events", json!({ "delay": "5s" })).await.status, 200);
    let receive = waiting(&aws, &client).await;
    start(&client).await;
    aws.advance(SignedDuration::from_secs(4));
    assert!(!receive.is_finished());
    aws.advance(SignedDuration::from_secs(1));
    assert_eq!(answered(receive).await["Messages"].as_array().map(Vec::len), Some(1));
    aws.advance(SignedDuration::from_secs(15));
    let receive = waiting(&aws, &client).await;
    aws.advance(SignedDuration::from_secs(15));
    assert_eq!(answered(receive).await["Messages"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn waiting_receive_is_empty_when_its_time_is_over() {
    let (aws, client) = serve().await;
    let receive = waiting(&aws, &client).await;
    aws.advance(SignedDuration::from_secs(19));
    assert!(!receive.is_finished());
    aws.advance(SignedDuration::from_secs(1));
    assert_eq!(answered(receive).await, json!({}));
}

#[tokio::test]
async fn one_message_answers_one_of_two_waiting_receives() {
    let (aws, client) = serve().await;
    let receives = [waiting(&aws, &client).await, waiting(&aws, &client).await];
    start(&client).await;
    let later = async {
        while !receives.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        aws.advance(SignedDuration::from_secs(20));
    };
    later.await;
    let mut found = 0;
    for receive in receives {
        found += answered(receive).await["Messages"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(found, 1);
}

#[tokio::test]
async fn admin_routes_send_messages_and_show_counts() {
    let (aws, client) = serve().await;
    let forged = json!({ "body": { "source": "aws.kinesis" }, "copies": 3 });
    assert_eq!(admin(&client, Method::POST, "messages", forged).await.json(), json!({ "sent": 3 }));
    assert_eq!(admin(&client, Method::POST, "messages", json!({ "body": "no JSON {" })).await.status, 201);
    assert_eq!(admin(&client, Method::POST, "heartbeat", Value::Null).await.status, 201);
    let queues = admin(&client, Method::GET, "queues", Value::Null).await.json();
    assert_eq!((&queues[0]["visible"], &queues[0]["url"]), (&json!(5), &json!(URL)));
    let body = json!({ "QueueUrl": URL, "MaxNumberOfMessages": 10 });
    let messages = sqs(&client, "ReceiveMessage", body).await.json()["Messages"].clone();
    assert_eq!(messages[0]["Body"], "{\"source\":\"aws.kinesis\"}");
    assert_eq!(messages[3]["Body"], "no JSON {");
    assert!(messages[4]["Body"].as_str().is_some_and(|body| body.contains("Scheduled Event")));
    let change = json!({ "loss": 10, "disorder": 50, "seed": 7, "heartbeat_interval": "1m" });
    let events = admin(&client, Method::PATCH, "events", change).await.json();
    assert_eq!(
        (&events["loss"], &events["seed"], &events["queue"]),
        (&json!(10), &json!(7), &json!("events"))
    );
    assert_eq!(aws.world().heartbeat_interval(), Some(SignedDuration::from_mins(1)));
    assert_eq!(admin(&client, Method::PATCH, "events", json!({ "los": 1 })).await.status, 400);
    let unknown = json!({ "queue": "none", "body": "" });
    assert_eq!(admin(&client, Method::POST, "messages", unknown).await.status, 404);
}

#[tokio::test]
async fn admin_changes_of_keys_and_aliases_make_events() {
    let (aws, client) = serve().await;
    aws.world().record_events(true);
    let key = aws.world().plant_key(simulated_aws::PlantedKey::default());
    let alias = json!({ "name": "alias/orders", "key": key });
    let alias = admin(&client, Method::POST, "aliases", alias).await.json()["arn"].clone();
    admin(&client, Method::PATCH, "keys", json!({ "arn": key, "state": "Disabled" })).await;
    assert_eq!(admin(&client, Method::DELETE, "aliases", json!({ "arn": alias })).await.status, 200);
    let names: Vec<String> =
        aws.world().take_events().iter().filter_map(|event| event.operation().map(str::to_owned)).collect();
    assert_eq!(names, ["CreateAlias", "DisableKey", "DeleteAlias"]);
}
