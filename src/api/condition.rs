//! Condition types, and the conditions that a reason implies.
//!
//! The conditions follow kstatus: `Ready` is always present; `Reconciling` and `Stalled` only while true, and
//! never both.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

pub use super::reason::{DescribePurpose, EventType, LedgerContent, ReadyState, Reason, Remedy};

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
}
