//! Policies: those that select a namespace, and a watch of their changes. This module only reads;
//! administrators write policies.
//!
//! An invalid policy or selector allows nothing; the other policies stay in effect.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use kube::api::{Api, ListParams};
use kube::core::{DeserializeGuard, PartialObjectMeta, Selector, SelectorExt};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource as _};
use stream_encryption_api::policy::{NamespaceSelector, StreamEncryptionPolicy, StreamEncryptionPolicySpec};
use stream_encryption_core::controller::kube_api::KubeError;
use tracing::{info, warn};

use super::generations::Generations;
use super::presence::Presence;
use super::request::with_timeout;
use super::trimmed::{MAX_LABELS, NamespaceMetadata, Trimmed};
use super::watches;
use crate::telemetry::Warnings;

/// Objects that are not applied yet, for a plan: they replace those of the same name.
#[derive(Clone, Debug, Default)]
pub struct UnappliedObjects {
    /// The policies.
    pub policies: Vec<StreamEncryptionPolicy>,
    /// The labels of the namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl UnappliedObjects {
    /// Replaces the stored policies of the same names, and adds the others.
    fn apply(&self, stored: &mut Vec<MaybeInvalidPolicy>) {
        let name = |meta: &ObjectMeta| meta.name.clone().unwrap_or_default();
        let unapplied: Vec<String> = self.policies.iter().map(|policy| name(&policy.metadata)).collect();
        stored.retain(|policy| !unapplied.contains(&name(policy.meta())));
        stored.extend(self.policies.iter().cloned().map(|policy| DeserializeGuard(Ok(policy))));
    }
}

/// Lists the policies, live, as they would be with `unapplied`. The list is not paged: it is read before every call, and
/// only administrators write policies.
pub(super) async fn list(
    client: Client,
    unapplied: Arc<UnappliedObjects>,
) -> Result<Vec<MaybeInvalidPolicy>, KubeError> {
    let api: Api<Trimmed<MaybeInvalidPolicy>> = Api::all(client);
    let listed = with_timeout(api.list(&ListParams::default())).await?.items;
    let mut policies = listed.into_iter().map(|policy| policy.0).collect();
    unapplied.apply(&mut policies);
    Ok(policies)
}

/// Returns those of the listed policies that select `namespace`, with `default` if it does. Reads the labels of the
/// namespace, live, as they would be with `unapplied`.
pub(super) async fn live_in_namespace(
    client: &Client,
    listed: &[MaybeInvalidPolicy],
    default: Option<&StreamEncryptionPolicySpec>,
    unapplied: &UnappliedObjects,
    namespace: &str,
) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
    let policies = candidates(default, listed);
    let labels = match unapplied.namespaces.get(namespace) {
        Some(labels) => (labels.len() <= MAX_LABELS).then(|| labels.clone()),
        None if depend_on_labels(&policies) => labels(client, namespace).await?,
        None => None,
    };
    Ok(selecting(policies, labels.as_ref()))
}

/// Returns the specs of the valid policies, and `default`.
pub(super) fn candidates<'a>(
    default: Option<&'a StreamEncryptionPolicySpec>,
    stored: impl IntoIterator<Item = &'a MaybeInvalidPolicy>,
) -> Vec<&'a StreamEncryptionPolicySpec> {
    let valid = stored.into_iter().filter_map(|policy| Some(&policy.0.as_ref().ok()?.spec));
    default.into_iter().chain(valid).collect()
}

/// Returns whether the labels of a namespace decide which of these policies select it.
pub(super) fn depend_on_labels(policies: &[&StreamEncryptionPolicySpec]) -> bool {
    policies.iter().any(|policy| !policy.namespace_selector.is_everything())
}

/// Returns the policies that select a namespace with these labels, as [`is_selected`] does.
pub(super) fn selecting(
    policies: Vec<&StreamEncryptionPolicySpec>,
    labels: Option<&BTreeMap<String, String>>,
) -> Vec<StreamEncryptionPolicySpec> {
    let selects = |selector: &NamespaceSelector| is_selected(selector, labels).unwrap_or(false);
    policies.into_iter().filter(|policy| selects(&policy.namespace_selector)).cloned().collect()
}

/// Returns the labels of a namespace; `None` if there are too many.
async fn labels(client: &Client, namespace: &str) -> Result<Option<BTreeMap<String, String>>, KubeError> {
    let api: Api<TrimmedNamespace> = Api::all(client.clone());
    Ok(with_timeout(api.get(namespace)).await?.0.metadata.labels)
}

