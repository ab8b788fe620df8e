//! Simple Queue Service: the operations on queues and messages, as a consumer of events uses them.
//!
//! This module decides the answer of each operation; a queue decides which messages it returns. It reads no
//! clock, and an empty receive returns at once: the HTTP server does the waiting. It follows
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use super::World;
use super::policy::{Verdict, judge};
use super::queue::{Counts, Queue, QueueId, Received};
use super::request::{AwsError, Caller, Request, Service};
use super::state::{Context, State};

/// The largest batch, and the most messages of a receive.
const BATCH: u64 = 10;

pub(crate) fn call(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let body = &context.request.body;
    match context.request.operation.as_str() {
        "CreateQueue" => create(state, context),
        "GetQueueUrl" => {
            let id = named(context, needed(body, "QueueName")?);
            if state.queues.get(&id).is_some() { Ok(json!({ "QueueUrl": id.url() })) } else { Err(missing()) }
        }
        "DeleteQueue" => {
            let id = find(state, context)?;
            state.queues.remove(&id);
            Ok(json!({}))
        }
        "GetQueueAttributes" => attributes(state, context),
        "SendMessage" => {
            let text = needed(body, "MessageBody")?.to_owned();
            let queue = queue(state, context)?;
            let delay = number(body, "DelaySeconds", 0, 900)?;
            let delay = delay.unwrap_or_else(|| queue.seconds("DelaySeconds", 0));
            let digest = md5(&text);
            let id = queue.send(context.now, text, SignedDuration::from_secs(delay));
            Ok(json!({ "MessageId": id, "MD5OfMessageBody": digest }))
        }
        "ReceiveMessage" => receive(queue(state, context)?, context.now, body),
        "DeleteMessage" => {
            let handle = needed(body, "ReceiptHandle")?;
            if queue(state, context)?.delete(handle) { Ok(json!({})) } else { Err(no_handle(handle)) }
        }
        "DeleteMessageBatch" => delete_batch(state, context),
        other => Err(AwsError::new("UnknownOperationException", format!("SQS's {other} is not simulated"))),
    }
}

/// Implements `ReceiveMessage`, without waiting.
fn receive(queue: &mut Queue, now: Timestamp, body: &Value) -> Result<Value, AwsError> {
    let most = number(body, "MaxNumberOfMessages", 1, BATCH.cast_signed())?.unwrap_or(1);
    number(body, "WaitTimeSeconds", 0, 20)?;
    let timeout = number(body, "VisibilityTimeout", 0, 43_200)?;
    let timeout = timeout.unwrap_or_else(|| queue.seconds("VisibilityTimeout", 30));
    let messages: Vec<Value> = queue
        .receive(now, usize::try_from(most).unwrap_or(1), SignedDuration::from_secs(timeout))
        .iter()
        .map(|message| shown(message, body))
        .collect();
    Ok(if messages.is_empty() { json!({}) } else { json!({ "Messages": messages }) })
}

fn shown(message: &Received, body: &Value) -> Value {
    let attributes = [
        ("ApproximateFirstReceiveTimestamp", message.first_received.as_millisecond().to_string()),
        ("ApproximateReceiveCount", message.received.to_string()),
        ("SenderId", "AIDAEXAMPLE".to_owned()),
        ("SentTimestamp", message.sent.as_millisecond().to_string()),
    ];
    let wanted: Vec<&str> =
        ["MessageSystemAttributeNames", "AttributeNames"].iter().flat_map(|list| texts(body, list)).collect();
    let chosen: Map<String, Value> = attributes
        .into_iter()
        .filter(|(name, _)| wanted.iter().any(|wanted| wanted == name || *wanted == "All"))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let mut shown = json!({
        "MessageId": message.id,
        "ReceiptHandle": message.handle,
        "MD5OfBody": md5(&message.body),
        "Body": message.body,
    });
    if !chosen.is_empty() {
        shown["Attributes"] = Value::Object(chosen);
    }
    shown
}

