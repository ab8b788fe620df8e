//! `StreamEncryption`: "this stream is encrypted with this key", as a user writes it and as the operator answers.
//!
//! Everything that can be refused without looking at AWS is refused here, by the schema and CEL, so that
//! `kubectl apply` says what to write instead. The reconciler checks the same again, because an object may be older
//! than a rule.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

/// What a user asks for: this stream is encrypted with this key.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "streamencryption.dev",
    version = "v1alpha1",
    kind = "StreamEncryption",
    namespaced,
    shortname = "strenc",
    category = "aws",
    category = "encryption",
    status = "StreamEncryptionStatus",
    doc = "Keeps one Firehose stream or Kinesis data stream encrypted with the key asked for, within AWS's limit of 25 calls per stream in 24 hours.",
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
    // The first of them that is there: the ARN, or the type of a key that has none to show.
    printcolumn(name = "Key", type_ = "string", json_path = ".status.keyInForce['arn','type']", priority = 1),
    printcolumn(name = "Calls used", type_ = "integer", json_path = ".status.calls.used", priority = 1),
    printcolumn(name = "Calls limit", type_ = "integer", json_path = ".status.calls.limit", priority = 1),
    printcolumn(name = "Plaintext since", type_ = "date", json_path = ".status.plainTextSince", priority = 1),
    // A date is printed as an age, and a time to come has none.
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
#[x_kube(validation = Rule::new("self.drift != 'Report' || self.deletionPolicy != 'Disable'").message("with drift: Report nothing is called, so write deletionPolicy: Retain; or write drift: Correct"))]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionSpec {
    /// The stream. It cannot be changed: make another resource for another stream.
    #[x_kube(validation = Rule::new("self == oldSelf").message("stream cannot be changed: delete this resource and make another one for the other stream"))]
    pub stream: StreamReference,
    /// The key that encrypts the records. Absent: any key will do, and a plain-text stream gets the AWS-owned one; a key that somebody chose is never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyReference>,
    /// Whether the stream is to be encrypted. Disabled turns encryption off, and needs a policy that allows it. Default: Enabled.
    #[serde(default)]
    pub encryption: Encryption,
    /// What happens when somebody else changes the stream's encryption: Correct it, or Report it and call nothing. Default: Correct.
    #[serde(default)]
    pub drift: Drift,
    /// What happens in AWS when this resource is deleted: Retain leaves the stream as it is; Disable turns encryption off first, and needs a policy that allows it. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// While true, the operator neither looks at the stream nor changes it. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Further proof, beyond what AWS says of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// Which stream: its ARN, or its service and name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.arn) != has(self.name)").message("write exactly one of arn, or service and name"))]
