//! The previously active key, and until when it is still required: records that were encrypted with a key can
//! only be read with that key.
//!
//! Pure. The time is rather too late than too early: records are lost if a key is deleted too early.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::stream_encryption::{KeyIdentity, KeyType, StreamEncryptionStatus};

use super::decision::{DecisionInput, LastObservation, PROPAGATION_DELAY};
use super::ledger::saturating_add;
use super::observation::Observation;
use super::status_fields;

/// A key that was active before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousKey {
    /// The key's ARN.
    pub arn: String,
    /// The time from which the stream holds no record that requires the key.
    pub required_until_time: Timestamp,
}

/// Returns the customer managed key that was active before, and until when records may require it. The key is
/// returned after that time too, until another key replaces it. `before` is the last status, which may name
/// another active key.
///
/// While the active key is unknown, the last known one counts as the previous one, and its time is extended: it may still
/// be active. Of several such keys the last one is returned, because it is required longest. AWS's own keys are never
/// returned, because users cannot delete them.
#[must_use]
pub fn previous_key(
    input: &DecisionInput<'_>,
    before: &StreamEncryptionStatus,
    retention: SignedDuration,
) -> Option<PreviousKey> {
    let active_key = status_fields::active_key(input);
    let from_now = saturating_add(input.now, PROPAGATION_DELAY.saturating_add(retention));
    let replaced = before.active_key.as_ref().filter(|old| active_key.as_ref() != Some(*old)).and_then(arn);
    let previous = match (replaced, &before.previous_key) {
        (Some(arn), _) => PreviousKey { arn, required_until_time: from_now },
        (None, None) => return None,
        (None, Some(known)) => {
            let until = known.required_until_time.0;
            let is_extended = may_have_been_active(input, before, &known.arn, retention);
            let required_until_time = if is_extended { from_now } else { until };
            PreviousKey { arn: known.arn.clone(), required_until_time }
        }
    };
    // The key is active again, or the namespace may no longer see it.
    let is_active = active_key.as_ref().and_then(arn).as_ref() == Some(&previous.arn);
    (!is_active && may_be_disclosed(input, &previous.arn)).then_some(previous)
}

/// Returns whether the previous key of a status may have been active after that status: its encryption was unknown, and
/// now the active key is known, or it is still unknown, although the stream was to be described. In the second case, half
/// of the retention period passes between two extensions, because each of them is a write.
fn may_have_been_active(
    input: &DecisionInput<'_>,
    before: &StreamEncryptionStatus,
    previous: &str,
    retention: SignedDuration,
) -> bool {
    if status_fields::is_encryption_reported(before) {
        return false;
    }
    let known = input.ledger.known_encryption.as_ref();
    if known.is_some() && !status_fields::known_encryption_is_void(input) {
        return true;
    }
    // A ledger that was lost does not name the last known key.
    let is_last_known =
        known.is_none_or(|known| known.key.as_ref().and_then(arn).as_deref() == Some(previous));
    let is_there = match input.last_observation {
        LastObservation::NotYet => false,
        LastObservation::Failed(_) => true,
        LastObservation::Described(_, observation) => *observation != Observation::Missing,
    };
    let is_due = |until: Timestamp| until < saturating_add(input.now, retention / 2);
    is_last_known
        && is_there
        && before.previous_key.as_ref().is_some_and(|known| is_due(known.required_until_time.0))
}

fn arn(key: &KeyIdentity) -> Option<String> {
    key.arn.clone().filter(|_| key.kind == KeyType::CustomerManaged)
}

