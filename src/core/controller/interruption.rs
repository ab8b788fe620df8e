//! The interruptions of a reconcile.

use jiff::Timestamp;

use super::kube_api::KubeError;

/// Why a reconcile does not end with the time that its decision sets for the next one: a step ends it before its report, or
/// a request to Kubernetes has failed.
pub(super) enum Interruption {
    /// What the reconcile is based on is no longer current: another writer was first, or the process was paused.
    /// All observations and decisions are void, and everything is read from the API server again.
    Outdated,
    /// The decision needs a new description, but this reconcile began with a remembered one. That description also
    /// holds the response of KMS with which the key was resolved, so a new Describe alone does not suffice. The next
    /// reconcile begins without a remembered description.
    RememberedNotFresh,
    /// The reconcile ends here, and the next one follows at this time: at once if it must begin with a new version of the
    /// resource, later if nothing is left to do. At the end of the term, the next leader reconciles the resource.
    Ended(Timestamp),
    /// A request to Kubernetes failed, before the report or for the report itself.
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
