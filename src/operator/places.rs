//! Places for visits: as many are worked on at a time as there are places, and who waits for one gets it in turn, namespace after
//! namespace.
//!
//! kube's own bound begins those that are due in no order at all, so a namespace with thousands of resources that all wait for AWS's
//! limits would keep the only one of another waiting with them. Nothing here knows what a visit does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::model::turns::Turns;

/// Places, each of which somebody has, or nobody. Clones are the same places.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<State>>);

struct State {
    /// How many nobody has. While there are any, nobody waits.
    free: usize,
    waiting: Turns<oneshot::Sender<Place>>,
}

/// A place that somebody has. Dropped, it goes to the next in turn.
pub(super) struct Place(Option<Places>);

impl Places {
    /// So many.
    pub(super) fn new(count: u16) -> Self {
        Self(Arc::new(Mutex::new(State { free: usize::from(count), waiting: Turns::default() })))
    }

    /// Waits for a place, for a resource of this namespace. Dropping the future gives the turn up.
    pub(super) async fn take(&self, namespace: &str) -> Place {
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Place(Some(self.clone()));
            }
            let (give, given) = oneshot::channel();
            state.waiting.push(namespace, give);
            given
        };
        match given.await {
            Ok(place) => place,
            // Nobody can give one any more, and whoever waits keeps the places alive: it does not come to this.
            Err(_) => std::future::pending().await,
        }
    }

    fn give_on(&self) {
        let mut state = self.lock();
        while let Some(next) = state.waiting.pop() {
            match next.send(Place(Some(self.clone()))) {
                Ok(()) => return,
                // It waits no longer. Its place must not be given on by itself, under this lock.
                Err(mut refused) => drop(refused.0.take()),
            }
        }
        state.free += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.give_on();
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
