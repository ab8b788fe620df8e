//! Receives AWS's events: takes the messages of the queue, and wakes the resources that an event concerns. It deletes a
//! message about a call once no reconcile needs it any more, and each other message at once.
//!
//! An event never leads to more than a reconcile. A message that cannot be parsed is counted and deleted. This file
//! must never delete a message about a call before a reconcile has entered the call in the ledger: after a crash, the
//! queue delivers the message again. There are two exceptions. In both, the operator counts a call too few, so the stream's
//! budget is too large until AWS refuses a call of the operator:
//! - No resource of this operator names the call's stream, or none of those that name it may write its ledger. A resource may not
//!   write the ledger if it neither owns the ledger nor may claim the stream. For this rule, three more kinds of resources may
//!   not: one whose spec is invalid or does not match its schema; one that is being deleted without disabling encryption
//!   first; and one that names its stream without an ARN, until its first reconcile, because its stream is unknown so far.
//! - More than 64 calls of the stream wait for a reconcile. Those that AWS refused are left out first, then the earliest.
//!
//! While a watched namespace is not listed yet, the resource of a stream may be there. Until then, a message about a call
//! that no reconcile needs stays in the queue, which delivers it again.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use stream_encryption_core::controller::Clock;
use stream_encryption_core::controller::event_inbox::{EventInbox, ResourceName, Silence, SilentScope};
use stream_encryption_core::model::aws_event::{self, AwsEvent, EventError, Subject};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::Shared;
use super::dispatcher::Trigger;
use crate::aws::{EventQueue, Message};
use crate::kubernetes::caches::Cache;
use crate::kubernetes::store::Key;
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::metrics::{AwsEventKind, Metrics};
use crate::telemetry::Warnings;

/// Interval at which messages that are no longer needed are deleted, and silence is noticed.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// The first and the longest wait after a request to the queue failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// While so many messages wait for a reconcile, the operator receives none, not even heartbeats. The last batch may
/// exceed this number. These messages report calls that no reconcile has entered yet: because reconciles are slow, or
/// because the ledger of a stream is invalid, for which up to 64 calls wait.
const MAX_HELD: usize = 1000;

/// Returns the task that receives the events, and the triggers that result from them. It begins when the `resources`
/// are listed: an event about a resource that is not listed yet would be deleted. A namespace that cannot be listed
/// does not delay it: none of its resources is reconciled, and the dispatcher registers them when they are listed.
pub(super) fn receiver(
    queue: EventQueue,
    shared: Arc<Shared>,
    resources: Cache<MaybeInvalidResource>,
) -> (impl Future<Output = ()> + Send + 'static, impl Stream<Item = Trigger> + Send + 'static) {
    let (triggers, mut received) = mpsc::unbounded_channel();
    let task = async move {
        resources.first_lists_settled().wait().await;
        receive(&queue, &shared, &resources, triggers).await;
    };
    (task, futures_util::stream::poll_fn(move |context| received.poll_recv(context)))
}

/// Registers the resources that are listed, so that no event arrives before its resource is known.
fn register_all(inbox: &EventInbox, resources: &Cache<MaybeInvalidResource>) {
    resources.store().for_each(|resource| {
        if let Ok(resource) = &resource.0 {
            inbox.register_from_status(resource);
        }
    });
}

/// Receives until its task is aborted.
async fn receive(
    queue: &EventQueue,
    shared: &Shared,
    resources: &Cache<MaybeInvalidResource>,
    triggers: UnboundedSender<Trigger>,
) {
    let context = &shared.context;
    let inbox = &context.memory.events;
    let mut handler = MessageHandler::new(inbox, &shared.metrics, &context.clock, resources, triggers);
    let mut tidy = interval(TIDY_INTERVAL);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failures, mut warnings) = (0, Warnings::default());
    let mut next = pin!(next_messages(queue, 0, true));
    loop {
        tokio::select! {
            // The request outlives the other branches: if it were dropped, SQS would hide the messages of its response until
            // their visibility timeout. It is dropped only at the end of the term.
            messages = &mut next => {
                if let Ok(messages) = messages {
                    failures = 0;
                    for message in messages {
                        handler.handle(message);
                    }
                } else {
                    failures += 1;
                    shared.metrics.event_queue_failed();
                }
                next.set(next_messages(queue, failures, has_room(handler.held.len(), &mut warnings)));
            }
            _ = tidy.tick() => handler.find_silent(),
        }
        handler.release();
        handler.delete_finished(queue).await;
    }
}

/// Returns whether there is room for further messages while so many are held. Logs that there is none.
fn has_room(held: usize, warnings: &mut Warnings) -> bool {
    if held < MAX_HELD {
        return true;
    }
    if warnings.take_due() {
        warn!(
            held,
            "not receiving AWS's events, because too many calls are not entered in their ledgers yet"
        );
    }
    false
}

