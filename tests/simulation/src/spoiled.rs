//! Planted bugs: operators that are wrong in one way each, as a real programmer would make it, to prove that a promise tells.
//!
//! A bug wraps a port, the decision, the clock or the rules; the controller between them is the real one. It must never need
//! a switch in the product, and it may break only the promises that it names here.

mod aws;
mod decisions;
mod records;

use std::time::Duration;

use stream_encryption_operator::api::stream_encryption::StreamEncryption;
use stream_encryption_operator::controller::{Clock, Decide};

pub use aws::SpoiledAws;
pub use records::SpoiledRecords;

use crate::parts::Parts;
use crate::ports::{Aws, Cluster};
use crate::scene::State;
use crate::tally;

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The ledger is written without compare-and-swap.
    NoCompareAndSwap,
    /// The live resource is read from a cache.
    CachedResource,
    /// The SDK sends calls again.
    SdkRetries,
    /// Attempts are counted in memory.
    BackoffInMemory,
    /// Calls without an answer are given back.
    UnknownRefunded,
    /// The ledger goes with its resource.
    LedgerCollected,
    /// The window is AWS's day and no more.
    SharpWindow,
    /// Any key is taken for the right one.
    EnabledIsEnough,
    /// Every deleted resource turns encryption off.
    StopOnDeletion,
    /// A lease is the only fence.
    LeaseOnly,
    /// Errors of ledger writes are ignored.
    UnacknowledgedCounts,
    /// Looks are cached.
    OldLook,
    /// What KMS says of keys is cached.
    OldKey,
    /// The live resource is read once for all of a visit.
    ReadOnce,
    /// Encrypted is said at once.
    NoSettling,
    /// A failed re-key is shown as done.
    FailedShownAsDone,
    /// Any resource may act on any stream.
    OwnershipIgnored,
    /// Pauses are not noticed, and calls are dated when they are sent.
    PauseNotNoticed,
    /// Ledgers are retired at once.
    RetiredEarly,
    /// No answer is taken for a refusal.
    SilenceIsRefusal,
    /// Streams of other accounts are touched.
    ForeignStream,
    /// Keys of other accounts are used.
    ForeignKey,
    /// The administrator's budget is ignored.
    BudgetIgnored,
    /// Policies are read once in the life of a process.
    PoliciesKept,
    /// Policies are read once in a visit, and not again before the call.
    PoliciesReadOnce,
    /// Looks are made as the operator itself.
    RoleForgotten,
    /// Old calls are forgotten by the operator's own clock.
    OwnClockPrunes,
    /// The status is written at every look.
    StatusRewritten,
    /// A stream whose owner is gone is claimed without a policy.
    ClaimedWithoutPolicy,
    /// A claim outlives the policy that it was made under.
    ClaimOutlivesPolicy,
    /// It is not written down that a call was seen to take effect.
    EffectForgotten,
    /// An active key that cannot be used is ready.
    LostKeyIsReady,
    /// A call is signed with whatever credentials there are by then.
    SignedAnew,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::NoCompareAndSwap,
        Self::CachedResource,
        Self::SdkRetries,
        Self::BackoffInMemory,
        Self::UnknownRefunded,
        Self::LedgerCollected,
        Self::SharpWindow,
        Self::EnabledIsEnough,
        Self::StopOnDeletion,
        Self::LeaseOnly,
        Self::UnacknowledgedCounts,
        Self::OldLook,
        Self::OldKey,
        Self::ReadOnce,
        Self::NoSettling,
        Self::FailedShownAsDone,
        Self::OwnershipIgnored,
        Self::PauseNotNoticed,
        Self::RetiredEarly,
        Self::SilenceIsRefusal,
        Self::ForeignStream,
        Self::ForeignKey,
        Self::BudgetIgnored,
        Self::PoliciesKept,
        Self::PoliciesReadOnce,
        Self::RoleForgotten,
        Self::OwnClockPrunes,
        Self::StatusRewritten,
        Self::ClaimedWithoutPolicy,
        Self::ClaimOutlivesPolicy,
        Self::EffectForgotten,
        Self::LostKeyIsReady,
        Self::SignedAnew,
    ];

    /// What is wrong, in a line.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::NoCompareAndSwap => "after a conflict the ledger is written again over the newer version",
            Self::CachedResource => "the live read of the resource is answered from the watch's cache",
            Self::SdkRetries => "the SDK sends Start again after LimitExceeded, 5xx and no answer",
            Self::BackoffInMemory => "attempts are counted in memory, and a new process forgets them",
            Self::UnknownRefunded => "calls whose outcome is not known are taken out of the ledger",
            Self::LedgerCollected => "the ledger is garbage-collected with its resource",
            Self::SharpWindow => "a call is forgotten 24 h after its reservation, sharp",
            Self::EnabledIsEnough => "ENABLED is trusted without comparing the key",
            Self::StopOnDeletion => "deleting a resource turns encryption off, whatever its policy says",
            Self::LeaseOnly => "a lease of 15 s by the replicas' own clocks is the only fence",
            Self::UnacknowledgedCounts => "a reservation whose write failed counts as written",
            Self::OldLook => "a look is cached for five minutes",
            Self::OldKey => "what KMS says of a key is cached for an hour",
            Self::ReadOnce => {
                "the resource is read once in a visit, and not again before the ledger is written"
            }
            Self::NoSettling => "Encrypted is said as soon as AWS says ENABLED",
            Self::FailedShownAsDone => "a failed re-key is read as the new key in force",
            Self::OwnershipIgnored => "a second resource writes itself into another's ledger",
            Self::PauseNotNoticed => {
                "a pause before the call is not noticed, and the call dated when it is sent"
            }
            Self::RetiredEarly => "a ledger is retired as soon as its owner is gone",
            Self::SilenceIsRefusal => "a call that got no answer is recorded as refused",
            Self::ForeignStream => "the account of a stream is not compared with the policy's",
            Self::ForeignKey => "the account of a key is not compared with the policy's",
            Self::PoliciesKept => "policies are read when a process first needs them, and never again",
            Self::PoliciesReadOnce => "policies are read once in a visit, and not again before the call",
            Self::RoleForgotten => "the operator looks with its own rights where a policy names a role",
            Self::BudgetIgnored => "AWS's limit counts instead of the administrator's",
            Self::OwnClockPrunes => "calls are forgotten by a clock that AWS has not accepted",
            Self::StatusRewritten => "the status is written at every look, changed or not",
            Self::ClaimedWithoutPolicy => {
                "a stream whose owner is gone is claimed by a resource that no policy allows it"
            }
            Self::ClaimOutlivesPolicy => "the owner of a stream keeps it whatever policies say of the owner",
            Self::LostKeyIsReady => "a stream is ready though its active key is disabled or pending deletion",
            Self::SignedAnew => {
                "a call is signed with the credentials of its moment, and not with those of its look"
            }
            Self::EffectForgotten => {
                "for 30 s after a call what AWS shows is disbelieved, also once it has shown the call's effect"
            }
        }
    }

    /// The promises that may rightly report it.
    #[must_use]
    pub fn promises(self) -> &'static [&'static str] {
        match self {
            Self::NoCompareAndSwap | Self::LeaseOnly => &["P1", "P2", "P3", "P10"],
            Self::CachedResource => &["P3", "P7"],
            Self::SdkRetries => &["P1", "P2"],
            // Two processes that remember different attempts write the status against each other for ever.
            Self::BackoffInMemory => &["P5", "P9"],
            Self::UnknownRefunded => &["P1", "P3", "P10"],
            Self::LedgerCollected | Self::SharpWindow | Self::RetiredEarly | Self::OwnClockPrunes => {
                &["P1", "P10"]
            }
            Self::EnabledIsEnough | Self::LostKeyIsReady | Self::ClaimOutlivesPolicy => &["P4"],
            Self::StopOnDeletion | Self::OldKey => &["P7"],
            Self::UnacknowledgedCounts => &["P1", "P2", "P3"],
            // AWS has accepted no date where nothing was asked, and calls are forgotten by one that it would have refused.
            Self::OldLook => &["P4", "P5", "P6", "P9", "P10"],
            Self::ReadOnce => &["P3", "P7", "P9"],
            Self::NoSettling => &["P6"],
            Self::FailedShownAsDone => &["P4", "P6"],
            Self::OwnershipIgnored => &["P3"],
            Self::PauseNotNoticed | Self::SilenceIsRefusal => &["P1", "P3"],
            // Who has forgotten that something is allowed does not do it.
            Self::PoliciesKept => &["P4", "P8"],
            Self::ForeignStream
            | Self::ForeignKey
            | Self::PoliciesReadOnce
            | Self::RoleForgotten
            | Self::SignedAnew
            | Self::ClaimedWithoutPolicy => &["P8"],
            Self::BudgetIgnored => &["P1"],
            // What is not kept is written again at each look.
            Self::EffectForgotten => &["P5", "P6"],
            Self::StatusRewritten => &["P5"],
        }
    }
}

