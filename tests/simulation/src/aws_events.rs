//! AWS's events and the queue that delivers them: late, repeatedly, out of order, or not at all; and forged ones.
//!
//! The log of AWS determines the events of calls, and the operations of the plan those of streams and keys. A message
//! is delivered again until a process has finished with it. The random choices come from a generator of its own, so
//! that a plan with events is the same as without them otherwise.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::world::{Call as AwsCall, Service as AwsService};
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_event::{AwsEvent, Subject};

use crate::environment::{ACCOUNT, EXTERNAL_ACCESS_KEY, Event, Process, REGION, State};
use crate::generator::stream_arn;
use crate::keys::{self, ALIAS};
use crate::plan::{Operation, Plan};

/// The interval of heartbeats: shorter than the time after which events count as lost.
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(14);
/// The time after which the queue delivers a message again that was not deleted.
const VISIBILITY_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);
/// The number of deliveries after which a message moves to a dead letter queue.
const MAX_DELIVERIES: u8 = 20;

/// How events arrive in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// The longest time until an event arrives.
    pub max_delay: SignedDuration,
    /// The percentage of events that never arrive.
    pub lost: u8,
    /// The percentage of events that arrive twice.
    pub repeated: u8,
    /// How long after the start no event arrives any more, until the faults end.
    pub silent_from: Option<SignedDuration>,
}

/// The messages of the queue.
#[derive(Debug)]
pub struct EventMessages {
    /// How they arrive; `None` if the operator receives no events.
    pub settings: Option<EventSettings>,
    messages: Vec<Message>,
    /// The number of entries of AWS's log whose events were sent.
    log_entries_read: usize,
    /// Whether forged events were sent.
    pub are_some_forged: bool,
    /// The last event about a Stop that arrived, by stream: for a planted bug that believes it.
    stops: BTreeMap<StreamArn, Timestamp>,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Message {
    body: String,
    deliveries: u8,
    /// The process that received it last, and the event that it read.
    received: Option<(Process, AwsEvent)>,
}

impl EventMessages {
    /// Creates the queue of a plan.
    pub fn new(plan: &Plan) -> Self {
        let rng = fastrand::Rng::with_seed(plan.seed.wrapping_mul(0xC2B2_AE3D_27D4_EB4F) ^ 0xE7E7);
        Self {
            settings: plan.events,
            messages: Vec::new(),
            log_entries_read: 0,
            are_some_forged: false,
            stops: BTreeMap::new(),
            rng,
        }
    }

    /// Records that an event has arrived.
    pub fn arrived(&mut self, event: &AwsEvent, now: Timestamp) {
        if let Subject::Call(stream, call) = &event.subject
            && call.action == Action::Stop
            && call.code.is_none()
        {
            self.stops.insert(stream.clone(), now);
        }
    }

    /// Returns whether an event about a Stop arrived within the preceding minute.
    pub fn reports_stop(&self, stream: &StreamArn, now: Timestamp) -> bool {
        self.stops.get(stream).is_some_and(|at| now.duration_since(*at) < SignedDuration::from_mins(1))
    }

    /// Returns the process that received a message last, and the event that it read.
    pub fn received(&self, number: usize) -> Option<&(Process, AwsEvent)> {
        self.messages.get(number)?.received.as_ref()
    }

    /// Records that a process has received a message, and that it needs it until a reconcile has finished.
    pub fn hold(&mut self, number: usize, process: Process, event: AwsEvent) {
        if let Some(message) = self.messages.get_mut(number) {
            message.received = Some((process, event));
        }
    }

