//! AWS reports a state that this operator version does not know: it makes no call, and reports the encryption
//! as unknown.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Settings, Snapshot, StreamKey, StreamStatus};
use stream_encryption_api::condition::ConditionType;

use crate::harness::{Harness, firehose, message, truth};

#[tokio::test]
async fn unrecognized_stream_state_causes_no_call() {
    let harness = Harness::start(Settings::default()).await;
    let encrypted = Snapshot::enabled(StreamKey::AwsOwned);
    let arn = harness
        .aws
        .world()
        .plant_stream(PlantedStream { state: encrypted.clone(), ..PlantedStream::default() });
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.until_it_says("orders", "Encrypted").await;

    let now = harness.aws.now();
    let suspended = Snapshot { status: StreamStatus::Suspended, ..Snapshot::default() };
    assert!(harness.aws.world().set_stream(now, &arn, suspended));
    harness.until_it_says("orders", "StreamStateUnrecognized").await;
    let status = harness.status("orders").await;
    assert!(message(&status).contains("\"SUSPENDED\""), "{}", message(&status));
    assert_eq!(truth(&status, ConditionType::Ready), "False");
    assert_eq!(truth(&status, ConditionType::Reconciling), "True");
    assert_eq!(truth(&status, ConditionType::Encrypted), "Unknown");
    assert_eq!((status.encryption_status, status.active_key), (None, None));
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;

    let now = harness.aws.now();
    assert!(harness.aws.world().set_stream(now, &arn, encrypted));
    harness.until_it_says("orders", "Encrypted").await;
    for call in ["StartDeliveryStreamEncryption", "StopDeliveryStreamEncryption"] {
        assert_eq!(harness.calls(call, "orders"), 0);
    }
}
