//! Which key: identities of KMS keys, and whether one can encrypt a stream.
//!
//! Keys are compared by ARN only. An alias or an id is resolved first; AWS may echo any form (`KeyId` of Kinesis).

use std::fmt;
use std::str::FromStr;

use super::stream::{Account, Malformed, Partition, Region, StreamArn, arn_parts};
use crate::api::condition::Reason;
use crate::api::ledger::{Action, Target};
use crate::api::stream_encryption::{KeyStatus, KeyType};

/// The alias that Kinesis uses for the key of AWS.
pub const KINESIS_ALIAS: &str = "alias/aws/kinesis";

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

/// A key that can encrypt a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `AWS_OWNED_CMK`; on Kinesis the AWS managed key `alias/aws/kinesis`.
    AwsOwned,
    /// `CUSTOMER_MANAGED_CMK`.
    Customer(KeyArn),
    /// A key that AWS names in a form which KMS does not resolve for us. It equals no key that anybody can ask for.
    Unresolved(String),
}

/// How a key may be named to KMS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyName {
    /// By ARN.
    Arn(KeyArn),
    /// By alias (`alias/NAME`), in the stream's account and region.
    Alias(String),
}

/// What `DescribeKey` said ([KeyMetadata](https://docs.aws.amazon.com/kms/latest/APIReference/API_KeyMetadata.html)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// The key's ARN.
    pub arn: KeyArn,
    /// Its state.
    pub state: KeyState,
    /// Whether it is symmetric (`KeySpec` is `SYMMETRIC_DEFAULT`).
    pub symmetric: bool,
    /// Whether it is for encryption (`KeyUsage` is `ENCRYPT_DECRYPT`).
    pub encrypts: bool,
    /// Whether AWS manages it (`KeyManager` is `AWS`).
    pub aws_managed: bool,
}

/// A key's state ([key states](https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It works.
    Enabled,
    /// Somebody disabled it.
    Disabled,
    /// It will be deleted.
    PendingDeletion,
    /// Its material has not been imported yet.
    PendingImport,
    /// Its key store is disconnected, or it is being made or updated.
    Unavailable,
    /// KMS describes it (its state, spec, usage or manager) in a word that this version does not know, or
    /// shows no state.
    Unrecognized,
}

/// Why a key cannot encrypt a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyProblem {
    /// KMS does not know it.
    Missing,
    /// Disabled.
    Disabled,
    /// Scheduled for deletion.
    PendingDeletion,
    /// Without material.
    PendingImport,
    /// Its key store does not answer.
    Unavailable,
    /// KMS describes it in words that this version does not know.
    Unrecognized,
    /// Asymmetric, or for HMACs.
    NotSymmetric,
    /// Not for encryption.
    WrongUsage,
    /// In another region than the stream.
    OtherRegion,
    /// A key that AWS manages for one of its services.
    AwsManaged,
    /// Its policy or the operator's rights do not let us read it.
    Unreadable,
    /// The object that `key.ref` names does not exist, or shows no ARN yet.
    ReferenceNotReady,
    /// The kind that `key.ref` names is not installed in the cluster.
    ReferenceKindMissing,
    /// No policy allows what it is named by, or what that stands for.
    NotPermitted,
}

impl KeyProblem {
    /// The problem that KMS shows of a key in force, for which a status gives this reason.
    #[must_use]
    pub fn of_key_in_force(reason: Reason) -> Option<Self> {
        match reason {
            Reason::KeyNotFound => Some(Self::Missing),
            Reason::KeyDisabled => Some(Self::Disabled),
            Reason::KeyPendingDeletion => Some(Self::PendingDeletion),
            Reason::KeyPendingImport => Some(Self::PendingImport),
            Reason::KeyUnavailable => Some(Self::Unavailable),
            _ => None,
        }
    }

