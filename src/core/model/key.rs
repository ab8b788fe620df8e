//! The keys of streams, and whether a key can encrypt a stream.
//!
//! Keys are compared by ARN only. An alias or an id is resolved first; AWS may return any form (`KeyId` of
//! Kinesis).

use std::fmt;

use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::{KeyIdentity, KeyType};

use super::arn::{KeyArn, StreamArn};

/// The alias that Kinesis uses for the AWS managed key.
pub const KINESIS_ALIAS: &str = "alias/aws/kinesis";

/// A key that can encrypt a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `AWS_OWNED_CMK`; on Kinesis the AWS managed key `alias/aws/kinesis`.
    AwsOwned,
    /// `CUSTOMER_MANAGED_CMK`.
    Customer(KeyArn),
    /// A key that AWS does not name, or names in a form that is not a key's ARN and could not be resolved. It
    /// equals no key that a spec can name.
    Unresolved(String),
}

/// The response of `DescribeKey`
/// ([KeyMetadata](https://docs.aws.amazon.com/kms/latest/APIReference/API_KeyMetadata.html)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMetadata {
    /// The key's ARN.
    pub arn: KeyArn,
    /// The key's state.
    pub state: KeyState,
    /// Whether the key is symmetric (`KeySpec` is `SYMMETRIC_DEFAULT`).
    pub symmetric: bool,
    /// Whether the key is for encryption (`KeyUsage` is `ENCRYPT_DECRYPT`).
    pub encrypts: bool,
    /// Whether AWS manages the key (`KeyManager` is `AWS`).
    pub aws_managed: bool,
}

/// A key's state ([key states](https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Disabled.
    Disabled,
    /// Pending deletion.
    PendingDeletion,
    /// The key material has not been imported yet.
    PendingImport,
    /// The key store is disconnected, or the key is being created or updated.
    Unavailable,
    /// KMS reports a state, spec, usage or manager that this version does not know, or no state.
    Unrecognized,
}

/// The reason why a key cannot encrypt a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyProblem {
    /// The key does not exist in KMS.
    NotFound,
    /// Disabled.
    Disabled,
    /// Scheduled for deletion.
    PendingDeletion,
    /// Without key material.
    PendingImport,
    /// The key store is disconnected, the key is being created or updated, or KMS returned
    /// `KMSInvalidStateException`.
    Unavailable,
    /// KMS reports a value that this version does not know.
    Unrecognized,
    /// Not `SYMMETRIC_DEFAULT`, although its usage is encryption.
    NotSymmetric,
    /// Not for encryption.
    WrongUsage,
    /// In another region than the stream.
    OtherRegion,
    /// A key that AWS manages for one of its services.
    AwsManaged,
    /// The key policy or the operator's permissions do not allow the operator to describe it.
    DescribeDenied,
    /// The object that `key.objectRef` names does not exist, or has no ARN yet.
    ReferenceNotReady,
    /// The kind that `key.objectRef` names is not installed in the cluster.
    ReferenceCrdMissing,
    /// No policy allows the name of the key, or the key that the name resolves to.
    NotPermitted,
}

impl KeyProblem {
    /// Returns the problem that has this reason, of those that make an active key unusable; otherwise `None`.
    /// The inverse of [`reason`](Self::reason).
    #[must_use]
    pub fn of_active_key(reason: Reason) -> Option<Self> {
        match reason {
            Reason::KeyNotFound => Some(Self::NotFound),
            Reason::KeyDisabled => Some(Self::Disabled),
            Reason::KeyPendingDeletion => Some(Self::PendingDeletion),
            Reason::KeyPendingImport => Some(Self::PendingImport),
            Reason::KeyUnavailable => Some(Self::Unavailable),
            _ => None,
        }
    }

    /// Returns the reason to report in conditions.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::NotFound => Reason::KeyNotFound,
            Self::Disabled => Reason::KeyDisabled,
            Self::PendingDeletion => Reason::KeyPendingDeletion,
            Self::PendingImport => Reason::KeyPendingImport,
            Self::Unavailable => Reason::KeyUnavailable,
            Self::Unrecognized => Reason::KeyStateUnrecognized,
            Self::NotSymmetric => Reason::KeyNotSymmetric,
            Self::WrongUsage => Reason::KeyUsageWrong,
            Self::OtherRegion => Reason::KeyInOtherRegion,
            Self::AwsManaged => Reason::KeyManagedByAws,
            Self::DescribeDenied => Reason::KeyDescribeDenied,
            Self::ReferenceNotReady => Reason::KeyReferenceNotReady,
            Self::ReferenceCrdMissing => Reason::KeyReferenceCRDMissing,
            Self::NotPermitted => Reason::NotPermitted,
        }
    }

    /// Returns whether an active key with this problem is unusable: Firehose then loses the records, and
    /// Kinesis neither accepts nor returns them. The other problems prevent the use of a desired key, and do
    /// not affect a key that is active already.
    #[must_use]
    pub fn makes_key_unusable(self) -> bool {
        match self {
            Self::NotFound
            | Self::Disabled
            | Self::PendingDeletion
            | Self::PendingImport
            | Self::Unavailable => true,
            Self::Unrecognized
            | Self::NotSymmetric
            | Self::WrongUsage
            | Self::OtherRegion
            | Self::AwsManaged
            | Self::DescribeDenied
            | Self::ReferenceNotReady
            | Self::ReferenceCrdMissing
            | Self::NotPermitted => false,
        }
    }
}

