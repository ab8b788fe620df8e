//! AWS's events, with the operator's process, the real API server, and the queue of the simulated AWS: what others did
//! is found without a check for drift, the calls of others count, and forged messages do no harm.

use std::time::Instant;

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::SimulatedAws;
use simulated_aws::world::{Caller, PlantedStream, Request, Settings, World};

use crate::harness::{firehose, spec};
use crate::process::{OperatorProcess, Place, REASON, START, apply, eventually, field, until_it_says};

const STOP: &str = "StopDeliveryStreamEncryption";
const DESCRIBE: &str = "DescribeDeliveryStream";
/// The access key of callers outside the operator.
const OTHERS: &str = "AKIAOTHERS";
/// The account of the simulated AWS.
const ACCOUNT: &str = "111122223333";

/// A place whose operator describes a stream that rests once a day, so that only events lead to an earlier Describe.
struct WithEvents {
    place: Place,
    queue: String,
}

impl WithEvents {
    /// Changes take no time, so that a stream can be changed often.
    async fn new() -> Self {
        let instant = SignedDuration::ZERO;
        let settings =
            Settings { enabling: instant, disabling: instant, rate_limits: false, ..Settings::default() };
        let mut world = World::new(settings);
        world.plant_stream(PlantedStream::default());
        world.plant_account(OTHERS, ACCOUNT);
        let queue = world.send_events_to("events");
        let aws = SimulatedAws::start(world, simulated_aws::Clock::Real).await.expect("a simulated AWS");
        Self { place: Place { aws, ..Place::new().await }, queue }
    }

    fn operator(&self) -> OperatorProcess {
        self.place.start(&[
            ("EVENTS_QUEUE_URL", self.queue.as_str()),
            ("DRIFT_INTERVAL_SECONDS", "86400"),
            ("EVENTS_DRIFT_INTERVAL_SECONDS", "86400"),
            ("AWS_RATE_PERCENT", "100"),
        ])
    }

    /// Calls AWS as somebody else.
    fn call(&self, operation: &str, body: serde_json::Value) {
        let (now, mut world) = (self.place.aws.now(), self.place.aws.world());
        let reply = world.call(now, &Caller::new(OTHERS), "eu-west-1", &Request::firehose(operation, body));
        reply.result.unwrap_or_else(|error| panic!("{operation}: {error:?}"));
    }

    /// Turns encryption of `orders` off.
    fn stop(&self) {
        self.call(STOP, json!({"DeliveryStreamName": "orders"}));
    }

    fn start_with_aws_key(&self) {
        let key = json!({"KeyType": "AWS_OWNED_CMK"});
        let body = json!({"DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": key});
        self.call(START, body);
    }

    /// The number of requests of the operator for this operation.
    fn requests(&self, operation: &str) -> usize {
        let world = self.place.aws.world();
        world
            .calls()
            .iter()
            .filter(|call| call.operation == operation && call.principal.access_key != OTHERS)
            .count()
    }

