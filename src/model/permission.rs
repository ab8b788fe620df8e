//! What a resource may do: which streams, with which keys, and whether it may turn encryption off.
//!
//! Policies say so, and nothing else: without one, nothing is allowed. Those that speak of a stream add up, and only those. It
//! is asked before any call of AWS, and what it refuses tells nobody whether the stream or the key exists. A policy may name the
//! role as which all this is done: a resource cannot, and of two roles for one stream none is used.

use super::key::Key;
use super::ledger::AWS_LIMIT;
use super::pattern::{KeyPattern, Own, StreamPattern};
use super::principal::Role;
use super::stream::{Malformed, StreamArn};
use crate::api::policy::{PolicyRole, StreamEncryptionPolicySpec};

/// What the policies of a namespace allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    own: Own,
    policies: Vec<Policy>,
}

/// One policy, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    role: Option<Role>,
    streams: Vec<StreamPattern>,
    keys: Vec<KeyPattern>,
    allow_disable: bool,
    max_calls_per_day: u32,
}

/// What is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The stream.
    Stream,
    /// The stream: policies name different roles for it.
    Roles,
    /// The key.
    Key,
    /// Turning encryption off, now or when the resource is deleted.
    Disable,
}

impl Policy {
    /// A policy as it is written. A pattern that cannot be read (the schema refuses it; an object may be older than its rule) allows
    /// nothing, and is told. Where the role cannot be read, the whole policy allows nothing: it was not meant for the operator's own rights.
    #[must_use]
    pub fn read(spec: &StreamEncryptionPolicySpec) -> (Option<Self>, Vec<Malformed>) {
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

    /// Whose account the word `own` means in it: the role's, if it has one.
    fn own(&self, operator: &Own) -> Own {
        match &self.role {
            Some(Role { arn, .. }) => Own { account: arn.account.clone(), partition: arn.partition.clone() },
            None => operator.clone(),
        }
    }

    /// Whether the account of the operator decides what the policy allows for this stream: the word `own` is in it, means that account,
    /// and may speak of the stream.
    #[must_use]
    pub fn depends_on_operator(&self, stream: &StreamArn) -> bool {
        let same = Own { account: stream.account.clone(), partition: stream.partition.clone() };
        let by_own_account =
            |pattern: &StreamPattern| pattern.is_of_own_account() && pattern.matches(stream, &same);
        self.role.is_none()
            && self.speaks_of(stream, &same)
            && (self.streams.iter().any(by_own_account)
                || self.keys.iter().any(KeyPattern::is_of_own_account))
    }

    fn speaks_of(&self, stream: &StreamArn, operator: &Own) -> bool {
        let own = self.own(operator);
        self.streams.iter().any(|pattern| pattern.matches(stream, &own))
    }
}

fn role(written: &PolicyRole) -> Result<Role, Malformed> {
    let external_id = written.external_id.as_deref().map(str::parse).transpose()?;
    Ok(Role { arn: written.arn.parse()?, external_id })
}

impl Permission {
    /// What these policies allow together.
    #[must_use]
    pub fn of(policies: Vec<Policy>, own: Own) -> Self {
        Self { own, policies }
    }

    /// Whose account the word `own` means in a policy without a role.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// As which role this stream may be looked at and changed, if it may; nothing is the operator itself.
    pub fn stream(&self, stream: &StreamArn) -> Result<Option<&Role>, Refusal> {
        let policy = self.speaking_of(stream)?.next().ok_or(Refusal::Stream)?;
        Ok(policy.role.as_ref())
    }

    /// Whether this key may be used for the stream.
    pub fn key(&self, stream: &StreamArn, key: &Key) -> Result<(), Refusal> {
        self.any_key(stream, |pattern, own| pattern.matches(key, own))
    }

    /// Whether this alias, of the stream's account and region, may be asked for.
    pub fn alias(&self, stream: &StreamArn, alias: &str) -> Result<(), Refusal> {
        self.any_key(stream, |pattern, own| pattern.matches_alias(alias, stream, own))
    }

    /// Whether encryption of this stream may be turned off.
    pub fn disable(&self, stream: &StreamArn) -> Result<(), Refusal> {
        let allowed = self.speaking_of(stream)?.any(|policy| policy.allow_disable);
        if allowed { Ok(()) } else { Err(Refusal::Disable) }
    }

    /// How many calls this stream gets in 24 hours, of AWS's 25; none where nothing is allowed.
    #[must_use]
    pub fn max_calls_per_day(&self, stream: &StreamArn) -> u32 {
        let speaking = self.speaking_of(stream).ok();
        speaking.and_then(|policies| policies.map(|policy| policy.max_calls_per_day).max()).unwrap_or(0)
    }