impl KeyMetadata {
    /// Returns why this key cannot encrypt `stream`; `None` if it can.
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

impl Key {
    /// Returns the key in the form of status and ledger.
    #[must_use]
    pub fn to_api(&self) -> KeyIdentity {
        match self {
            Self::AwsOwned => KeyIdentity { kind: KeyType::AwsOwned, arn: None },
            Self::Customer(arn) => KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.to_string()) },
            Self::Unresolved(name) => KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(name.clone()) },
        }
    }

    /// Returns the key that status and ledger store in this form.
    #[must_use]
    pub fn of(status: &KeyIdentity) -> Self {
        match (status.kind, &status.arn) {
            (KeyType::AwsOwned, _) => Self::AwsOwned,
            (KeyType::CustomerManaged, arn) => {
                let name = arn.clone().unwrap_or_default();
                name.parse().map_or(Self::Unresolved(name), Self::Customer)
            }
        }
    }

    /// Returns a Start with this key, in the form of the ledger.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { action: Action::Start, key: Some(self.to_api()) }
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

    /// KMS refuses every use of a key that does not exist, or that is not enabled.
    #[test]
    fn only_key_state_makes_data_unreadable() {
        let stream: StreamArn =
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
        let in_state = |state| {
            let arn = ARN.parse().unwrap();
            let metadata = KeyMetadata { arn, state, symmetric: true, encrypts: true, aws_managed: false };
            metadata.problem(&stream)
        };
        assert_eq!(in_state(KeyState::Enabled), None);
        for state in
            [KeyState::Disabled, KeyState::PendingDeletion, KeyState::PendingImport, KeyState::Unavailable]
        {
            assert!(in_state(state).unwrap().makes_key_unusable(), "{state:?}");
            let problem = in_state(state);
            assert_eq!(problem.and_then(|problem| KeyProblem::of_active_key(problem.reason())), problem);
        }
        assert!(KeyProblem::NotFound.makes_key_unusable());
        assert_eq!(KeyProblem::of_active_key(Reason::KeyNotFound), Some(KeyProblem::NotFound));
        for reason in Reason::ALL {
            if let Some(problem) = KeyProblem::of_active_key(*reason) {
                assert!(problem.makes_key_unusable() && problem.reason() == *reason, "{reason}");
            }
        }
        assert!(!in_state(KeyState::Unrecognized).unwrap().makes_key_unusable(), "nothing follows from it");
        for other in [KeyProblem::OtherRegion, KeyProblem::WrongUsage, KeyProblem::NotPermitted] {
            assert!(!other.makes_key_unusable(), "{other:?}");
        }
    }

    #[test]
    fn each_key_problem_is_reported() {
        let stream: StreamArn =
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
        let good = KeyMetadata {
            arn: ARN.parse().unwrap(),
            state: KeyState::Enabled,
            symmetric: true,
            encrypts: true,
            aws_managed: false,
        };
        assert_eq!(good.problem(&stream), None);
        let elsewhere: KeyArn = ARN.replace("eu-west-1", "us-east-1").parse().unwrap();
        for (metadata, problem) in [
            (KeyMetadata { state: KeyState::Disabled, ..good.clone() }, KeyProblem::Disabled),
            (KeyMetadata { state: KeyState::PendingDeletion, ..good.clone() }, KeyProblem::PendingDeletion),
            (KeyMetadata { state: KeyState::PendingImport, ..good.clone() }, KeyProblem::PendingImport),
            (KeyMetadata { state: KeyState::Unavailable, ..good.clone() }, KeyProblem::Unavailable),
            (KeyMetadata { state: KeyState::Unrecognized, ..good.clone() }, KeyProblem::Unrecognized),
            (KeyMetadata { symmetric: false, ..good.clone() }, KeyProblem::NotSymmetric),
            (KeyMetadata { encrypts: false, ..good.clone() }, KeyProblem::WrongUsage),
            (KeyMetadata { aws_managed: true, ..good.clone() }, KeyProblem::AwsManaged),
            (KeyMetadata { arn: elsewhere, ..good.clone() }, KeyProblem::OtherRegion),
        ] {
            assert_eq!(metadata.problem(&stream), Some(problem));
        }
    }
}
