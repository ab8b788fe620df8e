//! Planted bugs: operators with one realistic bug each, which prove that a promise detects it.
//!
//! A bug wraps a port, the decision, the clock or the rules; the controller between them is the real one. It
//! must never need a switch in the product, and may break only the promises that it lists here.

mod aws;
mod decisions;
mod kube_api;
mod protocol;

use std::time::Duration;

use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::{Clock, Decide};

pub use aws::SpoiledAws;
pub use kube_api::SpoiledRecords;

use crate::environment::State;
use crate::ports::{Aws, Cluster};
use crate::stats;
use crate::wiring::Parts;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The ledger is written without compare-and-swap.
    NoCompareAndSwap,
    /// The resource is not read again from the API server before a change.
    CachedResource,
    /// The SDK retries calls.
    SdkRetries,
    /// Attempts are counted in memory.
    BackoffInMemory,
    /// Calls without an answer are removed from the ledger.
    UnknownRefunded,
    /// The ledger is garbage-collected with its resource.
    LedgerCollected,
    /// The window is exactly AWS's 24 hours.
    SharpWindow,
    /// An encrypted stream is accepted with any key.
    EnabledIsEnough,
    /// Deleting any resource disables encryption.
    StopOnDeletion,
    /// A lease is the only fence.
    LeaseOnly,
    /// Failed ledger writes are ignored.
    UnacknowledgedCounts,
    /// Descriptions of streams are cached.
    OldLook,
    /// Descriptions of keys are cached.
    OldKey,
    /// The owner of a ledger is looked up in a cache.
    CachedOwner,
    /// The ledger is never read from the API server.
    CachedLedger,
    /// `Encrypted` is true without a settle time.
    NoSettling,
    /// A failed re-key is reported as complete.
    FailedShownAsDone,
    /// Ownership of streams is ignored.
    OwnershipIgnored,
    /// Pauses are not detected, and calls are dated when they are sent.
    PauseNotNoticed,
    /// Ledgers are deleted immediately.
    RetiredEarly,
    /// A missing answer is treated as a refusal.
    SilenceIsRefusal,
    /// Streams of other accounts are changed.
    ForeignStream,
    /// Keys of other accounts are used.
    ForeignKey,
    /// The administrator's limit of calls is ignored.
    BudgetIgnored,
    /// Policies are read once per process.
    PoliciesKept,
    /// The policies are not read again from the API server before a change.
    CachedPolicies,
    /// Streams are described with the operator's own credentials.
    RoleForgotten,
    /// Old calls are pruned by the operator's own clock.
    OwnClockPrunes,
    /// The status is written at every Describe.
    StatusRewritten,
    /// A stream whose owner is deleted is claimed without a policy.
    ClaimedWithoutPolicy,
    /// A claim outlives the policy that allowed it.
    ClaimOutlivesPolicy,
    /// The observed effect of a call is not stored.
    EffectForgotten,
    /// An unusable active key is reported as ready.
    LostKeyIsReady,
    /// A call is signed with the current credentials, even if others signed the Describe.
    SignedAnew,
    /// The Describe is older than the ledger.
    DescribeBeforeLedger,
    /// A call is sent before it is reserved.
    RecordedAfterwards,
    /// A call without an outcome is made again at once.
    NoWaitForLateCalls,
    /// ENABLING is taken for ENABLED.
    EnablingIsEnabled,
    /// The old key is turned off before the new one is turned on.
    StopBeforeReKey,
    /// A call that AWS refuses because of its limit is never made again.
    GivesUpAtTheLimit,
}

impl Bug {
    /// Every planted bug.
    pub const ALL: [Self; 40] = [
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
        Self::CachedOwner,
        Self::CachedLedger,
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
        Self::CachedPolicies,
        Self::RoleForgotten,
        Self::OwnClockPrunes,
        Self::StatusRewritten,
        Self::ClaimedWithoutPolicy,
        Self::ClaimOutlivesPolicy,
        Self::EffectForgotten,
        Self::LostKeyIsReady,
        Self::SignedAnew,
        Self::DescribeBeforeLedger,
        Self::RecordedAfterwards,
        Self::NoWaitForLateCalls,
        Self::EnablingIsEnabled,
        Self::StopBeforeReKey,
        Self::GivesUpAtTheLimit,
    ];

