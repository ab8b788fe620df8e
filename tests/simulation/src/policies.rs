//! The policies of a run at each time, and the access that they allow, computed independently of the
//! operator's own pattern matching.
//!
//! A policy here is a plain value; [`Policies::for_namespace`] converts it to the form that the operator
//! reads, and [`Policies::allowed_since`] evaluates it. This module is pure: it has no time and no faults of
//! its own.

use std::collections::BTreeSet;

use jiff::Timestamp;
use stream_encryption_api::policy::{NamespaceSelector, PolicyRole, StreamEncryptionPolicySpec};
use stream_encryption_core::model::arn::{KmsKeyId, StreamArn};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::principal::Principal;

use crate::environment::{ACCOUNT, REGION};
use crate::keys;

/// The external id in every policy with a role.
const EXTERNAL_ID: &str = "of-this-cluster";

/// The content of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The namespace; `None` for all namespaces.
    pub namespace: Option<String>,
    /// The name of the stream in the operator's account; `None` for all streams.
    pub stream: Option<String>,
    pub keys: Keys,
    /// Whether disabling encryption is allowed.
    pub allow_disable: bool,
    /// The name of the role in the account; `None` for the operator's own credentials.
    pub role: Option<&'static str>,
}

/// The keys that a policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All keys of the operator's account, and the AWS owned key.
    AwsAccount,
    /// The AWS owned key only.
    AwsOwned,
    /// This key, by its ARN or by an alias.
    Only(usize),
}

