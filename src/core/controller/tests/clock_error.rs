//! Clocks that are set, or differ. Descriptions that are older than the last call seem newer if the operator's clock was set ahead
//! after the call, or if another replica, whose clock is ahead, leads now.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::stream_encryption::DeletionPolicy;

use super::fakes::{Request, World, run};
use super::{reconcile, resource};
use crate::controller::Context;
use crate::controller::kube_api::{KubeError, ReadFrom};

/// What happens after a call that AWS accepts.
#[derive(Clone, Copy, Debug)]
enum Afterwards {
    ClockIsSet,
    AnotherReplicaLeads,
}

/// Creates a world in which the stream was plaintext before a Start. AWS reports nothing else yet, and the clock is seven
/// minutes ahead since the call. Returns the context of the operator that leads.
fn with_stale_descriptions(afterwards: Afterwards) -> (World, Context<World, World>) {
    let mut resource = resource();
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    resource.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    let first = world.context();
    reconcile_after(&world, &first, 0).unwrap();
    assert_eq!(world.count(Request::Start), 1);
    world.state().clock_error = SignedDuration::from_mins(7);
    let leader = match afterwards {
        Afterwards::ClockIsSet => first,
        Afterwards::AnotherReplicaLeads => world.context(),
    };
    (world, leader)
}

fn reconcile_after(world: &World, context: &Context<World, World>, seconds: u64) -> Result<(), KubeError> {
    world.state().elapsed += Duration::from_secs(seconds);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(context, &cached)).map(|_| ())
}

#[test]
fn stale_description_with_a_newer_date_causes_no_call() {
    for afterwards in [Afterwards::ClockIsSet, Afterwards::AnotherReplicaLeads] {
        let (world, leader) = with_stale_descriptions(afterwards);
        for seconds in [3, 10, 10, 6] {
            reconcile_after(&world, &leader, seconds).unwrap();
            assert_eq!(world.count(Request::Start), 1, "{afterwards:?}");
        }
        reconcile_after(&world, &leader, 6).unwrap();
        assert_eq!(world.count(Request::Start), 2, "{afterwards:?}");
    }
}

#[test]
fn sighting_of_call_outlives_an_interrupted_reconcile() {
    let (world, leader) = with_stale_descriptions(Afterwards::AnotherReplicaLeads);
    world.pause_before(Request::Describe, 11);
    let policies = Request::ReadPolicies(ReadFrom::ApiServer);
    world.before(policies, |_| Err(KubeError::Unavailable("no answer".to_owned())));
    reconcile_after(&world, &leader, 3).unwrap_err();
    reconcile_after(&world, &leader, 18).unwrap();
    assert_eq!(world.count(Request::Start), 1);
    reconcile_after(&world, &leader, 2).unwrap();
    assert_eq!(world.count(Request::Start), 2);
}

#[test]
fn deleted_resource_keeps_its_finalizer_while_start_may_apply() {
    for afterwards in [Afterwards::ClockIsSet, Afterwards::AnotherReplicaLeads] {
        let (world, leader) = with_stale_descriptions(afterwards);
        let now = leader.clock.now();
        world.state().resource.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(now));
        for seconds in [3, 10, 10, 6] {
            reconcile_after(&world, &leader, seconds).unwrap();
            assert_eq!(world.count(Request::SetFinalizer), 0, "{afterwards:?}");
        }
        reconcile_after(&world, &leader, 6).unwrap();
        assert_eq!(world.count(Request::SetFinalizer), 1, "{afterwards:?}");
    }
}

/// Otherwise the ledger would show that the encryption became known after the call, and its failure would count as that of a call
/// of somebody else.
#[test]
fn clock_set_back_after_describe_delays_the_call() {
    let world = World::new(resource());
    let context = world.context();
    let policies = Request::ReadPolicies(ReadFrom::ApiServer);
    world.before(policies, |state| {
        state.clock_error = SignedDuration::from_secs(-5);
        Ok(())
    });
    reconcile_after(&world, &context, 0).unwrap();
    assert_eq!(world.count(Request::Start), 0);
    reconcile_after(&world, &context, 2).unwrap();
    assert_eq!(world.count(Request::Start), 1);
}
