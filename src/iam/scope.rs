//! The scope of a policy: streams and keys, by ARN or by pattern, checked together.
//!
//! A pattern is an ARN with `*` in the stream's name, or `key/*`. Account and region are always explicit, so
//! that no policy applies to another account or region by accident.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{AwsAccount, KeyArn, ParseError, Region, StreamArn};

/// A stream, or all streams whose name matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedStreams {
    /// One of the streams: its name has an `x` in place of each `*`.
    one: StreamArn,
    text: String,
}

/// A KMS key, or all keys of an account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedKeys {
    /// One of the keys.
    one: KeyArn,
    text: String,
}

/// The error if no policy can be created for the request. Its message states what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A part of an ARN is invalid.
    #[error(transparent)]
    Part(ParseError),
    /// Not a stream.
    #[error(
        "invalid stream {0:?}: expected arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, where * may stand for any part of NAME"
    )]
    Stream(String),
    /// Not a key.
    #[error(
        "invalid key {0:?}: expected arn:aws:kms:REGION:ACCOUNT:key/ID, or key/* for all keys of that account and region. A policy cannot name a key by alias; `aws kms describe-key --key-id ALIAS` shows the ARN"
    )]
    Key(String),
    /// No stream is given.
    #[error("no stream is given; set --stream ARN")]
    NoStream,
    /// The streams belong to two accounts.
    #[error(
        "{0} and {1} belong to two accounts, and a policy grants permissions in one account; print one policy for each"
    )]
    TwoAccounts(String, String),
    /// The key is in a region without a stream that it could encrypt.
    #[error("{0} is in another region than the streams; a key encrypts only streams of its own region")]
    KeyElsewhere(String),
    /// The key given as AWS's key for Kinesis cannot be that key.
    #[error(
        "{0} cannot be alias/aws/kinesis of a given stream; use the ARN that `aws kms describe-key --key-id alias/aws/kinesis` shows in the account and region of the Kinesis streams"
    )]
    NotKinesisKey(String),
}

/// The streams and keys of a policy: all streams are of one account, and each key is in the region of a
/// stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    streams: Vec<GrantedStreams>,
    keys: Vec<GrantedKeys>,
    kinesis_keys: Vec<GrantedKeys>,
    /// The regions in which a Kinesis stream uses `alias/aws/kinesis`, whose ARN is not known.
    unknown_kinesis_keys: BTreeSet<Region>,
}

impl Scope {
    /// Creates a scope of streams and customer managed keys. `kinesis_keys` are the ARNs of
    /// `alias/aws/kinesis`, one per region.
    pub fn new(
        streams: Vec<GrantedStreams>,
        keys: Vec<GrantedKeys>,
        kinesis_keys: Vec<GrantedKeys>,
    ) -> Result<Self, ScopeError> {
        let first = streams.first().ok_or(ScopeError::NoStream)?;
        let own = AwsAccount::of(&first.one);
        if let Some(other) = streams.iter().find(|stream| AwsAccount::of(&stream.one) != own) {
            return Err(ScopeError::TwoAccounts(first.to_string(), other.to_string()));
        }
        // A region is in one partition only.
        let encrypts = |key: &GrantedKeys, stream: &GrantedStreams| key.one.region == stream.one.region;
        if let Some(key) = keys.iter().find(|key| !streams.iter().any(|stream| encrypts(key, stream))) {
            return Err(ScopeError::KeyElsewhere(key.to_string()));
        }
        let is_kinesis = |stream: &&GrantedStreams| stream.one.service == Service::Kinesis;
        let can_be = |key: &GrantedKeys| {
            !key.is_any()
                && key.one.account == own.account
                && streams.iter().filter(is_kinesis).any(|it| encrypts(key, it))
        };
        if let Some(key) = kinesis_keys.iter().find(|key| !can_be(key)) {
            return Err(ScopeError::NotKinesisKey(key.to_string()));
        }
        Ok(Self { streams, keys, kinesis_keys, unknown_kinesis_keys: BTreeSet::new() })
    }

