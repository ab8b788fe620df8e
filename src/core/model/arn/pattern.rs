//! Patterns of ARNs in policies: streams and keys.
//!
//! An ARN is compared part by part and never as one text, so that no `*` matches across the end of a part. A
//! `*` stands for a whole partition or region, or for any characters of a name; an account is explicit, or is
//! the `own_account` passed in. An ARN that matches no pattern is not allowed.

use std::str::FromStr;

use stream_encryption_api::stream_encryption::Service;

use super::{Account, Arn, AwsAccount, KeyArn, ParseError, Partition, Region, StreamArn, is_name};
use crate::model::key::Key;

/// A pattern of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPattern {
    service: Service,
    scope: ArnScope,
    name: Glob,
}

/// A pattern of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPattern {
    /// The key that AWS owns.
    AwsOwned,
    /// Customer managed keys, by ARN.
    Key(KeyArnPattern),
    /// Aliases of customer managed keys. The key that an alias resolves to must be allowed too.
    Alias(KeyArnPattern),
}

/// A pattern of the ARNs of keys or of aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyArnPattern {
    scope: ArnScope,
    name: Glob,
}

/// Partition, region and account. `None` matches any partition or region, and the
/// `own_account` passed in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ArnScope {
    partition: Option<Partition>,
    region: Option<Region>,
    account: Option<Account>,
}

/// A name in which `*` stands for any number of characters, including none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob(String);

impl StreamPattern {
    /// Returns whether the account of the pattern is the word `own`.
    #[must_use]
    pub fn is_of_own_account(&self) -> bool {
        self.scope.account.is_none()
    }

    /// Returns whether the pattern matches `stream`.
    #[must_use]
    pub fn matches(&self, stream: &StreamArn, own_account: &AwsAccount) -> bool {
        self.service == stream.service
            && self.scope.matches(&stream.partition, &stream.region, &stream.account, own_account)
            && self.name.matches(stream.name())
    }
}

impl FromStr for StreamPattern {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::StreamPattern(text.to_owned());
        let arn = Arn::split(text).ok_or_else(malformed)?;
        let (service, name) = arn.stream().ok_or_else(malformed)?;
        let scope = ArnScope::parse(&arn).ok_or_else(malformed)?;
        let name = Glob::parse(name, b"*_.-").ok_or_else(malformed)?;
        Ok(Self { service, scope, name })
    }
}

impl KeyPattern {
    /// Returns whether the account of the pattern is the word `own`.
    #[must_use]
    pub fn is_of_own_account(&self) -> bool {
        match self {
            Self::AwsOwned => false,
            Self::Key(keys) | Self::Alias(keys) => keys.scope.account.is_none(),
        }
    }

    /// Returns whether the pattern matches `key`.
    #[must_use]
    pub fn matches(&self, key: &Key, own_account: &AwsAccount) -> bool {
        match (self, key) {
            (Self::AwsOwned, Key::AwsOwned) => true,
            (Self::Key(keys), Key::Customer(arn)) => keys.matches(arn, own_account),
            (Self::AwsOwned | Self::Key(_) | Self::Alias(_), _) => false,
        }
    }

    /// Returns whether the pattern matches the alias (`alias/NAME`) in the account and region of `stream`.
    #[must_use]
    pub fn matches_alias(&self, alias: &str, stream: &StreamArn, own_account: &AwsAccount) -> bool {
        let Self::Alias(aliases) = self else { return false };
        aliases.scope.matches(&stream.partition, &stream.region, &stream.account, own_account)
            && alias.strip_prefix("alias/").is_some_and(|name| aliases.name.matches(name))
    }
}

impl KeyArnPattern {
    fn matches(&self, key: &KeyArn, own_account: &AwsAccount) -> bool {
        self.scope.matches(&key.partition, &key.region, &key.account, own_account)
            && self.name.matches(key.id())
    }
}

impl FromStr for KeyPattern {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "AWS_OWNED_CMK" {
            return Ok(Self::AwsOwned);
        }
        let malformed = || ParseError::KeyPattern(text.to_owned());
        let arn = Arn::split(text).filter(|arn| arn.service == "kms").ok_or_else(malformed)?;
        let scope = ArnScope::parse(&arn).ok_or_else(malformed)?;
        let keys = |name: &str, others: &[u8]| {
            Glob::parse(name, others).map(|name| KeyArnPattern { scope, name }).ok_or_else(malformed)
        };
        match arn.resource.split_once('/') {
            Some(("key", id)) => keys(id, b"*-").map(Self::Key),
            Some(("alias", name)) => keys(name, b"*/_-").map(Self::Alias),
            _ => Err(malformed()),
        }
    }
}

impl ArnScope {
    fn parse(arn: &Arn<'_>) -> Option<Self> {
        Some(Self {
            partition: parse_unless("*", arn.partition).ok()?,
            region: parse_unless("*", arn.region).ok()?,
            account: parse_unless("own", arn.account).ok()?,
        })
    }

    fn matches(
        &self,
        partition: &Partition,
        region: &Region,
        account: &Account,
        own_account: &AwsAccount,
    ) -> bool {
        let account_fits = match &self.account {
            Some(desired) => desired == account,
            None => *account == own_account.account && *partition == own_account.partition,
        };
        account_fits
            && self.partition.as_ref().is_none_or(|desired| desired == partition)
            && self.region.as_ref().is_none_or(|desired| desired == region)
    }
}

