//! Tests AWS's limits: 25 calls in a rolling day, streams per key, requests per second.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{DAY, FirehoseCounts, Snapshot, StreamKey};
use simulated_aws::{PlantedKey, PlantedStream, Request, Settings};

use crate::stage::{FIREHOSE, KINESIS, Stage, error, quick};

#[test]
fn firehose_allows_25_starts_and_stops_in_a_rolling_day() {
    let mut stage = Stage::plain();
    for round in 0..25 {
        let outcome = if round % 2 == 0 { stage.start(None) } else { stage.stop() };
        assert_eq!(outcome, Ok(json!({})), "call {round}");
        stage.wait(60);
    }
    assert_eq!(stage.stop(), error("LimitExceededException"));
    assert_eq!(stage.start(None), error("LimitExceededException"));
    stage.now += DAY - SignedDuration::from_secs(25 * 60 + 1);
    assert_eq!(stage.stop(), error("LimitExceededException"), "one second early");
    stage.wait(1);
    assert_eq!(stage.stop(), Ok(json!({})), "the oldest call has left the window");
    assert_eq!(stage.world.calls().iter().filter(|call| call.counted).count(), 26);
}

#[test]
fn counting_of_refused_calls_follows_setting() {
    for (counts, accepted_after) in [
        (FirehoseCounts::Accepted, true),
        (FirehoseCounts::ReachedTheStream, false),
        (FirehoseCounts::EvenOverTheLimit, false),
    ] {
        let mut stage = Stage::new(Settings { firehose_counts: counts, ..quick() });
        stage.start(None).expect("started");
        for _ in 0..24 {
            assert_eq!(stage.start(None), error("ResourceInUseException"));
        }
        stage.wait(60);
        assert_eq!(stage.start(None).is_ok(), accepted_after, "{counts:?}");
        // Twelve hours later, a refused call counts only under the strictest setting.
        stage.now += SignedDuration::from_hours(12);
        for _ in 0..30 {
            let _ = stage.start(None);
            stage.wait(20);
        }
        stage.now += SignedDuration::from_hours(13) - SignedDuration::from_secs(600);
        assert_eq!(stage.start(None).is_ok(), counts != FirehoseCounts::EvenOverTheLimit, "{counts:?}");
    }
}

#[test]
fn recreated_stream_has_no_new_budget() {
    let mut stage = Stage::plain();
    stage.world.settings().call_limit = 1;
    stage.start(None).expect("started");
    stage.world.remove_stream(FIREHOSE);
    stage.world.plant_stream(PlantedStream::default());
    assert_eq!(stage.start(None), error("LimitExceededException"));
}

#[test]
fn streams_per_key_are_limited() {
    let mut stage = Stage::new(Settings { streams_per_key: 2, ..quick() });
    let key = stage.key(PlantedKey::default());
    for name in ["a", "b"] {
        let state = Snapshot::enabled(StreamKey::arn(&key));
        stage.world.plant_stream(PlantedStream { name: name.to_owned(), state, ..PlantedStream::default() });
    }
    assert_eq!(stage.start(Some(&key)), error("LimitExceededException"));
    assert_eq!(stage.start(None), Ok(json!({})), "Firehose's own key has no such limit");
    assert_eq!(Settings::default().streams_per_key, 500);
}

#[test]
fn kinesis_counts_successful_starts_and_stops_separately() {
    let mut stage = Stage::plain();
    for _ in 0..25 {
        stage.start_kinesis("alias/aws/kinesis").expect("started");
        assert_eq!(
            stage.start_kinesis("alias/aws/kinesis"),
            error("ResourceInUseException"),
            "refused calls do not count"
        );
        stage.wait(5);
        stage.stop_kinesis().expect("stopped");
        stage.wait(5);
    }
    assert_eq!(stage.start_kinesis("alias/aws/kinesis"), error("LimitExceededException"));
    // Stop is refused for a plaintext stream, regardless of the limit.
    stage.world.set_stream(stage.now, KINESIS, Snapshot::enabled(StreamKey::AwsOwned));
    assert_eq!(stage.stop_kinesis(), error("LimitExceededException"));
    stage.now += DAY - SignedDuration::from_secs(250);
    assert_eq!(stage.start_kinesis("alias/aws/kinesis"), Ok(json!({})));
}

#[test]
fn requests_above_published_rate_are_throttled() {
    let rows = [
        (
            Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "orders" })),
            5,
            "ThrottlingException",
        ),
        (
            Request::firehose("StartDeliveryStreamEncryption", json!({ "DeliveryStreamName": "orders" })),
            5,
            "ThrottlingException",
        ),
        (
            Request::kinesis("DescribeStreamSummary", json!({ "StreamName": "clicks" })),
            20,
            "LimitExceededException",
        ),
        (Request::firehose("ListDeliveryStreams", json!({})), 5, "ThrottlingException"),
        (
            Request::firehose("ListTagsForDeliveryStream", json!({ "DeliveryStreamName": "orders" })),
            5,
            "ThrottlingException",
        ),
        (Request::kinesis("ListStreams", json!({})), 5, "LimitExceededException"),
        (
            Request::kinesis("ListTagsForStream", json!({ "StreamName": "clicks" })),
            5,
            "LimitExceededException",
        ),
        (Request::kms("DescribeKey", json!({ "KeyId": "alias/aws/kinesis" })), 2000, "ThrottlingException"),
    ];
    for (request, limit, code) in rows {
        let mut stage = Stage::plain();
        stage.world.settings().rate_limits = true;
        for _ in 0..limit {
            assert_ne!(stage.call(&request), error(code), "{request:?}");
        }
        assert_eq!(stage.call(&request), error(code), "{request:?}");
        let elsewhere = stage.world.call(stage.now, &stage.caller, "us-east-1", &request).result;
        assert!(
            elsewhere.map_or_else(|error| error.code != code, |_| true),
            "another region has its own rate"
        );
        stage.wait(1);
        assert_ne!(stage.call(&request), error(code), "{request:?} a second later");
    }
}
