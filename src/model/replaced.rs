//! The key that was in force before, and until when it is still needed: what is in the stream can be read with it only.
//!
//! Pure. It says a later time rather than an earlier one: whoever deletes a key too early loses records.

use jiff::{SignedDuration, Timestamp};

use super::claims;
use super::decision::{Input, SETTLE};
use super::ledger::later;
use crate::api::stream_encryption::{KeyStatus, KeyType, Service, StreamEncryptionStatus};

/// How long a stream keeps records at most, where AWS has not said it
/// ([Kinesis](https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html),
/// [Firehose](https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html)).
#[must_use]
pub fn longest_retention(service: Service) -> SignedDuration {
    match service {
        Service::Firehose => SignedDuration::from_hours(24),
        Service::Kinesis => SignedDuration::from_hours(365 * 24),
    }
}

/// A key that was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The key's ARN.
    pub arn: String,
    /// From then on the stream holds no record that needs it.
    pub needed_until: Timestamp,
}

/// The key that records may still need though it is not in force any more, after a status that named another one in force.
///
/// Of several such keys the last one is told: it is needed longest. Keys of AWS are nobody's to retire.
#[must_use]
pub fn previous_key(
    i: &Input<'_>,
    before: &StreamEncryptionStatus,
    retention: SignedDuration,
) -> Option<Replaced> {
    let in_force = claims::key_in_force(i);
    let known = before.previous_key.as_ref();
    let known = known.map(|key| Replaced { arn: key.arn.clone(), needed_until: key.needed_until.0 });
    let replaced = before.key_in_force.as_ref().filter(|old| in_force.as_ref() != Some(*old)).and_then(arn);
    let previous = match replaced {
        // Where nothing is known of the stream, nothing has been replaced.
        Some(arn) if i.ledger.in_force.is_some() => {
            let needed_until = later(i.now, SETTLE.saturating_add(retention));
            Some(Replaced { arn, needed_until })
        }
        Some(_) | None => known,
    };
    // It is in force again, or not to be told any more.
    let in_force = in_force.as_ref().and_then(arn);
    previous.filter(|previous| in_force.as_ref() != Some(&previous.arn) && may_be_told(i, &previous.arn))
}

fn arn(key: &KeyStatus) -> Option<String> {
    key.arn.clone().filter(|_| key.kind == KeyType::CustomerManaged)
}

fn may_be_told(i: &Input<'_>, arn: &str) -> bool {
    let key = KeyStatus { kind: KeyType::CustomerManaged, arn: Some(arn.to_owned()) };
    claims::told(i, &key) == key
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::stream_encryption::PreviousKey;
    use crate::model::key::Key;
    use crate::model::observation::Observation;
    use crate::model::situation::{Situation, allowed, key, midnight};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn on(number: u8) -> Situation {
        Situation::of(Service::Kinesis).sees(Observation::On(key(number)))
    }

    fn said(in_force: Option<&Key>, previous: Option<(u8, &str)>) -> StreamEncryptionStatus {
        StreamEncryptionStatus {
            key_in_force: in_force.map(Key::status),
            previous_key: previous.map(|(number, until)| PreviousKey {
                arn: key(number).to_string(),
                needed_until: Time(until.parse().unwrap()),
            }),
            ..StreamEncryptionStatus::default()
        }
    }

    fn previous(now: &Situation, before: &StreamEncryptionStatus) -> Option<(String, String)> {
        let told = previous_key(&now.input(), before, DAY)?;
        Some((told.arn, told.needed_until.to_string()))
    }

    fn expected(number: u8, until: &str) -> (String, String) {
        (key(number).to_string(), until.to_owned())
    }

    /// AWS writes 8760 hours where it documents retention, and a day for Firehose.
    #[test]
    fn no_stream_keeps_records_longer_than_aws_says() {
        assert_eq!(longest_retention(Service::Kinesis), SignedDuration::from_hours(8760));
        assert_eq!(longest_retention(Service::Firehose), DAY);
    }

    #[test]
    fn the_key_that_is_replaced_is_needed_for_as_long_as_the_stream_keeps_records() {
        assert_eq!(midnight().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(previous(&on(2), &said(Some(&key(1)), None)), Some(expected(1, "2026-01-02T00:00:05Z")));
        let off = Situation::of(Service::Kinesis).sees(Observation::Off);
        assert_eq!(previous(&off, &said(Some(&key(1)), None)), Some(expected(1, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn it_is_told_until_another_one_is_replaced_and_that_one_is_needed_longer() {
        let known = Some((1, "2026-01-01T12:00:00Z"));
        assert_eq!(previous(&on(2), &said(Some(&key(2)), known)), Some(expected(1, "2026-01-01T12:00:00Z")));
        assert_eq!(previous(&on(3), &said(Some(&key(2)), known)), Some(expected(2, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn a_key_of_aws_that_is_replaced_hides_no_customers_key_before_it() {
        let known = Some((1, "2026-01-01T12:00:00Z"));
        let before = said(Some(&Key::AwsOwned), known);
        assert_eq!(previous(&on(2), &before), Some(expected(1, "2026-01-01T12:00:00Z")));
        assert_eq!(previous(&on(2), &said(Some(&Key::AwsOwned), None)), None);
    }

    #[test]
    fn a_key_that_is_in_force_again_is_none_of_before() {
        assert_eq!(previous(&on(1), &said(Some(&key(1)), Some((1, "2026-01-01T12:00:00Z")))), None);
        let back = previous(&on(1), &said(Some(&key(2)), Some((1, "2026-01-01T12:00:00Z"))));
        assert_eq!(back, Some(expected(2, "2026-01-02T00:00:05Z")));
    }

    #[test]
    fn a_first_key_and_a_look_that_fails_replace_nothing() {
        assert_eq!(previous(&on(1), &said(None, None)), None);
        let unknown = Situation::of(Service::Kinesis);
        assert_eq!(previous(&unknown, &said(Some(&key(1)), None)), None);
    }

    #[test]
    fn a_key_that_no_policy_allows_any_more_is_not_told() {
        let elsewhere = on(2).with(|s| s.permission = allowed("444455556666", "aws", true, 20));
        assert_eq!(previous(&elsewhere, &said(Some(&key(1)), None)), None);
    }
}
