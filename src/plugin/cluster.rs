//! The cluster of a verb: which one, which namespaces, and what they hold. Reads only.
//!
//! The flags have the names that kubectl gives them. Lists are read in pages, and an object that cannot be parsed does
//! not hide the others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::stream_encryption::StreamEncryption;

use crate::kubernetes::connection;
use crate::telemetry::error_chain;

/// The objects of one page of a list.
const PAGE: u32 = 500;

/// The flags of every verb that reads from the cluster.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterArguments {
    /// The kubeconfig file. Default: as for kubectl.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: the current one.
    #[arg(long)]
    context: Option<String>,
    /// The namespace. Default: that of the context.
    #[arg(short, long)]
    pub(super) namespace: Option<String>,
    /// The namespace of the operator, which holds the ledgers.
    #[arg(long, default_value = "stream-encryption-system", value_name = "NAMESPACE")]
    pub(super) operator_namespace: String,
}

/// The flags of every verb that may read from all namespaces.
#[derive(Args, Clone, Debug)]
pub(super) struct ScopeArguments {
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
    /// Read from all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Select resources by labels, such as team=data.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
}

/// A connection to the cluster.
pub(super) struct Cluster {
    /// The client.
    pub(super) client: Client,
    /// The URL of the API server.
    pub(super) server: String,
    /// The namespace of the flags or of the context.
    pub(super) namespace: String,
    /// The namespace of the operator.
    pub(super) operator_namespace: String,
}

/// The resources that a verb reads.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// The namespace; `None` for all.
    pub(super) namespace: Option<String>,
    /// The label selector; `None` for all.
    pub(super) selector: Option<String>,
}

/// A resource, or why it cannot be parsed.
pub(super) struct Found {
    /// The namespace.
    pub(super) namespace: String,
    /// The name.
    pub(super) name: String,
    /// The resource, or the error.
    pub(super) resource: Result<Box<StreamEncryption>, String>,
}

impl ClusterArguments {
    /// Returns whether the flags name a cluster, so that it must be usable.
    pub(super) fn names_a_cluster(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Connects to the cluster; sends no request yet.
    pub(super) async fn connect(&self) -> anyhow::Result<Cluster> {
        let config = connection::of_context(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Cluster { client, server, namespace, operator_namespace: self.operator_namespace.clone() })
    }
}

impl ScopeArguments {
    /// Returns the resources to read.
    pub(super) fn scope(&self, cluster: &Cluster) -> Scope {
        Scope {
            namespace: (!self.all_namespaces).then(|| cluster.namespace.clone()),
            selector: self.selector.clone(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "namespace {namespace}")?,
            None => f.write_str("all namespaces")?,
        }
        self.selector.as_ref().map_or(Ok(()), |labels| write!(f, ", labels {labels}"))
    }
}

impl Cluster {
    /// Returns the access to the `StreamEncryptions` of a scope, except for its labels.
    pub(super) fn api(&self, scope: &Scope) -> Api<DeserializeGuard<StreamEncryption>> {
        match &scope.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Returns the `StreamEncryptions` of a scope, by namespace and name.
    pub(super) async fn resources(&self, scope: &Scope) -> anyhow::Result<Vec<Found>> {
        let mut params = ListParams::default();
        params.label_selector.clone_from(&scope.selector);
        let listed = list(&self.api(scope), params).await.context("failed to list StreamEncryptions")?;
        let mut found: Vec<Found> = listed.into_iter().map(Found::of).collect();
        found.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        Ok(found)
    }

    /// Returns one `StreamEncryption` of the namespace.
    pub(super) async fn resource(&self, name: &str) -> anyhow::Result<Found> {
        let api: Api<DeserializeGuard<StreamEncryption>> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let wanted = || format!("failed to read StreamEncryption {name} in namespace {}", self.namespace);
        let found = api.get_opt(name).await.map_err(readable).with_context(wanted)?;
        let found = found.with_context(|| {
            format!(
                "StreamEncryption {name} does not exist in namespace {}; use -n NAMESPACE",
                self.namespace
            )
        })?;
        Ok(Found::of(found))
    }

    /// Returns the ledger of this name; `None` if there is none.
    pub(super) async fn ledger(&self, name: &str) -> anyhow::Result<Option<StreamLedger>> {
        let api: Api<StreamLedger> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let wanted = || format!("failed to read the StreamLedger in namespace {}", self.operator_namespace);
        api.get_opt(name).await.map_err(readable).with_context(wanted)
    }

    /// Returns the error of [`ledgers`](Self::ledgers), if there is one, without reading all of them.
    pub(super) async fn check_ledgers(&self) -> anyhow::Result<()> {
        let one = self.ledger_api().list(&ListParams::default().limit(1)).await;
        one.map(drop).map_err(readable).with_context(|| self.no_ledgers())
    }

    fn ledger_api(&self) -> Api<DeserializeGuard<StreamLedger>> {
        Api::namespaced(self.client.clone(), &self.operator_namespace)
    }

    fn no_ledgers(&self) -> String {
        format!("failed to list StreamLedgers in namespace {}", self.operator_namespace)
    }

    /// Returns the ledgers by their names. Ledgers are readable for administrators only, so a refusal is no error: the
    /// caller reports that the calls are not shown.
    pub(super) async fn ledgers(&self) -> anyhow::Result<BTreeMap<String, StreamLedger>> {
        let listed = list(&self.ledger_api(), ListParams::default()).await;
        let listed = listed.with_context(|| self.no_ledgers())?;
        Ok(listed.into_iter().filter_map(|ledger| ledger.0.ok()).map(|one| (one.name_any(), one)).collect())
    }
}

impl Found {
    /// Takes an object of a list or of a watch.
    pub(super) fn of(delivered: DeserializeGuard<StreamEncryption>) -> Self {
        let meta = delivered.meta();
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let resource = delivered.0.map(Box::new).map_err(|invalid| invalid.error);
        Self { namespace, name, resource }
    }
}

/// Lists all objects, page by page.
async fn list<K>(api: &Api<K>, params: ListParams) -> anyhow::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(readable)?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// Returns an error in words that name what to do.
pub(super) fn readable(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 && status.reason != "NotFound" => anyhow::anyhow!(
            "the kind is not installed in this cluster; install the operator first: docs/install.md"
        ),
        kube::Error::Api(status) => anyhow::anyhow!("the API server refused the request: {}", status.message),
        other => anyhow::anyhow!("{}", error_chain(&other)),
    }
}
