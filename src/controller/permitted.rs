//! What policies allow a namespace, as they are now.

use tracing::warn;

use super::records::{RecordError, Records};
use crate::model::pattern::Own;
use crate::model::permission::{Permission, Policy};

/// Returns the permissions that the policies of a namespace give, as they are now.
pub(super) async fn permission_in<R: Records>(
    records: &R,
    namespace: &str,
    own: Own,
) -> Result<Permission, RecordError> {
    Ok(Permission::of(policies_in(records, namespace).await?, own))
}

/// Reads the policies of a namespace, as they are now.
pub(super) async fn policies_in<R: Records>(
    records: &R,
    namespace: &str,
) -> Result<Vec<Policy>, RecordError> {
    let mut policies = Vec::new();
    for spec in records.policies(namespace).await? {
        let (policy, malformed) = Policy::read(&spec);
        for error in malformed {
            warn!(%error, "what cannot be read of a policy allows nothing; a policy whose role cannot be read, nothing at all");
        }
        policies.extend(policy);
    }
    Ok(policies)
}
