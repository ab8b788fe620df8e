//! The test record: how often one is written, and which `verifiedTime` of a status counts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stream_encryption_api::stream_encryption::Verification;

use super::fakes::{Request, World, run};
use super::{ARN, reconcile, reconcile_stored, resource, woken_by};
use crate::controller::Context;
use crate::model::aws_event::Subject;
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

/// Returns a world with an encrypted stream, for which the spec requests a test record.
fn to_verify() -> World {
    let mut resource = resource();
    resource.spec.verification = Verification::PutRecord;
    let world = World::new(resource);
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    world
}

#[test]
fn refused_status_leads_to_no_further_describe_or_record() {
    let world = to_verify();
    let context = world.context();
    let reconcile_after = |seconds| {
        world.state().elapsed += Duration::from_secs(seconds);
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&context, &cached))
    };
    world.state().refuses_status = true;
    for _ in 0..20 {
        let _ = reconcile_after(8);
    }
    let sent = [Request::Describe, Request::PutRecord].map(|kind| world.count(kind));
    assert_eq!(sent, [2, 1]);
    world.state().refuses_status = false;
    reconcile_after(8).unwrap();
    let status = world.state().resource.clone().unwrap().status.unwrap();
    assert!(status.verified_time.is_some(), "{status:?}");
}

/// Somebody has written the time into the status, before this process started.
#[test]
fn verified_time_in_the_future_is_replaced() {
    let world = to_verify();
    let reconcile_after_start = |seconds| {
        world.state().elapsed += Duration::from_secs(seconds);
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&world.context(), &cached)).unwrap();
        world.state().resource.as_ref().and_then(|stored| stored.status.clone()?.verified_time)
    };
    for second in 0..4 {
        reconcile_after_start(second);
    }
    let verified = reconcile_after_start(60).expect("a test record was encrypted");
    assert_eq!((reconcile_after_start(1), world.count(Request::PutRecord)), (Some(verified.clone()), 1));
    let future = verified.0 + SignedDuration::from_hours(24);
    world.state().resource.as_mut().unwrap().status.as_mut().unwrap().verified_time = Some(Time(future));
    let replaced = reconcile_after_start(1).expect("another test record was encrypted");
    assert!(replaced.0 < future, "{replaced:?}");
    assert_eq!(world.count(Request::PutRecord), 2);
}

/// A world in which AWS never reports a test record as encrypted, with the context of an operator that has tried for long.
fn unverified() -> (World, Context<World, World>, Timestamp) {
    let world = to_verify();
    world.state().is_record_plaintext = true;
    let context = world.context();
    let mut wake = reconcile_stored(&world, &context);
    for _ in 0..20 {
        pass_until(&world, &context, wake);
        wake = reconcile_stored(&world, &context);
    }
    assert!(wake.duration_since(context.clock.now()) >= SignedDuration::from_mins(4), "they are rare by now");
    world.state().requests.clear();
    (world, context, wake)
}

fn pass_until(world: &World, context: &Context<World, World>, time: Timestamp) {
    let wait = time.duration_since(context.clock.now()).unsigned_abs();
    world.state().elapsed += wait;
}

/// Something else has happened to the stream than a call, such as its creation.
fn receive_event(context: &Context<World, World>) {
    assert_eq!(woken_by(context, Subject::Stream(ARN.parse().unwrap())), 1);
}

#[test]
fn early_describe_does_not_delay_the_next_record() {
    let (world, context, next_record) = unverified();
    world.state().elapsed += Duration::from_mins(3);
    receive_event(&context);
    assert_eq!(reconcile_stored(&world, &context), next_record);
    assert_eq!([Request::Describe, Request::PutRecord].map(|kind| world.count(kind)), [1, 0]);
    pass_until(&world, &context, next_record);
    reconcile_stored(&world, &context);
    assert_eq!(world.count(Request::PutRecord), 1);
}

#[test]
fn retry_writes_a_record_even_if_an_event_comes_first() {
    for has_event in [false, true] {
        let (world, context, _) = unverified();
        let annotations = [("streamencryption.dev/retry".to_owned(), "tuesday".to_owned())];
        world.state().resource.as_mut().unwrap().metadata.annotations = Some(annotations.into());
        let wake = reconcile_stored(&world, &context);
        assert_eq!(world.count(Request::Describe), 0, "the last Describe has just been made");
        if has_event {
            receive_event(&context);
        } else {
            pass_until(&world, &context, wake);
        }
        reconcile_stored(&world, &context);
        assert_eq!(world.count(Request::PutRecord), 1, "{has_event}");
    }
}
