//! What the watches of a replica deliver, and when: changes of the resources and the policies, and lists of everything.
//!
//! A watch that lags or is frozen delivers later; a list from an outdated API server lacks the last changes. It fills the
//! caches only, and must never show a state that Kubernetes did not have.

use jiff::{SignedDuration, Timestamp};

use super::Run;
use crate::caches::Kind;
use crate::environment::{Event, Process};
use crate::explore::fault::{Fault, Place};
use crate::wiring::Parts;

/// Maximum time for which an API server is outdated, in seconds.
const LONGEST_OUTDATED: i64 = 600;
impl<P: Parts> Run<'_, P> {
    /// Delivers changes of the resources. A lagging or frozen watch delivers them later.
    pub(super) fn watch(&mut self, process: Process, upto: usize) {
        let scene = self.scene.clone();
        let mut lost = {
            let state = &mut *scene.state();
            if let Some(by) = state.mishap(Place::Watch).and_then(Fault::lateness) {
                let until = state.now + by;
                state.replicas[process.replica].watches.freeze(Kind::Resources.bit(), until);
            }
            let condition = &state.replicas[process.replica];
            let until = condition.paused_until.max(condition.watches.frozen_until(Kind::Resources));
            if until > state.now {
                state.agenda.add(until, Event::Watch { process, upto });
                return;
            }
            condition.watch_drops
        };
        if let Some((replica, _)) = self.alive(process) {
            replica.watch(&scene, upto, &mut lost);
            scene.state().replicas[process.replica].watch_drops = lost;
        }
    }

    /// Delivers a change of the policies. A lagging or frozen watch delivers it later.
    pub(super) fn policies_told(&mut self, replica: usize, upto: usize) {
        let scene = self.scene.clone();
        {
            let mut state = scene.state();
            let condition = &state.replicas[replica];
            let until = condition.paused_until.max(condition.watches.frozen_until(Kind::Policies));
            if until > state.now {
                state.agenda.add(until, Event::PoliciesTold { replica, upto });
                return;
            }
            let caches = &mut state.replicas[replica].caches;
            caches.policies = caches.policies.max(upto);
        }
        if let Some(replica) = self.replicas[replica].as_mut() {
            replica.visit_all(&scene);
        }
    }

    pub(super) fn relist_unless_frozen(&mut self, replica: usize, behind: usize) {
        let until = {
            let state = self.scene.state();
            let condition = &state.replicas[replica];
            let kinds = [Kind::Resources, Kind::Policies, Kind::Ledgers];
            let frozen_until = kinds.map(|kind| condition.watches.frozen_until(kind));
            frozen_until.into_iter().fold(condition.paused_until, Timestamp::max)
        };
        if until > self.scene.state().now {
            self.scene.state().agenda.add(until, Event::Relist { replica, behind });
        } else {
            self.relist(replica, behind);
        }
    }

    /// Lists everything anew. With `behind`, the lists of some kinds come from an outdated API server, which
    /// misses this many changes, and catches up later.
    pub(super) fn relist(&mut self, replica: usize, behind: usize) {
        let scene = self.scene.clone();
        let Some(replica) = self.replicas[replica].as_mut() else { return };
        let number = replica.process.replica;
        let (changes, outdated, hold) = {
            let mut state = scene.state();
            let outdated = if behind > 0 { state.choices.watches() } else { 0 };
            let hold = if behind > 0 {
                state.choices.outdated_for(1..LONGEST_OUTDATED)
            } else {
                SignedDuration::ZERO
            };
            (state.store.changes().len(), outdated, hold)
        };
        let missing = |kind: Kind| if kind.is_in(outdated) { behind } else { 0 };
        replica.list(&scene, changes.saturating_sub(missing(Kind::Resources)));
        let state = &mut *scene.state();
        let at = state.now + hold;
        let (policies, ledgers) = (state.policies.changes(), state.store.ledger_changes().len());
        let caches = &mut state.replicas[number].caches;
        caches.policies = policies.saturating_sub(missing(Kind::Policies));
        caches.list_ledgers(ledgers.saturating_sub(missing(Kind::Ledgers)), at);
        if behind > 0 {
            state.agenda.add(at, Event::Watch { process: replica.process, upto: changes });
            state.agenda.add(at, Event::PoliciesTold { replica: number, upto: policies });
        }
    }
}
