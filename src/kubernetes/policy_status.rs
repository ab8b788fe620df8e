//! Reads and writes the status of policies. The rest of a policy belongs to administrators, and is never written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Request};
use kube::{Client, Resource as _};
use serde::Deserialize;
use serde_json::Value;
use stream_encryption_api::policy::{StreamEncryptionPolicy, StreamEncryptionPolicyStatus};
use stream_encryption_core::controller::kube_api::KubeError;
use tokio::sync::Semaphore;

use super::request::with_timeout;
use super::resources;

/// A list of policies, of which only the statuses are parsed: a spec may be invalid.
#[derive(Deserialize)]
struct Statuses {
    items: Vec<WithStatus>,
}

#[derive(Deserialize)]
struct WithStatus {
    #[serde(default)]
    status: Value,
}

/// Reads the status of a policy, live. A missing status, and one that is invalid, are returned as an empty one.
pub async fn read(client: &Client, name: &str) -> Result<StreamEncryptionPolicyStatus, KubeError> {
    // The operator's role permits it to list policies, but not to get one.
    let only = ListParams::default().fields(&format!("metadata.name={name}"));
    let listed = with_timeout(async {
        let request = Request::new(StreamEncryptionPolicy::url_path(&(), None)).list(&only);
        client.request::<Statuses>(request.map_err(kube::Error::BuildRequest)?).await
    });
    let status = listed.await?.items.into_iter().next().map(|policy| policy.status).unwrap_or_default();
    Ok(serde_json::from_value(status).unwrap_or_default())
}

/// Replaces the status of the policy with this metadata, if the policy is still that version.
pub async fn write(
    client: &Client,
    metadata: &ObjectMeta,
    status: &StreamEncryptionPolicyStatus,
) -> Result<(), KubeError> {
    // The permits limit the large objects that users write. Only administrators write the content of policies, and the
    // operator writes the status of one policy at a time, so a permit of its own suffices.
    let permits = Semaphore::new(1);
    resources::write_status::<StreamEncryptionPolicy>(client, &permits, metadata, status).await.map(drop)
}
