//! The parts of a status that depend on what is no longer observed: the whole status of a suspended resource, the `Encrypted`
//! condition of a stream that AWS does not describe any more, and the time of the last successful Describe.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stream_encryption_api::condition::{
    ConditionStatus, ConditionType, MAX_MESSAGE_BYTES, Reason, condition, find, whole_second,
};
use stream_encryption_api::stream_encryption::{
    Encryption, EncryptionStatus, StreamEncryption, StreamEncryptionStatus,
};

use super::annotations::suspended_by;
use crate::model::message;

/// Number of consecutive reconciles without a description after which it is unknown whether records are
/// encrypted.
const UNDESCRIBED_BEFORE_UNKNOWN: u32 = 3;
/// Age of `lastDescribeTime` from which a newer time alone is reason for a write. If the time of each resource were written
/// every hour, these writes would be most of the operator's requests to the API server while nothing else changes. After each
/// of them, Argo CD would compare the resource again.
const DESCRIBE_TIME_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Returns the status of a suspended resource: the status keeps the last known state, and states since when
/// no newer state is known. A retry takes effect once the resource is resumed, so it is not handled before.
pub(super) fn suspended(
    resource: &StreamEncryption,
    before: &StreamEncryptionStatus,
    now: Timestamp,
) -> StreamEncryptionStatus {
    let generation = resource.metadata.generation;
    let mut status = before.clone();
    status.observed_generation = generation;
    status.next_attempt_time = None;
    let since = status.suspended_since_time.get_or_insert_with(|| whole_second(now)).0;
    let described = before.last_describe_time.as_ref().map(|time| time.0);
    let by = suspended_by(resource).unwrap_or_default();
    let words = message::suspended(&by, since, described, before.encryption_status);
    let truth = match find(&before.conditions, ConditionType::Ready) {
        Some(ready) if ready.observed_generation == generation || may_match(resource, before) => {
            truth_of(ready)
        }
        _ => ConditionStatus::Unknown,
    };
    let kept = [ConditionType::Encrypted, ConditionType::KeyUsable];
    status.conditions.retain(|old| kept.iter().any(|kind| old.type_ == kind.as_str()));
    for condition in &mut status.conditions {
        condition.observed_generation = generation;
        let mut words = message::outdated(described, &condition.message);
        words.truncate(words.floor_char_boundary(MAX_MESSAGE_BYTES));
        condition.message = words;
    }
    let ready = condition(
        &before.conditions,
        ConditionType::Ready,
        truth,
        Reason::Suspended,
        &words,
        generation,
        now,
    );
    status.conditions.insert(0, ready);
    status
}

/// Returns whether the stream may match the present spec, if it matched the earlier spec for which this status was written.
/// Nothing is asked about a suspended resource, so an alias or a Key object counts as unchanged.
fn may_match(resource: &StreamEncryption, status: &StreamEncryptionStatus) -> bool {
    let spec = &resource.spec;
    if spec.encryption == Encryption::Disabled {
        return status.encryption_status == Some(EncryptionStatus::Disabled);
    }
    let Some(active) = &status.active_key else { return false };
    spec.key.as_ref().is_none_or(|key| {
        let reached = status.desired_key.as_ref().unwrap_or(active);
        key.kind == reached.kind && (key.arn.is_none() || key.arn == reached.arn)
    })
}

/// Returns whether it is unknown whether records are encrypted now. There are two such cases:
///
/// - AWS did not describe the stream in [`UNDESCRIBED_BEFORE_UNKNOWN`] consecutive reconciles or more. `undescribed` is their
///   number.
/// - The status reports that it is unknown, and AWS has not described the stream since (`was_described` is `false`). So a
///   process that has just started continues with what the status reports.
pub(super) fn is_outdated(before: &StreamEncryptionStatus, undescribed: u32, was_described: bool) -> bool {
    let was_outdated = || {
        let encrypted = find(&before.conditions, ConditionType::Encrypted);
        encrypted.is_some_and(|old| {
            truth_of(old) == ConditionStatus::Unknown && message::is_outdated(&old.message)
        })
    };
    undescribed >= UNDESCRIBED_BEFORE_UNKNOWN || (!was_described && was_outdated())
}

