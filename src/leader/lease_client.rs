//! The requests about one Lease.
//!
//! Each write names the version that was read, so the API server accepts it only if nobody has written the Lease since then.
//! Two replicas that write at the same time cannot both acquire it. The times that this client writes are for people and other
//! tools: no replica compares them with its clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kubernetes::is_missing_object;

/// Validity of the lease after its last renewal, in seconds. A replica that fails is replaced after this time.
const LEASE_SECONDS: u16 = 30;
/// Validity of the lease after its last renewal.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(LEASE_SECONDS as u64);

/// The number of attempts to renew or release the lease. An attempt fails if somebody has written the lease since it was read.
const ATTEMPTS: u32 = 3;

/// A client for one Lease, and the identity of this replica.
#[derive(Clone)]
pub(super) struct LeaseClient {
    api: Api<Lease>,
    pub(super) name: String,
    identity: String,
}

/// The lease while this replica holds it.
pub(super) struct HeldLease {
    lease: Lease,
    /// When this replica began the request that last renewed the lease. No other replica can have read this renewal earlier.
    pub(super) renewed_at: Instant,
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
        match self.api.get(&self.name).await {
            Err(kube::Error::Api(status)) if is_missing_object(&status) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Returns the replica that holds a lease, if it is another one. An empty name is no holder.
    pub(super) fn other_holder<'a>(&self, lease: &'a Lease) -> Option<&'a str> {
        holder_of(lease).filter(|holder| *holder != self.identity)
    }

    fn is_own(&self, lease: &Lease) -> bool {
        holder_of(lease).is_some_and(|holder| holder == self.identity)
    }

    /// Acquires the lease for this replica, whoever holds it. `found` is the lease that was read, or `None` if there was none.
    /// Returns `None` if somebody has written, created or deleted it since then.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn acquire(&self, found: Option<&Lease>) -> kube::Result<Option<HeldLease>> {
        let renewed_at = Instant::now();
        let now = MicroTime(Timestamp::now());
        // As in client-go, a new term of the same replica is no transition.
        let new = i32::from(!found.is_some_and(|lease| self.is_own(lease)));
        let transitions = found.and_then(|lease| lease.spec.as_ref()?.lease_transitions);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_duration_seconds: Some(LEASE_SECONDS.into()),
            lease_transitions: Some(transitions.map_or(0, |transitions| transitions.saturating_add(new))),
            ..LeaseSpec::default()
        };
        let acquired = match found {
            Some(found) => self.patch(found, &json!(spec)).await?,
            None => self.create(spec).await?,
        };
        Ok(acquired.map(|lease| HeldLease { lease, renewed_at }))
    }

    /// Renews the lease that this replica holds. Returns `None` if this replica does not hold it any more. If somebody else wrote
    /// the lease during each attempt and this replica still holds it, returns it as it was read last, not renewed.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn renew(&self, held: &HeldLease) -> kube::Result<Option<HeldLease>> {
        let mut last_read = held.lease.clone();
        for _ in 0..ATTEMPTS {
            let renewed_at = Instant::now();
            let now = MicroTime(Timestamp::now());
            let spec = json!({"renewTime": now, "leaseDurationSeconds": LEASE_SECONDS});
            if let Some(lease) = self.patch(&last_read, &spec).await? {
                return Ok(Some(HeldLease { lease, renewed_at }));
            }
            let Some(found) = self.read().await?.filter(|lease| self.is_own(lease)) else { return Ok(None) };
            last_read = found;
        }
        Ok(Some(HeldLease { lease: last_read, renewed_at: held.renewed_at }))
    }

    /// Removes this replica as the holder, if it holds the lease, so that the next leader does not have to wait until the
    /// lease expires. Returns `true` if this replica did not hold the lease, or does not any more; `false` if somebody wrote it
    /// during each attempt, so that this replica may still hold it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) async fn release(&self) -> kube::Result<bool> {
        let nobody = json!({
            "holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null,
        });
        for _ in 0..ATTEMPTS {
            let Some(lease) = self.read().await?.filter(|lease| self.is_own(lease)) else { return Ok(true) };
            if self.patch(&lease, &nobody).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Creates the lease. Returns `None` if it exists.
    async fn create(&self, spec: LeaseSpec) -> kube::Result<Option<Lease>> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        match self.api.create(&PostParams::default(), &lease).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            created => created.map(Some),
        }
    }

    /// Changes fields of the spec. Returns `None` if the lease is not the one that was read any more.
    async fn patch(&self, read: &Lease, spec: &Value) -> kube::Result<Option<Lease>> {
        let patch = json!({"metadata": {"resourceVersion": read.resource_version()}, "spec": spec});
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_conflict() || is_missing_object(&status) => Ok(None),
            patched => patched.map(Some),
        }
    }
}

