//! `StreamLedger`: the operator's record of one stream. It outlives the resource that asked for it.
//!
//! Everything lies in `spec`, not in `status`: the claim of an owner and the first call are then one atomic write, and
//! a backup tool that drops `status` on restore cannot make the operator forget which calls it made.
//!
//! A ledger with a field that this version does not know was written by a newer one, and is refused as unreadable: the
//! field may forbid what this version would do, and writing the ledger back would lose it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::stream_encryption::KeyStatus;

/// The record of one stream: who owns it, which calls were made, which key is known to be in force.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "streamencryption.dev",
    version = "v1alpha1",
    kind = "StreamLedger",
    namespaced,
    doc = "The operator's record of the calls made on one stream. Written by the operator alone; deleting one makes it forget calls that AWS still counts.",
    printcolumn(name = "Stream", type_ = "string", json_path = ".spec.streamARN"),
    printcolumn(name = "Owner namespace", type_ = "string", json_path = ".spec.owner.namespace"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct StreamLedgerSpec {
    /// The stream's ARN. The ledger's name is a hash of it.
    #[serde(rename = "streamARN")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a ledger belongs to one stream for ever"))]
    pub stream_arn: String,
    /// The resource that may act on the stream.
    pub owner: Owner,
    /// When AWS made the stream, as last seen; another time means that it was deleted and made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_created: Option<MicroTime>,
    /// Every call of the window, oldest first. An entry is never removed before it is too old to count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub calls: Vec<Call>,
    /// What was last known for certain to encrypt the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
    /// What was asked for when AWS last showed it as true. A difference from it that nobody asked for is drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfied: Option<Target>,
    /// The attempts made since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
}

/// What is refused here is refused on reading: the API server takes no schema that forbids further fields beside known ones.
fn as_kubernetes_has_it(schema: &mut Schema) {
    schema.remove("additionalProperties");
}

/// The resource that owns a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, so that a resource made again under the same name is another one.
    pub uid: String,
}

/// One call of Start or Stop: written before it is sent, completed by its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Call {
    /// Unique within the ledger.
    #[schemars(length(max = 64))]
    pub id: String,
    /// What the call asks AWS for.
    pub target: Target,
    /// When the call was reserved, on the operator's clock.
    pub time: MicroTime,
    /// What came of it.
    pub outcome: Outcome,
    /// AWS's error code, where AWS refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub code: Option<String>,
    /// Whether the call put right what somebody else had changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub correction: bool,
    /// Whether AWS showed a failure when the call was decided: the same failure, seen soon after, is not this call's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_failure: bool,
    // The change under way, or its result. From then on what AWS shows otherwise is newer than the call.
    /// Whether AWS has shown the effect of the call since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// The value of the retry annotation at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub retry: Option<String>,
}

impl Call {
    /// The time of the reservation.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.time.0
    }
}

/// What a call asks for, and what a stream's encryption is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Target {
    /// Start, or Stop.
    pub action: Action,
    /// The key, with Start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyStatus>,
}

/// The two calls that change a stream's encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// `StartDeliveryStreamEncryption`, or `StartStreamEncryption`.
    Start,
    /// `StopDeliveryStreamEncryption`, or `StopStreamEncryption`.
    Stop,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// Reserved; sent, or about to be, or the operator ended in between.
    Pending,
    /// AWS answered OK.
    Accepted,
    /// AWS answered with an error: it did not carry out the call.
    Refused,
    /// No answer came. AWS may have carried it out.
    Unknown,
}

/// What was last known for certain to encrypt the records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct InForce {
    /// The key; absent for plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyStatus>,
    /// Since when, as far as the operator saw.
    pub since: MicroTime,
    /// Since when records are encrypted with whatever key; absent for plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_since: Option<MicroTime>,
}

/// The attempts made without AWS showing what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Attempts {
    /// How many.
    pub count: u32,
    /// No further attempt before this time, unless what is asked for, the key's state or the retry annotation changes.
    pub not_before: MicroTime,
    /// What was asked for.
    pub target: Target,
    /// Why the last attempt did not succeed, where AWS refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The value of the retry annotation at the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub retry: Option<String>,
    /// Whether the key has been seen unusable since the last attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_was_unusable: bool,
}
