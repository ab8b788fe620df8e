//! Rows 1 and 2: the operator crashes before and after every write to Kubernetes and every request to AWS,
//! each in turn, and restarts without its memory. The end state and the number of calls are the same as
//! without a crash.
//!
//! On a virtual clock, so that the operator can wait for the end of a reservation whose call was never sent.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use simulated_aws::world::{Fault, PlantedKey, Rule, Service};

use super::proxy::When;
use super::scenario::{Act, Run, START, Scene, stage};
use crate::harness::{ACCOUNT, Harness, REGION};

/// Number of harnesses that run in parallel, each with its own world and clock.
const LANES: usize = 4;

/// Id of the key in every run, so that all end states are equal.
const KEY: &str = "0000cafe-0000-4000-8000-00000000cafe";

/// Runs a scenario without a crash, and then with a crash at each crash point. `scenes` returns the steps for
/// a stream name.
async fn crash_everywhere(service: Service, prefix: &str, scenes: impl Fn(&Harness, &str) -> Vec<Scene>) {
    let harness = stage_with_key().await;
    let mut reference = Run::new(&harness, service, &format!("{prefix}-ref"), None);
    let script = scenes(&harness, &reference.name);
    let ends = reference.harness(&script).await;
    let (calls, names) = (reference.changes(), reference.passed.clone());
    println!("{prefix}: {} spots: {}", names.len(), names.join(", "));
    let spots = (1..=names.len()).flat_map(|number| [(number, When::Before), (number, When::After)]);
    let spots: Vec<_> = spots.collect();
    let lane = async |lane: usize| {
        let harness = stage_with_key().await;
        for (number, when) in spots.iter().copied().skip(lane).step_by(LANES) {
            let spot = format!("{when:?} number {number}, {}", names[number - 1]).to_lowercase();
            let name = format!("{prefix}-{number}-{when:?}").to_lowercase();
            let script = scenes(&harness, &name);
            let mut journey = Run::new(&harness, service, &name, Some((number, when)));
            let ended = journey.harness(&script).await;
            assert!(journey.crashed, "{spot}: the crash point was not reached");
            assert_eq!(ended, ends, "{spot}");
            assert_eq!(journey.changes(), calls, "{spot}: calls");
            let reserved = journey.reserved().await;
            // After a crash between a reservation and its call, the reservation stays in the ledger and
            // counts.
            assert!(
                (calls..=calls + 1).contains(&reserved),
                "{spot}: {reserved} reservations, {calls} calls"
            );
        }
    };
    stream::iter(0..LANES).for_each_concurrent(LANES, lane).await;
}

async fn stage_with_key() -> Harness {
    let harness = stage().await;
    harness.aws.world().plant_key(PlantedKey { id: KEY.to_owned(), ..PlantedKey::default() });
    harness
}

fn cmk() -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY}")})
}

#[tokio::test]
async fn crash_at_any_point_enables_and_disables_with_one_call_each() {
    crash_everywhere(Service::Firehose, "on-off", |_, name| {
        let spec = json!({
            "stream": {"service": "Firehose", "name": name}, "key": cmk(),
            "verification": "PutRecord", "deletionPolicy": "Disable",
        });
        vec![Scene { act: Act::Apply(spec), end: "Encrypted" }, Scene { act: Act::Delete, end: "" }]
    })
    .await;
}

#[tokio::test]
async fn crash_at_any_point_re_keys_kinesis_with_one_call_each() {
    crash_everywhere(Service::Kinesis, "re-key", |_, name| {
        let stream = json!({"service": "Kinesis", "name": name});
        vec![
            Scene { act: Act::Apply(json!({"stream": stream})), end: "Encrypted" },
            Scene { act: Act::Apply(json!({"stream": stream, "key": cmk()})), end: "Encrypted" },
        ]
    })
    .await;
}

#[tokio::test]
async fn crash_with_lost_reply_causes_no_second_start() {
    crash_everywhere(Service::Firehose, "lost", |harness, name| {
        // AWS applies the call and its reply is lost. The operator reads the outcome from the stream,
        // wherever it crashes.
        harness.aws.world().script(Rule::once(Fault::LoseReply).on(START).of(name));
        let spec = json!({"stream": {"service": "Firehose", "name": name}});
        vec![Scene { act: Act::Apply(spec), end: "Encrypted" }]
    })
    .await;
}
