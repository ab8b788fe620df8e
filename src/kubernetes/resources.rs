//! User-visible state on the API server: the status and the finalizer. The spec, labels and annotations are
//! never written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, GetParams, Patch, PatchParams, Request};
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_api::{FIELD_MANAGER, FINALIZER};
use stream_encryption_core::controller::kube_api::KubeError;
use tokio::sync::Semaphore;

use super::policies::TrimmedNamespace;
use super::request::{none_if_missing, send_then_acquire};
use super::trimmed::Trimmed;

/// Reads a resource, live, without the metadata that the operator does not use. Returns `None` also if its namespace does not
/// exist.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<StreamEncryption>, KubeError> {
    let api: Api<Trimmed<StreamEncryption>> = Api::namespaced(client.clone(), namespace);
    match none_if_missing(api.get(name)).await {
        // The API server checks permissions first. If the operator has permissions in some namespaces only, they are deleted
        // with the namespace, and the API server then answers 403 for an object there.
        Err(KubeError::Rejected(_)) if is_missing_namespace(client, namespace).await => Ok(None),
        found => Ok(found?.map(|read| read.0)),
    }
}

/// Returns whether the API server reports that a namespace does not exist. An error is no such report.
async fn is_missing_namespace(client: &Client, namespace: &str) -> bool {
    let api: Api<TrimmedNamespace> = Api::all(client.clone());
    matches!(none_if_missing(api.get(namespace)).await, Ok(None))
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
    permits: &Semaphore,
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
        send_then_acquire::<Versioned>(client, request, permits).await
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
    client: &Client,
    permits: &Semaphore,
    metadata: &ObjectMeta,
    present: bool,
) -> Result<Option<String>, KubeError> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let requests = Request::new(StreamEncryption::url_path(&(), metadata.namespace.as_deref()));
    let request = requests.get_metadata(name, &GetParams::default());
    let Some(current) = metadata_of(client, permits, request).await? else { return Ok(None) };
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
    let request = requests.patch_metadata(name, &as_operator(), &Patch::Merge(&body));
    let Some(written) = metadata_of(client, permits, request).await? else { return Ok(None) };
    let is_present = written.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if is_present != present {
        return Err(KubeError::Rejected("a webhook of the API server has undone the change".to_owned()));
    }
    Ok(Some(written.metadata.resource_version.unwrap_or_default()))
}

/// The finalizers of an object, and its version. The other metadata may be such that it cannot be parsed.
#[derive(Deserialize)]
struct WithFinalizers {
    metadata: Finalizers,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finalizers {
    resource_version: Option<String>,
    finalizers: Option<Vec<String>>,
}

/// Sends a request that is answered with the metadata of a resource.
async fn metadata_of(
    client: &Client,
    permits: &Semaphore,
    request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<Option<WithFinalizers>, KubeError> {
    none_if_missing(async {
        send_then_acquire(client, request.map_err(kube::Error::BuildRequest)?, permits).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use axum::Router;
    use axum::http::{Method, StatusCode, Uri};
    use futures_util::poll;

    use super::*;

    /// Returns a client of a server that holds a resource with the finalizers `before`, and with `after` once it is changed.
    fn client(before: &'static [&'static str], after: &'static [&'static str]) -> Client {
        let handler = async move |method: Method| {
            let finalizers = if method == Method::PATCH { after } else { before };
            json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "orders", "resourceVersion": "1", "finalizers": finalizers},
            })
            .to_string()
        };
        Client::new(Router::new().fallback(handler), "default")
    }

    fn read() -> ObjectMeta {
        ObjectMeta {
            name: Some("orders".to_owned()),
            namespace: Some("data".to_owned()),
            resource_version: Some("1".to_owned()),
            ..ObjectMeta::default()
        }
    }

    const OTHER: &str = "example.com/other";

    #[tokio::test]
    async fn finalizer_that_a_webhook_changes_back_is_refused() {
        for (before, present, after, is_refused) in [
            (&[OTHER][..], true, &[OTHER, FINALIZER][..], false),
            (&[OTHER], true, &[OTHER], true),
            (&[OTHER, FINALIZER], false, &[OTHER], false),
            (&[OTHER, FINALIZER], false, &[FINALIZER], true),
        ] {
            let changed = set_finalizer(&client(before, after), &Semaphore::new(1), &read(), present).await;
            assert_eq!(matches!(changed, Err(KubeError::Rejected(_))), is_refused, "{changed:?}");
        }
    }

    #[tokio::test]
    async fn forbidden_resource_of_a_deleted_namespace_is_missing() {
        let forbidden = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"});
        let gone = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no",
            "details": {"name": "data"}});
        let exists = json!({"metadata": {"name": "data"}});
        for (namespace, is_gone) in [(&gone, true), (&forbidden, false), (&exists, false)] {
            let (namespace, resource) = (namespace.clone(), forbidden.clone());
            let answer = async move |uri: Uri| {
                let answer = if uri.path() == "/api/v1/namespaces/data" { namespace } else { resource };
                let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
                (StatusCode::from_u16(code).unwrap(), answer.to_string())
            };
            let client = Client::new(Router::new().fallback(answer), "default");
            let answer = super::read(&client, "data", "orders").await;
            assert_eq!(matches!(answer, Ok(None)), is_gone, "{answer:?}");
            assert!(is_gone || matches!(answer, Err(KubeError::Rejected(_))), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn write_that_waits_for_a_webhook_holds_no_permit() {
        let handler = async |method: Method| {
            if method == Method::PATCH {
                std::future::pending::<()>().await;
            }
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "orders", "resourceVersion": "1"}})
            .to_string()
        };
        let client = Client::new(Router::new().fallback(handler), "default");
        let permits = Semaphore::new(1);
        let (metadata, status) = (read(), json!({}));
        let mut status = pin!(write_status::<StreamEncryption>(&client, &permits, &metadata, &status));
        let mut finalizer = pin!(set_finalizer(&client, &permits, &metadata, true));
        for _ in 0..100 {
            assert!(poll!(&mut status).is_pending() && poll!(&mut finalizer).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(permits.available_permits(), 1);
    }
}
