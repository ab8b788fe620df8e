//! The caches of one replica's watches: resources, policies and ledgers, each as old as its own watch.
//!
//! A cache lags, freezes, or goes back in time after a list from an outdated API server. It never shows a state
//! that Kubernetes did not have. This module only reads what the [`Store`](crate::store::Store) and the
//! [`Policies`](crate::policies::Policies) have kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::StreamEncryption;

use crate::environment::State;
use crate::explore::fault::Place;
use crate::store::Name;

/// Maximum delay of a watch, in microseconds.
pub const WATCH: u64 = 60_000;

/// What a watch returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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

impl Kind {
    /// Returns the bit that selects this kind.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Returns whether the bits of `which` select this kind.
    pub fn is_in(self, which: u8) -> bool {
        which & self.bit() != 0
    }
}

impl Watches {
    /// Returns watches without a delay.
    pub fn prompt() -> Self {
        Self([Delay { lag: SignedDuration::ZERO, frozen_until: Timestamp::MIN }; 3])
    }

    /// Returns the lag of a watch.
    pub fn lag(&self, kind: Kind) -> SignedDuration {
        self.0[kind as usize].lag
    }

    /// Returns the time until which a watch is frozen.
    pub fn frozen_until(&self, kind: Kind) -> Timestamp {
        self.0[kind as usize].frozen_until
    }

    /// Sets the lag of some watches, selected by the bits of `which`.
    pub fn set_lag(&mut self, which: u8, lag: SignedDuration) {
        self.selected(which).for_each(|delay| delay.lag = lag);
    }

    /// Freezes some watches, selected by the bits of `which`.
    pub fn freeze(&mut self, which: u8, until: Timestamp) {
        self.selected(which).for_each(|delay| delay.frozen_until = until);
    }

    /// Ends all delays.
    pub fn catch_up(&mut self, now: Timestamp) {
        for delay in &mut self.0 {
            *delay = Delay { lag: SignedDuration::ZERO, frozen_until: delay.frozen_until.min(now) };
        }
    }

    fn selected(&mut self, which: u8) -> impl Iterator<Item = &mut Delay> {
        self.0.iter_mut().enumerate().filter(move |(at, _)| which & (1 << at) != 0).map(|(_, delay)| delay)
    }
}

/// Every combination of watches has a number below this one, and above 0.
pub const COMBINATIONS: u8 = 8;

/// The caches of one replica.
#[derive(Debug, Default)]
pub struct Caches {
    pub resources: BTreeMap<Name, Arc<StreamEncryption>>,
    /// The number of changes of the policies that the watch has delivered.
    pub policies: usize,
    /// The number of changes of ledgers that the watch has delivered.
    ledgers: usize,
    /// The time until which the ledgers' watch delivers nothing, after a list from an outdated API server.
    ledgers_held_until: Option<Timestamp>,
}

impl Caches {
    /// Fills the cache of the ledgers with the state after this many changes. Their watch delivers nothing
    /// until then.
    pub fn list_ledgers(&mut self, changes: usize, until: Timestamp) {
        self.ledgers = changes;
        self.ledgers_held_until = Some(until);
    }
}

impl State {
    pub fn cached_resource(&mut self, replica: usize, name: &Name) -> Option<StreamEncryption> {
        self.replicas[replica].caches.resources.get(name).map(|resource| (**resource).clone())
    }

    pub fn cached_policies(&mut self, replica: usize, namespace: &str) -> Vec<StreamEncryptionPolicySpec> {
        let shown = self.replicas[replica].caches.policies;
        self.promises.policies_shown.insert(self.polled.task, self.policies.changed_at(shown));
        self.policies.after(shown, namespace)
    }

    pub fn cached_ledger(&mut self, replica: usize, name: &str) -> Option<StreamLedger> {
        let delay = self.choices.duration(1_000..WATCH);
        let outdated = usize::from(self.mishap(Place::LedgerCache).is_some());
        let condition = &self.replicas[replica];
        let held = condition.caches.ledgers_held_until.unwrap_or(Timestamp::MIN);
        let frozen_until = condition.watches.frozen_until(Kind::Ledgers);
        let flows_from = frozen_until.max(condition.paused_until).max(held);
        let mut shown = condition.caches.ledgers;
        if self.now > flows_from {
            let lag = condition.watches.lag(Kind::Ledgers) + delay;
            shown = shown.max(self.ledger_times.partition_point(|at| *at + lag <= self.now));
            self.replicas[replica].caches.ledgers = shown;
        }
        let changes = &self.store.ledger_changes()[..shown.saturating_sub(outdated)];
        changes.iter().rev().find(|(changed, _)| changed == name).and_then(|(_, ledger)| ledger.clone())
    }
}
