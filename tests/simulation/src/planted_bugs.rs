//! Planted bugs: operators with one realistic bug each, which prove that an invariant detects it.
//!
//! A bug wraps a port, the decision, the clock or the policies; the controller between them is the real one.
//! A bug must never need a switch in the product, and may break only the promises that are listed here.

mod aws;
mod decisions;
mod kube_api;
mod protocol;

use std::time::Duration;

use jiff::Timestamp;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::{Clock, Decide};
use stream_encryption_core::model::aws_event::{self, AwsEvent, Subject};

pub use aws::BuggyAws;
pub use kube_api::BuggyKubeApi;

use crate::environment::State;
use crate::ports::{AwsPort, KubernetesPort};
use crate::statistics;
use crate::wiring::Wiring;

/// A planted bug; [`ALL`] describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    NoCompareAndSwap,
    CachedResource,
    SdkRetries,
    BackoffInMemory,
    UnknownRefunded,
    LedgerCollected,
    SharpWindow,
    EnabledIsEnough,
    StopOnDeletion,
    LeaseOnly,
    UnacknowledgedCounts,
    CachedDescribe,
    CachedKeyDescribe,
    CachedOwner,
    CachedLedger,
    NoSettling,
    FailedShownAsDone,
    FailureChangesNothing,
    OwnershipIgnored,
    PauseNotNoticed,
    LedgerDeletedEarly,
    NoResponseIsRefusal,
    ForeignStream,
    ForeignKey,
    BudgetIgnored,
    PoliciesReadOnce,
    CachedPolicies,
    RoleForgotten,
    OwnClockPrunes,
    StatusRewritten,
    ClaimedWithoutPolicy,
    ClaimOutlivesPolicy,
    EffectForgotten,
    LostKeyIsReady,
    SignedAnew,
    DescribeBeforeLedger,
    RecordedAfterwards,
    NoWaitForLateCalls,
    EnablingIsEnabled,
    StopBeforeReKey,
    GivesUpAtTheLimit,
    EventBelieved,
    EventCountedTwice,
    OwnCallCountedTwice,
    EventTimeLost,
    ClockBelieved,
}

/// A bug, its description, and the promises that may detect it.
pub type Planted = (Bug, &'static str, &'static str);

/// Every planted bug.
pub const ALL: [Planted; 46] = [
    (Bug::NoCompareAndSwap, "after a conflict, the ledger overwrites the newer version", "P1 P2 P3 P10"),
    (Bug::CachedResource, "before a change, the resource is read from the cache again", "P3 P7 P9"),
    (Bug::SdkRetries, "the SDK retries Start after LimitExceeded, 5xx or no answer", "P1 P2"),
    // Two processes with different counts overwrite each other's status indefinitely.
    (Bug::BackoffInMemory, "attempts are counted in memory only, and lost on restart", "P5 P9"),
    (Bug::UnknownRefunded, "calls with an unknown outcome are removed from the ledger", "P1 P3 P10"),
    (Bug::LedgerCollected, "the ledger is garbage-collected with its resource", "P1 P10"),
    (Bug::SharpWindow, "a call is pruned exactly 24 h after its reservation", "P1 P10"),
    (Bug::EnabledIsEnough, "ENABLED is accepted without comparing the key", "P4"),
    (Bug::StopOnDeletion, "deleting a resource disables encryption, regardless of its deletionPolicy", "P7"),
    (Bug::LeaseOnly, "a lease of 15 s, by the replicas' own clocks, is the only fence", "P1 P2 P3 P10"),
    (Bug::UnacknowledgedCounts, "a reservation whose write failed is treated as written", "P1 P2 P3"),
    // Without a request AWS has accepted no date, so calls are pruned by a time that AWS would have refused.
    (Bug::CachedDescribe, "the description of a stream is cached for five minutes", "P4 P5 P6 P9 P10"),
    (Bug::CachedKeyDescribe, "the description of a key is cached for an hour", "P7"),
    (Bug::CachedOwner, "the owner of a ledger is gone if the cache does not hold it", "P3"),
    (Bug::CachedLedger, "before a change, the ledger is read from the cache again", "P1 P3 P4 P5 P6 P10"),
    (Bug::NoSettling, "Encrypted is true as soon as AWS reports ENABLED", "P6"),
    (Bug::FailedShownAsDone, "a failed re-key is reported with the new key as the active key", "P4 P6"),
    // Somebody else may have changed the encryption before the call that failed.
    (
        Bug::FailureChangesNothing,
        "after a failure, the stream is taken to be as it was last described",
        "P4 P6",
    ),
    (Bug::OwnershipIgnored, "a second resource overwrites the owner in a ledger", "P3"),
    // The spec may change during the pause.
    (
        Bug::PauseNotNoticed,
        "a pause before the call is not detected, and the call is dated when it is sent",
        "P1 P3 P7",
    ),
    (Bug::LedgerDeletedEarly, "a ledger is deleted as soon as its owner is deleted", "P1 P10"),
    (Bug::NoResponseIsRefusal, "a call without an answer is recorded as refused", "P1 P3"),
    (Bug::ForeignStream, "the account of a stream is not compared with the policy's", "P8"),
    (Bug::ForeignKey, "the account of a key is not compared with the policy's", "P8"),
    (Bug::BudgetIgnored, "AWS's limit is used instead of the administrator's", "P1"),
    // A process with outdated policies does not make a call that a newer policy allows.
    (Bug::PoliciesReadOnce, "policies are read once per process, and never again", "P4 P8"),
    (Bug::CachedPolicies, "before a change, the policies are read from the cache again", "P8"),
    (
        Bug::RoleForgotten,
        "a stream is described with the operator's own credentials although a policy names a role",
        "P8",
    ),
    (Bug::OwnClockPrunes, "calls are pruned by a clock that AWS has not accepted", "P1 P10"),
    (Bug::StatusRewritten, "the status is written at every Describe, changed or not", "P5"),
    (
        Bug::ClaimedWithoutPolicy,
        "a stream whose owner is deleted is claimed by a resource that no policy allows to use it",
        "P8",
    ),
    (Bug::ClaimOutlivesPolicy, "a resource keeps its stream although no policy allows it any more", "P4"),
    // A fact that is not stored is written again after each Describe.
    (
        Bug::EffectForgotten,
        "AWS's reports are distrusted for 30 s after a call, even once they have shown its effect",
        "P3 P5 P6",
    ),
    (Bug::LostKeyIsReady, "a stream is Ready although its active key is disabled or pending deletion", "P4"),
    (
        Bug::SignedAnew,
        "a call is signed with the current credentials, even if others signed the Describe",
        "P8",
    ),
    // The Describe also proves the clock by which entries are dropped.
    (Bug::DescribeBeforeLedger, "the stream is described before the ledger is read", "P1 P3 P4 P6 P9 P10"),
    (Bug::RecordedAfterwards, "a call is written into the ledger only with its outcome", "P2"),
    (Bug::NoWaitForLateCalls, "a call without an outcome is made again at once", "P1 P3 P9"),
    (Bug::EnablingIsEnabled, "ENABLING is taken for ENABLED", "P4 P6"),
    (Bug::StopBeforeReKey, "the old key is turned off before the new one is turned on", "P7"),
    (Bug::GivesUpAtTheLimit, "a call that AWS refuses because of its limit is never made again", "P4"),
    // What a late event says is no longer true.
    (Bug::EventBelieved, "an event about a Stop is taken for the state of the stream", "P1 P4 P5 P6 P9"),
    (Bug::EventCountedTwice, "an event that is delivered again is counted again", "P1"),
    (Bug::OwnCallCountedTwice, "the events of the operator's own calls are counted as those of others", "P1"),
    (Bug::EventTimeLost, "an event counts from its arrival instead of AWS's time", "P1"),
    (
        Bug::ClockBelieved,
        "whether a description is newer than a call is decided by the wall clock alone",
        "P3",
    ),
];

