//! Permits for reconciles (`Place`): as many reconciles run concurrently as there are permits. A free permit
//! goes to the namespace that holds the fewest; among several such namespaces, to the next one in turn.
//!
//! The Controller's own concurrency limit starts the due resources in no particular order. A namespace with
//! thousands of resources that all wait for AWS's limits would therefore delay the only resource of another
//! namespace. A [`FairQueue`] alone does not suffice: a namespace whose reconciles take long, because of a
//! limit or a slow region, would get every second permit and keep it. This file does not depend on what a
//! reconcile does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stream_encryption_core::model::fair_queue::FairQueue;
use tokio::sync::oneshot;

/// A fixed number of permits, each held or free. Clones share the permits.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<State>>);

struct State {
    /// Number of free permits. While a permit is free, no caller is waiting.
    free: usize,
    /// Number of permits of each namespace that holds any.
    taken: HashMap<String, usize>,
    waiting: FairQueue<(String, oneshot::Sender<Place>)>,
}

/// A permit that a namespace holds. Dropping the permit passes it on to the next waiter.
pub(super) struct Place {
    of: Option<Places>,
    namespace: String,
}

impl Places {
    /// Creates `count` permits.
    pub(super) fn new(count: u16) -> Self {
        let (taken, waiting) = (HashMap::new(), FairQueue::default());
        Self(Arc::new(Mutex::new(State { free: usize::from(count), taken, waiting })))
    }

    /// Waits for a permit for a resource of this namespace. Dropping the future leaves the queue.
    pub(super) async fn take(&self, namespace: &str) -> Place {
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return self.place(&mut state, namespace.to_owned());
            }
            let (give, given) = oneshot::channel();
            state.waiting.push(namespace, (namespace.to_owned(), give));
            given
        };
        match given.await {
            Ok(place) => place,
            // Unreachable: an unused sender is dropped only with the queue, which the waiter keeps alive.
            Err(_) => std::future::pending().await,
        }
    }

    fn place(&self, state: &mut State, namespace: String) -> Place {
        *state.taken.entry(namespace.clone()).or_default() += 1;
        Place { of: Some(self.clone()), namespace }
    }

    fn give_on(&self, from: &str) {
        let mut state = self.lock();
        state.returned(from);
        while let Some((namespace, next)) = state.next() {
            match next.send(self.place(&mut state, namespace)) {
                Ok(()) => return,
                // This waiter is gone. Dropping its permit would pass the permit on, which takes this lock
                // again.
                Err(mut refused) => {
                    refused.of = None;
                    state.returned(&refused.namespace);
                }
            }
        }
        state.free += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes and returns the next waiter.
    fn next(&mut self) -> Option<(String, oneshot::Sender<Place>)> {
        let taken = &self.taken;
        let next = self.waiting.pop_least(|namespace| taken.get(namespace).copied().unwrap_or(0));
        next.map(|(_, waiter)| waiter)
    }

    /// Subtracts one permit from a namespace.
    fn returned(&mut self, namespace: &str) {
        if let Some(taken) = self.taken.get_mut(namespace) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(namespace);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.of.take() {
            places.give_on(&self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Place>>>;

    /// Returns a waiter that does not hold a permit yet.
    fn waiting(places: &Places, namespace: &'static str) -> Waiting {
        let places = places.clone();
        let mut waiting: Waiting = Box::pin(async move { places.take(namespace).await });
        assert!((&mut waiting).now_or_never().is_none(), "{namespace} has a place");
        waiting
    }

    fn taken(waiting: &mut Waiting) -> Option<Place> {
        waiting.now_or_never()
    }

    #[test]
    fn every_permit_is_granted_and_reused() {
        let places = Places::new(2);
        let first = places.take("a").now_or_never().expect("a place");
        let second = places.take("a").now_or_never().expect("a place");
        let mut third = waiting(&places, "a");
        drop(first);
        let third = taken(&mut third).expect("the place that is free now");
        drop((second, third));
        let _both = [(); 2].map(|()| places.take("a").now_or_never().expect("a place"));
        let _third = waiting(&places, "a");
    }

    #[test]
    fn namespaces_take_turns_whatever_their_queue_length() {
        let places = Places::new(1);
        let place = places.take("crowd").now_or_never().expect("a place");
        let mut crowd: Vec<Waiting> = (0..100).map(|_| waiting(&places, "crowd")).collect();
        let mut lone = waiting(&places, "lone");
        drop(place);
        let place = taken(&mut crowd[0]).expect("it came first");
        assert!(taken(&mut lone).is_none());
        drop(place);
        let place = taken(&mut lone).expect("it is the other namespace's turn");
        assert!(crowd[1..].iter_mut().all(|one| taken(one).is_none()));
        drop(place);
        assert!(taken(&mut crowd[1]).is_some());
    }

    #[test]
    fn long_reconciles_keep_only_their_share() {
        let places = Places::new(4);
        let mut slow: Vec<Place> =
            (0..4).map(|_| places.take("slow").now_or_never().expect("a place")).collect();
        let _queue: Vec<Waiting> = (0..100).map(|_| waiting(&places, "slow")).collect();
        let mut quick: Vec<Waiting> = (0..100).map(|_| waiting(&places, "quick")).collect();
        // One reconcile of the slow namespace ends. From then on the other namespace uses the freed permit.
        drop(slow.pop());
        for one in &mut quick {
            let place = taken(one).expect("the place that was free");
            drop(place);
        }
    }

    #[test]
    fn cancelled_waiter_passes_permit_on() {
        let places = Places::new(1);
        let place = places.take("a").now_or_never().expect("a place");
        let gone = waiting(&places, "a");
        let given = waiting(&places, "a");
        let mut last = waiting(&places, "a");
        drop(gone);
        drop(place);
        assert!(taken(&mut last).is_none(), "the second one has it");
        drop(given);
        let place = taken(&mut last).expect("the second one has never looked at it");
        drop((place, last));
        assert!(places.take("b").now_or_never().is_some());
    }
}
