//! The planner: the dry run of an object, and then the operator's own code about what would be stored.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use serde_json::{Value, json};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Target as EncryptionTarget;
use stream_encryption_api::policy::StreamEncryptionPolicy;
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionSpec};
use stream_encryption_core::controller::kube_api::{KubeApi as _, KubeError, ReadFrom};
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::preview::{self, Preview, PreviewError};
use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics};
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::model::ledger;

use super::dry_run::{Accepted, Change, NotAccepted, Target};
use super::manifests::{self, Manifests, PolicyFile};
use super::merge::{self, LastApply};
use super::planned_cluster::{Ledgers, PlannedCluster};
use super::recorded::{Failures, Recorded};
use super::row::Row;
use crate::kubernetes::Unmanaged;
use crate::kubernetes::policies::NamespaceLabels;
use crate::kubernetes::{self, UnappliedObjects};
use crate::plugin::aws::ReadOnly;
use crate::plugin::cluster::{Cluster, readable};
use crate::plugin::operator_settings::Watched;
use crate::plugin::output::notice;

/// The label of the name that the API server gives every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// An operator that plans: with the settings of the one in the cluster, and unable to change anything.
pub(super) struct Planner<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) manifests: &'a Manifests,
    pub(super) aws: Arc<ReadOnly>,
    pub(super) access: kubernetes::Cluster,
    /// Whether the ledgers are known.
    pub(super) reads_ledgers: bool,
    pub(super) config: Config,
    pub(super) watched: Watched,
}

impl Planner<'_> {
    /// Plans one object.
    pub(super) async fn row(&self, given: &DynamicObject) -> Row {
        let namespace = given.namespace().unwrap_or_else(|| self.cluster.namespace.clone());
        let name = given.name_any();
        let refused = |message| Row::refused(&namespace, &name, message);
        let unplanned = |message| Row::unplanned(&namespace, &name, message);
        let kind = ApiResource::erase::<StreamEncryption>(&());
        let target = Target { client: &self.cluster.client, kind: &kind, namespace: Some(&namespace) };
        let accepted = match target.apply(given).await {
            Ok(accepted) => accepted,
            Err(NotAccepted::NoNamespace(_)) if self.manifests.namespaces.contains_key(&namespace) => {
                match in_new_namespace(given, &namespace) {
                    Ok(accepted) => accepted,
                    Err(error) => return refused(format!("The object is invalid: {error:#}.")),
                }
            }
            Err(why) => return without_plan(&namespace, &name, why),
        };
        if let Some(words) = self.watched.excludes(&namespace, accepted.object.labels()) {
            return refused(words);
        }
        let resource = match parsed(accepted.object) {
            Ok(resource) => resource,
            Err(error) => {
                return unplanned(format!(
                    "This version of the plugin cannot read the object: {error:#}. Update the plugin."
                ));
            }
        };
        let failures = Failures::default();
        let plan = match Box::pin(preview::preview(&self.operator(&failures, &resource), &resource)).await {
            Ok(plan) => plan,
            Err(error) => return unplanned(failed(&error)),
        };
        if let Some(words) = plan.reason.and_then(|reason| failures.explain(reason)) {
            return unplanned(words);
        }
        let requested = self.requested(&plan).await;
        let reference = resource.spec.key.as_ref().and_then(|key| key.object_ref.as_ref());
        let has_key = reference
            .is_some_and(|reference| self.manifests.has_key(reference, &namespace, &self.cluster.namespace));
        let requested = requested.as_ref();
        Row::planned(&namespace, &resource, accepted.change, accepted.note, plan, requested, has_key)
    }

    /// Returns the encryption that the operator's last call has requested, while AWS reports a change; `None` if it is not
    /// known. AWS does not report which key it is enabling.
    async fn requested(&self, plan: &Preview) -> Option<EncryptionTarget> {
        let is_changing = matches!(plan.reason, Some(Reason::Enabling | Reason::Disabling));
        let stream = plan.stream.as_ref().filter(|_| is_changing && self.reads_ledgers)?;
        let ledger = self.access.ledger(&ledger::name(stream), ReadFrom::ApiServer).await.ok()??;
        // With a reason, the change is not known to be that of the call.
        ledger.spec.attempts.filter(|attempts| attempts.reason.is_none()).map(|attempts| attempts.target)
    }

    /// Creates the operator for one object, so that its failures are not those of another one.
    fn operator(
        &self,
        failures: &Failures,
        resource: &StreamEncryption,
    ) -> Context<Recorded<ReadOnly>, PlannedCluster> {
        let ledgers =
            if self.reads_ledgers { Ledgers::Stored } else { Ledgers::reported(resource, Timestamp::now()) };
        Context {
            aws: Recorded { aws: self.aws.clone(), failures: failures.clone() },
            kube: PlannedCluster { cluster: self.access.clone(), ledgers },
            clock: Clock::system(),
            decide,
            config: self.config.clone(),
            memory: Memory::default(),
            metrics: Box::new(NoMetrics),
        }
    }
}

