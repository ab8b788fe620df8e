//! Bugs in the protocol: the order of the reservation and the call, the order of the ledger and the Describe,
//! and a ledger that does not outlive its resource.
//!
//! These bugs change the time of a write or a Describe, and the result that the controller receives. The
//! controller is the real one.

use std::sync::{Mutex, PoisonError};

use stream_encryption_api::ledger::{Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription};
use stream_encryption_core::model::principal::Principal;

use crate::environment::{CurrentTask, State};
use crate::policies::Access;
use crate::ports::{AwsPort, KubernetesPort};

/// The result of a Describe; `None` if the stream does not exist.
type Description = Option<(StreamDescription, Signer)>;

/// The Describes of an operator that describes a stream before it reads the ledger.
#[derive(Debug, Default)]
pub(super) struct EarlyDescribes {
    /// The stream that was described last, and the principal.
    last: Mutex<Option<(StreamArn, Principal)>>,
    /// The Describe of the reconcile in progress, by its task.
    early: Mutex<Option<(usize, Description)>>,
}

impl EarlyDescribes {
    /// Describes the stream at the start of a reconcile.
    pub(super) async fn describe(&self, port: &AwsPort) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((stream, principal)) = last else { return };
        let (task, allowed) = {
            let state = port.transport().environment.state();
            let CurrentTask { task, name: Some((namespace, name)) } = &state.current_task else { return };
            let is_allowed =
                |act| state.policies.allowed_since(state.now, namespace, &principal, &stream, act);
            (*task, *name == principal.resource && is_allowed(&Access::Describe))
        };
        // The bug is only the order.
        if !allowed {
            return;
        }
        let described = port.describe_stream(&stream, &principal, Priority::Changing).await.ok();
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) =
            described.map(|described| (task, described));
    }

    /// Returns the Describe from the start of this reconcile, if there was one.
    pub(super) fn take(
        &self,
        port: &AwsPort,
        stream: &StreamArn,
        principal: &Principal,
    ) -> Option<Description> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((stream.clone(), principal.clone()));
        let task = port.transport().environment.state().current_task.task;
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        early.filter(|(early_task, _)| *early_task == task).map(|(_, description)| description)
    }
}

/// Returns a Describe in which ENABLING is shown as ENABLED, with the key of the last call.
pub(super) fn enabling_as_enabled(description: Description, requested_key: Option<&Key>) -> Description {
    let (mut description, signer) = description?;
    if let (ReportedEncryption::Enabling, Some(requested_key)) = (&description.encryption, requested_key) {
        description.encryption = ReportedEncryption::On(requested_key.clone());
    }
    Some((description, signer))
}

/// Writes a ledger, but not a reservation: its entry is written with the outcome of the call.
pub(super) async fn write_after_call(
    port: &KubernetesPort,
    ledger: &StreamLedger,
) -> Result<StreamLedger, KubeError> {
    if ledger.spec.calls.iter().any(|call| call.outcome == Outcome::Pending) {
        return Ok(ledger.clone());
    }
    if ledger.metadata.resource_version.is_some() {
        return port.replace_ledger(ledger).await;
    }
    let name = ledger.metadata.name.as_deref().unwrap_or_default();
    port.create_ledger(name, &ledger.spec).await
}

/// Deletes the ledgers of a deleted resource, as the garbage collector would if they had an owner reference.
pub(super) fn delete_owned_ledgers(state: &mut State, resource: &StreamEncryption) {
    let is_owned = |ledger: &&StreamLedger| Some(&ledger.spec.owner.uid) == resource.metadata.uid.as_ref();
    let names: Vec<_> =
        state.store.ledgers().filter(is_owned).filter_map(|ledger| ledger.metadata.name.clone()).collect();
    let now = state.now;
    for name in names {
        state.trace.record(now, || format!("the ledger {name} is collected with its owner"));
        state.store.remove_ledger(&name);
    }
}
