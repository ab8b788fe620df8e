//! The faults of a run with a list of choices, and the points at which each can be injected.
//!
//! This module defines the faults and converts each to the form of the part that it affects. The list selects
//! the faults.

use jiff::SignedDuration;
use simulated_aws::world::{FailureType, Fault as AwsFault};
use stream_encryption_core::model::service::Operation as AwsOperation;

use crate::environment::{PlannedFailure, ProcessFailure};
use crate::kubernetes_faults::{KubernetesFault, KubernetesRequest};

/// The downtime of a killed process.
const DOWNTIME: SignedDuration = SignedDuration::from_secs(1);

/// A request of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessRequest {
    /// A permit of the rate limiter.
    Permit,
    /// A request to AWS.
    Aws(AwsOperation),
    /// A request to the API server.
    Kubernetes(KubernetesRequest),
}

/// A point at which a fault can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// A process that has sent this request.
    Process(ProcessRequest),
    /// AWS, at this request.
    Aws(AwsOperation),
    /// The API server, at this request.
    Kubernetes(KubernetesRequest),
    /// The transport of this write to the API server.
    KubernetesWrite(KubernetesRequest),
    /// A replica's watch that delivers a change of a resource.
    Watch,
    /// A replica's cache of the ledgers.
    LedgerCache,
}

/// A fault that a list of choices injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// The process is killed as soon as its write or call has been executed, and restarts a second later. A
    /// crash before the execution equals a crash after the previous write or call.
    Crash,
    /// The process is paused for this many seconds before its call or write is executed.
    PauseBefore(i64),
    /// The process is paused for this many seconds before it reads the response.
    PauseAfter(i64),
    /// The process's clock is set to an error of this many hours.
    ClockSet(i64),
    /// AWS executes a call, and its response is lost.
    ResponseLost,
    /// A call is lost.
    RequestLost,
    /// A call has no response, and arrives this many seconds later.
    DelayedCall(i64),
    /// AWS refuses a call with `LimitExceededException`.
    LimitExceeded,
    /// AWS accepts a call, and the stream ends in `ENABLING_FAILED` or `DISABLING_FAILED`.
    FailsLater,
    /// AWS completes a call before it responds.
    ImmediateCompletion,
    /// A Describe returns the state of this many seconds ago.
    StaleRead(i64),
    /// A Describe has no response.
    NoResponse,
    /// The API server refuses a write.
    WriteRefused,
    /// The API server executes a write, and its response is lost.
    WriteResponseLost,
    /// The API server executes a write this many seconds after its sender has timed out.
    DelayedWrite(i64),
    /// A replica's watch of the resources delivers nothing for this many seconds.
    WatchLag(i64),
    /// The cache of the ledgers lacks the last change.
    StaleLedgerCache,
}

/// Returns whether an operation is a Start or Stop.
fn is_call(operation: AwsOperation) -> bool {
    matches!(
        operation,
        AwsOperation::StartDeliveryStreamEncryption
            | AwsOperation::StopDeliveryStreamEncryption
            | AwsOperation::StartStreamEncryption
            | AwsOperation::StopStreamEncryption
    )
}

/// Returns whether an operation describes a stream.
fn is_stream_describe(operation: AwsOperation) -> bool {
    matches!(operation, AwsOperation::DescribeDeliveryStream | AwsOperation::DescribeStreamSummary)
}

impl InjectedFault {
    /// Returns whether the fault is possible at a point.
    pub fn is_possible_at(self, fault_point: FaultPoint) -> bool {
        let is_write = |request| match request {
            ProcessRequest::Aws(operation) => is_call(operation),
            ProcessRequest::Kubernetes(request) => request.writes(),
            ProcessRequest::Permit => false,
        };
        match (self, fault_point) {
            (Self::Crash | Self::PauseBefore(_), FaultPoint::Process(request)) => is_write(request),
            (Self::PauseAfter(_) | Self::ClockSet(_), FaultPoint::Process(request)) => {
                request != ProcessRequest::Permit
            }
            (
                Self::ResponseLost
                | Self::RequestLost
                | Self::DelayedCall(_)
                | Self::LimitExceeded
                | Self::FailsLater
                | Self::ImmediateCompletion,
                FaultPoint::Aws(operation),
            ) => is_call(operation),
            (Self::StaleRead(_) | Self::NoResponse, FaultPoint::Aws(operation)) => {
                is_stream_describe(operation)
            }
            (Self::WriteRefused | Self::WriteResponseLost, FaultPoint::Kubernetes(request))
            | (Self::DelayedWrite(_), FaultPoint::KubernetesWrite(request)) => request.writes(),
            (Self::WatchLag(_), FaultPoint::Watch) | (Self::StaleLedgerCache, FaultPoint::LedgerCache) => {
                true
            }
            _ => false,
        }
    }

    /// Returns the failure of the process.
    pub fn planned_failure(self) -> Option<PlannedFailure> {
        let (executed, failure) = match self {
            Self::Crash => (true, ProcessFailure::Crash(DOWNTIME)),
            Self::PauseBefore(seconds) => (false, ProcessFailure::Pause(SignedDuration::from_secs(seconds))),
            Self::PauseAfter(seconds) => (true, ProcessFailure::Pause(SignedDuration::from_secs(seconds))),
            _ => return None,
        };
        Some(PlannedFailure { after: 0, executed, failure })
    }

    /// Returns the fault in the form of the simulated AWS.
    pub fn to_aws(self) -> Option<AwsFault> {
        Some(match self {
            Self::ResponseLost | Self::NoResponse => AwsFault::LoseReply,
            Self::RequestLost => AwsFault::LoseRequest,
            Self::DelayedCall(seconds) => AwsFault::Late { by: SignedDuration::from_secs(seconds) },
            Self::LimitExceeded => AwsFault::Refuse {
                code: "LimitExceededException".to_owned(),
                message: String::new(),
                status: 400,
            },
            Self::FailsLater => AwsFault::FailsLater { failure: FailureType::KmsAccessDenied },
            Self::ImmediateCompletion => AwsFault::Takes { time: SignedDuration::ZERO },
            Self::StaleRead(seconds) => AwsFault::ReadLag { by: SignedDuration::from_secs(seconds) },
            _ => return None,
        })
    }

    /// Returns the fault in the form of the simulated API server.
    pub fn to_kubernetes(self) -> Option<KubernetesFault> {
        match self {
            Self::WriteRefused => Some(KubernetesFault::Refused),
            Self::WriteResponseLost => Some(KubernetesFault::ResponseLost),
            _ => None,
        }
    }

    /// Returns its kind, for the statistics; `None` if the affected part counts it.
    pub fn kind(self) -> Option<&'static str> {
        Some(match self {
            Self::Crash => "a process is killed within a request",
            Self::PauseBefore(_) | Self::PauseAfter(_) => "a process is paused within a request",
            Self::ClockSet(_) => "a clock is set",
            Self::WatchLag(_) => "a watch lags",
            Self::StaleLedgerCache => "a cache of the ledgers lacks the last change",
            _ => return None,
        })
    }

    /// Returns the delay of a write or of a watch.
    pub fn delay(self) -> Option<SignedDuration> {
        match self {
            Self::DelayedWrite(seconds) | Self::WatchLag(seconds) => Some(SignedDuration::from_secs(seconds)),
            _ => None,
        }
    }
}
