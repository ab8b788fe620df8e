//! The environment: a real API server with the operator's definitions and roles, a simulated AWS with the
//! streams, and one resource for each stream.
//!
//! Everything exists before the operator starts, as after an upgrade or a failover: all resources are due at
//! once. Dropping the environment ends everything and deletes its data. It must never change anything while the
//! operator is measured, except for the Stops that `stops.rs` measures.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use simulated_aws::world::{
    Caller, PlantedStream, Request, Service as AwsService, Settings, Snapshot, StreamKey, World,
};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::stream_encryption::StreamEncryption;
use test_cluster::TestCluster;

use crate::scenario::{Limits, Scenario, Service, State};
use crate::stops::Stop;

/// Number of namespaces of the resources.
const NAMESPACES: usize = 10;
/// The interval of the heartbeats among AWS's events, as in the template of `config/events`.
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(5);
/// Number of resources that are created at a time.
const CREATED_AT_A_TIME: usize = 32;
/// The access key of somebody else. Keys that the simulated AWS does not know are of the account of the streams.
const ANOTHER: &str = "AKIAANOTHER";
/// The namespace and the account of the operator.
const OPERATOR: (&str, &str) = ("stream-encryption-system", "stream-encryption-operator");

/// The environment. All of it is stopped when dropped.
pub(crate) struct Stage {
    pub(crate) cluster: TestCluster,
    pub(crate) aws: SimulatedAws,
    pub(crate) client: Client,
    /// The kubeconfig of the operator's account.
    pub(crate) account: PathBuf,
    /// The time that AWS takes to encrypt a stream.
    pub(crate) change: Duration,
    /// The URL of the queue of AWS's events, if the operator receives them.
    pub(crate) queue: Option<String>,
    /// Each stream as it was planted, and its ARN.
    streams: Vec<(PlantedStream, String)>,
}

impl Stage {
    /// Starts the API server and the simulated AWS with its streams, and installs the operator's definitions and
    /// roles. There are no resources yet.
    pub(crate) async fn set(scenario: &Scenario) -> anyhow::Result<Self> {
        let mut settings = Settings { rate_limits: scenario.limits == Limits::Aws, ..Settings::default() };
        if let Some(change) = scenario.change.map(SignedDuration::from_secs) {
            (settings.enabling, settings.updating) = (change, change);
        }
        let change = match scenario.service {
            Service::Firehose => settings.enabling,
            Service::Kinesis => settings.updating,
        };
        let mut world = World::new(settings);
        let planted = (0..scenario.resources).map(|number| planted(scenario, number));
        let streams: Vec<_> = planted.map(|stream| (stream.clone(), world.plant_stream(stream))).collect();
        let aws = SimulatedAws::start(world, Clock::Real).await?;
        let queue = scenario.events.then(|| {
            let (now, mut world) = (aws.now(), aws.world());
            world.send_heartbeats(now, Some(HEARTBEAT));
            world.send_events_to("events")
        });
        let cluster = TestCluster::start().await?;
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
        cluster.kubectl(&["apply", "--server-side", "-k", config]).await?;
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
        let account = cluster.service_account_kubeconfig(OPERATOR.0, OPERATOR.1).await?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // kube would use the machine's proxy, although the API server is on this machine.
        config.proxy_url = None;
        let client = Client::try_from(config)?;
        Ok(Self { cluster, aws, client, account, change: change.unsigned_abs(), queue, streams })
    }

    /// Creates the namespaces and one resource for each stream.
    pub(crate) async fn create_resources(&self) -> anyhow::Result<()> {
        for number in 0..NAMESPACES {
            self.cluster.kubectl(&["create", "namespace", &namespace(number)]).await?;
        }
        let resources = self.streams.iter().enumerate().map(|(number, (_, arn))| self.create(number, arn));
        stream::iter(resources).buffer_unordered(CREATED_AT_A_TIME).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn create(&self, number: usize, arn: &str) -> anyhow::Result<()> {
        let api: Api<StreamEncryption> = Api::namespaced(self.client.clone(), &namespace(number));
        let metadata = ObjectMeta { name: Some(name(number)), ..ObjectMeta::default() };
        let spec = serde_json::from_value(json!({"stream": {"arn": arn}}))?;
        let resource = StreamEncryption { metadata, spec, status: None };
        let created = api.create(&PostParams::default(), &resource).await;
        created.map(drop).with_context(|| format!("failed to create the resource of {arn}"))
    }

    /// Turns off the encryption of a stream as somebody else would.
    pub(crate) fn stop_as_another(&self, number: usize) -> anyhow::Result<Stop> {
        let (stream, _) = &self.streams[number];
        let request = if stream.service == AwsService::Firehose {
            Request::firehose("StopDeliveryStreamEncryption", json!({"DeliveryStreamName": stream.name}))
        } else {
            let body =
                json!({"StreamName": stream.name, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
            Request::kinesis("StopStreamEncryption", body)
        };
        let (now, mut world) = (self.aws.now(), self.aws.world());
        let log = world.calls().len();
        let reply = world.call(now, &Caller::new(ANOTHER), &stream.region, &request);
        reply.result.map_err(|error| anyhow::anyhow!("AWS refused to stop {}: {error:?}", stream.name))?;
        Ok((log, now))
    }

    /// Returns when AWS received a Start for a stream after the first `log` entries of its log.
    pub(crate) fn start_since(&self, log: usize, number: usize) -> Option<Timestamp> {
        let (stream, _) = &self.streams[number];
        let world = self.aws.world();
        let is_start =
            |operation: &str| matches!(operation, "StartDeliveryStreamEncryption" | "StartStreamEncryption");
        let mut after = world.calls()[log..].iter();
        after
            .find(|call| is_start(&call.operation) && call.executed && call.target == stream.name)
            .map(|call| call.time)
    }
}

/// Returns the name of a stream and of its resource, as long as real ones are.
fn name(number: usize) -> String {
    format!("customer-orders-{number:05}")
}

fn namespace(number: usize) -> String {
    format!("data-team-{}", number % NAMESPACES)
}

fn planted(scenario: &Scenario, number: usize) -> PlantedStream {
    PlantedStream {
        service: match scenario.service {
            Service::Firehose => AwsService::Firehose,
            Service::Kinesis => AwsService::Kinesis,
        },
        region: format!("eu-west-{}", number % usize::from(scenario.regions) + 1),
        name: name(number),
        state: match scenario.state {
            State::Plaintext => Snapshot::default(),
            State::Encrypted => Snapshot::enabled(StreamKey::AwsOwned),
        },
        ..PlantedStream::default()
    }
}
