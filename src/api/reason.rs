//! The reasons that a condition can have, and what follows from each.
//!
//! One table has a line for each reason: no other place may list reasons for what a column says. A reason that
//! a retry or another object may resolve is *progressing*; one that requires a change of the spec is *stalled*.
//! `docs/conditions.md` has one row for each reason of `Ready`; a test compares that table with this enum.

use std::fmt;
use std::str::FromStr;

/// The values of `Ready`, `Reconciling` and `Stalled` that a reason implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// `Ready=True`.
    Ready,
    /// `Ready=False`, `Reconciling=True`: Progressing in Argo CD.
    Progressing,
    /// `Ready=Unknown`, `Reconciling=True`: AWS does not respond.
    Unknown,
    /// `Ready=False`, `Stalled=True`: Degraded in Argo CD.
    Stalled,
    /// `Ready=False` alone: `mode: Observe` only reports.
    Reported,
    /// `Ready` keeps its status and gets this reason: the resource is suspended.
    Unchanged,
}

/// The type of the event when the reason becomes that of `Ready`, or when `KeyUsable` becomes False with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The state is as specified, or a change that leads to it is in progress.
    Normal,
    /// A user or an administrator may have to act.
    Warning,
    /// No event: the state lasts for at most 30 seconds, between two that have one.
    Absent,
}

/// The purpose for which the stream is described while the reason applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescribePurpose {
    /// To follow a change, or to make one.
    Change,
    /// To detect drift only: the stream is as it should be, cannot be encrypted in its state, or does not exist.
    Drift,
    /// None. The stream is not described.
    Absent,
}

/// Whether a status shows what is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerContent {
    /// The resource owns the ledger.
    Shown,
    /// The ledger belongs to another resource, or is inaccessible or invalid; or the namespace may not use the
    /// stream.
    Hidden,
}

/// Who must act before a resource gets ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nobody: the resource is as specified, or it resolves by itself.
    Nobody,
    /// A person: a key, a permission, the spec, a policy or the stream must change first.
    Person,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $ready:ident, $event:ident, $purpose:ident, $ledger:ident, $remedy:ident;)+) => {
        /// The reason of a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the value of `reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// Returns the values of `Ready`, `Reconciling` and `Stalled` that it implies.
            #[must_use]
            pub fn ready_state(self) -> ReadyState {
                match self { $(Self::$name => ReadyState::$ready),+ }
            }

            /// Returns the type of its event.
            #[must_use]
            pub fn event_type(self) -> EventType {
                match self { $(Self::$name => EventType::$event),+ }
            }

            /// Returns the purpose for which the stream is described while it applies.
            #[must_use]
            pub fn describe_purpose(self) -> DescribePurpose {
                match self { $(Self::$name => DescribePurpose::$purpose),+ }
            }

            /// Returns whether the stream is described while it applies.
            #[must_use]
            pub fn is_described(self) -> bool {
                self.describe_purpose() != DescribePurpose::Absent
            }

            /// Returns whether a status with it shows what is in the ledger.
            #[must_use]
            pub fn ledger_content(self) -> LedgerContent {
                match self { $(Self::$name => LedgerContent::$ledger),+ }
            }

            /// Returns who must act before a resource with it gets ready.
            #[must_use]
            pub fn remedy(self) -> Remedy {
                match self { $(Self::$name => Remedy::$remedy),+ }
            }
        }
    };
}