#[x_kube(validation = Rule::new("has(self.name) == has(self.service)").message("write service (Firehose or Kinesis) together with name, and neither of them beside arn"))]
#[x_kube(validation = Rule::new("!has(self.region) || !has(self.arn)").message("leave region out beside arn: the ARN names the region"))]
#[x_kube(validation = Rule::new("!has(self.service) || self.service != 'Firehose' || !has(self.name) || self.name.size() <= 64").message("write a name of at most 64 characters: Firehose has no longer ones"))]
#[serde(rename_all = "camelCase")]
pub struct StreamReference {
    /// The stream's ARN: arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(r"self.matches('^arn:aws(-cn|-eusc|-us-gov|-iso|-iso-b|-iso-e|-iso-f)?:(firehose:[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?:[0-9]{12}:deliverystream/[a-zA-Z0-9_.-]{1,64}|kinesis:[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?:[0-9]{12}:stream/[a-zA-Z0-9_.-]{1,128})$') && self.matches('^arn:(aws:[a-z]+:|aws-cn:[a-z]+:cn-|aws-eusc:[a-z]+:eusc-|aws-us-gov:[a-z]+:us-gov-|aws-iso:[a-z]+:[a-z]+-iso-|aws-iso-b:[a-z]+:[a-z]+-isob-|aws-iso-e:[a-z]+:[a-z]+-isoe-|aws-iso-f:[a-z]+:[a-z]+-isof-)') && !self.matches('^arn:aws:[a-z]+:(cn|eusc|us-gov|[a-z]+-(iso|isob|isoe|isof))-') && self.split(':')[3].size() <= 32").message("write the ARN of a Firehose stream (arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME) or of a Kinesis data stream (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)"))]
    pub arn: Option<String>,
    /// The service that a stream given by name belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The stream's name, in the operator's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_.-]+$')").message("write the stream's name with the characters a-z A-Z 0-9 _ . - only, and an ARN into arn"))]
    pub name: Option<String>,
    /// The region of a stream given by name. Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?$')").message("write a region's code, such as eu-west-1"))]
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

/// In an optional field the derive puts a type's words in the place of the field's, which say more.
fn described_by_its_field(schema: &mut Schema) {
    schema.remove("description");
}

/// Which key: the AWS-owned one, or a customer managed one by ARN, alias or reference.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.type != 'AWS_OWNED_CMK' || (!has(self.arn) && !has(self.alias) && !has(self.ref))").message("leave arn, alias and ref out with AWS_OWNED_CMK, or write type: CUSTOMER_MANAGED_CMK"))]
#[x_kube(validation = Rule::new("self.type != 'CUSTOMER_MANAGED_CMK' || [has(self.arn), has(self.alias), has(self.ref)].filter(given, given).size() == 1").message("write exactly one of arn, alias and ref with CUSTOMER_MANAGED_CMK"))]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// `AWS_OWNED_CMK` (on Kinesis that is the AWS managed key alias/aws/kinesis) or `CUSTOMER_MANAGED_CMK`.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// The key's ARN: arn:aws:kms:REGION:ACCOUNT:key/ID. An alias goes into alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws(-cn|-eusc|-us-gov|-iso|-iso-b|-iso-e|-iso-f)?:kms:[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?:[0-9]{12}:key/[a-zA-Z0-9-]{1,128}$') && self.matches('^arn:(aws:[a-z]+:|aws-cn:[a-z]+:cn-|aws-eusc:[a-z]+:eusc-|aws-us-gov:[a-z]+:us-gov-|aws-iso:[a-z]+:[a-z]+-iso-|aws-iso-b:[a-z]+:[a-z]+-isob-|aws-iso-e:[a-z]+:[a-z]+-isoe-|aws-iso-f:[a-z]+:[a-z]+-isof-)') && !self.matches('^arn:aws:[a-z]+:(cn|eusc|us-gov|[a-z]+-(iso|isob|isoe|isof))-') && self.split(':')[3].size() <= 32").message("write the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/ID); an alias goes into alias"))]
    pub arn: Option<String>,
    /// The key's alias in the stream's account and region. When it is pointed at another key, the stream is re-keyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^alias/[a-zA-Z0-9/_-]+$') && !self.startsWith('alias/aws/')").message("write the alias of a customer managed key (alias/NAME); for a key of AWS write type: AWS_OWNED_CMK"))]
    pub alias: Option<String>,
    /// An ACK Key object in the same namespace; its status holds the ARN.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<KeyObjectReference>,
}

/// AWS's two types of key, in AWS's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// A key that AWS owns; on Kinesis the AWS managed key `alias/aws/kinesis`.
    #[serde(rename = "AWS_OWNED_CMK")]
    AwsOwned,
    /// A customer managed key.
    #[serde(rename = "CUSTOMER_MANAGED_CMK")]
    CustomerManaged,
}

/// A `Key` of AWS Controllers for Kubernetes (ACK) in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyObjectReference {
    /// The object's API version, which is kms.services.k8s.aws/v1alpha1.
    #[x_kube(validation = Rule::new("self == 'kms.services.k8s.aws/v1alpha1'").message("write apiVersion: kms.services.k8s.aws/v1alpha1, the keys of ACK"))]
    pub api_version: String,
    /// The object's kind, which is Key.
    #[x_kube(validation = Rule::new("self == 'Key'").message("write kind: Key"))]
    pub kind: String,
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("write the name of the Key object: a-z 0-9 - and . only, with a letter or digit at both ends"))]
    pub name: String,
}

/// Whether a stream is to be encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encryption {
    /// Encrypted, with the key asked for.
    #[default]
    Enabled,
    /// Not encrypted.
    Disabled,
}

