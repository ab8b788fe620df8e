//! Permissions of a resource: the streams, the keys, and whether it may disable encryption.
//!
//! Only policies grant permissions; without one, nothing is allowed. The permissions for a stream are the sum
//! of the policies that apply to it. Permissions are checked before any AWS request, and a denial does not
//! reveal whether the stream or the key exists. A policy may name the role with which the requests are made;
//! a resource cannot. If policies name two roles for one stream, neither is used.

use std::borrow::Cow;

use stream_encryption_api::policy::{PolicyRole, StreamEncryptionPolicySpec};

use super::arn::pattern::{KeyPattern, StreamPattern};
use super::arn::{AwsAccount, ParseError, StreamArn};
use super::key::Key;
use super::principal::Role;
use super::service::AWS_LIMIT;

/// The combined policies of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectivePolicy {
    own_account: AwsAccount,
    policies: Vec<Policy>,
}

/// One parsed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    role: Option<Role>,
    streams: Vec<StreamPattern>,
    keys: Vec<KeyPattern>,
    allow_disable: bool,
    max_calls_per_day: u32,
}

/// The part of a request that the policies deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The stream.
    Stream,
    /// The stream, because policies name different roles for it.
    Roles,
    /// The key.
    Key,
    /// Disabling encryption, now or when the resource is deleted.
    Disable,
}

impl Policy {
    /// Parses a policy and returns the errors in it. An invalid pattern allows nothing and is reported; the
    /// schema rejects it, but an object may be older than the rule. With an invalid role the whole policy
    /// allows nothing, because it was not meant for the operator's own credentials.
    #[must_use]
    pub fn read(spec: &StreamEncryptionPolicySpec) -> (Option<Self>, Vec<ParseError>) {
        let role = match spec.role.as_ref().map(role).transpose() {
            Ok(role) => role,
            Err(error) => return (None, vec![error]),
        };
        let mut malformed = Vec::new();
        let mut read = |error| malformed.push(error);
        let streams = spec.streams.iter().filter_map(|text| text.parse().map_err(&mut read).ok()).collect();
        let keys = spec.keys.iter().filter_map(|text| text.parse().map_err(&mut read).ok()).collect();
        let policy = Self {
            role,
            streams,
            keys,
            allow_disable: spec.allow_disable,
            max_calls_per_day: spec.max_calls_per_day.min(AWS_LIMIT),
        };
        (Some(policy), malformed)
    }

    /// Returns the account for which the word `own` stands in the policy: that of its role, otherwise the
    /// operator's.
    fn own_account<'a>(&self, operator: &'a AwsAccount) -> Cow<'a, AwsAccount> {
        match &self.role {
            Some(Role { arn, .. }) => {
                Cow::Owned(AwsAccount { account: arn.account.clone(), partition: arn.partition.clone() })
            }
            None => Cow::Borrowed(operator),
        }
    }

    /// Returns whether the permissions for this stream depend on the operator's account: the policy contains
    /// the word `own`, names no role, and may apply to the stream.
    #[must_use]
    pub fn depends_on_operator(&self, stream: &StreamArn) -> bool {
        let same = AwsAccount::of(stream);
        let by_own_account =
            |pattern: &StreamPattern| pattern.is_of_own_account() && pattern.matches(stream, &same);
        self.role.is_none()
            && self.applies_to(stream, &same)
            && (self.streams.iter().any(by_own_account)
                || self.keys.iter().any(KeyPattern::is_of_own_account))
    }

    /// Returns whether the streams that the policy allows depend on the operator's account.
    #[must_use]
    pub fn streams_depend_on_operator(&self) -> bool {
        self.role.is_none() && self.streams.iter().any(StreamPattern::is_of_own_account)
    }

    /// Returns whether the policy allows this stream; `operator` is the operator's account.
    #[must_use]
    pub fn applies_to(&self, stream: &StreamArn, operator: &AwsAccount) -> bool {
        let own_account = self.own_account(operator);
        self.streams.iter().any(|pattern| pattern.matches(stream, &own_account))
    }
}

fn role(written: &PolicyRole) -> Result<Role, ParseError> {
    let external_id = written.external_id.as_deref().map(str::parse).transpose()?;
    Ok(Role { arn: written.arn.parse()?, external_id })
}

