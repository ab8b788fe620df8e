//! What an operator is made of. The faithful parts are the real controller with the two simulated ports; a planted bug
//! wraps one of them (`spoiled`).

use std::sync::Arc;

use stream_encryption_operator::api::stream_encryption::StreamEncryption;
use stream_encryption_operator::aws::Streams;
use stream_encryption_operator::controller::records::Records;
use stream_encryption_operator::controller::{Clock, Decide};

use crate::ports::{Aws, Cluster};
use crate::scene::State;
use crate::tally;

/// The parts of an operator.
pub trait Parts {
    /// Its port to AWS.
    type Aws: Streams;
    /// Its port to Kubernetes.
    type Records: Records;

    /// Its port to AWS.
    fn aws(&self, aws: Aws) -> Self::Aws;
    /// Its port to Kubernetes.
    fn records(&self, records: Cluster) -> Self::Records;
    /// Its decision.
    fn decide(&self) -> Decide {
        tally::noted
    }
    /// Its clock.
    fn clock(&self, clock: Clock) -> Clock {
        clock
    }
    /// A resource as its cache shows it.
    fn cached(&self, resource: &Arc<StreamEncryption>) -> Arc<StreamEncryption> {
        resource.clone()
    }
    /// What happens in Kubernetes when a resource has been deleted.
    fn after_deletion(&self, _state: &mut State, _resource: &StreamEncryption) {}
}

/// The operator as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faithful;

impl Parts for Faithful {
    type Aws = Aws;
    type Records = Cluster;

    fn aws(&self, aws: Aws) -> Aws {
        aws
    }

    fn records(&self, records: Cluster) -> Cluster {
        records
    }
}
