//! Leader election: one replica is active and the others stand by, also when a replica is killed, ended or
//! cut off from the API server. Each replica reports its state over HTTP.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use simulated_aws::world::{Calls as _, Fault, Rule};

use crate::harness::{cluster, firehose, fresh_namespace, operators_kubeconfig};
use crate::matrix::proxy::{Meet, Proxy, When};
use crate::process::{
    OperatorProcess, REASON, START, apply, eventually, field, free_address, until_it_is_encrypted, world,
};
use crate::readiness::asked;

/// Maximum time, in seconds, until another replica takes over from a dead one.
const TAKEN_OVER: u64 = 20;

/// A replica that takes part in the election.
struct Replica {
    process: OperatorProcess,
    /// Base URL of its metrics and probes.
    url: String,
}

impl Replica {
    fn start(kubeconfig: &Path, namespace: &str, name: &str, aws: &str) -> Self {
        let address = free_address().to_string();
        let environment = [
            ("AWS_ENDPOINT_URL", aws),
            ("LEADER_ELECTION", "true"),
            ("POD_NAME", name),
            ("LISTEN", address.as_str()),
        ];
        let process = OperatorProcess::start(kubeconfig, namespace, &environment);
        Self { process, url: format!("http://{address}") }
    }

    async fn asked(&self, path: &str) -> Option<(u16, String)> {
        asked(&format!("{}{path}", self.url)).await
    }

    async fn metrics(&self) -> String {
        self.asked("/metrics").await.map(|(_, words)| words).unwrap_or_default()
    }

    async fn leads(&self) -> bool {
        self.metrics().await.contains("\nstream_encryption_leader 1\n")
    }
}

async fn until_it_leads(replica: &Replica) {
    eventually("the replica is the leader", TAKEN_OVER, async || replica.leads().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_takes_over_from_killed_leader_without_second_start() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    let namespace = fresh_namespace(cluster).await;
    let aws = world().await;
    let first = Replica::start(&kubeconfig, &namespace, "first", &aws.url());
    until_it_leads(&first).await;
    let second = Replica::start(&kubeconfig, &namespace, "second", &aws.url());
    for replica in [&first, &second] {
        eventually("it is ready", 20, async || {
            replica.asked("/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        assert_eq!(replica.asked("/healthz").await, Some((200, "ok\n".to_owned())));
    }
    assert!(!second.leads().await);

    aws.world().script(Rule::once(Fault::Hold).on(START));
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    eventually("Start is sent", 20, async || aws.world().calls().count(START, "orders") == 1).await;
    first.process.kill();
    until_it_leads(&second).await;
    until_it_is_encrypted(cluster, &namespace).await;
    assert_eq!(aws.world().calls().count(START, "orders"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_is_released_on_shutdown_and_recreated_if_deleted() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    let namespace = fresh_namespace(cluster).await;
    let aws = world().await;
    let mut first = Replica::start(&kubeconfig, &namespace, "first", &aws.url());
    until_it_leads(&first).await;
    let second = Replica::start(&kubeconfig, &namespace, "second", &aws.url());
    first.process.signal("-TERM");
    eventually("it ends", 10, async || first.process.ended().is_some()).await;
    assert!(first.process.ended().is_some_and(|status| status.success()));
    until_it_leads(&second).await;

    let lease = ["delete", "lease", "stream-encryption-operator", "-n", &namespace];
    cluster.kubectl(&lease).await.expect("the lease is deleted");
    let holder = ["get", "lease", "stream-encryption-operator", "-n", &namespace, "-o"];
    eventually("there is a lease again", TAKEN_OVER, async || {
        let path = ["jsonpath={.spec.holderIdentity}"];
        let asked = [&holder[..], &path].concat();
        cluster.kubectl(&asked).await.is_ok_and(|holder| holder == "second")
    })
    .await;
    until_it_leads(&second).await;
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    until_it_is_encrypted(cluster, &namespace).await;
    assert_eq!(aws.world().calls().count(START, "orders"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_api_server_is_replaced() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    let namespace = fresh_namespace(cluster).await;
    let aws = world().await;
    let proxy = Proxy::of_kubernetes(cluster, &kubeconfig).await;
    let first = Replica::start(proxy.kubeconfig(), &namespace, "first", &aws.url());
    until_it_leads(&first).await;
    let second = Replica::start(&kubeconfig, &namespace, "second", &aws.url());
    // Requests hang: they get neither a response nor an error.
    proxy.always(|_| true, Meet::Hold(When::Before));
    until_it_leads(&second).await;
    eventually("the first replica has lost leadership", TAKEN_OVER, async || !first.leads().await).await;
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    until_it_is_encrypted(cluster, &namespace).await;
    assert_eq!(aws.world().calls().count(START, "orders"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_without_lease_permission_is_not_ready() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    // The namespace lacks the operator's role, and with it access to the lease.
    let namespace = "without-a-lease";
    cluster.kubectl(&["create", "namespace", namespace]).await.expect("a namespace");
    let aws = world().await;
    let replica = Replica::start(&kubeconfig, namespace, "only", &aws.url());
    eventually("the replica answers", 20, async || replica.asked("/healthz").await.is_some()).await;
    apply(cluster, namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let (status, words) = replica.asked("/readyz").await.expect("an answer");
    assert_eq!(
        (status, words.as_str()),
        (503, "not ready: the resources have not been listed, and no leader is known\n")
    );
    assert!(!replica.leads().await);
    assert_eq!(field(cluster, namespace, "orders", REASON).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_check_command_reflect_replica_state() {
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let aws = world().await;
    let replica = Replica::start(&operators_kubeconfig(cluster).await, &namespace, "only", &aws.url());
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    until_it_is_encrypted(cluster, &namespace).await;
    eventually("the metrics count the encrypted resource", 10, async || {
        replica.metrics().await.contains("stream_encryption_resources{reason=\"Encrypted\"} 1\n")
    })
    .await;
    let metrics = replica.metrics().await;
    for line in [
        "stream_encryption_leader 1",
        "stream_encryption_calls_total{aws_service=\"Firehose\",action=\"Start\",outcome=\"Accepted\"} 1",
        "stream_encryption_streams{aws_service=\"Firehose\",status=\"ENABLED\"} 1",
        "stream_encryption_time_to_encrypted_seconds_count{aws_service=\"Firehose\"} 1",
        "stream_encryption_lowest_calls_left 19",
        "stream_encryption_plaintext_streams 0",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in\n{metrics}");
    }

    let check = |url: String| {
        let program = env!("CARGO_BIN_EXE_stream-encryption-operator");
        Command::new(program).args(["check", "--url", &url]).output().expect("it runs")
    };
    let good = check(format!("{}/readyz", replica.url));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let bad = check(format!("{}/nowhere", replica.url));
    assert!(!bad.status.success());
    assert!(String::from_utf8_lossy(&bad.stderr).contains("404"));
    let word = check("readyz".to_owned());
    assert!(String::from_utf8_lossy(&word.stderr).contains("expected http://HOST:PORT/readyz"));
}