impl EffectivePolicy {
    /// Combines these policies.
    #[must_use]
    pub fn of(policies: Vec<Policy>, own_account: AwsAccount) -> Self {
        Self { own_account, policies }
    }

    /// Returns the account for which the word `own` stands in a policy without a role.
    #[must_use]
    pub fn own_account(&self) -> &AwsAccount {
        &self.own_account
    }

    /// Returns the role with which this stream may be described and changed. `None` means the operator's own
    /// credentials.
    pub fn role_for(&self, stream: &StreamArn) -> Result<Option<&Role>, Denial> {
        let policy = self.applicable_policies(stream)?.next().ok_or(Denial::Stream)?;
        Ok(policy.role.as_ref())
    }

    /// Returns whether a policy allows the stream, even if several policies name different roles for it.
    #[must_use]
    pub fn allows(&self, stream: &StreamArn) -> bool {
        self.role_for(stream) != Err(Denial::Stream)
    }

    /// Returns an error if this key may not be used for the stream.
    pub fn check_key(&self, stream: &StreamArn, key: &Key) -> Result<(), Denial> {
        self.check_key_patterns(stream, |pattern, own_account| pattern.matches(key, own_account))
    }

    /// Returns an error if this alias, of the stream's account and region, may not be used for the stream.
    pub fn check_alias(&self, stream: &StreamArn, alias: &str) -> Result<(), Denial> {
        self.check_key_patterns(stream, |pattern, own_account| {
            pattern.matches_alias(alias, stream, own_account)
        })
    }

    /// Returns an error if encryption of this stream may not be disabled.
    pub fn check_disable(&self, stream: &StreamArn) -> Result<(), Denial> {
        let allowed = self.applicable_policies(stream)?.any(|policy| policy.allow_disable);
        if allowed { Ok(()) } else { Err(Denial::Disable) }
    }

    /// Returns the number of calls allowed for this stream in 24 hours, of AWS's 25; 0 if no policy applies.
    #[must_use]
    pub fn max_calls_per_day(&self, stream: &StreamArn) -> u32 {
        let applicable = self.applicable_policies(stream).ok();
        applicable.and_then(|policies| policies.map(|policy| policy.max_calls_per_day).max()).unwrap_or(0)
    }

    /// Returns the policies that apply to a stream, or an error if they name different roles.
    fn applicable_policies(&self, stream: &StreamArn) -> Result<impl Iterator<Item = &Policy>, Denial> {
        let applicable = self.policies.iter().filter(|policy| policy.applies_to(stream, &self.own_account));
        let mut roles = applicable.clone().map(|policy| &policy.role);
        let first = roles.next();
        if roles.all(|other| Some(other) == first) { Ok(applicable) } else { Err(Denial::Roles) }
    }

    fn check_key_patterns(
        &self,
        stream: &StreamArn,
        allows: impl Fn(&KeyPattern, &AwsAccount) -> bool,
    ) -> Result<(), Denial> {
        let allowed = self.applicable_policies(stream)?.any(|policy| {
            let own_account = policy.own_account(&self.own_account);
            policy.keys.iter().any(|pattern| allows(pattern, &own_account))
        });
        if allowed { Ok(()) } else { Err(Denial::Key) }
    }
}

#[cfg(test)]
mod tests {
    use stream_encryption_api::policy::NamespaceSelector;

    use super::*;

    const ORDERS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";
    const CLICKS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";

    fn spec(streams: &[&str], keys: &[&str]) -> StreamEncryptionPolicySpec {
        StreamEncryptionPolicySpec {
            namespace_selector: NamespaceSelector::default(),
            streams: streams.iter().map(|&text| text.to_owned()).collect(),
            keys: keys.iter().map(|&text| text.to_owned()).collect(),
            ..StreamEncryptionPolicySpec::own_account()
        }
    }

