//! Tests `docs/sharding.md`: its commands divide an installation.

use std::collections::BTreeSet;

use packages::objects::{NAMESPACE, only};
use packages::programs::run_helm;
use packages::text;
use serde_json::{Value, json};
use test_cluster::TestCluster;

use crate::documents::blocks;
use crate::install::{follow, run};
use crate::stage::chart;

/// Returns the Leases, the selectors, the regions and the default policies of all Deployments, by name.
async fn shards(cluster: &TestCluster) -> Vec<[String; 5]> {
    let get = ["get", "deployments", "-n", NAMESPACE, "-o", "json"];
    let list: Value = serde_json::from_str(&cluster.kubectl(&get).await.expect("a list")).expect("JSON");
    let items = list["items"].as_array().expect("items");
    let of = |deployment: &Value, name: &str| {
        let variables = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
        let variables = variables.as_array().expect("variables");
        let variable = variables.iter().find(|variable| variable["name"] == name);
        variable.and_then(|variable| variable["value"].as_str()).unwrap_or_default().to_owned()
    };
    let name = |deployment: &Value| deployment["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let shard = |one: &Value| {
        let [lease, selector, region, policy] =
            ["LEASE_NAME", "WATCH_LABEL_SELECTOR", "AWS_REGION", "DEFAULT_POLICY"].map(|name| of(one, name));
        [name(one), lease, selector, region, policy]
    };
    items.iter().map(shard).collect()
}

/// Returns the name and the labels of each alert that a release creates with its own values.
async fn alerts(cluster: &TestCluster, release: &str) -> Vec<String> {
    let get = ["get", "values", release, "--namespace", NAMESPACE, "--output", "json"];
    let values = run_helm(&get, "", Some(cluster.kubeconfig())).await.expect("values");
    let mut values: Value = serde_json::from_str(&values).expect("JSON");
    values["prometheusRule"]["enabled"] = json!(true);
    let objects = chart(values).await;
    let rules = only(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().expect("rules");
    rules.iter().map(|rule| format!("{} {}", rule["alert"], rule["labels"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sharding_page_commands_divide_an_installation() {
    let cluster = TestCluster::start().await.expect("a cluster");
    follow(&cluster, "## By Helm").await;
    let upgrade = "helm upgrade stream-encryption-operator charts/stream-encryption-operator \
                   -n stream-encryption-system --reset-then-reuse-values --set defaultPolicy.enabled=false";
    // An object of the user belongs to this release, and the others cannot have it.
    let object = r#"[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}}]"#;
    let upgrade = format!("{upgrade} --set-json 'extraObjects={object}'");
    run(&cluster, &[upgrade.as_str()]).await;
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    cluster.kubectl(&established).await.expect("established");
    cluster.kubectl(&["create", "namespace", "data"]).await.expect("a namespace");
    let resource = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "orders", "namespace": "data"},
        "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
    });
    cluster.apply(&resource.to_string()).await.expect("a resource");
    let page = text("docs/sharding.md");
    let commands = blocks(&page, "sh");
    assert_eq!(commands.len(), 2);
    run(&cluster, &commands).await;
    let without_default_policy = "";
    let shard = |name: &str, selector: &str| {
        [name, name, selector, "eu-west-1", without_default_policy].map(str::to_owned)
    };
    let expected = [
        shard("shard-a-stream-encryption-operator", "shard=a"),
        shard("shard-b-stream-encryption-operator", "shard=b"),
        shard("stream-encryption-operator", "shard notin (a,b)"),
    ];
    assert_eq!(shards(&cluster).await, expected);
    let mut all = Vec::new();
    for release in ["stream-encryption-operator", "shard-a", "shard-b"] {
        all.extend(alerts(&cluster, release).await);
    }
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "alerts of two shards have the same labels: {all:?}");
    let selected = ["get", "strenc", "-n", "data", "-l", "shard=a", "-o", "name"];
    let selected = cluster.kubectl(&selected).await.expect("a list");
    assert_eq!(selected.trim(), "streamencryption.streamencryption.dev/orders");
}
