//! Traces to an OpenTelemetry collector, by OTLP over gRPC: each reconciliation of a resource is a trace,
//! with its requests to Kubernetes and AWS.
//!
//! OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …) set the
//! destination and the sampling:
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Without an endpoint
//! nothing is sent. Traces are sent without TLS, to a collector nearby.

use std::env;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

const NAME: &str = "stream-encryption-operator";
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Collects traces and sends them in batches. Dropping it sends the rest.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Creates an exporter to the collector in the environment; returns `None` if the environment names none.
    pub(super) fn from_env() -> anyhow::Result<Option<Self>> {
        let endpoint = ENDPOINTS.iter().find_map(|name| env::var(name).ok()).filter(|url| !url.is_empty());
        endpoint.map(|endpoint| Self::to(&endpoint)).transpose()
    }

    /// Creates an exporter to the collector at this URL, such as `http://collector.monitoring:4317`.
    fn to(endpoint: &str) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("cannot send traces to {endpoint:?}: expected http://HOST:4317"))?;
        let named = env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name(NAME) };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Self(provider))
    }

    /// Returns the layer that receives the spans of this process.
    pub(super) fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(
        &self,
    ) -> OpenTelemetryLayer<S, SdkTracer> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(NAME))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // An unavailable collector must not keep the process from ending cleanly; the remaining traces are
        // lost.
        let _ = self.0.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;

    /// Starts a collector that accepts every request and forwards it to the receiver.
    async fn collector() -> (String, mpsc::UnboundedReceiver<(String, Bytes)>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (got, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = service_fn(|request: hyper::Request<Incoming>| {
                let got = got.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    got.send((path, request.into_body().collect().await.unwrap().to_bytes())).unwrap();
                    let ok = hyper::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0")
                        .body(Empty::<Bytes>::new());
                    Ok::<_, Infallible>(ok.unwrap())
                }
            });
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await
        });
        (url, receiver)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reconcile_span_is_exported_with_its_resource_name() {
        let (url, mut got) = collector().await;
        let traces = Traces::to(&url).unwrap();
        tracing::subscriber::with_default(registry().with(traces.layer()), || {
            tracing::error_span!("reconcile", namespace = "data", resource = "orders").in_scope(|| ());
        });
        tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();
        let (path, body) = got.recv().await.unwrap();
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        for word in [NAME, "reconcile", "namespace", "data", "resource", "orders"] {
            assert!(body.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
        }
    }

    #[tokio::test]
    async fn invalid_collector_endpoint_is_rejected_with_a_hint() {
        let Err(error) = Traces::to("not a url") else { panic!("it is taken") };
        assert!(error.to_string().contains("http://HOST:4317"), "{error:#}");
    }
}
