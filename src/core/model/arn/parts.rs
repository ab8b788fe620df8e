//! The parts of an ARN that are values of their own: partition, region and account; and the error of an invalid
//! text.
//!
//! A value is checked once, when its text is parsed. An error's message states what to write.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use stream_encryption_api::stream_encryption::Service;

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
    #[error("invalid AWS partition {0:?}: expected a partition such as aws, aws-cn or aws-us-gov")]
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

macro_rules! parts {
    ($($(#[doc = $doc:literal])+ $name:ident if $is_valid:path;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Returns the text, as in an ARN.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                let text = text.to_owned();
                if $is_valid(&text) { Ok(Self(text)) } else { Err(ParseError::$name(text)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

parts! {
    /// An AWS account: 12 digits.
    Account if is_account;
    /// A region's code, such as `eu-west-1`.
    Region if is_region;
    /// A partition: `aws`, `aws-cn`, `aws-us-gov`, …
    Partition if is_partition;
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let (number, words) = parts.split_last().unwrap_or((&"", &[]));
    text.len() <= 32
        && words.len() >= 2
        && words.iter().all(|word| is_lowercase_word(word))
        && (2..=4).contains(&words[0].len())
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && !number.starts_with('0')
}

fn is_partition(text: &str) -> bool {
    let mut words = text.split('-');
    text.len() <= 32 && words.next() == Some("aws") && words.all(is_lowercase_word)
}

fn is_lowercase_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase())
}

/// Returns whether a text has one of these lengths and consists of letters, digits and `others`.
#[must_use]
pub fn is_name(text: &str, lengths: RangeInclusive<usize>, others: &[u8]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

impl Region {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_region_is_rejected() {
        for region in
            ["x-evil-1", "us-east-01", "us-east-0", "us-east-100", "america-north-1", "us-1", "us--1"]
        {
            assert!(region.parse::<Region>().is_err(), "{region}");
        }
    }
}
