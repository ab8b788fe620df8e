//! One reconcile at a time, with nothing else happening meanwhile: no watch, no queue, no second process.
//!
//! For tests that compare what single reconciles do. The caches always show the current state.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{self, Context};

use crate::environment::{Event, Polled, Process, Scene};
use crate::event_queue::Agenda;
use crate::plan::Plan;
use crate::replica;
use crate::store::{Name, name_of};
use crate::wiring::Parts;

/// The number of the only task.
const TASK: usize = 1;

/// Creates the context of a process of the first replica that has just started.
pub fn context<P: Parts>(scene: &Arc<Scene>, plan: &Plan, parts: &P) -> Context<P::Aws, P::KubeApi> {
    let life = scene.state().replicas[0].life + 1;
    replica::context(scene, Process { replica: 0, life }, plan, parts)
}

/// Reconciles a resource. Returns the time of the next reconcile, or `None` if the resource does not exist.
pub fn reconcile<A: StreamApi, R: KubeApi>(
    scene: &Arc<Scene>,
    operator: &Context<A, R>,
    name: &Name,
) -> Option<Result<Timestamp, KubeError>> {
    let resource = stored(scene, name)?;
    fill_caches(scene);
    Some(drive(scene, name, controller::reconcile(operator, &resource)))
}

/// Returns a resource as Kubernetes stores it.
pub fn stored(scene: &Scene, name: &Name) -> Option<Arc<StreamEncryption>> {
    scene.state().store.resource(name).cloned()
}

/// Lets time pass.
pub fn pass(scene: &Scene, time: SignedDuration) {
    let state = &mut *scene.state();
    let later = state.now + time;
    scene.advance(state, later);
}

/// Lets the caches of the replica show the current state.
fn fill_caches(scene: &Scene) {
    let state = &mut *scene.state();
    state.ledger_times.resize(state.store.ledger_changes().len(), state.now);
    let (ledgers, policies) = (state.store.ledger_changes().len(), state.policies.changes());
    let resources = state.store.resources().map(|resource| (name_of(resource), resource.clone())).collect();
    let caches = &mut state.replicas[0].caches;
    caches.resources = resources;
    caches.policies = policies;
    caches.list_ledgers(ledgers, Timestamp::MAX);
}

/// Runs a future that belongs to a resource until its end. Only its own requests and pauses take time.
///
/// # Panics
///
/// If the future waits for anything but a time.
pub fn drive<T>(scene: &Arc<Scene>, name: &Name, future: impl Future<Output = T>) -> T {
    {
        let state = &mut *scene.state();
        state.agenda = Agenda::default();
        state.polled = Polled { task: TASK, name: Some(name.clone()) };
    }
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            return done;
        }
        let next = scene.next_until(Timestamp::MAX);
        assert_eq!(next, Some(Event::Wake(TASK)), "the only task waits for a time");
    }
}
