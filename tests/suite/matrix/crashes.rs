//! Rows 1 and 2: the operator crashes before and after every write to Kubernetes and every call to AWS, each in turn, and
//! comes back without its memory. All ends as it would have, with no call more.
//!
//! On a virtual clock, so that a reservation whose call was never sent is waited for to its end.

use serde_json::{Value, json};
use simulated_aws::world::{Fault, Rule, Service};

use super::proxy::When;
use super::rig::{Act, Journey, START, Scene, stage};
use crate::play::Play;

/// Plays the journey once as it is, and then with a crash at each spot of it. `scenes` makes them for a stream's name.
async fn crash_everywhere(play: &Play, service: Service, prefix: &str, scenes: impl Fn(&str) -> Vec<Scene>) {
    let mut reference = Journey::new(play, service, &format!("{prefix}-ref"), None);
    let script = scenes(&reference.name);
    let ends = reference.play(&script).await;
    let (calls, spots) = (reference.changes(), reference.passed.clone());
    println!("{prefix}: {} spots: {}", spots.len(), spots.join(", "));
    for number in 1..=spots.len() {
        for when in [When::Before, When::After] {
            let spot = format!("{when:?} number {number}, {}", spots[number - 1]).to_lowercase();
            let name = format!("{prefix}-{number}-{when:?}").to_lowercase();
            let script = scenes(&name);
            let mut journey = Journey::new(play, service, &name, Some((number, when)));
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
    }
}

/// A key that works.
fn cmk(arn: &str) -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": arn})
}

#[tokio::test]
async fn whichever_write_or_call_it_crashes_at_a_stream_is_enabled_proved_and_turned_off_with_one_call_each()
{
    let play = stage().await;
    let key = play.plant_key();
    crash_everywhere(&play, Service::Firehose, "on-off", |name| {
        let spec = json!({
            "stream": {"service": "Firehose", "name": name}, "key": cmk(&key),
            "verify": {"putRecord": true}, "deletionPolicy": "Disable",
        });
        vec![Scene { act: Act::Apply(spec), end: "Encrypted" }, Scene { act: Act::Delete, end: "" }]
    })
    .await;
}

#[tokio::test]
async fn whichever_write_or_call_it_crashes_at_a_kinesis_stream_is_enabled_and_re_keyed_with_one_call_each() {
    let play = stage().await;
    let key = play.plant_key();
    crash_everywhere(&play, Service::Kinesis, "re-key", |name| {
        let stream = json!({"service": "Kinesis", "name": name});
        vec![
            Scene { act: Act::Apply(json!({"stream": stream})), end: "Encrypted" },
            Scene { act: Act::Apply(json!({"stream": stream, "key": cmk(&key)})), end: "Encrypted" },
        ]
    })
    .await;
}

#[tokio::test]
async fn a_crash_at_every_spot_of_an_attempt_whose_reply_is_lost_sends_no_second_one() {
    let play = stage().await;
    crash_everywhere(&play, Service::Firehose, "lost", |name| {
        // Carried out, and nobody is told: the outcome is read off the stream, whenever the operator crashes.
        play.aws.world().script(Rule::once(Fault::LoseReply).on(START).of(name));
        let spec = json!({"stream": {"service": "Firehose", "name": name}});
        vec![Scene { act: Act::Apply(spec), end: "Encrypted" }]
    })
    .await;
}
