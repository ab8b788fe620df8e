//! Journeys on a virtual clock: what happens to a stream from the user's side, played to its end whatever fails on the way.
//!
//! A visit that fails comes again after some seconds, one that crashes comes from a new process, as the driver has it.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, PlantedStream, Service, Settings, Snapshot};
use stream_encryption_operator::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::kubernetes::Cluster;
use test_cluster::TestCluster;

use super::fuse::{FusedOperator, Spot, Visited};
use super::proxy::Proxy;
use crate::play::{Play, firehose, kinesis, operators_kubeconfig, reason};

/// The operator of every journey, with its fuse.
pub(crate) type Fused = FusedOperator<Aws, Cluster>;

pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(crate) const START: &str = "StartDeliveryStreamEncryption";
pub(crate) const DESCRIBE: &str = "DescribeDeliveryStream";
/// Until when a visit comes again after Kubernetes did not answer; as the driver has it.
const AGAIN: SignedDuration = SignedDuration::from_secs(3);
/// Visits in which every journey comes to its end.
const VISITS: usize = 400;

/// What happens, and what `Ready` says in the end; nothing, where the resource is gone in the end.
pub(crate) struct Scene {
    pub(crate) act: Act,
    pub(crate) end: &'static str,
}

pub(crate) enum Act {
    /// A user applies this spec.
    Apply(Value),
    /// A user deletes the resource.
    Delete,
    /// Somebody else puts the stream into this state.
    Outside(Snapshot),
}

/// A play of a world in which a change takes 3 s.
pub(crate) async fn stage() -> Play {
    let three = SignedDuration::from_secs(3);
    Play::start(Settings { enabling: three, disabling: three, updating: three, ..Settings::default() }).await
}

pub(crate) fn arn(service: Service, name: &str) -> String {
    if service == Service::Kinesis { kinesis(name) } else { firehose(name) }
}

pub(crate) fn plant(play: &Play, service: Service, name: &str) {
    let name = name.to_owned();
    play.aws.world().plant_stream(PlantedStream { service, name, ..PlantedStream::default() });
}

/// A spec that asks for this key, or for any.
pub(crate) fn spec(arn: &str, key: Option<&str>) -> Value {
    match key {
        Some(key) => {
            json!({"stream": {"arn": arn}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key}})
        }
        None => json!({"stream": {"arn": arn}}),
    }
}

/// Encryption was on and is off.
pub(crate) fn stopped() -> Snapshot {
    Snapshot {
        encryption: simulated_aws::world::EncryptionStatus::Disabled,
        asked: None,
        in_force: None,
        ..Snapshot::default()
    }
}

/// One journey of one stream with one operator.
pub(crate) struct Journey<'a> {
    pub(crate) play: &'a Play,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) operator: Fused,
    /// Whether the fuse has blown.
    pub(crate) crashed: bool,
    /// Visits to which Kubernetes gave no answer.
    pub(crate) failed: usize,
    /// Writes and calls, by name, up to the crash or the end.
    pub(crate) passed: Vec<&'static str>,
}

impl<'a> Journey<'a> {
    pub(crate) fn new(play: &'a Play, service: Service, name: &str, spot: Option<Spot>) -> Self {
        plant(play, service, name);
        Self {
            play,
            name: name.to_owned(),
            arn: arn(service, name),
            operator: FusedOperator::new(play.replica(), spot),
            crashed: false,
            failed: 0,
            passed: Vec::new(),
        }
    }

    /// Plays the scenes. Tells, for each, how all stood at its end: in the status, in the ledger and at AWS.
    pub(crate) async fn play(&mut self, scenes: &[Scene]) -> Vec<String> {
        let mut ends = Vec::new();
        for scene in scenes {
            self.act(&scene.act).await;
            ends.push(self.until(scene.end).await);
        }
        if self.passed.is_empty() {
            self.passed = self.operator.passed();
        }
        ends
    }

