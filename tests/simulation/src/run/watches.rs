//! The deliveries of a replica's watches: changes of the resources and the policies, and lists of all
//! objects.
//!
//! A watch that lags or is frozen delivers later; a list from an outdated API server lacks the last changes.
//! This module fills the caches only, and must never show a state that Kubernetes did not have.

use jiff::{SignedDuration, Timestamp};

use super::Run;
use crate::caches::WatchKind;
use crate::environment::{Event, Process};
use crate::explore::injected_fault::{FaultPoint, InjectedFault};
use crate::wiring::Wiring;

/// Maximum time for which an API server is outdated, in seconds.
const MAX_OUTDATED_SECONDS: i64 = 600;

impl<P: Wiring> Run<'_, P> {
    /// Delivers changes of the resources. A lagging or frozen watch delivers them later.
    pub(super) fn deliver_resources(&mut self, process: Process, up_to: usize) {
        let environment = self.environment.clone();
        let mut drops = {
            let state = &mut *environment.state();
            if let Some(delay) = state.injected_fault(FaultPoint::Watch).and_then(InjectedFault::delay) {
                let until = state.now + delay;
                state.replicas[process.replica].watches.freeze(WatchKind::Resources.bit(), until);
            }
            let replica_state = &state.replicas[process.replica];
            let until =
                replica_state.paused_until.max(replica_state.watches.frozen_until(WatchKind::Resources));
            if until > state.now {
                state.events.add(until, Event::Watch { process, up_to });
                return;
            }
            replica_state.watch_drops
        };
        if let Some((replica, _)) = self.running_process(process) {
            replica.deliver(&environment, up_to, &mut drops);
            environment.state().replicas[process.replica].watch_drops = drops;
        }
    }

    /// Delivers a change of the policies. A lagging or frozen watch delivers it later.
    pub(super) fn deliver_policies(&mut self, replica: usize, up_to: usize) {
        let environment = self.environment.clone();
        {
            let mut state = environment.state();
            let replica_state = &state.replicas[replica];
            let until =
                replica_state.paused_until.max(replica_state.watches.frozen_until(WatchKind::Policies));
            if until > state.now {
                state.events.add(until, Event::PolicyWatch { replica, up_to });
                return;
            }
            let caches = &mut state.replicas[replica].caches;
            caches.policies = caches.policies.max(up_to);
        }
        if let Some(replica) = self.replicas[replica].as_mut() {
            replica.enqueue_all(&environment);
        }
    }

    pub(super) fn relist_unless_frozen(&mut self, replica: usize, behind: usize) {
        let until = {
            let state = self.environment.state();
            let replica_state = &state.replicas[replica];
            let kinds = [WatchKind::Resources, WatchKind::Policies, WatchKind::Ledgers];
            let frozen_until = kinds.map(|kind| replica_state.watches.frozen_until(kind));
            frozen_until.into_iter().fold(replica_state.paused_until, Timestamp::max)
        };
        if until > self.environment.state().now {
            self.environment.state().events.add(until, Event::Relist { replica, behind });
        } else {
            self.relist(replica, behind);
        }
    }

    /// Lists all objects again. With `behind`, the lists of some kinds come from an outdated API server,
    /// which misses this many changes, and catches up later.
    pub(super) fn relist(&mut self, replica: usize, behind: usize) {
        let environment = self.environment.clone();
        let Some(replica) = self.replicas[replica].as_mut() else { return };
        let number = replica.process.replica;
        let (changes, outdated, outdated_for) = {
            let mut state = environment.state();
            let outdated = if behind > 0 { state.choices.watches() } else { 0 };
            let outdated_for = if behind > 0 {
                state.choices.outdated_duration(1..MAX_OUTDATED_SECONDS)
            } else {
                SignedDuration::ZERO
            };
            (state.store.changes().len(), outdated, outdated_for)
        };
        let missing = |kind: WatchKind| if kind.is_selected(outdated) { behind } else { 0 };
        replica.list(&environment, changes.saturating_sub(missing(WatchKind::Resources)));
        let state = &mut *environment.state();
        let at = state.now + outdated_for;
        let (policies, ledgers) = (state.policies.changes(), state.store.ledger_changes().len());
        let caches = &mut state.replicas[number].caches;
        caches.policies = policies.saturating_sub(missing(WatchKind::Policies));
        caches.list_ledgers(ledgers.saturating_sub(missing(WatchKind::Ledgers)), at);
        if behind > 0 {
            state.events.add(at, Event::Watch { process: replica.process, up_to: changes });
            state.events.add(at, Event::PolicyWatch { replica: number, up_to: policies });
        }
    }
}
