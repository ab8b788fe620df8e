//! T16: one namespace with very many resources and one with a single resource, on a cluster of its own. The
//! operator is a process that watches all namespaces, AWS enforces its rate limits, and each team writes as
//! its own user.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, PlantedStream, Settings, Snapshot, StreamKey, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::RETRY_ANNOTATION;
use stream_encryption_api::stream_encryption::StreamEncryption;
use test_cluster::TestCluster;

use crate::harness::{LEDGERS, firehose, manifest, own_cluster, spec};
use crate::matrix::proxy::{Asked, Meet, Proxy, When};
use crate::permissions::{allow_tenant, tenant, tenant_of};
use crate::process::{OperatorProcess, eventually, until_it_says};

const CROWD: usize = 100;
const AT_A_TIME: usize = 4;
const DESCRIBE: &str = "DescribeDeliveryStream";

/// A cluster with a namespace and a user for each team, and the kubeconfig of the operator's account.
async fn teams() -> (TestCluster, PathBuf) {
    let (own, account) = own_cluster(&["crowd", "lone"]).await;
    for namespace in ["crowd", "lone"] {
        allow_tenant(&own, namespace).await;
    }
    (own, account)
}

/// Creates resources as the user of the namespace.
async fn create(cluster: &TestCluster, namespace: &str, streams: &[String]) {
    let items: Vec<Value> =
        streams.iter().map(|stream| manifest(namespace, stream, &spec(&firehose(stream), None))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let create = ["--as", &tenant_of(namespace), "create", "-f", "-"];
    cluster.kubectl_with_input(&create, &list.to_string()).await.expect("the resources are accepted");
}

/// The streams that the operator has described, in order.
fn described(aws: &SimulatedAws) -> Vec<String> {
    let world = aws.world();
    world.calls().iter().filter(|call| call.operation == DESCRIBE).map(|call| call.target.clone()).collect()
}

/// Returns whether a request starts a reconcile: a read of the resource as it is now.
fn begins_a_reconcile(asked: &Asked) -> bool {
    asked.path.contains("/streamencryptions/") && !asked.is_write()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_limited_and_fair_across_namespaces() {
    let (own, account) = teams().await;
    let mut world = World::new(Settings::default());
    let crowd: Vec<String> = (0..CROWD).map(|number| format!("crowd-{number}")).collect();
    for name in crowd.iter().cloned().chain(["lone".to_owned()]) {
        world.plant_stream(PlantedStream {
            name,
            state: Snapshot::enabled(StreamKey::AwsOwned),
            ..PlantedStream::default()
        });
    }
    create(&own, "crowd", &crowd).await;
    let aws = Arc::new(SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS"));
    let proxy = Proxy::of_kubernetes(&own, &account).await;
    proxy.always(begins_a_reconcile, Meet::Hold(When::Before));
    let (url, at_a_time) = (aws.url(), AT_A_TIME.to_string());
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("POD_NAMESPACE", LEDGERS),
        ("CONCURRENCY", at_a_time.as_str()),
        ("DRIFT_INTERVAL_SECONDS", "3600"),
    ];
    let mut operator = OperatorProcess::start(proxy.kubeconfig(), "", &environment);

    proxy.held(AT_A_TIME).await;
    let one_more = tokio::time::timeout(Duration::from_secs(3), proxy.held(AT_A_TIME + 1)).await;
    assert!(one_more.is_err(), "more than {AT_A_TIME} at a time");

    create(&own, "lone", &["lone".to_owned()]).await;
    proxy.heal();
    proxy.release();
    eventually("the stream lone has been described", async || described(&aws).contains(&"lone".to_owned()))
        .await;
    let looks = described(&aws);
    let before = looks.iter().position(|stream| stream == "lone").expect("the stream lone");
    // Resources that were held, and those that got a permit before `lone` was created. kube's own order would
    // be arbitrary.
    assert!(before <= 3 * AT_A_TIME, "{before} streams of the crowd were described before lone: {looks:?}");

    operator.signal("-TERM");
    eventually("it has ended", async || operator.ended().is_some()).await;
    let looks = described(&aws).len();
    assert!(looks < CROWD, "{looks} Describe requests: queued resources were reconciled after SIGTERM");
}

/// One team keeps changing the retry annotations of its resources, for streams that do not exist, while
/// someone disables encryption of another team's stream. AWS enforces its limit of five Describe requests a
/// second.
#[tokio::test(flavor = "multi_thread")]
async fn retry_flood_does_not_delay_drift_check_of_other_team() {
    let (own, account) = teams().await;
    let mut world = World::new(Settings::default());
    world.plant_stream(PlantedStream {
        name: "lone".to_owned(),
        state: Snapshot::enabled(StreamKey::AwsOwned),
        ..PlantedStream::default()
    });
    let aws = Arc::new(SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS"));
    let url = aws.url();
    // The operator checks for drift every ten seconds.
    let environment = [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS)];
    let _operator = OperatorProcess::start(&account, "", &environment);
    create(&own, "lone", &["lone".to_owned()]).await;
    until_it_says(&own, "lone", "lone", "Encrypted").await;

    let crowd: Vec<String> = (0..60).map(|number| format!("crowd-{number}")).collect();
    create(&own, "crowd", &crowd).await;
    let user = tenant(&own, "crowd").await;
    let mut pokes = tokio::task::JoinSet::new();
    for names in crowd.chunks(15).map(<[String]>::to_vec) {
        let resources: Api<StreamEncryption> = Api::namespaced(user.clone(), "crowd");
        pokes.spawn(async move {
            for value in 0_u64.. {
                let patch = json!({"metadata": {"annotations": {RETRY_ANNOTATION: value.to_string()}}});
                for name in &names {
                    let parameters = PatchParams::default();
                    resources
                        .patch(name, &parameters, &Patch::Merge(&patch))
                        .await
                        .expect("its own resource");
                }
            }
        });
    }
    let looks_of_the_crowd =
        async || described(&aws).iter().filter(|stream| stream.starts_with("crowd-")).count();
    eventually("the crowd has reached AWS's rate limit", async || looks_of_the_crowd().await > 40).await;

    let now = aws.now();
    assert!(aws.world().set_stream(now, &firehose("lone"), Snapshot::default()), "a stream");
    eventually("the drift is corrected while annotations change", async || {
        aws.world().calls().count("StartDeliveryStreamEncryption", "lone") == 1
    })
    .await;
    pokes.shutdown().await;
}
