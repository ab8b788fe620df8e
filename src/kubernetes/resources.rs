//! What users see, on the API server: the status and the finalizer. The spec, labels and annotations are never written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams, Request};
use kube::{Client, Resource};
use serde::de::IgnoredAny;
use serde_json::json;

use super::ask::ask_for;
use super::trimmed::Trimmed;
use crate::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use crate::api::{FIELD_MANAGER, FINALIZER};
use crate::controller::records::RecordError;

/// A resource, live, without the metadata that the operator does not use.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<StreamEncryption>, RecordError> {
    let api: Api<Trimmed<StreamEncryption>> = Api::namespaced(client.clone(), namespace);
    Ok(ask_for(api.get(name)).await?.map(|read| read.0))
}

/// Replaces the whole status, if the resource is still the version that was read: what was seen of another version, or before a
/// pause, is not written over what others have said since.
///
/// It is no server-side apply, which leaves in place what another field manager wrote: after a restore, or once managedFields
/// are lost, old conditions and times would stay beside the operator's own. A replaced `/status` leaves the rest of the object
/// as it is, so the spec, which may be one that cannot be read, is left out; and nothing is read of the answer.
pub(super) async fn write_status(
    client: &Client,
    read: &ObjectMeta,
    status: &StreamEncryptionStatus,
) -> Result<(), RecordError> {
    let (name, namespace) = (read.name.as_deref().unwrap_or_default(), read.namespace.as_deref());
    let body = json!({
        "apiVersion": StreamEncryption::api_version(&()),
        "kind": StreamEncryption::kind(&()),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": read.uid,
            "resourceVersion": read.resource_version,
        },
        "status": status,
    });
    let parameters = PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) };
    let request = async {
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        let url = StreamEncryption::url_path(&(), namespace);
        let request = Request::new(url)
            .replace_subresource("status", name, &parameters, body)
            .map_err(kube::Error::BuildRequest)?;
        client.request::<IgnoredAny>(request).await
    };
    ask_for(request).await.map(|_| ())
}

/// Adds or removes the finalizer, if the list of finalizers is still the one that was read.
pub(super) async fn set_finalizer(
    api: &Api<StreamEncryption>,
    resource: &StreamEncryption,
    present: bool,
) -> Result<(), RecordError> {
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let mut finalizers = resource.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if present {
        finalizers.push(FINALIZER.to_owned());
    }
    let body = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": resource.metadata.resource_version,
    }});
    ask_for(api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await.map(|_| ())
}
