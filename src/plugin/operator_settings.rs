//! The settings of the operator that runs in the cluster, as far as a plan or a check depends on them: read from its
//! Deployment.
//!
//! A person may be unable to read the Deployment, and an operator may run without one. The flags then say what to use.

use std::collections::BTreeMap;

use clap::builder::Resettable;
use clap::{Args as _, FromArgMatches as _};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::{Selector, SelectorExt as _};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;

use super::cluster::{Cluster, readable};
use crate::settings::RunArguments;

/// The label of the pods, and of the Deployment, unless the chart's `nameOverride` changes it.
pub(super) const LABEL: &str = "app.kubernetes.io/name=stream-encryption-operator";
/// The labels of the Deployments that the chart and `config/` install. The chart's `nameOverride` changes the first one, and
/// users may set the second one for all their objects.
const DEPLOYMENT_LABELS: [&str; 2] = ["app.kubernetes.io/name", "app.kubernetes.io/part-of"];
/// The value of at least one of these labels.
const OPERATOR: &str = "stream-encryption-operator";
/// The service account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// The variables that decide a plan or a check.
const DECISIVE: [&str; 9] = [
    "AWS_REGION",
    "DEFAULT_POLICY",
    "DRIFT_INTERVAL_SECONDS",
    "EVENTS_DRIFT_INTERVAL_SECONDS",
    "EVENTS_QUEUE_URL",
    "LEADER_ELECTION",
    "LEASE_NAME",
    "WATCH_LABEL_SELECTOR",
    "WATCH_NAMESPACE",
];

/// The settings of the operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OperatorSettings {
    /// The name of its Deployment.
    pub(super) deployment: String,
    /// The service account of its pods; `None` if that is not known.
    pub(super) service_account: Option<String>,
    /// The region of streams that are named without one.
    pub(super) region: Option<String>,
    /// The default policy.
    pub(super) default_policy: Option<StreamEncryptionPolicySpec>,
    /// The resources that it reconciles.
    pub(super) watched: Watched,
    /// The Lease of its leader; `None` without leader election.
    pub(super) lease: Option<String>,
    /// The URL of the queue of AWS's events.
    pub(super) events_queue_url: Option<String>,
    /// The longest time between two Describes of a stream at rest: with a queue, that while events arrive. `None` if the
    /// settings are invalid.
    pub(super) drift_interval: Option<SignedDuration>,
    /// The image of the operator.
    pub(super) image: Option<String>,
    /// How many of its pods are ready, and how many there should be.
    pub(super) replicas: (i32, i32),
    /// Why the rollout of the image is not complete; `None` if it is.
    pub(super) incomplete_rollout: Option<String>,
    /// What may set any of these, and could not be read.
    pub(super) unread: Vec<String>,
}

/// The resources that an operator reconciles.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Watched {
    /// The namespaces; empty for all.
    pub(super) namespaces: Vec<String>,
    /// The labels; `None` for all.
    pub(super) labels: Option<Selector>,
}

impl Watched {
    /// Returns whether the operator reconciles every resource of the cluster. Only such an operator writes the statuses of
    /// policies.
    pub(super) fn is_everything(&self) -> bool {
        self.namespaces.is_empty() && self.labels.is_none()
    }

    /// Returns why the operator does not reconcile a resource of this namespace and with these labels; `None` if it does.
    pub(super) fn excludes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        if !self.namespaces.is_empty() && !self.namespaces.iter().any(|watched| watched == namespace) {
            return Some(format!(
                "The operator does not watch namespace {namespace}, so it would do nothing. It watches {}.",
                self.namespaces.join(", ")
            ));
        }
        let selector = self.labels.as_ref().filter(|selector| !selector.matches(labels))?;
        Some(format!(
            "The operator watches only resources with the labels {selector}, so it would do nothing with this one."
        ))
    }
}

