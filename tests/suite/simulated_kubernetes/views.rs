//! The comparable view of an object: everything that must be the same on both sides. Uids, versions and times
//! are replaced by the order of their first appearance, so that equal values stay equal and different ones
//! different.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use stream_encryption_api::RETRY_ANNOTATION;
use stream_encryption_api::ledger::{StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::{
    StreamEncryption, StreamEncryptionSpec, StreamEncryptionStatus,
};

/// The values that one side has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    uids: Order,
    versions: Order,
    marks: Order,
}

#[derive(Debug, Default)]
struct Order(BTreeMap<String, usize>);

impl Order {
    fn of(&mut self, text: String) -> usize {
        let next = self.0.len();
        *self.0.entry(text).or_insert(next)
    }
}

/// The metadata of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metadata {
    name: Option<String>,
    uid: Option<usize>,
    version: Option<usize>,
    generation: Option<i64>,
    /// Whether the creation time is a whole second, as in Kubernetes.
    created_at_a_second: Option<bool>,
    marked: Option<usize>,
    marked_at_a_second: Option<bool>,
    finalizers: Vec<String>,
    retry: Option<String>,
}

/// A resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resource {
    pub(crate) metadata: Metadata,
    spec: StreamEncryptionSpec,
    status: Option<StreamEncryptionStatus>,
}

/// A ledger.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ledger {
    metadata: Metadata,
    spec: StreamLedgerSpec,
}

/// One change, as a watch delivers it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Added(Resource),
    Modified(Resource),
    Deleted(Resource),
}

impl Shown {
    fn metadata(&mut self, metadata: &ObjectMeta) -> Metadata {
        let whole = |time: Timestamp| time.subsec_nanosecond() == 0;
        let uid = metadata.uid.clone().unwrap_or_default();
        let annotations = metadata.annotations.as_ref();
        Metadata {
            name: metadata.name.clone(),
            uid: metadata.uid.clone().map(|uid| self.uids.of(uid)),
            version: metadata.resource_version.clone().map(|version| self.versions.of(version)),
            generation: metadata.generation,
            created_at_a_second: metadata.creation_timestamp.as_ref().map(|time| whole(time.0)),
            marked: metadata
                .deletion_timestamp
                .as_ref()
                .map(|time| self.marks.of(format!("{uid} {}", time.0))),
            marked_at_a_second: metadata.deletion_timestamp.as_ref().map(|time| whole(time.0)),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            retry: annotations.and_then(|annotations| annotations.get(RETRY_ANNOTATION)).cloned(),
        }
    }

    pub(crate) fn resource(&mut self, resource: &StreamEncryption) -> Resource {
        Resource {
            metadata: self.metadata(&resource.metadata),
            spec: resource.spec.clone(),
            status: resource.status.clone(),
        }
    }

    pub(crate) fn ledger(&mut self, ledger: &StreamLedger) -> Ledger {
        let mut metadata = self.metadata(&ledger.metadata);
        // The store does not receive the creation time of a ledger, which is never read.
        metadata.created_at_a_second = None;
        Ledger { metadata, spec: ledger.spec.clone() }
    }

    /// Returns a resource in its last event. The version of this event is the deletion's on one side and the
    /// last write's on the other, and is never read.
    pub(crate) fn deleted(&mut self, resource: &StreamEncryption) -> Resource {
        let mut resource = resource.clone();
        resource.metadata.resource_version = None;
        self.resource(&resource)
    }
}
