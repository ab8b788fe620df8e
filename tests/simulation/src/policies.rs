//! What administrators allow in a run: the policies at each time, and what they mean, worked out without the operator's own reading of
//! patterns.
//!
//! A policy here is a plain value; [`Policies::of`] writes it down as the operator reads it, and [`Policies::allowed_since`] says what
//! it means. It is pure: no time of its own, no faults.

use std::collections::BTreeSet;

use jiff::Timestamp;
use stream_encryption_operator::api::policy::{NamespaceSelector, PolicyRole, StreamEncryptionPolicySpec};
use stream_encryption_operator::model::key::{Key, KeyName};
use stream_encryption_operator::model::principal::Principal;
use stream_encryption_operator::model::stream::StreamArn;

use crate::keys;
use crate::scene::{ACCOUNT, REGION};

/// The external id that every policy with a role names.
const EXTERNAL_ID: &str = "of-this-cluster";

/// What one policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// To which namespace; nothing: to all.
    pub namespace: Option<String>,
    /// Which stream of the operator's account, by name; nothing: all of them.
    pub stream: Option<String>,
    /// Which keys.
    pub keys: Keys,
    /// Whether encryption may be turned off.
    pub disable: bool,
    /// As which of the account's roles, by name; nothing: as the operator itself.
    pub role: Option<&'static str>,
}

/// Which keys a policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All of the operator's account, and AWS's.
    Own,
    /// AWS's only.
    AwsOwned,
    /// This one, by its ARN or by an alias.
    Only(usize),
}

/// What a resource causes.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// A look at the stream, or a record in it.
    Look,
    /// A Start with this key.
    Start(&'a Key),
    /// A Stop.
    Stop,
    /// A question to KMS.
    Ask(&'a KeyName),
}

/// The policies of a run, at all times.
#[derive(Clone, Debug)]
pub struct Policies {
    calls: u32,
    history: Vec<(Timestamp, Vec<Allowed>)>,
}

impl Allowed {
    /// All of the operator's account, as the chart's default policy has it.
    #[must_use]
    pub fn own_account(disable: bool) -> Self {
        Self { namespace: None, stream: None, keys: Keys::Own, disable, role: None }
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
            Keys::Own => vec!["AWS_OWNED_CMK".to_owned(), "arn:*:kms:*:own:key/*".to_owned(), alias],
            Keys::AwsOwned => vec!["AWS_OWNED_CMK".to_owned()],
            Keys::Only(number) => vec![keys::arn(number), alias],
        };
        StreamEncryptionPolicySpec {
            // Who is selected is decided before it is handed on.
            namespaces: NamespaceSelector::default(),
            role: self
                .role
                .map(|name| PolicyRole { arn: arn_of(name), external_id: Some(EXTERNAL_ID.to_owned()) }),
            streams,
            keys,
            allow_disable: self.disable,
            max_calls_per_day: calls,
        }
    }

    /// Whether a principal has the rights with which this is done, and works for that namespace.
    fn is_done_by(&self, namespace: &str, by: &Principal) -> bool {
        let role = by.role.as_ref().map(|role| (role.arn.to_string(), role.external_id.as_ref()));
        let named = |(arn, id): &(String, Option<_>)| {
            Some(arn.as_str()) == self.role.map(arn_of).as_deref() && id.is_some()
        };
        by.namespace == namespace && role.as_ref().map_or(self.role.is_none(), named)
    }

    fn speaks_of(&self, namespace: &str, stream: &StreamArn) -> bool {
        self.namespace.as_ref().is_none_or(|name| name == namespace)
            && stream.account.as_str() == ACCOUNT
            && self.stream.as_ref().is_none_or(|name| name == stream.name())
    }

    fn allows(&self, act: &Act<'_>) -> bool {
        match act {
            Act::Look => true,
            Act::Stop => self.disable,
            Act::Start(Key::AwsOwned) => !matches!(self.keys, Keys::Only(_)),
            Act::Start(Key::Customer(arn)) | Act::Ask(KeyName::Arn(arn)) => match self.keys {
                Keys::Own => arn.account.as_str() == ACCOUNT,
                Keys::AwsOwned => false,
                Keys::Only(number) => arn.to_string() == keys::arn(number),
            },
            Act::Start(Key::Unresolved(_)) => false,
            Act::Ask(KeyName::Alias(_)) => self.keys != Keys::AwsOwned,
        }
    }
}

impl Policies {
    /// These, from the beginning of time; each allows so many calls.
    #[must_use]
    pub fn new(first: Vec<Allowed>, calls: u32) -> Self {
        Self { calls, history: vec![(Timestamp::MIN, first)] }
    }

    /// Other ones, from now on.
    pub fn change(&mut self, now: Timestamp, policies: Vec<Allowed>) {
        self.history.push((now, policies));
    }

    /// Those that select a namespace, as they are written now.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Vec<StreamEncryptionPolicySpec> {
        let selects = |policy: &&Allowed| policy.namespace.as_ref().is_none_or(|name| name == namespace);
        self.now().iter().filter(selects).map(|policy| policy.spec(self.calls)).collect()
    }

    /// Whether a resource of the namespace may do this now.
    #[must_use]
    pub fn allow(&self, namespace: &str, stream: &StreamArn, act: &Act<'_>) -> bool {
        allow(self.now(), namespace, stream, act)
    }

    /// Whether policies name different roles for a stream of the namespace now.
    #[must_use]
    pub fn roles_differ(&self, namespace: &str, stream: &StreamArn) -> bool {
        roles_differ(self.now(), namespace, stream)
    }

    /// Whether a resource of the namespace might do this, as this principal, at any time since then.
    #[must_use]
    pub fn allowed_since(
        &self,
        since: Timestamp,
        namespace: &str,
        by: &Principal,
        stream: &StreamArn,
        act: &Act<'_>,
    ) -> bool {
        self.since(since).any(|policies| {
            allow(policies, namespace, stream, act)
                && !roles_differ(policies, namespace, stream)
                && speaking(policies, namespace, stream).all(|policy| policy.is_done_by(namespace, by))
        })
    }

    /// Returns whether policies allowed a namespace this stream at any time since then.
    #[must_use]
    pub fn allowed_at_some_time_since(&self, since: Timestamp, namespace: &str, stream: &StreamArn) -> bool {
        self.since(since).any(|policies| {
            allow(policies, namespace, stream, &Act::Look) && !roles_differ(policies, namespace, stream)
        })
    }

    /// Returns whether policies allowed a namespace this stream at all times since then.
    #[must_use]
    pub fn allowed_at_all_times_since(&self, since: Timestamp, namespace: &str, stream: &StreamArn) -> bool {
        self.since(since).all(|policies| allow(policies, namespace, stream, &Act::Look))
    }

    /// The policies at each time since then; those that were in effect at that time count as well.
    fn since(&self, since: Timestamp) -> impl Iterator<Item = &[Allowed]> {
        let first = self.history.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        self.history[first..].iter().map(|(_, policies)| policies.as_slice())
    }

    /// Whether any policy allows Stop to anybody now.
    #[must_use]
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
    policies.iter().filter(move |policy| policy.speaks_of(namespace, stream))
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
