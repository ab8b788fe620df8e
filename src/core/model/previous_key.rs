//! The previously active key, and until when it is still required: records that were encrypted with a key can
//! only be read with that key.
//!
//! Pure. The time is rather too late than too early: records are lost if a key is deleted too early.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::stream_encryption::{KeyIdentity, KeyType, StreamEncryptionStatus};

use super::decision::{DecisionInput, PROPAGATION_DELAY};
use super::ledger::saturating_add;
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
/// Of several such keys the last one is returned, because it is required longest. AWS's own keys are never
/// returned, because users cannot delete them.
#[must_use]
pub fn previous_key(
    input: &DecisionInput<'_>,
    before: &StreamEncryptionStatus,
    retention: SignedDuration,
) -> Option<PreviousKey> {
    let active_key = status_fields::active_key(input);
    let known = before.previous_key.as_ref();
    let known =
        known.map(|key| PreviousKey { arn: key.arn.clone(), required_until_time: key.required_until_time.0 });
    let replaced = before.active_key.as_ref().filter(|old| active_key.as_ref() != Some(*old)).and_then(arn);
    let previous = match replaced {
        // While the active key is unknown, no key has been replaced.
        Some(arn) if input.ledger.known_encryption.is_some() => {
            let required_until_time = saturating_add(input.now, PROPAGATION_DELAY.saturating_add(retention));
            Some(PreviousKey { arn, required_until_time })
        }
        Some(_) | None => known,
    };
    // The key is active again, or the namespace may no longer see it.
    let active_key = active_key.as_ref().and_then(arn);
    previous.filter(|previous| {
        active_key.as_ref() != Some(&previous.arn) && may_be_disclosed(input, &previous.arn)
    })
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
    fn first_key_or_unknown_state_replaces_nothing() {
        assert_eq!(previous(&on(1), &said(None, None)), None);
        let unknown = Scenario::of(Service::Kinesis);
        assert_eq!(previous(&unknown, &said(Some(&key(1)), None)), None);
    }

    #[test]
    fn disallowed_previous_key_is_not_reported() {
        let elsewhere = on(2).with(|s| s.permission = allowed("444455556666", "aws", true, 20));
        assert_eq!(previous(&elsewhere, &said(Some(&key(1)), None)), None);
    }
}
