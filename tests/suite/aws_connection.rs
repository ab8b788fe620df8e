//! Connections to AWS that the environment configures: a proxy, exceptions from it, and a private certificate
//! authority.

use std::fs;

use serde_json::json;

use crate::harness::{cluster, firehose, fresh_namespace, operators_kubeconfig};
use crate::process::{
    OperatorProcess, REASON, apply, eventually, field, free_address, until_it_is_encrypted, world,
};

/// The simulated AWS is the proxy: only it can serve a host name that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn aws_is_reached_through_environment_proxy() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    for (proxy, excepted) in [("HTTP_PROXY", "NO_PROXY"), ("http_proxy", "no_proxy")] {
        let (aws, namespace) = (world().await, fresh_namespace(cluster).await);
        let url = aws.url();
        let environment =
            [("AWS_ENDPOINT_URL", "http://aws.test"), (proxy, url.as_str()), (excepted, "127.0.0.1")];
        let _operator = OperatorProcess::start(&kubeconfig, &namespace, &environment);
        apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
        until_it_is_encrypted(cluster, &namespace).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_in_no_proxy_is_reached_directly() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    let nowhere = format!("http://{}", free_address());
    for (proxy, excepted) in [("HTTP_PROXY", "NO_PROXY"), ("http_proxy", "no_proxy")] {
        let (aws, namespace) = (world().await, fresh_namespace(cluster).await);
        let url = aws.url();
        let environment =
            [("AWS_ENDPOINT_URL", url.as_str()), (proxy, nowhere.as_str()), (excepted, "127.0.0.1")];
        let _operator = OperatorProcess::start(&kubeconfig, &namespace, &environment);
        apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
        until_it_is_encrypted(cluster, &namespace).await;
    }
}

/// The API server stands for an AWS endpoint with a private certificate authority. It answers only if its
/// certificate is trusted.
#[tokio::test(flavor = "multi_thread")]
async fn private_ca_is_trusted_through_ssl_cert_file() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    let namespace = fresh_namespace(cluster).await;
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let (url, authority) = (cluster.url(), cluster.folder().join("authority.pem"));
    fs::write(&authority, cluster.ca()).expect("a file");
    let authority = authority.to_str().expect("UTF-8");
    let message = "{.status.conditions[?(@.type=='Ready')].message}";
    for (variable, answers) in [("AWS_CA_BUNDLE", false), ("SSL_CERT_FILE", true)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let environment = [("AWS_ENDPOINT_URL", url.as_str()), (variable, authority)];
        let operator = OperatorProcess::logging_to(writer, &kubeconfig, &namespace, &environment);
        eventually("the status says whether AWS answers", 60, async || {
            let unanswered =
                field(cluster, &namespace, "orders", message).await.contains("No readable response to");
            let told = !field(cluster, &namespace, "orders", REASON).await.is_empty();
            told && unanswered != answers
        })
        .await;
        operator.kill();
        let log = std::io::read_to_string(reader).expect("text");
        assert_eq!(log.contains("set SSL_CERT_FILE instead"), !answers, "{log}");
    }
}
