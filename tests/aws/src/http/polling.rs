//! Long polling of SQS: a receive that finds no message waits for one.
//!
//! It waits for the clock and for arrivals, and never reads a queue in between. The model decides which
//! messages a receive returns. A wait also ends after as much time of the machine, because a client's
//! time-out does not follow a virtual clock.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::Shared;
use crate::world::sqs::Waiting;
use crate::world::stream::later;
use crate::world::{AwsError, Caller, Request, World};

/// The model, locked. When it is released, waiting receives notice the messages that arrived.
#[derive(Debug)]
pub struct Model<'a> {
    pub(super) shared: &'a Shared,
    pub(super) world: MutexGuard<'a, World>,
}

impl Deref for Model<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Model<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Drop for Model<'_> {
    fn drop(&mut self) {
        let arrivals = self.world.arrivals();
        self.shared.arrivals.send_if_modified(|seen| std::mem::replace(seen, arrivals) != arrivals);
    }
}

impl Shared {
    /// Waits if the answer is that of a receive without a message, and the receive may wait.
    pub(super) async fn wait_if_empty(
        &self,
        now: Timestamp,
        caller: &Caller,
        region: &str,
        request: &Request,
        result: &mut Result<Value, AwsError>,
    ) {
        let Ok(answer) = result else { return };
        if answer.get("Messages").is_some() {
            return;
        }
        let waiting = self.world().waiting(caller, region, request);
        if let Some(waiting) = waiting
            && let Some(found) = self.wait_for_message(now, &waiting).await
        {
            *answer = found;
        }
    }

    /// Returns the answer of a receive as soon as there is a message; `None` if there is none in its time.
    async fn wait_for_message(&self, asked: Timestamp, waiting: &Waiting) -> Option<Value> {
        let end = later(asked, waiting.longest);
        let longest = Duration::try_from(waiting.longest).unwrap_or_default();
        let machine_end = Instant::now() + longest;
        let mut arrivals = self.arrivals.subscribe();
        loop {
            let next = {
                let mut world = self.world();
                let now = self.clock.now();
                if let Some(answer) = world.receive_again(now, waiting) {
                    return Some(answer);
                }
                if now >= end || Instant::now() >= machine_end {
                    return None;
                }
                world.next_message(now, waiting).map_or(end, |next| next.min(end))
            };
            tokio::select! {
                () = self.clock.reach(next) => {}
                () = tokio::time::sleep_until(machine_end) => {}
                changed = arrivals.changed() => changed.ok()?,
            }
        }
    }
}
