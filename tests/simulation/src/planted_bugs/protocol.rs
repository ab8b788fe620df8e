//! Bugs in the protocol: the order of the reservation and the call, the order of the ledger and the Describe, and a
//! ledger that does not outlive its resource.
//!
//! They change when a write or a Describe happens, and what the controller is told of it. The controller is the real one.

use std::sync::{Mutex, PoisonError};

use stream_encryption_api::ledger::{Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription};
use stream_encryption_core::model::principal::Principal;

use crate::environment::{Polled, State};
use crate::policies::Act;
use crate::ports::{Aws, Cluster};

/// A Describe, or the error.
type Look = Option<(StreamDescription, Signer)>;

/// The Describes of an operator that describes a stream before it reads the ledger.
#[derive(Debug, Default)]
pub(super) struct EarlyLooks {
    /// The stream that was described last, and for whom.
    last: Mutex<Option<(StreamArn, Principal)>>,
    /// The Describe of the reconcile in progress, by its task.
    early: Mutex<Option<(usize, Look)>>,
}

impl EarlyLooks {
    /// Describes the stream at the start of a reconcile.
    pub(super) async fn look(&self, aws: &Aws) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((stream, principal)) = last else { return };
        let (task, allowed) = {
            let state = aws.link().scene.state();
            let Polled { task, name: Some((namespace, name)) } = &state.polled else { return };
            let allow = |act| state.policies.allowed_since(state.now, namespace, &principal, &stream, act);
            (*task, *name == principal.resource && allow(&Act::Look))
        };
        // The bug is the order only.
        if !allowed {
            return;
        }
        let seen = aws.describe_stream(&stream, &principal, Priority::Changing).await.ok();
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = seen.map(|seen| (task, seen));
    }

    /// Returns the Describe from the start of this reconcile, if there was one.
    pub(super) fn take(&self, aws: &Aws, stream: &StreamArn, principal: &Principal) -> Option<Look> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((stream.clone(), principal.clone()));
        let task = aws.link().scene.state().polled.task;
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        early.filter(|(of, _)| *of == task).map(|(_, look)| look)
    }
}

/// Returns a Describe in which ENABLING is shown as ENABLED, with the key of the last call.
pub(super) fn completed(look: Look, asked: Option<&Key>) -> Look {
    let (mut look, signer) = look?;
    if let (ReportedEncryption::Enabling, Some(asked)) = (&look.encryption, asked) {
        look.encryption = ReportedEncryption::On(asked.clone());
    }
    Some((look, signer))
}

/// Writes a ledger, but not a reservation: its entry is written with the outcome of the call.
pub(super) async fn write_afterwards(
    cluster: &Cluster,
    ledger: &StreamLedger,
) -> Result<StreamLedger, KubeError> {
    if ledger.spec.calls.iter().any(|call| call.outcome == Outcome::Pending) {
        return Ok(ledger.clone());
    }
    if ledger.metadata.resource_version.is_some() {
        return cluster.replace_ledger(ledger).await;
    }
    let name = ledger.metadata.name.as_deref().unwrap_or_default();
    cluster.create_ledger(name, &ledger.spec).await
}

/// Collects the ledgers that a deleted resource owned, as if they had an owner reference.
pub(super) fn collect(state: &mut State, resource: &StreamEncryption) {
    let owned = |ledger: &&StreamLedger| Some(&ledger.spec.owner.uid) == resource.metadata.uid.as_ref();
    let names: Vec<_> =
        state.store.ledgers().filter(owned).filter_map(|ledger| ledger.metadata.name.clone()).collect();
    let now = state.now;
    for name in names {
        state.story.tell(now, || format!("the ledger {name} is collected with its owner"));
        state.store.lose_ledger(&name);
    }
}
