//! What must happen in the end: left alone, the stream becomes as it is asked for, and then nothing is called any more.
//!
//! From a world in which nobody does anything, without any further fault, the replicas visit in turn and time goes from
//! moment to moment. stateright's own `eventually` is right on paths without joins only, so this stands in its place.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::SignedDuration;
use stream_encryption_core::model::ledger::{READ_LAG, saturating_add};

use crate::protocol::Protocol;
use crate::world::{At, World};

/// More rounds than any wait within the bounds takes.
const MOST_ROUNDS: usize = 400;
/// More steps than a visit has.
const MOST_STEPS: usize = 20;

impl Protocol {
    /// Whether a world comes to rest as it should.
    pub(crate) fn settles(&self, world: &World) -> bool {
        let mut world = World { faults: 0, changes: 0, pauses: 0, moments: 0, ..world.clone() };
        let mut passed = Vec::new();
        for _ in 0..MOST_ROUNDS {
            let fingerprint = fingerprint(&world);
            if self.knows(fingerprint) {
                self.remembers(&passed);
                return true;
            }
            passed.push(fingerprint);
            let before = world.clone();
            let calls = self.both_visit(&mut world);
            if world.broken.is_some() {
                return false;
            }
            if calls > 0 || world.ledger != before.ledger || world.aws != before.aws {
                let lag = saturating_add(world.now, READ_LAG + SignedDuration::from_secs(10));
                world.passes(lag);
                continue;
            }
            if let Some(moment) = self.operator.next_moment(&world) {
                world.passes(moment);
                continue;
            }
            let done = world.resource.wish.is(world.aws.view.active_key) && !world.aws.is_changing();
            if done {
                self.remembers(&passed);
            }
            return done;
        }
        // It never rests.
        false
    }

    /// AWS finishes what it does, and each replica visits once. How many calls were made.
    fn both_visit(&self, world: &mut World) -> usize {
        let mut calls = 0;
        let now = world.now;
        world.aws.finish(now);
        for replica in 0..world.replicas.len() {
            let resource = world.resource;
            self.operator.open(world, replica, resource);
            for _ in 0..MOST_STEPS {
                let Some(visit) = &world.replicas[replica] else { break };
                if visit.at == At::Waiting {
                    calls += 1;
                    self.arrive(world, 0, false, false);
                } else {
                    self.operator.step(world, replica);
                }
            }
        }
        calls
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}