fn delete_batch(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let queue = queue(state, context)?;
    let entries: &[Value] =
        context.request.body.get("Entries").and_then(Value::as_array).map_or(&[], Vec::as_slice);
    if entries.is_empty() {
        let message = "There should be at least one DeleteMessageBatchRequestEntry in the request.";
        return Err(AwsError::new("EmptyBatchRequest", message));
    }
    if entries.len() as u64 > BATCH {
        let message =
            format!("Maximum number of entries per request are 10. You have sent {}.", entries.len());
        return Err(AwsError::new("TooManyEntriesInBatchRequest", message));
    }
    let text = |entry: &Value, member: &str| needed(entry, member).map(str::to_owned);
    let entries = entries.iter().map(|entry| Ok((text(entry, "Id")?, text(entry, "ReceiptHandle")?)));
    let entries = entries.collect::<Result<Vec<_>, AwsError>>()?;
    let ids: BTreeSet<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
    if ids.len() < entries.len() {
        return Err(AwsError::new("BatchEntryIdsNotDistinct", "An Id is repeated in the request."));
    }
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, handle) in entries {
        if queue.delete(&handle) {
            successful.push(json!({ "Id": id }));
        } else {
            let AwsError { code, message, .. } = no_handle(&handle);
            failed.push(json!({ "Id": id, "SenderFault": true, "Code": code, "Message": message }));
        }
    }
    Ok(json!({ "Successful": successful, "Failed": failed }))
}

fn create(state: &mut State, context: &Context<'_>) -> Result<Value, AwsError> {
    let name = needed(&context.request.body, "QueueName")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 80 || !name.chars().all(fits) {
        let message = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
        return Err(invalid(message));
    }
    let given: BTreeMap<String, String> =
        context.request.body.get("Attributes").and_then(Value::as_object).map_or_else(BTreeMap::new, |all| {
            all.iter().filter_map(|(name, v)| Some((name.clone(), v.as_str()?.to_owned()))).collect()
        });
    let id = named(context, name);
    let url = id.url();
    match state.queues.get(&id) {
        Some(queue) if given.iter().any(|(name, value)| queue.attributes.get(name) != Some(value)) => {
            let message = "A queue already exists with the same name and a different value for an attribute";
            return Err(AwsError::new("QueueNameExists", message));
        }
        Some(_) => {}
        None => state.queues.create(id).attributes = given,
    }
    Ok(json!({ "QueueUrl": url }))
}

fn attributes(state: &State, context: &Context<'_>) -> Result<Value, AwsError> {
    let id = find(state, context)?;
    let queue = state.queues.get(&id).ok_or_else(missing)?;
    let Counts { visible, not_visible, delayed, .. } = queue.counts(context.now);
    let mut all: BTreeMap<&str, String> = [
        ("ApproximateNumberOfMessages", visible.to_string()),
        ("ApproximateNumberOfMessagesDelayed", delayed.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", not_visible.to_string()),
        ("DelaySeconds", "0".to_owned()),
        ("MessageRetentionPeriod", "345600".to_owned()),
        ("QueueArn", id.arn()),
        ("ReceiveMessageWaitTimeSeconds", "0".to_owned()),
        ("VisibilityTimeout", "30".to_owned()),
    ]
    .into();
    all.extend(queue.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let wanted: Vec<&str> = texts(&context.request.body, "AttributeNames").collect();
    let known = |name: &&&str| matches!(**name, "All" | "Policy") || all.contains_key(**name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        return Err(AwsError::new("InvalidAttributeName", format!("Unknown Attribute {unknown}.")));
    }
    all.retain(|name, _| wanted.contains(&"All") || wanted.contains(name));
    Ok(if all.is_empty() { json!({}) } else { json!({ "Attributes": all }) })
}

/// Returns the id of the queue in `QueueUrl`, if it exists and the caller may use it.
fn find(state: &State, context: &Context<'_>) -> Result<QueueId, AwsError> {
    let url = needed(&context.request.body, "QueueUrl")?;
    let mut parts = url.rsplit('/');
    let (Some(name), Some(account)) = (parts.next(), parts.next()) else {
        return Err(AwsError::new("InvalidAddress", format!("The address {url} is not valid.")));
    };
    let id = QueueId { account: account.to_owned(), ..named(context, name) };
    let queue = state.queues.get(&id).ok_or_else(missing)?;
    let policy = queue.attributes.get("Policy").and_then(|text| serde_json::from_str(text).ok());
    let action = format!("sqs:{}", context.request.operation);
    let verdict = policy.map_or(Verdict::Silent, |policy: Value| judge(&policy, &context.names(), &action));
    let own = id.account == context.account && verdict == Verdict::Silent;
    if own || verdict == Verdict::Allowed {
        return Ok(id);
    }
    let message = format!("Access to the resource {url} is denied.");
    Err(AwsError { status: 403, ..AwsError::new("AccessDeniedException", message) })
}

fn queue<'a>(state: &'a mut State, context: &Context<'_>) -> Result<&'a mut Queue, AwsError> {
    let id = find(state, context)?;
    state.queues.get_mut(&id).ok_or_else(missing)
}

fn named(context: &Context<'_>, name: &str) -> QueueId {
    let (account, region) = (context.account.clone(), context.region.clone());
    QueueId { account, region, name: name.to_owned() }
}

fn needed<'a>(body: &'a Value, member: &str) -> Result<&'a str, AwsError> {
    body.get(member).and_then(Value::as_str).ok_or_else(|| {
        let message = format!("The request must contain the parameter {member}.");
        AwsError::new("MissingRequiredParameterException", message)
    })
}

