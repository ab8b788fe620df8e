//! The API server that objects are held against, with our definitions, the Prometheus operator's and Argo CD's on it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use packages::objects::{list, of_kind, parsed, rendered, word};
use packages::programs::{argocd_definitions, prometheus_operator_definitions};
use serde_json::{Value, json};
use test_cluster::TestCluster;
use tokio::sync::{Mutex, OnceCell};

/// The cluster of this test binary.
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
            // kubectl gives up on a definition that has no conditions yet, which large ones have not for a while.
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

/// Makes namespaces, and in them the account that pods name: the API server takes no pod without one.
async fn prepare(cluster: &TestCluster, objects: &[Value]) {
    // One test at a time: two that make the same namespace at once would be in each other's way.
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

/// Asks the API server whether it would take the objects as they are, with no field that it does not know, and no warning.
pub(crate) async fn would_take(objects: &[Value]) -> anyhow::Result<String> {
    let cluster = cluster().await;
    prepare(cluster, objects).await;
    let strict = ["--validate=strict", "--warnings-as-errors"];
    let ask =
        [&["apply", "--server-side", "--force-conflicts", "--dry-run=server"][..], &strict, &["-f", "-"]]
            .concat();
    cluster.kubectl_with_input(&ask, &list(objects)).await
}

/// The chart's objects with these values.
pub(crate) async fn chart(values: Value) -> Vec<Value> {
    rendered(&values).await.expect("it renders")
}

/// The objects that a kustomization makes.
pub(crate) async fn kustomized(folder: &str) -> Vec<Value> {
    parsed(&kustomize(folder).await).expect("YAML")
}

/// A kustomization, as kubectl prints it.
pub(crate) async fn kustomize(folder: &str) -> String {
    let folder = packages::path(folder).display().to_string();
    cluster().await.kubectl(&["kustomize", &folder]).await.expect("it builds")
}
