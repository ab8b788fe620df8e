//! Helm, promtool, kubeconform, kube-state-metrics, the evaluator of Flux, and actionlint, built from the Go
//! modules beside this crate, and run without the user's own settings.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use test_cluster::build_go_program_with_tags;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::schemas;

/// Returns the folder of one of the Go modules.
fn module(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns a program of the Go module in this folder, built once.
async fn built(folder: &str, package: &str, tags: &str) -> anyhow::Result<PathBuf> {
    let name = package.rsplit('/').next().unwrap_or(package);
    build_go_program_with_tags(&module(folder), package, name, tags).await
}

/// Returns Helm 4. Its build takes about 3 minutes.
pub async fn helm() -> anyhow::Result<PathBuf> {
    built("helm", "helm.sh/helm/v4/cmd/helm", "").await
}

/// Returns Helm 3, which is still in use. Its build takes about 2 minutes.
pub async fn helm_3() -> anyhow::Result<PathBuf> {
    built("helm3", "helm.sh/helm/v3/cmd/helm", "").await
}

/// Returns kube-state-metrics. Its build takes about a minute.
pub async fn kube_state_metrics() -> anyhow::Result<PathBuf> {
    let folder = module("kube-state-metrics");
    build_go_program_with_tags(&folder, "k8s.io/kube-state-metrics/v2", "kube-state-metrics", "").await
}

/// Returns the CRDs of the kinds that the chart creates for the Prometheus operator, from that operator's own
/// module.
pub async fn prometheus_operator_definitions() -> anyhow::Result<Vec<PathBuf>> {
    let name = "github.com/prometheus-operator/prometheus-operator";
    let folder =
        go_module(&module("prometheus-operator"), name).await?.join("example/prometheus-operator-crd");
    Ok(["servicemonitors", "prometheusrules"]
        .map(|kind| folder.join(format!("monitoring.coreos.com_{kind}.yaml")))
        .into())
}

/// Returns the CRDs of Argo CD, from its own module.
pub async fn argocd_definitions() -> anyhow::Result<Vec<PathBuf>> {
    let module = module("../node/argocd");
    let folder = go_module(&module, "github.com/argoproj/argo-cd/v3").await?.join("manifests/crds");
    Ok(["application", "applicationset", "appproject"]
        .map(|kind| folder.join(format!("{kind}-crd.yaml")))
        .into())
}

/// Returns the sources of a Go module, at the version that the module in the folder `from` pins.
pub async fn go_module(from: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", name]).current_dir(from);
    let downloaded: serde_json::Value = serde_json::from_str(&output(go, "").await?)?;
    Ok(downloaded["Dir"].as_str().context("no folder")?.into())
}

/// Runs Helm 4 in the repository with `input` as stdin, on the cluster of `kubeconfig` or without a cluster.
pub async fn run_helm(arguments: &[&str], input: &str, kubeconfig: Option<&Path>) -> anyhow::Result<String> {
    run_this_helm(&helm().await?, arguments, input, kubeconfig).await
}

/// Runs the given Helm as [`run_helm`] does.
pub async fn run_this_helm(
    helm: &Path,
    arguments: &[&str],
    input: &str,
    kubeconfig: Option<&Path>,
) -> anyhow::Result<String> {
    let own = TempDir::new()?;
    let mut command = Command::new(helm);
    command.args(arguments).current_dir(crate::path("."));
    for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(folder, own.path().join(folder));
    }
    command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/nowhere")));
    output(command, input).await.with_context(|| format!("helm {}", arguments.join(" ")))
}

/// Runs promtool on files in `folder`.
pub async fn run_promtool(arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    // Its build takes about 3 minutes, without service discovery, which would need the SDK of every cloud.
    let package = "github.com/prometheus/prometheus/cmd/promtool";
    let mut promtool = Command::new(built("promtool", package, "remove_all_sd").await?);
    promtool.args(arguments).current_dir(folder);
    output(promtool, "").await.with_context(|| format!("promtool {}", arguments.join(" ")))
}

/// Runs kubeconform on files of the repository, or on `input` if there are none, with only the schemas in a
/// folder (see [`schemas`]). Returns its summary.
pub async fn run_kubeconform(folder: &Path, files: &[String], input: &str) -> anyhow::Result<String> {
    let package = "github.com/yannh/kubeconform/cmd/kubeconform";
    let mut kubeconform = Command::new(built("kubeconform", package, "").await?);
    kubeconform.args(["-strict", "-summary", "-schema-location", &schemas::location(folder)]);
    kubeconform.args(files).current_dir(crate::path("."));
    output(kubeconform, input).await.context("kubeconform")
}

/// Runs actionlint on a workflow of GitHub Actions, without shell linters, which may be absent on a machine.
pub async fn run_actionlint(workflow: &str) -> anyhow::Result<String> {
    let package = "github.com/rhysd/actionlint/cmd/actionlint";
    let mut actionlint = Command::new(built("actionlint", package, "").await?);
    actionlint.args(["-no-color", "-shellcheck=", "-pyflakes=", "-"]).current_dir(crate::path("."));
    output(actionlint, workflow).await.context("actionlint")
}

/// Returns the status of each resource by a health check of Flux, from JSON with the fields `check` and
/// `resources`.
pub async fn flux_statuses(question: &serde_json::Value) -> anyhow::Result<Vec<String>> {
    let program = build_go_program_with_tags(&module("flux"), ".", "flux-health", "").await?;
    let answers = output(Command::new(program), &question.to_string()).await?;
    Ok(serde_json::from_str(&answers)?)
}

/// Returns the stdout of a program.
pub async fn output(mut command: Command, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("it does not start")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes the pipe; only its exit status is relevant.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    let words = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        bail!("{words}{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(words)
}