fn may_be_disclosed(input: &DecisionInput<'_>, arn: &str) -> bool {
    let key = KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.to_owned()) };
    status_fields::redacted_key(input, &key) == key
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use stream_encryption_api::stream_encryption::{PreviousKey, Service};

    use super::*;
    use crate::model::aws_error::ErrorKind;
    use crate::model::key::Key;
    use crate::model::observation::Observation;
    use crate::model::scenario::{Scenario, allowed, key, midnight};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn on(number: u8) -> Scenario {
        Scenario::of(Service::Kinesis).sees(Observation::On(key(number)))
    }

    fn said(active_key: Option<&Key>, previous: Option<(u8, &str)>) -> StreamEncryptionStatus {
        StreamEncryptionStatus {
            active_key: active_key.map(Key::to_api),
            previous_key: previous.map(|(number, until)| PreviousKey {
                arn: key(number).to_string(),
                required_until_time: Time(until.parse().unwrap()),
            }),
            ..StreamEncryptionStatus::default()
        }
    }

    fn previous(now: &Scenario, before: &StreamEncryptionStatus) -> Option<(String, String)> {
        let previous = previous_key(&now.input(), before, DAY)?;
        Some((previous.arn, previous.required_until_time.to_string()))
    }

    fn expected(number: u8, until: &str) -> (String, String) {
        (key(number).to_string(), until.to_owned())
    }

    #[test]
    fn replaced_key_is_required_for_retention_period() {
        assert_eq!(midnight().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(previous(&on(2), &said(Some(&key(1)), None)), Some(expected(1, "2026-01-02T00:00:05Z")));
        let off = Scenario::of(Service::Kinesis).sees(Observation::Off);
        assert_eq!(previous(&off, &said(Some(&key(1)), None)), Some(expected(1, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn previous_key_is_kept_until_next_replacement() {
        let known = Some((1, "2026-01-01T12:00:00Z"));
        assert_eq!(previous(&on(2), &said(Some(&key(2)), known)), Some(expected(1, "2026-01-01T12:00:00Z")));
        assert_eq!(previous(&on(3), &said(Some(&key(2)), known)), Some(expected(2, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn replaced_aws_key_does_not_hide_customer_key() {
        let known = Some((1, "2026-01-01T12:00:00Z"));
        let before = said(Some(&Key::AwsOwned), known);
        assert_eq!(previous(&on(2), &before), Some(expected(1, "2026-01-01T12:00:00Z")));
        assert_eq!(previous(&on(2), &said(Some(&Key::AwsOwned), None)), None);
    }

    #[test]
    fn reactivated_key_is_not_previous_key() {
        assert_eq!(previous(&on(1), &said(Some(&key(1)), Some((1, "2026-01-01T12:00:00Z")))), None);
        let back = previous(&on(1), &said(Some(&key(2)), Some((1, "2026-01-01T12:00:00Z"))));
        assert_eq!(back, Some(expected(2, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn first_key_replaces_nothing() {
        assert_eq!(previous(&on(1), &said(None, None)), None);
    }

    /// The status after `before`, as far as it concerns keys.
    fn next(now: &Scenario, before: &StreamEncryptionStatus) -> StreamEncryptionStatus {
        let input = now.input();
        let previous = previous_key(&input, before, DAY);
        StreamEncryptionStatus {
            active_key: status_fields::active_key(&input),
            previous_key: previous.map(|key| reported(&key)),
            ..StreamEncryptionStatus::default()
        }
    }

    /// Returns the scenario in which AWS does not answer, and no encryption was reported before.
    fn unanswered(now: Scenario) -> Scenario {
        now.cannot_see(ErrorKind::Transient).with(|scenario| scenario.is_encryption_reported = false)
    }

    fn reported(key: &super::PreviousKey) -> PreviousKey {
        PreviousKey { arn: key.arn.clone(), required_until_time: Time(key.required_until_time) }
    }

    #[test]
    fn key_is_required_as_long_as_it_may_be_active() {
        let hours = |hours: i64| hours * 3600;
        for (observation, is_extended) in [
            (Observation::Unrecognized("ROTATING".to_owned()), true),
            (Observation::OtherStream, true),
            // Its records are gone, too.
            (Observation::Missing, false),
        ] {
            let mut now = on(1);
            let mut status = next(&now, &said(Some(&key(1)), None));
            assert_eq!((&status.active_key, &status.previous_key), (&Some(key(1).to_api()), &None));
            for hour in 0..48 {
                now = now.after(hours(i64::from(hour > 0))).sees(observation.clone());
                status = next(&now, &status);
                let required = status.previous_key.clone().expect("it may still be active");
                let left = required.required_until_time.0.duration_since(now.now);
                let expected = if is_extended { 12 } else { 23 - hour };
                assert!(
                    left >= SignedDuration::from_hours(expected),
                    "{observation:?}: {left:#} after {hour} h"
                );
                assert_eq!((status.active_key.clone(), required.arn), (None, key(1).to_string()));
            }
            if is_extended {
                for _ in 0..48 {
                    now = unanswered(now.after(hours(1)));
                    status = next(&now, &status);
                    let required = status.previous_key.clone().expect("it may still be active");
                    let left = required.required_until_time.0.duration_since(now.now);
                    assert!(
                        left >= SignedDuration::from_hours(12),
                        "{observation:?}, then no response: {left:#}"
                    );
                }
            }
            // It has been replaced meanwhile, at a time that is unknown.
            let other = now.clone().sees(Observation::On(key(2)));
            let until = saturating_add(other.now, DAY + PROPAGATION_DELAY).to_string();
            assert_eq!(previous(&other, &status), Some(expected(1, &until)));
            let again = other.clone().after(hours(5));
            assert_eq!(previous(&again, &next(&other, &status)), Some(expected(1, &until)), "extended once");
            assert_eq!(
                previous(&now.sees(Observation::On(key(1))), &status),
                None,
                "it was active all the time"
            );
        }
    }

    #[test]
    fn key_that_the_ledger_has_lost_is_required() {
        let unknown = Scenario::of(Service::Kinesis);
        let lost = previous(&unknown, &said(Some(&key(1)), None));
        assert_eq!(lost, Some(expected(1, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn disallowed_previous_key_is_not_reported() {
        let elsewhere = on(2).with(|s| s.permission = allowed("444455556666", "aws", true, 20));
        assert_eq!(previous(&elsewhere, &said(Some(&key(1)), None)), None);
    }
}
