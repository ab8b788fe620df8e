//! The permissions that the policies of a namespace grant.

use tracing::warn;

use super::kube_api::{KubeApi, KubeError, ReadFrom};
use crate::model::arn::AwsAccount;
use crate::model::permission::{EffectivePolicy, Policy};

/// Reads the policies of a namespace, and combines what they grant. The word `own` in a policy without a role stands for
/// `operator_account`.
pub(super) async fn permission_in<R: KubeApi>(
    kube: &R,
    namespace: &str,
    operator_account: AwsAccount,
    from: ReadFrom,
) -> Result<EffectivePolicy, KubeError> {
    Ok(EffectivePolicy::of(policies_in(kube, namespace, from).await?, operator_account))
}

/// Reads the policies of a namespace.
pub(super) async fn policies_in<R: KubeApi>(
    kube: &R,
    namespace: &str,
    from: ReadFrom,
) -> Result<Vec<Policy>, KubeError> {
    let mut policies = Vec::new();
    for spec in kube.policies(namespace, from).await? {
        let (policy, malformed) = Policy::read(&spec);
        for error in malformed {
            warn!(%error, "invalid policy: an invalid pattern allows nothing, and a policy with an invalid role allows nothing at all");
        }
        policies.extend(policy);
    }
    Ok(policies)
}
