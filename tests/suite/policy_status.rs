//! The status of policies, written by the operator's process on an API server of its own: it watches all
//! namespaces.

use serde_json::json;
use test_cluster::TestCluster;

use crate::harness::{LEDGERS, own_cluster};
use crate::process::{OperatorProcess, apply, eventually, until_it_says, world};

const FIREHOSE: &str = "arn:*:firehose:*:own:deliverystream/*";

/// Applies the policy `data` for the namespaces with these labels.
async fn policy(cluster: &TestCluster, labels: serde_json::Value) {
    let policy = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": "data"},
        "spec": {"namespaceSelector": {"matchLabels": labels}, "streams": [FIREHOSE], "keys": ["AWS_OWNED_CMK"]},
    });
    cluster.apply(&policy.to_string()).await.expect("the policy is accepted");
}

/// Waits until kubectl prints these columns of the policy: ACCEPTED, NAMESPACES and RESOURCES.
async fn until_it_shows(cluster: &TestCluster, columns: [&str; 3]) {
    eventually(&format!("{columns:?}"), async || {
        let table = cluster.kubectl(&["get", "strencpol", "data"]).await.unwrap_or_default();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let [heading, row] = &rows[..] else { return false };
        assert_eq!(heading[1..4], ["ACCEPTED", "NAMESPACES", "RESOURCES"]);
        row.get(1..4) == Some(&columns[..])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_status_follows_namespaces_and_resources() {
    let (cluster, kubeconfig) = own_cluster(&["data", "web"]).await;
    let aws = world().await;
    policy(&cluster, json!({"kubernetes.io/metadata.name": "data"})).await;
    let (url, all_namespaces) = (aws.url(), "");
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS), ("DEFAULT_POLICY", "")];
    let _operator = OperatorProcess::start(&kubeconfig, all_namespaces, &environment);
    until_it_shows(&cluster, ["True", "1", "0"]).await;

    // A stream by its ARN, one by its name, and one of a service that the policy does not allow.
    apply(&cluster, "data", "orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    until_it_says(&cluster, "data", "orders", "Encrypted").await;
    apply(&cluster, "data", "clicks", &json!({"stream": {"service": "Kinesis", "name": "clicks"}})).await;
    let visits = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/visits";
    apply(&cluster, "data", "visits", &json!({"stream": {"arn": visits}})).await;
    until_it_shows(&cluster, ["True", "1", "2"]).await;

    // Namespaces by their labels, which change.
    policy(&cluster, json!({"team": "data"})).await;
    until_it_shows(&cluster, ["True", "0", "0"]).await;
    for namespace in ["data", "web"] {
        cluster.kubectl(&["label", "namespace", namespace, "team=data"]).await.expect("a label");
    }
    until_it_shows(&cluster, ["True", "2", "2"]).await;
}
