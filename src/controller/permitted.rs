//! The permissions that the current policies of a namespace grant.

use tracing::warn;

use super::kube_api::{KubeApi, KubeError};
use crate::model::pattern::AwsAccount;
use crate::model::permission::{EffectivePolicy, Policy};

/// Returns the permissions that the current policies of a namespace grant.
pub(super) async fn permission_in<R: KubeApi>(
    records: &R,
    namespace: &str,
    own: AwsAccount,
) -> Result<EffectivePolicy, KubeError> {
    Ok(EffectivePolicy::of(policies_in(records, namespace).await?, own))
}

/// Reads the current policies of a namespace.
pub(super) async fn policies_in<R: KubeApi>(records: &R, namespace: &str) -> Result<Vec<Policy>, KubeError> {
    let mut policies = Vec::new();
    for spec in records.policies(namespace).await? {
        let (policy, malformed) = Policy::read(&spec);
        for error in malformed {
            warn!(%error, "invalid policy: an invalid pattern allows nothing, and a policy with an invalid role allows nothing at all");
        }
        policies.extend(policy);
    }
    Ok(policies)
}
