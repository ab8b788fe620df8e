use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::api::stream_encryption::StreamEncryptionStatus;
use crate::aws::Urgency;

fn status(value: serde_json::Value) -> StreamEncryptionStatus {
    serde_json::from_value(value).unwrap()
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> serde_json::Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn stream(service: &str) -> serde_json::Value {
    json!({"arn": "arn", "service": service, "account": "1", "region": "r", "name": "n"})
}

/// The lines that begin with `name`.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

#[test]
fn what_happens_is_counted_by_service_and_outcome() {
    let metrics = Metrics::default();
    metrics.look(Service::Firehose, true);
    metrics.look(Service::Firehose, true);
    metrics.look(Service::Kinesis, false);
    metrics.call(Service::Firehose, Action::Start, Ok(()));
    metrics.call(Service::Kinesis, Action::Stop, Err(Class::LimitReached));
    metrics.reconciled(Ended::conflict, Duration::from_millis(20));
    let text = metrics.told(&Moment::default());
    assert_eq!(
        lines(&text, "stream_encryption_looks_total{service=\"Firehose\""),
        ["stream_encryption_looks_total{service=\"Firehose\",outcome=\"answered\"} 2"]
    );
    for line in [
        "stream_encryption_looks_total{service=\"Kinesis\",outcome=\"failed\"} 1",
        "stream_encryption_calls_total{service=\"Firehose\",action=\"Start\",outcome=\"Accepted\"} 1",
        "stream_encryption_calls_total{service=\"Kinesis\",action=\"Stop\",outcome=\"LimitReached\"} 1",
        "stream_encryption_reconciles_total{result=\"conflict\"} 1",
        "stream_encryption_reconcile_duration_seconds_bucket{le=\"0.025\"} 1",
        "stream_encryption_reconcile_duration_seconds_bucket{le=\"0.01\"} 0",
        "stream_encryption_leader 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_time_in_plain_text_is_told_once_it_has_ended() {
    let metrics = Metrics::default();
    metrics.encrypted(Service::Kinesis, SignedDuration::from_secs(45));
    // A clock that was set back makes no negative time.
    metrics.encrypted(Service::Kinesis, SignedDuration::from_secs(-5));
    let text = metrics.told(&Moment::default());
    let name = "stream_encryption_time_to_encrypted_seconds";
    assert_eq!(lines(&text, &format!("{name}_count")), [format!("{name}_count{{service=\"Kinesis\"}} 2")]);
    assert_eq!(lines(&text, &format!("{name}_sum")), [format!("{name}_sum{{service=\"Kinesis\"}} 45.0")]);
}

#[test]
fn a_replica_without_the_resources_tells_nothing_of_them() {
    let text = Metrics::default().told(&Moment::default());
    for name in ["streams", "resources", "lowest_calls_left", "plain_text_streams", "unusable_keys"] {
        assert!(!text.contains(&format!("stream_encryption_{name}")), "{name}");
    }
}

#[test]
fn the_resources_are_counted_by_what_their_statuses_say() {
    let encrypted = status(json!({
        "encryptionStatus": "ENABLED", "stream": stream("Firehose"), "calls": {"used": 1, "limit": 20},
        "conditions": [condition("Ready", "True", "Encrypted"), condition("KeyUsable", "True", "KeyEnabled")],
    }));
    let plain = |since: &str| {
        status(json!({
            "encryptionStatus": "DISABLED", "stream": stream("Kinesis"), "calls": {"used": 18, "limit": 20},
            "plainTextSince": since,
            "conditions": [condition("Ready", "False", "KeyDisabled"), condition("KeyUsable", "False", "KeyDisabled")],
        }))
    };
    let (older, newer) = (plain("2026-01-01T00:00:00Z"), plain("2026-01-01T00:30:00Z"));
    let statuses = [Some(&encrypted), Some(&older), Some(&newer), None];
    let census = Census::of(statuses, at("2026-01-01T01:00:00Z"));
    let waiting = vec![(Urgency::Call, 0), (Urgency::Drift, 7)];
    let text = Metrics::default().told(&Moment { pacer_waiting: waiting, census: Some(census) });
    for line in [
        "stream_encryption_streams{service=\"Firehose\",status=\"ENABLED\"} 1",
        "stream_encryption_streams{service=\"Kinesis\",status=\"DISABLED\"} 2",
        "stream_encryption_resources{reason=\"KeyDisabled\"} 2",
        "stream_encryption_resources{reason=\"UNKNOWN\"} 1",
        "stream_encryption_lowest_calls_left 2",
        "stream_encryption_plain_text_streams 2",
        "stream_encryption_longest_plain_text_seconds 3600.0",
        "stream_encryption_unusable_keys 2",
        "stream_encryption_pacer_waiting{urgency=\"drift\"} 7",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
}

#[test]
fn where_no_stream_has_a_budget_no_lowest_one_is_made_up() {
    let census = Census::of([None], at("2026-01-01T01:00:00Z"));
    let text = Metrics::default().told(&Moment { census: Some(census), ..Moment::default() });
    assert!(!text.contains("lowest_calls_left"));
    assert!(text.contains("\nstream_encryption_plain_text_streams 0\n"));
}
