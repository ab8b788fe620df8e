//! The fixture of a test: a node without objects of ours, and the simulated AWS at an address that pods can
//! reach.

use std::collections::BTreeMap;
use std::fs;

use packages::objects::{NAMESPACE, RELEASE};
use serde_json::{Value, json};
use simulated_aws::world::{EncryptionStatus, World};
use simulated_aws::{Clock, SimulatedAws};

use crate::commands::{apply, helm, kubectl, state, try_kubectl};

/// The address on which servers listen for pods.
const NODE: [u8; 4] = [10, 1, 0, 1];
const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const REGION: &str = "eu-west-1";
/// The chart's Deployment, in its namespace.
pub const OPERATOR: &str = "deployment/stream-encryption-operator -n stream-encryption-system";
/// The samples that become Ready.
pub const READY: [&str; 4] = ["clicks", "payments", "telemetry", "orders"];
/// The samples that stay blocked until a user acts, and their reasons.
pub const WAITING: [(&str, &str); 2] = [("audit", "KeyDisabled"), ("replica", "SourceNotDirectPut")];

/// The fixture of a test.
pub struct Stage {
    /// The simulated AWS, on the real clock.
    pub aws: SimulatedAws,
}

impl Stage {
    /// Clears the node, and creates the operator's namespace, which enforces the standard `restricted` for
    /// pods and contains AWS's credentials in a Secret.
    pub async fn set(world: World) -> Self {
        clear().await;
        let aws =
            SimulatedAws::start_on((NODE, 0).into(), world, Clock::Real).await.expect("a simulated AWS");
        let labels = json!({
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        });
        let credentials =
            format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = not-a-secret\n");
        apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws", "namespace": NAMESPACE},
             "stringData": {"credentials": credentials}},
        ]}))
        .await;
        Self { aws }
    }

    /// Returns the chart values that a user of this AWS must set, and no others.
    pub fn values(&self) -> Value {
        json!({"aws": {"region": REGION, "endpointUrl": self.aws.url(), "credentials": {"secretName": "aws"}}})
    }

    /// Returns the same settings for the Deployment of `config/install.yaml`, for `kubectl set env`.
    pub fn environment(&self) -> String {
        let url = self.aws.url();
        format!(
            "AWS_REGION={REGION} AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY=not-a-secret"
        )
    }

    /// Runs `helm install` with [`Self::values`], and waits until both pods are Ready.
    pub async fn install(&self) {
        let chart = packages::CHART;
        helm(
            &format!("install {RELEASE} {chart} -n {NAMESPACE} --values - --wait --timeout 60s"),
            &self.values(),
        )
        .await;
    }

    /// Applies the samples, and waits until each has the state that its file describes.
    pub async fn samples(&self) {
        kubectl("apply -k config/samples").await;
        self.samples_are_as_their_files_say().await;
    }

    /// Waits until each sample has the state that its file describes.
    pub async fn samples_are_as_their_files_say(&self) {
        let ready = READY.map(|name| format!("strenc/{name}")).join(" ");
        kubectl(&format!("wait --for=condition=Ready {ready} -n data --timeout=60s")).await;
        for (name, reason) in WAITING {
            let path = "{.status.conditions[?(@.type==\"Ready\")].reason}";
            kubectl(&format!("wait --for=jsonpath={path}={reason} strenc/{name} -n data --timeout=60s"))
                .await;
        }
    }

    /// Returns the Starts and Stops of every stream that AWS received, each by its outcome: `OK`, or an error
    /// code.
    pub fn changes(&self) -> BTreeMap<String, Vec<String>> {
        let mut changes = BTreeMap::<_, Vec<_>>::new();
        for call in self.aws.world().calls().iter().filter(|call| call.changes_encryption()) {
            changes.entry(call.target.clone()).or_default().push(call.outcome.clone());
        }
        changes
    }

    /// Returns whether AWS shows this Firehose stream as encrypted.
    pub fn encrypts(&self, name: &str) -> bool {
        let (now, world) = (self.aws.now(), self.aws.world());
        let arn = format!("arn:aws:firehose:{REGION}:111122223333:deliverystream/{name}");
        world.stream(&arn, now).is_some_and(|stream| stream.encryption == EncryptionStatus::Enabled)
    }
}

/// Returns a resource for each of these Firehose streams, by their names, in the namespace `data`.
pub fn streams(names: &[&str]) -> Value {
    let resource = |name: &&str| {
        json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": "data"},
            "spec": {"stream": {"service": "Firehose", "name": name}},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": names.iter().map(resource).collect::<Vec<_>>()})
}

/// Removes everything that a previous test has left.
async fn clear() {
    for release in helm(&format!("list -n {NAMESPACE} --short"), &json!({})).await.lines() {
        helm(&format!("uninstall {release} -n {NAMESPACE} --wait"), &json!({})).await;
    }
    kubectl("delete --ignore-not-found --wait -f config/install.yaml").await;
    kubectl("delete --ignore-not-found --wait namespace data").await;
}

/// Resolves the names of the Services, as a cluster's DNS server would.
pub async fn name_services() {
    let lines = "jsonpath={range .items[*]}{.spec.clusterIP} {.metadata.name}.{.metadata.namespace}.svc{\"\\n\"}{end}";
    let hosts = try_kubectl(&["get", "services", "-A", "-o", lines], "").await.expect("the Services");
    fs::write(state().join("hosts/services"), hosts).expect("the node's hosts");
}
