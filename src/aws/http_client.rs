//! The HTTP client that all SDK clients share. It is configured like the SDK's default client, and closes connections that
//! no longer answer.
//!
//! Without it, each service in each region would have a client of its own, with a copy of every CA certificate, which is
//! 100 kB. As with separate clients, connections are shared only by requests to the same host. This file sends nothing.
//!
//! With HTTP/2 all requests to a host share one connection. A NAT gateway or a proxy may forget that connection without
//! closing it. The SDK does not close it after a deadline: every further request would use it and fail, for a quarter of an
//! hour, until the kernel gives up. So whenever a request is abandoned before its response, its connection is not used
//! again.

use std::time::Duration;

use aws_sdk_kinesis::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// How long an idle connection is kept. AWS and NAT gateways close idle connections after a minute or less, without a word or
/// just when a request is sent. The outcome of a call on such a connection is unknown, and the stream waits for 31 minutes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns a client that connects as the SDK's default one does: with rustls, the CA certificates of the system, and
/// the proxy of the environment.
pub(super) fn shared() -> SharedHttpClient {
    with_trust(TlsContext::default())
}

fn with_trust(trust: TlsContext) -> SharedHttpClient {
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(trust.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.set_pool_idle_timeout(Some(Some(IDLE_TIMEOUT)));
        connector.build()
    });
    SharedHttpClient::new(ClosingClient(client))
}

/// A client that closes the connection of each abandoned request.
#[derive(Debug)]
struct ClosingClient(SharedHttpClient);

/// A connector that closes the connection of each abandoned request.
#[derive(Debug)]
struct ClosingConnector(SharedHttpConnector);

/// Closes the connection of a request if it is dropped before the response.
struct AbandonedRequest(Option<CaptureSmithyConnection>);

impl HttpClient for ClosingClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(ClosingConnector(self.0.http_connector(settings, components)))
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for ClosingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // The SDK attaches it to each request; the inner connector sets the connection that it uses.
        let mut abandoned = AbandonedRequest(request.extension().cloned());
        let response = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let response = response.await;
            abandoned.keep_connection();
            response
        })
    }
}

impl AbandonedRequest {
    fn keep_connection(&mut self) {
        self.0 = None;
    }
}

impl Drop for AbandonedRequest {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take().and_then(|captured| captured.get()) {
            connection.poison();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_config::BehaviorVersion;
    use aws_config::timeout::TimeoutConfig;
    use aws_credential_types::Credentials;
    use aws_sdk_kinesis::config::{Builder as ConfigBuilder, Region};
    use aws_sdk_kinesis::{Client, Config};
    use aws_smithy_http_client::tls::TrustStore;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// Answers every request with an error. Returns the URL, and the number of connections.
    async fn server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, count) =
            (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                    while let Ok(read @ 1..) = connection.read(&mut buffer).await {
                        request.extend_from_slice(&buffer[..read]);
                        if request.ends_with(b"\r\n\r\n{}") {
                            request.clear();
                            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}";
                            connection.write_all(answer).await.unwrap();
                        }
                    }
                });
            }
        });
        (url, count)
    }

    /// Answers the first request of each connection with an error, over HTTP/2 with TLS, and no other one. Returns the
    /// URL, and the certificate.
    async fn server_that_falls_silent() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config =
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let connection = acceptor.accept(connection).await.unwrap();
                    let requests = Arc::new(AtomicUsize::new(0));
                    let service = service_fn(move |_| {
                        let number = requests.fetch_add(1, Ordering::Relaxed);
                        async move {
                            if number > 0 {
                                std::future::pending::<()>().await;
                            }
                            let answer = http::Response::builder().status(400).body("{}".to_owned()).unwrap();
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let served = http2::Builder::new(TokioExecutor::new());
                    let _ = served.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        (url, made.cert.pem())
    }

    fn client(http_client: SharedHttpClient, region: &'static str, url: &str) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region))
            .endpoint_url(url)
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
            .http_client(http_client);
        Client::from_conf(config.build())
    }

    /// Sends a request, which ends after `deadline`. Returns the status of the response; `None` if there was none.
    async fn send(client: &Client, deadline: Duration) -> Option<u16> {
        let deadline = TimeoutConfig::builder().operation_attempt_timeout(deadline).build();
        let request = client.describe_limits().customize();
        let request = request.config_override(ConfigBuilder::default().timeout_config(deadline));
        let error = request.send().await.unwrap_err();
        error.raw_response().map(|response| response.status().as_u16())
    }

    /// Lets this time pass for the connections while there is no request. The clock stands still only meanwhile: it would
    /// otherwise jump to the deadline of a request whose response is on its way.
    async fn pass(time: Duration) {
        // The connection becomes idle in a task of its own, after some polls.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn clients_of_two_regions_share_a_connection() {
        let (url, connections) = server().await;
        let http_client = shared();
        for region in ["eu-west-1", "eu-west-2"] {
            let client = client(http_client.clone(), region, &url);
            assert_eq!(send(&client, Duration::from_mins(1)).await, Some(400));
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn connection_without_a_response_is_not_used_again() {
        let (url, certificate) = server_that_falls_silent().await;
        let trusted = TrustStore::empty().with_pem_certificate(certificate);
        let trust = TlsContext::builder().with_trust_store(trusted).build().unwrap();
        let client = client(with_trust(trust), "eu-west-1", &url);
        let long = Duration::from_mins(1);
        assert_eq!(send(&client, long).await, Some(400));
        // The same connection, which has fallen silent.
        assert_eq!(send(&client, Duration::from_millis(100)).await, None);
        assert_eq!(send(&client, long).await, Some(400));
    }

    #[tokio::test]
    async fn connection_that_was_idle_for_15_seconds_is_not_used_again() {
        let (url, connections) = server().await;
        let client = client(shared(), "eu-west-1", &url);
        for (idle, expected) in [(0, 1), (10, 1), (10, 1), (16, 2)] {
            pass(Duration::from_secs(idle)).await;
            assert_eq!(send(&client, Duration::from_mins(1)).await, Some(400));
            assert_eq!(connections.load(Ordering::Relaxed), expected, "after {idle} s");
        }
    }
}
