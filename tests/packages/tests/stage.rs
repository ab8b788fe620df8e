//! The API server that validates objects, with our CRDs and those of the Prometheus operator and Argo CD.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use packages::objects::{list, of_kind, parsed, rendered, word};
use packages::programs::{argocd_definitions, prometheus_operator_definitions};
use serde_json::{Value, json};
use test_cluster::TestCluster;
use tokio::sync::{Mutex, OnceCell};

/// Returns the cluster of this test binary.
pub(crate) async fn cluster() -> &'static TestCluster {
    static READY: OnceCell<()> = OnceCell::const_new();
    let cluster = test_cluster::shared().await.expect("a cluster");
    READY
        .get_or_init(async || {
            let mut definitions = prometheus_operator_definitions().await.expect("the definitions");
            definitions.extend(argocd_definitions().await.expect("the definitions"));
            definitions.push(packages::path("crds"));
            for definition in definitions {
                let file = definition.display().to_string();
                cluster.kubectl(&["apply", "--server-side", "-f", &file]).await.expect("a definition");
            }
            // kubectl fails on a CRD that has no conditions yet, and a large CRD has none for a while.
            let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
            let end = Instant::now() + Duration::from_secs(30);
            while let Err(error) = cluster.kubectl(&established).await {
                assert!(Instant::now() < end, "{error:#}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
    cluster
}

/// Creates namespaces, and in them the service accounts that pods name: the API server rejects a pod whose
/// service account does not exist.
async fn prepare(cluster: &TestCluster, objects: &[Value]) {
    // Serialized: two tests that create the same namespace at once would conflict.
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let made = |kind: &str, metadata: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
    let namespaces: BTreeSet<&str> =
        objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
    let namespaces = namespaces.into_iter().map(|name| made("Namespace", json!({"name": name})));
    let accounts = of_kind(objects, "Deployment").map(|deployment| {
        let name = word(&deployment["spec"]["template"]["spec"]["serviceAccountName"]);
        made("ServiceAccount", json!({"name": name, "namespace": deployment["metadata"]["namespace"]}))
    });
    let first: Vec<Value> = namespaces.chain(accounts).collect();
    if first.is_empty() {
        return;
    }
    let apply = ["apply", "--server-side", "--field-manager=test", "-f", "-"];
    cluster.kubectl_with_input(&apply, &list(&first)).await.expect("namespaces and an account");
}

/// Checks by a server-side dry run that the API server accepts the objects without unknown fields and without
/// warnings.
pub(crate) async fn would_take(objects: &[Value]) -> anyhow::Result<String> {
    let cluster = cluster().await;
    prepare(cluster, objects).await;
    let strict = ["--validate=strict", "--warnings-as-errors"];
    let ask =
        [&["apply", "--server-side", "--force-conflicts", "--dry-run=server"][..], &strict, &["-f", "-"]]
            .concat();
    cluster.kubectl_with_input(&ask, &list(objects)).await
}

/// Returns the chart's objects with these values.
pub(crate) async fn chart(values: Value) -> Vec<Value> {
    rendered(&values).await.expect("it renders")
}

/// Returns the objects of a kustomization.
pub(crate) async fn kustomized(folder: &str) -> Vec<Value> {
    parsed(&kustomize(folder).await).expect("YAML")
}

/// Returns a kustomization, as kubectl prints it.
pub(crate) async fn kustomize(folder: &str) -> String {
    build(&packages::path(folder)).await
}

async fn build(folder: &Path) -> String {
    let folder = folder.display().to_string();
    cluster().await.kubectl(&["kustomize", &folder]).await.expect("it builds")
}

/// Returns a new folder with a clone of the repository, and beside it the reader's folder `own` with this
/// kustomization.
pub(crate) fn beside_clone(name: &str, kustomization: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("own")).expect("a folder");
    let repository = packages::path(".").canonicalize().expect("the repository");
    std::os::unix::fs::symlink(repository, folder.join("stream-encryption-operator")).expect("a link");
    fs::write(folder.join("own/kustomization.yaml"), kustomization).expect("it is written");
    folder
}

/// Returns the objects of a reader's kustomization ([`beside_clone`]).
pub(crate) async fn kustomized_beside_clone(name: &str, kustomization: &str) -> Vec<Value> {
    let folder = beside_clone(name, kustomization).join("own");
    parsed(&build(&folder).await).expect("YAML")
}