/// An access to AWS on behalf of a resource.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// A Describe of the stream, or a record in it.
    Describe,
    Start(&'a Key),
    Stop,
    /// A request to KMS.
    DescribeKey(&'a KmsKeyId),
}

/// The policies of a run, at all times.
#[derive(Clone, Debug)]
pub struct Policies {
    max_calls: u32,
    history: Vec<(Timestamp, Vec<Policy>)>,
}

impl Policy {
    /// Returns a policy that allows everything in the operator's account, as the chart's default policy does.
    pub fn own_account(allow_disable: bool) -> Self {
        Self { namespace: None, stream: None, keys: Keys::AwsAccount, allow_disable, role: None }
    }

    fn spec(&self, max_calls: u32) -> StreamEncryptionPolicySpec {
        let streams = match &self.stream {
            None => vec![
                "arn:*:firehose:*:own:deliverystream/*".to_owned(),
                "arn:*:kinesis:*:own:stream/*".to_owned(),
            ],
            Some(name) => vec![
                format!("arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{name}"),
                format!("arn:aws:kinesis:*:own:stream/{name}"),
            ],
        };
        let alias = "arn:aws:kms:*:own:alias/*".to_owned();
        let keys = match self.keys {
            Keys::AwsAccount => {
                vec!["AWS_OWNED_CMK".to_owned(), "arn:*:kms:*:own:key/*".to_owned(), alias]
            }
            Keys::AwsOwned => vec!["AWS_OWNED_CMK".to_owned()],
            Keys::Only(number) => vec![keys::arn(number), alias],
        };
        StreamEncryptionPolicySpec {
            // The namespaces are selected before the policy is passed on.
            namespace_selector: NamespaceSelector::default(),
            role: self
                .role
                .map(|name| PolicyRole { arn: arn_of(name), external_id: Some(EXTERNAL_ID.to_owned()) }),
            streams,
            keys,
            allow_disable: self.allow_disable,
            max_calls_per_day: max_calls,
        }
    }

    /// Returns whether a principal has this policy's role and acts for that namespace.
    fn is_used_by(&self, namespace: &str, principal: &Principal) -> bool {
        let role = principal.role.as_ref().map(|role| (role.arn.to_string(), role.external_id.as_ref()));
        let is_own_role = |(arn, id): &(String, Option<_>)| {
            Some(arn.as_str()) == self.role.map(arn_of).as_deref() && id.is_some()
        };
        principal.namespace == namespace && role.as_ref().map_or(self.role.is_none(), is_own_role)
    }

    fn applies_to(&self, namespace: &str, stream: &StreamArn) -> bool {
        self.namespace.as_ref().is_none_or(|name| name == namespace)
            && stream.account.as_str() == ACCOUNT
            && self.stream.as_ref().is_none_or(|name| name == stream.name())
    }

    fn allows(&self, access: &Access<'_>) -> bool {
        match access {
            Access::Describe => true,
            Access::Stop => self.allow_disable,
            Access::Start(Key::AwsOwned) => !matches!(self.keys, Keys::Only(_)),
            Access::Start(Key::Customer(arn)) | Access::DescribeKey(KmsKeyId::Arn(arn)) => match self.keys {
                Keys::AwsAccount => arn.account.as_str() == ACCOUNT,
                Keys::AwsOwned => false,
                Keys::Only(number) => arn.to_string() == keys::arn(number),
            },
            Access::Start(Key::Unresolved(_)) => false,
            Access::DescribeKey(KmsKeyId::Alias(_)) => self.keys != Keys::AwsOwned,
        }
    }
}

impl Policies {
    /// Creates policies that are in effect from the start, with this limit of calls in each.
    pub fn new(first: Vec<Policy>, max_calls: u32) -> Self {
        Self { max_calls, history: vec![(Timestamp::MIN, first)] }
    }

    /// Replaces the policies from now on.
    pub fn change(&mut self, now: Timestamp, policies: Vec<Policy>) {
        self.history.push((now, policies));
    }

    /// Returns the current policies that select a namespace, in the operator's form.
    pub fn for_namespace(&self, namespace: &str) -> Vec<StreamEncryptionPolicySpec> {
        self.after(self.changes(), namespace)
    }

    /// Returns the number of changes so far.
    pub fn changes(&self) -> usize {
        self.history.len() - 1
    }

    /// Returns the time of this change.
    pub fn changed_at(&self, change: usize) -> Timestamp {
        self.history[change].0
    }

    /// Returns the policies that selected a namespace after this change, in the operator's form.
    pub fn after(&self, change: usize, namespace: &str) -> Vec<StreamEncryptionPolicySpec> {
        let selects = |policy: &&Policy| policy.namespace.as_ref().is_none_or(|name| name == namespace);
        self.history[change].1.iter().filter(selects).map(|policy| policy.spec(self.max_calls)).collect()
    }

    /// Returns whether a resource of the namespace may do this now.
    pub fn allow(&self, namespace: &str, stream: &StreamArn, access: &Access<'_>) -> bool {
        allow(self.current(), namespace, stream, access)
    }

    /// Returns whether the current policies name different roles for a stream of the namespace.
    pub fn roles_differ(&self, namespace: &str, stream: &StreamArn) -> bool {
        roles_differ(self.current(), namespace, stream)
    }

    /// Returns whether a resource of the namespace was allowed to do this, as this principal, at any time
    /// since then.
    pub fn allowed_since(
        &self,
        since: Timestamp,
        namespace: &str,
        principal: &Principal,
        stream: &StreamArn,
        access: &Access<'_>,
    ) -> bool {
        self.since(since).any(|policies| {
            allow(policies, namespace, stream, access)
                && !roles_differ(policies, namespace, stream)
                && applicable(policies, namespace, stream)
                    .all(|policy| policy.is_used_by(namespace, principal))
        })
    }

    /// Returns whether policies allowed a namespace this stream at any time since then.
    pub fn allowed_at_any_time_since(&self, since: Timestamp, namespace: &str, stream: &StreamArn) -> bool {
        self.since(since).any(|policies| {
            allow(policies, namespace, stream, &Access::Describe)
                && !roles_differ(policies, namespace, stream)
        })
    }

    /// Returns whether policies allowed a namespace this stream at all times since then.
    pub fn allowed_at_all_times_since(&self, since: Timestamp, namespace: &str, stream: &StreamArn) -> bool {
        self.since(since).all(|policies| allow(policies, namespace, stream, &Access::Describe))
    }

    /// Returns the policies at each time since then, including those in effect at that time.
    fn since(&self, since: Timestamp) -> impl Iterator<Item = &[Policy]> {
        let first = self.history.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        self.history[first..].iter().map(|(_, policies)| policies.as_slice())
    }

    /// Returns whether any current policy allows Stop.
    pub fn allow_any_stop(&self) -> bool {
        self.current().iter().any(|policy| policy.allow_disable)
    }

    fn current(&self) -> &[Policy] {
        self.history.last().map_or(&[], |(_, policies)| policies)
    }
}

fn applicable<'a>(
    policies: &'a [Policy],
    namespace: &str,
    stream: &StreamArn,
) -> impl Iterator<Item = &'a Policy> {
    policies.iter().filter(move |policy| policy.applies_to(namespace, stream))
}

fn allow(policies: &[Policy], namespace: &str, stream: &StreamArn, access: &Access<'_>) -> bool {
    applicable(policies, namespace, stream).any(|policy| policy.allows(access))
}

fn roles_differ(policies: &[Policy], namespace: &str, stream: &StreamArn) -> bool {
    let roles: BTreeSet<_> = applicable(policies, namespace, stream).map(|policy| policy.role).collect();
    roles.len() > 1
}

fn arn_of(role: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}