/// Returns whether a policy's selector selects a namespace with these labels, or the error in the selector. `None` stands for
/// too many labels. Then only a selector of all namespaces selects the namespace: the labels that others need were not kept.
pub fn is_selected(
    selector: &NamespaceSelector,
    labels: Option<&BTreeMap<String, String>>,
) -> Result<bool, String> {
    let is_everything = selector.is_everything();
    let expressions = selector.match_expressions.iter().map(|condition| LabelSelectorRequirement {
        key: condition.key.clone(),
        operator: condition.operator.as_str().to_owned(),
        values: Some(condition.values.clone()).filter(|values| !values.is_empty()),
    });
    let selector = LabelSelector {
        match_labels: Some(selector.match_labels.clone()),
        match_expressions: Some(expressions.collect()),
    };
    let selector = Selector::try_from(selector).map_err(|error| error.to_string())?;
    Ok(labels.map_or(is_everything, |labels| selector.matches(labels)))
}

/// Returns the error in a policy's selector; `None` if the selector is valid.
pub(super) fn selector_error(policy: &StreamEncryptionPolicySpec) -> Option<String> {
    let error = is_selected(&policy.namespace_selector, None).err()?;
    Some(format!("invalid namespaceSelector: {error}"))
}

/// The generations of the invalid policies that are reported in the log, by uid.
#[derive(Default)]
struct ReportedPolicies(HashMap<String, Option<i64>>);

impl ReportedPolicies {
    /// Processes an event. Returns the name and the error of an invalid policy, once for each generation, because each
    /// list and each write of the status delivers the policy again.
    fn observe(&mut self, event: &Event<MaybeInvalidPolicy>) -> Option<(String, String)> {
        let (policy, error) = match event {
            Event::Init | Event::InitDone => return None,
            Event::Delete(policy) => (policy, None),
            Event::InitApply(policy) | Event::Apply(policy) => (policy, error_in(policy)),
        };
        let ObjectMeta { name, uid, generation, .. } = policy.meta().clone();
        let uid = uid.unwrap_or_default();
        let Some(error) = error else {
            self.0.remove(&uid);
            return None;
        };
        let is_new = self.0.insert(uid, generation) != Some(generation);
        is_new.then(|| (name.unwrap_or_default(), error))
    }
}

/// Returns the error in a policy; `None` if the policy is valid.
fn error_in(policy: &MaybeInvalidPolicy) -> Option<String> {
    match &policy.0 {
        Ok(policy) => selector_error(&policy.spec),
        Err(invalid) => Some(invalid.error.clone()),
    }
}

/// A policy as the API server delivered it: valid, or the metadata of an invalid one with the error. One invalid object
/// must not stop the watch of the others.
pub type MaybeInvalidPolicy = DeserializeGuard<StreamEncryptionPolicy>;

/// A namespace, of which only the identity and the labels are kept. The labels are `None` if there are too many.
pub type NamespaceLabels = PartialObjectMeta<Namespace>;

/// A namespace as the operator reads it, without the other metadata. Managed fields of a user may be such that they cannot be
/// parsed.
pub(super) type TrimmedNamespace = Trimmed<NamespaceLabels, NamespaceMetadata>;

/// Returns every event of the policies. The stream never ends.
pub fn events(
    client: Client,
    relist_every: Duration,
) -> impl Stream<Item = watcher::Result<Event<MaybeInvalidPolicy>>> + Send + 'static {
    let api: Api<Trimmed<MaybeInvalidPolicy>> = Api::all(client);
    let events = watches::relisted(relist_every, move || watcher(api.clone(), watches::config()));
    events.map_ok(watches::unwrap_trimmed)
}

/// Returns a stream with an item whenever the permissions of namespaces may have changed: a policy appeared, its spec
/// changed, or it was deleted. Changes of a policy's status are ignored. Logs a warning about an invalid policy, and if
/// there is no policy in the cluster and no default policy.
pub fn spec_changes(
    events: impl Stream<Item = watcher::Result<Event<MaybeInvalidPolicy>>> + Send + 'static,
    has_default: bool,
) -> impl Stream<Item = ()> + Send + 'static {
    let mut presence = Presence::default();
    let mut generations = Generations::default();
    let mut reported = ReportedPolicies::default();
    events.filter_map(move |event| {
        let Ok(event) = event else { return std::future::ready(None) };
        match presence.observe(&event) {
            Some(true) => info!("found a StreamEncryptionPolicy"),
            Some(false) if has_default => info!("found no StreamEncryptionPolicy, using the default policy"),
            Some(false) => warn!(
                "no StreamEncryptionPolicy exists and no default policy is set: every resource is NotPermitted, and no AWS \
                 request is sent for it; create a policy, for example from config/policies/data-team.yaml"
            ),
            None => {}
        }
        if let Some((name, error)) = reported.observe(&event) {
            warn!(policy = name, error, "invalid policy, allowing nothing");
        }
        std::future::ready(generations.changed(&event).then_some(()))
    })
}