/// Returns the `Encrypted` condition of a state that is no longer known. Its message contains the last known state, which
/// `encrypted` reports.
pub(super) fn encrypted(
    encrypted: &Condition,
    before: &StreamEncryptionStatus,
    reason: Reason,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let described = before.last_describe_time.as_ref().map(|time| time.0);
    let words = message::outdated(described, &encrypted.message);
    condition(
        &before.conditions,
        ConditionType::Encrypted,
        ConditionStatus::Unknown,
        reason,
        &words,
        generation,
        now,
    )
}

/// Sets the time at which the last successful Describe was requested: together with any other change, otherwise only when the
/// stored time is old. An otherwise unchanged status therefore costs one write a day.
pub(super) fn set_describe_time(
    status: &mut StreamEncryptionStatus,
    before: &StreamEncryptionStatus,
    described: Option<Timestamp>,
) {
    status.last_describe_time.clone_from(&before.last_describe_time);
    let Some(described) = described else { return };
    let known = before.last_describe_time.as_ref().map(|time| time.0);
    let is_newer = known.is_none_or(|known| described > known);
    let is_due = known.is_none_or(|known| described.duration_since(known) >= DESCRIBE_TIME_AGE);
    if is_newer && (is_due || status != before) {
        status.last_describe_time = Some(whole_second(described));
    }
}

