//! The plan of one run, as a value: the environment, and every event with its time.
//!
//! A plan is generated from a seed (`dice`), executed by the run, and made smaller by removing events. It has
//! no behaviour, so a failing seed is described completely by its plan.

use jiff::SignedDuration;
use simulated_aws::world::{FailureType, Rule, Settings};
use stream_encryption_api::stream_encryption::{Service, StreamEncryptionSpec};

use crate::environment::Fate;
use crate::faults::KubernetesRule;
use crate::policies::Allowed;
use crate::store::Name;

/// The time at which the faults end.
pub const CALM: SignedDuration = SignedDuration::from_hours(14);
/// The time at which everything must match its spec: the quota window of AWS, the longest backoff and some
/// hours after the faults have ended.
pub const RECKONING: SignedDuration = SignedDuration::from_hours(14 + 25 + 7);
/// The end. There must be no writes and no calls between [`RECKONING`] and this time.
pub const END: SignedDuration = SignedDuration::from_hours(14 + 25 + 7 + 4);

/// The plan of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The seed of the plan, and of the duration of each request.
    pub seed: u64,
    /// The behaviour of AWS.
    pub settings: Settings,
    /// The number of replicas.
    pub replicas: usize,
    /// The error of each replica's clock.
    pub clocks: Vec<SignedDuration>,
    /// Maximum usual duration of a request, in microseconds.
    pub latency: u64,
    pub drift_interval: SignedDuration,
    /// The number of calls per stream in 24 hours.
    pub max_calls: u32,
    /// Whether the first policy, which allows everything in the operator's account, allows disabling
    /// encryption.
    pub allow_disable: bool,
    /// Whether the operator has session credentials.
    pub sessions: bool,
    pub streams: Vec<PlannedStream>,
    /// Whether keys become usable when the faults end.
    pub keys_are_mended: bool,
    /// The events, each with its time since the start.
    pub happenings: Vec<(SignedDuration, Happening)>,
}

/// A stream in its initial state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStream {
    pub service: Service,
    pub name: String,
    /// Its special property.
    pub kind: StreamKind,
}

/// The special property of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// None.
    Plain,
    /// Another caller has already encrypted it with a customer managed key.
    Encrypted,
    /// The active key is unknown: an attempt by another caller has failed.
    FailedBefore,
    /// Its source is not `DirectPut`.
    NotDirectPut,
    /// Its creation failed.
    Broken,
    /// It does not exist.
    Missing,
    /// It belongs to another account.
    Foreign,
}

/// An event; [`Happening::kind`] says what happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    Apply(Name, Box<StreamEncryptionSpec>),
    Retry(Name),
    Delete(Name),
    /// An administrator replaces all policies.
    Policies(Vec<Allowed>),
    OutsiderStarts(usize, usize),
    OutsiderStops(usize),
    OutsiderBurns(usize, u8),
    /// Another caller's attempt fails with this type.
    OutsiderFails(usize, FailureType),
    StreamDeleted(usize),
    StreamRecreated(usize),
    Reshard(usize),
    /// A key is disabled, or enabled again.
    KeyDisabled(usize, bool),
    /// A key is scheduled for deletion, or its deletion is cancelled.
    KeyPendingDeletion(usize, bool),
    /// A key's policy denies an action to all principals, or allows it again.
    KeyDenied(usize, Denial),
    AliasMoved(usize),
    /// The object that `key.objectRef` references contains a key's ARN, or none.
    KeyObject(Option<usize>),
    /// The CRD of that object is installed or removed.
    KeyKind(bool),
    /// The next matching request to AWS has this fault.
    Aws(Box<Rule>),
    /// All matching requests to AWS have this fault, for this long.
    AwsFor(Box<Rule>, SignedDuration),
    /// The next matching request to the API server has this fault.
    Kubernetes(KubernetesRule),
    /// The API server is down for this long.
    KubernetesDown(SignedDuration),
    /// The operator has no access to ledgers for this long.
    Forbidden(SignedDuration),
    /// A process crashes or pauses after this many requests; the request is executed or not.
    Doom(usize, u32, bool, Fate),
    /// A process is killed now, and restarts after this long.
    Kill(usize, SignedDuration),
    /// A replica's clock is set to have this error.
    ClockSet(usize, SignedDuration),
    /// A replica's credentials become another account's, or its own again.
    Credentials(usize, bool),
    /// A replica's session is no longer renewed, or is renewed again.
    SessionStuck(usize, bool),
    /// A replica's watch lags by this much.
    WatchLag(usize, SignedDuration),
    /// A replica's watch is frozen for this long.
    WatchFrozen(usize, SignedDuration),
    /// A replica's watch loses this many changes.
    WatchDrops(usize, u32),
    /// A replica's watch restarts with a list that is this many changes old.
    WatchBackInTime(usize, usize),
}

/// The action that a key's policy denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// None.
    Nothing,
    /// The use of the key.
    Use,
    /// `kms:DescribeKey`.
    Describe,
}

impl Happening {
    /// Returns its kind, for the statistics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply(..) => "a user applies a resource",
            Self::Retry(_) => "a user requests a retry",
            Self::Delete(_) => "a user deletes a resource",
            Self::Policies(_) => "an administrator changes the policies",
            Self::OutsiderStarts(..) => "another caller calls Start",
            Self::OutsiderStops(_) => "another caller calls Stop",
            Self::OutsiderBurns(..) => "another caller uses up the calls",
            Self::OutsiderFails(..) => "another caller's attempt fails",
            Self::StreamDeleted(_) => "a stream is deleted",
            Self::StreamRecreated(_) => "a stream is deleted and created again",
            Self::Reshard(_) => "a stream is resharded",
            Self::KeyDisabled(..) => "a key is disabled or enabled",
            Self::KeyPendingDeletion(..) => "a key's deletion is scheduled or cancelled",
            Self::KeyDenied(..) => "a key's policy changes",
            Self::AliasMoved(_) => "an alias is moved",
            Self::KeyObject(_) => "a key object changes",
            Self::KeyKind(_) => "the CRD of key objects is installed or removed",
            Self::Aws(_) => "AWS fails one request",
            Self::AwsFor(..) => "AWS fails for a while",
            Self::Kubernetes(_) => "the API server fails one request",
            Self::KubernetesDown(_) => "the API server is down",
            Self::Forbidden(_) => "permissions on ledgers are revoked",
            Self::Doom(_, _, _, Fate::Crash(_)) => "a process is killed within a request",
            Self::Doom(_, _, _, Fate::Pause(_)) => "a process is paused within a request",
            Self::Kill(..) => "a process is killed",
            Self::ClockSet(..) => "a clock is set",
            Self::Credentials(..) => "credentials change to or from another account",
            Self::SessionStuck(..) => "a session is not renewed",
            Self::WatchLag(..) => "a watch lags",
            Self::WatchFrozen(..) => "a watch is frozen",
            Self::WatchDrops(..) => "a watch loses changes",
            Self::WatchBackInTime(..) => "a watch goes back in time",
        }
    }
}
