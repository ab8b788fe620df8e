//! `StreamEncryptionPolicy`: which namespaces may encrypt which streams with which keys. Administrators write
//! it.
//!
//! Without a policy the operator sends no requests. Policies that select the same namespace are combined, per stream.
//! The core crate (`model/arn/pattern.rs`) defines the meaning of a pattern; this module only defines which texts are
//! valid.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The default of `maxCallsPerDay`. The rest of AWS's 25 calls is left to users and other tools.
pub const DEFAULT_CALLS_PER_DAY: u32 = 20;

/// The permissions that an administrator grants to namespaces.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "streamencryption.dev",
    version = "v1alpha1",
    kind = "StreamEncryptionPolicy",
    derive = "PartialEq",
    shortname = "strencpol",
    category = "stream-encryption",
    status = "StreamEncryptionPolicyStatus",
    doc = "Defines which streams and keys each namespace may use. The operator sends AWS no request about a stream that no policy allows.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Namespaces", type_ = "integer", json_path = ".status.namespaces"),
    printcolumn(name = "Resources", type_ = "integer", json_path = ".status.resources"),
    printcolumn(name = "Streams", type_ = "string", json_path = ".spec.streams"),
    printcolumn(name = "Keys", type_ = "string", json_path = ".spec.keys", priority = 1),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role.arn", priority = 1),
    printcolumn(name = "Disable", type_ = "boolean", json_path = ".spec.allowDisable"),
    printcolumn(name = "Max Calls", type_ = "integer", json_path = ".spec.maxCallsPerDay"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionPolicySpec {
    /// The namespaces that the policy applies to, by their labels. {} selects every namespace; matchLabels {kubernetes.io/metadata.name: NAME} selects one by its name.
    pub namespace_selector: NamespaceSelector,
    /// The IAM role that the operator assumes for the streams of this policy. If absent, the operator uses its own credentials. All policies that allow a namespace to use the same stream must specify the same role and external id, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PolicyRole>,
    /// The streams, as ARNs with * for the partition, for the region, or for any characters in the name. With "own" in place of the account, a pattern applies to the account of the role or, without a role, of the operator.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(p, p.matches('^arn:([*]|aws(-[a-z]+)*):(firehose:([*]|[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?):(own|[0-9]{12}):deliverystream|kinesis:([*]|[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?):(own|[0-9]{12}):stream)/[a-zA-Z0-9_.*-]{1,128}$'))").message("must be patterns of stream ARNs: arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, with * for the partition, for the region or in the name; the account is 12 digits or own"))]
    pub streams: Vec<String>,
    /// The keys: `AWS_OWNED_CMK`, and ARNs of keys and of aliases, with * for the partition, for the region, or for any characters in the last part. With "own" in place of the account, a pattern applies to the account of the role or, without a role, of the operator. A key that a resource names by an alias must be allowed by its alias and by its ARN.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(p, p == 'AWS_OWNED_CMK' || p.matches('^arn:([*]|aws(-[a-z]+)*):kms:([*]|[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?):(own|[0-9]{12}):(key/[a-zA-Z0-9*-]{1,128}|alias/[a-zA-Z0-9/_*-]{1,250})$'))").message("must be AWS_OWNED_CMK or patterns of ARNs: arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME, with * for the partition, for the region or in the last part; the account is 12 digits or own"))]
    pub keys: Vec<String>,
    /// Whether encryption may be disabled, by encryption: Disabled or deletionPolicy: Disable. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_disable: bool,
    /// The maximum number of the operator's own encryption calls per stream in 24 hours. On Firehose, Start and Stop count together. On Kinesis, Start and Stop have separate counts, and refused calls do not count. AWS allows 25. Default: 20.
    #[serde(default = "default_calls")]
    #[schemars(range(min = 1, max = 25))]
    pub max_calls_per_day: u32,
}

/// An IAM role. Only a policy can name one; no `StreamEncryption` can.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRole {
    /// The role's ARN.
    #[schemars(length(min = 1, max = 612))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([a-zA-Z0-9_+=,.@:-]+/)*[a-zA-Z0-9_+=,.@-]{1,64}$')").message("must be an IAM role ARN (arn:aws:iam::ACCOUNT:role/[PATH/]NAME), not an assumed-role session"))]
    pub arn: String,
    /// The external id that the role's trust policy requires.
    #[serde(default, rename = "externalID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_+=,.@:/-]*$')").message("must contain only a-z, A-Z, 0-9, '_', '+', '=', ',', '.', '@', ':', '/', '-'"))]
    pub external_id: Option<String>,
}

/// Namespaces by their labels; a namespace must meet all conditions.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// The labels that a namespace must have, with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels, which must hold in addition to matchLabels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<LabelCondition>,
}

/// A condition on a label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)").message("values must be set for In and NotIn, and must be empty for Exists and DoesNotExist"))]
#[serde(rename_all = "camelCase")]
pub struct LabelCondition {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, `NotIn`, Exists or `DoesNotExist`.
    pub operator: LabelOperator,
    /// The values of In and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// How a label is compared with the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// The acceptance of the policy, and the number of namespaces and resources to which the policy applies now.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionPolicyStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The number of namespaces that the policy selects now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<u32>,
    /// The number of `StreamEncryptions` in the selected namespaces whose stream the policy allows now. Absent while the operator's account is unknown and a pattern has "own" in place of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<u32>,
    /// Accepted: the operator applies all of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl LabelOperator {
    /// Returns the operator as Kubernetes' own selectors spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }
}

impl NamespaceSelector {
    /// Returns whether the selector selects every namespace.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl StreamEncryptionPolicySpec {
    /// Returns the spec of the chart's `defaultPolicy`: every namespace may encrypt the streams of the
    /// operator's own account with the keys of that account, and may not disable encryption.
    #[must_use]
    pub fn own_account() -> Self {
        let all = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Self {
            namespace_selector: NamespaceSelector::default(),
            role: None,
            streams: all(&["arn:*:firehose:*:own:deliverystream/*", "arn:*:kinesis:*:own:stream/*"]),
            keys: all(&["AWS_OWNED_CMK", "arn:*:kms:*:own:key/*", "arn:*:kms:*:own:alias/*"]),
            allow_disable: false,
            max_calls_per_day: DEFAULT_CALLS_PER_DAY,
        }
    }
}

fn default_calls() -> u32 {
    DEFAULT_CALLS_PER_DAY
}
