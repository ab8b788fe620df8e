//! The caches of one replica's watches: resources, policies and ledgers, each as old as its own watch.
//!
//! A cache lags, freezes, or goes back in time after a list from an outdated API server. It never shows a
//! state that Kubernetes did not have. This module only reads what the [`Store`](crate::store::Store) and the
//! [`Policies`](crate::policies::Policies) have stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::StreamEncryption;

use crate::environment::State;
use crate::explore::injected_fault::FaultPoint;
use crate::store::Name;

/// Maximum delay of a watch, in microseconds.
pub const MAX_WATCH_DELAY: u64 = 60_000;

/// The kind of objects that a watch returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    Resources,
    Policies,
    Ledgers,
}

/// The delays of one replica's watches. Each watch has its own.
#[derive(Clone, Copy, Debug)]
pub struct Watches([Delay; 3]);

/// The delay of one watch.
#[derive(Clone, Copy, Debug)]
struct Delay {
    lag: SignedDuration,
    frozen_until: Timestamp,
}

impl WatchKind {
    /// Returns the bit that selects this kind.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Returns whether the bits of `mask` select this kind.
    pub fn is_selected(self, mask: u8) -> bool {
        mask & self.bit() != 0
    }
}

impl Watches {
    /// Returns watches without a delay.
    pub fn undelayed() -> Self {
        Self([Delay { lag: SignedDuration::ZERO, frozen_until: Timestamp::MIN }; 3])
    }

    /// Returns the lag of a watch.
    pub fn lag(&self, kind: WatchKind) -> SignedDuration {
        self.0[kind as usize].lag
    }

    /// Returns the time until which a watch is frozen.
    pub fn frozen_until(&self, kind: WatchKind) -> Timestamp {
        self.0[kind as usize].frozen_until
    }

    /// Sets the lag of some watches, selected by the bits of `mask`.
    pub fn set_lag(&mut self, mask: u8, lag: SignedDuration) {
        self.selected(mask).for_each(|delay| delay.lag = lag);
    }

    /// Freezes some watches, selected by the bits of `mask`.
    pub fn freeze(&mut self, mask: u8, until: Timestamp) {
        self.selected(mask).for_each(|delay| delay.frozen_until = until);
    }

    /// Ends all delays.
    pub fn end_delays(&mut self, now: Timestamp) {
        for delay in &mut self.0 {
            *delay = Delay { lag: SignedDuration::ZERO, frozen_until: delay.frozen_until.min(now) };
        }
    }

    fn selected(&mut self, mask: u8) -> impl Iterator<Item = &mut Delay> {
        self.0.iter_mut().enumerate().filter(move |(at, _)| mask & (1 << at) != 0).map(|(_, delay)| delay)
    }
}

/// Upper bound of the numbers of all combinations of watches; the lowest number is 1.
pub const WATCH_COMBINATIONS: u8 = 8;

/// The caches of one replica.
#[derive(Debug, Default)]
pub struct Caches {
    pub resources: BTreeMap<Name, Arc<StreamEncryption>>,
    /// The number of changes of the policies that the watch has delivered.
    pub policies: usize,
    /// The number of changes of ledgers that the watch has delivered.
    ledgers: usize,
    /// The time until which the ledgers' watch delivers nothing, after a list from an outdated API server.
    ledgers_frozen_until: Option<Timestamp>,
}

impl Caches {
    /// Fills the cache of the ledgers with the state after this many changes. Their watch delivers nothing
    /// until then.
    pub fn list_ledgers(&mut self, changes: usize, until: Timestamp) {
        self.ledgers = changes;
        self.ledgers_frozen_until = Some(until);
    }
}

impl State {
    /// Returns a resource from the cache of a replica.
    pub fn cached_resource(&mut self, replica: usize, name: &Name) -> Option<StreamEncryption> {
        self.replicas[replica].caches.resources.get(name).map(|resource| (**resource).clone())
    }

    /// Returns the policies of a namespace from the cache of a replica.
    pub fn cached_policies(&mut self, replica: usize, namespace: &str) -> Vec<StreamEncryptionPolicySpec> {
        let visible = self.replicas[replica].caches.policies;
        self.invariants
            .cached_policies_since
            .insert(self.current_task.task, self.policies.changed_at(visible));
        self.policies.after(visible, namespace)
    }

    /// Returns a ledger from the cache of a replica.
    pub fn cached_ledger(&mut self, replica: usize, name: &str) -> Option<StreamLedger> {
        let changes = self.delivered_ledger_changes(replica);
        let (number, newest) = (changes.len(), changes.iter().rev().find(|(changed, _)| changed == name));
        let ledger = newest.and_then(|(_, ledger)| ledger.clone());
        self.invariants.ledgers_read.insert(self.current_task.task, number);
        ledger
    }

    /// Returns all ledgers from the cache of a replica.
    pub fn cached_ledgers(&mut self, replica: usize) -> Vec<StreamLedger> {
        let changes = self.delivered_ledger_changes(replica);
        let last: BTreeMap<&String, &Option<StreamLedger>> =
            changes.iter().map(|(name, ledger)| (name, ledger)).collect();
        last.into_values().flatten().cloned().collect()
    }

    /// Returns the changes of ledgers that the watch of a replica has delivered.
    fn delivered_ledger_changes(&mut self, replica: usize) -> &[(String, Option<StreamLedger>)] {
        let delay = self.choices.duration(1_000..MAX_WATCH_DELAY);
        let missing = usize::from(self.injected_fault(FaultPoint::LedgerCache).is_some());
        let replica_state = &self.replicas[replica];
        let relist_frozen_until = replica_state.caches.ledgers_frozen_until.unwrap_or(Timestamp::MIN);
        let frozen_until = replica_state.watches.frozen_until(WatchKind::Ledgers);
        let delivers_after = frozen_until.max(replica_state.paused_until).max(relist_frozen_until);
        let mut visible = replica_state.caches.ledgers;
        if self.now > delivers_after {
            let lag = replica_state.watches.lag(WatchKind::Ledgers) + delay;
            visible = visible.max(self.ledger_change_times.partition_point(|at| *at + lag <= self.now));
            self.replicas[replica].caches.ledgers = visible;
        }
        &self.store.ledger_changes()[..visible.saturating_sub(missing)]
    }
}
