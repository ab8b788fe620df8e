//! The checks immediately before a change: what the decision is based on must still be current.
//!
//! A reconcile reads from caches, and may wait for minutes before it changes anything. These checks ask the API
//! server, so that neither a stale cache nor a revoked permission leads to a call. They only read. The ledger
//! needs no check before it is written: the API server compares the version that was read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::has_finalizer;
use stream_encryption_api::stream_encryption::StreamEncryption;

use super::annotations::{is_suspended, retry_token};
use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, ReadFrom};
use super::ledger_store::{self, resource_identity};
use super::policies::permission_in;
use super::state::ReconcileState;
use super::stream_api::StreamApi;
use crate::model::permission::EffectivePolicy;

/// Returns [`Interruption::Outdated`] if the live resource is no longer the one on which the decision is based.
pub(super) async fn ensure_spec_unchanged<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
) -> Result<(), Interruption> {
    let me = resource_identity(resource);
    let live = context
        .kube
        .resource(&me.namespace, &me.name, ReadFrom::ApiServer)
        .await?
        .ok_or(Interruption::Outdated)?;
    // While the resource is not being deleted, its finalizer does not matter: another client that removes the finalizer must not
    // prevent the call.
    let is_held = |read: &ObjectMeta| read.deletion_timestamp.is_none() || has_finalizer(read);
    let same = live.metadata.uid == resource.metadata.uid
        && live.metadata.generation == resource.metadata.generation
        && live.metadata.deletion_timestamp == resource.metadata.deletion_timestamp
        && is_held(&live.metadata) == is_held(&resource.metadata)
        && is_suspended(&live) == is_suspended(resource)
        && retry_token(&live) == retry_token(resource);
    if same { Ok(()) } else { Err(Interruption::Outdated) }
}

/// Returns [`Interruption::Outdated`] if the live policies no longer grant exactly the permissions on which the
/// decision is based, so that a revoked permission is not used.
pub(super) async fn ensure_policies_unchanged<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    permission: &EffectivePolicy,
) -> Result<(), Interruption> {
    let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
    let operator_account = permission.own_account().clone();
    let live = permission_in(&context.kube, namespace, operator_account, ReadFrom::ApiServer).await?;
    if live == *permission { Ok(()) } else { Err(Interruption::Outdated) }
}

/// Returns [`Interruption::Outdated`] if the write of the ledger would take the stream over from an owner that holds it
/// again: its policy may have been away only for a moment.
pub(super) async fn ensure_owner_lost_stream<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    state: &ReconcileState,
) -> Result<(), Interruption> {
    let Some(owner) = state.ledger.replaced_owner() else { return Ok(()) };
    let holds = ledger_store::holds(&context.kube, owner, &state.spec.claim()).await?;
    if holds { Err(Interruption::Outdated) } else { Ok(()) }
}
