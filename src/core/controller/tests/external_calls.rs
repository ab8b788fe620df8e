//! Calls of somebody else that an event reports, while the operator's clock or AWS's report of the stream is behind.

use std::time::Duration;

use jiff::SignedDuration;

use super::fakes::{Request, World};
use super::{Context, reconcile_stored, resource, stop_by_others, woken_by};
use crate::model::aws_event::Subject;
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

/// Lets minutes pass in which events arrive, reconciles, and returns the minutes to the next reconcile.
fn minutes_to_next(world: &World, context: &Context<World, World>, minutes: u64) -> i64 {
    world.state().elapsed += Duration::from_mins(minutes);
    woken_by(context, Subject::Heartbeat);
    let wake = reconcile_stored(world, context);
    wake.duration_since(context.clock.now()).as_mins()
}

fn encrypted() -> (World, Context<World, World>) {
    let world = World::new(resource());
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    let context = world.context();
    context.memory.events.register_from_status(&resource());
    (world, context)
}

#[test]
fn stream_is_described_again_soon_after_call_of_others() {
    let (world, context) = encrypted();
    minutes_to_next(&world, &context, 1);
    assert!(minutes_to_next(&world, &context, 1) >= 45, "events suffice");
    let describes = world.count(Request::Describe);
    let _ = context.memory.events.receive(&stop_by_others(), context.clock.monotonic(), Duration::ZERO);
    // AWS still reports the state before the Stop.
    let waits = [1, 1, 11, 11].map(|minutes| minutes_to_next(&world, &context, minutes));
    assert_eq!(world.count(Request::Describe), describes + 4);
    assert!(waits[0] <= 1 && (8..12).contains(&waits[1]) && waits[3] >= 45, "{waits:?}");
}

#[test]
fn call_of_others_waits_while_the_clock_is_wrong() {
    let (world, context) = encrypted();
    minutes_to_next(&world, &context, 1);
    for days in [2, -2] {
        world.state().clock_error = SignedDuration::from_hours(24 * days);
        world.state().describe_fails = true;
        let _ = context.memory.events.receive(&stop_by_others(), context.clock.monotonic(), Duration::ZERO);
        reconcile_stored(&world, &context);
        assert!(context.memory.events.holds(&stop_by_others()), "{days} days");
    }
    world.state().clock_error = SignedDuration::ZERO;
    world.state().describe_fails = false;
    minutes_to_next(&world, &context, 1);
    assert!(!context.memory.events.holds(&stop_by_others()));
    assert_eq!(world.state().ledger.clone().unwrap().spec.external_calls.len(), 1);
}

#[test]
fn event_with_an_impossible_time_is_released_after_a_describe() {
    let (world, context) = encrypted();
    minutes_to_next(&world, &context, 1);
    let describes = world.count(Request::Describe);
    world.state().elapsed += Duration::from_hours(48);
    let _ = context.memory.events.receive(&stop_by_others(), context.clock.monotonic(), Duration::ZERO);
    reconcile_stored(&world, &context);
    assert!(!context.memory.events.holds(&stop_by_others()));
    assert_eq!(world.count(Request::Describe), describes + 1);
}