impl OperatorSettings {
    /// Reads the settings of each Deployment in the operator's namespace. Shards have several.
    pub(super) async fn read_all(cluster: &Cluster) -> anyhow::Result<Vec<Self>> {
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.operator_namespace);
        let found = api.list(&ListParams::default()).await.map_err(readable)?;
        let is_operator = |found: &&Deployment| {
            DEPLOYMENT_LABELS
                .iter()
                .any(|label| found.labels().get(*label).is_some_and(|value| value == OPERATOR))
        };
        Ok(found.items.iter().filter(is_operator).map(Self::of).collect())
    }

    /// Returns the settings of the only Deployment.
    pub(super) fn only(all: &[Self]) -> Option<Self> {
        let [settings] = all else { return None };
        Some(settings.clone())
    }

    /// Returns the settings of a Deployment.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
        let container = containers.iter().find(|one| one.name == "operator").or(containers.first());
        let namespace = deployment.namespace().unwrap_or_default();
        let settings = container.map(|container| Self::of_container(container, &namespace));
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
        let replicas = (ready, spec.and_then(|spec| spec.replicas).unwrap_or(1));
        let account = pod.map(|pod| pod.service_account_name.clone().filter(|name| !name.is_empty()));
        Self {
            deployment: deployment.name_any(),
            service_account: account.map(|name| name.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned())),
            image: container.and_then(|container| container.image.clone()),
            replicas,
            incomplete_rollout: incomplete_rollout(deployment, replicas),
            ..settings.unwrap_or_default()
        }
    }

    /// Reads the flags and the variables of a container as the operator does.
    fn of_container(container: &Container, namespace: &str) -> Self {
        let (flags, mut unread) = Flags::of(container, namespace);
        let parsed = flags.parse(&flags.given).or_else(|_| {
            unread.push("its args".to_owned());
            flags.parse(&[])
        });
        let Ok(mut arguments) = parsed else { return Self { unread, ..Self::default() } };
        let region = arguments.region.take().filter(|region| !region.is_empty());
        // On EKS, the pods may have a region that the Deployment does not have, and no check depends on which one it is.
        arguments.region = region.clone().or_else(|| Some("us-east-1".to_owned()));
        let events_queue_url = arguments.events_queue_url.clone().filter(|url| !url.is_empty());
        match arguments.check() {
            Ok(settings) => Self {
                drift_interval: Some(settings.config().longest_drift_interval()),
                region,
                default_policy: settings.default_policy,
                watched: Watched {
                    namespaces: settings.watch_namespaces,
                    labels: settings.watch_label_selector,
                },
                lease: settings.leader_election.then_some(settings.lease),
                events_queue_url,
                unread,
                ..Self::default()
            },
            Err(error) => {
                unread.push(format!("its settings are invalid ({error:#})"));
                Self { region, events_queue_url, unread, ..Self::default() }
            }
        }
    }
}

/// Returns why the latest rollout of a Deployment is not complete; `None` if it is. During a rollout, pods of the earlier version
/// count as ready, too.
fn incomplete_rollout(deployment: &Deployment, (ready, wanted): (i32, i32)) -> Option<String> {
    let status = deployment.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation).unwrap_or_default();
    if observed < deployment.metadata.generation.unwrap_or_default() {
        return Some("Kubernetes has not processed the last change of the Deployment".to_owned());
    }
    let updated = status.and_then(|status| status.updated_replicas).unwrap_or_default();
    let unavailable = status.and_then(|status| status.unavailable_replicas).unwrap_or_default();
    // Beside enough ready pods, the unavailable ones are those of the new version. If too few pods are ready, the rollout may have
    // been complete long before.
    let is_incomplete = updated < wanted || (unavailable > 0 && ready >= wanted);
    is_incomplete.then(|| format!("{updated} of {wanted} pods have it; unavailable pods: {unavailable}"))
}

/// The flags and the variables of a container.
struct Flags<'a> {
    given: Vec<String>,
    variables: BTreeMap<&'a str, String>,
}

