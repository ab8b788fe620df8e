//! `StreamEncryptionPolicy`: which namespaces may have which streams encrypted, with which keys. Administrators write it.
//!
//! Without a policy nothing is called. Several that select a namespace add up, stream by stream. What a pattern means is in
//! [`crate::model::pattern`]; here is only what may be written.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The calls that a policy allows per stream in 24 hours, unless it says otherwise: of AWS's 25, the rest is left to people.
pub const DEFAULT_CALLS_PER_DAY: u32 = 20;

/// What an administrator allows some namespaces.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "streamencryption.dev",
    version = "v1alpha1",
    kind = "StreamEncryptionPolicy",
    shortname = "strencpol",
    category = "encryption",
    doc = "Allows namespaces to have streams encrypted: which namespaces, which streams, which keys. Where no policy speaks of a stream, the operator calls nothing.",
    printcolumn(name = "Streams", type_ = "string", json_path = ".spec.streams"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role.arn", priority = 1),
    printcolumn(name = "Disable", type_ = "boolean", json_path = ".spec.allowDisable"),
    printcolumn(name = "Calls", type_ = "integer", json_path = ".spec.maxCallsPerDay"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct StreamEncryptionPolicySpec {
    /// Which namespaces, by their labels. {} is every namespace; one by its name: matchLabels {kubernetes.io/metadata.name: NAME}.
    pub namespaces: NamespaceSelector,
    /// The role that the operator assumes for these streams; without one it uses its own rights. Policies that speak of one stream have to name the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PolicyRole>,
    /// Which streams: ARNs, with * for the partition, for the region, or for any characters in the name; own stands for the account of the role, or without one for the operator's.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(p, p.matches('^arn:([*]|aws(-[a-z]+)*):(firehose:([*]|[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?):(own|[0-9]{12}):deliverystream|kinesis:([*]|[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?):(own|[0-9]{12}):stream)/[a-zA-Z0-9_.*-]{1,128}$'))").message("write patterns of streams' ARNs: arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, with * for the partition, for the region or in the name; the account is 12 digits or own"))]
    pub streams: Vec<String>,
    /// With which keys: `AWS_OWNED_CMK`, and patterns of the ARNs of keys and of aliases. A key that is named by an alias has to be allowed by both.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(p, p == 'AWS_OWNED_CMK' || p.matches('^arn:([*]|aws(-[a-z]+)*):kms:([*]|[a-z]{2,4}(-[a-z]+)+-[1-9][0-9]?):(own|[0-9]{12}):(key/[a-zA-Z0-9*-]{1,128}|alias/[a-zA-Z0-9/_*-]{1,250})$'))").message("write AWS_OWNED_CMK, or patterns of ARNs: arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME, with * for the partition, for the region or in the last part; the account is 12 digits or own"))]
    pub keys: Vec<String>,
    /// Whether encryption may be turned off: encryption: Disabled, deletionPolicy: Disable. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_disable: bool,
    /// Calls of Start and Stop per stream in 24 hours, of AWS's 25. Default: 20.
    #[serde(default = "default_calls")]
    #[schemars(range(min = 1, max = 25))]
    pub max_calls_per_day: u32,
}

/// A role in AWS. Whoever may write policies chooses it; no `StreamEncryption` can.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRole {
    /// Its ARN.
    #[schemars(length(min = 1, max = 612))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([a-zA-Z0-9_+=,.@:-]+/)*[a-zA-Z0-9_+=,.@-]{1,64}$')").message("write arn:aws:iam::ACCOUNT:role/NAME, with the path before NAME if it has one: the role itself, and not a session of it"))]
    pub arn: String,
    /// The external id that its trust policy demands.
    #[serde(default, rename = "externalID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_+=,.@:/-]*$')").message("write 2 to 1224 of the characters a-z A-Z 0-9 _ + = , . @ : / -"))]
    pub external_id: Option<String>,
}

/// Namespaces by their labels; all of what is written has to be true of one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// These labels with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<LabelCondition>,
}

/// A condition of a label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)").message("write values with In and NotIn, and none with Exists and DoesNotExist"))]
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

/// What a label has to do with the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of them.
    In,
    /// It has none of them, or is absent.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl LabelOperator {
    /// As Kubernetes' own selectors have it.
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
    /// Whether it selects every namespace, whatever its labels.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl StreamEncryptionPolicySpec {
    /// What the chart's `defaultPolicy` says: every namespace may have the streams of the operator's own account encrypted, with the keys
    /// of that account, and not turned off.
    #[must_use]
    pub fn own_account() -> Self {
        let all = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Self {
            namespaces: NamespaceSelector::default(),
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
