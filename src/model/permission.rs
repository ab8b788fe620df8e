//! What a resource may do: which streams, with which keys, and whether it may turn encryption off.
//!
//! Policies say so, and nothing else: without one, nothing is allowed. Those that speak of a stream add up, and only those. It
//! is asked before any call of AWS, and what it refuses tells nobody whether the stream or the key exists.

use super::key::Key;
use super::ledger::AWS_LIMIT;
use super::pattern::{KeyPattern, Own, StreamPattern};
use super::stream::{Malformed, StreamArn};
use crate::api::policy::StreamEncryptionPolicySpec;

/// What the policies of a namespace allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    own: Own,
    policies: Vec<Policy>,
}

/// One policy, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
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
    /// The key.
    Key,
    /// Turning encryption off, now or when the resource is deleted.
    Disable,
}

impl Policy {
    /// A policy as it is written. A pattern that cannot be read (the schema refuses it; an object may be older than its rule) allows
    /// nothing, and is told.
    #[must_use]
    pub fn read(spec: &StreamEncryptionPolicySpec) -> (Self, Vec<Malformed>) {
        let mut malformed = Vec::new();
        let mut read = |error| malformed.push(error);
        let streams = spec.streams.iter().filter_map(|text| text.parse().map_err(&mut read).ok()).collect();
        let keys = spec.keys.iter().filter_map(|text| text.parse().map_err(&mut read).ok()).collect();
        let policy = Self {
            streams,
            keys,
            allow_disable: spec.allow_disable,
            max_calls_per_day: spec.max_calls_per_day.min(AWS_LIMIT),
        };
        (policy, malformed)
    }
}

impl Permission {
    /// What these policies allow together.
    #[must_use]
    pub fn of(policies: Vec<Policy>, own: Own) -> Self {
        Self { own, policies }
    }

    /// Whose account the word `own` means in them.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// Whether this stream may be looked at and changed.
    pub fn stream(&self, stream: &StreamArn) -> Result<(), Refusal> {
        self.speaking_of(stream).next().map(|_| ()).ok_or(Refusal::Stream)
    }

    /// Whether this key may be used for the stream.
    pub fn key(&self, stream: &StreamArn, key: &Key) -> Result<(), Refusal> {
        self.any_key(stream, |pattern| pattern.matches(key, &self.own))
    }

    /// Whether this alias, of the stream's account and region, may be asked for.
    pub fn alias(&self, stream: &StreamArn, alias: &str) -> Result<(), Refusal> {
        self.any_key(stream, |pattern| pattern.matches_alias(alias, stream, &self.own))
    }

    /// Whether encryption of this stream may be turned off.
    pub fn disable(&self, stream: &StreamArn) -> Result<(), Refusal> {
        let allowed = self.speaking_of(stream).any(|policy| policy.allow_disable);
        if allowed { Ok(()) } else { Err(Refusal::Disable) }
    }

    /// How many calls this stream gets in 24 hours, of AWS's 25; none where nothing is allowed.
    #[must_use]
    pub fn max_calls_per_day(&self, stream: &StreamArn) -> u32 {
        self.speaking_of(stream).map(|policy| policy.max_calls_per_day).max().unwrap_or(0)
    }

    fn speaking_of(&self, stream: &StreamArn) -> impl Iterator<Item = &Policy> {
        let speaks =
            |policy: &&Policy| policy.streams.iter().any(|pattern| pattern.matches(stream, &self.own));
        self.policies.iter().filter(speaks)
    }

    fn any_key(&self, stream: &StreamArn, allows: impl Fn(&KeyPattern) -> bool) -> Result<(), Refusal> {
        let allowed = self.speaking_of(stream).any(|policy| policy.keys.iter().any(&allows));
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
        Permission::of(specs.iter().map(|spec| Policy::read(spec).0).collect(), own)
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
        assert_eq!(own.stream(&orders), Ok(()));
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

    #[test]
    fn a_pattern_that_cannot_be_read_allows_nothing_and_the_others_hold() {
        let (policy, malformed) = Policy::read(&spec(&["*", ORDERS], &["arn:aws:kms:*:*:key/*", KEY]));
        assert_eq!(malformed.len(), 2);
        let own = Own { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() };
        let permission = Permission::of(vec![policy], own);
        assert_eq!(permission.stream(&stream(CLICKS)), Err(Refusal::Stream));
        assert_eq!(permission.key(&stream(ORDERS), &key(KEY)), Ok(()));
        assert_eq!(permission.key(&stream(ORDERS), &key(&KEY.replace("1111", "9999"))), Err(Refusal::Key));
    }
}
