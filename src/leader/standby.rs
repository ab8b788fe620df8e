//! What a replica does while another one leads: it reads the lease until nobody holds it.
//!
//! The clocks of nodes can differ by more than the lease lasts, so the time in the lease is never compared with a clock, and
//! only shows whether the lease was renewed. As in client-go, a lease has expired if it has not changed for its duration,
//! which this replica measures with its own monotonic clock. This file ends an expired lease, or one of this replica, and never
//! any other.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

/// Time between two reads of the lease. A lease that is released is acquired after at most this time.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// A replica that does not lead.
pub(super) struct Standby {
    api: Api<Lease>,
    lease: String,
    identity: String,
    duration: Duration,
    /// The content of the lease, and when this replica read that content first.
    observed: Option<(LeaseSpec, Instant)>,
}

/// Who holds a lease.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// This replica, in an earlier term or before its container was restarted.
    ThisReplica,
    /// Another replica. The lease has changed within its duration.
    Another,
    /// Another replica. The lease has not changed for its duration.
    Expired,
}

impl Standby {
    /// Creates a standby for this lease, which expires if it is not renewed for `duration`.
    pub(super) fn new(
        client: Client,
        namespace: &str,
        lease: &str,
        identity: String,
        duration: Duration,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, lease: lease.to_owned(), identity, duration, observed: None }
    }

    /// Returns once nobody holds the lease, or the lease does not exist. `on_read` is called after each successful
    /// read.
    ///
    /// # Errors
    /// The API server does not respond, or refuses the request.
    pub(super) async fn wait(&mut self, on_read: impl Fn()) -> kube::Result<()> {
        loop {
            let Some(lease) = self.api.get_opt(&self.lease).await? else { return Ok(()) };
            on_read();
            match self.holder(&lease, Instant::now()) {
                Holder::Nobody => return Ok(()),
                // The lease of this replica ends, too: the library would take it over without a write. A replica that cannot
                // write would lead again and again, and a restarted one could lead on a lease that is about to expire.
                Holder::ThisReplica | Holder::Expired if self.remove_holder(&lease).await? => return Ok(()),
                Holder::Another | Holder::ThisReplica | Holder::Expired => {}
            }
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }

    /// Returns whether the lease exists and no other replica holds it.
    ///
    /// # Errors
    /// As [`Standby::wait`].
    pub(super) async fn no_other_holds_lease(&self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(&self.lease).await? else { return Ok(false) };
        let spec = lease.spec.unwrap_or_default();
        Ok(holder_of(&spec).is_none_or(|holder| *holder == self.identity))
    }

    fn holder(&mut self, lease: &Lease, now: Instant) -> Holder {
        let spec = lease.spec.clone().unwrap_or_default();
        match holder_of(&spec) {
            None => return Holder::Nobody,
            Some(holder) if *holder == self.identity => return Holder::ThisReplica,
            Some(_) => {}
        }
        match &self.observed {
            Some((known, since)) if *known == spec => {
                if now.duration_since(*since) >= self.duration {
                    Holder::Expired
                } else {
                    Holder::Another
                }
            }
            _ => {
                self.observed = Some((spec, now));
                Holder::Another
            }
        }
    }

    /// Removes the holder of a lease. Returns `false` if the lease has changed since it was read.
    async fn remove_holder(&self, lease: &Lease) -> kube::Result<bool> {
        let nobody = json!({
            "metadata": {"resourceVersion": lease.resource_version()},
            "spec": {"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null},
        });
        match self.api.patch(&self.lease, &PatchParams::default(), &Patch::Merge(&nobody)).await {
            Ok(_) => {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                info!(
                    lease = self.lease,
                    holder, "ended a lease that its holder did not renew, or that was this replica's own"
                );
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Returns the identity of the replica that holds a lease.
fn holder_of(lease: &LeaseSpec) -> Option<&String> {
    lease.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::Request;
    use axum::http::{Method, StatusCode};
    use axum::response::{IntoResponse as _, Response};
    use serde_json::Value;

    use super::*;

    const DURATION: Duration = Duration::from_secs(30);
    /// Nobody else writes, and no read fails.
    const RELIABLE: (bool, bool) = (false, false);
    /// Somebody else writes the lease just before each patch.
    const CONTENDED: (bool, bool) = (true, false);
    /// Each fifth read fails.
    const FLAKY: (bool, bool) = (false, true);
    /// The replica that holds the lease.
    const HOLDER: &str = "first";

    /// An API server with one lease. It calls `at_read` before each read with the time since the start and the lease, which
    /// `at_read` may change.
    struct Server {
        spec: Mutex<Value>,
        version: Mutex<u64>,
        at_read: fn(Duration, &mut Value),
        /// Whether another replica writes the lease just before each patch.
        is_contended: bool,
        /// Whether each fifth read fails.
        is_flaky: bool,
        reads: Mutex<u32>,
        begin: Instant,
    }

    impl Server {
        async fn answer(self: Arc<Self>, request: Request) -> Response {
            let is_patch = request.method() == Method::PATCH;
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let mut spec = self.spec.lock().unwrap();
            let mut version = self.version.lock().unwrap();
            if is_patch {
                let patch: Value = serde_json::from_slice(&body).unwrap();
                if self.is_contended {
                    *version += 1;
                }
                if patch["metadata"]["resourceVersion"] != version.to_string() {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "reason": "Conflict", "message": "it has changed", "code": 409});
                    return (StatusCode::CONFLICT, status.to_string()).into_response();
                }
                *spec = json!({});
            } else {
                let mut reads = self.reads.lock().unwrap();
                *reads += 1;
                if self.is_flaky && reads.is_multiple_of(5) {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
                let before = spec.clone();
                (self.at_read)(self.begin.elapsed(), &mut spec);
                *version += u64::from(before != *spec);
            }
            let metadata = json!({"name": "operator", "resourceVersion": version.to_string()});
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": *spec})
                .to_string()
                .into_response()
        }
    }

    /// Returns a lease that was renewed so many times.
    fn renewed(times: u64) -> Value {
        // Far ahead of every clock: only a change counts.
        json!({"holderIdentity": HOLDER, "leaseDurationSeconds": 30,
            "renewTime": format!("2036-01-01T{:02}:{:02}:00.000000Z", times / 60, times % 60)})
    }

    /// Returns a standby, and the API server with its lease.
    fn standby(
        at_read: fn(Duration, &mut Value),
        (is_contended, is_flaky): (bool, bool),
        identity: &str,
    ) -> (Standby, Arc<Server>) {
        let server = Server {
            spec: Mutex::new(renewed(0)),
            version: Mutex::default(),
            at_read,
            is_contended,
            is_flaky,
            reads: Mutex::default(),
            begin: Instant::now(),
        };
        let server = Arc::new(server);
        let answering = server.clone();
        let client = Client::new(
            Router::new().fallback(async move |request: Request| answering.answer(request).await),
            "default",
        );
        (Standby::new(client, "system", "operator", identity.to_owned(), DURATION), server)
    }

    /// Returns the time after which the standby stops waiting, and whether the lease has a holder then. `None` after an hour.
    async fn waits(
        at_read: fn(Duration, &mut Value),
        faults: (bool, bool),
        identity: &str,
    ) -> (Option<Duration>, bool) {
        let begin = Instant::now();
        let (mut standby, server) = standby(at_read, faults, identity);
        // As the caller does, after a request that failed.
        let waiting = async {
            while standby.wait(|| {}).await.is_err() {
                tokio::time::sleep(READ_INTERVAL).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_hours(1), waiting).await;
        let is_held = server.spec.lock().unwrap()["holderIdentity"].is_string();
        (waited.is_ok().then(|| begin.elapsed()), is_held)
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_is_renewed_is_never_ended() {
        let renew = |at: Duration, spec: &mut Value| *spec = renewed(at.as_secs() / 28);
        assert_eq!(waits(renew, RELIABLE, "second").await, (None, true));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_without_renewal_is_ended_after_its_duration() {
        let die = |at: Duration, spec: &mut Value| *spec = renewed(at.as_secs().min(100) / 20);
        // A read that fails does not begin the duration anew.
        for faults in [RELIABLE, FLAKY] {
            let (Some(waited), false) = waits(die, faults, "second").await else { panic!("it is ended") };
            let since_renewal = waited.saturating_sub(Duration::from_secs(100));
            assert!(since_renewal >= DURATION && since_renewal <= DURATION + READ_INTERVAL * 3, "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn released_lease_is_noticed_within_seconds() {
        let release = |at: Duration, spec: &mut Value| {
            if at.as_secs() >= 5 {
                *spec = json!({});
            }
        };
        let (waited, _) = waits(release, RELIABLE, "second").await;
        assert!(waited.is_some_and(|waited| waited <= Duration::from_secs(7)), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn own_lease_is_not_waited_for() {
        assert_eq!(waits(|_, _| {}, RELIABLE, HOLDER).await, (Some(Duration::ZERO), false));
        // A replica that cannot write does not lead.
        assert_eq!(waits(|_, _| {}, CONTENDED, HOLDER).await, (None, true));
    }

    #[tokio::test]
    async fn lease_without_another_holder_is_recognized() {
        let held = |holder: &str| json!({"holderIdentity": holder});
        for (spec, is_free) in
            [(json!({}), true), (held(""), true), (held("second"), true), (renewed(0), false)]
        {
            let (standby, server) = standby(|_, _| {}, RELIABLE, "second");
            *server.spec.lock().unwrap() = spec;
            assert_eq!(standby.no_other_holds_lease().await.unwrap(), is_free);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_changes_after_the_read_is_not_ended() {
        assert_eq!(waits(|_, _| {}, CONTENDED, "second").await, (None, true));
    }
}
