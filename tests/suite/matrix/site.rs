//! A site: one stream and one namespace, and operators as processes with a proxy on each side, on the real clock.

use std::process::Stdio;
use std::sync::Arc;

use jiff::SignedDuration;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, PlantedStream, Settings, Snapshot, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_operator::api::ledger::StreamLedger;
use stream_encryption_operator::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use stream_encryption_operator::model::ledger;
use test_cluster::TestCluster;

use super::proxy::{Proxy, unhurried_client};
use super::rig::START;
use crate::play::{LEDGERS, firehose, reason};
use crate::process::{OperatorProcess, apply, eventually};

/// One site.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a TestCluster,
    pub(crate) aws: Arc<SimulatedAws>,
    /// Of the namespace, the resource and the stream.
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

impl<'a> Site<'a> {
    /// A site with a plain-text stream. The namespace is there already; `account` is the operator's.
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

    /// Asks for encryption with any key.
    pub(crate) async fn ask_for_encryption(&self) {
        self.apply(&json!({"stream": {"arn": self.arn()}})).await;
    }

    pub(crate) fn arn(&self) -> String {
        firehose(&self.name)
    }

    /// The resource; nothing also where the API server does not answer.
    pub(crate) async fn resource(&self) -> Option<StreamEncryption> {
        Api::namespaced(self.client.clone(), &self.name).get_opt(&self.name).await.ok()?
    }

    pub(crate) async fn status(&self) -> StreamEncryptionStatus {
        self.resource().await.and_then(|resource| resource.status).unwrap_or_default()
    }

    pub(crate) async fn reason(&self) -> String {
        reason(&self.status().await)
    }

    /// Waits until `Ready` gives this reason for the spec as it is.
    pub(crate) async fn until_it_says(&self, wanted: &str, seconds: u64) {
        eventually(&format!("{}: {wanted}", self.name), seconds, async || {
            let Some(resource) = self.resource().await else { return false };
            let status = resource.status.unwrap_or_default();
            reason(&status) == wanted && status.observed_generation == resource.metadata.generation
        })
        .await;
    }

    /// Starts that AWS has got.
    pub(crate) fn starts(&self) -> usize {
        self.calls(START)
    }

    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.aws.world().calls().count(operation, &self.name)
    }

    /// Somebody else turns encryption off.
    pub(crate) fn turned_off_by_another(&self) {
        let off: Snapshot = super::rig::stopped();
        assert!(self.aws.world().set_stream(self.aws.now(), &self.arn(), off), "a stream");
    }

    /// The ledger; nothing also where the API server does not answer.
    pub(crate) async fn ledger(&self) -> Option<StreamLedger> {
        let name = ledger::name(&self.arn().parse().expect("an ARN"));
        Api::namespaced(self.client.clone(), LEDGERS).get_opt(&name).await.ok()?
    }

    /// What came of each call in the ledger, and with which code.
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
