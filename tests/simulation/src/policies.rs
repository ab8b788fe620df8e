//! The policies of a run at each time, and their meaning, computed independently of the operator's own
//! pattern matching.
//!
//! A policy here is a plain value; [`Policies::of`] converts it to the form that the operator reads, and
//! [`Policies::allowed_since`] returns its meaning. This module is pure: it has no time and no faults of its
//! own.

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
pub struct Allowed {
    /// The namespace; `None` for all namespaces.
    pub namespace: Option<String>,
    /// The name of the stream in the operator's account; `None` for all streams.
    pub stream: Option<String>,
    pub keys: Keys,
    /// Whether disabling encryption is allowed.
    pub disable: bool,
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

/// A request on behalf of a resource.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// A Describe of the stream, or a record in it.
    Look,
    Start(&'a Key),
    Stop,
    /// A request to KMS.
    Ask(&'a KmsKeyId),
}

/// The policies of a run, at all times.
#[derive(Clone, Debug)]
pub struct Policies {
    calls: u32,
    history: Vec<(Timestamp, Vec<Allowed>)>,
}

impl Allowed {
    /// Returns a policy that allows everything in the operator's account, as the chart's default policy does.
    pub fn own_account(disable: bool) -> Self {
        Self { namespace: None, stream: None, keys: Keys::AwsAccount, disable, role: None }
    }

    fn spec(&self, calls: u32) -> StreamEncryptionPolicySpec {
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
            allow_disable: self.disable,
            max_calls_per_day: calls,
        }
    }

    /// Returns whether a principal has this policy's role and acts for that namespace.
    fn is_done_by(&self, namespace: &str, principal: &Principal) -> bool {
        let role = principal.role.as_ref().map(|role| (role.arn.to_string(), role.external_id.as_ref()));
        let named = |(arn, id): &(String, Option<_>)| {
            Some(arn.as_str()) == self.role.map(arn_of).as_deref() && id.is_some()
        };
        principal.namespace == namespace && role.as_ref().map_or(self.role.is_none(), named)
    }

    fn applies_to(&self, namespace: &str, stream: &StreamArn) -> bool {
        self.namespace.as_ref().is_none_or(|name| name == namespace)
            && stream.account.as_str() == ACCOUNT
            && self.stream.as_ref().is_none_or(|name| name == stream.name())
    }

    fn allows(&self, act: &Act<'_>) -> bool {
        match act {
            Act::Look => true,
            Act::Stop => self.disable,
            Act::Start(Key::AwsOwned) => !matches!(self.keys, Keys::Only(_)),
            Act::Start(Key::Customer(arn)) | Act::Ask(KmsKeyId::Arn(arn)) => match self.keys {
                Keys::AwsAccount => arn.account.as_str() == ACCOUNT,
                Keys::AwsOwned => false,
                Keys::Only(number) => arn.to_string() == keys::arn(number),
            },
            Act::Start(Key::Unresolved(_)) => false,
            Act::Ask(KmsKeyId::Alias(_)) => self.keys != Keys::AwsOwned,
        }
    }
}

impl Policies {
    /// Creates policies that are in effect from the start, with this limit of calls in each.
    pub fn new(first: Vec<Allowed>, calls: u32) -> Self {
        Self { calls, history: vec![(Timestamp::MIN, first)] }
    }

    /// Replaces the policies from now on.
    pub fn change(&mut self, now: Timestamp, policies: Vec<Allowed>) {
        self.history.push((now, policies));
    }

    /// Returns the current policies that select a namespace, in the operator's form.
    pub fn of(&self, namespace: &str) -> Vec<StreamEncryptionPolicySpec> {
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
        let selects = |policy: &&Allowed| policy.namespace.as_ref().is_none_or(|name| name == namespace);
        self.history[change].1.iter().filter(selects).map(|policy| policy.spec(self.calls)).collect()
    }

    /// Returns whether a resource of the namespace may do this now.
    pub fn allow(&self, namespace: &str, stream: &StreamArn, act: &Act<'_>) -> bool {
        allow(self.now(), namespace, stream, act)
    }

    /// Returns whether the current policies name different roles for a stream of the namespace.
    pub fn roles_differ(&self, namespace: &str, stream: &StreamArn) -> bool {
        roles_differ(self.now(), namespace, stream)
    }

    /// Returns whether a resource of the namespace was allowed to do this, as this principal, at any time
    /// since then.
    pub fn allowed_since(
        &self,
        since: Timestamp,
        namespace: &str,
        principal: &Principal,
        stream: &StreamArn,
        act: &Act<'_>,
    ) -> bool {
        self.since(since).any(|policies| {
            allow(policies, namespace, stream, act)
                && !roles_differ(policies, namespace, stream)
                && speaking(policies, namespace, stream).all(|policy| policy.is_done_by(namespace, principal))
        })
    }

    /// Returns whether policies allowed a namespace this stream at any time since then.
    pub fn allowed_at_some_time_since(&self, since: Timestamp, namespace: &str, stream: &StreamArn) -> bool {
        self.since(since).any(|policies| {
            allow(policies, namespace, stream, &Act::Look) && !roles_differ(policies, namespace, stream)
        })
    }

    /// Returns whether policies allowed a namespace this stream at all times since then.
    pub fn allowed_at_all_times_since(&self, since: Timestamp, namespace: &str, stream: &StreamArn) -> bool {
        self.since(since).all(|policies| allow(policies, namespace, stream, &Act::Look))
    }

    /// Returns the policies at each time since then, including those in effect at that time.
    fn since(&self, since: Timestamp) -> impl Iterator<Item = &[Allowed]> {
        let first = self.history.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        self.history[first..].iter().map(|(_, policies)| policies.as_slice())
    }

    /// Returns whether any current policy allows Stop.
    pub fn allow_any_stop(&self) -> bool {
        self.now().iter().any(|policy| policy.disable)
    }

    fn now(&self) -> &[Allowed] {
        self.history.last().map_or(&[], |(_, policies)| policies)
    }
}

fn speaking<'a>(
    policies: &'a [Allowed],
    namespace: &str,
    stream: &StreamArn,
) -> impl Iterator<Item = &'a Allowed> {
    policies.iter().filter(move |policy| policy.applies_to(namespace, stream))
}

fn allow(policies: &[Allowed], namespace: &str, stream: &StreamArn, act: &Act<'_>) -> bool {
    speaking(policies, namespace, stream).any(|policy| policy.allows(act))
}

fn roles_differ(policies: &[Allowed], namespace: &str, stream: &StreamArn) -> bool {
    let roles: BTreeSet<_> = speaking(policies, namespace, stream).map(|policy| policy.role).collect();
    roles.len() > 1
}

fn arn_of(role: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}
