//! A fleet that is divided among operators, by labels and by namespaces. Each operator is a process with its own
//! lease, on the real API server. It must leave the resources of the others alone (`docs/sharding.md`).

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use simulated_aws::SimulatedAws;
use simulated_aws::world::PlantedStream;
use stream_encryption_core::controller::kube_api::KubeApi as _;
use stream_encryption_operator::kubernetes::Cluster;
use test_cluster::TestCluster;

use crate::harness::{
    LEDGERS, cluster, firehose, fresh_namespace, manifest, operators_kubeconfig, spec, stopped,
};
use crate::matrix::scenario::{encrypted, stage};
use crate::permissions::{OPERATOR, until_permitted, user_of};
use crate::process::{
    OperatorProcess, REASON, START, apply, eventually, field, free_address, until_it_says, world,
};
use crate::readiness::asked;

mod fleet;

/// The access key of a shard. The log of the simulated AWS tells the shards apart by it.
fn access_key(shard: &str) -> String {
    format!("AKIA-{shard}")
}

/// Starts a replica of a shard with this selector, and with a lease of the shard's name.
fn start(
    account: &Path,
    namespace: &str,
    aws: &SimulatedAws,
    shard: &str,
    selector: &str,
) -> OperatorProcess {
    start_at(&free_address().to_string(), account, namespace, aws, shard, selector)
}

/// The same, with its metrics at this address.
fn start_at(
    listen: &str,
    account: &Path,
    namespace: &str,
    aws: &SimulatedAws,
    shard: &str,
    selector: &str,
) -> OperatorProcess {
    let (url, key) = (aws.url(), access_key(shard));
    let environment = [
        ("LISTEN", listen),
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", &key),
        ("WATCH_LABEL_SELECTOR", selector),
        ("LEADER_ELECTION", "true"),
        ("LEASE_NAME", shard),
        ("AWS_RATE_PERCENT", "100"),
    ];
    OperatorProcess::start(account, namespace, &environment)
}

/// Allows the operator's account these leases, as the chart does for the lease of its release.
async fn allow_leases(cluster: &TestCluster, namespace: &str, leases: &[&str]) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "shards", "namespace": namespace},
        "rules": [{
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": leases, "verbs": ["get", "patch"],
        }],
    });
    let account = json!({"kind": "ServiceAccount", "name": OPERATOR, "namespace": LEDGERS});
    for object in [role, binding("shards", namespace, "Role", &account)] {
        cluster.apply(&object.to_string()).await.expect("a role");
    }
    for lease in leases {
        let action = format!("patch leases.coordination.k8s.io/{lease}");
        until_permitted(cluster, &user_of(LEDGERS, OPERATOR), &action, namespace).await;
    }
}

/// Binds the role of the same name to an account.
fn binding(name: &str, namespace: &str, role: &str, account: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
        "subjects": [account],
    })
}

/// Returns the streams about which a shard sent these requests to AWS, and how many requests.
fn requests(aws: &SimulatedAws, shard: &str, operation: &str) -> Vec<String> {
    let world = aws.world();
    let of_shard = world.calls().iter().filter(|call| call.principal.access_key == access_key(shard));
    of_shard.filter(|call| call.operation == operation).map(|call| call.target.clone()).collect()
}

const DESCRIBE: &str = "DescribeDeliveryStream";

fn described(aws: &SimulatedAws, shard: &str) -> BTreeSet<String> {
    requests(aws, shard, DESCRIBE).into_iter().collect()
}

/// Creates a resource of the stream with the same name.
async fn create(cluster: &TestCluster, namespace: &str, name: &str, labels: Value) {
    let mut resource = manifest(namespace, name, &spec(&firehose(name), None));
    resource["metadata"]["labels"] = labels;
    cluster.apply(&resource.to_string()).await.expect("the resource is accepted");
}

async fn relabel(cluster: &TestCluster, namespace: &str, name: &str, label: &str) {
    let label = ["label", "strenc", name, "-n", namespace, "--overwrite", label];
    cluster.kubectl(&label).await.expect("a label");
}

