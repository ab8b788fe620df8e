//! The wiring of an operator: the real controller with the two simulated ports. A planted bug wraps one of
//! these parts (`planted_bugs`).

use jiff::Timestamp;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::KubeApi;
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{Clock, Decide};
use stream_encryption_core::model::aws_event::{self, AwsEvent};

use crate::environment::State;
use crate::ports::{AwsPort, KubernetesPort};
use crate::statistics;

/// Creates the parts of an operator.
pub trait Wiring {
    /// Its port to AWS.
    type StreamApi: StreamApi;
    /// Its port to Kubernetes.
    type KubeApi: KubeApi;

    /// Creates its port to AWS.
    fn stream_api(&self, port: AwsPort) -> Self::StreamApi;
    /// Creates its port to Kubernetes.
    fn kube_api(&self, port: KubernetesPort) -> Self::KubeApi;
    /// Returns its decision function.
    fn decide(&self) -> Decide {
        statistics::decide_and_record
    }
    /// Returns the clock of the operator.
    fn clock(&self, clock: Clock) -> Clock {
        clock
    }
    /// Returns the event of a message, which the operator receives at `now`.
    fn parse_event(&self, message: &str, _now: Timestamp) -> Option<AwsEvent> {
        aws_event::parse(message).ok()
    }
    /// Simulates the reaction of Kubernetes to the deletion of a resource.
    fn after_deletion(&self, _state: &mut State, _resource: &StreamEncryption) {}
}

/// The operator without a planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unmodified;

impl Wiring for Unmodified {
    type StreamApi = AwsPort;
    type KubeApi = KubernetesPort;

    fn stream_api(&self, port: AwsPort) -> AwsPort {
        port
    }

    fn kube_api(&self, port: KubernetesPort) -> KubernetesPort {
        port
    }
}
