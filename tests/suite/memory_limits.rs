//! T16: no tenant can exhaust the operator's memory, neither by large objects nor by open connections.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::json;
use stream_encryption_api::stream_encryption::StreamEncryption;
use test_cluster::TestCluster;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::{LEDGERS, client, cluster, firehose, fresh_namespace, operators_kubeconfig};
use crate::matrix::proxy::{Meet, Proxy, When};
use crate::process::{OperatorProcess, Place, eventually, free_address, key_definition, own_stage, world};
use crate::readiness::asked;

/// Number of large resources. The environment variable of the same name overrides it.
const LARGE_RESOURCES: usize = 80;
/// Sizes in each resource: Kubernetes allows 256 KiB of annotations, and owner names of any length within 1.5
/// MiB.
const ANNOTATION: usize = 250_000;
const OWNERS: usize = 5;
const OWNERS_NAME: usize = 150_000;
const BYTES: usize = ANNOTATION + OWNERS * OWNERS_NAME;
/// Labels, which managed fields repeat.
const LABELS: usize = 200;
/// The objects of the test that `key.objectRef` can name.
const KEYS: &str = "key objects";

/// The peak resident size of a process, in bytes.
fn peak(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().strip_suffix(" kB").and_then(|size| size.parse::<usize>().ok()).expect("a size") * 1024
}

/// The peak of an operator that has started, listed and reconciled all resources of this namespace, and has
/// listed its key objects if `with_keys`.
async fn peak_of_operator(
    cluster: &TestCluster,
    kubeconfig: &Path,
    namespace: &str,
    with_keys: bool,
) -> usize {
    let aws = world().await;
    let (url, address) = (aws.url(), free_address().to_string());
    let environment = [("AWS_ENDPOINT_URL", url.as_str()), ("LISTEN", address.as_str())];
    let proxy = Proxy::of_kubernetes(cluster, kubeconfig).await;
    // The operator watches key objects once it has listed them.
    proxy.once(|asked| asked.path.ends_with("/keys") && asked.is_watch(), 0, Meet::Hold(When::Before));
    let operator = OperatorProcess::start(proxy.kubeconfig(), namespace, &environment);
    if with_keys {
        tokio::time::timeout(Duration::from_mins(5), proxy.held(1)).await.expect("key objects are watched");
    }
    let ready = format!("http://{address}/readyz");
    eventually("it is ready", async || asked(&ready).await.is_some_and(|(status, _)| status == 200)).await;
    let metrics = format!("http://{address}/metrics");
    eventually("each resource has a status", async || {
        asked(&metrics).await.is_some_and(|(_, words)| !words.contains("reason=\"UNKNOWN\""))
    })
    .await;
    peak(operator.id())
}

/// Metadata of about 1 MB, as large as Kubernetes accepts.
fn large_metadata(number: usize) -> ObjectMeta {
    let owner = |number: usize| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: "x".repeat(OWNERS_NAME),
        uid: number.to_string(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(format!("large-{number}")),
        annotations: Some([("note".to_owned(), "x".repeat(ANNOTATION))].into()),
        labels: Some((0..LABELS).map(|number| (format!("{number:x>63}"), "x".repeat(60))).collect()),
        owner_references: Some((0..OWNERS).map(owner).collect()),
        ..ObjectMeta::default()
    }
}

/// Compares the operator's peak with and without the objects that `create` creates.
async fn assert_bounded(
    cluster: &TestCluster,
    kubeconfig: &Path,
    namespace: &str,
    kind: &str,
    create: impl AsyncFn(usize),
) {
    let with_keys = kind == KEYS;
    let empty = peak_of_operator(cluster, kubeconfig, namespace, with_keys).await;
    let count = std::env::var("LARGE_RESOURCES").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(LARGE_RESOURCES);
    stream::iter(0..count).for_each_concurrent(4, async |number| create(number).await).await;
    let full = peak_of_operator(cluster, kubeconfig, namespace, with_keys).await;
    let more = full.saturating_sub(empty);
    println!("{count} {kind}: at most {full} bytes with them, {empty} bytes without them");
    // One page of objects, and those that are reconciled concurrently, are in memory. An operator that kept
    // all objects whole would need several times their size.
    assert!(more < count * BYTES && full < 128 << 20, "{empty} bytes without them, {full} with them");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn large_resources_do_not_exhaust_memory() {
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let api: Api<StreamEncryption> = Api::namespaced(client(cluster.kubeconfig()).await, &namespace);
    let create = async |number: usize| {
        let metadata = large_metadata(number);
        let spec = json!({"stream": {"arn": firehose(metadata.name.as_deref().unwrap_or_default())}, "suspend": true});
        let spec = serde_json::from_value(spec).expect("a spec");
        let resource = StreamEncryption { metadata, spec, status: None };
        api.create(&PostParams::default(), &resource).await.expect("the resource is accepted");
    };
    assert_bounded(cluster, &operators_kubeconfig(cluster).await, &namespace, "resources", create).await;
    // One by one: the API server ends a request that lasts for a minute.
    let names = api.list_metadata(&ListParams::default()).await.expect("their names").items;
    for resource in names {
        api.delete(&resource.name_any(), &DeleteParams::default()).await.expect("it is deleted");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn large_key_objects_do_not_exhaust_memory() {
    let (own, _aws, _operator) =
        own_stage(&key_definition("kms.services.k8s.aws", "v1alpha1").to_string()).await;
    let account =
        own.service_account_kubeconfig(LEDGERS, "stream-encryption-operator").await.expect("its account");
    let kind = GroupVersionKind::gvk("kms.services.k8s.aws", "v1alpha1", "Key");
    let kind = ApiResource::from_gvk_with_plural(&kind, "keys");
    let api: Api<DynamicObject> = Api::namespaced_with(client(own.kubeconfig()).await, "data", &kind);
    let create = async |number: usize| {
        let key = DynamicObject { metadata: large_metadata(number), ..DynamicObject::new("", &kind) };
        api.create(&PostParams::default(), &key).await.expect("the key object is accepted");
    };
    assert_bounded(&own, &account, "data", KEYS, create).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_exhaust_memory() {
    let address = free_address();
    let place = Place::new().await;
    let operator = place.start(&[("LISTEN", &address.to_string())]);
    let [healthz, ready] = ["healthz", "readyz"].map(|path| format!("http://{address}/{path}"));
    // The lists take memory, too.
    eventually("it is ready", async || asked(&ready).await.is_some_and(|(status, _)| status == 200)).await;
    let before = peak(operator.id());
    let mut held = std::collections::VecDeque::new();
    for _ in 0..3000 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // The operator may have closed it already; that is fine.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ").await;
        held.push_back(stream);
        if held.len() > 500 {
            held.pop_front();
        }
    }
    let files = fs::read_dir(format!("/proc/{}/fd", operator.id())).expect("it runs").count();
    assert!(files < 350, "{files} open files");
    assert_eq!(asked(&healthz).await, Some((200, "ok\n".to_owned())));
    let more = peak(operator.id()).saturating_sub(before);
    assert!(more < 16 << 20, "{more} bytes more");
}
