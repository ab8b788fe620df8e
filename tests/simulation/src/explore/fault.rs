//! The faults that a run with a list of choices can have, and the places where each is possible.
//!
//! It names the faults and translates each into the form of the part that it hits. It decides nothing: the list
//! selects.

use jiff::SignedDuration;
use simulated_aws::world::{FailureType, Fault as AwsFault};
use stream_encryption_core::model::service::Operation;

use crate::environment::{Doom, Fate};
use crate::faults::{KubernetesFault, Request};

/// How long a killed process is down.
const DOWNTIME: SignedDuration = SignedDuration::from_secs(1);

/// A request of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A permit of the rate limiter.
    Permit,
    /// A request to AWS.
    Aws(Operation),
    /// A request to the API server.
    Kubernetes(Request),
}

/// A place where a fault is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A process that has sent this request.
    Process(Asked),
    /// AWS, at this request.
    Aws(Operation),
    /// The API server, at this request.
    Kubernetes(Request),
    /// The way of this write to the API server.
    Written(Request),
    /// A replica's watch that delivers a change of a resource.
    Watch,
    /// A replica's cache of the ledgers.
    LedgerCache,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed as soon as its write or call is carried out, and restarts a second later. Killed
    /// before, it is killed after the write or call before that one.
    Crash,
    /// The process is paused for this many seconds before its call or write is carried out.
    PauseBefore(i64),
    /// The process is paused for this many seconds before it reads the answer.
    PauseAfter(i64),
    /// The process's clock is set, and is off by this many hours.
    ClockSet(i64),
    /// AWS carries out a call, and its answer is lost.
    AnswerLost,
    /// A call is lost.
    RequestLost,
    /// A call has no answer, and arrives this many seconds later.
    Late(i64),
    /// AWS refuses a call with `LimitExceededException`.
    LimitExceeded,
    /// AWS accepts a call, and ends in `ENABLING_FAILED` or `DISABLING_FAILED`.
    Fails,
    /// AWS completes a call before it answers.
    DoneAtOnce,
    /// A Describe shows the state of this many seconds ago.
    OldAnswer(i64),
    /// A Describe has no answer.
    NoAnswer,
    /// The API server refuses a write.
    WriteRefused,
    /// The API server carries out a write, and its answer is lost.
    WriteUnheard,
    /// The API server carries out a write this many seconds after its sender has given up.
    WriteLate(i64),
    /// A replica's watch of the resources delivers nothing for this many seconds.
    WatchLags(i64),
    /// The cache of the ledgers lacks the last change.
    LedgerOutdated,
}

fn is_change(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::StartDeliveryStreamEncryption
            | Operation::StopDeliveryStreamEncryption
            | Operation::StartStreamEncryption
            | Operation::StopStreamEncryption
    )
}

fn describes_a_stream(operation: Operation) -> bool {
    matches!(operation, Operation::DescribeDeliveryStream | Operation::DescribeStreamSummary)
}

impl Fault {
    /// Returns whether the fault is possible at a place.
    pub fn is_possible(self, place: Place) -> bool {
        let changes = |asked| match asked {
            Asked::Aws(operation) => is_change(operation),
            Asked::Kubernetes(request) => request.writes(),
            Asked::Permit => false,
        };
        match (self, place) {
            (Self::Crash | Self::PauseBefore(_), Place::Process(asked)) => changes(asked),
            (Self::PauseAfter(_) | Self::ClockSet(_), Place::Process(asked)) => asked != Asked::Permit,
            (
                Self::AnswerLost
                | Self::RequestLost
                | Self::Late(_)
                | Self::LimitExceeded
                | Self::Fails
                | Self::DoneAtOnce,
                Place::Aws(of),
            ) => is_change(of),
            (Self::OldAnswer(_) | Self::NoAnswer, Place::Aws(of)) => describes_a_stream(of),
            (Self::WriteRefused | Self::WriteUnheard, Place::Kubernetes(request))
            | (Self::WriteLate(_), Place::Written(request)) => request.writes(),
            (Self::WatchLags(_), Place::Watch) | (Self::LedgerOutdated, Place::LedgerCache) => true,
            _ => false,
        }
    }

    /// Returns the fate of the process.
    pub fn doom(self) -> Option<Doom> {
        let (carried_out, fate) = match self {
            Self::Crash => (true, Fate::Crash(DOWNTIME)),
            Self::PauseBefore(time) => (false, Fate::Pause(SignedDuration::from_secs(time))),
            Self::PauseAfter(time) => (true, Fate::Pause(SignedDuration::from_secs(time))),
            _ => return None,
        };
        Some(Doom { after: 0, carried_out, fate })
    }

    /// Returns the fault in the form of the simulated AWS.
    pub fn of_aws(self) -> Option<AwsFault> {
        Some(match self {
            Self::AnswerLost | Self::NoAnswer => AwsFault::LoseReply,
            Self::RequestLost => AwsFault::LoseRequest,
            Self::Late(by) => AwsFault::Late { by: SignedDuration::from_secs(by) },
            Self::LimitExceeded => AwsFault::Refuse {
                code: "LimitExceededException".to_owned(),
                message: String::new(),
                status: 400,
            },
            Self::Fails => AwsFault::FailsLater { failure: FailureType::KmsAccessDenied },
            Self::DoneAtOnce => AwsFault::Takes { time: SignedDuration::ZERO },
            Self::OldAnswer(by) => AwsFault::ReadLag { by: SignedDuration::from_secs(by) },
            _ => return None,
        })
    }

    /// Returns the fault in the form of the simulated API server.
    pub fn of_kubernetes(self) -> Option<KubernetesFault> {
        match self {
            Self::WriteRefused => Some(KubernetesFault::Refused),
            Self::WriteUnheard => Some(KubernetesFault::AnswerLost),
            _ => None,
        }
    }

    /// Returns its kind, for the statistics; `None` if the part that it hits counts it.
    pub fn kind(self) -> Option<&'static str> {
        Some(match self {
            Self::Crash => "a process is killed within a request",
            Self::PauseBefore(_) | Self::PauseAfter(_) => "a process is paused within a request",
            Self::ClockSet(_) => "a clock is set",
            Self::WatchLags(_) => "a watch lags",
            Self::LedgerOutdated => "a cache of the ledgers lacks the last change",
            _ => return None,
        })
    }

    /// Returns how late a write is carried out, or a watch delivers.
    pub fn lateness(self) -> Option<SignedDuration> {
        match self {
            Self::WriteLate(by) | Self::WatchLags(by) => Some(SignedDuration::from_secs(by)),
            _ => None,
        }
    }
}