    /// Returns the same scope for Kinesis streams that use `alias/aws/kinesis` in these regions, also beside customer
    /// managed keys.
    #[must_use]
    pub fn with_unknown_kinesis_keys(self, regions: impl IntoIterator<Item = Region>) -> Self {
        Self { unknown_kinesis_keys: regions.into_iter().collect(), ..self }
    }

    /// Returns the streams of a service.
    pub fn streams(&self, service: Service) -> impl Iterator<Item = &GrantedStreams> {
        self.streams.iter().filter(move |stream| stream.one.service == service)
    }

    /// Returns the customer managed keys.
    pub fn keys(&self) -> impl Iterator<Item = &GrantedKeys> {
        self.keys.iter()
    }

    /// Returns the customer managed keys that can encrypt a stream of this service: those in its streams'
    /// regions.
    pub fn keys_for(&self, service: Service) -> impl Iterator<Item = &GrantedKeys> {
        self.keys
            .iter()
            .filter(move |key| self.streams(service).any(|stream| stream.one.region == key.one.region))
    }

    /// Returns the streams of a service that a customer managed key can encrypt.
    pub fn streams_with_keys(&self, service: Service) -> impl Iterator<Item = &GrantedStreams> {
        self.streams(service).filter(|stream| self.keys.iter().any(|key| stream.one.region == key.one.region))
    }

    /// Returns every key that a Start or Stop of a Kinesis stream may name. In a region for which no key is
    /// given, that is `alias/aws/kinesis`. The ARN of that key differs in each account and region, so any key
    /// of the region is returned.
    #[must_use]
    pub fn keys_that_kinesis_may_name(&self) -> Vec<String> {
        let given = || self.keys_for(Service::Kinesis).chain(&self.kinesis_keys);
        let unknown = self
            .streams(Service::Kinesis)
            .filter(|stream| {
                let region = &stream.one.region;
                self.unknown_kinesis_keys.contains(region) || !given().any(|key| key.one.region == *region)
            })
            .map(|stream| any_key(&stream.one));
        given().map(ToString::to_string).chain(unknown).collect()
    }

    /// Returns the keys of `alias/aws/kinesis`. Where a stream uses one whose ARN is not known, any key of the region is
    /// returned.
    #[must_use]
    pub fn aws_managed_keys(&self) -> Vec<String> {
        let unknown = self
            .streams(Service::Kinesis)
            .filter(|stream| self.unknown_kinesis_keys.contains(&stream.one.region))
            .map(|stream| any_key(&stream.one));
        self.kinesis_keys.iter().map(ToString::to_string).chain(unknown).collect()
    }
}

impl GrantedStreams {
    /// Returns the region.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.one.region
    }
}

impl FromStr for GrantedStreams {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let refused = || ScopeError::Stream(text.to_owned());
        let (head, name) = text.split_once('/').ok_or_else(refused)?;
        // A pattern is valid if it is a valid ARN with an `x` in place of each `*`.
        let one: StreamArn =
            format!("{head}/{}", name.replace('*', "x")).parse().map_err(|why| match why {
                ParseError::Account(_) | ParseError::Region(_) | ParseError::Partition(_) => {
                    ScopeError::Part(why)
                }
                _ => refused(),
            })?;
        Ok(Self { one, text: text.to_owned() })
    }
}

const ANY_KEY: &str = ":key/*";

/// Returns all keys in the account and region of a stream.
fn any_key(StreamArn { partition, region, account, .. }: &StreamArn) -> String {
    format!("arn:{partition}:kms:{region}:{account}{ANY_KEY}")
}

impl GrantedKeys {
    fn is_any(&self) -> bool {
        self.text.ends_with(ANY_KEY)
    }
}

impl FromStr for GrantedKeys {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let one = match text.strip_suffix(ANY_KEY) {
            Some(head) => format!("{head}:key/x"),
            None => text.to_owned(),
        };
        let one: KeyArn = one.parse().map_err(|_| ScopeError::Key(text.to_owned()))?;
        Ok(Self { one, text: text.to_owned() })
    }
}

impl fmt::Display for GrantedStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for GrantedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
