//! The flags of `iam`: the policy document to print, and its streams, keys and roles.
//!
//! This module parses them into streams, keys and roles; [`crate::iam`] decides the content of the
//! documents.

use clap::{Args, Subcommand, ValueEnum};
use stream_encryption_core::model::arn::{KeyArn, RoleArn};
use stream_encryption_core::model::principal::ExternalId;

use crate::iam::document::{LONGEST_MANAGED_POLICY, PolicyDocument, characters};
use crate::iam::events::{self, QueueArn, RuleArn};
use crate::iam::role::{self, ObjectName, OidcProvider};
use crate::iam::scope::{GrantedKeys, GrantedStreams, Scope, ScopeError};
use crate::iam::{self, Feature};

/// A policy document to print.
#[derive(Debug, Subcommand)]
pub enum Document {
    /// The policy of the operator's role. In hub and spoke: of its role in each spoke.
    Policy(PolicyArguments),
    /// The statements that a key policy needs if the key is in another account or its policy does not
    /// delegate to IAM.
    KeyPolicy(KeyPolicyArguments),
    /// The policy of the operator's role in the hub: permission to assume the roles of the spokes.
    Hub {
        /// The operator's role in a spoke; one for each spoke.
        #[arg(long = "spoke-role", value_name = "ARN", required = true, num_args = 1..)]
        spoke_roles: Vec<RoleArn>,
    },
    /// The trust policy of the operator's role in a spoke.
    SpokeTrust {
        /// The operator's role in the hub.
        #[arg(long, value_name = "ARN")]
        hub_role: RoleArn,
        /// The external id that the operator must present; choose a different one for each spoke.
        #[arg(long, value_name = "ID")]
        external_id: ExternalId,
    },
    /// The policies for the queue of AWS's events.
    Events {
        /// The policy to print.
        #[command(subcommand)]
        document: EventsDocument,
    },
    /// The policy of a person who runs `adopt`: permission to list and describe streams, and to read their tags.
    Adopt,
    /// The trust policy of the operator's role, for EKS Pod Identity.
    TrustPodIdentity,
    /// The trust policy of the operator's role, for IRSA.
    TrustIrsa {
        /// The cluster's OIDC provider.
        #[arg(long, value_name = "ARN")]
        oidc_provider: OidcProvider,
        /// The operator's namespace.
        #[arg(long, default_value = "stream-encryption-system")]
        namespace: ObjectName,
        /// The operator's service account.
        #[arg(long, default_value = "stream-encryption-operator")]
        service_account: ObjectName,
    },
}

/// A policy for the queue of AWS's events.
#[derive(Debug, Subcommand)]
pub enum EventsDocument {
    /// What the operator's role needs on the queue, in addition to its other policies.
    Policy {
        /// The queue.
        #[arg(long, value_name = "ARN")]
        queue: QueueArn,
        /// The customer managed key that encrypts the queue. Default: none.
        #[arg(long, value_name = "ARN")]
        key: Option<KeyArn>,
    },
    /// The policy of the queue itself: only the given rules may send to it.
    QueuePolicy {
        /// The queue.
        #[arg(long, value_name = "ARN")]
        queue: QueueArn,
        /// A rule that sends to the queue; one for each: events, heartbeat and, in a hub, forwarded events.
        #[arg(long = "rule", value_name = "ARN", required = true, num_args = 1..)]
        rules: Vec<RuleArn>,
    },
}

/// The streams and keys.
#[derive(Debug, Args)]
pub struct About {
    /// The ARN of a stream; * matches any part of its name.
    #[arg(long = "stream", value_name = "ARN", required = true, num_args = 1..)]
    streams: Vec<GrantedStreams>,
    /// The ARN of a customer managed key, or arn:aws:kms:REGION:ACCOUNT:key/*. Default: none, only keys of
    /// AWS.
    #[arg(long = "key", value_name = "ARN", num_args = 1..)]
    keys: Vec<GrantedKeys>,
}

