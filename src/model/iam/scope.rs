//! What a policy is about: streams and keys, by ARN or by pattern, checked together.
//!
//! A pattern is an ARN with `*` in the stream's name, or `key/*`; account and region are always written, so that no policy of
//! this program reaches into another account or region by accident.

use std::fmt;
use std::str::FromStr;

use crate::api::stream_encryption::Service;
use crate::model::key::KeyArn;
use crate::model::stream::{Account, Malformed, Partition, Region, StreamArn};

/// A stream, or all streams whose name matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPattern {
    service: Service,
    place: Place,
    text: String,
}

/// A KMS key, or all keys of an account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    place: Place,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    partition: Partition,
    region: Region,
    account: Account,
}

/// Why there is no policy for what was asked; the message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A part of an ARN is none.
    #[error(transparent)]
    Part(Malformed),
    /// Not a stream.
    #[error(
        "{0:?} is not a stream: write arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, where * may stand for any part of NAME"
    )]
    Stream(String),
    /// Not a key.
    #[error(
        "{0:?} is not a key: write arn:aws:kms:REGION:ACCOUNT:key/ID, or key/* for all keys of that account and region. A policy cannot name a key by alias; `aws kms describe-key --key-id ALIAS` shows the ARN"
    )]
    Key(String),
    /// No stream at all.
    #[error("no stream is given: write --stream ARN")]
    NoStream,
    /// Streams of two accounts.
    #[error(
        "{0} and {1} are of two accounts, and a policy gives rights in its own: print one policy for each"
    )]
    TwoAccounts(String, String),
    /// A key where no stream is that it could encrypt.
    #[error(
        "{0} is in no region of the streams: a key encrypts only streams of its own region, so write one of a region of theirs"
    )]
    KeyElsewhere(String),
    /// What is given as AWS's key for Kinesis cannot be that.
    #[error(
        "{0} cannot be alias/aws/kinesis of a stream that is given: write the one ARN that `aws kms describe-key --key-id alias/aws/kinesis` shows in the account and region of the Kinesis streams"
    )]
    NotKinesisKey(String),
}

/// The streams and keys of a policy: all streams of one account, and each key in a region of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    streams: Vec<StreamPattern>,
    keys: Vec<KeyPattern>,
    kinesis_keys: Vec<KeyPattern>,
}

impl Scope {
    /// These streams, with these customer managed keys. `kinesis_keys` are the ARNs of `alias/aws/kinesis`, one for a region.
    pub fn new(
        streams: Vec<StreamPattern>,
        keys: Vec<KeyPattern>,
        kinesis_keys: Vec<KeyPattern>,
    ) -> Result<Self, Refused> {
        let first = streams.first().ok_or(Refused::NoStream)?;
        let own =
            |place: &Place| place.account == first.place.account && place.partition == first.place.partition;
        if let Some(other) = streams.iter().find(|stream| !own(&stream.place)) {
            return Err(Refused::TwoAccounts(first.to_string(), other.to_string()));
        }
        let encrypts = |key: &KeyPattern, stream: &StreamPattern| {
            key.place.partition == stream.place.partition && key.place.region == stream.place.region
        };
        if let Some(key) = keys.iter().find(|key| !streams.iter().any(|stream| encrypts(key, stream))) {
            return Err(Refused::KeyElsewhere(key.to_string()));
        }
        let is_kinesis = |stream: &&StreamPattern| stream.service == Service::Kinesis;
        let can_be = |key: &KeyPattern| {
            !key.is_any() && own(&key.place) && streams.iter().filter(is_kinesis).any(|it| encrypts(key, it))
        };
        if let Some(key) = kinesis_keys.iter().find(|key| !can_be(key)) {
            return Err(Refused::NotKinesisKey(key.to_string()));
        }
        Ok(Self { streams, keys, kinesis_keys })
    }

    /// The streams of a service.
    pub fn streams(&self, service: Service) -> impl Iterator<Item = &StreamPattern> {
        self.streams.iter().filter(move |stream| stream.service == service)
    }

    /// The customer managed keys.
    pub fn keys(&self) -> impl Iterator<Item = &KeyPattern> {
        self.keys.iter()
    }

    /// The customer managed keys that can encrypt a stream of this service: those of its regions.
    pub fn keys_for(&self, service: Service) -> impl Iterator<Item = &KeyPattern> {
        self.keys
            .iter()
            .filter(move |key| self.streams(service).any(|stream| stream.place.region == key.place.region))
    }

    /// The streams of a service that a customer managed key can encrypt.
    pub fn streams_with_keys(&self, service: Service) -> impl Iterator<Item = &StreamPattern> {
        self.streams(service)
            .filter(|stream| self.keys.iter().any(|key| stream.place.region == key.place.region))
    }

    /// Every key that a Start or Stop of a Kinesis stream may name. In a region for which no key is given that is
    /// `alias/aws/kinesis`, whose ARN is another one in each account and region, so there it is any key.
    #[must_use]
    pub fn keys_that_kinesis_may_name(&self) -> Vec<KeyPattern> {
        let given = || self.keys_for(Service::Kinesis).chain(&self.kinesis_keys);
        let unknown = self
            .streams(Service::Kinesis)
            .filter(|stream| !given().any(|key| key.place.region == stream.place.region))
            .map(|stream| KeyPattern::any(&stream.place));
        given().cloned().chain(unknown).collect()
    }
}

impl StreamPattern {
    /// The region.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.place.region
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.place.partition
    }
}

impl FromStr for StreamPattern {
    type Err = Refused;
    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = || Refused::Stream(text.to_owned());
        let (head, name) = text.split_once('/').ok_or_else(refused)?;
        // One of the streams that it may mean: what holds for a name holds for the rest of a pattern.
        let one: StreamArn =
            format!("{head}/{}", name.replace('*', "x")).parse().map_err(|why| match why {
                Malformed::Account(_) | Malformed::Region(_) | Malformed::Partition(_) => Refused::Part(why),
                _ => refused(),
            })?;
        let StreamArn { partition, service, region, account, .. } = one;
        Ok(Self { service, place: Place { partition, region, account }, text: text.to_owned() })
    }
}

const ANY_KEY: &str = ":key/*";

impl KeyPattern {
    fn any(place: &Place) -> Self {
        let Place { partition, region, account } = place;
        Self { place: place.clone(), text: format!("arn:{partition}:kms:{region}:{account}{ANY_KEY}") }
    }

    fn is_any(&self) -> bool {
        self.text.ends_with(ANY_KEY)
    }
}

impl FromStr for KeyPattern {
    type Err = Refused;
    fn from_str(text: &str) -> Result<Self, Refused> {
        let one = match text.strip_suffix(ANY_KEY) {
            Some(head) => format!("{head}:key/x"),
            None => text.to_owned(),
        };
        let one: KeyArn = one.parse().map_err(|_| Refused::Key(text.to_owned()))?;
        let KeyArn { partition, region, account, .. } = one;
        Ok(Self { place: Place { partition, region, account }, text: text.to_owned() })
    }
}

impl fmt::Display for StreamPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