impl Bug {
    /// Returns the seed from which the bug is searched. A rare bug is not found in the first thousands of
    /// seeds.
    pub fn first_seed(self) -> u64 {
        match self {
            // The owner must be deleted and created again while only one replica's watch of the resources is
            // frozen, and while another resource waits for the same stream. The watch must stay frozen until the owner
            // is looked up again, before the takeover is written.
            Self::CachedOwner => 399_000,
            // A ledger with a call that is new to the process is read live, so the cache must lack something else.
            Self::CachedLedger => 4_000,
            _ => 0,
        }
    }

    /// Returns whether this promise may detect the bug.
    pub fn may_break(self, promise: &str) -> bool {
        let row = ALL.iter().find(|(bug, ..)| *bug == self);
        row.is_some_and(|(_, _, promises)| promises.split(' ').any(|listed| listed == promise))
    }
}

/// An operator with one bug.
#[derive(Clone, Copy, Debug)]
pub struct WithBug(pub Bug);

impl Wiring for WithBug {
    type StreamApi = BuggyAws;
    type KubeApi = BuggyKubeApi;

    fn stream_api(&self, port: AwsPort) -> BuggyAws {
        BuggyAws::new(self.0, port)
    }

    fn kube_api(&self, port: KubernetesPort) -> BuggyKubeApi {
        BuggyKubeApi::new(self.0, port)
    }

    fn decide(&self) -> Decide {
        match self.0 {
            Bug::SharpWindow => decisions::sharp_window,
            Bug::EnabledIsEnough => decisions::enabled_is_enough,
            Bug::NoSettling => decisions::no_settling,
            Bug::LostKeyIsReady => decisions::lost_key_is_ready,
            Bug::NoWaitForLateCalls => decisions::no_wait_for_late_calls,
            Bug::StopBeforeReKey => decisions::stop_before_re_key,
            Bug::GivesUpAtTheLimit => decisions::gives_up_at_the_limit,
            Bug::ClockBelieved => decisions::clock_believed,
            _ => statistics::decide_and_record,
        }
    }

    fn clock(&self, clock: Clock) -> Clock {
        if self.0 != Bug::PauseNotNoticed {
            return clock;
        }
        // A clock that does not advance during a pause measures no more than the duration of a request. With it, the operator
        // also distrusts what contradicts its last call for longer than 30 s.
        Clock::new(move || clock.now(), || Duration::ZERO)
    }

    fn parse_event(&self, message: &str, now: Timestamp) -> Option<AwsEvent> {
        let mut event = aws_event::parse(message).ok()?;
        if let Subject::Call(_, call) = &mut event.subject {
            match self.0 {
                Bug::EventCountedTwice if call.event_id.starts_with("event-") => {
                    // Another id for each delivery, of the same call.
                    call.event_id = format!("event-0{}", call.event_id.trim_start_matches("event-").len())
                        + &now.as_microsecond().to_string();
                }
                Bug::OwnCallCountedTwice => call.request_id = format!("not {}", call.request_id),
                Bug::EventTimeLost => call.time = now,
                _ => {}
            }
        }
        Some(event)
    }

    fn after_deletion(&self, state: &mut State, resource: &StreamEncryption) {
        if self.0 == Bug::LedgerCollected {
            protocol::delete_owned_ledgers(state, resource);
        }
    }
}
