//! The HTTP endpoints: `/metrics` for Prometheus, `/readyz` and `/healthz` for the kubelet. They change
//! nothing.
//!
//! None of them depends on AWS: restarting a replica because AWS does not respond would only discard its
//! observations.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
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

/// How long an answer of the API server about the lease keeps a replica ready. Longer than the lease is valid: a leader that
/// has lost its lease and reads it again stays ready.
const ANSWER_VALIDITY: Duration = Duration::from_mins(1);

/// The readiness of this replica: the API server has answered about the lease in the last minute or, without leader election,
/// the resources were listed. Clones share it.
#[derive(Clone, Default)]
pub struct Readiness(Arc<std::sync::Mutex<Progress>>);

/// What this replica has achieved.
#[derive(Clone, Copy, Default)]
enum Progress {
    /// Nothing yet.
    #[default]
    Starting,
    /// It has listed the resources.
    Listed,
    /// The API server last answered about the lease at this time. Without leader election it never does.
    Answered(Instant),
}

impl Progress {
    /// Returns why the replica is not ready; `None` if it is ready.
    fn problem(self) -> Option<&'static str> {
        match self {
            Self::Starting => Some("the resources have not been listed, and no leader is known"),
            Self::Answered(at) if at.elapsed() > ANSWER_VALIDITY => {
                Some("the API server has not answered about the lease for a minute")
            }
            Self::Listed | Self::Answered(_) => None,
        }
    }
}

impl Readiness {
    /// Records that the resources are listed. With leader election, the answers about the lease decide nevertheless.
    pub fn record_list(&self) {
        self.update(|before| match before {
            Progress::Starting => Progress::Listed,
            Progress::Listed | Progress::Answered(_) => before,
        });
    }

    /// Records that the API server has answered about the lease.
    pub fn record_answer(&self) {
        self.update(|_| Progress::Answered(Instant::now()));
    }

    fn update(&self, next: impl Fn(Progress) -> Progress) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *progress;
        *progress = next(before);
        if before.problem().is_some() && progress.problem().is_none() {
            info!("ready");
        }
    }

    /// Returns why this replica is not ready; `None` if it is ready.
    fn problem(&self) -> Option<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).problem()
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
    match admin.readiness.problem() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {problem}\n")),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], admin.metrics.text().await)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn replica_is_ready_for_a_minute_after_an_answer() {
        let readiness = Readiness::default();
        assert!(readiness.problem().is_some());
        for _ in 0..2 {
            readiness.record_answer();
            // The list of a leader must not keep it ready.
            readiness.record_list();
            tokio::time::sleep(Duration::from_secs(59)).await;
            assert_eq!(readiness.problem(), None);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(readiness.problem().is_some_and(|problem| problem.contains("lease")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn listed_replica_without_election_stays_ready() {
        let readiness = Readiness::default();
        readiness.record_list();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(readiness.problem(), None);
    }

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
