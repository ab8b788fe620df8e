//! The ledgers: what the operator does with one that it cannot believe, when it lets one go, and that it is the fence between two operators.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, PlantedStream, Rule, Settings};
use stream_encryption_operator::controller::{Clock, reconcile, retire};
use stream_encryption_operator::model::ledger;

use crate::play::{Play, firehose, message, reason};

const START: &str = "StartDeliveryStreamEncryption";

async fn play() -> Play {
    let play = Play::start(Settings::default()).await;
    play.aws.world().plant_stream(PlantedStream::default());
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play
}

fn name() -> String {
    ledger::name(&firehose("orders").parse().expect("an ARN"))
}

#[tokio::test]
async fn two_operators_that_see_the_same_stream_at_the_same_moment_send_one_start() {
    let play = play().await;
    let resource = play.resource("orders").await.expect("the resource");
    let (one, other) = (play.replica(), play.replica());
    let (first, second) =
        tokio::join!(Box::pin(reconcile(&one, &resource)), Box::pin(reconcile(&other, &resource)));
    first.expect("Kubernetes can be asked");
    second.expect("Kubernetes can be asked");
    assert_eq!(play.calls(START, "orders"), 1);
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_believed_stops_all_calls_and_is_told() {
    let play = play().await;
    play.until_it_says("orders", "Encrypted").await;
    let ledger = play.ledger(&firehose("orders")).await.expect("the ledger");
    let mut calls = serde_json::to_value(&ledger.spec.calls).expect("its calls");
    let twice = calls[0].clone();
    calls.as_array_mut().expect("a list").push(twice);
    edit_ledger(&play, &json!({"spec": {"calls": calls}})).await;
    let key = play.plant_key();
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    play.until_it_says("orders", "LedgerUnreadable").await;
    play.let_pass("orders", SignedDuration::from_hours(1)).await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(message(&play.status("orders").await).contains(&name()), "the message names the ledger");

    calls.as_array_mut().expect("a list").pop();
    edit_ledger(&play, &json!({"spec": {"calls": calls}})).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
}

#[tokio::test]
async fn a_ledger_whose_owner_is_no_resource_stops_all_calls_and_is_told() {
    let play = play().await;
    play.until_it_says("orders", "Encrypted").await;
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": play.plant_key()});
    for owner in [json!({"name": ""}), json!({"name": "../orders"}), json!({"name": "orders", "uid": ""})] {
        edit_ledger(&play, &json!({"spec": {"owner": owner}})).await;
        play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
        play.until_it_says("orders", "LedgerUnreadable").await;
    }
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_stops_all_calls_and_is_told() {
    let play = play().await;
    let resource = play.resource("orders").await.expect("the resource");
    let without_namespace = play.with_ledgers_in("nobody-made-this-namespace");
    Box::pin(reconcile(&without_namespace, &resource)).await.expect("Kubernetes can be asked");
    assert_eq!(reason(&play.status("orders").await), "LedgerUnreadable");
    assert_eq!(play.calls(START, "orders"), 0);
}

#[tokio::test]
async fn a_ledger_is_let_go_only_when_its_owner_is_gone_and_its_last_call_has_aged_out() {
    let play = play().await;
    play.until_it_says("orders", "Encrypted").await;
    let operator = play.replica();
    let retired = async || retire::retire(&operator).await.expect("Kubernetes can be asked");

    play.let_pass("orders", SignedDuration::from_hours(30)).await;
    assert_eq!(retired().await, 0, "its owner is there");

    let key = play.plant_key();
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    play.until_it_says("orders", "Encrypted").await;
    play.kubectl(&["delete", "strenc", "orders"]).await;
    assert_eq!(retired().await, 0, "its last call still counts");

    play.aws.advance(SignedDuration::from_hours(25));
    assert_eq!(retired().await, 1);
    assert!(play.ledger(&firehose("orders")).await.is_none());
}

#[tokio::test]
async fn a_ledger_is_kept_while_aws_does_not_answer_or_refuses_the_clock_by_which_it_is_too_old() {
    let mut play = play().await;
    play.until_it_says("orders", "Encrypted").await;
    play.kubectl(&["delete", "strenc", "orders"]).await;
    let retired = async |play: &Play| retire::retire(&play.replica()).await.expect("Kubernetes can be asked");

    // By this clock the call has long been forgotten by AWS, which refuses whatever is dated by it.
    let aws = play.aws.clone();
    let ahead = move || aws.now() + SignedDuration::from_hours(48);
    let fast = play.replica_with_clock(Clock::new(ahead, || Duration::ZERO));
    assert_eq!(retire::retire(&fast).await.expect("Kubernetes can be asked"), 0);

    play.aws.advance(SignedDuration::from_hours(25));
    for fault in [Fault::ServerError { status: 503 }, Fault::LoseRequest, Fault::AccessDenied] {
        play.aws.world().script(Rule::always(fault.clone()));
        assert_eq!(retired(&play).await, 0, "{fault:?}");
        play.aws.world().clear_faults();
    }
    assert!(play.ledger(&firehose("orders")).await.is_some());
    play.restart();
    assert_eq!(retired(&play).await, 1);
}

#[tokio::test]
async fn a_ledger_whose_owner_cannot_be_looked_up_keeps_no_other_from_being_retired() {
    let play = play().await;
    play.until_it_says("orders", "Encrypted").await;
    // Before and after it in the list, as names are hashes.
    for stream in ["a", "b", "c", "d"] {
        play.aws.world().plant_stream(PlantedStream { name: stream.to_owned(), ..PlantedStream::default() });
        play.apply(stream, &json!({"stream": {"arn": firehose(stream)}})).await;
        play.until_it_says(stream, "Encrypted").await;
    }
    edit_ledger(&play, &json!({"spec": {"owner": {"name": "../orders"}}})).await;
    play.kubectl(&["delete", "strenc", "--all"]).await;
    play.aws.advance(SignedDuration::from_hours(25));
    let retired = retire::retire(&play.replica()).await.expect("Kubernetes can be asked");
    assert!(retired >= 4, "{retired} of those whose owner is a resource");
    for stream in ["a", "b", "c", "d"] {
        assert!(play.ledger(&firehose(stream)).await.is_none(), "{stream}");
    }
}

/// As an administrator with kubectl.
async fn edit_ledger(play: &Play, patch: &Value) {
    play.kubectl(&["patch", "streamledger", &name(), "--type=merge", "-p", &patch.to_string()]).await;
}
