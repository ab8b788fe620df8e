//! Kubernetes: the port [`Records`] on the API server. Reads are live; writes are in two files only.
//!
//! [`resources`] writes what users see (status, events, the finalizer), [`ledgers`] the operator's own records. Every
//! request has a deadline, and the client does not retry by itself: the next visit does, with what is true then.

use std::future::Future;
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use kube::runtime::events::{Recorder, Reporter};

use crate::api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use crate::api::stream_encryption::{KeyObjectReference, StreamEncryption, StreamEncryptionStatus};
use crate::controller::records::{Happening, RecordError, Records, ReferencedKey};

pub mod keys;
mod ledgers;
mod resources;

/// How long any request may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// The field manager of everything that the operator writes.
const MANAGER: &str = "stream-encryption-operator";

/// The API server, as the operator uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    ledgers: Api<StreamLedger>,
    recorder: Recorder,
}

impl Cluster {
    /// A cluster whose ledgers lie in the namespace `ledger_namespace`.
    #[must_use]
    pub fn new(client: Client, ledger_namespace: &str) -> Self {
        let ledgers = Api::namespaced(client.clone(), ledger_namespace);
        let recorder = Recorder::new(client.clone(), Reporter::from(MANAGER));
        Self { client, ledgers, recorder }
    }

    fn resources(&self, namespace: &str) -> Api<StreamEncryption> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl Records for Cluster {
    async fn resource(&self, namespace: &str, name: &str) -> Result<Option<StreamEncryption>, RecordError> {
        resources::read(&self.resources(namespace), name).await
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

    async fn write_status(&self, resource: &Owner, status: &StreamEncryptionStatus) -> Result<(), RecordError> {
        resources::write_status(&self.resources(&resource.namespace), resource, status).await
    }

    async fn tell(&self, resource: &Owner, happening: &Happening) {
        resources::tell(&self.recorder, resource, happening).await;
    }

    async fn set_finalizer(&self, resource: &StreamEncryption, present: bool) -> Result<(), RecordError> {
        let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
        resources::set_finalizer(&self.resources(namespace), resource, present).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, RecordError> {
        keys::arn(&self.client, namespace, reference).await
    }
}

/// A request with its deadline, and its error in our words.
async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RecordError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(answer) => answer.map_err(|error| told(&error)),
        Err(_) => Err(RecordError::Unavailable(format!("within {} s", DEADLINE.as_secs()))),
    }
}

/// The same, for something that may not be there.
async fn ask_for<T>(request: impl Future<Output = kube::Result<T>>) -> Result<Option<T>, RecordError> {
    let request = async {
        match request.await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    ask(request).await
}

fn told(error: &kube::Error) -> RecordError {
    match error {
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => RecordError::Conflict,
        kube::Error::Api(status) if status.code >= 500 || status.code == 429 => {
            RecordError::Unavailable(status.message.clone())
        }
        // 401 comes while the API server restarts or a token is renewed.
        kube::Error::Api(status) if status.code == 401 => RecordError::Unavailable(status.message.clone()),
        kube::Error::Api(status) => RecordError::Unusable(status.message.clone()),
        kube::Error::SerdeError(error) => RecordError::Unusable(format!("it is not of the expected form: {error}")),
        other => RecordError::Unavailable(other.to_string()),
    }
}
