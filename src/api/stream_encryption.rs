//! `StreamEncryption`: the desired encryption of one stream, and its status.
//!
//! The schema and CEL reject everything that can be rejected without AWS, with a message that states what to
//! write. The reconciler repeats these checks, because an object may be older than a rule.

#![allow(clippy::doc_markdown, reason = "kubectl explain prints the text as it is")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

/// The desired encryption of one stream.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "streamencryption.dev",
    version = "v1alpha1",
    kind = "StreamEncryption",
    derive = "PartialEq",
    namespaced,
    shortname = "strenc",
    category = "stream-encryption",
    status = "StreamEncryptionStatus",
    doc = "Keeps one Firehose stream or Kinesis data stream encrypted with the desired key, within AWS's limit of 25 encryption calls per stream in 24 hours.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Service", type_ = "string", json_path = ".status.stream.service"),
    printcolumn(name = "Stream", type_ = "string", json_path = ".status.stream.name"),
    printcolumn(name = "Encryption", type_ = "string", json_path = ".status.encryptionStatus"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Region", type_ = "string", json_path = ".status.stream.region", priority = 1),
    // Prints the first of the two that is present: the ARN, or the type of a key without an ARN.
    printcolumn(name = "Key", type_ = "string", json_path = ".status.activeKey['arn','type']", priority = 1),
    printcolumn(name = "Calls used", type_ = "integer", json_path = ".status.calls.used", priority = 1),
    printcolumn(name = "Calls limit", type_ = "integer", json_path = ".status.calls.limit", priority = 1),
    printcolumn(name = "Plaintext since", type_ = "date", json_path = ".status.plaintextSinceTime", priority = 1),
    // A column of type date prints an age, and a future time has none.
    printcolumn(name = "Next attempt", type_ = "string", json_path = ".status.nextAttemptTime", priority = 1),
    printcolumn(
        name = "Last describe",
        type_ = "date",
        json_path = ".status.lastDescribeTime",
        priority = 1
    ),
    printcolumn(name = "Suspended", type_ = "date", json_path = ".status.suspendedSinceTime", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[x_kube(validation = Rule::new("self.mode != 'Observe' || self.deletionPolicy != 'Disable'").message("deletionPolicy: Disable requires mode: Enforce"))]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionSpec {
    /// The stream. Immutable; for another stream, create another resource.
    #[x_kube(merge_strategy = MapMerge::Atomic, validation = Rule::new("self == oldSelf").message("stream is immutable; create a new StreamEncryption instead"))]
    pub stream: StreamReference,
    /// The key that encrypts the records. If absent, any key is accepted, a plaintext stream gets the AWS-owned key, and a key that is active already is not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub key: Option<KeyReference>,
    /// Whether the stream is encrypted. Disabled requires a policy that allows it. Default: Enabled.
    #[serde(default)]
    pub encryption: Encryption,
    /// Enforce makes the stream match the spec and corrects drift. Observe never calls Start or Stop, and only reports how the stream differs. With verification: PutRecord it still writes test records. Default: Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// What happens in AWS when this resource is deleted. Retain leaves the stream as it is. Disable disables encryption first. Disable requires allowDisable: true in a policy; without it, the operator neither encrypts the stream nor corrects drift. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// While true, the operator neither describes nor changes the stream. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Verification in addition to the state that AWS reports. PutRecord writes a test record into the stream when the stream first matches the spec and after each change, and further test records until AWS reports one as encrypted. Test records reach the stream's consumers or destination. Default: None.
    #[serde(default)]
    pub verification: Verification,
}

/// A stream: its ARN, or its service and name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.arn) != has(self.name)").message("exactly one of arn or (service, name) must be set"))]
#[x_kube(validation = Rule::new("has(self.name) == has(self.service)").message("service and name must be set together"))]
#[x_kube(validation = Rule::new("!has(self.region) || !has(self.arn)").message("region must not be set with arn"))]
#[x_kube(validation = Rule::new("!has(self.service) || self.service != 'Firehose' || !has(self.name) || self.name.size() <= 64").message("a Firehose stream name must be no more than 64 characters"))]
#[serde(rename_all = "camelCase")]
pub struct StreamReference {
    /// The stream's ARN: arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(r"self.matches('^arn:aws(-cn|-eusc|-us-gov|-iso|-iso-b|-iso-e|-iso-f)?:(firehose:[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?:[0-9]{12}:deliverystream/[a-zA-Z0-9_.-]{1,64}|kinesis:[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?:[0-9]{12}:stream/[a-zA-Z0-9_.-]{1,128})$') && self.matches('^arn:(aws:[a-z]+:|aws-cn:[a-z]+:cn-|aws-eusc:[a-z]+:eusc-|aws-us-gov:[a-z]+:us-gov-|aws-iso:[a-z]+:[a-z]+-iso-|aws-iso-b:[a-z]+:[a-z]+-isob-|aws-iso-e:[a-z]+:[a-z]+-isoe-|aws-iso-f:[a-z]+:[a-z]+-isof-)') && !self.matches('^arn:aws:[a-z]+:(cn|eusc|us-gov|[a-z]+-(iso|isob|isoe|isof))-') && self.split(':')[3].size() <= 32").message("must be the ARN of a Firehose stream (arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME) or of a Kinesis data stream (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)"))]
    pub arn: Option<String>,
    /// The service of a stream that is given by name: Firehose or Kinesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The stream's name. Requires service. The stream is in the operator's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_.-]+$')").message("must contain only a-z, A-Z, 0-9, '_', '.', '-'; use arn for an ARN"))]
    pub name: Option<String>,
    /// The region of a stream that is given by name. Default: the operator's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?$')").message("must be an AWS region, for example eu-west-1"))]
    pub region: Option<String>,
}

/// The two services that encrypt streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = described_by_its_field)]
pub enum Service {
    /// Amazon Data Firehose.
    Firehose,
    /// Amazon Kinesis Data Streams.
    Kinesis,
}

/// Removes the type's description: in an optional field the derive would use it in place of the field's own.
fn described_by_its_field(schema: &mut Schema) {
    schema.remove("description");
}

/// A key: the AWS-owned one, or a customer managed one by ARN, alias or reference.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.type != 'AWS_OWNED_CMK' || (!has(self.arn) && !has(self.alias) && !has(self.objectRef))").message("arn, alias and objectRef must not be set when type is AWS_OWNED_CMK"))]
#[x_kube(validation = Rule::new("self.type != 'CUSTOMER_MANAGED_CMK' || [has(self.arn), has(self.alias), has(self.objectRef)].filter(given, given).size() == 1").message("exactly one of arn, alias, objectRef must be set when type is CUSTOMER_MANAGED_CMK"))]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// `AWS_OWNED_CMK` (on Kinesis, the AWS managed key alias/aws/kinesis) or `CUSTOMER_MANAGED_CMK`.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// The key's ARN: arn:aws:kms:REGION:ACCOUNT:key/ID. For an alias, set alias instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws(-cn|-eusc|-us-gov|-iso|-iso-b|-iso-e|-iso-f)?:kms:[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?:[0-9]{12}:key/[a-zA-Z0-9-]{1,128}$') && self.matches('^arn:(aws:[a-z]+:|aws-cn:[a-z]+:cn-|aws-eusc:[a-z]+:eusc-|aws-us-gov:[a-z]+:us-gov-|aws-iso:[a-z]+:[a-z]+-iso-|aws-iso-b:[a-z]+:[a-z]+-isob-|aws-iso-e:[a-z]+:[a-z]+-isoe-|aws-iso-f:[a-z]+:[a-z]+-isof-)') && !self.matches('^arn:aws:[a-z]+:(cn|eusc|us-gov|[a-z]+-(iso|isob|isoe|isof))-') && self.split(':')[3].size() <= 32").message("must be the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/ID); use alias for an alias"))]
    pub arn: Option<String>,
    /// The key's alias in the stream's account and region. When the alias is changed to another key, the operator changes the stream to that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^alias/[a-zA-Z0-9/_-]+$') && !self.startsWith('alias/aws/')").message("must be the alias of a customer managed key (alias/NAME); use type: AWS_OWNED_CMK for a key of AWS"))]
    pub alias: Option<String>,
    /// A Key object of ACK or of Crossplane, in the namespace of this resource. The status of that object holds the key's ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub object_ref: Option<KeyObjectReference>,
}

/// The two types of key, as AWS names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// A key that AWS owns; on Kinesis the AWS managed key `alias/aws/kinesis`.
    #[serde(rename = "AWS_OWNED_CMK")]
    AwsOwned,
    /// A customer managed key.
    #[serde(rename = "CUSTOMER_MANAGED_CMK")]
    CustomerManaged,
}