    async fn act(&self, act: &Act) {
        match act {
            Act::Apply(spec) => self.play.apply(&self.name, spec).await,
            Act::Delete => {
                let api: Api<StreamEncryption> =
                    Api::namespaced(self.play.tenant.clone(), &self.play.namespace);
                api.delete(&self.name, &DeleteParams::default()).await.expect("it may be deleted");
            }
            Act::Outside(state) => {
                let now = self.play.aws.now();
                assert!(self.play.aws.world().set_stream(now, &self.arn, state.clone()), "a stream");
            }
        }
    }

    /// Visits the resource whenever it asks, until `Ready` gives this reason for the spec as it is, or it is gone.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        for _ in 0..VISITS {
            let Some(wake) = self.visit().await else { return self.all_in_all(None).await };
            let Some(live) = self.play.resource(&self.name).await else { return self.all_in_all(None).await };
            let (status, generation) = (live.status.unwrap_or_default(), live.metadata.generation);
            if !end.is_empty() && reason(&status) == end && status.observed_generation == generation {
                return self.all_in_all(Some(&status)).await;
            }
            self.play.aws.advance(wake);
        }
        let status = self.play.status(&self.name).await;
        panic!("{}: not {end:?} within {VISITS} visits: {status:#?}", self.name);
    }

    /// Visits the resource whenever it asks, for so long.
    pub(crate) async fn let_pass(&mut self, time: SignedDuration) {
        let end = self.play.aws.now() + time;
        while self.play.aws.now() < end {
            let left = end.duration_since(self.play.aws.now());
            let wake = self.visit().await.unwrap_or(left);
            self.play.aws.advance(wake.min(left));
        }
    }

    /// One visit; tells when the next is due, or nothing if the resource is gone.
    pub(crate) async fn visit(&mut self) -> Option<SignedDuration> {
        let resource = self.play.resource(&self.name).await?;
        Some(match self.operator.visit_or_crash(&resource).await {
            Visited::Done(Ok(wake)) => self.operator.wait_until(wake),
            Visited::Done(Err(_)) => {
                self.failed += 1;
                AGAIN
            }
            Visited::Crashed => {
                self.crashed = true;
                self.passed = self.operator.passed();
                self.operator = FusedOperator::new(self.play.replica(), None);
                SignedDuration::from_secs(1)
            }
        })
    }

    /// Starts and Stops that AWS got for this stream.
    pub(crate) fn changes(&self) -> usize {
        let world = self.play.aws.world();
        world.calls().iter().filter(|call| call.changes_encryption() && call.target == self.name).count()
    }

    /// The most of them in any 24 hours of AWS's clock.
    pub(crate) fn busiest_day(&self) -> usize {
        self.play.aws.world().calls().busiest_window(&self.name, DAY)
    }

    /// How many calls the ledger holds.
    pub(crate) async fn reserved(&self) -> usize {
        self.play.ledger(&self.arn).await.map_or(0, |ledger| ledger.spec.calls.len())
    }

    async fn all_in_all(&self, status: Option<&StreamEncryptionStatus>) -> String {
        let ledger = self.play.ledger(&self.arn).await.map(|ledger| ledger.spec);
        let in_force = ledger.as_ref().and_then(|spec| spec.in_force.as_ref()).map(|known| &known.key);
        let world = self.play.aws.world();
        let state = world.stream(&self.arn, self.play.aws.now());
        let told = status.map(|status| (reason(status), status.encryption_status, &status.key_in_force));
        format!("{told:?}, ledger {in_force:?}, AWS {:?}", state.map(|at| (at.encryption, &at.in_force)))
    }
}

/// Puts a proxy between the operator of a play and the API server.
pub(crate) async fn proxied(play: &mut Play) -> Proxy {
    let account = operators_kubeconfig(play.cluster).await;
    let proxy = Proxy::of_kubernetes(play.cluster, &account).await;
    play.through(proxy.client().await);
    proxy
}

/// Namespaces that no other test uses: `<prefix>-0` and so on. For resources; ledgers lie in the operator's own.
pub(crate) async fn namespaces(cluster: &TestCluster, prefix: &str, count: usize) -> Vec<String> {
    let client = crate::play::client(cluster.kubeconfig()).await;
    let api: Api<Namespace> = Api::all(client);
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    for name in &names {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        api.create(&PostParams::default(), &namespace).await.expect("a namespace");
    }
    names
}