fn truth_of(condition: &Condition) -> ConditionStatus {
    [ConditionStatus::True, ConditionStatus::False]
        .into_iter()
        .find(|truth| condition.status == truth.as_str())
        .unwrap_or(ConditionStatus::Unknown)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn described(time: &str) -> StreamEncryptionStatus {
        StreamEncryptionStatus { last_describe_time: Some(Time(at(time))), ..Default::default() }
    }

    #[test]
    fn describe_time_is_set_with_another_change_or_once_a_day() {
        let before = described("2026-01-01T00:00:00Z");
        let other = StreamEncryptionStatus { observed_generation: Some(2), ..before.clone() };
        for (status, answered, set) in [
            (&before, None, "2026-01-01T00:00:00Z"),
            (&before, Some("2026-01-01T23:59:59Z"), "2026-01-01T00:00:00Z"),
            (&before, Some("2026-01-02T00:00:00.7Z"), "2026-01-02T00:00:00Z"),
            (&other, None, "2026-01-01T00:00:00Z"),
            (&other, Some("2026-01-01T00:00:07.2Z"), "2026-01-01T00:00:07Z"),
            (&other, Some("2025-12-31T00:00:00Z"), "2026-01-01T00:00:00Z"),
        ] {
            let mut made = StreamEncryptionStatus { last_describe_time: None, ..status.clone() };
            set_describe_time(&mut made, &before, answered.map(at));
            assert_eq!(made.last_describe_time, Some(Time(at(set))), "{answered:?}");
        }
        let mut first = StreamEncryptionStatus::default();
        set_describe_time(&mut first, &StreamEncryptionStatus::default(), Some(at("2026-01-01T00:00:07Z")));
        assert_eq!(first, described("2026-01-01T00:00:07Z"));
    }

    #[test]
    fn outdated_state_stays_so_until_the_stream_is_described() {
        let encrypted = |truth, message| StreamEncryptionStatus {
            conditions: vec![condition(
                &[],
                ConditionType::Encrypted,
                truth,
                Reason::DisableNotPermitted,
                message,
                Some(1),
                at("2026-01-01T00:00:00Z"),
            )],
            ..described("2026-01-01T00:00:00Z")
        };
        let known = encrypted(ConditionStatus::False, "Records are in plaintext.");
        let outdated =
            encrypted(ConditionStatus::Unknown, &message::outdated(None, "Records are in plaintext."));
        // While policies do not allow the stream to be described, no request fails. A replica that has just started then
        // reports the same as one that has counted failures before.
        for (before, undescribed, was_described, expected) in [
            (&known, 2, false, false),
            (&known, 3, false, true),
            (&known, 0, false, false),
            (&outdated, 0, false, true),
            (&outdated, 1, false, true),
            (&outdated, 0, true, false),
        ] {
            assert_eq!(
                is_outdated(before, undescribed, was_described),
                expected,
                "{undescribed}, {was_described}"
            );
        }
    }

    #[test]
    fn retry_of_suspended_resource_is_not_handled() {
        let resource: StreamEncryption = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "annotations": {"streamencryption.dev/retry": "tuesday"}},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}, "suspend": true},
        }))
        .unwrap();
        let before = StreamEncryptionStatus {
            last_handled_retry: Some("monday".to_owned()),
            ..StreamEncryptionStatus::default()
        };
        let status = suspended(&resource, &before, at("2026-01-01T00:00:00Z"));
        assert_eq!(status.last_handled_retry.as_deref(), Some("monday"));
    }

    #[test]
    fn suspended_resource_is_not_ready_for_a_spec_that_asks_for_more() {
        let arn =
            |n: u8| format!("arn:aws:kms:eu-west-1:111122223333:key/4b000000-0000-4000-8000-00000000000{n}");
        let customer = |n| json!({"type": "CUSTOMER_MANAGED_CMK", "arn": arn(n)});
        let alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
        let owned = json!({"type": "AWS_OWNED_CMK"});
        let enabled = |desired: &Value, active: &Value| json!({"encryptionStatus": "ENABLED", "desiredKey": desired, "activeKey": active});
        let first = enabled(&customer(1), &customer(1));
        let any = enabled(&Value::Null, &owned);
        let plaintext = json!({"encryptionStatus": "DISABLED"});
        for (status, spec, truth) in [
            (&first, json!({"key": customer(1)}), "True"),
            (&first, json!({"key": customer(2)}), "Unknown"),
            (&first, json!({"key": alias}), "True"),
            (&first, json!({"key": owned}), "Unknown"),
            (&first, json!({}), "True"),
            (&first, json!({"encryption": "Disabled"}), "Unknown"),
            (&any, json!({"key": owned}), "True"),
            (&any, json!({"key": customer(1)}), "Unknown"),
            (&plaintext, json!({"encryption": "Disabled"}), "True"),
            (&plaintext, json!({}), "Unknown"),
        ] {
            let mut spec = spec.clone();
            spec["stream"] = json!({"service": "Kinesis", "name": "orders"});
            let resource: StreamEncryption = serde_json::from_value(json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": "orders", "generation": 2}, "spec": spec,
            }))
            .unwrap();
            let now = at("2026-01-01T02:00:00Z");
            let ready = |generation| {
                let (kind, reason) = (ConditionType::Ready, Reason::Encrypted);
                condition(&[], kind, ConditionStatus::True, reason, "What was so.", Some(generation), now)
            };
            let mut before: StreamEncryptionStatus = serde_json::from_value(status.clone()).unwrap();
            before.conditions = vec![ready(1)];
            assert_eq!(
                suspended(&resource, &before, now).conditions[0].status,
                truth,
                "{spec} with {status}"
            );
            // The status of the present spec is kept, whatever it says.
            before.conditions = vec![ready(2)];
            assert_eq!(suspended(&resource, &before, now).conditions[0].status, "True");
        }
    }

    #[test]
    fn suspended_status_keeps_its_beginning_and_is_written_once() {
        let resource: StreamEncryption = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "generation": 2},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}, "suspend": true},
        }))
        .unwrap();
        let now = at("2026-01-01T02:00:00Z");
        let of = |kind, truth, reason| condition(&[], kind, truth, reason, "What was so.", Some(1), now);
        let mut before = described("2026-01-01T01:00:00Z");
        before.conditions = vec![
            of(ConditionType::Ready, ConditionStatus::Unknown, Reason::AwsUnreachable),
            of(ConditionType::Reconciling, ConditionStatus::True, Reason::AwsUnreachable),
            of(ConditionType::Encrypted, ConditionStatus::True, Reason::Encrypted),
        ];
        let first = suspended(&resource, &before, now);
        let kinds: Vec<_> =
            first.conditions.iter().map(|one| (one.type_.as_str(), one.reason.as_str())).collect();
        assert_eq!(kinds, [("Ready", "Suspended"), ("Encrypted", "Encrypted")]);
        assert_eq!(first.suspended_since_time, Some(Time(now)));
        assert!(first.conditions[1].message.starts_with("As of 2026-01-01T01:00:00Z"));
        assert_eq!(suspended(&resource, &first, at("2026-01-02T00:00:00Z")), first);
    }
}