/// Returns every event of the namespaces, or of the one that is named, with the labels and identity as the only
/// metadata. Logs a warning if the named one does not exist, or if one has too many labels. The stream never ends.
pub fn namespace_events(
    client: Client,
    namespace: Option<&str>,
    relist_every: Duration,
) -> impl Stream<Item = watcher::Result<Event<NamespaceLabels>>> + Send + 'static {
    let api: Api<TrimmedNamespace> = Api::all(client);
    let config = match namespace {
        Some(name) => watches::config().fields(&format!("metadata.name={name}")),
        None => watches::config(),
    };
    let events = watches::relisted(relist_every, move || watcher(api.clone(), config.clone()));
    let events = events.map_ok(watches::unwrap_trimmed);
    let only = namespace.map(str::to_owned);
    let (mut presence, mut warnings) = (Presence::default(), LabelWarnings::default());
    events.inspect_ok(move |event| {
        if let Some(namespace) = warnings.take_due(event) {
            warn!(
                namespace,
                "the namespace has more than {MAX_LABELS} labels, so no policy that selects by labels applies to it; remove labels"
            );
        }
        let Some(namespace) = &only else { return };
        match presence.observe(event) {
            Some(true) => info!(namespace, "the watched namespace exists"),
            Some(false) => warn!(
                namespace,
                "the watched namespace does not exist, so none of its resources is reconciled until it is created; check \
                 WATCH_NAMESPACE"
            ),
            None => {}
        }
    })
}

/// Limits the warnings about namespaces with too many labels, by the name of the namespace. Whoever may label a namespace must
/// not fill the log, nor hide the warning about another namespace.
#[derive(Default)]
struct LabelWarnings(HashMap<String, Warnings>);

impl LabelWarnings {
    /// Maximum number of names. A deletion that the watch misses would otherwise leave a name for the lifetime of the process.
    const MAX_NAMES: usize = 1000;

