//! One reconcile at a time, without other events in between: no watch, no queue, no second process.
//!
//! For tests of single reconciles. The caches always contain the current state.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{self, Context};

use crate::environment::{CurrentTask, Environment, Event, Process};
use crate::event_queue::EventQueue;
use crate::plan::Plan;
use crate::replica;
use crate::store::{Name, name_of};
use crate::wiring::Wiring;

/// The number of the only task.
const TASK: usize = 1;

/// Creates the context of a process of the first replica that has just started.
pub fn context<P: Wiring>(
    environment: &Arc<Environment>,
    plan: &Plan,
    wiring: &P,
) -> Context<P::StreamApi, P::KubeApi> {
    let incarnation = environment.state().replicas[0].incarnation + 1;
    replica::context(environment, Process { replica: 0, incarnation }, plan, wiring)
}

/// Reconciles a resource. Returns the time of the next reconcile, or `None` if the resource does not exist.
pub fn reconcile<A: StreamApi, R: KubeApi>(
    environment: &Arc<Environment>,
    operator: &Context<A, R>,
    name: &Name,
) -> Option<Result<Timestamp, KubeError>> {
    let resource = stored(environment, name)?;
    fill_caches(environment);
    Some(drive(environment, name, controller::reconcile(operator, &resource)))
}

/// Returns a resource as Kubernetes stores it.
pub fn stored(environment: &Environment, name: &Name) -> Option<Arc<StreamEncryption>> {
    environment.state().store.resource(name).cloned()
}

/// Advances the time.
pub fn advance_time(environment: &Environment, time: SignedDuration) {
    let state = &mut *environment.state();
    let later = state.now + time;
    environment.advance(state, later);
}

/// Fills the caches of the replica with the current state.
fn fill_caches(environment: &Environment) {
    let state = &mut *environment.state();
    state.ledger_change_times.resize(state.store.ledger_changes().len(), state.now);
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
pub fn drive<T>(environment: &Arc<Environment>, name: &Name, future: impl Future<Output = T>) -> T {
    {
        let state = &mut *environment.state();
        state.events = EventQueue::default();
        state.current_task = CurrentTask { task: TASK, name: Some(name.clone()) };
    }
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            return done;
        }
        let next = environment.next_until(Timestamp::MAX);
        assert_eq!(next, Some(Event::Wake(TASK)), "the only task waits for a time");
    }
}
