//! The settings of the operator that runs in the cluster, as far as a plan or a check depends on them: read from its
//! Deployment.
//!
//! A person may be unable to read the Deployment, and an operator may run without one. The flags then say what to use.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;

use super::cluster::{Cluster, readable};

/// The label of everything that the chart and `config/` install.
const LABEL: &str = "app.kubernetes.io/name=stream-encryption-operator";

/// The settings of the operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OperatorSettings {
    /// The region of streams that are named without one.
    pub(super) region: Option<String>,
    /// The default policy.
    pub(super) default_policy: Option<StreamEncryptionPolicySpec>,
    /// The URL of the queue of AWS's events.
    pub(super) events_queue_url: Option<String>,
    /// The image of the operator.
    pub(super) image: Option<String>,
    /// How many of its pods are ready, and how many there should be.
    pub(super) replicas: (i32, i32),
}

impl OperatorSettings {
    /// Reads the settings from the Deployment in the operator's namespace; `None` if there is none, or several.
    pub(super) async fn read(cluster: &Cluster) -> anyhow::Result<Option<Self>> {
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.operator_namespace);
        let found = api.list(&ListParams::default().labels(LABEL)).await.map_err(readable)?;
        let [deployment] = &found.items[..] else { return Ok(None) };
        Ok(Some(Self::of(deployment)))
    }

    fn of(deployment: &Deployment) -> Self {
        let status = deployment.status.as_ref();
        let spec = deployment.spec.as_ref();
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
        let container = containers.iter().find(|one| one.name == "operator").or(containers.first());
        let environment: BTreeMap<&str, &str> = container
            .and_then(|container| container.env.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|variable| Some((variable.name.as_str(), variable.value.as_deref()?)))
            .collect();
        let value = |name| environment.get(name).map(|value| (*value).to_owned());
        Self {
            region: value("AWS_REGION"),
            // The operator refuses an invalid one at its start.
            default_policy: value("DEFAULT_POLICY").and_then(|policy| serde_json::from_str(&policy).ok()),
            events_queue_url: value("EVENTS_QUEUE_URL").filter(|url| !url.is_empty()),
            image: container.and_then(|container| container.image.clone()),
            replicas: (
                status.and_then(|status| status.ready_replicas).unwrap_or_default(),
                spec.and_then(|spec| spec.replicas).unwrap_or(1),
            ),
        }
    }
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
        assert_eq!(OperatorSettings::of(&Deployment::default()).region, None);
    }
}
