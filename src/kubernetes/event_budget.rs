//! How many events the operator may create for one object, as client-go limits them: each event is an object of the API server
//! for an hour, and a user can cause any number of them, for example with the retry annotation.
//!
//! It sends nothing. The events of one object must never use up the budget of another one.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stream_encryption_api::ledger::Owner;
use tokio::time::Instant;

/// Number of events that an object may have at once.
const BURST: u32 = 25;
/// The time after which an object may have one more event.
const REFILL: Duration = Duration::from_mins(5);
/// Maximum number of objects whose events are counted. Beyond it, all budgets begin anew.
const MAX_OBJECTS: usize = 65_536;

/// The budgets of all objects with recent events.
#[derive(Default)]
pub(super) struct EventBudgets {
    /// When the budget of an object is complete again, by a hash of the object.
    complete_at: Mutex<HashMap<u64, Instant>>,
}

impl EventBudgets {
    /// Takes one event from the budget of an object. Returns whether there was one left.
    pub(super) fn take(&self, object: &Owner) -> bool {
        let mut hasher = DefaultHasher::new();
        (&object.namespace, &object.name, &object.uid).hash(&mut hasher);
        let (object, now) = (hasher.finish(), Instant::now());
        let mut budgets = self.complete_at.lock().unwrap_or_else(PoisonError::into_inner);
        let complete_at = budgets.get(&object).map_or(now, |at| now.max(*at)) + REFILL;
        if complete_at > now + REFILL.saturating_mul(BURST) {
            return false;
        }
        // Only before the table grows, because each visit of all budgets takes long.
        if budgets.len() == budgets.capacity() {
            budgets.retain(|_, at| *at > now);
        }
        if budgets.len() >= MAX_OBJECTS {
            budgets.clear();
        }
        budgets.insert(object, complete_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: usize) -> Owner {
        Owner { namespace: "data".to_owned(), name: "orders".to_owned(), uid: uid.to_string() }
    }

    #[tokio::test(start_paused = true)]
    async fn used_budget_returns_one_event_every_five_minutes() {
        let budgets = EventBudgets::default();
        let taken = |uid| (0..200).filter(|_| budgets.take(&object(uid))).count();
        assert_eq!([taken(1), taken(1), taken(2)], [25, 0, 25]);
        for _ in 0..3 {
            tokio::time::sleep(REFILL).await;
            assert_eq!(taken(1), 1);
        }
        tokio::time::sleep(Duration::from_hours(24)).await;
        assert_eq!(taken(1), 25, "never more");
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_budgets_is_limited() {
        let budgets = EventBudgets::default();
        let count = || budgets.complete_at.lock().unwrap().len();
        for uid in 0..20_000 {
            if uid % 1_000 == 0 {
                tokio::time::sleep(REFILL).await;
            }
            assert!(budgets.take(&object(uid)));
        }
        // The table of 1,000 budgets that are not complete has at most 3,584 places.
        assert!(count() < 4_000, "complete budgets are evicted");
        for uid in 0..MAX_OBJECTS * 2 {
            budgets.take(&object(uid));
            assert!(count() <= MAX_OBJECTS);
        }
    }
}
