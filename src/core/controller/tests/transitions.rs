//! Which transitions of a status are published and measured if the API server's response to a write is lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::stream_encryption::Service;

use super::fakes::{Request, World, run};
use super::{reconcile, resource};
use crate::controller::{Context, ReconcileMetrics};
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

#[test]
fn event_is_published_once_although_the_response_is_lost() {
    let world = World::new(resource());
    world.state().loses_response_to = Some(Request::WriteStatus);
    let (context, cached) = (world.context(), || world.state().resource.clone().unwrap());
    assert!(run(reconcile(&context, &cached())).is_err());
    assert_eq!(world.state().events, []);
    for _ in 0..3 {
        run(reconcile(&context, &cached())).unwrap();
    }
    let reasons: Vec<_> = world.state().events.iter().map(|(reason, _)| reason.clone()).collect();
    assert_eq!(reasons, ["Enabling"]);
}

/// The durations in plaintext that reconciles have recorded.
#[derive(Clone, Default)]
pub(super) struct Durations(pub(super) Arc<Mutex<Vec<SignedDuration>>>);

impl ReconcileMetrics for Durations {
    fn encrypted(&self, _: Service, after: SignedDuration) {
        self.0.lock().unwrap().push(after);
    }
}

/// The status changes again before the operator knows that the API server has applied the first change.
#[test]
fn transition_is_published_although_another_follows() {
    let world = World::new(resource());
    let durations = Durations::default();
    let context = Context { metrics: Box::new(durations.clone()), ..world.context() };
    let reconcile_after = |seconds| {
        world.state().elapsed += Duration::from_secs(seconds);
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&context, &cached))
    };
    let reason = || {
        let status = world.state().resource.clone().unwrap().status.unwrap();
        find(&status.conditions, ConditionType::Ready).unwrap().reason.clone()
    };
    reconcile_after(0).unwrap();
    assert_eq!(reason(), "Enabling");
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    world.state().loses_response_to = Some(Request::WriteStatus);
    reconcile_after(10).unwrap_err();
    assert_eq!((reason().as_str(), durations.0.lock().unwrap().len()), ("Settling", 0));
    world.state().loses_response_to = None;
    reconcile_after(10).unwrap();
    assert_eq!(reason(), "Encrypted");
    assert_eq!(durations.0.lock().unwrap().len(), 1);
}
