//! The HTTP endpoints: `/metrics` for Prometheus, `/readyz` and `/healthz` for the kubelet. They change
//! nothing.
//!
//! None of them depends on AWS: restarting a replica because AWS does not respond would only discard its
//! observations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tracing::info;

mod server;

/// The media type of `OpenMetrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The readiness of this replica: it has read the lease or, without leader election, listed the resources.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Marks this replica as ready.
    pub fn mark_ready(&self) {
        if !self.0.swap(true, Ordering::Relaxed) {
            info!("ready");
        }
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The endpoints that are served.
#[derive(Clone)]
pub struct Admin {
    /// The readiness that `/readyz` reports.
    pub readiness: Readiness,
    /// Renders the text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Admin {
    /// Serves at `address` for as long as the process runs, so that requests are answered until the last call
    /// is finished.
    pub fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = server::bind(address)
            .with_context(|| format!("cannot listen on {address}; set another address with --listen"))?;
        let address = listener.local_addr()?;
        info!(%address, "serving /metrics, /readyz and /healthz");
        tokio::spawn(server::serve(listener, self.router()));
        Ok(())
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.readiness.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the resources have not been listed, and no leader is known\n",
        )
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], (admin.metrics)())
}
