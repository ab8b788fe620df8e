//! AWS's own events: for each management call that changes a stream, a key or an alias, the event that
//! `CloudTrail` sends through `EventBridge`.
//!
//! This module decides which calls make an event, and gives each event to the queue or to the caller in this
//! process. It reads no clock. It must never change the answer of a call. Events are off by default, and cost
//! nothing then.

mod record;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::World;
use super::deliveries::{Deliveries, Dice};
use super::queue::{Queue, QueueId, RETENTION};
use super::request::{AwsError, Request, Service, request_id};
use super::state::Context;
use super::stream::later;
use record::{Facts, Place};

/// One event, as `EventBridge` sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The time of the call. `EventBridge` delivers the event later.
    pub at: Timestamp,
    /// The envelope of `EventBridge`, with the record of `CloudTrail` in `detail`.
    pub body: Value,
}

impl Event {
    /// Returns the event as the body of a message.
    pub fn text(&self) -> String {
        self.body.to_string()
    }

    /// Returns the request id of the call; `None` for a heartbeat.
    pub fn request_id(&self) -> Option<&str> {
        self.body.pointer("/detail/requestID")?.as_str()
    }

    /// Returns the operation of the call; `None` for a heartbeat.
    pub fn operation(&self) -> Option<&str> {
        self.body.pointer("/detail/eventName")?.as_str()
    }
}

/// Where events go, and the number of those made so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    recording: bool,
    /// Events that nobody has taken yet.
    waiting: Vec<Event>,
    target: Option<QueueId>,
    deliveries: Deliveries,
    dice: Dice,
    heartbeat: Option<Heartbeat>,
    made: u64,
    /// Counts the changes of where and when events go.
    changes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    every: SignedDuration,
    next: Timestamp,
}

impl Events {
    pub(super) fn is_on(&self) -> bool {
        self.recording || self.target.is_some()
    }
}

/// Returns whether `CloudTrail` sends an event for this operation through `EventBridge`, as far as it is
/// simulated. Calls that only read, and `PutRecord`, make none.
pub(super) fn makes_event(request: &Request) -> bool {
    match request.service {
        Service::Firehose => matches!(
            request.operation.as_str(),
            "StartDeliveryStreamEncryption"
                | "StopDeliveryStreamEncryption"
                | "CreateDeliveryStream"
                | "DeleteDeliveryStream"
        ),
        Service::Kinesis => matches!(
            request.operation.as_str(),
            "StartStreamEncryption" | "StopStreamEncryption" | "CreateStream" | "DeleteStream"
        ),
        Service::Kms => matches!(
            request.operation.as_str(),
            "DisableKey"
                | "EnableKey"
                | "ScheduleKeyDeletion"
                | "CancelKeyDeletion"
                | "PutKeyPolicy"
                | "CreateAlias"
                | "UpdateAlias"
                | "DeleteAlias"
        ),
        Service::Sts | Service::Sqs => false,
    }
}

impl World {
    /// Switches the events for callers in this process on or off; see [`World::take_events`].
    pub fn record_events(&mut self, on: bool) {
        self.events.recording = on;
        if !on {
            self.events.waiting.clear();
        }
    }

