//! T16: a namespace with very many resources, and one with a single one, on a cluster of its own. The operator is a process that
//! watches all namespaces, AWS keeps its limits, and each team writes as its own user.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use simulated_aws::world::{PlantedStream, Settings, Snapshot, StreamKey, World};
use simulated_aws::{Clock, SimulatedAws};
use test_cluster::TestCluster;

use crate::matrix::proxy::{Asked, Meet, Proxy, When};
use crate::play::{LEDGERS, binding_of_tenant, firehose, install, tenant_of};
use crate::process::{OperatorProcess, eventually};

const CROWD: usize = 100;
const AT_A_TIME: usize = 4;
const LOOK: &str = "DescribeDeliveryStream";

fn resource(namespace: &str, stream: &str) -> Value {
    json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": stream, "namespace": namespace},
        "spec": {"stream": {"arn": firehose(stream)}},
    })
}

/// Creates resources as the user of the namespace.
async fn create(cluster: &TestCluster, namespace: &str, streams: &[String]) {
    let items: Vec<Value> = streams.iter().map(|stream| resource(namespace, stream)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let create = ["--as", &tenant_of(namespace), "create", "-f", "-"];
    cluster.kubectl_with_input(&create, &list.to_string()).await.expect("they are taken");
}

/// The streams that AWS was asked about, in that order.
fn looked_at(aws: &SimulatedAws) -> Vec<String> {
    let world = aws.world();
    world.calls().iter().filter(|call| call.operation == LOOK).map(|call| call.target.clone()).collect()
}

/// The first thing of each visit: to read the resource as it is now.
fn begins_a_visit(asked: &Asked) -> bool {
    asked.path.contains("/streamencryptions/") && !asked.is_write()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_crowd_so_many_are_worked_on_at_a_time_as_was_said_and_another_namespace_does_not_wait_for_the_rest()
 {
    let own = TestCluster::start().await.expect("a cluster");
    install(&own).await;
    let mut world = World::new(Settings::default());
    let crowd: Vec<String> = (0..CROWD).map(|number| format!("crowd-{number}")).collect();
    for name in crowd.iter().cloned().chain(["lone".to_owned()]) {
        world.plant_stream(PlantedStream {
            name,
            state: Snapshot::enabled(StreamKey::AwsOwned),
            ..PlantedStream::default()
        });
    }
    for namespace in ["crowd", "lone"] {
        own.kubectl(&["create", "namespace", namespace]).await.expect("a namespace");
        own.apply(&binding_of_tenant(namespace).to_string()).await.expect("its user");
    }
    create(&own, "crowd", &crowd).await;
    let aws = Arc::new(SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS"));
    let account =
        own.service_account_kubeconfig(LEDGERS, "stream-encryption-operator").await.expect("its account");
    let proxy = Proxy::of_kubernetes(&own, &account).await;
    proxy.always(begins_a_visit, Meet::Hold(When::Before));
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
    eventually("the lone one has been looked at", 60, async || looked_at(&aws).contains(&"lone".to_owned()))
        .await;
    let looks = looked_at(&aws);
    let before = looks.iter().position(|stream| stream == "lone").expect("it");
    // Those that were held, and those that got a place before it was known; kube's own order would put it anywhere.
    assert!(before <= 3 * AT_A_TIME, "{before} of the crowd were looked at before the lone one: {looks:?}");

    operator.signal("-TERM");
    eventually("it has ended", 60, async || operator.ended().is_some()).await;
    let looks = looked_at(&aws).len();
    assert!(looks < CROWD, "{looks} looks: those who waited for a place were worked on all the same");
}