    fn permission(specs: &[StreamEncryptionPolicySpec]) -> EffectivePolicy {
        let own_account =
            AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() };
        EffectivePolicy::of(specs.iter().filter_map(|spec| Policy::read(spec).0).collect(), own_account)
    }

    fn stream(arn: &str) -> StreamArn {
        arn.parse().unwrap()
    }

    fn key(arn: &str) -> Key {
        Key::Customer(arn.parse().unwrap())
    }

    #[test]
    fn nothing_is_allowed_without_policy() {
        let none = permission(&[]);
        let orders = stream(ORDERS);
        assert_eq!(none.role_for(&orders), Err(Denial::Stream));
        assert_eq!(none.check_key(&orders, &Key::AwsOwned), Err(Denial::Key));
        assert_eq!(none.check_alias(&orders, "alias/orders"), Err(Denial::Key));
        assert_eq!(none.check_disable(&orders), Err(Denial::Disable));
        assert_eq!(none.max_calls_per_day(&orders), 0);
    }

    #[test]
    fn default_policy_allows_own_account_without_disable() {
        let own_account = permission(&[StreamEncryptionPolicySpec::own_account()]);
        let orders = stream(ORDERS);
        assert_eq!(own_account.role_for(&orders), Ok(None));
        assert_eq!(own_account.role_for(&stream(&ORDERS.replace("1111", "9999"))), Err(Denial::Stream));
        assert_eq!(own_account.check_key(&orders, &Key::AwsOwned), Ok(()));
        assert_eq!(own_account.check_key(&orders, &key(KEY)), Ok(()));
        assert_eq!(own_account.check_key(&orders, &key(&KEY.replace("1111", "9999"))), Err(Denial::Key));
        assert_eq!(own_account.check_key(&orders, &Key::Unresolved("1".into())), Err(Denial::Key));
        assert_eq!(own_account.check_alias(&orders, "alias/orders"), Ok(()));
        assert_eq!(own_account.check_disable(&orders), Err(Denial::Disable));
        assert_eq!(own_account.max_calls_per_day(&orders), 20);
    }

    #[test]
    fn policy_depends_on_operator_only_if_own_may_matter() {
        let written = "arn:aws:kinesis:*:111122223333:stream/o*";
        let own_account = "arn:aws:kinesis:*:own:stream/o*";
        for (streams, keys, role, depends) in [
            (vec![written], vec!["AWS_OWNED_CMK", KEY], None, false),
            (vec![own_account], vec!["AWS_OWNED_CMK"], None, true),
            (vec![written], vec!["arn:aws:kms:*:own:key/*"], None, true),
            (vec![written], vec!["arn:aws:kms:*:own:alias/*"], None, true),
            (vec!["arn:aws:kinesis:*:own:stream/x*"], vec!["arn:aws:kms:*:own:key/*"], None, false),
            (
                vec![own_account],
                vec!["arn:aws:kms:*:own:key/*"],
                Some("arn:aws:iam::111122223333:role/a"),
                false,
            ),
        ] {
            let role = role.map(|arn| PolicyRole { arn: arn.to_owned(), external_id: None });
            let spec = StreamEncryptionPolicySpec { role, ..spec(&streams, &keys) };
            let policy = Policy::read(&spec).0.unwrap();
            assert_eq!(policy.depends_on_operator(&stream(ORDERS)), depends, "{streams:?} {keys:?}");
        }
    }

    #[test]
    fn policies_for_same_stream_add_up() {
        let both = permission(&[
            spec(&[ORDERS], &["AWS_OWNED_CMK"]),
            StreamEncryptionPolicySpec {
                allow_disable: true,
                max_calls_per_day: 25,
                ..spec(&["arn:aws:kinesis:*:own:stream/o*"], &[KEY])
            },
        ]);
        let orders = stream(ORDERS);
        assert_eq!(both.check_key(&orders, &Key::AwsOwned), Ok(()));
        assert_eq!(both.check_key(&orders, &key(KEY)), Ok(()));
        assert_eq!(both.check_disable(&orders), Ok(()));
        assert_eq!(both.max_calls_per_day(&orders), 25);
    }

    #[test]
    fn policy_does_not_apply_to_other_streams() {
        let two = permission(&[
            spec(&[ORDERS], &["AWS_OWNED_CMK"]),
            StreamEncryptionPolicySpec { allow_disable: true, ..spec(&[CLICKS], &[KEY]) },
        ]);
        let orders = stream(ORDERS);
        assert_eq!(two.check_key(&orders, &key(KEY)), Err(Denial::Key));
        assert_eq!(two.check_disable(&orders), Err(Denial::Disable));
        assert_eq!(two.check_key(&stream(CLICKS), &Key::AwsOwned), Err(Denial::Key));
    }

    fn with_role(name: &str, external_id: Option<&str>) -> StreamEncryptionPolicySpec {
        let arn = format!("arn:aws:iam::444455556666:role/{name}");
        let role = Some(PolicyRole { arn, external_id: external_id.map(str::to_owned) });
        StreamEncryptionPolicySpec { role, ..StreamEncryptionPolicySpec::own_account() }
    }

    #[test]
    fn own_means_account_of_role() {
        let spoke = permission(&[with_role("spoke", None)]);
        let there = stream(&ORDERS.replace("111122223333", "444455556666"));
        let role = spoke.role_for(&there).unwrap().unwrap();
        assert_eq!(role.arn.to_string(), "arn:aws:iam::444455556666:role/spoke");
        assert_eq!(spoke.check_key(&there, &key(&KEY.replace("111122223333", "444455556666"))), Ok(()));
        assert_eq!(spoke.check_key(&there, &key(KEY)), Err(Denial::Key));
        assert_eq!(spoke.role_for(&stream(ORDERS)), Err(Denial::Stream));
        let china = stream(
            &ORDERS
                .replace("111122223333", "444455556666")
                .replace("aws:", "aws-cn:")
                .replace("eu-west-1", "cn-north-1"),
        );
        assert_eq!(spoke.role_for(&china), Err(Denial::Stream));
    }

    #[test]
    fn own_is_resolved_per_policy() {
        let both = permission(&[StreamEncryptionPolicySpec::own_account(), with_role("spoke", None)]);
        assert_eq!(both.role_for(&stream(ORDERS)), Ok(None));
        assert!(both.role_for(&stream(&ORDERS.replace("111122223333", "444455556666"))).unwrap().is_some());
    }

    #[test]
    fn different_roles_conflict_for_that_stream_only() {
        let only_orders = |spec: StreamEncryptionPolicySpec| StreamEncryptionPolicySpec {
            streams: vec![ORDERS.to_owned()],
            ..spec
        };
        let all = StreamEncryptionPolicySpec {
            streams: vec!["arn:aws:kinesis:*:111122223333:stream/*".to_owned()],
            ..with_role("a", Some("of-data"))
        };
        let same = permission(&[all.clone(), only_orders(all.clone())]);
        assert!(same.role_for(&stream(ORDERS)).unwrap().is_some());
        let no_role = StreamEncryptionPolicySpec::own_account();
        for other in
            [with_role("b", Some("of-data")), with_role("a", Some("of-web")), with_role("a", None), no_role]
        {
            let two = permission(&[all.clone(), only_orders(other)]);
            let orders = stream(ORDERS);
            assert_eq!(two.role_for(&orders), Err(Denial::Roles));
            // Every check reports the conflict, whichever comes first.
            assert_eq!(two.check_key(&orders, &Key::AwsOwned), Err(Denial::Roles));
            assert_eq!(two.check_alias(&orders, "alias/orders"), Err(Denial::Roles));
            assert_eq!(two.check_disable(&orders), Err(Denial::Roles));
            assert!(two.role_for(&stream(CLICKS)).is_ok());
        }
    }

    #[test]
    fn policy_with_invalid_role_allows_nothing() {
        for role in [
            PolicyRole { arn: "spoke".to_owned(), external_id: None },
            PolicyRole {
                arn: "arn:aws:iam::444455556666:role/a".to_owned(),
                external_id: Some("a b".to_owned()),
            },
        ] {
            let spec =
                StreamEncryptionPolicySpec { role: Some(role), ..StreamEncryptionPolicySpec::own_account() };
            let (policy, malformed) = Policy::read(&spec);
            assert_eq!((policy, malformed.len()), (None, 1));
        }
    }

    #[test]
    fn invalid_pattern_is_skipped_and_others_apply() {
        let (policy, malformed) = Policy::read(&spec(&["*", ORDERS], &["arn:aws:kms:*:*:key/*", KEY]));
        assert_eq!(malformed.len(), 2);
        let own_account =
            AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() };
        let permission = EffectivePolicy::of(policy.into_iter().collect(), own_account);
        assert_eq!(permission.role_for(&stream(CLICKS)), Err(Denial::Stream));
        assert_eq!(permission.check_key(&stream(ORDERS), &key(KEY)), Ok(()));
        assert_eq!(
            permission.check_key(&stream(ORDERS), &key(&KEY.replace("1111", "9999"))),
            Err(Denial::Key)
        );
    }
}
