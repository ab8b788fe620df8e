//! One standard queue of SQS, and the set of all queues.
//!
//! It decides which messages a receive returns and when they return to the queue. Pure: time is an argument.
//! It must never know what a message means. It follows
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/>.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::deliveries::Dice;
use super::stream::later;

/// The time for which a queue keeps a message; four days on AWS, unless the queue has another setting.
pub(super) const RETENTION: SignedDuration = SignedDuration::from_hours(4 * 24);

/// A queue's account, region and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueId {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) name: String,
}

impl QueueId {
    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:sqs:{}:{}:{}", self.region, self.account, self.name)
    }

    /// Returns AWS's own URL; over HTTP, the host is replaced by the one that the client used.
    pub(crate) fn url(&self) -> String {
        format!("https://sqs.{}.amazonaws.com/{}/{}", self.region, self.account, self.name)
    }
}

/// All queues of all accounts and regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queues {
    by_id: BTreeMap<QueueId, Queue>,
}

impl Queues {
    pub(crate) fn get(&self, id: &QueueId) -> Option<&Queue> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &QueueId) -> Option<&mut Queue> {
        self.by_id.get_mut(id)
    }

    pub(crate) fn create(&mut self, id: QueueId) -> &mut Queue {
        self.by_id.entry(id).or_default()
    }

    pub(crate) fn remove(&mut self, id: &QueueId) {
        self.by_id.remove(id);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&QueueId, &Queue)> {
        self.by_id.iter()
    }

    /// Gives a queue the policy with which `EventBridge` of the same account may send to it.
    pub(crate) fn insert_policy(&mut self, id: &QueueId) {
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": "events.amazonaws.com" },
                "Action": "sqs:SendMessage",
                "Resource": id.arn(),
                "Condition": { "StringEquals": { "aws:SourceAccount": id.account } },
            }],
        });
        if let Some(queue) = self.by_id.get_mut(id) {
            queue.attributes.entry("Policy".to_owned()).or_insert_with(|| policy.to_string());
        }
    }

    /// Returns the number of messages that all queues have received.
    pub(crate) fn arrivals(&self) -> u64 {
        self.by_id.values().map(|queue| queue.made).fold(0, u64::wrapping_add)
    }
}

/// One queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// The attributes with which it was created, such as `VisibilityTimeout`.
    pub(crate) attributes: BTreeMap<String, String>,
    messages: BTreeMap<u64, Message>,
    made: u64,
    disorder: u8,
    dice: Dice,
}

#[derive(Clone, Debug)]
struct Message {
    body: String,
    /// The time at which it arrives in the queue, perhaps in the future.
    sent: Timestamp,
    /// The time from which it can be received.
    visible: Timestamp,
    received: u32,
    first_received: Timestamp,
}

/// A message that a receive returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The message id, the same at each receive.
    pub id: String,
    /// The receipt handle, another one at each receive.
    pub handle: String,
    pub body: String,
    pub sent: Timestamp,
    pub first_received: Timestamp,
    /// The number of receives, with this one.
    pub received: u32,
}

/// The numbers of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages that can be received now.
    pub visible: usize,
    /// Messages that were received, and not deleted yet.
    pub not_visible: usize,
    /// Messages whose sender delayed them.
    pub delayed: usize,
    /// Messages that have not arrived yet.
    pub on_the_way: usize,
}

impl Queue {
    /// Adds a message that arrives at this time, perhaps in the future, and returns its id.
    pub fn put(&mut self, arrives: Timestamp, body: String) -> String {
        self.send(arrives, body, SignedDuration::ZERO)
    }

    /// Adds a message that arrives at this time and can be received after the delay.
    pub(crate) fn send(&mut self, arrives: Timestamp, body: String, delay: SignedDuration) -> String {
        self.made += 1;
        let visible = later(arrives, delay);
        let message = Message { body, sent: arrives, visible, received: 0, first_received: arrives };
        self.messages.insert(self.made, message);
        message_id(self.made)
    }

    /// Sets the percentage of messages that a receive takes from a random place.
    pub(crate) fn set_disorder(&mut self, percent: u8, seed: u64) {
        (self.disorder, self.dice) = (percent, Dice::new(seed));
    }

    /// Receives up to `most` messages. They are not visible for the visibility timeout, and return afterwards
    /// unless they are deleted.
    pub fn receive(&mut self, now: Timestamp, most: usize, timeout: SignedDuration) -> Vec<Received> {
        self.expire(now);
        let mut visible: Vec<(Timestamp, u64)> = self
            .messages
            .iter()
            .filter(|(_, message)| message.visible <= now && message.sent <= now)
            .map(|(number, message)| (message.sent, *number))
            .collect();
        visible.sort_unstable();
        let mut taken = Vec::new();
        while taken.len() < most && !visible.is_empty() {
            let place =
                if self.dice.percent(self.disorder) { self.dice.below(visible.len() as u64) } else { 0 };
            let (_, number) = visible.remove(usize::try_from(place).unwrap_or(0));
            taken.extend(self.take(number, now, timeout));
        }
        taken
    }

    fn take(&mut self, number: u64, now: Timestamp, timeout: SignedDuration) -> Option<Received> {
        let message = self.messages.get_mut(&number)?;
        if message.received == 0 {
            message.first_received = now;
        }
        message.received += 1;
        message.visible = later(now, timeout);
        Some(Received {
            id: message_id(number),
            handle: format!("simulated-receipt-{number}-{}", message.received),
            body: message.body.clone(),
            sent: message.sent,
            first_received: message.first_received,
            received: message.received,
        })
    }

    /// Deletes a message by the handle of its latest receive; an earlier handle, or one of a message that is
    /// gone, has no effect. Returns false if the text is no handle.
    pub fn delete(&mut self, handle: &str) -> bool {
        let parts = handle.strip_prefix("simulated-receipt-").and_then(|rest| rest.split_once('-'));
        let parsed = parts.and_then(|(number, received)| {
            Some((number.parse::<u64>().ok()?, received.parse::<u32>().ok()?))
        });
        let Some((number, received)) = parsed else { return false };
        if self.messages.get(&number).is_some_and(|message| message.received == received) {
            self.messages.remove(&number);
        }
        true
    }

    /// Removes the messages that the queue no longer keeps.
    fn expire(&mut self, now: Timestamp) {
        let seconds = self.seconds("MessageRetentionPeriod", RETENTION.as_secs());
        let oldest = later(now, -SignedDuration::from_secs(seconds));
        self.messages.retain(|_, message| message.sent > oldest);
    }

    /// Returns the numbers of messages at this time.
    pub fn counts(&self, now: Timestamp) -> Counts {
        let mut counts = Counts::default();
        for message in self.messages.values() {
            if message.sent > now {
                counts.on_the_way += 1;
            } else if message.visible <= now {
                counts.visible += 1;
            } else if message.received == 0 {
                counts.delayed += 1;
            } else {
                counts.not_visible += 1;
            }
        }
        counts
    }

    /// Returns the next time at which a message becomes visible.
    pub(crate) fn next_visible(&self, now: Timestamp) -> Option<Timestamp> {
        self.messages.values().map(|message| message.visible.max(message.sent)).filter(|at| *at > now).min()
    }

    /// Returns an attribute that is a number of seconds.
    pub(crate) fn seconds(&self, attribute: &str, default: i64) -> i64 {
        self.attributes.get(attribute).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
}

fn message_id(number: u64) -> String {
    format!("00000000-0000-4000-8001-{number:012x}")
}
