//! Kubernetes: the port [`Records`] on the API server. Reads are live; writes are in three files only.
//!
//! `resources` writes the status and the finalizer, `events` what happened, `ledgers` the operator's own records. Every
//! request has a deadline, and the client does not retry by itself: the next visit does, with what is true then.

use std::sync::Arc;

use events::Recorder;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use crate::api::policy::StreamEncryptionPolicySpec;
use crate::api::stream_encryption::{KeyObjectReference, StreamEncryption, StreamEncryptionStatus};
use crate::controller::records::{Happening, RecordError, Records, ReferencedKey};

mod ask;
pub mod connection;
mod events;
pub mod keys;
mod ledgers;
pub mod policies;
mod presence;
mod resources;
mod trimmed;
pub mod watches;

/// The API server, as the operator uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    ledgers: Api<StreamLedger>,
    default_policy: Option<StreamEncryptionPolicySpec>,
    recorder: Arc<Recorder>,
    turns: Arc<Semaphore>,
}

/// How many objects that others write are read at a time, each of which may have 1.5 MB. More visits than these wait for AWS at a
/// time, and each of them would hold one.
const LARGE_OBJECTS: usize = 8;

impl Cluster {
    /// A cluster whose ledgers lie in the namespace `ledger_namespace`. The default policy counts like one that is stored there.
    #[must_use]
    pub fn new(
        client: Client,
        ledger_namespace: &str,
        default_policy: Option<StreamEncryptionPolicySpec>,
    ) -> Self {
        let ledgers = Api::namespaced(client.clone(), ledger_namespace);
        let recorder = Arc::new(Recorder::new(client.clone()));
        Self { client, ledgers, default_policy, recorder, turns: Arc::new(Semaphore::new(LARGE_OBJECTS)) }
    }

    /// A turn to read an object that others write.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, RecordError> {
        match tokio::time::timeout(ask::DEADLINE, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(RecordError::Unavailable("all requests wait for an answer".to_owned())),
        }
    }

    fn resources(&self, namespace: &str) -> Api<StreamEncryption> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl Records for Cluster {
    async fn resource(&self, namespace: &str, name: &str) -> Result<Option<StreamEncryption>, RecordError> {
        let _turn = self.turn().await?;
        resources::read(&self.client, namespace, name).await
    }

    async fn ledger(&self, name: &str) -> Result<Option<StreamLedger>, RecordError> {
        ledgers::read(&self.ledgers, name).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, RecordError> {
        ledgers::list(&self.ledgers).await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, RecordError> {
        ledgers::create(&self.ledgers, name, spec).await
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, RecordError> {
        ledgers::replace(&self.ledgers, ledger).await
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), RecordError> {
        ledgers::delete(&self.ledgers, ledger).await
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<(), RecordError> {
        let _turn = self.turn().await?;
        resources::write_status(&self.client, read, status).await
    }

    async fn tell(&self, resource: &Owner, happening: &Happening) -> Result<(), RecordError> {
        self.recorder.publish(resource, happening).await
    }

    async fn set_finalizer(&self, resource: &StreamEncryption, present: bool) -> Result<(), RecordError> {
        let _turn = self.turn().await?;
        let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
        resources::set_finalizer(&self.resources(namespace), resource, present).await
    }

    async fn policies(&self, namespace: &str) -> Result<Vec<StreamEncryptionPolicySpec>, RecordError> {
        let _turn = self.turn().await?;
        policies::of(&self.client, self.default_policy.as_ref(), namespace).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, RecordError> {
        let _turn = self.turn().await?;
        keys::arn(&self.client, namespace, reference).await
    }
}