    /// Returns the events since the last time, in the order in which AWS made them. Delay, loss, repetition
    /// and disorder are the caller's.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events.waiting)
    }

    /// Sends all events to a queue of the default account and region from now on, and returns its URL.
    /// Creates the queue if there is none.
    pub fn send_events_to(&mut self, queue: &str) -> String {
        let url = self.create_queue(queue);
        let id = self.queue_id(queue);
        self.state.queues.insert_policy(&id);
        self.events.target = Some(id);
        self.set_deliveries(self.events.deliveries.clone());
        url
    }

    /// Returns the name of the queue of events.
    pub fn events_queue(&self) -> Option<&str> {
        self.events.target.as_ref().map(|id| id.name.as_str())
    }

    /// Returns how events are delivered to the queue.
    pub fn deliveries(&self) -> &Deliveries {
        &self.events.deliveries
    }

    /// Sets how events are delivered to the queue. The random choices begin again from the seed.
    pub fn set_deliveries(&mut self, deliveries: Deliveries) {
        self.events.dice = Dice::new(deliveries.seed);
        if let Some(queue) = self.events_queue_mut() {
            queue.set_disorder(deliveries.disorder, deliveries.seed);
        }
        self.events.deliveries = deliveries;
    }

    /// Sends a heartbeat now: the event of a scheduled rule.
    pub fn heartbeat(&mut self, now: Timestamp) {
        let number = self.next_event();
        let settings = &self.state.settings;
        let place = Place { at: now, account: &settings.account, region: &settings.region, number };
        let body = place.heartbeat();
        self.deliver(Event { at: now, body });
    }

    /// Sends a heartbeat at each interval from now on; `None` or an interval that is not positive stops them.
    pub fn send_heartbeats(&mut self, now: Timestamp, every: Option<SignedDuration>) {
        self.events.changes += 1;
        self.events.heartbeat = every
            .filter(SignedDuration::is_positive)
            .map(|every| Heartbeat { every, next: later(now, every) });
    }

    /// Returns the interval of the heartbeats.
    pub fn heartbeat_interval(&self) -> Option<SignedDuration> {
        self.events.heartbeat.map(|heartbeat| heartbeat.every)
    }

    /// Replaces this AWS by an empty one with the same settings. The queue of events stays, without messages.
    pub fn reset(&mut self) {
        let queue = self.events.target.clone();
        let mut empty = World::new(self.state.settings.clone());
        empty.events = Events { waiting: Vec::new(), ..self.events.clone() };
        *self = empty;
        if let Some(id) = queue {
            self.send_events_to(&id.name);
        }
        self.events.changes += 1;
    }

    /// Sends the heartbeats that are due. A queue would not keep those before its retention.
    pub(super) fn beat(&mut self, now: Timestamp) {
        while let Some(Heartbeat { every, next }) = self.events.heartbeat.filter(|beat| beat.next <= now) {
            self.events.heartbeat = Some(Heartbeat { every, next: later(next, every) });
            if later(next, RETENTION) > now {
                self.heartbeat(next);
            }
        }
    }

    /// Returns the time of the next heartbeat.
    pub(super) fn next_heartbeat(&self) -> Option<Timestamp> {
        self.events.heartbeat.map(|heartbeat| heartbeat.next)
    }

    /// Returns a number that differs after each arrival in a queue and each change of where events go.
    pub(crate) fn arrivals(&self) -> u64 {
        self.state.queues.arrivals().wrapping_add(self.events.changes)
    }

    /// Makes the event of a call that reached AWS, if it makes one.
    pub(super) fn record_call(
        &mut self,
        context: &Context<'_>,
        user_agent: &str,
        call: u64,
        error: Option<&AwsError>,
    ) {
        if self.events.is_on() && makes_event(context.request) {
            self.make_event(context, user_agent, &request_id(call), error);
        }
    }

    pub(super) fn make_event(
        &mut self,
        context: &Context<'_>,
        user_agent: &str,
        request_id: &str,
        error: Option<&AwsError>,
    ) {
        let number = self.next_event();
        let body = record::of_call(&Facts {
            at: context.now,
            request: context.request,
            principal: &context.principal,
            account: &context.account,
            region: &context.region,
            user_agent,
            error,
            request_id,
            number,
        });
        self.deliver(Event { at: context.now, body });
    }

    /// Returns the number of a new event.
    fn next_event(&mut self) -> u64 {
        self.events.made += 1;
        self.events.made
    }

    /// Returns the number of events made so far.
    pub fn events_made(&self) -> u64 {
        self.events.made
    }

    fn deliver(&mut self, event: Event) {
        if self.events.target.is_some() {
            let arrivals = self.events.deliveries.arrivals(event.at, &mut self.events.dice);
            if let Some(queue) = self.events_queue_mut() {
                for at in arrivals {
                    queue.put(at, event.text());
                }
            }
        }
        if self.events.recording {
            self.events.waiting.push(event);
        }
    }

    fn events_queue_mut(&mut self) -> Option<&mut Queue> {
        self.state.queues.get_mut(self.events.target.as_ref()?)
    }
}
