//! Generates the policy changes of a plan: what administrators allow and revoke, often while a process is
//! about to send a call.

use jiff::SignedDuration;

use super::Dice;
use crate::environment::Fate;
use crate::keys::GOOD;
use crate::plan::Happening;
use crate::policies::{Allowed, Keys};

impl Dice {
    /// Returns policy changes by an administrator, some of them while a process is about to send a call.
    pub(super) fn changes_of_policy(&mut self) -> Vec<(SignedDuration, Happening)> {
        let mut at = self.span(10.0, 12.0 * 3600.0);
        let mut all = Vec::new();
        for _ in 0..self.dice.u8(1..5) {
            let (replica, resource) =
                (self.dice.usize(..self.replicas), self.dice.usize(..self.resources.len()));
            if self.one_in(2) {
                let fate = Fate::Pause(self.span(2.0, 3600.0));
                all.push((at, Happening::Doom(replica, self.dice.u32(2..11), self.one_in(2), fate)));
                all.push((at, self.apply(resource)));
            }
            at += self.span(0.01, 60.0);
            all.push((at, Happening::Policies(self.policies())));
            at += self.span(1.0, 3600.0);
        }
        if !self.one_in(3) {
            all.push((at, Happening::Policies(vec![Allowed::own_account(!self.one_in(5))])));
        }
        all
    }

    /// Returns events in which a resource of another team waits for a stream: the stream's owner is
    /// re-created, or an administrator assigns the stream to the other team.
    pub(super) fn handed_over(&mut self) -> Vec<(SignedDuration, Happening)> {
        let rival = ("other".to_owned(), "rival".to_owned());
        let owner = self.resources[0].0.clone();
        let to =
            |namespace: &str| Allowed { namespace: Some(namespace.to_owned()), ..Allowed::own_account(true) };
        let mut at = self.span(60.0, 6.0 * 3600.0);
        let mut all = vec![(at, Happening::Policies(vec![to("data")]))];
        at += self.span(0.1, 600.0);
        all.push((at, Happening::Apply(rival.clone(), Box::new(self.spec(0, true)))));
        at += self.span(10.0, 3600.0);
        if self.one_in(2) {
            all.push((at, Happening::Delete(owner)));
            for _ in 0..self.dice.u8(1..5) {
                at += self.span(0.02, 60.0);
                all.push((at, Happening::Retry(rival.clone())));
            }
            at += self.span(0.1, 600.0);
            all.push((at, self.apply(0)));
        } else {
            all.push((at, Happening::Policies(vec![to("other")])));
            at += self.span(0.02, 600.0);
            all.push((at, Happening::Retry(rival)));
        }
        all
    }

    fn policies(&mut self) -> Vec<Allowed> {
        let stream = Some(self.streams[self.dice.usize(..self.streams.len())].name.clone());
        let namespace = Some(self.pick(&["data", "data", "other"]).to_owned());
        let only = Keys::Only(self.dice.usize(..GOOD));
        let own = Allowed::own_account(self.one_in(2));
        let role = Some(self.pick(&["of-data", "of-all"]));
        match self.dice.u8(..8) {
            0 => Vec::new(),
            1 => vec![own],
            2 => vec![Allowed { namespace, ..own }],
            3 => vec![Allowed { stream, ..own }],
            4 => vec![Allowed { keys: self.pick(&[Keys::AwsOwned, only]), ..own }],
            5 => vec![Allowed { role, ..own }],
            // For one stream, or for one namespace, the policies name conflicting roles.
            6 => vec![own.clone(), Allowed { namespace, stream, role, ..own }],
            // Two policies that combine for one stream only.
            _ => vec![
                Allowed { keys: Keys::AwsOwned, ..own },
                Allowed { stream, keys: only, namespace, disable: false, role: None },
            ],
        }
    }
}