/// The flags of `iam policy`.
#[derive(Debug, Args)]
pub struct PolicyArguments {
    #[command(flatten)]
    about: About,
    /// The ARN of the key of alias/aws/kinesis, if Kinesis streams use it. Default: without --key, every key
    /// of their account and region.
    #[arg(long = "kinesis-key", value_name = "ARN", num_args = 1..)]
    kinesis_keys: Vec<GrantedKeys>,
    /// Allow writing a record; required if a resource has `verification: PutRecord`.
    #[arg(long)]
    verify: bool,
    /// Allow disabling encryption; required if a policy of the cluster has `allowDisable`.
    #[arg(long)]
    disable: bool,
    /// Print only what this feature adds, for a separate policy beside the first one.
    #[arg(long, value_enum, value_name = "FEATURE", conflicts_with_all = ["verify", "disable"])]
    only: Option<Added>,
}

/// The flags of `iam key-policy`.
#[derive(Debug, Args)]
pub struct KeyPolicyArguments {
    #[command(flatten)]
    about: About,
    /// The operator's role.
    #[arg(long, value_name = "ARN")]
    role: RoleArn,
    /// Allow encrypting a record; required if a resource has `verification: PutRecord`.
    #[arg(long)]
    verify: bool,
}

/// A feature that a separate policy may allow.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Added {
    /// Write a record.
    Verify,
    /// Disable encryption.
    Disable,
}

impl Document {
    /// Returns the document.
    pub fn policy(&self) -> anyhow::Result<PolicyDocument> {
        Ok(match self {
            Self::Policy(arguments) => iam::policy(&arguments.scope()?, &arguments.features()),
            Self::KeyPolicy(KeyPolicyArguments { about, role, verify }) => {
                anyhow::ensure!(!about.keys.is_empty(), "no key is given; set --key ARN");
                let scope = Scope::new(about.streams.clone(), about.keys.clone(), Vec::new())?;
                iam::key_policy(&scope, &features(*verify, false), role)
            }
            Self::Hub { spoke_roles } => role::hub(spoke_roles),
            Self::SpokeTrust { hub_role, external_id } => role::spoke_trust(hub_role, external_id),
            Self::Events { document: EventsDocument::Policy { queue, key } } => {
                events::policy(queue, key.as_ref())?
            }
            Self::Events { document: EventsDocument::QueuePolicy { queue, rules } } => {
                events::queue_policy(queue, rules)?
            }
            Self::Adopt => iam::adopt::policy(),
            Self::TrustPodIdentity => role::pod_identity_trust(),
            Self::TrustIrsa { oidc_provider, namespace, service_account } => {
                role::irsa_trust(oidc_provider, namespace, service_account)
            }
        })
    }

    /// Returns advice about the document, if any.
    #[must_use]
    pub fn advice(&self, policy: &PolicyDocument) -> Option<String> {
        let characters = characters(policy);
        let is_managed = matches!(self, Self::Policy(_) | Self::Hub { .. });
        (is_managed && characters > LONGEST_MANAGED_POLICY).then(|| {
            format!(
                "This policy has {characters} characters, and IAM allows {LONGEST_MANAGED_POLICY} in a managed policy: name streams by pattern, or print several policies."
            )
        })
    }
}

impl PolicyArguments {
    fn scope(&self) -> Result<Scope, ScopeError> {
        let About { streams, keys } = &self.about;
        Scope::new(streams.clone(), keys.clone(), self.kinesis_keys.clone())
    }

    fn features(&self) -> Vec<Feature> {
        match self.only {
            Some(Added::Verify) => vec![Feature::Verify],
            Some(Added::Disable) => vec![Feature::Disable],
            None => features(self.verify, self.disable),
        }
    }
}