    /// Returns a one-line description of the bug.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::NoCompareAndSwap => "after a conflict, the ledger overwrites the newer version",
            Self::CachedResource => "before a change, the resource is read from the cache again",
            Self::SdkRetries => "the SDK retries Start after LimitExceeded, 5xx or no answer",
            Self::BackoffInMemory => "attempts are counted in memory only, and lost on restart",
            Self::UnknownRefunded => "calls with an unknown outcome are removed from the ledger",
            Self::LedgerCollected => "the ledger is garbage-collected with its resource",
            Self::SharpWindow => "a call is pruned exactly 24 h after its reservation",
            Self::EnabledIsEnough => "ENABLED is accepted without comparing the key",
            Self::StopOnDeletion => {
                "deleting a resource disables encryption, regardless of its deletionPolicy"
            }
            Self::LeaseOnly => "a lease of 15 s, by the replicas' own clocks, is the only fence",
            Self::UnacknowledgedCounts => "a reservation whose write failed is treated as written",
            Self::OldLook => "the description of a stream is cached for five minutes",
            Self::OldKey => "the description of a key is cached for an hour",
            Self::CachedLedger => "before a change, the ledger is read from the cache again",
            Self::CachedOwner => "the owner of a ledger is gone if the cache does not hold it",
            Self::NoSettling => "Encrypted is true as soon as AWS reports ENABLED",
            Self::FailedShownAsDone => "a failed re-key is reported with the new key as the active key",
            Self::OwnershipIgnored => "a second resource overwrites the owner in a ledger",
            Self::PauseNotNoticed => {
                "a pause before the call is not detected, and the call is dated when it is sent"
            }
            Self::RetiredEarly => "a ledger is deleted as soon as its owner is deleted",
            Self::SilenceIsRefusal => "a call without an answer is recorded as refused",
            Self::ForeignStream => "the account of a stream is not compared with the policy's",
            Self::ForeignKey => "the account of a key is not compared with the policy's",
            Self::PoliciesKept => "policies are read once per process, and never again",
            Self::CachedPolicies => "before a change, the policies are read from the cache again",
            Self::RoleForgotten => {
                "a stream is described with the operator's own credentials although a policy names a role"
            }
            Self::BudgetIgnored => "AWS's limit is used instead of the administrator's",
            Self::OwnClockPrunes => "calls are pruned by a clock that AWS has not accepted",
            Self::StatusRewritten => "the status is written at every Describe, changed or not",
            Self::ClaimedWithoutPolicy => {
                "a stream whose owner is deleted is claimed by a resource that no policy allows to use it"
            }
            Self::ClaimOutlivesPolicy => "a resource keeps its stream although no policy allows it any more",
            Self::LostKeyIsReady => {
                "a stream is Ready although its active key is disabled or pending deletion"
            }
            Self::SignedAnew => {
                "a call is signed with the current credentials, even if others signed the Describe"
            }
            Self::DescribeBeforeLedger => "the stream is described before the ledger is read",
            Self::RecordedAfterwards => "a call is written into the ledger only with its outcome",
            Self::NoWaitForLateCalls => "a call without an outcome is made again at once",
            Self::EnablingIsEnabled => "ENABLING is taken for ENABLED",
            Self::StopBeforeReKey => "the old key is turned off before the new one is turned on",
            Self::GivesUpAtTheLimit => "a call that AWS refuses because of its limit is never made again",
            Self::EffectForgotten => {
                "AWS's reports are distrusted for 30 s after a call, even once they have shown its effect"
            }
        }
    }

    /// Returns the seed from which the bug is searched. A rare one is not in the first thousands of seeds.
    #[must_use]
    pub fn first_seed(self) -> u64 {
        match self {
            // The owner must be deleted and created again while only one replica's watch of the resources is
            // frozen, and while another resource waits for the same stream.
            Self::CachedOwner => 8_000,
            _ => 0,
        }
    }

    /// Returns the promises that may detect the bug.
    #[must_use]
    pub fn promises(self) -> &'static [&'static str] {
        match self {
            Self::NoCompareAndSwap | Self::LeaseOnly => &["P1", "P2", "P3", "P10"],
            Self::CachedResource => &["P3", "P7", "P9"],
            Self::CachedLedger => &["P1", "P3", "P4", "P5", "P6", "P10"],
            Self::SdkRetries => &["P1", "P2"],
            // Two processes with different counts overwrite each other's status indefinitely.
            Self::BackoffInMemory => &["P5", "P9"],
            Self::UnknownRefunded => &["P1", "P3", "P10"],
            Self::LedgerCollected | Self::SharpWindow | Self::RetiredEarly | Self::OwnClockPrunes => {
                &["P1", "P10"]
            }
            Self::EnabledIsEnough
            | Self::LostKeyIsReady
            | Self::ClaimOutlivesPolicy
            | Self::GivesUpAtTheLimit => &["P4"],
            Self::StopOnDeletion | Self::OldKey | Self::StopBeforeReKey => &["P7"],
            Self::UnacknowledgedCounts => &["P1", "P2", "P3"],
            // Without a request AWS has accepted no date, so calls are pruned by a time that AWS would have
            // refused.
            Self::OldLook => &["P4", "P5", "P6", "P9", "P10"],
            Self::NoSettling => &["P6"],
            Self::FailedShownAsDone | Self::EnablingIsEnabled => &["P4", "P6"],
            Self::OwnershipIgnored | Self::CachedOwner => &["P3"],
            Self::SilenceIsRefusal => &["P1", "P3"],
            // The spec may change during the pause.
            Self::PauseNotNoticed => &["P1", "P3", "P7"],
            // A process with outdated policies does not do what a newer policy allows.
            Self::PoliciesKept => &["P4", "P8"],
            Self::ForeignStream
            | Self::ForeignKey
            | Self::CachedPolicies
            | Self::RoleForgotten
            | Self::SignedAnew
            | Self::ClaimedWithoutPolicy => &["P8"],
            Self::BudgetIgnored => &["P1"],
            // A fact that is not stored is written again after each Describe.
            Self::EffectForgotten => &["P5", "P6"],
            Self::StatusRewritten => &["P5"],
            // The Describe also proves the clock by which entries are dropped.
            Self::DescribeBeforeLedger => &["P1", "P3", "P4", "P6", "P9", "P10"],
            Self::RecordedAfterwards => &["P2"],
            Self::NoWaitForLateCalls => &["P1", "P3", "P9"],
        }
    }
}

/// An operator with one bug.
#[derive(Clone, Copy, Debug)]
pub struct Spoiled(pub Bug);

impl Parts for Spoiled {
    type Aws = SpoiledAws;
    type KubeApi = SpoiledRecords;

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
            Bug::NoWaitForLateCalls => decisions::no_wait_for_late_calls,
            Bug::StopBeforeReKey => decisions::stop_before_re_key,
            Bug::GivesUpAtTheLimit => decisions::gives_up_at_the_limit,
            _ => stats::noted,
        }
    }

    fn clock(&self, clock: Clock) -> Clock {
        if self.0 != Bug::PauseNotNoticed {
            return clock;
        }
        // A clock that does not advance during a pause measures no more than the duration of a request.
        Clock::new(move || clock.now(), || Duration::ZERO)
    }

    fn after_deletion(&self, state: &mut State, resource: &StreamEncryption) {
        if self.0 == Bug::LedgerCollected {
            protocol::collect(state, resource);
        }
    }
}