/// A simulated AWS with these plaintext streams.
async fn aws_with(streams: &[&str]) -> SimulatedAws {
    let aws = world().await;
    for name in streams {
        aws.world().plant_stream(PlantedStream { name: (*name).to_owned(), ..PlantedStream::default() });
    }
    aws
}

#[tokio::test(flavor = "multi_thread")]
async fn label_shards_reconcile_only_their_resources_and_hand_over() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let namespace = fresh_namespace(cluster).await;
    allow_leases(cluster, &namespace, &["shard-a", "rest"]).await;
    let aws = aws_with(&["orders", "payments", "visits"]).await;
    let address = free_address().to_string();
    let _shard_a = start_at(&address, &account, &namespace, &aws, "shard-a", "shard=a");
    let _rest = start(&account, &namespace, &aws, "rest", "shard notin (a)");
    create(cluster, &namespace, "orders", json!({"shard": "a"})).await;
    create(cluster, &namespace, "payments", json!({"shard": "b"})).await;
    create(cluster, &namespace, "visits", json!({})).await;
    for name in ["orders", "payments", "visits"] {
        until_it_says(cluster, &namespace, name, "Encrypted").await;
    }
    assert_eq!(described(&aws, "shard-a"), ["orders".to_owned()].into());
    assert_eq!(described(&aws, "rest"), ["payments".to_owned(), "visits".to_owned()].into());
    for lease in ["shard-a", "rest"] {
        let get = ["get", "lease", lease, "-n", &namespace, "-o", "jsonpath={.spec.holderIdentity}"];
        assert_ne!(cluster.kubectl(&get).await.expect("a lease"), "", "{lease} has a holder");
    }

    // To the other shard, which then corrects the stream, and the first one does not.
    relabel(cluster, &namespace, "orders", "shard=b").await;
    let by_rest = async || described(&aws, "rest").contains("orders");
    eventually("the other shard describes the stream", by_rest).await;
    // Until its watch reports the new label, the first shard may correct the stream as well as the other one.
    let metrics = format!("http://{address}/metrics");
    let has_resources = "reason=\"Encrypted\"}";
    eventually("the first shard has no resource", async || {
        asked(&metrics).await.is_some_and(|(_, words)| !words.contains(has_resources))
    })
    .await;
    let by_shard_a = || requests(&aws, "shard-a", DESCRIBE).len();
    let before = by_shard_a();
    assert!(aws.world().set_stream(aws.now(), &firehose("orders"), stopped()), "a stream");
    let starts =
        |shard: &str| requests(&aws, shard, START).into_iter().filter(|target| target == "orders").count();
    eventually("the other shard corrects the stream", async || starts("rest") == 1).await;
    until_it_says(cluster, &namespace, "orders", "Encrypted").await;
    assert_eq!((starts("shard-a"), by_shard_a()), (1, before));

    // And back, although nothing but the labels has changed since the first shard knew the resource.
    relabel(cluster, &namespace, "orders", "shard=a").await;
    eventually("the first shard describes the stream", async || by_shard_a() > before).await;
    assert_eq!((starts("shard-a"), starts("rest")), (1, 1));
}

