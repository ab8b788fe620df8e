//! Kubernetes for a plan: the operator's own reads, with the policies of the person's files in place of those that are
//! stored. Every write returns an error, and is never sent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};

use crate::kubernetes::Cluster;

/// The cluster as it would be with the files applied.
pub(super) struct PlannedCluster {
    /// The operator's own access.
    pub(super) cluster: Cluster,
    /// Whether the ledgers are known. Without them, the calls that the status reports are counted as made now.
    pub(super) reads_ledgers: bool,
}

fn not_written<T>() -> Result<T, KubeError> {
    Err(KubeError::Rejected("a plan writes nothing".to_owned()))
}

impl KubeApi for PlannedCluster {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        self.cluster.resource(namespace, name, from).await
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        if !self.reads_ledgers {
            return Ok(None);
        }
        self.cluster.ledger(name, from).await
    }

    async fn ledgers(&self, after: Option<&str>) -> Result<LedgerPage, KubeError> {
        self.cluster.ledgers(after).await
    }

    async fn create_ledger(&self, _: &str, _: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        not_written()
    }

    async fn replace_ledger(&self, _: &StreamLedger) -> Result<StreamLedger, KubeError> {
        not_written()
    }

    async fn delete_ledger(&self, _: &StreamLedger) -> Result<(), KubeError> {
        not_written()
    }

    async fn write_status(
        &self,
        _: &ObjectMeta,
        _: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        not_written()
    }

    async fn publish_event(&self, _: &Owner, _: &ReconcileEvent) -> Result<(), KubeError> {
        not_written()
    }

    async fn set_finalizer(&self, _: &ObjectMeta, _: bool) -> Result<Option<String>, KubeError> {
        not_written()
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        self.cluster.policies(namespace, from).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        self.cluster.referenced_key(namespace, reference).await
    }
}
