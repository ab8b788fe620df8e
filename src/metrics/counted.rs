//! The two ports, counted: they hand on every request as it is, and count what came of looks, calls and transitions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Metrics;
use crate::api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use crate::api::policy::StreamEncryptionPolicySpec;
use crate::api::stream_encryption::{KeyObjectReference, StreamEncryption, StreamEncryptionStatus};
use crate::aws::{Identity, Signer, Streams, Urgency};
use crate::controller::records::{ENCRYPTION_LEFT_ON, Happening, RecordError, Records, ReferencedKey};
use crate::model::fault::Fault;
use crate::model::key::{Key, KeyFacts, KeyName};
use crate::model::observation::Look;
use crate::model::principal::Principal;
use crate::model::stream::StreamArn;

/// A port that is counted.
pub struct Counted<P> {
    port: P,
    metrics: Metrics,
}

impl<P> Counted<P> {
    /// `port`, counted in `metrics`.
    #[must_use]
    pub fn new(port: P, metrics: Metrics) -> Self {
        Self { port, metrics }
    }

    /// The port itself.
    #[must_use]
    pub fn port(&self) -> &P {
        &self.port
    }

    fn call(&self, stream: &StreamArn, action: Action, outcome: Result<(), Fault>) -> Result<(), Fault> {
        let class = outcome.as_ref().copied().map_err(|fault| fault.class);
        self.metrics.call(stream.service, action, class);
        outcome
    }
}

impl<P: Streams> Streams for Counted<P> {
    async fn answers(&self) -> Result<(), Fault> {
        self.port.answers().await
    }

    async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        let look = self.port.look(stream, by, urgency).await;
        self.metrics.look(stream.service, look.is_ok());
        look
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let outcome = self.port.start(stream, key, by, signer, reserved).await;
        self.call(stream, Action::Start, outcome)
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        let outcome = self.port.stop(stream, in_force, by, signer, reserved).await;
        self.call(stream, Action::Stop, outcome)
    }

    async fn identity(&self) -> Result<Identity, Fault> {
        self.port.identity().await
    }

    async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<KeyFacts>, Fault> {
        self.port.key(stream, name, by, urgency).await
    }

    async fn turn(&self, stream: &StreamArn, action: Action, by: &Principal, signer: &Signer) -> bool {
        self.port.turn(stream, action, by, signer).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        self.port.put_record(stream, record, by, signer).await
    }
}

impl<P: Records> Records for Counted<P> {
    async fn tell(&self, resource: &Owner, happening: &Happening) -> Result<(), RecordError> {
        if let Some((service, after)) = happening.encrypted_after {
            self.metrics.encrypted(service, after);
        }
        if happening.reason == ENCRYPTION_LEFT_ON {
            self.metrics.encryption_left_on();
        }
        let published = self.port.tell(resource, happening).await;
        if published.is_err() {
            self.metrics.event_lost();
        }
        published
    }

    async fn resource(&self, namespace: &str, name: &str) -> Result<Option<StreamEncryption>, RecordError> {
        self.port.resource(namespace, name).await
    }

    async fn ledger(&self, name: &str) -> Result<Option<StreamLedger>, RecordError> {
        self.port.ledger(name).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, RecordError> {
        self.port.ledgers().await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, RecordError> {
        self.port.create_ledger(name, spec).await
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, RecordError> {
        self.port.replace_ledger(ledger).await
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), RecordError> {
        self.port.delete_ledger(ledger).await
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<(), RecordError> {
        self.port.write_status(read, status).await
    }

    async fn set_finalizer(&self, resource: &StreamEncryption, present: bool) -> Result<(), RecordError> {
        self.port.set_finalizer(resource, present).await
    }

    async fn policies(&self, namespace: &str) -> Result<Vec<StreamEncryptionPolicySpec>, RecordError> {
        self.port.policies(namespace).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, RecordError> {
        self.port.referenced_key(namespace, reference).await
    }
}
