//! Tests waiting for a `StreamEncryption`, by `helm install --wait`, which uses kstatus, and by `kubectl
//! wait`: each waits until records are encrypted, or fails if they will not be.

use node::commands::{helm, kubectl, try_helm, try_kubectl};
use node::stage::Stage;
use serde_json::json;
use simulated_aws::samples;
use tempfile::TempDir;

/// Creates a user's chart that contains one of the samples.
fn chart_of(sample: &str) -> TempDir {
    let chart = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(chart.path().join("templates")).expect("a folder");
    let about = "apiVersion: v2\nname: streams\nversion: 0.1.0\n";
    std::fs::write(chart.path().join("Chart.yaml"), about).expect("Chart.yaml");
    let from = packages::path("config/samples").join(sample);
    std::fs::copy(from, chart.path().join("templates/stream.yaml")).expect(sample);
    chart
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_wait_succeeds_once_encrypted_and_fails_if_stalled() {
    let stage = Stage::set(samples::world()).await;
    stage.install().await;
    kubectl("create namespace data").await;

    let chart = chart_of("01-firehose-aws-owned-key.yaml");
    let install = format!("install clicks {} -n data --wait --timeout 60s", chart.path().display());
    helm(&install, &json!({})).await;
    assert!(stage.encrypts("clicks"), "Helm returned too early");
    let wait = ["wait", "--for=condition=Ready", "strenc/clicks", "-n", "data", "--timeout=1s"];
    try_kubectl(&wait, "").await.expect("the stream that Helm waited for is Ready");

    let chart = chart_of("06-not-direct-put.yaml");
    let install = format!("install replica {} -n data --wait --timeout 60s", chart.path().display());
    let refused = try_helm(&install, &json!({})).await.expect_err("it cannot be encrypted");
    assert!(format!("{refused:#}").contains("replica"), "{refused:#}");
    let wait = ["wait", "--for=condition=Ready", "strenc/replica", "-n", "data", "--timeout=1s"];
    try_kubectl(&wait, "").await.expect_err("it is not Ready");
}