reasons! {
    // Reason => Ready, event, Describe, ledger, remedy
    /// Records are encrypted with the desired key.
    Encrypted => Ready, Normal, Drift, Shown, Nobody;
    /// The desired key can encrypt the stream. Given by `KeyUsable` only.
    KeyEnabled => Ready, Normal, Change, Shown, Nobody;
    /// Encryption is disabled, as specified.
    EncryptionDisabled => Ready, Normal, Drift, Shown, Nobody;
    /// AWS reports ENABLED or DISABLED; the change can take up to 5 seconds to apply to all records.
    Settling => Progressing, Absent, Change, Shown, Nobody;
    /// The operator writes test records, and AWS has not reported one as encrypted yet.
    Verifying => Progressing, Normal, Change, Shown, Nobody;
    /// AWS is enabling encryption, or changing the key.
    Enabling => Progressing, Normal, Change, Shown, Nobody;
    /// AWS is disabling encryption.
    Disabling => Progressing, Normal, Change, Shown, Nobody;
    /// AWS is updating the stream for another reason, for example resharding.
    StreamUpdating => Progressing, Normal, Change, Shown, Nobody;
    /// The last attempt to enable encryption or to change the key failed. The next one is at nextAttemptTime.
    EnablingFailed => Progressing, Warning, Change, Shown, Person;
    /// The last attempt to disable encryption failed. The next one is at nextAttemptTime.
    DisablingFailed => Progressing, Warning, Change, Shown, Person;
    /// AWS accepted the call, and the stream is unchanged.
    NotApplied => Progressing, Warning, Change, Shown, Person;
    /// The last call received no response. The operator retries once AWS can no longer apply it.
    OutcomeUnknown => Progressing, Warning, Change, Shown, Nobody;
    /// The calls allowed in 24 hours are used up, or 500 Firehose streams use the key.
    CallLimitReached => Progressing, Warning, Change, Shown, Person;
    /// AWS refused the call because the stream was being changed.
    StreamInUse => Progressing, Warning, Change, Shown, Nobody;
    /// AWS refused the call with an error that does not concern keys, permissions or limits.
    CallRefused => Progressing, Warning, Change, Shown, Person;
    /// The desired key does not exist in KMS.
    KeyNotFound => Progressing, Warning, Change, Shown, Person;
    /// The desired key is disabled.
    KeyDisabled => Progressing, Warning, Change, Shown, Person;
    /// The desired key is pending deletion.
    KeyPendingDeletion => Progressing, Warning, Change, Shown, Person;
    /// The desired key has no key material yet.
    KeyPendingImport => Progressing, Warning, Change, Shown, Person;
    /// The desired key is temporarily unavailable.
    KeyUnavailable => Progressing, Warning, Change, Shown, Person;
    /// KMS reports a state of the desired key that this operator version does not recognize.
    KeyStateUnrecognized => Progressing, Warning, Change, Shown, Person;
    /// The operator may not describe the desired key.
    KeyDescribeDenied => Progressing, Warning, Change, Shown, Person;
    /// AWS may not use the desired key, by its key policy or by the operator's role.
    KeyAccessDenied => Progressing, Warning, Change, Shown, Person;
    /// The object of key.objectRef does not exist or has no ARN yet. The operator keeps checking.
    KeyReferenceNotReady => Progressing, Warning, Change, Shown, Person;
    /// The kind that key.objectRef names is not installed in the cluster.
    KeyReferenceCRDMissing => Progressing, Warning, Change, Shown, Person;
    /// The desired key is not a symmetric encryption key.
    KeyNotSymmetric => Stalled, Warning, Change, Shown, Person;
    /// The usage of the desired key is not encryption.
    KeyUsageWrong => Stalled, Warning, Change, Shown, Person;
    /// The desired key is an AWS managed key; use `AWS_OWNED_CMK`.
    KeyManagedByAws => Stalled, Warning, Change, Shown, Person;
    /// The desired key is in another region than the stream.
    KeyInOtherRegion => Stalled, Warning, Change, Shown, Person;
    /// The stream does not exist in AWS.
    StreamNotFound => Progressing, Warning, Drift, Shown, Person;
    /// The stream is being created.
    StreamCreating => Progressing, Normal, Change, Shown, Nobody;
    /// The stream is being deleted.
    StreamDeleting => Progressing, Warning, Drift, Shown, Person;
    /// AWS failed to create or delete the stream.
    StreamFailed => Progressing, Warning, Drift, Shown, Person;
    /// AWS reports a state of the stream that this operator version does not recognize, so no call is made.
    StreamStateUnrecognized => Progressing, Warning, Change, Shown, Person;
    /// AWS describes another stream of that name: the operator's credentials belong to another account.
    StreamARNMismatch => Progressing, Warning, Drift, Shown, Person;
    /// The operator lacks a permission in AWS.
    AccessDenied => Progressing, Warning, Change, Shown, Person;
    /// The operator has no usable AWS credentials, so no request was sent.
    NoCredentials => Unknown, Warning, Change, Shown, Person;
    /// AWS rejects the operator's credentials, its clock, or its use of the region.
    CredentialsRejected => Unknown, Warning, Change, Shown, Person;
    /// AWS does not respond, or returns an internal error, or the operator did not send its call.
    AwsUnreachable => Unknown, Warning, Change, Shown, Nobody;
    /// AWS is throttling requests.
    AwsThrottled => Unknown, Warning, Change, Shown, Nobody;
    /// The operator's session is too old for Firehose to create a grant with it.
    SessionTooOld => Progressing, Warning, Change, Shown, Person;
    /// The ledger of the stream is inaccessible or invalid, so no call is made.
    LedgerInvalid => Progressing, Warning, Absent, Hidden, Person;
    /// Only Firehose streams whose source is `DirectPut` can be encrypted.
    SourceNotDirectPut => Stalled, Warning, Drift, Shown, Person;
    /// Another `StreamEncryption` already manages the stream.
    StreamAlreadyManaged => Stalled, Warning, Absent, Hidden, Person;
    /// No policy allows this namespace to use this stream, or this key for it.
    NotPermitted => Stalled, Warning, Absent, Hidden, Person;
    /// The policies that allow this namespace to use this stream name different roles or external ids.
    ConflictingPolicyRoles => Stalled, Warning, Absent, Hidden, Person;
    /// No policy allows this namespace to disable encryption of this stream.
    DisableNotPermitted => Stalled, Warning, Absent, Shown, Person;
    /// The operator has corrected drift three times in 24 hours, and the stream was changed again. The next
    /// correction is at nextAttemptTime.
    DriftCorrectionLimitReached => Progressing, Warning, Change, Shown, Person;
    /// The last attempt failed, and AWS does not report which key is active: it may be the desired key.
    ActiveKeyUnknown => Stalled, Warning, Change, Shown, Person;
    /// The spec is invalid.
    SpecInvalid => Stalled, Warning, Absent, Shown, Person;
    /// The stream differs from the spec, and mode is Observe.
    Drifted => Reported, Warning, Drift, Shown, Person;
    /// spec.suspend or the annotation streamencryption.dev/suspend is true.
    Suspended => Unchanged, Normal, Absent, Shown, Person;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_valid_in_condition_event_and_ledger() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!((1..=64).contains(&word.len()), "{word}");
            assert!(word.starts_with(|c: char| c.is_ascii_alphabetic()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }

    #[test]
    fn every_reason_round_trips() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
    }

    /// A resource without a claim on the stream or its ledger sends no Describe for it.
    #[test]
    fn stream_of_hidden_ledger_is_not_described() {
        for reason in Reason::ALL {
            if reason.ledger_content() == LedgerContent::Hidden {
                assert_eq!(reason.describe_purpose(), DescribePurpose::Absent, "{reason}");
            }
        }
    }
}
