//! Answers of AWS that are lost, late or untrue.

use jiff::SignedDuration;
use simulated_aws::world::{Fault, Rule, Snapshot};
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::Enabling;

use super::{DESCRIBE, START, aws_owned, orders, play_with, word};

#[tokio::test]
async fn a_lost_reply_is_resolved_by_looking_and_costs_no_second_start() {
    let play = play_with(Snapshot::default()).await;
    play.aws.world().script(Rule::once(Fault::LoseReply).on(START));
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_lost_request_is_sent_again_only_once_it_can_no_longer_arrive() {
    let play = play_with(Snapshot::default()).await;
    let began = play.aws.now();
    play.aws.world().script(Rule::once(Fault::LoseRequest).on(START));
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "OutcomeUnknown").await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
    assert!(play.aws.now().duration_since(began) >= SignedDuration::from_mins(15));
}

#[tokio::test]
async fn an_answer_that_changes_nothing_backs_off_like_a_failure() {
    let play = play_with(Snapshot::default()).await;
    play.aws.world().script(Rule::always(Fault::NoOp).on(START));
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "NotApplied").await;
    play.let_pass("orders", SignedDuration::from_hours(24)).await;
    let starts = play.calls(START, "orders");
    assert!((9..=10).contains(&starts), "{starts} Starts in a day");
}

#[tokio::test]
async fn stale_answers_of_describe_cause_no_second_start() {
    let play = play_with(Snapshot::default()).await;
    play.aws.world().script(Rule::always(Fault::ReadLag { by: SignedDuration::from_secs(10) }).on(DESCRIBE));
    play.apply("orders", &orders(&aws_owned())).await;
    let words = play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(words.contains(&word(Some(Enabling), "Enabling")), "{words:?}");
}
