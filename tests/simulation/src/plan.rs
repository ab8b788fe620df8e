//! The plan of one run, as a value: what the world is like, and everything that happens to it, with its time.
//!
//! A plan comes from a seed (`dice`), is carried out by the run, and can be made smaller by taking happenings away. It holds no
//! behaviour, so what a failing seed tells is complete.

use jiff::SignedDuration;
use simulated_aws::world::{FailureType, Rule, Settings};
use stream_encryption_operator::api::stream_encryption::{Service, StreamEncryptionSpec};

use crate::faults::KubernetesRule;
use crate::policies::Allowed;
use crate::scene::Fate;
use crate::store::Name;

/// When the faults end.
pub const CALM: SignedDuration = SignedDuration::from_hours(14);
/// When everything must be as asked for: AWS's day, the longest backoff and some hours after the faults have ended.
pub const RECKONING: SignedDuration = SignedDuration::from_hours(14 + 25 + 7);
/// The end: in between nothing may happen any more.
pub const END: SignedDuration = SignedDuration::from_hours(14 + 25 + 7 + 4);

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where it comes from, and the seed of how long each request takes.
    pub seed: u64,
    /// How AWS behaves.
    pub settings: Settings,
    /// How many replicas run.
    pub replicas: usize,
    /// How far each replica's clock is off.
    pub clocks: Vec<SignedDuration>,
    /// The longest that a request usually takes, in microseconds.
    pub latency: u64,
    /// How often the operator looks for drift.
    pub drift_interval: SignedDuration,
    /// The calls that a stream gets in 24 hours.
    pub max_calls: u32,
    /// Whether the first policy, which allows all of the operator's account, allows to turn encryption off.
    pub allow_disable: bool,
    /// Whether the operator has credentials with a session.
    pub sessions: bool,
    /// The streams.
    pub streams: Vec<PlannedStream>,
    /// Whether keys are mended when the faults end.
    pub keys_are_mended: bool,
    /// What happens, by time since the beginning.
    pub happenings: Vec<(SignedDuration, Happening)>,
}

/// A stream at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStream {
    /// The service.
    pub service: Service,
    /// The name.
    pub name: String,
    /// What is special about it.
    pub kind: StreamKind,
}

/// What may be special about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Nothing.
    Plain,
    /// It is encrypted with a key of somebody's choice already.
    Encrypted,
    /// Nobody knows what is in force: an attempt of somebody else failed.
    FailedBefore,
    /// Its source is not `DirectPut`.
    NotDirectPut,
    /// It could not be made.
    Broken,
    /// It does not exist.
    Missing,
    /// It is another account's.
    Foreign,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A user applies a resource.
    Apply(Name, Box<StreamEncryptionSpec>),
    /// A user asks for a retry.
    Retry(Name),
    /// A user deletes a resource.
    Delete(Name),
    /// An administrator replaces all policies.
    Policies(Vec<Allowed>),
    /// Somebody calls Start behind the operator's back.
    OutsiderStarts(usize, usize),
    /// Somebody calls Stop behind the operator's back.
    OutsiderStops(usize),
    /// Somebody uses up calls of a stream.
    OutsiderBurns(usize, u8),
    /// Somebody's own attempt failed for this reason.
    OutsiderFails(usize, FailureType),
    /// A stream is deleted.
    StreamDeleted(usize),
    /// A stream is deleted and made again.
    StreamRecreated(usize),
    /// A Kinesis stream is resharded.
    Reshard(usize),
    /// A key is disabled, or enabled again.
    KeyDisabled(usize, bool),
    /// A key is scheduled for deletion, or saved.
    KeyPendingDeletion(usize, bool),
    /// A key's policy denies its use to all, or allows it again.
    KeyDenied(usize, Denial),
    /// An alias is pointed at a key.
    AliasMoved(usize),
    /// The object that `key.ref` names shows a key, or none.
    KeyObject(Option<usize>),
    /// The kind of that object is installed, or not.
    KeyKind(bool),
    /// AWS does this to the next request that fits.
    Aws(Box<Rule>),
    /// AWS does this to all requests that fit, for so long.
    AwsFor(Box<Rule>, SignedDuration),
    /// The API server does this to the next request that fits.
    Kubernetes(KubernetesRule),
    /// The API server is down for so long.
    KubernetesDown(SignedDuration),
    /// The operator may not touch ledgers for so long.
    Forbidden(SignedDuration),
    /// A process crashes or stands still, after so many requests; the request is carried out or not.
    Doom(usize, u32, bool, Fate),
    /// A process is killed now.
    Kill(usize, SignedDuration),
    /// A replica's clock is set to be this far off.
    ClockSet(usize, SignedDuration),
    /// A replica's credentials are another account's, or its own again.
    Credentials(usize, bool),
    /// Nobody renews a replica's session any more, or somebody does again.
    SessionStuck(usize, bool),
    /// A replica's watch lags this far behind.
    WatchLag(usize, SignedDuration),
    /// A replica's watch tells nothing for so long.
    WatchFrozen(usize, SignedDuration),
    /// A replica's watch loses so many changes.
    WatchDrops(usize, u32),
    /// A replica begins anew with a list that is so many changes old.
    WatchBackInTime(usize, usize),
}

/// What a key's policy denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nothing.
    Nothing,
    /// That it is used.
    Use,
    /// That it is looked at.
    Describe,
}

impl Happening {
    /// Its kind, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply(..) => "a user applies a resource",
            Self::Retry(_) => "a user asks for a retry",
            Self::Delete(_) => "a user deletes a resource",
            Self::Policies(_) => "an administrator changes the policies",
            Self::OutsiderStarts(..) => "somebody else calls Start",
            Self::OutsiderStops(_) => "somebody else calls Stop",
            Self::OutsiderBurns(..) => "somebody else uses up the calls",
            Self::OutsiderFails(..) => "somebody else's attempt fails",
            Self::StreamDeleted(_) => "a stream is deleted",
            Self::StreamRecreated(_) => "a stream is deleted and made again",
            Self::Reshard(_) => "a stream is resharded",
            Self::KeyDisabled(..) => "a key is disabled or enabled",
            Self::KeyPendingDeletion(..) => "a key is to be deleted, or saved",
            Self::KeyDenied(..) => "a key's policy changes",
            Self::AliasMoved(_) => "an alias is moved",
            Self::KeyObject(_) => "a key object changes",
            Self::KeyKind(_) => "the kind of key objects comes or goes",
            Self::Aws(_) => "AWS fails one request",
            Self::AwsFor(..) => "AWS fails for a while",
            Self::Kubernetes(_) => "the API server fails one request",
            Self::KubernetesDown(_) => "the API server is down",
            Self::Forbidden(_) => "rights on ledgers are taken away",
            Self::Doom(_, _, _, Fate::Crash(_)) => "a process is killed within a request",
            Self::Doom(_, _, _, Fate::Pause(_)) => "a process stands still within a request",
            Self::Kill(..) => "a process is killed",
            Self::ClockSet(..) => "a clock is set",
            Self::Credentials(..) => "credentials of another account come or go",
            Self::SessionStuck(..) => "a session is not renewed",
            Self::WatchLag(..) => "a watch lags",
            Self::WatchFrozen(..) => "a watch is frozen",
            Self::WatchDrops(..) => "a watch loses changes",
            Self::WatchBackInTime(..) => "a watch goes back in time",
        }
    }
}
