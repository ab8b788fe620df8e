//! Ledgers: invalid ledgers, the deletion of unused ledgers, and mutual exclusion between two operators.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, PlantedStream, Rule, Settings};
use stream_encryption_core::controller::{Clock, ledger_gc, reconcile};
use stream_encryption_core::model::ledger;

use crate::harness::{Harness, firehose, message, reason};

const START: &str = "StartDeliveryStreamEncryption";

async fn harness() -> Harness {
    let harness = Harness::start(Settings::default()).await;
    harness.aws.world().plant_stream(PlantedStream::default());
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness
}

fn name() -> String {
    ledger::name(&firehose("orders").parse().expect("an ARN"))
}

#[tokio::test]
async fn concurrent_operators_send_one_start() {
    let harness = harness().await;
    let resource = harness.resource("orders").await.expect("the resource");
    let (one, other) = (harness.replica(), harness.replica());
    let (first, second) =
        tokio::join!(Box::pin(reconcile(&one, &resource)), Box::pin(reconcile(&other, &resource)));
    first.expect("Kubernetes answers");
    second.expect("Kubernetes answers");
    assert_eq!(harness.calls(START, "orders"), 1);
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 1);
}

#[tokio::test]
async fn invalid_ledger_blocks_calls_and_is_reported() {
    let harness = harness().await;
    harness.until_it_says("orders", "Encrypted").await;
    let ledger = harness.ledger(&firehose("orders")).await.expect("the ledger");
    let mut calls = serde_json::to_value(&ledger.spec.calls).expect("its calls");
    let twice = calls[0].clone();
    calls.as_array_mut().expect("a list").push(twice);
    edit_ledger(&harness, &json!({"spec": {"calls": calls}})).await;
    let key = harness.plant_key();
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    harness.until_it_says("orders", "LedgerInvalid").await;
    harness.let_pass("orders", SignedDuration::from_hours(1)).await;
    assert_eq!(harness.calls(START, "orders"), 1);
    assert!(message(&harness.status("orders").await).contains(&name()), "the message names the ledger");

    calls.as_array_mut().expect("a list").pop();
    edit_ledger(&harness, &json!({"spec": {"calls": calls}})).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
}

#[tokio::test]
async fn deleted_invalid_ledger_leaves_calls_counted() {
    let harness = harness().await;
    harness.until_it_says("orders", "Encrypted").await;
    edit_ledger(&harness, &json!({"spec": {"owner": {"name": "../orders"}}})).await;
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": harness.plant_key()});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    harness.until_it_says("orders", "LedgerInvalid").await;
    let used = async || harness.status("orders").await.calls.expect("the calls").used;
    assert_eq!(used().await, 1, "the count is kept");

    harness.kubectl(&["delete", "streamledger", &name()]).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(used().await, 2, "the first call still counts");
}

#[tokio::test]
async fn ledger_with_invalid_owner_blocks_calls_and_is_reported() {
    let harness = harness().await;
    harness.until_it_says("orders", "Encrypted").await;
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": harness.plant_key()});
    for owner in [json!({"name": ""}), json!({"name": "../orders"}), json!({"name": "orders", "uid": ""})] {
        edit_ledger(&harness, &json!({"spec": {"owner": owner}})).await;
        harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
        harness.until_it_says("orders", "LedgerInvalid").await;
    }
    assert_eq!(harness.calls(START, "orders"), 1);
}

#[tokio::test]
async fn unwritable_ledger_blocks_calls_and_is_reported() {
    let harness = harness().await;
    let resource = harness.resource("orders").await.expect("the resource");
    let without_namespace = harness.with_ledgers_in("nobody-made-this-namespace");
    Box::pin(reconcile(&without_namespace, &resource)).await.expect("Kubernetes answers");
    assert_eq!(reason(&harness.status("orders").await), "LedgerInvalid");
    assert_eq!(harness.calls(START, "orders"), 0);
}

#[tokio::test]
async fn ledger_is_deleted_once_owner_is_gone_and_calls_expired() {
    let harness = harness().await;
    harness.until_it_says("orders", "Encrypted").await;
    let operator = harness.replica();
    let retired = async || ledger_gc::collect_expired(&operator).await.expect("Kubernetes answers");

    harness.let_pass("orders", SignedDuration::from_hours(30)).await;
    assert_eq!(retired().await, 0, "its owner exists");

    let key = harness.plant_key();
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.kubectl(&["delete", "strenc", "orders"]).await;
    assert_eq!(retired().await, 0, "its last call still counts");

    harness.aws.advance(SignedDuration::from_hours(25));
    assert_eq!(retired().await, 1);
    assert!(harness.ledger(&firehose("orders")).await.is_none());
}

#[tokio::test]
async fn ledger_is_kept_unless_aws_confirms_the_clock() {
    let mut harness = harness().await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.kubectl(&["delete", "strenc", "orders"]).await;
    let retired = async |harness: &Harness| {
        ledger_gc::collect_expired(&harness.replica()).await.expect("Kubernetes answers")
    };

    // By this clock AWS no longer counts the call, but AWS refuses all requests that are dated by it.
    let aws = harness.aws.clone();
    let ahead = move || aws.now() + SignedDuration::from_hours(48);
    let fast = harness.replica_with_clock(Clock::new(ahead, || Duration::ZERO));
    assert_eq!(ledger_gc::collect_expired(&fast).await.expect("Kubernetes answers"), 0);

    harness.aws.advance(SignedDuration::from_hours(25));
    for fault in [Fault::ServerError { status: 503 }, Fault::LoseRequest, Fault::AccessDenied] {
        harness.aws.world().script(Rule::always(fault.clone()));
        assert_eq!(retired(&harness).await, 0, "{fault:?}");
        harness.aws.world().clear_faults();
    }
    assert!(harness.ledger(&firehose("orders")).await.is_some());
    harness.restart();
    assert_eq!(retired(&harness).await, 1);
}

#[tokio::test]
async fn ledger_with_invalid_owner_does_not_block_deletion_of_others() {
    let harness = harness().await;
    harness.until_it_says("orders", "Encrypted").await;
    // Ledgers before and after it in the list, as ledger names are hashes.
    for stream in ["a", "b", "c", "d"] {
        harness
            .aws
            .world()
            .plant_stream(PlantedStream { name: stream.to_owned(), ..PlantedStream::default() });
        harness.apply(stream, &json!({"stream": {"arn": firehose(stream)}})).await;
        harness.until_it_says(stream, "Encrypted").await;
    }
    edit_ledger(&harness, &json!({"spec": {"owner": {"name": "../orders"}}})).await;
    harness.kubectl(&["delete", "strenc", "--all"]).await;
    harness.aws.advance(SignedDuration::from_hours(25));
    let retired = ledger_gc::collect_expired(&harness.replica()).await.expect("Kubernetes answers");
    assert!(retired >= 4, "{retired} ledgers with a valid owner were deleted");
    for stream in ["a", "b", "c", "d"] {
        assert!(harness.ledger(&firehose(stream)).await.is_none(), "{stream}");
    }
}

/// Patches the ledger as an administrator.
async fn edit_ledger(harness: &Harness, patch: &Value) {
    harness.kubectl(&["patch", "streamledger", &name(), "--type=merge", "-p", &patch.to_string()]).await;
}
