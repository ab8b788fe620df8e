//! A simulated API server with one Lease, for the tests of leader election.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::lease_client::LeaseClient;

/// The identity of a replica.
pub(super) const FIRST: &str = "first";

/// How the server answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It carries out the request, and answers.
    Answered,
    /// It answers 503, and does nothing.
    Unavailable,
    /// It carries out the request, and answers 503.
    DoneButUnavailable,
    /// It does nothing, and answers 404 without naming an object, as a proxy that does not know the path.
    UnknownPath,
    /// It does nothing, and never answers.
    Never,
    /// It carries out the request, and answers after this time.
    After(Duration),
}

/// The lease, as the server stores it.
#[derive(Default)]
pub(super) struct StoredLease {
    /// `None` if the lease does not exist.
    pub(super) spec: Option<Value>,
    pub(super) version: u64,
}

/// Decides how the server replies to a request, given the time since the start and the request's method. It may write the lease
/// before.
type Script = dyn Fn(Duration, &str, &mut StoredLease) -> Reply + Send + Sync;

/// An API server with one lease.
pub(super) struct Server {
    lease: Mutex<StoredLease>,
    script: Box<Script>,
    begin: Instant,
}

impl Server {
    /// Creates a server with this lease, if any. It calls `script` for each request.
    pub(super) fn new(
        spec: Option<Value>,
        script: impl Fn(Duration, &str, &mut StoredLease) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        let lease = Mutex::new(StoredLease { spec, version: 1 });
        Arc::new(Self { lease, script: Box::new(script), begin: Instant::now() })
    }

    /// Returns a client of this server.
    pub(super) fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        let answer = async move |request: Request| server.answer(request).await;
        Client::new(Router::new().fallback(answer), "default")
    }

    /// Returns a client of this server's lease.
    pub(super) fn lease(self: &Arc<Self>, identity: &str) -> LeaseClient {
        LeaseClient::new(self.client(), "system", "operator", identity.to_owned())
    }

    /// Replaces the lease. `None` deletes it.
    pub(super) fn set(&self, spec: Option<Value>) {
        self.lease.lock().unwrap().write(spec);
    }

    /// Returns who holds the lease.
    pub(super) fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.spec.as_ref()?["holderIdentity"].as_str().map(str::to_owned)
    }

    async fn answer(&self, request: Request) -> Response {
        let method = request.method().as_str().to_owned();
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (reply, response) = {
            let mut lease = self.lease.lock().unwrap();
            let before = lease.spec.clone();
            let reply = (self.script)(self.begin.elapsed(), &method, &mut lease);
            lease.version += u64::from(lease.spec != before);
            let is_carried_out = !matches!(reply, Reply::Unavailable | Reply::UnknownPath | Reply::Never);
            (reply, is_carried_out.then(|| lease.carry_out(&method, &body)))
        };
        match (reply, response) {
            (Reply::Never, _) => std::future::pending().await,
            (Reply::Answered, Some(response)) => response,
            (Reply::UnknownPath, _) => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
            (Reply::After(time), Some(response)) => {
                tokio::time::sleep(time).await;
                response
            }
            _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
}

impl StoredLease {
    fn write(&mut self, spec: Option<Value>) {
        self.spec = spec;
        self.version += 1;
    }

    fn carry_out(&mut self, method: &str, body: &Value) -> Response {
        match (method, self.spec.take()) {
            ("POST", None) => self.write(Some(body["spec"].clone())),
            ("GET" | "PATCH", None) => return failure(404, "NotFound"),
            ("GET", spec) => self.spec = spec,
            ("PATCH", Some(mut spec)) if body["metadata"]["resourceVersion"] == *self.version.to_string() => {
                // As a merge patch.
                for (field, value) in body["spec"].as_object().unwrap() {
                    spec[field] = value.clone();
                }
                spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                self.write(Some(spec));
            }
            (method, spec) => {
                self.spec = spec;
                return failure(409, if method == "POST" { "AlreadyExists" } else { "Conflict" });
            }
        }
        let metadata = json!({"name": "operator", "resourceVersion": self.version.to_string()});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": self.spec})
            .to_string()
            .into_response()
    }
}

fn failure(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": code, "details": {"name": "operator"}});
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

/// Returns the spec of a lease that this replica holds and has renewed so many times.
pub(super) fn held_by(identity: &str, renewals: u64) -> Value {
    // Far ahead of every clock: only a change counts.
    json!({"holderIdentity": identity, "leaseDurationSeconds": 30,
        "renewTime": format!("2036-01-01T{:02}:{:02}:00.000000Z", renewals / 60, renewals % 60)})
}
