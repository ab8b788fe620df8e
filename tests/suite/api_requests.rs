//! The number of requests that the operator sends to the API server, as the API server counts them, on a cluster
//! of its own.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{PlantedStream, Settings, World};
use simulated_aws::{Clock, SimulatedAws};
use test_cluster::TestCluster;

use crate::harness::{LEDGERS, firehose, manifest, own_cluster, spec};
use crate::process::{OperatorProcess, eventually, free_address};
use crate::readiness::asked;

const STREAMS: usize = 20;
const DESCRIBE: &str = "DescribeDeliveryStream";
/// Maximum number of requests for one stream, from plaintext to Ready.
const MOST_REQUESTS: u64 = 12;
/// Maximum number of requests at the start: the lists of the watches.
const MOST_AT_START: u64 = 10;

/// Returns the number of requests so far that concern the operator's objects, namespaces or events, without
/// watches. The test itself sends none while it counts.
async fn requests(cluster: &TestCluster) -> u64 {
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]).await.expect("the API server's metrics");
    let counted = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).expect("the label");
        rest.split_once('"').expect("its value").0.to_owned()
    };
    counted
        .filter(|line| {
            let (group, resource) = (label(line, "group"), label(line, "resource"));
            let concerned = ["streamencryption.dev", "events.k8s.io"].contains(&group.as_str());
            (concerned || group.is_empty() && resource == "namespaces") && label(line, "verb") != "WATCH"
        })
        .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}

/// Returns the number of resources that the operator's metrics report as ready.
async fn ready(metrics: &str) -> usize {
    let Some((_, words)) = asked(metrics).await else { return 0 };
    let encrypted = words.lines().filter(|line| {
        line.starts_with("stream_encryption_resources{") && line.contains("reason=\"Encrypted\"")
    });
    encrypted.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_costs_few_requests_and_none_at_rest() {
    let (cluster, account) = own_cluster(&[]).await;
    let second = SignedDuration::from_secs(1);
    let mut world = World::new(Settings { enabling: second, ..Settings::default() });
    let names: Vec<String> = (0..STREAMS).map(|number| format!("stream-{number}")).collect();
    for name in names.clone() {
        world.plant_stream(PlantedStream { name, ..PlantedStream::default() });
    }
    let items: Vec<Value> =
        names.iter().map(|name| manifest("default", name, &spec(&firehose(name), None))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    cluster.kubectl_with_input(&["create", "-f", "-"], &list.to_string()).await.expect("the resources");

    let aws = SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS");
    let (url, address) = (aws.url(), free_address().to_string());
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("POD_NAMESPACE", LEDGERS),
        ("LISTEN", address.as_str()),
        // All streams are described again before the watches list everything again, after six intervals.
        ("DRIFT_INTERVAL_SECONDS", "40"),
    ];
    let before = requests(&cluster).await;
    let _operator = OperatorProcess::start(&account, "default", &environment);
    let metrics = format!("http://{address}/metrics");
    eventually("all streams are encrypted", async || ready(&metrics).await == STREAMS).await;
    let until_ready = requests(&cluster).await - before;
    let streams = u64::try_from(STREAMS).expect("a number");
    println!("{until_ready} requests for {STREAMS} streams");
    assert!(
        until_ready <= MOST_AT_START + MOST_REQUESTS * streams,
        "{until_ready} requests for {STREAMS} streams"
    );

    // The last events and ledgers are written before the streams come to rest.
    let looks = || aws.world().calls().iter().filter(|call| call.operation == DESCRIBE).count();
    let rest = looks() + STREAMS;
    eventually("each stream is described again", async || looks() >= rest).await;
    let at_rest = requests(&cluster).await;
    let end = looks() + STREAMS;
    eventually("each stream is described once more", async || looks() >= end).await;
    assert_eq!(requests(&cluster).await - at_rest, 0, "requests while nothing changes");
}
