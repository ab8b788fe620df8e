//! Scenarios on a virtual clock: user actions on a stream, run to their end whatever fails on the way.
//!
//! As in the controller, a failed reconcile is retried after some seconds. A crashed one is repeated by a new
//! process.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, PlantedStream, Service, Settings, Snapshot};
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::kubernetes::Cluster;
use test_cluster::TestCluster;

use super::crash_injection::{CrashPoint, FusedOperator, Visited};
use super::proxy::Proxy;
use crate::harness::{Harness, firehose, kinesis, operators_kubeconfig, reason};

/// The operator of every run, with its crash injector.
pub(crate) type Injected = FusedOperator<Aws, Cluster>;

pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(crate) const START: &str = "StartDeliveryStreamEncryption";
pub(crate) const DESCRIBE: &str = "DescribeDeliveryStream";
/// Delay until a reconcile is retried after Kubernetes did not answer, as in the controller.
const AGAIN: SignedDuration = SignedDuration::from_secs(3);
/// Maximum number of reconciles of a run.
const VISITS: usize = 400;

/// An action, and the reason of `Ready` at its end. An empty reason means that the resource is gone.
pub(crate) struct Scene {
    pub(crate) act: Act,
    pub(crate) end: &'static str,
}

pub(crate) enum Act {
    /// A user applies this spec.
    Apply(Value),
    /// A user deletes the resource.
    Delete,
    /// Someone else sets the stream to this state.
    Outside(Snapshot),
}

/// A harness in whose world a change takes 3 s.
pub(crate) async fn stage() -> Harness {
    let three = SignedDuration::from_secs(3);
    Harness::start(Settings { enabling: three, disabling: three, updating: three, ..Settings::default() })
        .await
}

pub(crate) fn arn(service: Service, name: &str) -> String {
    if service == Service::Kinesis { kinesis(name) } else { firehose(name) }
}

pub(crate) fn plant(harness: &Harness, service: Service, name: &str) {
    let name = name.to_owned();
    harness.aws.world().plant_stream(PlantedStream { service, name, ..PlantedStream::default() });
}

/// A spec with this key, or without a key.
pub(crate) fn spec(arn: &str, key: Option<&str>) -> Value {
    match key {
        Some(key) => {
            json!({"stream": {"arn": arn}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key}})
        }
        None => json!({"stream": {"arn": arn}}),
    }
}

/// A stream whose encryption was enabled and is disabled now.
pub(crate) fn stopped() -> Snapshot {
    Snapshot {
        encryption: simulated_aws::world::EncryptionStatus::Disabled,
        requested_key: None,
        active_key: None,
        ..Snapshot::default()
    }
}

/// One run of a scenario, with one stream and one operator.
pub(crate) struct Run<'a> {
    pub(crate) harness: &'a Harness,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) operator: Injected,
    /// Whether the crash injector has been triggered.
    pub(crate) crashed: bool,
    /// Number of reconciles that failed because Kubernetes did not answer.
    pub(crate) failed: usize,
    /// Names of the writes and requests up to the crash or the end.
    pub(crate) passed: Vec<&'static str>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(harness: &'a Harness, service: Service, name: &str, spot: Option<CrashPoint>) -> Self {
        plant(harness, service, name);
        Self {
            harness,
            name: name.to_owned(),
            arn: arn(service, name),
            operator: FusedOperator::new(harness.replica(), spot),
            crashed: false,
            failed: 0,
            passed: Vec::new(),
        }
    }

    /// Runs the scenes. Returns the state at the end of each: in the status, in the ledger and at AWS.
    pub(crate) async fn harness(&mut self, scenes: &[Scene]) -> Vec<String> {
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
            Act::Apply(spec) => self.harness.apply(&self.name, spec).await,
            Act::Delete => {
                let api: Api<StreamEncryption> =
                    Api::namespaced(self.harness.tenant.clone(), &self.harness.namespace);
                api.delete(&self.name, &DeleteParams::default()).await.expect("it may be deleted");
            }
            Act::Outside(state) => {
                let now = self.harness.aws.now();
                assert!(self.harness.aws.world().set_stream(now, &self.arn, state.clone()), "a stream");
            }
        }
    }

    /// Reconciles at each requested time, until `Ready` has this reason for the current generation, or the
    /// resource is gone.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        for _ in 0..VISITS {
            let Some(wake) = self.visit().await else { return self.final_state(None).await };
            let Some(live) = self.harness.resource(&self.name).await else {
                return self.final_state(None).await;
            };
            let (status, generation) = (live.status.unwrap_or_default(), live.metadata.generation);
            if !end.is_empty() && reason(&status) == end && status.observed_generation == generation {
                return self.final_state(Some(&status)).await;
            }
            self.harness.aws.advance(wake);
        }
        let status = self.harness.status(&self.name).await;
        panic!("{}: not {end:?} within {VISITS} reconciles: {status:#?}", self.name);
    }

    /// Reconciles at each requested time, for this long.
    pub(crate) async fn let_pass(&mut self, time: SignedDuration) {
        let end = self.harness.aws.now() + time;
        while self.harness.aws.now() < end {
            let left = end.duration_since(self.harness.aws.now());
            let wake = self.visit().await.unwrap_or(left);
            self.harness.aws.advance(wake.min(left));
        }
    }

    /// Reconciles once. Returns the delay until the next reconcile, or `None` if the resource is gone.
    pub(crate) async fn visit(&mut self) -> Option<SignedDuration> {
        let resource = self.harness.resource(&self.name).await?;
        Some(match self.operator.visit_or_crash(&resource).await {
            Visited::Done(Ok(wake)) => self.operator.wait_until(wake),
            Visited::Done(Err(_)) => {
                self.failed += 1;
                AGAIN
            }
            Visited::Crashed => {
                self.crashed = true;
                self.passed = self.operator.passed();
                self.operator = FusedOperator::new(self.harness.replica(), None);
                SignedDuration::from_secs(1)
            }
        })
    }

    /// Number of Starts and Stops that AWS received for this stream.
    pub(crate) fn changes(&self) -> usize {
        let world = self.harness.aws.world();
        world.calls().iter().filter(|call| call.changes_encryption() && call.target == self.name).count()
    }

    /// The highest number of them in any 24 hours of AWS's clock.
    pub(crate) fn busiest_day(&self) -> usize {
        self.harness.aws.world().calls().busiest_window(&self.name, DAY)
    }

    /// Number of calls in the ledger.
    pub(crate) async fn reserved(&self) -> usize {
        self.harness.ledger(&self.arn).await.map_or(0, |ledger| ledger.spec.calls.len())
    }

    async fn final_state(&self, status: Option<&StreamEncryptionStatus>) -> String {
        let ledger = self.harness.ledger(&self.arn).await.map(|ledger| ledger.spec);
        let active_key =
            ledger.as_ref().and_then(|spec| spec.known_encryption.as_ref()).map(|known| &known.key);
        let world = self.harness.aws.world();
        let state = world.stream(&self.arn, self.harness.aws.now());
        let told = status.map(|status| (reason(status), status.encryption_status, &status.active_key));
        format!("{told:?}, ledger {active_key:?}, AWS {:?}", state.map(|at| (at.encryption, &at.active_key)))
    }
}

/// Puts a proxy between the operator of a harness and the API server.
pub(crate) async fn proxied(harness: &mut Harness) -> Proxy {
    let account = operators_kubeconfig(harness.cluster).await;
    let proxy = Proxy::of_kubernetes(harness.cluster, &account).await;
    harness.through(proxy.client().await);
    proxy
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