/// Returns `None` if the text is `word`, otherwise the parsed text.
fn parse_unless<T: FromStr>(word: &str, text: &str) -> Result<Option<T>, T::Err> {
    if text == word { Ok(None) } else { text.parse().map(Some) }
}

impl Glob {
    /// Parses a name of letters, digits and `others`, of which `*` is one.
    fn parse(text: &str, others: &[u8]) -> Option<Self> {
        is_name(text, 1..=256, others).then(|| Self(text.to_owned()))
    }

    /// Returns whether the parts between the stars occur in the name in this order. Each part is matched at
    /// its first occurrence, which leaves the longest rest for the next part.
    fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            match name.find(part) {
                Some(at) => name = &name[at + part.len()..],
                None => return false,
            }
        }
        name.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own_account() -> AwsAccount {
        AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() }
    }

    fn allows(pattern: &str, arn: &str) -> bool {
        let stream: StreamArn = arn.parse().unwrap();
        pattern.parse::<StreamPattern>().unwrap().matches(&stream, &own_account())
    }

    fn allows_key(pattern: &str, arn: &str) -> bool {
        pattern.parse::<KeyPattern>().unwrap().matches(&Key::Customer(arn.parse().unwrap()), &own_account())
    }

    #[test]
    fn pattern_is_matched_against_each_arn_part() {
        let orders = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/data-orders";
        for pattern in [
            orders,
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/data-*",
            "arn:aws:firehose:*:111122223333:deliverystream/*",
            "arn:*:firehose:*:own:deliverystream/*-o*",
        ] {
            assert!(allows(pattern, orders), "{pattern}");
        }
        for pattern in [
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/data",
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders*",
            "arn:aws:firehose:eu-west-1:444455556666:deliverystream/*",
            "arn:aws:firehose:eu-west-2:111122223333:deliverystream/*",
            "arn:aws-cn:firehose:*:111122223333:deliverystream/*",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/*",
        ] {
            assert!(!allows(pattern, orders), "{pattern}");
        }
    }

    #[test]
    fn own_matches_operator_account_and_partition_only() {
        let all = "arn:*:kinesis:*:own:stream/*";
        assert!(allows(all, "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks"));
        assert!(!allows(all, "arn:aws:kinesis:eu-west-1:444455556666:stream/clicks"));
        assert!(!allows(all, "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/clicks"));
    }

    #[test]
    fn key_is_matched_by_arn_and_alias_by_name() {
        let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd";
        assert!(allows_key("arn:*:kms:*:own:key/*", key));
        assert!(allows_key(key, key));
        assert!(!allows_key("arn:*:kms:*:own:alias/*", key));
        assert!(!allows_key("AWS_OWNED_CMK", key));
        assert!(!allows_key("arn:aws:kms:eu-west-1:444455556666:key/*", key));

        let stream: StreamArn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap();
        let allows_alias = |pattern: &str, alias: &str| {
            pattern.parse::<KeyPattern>().unwrap().matches_alias(alias, &stream, &own_account())
        };
        assert!(allows_alias("arn:aws:kms:*:own:alias/data/*", "alias/data/orders"));
        assert!(!allows_alias("arn:aws:kms:*:own:alias/data/*", "alias/finance/orders"));
        assert!(!allows_alias("arn:aws:kms:eu-west-2:own:alias/*", "alias/data/orders"));
        assert!(!allows_alias("arn:*:kms:*:own:key/*", "alias/data/orders"));
    }

    #[test]
    fn invalid_pattern_is_rejected() {
        for text in [
            "",
            "*",
            "arn:aws:*:*:own:stream/*",
            "arn:aws:kinesis:*:*:stream/*",
            "arn:aws:kinesis:eu-*:own:stream/*",
            "arn:a*:kinesis:*:own:stream/*",
            "arn:aws:kinesis:*:own:*",
            "arn:aws:kinesis:*:own:deliverystream/*",
            "arn:aws:kinesis:*:own:stream/a/b",
            "arn:aws:kinesis:*:own:stream/a:b",
            "arn:aws:kinesis:*:1111*:stream/a",
            "arn:aws:kinesis:*:own:stream/",
        ] {
            assert!(text.parse::<StreamPattern>().is_err(), "{text}");
        }
        for text in
            ["", "*", "CUSTOMER_MANAGED_CMK", "arn:*:kms:*:*:key/*", "arn:*:kms:*:own:*", "alias/orders"]
        {
            assert!(text.parse::<KeyPattern>().is_err(), "{text}");
        }
    }

    /// Reference implementation: a star matches nothing, or matches one character and stays.
    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if plainly(rest, name) => true,
            (Some((b'*', _)), Some((_, rest))) => plainly(pattern, rest),
            (Some((desired, pattern)), Some((found, name))) => desired == found && plainly(pattern, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_matches_like_reference_implementation(pattern in "[ab*]{1,8}", name in "[ab]{1,10}") {
            let glob = Glob::parse(&pattern, b"*").unwrap();
            prop_assert_eq!(glob.matches(&name), plainly(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn pattern_never_matches_another_account(
            name in "[a-z*]{1,6}", stream in "[a-z]{1,6}", region in "(\\*|eu-west-1)", partition in "(\\*|aws)",
        ) {
            let pattern = format!("arn:{partition}:kinesis:{region}:444455556666:stream/{name}");
            let arn = format!("arn:aws:kinesis:eu-west-1:111122223333:stream/{stream}");
            prop_assert!(!allows(&pattern, &arn));
        }
    }
}
