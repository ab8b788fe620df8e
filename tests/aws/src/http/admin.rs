//! The routes under `/_admin`: every operation of the handle, as JSON over HTTP.
//!
//! A route translates and calls the model. It must never decide an AWS answer.

mod events;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::clock::Running;
use crate::world::outside::OUTSIDER;
use crate::world::{
    Caller, KeyState, PlantedKey, PlantedRole, PlantedStream, Request, Rule, Settings, Snapshot, World,
};

/// The answer of a route: a status and JSON.
type Answer = (u16, Value);

/// A rejected admin request: the status, and a text that describes what to send instead.
struct Refused(u16, String);

/// One admin request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// The path without `/_admin/`.
    pub(super) path: &'a str,
    /// The query of the URL.
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

/// Answers one admin request. `release` releases the held replies.
pub(super) fn answer(
    asked: &Asked<'_>,
    world: &mut World,
    clock: &Running,
    release: impl FnOnce(),
) -> Answer {
    if (asked.method, asked.path) == (&Method::POST, "release") {
        release();
        return (200, json!({}));
    }
    route(asked, world, clock)
        .unwrap_or_else(|Refused(status, message)| (status, json!({ "error": message })))
}

fn route(asked: &Asked<'_>, world: &mut World, clock: &Running) -> Result<Answer, Refused> {
    let now = clock.now();
    world.settle(now);
    if let Some(answer) = events::route(asked, world, now) {
        return answer;
    }
    Ok(match (asked.method.as_str(), asked.path) {
        ("POST", "reset") => {
            world.reset();
            (200, json!({}))
        }
        ("GET", "settings") => (200, json!(world.settings())),
        ("PATCH", "settings") => {
            let merged = merge(&json!(world.settings()), &parse::<Value>(asked)?);
            *world.settings() =
                serde_json::from_value::<Settings>(merged).map_err(|e| Refused(400, e.to_string()))?;
            (200, json!(world.settings()))
        }
        ("GET", "health" | "clock") => (200, json!({ "now": now })),
        ("POST", "clock") => {
            let change = parse::<ClockChange>(asked)?;
            if let Some(to) = change.set {
                clock.set(to);
            }
            if let Some(by) = change.advance {
                clock.advance(by);
            }
            world.settle(clock.now());
            (200, json!({ "now": clock.now() }))
        }
        ("POST", "streams") => {
            (201, json!({ "arn": world.create_stream(now, parse::<PlantedStream>(asked)?) }))
        }
        ("GET", "streams") => {
            let streams: Vec<Value> =
                world.streams(now).map(|(id, state)| json!({ "arn": id.arn(), "state": state })).collect();
            (200, json!(streams))
        }
        ("PATCH", "streams") => {
            let arn = field(asked, "arn")?;
            let state = world.stream(&arn, now).ok_or_else(|| missing("stream", &arn))?;
            let change = parse::<Value>(asked)?.get("state").cloned().unwrap_or_default();
            let state = serde_json::from_value::<Snapshot>(merge(&json!(state), &change))
                .map_err(|e| Refused(400, e.to_string()))?;
            world.change_stream(now, &arn, state);
            (200, json!({ "arn": arn, "state": world.stream(&arn, now) }))
        }
        ("DELETE", "streams") => {
            let arn = field(asked, "arn")?;
            found(world.delete_stream(now, &arn), "stream", &arn)?
        }
        ("POST", "keys") => (201, json!({ "arn": world.plant_key(parse::<PlantedKey>(asked)?) })),
        ("GET", "keys") => (200, json!(world.keys().collect::<Vec<_>>())),
        ("PATCH", "keys") => {
            let change = parse::<KeyChange>(asked)?;
            let (state, policy) = (change.state, change.policy);
            let changed = world.change_key(now, &change.arn, |key| {
                key.state = state.unwrap_or(key.state);
                if let Some(policy) = policy {
                    key.policy = policy;
                }
            });
            found(changed, "key", &change.arn)?;
            (200, json!(world.key(&change.arn)))
        }
        ("DELETE", "keys") => {
            let arn = field(asked, "arn")?;
            found(world.delete_key(now, &arn), "key", &arn)?
        }
        ("POST", "aliases") => {
            (201, json!({ "arn": world.change_alias(now, &field(asked, "name")?, &field(asked, "key")?) }))
        }
        ("POST", "roles") => {
            world.plant_role(parse::<PlantedRole>(asked)?);
            (201, json!({}))
        }
        ("POST", "accounts") => {
            world.plant_account(&field(asked, "access_key")?, &field(asked, "account")?);
            (201, json!({}))
        }
        ("GET", "grants") => (200, json!(world.grants(now).collect::<Vec<_>>())),
        ("POST", "faults") => (201, json!({ "number": world.script(parse::<Rule>(asked)?) })),
        ("GET", "faults") => (200, json!(world.rules())),
        ("DELETE", "faults") => {
            world.clear_faults();
            (200, json!({}))
        }
        // A request by another caller, outside the operator under test.
        ("POST", "calls") => {
            let call = parse::<OutsideCall>(asked)?;
            let caller = Caller::new(&call.access_key);
            let reply = world.call(now, &caller, call.region.as_deref().unwrap_or_default(), &call.request);
            match reply.result {
                Ok(result) => (200, result),
                Err(error) => (error.status.max(400), error.body()),
            }
        }
        ("GET", "log") => (200, log(asked.query, world)),
        (method, path) => return Err(Refused(404, format!("no admin route {method} /_admin/{path}"))),
    })
}

