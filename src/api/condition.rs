//! The words in which a status speaks: condition types, and every reason that they can give.
//!
//! The conditions follow kstatus: `Ready` always; `Reconciling` and `Stalled` only while true, and never both. What a
//! retry or another object may mend is *progressing*; what only a change of the spec mends is *stalled*.
//! `docs/conditions.md` has one line for each reason, and a test holds that table against this enum.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The types of condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The stream is as the spec asks.
    Ready,
    /// The operator is at it, or waits for something that may come by itself.
    Reconciling,
    /// Only a change of the spec, by a person, helps.
    Stalled,
    /// Records are encrypted now, with whatever key.
    Encrypted,
    /// The key asked for can encrypt the stream.
    KeyUsable,
}

impl ConditionType {
    /// As it stands in `type`.
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

/// What a reason means for `Ready`, `Reconciling` and `Stalled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// `Ready=True`.
    Ready,
    /// `Ready=False`, `Reconciling=True`: Argo CD says Progressing.
    Progressing,
    /// `Ready=Unknown`, `Reconciling=True`: AWS cannot be asked.
    Unknown,
    /// `Ready=False`, `Stalled=True`: Argo CD says Degraded.
    Stalled,
    /// `Ready=False` and nothing more: it was asked to only report.
    Reported,
    /// `Ready` keeps its status, and has this reason: it was asked to do nothing.
    Unchanged,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $standing:ident),+ $(,)?) => {
        /// Why a condition is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As it stands in `reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// What it means for `Ready`, `Reconciling` and `Stalled`.
            #[must_use]
            pub fn standing(self) -> Standing {
                match self { $(Self::$name => Standing::$standing),+ }
            }
        }
    };
}

reasons! {
    /// Records are encrypted with the key asked for.
    Encrypted => Ready,
    /// The key asked for can encrypt the stream. Given by `KeyUsable` only.
    KeyEnabled => Ready,
    /// Encryption is off, as asked.
    EncryptionDisabled => Ready,
    /// AWS says ENABLED (or DISABLED); it takes up to 5 seconds until that holds for all records.
    Settling => Progressing,
    /// A marked record was written to prove that records are encrypted, and AWS has not said yet that it was.
    Verifying => Progressing,
    /// AWS is enabling encryption, or changing the key.
    Enabling => Progressing,
    /// AWS is disabling encryption.
    Disabling => Progressing,
    /// AWS is changing the stream for another reason, such as resharding.
    StreamUpdating => Progressing,
    /// The last attempt to enable encryption or to change the key failed. The next one is at nextAttemptTime.
    EnablingFailed => Progressing,
    /// The last attempt to disable encryption failed. The next one is at nextAttemptTime.
    DisablingFailed => Progressing,
    /// AWS accepted the call and nothing changed.
    NotApplied => Progressing,
    /// No answer came to the last call. It is tried again once it can no longer arrive.
    OutcomeUnknown => Progressing,
    /// The calls allowed in 24 hours are used up.
    CallLimitReached => Progressing,
    /// AWS would not carry out the call because the stream was being changed.
    StreamInUse => Progressing,
    /// AWS would not carry out the call, with an error that is not about keys, rights or limits.
    CallRefused => Progressing,
    /// KMS does not know the key asked for.
    KeyNotFound => Progressing,
    /// The key asked for is disabled.
    KeyDisabled => Progressing,
    /// The key asked for is going to be deleted.
    KeyPendingDeletion => Progressing,
    /// The key asked for has no key material yet.
    KeyPendingImport => Progressing,
    /// The key asked for cannot be used for now.
    KeyUnavailable => Progressing,
    /// KMS describes the key asked for in words that this version of the operator does not know.
    KeyStateUnrecognized => Progressing,
    /// The operator may not read the key asked for.
    KeyUnreadable => Progressing,
    /// AWS would not use the key asked for: its policy is in the way.
    KeyRefused => Progressing,
    /// The object that key.ref names does not exist or shows no ARN yet.
    KeyReferenceNotReady => Progressing,
    /// The cluster does not know the kind that key.ref names.
    KeyReferenceKindMissing => Progressing,
    /// The key asked for is not a symmetric one.
    KeyNotSymmetric => Stalled,
    /// The key asked for is not for encryption.
    KeyUsageWrong => Stalled,
    /// The key asked for is managed by AWS; `AWS_OWNED_CMK` names it.
    KeyManagedByAws => Stalled,
    /// The key asked for is in another region than the stream.
    KeyInOtherRegion => Stalled,
    /// AWS does not know the stream.
    StreamNotFound => Progressing,
    /// The stream is being made.
    StreamCreating => Progressing,
    /// The stream is being deleted.
    StreamDeleting => Progressing,
    /// The stream could not be made or deleted.
    StreamBroken => Progressing,
    /// AWS describes the stream in words that this version of the operator does not know, so no call is made.
    StreamStateUnrecognized => Progressing,
    /// AWS answers with another stream of that name: the operator's credentials are of another account.
    WrongStream => Progressing,
    /// The operator's rights in AWS do not suffice.
    AccessDenied => Progressing,
    /// No credentials for AWS could be obtained, so nothing was sent.
    NoCredentials => Unknown,
    /// AWS does not accept the operator's credentials, its clock, or its use of the region.
    CredentialsRejected => Unknown,
    /// AWS does not answer, or answers with an internal error.
    AwsUnreachable => Unknown,
    /// AWS asks the operator to slow down.
    AwsThrottled => Unknown,
    /// The operator's session is too old for Firehose to make a grant with it.
    SessionTooOld => Progressing,
    /// The ledger of the stream cannot be read, written or believed, so no call is made.
    LedgerUnreadable => Progressing,
    /// Only Firehose streams whose source is `DirectPut` can be encrypted.
    SourceNotDirectPut => Stalled,
    /// Another `StreamEncryption` owns the stream.
    StreamOwnedByAnother => Stalled,
    /// No policy allows this namespace this stream, or this key for it.
    NotPermitted => Stalled,
    /// Policies name different roles for this stream.
    RolesDiffer => Stalled,
    /// No policy allows this namespace to turn encryption of this stream off.
    DisableNotPermitted => Stalled,
    /// Corrected three times in 24 hours, and changed again by somebody. The next correction is at nextAttemptTime.
    Contested => Progressing,
    /// The last attempt failed, and AWS does not report which key is active: it may be the key asked for.
    KeyInForceUnknown => Stalled,
    /// The spec cannot be read.
    SpecInvalid => Stalled,
    /// It differs from the spec, and drift is Report.
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

/// True, false or unknown, as conditions have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody knows.
    Unknown,
}