    /// The reason that a person reads.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Missing => Reason::KeyNotFound,
            Self::Disabled => Reason::KeyDisabled,
            Self::PendingDeletion => Reason::KeyPendingDeletion,
            Self::PendingImport => Reason::KeyPendingImport,
            Self::Unavailable => Reason::KeyUnavailable,
            Self::Unrecognized => Reason::KeyStateUnrecognized,
            Self::NotSymmetric => Reason::KeyNotSymmetric,
            Self::WrongUsage => Reason::KeyUsageWrong,
            Self::OtherRegion => Reason::KeyInOtherRegion,
            Self::AwsManaged => Reason::KeyManagedByAws,
            Self::Unreadable => Reason::KeyUnreadable,
            Self::ReferenceNotReady => Reason::KeyReferenceNotReady,
            Self::ReferenceKindMissing => Reason::KeyReferenceKindMissing,
            Self::NotPermitted => Reason::NotPermitted,
        }
    }

    /// Whether records are lost where such a key is in force. What else may be wrong with a key that is asked for does not keep
    /// one in force from being used.
    #[must_use]
    pub fn loses_records(self) -> bool {
        match self {
            Self::Missing
            | Self::Disabled
            | Self::PendingDeletion
            | Self::PendingImport
            | Self::Unavailable => true,
            Self::Unrecognized
            | Self::NotSymmetric
            | Self::WrongUsage
            | Self::OtherRegion
            | Self::AwsManaged
            | Self::Unreadable
            | Self::ReferenceNotReady
            | Self::ReferenceKindMissing
            | Self::NotPermitted => false,
        }
    }
}

impl KeyFacts {
    /// Why this key cannot encrypt `stream`, or nothing.
    #[must_use]
    pub fn problem(&self, stream: &StreamArn) -> Option<KeyProblem> {
        if self.arn.region != stream.region {
            return Some(KeyProblem::OtherRegion);
        }
        if self.aws_managed {
            return Some(KeyProblem::AwsManaged);
        }
        if !self.encrypts {
            return Some(KeyProblem::WrongUsage);
        }
        if !self.symmetric {
            return Some(KeyProblem::NotSymmetric);
        }
        match self.state {
            KeyState::Enabled => None,
            KeyState::Disabled => Some(KeyProblem::Disabled),
            KeyState::PendingDeletion => Some(KeyProblem::PendingDeletion),
            KeyState::PendingImport => Some(KeyProblem::PendingImport),
            KeyState::Unavailable => Some(KeyProblem::Unavailable),
            KeyState::Unrecognized => Some(KeyProblem::Unrecognized),
        }
    }
}

impl KeyArn {
    /// The ARN of the key `id`.
    pub fn new(partition: Partition, region: Region, account: Account, id: &str) -> Result<Self, Malformed> {
        let good =
            (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if good && region.check_partition(&partition).is_ok() {
            Ok(Self { partition, region, account, id: id.to_owned() })
        } else {
            Err(Malformed::KeyArn(id.to_owned()))
        }
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl FromStr for KeyArn {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::KeyArn(text.to_owned());
        let ["arn", partition, "kms", region, account, resource] = arn_parts(text).ok_or_else(malformed)?
        else {
            return Err(malformed());
        };
        let id = resource.strip_prefix("key/").ok_or_else(malformed)?;
        Self::new(partition.parse()?, region.parse()?, account.parse()?, id).map_err(|_| malformed())
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, region, account, id } = self;
        write!(f, "arn:{partition}:kms:{region}:{account}:key/{id}")
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arn(arn) => arn.fmt(f),
            Self::Alias(alias) => f.write_str(alias),
        }
    }
}

/// Checks an alias of a customer managed key.
pub fn alias(text: &str) -> Result<KeyName, Malformed> {
    let good = text.len() <= 256
        && text.strip_prefix("alias/").is_some_and(|name| {
            !name.is_empty()
                && !name.starts_with("aws/")
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
        });
    if good { Ok(KeyName::Alias(text.to_owned())) } else { Err(Malformed::KeyAlias(text.to_owned())) }
}

impl Key {
    /// As status and ledger write it.
    #[must_use]
    pub fn status(&self) -> KeyStatus {
        match self {
            Self::AwsOwned => KeyStatus { kind: KeyType::AwsOwned, arn: None },
            Self::Customer(arn) => KeyStatus { kind: KeyType::CustomerManaged, arn: Some(arn.to_string()) },
            Self::Unresolved(name) => KeyStatus { kind: KeyType::CustomerManaged, arn: Some(name.clone()) },
        }
    }

    /// The key that status and ledger write so.
    #[must_use]
    pub fn of(status: &KeyStatus) -> Self {
        match (status.kind, &status.arn) {
            (KeyType::AwsOwned, _) => Self::AwsOwned,
            (KeyType::CustomerManaged, arn) => {
                let name = arn.clone().unwrap_or_default();
                name.parse().map_or(Self::Unresolved(name), Self::Customer)
            }
        }
    }

