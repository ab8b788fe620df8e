//! What the tests of the rows share: a plaintext stream on a virtual clock, encrypted by the operator's own reconcile
//! function, with or without a proxy in front of the API server.

use futures_util::{StreamExt as _, stream};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use simulated_aws::world::{PlantedStream, Service, Settings, Snapshot, World};
use stream_encryption_api::stream_encryption::StreamEncryption;
use test_cluster::TestCluster;

use super::proxy::Proxy;
use crate::harness::{Harness, firehose, operators_kubeconfig, spec};

pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(crate) const START: &str = "StartDeliveryStreamEncryption";
pub(crate) const STOP: &str = "StopDeliveryStreamEncryption";
pub(crate) const DESCRIBE: &str = "DescribeDeliveryStream";

/// A harness in whose world a change takes 3 s, with a plaintext Firehose stream `orders`.
pub(crate) async fn stage() -> Harness {
    let three = SignedDuration::from_secs(3);
    let settings = Settings { enabling: three, disabling: three, updating: three, ..Settings::default() };
    let harness = Harness::start(settings).await;
    plant(&harness, "orders");
    harness
}

/// Creates a plaintext Firehose stream. Returns its ARN.
pub(crate) fn plant(harness: &Harness, name: &str) -> String {
    let name = name.to_owned();
    harness.aws.world().plant_stream(PlantedStream { name, ..PlantedStream::default() })
}

/// The same harness, with the resource `orders` encrypted.
pub(crate) async fn encrypted(harness: Harness) -> Harness {
    harness.apply("orders", &spec(&firehose("orders"), None)).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness
}

/// Number of Starts and Stops that AWS received for a stream.
pub(crate) fn changes(harness: &Harness, name: &str) -> usize {
    harness.calls(START, name) + harness.calls(STOP, name)
}

/// Puts a proxy between the operator of a harness and the API server.
pub(crate) async fn proxied(harness: &mut Harness) -> Proxy {
    let account = operators_kubeconfig(harness.cluster).await;
    let proxy = Proxy::of_kubernetes(harness.cluster, &account).await;
    harness.through(proxy.client().await);
    proxy
}

/// Plants Kinesis streams in these regions, in this state. Returns a resource for each, with the same name.
pub(crate) fn fleet(
    world: &mut World,
    count: usize,
    regions: &[&str],
    state: &Snapshot,
) -> Vec<StreamEncryption> {
    let resource = |number: usize| {
        let name = format!("stream-{number}");
        let arn = world.plant_stream(PlantedStream {
            service: Service::Kinesis,
            region: regions[number % regions.len()].to_owned(),
            name: name.clone(),
            state: state.clone(),
            ..PlantedStream::default()
        });
        StreamEncryption::new(&name, serde_json::from_value(spec(&arn, None)).expect("a spec"))
    };
    (0..count).map(resource).collect()
}

pub(crate) async fn create_all(api: &Api<StreamEncryption>, resources: &[StreamEncryption]) {
    let create = async |resource| {
        api.create(&PostParams::default(), resource).await.expect("it is accepted");
    };
    stream::iter(resources).for_each_concurrent(16, create).await;
}

/// Creates namespaces that no other test uses, named `<prefix>-0` and so on. They are for resources; ledgers
/// are in the operator's own namespace.
pub(crate) async fn namespaces(cluster: &TestCluster, prefix: &str, count: usize) -> Vec<String> {
    let client = crate::harness::client(cluster.kubeconfig()).await;
    let api: Api<Namespace> = Api::all(client);
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    for name in &names {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        api.create(&PostParams::default(), &namespace).await.expect("a namespace");
    }
    names
}