impl<'a> Flags<'a> {
    /// Returns what the container sets, and the names of what cannot be read from it.
    fn of(container: &'a Container, namespace: &str) -> (Self, Vec<String>) {
        let mut given = container.args.clone().unwrap_or_default();
        if given.first().is_some_and(|first| first == "run") {
            given.remove(0);
        }
        let mut unread = Vec::new();
        let mut variables = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            match value(variable, namespace) {
                Some(value) => drop(variables.insert(variable.name.as_str(), value)),
                None if DECISIVE.contains(&variable.name.as_str()) => unread.push(variable.name.clone()),
                None => {}
            }
        }
        // A variable that is set takes precedence over one of the same name in envFrom.
        let is_set = |name: &str| container.env.iter().flatten().any(|variable| variable.name == name);
        if container.env_from.as_ref().is_some_and(|from| !from.is_empty())
            && !DECISIVE.iter().all(|name| is_set(name))
        {
            unread.push("envFrom".to_owned());
        }
        (Self { given, variables }, unread)
    }

    /// Parses these flags, and the variables of the other ones, without the environment of this process.
    fn parse(&self, given: &[String]) -> Result<RunArguments, clap::Error> {
        let command = RunArguments::augment_args(clap::Command::new("run").no_binary_name(true));
        let mut flags = given.to_vec();
        for argument in command.get_arguments() {
            let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
            let flag = format!("--{long}");
            let is_given = given.iter().any(|one| *one == flag || one.starts_with(&format!("{flag}=")));
            let value = variable.to_str().and_then(|name| self.variables.get(name));
            flags.extend(value.filter(|_| !is_given).map(|value| format!("{flag}={value}")));
        }
        let command = command.mut_args(|argument| argument.env(Resettable::Reset));
        RunArguments::from_arg_matches(&command.try_get_matches_from(flags)?)
    }
}