fn features(verify: bool, disable: bool) -> Vec<Feature> {
    let added = [(verify, Feature::Verify), (disable, Feature::Disable)];
    let added = added.into_iter().filter(|(asked, _)| *asked).map(|(_, feature)| feature);
    std::iter::once(Feature::Encrypt).chain(added).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Arguments, Command};
    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
    const CLICKS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:events";

    fn iam(flags: &[&str]) -> anyhow::Result<(Document, PolicyDocument)> {
        let arguments = ["stream-encryption-operator", "iam"].iter().chain(flags);
        let Command::Iam { document } = Arguments::try_parse_from(arguments)?.command else {
            unreachable!("`iam` was given")
        };
        let policy = document.policy()?;
        Ok((document, policy))
    }

    #[test]
    fn invalid_flags_are_rejected_with_a_hint() {
        let elsewhere = ORDERS.replace("111122223333", "444455556666");
        let key_elsewhere = KEY.replace("eu-west-1", "us-east-1");
        for (flags, words) in [
            (&["policy"][..], "--stream <ARN>"),
            (
                &["policy", "--stream", "orders"],
                "expected arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME",
            ),
            (&["policy", "--stream", "arn:aws:firehose:eu-west-1:*:deliverystream/x"], "expected 12 digits"),
            (&["policy", "--stream", "arn:aws:firehose:*:111122223333:deliverystream/x"], "expected a code"),
            (&["policy", "--stream", ORDERS, &elsewhere], "print one policy for each"),
            (
                &["policy", "--stream", ORDERS, "--key", "alias/orders"],
                "`aws kms describe-key --key-id ALIAS`",
            ),
            (&["policy", "--stream", ORDERS, "--key", &key_elsewhere], "only streams of its own region"),
            (&["policy", "--stream", ORDERS, "--kinesis-key", KEY], "cannot be alias/aws/kinesis"),
            (&["policy", "--stream", ORDERS, "--only", "verify", "--disable"], "cannot be used with"),
            (
                &["key-policy", "--role", "arn:aws:iam::111122223333:role/x", "--stream", CLICKS],
                "set --key ARN",
            ),
            (&["hub"], "--spoke-role <ARN>"),
            (
                &["hub", "--spoke-role", "arn:aws:sts::111122223333:assumed-role/x/y"],
                "not an assumed-role session",
            ),
            (&["spoke-trust", "--hub-role", "arn:aws:iam::111122223333:role/x"], "--external-id <ID>"),
            (
                &["spoke-trust", "--hub-role", "arn:aws:iam::111122223333:role/x", "--external-id", "a b"],
                "2 to 1224",
            ),
            (
                &["trust-irsa", "--oidc-provider", "oidc.eks.eu-west-1.amazonaws.com/id/X"],
                "list-open-id-connect",
            ),
            (
                &["events", "policy", "--queue", "https://sqs.eu-west-1.amazonaws.com/111122223333/x"],
                "expected arn:aws:sqs:REGION:ACCOUNT:NAME",
            ),
            (
                &["events", "policy", "--queue", QUEUE, "--key", &key_elsewhere],
                "another region than the queue",
            ),
            (&["events", "queue-policy", "--queue", QUEUE], "--rule <ARN>"),
            (&["events", "queue-policy", "--queue", QUEUE, "--rule", "x"], "aws events describe-rule"),
            (
                &[
                    "events",
                    "queue-policy",
                    "--queue",
                    QUEUE,
                    "--rule",
                    "arn:aws:events:us-east-1:111122223333:rule/x",
                ],
                "another account or region than the queue",
            ),
        ] {
            let error = iam(flags).unwrap_err().to_string();
            assert!(error.contains(words), "{flags:?}: {error}");
        }
    }

    #[test]
    fn oversized_managed_policy_is_printed_with_advice() {
        let written = |streams: usize| {
            let streams: Vec<String> = (0..streams).map(|at| format!("{CLICKS}-{at}")).collect();
            let mut flags = vec!["policy", "--stream"];
            flags.extend(streams.iter().map(String::as_str));
            let (document, policy) = iam(&flags).unwrap();
            document.advice(&policy)
        };
        assert_eq!(written(30), None);
        assert!(written(60).unwrap().contains("name streams by pattern"));
    }
}
