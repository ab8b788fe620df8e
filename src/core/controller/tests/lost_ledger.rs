//! A stream without a ledger whose resource still reports calls in its status.

use serde_json::json;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::stream_encryption::{DeletionPolicy, StreamEncryption};

use super::fakes::{World, run};
use super::{ARN, resource};
use crate::controller::reconcile;

/// Returns a resource whose status reports five calls of the stream with this ARN.
fn with_five_calls(arn: Option<&str>) -> StreamEncryption {
    let mut resource = resource();
    let stream = json!({"arn": arn, "service": "Firehose", "region": "eu-west-1", "name": "orders"});
    let status = json!({"stream": stream, "calls": {"used": 5, "limit": 20}});
    resource.status = Some(serde_json::from_value(status).unwrap());
    resource
}

#[test]
fn calls_of_another_stream_are_not_taken_over() {
    for (arn, calls) in [(Some(ARN.replace("orders", "clicks")), 1), (Some(ARN.to_owned()), 5), (None, 5)] {
        let resource = with_five_calls(arn.as_deref());
        let world = World::new(resource.clone());
        run(reconcile(&world.context(), &resource)).unwrap();
        assert_eq!(world.state().ledger.clone().unwrap().spec.calls.len(), calls, "{arn:?}");
    }
}

#[test]
fn count_of_a_deleted_ledger_outlives_missing_permission() {
    let mut resource = with_five_calls(Some(ARN));
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    let world = World::new(resource.clone());
    run(reconcile(&world.context(), &resource)).unwrap();
    let status = world.state().resource.clone().unwrap().status.unwrap();
    let ready = find(&status.conditions, ConditionType::Ready).unwrap().reason.clone();
    assert_eq!((ready.as_str(), status.calls.unwrap().used), ("DisableNotPermitted", 5));
    assert_eq!(find(&status.conditions, ConditionType::Encrypted).unwrap().status, "Unknown");
    assert!(world.state().ledger.is_none());
}
