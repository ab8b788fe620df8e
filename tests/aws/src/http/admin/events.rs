//! The admin routes of events and queues.
//!
//! A route translates and calls the model. It must never decide what an event contains.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Refused, field, merge, parse};
use crate::world::{Deliveries, World};

/// The most copies of one message that a request may send.
const COPIES: usize = 10_000;

/// Answers a request for events or queues; `None` if it is another route.
pub(super) fn route(asked: &Asked<'_>, world: &mut World, now: Timestamp) -> Option<Result<Answer, Refused>> {
    Some(match (asked.method.as_str(), asked.path) {
        ("GET", "events") => Ok((200, events(world))),
        ("PATCH", "events") => change(asked, world, now),
        ("GET", "queues") => Ok((200, queues(world, now))),
        ("POST", "queues") => {
            field(asked, "name").map(|name| (201, json!({ "url": world.create_queue(&name) })))
        }
        ("POST", "messages") => send(asked, world, now),
        ("POST", "heartbeat") => {
            world.heartbeat(now);
            Ok((201, json!({})))
        }
        ("DELETE", "aliases") => field(asked, "arn").and_then(|arn| {
            let deleted = world.delete_alias(now, &arn);
            if deleted { Ok((200, json!({}))) } else { Err(Refused(404, format!("no alias {arn}"))) }
        }),
        _ => return None,
    })
}

fn events(world: &World) -> Value {
    let mut events = json!(world.deliveries());
    events["queue"] = json!(world.events_queue());
    events["heartbeat_interval"] = json!(world.heartbeat_interval());
    events["made"] = json!(world.events_made());
    events
}

/// The members of the body that are not of [`Deliveries`].
#[derive(Deserialize)]
struct Change {
    queue: Option<String>,
    heartbeat_interval: Option<SignedDuration>,
}

/// Changes the queue of events, the deliveries and the heartbeats. An interval of 0 stops the heartbeats.
fn change(asked: &Asked<'_>, world: &mut World, now: Timestamp) -> Result<Answer, Refused> {
    let mut body = parse::<Value>(asked)?;
    let Change { queue, heartbeat_interval } = parse(asked)?;
    if let Some(members) = body.as_object_mut() {
        members.remove("queue");
        members.remove("heartbeat_interval");
    }
    let deliveries = merge(&json!(world.deliveries()), &body);
    let deliveries =
        serde_json::from_value::<Deliveries>(deliveries).map_err(|error| Refused(400, error.to_string()))?;
    if let Some(queue) = queue {
        world.send_events_to(&queue);
    }
    world.set_deliveries(deliveries);
    if heartbeat_interval.is_some() {
        world.send_heartbeats(now, heartbeat_interval);
    }
    Ok((200, events(world)))
}

fn queues(world: &World, now: Timestamp) -> Value {
    let queues = world.queues(now).into_iter().map(|(url, counts)| {
        let mut shown = json!(counts);
        shown["url"] = json!(url);
        shown
    });
    Value::Array(queues.collect())
}

/// A message that no call made: forged, malformed or repeated.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    /// Absent: the queue of events.
    queue: Option<String>,
    /// A text is sent as it is, anything else as JSON.
    body: Value,
    #[serde(default = "one")]
    copies: usize,
}

fn one() -> usize {
    1
}

fn send(asked: &Asked<'_>, world: &mut World, now: Timestamp) -> Result<Answer, Refused> {
    let Message { queue, body, copies } = parse(asked)?;
    let name = queue.or_else(|| world.events_queue().map(str::to_owned));
    let name = name.ok_or_else(|| Refused(400, "name a queue: no queue receives events".to_owned()))?;
    if copies > COPIES {
        return Err(Refused(400, format!("copies must be no more than {COPIES}")));
    }
    let queue = world.queue(&name);
    let queue =
        queue.ok_or_else(|| Refused(404, format!("no queue {name}; GET /_admin/queues lists them")))?;
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    for _ in 0..copies {
        queue.put(now, text.clone());
    }
    Ok((201, json!({ "sent": copies })))
}
