//! Leader election: one replica is active and the others stand by, also when a replica is killed, ended or
//! cut off from the API server. Each replica reports its state over HTTP.

use std::process::Command;

use simulated_aws::world::{Fault, Rule};

use crate::matrix::proxy::{Meet, Proxy, When};
use crate::process::{OperatorProcess, Place, REASON, START, eventually, free_address};
use crate::readiness::asked;

/// A replica that takes part in the election.
struct Replica {
    process: OperatorProcess,
    /// Base URL of its metrics and probes.
    url: String,
}

impl Replica {
    fn start(place: &Place, name: &str) -> Self {
        let address = free_address().to_string();
        let environment = [("LEADER_ELECTION", "true"), ("POD_NAME", name), ("LISTEN", address.as_str())];
        Self { process: place.start(&environment), url: format!("http://{address}") }
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
    eventually("the replica is the leader", async || replica.leads().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_takes_over_from_killed_leader_without_second_start() {
    let place = Place::new().await;
    let first = Replica::start(&place, "first");
    until_it_leads(&first).await;
    let second = Replica::start(&place, "second");
    for replica in [&first, &second] {
        eventually("it is ready", async || {
            replica.asked("/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        assert_eq!(replica.asked("/healthz").await, Some((200, "ok\n".to_owned())));
    }
    assert!(!second.leads().await);

    place.aws.world().script(Rule::once(Fault::Hold).on(START));
    place.ask_for_encryption().await;
    eventually("Start is sent", async || place.starts() == 1).await;
    first.process.kill();
    until_it_leads(&second).await;
    place.until_it_is_encrypted().await;
    assert_eq!(place.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_is_released_on_shutdown_and_recreated_if_deleted() {
    let place = Place::new().await;
    let mut first = Replica::start(&place, "first");
    until_it_leads(&first).await;
    let second = Replica::start(&place, "second");
    first.process.signal("-TERM");
    eventually("it ends", async || first.process.ended().is_some()).await;
    assert!(first.process.ended().is_some_and(|status| status.success()));
    until_it_leads(&second).await;

    let lease = ["delete", "lease", "stream-encryption-operator", "-n", &place.namespace];
    place.cluster.kubectl(&lease).await.expect("the lease is deleted");
    let holder = ["get", "lease", "stream-encryption-operator", "-n", &place.namespace, "-o"];
    eventually("there is a lease again", async || {
        let path = ["jsonpath={.spec.holderIdentity}"];
        let asked = [&holder[..], &path].concat();
        place.cluster.kubectl(&asked).await.is_ok_and(|holder| holder == "second")
    })
    .await;
    until_it_leads(&second).await;
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    assert_eq!(place.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_api_server_is_replaced() {
    let mut place = Place::new().await;
    let direct = place.account.clone();
    let proxy = Proxy::of_kubernetes(place.cluster, &direct).await;
    place.account = proxy.kubeconfig().to_owned();
    let first = Replica::start(&place, "first");
    until_it_leads(&first).await;
    place.account = direct;
    let second = Replica::start(&place, "second");
    // Requests hang: they get neither a response nor an error.
    proxy.always(|_| true, Meet::Hold(When::Before));
    until_it_leads(&second).await;
    eventually("the first replica has lost leadership", async || !first.leads().await).await;
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    assert_eq!(place.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_without_lease_permission_is_not_ready() {
    // The namespace lacks the operator's role, and with it access to the lease.
    let mut place = Place { namespace: "without-a-lease".to_owned(), ..Place::new().await };
    place.cluster.kubectl(&["create", "namespace", &place.namespace]).await.expect("a namespace");
    let proxy = Proxy::of_kubernetes(place.cluster, &place.account).await;
    place.account = proxy.kubeconfig().to_owned();
    let replica = Replica::start(&place, "only");
    eventually("the replica answers", async || replica.asked("/healthz").await.is_some()).await;
    place.ask_for_encryption().await;
    let (status, words) = replica.asked("/readyz").await.expect("an answer");
    assert_eq!(
        (status, words.as_str()),
        (503, "not ready: the resources have not been listed, and no leader is known\n")
    );
    // Three further attempts take seconds, in which a replica that leads writes a status.
    let refused = || proxy.answered(|asked| asked.path.contains("/leases/"), 403);
    let attempts = refused();
    eventually("the lease is refused again", async || refused() >= attempts + 3).await;
    assert!(!replica.leads().await);
    assert_eq!(place.field(REASON).await, "");
    assert_eq!(replica.asked("/readyz").await, Some((status, words)));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_check_command_reflect_replica_state() {
    let place = Place::new().await;
    let replica = Replica::start(&place, "only");
    place.ask_for_encryption().await;
    place.until_it_is_encrypted().await;
    eventually("the metrics count the encrypted resource", async || {
        let metrics = replica.metrics().await;
        metrics.lines().any(|line| {
            line.starts_with("stream_encryption_resources{") && line.ends_with("reason=\"Encrypted\"} 1")
        })
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