/// The rules of the chart for one watched namespace, and for the operator's own.
async fn account_of_namespaces(cluster: &TestCluster, own: &str, watched: &[&str]) -> std::path::PathBuf {
    cluster.kubectl(&["create", "serviceaccount", "shard", "-n", own]).await.expect("an account");
    let account = json!({"kind": "ServiceAccount", "name": "shard", "namespace": own});
    let group = "streamencryption.dev";
    let api = "rbac.authorization.k8s.io/v1";
    let resources = json!([
        {"apiGroups": [group], "resources": ["streamencryptions"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [group], "resources": ["streamencryptions/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["kms.services.k8s.aws", "kms.aws.m.upbound.io"], "resources": ["keys"], "verbs": ["get", "list", "watch"]},
    ]);
    let mut objects = Vec::new();
    for namespace in watched {
        let metadata = json!({"name": "shard", "namespace": namespace});
        objects.push(json!({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": resources}));
        objects.push(binding("shard", namespace, "Role", &account));
    }
    let own_name = format!("{own}-ledgers");
    let ledgers = json!([{
        "apiGroups": [group], "resources": ["streamledgers"], "verbs": ["get", "list", "watch", "create", "update", "delete"],
    }]);
    let metadata = json!({"name": own_name, "namespace": own});
    objects.push(json!({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": ledgers}));
    objects.push(binding(&own_name, own, "Role", &account));
    let policies = json!([
        {"apiGroups": [group], "resources": ["streamencryptionpolicies"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": watched, "verbs": ["get", "list", "watch"]},
    ]);
    let metadata = json!({"name": own_name});
    objects.push(json!({"apiVersion": api, "kind": "ClusterRole", "metadata": metadata, "rules": policies}));
    objects.push(json!({
        "apiVersion": api, "kind": "ClusterRoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": own_name},
        "subjects": [account],
    }));
    for object in objects {
        cluster.apply(&object.to_string()).await.expect("a role");
    }
    let user = user_of(own, "shard");
    for namespace in watched {
        until_permitted(cluster, &user, "list streamencryptions", namespace).await;
    }
    until_permitted(cluster, &user, "update streamledgers", own).await;
    until_permitted(cluster, &user, "list streamencryptionpolicies", "").await;
    cluster.service_account_kubeconfig(own, "shard").await.expect("its account")
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_shard_watches_each_of_its_namespaces_only() {
    let cluster = cluster().await;
    let mut namespaces = Vec::new();
    for _ in 0..4 {
        namespaces.push(fresh_namespace(cluster).await);
    }
    let [own, data, web, other] = &namespaces[..] else { panic!("four namespaces") };
    let account = account_of_namespaces(cluster, own, &[data, web]).await;
    let aws = aws_with(&["a", "b", "c"]).await;
    // The policy selects by labels, so the operator must read those of both namespaces. A namespace without
    // permissions must not keep it from the others.
    let policy = crate::process::own_account()
        .replace(r#""namespaceSelector":{}"#, r#""namespaceSelector":{"matchLabels":{"team":"streams"}}"#);
    assert!(policy.contains("team"), "{policy}");
    let (url, watched) = (aws.url(), format!("{data},{web},{other}"));
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("WATCH_NAMESPACE", &watched), ("DEFAULT_POLICY", &policy)];
    let _operator = OperatorProcess::start(&account, own, &environment);
    for (namespace, name) in [(other, "c"), (data, "a"), (web, "b")] {
        apply(cluster, namespace, name, &json!({"stream": {"arn": firehose(name)}})).await;
    }
    for (namespace, name) in [(data, "a"), (web, "b")] {
        eventually("the labels of the namespace are read", async || {
            field(cluster, namespace, name, REASON).await == "NotPermitted"
        })
        .await;
    }
    for namespace in [data, web] {
        cluster.kubectl(&["label", "namespace", namespace, "team=streams"]).await.expect("a label");
    }
    for (namespace, name) in [(data, "a"), (web, "b")] {
        until_it_says(cluster, namespace, name, "Encrypted").await;
        assert_eq!(
            aws.world().calls().iter().filter(|call| call.operation == START && call.target == name).count(),
            1
        );
    }
    assert_eq!(field(cluster, other, "c", REASON).await, "");
}

#[tokio::test]
async fn ledgers_of_unwatched_namespaces_are_not_collected() {
    let harness = encrypted(stage().await).await;
    let namespace = harness.namespace.clone();
    let seen = async |watched: &[String]| {
        let records = Cluster::new(harness.client.clone(), &namespace, None).watching(watched);
        records.ledgers(None).await.expect("a list").ledgers.len()
    };
    assert_eq!(seen(&[]).await, 1);
    assert_eq!(seen(&["data".to_owned(), namespace.clone()]).await, 1);
    assert_eq!(seen(&["data".to_owned()]).await, 0);
}
