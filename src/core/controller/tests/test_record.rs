//! The test record: how often one is written, and which `verifiedTime` of a status counts.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stream_encryption_api::stream_encryption::Verification;

use super::fakes::{Request, World, run};
use super::{reconcile, resource};
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

#[test]
fn refused_status_leads_to_no_further_describe_or_record() {
    let mut resource = resource();
    resource.spec.verification = Verification::PutRecord;
    let world = World::new(resource);
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
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
    let mut resource = resource();
    resource.spec.verification = Verification::PutRecord;
    let world = World::new(resource);
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
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
