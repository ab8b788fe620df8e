//! A second replica, whose cache of ledgers lags: it holds the last call of the first replica, but not its effect.

use std::time::Duration;

use super::fakes::{Request, World, run};
use super::resource;
use crate::controller::{Context, reconcile};
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

fn reconcile_after_a_minute(world: &World, context: &Context<World, World>) {
    world.state().elapsed += Duration::from_mins(1);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(context, &cached)).unwrap();
}

#[test]
fn effect_of_call_missing_in_the_cache_is_read_live() {
    let world = World::new(resource());
    let first = world.context();
    reconcile_after_a_minute(&world, &first);
    assert_eq!(world.count(Request::Start), 1);
    let before_effect = world.state().ledger.clone();

    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    reconcile_after_a_minute(&world, &first);
    assert!(world.state().ledger.as_ref().unwrap().spec.calls[0].confirmed);

    // Somebody stops the encryption. With the cached ledger, plaintext could still be the state before the call.
    world.state().encryption = ReportedEncryption::Off;
    world.state().lagging_ledger = before_effect;
    reconcile_after_a_minute(&world, &world.context());
    assert_eq!(world.count(Request::Start), 2);
}
