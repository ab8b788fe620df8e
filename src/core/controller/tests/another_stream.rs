//! A name that stands for another stream since the operator has another default region: the status reports nothing of the
//! earlier stream as if it were about the present one.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, find};
use stream_encryption_api::stream_encryption::{
    EncryptionStatus, PreviousKey, Service, StreamEncryptionStatus, StreamReference, Verification,
};

use super::fakes::{Request, World, run};
use super::transitions::Durations;
use super::{ARN, reconcile, resource};
use crate::controller::Context;
use crate::controller::memory::LastReconcile;
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

const OLD_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/11111111-1111-4111-8111-111111111111";

/// Returns a world whose resource names its stream without a region.
fn with_name() -> World {
    let mut resource = resource();
    resource.spec.stream = StreamReference {
        service: Some(Service::Firehose),
        name: Some("orders".to_owned()),
        ..StreamReference::default()
    };
    World::new(resource)
}

/// Returns such a world after AWS has encrypted a test record.
fn with_test_record() -> World {
    let world = with_name();
    world.state().resource.as_mut().unwrap().spec.verification = Verification::PutRecord;
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    for _ in 0..4 {
        status_after_start(&world);
    }
    assert_eq!(world.count(Request::PutRecord), 1);
    world
}

/// Reconciles after the start of an operator, and returns the status.
fn status_after_start(world: &World) -> StreamEncryptionStatus {
    world.state().elapsed += Duration::from_mins(1);
    let cached = world.state().resource.clone().unwrap();
    let _ = run(reconcile(&world.context(), &cached));
    let status = world.state().resource.clone().unwrap().status.unwrap();
    assert_eq!(arn_of(&status), Some(ARN));
    status
}

fn arn_of(status: &StreamEncryptionStatus) -> Option<&str> {
    status.stream.as_ref().and_then(|stream| stream.arn.as_deref())
}

/// Changes the status to that of the stream in us-east-1 for which the name stood before.
fn change_to_another_stream(world: &World, change: impl FnOnce(&mut StreamEncryptionStatus)) {
    let mut state = world.state();
    let status = state.resource.as_mut().unwrap().status.as_mut().unwrap();
    status.stream.as_mut().unwrap().arn = Some(ARN.replace("eu-west-1", "us-east-1"));
    change(status);
}

#[test]
fn plaintext_of_another_stream_is_not_reported() {
    let world = with_name();
    world.state().describe_fails = true;
    status_after_start(&world);
    change_to_another_stream(&world, |status| status.encryption_status = Some(EncryptionStatus::Disabled));
    let status = status_after_start(&world);
    assert_eq!(status.encryption_status, None);
    let encrypted = find(&status.conditions, ConditionType::Encrypted).unwrap();
    assert_eq!(encrypted.status, ConditionStatus::Unknown.as_str());
}

/// The ledger of this stream is of the time when the name stood for it before.
#[test]
fn old_ledger_of_a_stream_is_not_reported_for_another_status() {
    let world = with_name();
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    for _ in 0..2 {
        assert!(status_after_start(&world).active_key.is_some());
    }
    change_to_another_stream(&world, |_| ());
    world.state().describe_fails = true;
    let status = status_after_start(&world);
    assert_eq!((status.active_key, status.encrypted_since_time), (None, None));
    let encrypted = find(&status.conditions, ConditionType::Encrypted).unwrap();
    assert_eq!(encrypted.status, ConditionStatus::Unknown.as_str());
}

#[test]
fn plaintext_time_of_another_stream_is_not_measured() {
    let world = with_name();
    status_after_start(&world);
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    let durations = Durations::default();
    for is_other in [true, false] {
        let plaintext_since_time = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        let mut state = world.state();
        let status = state.resource.as_mut().unwrap().status.as_mut().unwrap();
        status.plaintext_since_time = plaintext_since_time;
        drop(state);
        if is_other {
            change_to_another_stream(&world, |_| ());
        }
        world.state().elapsed += Duration::from_mins(1);
        let context = Context { metrics: Box::new(durations.clone()), ..world.context() };
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&context, &cached)).unwrap();
        assert_eq!(durations.0.lock().unwrap().len(), usize::from(!is_other), "{is_other}");
    }
}

#[test]
fn keys_of_another_stream_are_no_previous_keys() {
    let world = with_name();
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    status_after_start(&world);
    let required_until_time = Time("2100-01-01T00:00:00Z".parse().unwrap());
    for is_active in [true, false] {
        change_to_another_stream(&world, |status| {
            if is_active {
                status.active_key = Some(Key::Customer(OLD_KEY.parse().unwrap()).to_api());
            } else {
                let required_until_time = required_until_time.clone();
                status.previous_key = Some(PreviousKey { arn: OLD_KEY.to_owned(), required_until_time });
            }
        });
        assert_eq!(status_after_start(&world).previous_key, None, "{is_active}");
    }
}

/// Otherwise a region that is set for some minutes would erase what a suspended resource reports, until somebody resumes it.
#[test]
fn suspended_resource_keeps_the_status_of_its_last_describe() {
    let world = with_name();
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    status_after_start(&world);
    world.state().resource.as_mut().unwrap().spec.suspend = true;
    let since = status_after_start(&world).suspended_since_time;
    change_to_another_stream(&world, |_| ());
    world.state().elapsed += Duration::from_mins(1);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    let status = world.state().resource.clone().unwrap().status.unwrap();
    assert!(since.is_some() && status.suspended_since_time == since, "{status:?}");
    assert_eq!(status.active_key, Some(Key::AwsOwned.to_api()));
    assert_eq!(arn_of(&status), Some(&*ARN.replace("eu-west-1", "us-east-1")));
}

#[test]
fn test_record_of_another_stream_does_not_verify_this_one() {
    let world = with_test_record();
    change_to_another_stream(&world, |_| ());
    let status = status_after_start(&world);
    assert_eq!(world.count(Request::PutRecord), 2);
    assert!(status.verified_time.is_some());
}

#[test]
fn test_record_in_memory_of_another_stream_does_not_verify_this_one() {
    let world = with_test_record();
    let context = world.context();
    let cached = {
        let mut state = world.state();
        state.elapsed += Duration::from_mins(1);
        let resource = state.resource.as_mut().unwrap();
        resource.status.as_mut().unwrap().verified_time = None;
        resource.clone()
    };
    let of_another = LastReconcile { verified: Some((0, context.clock.now())), ..LastReconcile::default() };
    context.memory.keep(&cached, of_another);
    let _ = run(reconcile(&context, &cached));
    assert_eq!(world.count(Request::PutRecord), 2);
}

#[test]
fn refused_status_of_another_stream_leads_to_one_test_record() {
    let world = with_test_record();
    change_to_another_stream(&world, |_| ());
    world.state().refuses_status = true;
    let (context, before) = (world.context(), world.count(Request::PutRecord));
    for _ in 0..20 {
        world.state().elapsed += Duration::from_mins(10);
        let cached = world.state().resource.clone().unwrap();
        let _ = run(reconcile(&context, &cached));
    }
    assert_eq!(world.count(Request::PutRecord) - before, 1);
}