fn holder_of(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{FIRST, Reply, Server, held_by};
    use super::*;

    async fn read(lease: &LeaseClient) -> Lease {
        lease.read().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn lease_is_acquired_renewed_and_released() {
        for stored in [None, Some(json!({})), Some(held_by("", 0)), Some(held_by("second", 0))] {
            let server = Server::new(stored.clone(), |_, _, _| Reply::Answered);
            let lease = server.lease(FIRST);
            let found = lease.read().await.unwrap();
            assert_eq!(found.is_some(), stored.is_some());
            let held = lease.acquire(found.as_ref()).await.unwrap().unwrap();
            assert_eq!(server.holder().as_deref(), Some(FIRST));
            let held = lease.renew(&held).await.unwrap().unwrap();
            assert!(held.lease.spec.unwrap().renew_time > read(&lease).await.spec.unwrap().acquire_time);
            let found = read(&lease).await;
            let transitions = found.spec.as_ref().and_then(|spec| spec.lease_transitions);
            let again = lease.acquire(Some(&found)).await.unwrap().unwrap();
            assert_eq!(again.lease.spec.unwrap().lease_transitions, transitions, "the same replica");
            assert!(lease.release().await.unwrap());
            assert_eq!(server.holder(), None);
        }
    }

    #[tokio::test]
    async fn lease_that_another_replica_holds_is_not_released() {
        let server = Server::new(Some(held_by(FIRST, 0)), |_, _, _| Reply::Answered);
        assert!(server.lease("second").release().await.unwrap());
        assert_eq!(server.holder().as_deref(), Some(FIRST));
    }

    #[tokio::test]
    async fn lease_that_was_written_since_the_read_is_not_changed() {
        let server = Server::new(Some(held_by(FIRST, 0)), |_, request, lease| {
            // Another client writes the lease just before each write.
            lease.version += u64::from(request != "GET");
            Reply::Answered
        });
        let second = server.lease("second");
        assert!(second.acquire(Some(&read(&second).await)).await.unwrap().is_none());
        // This replica holds it, and learns the new version.
        let first = server.lease(FIRST);
        let renewed_at = Instant::now();
        let held = HeldLease { lease: read(&first).await, renewed_at };
        assert_eq!(first.renew(&held).await.unwrap().map(|held| held.renewed_at), Some(renewed_at));
        assert!(!first.release().await.unwrap());
        assert_eq!(server.holder().as_deref(), Some(FIRST));
    }

    #[tokio::test]
    async fn lease_that_exists_meanwhile_is_not_created() {
        let server = Server::new(Some(held_by(FIRST, 0)), |_, _, _| Reply::Answered);
        assert!(server.lease("second").acquire(None).await.unwrap().is_none());
        assert_eq!(server.holder().as_deref(), Some(FIRST));
    }

    #[tokio::test]
    async fn lease_that_was_taken_or_deleted_is_not_renewed() {
        for now in [Some(held_by("second", 0)), None] {
            let server = Server::new(Some(held_by(FIRST, 0)), |_, _, _| Reply::Answered);
            let first = server.lease(FIRST);
            let held = HeldLease { lease: read(&first).await, renewed_at: Instant::now() };
            server.set(now.clone());
            assert!(first.renew(&held).await.unwrap().is_none(), "{now:?}");
        }
    }
}
