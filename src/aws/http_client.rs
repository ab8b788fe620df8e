//! The HTTP client that all SDK clients share. It is configured like the SDK's default client.
//!
//! Without it, each service in each region would have a client of its own, with a copy of every CA certificate, which is
//! 100 kB. As with separate clients, connections are shared only by requests to the same host. This file sends nothing.

use aws_sdk_kinesis::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, ConnectorBuilder};

/// Returns a client that connects as the SDK's default one does: with rustls, the CA certificates of the system, and
/// the proxy of the environment.
pub(super) fn shared() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_config::BehaviorVersion;
    use aws_credential_types::Credentials;
    use aws_sdk_kinesis::{Client, Config, config::Region};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

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

    #[tokio::test]
    async fn clients_of_two_regions_share_a_connection() {
        let (url, connections) = server().await;
        let http_client = shared();
        for region in ["eu-west-1", "eu-west-2"] {
            let config = Config::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(region))
                .endpoint_url(&url)
                .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
                .http_client(http_client.clone());
            let error = Client::from_conf(config.build()).describe_limits().send().await.unwrap_err();
            assert_eq!(
                error.raw_response().map(|response| response.status().as_u16()),
                Some(400),
                "{error:?}"
            );
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }
}
