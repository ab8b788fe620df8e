//! Traces to an OpenTelemetry collector, by OTLP over gRPC: each visit of a resource is one, with its requests to Kubernetes and AWS.
//!
//! Where to, and how much, say OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …):
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Without an endpoint nothing is sent. In plain
//! text only: the collector is a neighbour.

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

/// What collects traces and sends them now and then. Dropping it sends the rest.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Nothing, where the environment names no collector.
    pub(super) fn to_the_collector_of_the_environment() -> anyhow::Result<Option<Self>> {
        let endpoint = ENDPOINTS.iter().find_map(|name| env::var(name).ok()).filter(|url| !url.is_empty());
        endpoint.map(|endpoint| Self::to(&endpoint)).transpose()
    }

    /// To the collector at this URL, such as `http://collector.monitoring:4317`.
    fn to(endpoint: &str) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("no traces can be sent to {endpoint:?}: write http://HOST:4317"))?;
        let named = env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name(NAME) };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Self(provider))
    }

    /// What takes the spans of this process.
    pub(super) fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(
        &self,
    ) -> OpenTelemetryLayer<S, SdkTracer> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(NAME))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // A collector that is gone must not keep the process from ending well; what it missed is lost.
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

    /// A collector that takes everything, and passes on what it got.
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
    async fn a_visit_is_sent_to_the_collector_with_the_name_of_its_resource() {
        let (url, mut got) = collector().await;
        let traces = Traces::to(&url).unwrap();
        tracing::subscriber::with_default(registry().with(traces.layer()), || {
            tracing::info_span!("visit", namespace = "data", resource = "orders").in_scope(|| ());
        });
        tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();
        let (path, body) = got.recv().await.unwrap();
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        for word in [NAME, "visit", "namespace", "data", "resource", "orders"] {
            assert!(body.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_no_url_is_refused_with_what_to_write() {
        let Err(error) = Traces::to("not a url") else { panic!("it is taken") };
        assert!(error.to_string().contains("http://HOST:4317"), "{error:#}");
    }
}
