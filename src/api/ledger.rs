//! `StreamLedger`: the operator's record of the calls made on one stream. It outlives the resource.
//!
//! Everything is in `spec`, not in `status`. Recording the owner and the first call is then one atomic write,
//! and a backup tool that drops `status` on restore cannot remove the record of the calls.
//!
//! A ledger with a field that this version does not know was written by a newer version, and is rejected as
//! invalid: the field may forbid what this version would do, and this version would drop the field when it
//! writes the ledger.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::stream_encryption::KeyIdentity;

/// The record of one stream: its owner, the calls made, and the last known active key.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "streamencryption.dev",
    version = "v1alpha1",
    kind = "StreamLedger",
    derive = "PartialEq",
    namespaced,
    doc = "The operator's record of the calls made on one stream. Only the operator writes it. If a ledger is deleted, the operator restores only the number of its own calls, from the status of the StreamEncryption.",
    printcolumn(name = "Stream", type_ = "string", json_path = ".spec.streamARN"),
    printcolumn(name = "Owner namespace", type_ = "string", json_path = ".spec.owner.namespace"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct StreamLedgerSpec {
    /// The stream's ARN. The ledger's name is a hash of the ARN.
    #[serde(rename = "streamARN")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("streamARN is immutable"))]
    pub stream_arn: String,
    /// The resource that manages the stream.
    pub owner: Owner,
    /// The creation time of the stream as AWS last reported it. If AWS reports another time, the stream was deleted and created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_creation_time: Option<MicroTime>,
    /// The operator's calls, oldest first. Each counts for 24 hours and 31 minutes; before its next call, the operator removes older ones. On Firehose each one that was sent counts against the limit. On Kinesis refused calls do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub calls: Vec<Call>,
    /// The calls of other callers, oldest first. Each counts for 24 hours and 15 minutes; before its next call, the operator removes those that no longer count. The operator learns of them from AWS's events, which are off by default (CloudTrail and an SQS queue). The operator does not count those that AWS refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub external_calls: Vec<ExternalCall>,
    /// The last known encryption of the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_encryption: Option<KnownEncryption>,
    /// The desired encryption that AWS last reported as applied. If the stream differs from that encryption and the spec has not changed, the difference is drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfied: Option<Target>,
    /// The attempts since AWS last reported the desired encryption as applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
}

/// Removes `additionalProperties`: the API server accepts no schema that forbids further fields beside known
/// ones. Unknown fields are rejected on reading instead.
fn as_kubernetes_has_it(schema: &mut Schema) {
    schema.remove("additionalProperties");
}

/// The resource that manages a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Owner {
    /// The resource's namespace.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
    /// The resource's uid. A resource that is created again under the same name has another uid.
    pub uid: String,
}

/// One call of Start or Stop. The operator writes the entry before it sends the call, and then adds the outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Call {
    /// The id of the entry, unique within the ledger.
    #[schemars(length(max = 64))]
    pub id: String,
    /// The encryption that the call requests.
    pub target: Target,
    /// The time at which the operator wrote this entry, before it sent the call, by the operator's clock.
    pub time: MicroTime,
    /// The outcome. `Pending`: the call is about to be sent, or has no response yet. `Accepted` and `Refused`: the response of AWS, or `Refused` if the operator did not send the call. `Unknown`: there was no response in time, or an internal error of AWS, so AWS may have applied the call.
    pub outcome: Outcome,
    /// The error code of AWS. Or a code of the operator, for a call that it did not send, or whose response was late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub code: Option<String>,
    /// AWS's id of the request, from AWS's response or from AWS's event about the call.
    #[serde(default, rename = "requestID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub request_id: Option<String>,
    /// Whether the call corrects drift.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub correction: bool,
    /// Whether AWS already reported a failure when the operator planned the call. If so, a failure that AWS reports shortly after the call may be the earlier one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_failure: bool,
    // The effect is the change in progress, or its result. Once it was reported, any other state that AWS
    // reports is newer than the call.
    /// Whether AWS has reported the effect of the call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// The value of the annotation streamencryption.dev/retry when the operator wrote this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub retry: Option<String>,
}

impl Call {
    /// Returns the time of the reservation.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.time.0
    }
}

/// One call of Start or Stop that was not sent by the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct ExternalCall {
    /// The id of the CloudTrail event; unique within the ledger.
    #[serde(rename = "eventID")]
    #[schemars(length(min = 1, max = 64))]
    pub event_id: String,
    /// Start or Stop.
    pub action: Action,
    /// When AWS received the call, by AWS's clock.
    pub time: MicroTime,
    /// The type of the caller's identity, as CloudTrail names it, for example `AssumedRole`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub caller_type: Option<String>,
    /// The AWS error code, if AWS refused the call or ended it by an internal error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub code: Option<String>,
}

/// An encryption that a call requests, or that a stream must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Target {
    /// Start or Stop.
    pub action: Action,
    /// The key, if the action is Start and the spec names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyIdentity>,
}

/// The two calls that change a stream's encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// `StartDeliveryStreamEncryption`, or `StartStreamEncryption`.
    Start,
    /// `StopDeliveryStreamEncryption`, or `StopStreamEncryption`.
    Stop,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The operator has written the entry. The call was sent or is about to be sent, unless the operator stopped in between.
    Pending,
    /// AWS accepted the call.
    Accepted,
    /// AWS refused the call, or the operator did not send it. AWS has not applied it.
    Refused,
    /// No response, an internal error, or a late response. AWS may have applied the call, or may still apply it.
    Unknown,
}

/// The last known encryption of the records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct KnownEncryption {
    /// The active key; absent for plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyIdentity>,
    /// Since when records have this encryption, as observed by the operator.
    pub since_time: MicroTime,
    /// Since when records are encrypted, with any key; absent for plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_since_time: Option<MicroTime>,
}

/// The attempts without success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = as_kubernetes_has_it)]
pub struct Attempts {
    /// The number of attempts.
    pub count: u32,
    /// No further attempt is made before this time, unless the desired encryption, the key's state or the annotation streamencryption.dev/retry changes.
    pub not_before_time: MicroTime,
    /// The encryption that the attempts requested.
    pub target: Target,
    /// Why the last attempt was refused or not sent, or why its outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The value of the annotation streamencryption.dev/retry at the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub retry: Option<String>,
    /// Whether the desired key had any problem at some time since the last attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_was_unusable: bool,
}
