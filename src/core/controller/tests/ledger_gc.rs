//! The cleanup of ledgers: which ledgers are deleted, and how many requests that needs.

use std::time::Duration;

use stream_encryption_api::stream_encryption::StreamReference;

use super::fakes::{Request, World, run};
use super::{ARN, reconcile, resource};
use crate::controller::Context;
use crate::controller::kube_api::{KubeError, ReadFrom};
use crate::controller::ledger_gc::LedgerGc;
use crate::model::arn::StreamArn;

/// Returns a world with one ledger, whose owner exists, and the context of the operator that has made its call. No call
/// counts any more.
fn with_old_ledger() -> (World, Context<World, World>) {
    let world = World::new(resource());
    let context = world.context();
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&context, &cached)).unwrap();
    let mut state = world.state();
    assert_eq!(state.ledger.as_ref().unwrap().spec.calls.len(), 1);
    state.elapsed += Duration::from_hours(48);
    state.requests.clear();
    drop(state);
    (world, context)
}

/// Adds copies of the ledger, for other streams.
fn add_ledgers(world: &World, number: usize) {
    let mut state = world.state();
    let ledger = state.ledger.clone().unwrap();
    state.other_ledgers.extend((0..number).map(|number| {
        let mut other = ledger.clone();
        other.metadata.name = Some(format!("stream-{number}"));
        other
    }));
}

/// Returns the number of reads of a resource from the API server.
fn lookups(world: &World) -> usize {
    world.count(Request::ReadResource(ReadFrom::ApiServer))
}

#[test]
fn cached_owner_is_not_looked_up() {
    let (world, context) = with_old_ledger();
    let mut gc = LedgerGc::default();
    assert_eq!(run(gc.collect_expired(&context)), Ok(0));
    assert_eq!(lookups(&world), 0);
    let lagging = world.state().resource.take();
    world.state().lagging = lagging;
    assert_eq!(run(gc.collect_expired(&context)), Ok(0), "a cache that lags delays a deletion");
    world.state().lagging = None;
    assert_eq!(run(gc.collect_expired(&context)), Ok(1));
}

#[test]
fn owner_of_another_operator_is_looked_up_once_a_day() {
    let (world, context) = with_old_ledger();
    world.state().is_foreign = true;
    add_ledgers(&world, 2);
    let mut gc = LedgerGc::default();
    for hour in 0..24 {
        assert_eq!(run(gc.collect_expired(&context)), Ok(0));
        assert_eq!(lookups(&world), 3, "after {hour} h");
        world.state().elapsed += Duration::from_hours(1);
    }
    assert_eq!(run(gc.collect_expired(&context)), Ok(0));
    assert_eq!(lookups(&world), 6);
    world.state().resource = None;
    world.state().elapsed += Duration::from_hours(24);
    assert_eq!(run(gc.collect_expired(&context)), Ok(3), "their owners are gone");
}

#[test]
fn ledger_is_kept_for_restored_resource_of_its_stream() {
    let stream: StreamArn = ARN.parse().unwrap();
    let by_arn = |arn: &str| StreamReference { arn: Some(arn.to_owned()), ..StreamReference::default() };
    let by_name = |name: &str, region: Option<&str>| StreamReference {
        service: Some(stream.service),
        name: Some(name.to_owned()),
        region: region.map(ToOwned::to_owned),
        arn: None,
    };
    for (reference, is_kept) in [
        (by_arn(ARN), true),
        (by_arn(&format!("{ARN}-2")), false),
        (by_name(stream.name(), None), true),
        (by_name(stream.name(), Some(stream.region.as_str())), true),
        (by_name(stream.name(), Some("us-east-2")), false),
        (by_name("another", None), false),
    ] {
        let (world, context) = with_old_ledger();
        let mut state = world.state();
        state.is_foreign = true;
        let restored = state.resource.as_mut().unwrap();
        restored.metadata.uid = Some("restored".to_owned());
        restored.spec.stream = reference.clone();
        drop(state);
        let deleted = run(LedgerGc::default().collect_expired(&context));
        assert_eq!(deleted, Ok(usize::from(!is_kept)), "{reference:?}");
    }
}

#[test]
fn every_page_of_ledgers_is_cleaned_up() {
    let (world, context) = with_old_ledger();
    add_ledgers(&world, 3);
    world.state().resource = None;
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(4));
    assert!(world.state().ledger.is_none() && world.state().other_ledgers.is_empty());
}

