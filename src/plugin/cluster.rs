//! The cluster of a verb: which one, which namespaces, and what they hold. Reads only.
//!
//! The flags have the names that kubectl gives them. Lists are read in pages, and an object that cannot be parsed does
//! not hide the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta};
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::policy::StreamEncryptionPolicy;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_api::{FINALIZER, SUSPEND_ANNOTATION, has_finalizer};

use crate::kubernetes::refusal_retry::repeating_refusals;
use crate::kubernetes::valid_text::with_valid_text;
use crate::kubernetes::{Unmanaged, connection, is_missing_object};
use crate::settings::names;
use crate::telemetry::error_chain;

/// The namespace of a person who names none, neither by a flag nor in the context.
pub(super) const DEFAULT_NAMESPACE: &str = "default";
/// The operator's namespace, with the chart's and `config/`'s default.
const OPERATOR_NAMESPACE: &str = "stream-encryption-system";
/// The objects of one page of a list. Users write them, each may have 1.5 MB, and a page is in memory twice as text.
pub(super) const PAGE: u32 = 50;

/// The flags of every verb that reads from the cluster.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterArguments {
    /// The kubeconfig file. Default: as for kubectl, also in a pod, whose service account is used without a kubeconfig.
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: the current one.
    #[arg(long)]
    context: Option<String>,
    /// The namespace. Default: that of the context, otherwise default. In a pod without a kubeconfig, that of the pod.
    #[arg(short, long)]
    namespace: Option<String>,
    /// The namespace of the operator, which holds the ledgers.
    #[arg(long, default_value = OPERATOR_NAMESPACE, value_name = "NAMESPACE")]
    operator_namespace: String,
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
    /// The namespace of the flags or of the context. Not checked if it is that of the context.
    pub(super) namespace: String,
    /// The namespace of the operator.
    pub(super) operator_namespace: String,
    /// The flags that name this cluster, for commands to copy; empty if the person gave none.
    flags: String,
    /// Likewise, those that only the plugin's own commands have.
    plugin_flags: String,
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
    /// The resource, or the object that cannot be read.
    pub(super) resource: Result<Box<StreamEncryption>, Unreadable>,
}

/// An object that this program cannot read, for example because a newer operator has written it.
pub(super) struct Unreadable {
    /// Why not.
    pub(super) error: String,
    /// The object, as the API server has it.
    pub(super) object: Box<DynamicObject>,
}

impl ClusterArguments {
    /// Returns whether the flags name a cluster, so that it must be usable.
    pub(super) fn names_a_cluster(&self) -> bool {
        self.kubeconfig().is_some() || self.context().is_some()
    }

    /// Returns the file of the flag. An empty value is none, as for the namespace.
    fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref().filter(|file| !file.as_os_str().is_empty())
    }

    /// Returns the context of the flag. An empty value is none, as for the namespace.
    fn context(&self) -> Option<&str> {
        self.context.as_deref().filter(|name| !name.is_empty())
    }

    /// Returns the namespace of the flag, if it names one. As for kubectl, an empty name is none: it is what a script passes
    /// if its variable is not set.
    pub(super) fn namespace(&self) -> anyhow::Result<Option<&str>> {
        let given = self.namespace.as_deref().filter(|name| !name.is_empty());
        given.map_or(Ok(()), |name| check("-n (--namespace)", name))?;
        Ok(given)
    }

    /// Returns the namespace of the flag, otherwise that of the context or of the pod, otherwise that of kubectl.
    fn namespace_or(&self, of_context: &str) -> anyhow::Result<String> {
        let given = self.namespace()?;
        Ok(given.unwrap_or(if of_context.is_empty() { DEFAULT_NAMESPACE } else { of_context }).to_owned())
    }

    /// Connects to the cluster; sends no request yet.
    pub(super) async fn connect(&self) -> anyhow::Result<Cluster> {
        // Invalid flags are the first error, whatever the kubeconfig is.
        self.namespace()?;
        check("--operator-namespace", &self.operator_namespace)?;
        let config = connection::of_context(self.kubeconfig(), self.context()).await?;
        let namespace = self.namespace_or(&config.default_namespace)?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the connection to the cluster cannot be used")?;
        let client = repeating_refusals(with_valid_text(client));
        let (flags, plugin_flags) = (self.flags(), self.plugin_flags());
        let operator_namespace = self.operator_namespace.clone();
        Ok(Cluster { client, server, namespace, operator_namespace, flags, plugin_flags })
    }

    /// Returns the flags that name the cluster, as they are typed.
    pub(super) fn flags(&self) -> String {
        let kubeconfig = self.kubeconfig().map(|path| ("--kubeconfig", path.display().to_string()));
        let context = self.context().map(|context| ("--context", context.to_owned()));
        let given = [kubeconfig, context].into_iter().flatten();
        let words: Vec<String> = given.map(|(flag, value)| format!(" {flag} {}", quoted(&value))).collect();
        words.concat()
    }

    /// Returns the flags that kubectl itself does not have, as they are typed. Without them, a printed command would look for
    /// the operator in another namespace.
    fn plugin_flags(&self) -> String {
        if self.operator_namespace == OPERATOR_NAMESPACE {
            return String::new();
        }
        format!(" --operator-namespace {}", quoted(&self.operator_namespace))
    }
}

