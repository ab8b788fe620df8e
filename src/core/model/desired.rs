//! The desired state of a resource: what its spec requires of the stream, once the stream and the key are
//! known.
//!
//! Pure. It checks the policies for the desired state; it never reads the spec itself.

use jiff::Timestamp;
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::Mode;

use super::arn::StreamArn;
use super::key::{Key, KeyProblem};
use super::permission::{Denial, EffectivePolicy};

/// The desired state of a resource, resolved.
#[allow(clippy::struct_excessive_bools, reason = "independent flags")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// The desired encryption.
    pub encryption: DesiredEncryption,
    /// The problem of the desired key. `None` if no problem is known: the key is usable, the spec names no
    /// key, or `DescribeKey` failed for another reason than a refusal by KMS.
    pub key_problem: Option<KeyProblem>,
    /// The reaction to drift.
    pub mode: Mode,
    /// Whether reconciliation is suspended.
    pub suspended: bool,
    /// Whether encryption is disabled when the resource is deleted.
    pub disable_on_deletion: bool,
    /// Whether the resource is being deleted and is kept until encryption is disabled.
    pub deleting: bool,
    /// Whether a test record is to be written to verify encryption.
    pub verify: bool,
    /// When verification last succeeded.
    pub verified: Option<Timestamp>,
    /// The value of the retry annotation.
    pub retry: Option<String>,
    /// The alias or the object by which the spec names the key; `None` if the spec names no key, or its ARN.
    pub key_reference: Option<String>,
}

impl DesiredState {
    /// Returns an error if the policies do not allow the desired state for the stream.
    pub fn check_policies(&self, permission: &EffectivePolicy, stream: &StreamArn) -> Result<(), Denial> {
        permission.role_for(stream)?;
        if self.encryption == DesiredEncryption::Off || self.disable_on_deletion {
            permission.check_disable(stream)?;
        }
        match &self.encryption {
            DesiredEncryption::Key(key) => permission.check_key(stream, key),
            // A plaintext stream gets the AWS-owned key.
            DesiredEncryption::AnyKey => permission.check_key(stream, &Key::AwsOwned),
            DesiredEncryption::UnknownKey if self.key_problem == Some(KeyProblem::NotPermitted) => {
                Err(Denial::Key)
            }
            DesiredEncryption::UnknownKey | DesiredEncryption::Off => Ok(()),
        }
    }
}

/// The desired encryption of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredEncryption {
    /// Encrypted with any key; a plaintext stream gets the AWS-owned key.
    AnyKey,
    /// Encrypted with this key.
    Key(Key),
    /// Encrypted with a key that could not be resolved; `key_problem` has the cause if the key is the cause.
    UnknownKey,
    /// Plaintext.
    Off,
}

impl DesiredEncryption {
    /// Returns the target to store in the ledger, or `None` while the key is unknown.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::AnyKey => Some(Target { action: Action::Start, key: None }),
            Self::Key(key) => Some(key.target()),
            Self::UnknownKey => None,
            Self::Off => Some(Target { action: Action::Stop, key: None }),
        }
    }
}