/// A `Key` of AWS Controllers for Kubernetes (ACK) or of Crossplane in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyObjectReference {
    /// The object's API group: kms.services.k8s.aws (ACK) or kms.aws.m.upbound.io (Crossplane).
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self in ['kms.services.k8s.aws', 'kms.aws.m.upbound.io']").message("must be kms.services.k8s.aws (ACK) or kms.aws.m.upbound.io (Crossplane)"))]
    pub group: String,
    /// The object's kind: Key.
    #[x_kube(validation = Rule::new("self == 'Key'").message("must be Key"))]
    pub kind: String,
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("must be the name of a Key object: only a-z, 0-9, '-', '.', starting and ending with a letter or digit"))]
    pub name: String,
}

/// The desired encryption of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encryption {
    /// Encrypted with the desired key.
    #[default]
    Enabled,
    /// Not encrypted.
    Disabled,
}

/// Whether the operator changes the stream, or only reports how it differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Call Start or Stop where the stream differs from the spec.
    #[default]
    Enforce,
    /// Describe and report; never call Start or Stop.
    Observe,
}

/// What happens in AWS when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing. No finalizer is set.
    #[default]
    Retain,
    /// Encryption is disabled first. A finalizer keeps the resource until then.
    Disable,
}

/// Verification in addition to the state that AWS reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verification {
    /// No further verification.
    #[default]
    None,
    /// A test record is written after each change, and further ones until AWS reports one as encrypted.
    PutRecord,
}

