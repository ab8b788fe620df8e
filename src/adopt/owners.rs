//! The tools that manage a stream, as far as its tags show. Pure.
//!
//! `CloudFormation`, ACK and Crossplane tag what they create, so their tags are certain. Terraform and its relatives add
//! no tags of their own: a tag that somebody chose is only a hint. No tags do not prove that no tool manages a stream.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::aws::Tag;

/// A tool that manages a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// The `CloudFormation` stack of this name.
    CloudFormation(String),
    /// The AWS CDK.
    Cdk,
    /// ACK (AWS Controllers for Kubernetes), with the namespace of its resource if the tags name it.
    Ack(Option<String>),
    /// Crossplane, with the name of its managed resource if the tags name it.
    Crossplane(Option<String>),
    /// Perhaps another tool, according to this tag.
    Hint {
        /// The key of the tag.
        key: String,
        /// The value of the tag.
        value: String,
    },
}

/// Keys of tags by which people name the tool that manages a resource, in lower case without `-`, `_`, `:` and spaces.
const HINT_KEYS: [&str; 8] =
    ["managedby", "createdby", "provisionedby", "provisioner", "deployedby", "iac", "iactool", "tool"];
/// The tools that such a tag may name.
const TOOLS: [&str; 10] = [
    "terraform",
    "opentofu",
    "terragrunt",
    "pulumi",
    "cloudformation",
    "cdk",
    "serverless",
    "ansible",
    "crossplane",
    "sst",
];

/// Returns the tools that these tags name.
#[must_use]
pub fn owners(tags: &[Tag]) -> Vec<Owner> {
    let value = |key: &str| tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.clone());
    let begins = |prefix: &str| tags.iter().any(|tag| tag.key.starts_with(prefix));
    let mut owners: Vec<Owner> =
        value("aws:cloudformation:stack-name").map(Owner::CloudFormation).into_iter().collect();
    if begins("aws-cdk:") || begins("cdk:") {
        owners.push(Owner::Cdk);
    }
    if begins("services.k8s.aws/") {
        owners
            .push(Owner::Ack(value("services.k8s.aws/namespace").filter(|namespace| !namespace.is_empty())));
    }
    if begins("crossplane-") {
        owners.push(Owner::Crossplane(value("crossplane-name")));
    }
    owners.extend(
        tags.iter()
            .filter(|tag| is_hint(tag))
            .map(|Tag { key, value }| Owner::Hint { key: key.clone(), value: value.clone() }),
    );
    owners
}

/// Returns whether a tag that somebody chose names a tool.
fn is_hint(tag: &Tag) -> bool {
    let key: String = tag
        .key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect();
    let value = tag.value.to_ascii_lowercase();
    let is_key_of_tool = ["terraform", "opentofu", "pulumi"].iter().any(|tool| key.starts_with(tool));
    is_key_of_tool || (HINT_KEYS.contains(&key.as_str()) && TOOLS.iter().any(|tool| value.contains(tool)))
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloudFormation(stack) => write!(f, "CloudFormation {stack}"),
            Self::Cdk => f.write_str("CDK"),
            Self::Ack(None) => f.write_str("ACK"),
            Self::Ack(Some(namespace)) => write!(f, "ACK {namespace}"),
            Self::Crossplane(None) => f.write_str("Crossplane"),
            Self::Crossplane(Some(name)) => write!(f, "Crossplane {name}"),
            Self::Hint { key, value } => write!(f, "tag {key}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tags: &[(&str, &str)]) -> Vec<String> {
        let tag = |(key, value): &(&str, &str)| Tag { key: (*key).to_owned(), value: (*value).to_owned() };
        owners(&tags.iter().map(tag).collect::<Vec<_>>()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_tool_is_recognized_by_its_own_tags() {
        for (tags, owner) in [
            (
                &[("aws:cloudformation:stack-name", "data"), ("aws:cloudformation:stack-id", "arn")][..],
                "CloudFormation data",
            ),
            (&[("aws-cdk:cr-owned", "x")], "CDK"),
            (
                &[
                    ("services.k8s.aws/controller-version", "firehose-v1"),
                    ("services.k8s.aws/namespace", "data"),
                ],
                "ACK data",
            ),
            (&[("services.k8s.aws/controller-version", "firehose-v1")], "ACK"),
            (
                &[("crossplane-kind", "stream.kinesis.aws.upbound.io"), ("crossplane-name", "clicks")],
                "Crossplane clicks",
            ),
            (&[("crossplane-providerconfig", "default")], "Crossplane"),
        ] {
            assert_eq!(of(tags), [owner], "{tags:?}");
        }
    }

    #[test]
    fn tag_of_a_person_is_a_hint() {
        for (key, value) in [
            ("ManagedBy", "terraform"),
            ("managed-by", "Terraform Cloud"),
            ("managed_by", "OpenTofu"),
            ("Provisioner", "pulumi"),
            ("terraform", "true"),
            ("Terraform:Workspace", "prod"),
            ("iac-tool", "terragrunt"),
        ] {
            assert_eq!(of(&[(key, value)]), [format!("tag {key}={value}")]);
        }
    }

    #[test]
    fn other_tags_name_no_tool() {
        let tags = [
            ("team", "terraform"),
            ("ManagedBy", "data-team"),
            ("Name", "orders"),
            ("tool", ""),
            ("cost", "1"),
        ];
        assert_eq!(of(&tags), [""; 0]);
        assert_eq!(of(&[]), [""; 0]);
    }

    #[test]
    fn several_tools_are_all_named() {
        let tags = [("aws:cloudformation:stack-name", "data"), ("aws-cdk:x", "y"), ("managed-by", "cdk")];
        assert_eq!(of(&tags), ["CloudFormation data", "CDK", "tag managed-by=cdk"]);
    }
}
