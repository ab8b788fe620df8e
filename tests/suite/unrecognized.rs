//! AWS reports a state that this version of the operator does not know: it makes no call, and claims nothing.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Settings, Snapshot, StreamKey, StreamStatus};
use stream_encryption_operator::api::condition::ConditionType;

use crate::play::{Play, firehose, message, truth};

#[tokio::test]
async fn stream_in_an_unknown_state_is_left_alone() {
    let play = Play::start(Settings::default()).await;
    let encrypted = Snapshot::enabled(StreamKey::AwsOwned);
    let arn =
        play.aws.world().plant_stream(PlantedStream { state: encrypted.clone(), ..PlantedStream::default() });
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "Encrypted").await;

    let now = play.aws.now();
    let suspended = Snapshot { status: StreamStatus::Suspended, ..Snapshot::default() };
    assert!(play.aws.world().set_stream(now, &arn, suspended));
    play.until_it_says("orders", "StreamStateUnrecognized").await;
    let status = play.status("orders").await;
    assert!(message(&status).contains("\"SUSPENDED\""), "{}", message(&status));
    assert_eq!(truth(&status, ConditionType::Ready), "False");
    assert_eq!(truth(&status, ConditionType::Reconciling), "True");
    assert_eq!(truth(&status, ConditionType::Encrypted), "Unknown");
    assert_eq!((status.encryption_status, status.key_in_force), (None, None));
    play.let_pass("orders", SignedDuration::from_hours(2)).await;

    let now = play.aws.now();
    assert!(play.aws.world().set_stream(now, &arn, encrypted));
    play.until_it_says("orders", "Encrypted").await;
    for call in ["StartDeliveryStreamEncryption", "StopDeliveryStreamEncryption"] {
        assert_eq!(play.calls(call, "orders"), 0);
    }
}