impl ScopeArguments {
    /// Returns the resources to read.
    pub(super) fn scope(&self, cluster: &Cluster) -> anyhow::Result<Scope> {
        let namespace =
            if self.all_namespaces { None } else { Some(cluster.checked_namespace()?.to_owned()) };
        Ok(Scope { namespace, selector: self.selector.clone() })
    }
}

impl Scope {
    /// Returns whether the scope has every resource of the cluster.
    pub(super) fn is_everything(&self) -> bool {
        self.namespace.is_none() && self.selector.is_none()
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
    /// Returns a sentence whose kubectl commands are about this cluster, also if it is not that of the current context.
    pub(super) fn with_flags(&self, sentence: &str) -> String {
        with_flags(sentence, &self.flags, &self.plugin_flags)
    }

    /// Returns the access to the `StreamEncryptions` of a scope, except for its labels.
    pub(super) fn api(&self, scope: &Scope) -> Api<Unmanaged<DynamicObject>> {
        let kind = ApiResource::erase::<StreamEncryption>(&());
        match &scope.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        }
    }

    /// Returns the `StreamEncryptions` of a scope, by namespace and name.
    pub(super) async fn resources(&self, scope: &Scope) -> anyhow::Result<Vec<Found>> {
        let mut params = ListParams::default();
        params.label_selector.clone_from(&scope.selector);
        let listed = list(&self.api(scope), params, |one| Some(Found::of(one.0))).await;
        let mut found = listed.context("failed to list StreamEncryptions")?;
        found.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        Ok(found)
    }

    /// Returns the names of all `StreamEncryptionPolicies`, also of those that cannot be parsed.
    pub(super) async fn policy_names(&self) -> anyhow::Result<BTreeSet<String>> {
        let kind = ApiResource::erase::<StreamEncryptionPolicy>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let listed = list(&api, ListParams::default(), |one| Some(one.name_any())).await;
        Ok(listed.context("failed to list StreamEncryptionPolicies")?.into_iter().collect())
    }

    /// Returns the namespace of the flags or of the context, checked. An invalid one of the context must not keep a person from
    /// what does not need it.
    pub(super) fn checked_namespace(&self) -> anyhow::Result<&str> {
        names::namespace("the namespace of the kubeconfig's context", &self.namespace)?;
        Ok(&self.namespace)
    }

    /// Returns one `StreamEncryption` of the namespace.
    pub(super) async fn resource(&self, name: &str) -> anyhow::Result<Found> {
        let namespace = self.checked_namespace()?;
        let api = self.api(&Scope { namespace: Some(namespace.to_owned()), selector: None });
        let wanted = || format!("failed to read StreamEncryption {name} in namespace {namespace}");
        let found = none_if_missing(api.get(name).await).map_err(readable).with_context(wanted)?;
        let found = found.with_context(|| {
            format!("StreamEncryption {name} does not exist in namespace {namespace}; use -n NAMESPACE")
        })?;
        Ok(Found::of(found.0))
    }

    /// Returns the ledger of this name; `None` if there is none.
    pub(super) async fn ledger(&self, name: &str) -> anyhow::Result<Option<StreamLedger>> {
        let api: Api<StreamLedger> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let wanted = || format!("failed to read the StreamLedger in namespace {}", self.operator_namespace);
        none_if_missing(api.get(name).await).map_err(readable).with_context(wanted)
    }