#[test]
fn ledger_that_was_just_claimed_is_kept() {
    let (world, context) = with_old_ledger();
    add_ledgers(&world, 1);
    world.state().resource = None;
    world.before(Request::DeleteLedger, |_| Err(KubeError::Conflict));
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(1));
    assert!(world.state().ledger.is_some());
}

#[test]
fn ledger_that_has_changed_since_the_cache_read_it_is_kept() {
    let (world, context) = with_old_ledger();
    world.state().resource = None;
    let mut state = world.state();
    state.lagging_ledger = state.ledger.clone();
    let version = state.next_version();
    state.ledger.as_mut().unwrap().metadata.resource_version = Some(version);
    drop(state);
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(0));
    assert_eq!(world.count(Request::DeleteLedger), 1);
    assert!(world.state().ledger.is_some());
}

#[test]
fn ledger_with_a_counted_call_costs_no_request() {
    let (world, context) = with_old_ledger();
    world.state().resource = None;
    world.state().elapsed -= Duration::from_hours(47);
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(0));
    assert_eq!(world.state().requests, [Request::Monotonic], "it only reads the clock");
}

#[test]
fn refused_clock_ends_the_cleanup() {
    let (world, context) = with_old_ledger();
    add_ledgers(&world, 2);
    world.state().resource = None;
    world.state().refuses_clock = true;
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(0));
    assert_eq!(world.count(Request::VerifyClock), 1);
    assert_eq!(world.count(Request::DeleteLedger), 0);
}

#[test]
fn unavailable_api_server_ends_the_cleanup() {
    for request in [Request::ReadResource(ReadFrom::ApiServer), Request::DeleteLedger] {
        let (world, context) = with_old_ledger();
        add_ledgers(&world, 4);
        world.state().resource = None;
        let unavailable = KubeError::Unavailable("no response".to_owned());
        let fails = |times| {
            for error in std::iter::repeat_n(unavailable.clone(), times) {
                world.before(request, |_| Err(error));
            }
        };
        fails(3);
        assert_eq!(run(LedgerGc::default().collect_expired(&context)), Err(unavailable.clone()));
        assert_eq!(world.count(request), 3);
        fails(1);
        let deleted = run(LedgerGc::default().collect_expired(&context));
        assert!(deleted.is_ok_and(|deleted| deleted >= 3), "one of five is kept");
    }
}

/// The API server never responds to the deletion of five ledgers, which are first in the list.
#[test]
fn undeletable_ledgers_do_not_keep_the_others_for_ever() {
    let (world, context) = with_old_ledger();
    add_ledgers(&world, 7);
    world.state().resource = None;
    let mut gc = LedgerGc::default();
    let cleanups = [(3, Err(())), (2, Ok(3))];
    for (failures, result) in cleanups {
        for _ in 0..failures {
            world.before(Request::DeleteLedger, |_| Err(KubeError::Unavailable("no response".to_owned())));
        }
        assert_eq!(run(gc.collect_expired(&context)).map_err(drop), result);
        world.state().elapsed += Duration::from_hours(1);
    }
    world.state().elapsed += Duration::from_hours(24);
    assert_eq!(run(gc.collect_expired(&context)), Ok(5), "they are tried again a day later");
}

#[test]
fn failures_between_responses_do_not_end_the_cleanup() {
    let (world, context) = with_old_ledger();
    add_ledgers(&world, 7);
    world.state().resource = None;
    for number in 0..8 {
        let answer =
            if number % 2 == 0 { Err(KubeError::Unavailable("no response".to_owned())) } else { Ok(()) };
        world.before(Request::ReadResource(ReadFrom::ApiServer), |_| answer);
    }
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(4));
}

#[test]
fn owner_that_cannot_be_read_does_not_end_the_cleanup() {
    let (world, context) = with_old_ledger();
    add_ledgers(&world, 1);
    world.state().resource = None;
    let lookup = Request::ReadResource(ReadFrom::ApiServer);
    world.before(lookup, |_| Err(KubeError::Rejected("invalid name".to_owned())));
    assert_eq!(run(LedgerGc::default().collect_expired(&context)), Ok(1));
    assert!(world.state().ledger.is_some());
}