/// Returns the value of a variable; `None` if only the pods have it.
fn value(variable: &EnvVar, namespace: &str) -> Option<String> {
    let Some(source) = &variable.value_from else {
        return Some(variable.value.clone().unwrap_or_default()).filter(|value| !value.contains("$("));
    };
    let field = source.field_ref.as_ref()?;
    (field.field_path == "metadata.namespace").then(|| namespace.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_those_of_the_container() {
        let deployment = serde_json::from_value(json!({
            "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [
                {"name": "sidecar", "env": [{"name": "AWS_REGION", "value": "us-east-1"}]},
                {"name": "operator", "image": "operator:1", "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "AWS_REGION", "value": "eu-west-1"},
                    {"name": "EVENTS_QUEUE_URL", "value": "https://sqs.eu-west-1.amazonaws.com/111122223333/events"},
                    {"name": "DEFAULT_POLICY", "value": r#"{"namespaceSelector":{},"streams":[],"keys":[]}"#},
                ]},
            ]}}},
            "status": {"readyReplicas": 1},
        }))
        .unwrap();
        let settings = OperatorSettings::of(&deployment);
        assert_eq!(settings.region.as_deref(), Some("eu-west-1"));
        assert_eq!(settings.replicas, (1, 2));
        assert!(settings.default_policy.is_some());
        assert!(settings.events_queue_url.is_some_and(|url| url.ends_with("/events")));
        assert_eq!(settings.unread, [""; 0]);
        assert_eq!(OperatorSettings::of(&Deployment::default()).region, None);
    }

    #[test]
    fn service_account_is_that_of_the_pods() {
        let of = |pod: &serde_json::Value| {
            let deployment = json!({"spec": {"selector": {}, "template": {"spec": pod}}});
            OperatorSettings::of(&serde_json::from_value(deployment).unwrap()).service_account
        };
        let named = of(&json!({"containers": [], "serviceAccountName": "encryption"}));
        assert_eq!(named.as_deref(), Some("encryption"));
        assert_eq!(of(&json!({"containers": []})).as_deref(), Some("default"));
        assert_eq!(OperatorSettings::of(&Deployment::default()).service_account, None);
    }

    #[test]
    fn drift_interval_with_a_queue_is_that_of_events() {
        let queue = json!({"name": "EVENTS_QUEUE_URL", "value": "https://sqs.eu-west-1.amazonaws.com/111122223333/events"});
        let drift = json!({"name": "DRIFT_INTERVAL_SECONDS", "value": "900"});
        let with_events = json!({"name": "EVENTS_DRIFT_INTERVAL_SECONDS", "value": "7200"});
        for (variables, minutes) in [
            (json!([]), 10),
            (json!([drift]), 15),
            (json!([drift, with_events]), 15),
            (json!([queue]), 60),
            (json!([queue, drift, with_events]), 120),
        ] {
            let settings = of_container(&json!({"name": "operator", "env": variables}));
            assert_eq!(settings.drift_interval, Some(SignedDuration::from_mins(minutes)), "{variables}");
        }
    }

    fn of_container(container: &serde_json::Value) -> OperatorSettings {
        let deployment = json!({
            "metadata": {"name": "encryption", "namespace": "system"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        });
        OperatorSettings::of(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn resource_that_is_not_watched_is_excluded() {
        let watched = of_container(&json!({"name": "operator", "env": [
            {"name": "WATCH_NAMESPACE", "value": "data,web"},
            {"name": "WATCH_LABEL_SELECTOR", "value": "shard=a"},
        ]}))
        .watched;
        let labels = |shard: &str| BTreeMap::from([("shard".to_owned(), shard.to_owned())]);
        assert_eq!(watched.excludes("data", &labels("a")), None);
        let other = watched.excludes("other", &labels("a")).unwrap();
        assert!(other.contains("does not watch namespace other") && other.contains("data, web"), "{other}");
        let other = watched.excludes("data", &labels("b")).unwrap();
        assert!(other.contains("shard=a"), "{other}");
        let own = json!({"name": "operator", "env": [
            {"name": "WATCH_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]});
        assert!(of_container(&own).watched.excludes("data", &BTreeMap::new()).is_some());
        assert_eq!(Watched::default().excludes("data", &BTreeMap::new()), None);
        assert!(Watched::default().is_everything() && !watched.is_everything());
    }

    /// The chart has `extraArgs` for flags.
    #[test]
    fn flag_of_the_container_wins_over_its_variable() {
        let policy = r#"{"namespaceSelector":{},"streams":[],"keys":[]}"#;
        let settings = of_container(&json!({"name": "operator",
            "args": ["run", format!("--default-policy={policy}"), "--region", "eu-central-1", "--watch-namespace=data"],
            "env": [{"name": "AWS_REGION", "value": "eu-west-1"}, {"name": "WATCH_NAMESPACE", "value": "web"},
                {"name": "LEADER_ELECTION", "value": "true"}, {"name": "LEASE_NAME", "value": "encryption"}],
        }));
        assert!(settings.default_policy.is_some(), "{settings:?}");
        assert_eq!(settings.region.as_deref(), Some("eu-central-1"));
        assert_eq!(settings.watched.namespaces, ["data"]);
        assert_eq!(settings.lease.as_deref(), Some("encryption"));
    }

    #[test]
    fn setting_that_only_the_pods_have_is_named() {
        let secret = json!({"secretKeyRef": {"name": "x", "key": "y"}});
        for (container, unread) in [
            (json!({"name": "operator", "envFrom": [{"configMapRef": {"name": "x"}}]}), "envFrom"),
            (
                json!({"name": "operator", "env": [{"name": "DEFAULT_POLICY", "valueFrom": secret}]}),
                "DEFAULT_POLICY",
            ),
            (
                json!({"name": "operator", "env": [{"name": "AWS_REGION", "value": "$(REGION)"}]}),
                "AWS_REGION",
            ),
            (json!({"name": "operator", "args": ["run", "--newer-flag"]}), "its args"),
            (json!({"name": "operator", "args": ["run", "--default-policy=x"]}), "its settings are invalid"),
        ] {
            let settings = of_container(&container);
            assert!(settings.unread[0].starts_with(unread), "{container}: {settings:?}");
        }
        let other =
            json!({"name": "operator", "env": [{"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": secret}]});
        assert_eq!(of_container(&other).unread, [""; 0]);
    }
}
