//! The requests about the Lease that `kube_lease_manager` does not send: they read who holds it, and remove its holder.
//!
//! A holder is removed only from the version of the Lease that was read, so a lease that another replica has acquired or
//! renewed meanwhile stays. This client never acquires or renews a lease.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

/// Attempts to release the lease. One fails if the lease has changed since it was read: by a renewal that was still under way.
const RELEASE_ATTEMPTS: u32 = 3;

/// A client for one Lease, and the identity of this replica.
#[derive(Clone)]
pub(super) struct LeaseClient {
    api: Api<Lease>,
    pub(super) name: String,
    pub(super) identity: String,
}

impl LeaseClient {
    /// Creates a client for the lease `name`. `identity` is that of this replica.
    pub(super) fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity }
    }

    /// Returns the lease; `None` if it does not exist.
    ///
    /// # Errors
    /// The API server does not respond, or refuses the request.
    pub(super) async fn read(&self) -> kube::Result<Option<Lease>> {
        self.api.get_opt(&self.name).await
    }

    /// Returns whether this replica holds a lease.
    pub(super) fn is_own(&self, lease: &LeaseSpec) -> bool {
        holder_of(lease).is_some_and(|holder| *holder == self.identity)
    }

    /// Returns whether the lease exists and no other replica holds it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn no_other_holds_it(&self) -> kube::Result<bool> {
        let Some(lease) = self.read().await? else { return Ok(false) };
        let spec = lease.spec.unwrap_or_default();
        Ok(holder_of(&spec).is_none() || self.is_own(&spec))
    }

    /// Removes this replica as the holder, if it holds the lease, so that the next leader does not have to wait until the
    /// lease expires. Returns `true` if this replica did not hold the lease, or does not any more; `false` if each attempt met
    /// another write, so that it may still hold the lease.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn release(&self) -> kube::Result<bool> {
        for _ in 0..RELEASE_ATTEMPTS {
            let Some(lease) = self.read().await? else { return Ok(true) };
            let is_own = lease.spec.as_ref().is_some_and(|spec| self.is_own(spec));
            if !is_own || self.remove_holder(&lease).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the holder of a lease. Returns `false` if the lease has changed since it was read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn remove_holder(&self, lease: &Lease) -> kube::Result<bool> {
        let nobody = json!({
            "metadata": {"resourceVersion": lease.resource_version()},
            "spec": {"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null},
        });
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&nobody)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Returns the identity of the replica that holds a lease.
pub(super) fn holder_of(lease: &LeaseSpec) -> Option<&String> {
    lease.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::test_server::{Fault, HOLDER, Server, spec_after_renewals};
    use super::*;

    fn lease(server: &std::sync::Arc<Server>, identity: &str) -> LeaseClient {
        LeaseClient::new(server.client(), "system", "operator", identity.to_owned())
    }

    fn held_by(holder: &str) -> Value {
        json!({"holderIdentity": holder})
    }

    #[tokio::test]
    async fn lease_without_another_holder_is_recognized() {
        for (spec, is_free) in [
            (json!({}), true),
            (held_by(""), true),
            (held_by("second"), true),
            (spec_after_renewals(0), false),
        ] {
            let server = Server::new(|_, _| {}, Fault::None);
            server.set_spec(spec);
            assert_eq!(lease(&server, "second").no_other_holds_it().await.unwrap(), is_free);
        }
    }

    #[tokio::test]
    async fn only_the_own_lease_is_released() {
        for (identity, fault, returned, is_held) in [
            (HOLDER, Fault::None, true, false),
            ("second", Fault::None, true, true),
            (HOLDER, Fault::LateRenewal, true, false),
            (HOLDER, Fault::Contention, false, true),
        ] {
            let server = Server::new(|_, _| {}, fault);
            assert_eq!(lease(&server, identity).release().await.unwrap(), returned, "{identity}, {fault:?}");
            assert_eq!(server.is_held(), is_held, "{identity}, {fault:?}");
        }
    }
}