/// The observed generation before the operator has reconciled the resource. kstatus treats a resource without
/// a status as ready, so `kubectl apply` adds this value.
pub const UNSEEN: i64 = -1;

/// The observed state, and the next action of the operator.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The encryption status as AWS reports it: ENABLING, ENABLED, `ENABLING_FAILED`, DISABLING, DISABLED or `DISABLING_FAILED`. Kinesis does not report it, so the operator derives it from the stream's status, the stream's encryption and the last call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_status: Option<EncryptionStatus>,
    /// The stream that the spec names, as resolved and described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
    /// The key that the spec specifies, resolved to its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_key: Option<KeyIdentity>,
    /// The key that encrypts records now. After a failed key change, that is still the old key. Absent for plaintext, or while unknown. `arn` is absent for `AWS_OWNED_CMK`, and if no policy allows the namespace to use the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_key: Option<KeyIdentity>,
    /// Since when the active key is unusable. Meanwhile, a Firehose stream does not deliver its records and loses records that are older than 24 hours, and a Kinesis stream can be neither written nor read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_key_unusable_since_time: Option<Time>,
    /// The customer managed key that was active before, and how long that key must stay enabled. Keys that were active earlier are not required longer than that key. Absent does not mean that no key is required: the field is removed as soon as no policy allows the namespace to use the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key: Option<PreviousKey>,
    /// The last failed attempt, and its cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The encryption calls that count now, from the stream's StreamLedger, and their limit, from the StreamEncryptionPolicies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// The time of the next encryption call (Start or Stop), while the operator is waiting for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Since when records are known to be encrypted, with any key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_since_time: Option<Time>,
    /// Since when records are known to be in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext_since_time: Option<Time>,
    // Written together with other changes, and otherwise at most once a day.
    /// When AWS last responded to a Describe of the stream. If nothing else in the status changes, this field is updated only once a day, so it lags by up to a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_describe_time: Option<Time>,
    /// Since when the resource is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_since_time: Option<Time>,
    /// The last value of the annotation streamencryption.dev/retry that the operator handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<String>,
    /// When a test record was last reported as encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_time: Option<Time>,
    /// Ready: the stream matches the spec, and nothing needs your attention. Reconciling: the operator is making a change, or retries. Stalled: the operator cannot apply the spec. Encrypted: records are encrypted now. `KeyUsable`: no problem of the desired key or the active key is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A key that was active before, and until when records in the stream may require it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKey {
    /// The key's ARN.
    pub arn: String,
    /// The time after which no record in the stream requires the previous key.
    pub required_until_time: Time,
}