    /// Processes an event. Returns the name of a namespace with too many labels, at most once a minute. The caller must log
    /// it.
    fn take_due(&mut self, event: &Event<NamespaceLabels>) -> Option<String> {
        let (Event::InitApply(namespace) | Event::Apply(namespace)) = event else { return None };
        let ObjectMeta { name: Some(name), labels: None, .. } = &namespace.metadata else { return None };
        if self.0.len() >= Self::MAX_NAMES && !self.0.contains_key(name) {
            // Some warnings are then repeated within a minute, but none is lost.
            self.0.clear();
        }
        self.0.entry(name.clone()).or_default().take_due().then(|| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use axum::Router;
    use futures_util::stream;
    use serde_json::json;

    use super::super::caches::{Cache, Caches};
    use super::super::store::Kind;
    use super::*;

    #[tokio::test]
    async fn live_policies_lack_unused_metadata() {
        let server = Router::new().fallback(|| async {
            let policy = json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
                "metadata": {"name": "team", "labels": {"team": "data"}, "annotations": {"last-applied": "x"}},
                "spec": {"namespaceSelector": {}, "streams": [], "keys": []},
            });
            let list = json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicyList",
                "metadata": {"resourceVersion": "1"}, "items": [policy],
            });
            list.to_string()
        });
        let listed = list(Client::new(server, "default"), Arc::default()).await.unwrap();
        let [policy] = &listed[..] else { panic!("{listed:?}") };
        let policy = policy.0.as_ref().unwrap();
        assert_eq!(policy.metadata.name.as_deref(), Some("team"));
        assert_eq!((&policy.metadata.labels, &policy.metadata.annotations), (&None, &Some(BTreeMap::new())));
    }

    #[test]
    fn selector_requires_all_labels_and_expressions() {
        let labels = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
        for (selector, selected) in [
            (json!({}), true),
            (json!({"matchLabels": {"team": "data"}}), true),
            (json!({"matchLabels": {"team": "finance"}}), false),
            (json!({"matchLabels": {"team": "data", "stage": "live"}}), false),
            (
                json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["data", "web"]}]}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["data"]}]}), false),
            (json!({"matchExpressions": [{"key": "stage", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]}), true),
            (
                json!({"matchLabels": {"team": "data"}, "matchExpressions": [{"key": "stage", "operator": "Exists"}]}),
                false,
            ),
        ] {
            let read: NamespaceSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(is_selected(&read, Some(&labels)), Ok(selected), "{selector}");
            let is_everything = selector == json!({});
            assert_eq!(is_selected(&read, None), Ok(is_everything), "too many labels: {selector}");
        }
    }

    /// Returns a cache that holds these objects.
    async fn cache_of<K: Kind + Send + Sync + 'static>(objects: Vec<K>) -> Cache<K> {
        let objects = objects.into_iter().map(Event::InitApply);
        let list = [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).map(Ok);
        let (cache, events) = Cache::of(vec![(None, stream::iter(list))], "objects", &Arc::default());
        events.for_each(|_| std::future::ready(())).await;
        cache
    }

    /// The namespace has none of the labels that the policy excludes.
    #[tokio::test]
    async fn too_many_labels_match_no_selector_live_or_cached() {
        let selector = json!({"matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]});
        let policy: MaybeInvalidPolicy = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
            "metadata": {"name": "team"}, "spec": {"namespaceSelector": selector, "streams": [], "keys": []},
        }))
        .unwrap();
        for (count, selected) in [(MAX_LABELS, 1), (MAX_LABELS + 1, 0)] {
            let labels: BTreeMap<String, String> =
                (0..count).map(|number| (format!("l{number}"), String::new())).collect();
            let text = json!({"metadata": {"name": "data", "labels": labels}}).to_string();
            let namespace: TrimmedNamespace = serde_json::from_str(&text).unwrap();
            let client = Client::new(Router::new().fallback(async move || text.clone()), "default");
            let unapplied = UnappliedObjects::default();
            let live = live_in_namespace(&client, from_ref(&policy), None, &unapplied, "data").await.unwrap();
            let caches = Caches {
                resources: cache_of(Vec::new()).await,
                policies: cache_of(vec![policy.clone()]).await,
                namespaces: cache_of(vec![namespace.0]).await,
                ledgers: cache_of(Vec::new()).await,
            };
            let from_cache = caches.policies(None, "data").unwrap();
            assert_eq!((live.len(), from_cache.len()), (selected, selected), "{count} labels");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_namespace_with_too_many_labels_is_logged() {
        let mut warnings = LabelWarnings::default();
        let mut take_due = |name: &str, labels: Option<BTreeMap<String, String>>| {
            let metadata = ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() };
            let namespace = NamespaceLabels { metadata, ..NamespaceLabels::default() };
            warnings.take_due(&Event::InitApply(namespace))
        };
        assert_eq!(take_due("few", Some(BTreeMap::new())), None);
        for _ in 0..2 {
            for name in ["data", "web"] {
                assert_eq!(take_due(name, None).as_deref(), Some(name));
                assert_eq!(take_due(name, None), None, "{name} was logged just now");
            }
            tokio::time::advance(Duration::from_mins(1)).await;
        }
        for number in 0..3 * LabelWarnings::MAX_NAMES {
            let name = format!("n{number}");
            assert_eq!(take_due(&name, None), Some(name));
        }
        assert!(warnings.0.len() <= LabelWarnings::MAX_NAMES);
    }

    #[test]
    fn invalid_policy_is_reported_once_per_generation() {
        let policy = |generation: i64, spec: &serde_json::Value| -> MaybeInvalidPolicy {
            let policy = json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
                "metadata": {"name": "team", "uid": "1", "generation": generation},
                "spec": spec,
            });
            serde_json::from_value(policy).unwrap()
        };
        let valid = json!({"namespaceSelector": {}, "streams": [], "keys": []});
        let selector = json!({"matchExpressions": [{"key": "team", "operator": "In"}]});
        let mut invalid = [json!({"streams": 7}), valid.clone()];
        invalid[1]["namespaceSelector"] = selector;
        for invalid in invalid {
            let mut reported = ReportedPolicies::default();
            for (event, is_reported) in [
                (Event::Init, false),
                (Event::InitApply(policy(1, &invalid)), true),
                (Event::InitDone, false),
                (Event::Apply(policy(1, &invalid)), false),
                (Event::Apply(policy(2, &invalid)), true),
                (Event::InitApply(policy(2, &invalid)), false),
                (Event::Apply(policy(3, &valid)), false),
                (Event::Apply(policy(4, &invalid)), true),
                (Event::Delete(policy(4, &invalid)), false),
                (Event::Apply(policy(4, &invalid)), true),
            ] {
                assert_eq!(reported.observe(&event).is_some(), is_reported, "{event:?}");
            }
        }
    }
}
