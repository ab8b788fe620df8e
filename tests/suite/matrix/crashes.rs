//! Rows 1 and 2: the operator crashes before and after every write to Kubernetes and every call to AWS, each in turn, and
//! comes back without its memory. All ends as it would have, with no call more.
//!
//! On a virtual clock, so that a reservation whose call was never sent is waited for to its end.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use simulated_aws::world::{Fault, PlantedKey, Rule, Service};

use super::proxy::When;
use super::rig::{Act, Journey, START, Scene, stage};
use crate::play::{ACCOUNT, Play, REGION};

/// So many plays at a time, each with a world and a clock of its own.
const LANES: usize = 4;

/// The id of the key of every journey, so that all ends read alike.
const KEY: &str = "0000cafe-0000-4000-8000-00000000cafe";

/// Plays the journey once as it is, and then with a crash at each spot of it. `scenes` makes them for a stream's name.
async fn crash_everywhere(service: Service, prefix: &str, scenes: impl Fn(&Play, &str) -> Vec<Scene>) {
    let play = stage_with_key().await;
    let mut reference = Journey::new(&play, service, &format!("{prefix}-ref"), None);
    let script = scenes(&play, &reference.name);
    let ends = reference.play(&script).await;
    let (calls, names) = (reference.changes(), reference.passed.clone());
    println!("{prefix}: {} spots: {}", names.len(), names.join(", "));
    let spots = (1..=names.len()).flat_map(|number| [(number, When::Before), (number, When::After)]);
    let spots: Vec<_> = spots.collect();
    let lane = async |lane: usize| {
        let play = stage_with_key().await;
        for (number, when) in spots.iter().copied().skip(lane).step_by(LANES) {
            let spot = format!("{when:?} number {number}, {}", names[number - 1]).to_lowercase();
            let name = format!("{prefix}-{number}-{when:?}").to_lowercase();
            let script = scenes(&play, &name);
            let mut journey = Journey::new(&play, service, &name, Some((number, when)));
            let ended = journey.play(&script).await;
            assert!(journey.crashed, "{spot}: the journey did not come by");
            assert_eq!(ended, ends, "{spot}");
            assert_eq!(journey.changes(), calls, "{spot}: calls");
            let reserved = journey.reserved().await;
            // Crashed between a reservation and its call: the reservation stays, and counts.
            assert!(
                (calls..=calls + 1).contains(&reserved),
                "{spot}: {reserved} reservations, {calls} calls"
            );
        }
    };
    stream::iter(0..LANES).for_each_concurrent(LANES, lane).await;
}

async fn stage_with_key() -> Play {
    let play = stage().await;
    play.aws.world().plant_key(PlantedKey { id: KEY.to_owned(), ..PlantedKey::default() });
    play
}

fn cmk() -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY}")})
}

#[tokio::test]
async fn whichever_write_or_call_it_crashes_at_a_stream_is_enabled_proved_and_turned_off_with_one_call_each()
{
    crash_everywhere(Service::Firehose, "on-off", |_, name| {
        let spec = json!({
            "stream": {"service": "Firehose", "name": name}, "key": cmk(),
            "verify": {"putRecord": true}, "deletionPolicy": "Disable",
        });
        vec![Scene { act: Act::Apply(spec), end: "Encrypted" }, Scene { act: Act::Delete, end: "" }]
    })
    .await;
}

#[tokio::test]
async fn whichever_write_or_call_it_crashes_at_a_kinesis_stream_is_enabled_and_re_keyed_with_one_call_each() {
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
async fn a_crash_at_every_spot_of_an_attempt_whose_reply_is_lost_sends_no_second_one() {
    crash_everywhere(Service::Firehose, "lost", |play, name| {
        // Carried out, and nobody is told: the outcome is read off the stream, whenever the operator crashes.
        play.aws.world().script(Rule::once(Fault::LoseReply).on(START).of(name));
        let spec = json!({"stream": {"service": "Firehose", "name": name}});
        vec![Scene { act: Act::Apply(spec), end: "Encrypted" }]
    })
    .await;
}
