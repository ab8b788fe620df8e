//! The HTTP endpoints: `/metrics` for Prometheus, `/readyz` and `/healthz` for the kubelet. They change
//! nothing.
//!
//! None of them depends on AWS: restarting a replica because AWS does not respond would only discard its
//! observations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;

mod server;

/// The media type of `OpenMetrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many times the time of its rendering the text of `/metrics` is used.
const REUSE_FACTOR: u32 = 10;
/// The longest time for which a text is used again: a replica that no longer leads must not report the fleet for long.
const LONGEST_REUSE: Duration = Duration::from_secs(5);

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
    /// The text of `/metrics`.
    pub metrics: MetricsText,
}

/// The text of `/metrics`. It is rendered from all resources, so it is rendered by one request at a time, and used again for
/// ten times as long as that took, at most 5 s: whoever can reach the port must not be able to keep the operator busy.
#[derive(Clone)]
pub struct MetricsText {
    render: Arc<dyn Fn() -> String + Send + Sync>,
    rendered: Arc<Mutex<Option<Rendered>>>,
}

/// A text, and until when it is used.
struct Rendered {
    text: String,
    until: Instant,
}

impl MetricsText {
    /// Creates the text that `render` renders.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { render: Arc::new(render), rendered: Arc::default() }
    }

    async fn text(&self) -> String {
        // A task of its own: if the client closes the connection, the rendering is not begun again for the next one.
        let metrics = self.clone();
        tokio::spawn(async move { metrics.rendered_text().await }).await.unwrap_or_default()
    }

    async fn rendered_text(&self) -> String {
        let mut rendered = self.rendered.lock().await;
        if let Some(rendered) = rendered.as_ref().filter(|rendered| Instant::now() < rendered.until) {
            return rendered.text.clone();
        }
        let (render, begin) = (self.render.clone(), Instant::now());
        let text = tokio::task::spawn_blocking(move || render()).await.unwrap_or_default();
        let reuse = begin.elapsed().saturating_mul(REUSE_FACTOR).min(LONGEST_REUSE);
        *rendered = Some(Rendered { text: text.clone(), until: Instant::now() + reuse });
        text
    }
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
    ([(CONTENT_TYPE, OPEN_METRICS)], admin.metrics.text().await)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn metrics_are_rendered_once_for_many_requests() {
        let count = Arc::new(AtomicU32::new(0));
        let renderings = count.clone();
        let text = MetricsText::new(move || {
            std::thread::sleep(Duration::from_millis(50));
            renderings.fetch_add(1, Ordering::Relaxed).to_string()
        });
        // A client that closes its connection at once.
        assert!(text.text().now_or_never().is_none());
        let texts = futures_util::future::join_all((0..20).map(|_| text.text())).await;
        assert!(texts.iter().all(|text| text == "0"), "{texts:?}");
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