/// Returns the row of an object of which it is not known what would be stored.
fn without_plan(namespace: &str, name: &str, why: NotAccepted) -> Row {
    match why {
        NotAccepted::Refused(words) | NotAccepted::NoNamespace(words) => Row::refused(namespace, name, words),
        // Whoever applies the files may have the permission that the person who plans lacks.
        NotAccepted::Forbidden(words) | NotAccepted::Unanswered(words) => {
            Row::unplanned(namespace, name, words)
        }
    }
}

/// Reads an object that the API server accepts. An unknown field of the spec is an error: a newer operator may act on it. An
/// unknown field of the status changes no plan.
fn parsed(object: DynamicObject) -> anyhow::Result<StreamEncryption> {
    manifests::strictly::<StreamEncryptionSpec>(object.data["spec"].clone()).context("spec")?;
    Ok(object.try_parse()?)
}

/// Returns why a resource could not be planned.
fn failed(error: &PreviewError) -> String {
    match error {
        // Also a ledger that the API server returns, and the plugin cannot read.
        PreviewError::Kubernetes(KubeError::Unavailable(why)) => {
            format!("The plan failed at the API server: {why}.")
        }
        PreviewError::Kubernetes(_) | PreviewError::Changed => format!("The plan failed: {error}."),
    }
}

/// Returns an object of a namespace that the files create. The API server cannot check it before the namespace exists.
fn in_new_namespace(given: &DynamicObject, namespace: &str) -> anyhow::Result<Accepted> {
    let mut object = given.clone();
    object.metadata.namespace = Some(namespace.to_owned());
    manifests::strictly::<StreamEncryption>(serde_json::to_value(&object)?)?;
    let note = "The namespace does not exist yet, so the API server has not checked the object.".to_owned();
    Ok(Accepted { object, change: Change::Created, note })
}

/// Returns the policies and namespaces of the files as the API server would store them.
pub(super) async fn applied(cluster: &Cluster, manifests: &Manifests) -> anyhow::Result<UnappliedObjects> {
    let mut unapplied = UnappliedObjects::default();
    let mut unchecked = None;
    for file in &manifests.policies {
        unapplied.policies.push(match applied_policy(cluster, file).await {
            Ok(policy) => policy,
            Err(NotAccepted::Refused(words) | NotAccepted::NoNamespace(words)) => {
                bail!("StreamEncryptionPolicy {}: {words}", file.given.name_any())
            }
            Err(NotAccepted::Forbidden(words) | NotAccepted::Unanswered(words)) => {
                unchecked.get_or_insert(words);
                file.policy.clone()
            }
        });
    }
    if let Some(words) = unchecked {
        notice(format_args!(
            "The API server has not checked the StreamEncryptionPolicies of the files; they count as they are. {words}"
        ));
    }
    for (name, given) in &manifests.namespaces {
        let api: Api<Unmanaged<NamespaceLabels>> = Api::all(cluster.client.clone());
        let stored = match api.get(name).await {
            Ok(stored) => serde_json::to_value(stored.0)?,
            Err(kube::Error::Api(status)) if status.code == 404 => json!({}),
            // The operator's code then reads the namespace, and fails if it needs the labels.
            Err(error) => {
                notice(format_args!(
                    "The labels of namespace {name} could not be read, so those of the files do not count: {:#}.",
                    readable(error)
                ));
                continue;
            }
        };
        unapplied.namespaces.insert(name.clone(), labels(name, &stored, &serde_json::to_value(given)?));
    }
    Ok(unapplied)
}

