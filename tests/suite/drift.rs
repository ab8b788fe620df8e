//! Another tool disables encryption again and again. `docs/beside.md` describes what the operator does then.

use jiff::SignedDuration;
use simulated_aws::world::Settings;
use stream_encryption_api::condition::ConditionType;

use crate::events::events_of;
use crate::harness::{Harness, firehose, truth};
use crate::matrix::scenario::{START, encrypted, plant};

const LIMIT_REACHED: &str = "DriftCorrectionLimitReached";

/// How often the operator reported a correction of `orders`. Equal events are one object with a count.
async fn corrections(harness: &Harness) -> i32 {
    let events = events_of(harness, "orders").await;
    let corrected = events.iter().filter(|event| event.reason.as_deref() == Some("DriftCorrected"));
    corrected.map(|event| event.series.as_ref().map_or(1, |series| series.count)).sum()
}

async fn disabled_and_corrected(harness: &Harness) {
    harness.turned_off_by_another(&firehose("orders"));
    harness.until_it_says("orders", "Enabling").await;
    harness.until_it_says("orders", "Encrypted").await;
}

async fn disabled_and_not_corrected(harness: &Harness) {
    harness.turned_off_by_another(&firehose("orders"));
    harness.until_it_says("orders", LIMIT_REACHED).await;
}

#[tokio::test]
async fn drift_is_corrected_three_times_a_day_and_once_per_retry() {
    let harness = Harness::start(Settings::default()).await;
    let arn = plant(&harness, "orders");
    let harness = encrypted(harness).await;
    let first = harness.aws.now();
    for _ in 0..3 {
        disabled_and_corrected(&harness).await;
    }
    assert_eq!((corrections(&harness).await, harness.calls(START, "orders")), (3, 4));

    disabled_and_not_corrected(&harness).await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    let next = status.next_attempt_time.expect("the time of the next correction").0;
    let wait = next.duration_since(first);
    assert!(wait > SignedDuration::from_hours(24) && wait < SignedDuration::from_hours(25), "{wait:#}");
    harness.let_pass("orders", SignedDuration::from_hours(12)).await;
    assert_eq!(harness.calls(START, "orders"), 4, "the stream stays as the other tool left it");

    // Each new value of the annotation permits one more correction.
    for (value, starts) in [("monday", 5), ("tuesday", 6)] {
        let retry = format!("streamencryption.dev/retry={value}");
        harness.kubectl(&["annotate", "strenc", "orders", "--overwrite", &retry]).await;
        harness.until_it_says("orders", "Encrypted").await;
        disabled_and_not_corrected(&harness).await;
        assert_eq!(harness.calls(START, "orders"), starts, "{value}");
    }
    assert_eq!(corrections(&harness).await, 5);
    assert_eq!(harness.reserved(&arn).await, 6);

    // The operator resumes when the corrections of the last 24 hours are fewer than three.
    let next = harness.status("orders").await.next_attempt_time.expect("a time").0;
    harness.let_pass("orders", next.duration_since(harness.aws.now())).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 7);
}

#[tokio::test]
async fn drift_every_ten_hours_never_reaches_the_limit() {
    let harness = Harness::start(Settings::default()).await;
    plant(&harness, "orders");
    let harness = encrypted(harness).await;
    for _ in 0..6 {
        harness.let_pass("orders", SignedDuration::from_hours(10)).await;
        disabled_and_corrected(&harness).await;
    }
    assert_eq!((corrections(&harness).await, harness.calls(START, "orders")), (6, 7));
}