/// An operator with one bug.
#[derive(Clone, Copy, Debug)]
pub struct Spoiled(pub Bug);

impl Parts for Spoiled {
    type Aws = SpoiledAws;
    type Records = SpoiledRecords;

    fn aws(&self, aws: Aws) -> SpoiledAws {
        SpoiledAws::new(self.0, aws)
    }

    fn records(&self, records: Cluster) -> SpoiledRecords {
        SpoiledRecords::new(self.0, records)
    }

    fn decide(&self) -> Decide {
        match self.0 {
            Bug::SharpWindow => decisions::back_after_a_day_sharp,
            Bug::EnabledIsEnough => decisions::enabled_is_enough,
            Bug::NoSettling => decisions::without_settling,
            Bug::LostKeyIsReady => decisions::lost_key_is_ready,
            _ => tally::noted,
        }
    }

    fn clock(&self, clock: Clock) -> Clock {
        if self.0 != Bug::PauseNotNoticed {
            return clock;
        }
        // A clock that does not run while the process is paused shows no more than a request takes.
        Clock::new(move || clock.now(), || Duration::ZERO)
    }

    fn after_deletion(&self, state: &mut State, resource: &StreamEncryption) {
        if self.0 == Bug::LedgerCollected {
            records::collect(state, resource);
        }
    }
}