/// The encryption status of a stream as AWS names it (`DeliveryStreamEncryptionStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = described_by_its_field)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EncryptionStatus {
    /// Start was called; records are still in plaintext or encrypted with the old key.
    Enabling,
    /// Encrypted, at most 5 seconds after AWS reports it.
    Enabled,
    /// The last attempt to enable encryption or to change the key failed. After a failed change the old key stays active.
    EnablingFailed,
    /// Stop was called.
    Disabling,
    /// Plaintext.
    Disabled,
    /// The last attempt to disable failed.
    DisablingFailed,
}

impl EncryptionStatus {
    /// Returns the value as AWS spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabling => "ENABLING",
            Self::Enabled => "ENABLED",
            Self::EnablingFailed => "ENABLING_FAILED",
            Self::Disabling => "DISABLING",
            Self::Disabled => "DISABLED",
            Self::DisablingFailed => "DISABLING_FAILED",
        }
    }
}

/// The stream that the spec names, as resolved and described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// The stream's ARN. Absent if the spec sets no ARN and no policy allows the namespace to use the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Firehose or Kinesis.
    pub service: Service,
    /// The AWS account, 12 digits. Absent if arn is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The AWS region.
    pub region: String,
    /// The stream's name.
    pub name: String,
    /// The source of a Firehose stream; only `DirectPut` streams can be encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The status of the stream itself, as AWS reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A key, by type and ARN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyIdentity {
    /// `AWS_OWNED_CMK` or `CUSTOMER_MANAGED_CMK`.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// The key's ARN; always absent for `AWS_OWNED_CMK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
}

/// The last failed attempt, and its cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Firehose's `DeliveryStreamFailureType`, or the code of the error that AWS returned. If AWS returned neither, a code of the operator: `NOT_APPLIED` (AWS accepted the call, and nothing changed), or why the call was not sent, such as `NoCredentials`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of the failure and, where known, the remedy.
    pub message: String,
    /// When the operator observed the last failure.
    pub last_failure_time: Time,
    /// The number of attempts without success.
    pub attempts: u32,
}

/// The budget of calls, from the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// The encryption calls that count against the limit now. On Firehose, Start and Stop count together. On Kinesis, AWS limits accepted Starts and accepted Stops separately, and this field has the number of Starts; if the spec disables encryption, that of Stops.
    pub used: u32,
    /// How many of the calls in `calls.used` were made by other callers. The operator learns of them from AWS's events, which are off by default (CloudTrail and an SQS queue). Calls that AWS refused do not count. Absent if none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<u32>,
    /// The limit of `calls.used`: the highest `maxCallsPerDay` of the policies that allow the stream, plus `calls.external`, but at most AWS's 25. Example with a `maxCallsPerDay` of 20: after 3 calls of others it is 23, and the operator still has 20 calls left. From the sixth call of others on, each leaves the operator one call fewer.
    pub limit: u32,
    /// If the limit is reached, when the next call may be made; otherwise, when the oldest call stops counting. A call of the operator counts for 24 hours and 31 minutes, and a call of others for 24 hours and 15 minutes. The minutes beyond 24 hours are for clock skew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_available_time: Option<Time>,
}