/// Returns the next messages, after a wait that grows with the number of failures.
async fn next_messages(queue: &EventQueue, failures: u32, has_room: bool) -> Result<Vec<Message>, ()> {
    if failures > 0 {
        let (first, longest) = RETRY;
        sleep(first.saturating_mul(1 << (failures - 1).min(10)).min(longest)).await;
    }
    if !has_room {
        sleep(TIDY_INTERVAL).await;
        return Ok(Vec::new());
    }
    queue.receive().await.map_err(|error| {
        warn!(code = error.code, kind = ?error.kind, aws_message = error.message, "failed to receive AWS's events");
    })
}

/// The messages between their arrival and their deletion.
struct MessageHandler<'a> {
    inbox: &'a EventInbox,
    metrics: &'a Metrics,
    clock: &'a Clock,
    resources: &'a Cache<MaybeInvalidResource>,
    triggers: UnboundedSender<Trigger>,
    /// Whether every watched namespace has been listed, and its resources are registered.
    all_registered: bool,
    /// The messages that a reconcile still needs, by the id of their event.
    held: HashMap<String, (AwsEvent, String)>,
    /// The ids of the last events whose messages were left in the queue, at most [`MAX_HELD`].
    left: HashSet<String>,
    /// The receipts of the messages to delete.
    finished: Vec<String>,
}

impl<'a> MessageHandler<'a> {
    /// Creates the handler, and registers the resources that are listed.
    fn new(
        inbox: &'a EventInbox,
        metrics: &'a Metrics,
        clock: &'a Clock,
        resources: &'a Cache<MaybeInvalidResource>,
        triggers: UnboundedSender<Trigger>,
    ) -> Self {
        let all_registered = resources.is_listed();
        register_all(inbox, resources);
        Self {
            inbox,
            metrics,
            clock,
            resources,
            triggers,
            all_registered,
            held: HashMap::new(),
            left: HashSet::new(),
            finished: Vec::new(),
        }
    }

    /// Handles a message: wakes the resources that its event concerns, and keeps the message if a reconcile needs it.
    fn handle(&mut self, message: Message) {
        let event = match aws_event::parse(&message.body) {
            Ok(event) => event,
            Err(error) => {
                debug!(%error, "message of the queue is not used");
                let kind = if error == EventError::Unrelated {
                    AwsEventKind::unrelated
                } else {
                    AwsEventKind::invalid
                };
                self.metrics.aws_event(kind, None);
                self.finished.push(message.receipt);
                return;
            }
        };
        // The dispatcher registers resources one at a time, and may not have begun with those of the last list.
        if !self.all_registered && self.resources.is_listed() {
            register_all(self.inbox, self.resources);
            self.all_registered = true;
        }
        if !self.is_repeated(&event) {
            count(self.metrics, &event, self.clock.now());
        }
        let now = self.clock.monotonic();
        let age = self.clock.now().duration_since(event.time);
        // An event from the future, by the operator's clock, has just happened.
        let age = Duration::try_from(age).unwrap_or_default();
        let due = self.inbox.receive(&event, now, age);
        if !due.is_empty() {
            debug!(subject = ?event.subject, resources = due.len(), "AWS reports an event");
        }
        self.wake(due);
        let is_needed = self.inbox.holds(&event);
        match (&event.subject, handling(&event.subject, is_needed, self.all_registered)) {
            (Subject::Call(_, call), Handling::Hold) => {
                self.held.insert(call.event_id.clone(), (event, message.receipt));
            }
            (Subject::Call(_, call), Handling::Leave) => {
                if self.left.len() >= MAX_HELD {
                    self.left.clear();
                }
                self.left.insert(call.event_id.clone());
            }
            _ => self.finished.push(message.receipt),
        }
    }

    /// Returns whether the queue delivers a message again that is held, or that was left in the queue: once a minute, up to
    /// 20 times. The metrics count it only once.
    fn is_repeated(&self, event: &AwsEvent) -> bool {
        let Subject::Call(_, call) = &event.subject else { return false };
        self.held.contains_key(&call.event_id) || self.left.contains(&call.event_id)
    }

    /// Wakes the resources whose events no longer arrive.
    fn find_silent(&mut self) {
        for SilentScope { scope, silence, resources } in self.inbox.find_silent(self.clock.monotonic()) {
            let (account, region) = (&scope.account, &scope.region);
            match silence {
                Silence::Everything => warn!(
                    %account, %region, resources = resources.len(),
                    "AWS's events have stopped, checking for drift by the shorter interval"
                ),
                Silence::OwnCall => warn!(
                    %account, %region, resources = resources.len(),
                    "AWS's events do not report an encryption call of the operator, checking for drift by the shorter interval; \
                     check that a CloudTrail trail logs management events, and the rule that forwards them"
                ),
            }
            self.wake(resources);
        }
    }

    fn wake(&self, resources: Vec<ResourceName>) {
        for name in resources {
            // The receiver ends with the term.
            let _ = self.triggers.send(Trigger::One(Key::of_path(name)));
        }
    }

