//! Row 20: hundreds of resources at the start of the operator. Their streams are looked at no faster than AWS allows, and
//! nothing is called and nothing written that need not be. The operator is a process, AWS keeps its limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use kube::api::{Api, ListParams, PostParams};
use simulated_aws::world::{PlantedStream, Service, Settings, Snapshot, StreamKey, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_operator::api::stream_encryption::{StreamEncryption, StreamEncryptionSpec};

use super::proxy::unhurried_client;
use super::rig::namespaces;
use crate::play::{LEDGERS, cluster, operators_kubeconfig, reason};
use crate::process::{OperatorProcess, eventually};

const COUNT: usize = 300;
/// Each has 20 looks a second at streams of Kinesis, apart from the other.
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];
const LOOK: &str = "DescribeStreamSummary";

/// The most looks in any second of AWS's clock, of any region, and how many were refused.
fn busiest_second(aws: &SimulatedAws) -> (usize, usize) {
    let world = aws.world();
    let looks: Vec<_> = world.calls().iter().filter(|call| call.operation == LOOK).collect();
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
async fn three_hundred_resources_at_the_start_are_looked_at_within_awss_limits_and_nothing_is_called() {
    let cluster = cluster().await;
    let namespace = &namespaces(cluster, "herd", 1).await[0];
    let mut world = World::new(Settings::default());
    let client = unhurried_client(cluster.kubeconfig()).await;
    let api: Api<StreamEncryption> = Api::namespaced(client, namespace);
    let mut resources = Vec::new();
    for number in 0..COUNT {
        let arn = world.plant_stream(PlantedStream {
            service: Service::Kinesis,
            region: REGIONS[number % REGIONS.len()].to_owned(),
            name: format!("herd-{number}"),
            state: Snapshot::enabled(StreamKey::AwsOwned),
            ..PlantedStream::default()
        });
        let spec: StreamEncryptionSpec =
            serde_json::from_value(super::rig::spec(&arn, None)).expect("a spec");
        resources.push(StreamEncryption::new(&format!("herd-{number}"), spec));
    }
    stream::iter(&resources)
        .for_each_concurrent(16, async |resource| {
            api.create(&PostParams::default(), resource).await.expect("it is accepted");
        })
        .await;
    let aws = Arc::new(SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS"));
    let url = aws.url();
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS), ("DRIFT_INTERVAL_SECONDS", "600")];
    let account = operators_kubeconfig(cluster).await;
    let began = std::time::Instant::now();
    let operator = OperatorProcess::start(&account, namespace, &environment);
    let looked_at = |aws: &SimulatedAws| {
        let world = aws.world();
        let targets: std::collections::BTreeSet<&str> = world
            .calls()
            .iter()
            .filter(|call| call.operation == LOOK && call.outcome == "OK")
            .map(|call| call.target.as_str())
            .collect();
        targets.len()
    };
    eventually("each has been looked at", 180, async || looked_at(&aws) == COUNT).await;
    eventually("each is told", 60, async || {
        let all = api.list(&ListParams::default()).await.expect("a list");
        all.iter().filter(|one| reason(&one.status.clone().unwrap_or_default()) == "Encrypted").count()
            == COUNT
    })
    .await;
    let took = began.elapsed();
    operator.kill();
    let (busiest, refused) = busiest_second(&aws);
    let looks = aws.world().calls().iter().filter(|call| call.operation == LOOK).count();
    let changes = aws.world().calls().iter().filter(|call| call.changes_encryption()).count();
    println!("{looks} looks in {took:?}; at most {busiest} in a second and region, {refused} refused");
    assert_eq!(changes, 0);
    // A machine that is busy for a moment sends at once what was spaced; AWS refuses those, and they are asked again. That
    // the pacer itself never goes faster, tests with its own clock hold.
    assert!(
        refused * 50 <= looks,
        "{refused} of {looks} looks were refused; {busiest} in one second of one region"
    );
    assert!(looks <= COUNT + COUNT / 10, "{looks} looks at {COUNT} streams");
}
