//! Places for visits: as many are worked on at a time as there are places. A free place goes to the namespace that has the fewest, and
//! of several to the next in turn.
//!
//! kube's own bound begins those that are due in no order at all, so a namespace with thousands of resources that all wait for AWS's
//! limits would keep the only one of another waiting with them. Turns alone would not do: a namespace whose visits take long, at a
//! limit or a region that is slow, would get every second place and keep it. Nothing here knows what a visit does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::model::turns::Turns;

/// Places, each of which somebody has, or nobody. Clones are the same places.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<State>>);

struct State {
    /// How many nobody has. While there are any, nobody waits.
    free: usize,
    /// How many each namespace has, for those that have any.
    taken: HashMap<String, usize>,
    waiting: Turns<(String, oneshot::Sender<Place>)>,
}

/// A place that a namespace has. Dropped, it goes to the next.
pub(super) struct Place {
    of: Option<Places>,
    namespace: String,
}

impl Places {
    /// So many.
    pub(super) fn new(count: u16) -> Self {
        let (taken, waiting) = (HashMap::new(), Turns::default());
        Self(Arc::new(Mutex::new(State { free: usize::from(count), taken, waiting })))
    }

    /// Waits for a place, for a resource of this namespace. Dropping the future gives the turn up.
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
            // Nobody can give one any more, and whoever waits keeps the places alive: it does not come to this.
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
                // It waits no longer. Its place must not be given on by itself, under this lock.
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
    /// The next who gets a place.
    fn next(&mut self) -> Option<(String, oneshot::Sender<Place>)> {
        let taken = &self.taken;
        self.waiting.pop_least(|namespace| taken.get(namespace).copied().unwrap_or(0))
    }

    /// A namespace has one place less.
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

    /// Somebody who waits, and has no place yet.
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
    fn there_are_as_many_places_as_were_said_and_each_is_taken_again() {
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
    fn a_crowd_of_one_namespace_and_the_only_one_of_another_take_turns() {
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
    fn visits_that_take_long_keep_no_more_than_their_share() {
        let places = Places::new(4);
        let mut slow: Vec<Place> =
            (0..4).map(|_| places.take("slow").now_or_never().expect("a place")).collect();
        let _queue: Vec<Waiting> = (0..100).map(|_| waiting(&places, "slow")).collect();
        let mut quick: Vec<Waiting> = (0..100).map(|_| waiting(&places, "quick")).collect();
        // One visit of the slow namespace ends, and from then on the other one goes on in its place.
        drop(slow.pop());
        for one in &mut quick {
            let place = taken(one).expect("the place that was free");
            drop(place);
        }
    }

    #[test]
    fn who_waits_no_longer_keeps_nobody_waiting_also_with_a_place_already_given() {
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