    /// Start with this key, as the ledger writes it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { action: Action::Start, key: Some(self.status()) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwsOwned => f.write_str("the AWS-owned key"),
            Self::Customer(arn) => write!(f, "{arn}"),
            Self::Unresolved(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn a_key_arn_is_written_as_it_was_read_and_an_alias_arn_is_none() {
        assert_eq!(ARN.parse::<KeyArn>().unwrap().to_string(), ARN);
        for bad in [
            "",
            "1234abcd",
            "arn:aws:kms:eu-west-1:111122223333:alias/orders",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:s3:eu-west-1:111122223333:key/x",
        ] {
            assert!(bad.parse::<KeyArn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_alias_of_aws_is_not_a_customers() {
        assert!(alias("alias/orders/2026").is_ok());
        for bad in ["orders", "alias/", "alias/aws/kinesis", "alias/a b"] {
            assert!(alias(bad).is_err(), "{bad}");
        }
    }

    /// KMS refuses every use of a key that is gone, or in another state than enabled.
    #[test]
    fn a_key_in_force_loses_records_by_its_state_and_not_by_what_else_is_wrong_with_it() {
        let stream: StreamArn =
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
        let in_state = |state| {
            let arn = ARN.parse().unwrap();
            let facts = KeyFacts { arn, state, symmetric: true, encrypts: true, aws_managed: false };
            facts.problem(&stream)
        };
        assert_eq!(in_state(KeyState::Enabled), None);
        for state in
            [KeyState::Disabled, KeyState::PendingDeletion, KeyState::PendingImport, KeyState::Unavailable]
        {
            assert!(in_state(state).unwrap().loses_records(), "{state:?}");
            let problem = in_state(state);
            assert_eq!(problem.and_then(|problem| KeyProblem::of_key_in_force(problem.reason())), problem);
        }
        assert!(KeyProblem::Missing.loses_records());
        assert_eq!(KeyProblem::of_key_in_force(Reason::KeyNotFound), Some(KeyProblem::Missing));
        for reason in Reason::ALL {
            if let Some(problem) = KeyProblem::of_key_in_force(*reason) {
                assert!(problem.loses_records() && problem.reason() == *reason, "{reason}");
            }
        }
        assert!(!in_state(KeyState::Unrecognized).unwrap().loses_records(), "nothing follows from it");
        for other in [KeyProblem::OtherRegion, KeyProblem::WrongUsage, KeyProblem::NotPermitted] {
            assert!(!other.loses_records(), "{other:?}");
        }
    }

    #[test]
    fn each_reason_why_a_key_cannot_encrypt_is_named() {
        let stream: StreamArn =
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
        let good = KeyFacts {
            arn: ARN.parse().unwrap(),
            state: KeyState::Enabled,
            symmetric: true,
            encrypts: true,
            aws_managed: false,
        };
        assert_eq!(good.problem(&stream), None);
        let elsewhere: KeyArn = ARN.replace("eu-west-1", "us-east-1").parse().unwrap();
        for (facts, problem) in [
            (KeyFacts { state: KeyState::Disabled, ..good.clone() }, KeyProblem::Disabled),
            (KeyFacts { state: KeyState::PendingDeletion, ..good.clone() }, KeyProblem::PendingDeletion),
            (KeyFacts { state: KeyState::PendingImport, ..good.clone() }, KeyProblem::PendingImport),
            (KeyFacts { state: KeyState::Unavailable, ..good.clone() }, KeyProblem::Unavailable),
            (KeyFacts { state: KeyState::Unrecognized, ..good.clone() }, KeyProblem::Unrecognized),
            (KeyFacts { symmetric: false, ..good.clone() }, KeyProblem::NotSymmetric),
            (KeyFacts { encrypts: false, ..good.clone() }, KeyProblem::WrongUsage),
            (KeyFacts { aws_managed: true, ..good.clone() }, KeyProblem::AwsManaged),
            (KeyFacts { arn: elsewhere, ..good.clone() }, KeyProblem::OtherRegion),
        ] {
            assert_eq!(facts.problem(&stream), Some(problem));
        }
    }
}
