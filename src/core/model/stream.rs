//! Identity of a stream: a validated ARN and its parts.
//!
//! Inside the operator a stream is always a [`StreamArn`], so a name with an invalid form, service or account
//! cannot be passed on. For a stream given by name, the account comes from STS and the region from the
//! operator.

use std::fmt;
use std::str::FromStr;

use stream_encryption_api::stream_encryption::Service;

/// An AWS account: 12 digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(String);

/// A region's code, such as `eu-west-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(String);

/// A partition: `aws`, `aws-cn`, `aws-us-gov`, …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(String);

/// The ARN of a Firehose stream or a Kinesis data stream.
///
/// Firehose: `arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME`;
/// Kinesis: `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`
/// ([Service Authorization Reference](https://docs.aws.amazon.com/service-authorization/latest/reference/)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamArn {
    /// The partition.
    pub partition: Partition,
    /// The service.
    pub service: Service,
    /// The region.
    pub region: Region,
    /// The account.
    pub account: Account,
    name: String,
}

/// The error of an invalid text. Its message states what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an account.
    #[error("invalid AWS account {0:?}: expected 12 digits")]
    Account(String),
    /// Not a region.
    #[error("invalid AWS region {0:?}: expected a code such as eu-west-1")]
    Region(String),
    /// Not a partition.
    #[error("invalid AWS partition {0:?}: expected aws, aws-cn or aws-us-gov")]
    Partition(String),
    /// A region of another partition.
    #[error("region {0} is in partition {2}, not in {1}")]
    OtherPartition(Region, Partition, Partition),
    /// Not a stream's ARN.
    #[error(
        "invalid stream ARN {0:?}: expected arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    )]
    StreamArn(String),
    /// Not the name of a stream.
    #[error("invalid {1:?} stream name {0:?}: expected 1 to {2} of the characters a-z A-Z 0-9 _ . -")]
    StreamName(String, Service, usize),
    /// Not a key's ARN.
    #[error("invalid KMS key ARN {0:?}: expected arn:aws:kms:REGION:ACCOUNT:key/ID")]
    KeyArn(String),
    /// Not a pattern of streams.
    #[error(
        "invalid stream pattern {0:?}: expected arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, with * for the partition, for the region or in the name; the account is 12 digits or own"
    )]
    StreamPattern(String),
    /// Not a pattern of keys.
    #[error(
        "invalid key pattern {0:?}: expected AWS_OWNED_CMK, arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME, with * for the partition, for the region or in the last part; the account is 12 digits or own"
    )]
    KeyPattern(String),
    /// Not an alias.
    #[error("invalid key alias {0:?}: expected alias/NAME of a customer managed key")]
    KeyAlias(String),
    /// Not a role's ARN.
    #[error(
        "invalid IAM role ARN {0:?}: expected arn:aws:iam::ACCOUNT:role/[PATH/]NAME, not an assumed-role session"
    )]
    RoleArn(String),
    /// Not an external id. The message does not repeat it.
    #[error("invalid external id: expected 2 to 1224 of the characters a-z A-Z 0-9 _ + = , . @ : / -")]
    ExternalId,
}

impl Account {
    /// Returns the 12 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Account {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let good = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if good { Ok(Self(text.to_owned())) } else { Err(ParseError::Account(text.to_owned())) }
    }
}

impl Region {
    /// Returns the code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the partition of the region. AWS gives the regions of a partition other than `aws` a prefix of
    /// their own
    /// ([partitions](https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html)).
    #[must_use]
    pub fn partition(&self) -> Partition {
        let mut words = self.0.split('-');
        let name = match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
            ("cn", _) => "aws-cn",
            ("eusc", _) => "aws-eusc",
            ("us", "gov") => "aws-us-gov",
            (_, "iso") => "aws-iso",
            (_, "isob") => "aws-iso-b",
            (_, "isoe") => "aws-iso-e",
            (_, "isof") => "aws-iso-f",
            _ => "aws",
        };
        Partition(name.to_owned())
    }

    /// Returns an error if the region is in another partition: requests would go to the endpoints of that
    /// partition instead of those of the ARN's.
    pub(super) fn check_partition(&self, partition: &Partition) -> Result<(), ParseError> {
        let own = self.partition();
        if own == *partition {
            Ok(())
        } else {
            Err(ParseError::OtherPartition(self.clone(), partition.clone(), own))
        }
    }
}

impl FromStr for Region {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts: Vec<&str> = text.split('-').collect();
        let (number, words) = parts.split_last().unwrap_or((&"", &[]));
        let good = text.len() <= 32
            && words.len() >= 2
            && words.iter().all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()))
            && (2..=4).contains(&words[0].len())
            && (1..=2).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
            && !number.starts_with('0');
        if good { Ok(Self(text.to_owned())) } else { Err(ParseError::Region(text.to_owned())) }
    }
}