    /// Takes a message for a delivery. Returns `None` if it was delivered too often.
    pub fn deliver(&mut self, number: usize) -> Option<String> {
        let message = self.messages.get_mut(number)?;
        message.deliveries += 1;
        (message.deliveries <= MAX_DELIVERIES).then(|| message.body.clone())
    }
}

impl State {
    /// Sends the events of the calls that AWS has received since, by anybody.
    pub fn send_call_events(&mut self) {
        if self.messages.settings.is_none() {
            return;
        }
        let calls = self.world.calls();
        let read = self.messages.log_entries_read.min(calls.len());
        let bodies: Vec<Value> = calls[read..].iter().filter_map(call_event).collect();
        self.messages.log_entries_read = calls.len();
        for body in bodies {
            self.send_event(&body);
        }
    }

    /// Sends a heartbeat, and schedules the next one.
    pub fn send_heartbeat(&mut self) {
        let (now, body) = (self.now, envelope("aws.events", "Scheduled Event", self.now, &json!({})));
        self.send_event(&body);
        self.events.add(now + HEARTBEAT, Event::Heartbeat);
    }

    /// Sends the event of an operation of the plan, if it causes one.
    pub fn send_operation_event(&mut self, plan: &Plan, operation: &Operation) {
        if self.messages.settings.is_none() {
            return;
        }
        if let Operation::ForgedEvents(stream, count) = operation {
            self.messages.are_some_forged = true;
            for number in 0..*count {
                let body = forged_call(plan, *stream, number, self.now);
                self.send_event(&body);
            }
            for body in ["", "{}", "not JSON", r#"{"source":"aws.kms","detail-type":7}"#] {
                self.enqueue_message(body.to_owned());
            }
        } else if let Some(body) = operation_event(plan, operation, self.now) {
            self.send_event(&body);
        }
    }

    fn send_event(&mut self, body: &Value) {
        let (now, faults_end) = (self.now, crate::environment::START + crate::plan::FAULTS_END);
        let Some(settings) = self.messages.settings else { return };
        let is_silent = settings.silent_from.is_some_and(|from| now >= crate::environment::START + from);
        let is_lost = self.messages.rng.u8(..100) < settings.lost;
        if now < faults_end && (is_silent || is_lost) {
            self.statistics.count("an event of AWS is lost");
            return;
        }
        let copies = if self.messages.rng.u8(..100) < settings.repeated { 2 } else { 1 };
        for _ in 0..copies {
            self.enqueue_message(body.to_string());
        }
    }

    fn enqueue_message(&mut self, body: String) {
        let max_delay = self.messages.settings.map_or(1, |settings| settings.max_delay.as_millis().max(1));
        let delay = self.messages.rng.i64(0..i64::try_from(max_delay).unwrap_or(1));
        let number = self.messages.messages.len();
        self.messages.messages.push(Message { body, deliveries: 0, received: None });
        self.events.add(self.now + SignedDuration::from_millis(delay), Event::AwsEvent(number));
    }

