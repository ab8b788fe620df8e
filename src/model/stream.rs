//! Which stream: an ARN that has been checked, and its parts.
//!
//! Inside the operator a stream is a [`StreamArn`] and nothing else, so a name of the wrong shape, service or account
//! cannot travel. Written by name, a stream gets its account from STS and its region from the operator.

use std::fmt;
use std::str::FromStr;

use crate::api::stream_encryption::Service;

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
/// Firehose: `arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME`; Kinesis: `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`
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

/// Why a text is not what it should be; the message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not an account.
    #[error("{0:?} is not an AWS account: write its 12 digits")]
    Account(String),
    /// Not a region.
    #[error("{0:?} is not a region: write its code, such as eu-west-1")]
    Region(String),
    /// Not a partition.
    #[error("{0:?} is not a partition of AWS: write aws, aws-cn or aws-us-gov")]
    Partition(String),
    /// A region of another partition.
    #[error("{0} is not a region of the partition {1}: the region is in {2}")]
    OtherPartition(Region, Partition, Partition),
    /// Not a stream's ARN.
    #[error(
        "{0:?} is not a stream's ARN: write arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    )]
    StreamArn(String),
    /// Not a name of a stream.
    #[error("{0:?} is not the name of a {1:?} stream: write 1 to {2} of the characters a-z A-Z 0-9 _ . -")]
    StreamName(String, Service, usize),
    /// Not a key's ARN.
    #[error("{0:?} is not the ARN of a KMS key: write arn:aws:kms:REGION:ACCOUNT:key/ID")]
    KeyArn(String),
    /// Not a pattern of streams.
    #[error(
        "{0:?} is not a pattern of streams: write arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, with * for the partition, for the region or in the name; the account is 12 digits or own"
    )]
    StreamPattern(String),
    /// Not a pattern of keys.
    #[error(
        "{0:?} is not a pattern of keys: write AWS_OWNED_CMK, arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME, with * for the partition, for the region or in the last part; the account is 12 digits or own"
    )]
    KeyPattern(String),
    /// Not an alias.
    #[error("{0:?} is not the alias of a customer managed key: write alias/NAME")]
    KeyAlias(String),
    /// Not a role's ARN.
    #[error(
        "{0:?} is not the ARN of a role: write arn:aws:iam::ACCOUNT:role/NAME, with the path before NAME if it has one: the role itself, and not a session of it"
    )]
    RoleArn(String),
    /// Not an external id. It is not repeated.
    #[error("this is not an external id: write 2 to 1224 of the characters a-z A-Z 0-9 _ + = , . @ : / -")]
    ExternalId,
}

impl Account {
    /// The 12 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Account {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let good = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if good { Ok(Self(text.to_owned())) } else { Err(Malformed::Account(text.to_owned())) }
    }
}

impl Region {
    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the partition that the region is in. AWS gives the regions of a partition other than `aws` a beginning of their own
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

    /// Returns an error if the region is of another partition: a request to it would go to other hosts than those that the ARN means.
    pub(super) fn check_partition(&self, partition: &Partition) -> Result<(), Malformed> {
        let own = self.partition();
        if own == *partition {
            Ok(())
        } else {
            Err(Malformed::OtherPartition(self.clone(), partition.clone(), own))
        }
    }
}

impl FromStr for Region {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parts: Vec<&str> = text.split('-').collect();
        let (number, words) = parts.split_last().unwrap_or((&"", &[]));
        let good = text.len() <= 32
            && words.len() >= 2
            && words.iter().all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()))
            && (2..=4).contains(&words[0].len())
            && (1..=2).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
            && !number.starts_with('0');
        if good { Ok(Self(text.to_owned())) } else { Err(Malformed::Region(text.to_owned())) }
    }
}

impl Partition {
    /// As it stands in an ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Partition {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let good = text.len() <= 32
            && text.split('-').enumerate().all(|(at, word)| {
                if at == 0 {
                    word == "aws"
                } else {
                    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase())
                }
            });
        if good { Ok(Self(text.to_owned())) } else { Err(Malformed::Partition(text.to_owned())) }
    }
}

impl StreamArn {
    /// The ARN of the stream `name`.
    pub fn new(
        partition: Partition,
        service: Service,
        region: Region,
        account: Account,
        name: &str,
    ) -> Result<Self, Malformed> {
        region.check_partition(&partition)?;
        check_name(service, name)?;
        Ok(Self { partition, service, region, account, name: name.to_owned() })
    }

    /// The stream's name: 1 to 64 characters for Firehose, 1 to 128 for Kinesis.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for StreamArn {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::StreamArn(text.to_owned());
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

/// Checks whether a stream of this service can have this name.
pub fn check_name(service: Service, name: &str) -> Result<(), Malformed> {
    let longest = match service {
        Service::Firehose => 64,
        Service::Kinesis => 128,
    };
    let good = (1..=longest).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(Malformed::StreamName(name.to_owned(), service, longest)) }
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

/// The six parts of an ARN; the last may hold further colons.
pub(super) fn arn_parts(text: &str) -> Option<[&str; 6]> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_written_as_it_was_read() {
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
    fn region_is_in_the_partition_that_its_beginning_names() {
        for (region, partition) in [
            ("eu-west-1", "aws"),
            ("us-east-2", "aws"),
            // None that AWS has today.
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
            assert!(matches!(refused, Err(Malformed::OtherPartition(..))), "{refused:?}");
        }
    }

    #[test]
    fn region_that_aws_could_not_have_is_refused() {
        for region in
            ["x-evil-1", "us-east-01", "us-east-0", "us-east-100", "america-north-1", "us-1", "us--1"]
        {
            assert!(region.parse::<Region>().is_err(), "{region}");
        }
    }

    #[test]
    fn the_parts_of_an_arn_are_those_that_stand_in_it() {
        let arn: StreamArn =
            "arn:aws-us-gov:firehose:us-gov-west-1:111122223333:deliverystream/x".parse().unwrap();
        let parts = [arn.partition.as_str(), arn.region.as_str(), arn.account.as_str(), arn.name()];
        assert_eq!(parts, ["aws-us-gov", "us-gov-west-1", "111122223333", "x"]);
        assert_eq!(arn.service, Service::Firehose);
    }

    #[test]
    fn an_arn_of_another_service_shape_or_length_is_refused() {
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