async fn applied_policy(cluster: &Cluster, file: &PolicyFile) -> Result<StreamEncryptionPolicy, NotAccepted> {
    let kind = ApiResource::erase::<StreamEncryptionPolicy>(&());
    let target = Target { client: &cluster.client, kind: &kind, namespace: None };
    let accepted = target.apply(&file.given).await?;
    accepted.object.try_parse().map_err(|error| NotAccepted::Refused(format!("It cannot be read: {error}.")))
}

/// Returns the labels that a namespace would have, with the one that the API server sets.
fn labels(name: &str, stored: &Value, given: &Value) -> std::collections::BTreeMap<String, String> {
    let last = match LastApply::of(stored) {
        LastApply::Client(last) => last,
        LastApply::Server(_) | LastApply::Unknown => Value::Null,
    };
    let merged = merge::merged(stored, &last, given);
    let labels = merged["metadata"]["labels"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut labels: std::collections::BTreeMap<String, String> =
        labels.map(|(key, value)| (key.clone(), text(value))).collect();
    labels.insert(NAME_LABEL.to_owned(), name.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(labels: &Value) -> Value {
        json!({"metadata": {"name": "data", "labels": labels}})
    }

    #[test]
    fn namespace_of_the_files_has_the_label_of_its_name() {
        let of = |stored: &Value, given: &Value| labels("data", stored, given);
        let name = (NAME_LABEL.to_owned(), "data".to_owned());
        let new = of(&json!({}), &json!({"metadata": {"name": "data"}}));
        assert_eq!(new.into_iter().collect::<Vec<_>>(), std::slice::from_ref(&name));
        let stored = namespace(&json!({"team": "data", "stage": "test"}));
        let both = of(&stored, &namespace(&json!({"stage": "live"})));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            both.into_iter().collect::<Vec<_>>(),
            [name, pair("stage", "live"), pair("team", "data")],
            "those of others stay"
        );
    }

    #[test]
    fn missing_permission_of_the_planner_is_no_refusal() {
        let words = || "why".to_owned();
        for (why, is_refused) in [
            (NotAccepted::Refused(words()), true),
            (NotAccepted::NoNamespace(words()), true),
            (NotAccepted::Forbidden(words()), false),
            (NotAccepted::Unanswered(words()), false),
        ] {
            let row = without_plan("data", "orders", why);
            assert_eq!((row.refused, row.unplanned), (is_refused, !is_refused), "{row:?}");
        }
    }

    #[test]
    fn unread_ledger_is_not_an_unavailable_api_server() {
        let error = KubeError::Unavailable("you cannot read the StreamLedger".to_owned());
        let words = failed(&PreviewError::Kubernetes(error));
        assert_eq!(words, "The plan failed at the API server: you cannot read the StreamLedger.");
    }

    fn object(spec: &Value) -> DynamicObject {
        serde_json::from_value(
            json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn spec_of_a_newer_operator_is_not_planned() {
        let stream = json!({"service": "Kinesis", "name": "orders"});
        let key = json!({"type": "AWS_OWNED_CMK", "future": 1});
        for (spec, words) in [
            (json!({"stream": stream, "future": 1}), "spec: unknown field future"),
            (json!({"stream": stream, "key": key}), "spec: unknown field key.future"),
            (json!({"stream": stream, "mode": "Future"}), "spec: unknown variant `Future`"),
        ] {
            let error = format!("{:#}", parsed(object(&spec)).unwrap_err());
            assert!(error.starts_with(words), "{error}");
        }
        let mut known = object(&json!({"stream": stream}));
        known.data["status"] = json!({"future": 1});
        parsed(known).unwrap();
    }

    #[test]
    fn object_of_a_new_namespace_must_be_valid() {
        let stream = json!({"service": "Kinesis", "name": "orders"});
        let accepted = in_new_namespace(&object(&json!({"stream": stream})), "new").unwrap();
        assert_eq!(accepted.object.metadata.namespace.as_deref(), Some("new"));
        assert!(accepted.note.contains("has not checked"), "{}", accepted.note);
        for invalid in [json!({"stream": stream, "mod": "Enforce"}), json!({"mode": "Enforce"})] {
            assert!(in_new_namespace(&object(&invalid), "new").is_err(), "{invalid}");
        }
    }
}