/// What happens when AWS shows something else than was asked for and was already true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Drift {
    /// Make it true again.
    #[default]
    Correct,
    /// Look and tell, never call Start or Stop.
    Report,
}

/// What deleting the resource does in AWS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing. No finalizer is set.
    #[default]
    Retain,
    /// Encryption is turned off first. A finalizer holds the resource until it is off.
    Disable,
}

/// Further proof that records are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// Write one marked record into the stream after each change, and read in the answer whether it was encrypted. It reaches the stream's destination. Default: false.
    #[serde(default)]
    pub put_record: bool,
}

/// The generation that a status speaks of before the operator has seen the resource: none. kstatus takes a resource without a
/// status for one that is done, so `kubectl apply` gives it this one.
pub const UNSEEN: i64 = -1;

/// What the operator observed, and what it will do next.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// AWS's own word: ENABLING, ENABLED, `ENABLING_FAILED`, DISABLING, DISABLED or `DISABLING_FAILED`. For Kinesis, which has no such word, derived from `StreamStatus`, `EncryptionType` and `KeyId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_status: Option<EncryptionStatus>,
    /// The stream, resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
    /// The key that is asked for, resolved to its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyStatus>,
    /// The key that encrypts records now; after a failed re-key still the old one; absent for plain text, or where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_in_force: Option<KeyStatus>,
    /// Since when records are lost because the active key is unusable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_key_unusable_since_time: Option<Time>,
    /// The customer managed key that was in force before, and until when it has to stay enabled. Keys before it are needed no longer than that either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key: Option<PreviousKey>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The calls of the last 24 hours and the budget, from the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// When AWS will be called again, while the operator waits to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Since when records are known to be encrypted, with whatever key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_since: Option<Time>,
    /// Since when records are known to be in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_text_since: Option<Time>,
    // Written with other changes, and otherwise once an hour at most.
    /// When AWS last answered a Describe of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_describe_time: Option<Time>,
    /// Since when the resource is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_since_time: Option<Time>,
    /// The value of the retry annotation that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<String>,
    /// When a marked record was last written and came back as encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_time: Option<Time>,
    /// Ready, Reconciling, Stalled, Encrypted and `KeyUsable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A key that records in the stream may still need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKey {
    /// The key's ARN.
    pub arn: String,
    /// From then on the stream holds no record that needs it: it may be retired.
    pub needed_until: Time,
}

/// AWS's words for where a stream's encryption stands (`DeliveryStreamEncryptionStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = described_by_its_field)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EncryptionStatus {
    /// Start was called; records are still in plain text, or under the old key.
    Enabling,
    /// Encrypted, from 5 seconds after this at the latest.
    Enabled,
    /// The last attempt to enable, or to change the key, failed. After a failed re-key the old key still encrypts.
    EnablingFailed,
    /// Stop was called.
    Disabling,
    /// Plain text.
    Disabled,
    /// The last attempt to disable failed.
    DisablingFailed,
}

impl EncryptionStatus {
    /// AWS's spelling.
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

/// The stream, resolved and looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// The stream's ARN. Left out where no policy allows the namespace the stream and the spec names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Firehose or Kinesis.
    pub service: Service,
    /// The AWS account, 12 digits. Left out with the ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The region's code.
    pub region: String,
    /// The stream's name.
    pub name: String,
    /// Where a Firehose stream's records come from; only `DirectPut` streams can be encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The state of the stream itself, in AWS's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A key, by type and ARN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// `AWS_OWNED_CMK` or `CUSTOMER_MANAGED_CMK`.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// The key's ARN; absent for `AWS_OWNED_CMK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
}

/// Why the last attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// AWS's `DeliveryStreamFailureType`, or the code of the error that AWS answered.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it means and what to do.
    pub message: String,
    /// When it was seen.
    pub time: Time,
    /// How many attempts have been made without success.
    pub attempts: u32,
}

/// The budget, from the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Calls that count against the limit now.
    pub used: u32,
    /// How many the operator allows itself in 24 hours; AWS allows 25.
    pub limit: u32,
    /// When the oldest of them stops counting: 24 hours after it was made, and 31 minutes more for clocks that differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_free: Option<Time>,
}
