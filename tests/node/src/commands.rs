//! Runs kubectl and Helm as a user of the node's cluster would, and waits for their effects.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use packages::programs::{output, run_this_helm};
use serde_json::Value;
use tokio::process::Command;

/// Returns the folder in which `tests/node/node` keeps the node's state.
pub fn state() -> PathBuf {
    std::env::var_os("NODE_STATE").expect("a node is needed: bash tests/node/run").into()
}

/// Runs kubectl in the repository, and returns its output.
pub async fn try_kubectl(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut kubectl = Command::new(state().join("programs/kubectl"));
    kubectl.args(arguments).current_dir(packages::path("."));
    output(kubectl, input).await.with_context(|| format!("kubectl {}", arguments.join(" ")))
}

/// Runs [`try_kubectl`] with arguments separated by blanks.
pub async fn kubectl(line: &str) -> String {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    try_kubectl(&arguments, "").await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs `kubectl apply` with an object or a list of objects.
pub async fn apply(object: &Value) {
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    try_kubectl(&apply, &object.to_string()).await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Runs Helm 4 on the node's cluster.
pub async fn helm(line: &str, values: &Value) -> String {
    this_helm("helm", line, values).await
}

/// Runs [`helm`], which may fail.
pub async fn try_helm(line: &str, values: &Value) -> anyhow::Result<String> {
    try_this_helm("helm", line, values).await
}

/// Runs a Helm of the node's programs: `helm`, which is Helm 4, or `helm3`.
pub async fn this_helm(program: &str, line: &str, values: &Value) -> String {
    try_this_helm(program, line, values).await.unwrap_or_else(|error| panic!("{error:#}"))
}

async fn try_this_helm(program: &str, line: &str, values: &Value) -> anyhow::Result<String> {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let (program, kubeconfig) = (state().join("programs").join(program), state().join("kubeconfig"));
    run_this_helm(&program, &arguments, &values.to_string(), Some(&kubeconfig)).await
}

/// Waits until a condition in the cluster is true.
pub async fn eventually(what: &str, seconds: u64, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
