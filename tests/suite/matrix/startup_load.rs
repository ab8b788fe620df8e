//! Row 20: hundreds of resources when the operator starts. It describes their streams no faster than AWS
//! allows, and makes no calls and no unnecessary writes. The operator is a process, and AWS enforces its rate
//! limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, ListParams};
use simulated_aws::world::{Settings, Snapshot, StreamKey, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::stream_encryption::StreamEncryption;

use super::proxy::unhurried_client;
use super::scenario::{create_all, fleet, namespaces};
use crate::harness::{LEDGERS, cluster, operators_kubeconfig, reason};
use crate::process::{OperatorProcess, eventually};

const COUNT: usize = 300;
/// Each region allows 20 Describe requests a second for Kinesis streams.
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];
/// The operator's share of them by default.
const SHARE: usize = 16;
const DESCRIBE: &str = "DescribeStreamSummary";

/// Returns the highest number of Describe requests in any second of AWS's clock in one region, and how many
/// were throttled.
fn busiest_second(aws: &SimulatedAws) -> (usize, usize) {
    let world = aws.world();
    let looks: Vec<_> = world.calls().iter().filter(|call| call.operation == DESCRIBE).collect();
    let mut regions: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for look in &looks {
        regions.entry(&look.region).or_default().push(look.time.as_millisecond());
    }
    let in_second =
        |times: &Vec<i64>, end: i64| times.iter().filter(|at| **at > end - 1000 && **at <= end).count();
    let busiest = regions.values().flat_map(|times| times.iter().map(|end| in_second(times, *end))).max();
    (busiest.unwrap_or(0), looks.iter().filter(|look| look.outcome != "OK").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_of_300_resources_stays_within_aws_rate_limits() {
    let cluster = cluster().await;
    let namespace = &namespaces(cluster, "herd", 1).await[0];
    let mut world = World::new(Settings::default());
    let client = unhurried_client(cluster.kubeconfig()).await;
    let api: Api<StreamEncryption> = Api::namespaced(client, namespace);
    let encrypted = Snapshot::enabled(StreamKey::AwsOwned);
    create_all(&api, &fleet(&mut world, COUNT, &REGIONS, &encrypted)).await;
    let aws = Arc::new(SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS"));
    let url = aws.url();
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS), ("DRIFT_INTERVAL_SECONDS", "600")];
    let account = operators_kubeconfig(cluster).await;
    let began = std::time::Instant::now();
    let operator = OperatorProcess::start(&account, namespace, &environment);
    let described = |aws: &SimulatedAws| {
        let world = aws.world();
        let targets: std::collections::BTreeSet<&str> = world
            .calls()
            .iter()
            .filter(|call| call.operation == DESCRIBE && call.outcome == "OK")
            .map(|call| call.target.as_str())
            .collect();
        targets.len()
    };
    eventually("each stream has been described", async || described(&aws) == COUNT).await;
    eventually("each resource is reported as encrypted", async || {
        let all = api.list(&ListParams::default()).await.expect("a list");
        all.iter().filter(|one| reason(&one.status.clone().unwrap_or_default()) == "Encrypted").count()
            == COUNT
    })
    .await;
    let took = began.elapsed();
    operator.kill();
    let (busiest, refused) = busiest_second(&aws);
    let looks = aws.world().calls().iter().filter(|call| call.operation == DESCRIBE).count();
    let changes = aws.world().calls().iter().filter(|call| call.changes_encryption()).count();
    println!(
        "{looks} Describe requests in {took:?}; at most {busiest} a second and region, {refused} throttled"
    );
    assert_eq!(changes, 0);
    // On a machine that stalls for a moment, requests that were spaced arrive together. AWS throttles some of
    // them, and the operator retries. So only the whole time bounds their number; tests with their own clock verify
    // that the rate limiter exceeds the limit in no second.
    let seconds = usize::try_from(took.as_secs()).expect("a number of seconds") + 2;
    assert!(looks <= REGIONS.len() * SHARE * seconds, "{looks} Describe requests in {took:?}");
    let answered = looks - refused;
    assert!(answered <= COUNT + COUNT / 10, "{answered} answered Describe requests for {COUNT} streams");
}