    fn is_queue_empty(&self) -> bool {
        let now = self.place.aws.now();
        let mut world = self.place.aws.world();
        let counts = world.queue("events").expect("the queue").counts(now);
        counts.visible + counts.delayed + counts.not_visible + counts.on_the_way == 0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_by_others_is_corrected_without_drift_check() {
    let with_events = WithEvents::new().await;
    let _operator = with_events.operator();
    with_events.place.ask_for_encryption().await;
    with_events.place.until_it_is_encrypted().await;
    for number in 1..=3 {
        with_events.stop();
        // A Stop that follows before the Start is confirmed would look as if AWS had dropped the Start: such a call is
        // repeated later. The count tells this status from that before the Stop.
        let confirmed = format!("Encrypted/{}", 1 + 2 * number);
        let state = format!("{REASON}/{{.status.calls.used}}");
        eventually("the Stop is corrected", async || with_events.place.field(&state).await == confirmed)
            .await;
        assert_eq!(with_events.requests(START), 1 + number);
    }
    eventually("all messages are deleted", async || with_events.is_queue_empty()).await;
    let external = with_events.place.field("{.status.calls.external}").await;
    assert_eq!(external, "3", "the operator's own calls are no external ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_calls_cause_no_further_describe() {
    let with_events = WithEvents::new().await;
    let _operator = with_events.operator();
    with_events.place.ask_for_encryption().await;
    with_events.place.until_it_is_encrypted().await;
    eventually("the event of the Start is deleted", async || with_events.is_queue_empty()).await;
    assert_eq!(with_events.requests(START), 1);
    let describes = with_events.requests(DESCRIBE);
    assert!(describes <= 3, "before the call, after it, and perhaps once while AWS changes it: {describes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_others_leave_the_rest_of_the_budget() {
    let with_events = WithEvents::new().await;
    let place = &with_events.place;
    let _operator = with_events.operator();
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    for _ in 0..24 {
        with_events.start_with_aws_key();
    }
    eventually("the status counts them", async || {
        place.field("{.status.calls.used}/{.status.calls.external}/{.status.calls.limit}").await == "25/24/25"
    })
    .await;
    // The next Start is due, and would be refused.
    let key = place.aws.world().plant_key(simulated_aws::world::PlantedKey::default());
    apply(place.cluster, &place.namespace, "orders", &spec(&firehose("orders"), Some(&key))).await;
    until_it_says(place.cluster, &place.namespace, "orders", "CallLimitReached").await;
    assert_eq!(with_events.requests(START), 1, "no call that AWS would refuse");
    let message = place.field(crate::process::MESSAGE).await;
    assert!(message.contains("24 of them by other callers"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_messages_cost_no_call_and_delay_no_change() {
    let with_events = WithEvents::new().await;
    let place = &with_events.place;
    place.aws.world().plant_stream(PlantedStream { name: "payments".to_owned(), ..PlantedStream::default() });
    let operator = with_events.operator();
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    let (starts, describes) = (with_events.requests(START), with_events.requests(DESCRIBE));
    let begin = Instant::now();
    operator.kill();
    {
        let now = place.aws.now();
        let mut world = place.aws.world();
        let queue = world.queue("events").expect("the queue");
        for number in 0..10_000 {
            queue.put(now, forged(number));
        }
    }
    let _operator = with_events.operator();
    apply(place.cluster, &place.namespace, "payments", &spec(&firehose("payments"), None)).await;
    until_it_says(place.cluster, &place.namespace, "payments", "Encrypted").await;
    eventually("the queue is empty", async || with_events.is_queue_empty()).await;
    assert_eq!(with_events.requests(START), starts + 1, "the Start of the new stream alone");
    let ready = field(place.cluster, &place.namespace, "orders", "{.status.calls.limit}").await;
    assert_eq!(ready, "20", "calls that AWS cannot have accepted do not count");
    // The restart describes each stream once, and the new stream is described around its Start. The forged events of one
    // stream share their Describes, which are checks for drift: at most two per second, half of AWS's limit. So there are
    // the more of them the longer a busy machine takes for the queue.
    let more = with_events.requests(DESCRIBE) - describes;
    let took = begin.elapsed();
    let most = 2 * usize::try_from(took.as_secs()).expect("a number of seconds") + 10;
    assert!(more <= most, "{more} Describes in {took:?}");
}

/// A message as a forger would send it: of a managed stream, of another one, or invalid.
fn forged(number: u32) -> String {
    let stream = match number % 4 {
        0 => "orders".to_owned(),
        1 => format!("stream-{number}"),
        2 => return format!("{{\"number\": {number}"),
        _ => {
            return json!({"source": "aws.firehose", "detail-type": "AWS API Call via CloudTrail"})
                .to_string();
        }
    };
    let now = jiff::Timestamp::now().to_string();
    let record = json!({
        "eventSource": "firehose.amazonaws.com", "eventName": START, "eventTime": now, "awsRegion": "eu-west-1",
        "eventID": format!("forged-{number}"), "requestID": format!("forged-{number}"),
        "requestParameters": {"deliveryStreamName": stream}, "userIdentity": {"type": "IAMUser"},
    });
    let event = json!({
        "source": "aws.firehose", "detail-type": "AWS API Call via CloudTrail", "account": ACCOUNT,
        "region": "eu-west-1", "time": now, "detail": record,
    });
    event.to_string()
}