/// Returns the log, filtered by `operation`, `target`, `outcome` and `since` (a request's number) of the
/// query.
fn log(query: &str, world: &World) -> Value {
    let asked = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
    };
    let since = asked("since").and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    let fits = |name: &str, value: &str| asked(name).is_none_or(|wanted| wanted == value);
    let calls: Vec<_> = world
        .calls()
        .iter()
        .filter(|call| call.id > since && fits("operation", &call.operation))
        .filter(|call| fits("target", &call.target) && fits("outcome", &call.outcome))
        .collect();
    json!(calls)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    set: Option<Timestamp>,
    advance: Option<SignedDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyChange {
    arn: String,
    state: Option<KeyState>,
    policy: Option<Value>,
}

#[derive(Deserialize)]
struct OutsideCall {
    #[serde(default = "somebody")]
    access_key: String,
    region: Option<String>,
    #[serde(flatten)]
    request: Request,
}

fn somebody() -> String {
    OUTSIDER.to_owned()
}

fn parse<T: DeserializeOwned>(asked: &Asked<'_>) -> Result<T, Refused> {
    let body = if asked.body.is_empty() { b"{}" } else { asked.body };
    serde_json::from_slice(body)
        .map_err(|error| Refused(400, format!("the body does not fit this route: {error}")))
}

fn field(asked: &Asked<'_>, name: &str) -> Result<String, Refused> {
    let value = parse::<Value>(asked)?.get(name).and_then(Value::as_str).map(str::to_owned);
    value.ok_or_else(|| Refused(400, format!("the body needs the text member `{name}`")))
}

fn found(done: bool, kind: &str, arn: &str) -> Result<Answer, Refused> {
    if done { Ok((200, json!({}))) } else { Err(missing(kind, arn)) }
}

fn missing(kind: &str, arn: &str) -> Refused {
    Refused(404, format!("no {kind} {arn}; GET /_admin/{kind}s lists them"))
}

/// Merges `change` over `base`, member by member, one level deep.
fn merge(base: &Value, change: &Value) -> Value {
    let mut merged = base.clone();
    if let (Some(merged), Some(change)) = (merged.as_object_mut(), change.as_object()) {
        merged.extend(change.clone());
    }
    merged
}
