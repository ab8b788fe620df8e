//! The plan of one run, as a value: the environment, and every operation with its time.
//!
//! A plan is generated from a seed (`generator`), executed by the run, and minimised by removing operations.
//! It has no behaviour, so a failing seed is described completely by its plan.

use jiff::SignedDuration;
use simulated_aws::world::{FailureType, Rule, Settings};
use stream_encryption_api::stream_encryption::{Service, StreamEncryptionSpec};

use crate::aws_events::EventSettings;
use crate::environment::ProcessFailure;
use crate::kubernetes_faults::KubernetesRule;
use crate::policies::Policy;
use crate::store::Name;

/// The time at which the faults end.
pub const FAULTS_END: SignedDuration = SignedDuration::from_hours(14);
/// The time at which every resource must match its spec: the quota window of AWS, the longest backoff and
/// some hours after the faults have ended.
pub const CONVERGENCE_CHECK: SignedDuration = SignedDuration::from_hours(14 + 25 + 7);
/// The end of the run. There must be no writes and no calls between [`CONVERGENCE_CHECK`] and this time.
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
    pub clock_errors: Vec<SignedDuration>,
    /// Maximum normal duration of a request, in microseconds.
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
    /// How AWS's events arrive; `None` if the operator receives none.
    pub events: Option<EventSettings>,
    /// Whether keys become usable when the faults end.
    pub keys_recover: bool,
    /// The operations, each with its time since the start.
    pub operations: Vec<(SignedDuration, Operation)>,
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
    CreationFailed,
    /// It does not exist.
    Missing,
    /// It belongs to another account.
    Foreign,
}

/// An operation of a user or another tool, or a fault. [`Operation::kind`] describes each.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Apply(Name, Box<StreamEncryptionSpec>),
    Retry(Name),
    Delete(Name),
    /// An administrator replaces all policies.
    Policies(Vec<Policy>),
    ExternalStart(usize, usize),
    ExternalStop(usize),
    ExternalCallBurst(usize, u8),
    /// Somebody sends this many forged events about a stream, and invalid messages, to the queue.
    ForgedEvents(usize, u8),
    /// Another caller's attempt fails with this type.
    ExternalFailure(usize, FailureType),
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
    KeyCrd(bool),
    /// The next matching request to AWS has this fault.
    AwsFault(Box<Rule>),
    /// All matching requests to AWS have this fault, for this long.
    AwsOutage(Box<Rule>, SignedDuration),
    /// The next matching request to the API server has this fault.
    KubernetesFault(KubernetesRule),
    /// The API server is down for this long.
    KubernetesDown(SignedDuration),
    /// The operator has no access to ledgers for this long.
    LedgersForbidden(SignedDuration),
    /// A process crashes or pauses after this many requests; the request is executed before the failure, or
    /// not.
    PlannedFailure(usize, u32, bool, ProcessFailure),
    /// A process is killed now, and restarts after this long.
    Kill(usize, SignedDuration),
    /// A replica's clock is set to have this error.
    ClockSet(usize, SignedDuration),
    /// A replica's credentials become another account's, or its own again.
    ForeignCredentials(usize, bool),
    /// A replica's session is no longer renewed, or is renewed again.
    SessionNotRenewed(usize, bool),
    /// A replica's watch lags by this much.
    WatchLag(usize, SignedDuration),
    /// A replica's watch is frozen for this long.
    WatchFrozen(usize, SignedDuration),
    /// A replica's watch loses this many changes.
    WatchDrops(usize, u32),
    /// A replica's watch restarts with a list that is this many changes old.
    WatchBackInTime(usize, usize),
}

/// The actions that a key's policy denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// None.
    None,
    /// The use of the key.
    Use,
    /// `kms:DescribeKey`.
    Describe,
}

impl Operation {
    /// Returns its kind, for the statistics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply(..) => "a user applies a resource",
            Self::Retry(_) => "a user requests a retry",
            Self::Delete(_) => "a user deletes a resource",
            Self::Policies(_) => "an administrator changes the policies",
            Self::ExternalStart(..) => "another caller calls Start",
            Self::ExternalStop(_) => "another caller calls Stop",
            Self::ExternalCallBurst(..) => "another caller uses up the calls",
            Self::ForgedEvents(..) => "somebody forges events",
            Self::ExternalFailure(..) => "another caller's attempt fails",
            Self::StreamDeleted(_) => "a stream is deleted",
            Self::StreamRecreated(_) => "a stream is deleted and created again",
            Self::Reshard(_) => "a stream is resharded",
            Self::KeyDisabled(..) => "a key is disabled or enabled",
            Self::KeyPendingDeletion(..) => "a key's deletion is scheduled or cancelled",
            Self::KeyDenied(..) => "a key's policy changes",
            Self::AliasMoved(_) => "an alias is moved",
            Self::KeyObject(_) => "a key object changes",
            Self::KeyCrd(_) => "the CRD of key objects is installed or removed",
            Self::AwsFault(_) => "AWS fails one request",
            Self::AwsOutage(..) => "AWS fails for a while",
            Self::KubernetesFault(_) => "the API server fails one request",
            Self::KubernetesDown(_) => "the API server is down",
            Self::LedgersForbidden(_) => "permissions on ledgers are revoked",
            Self::PlannedFailure(_, _, _, ProcessFailure::Crash(_)) => "a process is killed within a request",
            Self::PlannedFailure(_, _, _, ProcessFailure::Pause(_)) => "a process is paused within a request",
            Self::Kill(..) => "a process is killed",
            Self::ClockSet(..) => "a clock is set",
            Self::ForeignCredentials(..) => "credentials change to or from another account",
            Self::SessionNotRenewed(..) => "a session is not renewed",
            Self::WatchLag(..) => "a watch lags",
            Self::WatchFrozen(..) => "a watch is frozen",
            Self::WatchDrops(..) => "a watch loses changes",
            Self::WatchBackInTime(..) => "a watch goes back in time",
        }
    }
}
