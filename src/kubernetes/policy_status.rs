//! Writes the status of policies. The rest of a policy belongs to administrators, and is never written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use stream_encryption_api::policy::{StreamEncryptionPolicy, StreamEncryptionPolicyStatus};
use stream_encryption_core::controller::kube_api::KubeError;
use tokio::sync::Semaphore;

use super::resources;

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
