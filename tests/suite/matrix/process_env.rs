//! The environment of operator processes on the real clock: one stream, one namespace, and a proxy in front
//! of each server.

use std::process::Stdio;
use std::sync::Arc;

use jiff::SignedDuration;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, PlantedStream, Settings, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use stream_encryption_core::model::ledger;
use test_cluster::TestCluster;

use super::proxy::{Proxy, unhurried_client};
use super::scenario::{START, namespaces};
use crate::harness::{LEDGERS, cluster, firehose, operators_kubeconfig, reason, stopped};
use crate::process::{OperatorProcess, apply, eventually};

/// One environment.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a TestCluster,
    pub(crate) aws: Arc<SimulatedAws>,
    /// Name of the namespace, of the resource and of the stream.
    pub(crate) name: String,
    pub(crate) kubernetes: Proxy,
    pub(crate) before_aws: Proxy,
    client: Client,
}

/// A simulated AWS in which a change takes 2 s.
pub(crate) async fn aws() -> Arc<SimulatedAws> {
    let two = SignedDuration::from_secs(2);
    let settings = Settings { enabling: two, disabling: two, rate_limits: false, ..Settings::default() };
    Arc::new(SimulatedAws::start(World::new(settings), Clock::Real).await.expect("a simulated AWS"))
}

impl Site<'static> {
    /// Creates an environment in a namespace of its own in the shared cluster, whose name begins with `prefix`.
    pub(crate) async fn fresh(prefix: &str) -> Self {
        let cluster = cluster().await;
        let account = operators_kubeconfig(cluster).await;
        let name = namespaces(cluster, prefix, 1).await.remove(0);
        Self::prepare(cluster, &account, &aws().await, &name).await
    }
}

impl<'a> Site<'a> {
    /// Creates an environment with a plaintext stream. The namespace must exist; `account` is the operator's
    /// kubeconfig.
    pub(crate) async fn prepare(
        cluster: &'a TestCluster,
        account: &std::path::Path,
        aws: &Arc<SimulatedAws>,
        name: &str,
    ) -> Self {
        aws.world().plant_stream(PlantedStream { name: name.to_owned(), ..PlantedStream::default() });
        Self {
            cluster,
            aws: Arc::clone(aws),
            name: name.to_owned(),
            kubernetes: Proxy::of_kubernetes(cluster, account).await,
            before_aws: Proxy::of_aws(cluster, &aws.url()).await,
            client: unhurried_client(cluster.kubeconfig()).await,
        }
    }

    /// Starts an operator for this namespace, through the proxies.
    pub(crate) fn start(&self) -> OperatorProcess {
        self.start_logging_to(Stdio::null())
    }

    pub(crate) fn start_logging_to(&self, log: impl Into<Stdio>) -> OperatorProcess {
        let url = self.before_aws.url();
        let environment = [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS)];
        OperatorProcess::logging_to(log, self.kubernetes.kubeconfig(), &self.name, &environment)
    }

    pub(crate) async fn apply(&self, spec: &Value) {
        apply(self.cluster, &self.name, &self.name, spec).await;
    }

    /// Creates the resource without a key.
    pub(crate) async fn ask_for_encryption(&self) {
        self.apply(&json!({"stream": {"arn": self.arn()}})).await;
    }

    pub(crate) fn arn(&self) -> String {
        firehose(&self.name)
    }

    /// The resource, or `None` if it does not exist or the API server does not answer.
    pub(crate) async fn resource(&self) -> Option<StreamEncryption> {
        Api::namespaced(self.client.clone(), &self.name).get_opt(&self.name).await.ok()?
    }

    pub(crate) async fn status(&self) -> StreamEncryptionStatus {
        self.resource().await.and_then(|resource| resource.status).unwrap_or_default()
    }

    pub(crate) async fn reason(&self) -> String {
        reason(&self.status().await)
    }

    /// Waits until `Ready` has this reason for the current generation.
    pub(crate) async fn until_it_says(&self, wanted: &str) {
        eventually(&format!("{}: {wanted}", self.name), async || {
            let Some(resource) = self.resource().await else { return false };
            let status = resource.status.unwrap_or_default();
            reason(&status) == wanted && status.observed_generation == resource.metadata.generation
        })
        .await;
    }

    /// Number of Starts that AWS received.
    pub(crate) fn starts(&self) -> usize {
        self.calls(START)
    }

    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.aws.world().calls().count(operation, &self.name)
    }

    /// Disables encryption, as someone else would.
    pub(crate) fn turned_off_by_another(&self) {
        assert!(self.aws.world().set_stream(self.aws.now(), &self.arn(), stopped()), "a stream");
    }

    /// The ledger, or `None` if it does not exist or the API server does not answer.
    pub(crate) async fn ledger(&self) -> Option<StreamLedger> {
        let name = ledger::name(&self.arn().parse().expect("an ARN"));
        Api::namespaced(self.client.clone(), LEDGERS).get_opt(&name).await.ok()?
    }

    /// The outcome of each call in the ledger, with its error code.
    pub(crate) async fn outcomes(&self) -> Vec<String> {
        let calls = self.ledger().await.map(|ledger| ledger.spec.calls).unwrap_or_default();
        calls
            .iter()
            .map(|call| match &call.code {
                Some(code) => format!("{:?} {code}", call.outcome),
                None => format!("{:?}", call.outcome),
            })
            .collect()
    }
}