    /// Returns whether there is a ledger, or the error of [`ledgers`](Self::ledgers), without reading all of them.
    pub(super) async fn has_ledgers(&self) -> anyhow::Result<bool> {
        let one = self.ledger_api().list(&ListParams::default().limit(1)).await;
        one.map(|page| !page.items.is_empty()).map_err(readable).with_context(|| self.no_ledgers())
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
        let named = |ledger: DeserializeGuard<StreamLedger>| ledger.0.ok().map(|one| (one.name_any(), one));
        let listed = list(&self.ledger_api(), ListParams::default(), named).await;
        Ok(listed.with_context(|| self.no_ledgers())?.into_iter().collect())
    }
}

impl Found {
    /// Takes an object of a list or of a watch. Of its metadata, which may have hundreds of kilobytes, only what a verb reads
    /// stays: its name, the annotation that suspends it, and what its deletion does to the encryption.
    pub(super) fn of(mut delivered: DynamicObject) -> Self {
        let (namespace, name) = (delivered.namespace().unwrap_or_default(), delivered.name_any());
        let metadata = std::mem::take(&mut delivered.metadata);
        let finalizers = has_finalizer(&metadata).then(|| vec![FINALIZER.to_owned()]);
        let ObjectMeta { generation, annotations, deletion_timestamp, .. } = metadata;
        let suspend = annotations.and_then(|mut all| all.remove_entry(SUSPEND_ANNOTATION));
        delivered.metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            generation,
            annotations: suspend.map(|one| BTreeMap::from([one])),
            deletion_timestamp,
            finalizers,
            ..ObjectMeta::default()
        };
        let resource = match delivered.clone().try_parse::<StreamEncryption>() {
            Ok(resource) => Ok(Box::new(resource)),
            Err(error) => Err(Unreadable { error: error_chain(&error), object: Box::new(delivered) }),
        };
        Self { namespace, name, resource }
    }
}

/// Checks the name of a namespace that is given as `flag`.
fn check(flag: &str, name: &str) -> anyhow::Result<()> {
    names::namespace(flag, name).map_err(|error| super::usage(&error.to_string()))
}

/// Returns `None` for an object that does not exist. If its definition does not exist, that is an error.
fn none_if_missing<K>(answer: kube::Result<K>) -> kube::Result<Option<K>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if is_missing_object(&status) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Adds flags at the end of each kubectl command of a sentence, before a pipe or the next part of the sentence. The
/// commands of the plugin get `plugin_flags`, too.
fn with_flags(sentence: &str, flags: &str, plugin_flags: &str) -> String {
    let mut parts = sentence.split("kubectl ");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = [" | ", "; ", ", "].iter().filter_map(|end| part.find(end)).min();
        let command = &part[..ends.unwrap_or(part.len())];
        let command = command.trim_end_matches('.');
        result.push_str("kubectl ");
        result.push_str(command);
        result.push_str(flags);
        if command.starts_with("streamencryption ") {
            result.push_str(plugin_flags);
        }
        result.push_str(&part[command.len()..]);
    }
    result
}

/// Lists all objects, page by page. Only what `keep` returns of an object stays in memory.
async fn list<K, T>(api: &Api<K>, params: ListParams, keep: impl Fn(K) -> Option<T>) -> anyhow::Result<Vec<T>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(readable)?;
        all.extend(page.items.into_iter().filter_map(&keep));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// A lasting refusal of the API server, in contrast to a cluster that is out of reach or fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The kind is not installed, so there is no object of it.
    #[error("the kind is not installed in this cluster; install the operator first: docs/install.md")]
    KindMissing,
    /// The person may not send the request.
    #[error("the API server refused the request: {0}")]
    Forbidden(String),
}

/// Returns an error in words that name what to do. It is a [`Refusal`] if sending the request again cannot help.
pub(super) fn readable(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 && !is_missing_object(&status) => {
            Refusal::KindMissing.into()
        }
        kube::Error::Api(status) if status.code == 403 => Refusal::Forbidden(status.message.clone()).into(),
        kube::Error::Api(status) => anyhow::anyhow!("the API server refused the request: {}", status.message),
        other => anyhow::anyhow!("{}", error_chain(&other)),
    }
}

#[cfg(test)]
mod tests;
