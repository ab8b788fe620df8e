//! Tests the queue of events in process: receives, deletions, and deliveries that are late, lost, repeated or
//! out of order.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Counts, Deliveries};
use simulated_aws::{Caller, Fault, Request, Rule};

use crate::stage::{Stage, error};

/// A stage with a queue `events`, and its requests.
struct Consumer {
    stage: Stage,
    url: String,
}

impl Consumer {
    fn new() -> Consumer {
        let mut stage = Stage::plain();
        let url = stage.world.send_events_to("events");
        Consumer { stage, url }
    }

    fn with(deliveries: Deliveries) -> Consumer {
        let mut consumer = Consumer::new();
        consumer.stage.world.set_deliveries(deliveries);
        consumer
    }

    fn put(&mut self, bodies: &[&str]) {
        let now = self.stage.now;
        let queue = self.stage.world.queue("events").expect("a queue");
        for body in bodies {
            queue.put(now, (*body).to_owned());
        }
    }

    fn ask(&mut self, operation: &str, mut body: Value) -> Result<Value, String> {
        body["QueueUrl"] = json!(self.url);
        self.stage.call(&Request::sqs(operation, body))
    }

    fn receive(&mut self, body: Value) -> Vec<Value> {
        let answer = self.ask("ReceiveMessage", body).expect("received");
        answer["Messages"].as_array().cloned().unwrap_or_default()
    }

    fn bodies(&mut self) -> Vec<String> {
        let messages = self.receive(json!({ "MaxNumberOfMessages": 10 }));
        messages.iter().map(|message| text(&message["Body"])).collect()
    }

    /// Sends heartbeats, one each second, and returns how many messages each of them became by then.
    fn beat(&mut self, count: i64) {
        self.stage.world.send_heartbeats(self.stage.now, Some(SignedDuration::from_secs(1)));
        self.stage.wait(count);
        self.stage.world.settle(self.stage.now);
        self.stage.world.send_heartbeats(self.stage.now, None);
    }

    /// Receives and deletes all messages, and returns the times of their events, in the order of arrival.
    fn drain(&mut self) -> Vec<String> {
        let mut times = Vec::new();
        loop {
            let messages = self.receive(json!({ "MaxNumberOfMessages": 10 }));
            if messages.is_empty() {
                return times;
            }
            for message in messages {
                let event: Value = serde_json::from_str(&text(&message["Body"])).expect("JSON");
                times.push(text(&event["time"]));
                let handle = json!({ "ReceiptHandle": message["ReceiptHandle"] });
                self.ask("DeleteMessage", handle).expect("deleted");
            }
        }
    }

