//! Condition types and the reasons that they can have.
//!
//! The conditions follow kstatus: `Ready` is always present; `Reconciling` and `Stalled` only while true, and
//! never both. A reason that a retry or another object may resolve is *progressing*; one that requires a
//! change of the spec is *stalled*. `docs/conditions.md` has one row for each reason of `Ready`; a test
//! compares that table with this enum.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The stream matches the spec.
    Ready,
    /// Reconciliation is in progress, or the operator is waiting for a condition that may resolve by itself.
    Reconciling,
    /// Progress requires a change to the spec or to AWS resources.
    Stalled,
    /// Records are encrypted now, with any key.
    Encrypted,
    /// The desired key can encrypt the stream.
    KeyUsable,
}

impl ConditionType {
    /// Returns the value of `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Encrypted => "Encrypted",
            Self::KeyUsable => "KeyUsable",
        }
    }
}

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

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $standing:ident),+ $(,)?) => {
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
                match self { $(Self::$name => ReadyState::$standing),+ }
            }
        }
    };
}

reasons! {
    /// Records are encrypted with the desired key.
    Encrypted => Ready,
    /// The desired key can encrypt the stream. Given by `KeyUsable` only.
    KeyEnabled => Ready,
    /// Encryption is disabled, as specified.
    EncryptionDisabled => Ready,
    /// AWS reports ENABLED or DISABLED; the change can take up to 5 seconds to apply to all records.
    Settling => Progressing,
    /// A test record was written, and AWS has not reported one as encrypted yet.
    Verifying => Progressing,
    /// AWS is enabling encryption, or changing the key.
    Enabling => Progressing,
    /// AWS is disabling encryption.
    Disabling => Progressing,
    /// AWS is updating the stream for another reason, for example resharding.
    StreamUpdating => Progressing,
    /// The last attempt to enable encryption or to change the key failed. The next one is at nextAttemptTime.
    EnablingFailed => Progressing,
    /// The last attempt to disable encryption failed. The next one is at nextAttemptTime.
    DisablingFailed => Progressing,
    /// AWS accepted the call, and the stream is unchanged.
    NotApplied => Progressing,
    /// The last call received no response. The operator retries once AWS can no longer apply it.
    OutcomeUnknown => Progressing,
    /// The calls allowed in 24 hours are used up, or 500 Firehose streams use the key.
    CallLimitReached => Progressing,
    /// AWS refused the call because the stream was being changed.
    StreamInUse => Progressing,
    /// AWS refused the call with an error that does not concern keys, permissions or limits.
    CallRefused => Progressing,
    /// The desired key does not exist in KMS.
    KeyNotFound => Progressing,
    /// The desired key is disabled.
    KeyDisabled => Progressing,
    /// The desired key is pending deletion.
    KeyPendingDeletion => Progressing,
    /// The desired key has no key material yet.
    KeyPendingImport => Progressing,
    /// The desired key is temporarily unavailable.
    KeyUnavailable => Progressing,
    /// KMS reports a state of the desired key that this operator version does not recognize.
    KeyStateUnrecognized => Progressing,
    /// The operator may not describe the desired key.
    KeyDescribeDenied => Progressing,
    /// AWS may not use the desired key, by its key policy or by the operator's role.
    KeyAccessDenied => Progressing,
    /// The object of key.objectRef does not exist or has no ARN yet. The operator keeps checking.
    KeyReferenceNotReady => Progressing,
    /// The kind that key.objectRef names is not installed in the cluster.
    KeyReferenceCRDMissing => Progressing,
    /// The desired key is not symmetric.
    KeyNotSymmetric => Stalled,
    /// The usage of the desired key is not encryption.
    KeyUsageWrong => Stalled,
    /// The desired key is an AWS managed key; use `AWS_OWNED_CMK`.
    KeyManagedByAws => Stalled,
    /// The desired key is in another region than the stream.
    KeyInOtherRegion => Stalled,
    /// The stream does not exist in AWS.
    StreamNotFound => Progressing,
    /// The stream is being created.
    StreamCreating => Progressing,
    /// The stream is being deleted.
    StreamDeleting => Progressing,
    /// AWS failed to create or delete the stream.
    StreamFailed => Progressing,
    /// AWS reports a state of the stream that this operator version does not recognize, so no call is made.
    StreamStateUnrecognized => Progressing,
    /// AWS describes another stream of that name: the operator's credentials belong to another account.
    StreamARNMismatch => Progressing,
    /// The operator lacks a permission in AWS.
    AccessDenied => Progressing,
    /// The operator has no usable AWS credentials, so no request was sent.
    NoCredentials => Unknown,
    /// AWS rejects the operator's credentials, its clock, or its use of the region.
    CredentialsRejected => Unknown,
    /// AWS does not respond, or returns an internal error, or the operator did not send its call.
    AwsUnreachable => Unknown,
    /// AWS is throttling requests.
    AwsThrottled => Unknown,
    /// The operator's session is too old for Firehose to create a grant with it.
    SessionTooOld => Progressing,
    /// The ledger of the stream is inaccessible or invalid, so no call is made.
    LedgerInvalid => Progressing,
    /// Only Firehose streams whose source is `DirectPut` can be encrypted.
    SourceNotDirectPut => Stalled,
    /// Another `StreamEncryption` already manages the stream.
    StreamAlreadyManaged => Stalled,
    /// No policy allows this namespace to use this stream, or this key for it.
    NotPermitted => Stalled,
    /// The policies that allow this namespace to use this stream name different roles or external ids.
    ConflictingPolicyRoles => Stalled,
    /// No policy allows this namespace to disable encryption of this stream.
    DisableNotPermitted => Stalled,
    /// The operator has corrected drift three times in 24 hours, and the stream was changed again. The next
    /// correction is at nextAttemptTime.
    DriftCorrectionLimitReached => Progressing,
    /// The last attempt failed, and AWS does not report which key is active: it may be the desired key.
    ActiveKeyUnknown => Stalled,
    /// The spec is invalid.
    SpecInvalid => Stalled,
    /// The stream differs from the spec, and mode is Observe.
    Drifted => Reported,
    /// spec.suspend or the annotation streamencryption.dev/suspend is true.
    Suspended => Unchanged,
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

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// The condition is true.
    True,
    /// The condition is false.
    False,
    /// The condition is unknown.
    Unknown,
}

