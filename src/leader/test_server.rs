//! A simulated API server with one Lease, for the tests of leader election.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The replica that holds the lease at the start.
pub(super) const HOLDER: &str = "first";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Another replica writes the lease just before each patch.
    Contention,
    /// A renewal that was under way arrives just before the first patch.
    LateRenewal,
    /// Each fifth read fails.
    EveryFifthReadFails,
    /// Each read fails.
    EveryReadFails,
    /// The patch after the one that acquires the lease never gets a response.
    HangingPatch,
}

/// An API server with one lease. It calls `at_read` before each read with the time since the start and the lease, which
/// `at_read` may change.
pub(super) struct Server {
    lease: Mutex<StoredLease>,
    at_read: fn(Duration, &mut Value),
    fault: Fault,
    begin: Instant,
    /// Notified when a patch hangs.
    pub(super) hangs: Notify,
}

struct StoredLease {
    spec: Value,
    version: u64,
    reads: u32,
}

impl Server {
    /// Creates a server whose lease [`HOLDER`] holds.
    pub(super) fn new(at_read: fn(Duration, &mut Value), fault: Fault) -> Arc<Self> {
        let lease = StoredLease { spec: spec_after_renewals(0), version: 0, reads: 0 };
        Arc::new(Self {
            lease: Mutex::new(lease),
            at_read,
            fault,
            begin: Instant::now(),
            hangs: Notify::new(),
        })
    }

    /// Returns a client of this server.
    pub(super) fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        let answer = async move |request: Request| server.answer(request).await;
        Client::new(Router::new().fallback(answer), "default")
    }

    /// Replaces the spec of the lease.
    pub(super) fn set_spec(&self, spec: Value) {
        self.lease.lock().unwrap().spec = spec;
    }

    /// Returns whether the lease has a holder.
    pub(super) fn is_held(&self) -> bool {
        self.lease.lock().unwrap().spec["holderIdentity"].is_string()
    }

    async fn answer(&self, request: Request) -> Response {
        let is_patch = request.method() == Method::PATCH;
        let format = request.headers().get(CONTENT_TYPE).map(|format| format.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        if !is_patch {
            return self.read();
        }
        let patch: Value = serde_json::from_slice(&body).unwrap();
        // `LeaseClient` removes the holder by a merge patch. The library acquires the lease by a server-side apply, and then
        // counts the transition, and later renews, by strategic merge patches.
        match format.as_deref() {
            Some("application/merge-patch+json") => self.merge(&patch),
            Some("application/strategic-merge-patch+json") if self.fault == Fault::HangingPatch => {
                self.hangs.notify_one();
                std::future::pending().await
            }
            _ => self.write(patch["spec"].clone()),
        }
    }

    fn read(&self) -> Response {
        let mut lease = self.lease.lock().unwrap();
        lease.reads += 1;
        let is_fifth = lease.reads.is_multiple_of(5);
        if self.fault == Fault::EveryReadFails || (self.fault == Fault::EveryFifthReadFails && is_fifth) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let before = lease.spec.clone();
        (self.at_read)(self.begin.elapsed(), &mut lease.spec);
        lease.version += u64::from(before != lease.spec);
        lease.response()
    }

    /// Removes the fields of the spec, unless the lease has another version than the patch.
    fn merge(&self, patch: &Value) -> Response {
        {
            let mut lease = self.lease.lock().unwrap();
            let is_first = lease.version == 0;
            if self.fault == Fault::Contention || (self.fault == Fault::LateRenewal && is_first) {
                lease.version += 1;
            }
        }
        let version = self.lease.lock().unwrap().version.to_string();
        if patch["metadata"]["resourceVersion"] != version {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": "Conflict", "message": "it has changed", "code": 409});
            return (StatusCode::CONFLICT, status.to_string()).into_response();
        }
        self.write(json!({}))
    }

    fn write(&self, spec: Value) -> Response {
        let mut lease = self.lease.lock().unwrap();
        lease.spec = spec;
        lease.version += 1;
        lease.response()
    }
}

impl StoredLease {
    fn response(&self) -> Response {
        let metadata = json!({"name": "operator", "resourceVersion": self.version.to_string()});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": self.spec})
            .to_string()
            .into_response()
    }
}

/// Returns the spec of a lease that [`HOLDER`] holds and has renewed so many times.
pub(super) fn spec_after_renewals(times: u64) -> Value {
    // Far ahead of every clock: only a change counts.
    json!({"holderIdentity": HOLDER, "leaseDurationSeconds": 30,
        "renewTime": format!("2036-01-01T{:02}:{:02}:00.000000Z", times / 60, times % 60)})
}
