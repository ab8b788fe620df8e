//! Why a step ends a reconcile before its report.

use super::kube_api::KubeError;

/// Why a step ends a reconcile before its report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// What the reconcile is based on is no longer current: another writer was first, or it is too old. All
    /// observations and decisions are void, and everything is read from the API server again.
    Outdated,
    /// A request to Kubernetes failed.
    Kubernetes(KubeError),
}

impl From<KubeError> for Interruption {
    fn from(error: KubeError) -> Self {
        match error {
            KubeError::Conflict => Self::Outdated,
            other => Self::Kubernetes(other),
        }
    }
}
