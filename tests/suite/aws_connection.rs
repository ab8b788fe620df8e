//! Connections to AWS that the environment configures: a proxy, exceptions from it, and a private certificate
//! authority.

use std::fs;

use crate::api_server_proxy::{Tunnel, port};
use crate::process::{MESSAGE, Place, REASON, eventually, free_address};

/// Returns whether the status does not say that AWS cannot be reached.
async fn aws_answers(place: &Place) -> bool {
    let message = place.field(MESSAGE).await;
    !["could not connect to AWS", "No readable response to"].iter().any(|words| message.contains(words))
}

/// The simulated AWS is the proxy: only it can serve a host name that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn aws_is_reached_through_environment_proxy() {
    for (proxy, excepted) in [("HTTP_PROXY", "NO_PROXY"), ("http_proxy", "no_proxy")] {
        let place = Place::new().await;
        let url = place.aws.url();
        let _operator =
            place.start(&[("AWS_ENDPOINT_URL", "http://aws.test"), (proxy, &url), (excepted, "127.0.0.1")]);
        place.ask_for_encryption().await;
        place.until_it_is_encrypted().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_in_no_proxy_is_reached_directly() {
    let nowhere = format!("http://{}", free_address());
    for (proxy, excepted) in [("HTTP_PROXY", "NO_PROXY"), ("http_proxy", "no_proxy")] {
        let place = Place::new().await;
        let _operator = place.start(&[(proxy, &nowhere), (excepted, "127.0.0.1")]);
        place.ask_for_encryption().await;
        place.until_it_is_encrypted().await;
    }
}

/// The API server stands for an AWS endpoint with a private certificate authority. It answers only if its
/// certificate is trusted.
#[tokio::test(flavor = "multi_thread")]
async fn private_ca_is_trusted_through_ssl_cert_file() {
    let place = Place::new().await;
    place.ask_for_encryption().await;
    let (url, authority) = (place.cluster.url(), place.cluster.folder().join("authority.pem"));
    fs::write(&authority, place.cluster.ca()).expect("a file");
    let authority = authority.to_str().expect("UTF-8");
    for (variable, answers) in [("AWS_CA_BUNDLE", false), ("SSL_CERT_FILE", true)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let operator = place.logging_to(writer, &[("AWS_ENDPOINT_URL", &url), (variable, authority)]);
        eventually("the status says whether AWS answers", async || {
            !place.field(REASON).await.is_empty() && answers == aws_answers(&place).await
        })
        .await;
        operator.kill();
        let log = std::io::read_to_string(reader).expect("text");
        assert_eq!(log.contains("set SSL_CERT_FILE instead"), !answers, "{log}");
    }
}

/// The proxy sees only the name, which only it can resolve, and the certificate is that of the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn aws_with_tls_is_reached_through_proxy_tunnel() {
    let place = Place::new().await;
    place.ask_for_encryption().await;
    let authority = place.cluster.folder().join("authority-of-endpoint.pem");
    fs::write(&authority, place.cluster.ca()).expect("a file");
    let authority = authority.to_str().expect("UTF-8");
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let proxy = Tunnel::to(port(&place.cluster.url())).await;
        let endpoint = ("AWS_ENDPOINT_URL", "https://kubernetes.default.svc");
        let operator = place.start(&[endpoint, (variable, &proxy.url), ("SSL_CERT_FILE", authority)]);
        eventually("AWS answers", async || {
            !place.field(REASON).await.is_empty() && aws_answers(&place).await && !proxy.hosts().is_empty()
        })
        .await;
        assert!(proxy.hosts().iter().all(|host| host == "kubernetes.default.svc:443"), "{:?}", proxy.hosts());
        operator.kill();
    }
}
