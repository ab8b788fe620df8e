//! The two ports, counted: they forward every request unchanged, and count the outcomes of Describes, calls
//! and events.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;

use super::Metrics;

/// A port whose requests are counted.
pub struct Counted<P> {
    port: P,
    metrics: Metrics,
}

impl<P> Counted<P> {
    /// Wraps `port`, and counts in `metrics`.
    #[must_use]
    pub fn new(port: P, metrics: Metrics) -> Self {
        Self { port, metrics }
    }

    /// Returns the port itself.
    #[must_use]
    pub fn port(&self) -> &P {
        &self.port
    }

    fn call(
        &self,
        stream: &StreamArn,
        action: Action,
        outcome: Result<(), AwsError>,
    ) -> Result<(), AwsError> {
        let kind = outcome.as_ref().copied().map_err(|error| error.kind);
        self.metrics.call(stream.service, action, kind);
        outcome
    }
}

impl<P: StreamApi> StreamApi for Counted<P> {
    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.port.verify_clock().await
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let look = self.port.describe_stream(stream, principal, priority).await;
        self.metrics.look(stream.service, look.is_ok());
        look
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        let outcome = self.port.start(stream, key, principal, signer, reserved).await;
        self.call(stream, Action::Start, outcome)
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        let outcome = self.port.stop(stream, active_key, principal, signer, reserved).await;
        self.call(stream, Action::Stop, outcome)
    }

    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        self.port.identity().await
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.port.describe_key(stream, name, principal, priority).await
    }

    async fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.port.acquire_permit(stream, action, principal, signer).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        self.port.put_record(stream, record, principal, signer).await
    }
}

impl<P: KubeApi> KubeApi for Counted<P> {
    async fn publish_event(&self, resource: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        let published = self.port.publish_event(resource, event).await;
        if published.is_err() {
            self.metrics.event_lost();
        }
        published
    }

    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        self.port.resource(namespace, name, from).await
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        self.port.ledger(name, from).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, KubeError> {
        self.port.ledgers().await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        self.port.create_ledger(name, spec).await
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        self.port.replace_ledger(ledger).await
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.port.delete_ledger(ledger).await
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        self.port.write_status(read, status).await
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        self.port.set_finalizer(read, present).await
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        self.port.policies(namespace, from).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        self.port.referenced_key(namespace, reference).await
    }
}