impl ConditionStatus {
    /// Returns the value of `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Maximum length of a condition's message in bytes, as Kubernetes' own conditions define it
/// ([Condition](https://pkg.go.dev/k8s.io/apimachinery/pkg/apis/meta/v1#Condition)). The message for an
/// object that cannot be parsed quotes its content, which may be as large as an object can be.
pub const MAX_MESSAGE_BYTES: usize = 32_768;

/// Returns a condition. Its transition time is that of the same condition in `before` unless the status
/// changed. Kubernetes stores whole seconds, and so does this condition, so a written condition is equal to
/// the one that is read back.
#[must_use]
pub fn condition(
    before: &[Condition],
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    named_condition(before, kind.as_str(), status, reason.as_str(), message, generation, now)
}

/// Returns a condition like [`condition`], of any type and with any reason.
#[must_use]
pub fn named_condition(
    before: &[Condition],
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let old = before.iter().find(|condition| condition.type_ == kind);
    let unchanged = old.filter(|old| old.status == status.as_str());
    Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned(),
        observed_generation: generation,
        last_transition_time: unchanged
            .map_or_else(|| whole_second(now), |old| old.last_transition_time.clone()),
    }
}

/// Returns `Ready`, and `Reconciling` or `Stalled` if they are true.
#[must_use]
pub fn ready_conditions(
    before: &[Condition],
    reason: Reason,
    words: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let make = |kind, status| condition(before, kind, status, reason, words, generation, now);
    let (ready, more) = match reason.ready_state() {
        ReadyState::Ready => (ConditionStatus::True, None),
        ReadyState::Progressing => (ConditionStatus::False, Some(ConditionType::Reconciling)),
        ReadyState::Unknown => (ConditionStatus::Unknown, Some(ConditionType::Reconciling)),
        ReadyState::Stalled => (ConditionStatus::False, Some(ConditionType::Stalled)),
        ReadyState::Reported => (ConditionStatus::False, None),
        ReadyState::Unchanged => (ConditionStatus::Unknown, None),
    };
    let mut conditions = vec![make(ConditionType::Ready, ready)];
    conditions.extend(more.map(|kind| make(kind, ConditionStatus::True)));
    conditions
}

/// Returns the time as Kubernetes stores it, in whole seconds.
#[must_use]
pub fn whole_second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Returns the next time that Kubernetes can store. Used for the start of a period, so that the stored start
/// is never too early.
#[must_use]
pub fn next_whole_second(at: Timestamp) -> Time {
    let floor = whole_second(at).0;
    if floor == at {
        Time(at)
    } else {
        Time(floor.saturating_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX))
    }
}

/// Returns the condition of a type, or `None` if it is absent.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_is_kept_until_status_changes() {
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let late: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let make = |before: &[Condition], status, now| {
            condition(before, ConditionType::Ready, status, Reason::Enabling, "", Some(1), now)
        };
        let first = make(&[], ConditionStatus::False, early);
        let same = make(std::slice::from_ref(&first), ConditionStatus::False, late);
        assert_eq!(same.last_transition_time, Time(early));
        let other = make(&[first], ConditionStatus::True, late);
        assert_eq!(other.last_transition_time, Time(late));
    }

    #[test]
    fn condition_round_trips_through_kubernetes() {
        let now: Timestamp = "2026-01-01T00:00:00.9Z".parse().unwrap();
        let made = condition(
            &[],
            ConditionType::Ready,
            ConditionStatus::Unknown,
            Reason::Suspended,
            "",
            Some(1),
            now,
        );
        let read: Condition = serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
        assert_eq!(made, read);
    }

    #[test]
    fn message_is_truncated_to_max_bytes() {
        for (words, bytes) in
            [("€".repeat(500_000), 32_766), ("x".repeat(500_000), 32_768), ("x".repeat(9), 9)]
        {
            let now = Timestamp::UNIX_EPOCH;
            let made = condition(
                &[],
                ConditionType::Ready,
                ConditionStatus::False,
                Reason::SpecInvalid,
                &words,
                None,
                now,
            );
            assert_eq!(made.message.len(), bytes);
            assert!(words.starts_with(&made.message));
        }
    }

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
}
