//! Rows 6, 7 and 24 on a cluster of its own: the API server is killed and restarted, etcd is compacted and
//! paused, and the operator's permissions are removed while it runs. The operator is a process.

use simulated_aws::world::PlantedKey;
use test_cluster::TestCluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::process_env::{Site, aws};
use super::proxy::Asked;
use super::watches::is_list;
use crate::harness::{LEDGERS, own_cluster, spec};
use crate::process::{eventually, signal_to};

/// Compacts etcd to its last revision.
async fn compact(cluster: &TestCluster) {
    let last = etcd(cluster, "/v3/kv/range", "{\"key\":\"Lw==\"}").await;
    let revision = last.split("\"revision\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let revision = revision.unwrap_or_else(|| panic!("no revision in {last}"));
    let compacted = etcd(cluster, "/v3/kv/compaction", &format!("{{\"revision\":{revision}}}")).await;
    assert!(compacted.contains("200 OK"), "{compacted}");
}

/// Sends one request to etcd's JSON gateway, which listens on a socket in the cluster's folder.
async fn etcd(cluster: &TestCluster, path: &str, body: &str) -> String {
    let mut socket = UnixStream::connect(cluster.folder().join("etcd.sock")).await.expect("etcd listens");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: etcd\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Waits until the operator has sent this many more requests to the API server.
async fn asked_again(site: &Site<'_>, times: usize) {
    let asked = site.kubernetes.count(|_| true);
    eventually("the operator sends more requests", async || site.kubernetes.count(|_| true) >= asked + times)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_and_lost_permissions_cause_no_unrecorded_call() {
    let (own, account) = own_cluster(&["orders"]).await;
    let aws = aws().await;
    let site = Site::prepare(&own, &account, &aws, "orders").await;
    let log = own.folder().join("operator.log");
    let _operator = site.start_logging_to(std::fs::File::create(&log).expect("a log"));
    site.ask_for_encryption().await;
    site.until_it_says("Encrypted").await;

    // The API server is killed, and etcd drops the revision from which the watch would resume.
    own.stop_apiserver();
    site.turned_off_by_another();
    asked_again(&site, 3).await;
    assert_eq!(site.starts(), 1, "nothing can be written");
    let lists = site.kubernetes.answered(is_list, 200);
    compact(&own).await;
    own.start_apiserver().await.expect("it starts again");
    eventually("it is corrected", async || site.starts() == 2).await;
    site.until_it_says("Encrypted").await;
    // The watch cannot go on across the compaction, so the operator lists again: because the API server refuses to resume
    // the watch, or because the regular list is due before that.
    eventually("the operator lists again", async || site.kubernetes.answered(is_list, 200) > lists).await;
    let key = aws.world().plant_key(PlantedKey::default());
    site.apply(&spec(&site.arn(), Some(&key))).await;
    site.until_it_says("Encrypted").await;
    assert_eq!(site.starts(), 3);

    // etcd is paused, and requests to it hang.
    let processes = own.process_ids();
    let etcd = *processes.last().expect("etcd runs");
    signal_to(etcd, "-STOP");
    site.turned_off_by_another();
    asked_again(&site, 2).await;
    let called_meanwhile = site.starts() - 3;
    signal_to(etcd, "-CONT");
    assert_eq!(called_meanwhile, 0, "nothing can be written");
    eventually("it is corrected", async || site.starts() == 4).await;
    site.until_it_says("Encrypted").await;

    // The permissions are removed: first those for ledgers, which a condition reports once a ledger is to be
    // written, then all.
    let name = "stream-encryption-operator";
    own.kubectl(&["delete", "rolebinding", name, "-n", LEDGERS]).await.expect("it is deleted");
    let other = aws.world().plant_key(PlantedKey::default());
    site.apply(&spec(&site.arn(), Some(&other))).await;
    site.until_it_says("LedgerInvalid").await;
    own.kubectl(&["delete", "clusterrolebinding", name]).await.expect("it is deleted");
    asked_again(&site, 2).await;
    let forbidden = site.kubernetes.answered(Asked::is_status, 403)
        + site.kubernetes.answered(|asked| !asked.is_write(), 403);
    assert!(forbidden > 0);
    assert_eq!(site.starts(), 4, "nothing may be written");
    eventually("the log says why", async || {
        std::fs::read_to_string(&log).expect("the log").contains("is forbidden")
    })
    .await;
    install_rights(&own).await;
    site.until_it_says("Encrypted").await;
    assert_eq!(site.starts(), 5);
    assert_eq!(site.outcomes().await, ["Accepted"; 5]);
}

async fn install_rights(cluster: &TestCluster) {
    let rbac = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rbac");
    cluster.kubectl(&["apply", "--server-side", "-k", rbac]).await.expect("the permissions");
}