    /// Schedules the next delivery of a message.
    pub fn redeliver(&mut self, number: usize) {
        self.events.add(self.now + VISIBILITY_TIMEOUT, Event::AwsEvent(number));
    }
}

fn envelope(source: &str, detail_type: &str, time: Timestamp, detail: &Value) -> Value {
    json!({
        "source": source, "detail-type": detail_type, "account": ACCOUNT, "region": REGION,
        "time": time.to_string(), "detail": detail,
    })
}

fn record(service: &str, name: &str, time: Timestamp, ids: (&str, &str), parameters: &Value) -> Value {
    json!({
        "eventSource": format!("{service}.amazonaws.com"), "eventName": name, "eventTime": time.to_string(),
        "awsRegion": REGION, "eventID": ids.0, "requestID": ids.1, "requestParameters": parameters,
        "userIdentity": { "type": "AssumedRole" },
    })
}

fn cloudtrail(service: &str, name: &str, time: Timestamp, ids: (&str, &str), parameters: &Value) -> Value {
    let record = record(service, name, time, ids, parameters);
    envelope(&format!("aws.{service}"), "AWS API Call via CloudTrail", time, &record)
}

/// Returns the id that AWS gives the request with this number in its log.
pub fn request_id(number: u64) -> String {
    format!("request-{number}")
}

/// Returns the number in AWS's log of the call that an event with this id reports; `None` if the event is forged.
pub fn logged_call(event_id: &str) -> Option<u64> {
    event_id.strip_prefix("event-")?.parse().ok()
}

/// Returns the number in AWS's log of the request with this id; `None` if the id is forged.
pub fn logged_request(request_id: &str) -> Option<u64> {
    request_id.strip_prefix("request-")?.parse().ok()
}

/// Returns the event of an entry of AWS's log; `None` if it causes none, or none in the account of the operator.
fn call_event(call: &AwsCall) -> Option<Value> {
    if !call.changes_encryption() || call.outcome == "RequestLost" || call.account != ACCOUNT {
        return None;
    }
    let service = if call.service == AwsService::Firehose { "firehose" } else { "kinesis" };
    let parameter = if call.service == AwsService::Firehose { "deliveryStreamName" } else { "streamName" };
    let ids = (format!("event-{}", call.id), request_id(call.id));
    // CloudTrail reports whole seconds.
    let time = call.time.round(jiff::Unit::Second).unwrap_or(call.time);
    let parameters = json!({ parameter: call.target });
    let mut event = cloudtrail(service, &call.operation, time, (&ids.0, &ids.1), &parameters);
    if call.outcome != "OK" {
        event["detail"]["errorCode"] = json!(call.outcome);
    }
    Some(event)
}

fn forged_call(plan: &Plan, stream: usize, number: u8, now: Timestamp) -> Value {
    let stream = &plan.streams[stream];
    let (service, name, parameter) = match stream.service {
        Service::Firehose => ("firehose", "StartDeliveryStreamEncryption", "deliveryStreamName"),
        Service::Kinesis => ("kinesis", "StartStreamEncryption", "streamName"),
    };
    let ids = (format!("forged-{number}-{now}"), format!("forged-{number}-{now}"));
    cloudtrail(service, name, now, (&ids.0, &ids.1), &json!({ parameter: stream.name }))
}

fn operation_event(plan: &Plan, operation: &Operation, now: Timestamp) -> Option<Value> {
    let stream = |number: usize, firehose: &str, kinesis: &str| {
        let stream = &plan.streams[number];
        let parsed = stream_arn(stream);
        let (service, name, parameter) = match stream.service {
            Service::Firehose => ("firehose", firehose, "deliveryStreamName"),
            Service::Kinesis => ("kinesis", kinesis, "streamName"),
        };
        // The operator receives no events of another account.
        parsed
            .contains(ACCOUNT)
            .then(|| cloudtrail(service, name, now, ("other", "other"), &json!({ parameter: stream.name })))
    };
    let key = |name: &str, number: usize| {
        cloudtrail("kms", name, now, ("other", "other"), &json!({ "keyId": keys::arn(number) }))
    };
    match operation {
        Operation::StreamDeleted(number) => stream(*number, "DeleteDeliveryStream", "DeleteStream"),
        Operation::StreamRecreated(number) => stream(*number, "CreateDeliveryStream", "CreateStream"),
        Operation::KeyDisabled(number, disabled) => {
            Some(key(if *disabled { "DisableKey" } else { "EnableKey" }, *number))
        }
        Operation::KeyPendingDeletion(number, pending) => {
            Some(key(if *pending { "ScheduleKeyDeletion" } else { "CancelKeyDeletion" }, *number))
        }
        Operation::KeyDenied(number, _) => Some(key("PutKeyPolicy", *number)),
        Operation::AliasMoved(_) => {
            Some(cloudtrail("kms", "UpdateAlias", now, ("other", "other"), &json!({ "aliasName": ALIAS })))
        }
        _ => None,
    }
}

/// Returns whether a call in AWS's log was made by another caller.
pub fn is_external(call: &AwsCall) -> bool {
    call.principal.access_key == EXTERNAL_ACCESS_KEY
}
