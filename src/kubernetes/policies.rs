//! Policies: those that select a namespace, live, and word of their changes. Reads only; administrators write them.
//!
//! A policy or a selector that cannot be understood allows nothing, and the others hold.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::core::{DeserializeGuard, PartialObjectMeta, Selector, SelectorExt};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use tracing::{info, warn};

use super::ask::{ask, ask_for};
use super::presence::Presence;
use super::trimmed::Trimmed;
use super::watches;
use crate::api::policy::{NamespaceSelector, StreamEncryptionPolicy, StreamEncryptionPolicySpec};
use crate::controller::records::RecordError;

/// The policies that select `namespace`, and `default` if it does.
pub(super) async fn of(
    client: &Client,
    default: Option<&StreamEncryptionPolicySpec>,
    namespace: &str,
) -> Result<Vec<StreamEncryptionPolicySpec>, RecordError> {
    let api: Api<DeserializeGuard<StreamEncryptionPolicy>> = Api::all(client.clone());
    // Where the kind is not installed, nobody has written a policy.
    let stored = ask_for(api.list(&ListParams::default())).await?.map(|list| list.items).unwrap_or_default();
    let stored = stored.into_iter().filter_map(|policy| match policy.0 {
        Ok(policy) => Some(policy.spec),
        Err(invalid) => {
            let name = invalid.metadata.name;
            warn!(policy = name, error = %invalid.error, "a policy cannot be read, and it allows nothing");
            None
        }
    });
    let mut policies: Vec<_> = default.cloned().into_iter().chain(stored).collect();
    if policies.iter().any(|policy| !policy.namespaces.is_everything()) {
        let labels = labels(client, namespace).await?;
        policies.retain(|policy| selects(&policy.namespaces, &labels));
    }
    Ok(policies)
}

async fn labels(client: &Client, namespace: &str) -> Result<BTreeMap<String, String>, RecordError> {
    let api: Api<Namespace> = Api::all(client.clone());
    Ok(ask(api.get_metadata(namespace)).await?.metadata.labels.unwrap_or_default())
}

fn selects(selector: &NamespaceSelector, labels: &BTreeMap<String, String>) -> bool {
    let expressions = selector.match_expressions.iter().map(|condition| LabelSelectorRequirement {
        key: condition.key.clone(),
        operator: condition.operator.as_str().to_owned(),
        values: Some(condition.values.clone()).filter(|values| !values.is_empty()),
    });
    let selector = LabelSelector {
        match_labels: Some(selector.match_labels.clone()),
        match_expressions: Some(expressions.collect()),
    };
    match Selector::try_from(selector) {
        Ok(selector) => selector.matches(labels),
        Err(error) => {
            warn!(%error, "the namespaces of a policy cannot be read, and it allows nothing");
            false
        }
    }
}

/// Word of every policy that appears, changes or goes, for ever; a broken watch is begun `again`. Logs a warning when no policy
/// allows anything: when there is none in the cluster, and no default policy.
pub fn changes(
    client: Client,
    has_default: bool,
    again: impl Backoff + 'static,
) -> impl Stream<Item = ()> + Send + 'static {
    let api: Api<Trimmed<PartialObjectMeta<StreamEncryptionPolicy>>> = Api::all(client);
    let mut presence = Presence::default();
    let events = watcher(api, watches::config()).backoff(again).inspect_ok(move |event| {
        match presence.observe(event) {
            Some(true) => info!("there is a StreamEncryptionPolicy"),
            Some(false) if has_default => info!("there is no StreamEncryptionPolicy but the default policy"),
            Some(false) => warn!(
                "no StreamEncryptionPolicy exists and no default policy is set: every stream is NotPermitted and nothing is \
                 called; create a policy, for example config/policies/own-account.yaml"
            ),
            None => {}
        }
    });
    events.touched_objects().filter_map(async |touched| touched.ok().map(drop))
}

/// The name of every namespace that appears, changes or goes, for ever: its labels say which policies select it. Logs a warning
/// when the only watched namespace does not exist.
pub fn namespace_changes(
    client: Client,
    namespace: Option<&str>,
    again: impl Backoff + 'static,
) -> impl Stream<Item = String> + Send + 'static {
    let api: Api<Trimmed<PartialObjectMeta<Namespace>>> = Api::all(client);
    let only = namespace.map(str::to_owned);
    let config = match &only {
        Some(name) => watches::config().fields(&format!("metadata.name={name}")),
        None => watches::config(),
    };
    let mut presence = Presence::default();
    let events = watcher(api, config).backoff(again).inspect_ok(move |event| {
        let Some(namespace) = &only else { return };
        match presence.observe(event) {
            Some(true) => info!(namespace, "the watched namespace exists"),
            Some(false) => warn!(
                namespace,
                "the watched namespace does not exist, so nothing is done until it is created; is WATCH_NAMESPACE right?"
            ),
            None => {}
        }
    });
    events.touched_objects().filter_map(async |touched| touched.ok()?.0.metadata.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_selects_the_namespaces_of_which_all_that_it_says_is_true() {
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
            assert_eq!(selects(&read, &labels), selected, "{selector}");
        }
    }
}
