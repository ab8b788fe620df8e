//! Generates the policy changes of a plan: administrators allow and revoke access, often while a process is
//! about to send a call.

use jiff::SignedDuration;

use super::Generator;
use crate::environment::ProcessFailure;
use crate::keys::USABLE_KEYS;
use crate::plan::Operation;
use crate::policies::{Keys, Policy};

impl Generator {
    /// Returns policy changes by an administrator, some of them while a process is about to send a call.
    pub(super) fn policy_changes(&mut self) -> Vec<(SignedDuration, Operation)> {
        let mut at = self.duration(10.0, 12.0 * 3600.0);
        let mut all = Vec::new();
        for _ in 0..self.rng.u8(1..5) {
            let (replica, resource) =
                (self.rng.usize(..self.replicas), self.rng.usize(..self.resources.len()));
            if self.one_in(2) {
                let failure = ProcessFailure::Pause(self.duration(2.0, 3600.0));
                all.push((
                    at,
                    Operation::PlannedFailure(replica, self.rng.u32(2..11), self.one_in(2), failure),
                ));
                all.push((at, self.apply_resource(resource)));
            }
            at += self.duration(0.01, 60.0);
            all.push((at, Operation::Policies(self.policies())));
            at += self.duration(1.0, 3600.0);
        }
        if !self.one_in(3) {
            all.push((at, Operation::Policies(vec![Policy::own_account(!self.one_in(5))])));
        }
        all
    }

    /// Returns operations in which a resource of another team waits for a stream: the stream's owner is
    /// re-created, or an administrator assigns the stream to the other team.
    pub(super) fn ownership_transfer(&mut self) -> Vec<(SignedDuration, Operation)> {
        let rival = ("other".to_owned(), "rival".to_owned());
        let owner = self.resources[0].0.clone();
        let only_for =
            |namespace: &str| Policy { namespace: Some(namespace.to_owned()), ..Policy::own_account(true) };
        let mut at = self.duration(60.0, 6.0 * 3600.0);
        let mut all = vec![(at, Operation::Policies(vec![only_for("data")]))];
        at += self.duration(0.1, 600.0);
        all.push((at, Operation::Apply(rival.clone(), Box::new(self.spec(0, true)))));
        at += self.duration(10.0, 3600.0);
        if self.one_in(2) {
            all.push((at, Operation::Delete(owner)));
            for _ in 0..self.rng.u8(1..5) {
                at += self.duration(0.02, 60.0);
                all.push((at, Operation::Retry(rival.clone())));
            }
            at += self.duration(0.1, 600.0);
            all.push((at, self.apply_resource(0)));
        } else {
            all.push((at, Operation::Policies(vec![only_for("other")])));
            at += self.duration(0.02, 600.0);
            all.push((at, Operation::Retry(rival)));
        }
        all
    }

    fn policies(&mut self) -> Vec<Policy> {
        let stream = Some(self.streams[self.rng.usize(..self.streams.len())].name.clone());
        let namespace = Some(self.choose(&["data", "data", "other"]).to_owned());
        let only = Keys::Only(self.rng.usize(..USABLE_KEYS));
        let own = Policy::own_account(self.one_in(2));
        let role = Some(self.choose(&["of-data", "of-all"]));
        match self.rng.u8(..8) {
            0 => Vec::new(),
            1 => vec![own],
            2 => vec![Policy { namespace, ..own }],
            3 => vec![Policy { stream, ..own }],
            4 => vec![Policy { keys: self.choose(&[Keys::AwsOwned, only]), ..own }],
            5 => vec![Policy { role, ..own }],
            // For one stream, or for one namespace, the policies name conflicting roles.
            6 => vec![own.clone(), Policy { namespace, stream, role, ..own }],
            // Two policies that combine for one stream only.
            _ => vec![
                Policy { keys: Keys::AwsOwned, ..own },
                Policy { stream, keys: only, namespace, allow_disable: false, role: None },
            ],
        }
    }
}