    /// Moves the messages that no reconcile needs any more to those to delete.
    fn release(&mut self) {
        let inbox = self.inbox;
        let released = self.held.extract_if(|_, (event, _)| !inbox.holds(event));
        self.finished.extend(released.map(|(_, (_, receipt))| receipt));
    }

    async fn delete_finished(&mut self, queue: &EventQueue) {
        for error in queue.delete(&self.finished).await {
            // The messages are delivered again, and then deleted.
            warn!(code = error.code, kind = ?error.kind, aws_message = error.message, "failed to delete AWS's events");
            self.metrics.event_queue_failed();
        }
        self.finished.clear();
    }
}

/// What happens to the message of an event.
#[derive(Debug, PartialEq, Eq)]
enum Handling {
    /// It is deleted when no reconcile needs it any more.
    Hold,
    /// It stays in the queue, which delivers it again.
    Leave,
    /// It is deleted.
    Delete,
}

/// Returns what happens to the message of an event. `is_needed` states whether a reconcile needs it, `all_registered`
/// whether every resource that it may concern is known.
fn handling(subject: &Subject, is_needed: bool, all_registered: bool) -> Handling {
    match subject {
        Subject::Call(..) if is_needed => Handling::Hold,
        Subject::Call(..) if !all_registered => Handling::Leave,
        _ => Handling::Delete,
    }
}

fn count(metrics: &Metrics, event: &AwsEvent, now: jiff::Timestamp) {
    let kind = match &event.subject {
        Subject::Call(..) => AwsEventKind::call,
        Subject::Stream(_) => AwsEventKind::stream,
        Subject::Key(_) | Subject::Alias(_) => AwsEventKind::key,
        Subject::Heartbeat => AwsEventKind::heartbeat,
    };
    metrics.aws_event(kind, Some(now.duration_since(event.time)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fakes;
    use super::*;
    use crate::metrics::ScrapeInput;
    use crate::test_log::Log;

    const STREAM: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";

    /// Returns the message about a Stop of the stream.
    fn stop() -> String {
        let call = json!({
            "eventSource": "kinesis.amazonaws.com", "eventName": "StopStreamEncryption", "eventTime": "2026-11-28T07:00:00Z",
            "awsRegion": "eu-west-1", "eventID": "1", "requestID": "2", "recipientAccountId": "111122223333",
            "requestParameters": {"streamARN": STREAM},
        });
        let event = json!({
            "detail-type": "AWS API Call via CloudTrail", "source": "aws.kinesis", "account": "111122223333",
            "time": "2026-11-28T07:00:01Z", "region": "eu-west-1", "detail": call,
        });
        event.to_string()
    }

    #[test]
    fn call_stays_in_the_queue_until_all_is_listed() {
        let call = aws_event::parse(&stop()).unwrap().subject;
        for (is_needed, all_registered, expected) in [
            (true, false, Handling::Hold),
            (true, true, Handling::Hold),
            (false, false, Handling::Leave),
            (false, true, Handling::Delete),
        ] {
            assert_eq!(handling(&call, is_needed, all_registered), expected);
        }
        assert_eq!(handling(&Subject::Heartbeat, false, false), Handling::Delete);
    }

    #[test]
    fn message_that_is_delivered_again_is_counted_once() {
        let resource = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "clicks", "namespace": "data", "uid": "1"}, "spec": {"stream": {"arn": STREAM}},
        }))
        .unwrap();
        // Nothing is listed.
        let watches = vec![(None, futures_util::stream::empty())];
        let (resources, _events) = Cache::of(watches, "StreamEncryptions", &Arc::default());
        for is_held in [true, false] {
            let (context, metrics) = (fakes::context(None), Metrics::default());
            let inbox = &context.memory.events;
            if is_held {
                inbox.register_from_status(&resource);
            }
            let (triggers, _due) = mpsc::unbounded_channel();
            let mut handler = MessageHandler::new(inbox, &metrics, &context.clock, &resources, triggers);
            for number in 1..=20 {
                handler.handle(Message { body: stop(), receipt: number.to_string() });
                handler.release();
            }
            assert_eq!((handler.held.len(), handler.left.len()), if is_held { (1, 0) } else { (0, 1) });
            assert!(handler.finished.is_empty());
            let text = metrics.encode(&ScrapeInput::default());
            for count in ["aws_events_total{kind=\"call\"} 1", "aws_event_age_seconds_count 1"] {
                assert!(text.contains(&format!("\nstream_encryption_{count}\n")), "{is_held}: {text}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_inbox_is_logged_once_a_minute() {
        let (log, _guard) = Log::capture();
        let mut warnings = Warnings::default();
        for second in 0..121 {
            let is_full = second % 2 == 0;
            let held = if is_full { MAX_HELD } else { MAX_HELD - 1 };
            assert_eq!(has_room(held, &mut warnings), !is_full);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(log.lines_with("not receiving AWS's events").len(), 3, "{}", log.text());
    }
}