impl Partition {
    /// Returns the partition as in an ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Partition {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let good = text.len() <= 32
            && text.split('-').enumerate().all(|(at, word)| {
                if at == 0 {
                    word == "aws"
                } else {
                    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase())
                }
            });
        if good { Ok(Self(text.to_owned())) } else { Err(ParseError::Partition(text.to_owned())) }
    }
}

impl StreamArn {
    /// Creates the ARN of the stream `name`.
    pub fn new(
        partition: Partition,
        service: Service,
        region: Region,
        account: Account,
        name: &str,
    ) -> Result<Self, ParseError> {
        region.check_partition(&partition)?;
        check_name(service, name)?;
        Ok(Self { partition, service, region, account, name: name.to_owned() })
    }

    /// Returns the stream's name: 1 to 64 characters for Firehose, 1 to 128 for Kinesis.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for StreamArn {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::StreamArn(text.to_owned());
        let [arn, partition, service, region, account, resource] = arn_parts(text).ok_or_else(malformed)?;
        let (service, name) = match (service, resource.split_once('/')) {
            ("firehose", Some(("deliverystream", name))) => (Service::Firehose, name),
            ("kinesis", Some(("stream", name))) => (Service::Kinesis, name),
            _ => return Err(malformed()),
        };
        if arn != "arn" {
            return Err(malformed());
        }
        Self::new(partition.parse()?, service, region.parse()?, account.parse()?, name)
    }
}

/// Returns an error if a stream of this service cannot have this name.
pub fn check_name(service: Service, name: &str) -> Result<(), ParseError> {
    let longest = match service {
        Service::Firehose => 64,
        Service::Kinesis => 128,
    };
    let good = (1..=longest).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(ParseError::StreamName(name.to_owned(), service, longest)) }
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, kind) = match self.service {
            Service::Firehose => ("firehose", "deliverystream"),
            Service::Kinesis => ("kinesis", "stream"),
        };
        let Self { partition, region, account, name, .. } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{kind}/{name}")
    }
}

macro_rules! display_as_text {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
display_as_text!(Account, Region, Partition);

/// Returns the six parts of an ARN; the last may contain further colons.
#[must_use]
pub fn arn_parts(text: &str) -> Option<[&str; 6]> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_arn_round_trips() {
        for arn in [
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders",
            "arn:aws:kinesis:ap-southeast-2:111122223333:stream/a.b_c-D9",
            "arn:aws-us-gov:firehose:us-gov-west-1:111122223333:deliverystream/x",
            "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/x",
        ] {
            assert_eq!(arn.parse::<StreamArn>().unwrap().to_string(), arn);
        }
    }

    #[test]
    fn region_prefix_determines_partition() {
        for (region, partition) in [
            ("eu-west-1", "aws"),
            ("us-east-2", "aws"),
            // A region that AWS does not have today.
            ("zz-central-12", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            let region: Region = region.parse().unwrap();
            assert_eq!(region.partition().as_str(), partition, "{region}");
            let arn = |partition: &str| format!("arn:{partition}:kinesis:{region}:111122223333:stream/x");
            assert!(arn(partition).parse::<StreamArn>().is_ok(), "{region}");
            let other = if partition == "aws" { "aws-cn" } else { "aws" };
            let refused = arn(other).parse::<StreamArn>();
            assert!(matches!(refused, Err(ParseError::OtherPartition(..))), "{refused:?}");
        }
    }

    #[test]
    fn impossible_region_is_rejected() {
        for region in
            ["x-evil-1", "us-east-01", "us-east-0", "us-east-100", "america-north-1", "us-1", "us--1"]
        {
            assert!(region.parse::<Region>().is_err(), "{region}");
        }
    }

    #[test]
    fn stream_arn_parts_are_parsed() {
        let arn: StreamArn =
            "arn:aws-us-gov:firehose:us-gov-west-1:111122223333:deliverystream/x".parse().unwrap();
        let parts = [arn.partition.as_str(), arn.region.as_str(), arn.account.as_str(), arn.name()];
        assert_eq!(parts, ["aws-us-gov", "us-gov-west-1", "111122223333", "x"]);
        assert_eq!(arn.service, Service::Firehose);
    }

    #[test]
    fn invalid_stream_arn_is_rejected() {
        let long = format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{}", "a".repeat(65));
        for arn in [
            "",
            "orders",
            "arn:aws:s3:::bucket",
            "arn:aws:firehose:eu-west-1:111122223333:stream/orders",
            "arn:aws:kinesis:eu-west-1:111122223333:deliverystream/orders",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/orders/consumer/x:1",
            "arn:aws:kinesis:eu-west-1:11112222333:stream/orders",
            "arn:aws:kinesis:euwest1:111122223333:stream/orders",
            "arn:gcp:kinesis:eu-west-1:111122223333:stream/orders",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/",
            "xrn:aws:kinesis:eu-west-1:111122223333:stream/orders",
            &long,
        ] {
            assert!(arn.parse::<StreamArn>().is_err(), "{arn}");
        }
    }
}