    fn counts(&mut self) -> Counts {
        let now = self.stage.now;
        self.stage.world.queue("events").expect("a queue").counts(now)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn event_of_a_call_arrives_in_the_queue() {
    let mut consumer = Consumer::new();
    consumer.stage.start(None).expect("started");
    let bodies = consumer.bodies();
    let event: Value = serde_json::from_str(&bodies[0]).expect("JSON");
    assert_eq!(bodies.len(), 1);
    assert_eq!(event["detail"]["eventName"], "StartDeliveryStreamEncryption");
    assert_eq!(consumer.stage.world.take_events(), [], "the queue has it instead");
}

#[test]
fn message_returns_after_the_visibility_timeout() {
    let mut consumer = Consumer::new();
    consumer.put(&["one"]);
    let ask = json!({ "MessageSystemAttributeNames": ["ApproximateReceiveCount", "SentTimestamp"] });
    let first = consumer.receive(ask.clone());
    consumer.stage.wait(29);
    assert_eq!(consumer.receive(ask.clone()), [Value::Null; 0], "not visible for 30 s");
    consumer.stage.wait(1);
    let second = consumer.receive(ask);
    assert_eq!(first[0]["MessageId"], second[0]["MessageId"]);
    assert_ne!(first[0]["ReceiptHandle"], second[0]["ReceiptHandle"]);
    let attributes =
        |count: &str| json!({ "ApproximateReceiveCount": count, "SentTimestamp": "1767312000000" });
    assert_eq!((&first[0]["Attributes"], &second[0]["Attributes"]), (&attributes("1"), &attributes("2")));
    assert_eq!(first[0]["MD5OfBody"], "f97c5d29941bfb1b2fdab0874906ab82");
}

#[test]
fn timeout_of_request_wins_over_that_of_queue() {
    let mut consumer = Consumer::new();
    let create = json!({ "QueueName": "slow", "Attributes": { "VisibilityTimeout": "100" } });
    let answer = consumer.stage.call(&Request::sqs("CreateQueue", create)).expect("created");
    consumer.url = text(&answer["QueueUrl"]);
    consumer.ask("SendMessage", json!({ "MessageBody": "one" })).expect("sent");
    assert_eq!(consumer.receive(json!({ "VisibilityTimeout": 7 })).len(), 1);
    consumer.stage.wait(7);
    assert_eq!(consumer.receive(json!({})).len(), 1);
    consumer.stage.wait(99);
    assert_eq!(consumer.receive(json!({})).len(), 0);
    consumer.stage.wait(1);
    assert_eq!(consumer.receive(json!({})).len(), 1);
}

#[test]
fn latest_handle_deletes_and_an_earlier_one_does_not() {
    let mut consumer = Consumer::new();
    consumer.put(&["one"]);
    let first = consumer.receive(json!({ "VisibilityTimeout": 0 }));
    let second = consumer.receive(json!({ "VisibilityTimeout": 0 }));
    let delete = |message: &Value| json!({ "ReceiptHandle": message["ReceiptHandle"] });
    consumer.ask("DeleteMessage", delete(&first[0])).expect("accepted");
    assert_eq!(consumer.counts().visible, 1);
    consumer.ask("DeleteMessage", delete(&second[0])).expect("deleted");
    assert_eq!(consumer.counts(), Counts::default());
    consumer.ask("DeleteMessage", delete(&second[0])).expect("accepted again");
    let nonsense = consumer.ask("DeleteMessage", json!({ "ReceiptHandle": "nonsense" }));
    assert_eq!(nonsense, error("ReceiptHandleIsInvalid"));
}

#[test]
fn batch_deletes_each_entry_and_reports_the_bad_one() {
    let mut consumer = Consumer::new();
    consumer.put(&["one", "two", "three"]);
    let received = consumer.receive(json!({ "MaxNumberOfMessages": 10 }));
    let mut entries: Vec<Value> = received
        .iter()
        .enumerate()
        .map(|(at, message)| json!({ "Id": at.to_string(), "ReceiptHandle": message["ReceiptHandle"] }))
        .collect();
    entries[1]["ReceiptHandle"] = json!("nonsense");
    let answer = consumer.ask("DeleteMessageBatch", json!({ "Entries": entries })).expect("answered");
    assert_eq!(answer["Successful"], json!([{ "Id": "0" }, { "Id": "2" }]));
    assert_eq!(answer["Failed"][0]["Id"], "1");
    assert_eq!(answer["Failed"][0]["Code"], "ReceiptHandleIsInvalid");
    assert_eq!(consumer.counts(), Counts { not_visible: 1, ..Counts::default() });
    let mut refused = |entries: Value| consumer.ask("DeleteMessageBatch", json!({ "Entries": entries }));
    assert_eq!(refused(json!([])), error("EmptyBatchRequest"));
    assert_eq!(refused(json!([entries[0], entries[0]])), error("BatchEntryIdsNotDistinct"));
    assert_eq!(refused(json!(vec![entries[0].clone(); 11])), error("TooManyEntriesInBatchRequest"));
}

#[test]
fn attributes_show_counts_arn_and_policy() {
    let mut consumer = Consumer::new();
    consumer.put(&["one", "two", "three"]);
    consumer.receive(json!({}));
    let all = consumer.ask("GetQueueAttributes", json!({ "AttributeNames": ["All"] })).expect("answered");
    let all = &all["Attributes"];
    assert_eq!(all["ApproximateNumberOfMessages"], "2");
    assert_eq!(all["ApproximateNumberOfMessagesNotVisible"], "1");
    assert_eq!(all["QueueArn"], "arn:aws:sqs:eu-west-1:111122223333:events");
    assert!(text(&all["Policy"]).contains("events.amazonaws.com"));
    let one = consumer.ask("GetQueueAttributes", json!({ "AttributeNames": ["QueueArn"] }));
    assert_eq!(one.expect("answered")["Attributes"].as_object().map(serde_json::Map::len), Some(1));
    let unknown = consumer.ask("GetQueueAttributes", json!({ "AttributeNames": ["Nothing"] }));
    assert_eq!(unknown, error("InvalidAttributeName"));
}

#[test]
fn bad_requests_of_a_consumer_are_refused() {
    let mut consumer = Consumer::new();
    for most in [0, 11] {
        let refused = consumer.ask("ReceiveMessage", json!({ "MaxNumberOfMessages": most }));
        assert_eq!(refused, error("InvalidParameterValueException"));
    }
    let nothing = consumer.stage.call(&Request::sqs("ReceiveMessage", json!({})));
    assert_eq!(nothing, error("MissingRequiredParameterException"));
    consumer.url.push('x');
    assert_eq!(consumer.ask("ReceiveMessage", json!({})), error("QueueDoesNotExist"));
    let get_url = Request::sqs("GetQueueUrl", json!({ "QueueName": "none" }));
    assert_eq!(consumer.stage.call(&get_url), error("QueueDoesNotExist"));
}

#[test]
fn faults_and_foreign_accounts_are_denied() {
    let mut consumer = Consumer::new();
    consumer.put(&["one"]);
    consumer.stage.world.script(Rule::once(Fault::AccessDenied).on("ReceiveMessage").of("events"));
    assert_eq!(consumer.ask("ReceiveMessage", json!({})), error("AccessDeniedException"));
    consumer.stage.world.script(Rule::once(Fault::LoseReply));
    consumer.receive(json!({}));
    assert_eq!(consumer.counts().not_visible, 1, "a lost reply has received the message");
    consumer.stage.world.plant_account("AKIAFOREIGN", "444455556666");
    consumer.stage.caller = Caller::new("AKIAFOREIGN");
    assert_eq!(consumer.ask("ReceiveMessage", json!({})), error("AccessDeniedException"));
}

#[test]
fn delayed_event_arrives_after_its_delay() {
    let delay = SignedDuration::from_secs(60);
    let mut consumer = Consumer::with(Deliveries { delay, ..Deliveries::default() });
    consumer.stage.start(None).expect("started");
    consumer.stage.wait(59);
    assert_eq!(consumer.counts(), Counts { on_the_way: 1, ..Counts::default() });
    assert_eq!(consumer.bodies().len(), 0);
    consumer.stage.wait(1);
    assert_eq!(consumer.bodies().len(), 1);
}

#[test]
fn old_messages_are_dropped_after_four_days() {
    let mut consumer = Consumer::new();
    consumer.put(&["old"]);
    consumer.stage.wait(4 * 24 * 3600 - 1);
    consumer.put(&["new"]);
    consumer.stage.wait(1);
    assert_eq!(consumer.bodies(), ["new"]);
}

#[test]
fn loss_and_repetition_follow_percentage_and_seed() {
    let run = |loss, repetition, seed| {
        let mut consumer = Consumer::with(Deliveries { loss, repetition, seed, ..Deliveries::default() });
        consumer.beat(200);
        consumer.drain()
    };
    assert_eq!(run(100, 0, 1).len(), 0);
    assert_eq!(run(0, 100, 1).len(), 400);
    let half = run(50, 0, 1);
    assert!((70..130).contains(&half.len()), "{}", half.len());
    assert_eq!(half, run(50, 0, 1), "the same seed loses the same events");
    assert_ne!(half, run(50, 0, 2));
}

#[test]
fn disorder_and_random_delay_follow_the_seed() {
    let in_order = |times: &[String]| times.is_sorted();
    let run = |deliveries: &Deliveries| {
        let mut consumer = Consumer::with(deliveries.clone());
        consumer.beat(50);
        consumer.stage.wait(60);
        let times = consumer.drain();
        assert_eq!(times.len(), 50, "none is lost");
        times
    };
    assert!(in_order(&run(&Deliveries::default())));
    let shuffled = Deliveries { disorder: 50, seed: 1, ..Deliveries::default() };
    let late =
        Deliveries { delay_up_to: Some(SignedDuration::from_secs(60)), seed: 1, ..Deliveries::default() };
    for deliveries in [shuffled, late] {
        let times = run(&deliveries);
        assert!(!in_order(&times), "{deliveries:?}");
        assert_eq!(times, run(&deliveries), "the same seed gives the same order");
        assert_ne!(times, run(&Deliveries { seed: 2, ..deliveries }));
    }
}

#[test]
fn reset_empties_the_queue_and_keeps_it() {
    let mut consumer =
        Consumer::with(Deliveries { delay: SignedDuration::from_secs(1), ..Deliveries::default() });
    consumer.put(&["one"]);
    consumer.stage.world.reset();
    assert_eq!(consumer.counts(), Counts::default());
    assert_eq!(consumer.stage.world.deliveries().delay, SignedDuration::from_secs(1));
    assert_eq!(consumer.stage.world.events_queue(), Some("events"));
}
