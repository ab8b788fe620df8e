//! Work that starts once the resources are listed: readiness and the deletion of unused ledgers, with and
//! without leader election.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use test_cluster::TestCluster;

use crate::harness::firehose;
use crate::matrix::proxy::{Meet, Proxy, When};
use crate::process::{Place, eventually, free_address};

/// Returns the status code and the body of the operator's response, or `None` if it does not listen.
pub(crate) async fn asked(url: &str) -> Option<(u16, String)> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(url.parse().expect("a URL")).await.ok()?;
    let status = answer.status().as_u16();
    let words = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&words).into_owned()))
}

async fn is_ok(url: &str) -> bool {
    asked(url).await.is_some_and(|(status, _)| status == 200)
}

/// A ledger without calls whose owner does not exist.
async fn stray_ledger(cluster: &TestCluster, namespace: &str) {
    let ledger = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger",
        "metadata": {"name": "stray", "namespace": namespace},
        "spec": {
            "streamARN": firehose("stray"), "calls": [],
            "owner": {"namespace": namespace, "name": "stray", "uid": "00000000-0000-0000-0000-000000000000"},
        },
    });
    cluster.apply(&ledger.to_string()).await.expect("the ledger is accepted");
}

/// Starts operators with one worker thread and with two, and checks each. The variable `READINESS_STARTS` sets the
/// number of starts, and has the slowest printed.
async fn becomes_ready_and_deletes_stray_ledger(election: &str) {
    let starts = std::env::var("READINESS_STARTS").ok().and_then(|starts| starts.parse().ok()).unwrap_or(1);
    for workers in ["1", "2"] {
        let mut slowest = Duration::ZERO;
        for _ in 0..starts {
            slowest = slowest.max(time_to_ready(election, workers).await);
        }
        println!("{starts} starts, election {election}, {workers} threads: ready within {slowest:?}");
    }
}

/// Returns the time from the start of one operator until it is ready. Its stray ledger is deleted after that.
async fn time_to_ready(election: &str, workers: &str) -> Duration {
    let place = Place::new().await;
    stray_ledger(place.cluster, &place.namespace).await;
    let address = free_address().to_string();
    let environment = [
        ("LEADER_ELECTION", election),
        ("POD_NAME", "only"),
        ("LISTEN", address.as_str()),
        ("TOKIO_WORKER_THREADS", workers),
    ];
    let begin = Instant::now();
    let _operator = place.start(&environment);
    let ready = format!("http://{address}/readyz");
    eventually("it is ready", async || is_ok(&ready).await).await;
    let time = begin.elapsed();
    eventually("the stray ledger is retired", async || {
        let ledgers = ["get", "streamledgers", "-n", &place.namespace, "-o", "name"];
        place.cluster.kubectl(&ledgers).await.is_ok_and(|names| names.trim().is_empty())
    })
    .await;
    time
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_without_election_and_stray_ledger_is_deleted() {
    becomes_ready_and_deletes_stray_ledger("false").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_with_election_and_stray_ledger_is_deleted() {
    becomes_ready_and_deletes_stray_ledger("true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_is_not_ready_before_first_list() {
    let mut place = Place::new().await;
    let proxy = Proxy::of_kubernetes(place.cluster, &place.account).await;
    place.account = proxy.kubeconfig().to_owned();
    proxy.always(
        |asked| asked.path.ends_with("/streamencryptions") && !asked.is_watch(),
        Meet::Hold(When::Before),
    );
    let address = free_address().to_string();
    let _operator = place.start(&[("LISTEN", &address)]);
    let page = |path: &str| format!("http://{address}{path}");
    proxy.held(1).await;
    eventually("it is alive", async || is_ok(&page("/healthz")).await).await;
    assert_eq!(asked(&page("/readyz")).await.expect("an answer").0, 503);
    proxy.heal();
    proxy.release();
    eventually("it is ready", async || is_ok(&page("/readyz")).await).await;
}
