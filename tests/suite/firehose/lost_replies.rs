//! Lost, late and stale responses from AWS.

use jiff::SignedDuration;
use simulated_aws::world::{Fault, Rule, Snapshot};
use stream_encryption_api::stream_encryption::EncryptionStatus::Enabling;

use super::{DESCRIBE, START, aws_owned, harness_with, orders, word};

#[tokio::test]
async fn lost_reply_is_resolved_by_describe_without_second_start() {
    let harness = harness_with(Snapshot::default()).await;
    harness.aws.world().script(Rule::once(Fault::LoseReply).on(START));
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
}

#[tokio::test]
async fn lost_request_is_retried_once_it_can_no_longer_arrive() {
    let harness = harness_with(Snapshot::default()).await;
    let began = harness.aws.now();
    harness.aws.world().script(Rule::once(Fault::LoseRequest).on(START));
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "OutcomeUnknown").await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
    assert!(harness.aws.now().duration_since(began) >= SignedDuration::from_mins(15));
}

#[tokio::test]
async fn accepted_call_without_effect_backs_off() {
    let harness = harness_with(Snapshot::default()).await;
    harness.aws.world().script(Rule::always(Fault::NoOp).on(START));
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "NotApplied").await;
    harness.let_pass("orders", SignedDuration::from_hours(24)).await;
    let starts = harness.calls(START, "orders");
    assert!((9..=10).contains(&starts), "{starts} Starts in a day");
}

#[tokio::test]
async fn stale_describe_response_causes_no_second_start() {
    let harness = harness_with(Snapshot::default()).await;
    harness
        .aws
        .world()
        .script(Rule::always(Fault::ReadLag { by: SignedDuration::from_secs(10) }).on(DESCRIBE));
    harness.apply("orders", &orders(&aws_owned())).await;
    let words = harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
    assert!(words.contains(&word(Some(Enabling), "Enabling")), "{words:?}");
}