fn number(body: &Value, member: &str, least: i64, most: i64) -> Result<Option<i64>, AwsError> {
    let Some(value) = body.get(member).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_i64().filter(|number| (least..=most).contains(number));
    number.map(Some).ok_or_else(|| {
        let reason = format!("Must be between {least} and {most}, if provided.");
        invalid(format!("Value {value} for parameter {member} is invalid. Reason: {reason}"))
    })
}

fn texts<'a>(body: &'a Value, member: &str) -> impl Iterator<Item = &'a str> {
    body.get(member).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidParameterValueException", message)
}

fn missing() -> AwsError {
    AwsError::new("QueueDoesNotExist", "The specified queue does not exist.")
}

fn no_handle(handle: &str) -> AwsError {
    let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
    AwsError::new("ReceiptHandleIsInvalid", message)
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().fold(String::new(), |mut digest, byte| {
        let _ = write!(digest, "{byte:02x}");
        digest
    })
}

/// A receive that has found no message yet, and how long it may wait for one.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    queue: QueueId,
    body: Value,
    pub(crate) longest: SignedDuration,
}

impl World {
    /// Creates a queue of the default account and region, and returns its URL; an existing queue stays.
    pub fn create_queue(&mut self, name: &str) -> String {
        let id = self.queue_id(name);
        let url = id.url();
        self.state.queues.create(id);
        url
    }

    /// Returns a queue of the default account and region, to put messages into it and to count them.
    pub fn queue(&mut self, name: &str) -> Option<&mut Queue> {
        let id = self.queue_id(name);
        self.state.queues.get_mut(&id)
    }

    /// Returns the URL and the numbers of messages of every queue.
    pub fn queues(&self, now: Timestamp) -> Vec<(String, Counts)> {
        self.state.queues.all().map(|(id, queue)| (id.url(), queue.counts(now))).collect()
    }

    pub(super) fn queue_id(&self, name: &str) -> QueueId {
        let (account, region) = (self.state.settings.account.clone(), self.state.settings.region.clone());
        QueueId { account, region, name: name.to_owned() }
    }

    /// Returns how an accepted receive waits for a message; `None` if it does not wait.
    pub(crate) fn waiting(&self, caller: &Caller, region: &str, request: &Request) -> Option<Waiting> {
        if (request.service, request.operation.as_str()) != (Service::Sqs, "ReceiveMessage") {
            return None;
        }
        let url = request.body.get("QueueUrl")?.as_str()?;
        let mut parts = url.rsplit('/');
        let (name, account) = (parts.next()?.to_owned(), parts.next());
        let account = account.map_or_else(|| self.state.account(caller), str::to_owned);
        let region = if region.is_empty() { &self.state.settings.region } else { region };
        let id = QueueId { account, region: region.to_owned(), name };
        let default = self.state.queues.get(&id)?.seconds("ReceiveMessageWaitTimeSeconds", 0);
        let seconds = request.body.get("WaitTimeSeconds").and_then(Value::as_i64).unwrap_or(default);
        let longest = SignedDuration::from_secs(seconds);
        longest.is_positive().then(|| Waiting { queue: id, body: request.body.clone(), longest })
    }

    /// Returns the answer of a waiting receive, if there is a message now. It is no request: no fault
    /// applies, and the log has it already.
    pub(crate) fn receive_again(&mut self, now: Timestamp, waiting: &Waiting) -> Option<Value> {
        self.settle(now);
        let queue = self.state.queues.get_mut(&waiting.queue)?;
        receive(queue, now, &waiting.body).ok().filter(|answer| answer.get("Messages").is_some())
    }

    /// Returns the next time at which a waiting receive may find a message, if nobody sends one.
    pub(crate) fn next_message(&self, now: Timestamp, waiting: &Waiting) -> Option<Timestamp> {
        let in_queue = self.state.queues.get(&waiting.queue).and_then(|queue| queue.next_visible(now));
        [in_queue, self.next_heartbeat(), self.next_late()].into_iter().flatten().min()
    }
}