    /// The policies that speak of a stream. Where they do not agree as whom it is asked about, nothing that they say counts.
    fn speaking_of(&self, stream: &StreamArn) -> Result<impl Iterator<Item = &Policy>, Refusal> {
        let speaking = self.policies.iter().filter(|policy| policy.speaks_of(stream, &self.own));
        let mut roles = speaking.clone().map(|policy| &policy.role);
        let first = roles.next();
        if roles.all(|other| Some(other) == first) { Ok(speaking) } else { Err(Refusal::Roles) }
    }

    fn any_key(&self, stream: &StreamArn, allows: impl Fn(&KeyPattern, &Own) -> bool) -> Result<(), Refusal> {
        let allowed = self.speaking_of(stream)?.any(|policy| {
            let own = policy.own(&self.own);
            policy.keys.iter().any(|pattern| allows(pattern, &own))
        });
        if allowed { Ok(()) } else { Err(Refusal::Key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::policy::NamespaceSelector;

    const ORDERS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders";
    const CLICKS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";

    fn spec(streams: &[&str], keys: &[&str]) -> StreamEncryptionPolicySpec {
        StreamEncryptionPolicySpec {
            namespaces: NamespaceSelector::default(),
            streams: streams.iter().map(|&text| text.to_owned()).collect(),
            keys: keys.iter().map(|&text| text.to_owned()).collect(),
            ..StreamEncryptionPolicySpec::own_account()
        }
    }

    fn permission(specs: &[StreamEncryptionPolicySpec]) -> Permission {
        let own = Own { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() };
        Permission::of(specs.iter().filter_map(|spec| Policy::read(spec).0).collect(), own)
    }

    fn stream(arn: &str) -> StreamArn {
        arn.parse().unwrap()
    }

    fn key(arn: &str) -> Key {
        Key::Customer(arn.parse().unwrap())
    }

    #[test]
    fn without_a_policy_nothing_is_allowed() {
        let none = permission(&[]);
        let orders = stream(ORDERS);
        assert_eq!(none.stream(&orders), Err(Refusal::Stream));
        assert_eq!(none.key(&orders, &Key::AwsOwned), Err(Refusal::Key));
        assert_eq!(none.alias(&orders, "alias/orders"), Err(Refusal::Key));
        assert_eq!(none.disable(&orders), Err(Refusal::Disable));
        assert_eq!(none.max_calls_per_day(&orders), 0);
    }

    #[test]
    fn the_default_policy_allows_streams_and_keys_of_the_own_account_and_no_turning_off() {
        let own = permission(&[StreamEncryptionPolicySpec::own_account()]);
        let orders = stream(ORDERS);
        assert_eq!(own.stream(&orders), Ok(None));
        assert_eq!(own.stream(&stream(&ORDERS.replace("1111", "9999"))), Err(Refusal::Stream));
        assert_eq!(own.key(&orders, &Key::AwsOwned), Ok(()));
        assert_eq!(own.key(&orders, &key(KEY)), Ok(()));
        assert_eq!(own.key(&orders, &key(&KEY.replace("1111", "9999"))), Err(Refusal::Key));
        assert_eq!(own.key(&orders, &Key::Unresolved("1".into())), Err(Refusal::Key));
        assert_eq!(own.alias(&orders, "alias/orders"), Ok(()));
        assert_eq!(own.disable(&orders), Err(Refusal::Disable));
        assert_eq!(own.max_calls_per_day(&orders), 20);
    }

    #[test]
    fn policy_depends_on_operator_only_if_own_may_matter() {
        let written = "arn:aws:kinesis:*:111122223333:stream/o*";
        let own = "arn:aws:kinesis:*:own:stream/o*";
        for (streams, keys, role, depends) in [
            (vec![written], vec!["AWS_OWNED_CMK", KEY], None, false),
            (vec![own], vec!["AWS_OWNED_CMK"], None, true),
            (vec![written], vec!["arn:aws:kms:*:own:key/*"], None, true),
            (vec![written], vec!["arn:aws:kms:*:own:alias/*"], None, true),
            (vec!["arn:aws:kinesis:*:own:stream/x*"], vec!["arn:aws:kms:*:own:key/*"], None, false),
            (vec![own], vec!["arn:aws:kms:*:own:key/*"], Some("arn:aws:iam::111122223333:role/a"), false),
        ] {
            let role = role.map(|arn| PolicyRole { arn: arn.to_owned(), external_id: None });
            let spec = StreamEncryptionPolicySpec { role, ..spec(&streams, &keys) };
            let policy = Policy::read(&spec).0.unwrap();
            assert_eq!(policy.depends_on_operator(&stream(ORDERS)), depends, "{streams:?} {keys:?}");
        }
    }

    #[test]
    fn policies_add_up_for_a_stream_that_both_speak_of() {
        let both = permission(&[
            spec(&[ORDERS], &["AWS_OWNED_CMK"]),
            StreamEncryptionPolicySpec {
                allow_disable: true,
                max_calls_per_day: 25,
                ..spec(&["arn:aws:kinesis:*:own:stream/o*"], &[KEY])
            },
        ]);
        let orders = stream(ORDERS);
        assert_eq!(both.key(&orders, &Key::AwsOwned), Ok(()));
        assert_eq!(both.key(&orders, &key(KEY)), Ok(()));
        assert_eq!(both.disable(&orders), Ok(()));
        assert_eq!(both.max_calls_per_day(&orders), 25);
    }

    #[test]
    fn what_a_policy_allows_for_its_streams_it_allows_for_no_other() {
        let two = permission(&[
            spec(&[ORDERS], &["AWS_OWNED_CMK"]),
            StreamEncryptionPolicySpec { allow_disable: true, ..spec(&[CLICKS], &[KEY]) },
        ]);
        let orders = stream(ORDERS);
        assert_eq!(two.key(&orders, &key(KEY)), Err(Refusal::Key));
        assert_eq!(two.disable(&orders), Err(Refusal::Disable));
        assert_eq!(two.key(&stream(CLICKS), &Key::AwsOwned), Err(Refusal::Key));
    }

    fn with_role(name: &str, external_id: Option<&str>) -> StreamEncryptionPolicySpec {
        let arn = format!("arn:aws:iam::444455556666:role/{name}");
        let role = Some(PolicyRole { arn, external_id: external_id.map(str::to_owned) });
        StreamEncryptionPolicySpec { role, ..StreamEncryptionPolicySpec::own_account() }
    }

    #[test]
    fn own_is_the_account_of_the_role() {
        let spoke = permission(&[with_role("spoke", None)]);
        let there = stream(&ORDERS.replace("111122223333", "444455556666"));
        let role = spoke.stream(&there).unwrap().unwrap();
        assert_eq!(role.arn.to_string(), "arn:aws:iam::444455556666:role/spoke");
        assert_eq!(spoke.key(&there, &key(&KEY.replace("111122223333", "444455556666"))), Ok(()));
        assert_eq!(spoke.key(&there, &key(KEY)), Err(Refusal::Key));
        assert_eq!(spoke.stream(&stream(ORDERS)), Err(Refusal::Stream));
        let china = stream(
            &ORDERS
                .replace("111122223333", "444455556666")
                .replace("aws:", "aws-cn:")
                .replace("eu-west-1", "cn-north-1"),
        );
        assert_eq!(spoke.stream(&china), Err(Refusal::Stream));
    }

    #[test]
    fn each_policy_means_its_own_account_by_own() {
        let both = permission(&[StreamEncryptionPolicySpec::own_account(), with_role("spoke", None)]);
        assert_eq!(both.stream(&stream(ORDERS)), Ok(None));
        assert!(both.stream(&stream(&ORDERS.replace("111122223333", "444455556666"))).unwrap().is_some());
    }

    #[test]
    fn policies_that_name_different_roles_or_external_ids_for_a_stream_are_a_conflict_for_that_stream_only() {
        let only_orders = |spec: StreamEncryptionPolicySpec| StreamEncryptionPolicySpec {
            streams: vec![ORDERS.to_owned()],
            ..spec
        };
        let all = StreamEncryptionPolicySpec {
            streams: vec!["arn:aws:kinesis:*:111122223333:stream/*".to_owned()],
            ..with_role("a", Some("of-data"))
        };
        let same = permission(&[all.clone(), only_orders(all.clone())]);
        assert!(same.stream(&stream(ORDERS)).unwrap().is_some());
        let no_role = StreamEncryptionPolicySpec::own_account();
        for other in
            [with_role("b", Some("of-data")), with_role("a", Some("of-web")), with_role("a", None), no_role]
        {
            let two = permission(&[all.clone(), only_orders(other)]);
            let orders = stream(ORDERS);
            assert_eq!(two.stream(&orders), Err(Refusal::Roles));
            // Nothing about it is allowed, whoever asks for that first.
            assert_eq!(two.key(&orders, &Key::AwsOwned), Err(Refusal::Roles));
            assert_eq!(two.alias(&orders, "alias/orders"), Err(Refusal::Roles));
            assert_eq!(two.disable(&orders), Err(Refusal::Roles));
            assert!(two.stream(&stream(CLICKS)).is_ok());
        }
    }

    #[test]
    fn a_policy_whose_role_cannot_be_read_allows_nothing_rather_than_as_the_operator() {
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
    fn a_pattern_that_cannot_be_read_allows_nothing_and_the_others_hold() {
        let (policy, malformed) = Policy::read(&spec(&["*", ORDERS], &["arn:aws:kms:*:*:key/*", KEY]));
        assert_eq!(malformed.len(), 2);
        let own = Own { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() };
        let permission = Permission::of(policy.into_iter().collect(), own);
        assert_eq!(permission.stream(&stream(CLICKS)), Err(Refusal::Stream));
        assert_eq!(permission.key(&stream(ORDERS), &key(KEY)), Ok(()));
        assert_eq!(permission.key(&stream(ORDERS), &key(&KEY.replace("1111", "9999"))), Err(Refusal::Key));
    }
}
