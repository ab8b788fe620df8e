//! The parts of an operator. The faithful parts are the real controller with the two simulated ports; a
//! planted bug wraps one of them (`spoiled`).

use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::KubeApi;
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{Clock, Decide};

use crate::environment::State;
use crate::ports::{Aws, Cluster};
use crate::stats;

/// The parts of an operator.
pub trait Parts {
    /// Its port to AWS.
    type Aws: StreamApi;
    /// Its port to Kubernetes.
    type KubeApi: KubeApi;

    /// Creates its port to AWS.
    fn aws(&self, aws: Aws) -> Self::Aws;
    /// Creates its port to Kubernetes.
    fn records(&self, records: Cluster) -> Self::KubeApi;
    /// Returns its decision function.
    fn decide(&self) -> Decide {
        stats::noted
    }
    fn clock(&self, clock: Clock) -> Clock {
        clock
    }
    /// Runs in Kubernetes when a resource has been deleted.
    fn after_deletion(&self, _state: &mut State, _resource: &StreamEncryption) {}
}

/// The operator without a planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faithful;

impl Parts for Faithful {
    type Aws = Aws;
    type KubeApi = Cluster;

    fn aws(&self, aws: Aws) -> Aws {
        aws
    }

    fn records(&self, records: Cluster) -> Cluster {
        records
    }
}
