//! A call whose reservation is in the ledger although the API server did not acknowledge it: the call was not sent.

use std::time::Duration;

use stream_encryption_api::ledger::Outcome;

use super::fakes::{Request, State, World, run};
use super::resource;
use crate::controller::kube_api::KubeError;
use crate::controller::{Context, reconcile};
use crate::model::aws_error::{NOT_RESERVED, OPERATOR_PAUSED};

fn reconcile_after(world: &World, context: &Context<World, World>, seconds: u64) -> Result<(), KubeError> {
    world.state().elapsed += Duration::from_secs(seconds);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(context, &cached)).map(|_| ())
}

/// Returns a world in which this operator's first reservation was applied and not acknowledged.
fn with_unacknowledged_reservation() -> (World, Context<World, World>) {
    let world = World::new(resource());
    let context = world.context();
    world.state().loses_response_to = Some(Request::WriteLedger);
    let failed = reconcile_after(&world, &context, 0);
    assert!(matches!(failed, Err(KubeError::Unavailable(_))), "{failed:?}");
    world.state().loses_response_to = None;
    (world, context)
}

/// Returns the outcome and the code of the only call.
fn recorded(world: &World) -> (Outcome, Option<String>) {
    let ledger = world.state().ledger.clone().unwrap();
    let [call] = &ledger.spec.calls[..] else { panic!("{:?}", ledger.spec.calls) };
    (call.outcome, call.code.clone())
}

#[test]
fn unacknowledged_reservation_delays_call_by_a_minute() {
    let (world, context) = with_unacknowledged_reservation();
    assert_eq!(recorded(&world), (Outcome::Pending, None));
    reconcile_after(&world, &context, 1).unwrap();
    assert_eq!(recorded(&world), (Outcome::Refused, Some(NOT_RESERVED.to_owned())));
    assert_eq!(world.count(Request::Start), 0, "attempts have a pause");
    reconcile_after(&world, &context, 60).unwrap();
    assert_eq!(world.count(Request::Start), 1);
}

#[test]
fn earlier_unacknowledged_reservation_is_found_after_another_one() {
    let (world, context) = with_unacknowledged_reservation();
    // The reservation arrives after the next reconcile has read the ledger, so that one conflicts.
    let late = world.state().ledger.take();
    world.before(Request::WriteLedger, |state| {
        state.ledger = late;
        Err(KubeError::Conflict)
    });
    reconcile_after(&world, &context, 1).unwrap();
    reconcile_after(&world, &context, 1).unwrap();
    assert_eq!(recorded(&world), (Outcome::Refused, Some(NOT_RESERVED.to_owned())));
}

#[test]
fn reservations_in_one_microsecond_have_different_ids() {
    let ids = [1, 2].map(|nanoseconds| {
        let world = World::new(resource());
        world.state().elapsed = Duration::from_nanos(nanoseconds);
        reconcile_after(&world, &world.context(), 0).unwrap();
        world.state().ledger.clone().unwrap().spec.calls[0].id.clone()
    });
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn unacknowledged_reservation_of_other_process_is_believed() {
    let (world, _) = with_unacknowledged_reservation();
    let context = world.context();
    for _ in 0..3 {
        reconcile_after(&world, &context, 60).unwrap();
    }
    assert_eq!((recorded(&world).0, world.count(Request::Start)), (Outcome::Pending, 0));
}

#[test]
fn call_follows_slow_reservation_if_nothing_has_changed() {
    let changes: [(fn(&mut State), _); 3] = [
        (|_| {}, (1, Outcome::Accepted)),
        (|state| state.resource.as_mut().unwrap().metadata.generation = Some(2), (0, Outcome::Refused)),
        (|state| state.policies.clear(), (0, Outcome::Refused)),
    ];
    for (change, expected) in changes {
        let world = World::new(resource());
        // An admission webhook does not respond, and the API server ignores it after ten seconds.
        world.before(Request::WriteLedger, move |state| {
            state.elapsed += Duration::from_secs(11);
            change(state);
            Ok(())
        });
        reconcile_after(&world, &world.context(), 0).unwrap();
        assert_eq!((world.count(Request::Start), recorded(&world).0), expected);
    }
}

#[test]
fn unsent_call_without_a_written_outcome_is_recorded_next() {
    let world = World::new(resource());
    let context = world.context();
    // The description is too old after the reservation, and then the API server is unavailable.
    world.pause_before(Request::WriteLedger, 21);
    for _ in 0..3 {
        world.before(Request::WriteLedger, |_| Err(KubeError::Unavailable("no answer".to_owned())));
    }
    reconcile_after(&world, &context, 0).unwrap();
    assert_eq!((recorded(&world), world.count(Request::Start)), ((Outcome::Pending, None), 0));
    reconcile_after(&world, &context, 1).unwrap();
    assert_eq!(recorded(&world), (Outcome::Refused, Some(OPERATOR_PAUSED.to_owned())));
}