impl Truth {
    /// As it stands in `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The longest message of a condition, in bytes, as Kubernetes' own conditions have it
/// ([Condition](https://pkg.go.dev/k8s.io/apimachinery/pkg/apis/meta/v1#Condition)). What cannot be read is told with
/// what stands there, and that may be as large as an object.
pub const LONGEST_MESSAGE: usize = 32_768;

/// One condition; its transition time is that of `before` unless its status changed. Kubernetes stores whole seconds, so a
/// time has no more here either: what was written is then equal to what is read.
#[must_use]
pub fn condition(
    before: &[Condition],
    kind: ConditionType,
    truth: Truth,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let unchanged = find(before, kind).filter(|old| old.status == truth.as_str());
    Condition {
        type_: kind.as_str().to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: message[..message.floor_char_boundary(LONGEST_MESSAGE)].to_owned(),
        observed_generation: generation,
        last_transition_time: unchanged
            .map_or_else(|| whole_second(now), |old| old.last_transition_time.clone()),
    }
}

/// `Ready`, and `Reconciling` or `Stalled` where they are true.
#[must_use]
pub fn standing(
    before: &[Condition],
    reason: Reason,
    words: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let make = |kind, truth| condition(before, kind, truth, reason, words, generation, now);
    let (ready, more) = match reason.standing() {
        Standing::Ready => (Truth::True, None),
        Standing::Progressing => (Truth::False, Some(ConditionType::Reconciling)),
        Standing::Unknown => (Truth::Unknown, Some(ConditionType::Reconciling)),
        Standing::Stalled => (Truth::False, Some(ConditionType::Stalled)),
        Standing::Reported => (Truth::False, None),
        Standing::Unchanged => (Truth::Unknown, None),
    };
    let mut conditions = vec![make(ConditionType::Ready, ready)];
    conditions.extend(more.map(|kind| make(kind, Truth::True)));
    conditions
}

/// A time as Kubernetes stores it.
#[must_use]
pub fn whole_second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The next time that Kubernetes can store: of what holds from a time on, never too early.
#[must_use]
pub fn next_whole_second(at: Timestamp) -> Time {
    let floor = whole_second(at).0;
    if floor == at {
        Time(at)
    } else {
        Time(floor.saturating_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX))
    }
}

/// The condition of a type.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_transition_time_until_its_status_changes() {
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let late: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let make = |before: &[Condition], truth, now| {
            condition(before, ConditionType::Ready, truth, Reason::Enabling, "", Some(1), now)
        };
        let first = make(&[], Truth::False, early);
        let same = make(std::slice::from_ref(&first), Truth::False, late);
        assert_eq!(same.last_transition_time, Time(early));
        let other = make(&[first], Truth::True, late);
        assert_eq!(other.last_transition_time, Time(late));
    }

    #[test]
    fn a_condition_has_the_time_that_kubernetes_gives_back() {
        let now: Timestamp = "2026-01-01T00:00:00.9Z".parse().unwrap();
        let made = condition(&[], ConditionType::Ready, Truth::Unknown, Reason::Suspended, "", Some(1), now);
        let read: Condition = serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
        assert_eq!(made, read);
    }

    #[test]
    fn a_message_is_cut_to_what_a_condition_holds() {
        for (words, bytes) in
            [("€".repeat(500_000), 32_766), ("x".repeat(500_000), 32_768), ("x".repeat(9), 9)]
        {
            let now = Timestamp::UNIX_EPOCH;
            let made =
                condition(&[], ConditionType::Ready, Truth::False, Reason::SpecInvalid, &words, None, now);
            assert_eq!(made.message.len(), bytes);
            assert!(words.starts_with(&made.message));
        }
    }

    #[test]
    fn every_reason_is_one_that_a_condition_an_event_and_a_ledger_take() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!((1..=64).contains(&word.len()), "{word}");
            assert!(word.starts_with(|c: char| c.is_ascii_alphabetic()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }

    #[test]
    fn every_reason_is_read_as_it_is_written() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
    }
}
