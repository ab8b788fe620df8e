//! ARNs and aliases: the only place that splits and prints them. [`pattern`] has the patterns of policies.
//!
//! Inside the operator a stream is always a [`StreamArn`], a key a [`KeyArn`] and a role a [`RoleArn`], so a
//! text with an invalid form, service or account cannot be passed on. Nothing here knows whether AWS has what
//! an ARN names. For a stream given by name, the account comes from STS and the region from the operator.

use std::fmt;
use std::str::FromStr;

use stream_encryption_api::stream_encryption::Service;

use super::service::{PROFILES, ServiceProfile, profile};

mod parts;
pub mod pattern;

pub use parts::{Account, ParseError, Partition, Region, is_name};

/// Maximum length of a role's name
/// ([IAM's limits](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)).
const LONGEST_ROLE_NAME: usize = 64;
/// Maximum length of a role's path, including its first and last slash.
const LONGEST_ROLE_PATH: usize = 512;

/// The parts of an ARN, `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, as text. None of them is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    /// The partition.
    pub partition: &'a str,
    /// The prefix of the service.
    pub service: &'a str,
    /// The region; empty for IAM.
    pub region: &'a str,
    /// The account.
    pub account: &'a str,
    /// The rest, which may contain further colons.
    pub resource: &'a str,
}

/// An account with its partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsAccount {
    /// The account.
    pub account: Account,
    /// Its partition; an account belongs to one partition only.
    pub partition: Partition,
}

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

/// The ARN of a KMS key: `arn:aws:kms:REGION:ACCOUNT:key/ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyArn {
    /// The partition.
    pub partition: Partition,
    /// The region.
    pub region: Region,
    /// The account that owns the key.
    pub account: Account,
    id: String,
}

/// A name of a key that KMS accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KmsKeyId {
    /// By ARN.
    Arn(KeyArn),
    /// By alias (`alias/NAME`), in the stream's account and region.
    Alias(String),
}

/// The ARN of an IAM role: `arn:aws:iam::ACCOUNT:role/NAME`, or `arn:aws:iam::ACCOUNT:role/PATH/NAME`
/// ([Role](https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleArn {
    /// The partition.
    pub partition: Partition,
    /// The account that owns the role.
    pub account: Account,
    /// The path and the name: `/NAME`, or `/PATH/NAME`.
    path_and_name: String,
}

impl<'a> Arn<'a> {
    /// Splits an ARN; `None` if the text is none.
    #[must_use]
    pub fn split(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, service, region, account, resource] = parts[..] else { return None };
        Some(Self { partition, service, region, account, resource })
    }

    /// Returns the service and the name of the stream; `None` if the ARN is that of anything else.
    fn stream(&self) -> Option<(Service, &'a str)> {
        let (kind, name) = self.resource.split_once('/')?;
        let of = PROFILES.iter().find(|of| of.arn_service == self.service && of.arn_type == kind)?;
        Some((of.service, name))
    }
}

impl AwsAccount {
    /// Returns the account of a stream.
    #[must_use]
    pub fn of(stream: &StreamArn) -> Self {
        Self { account: stream.account.clone(), partition: stream.partition.clone() }
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
        let arn = Arn::split(text).ok_or_else(malformed)?;
        let (service, name) = arn.stream().ok_or_else(malformed)?;
        Self::new(arn.partition.parse()?, service, arn.region.parse()?, arn.account.parse()?, name)
    }
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceProfile { arn_service, arn_type, .. } = profile(self.service);
        let Self { partition, region, account, name, .. } = self;
        write!(f, "arn:{partition}:{arn_service}:{region}:{account}:{arn_type}/{name}")
    }
}

/// Returns an error if a stream of this service cannot have this name.
pub fn check_name(service: Service, name: &str) -> Result<(), ParseError> {
    let longest = profile(service).longest_name;
    if is_name(name, 1..=longest, b"_.-") {
        Ok(())
    } else {
        Err(ParseError::StreamName(name.to_owned(), service, longest))
    }
}

impl KeyArn {
    /// Creates the ARN of the key `id`.
    pub fn new(partition: Partition, region: Region, account: Account, id: &str) -> Result<Self, ParseError> {
        if is_name(id, 1..=128, b"-") && region.check_partition(&partition).is_ok() {
            Ok(Self { partition, region, account, id: id.to_owned() })
        } else {
            Err(ParseError::KeyArn(id.to_owned()))
        }
    }

    /// Returns the key's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl FromStr for KeyArn {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::KeyArn(text.to_owned());
        let arn = Arn::split(text).filter(|arn| arn.service == "kms").ok_or_else(malformed)?;
        let id = arn.resource.strip_prefix("key/").ok_or_else(malformed)?;
        Self::new(arn.partition.parse()?, arn.region.parse()?, arn.account.parse()?, id)
            .map_err(|_| malformed())
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, region, account, id } = self;
        write!(f, "arn:{partition}:kms:{region}:{account}:key/{id}")
    }
}

/// Parses an alias of a customer managed key.
pub fn alias(text: &str) -> Result<KmsKeyId, ParseError> {
    let name = text.strip_prefix("alias/").filter(|name| !name.starts_with("aws/"));
    if name.is_some_and(|name| is_name(name, 1..=250, b"/_-")) {
        Ok(KmsKeyId::Alias(text.to_owned()))
    } else {
        Err(ParseError::KeyAlias(text.to_owned()))
    }
}

impl fmt::Display for KmsKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arn(arn) => arn.fmt(f),
            Self::Alias(alias) => f.write_str(alias),
        }
    }
}

/// IAM accepts every visible character in a path. Only `:`, `/` and the characters of a role's name are
/// accepted here. A star must be rejected: in a printed policy it would match many roles.
fn is_role(path_and_name: &str) -> bool {
    let Some(end) = path_and_name.rfind('/') else { return false };
    let (path, name) = path_and_name.split_at(end + 1);
    let is_path = path == "/"
        || (path.starts_with('/')
            && is_name(path, 3..=LONGEST_ROLE_PATH, b"_+=,.@:/-")
            && !path.contains("//"));
    is_path && is_name(name, 1..=LONGEST_ROLE_NAME, b"_+=,.@-")
}

impl FromStr for RoleArn {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::RoleArn(text.to_owned());
        let Some(Arn { partition, service: "iam", region: "", account, resource }) = Arn::split(text) else {
            return Err(malformed());
        };
        let path_and_name =
            resource.strip_prefix("role").filter(|rest| is_role(rest)).ok_or_else(malformed)?;
        Ok(Self {
            partition: partition.parse()?,
            account: account.parse()?,
            path_and_name: path_and_name.to_owned(),
        })
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, account, path_and_name } = self;
        write!(f, "arn:{partition}:iam::{account}:role{path_and_name}")
    }
}

#[cfg(test)]
mod tests;
