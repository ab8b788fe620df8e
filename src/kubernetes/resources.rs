//! User-visible state on the API server: the status and the finalizer. The spec, labels and annotations are
//! never written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, Request};
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_api::{FIELD_MANAGER, FINALIZER};
use stream_encryption_core::controller::kube_api::KubeError;

use super::request::none_if_missing;
use super::trimmed::Trimmed;

/// Reads a resource, live, without the metadata that the operator does not use.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<StreamEncryption>, KubeError> {
    let api: Api<Trimmed<StreamEncryption>> = Api::namespaced(client.clone(), namespace);
    Ok(none_if_missing(api.get(name)).await?.map(|read| read.0))
}

/// Replaces the whole status, if the resource is still the version that was read. A status that was computed for an
/// earlier version, or before the process was paused, therefore does not overwrite what others have written since.
///
/// This is not a server-side apply, which would keep the fields of other field managers: after a restore, or
/// once `managedFields` are lost, old conditions and times would stay beside the operator's own. It is not an
/// update either. An update without the labels keeps the labels, but removes their field managers: if the user later
/// applies the resource without a label, the label would stay. A JSON patch changes the status only. The spec may be
/// invalid, so only the version is read from the response; `None` means that the resource does not exist.
pub(super) async fn write_status<K: Resource<DynamicType = ()>>(
    client: &Client,
    metadata: &ObjectMeta,
    status: &impl Serialize,
) -> Result<Option<String>, KubeError> {
    let (name, namespace) = (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref());
    let operations = json!([
        // The API server compares this version with the stored one.
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
        {"op": "add", "path": "/status", "value": status},
    ]);
    let request = async {
        let operations = serde_json::from_value(operations).map_err(kube::Error::SerdeError)?;
        let request = Request::new(K::url_path(&(), namespace))
            .patch_subresource("status", name, &as_operator(), &Patch::Json::<()>(operations))
            .map_err(kube::Error::BuildRequest)?;
        client.request::<Versioned>(request).await
    };
    Ok(none_if_missing(request).await?.map(|written| written.metadata.resource_version))
}

/// The version of an object, in the API server's response.
#[derive(Deserialize)]
struct Versioned {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

/// Returns the parameters of a patch by the operator's field manager.
fn as_operator() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Adds or removes the finalizer, if the resource is still the version that was read, and returns the new
/// version; `None` if the resource does not exist. The finalizers of others are read first, because they are
/// not kept in the cache. Only metadata is requested: the spec may be invalid. A webhook that undoes the change counts as a
/// refusal.
pub(super) async fn set_finalizer(
    api: &Api<StreamEncryption>,
    metadata: &ObjectMeta,
    present: bool,
) -> Result<Option<String>, KubeError> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let Some(current) = none_if_missing(api.get_metadata(name)).await? else { return Ok(None) };
    if current.metadata.resource_version != metadata.resource_version {
        return Err(KubeError::Conflict);
    }
    let mut finalizers = current.metadata.finalizers.unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if present {
        finalizers.push(FINALIZER.to_owned());
    }
    let body = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": metadata.resource_version,
    }});
    let written = none_if_missing(api.patch_metadata(name, &as_operator(), &Patch::Merge(&body))).await?;
    let Some(written) = written else { return Ok(None) };
    let is_present = written.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if is_present != present {
        return Err(KubeError::Rejected("a webhook of the API server has undone the change".to_owned()));
    }
    Ok(Some(written.metadata.resource_version.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::Method;

    use super::*;

    /// Returns the API of a server that holds a resource with the finalizers `before`, and with `after` once it is changed.
    fn api(before: &'static [&'static str], after: &'static [&'static str]) -> Api<StreamEncryption> {
        let handler = async move |method: Method| {
            let finalizers = if method == Method::PATCH { after } else { before };
            json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "orders", "resourceVersion": "1", "finalizers": finalizers},
            })
            .to_string()
        };
        Api::namespaced(Client::new(Router::new().fallback(handler), "default"), "data")
    }

    const OTHER: &str = "example.com/other";

    #[tokio::test]
    async fn finalizer_that_a_webhook_changes_back_is_refused() {
        let name = Some("orders".to_owned());
        let read = ObjectMeta { name, resource_version: Some("1".to_owned()), ..ObjectMeta::default() };
        for (before, present, after, is_refused) in [
            (&[OTHER][..], true, &[OTHER, FINALIZER][..], false),
            (&[OTHER], true, &[OTHER], true),
            (&[OTHER, FINALIZER], false, &[OTHER], false),
            (&[OTHER, FINALIZER], false, &[FINALIZER], true),
        ] {
            let changed = set_finalizer(&api(before, after), &read, present).await;
            assert_eq!(matches!(changed, Err(KubeError::Rejected(_))), is_refused, "{changed:?}");
        }
    }
}
