//! Ledgers: invalid ledgers, and the deletion of unused ledgers.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, Rule};
use stream_encryption_core::controller::Clock;
use stream_encryption_core::controller::ledger_gc::LedgerGc;
use stream_encryption_core::model::ledger;

use crate::harness::{Harness, firehose, message, spec};
use crate::matrix::scenario::{START, encrypted, plant, stage};

fn name() -> String {
    ledger::name(&firehose("orders").parse().expect("an ARN"))
}

#[tokio::test]
async fn invalid_ledger_blocks_calls_and_is_reported() {
    let harness = encrypted(stage().await).await;
    let ledger = harness.ledger(&firehose("orders")).await.expect("the ledger").spec;
    let good = json!({"calls": ledger.calls, "owner": ledger.owner});
    harness.apply("orders", &spec(&firehose("orders"), Some(&harness.plant_key()))).await;
    for damage in [
        json!({"calls": [ledger.calls[0], ledger.calls[0]]}),
        json!({"owner": {"name": ""}}),
        json!({"owner": {"name": "../orders"}}),
        json!({"owner": {"uid": ""}}),
    ] {
        edit_ledger(&harness, &json!({"spec": good})).await;
        edit_ledger(&harness, &json!({"spec": damage})).await;
        harness.until_it_says("orders", "LedgerInvalid").await;
        harness.let_pass("orders", SignedDuration::from_hours(1)).await;
        assert_eq!(harness.calls(START, "orders"), 1, "{damage}");
        assert!(message(&harness.status("orders").await).contains(&name()), "the message names the ledger");
    }
    edit_ledger(&harness, &json!({"spec": good})).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
}

#[tokio::test]
async fn deleted_invalid_ledger_leaves_calls_counted() {
    let harness = encrypted(stage().await).await;
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
async fn ledger_is_deleted_once_owner_is_gone_and_calls_expired() {
    let harness = encrypted(stage().await).await;
    let operator = harness.replica();
    let retired = async || LedgerGc::default().collect_expired(&operator).await.expect("Kubernetes answers");

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
    let mut harness = encrypted(stage().await).await;
    harness.kubectl(&["delete", "strenc", "orders"]).await;
    let retired = async |harness: &Harness| {
        LedgerGc::default().collect_expired(&harness.replica()).await.expect("Kubernetes answers")
    };

    // By this clock AWS no longer counts the call, but AWS refuses all requests that are dated by it.
    let aws = harness.aws.clone();
    let ahead = move || aws.now() + SignedDuration::from_hours(48);
    let fast = harness.replica_with_clock(Clock::new(ahead, || Duration::ZERO));
    assert_eq!(LedgerGc::default().collect_expired(&fast).await.expect("Kubernetes answers"), 0);

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
    let harness = encrypted(stage().await).await;
    // Ledgers before and after it in the list, as ledger names are hashes.
    for stream in ["a", "b", "c", "d"] {
        plant(&harness, stream);
        harness.apply(stream, &json!({"stream": {"arn": firehose(stream)}})).await;
        harness.until_it_says(stream, "Encrypted").await;
    }
    edit_ledger(&harness, &json!({"spec": {"owner": {"name": "../orders"}}})).await;
    harness.kubectl(&["delete", "strenc", "--all"]).await;
    harness.aws.advance(SignedDuration::from_hours(25));
    let retired = LedgerGc::default().collect_expired(&harness.replica()).await.expect("Kubernetes answers");
    assert!(retired >= 4, "{retired} ledgers with a valid owner were deleted");
    for stream in ["a", "b", "c", "d"] {
        assert!(harness.ledger(&firehose(stream)).await.is_none(), "{stream}");
    }
}

/// Patches the ledger as an administrator.
async fn edit_ledger(harness: &Harness, patch: &Value) {
    harness.kubectl(&["patch", "streamledger", &name(), "--type=merge", "-p", &patch.to_string()]).await;
}
