//! Two replicas, in addition to row 11: outdated state or an older spec in one replica must not cause a call
//! against what the other has learned.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Fault, KeyState, Rule, Service};
use stream_encryption_api::stream_encryption::EncryptionStatus;

use super::crash_injection::FusedOperator;
use super::proxy::When;
use super::scenario::{DESCRIBE, Run, START, spec, stage, stopped};

#[tokio::test]
async fn cached_key_of_stale_replica_causes_no_call() {
    let harness = stage().await;
    let key = harness.plant_key();
    let mut one = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&one.arn, Some(&key))).await;
    one.until("Encrypted").await;
    harness.aws.advance(SignedDuration::from_mins(8));
    let other = FusedOperator::new(harness.replica(), None);
    let resource = harness.resource("orders").await.expect("the resource");
    other.visit_or_crash(&resource).await;

    // The first replica describes again, and finds a plaintext stream and a disabled key. The other replica
    // has seen neither.
    let now = harness.aws.now();
    harness.aws.world().set_stream(now, &one.arn, stopped());
    harness.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    harness.aws.advance(SignedDuration::from_mins(6));
    one.until("KeyDisabled").await;
    for _ in 0..5 {
        other.visit_or_crash(&harness.resource("orders").await.expect("the resource")).await;
        harness.aws.advance(SignedDuration::from_secs(1));
    }
    assert_eq!(harness.calls(START, "orders"), 1, "no call with a key that was usable minutes ago");
}

#[tokio::test]
async fn reconcile_of_older_spec_keeps_backoff_of_newer_spec() {
    let harness = stage().await;
    let mut one = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&one.arn, None)).await;
    one.until("Encrypted").await;

    // The identity is requested between the reads of the resource and of the ledger.
    let late = FusedOperator::new(harness.replica(), Some((1, When::After)));
    let older = harness.resource("orders").await.expect("the resource");
    let key = harness.plant_key();
    let limit = Fault::Refuse { code: "LimitExceededException".into(), message: String::new(), status: 400 };
    harness.aws.world().script(Rule::always(limit).on(START));
    let meanwhile = async || {
        harness.apply("orders", &spec(&one.arn, Some(&key))).await;
        one.until("CallLimitReached").await;
    };
    late.visit_with_a_pause(&older, meanwhile).await.expect("Kubernetes answers");
    assert_eq!(late.passed()[0], "identity");
    let ledger = harness.ledger(&one.arn).await.expect("the ledger").spec;
    assert!(ledger.attempts.is_some(), "the attempt that AWS refused is still known");
    one.visit().await;
    assert_eq!(harness.calls(START, "orders"), 2, "and the next attempt waits");
}

#[tokio::test]
async fn paused_reconcile_keeps_backoff_of_retargeted_alias() {
    let harness = stage().await;
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.aws.world().plant_alias("alias/orders", &old);
    let mut one = Run::new(&harness, Service::Firehose, "orders", None);
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    harness.apply("orders", &json!({"stream": {"arn": one.arn}, "key": key})).await;
    one.until("Encrypted").await;

    // The reconcile has resolved the alias in KMS, and is paused for ten minutes.
    let late = FusedOperator::new(harness.replica(), Some((2, When::After)));
    let resource = harness.resource("orders").await.expect("the resource");
    let limit = Fault::Refuse { code: "LimitExceededException".into(), message: String::new(), status: 400 };
    harness.aws.world().script(Rule::always(limit).on(START));
    let meanwhile = async || {
        harness.aws.world().plant_alias("alias/orders", &new);
        harness.aws.advance(SignedDuration::from_mins(10));
        one.until("CallLimitReached").await;
    };
    late.visit_with_a_pause(&resource, meanwhile).await.expect("Kubernetes answers");
    assert_eq!(late.passed()[..2], ["identity", "key"]);
    let ledger = harness.ledger(&one.arn).await.expect("the ledger").spec;
    assert!(ledger.attempts.is_some(), "the attempt that AWS refused is still known");
    one.visit().await;
    assert_eq!(harness.calls(START, "orders"), 2, "and the next attempt waits");
}

#[tokio::test]
async fn paused_reconcile_makes_no_call_on_outdated_key_state() {
    let harness = stage().await;
    let key = harness.plant_key();
    let one = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&one.arn, Some(&key))).await;

    // The reconcile has described the key in KMS, and is paused for ten minutes.
    let late = FusedOperator::new(harness.replica(), Some((2, When::After)));
    let resource = harness.resource("orders").await.expect("the resource");
    let meanwhile = async || {
        harness.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
        harness.aws.world().script(Rule::always(Fault::Throttle).on("DescribeKey"));
        harness.aws.advance(SignedDuration::from_mins(10));
    };
    late.visit_with_a_pause(&resource, meanwhile).await.expect("Kubernetes answers");
    let passed = late.passed();
    assert_eq!(passed.iter().filter(|name| **name == "key").count(), 2, "{passed:?}");
    assert_eq!(harness.calls(START, "orders"), 0, "the key was usable ten minutes ago");
}

#[tokio::test]
async fn denied_describe_does_not_repeat_outdated_status() {
    let harness = stage().await;
    let mut one = Run::new(&harness, Service::Firehose, "orders", None);
    let mut report = spec(&one.arn, None);
    harness.apply("orders", &report).await;
    one.until("Encrypted").await;
    report["mode"] = json!("Observe");
    harness.apply("orders", &report).await;
    harness.aws.advance(SignedDuration::from_mins(1));
    let now = harness.aws.now();
    harness.aws.world().set_stream(now, &one.arn, stopped());

    // After identity, Describe and ledger, the operator has recorded that the stream is in plaintext, and
    // crashes before it writes the status.
    one.operator = FusedOperator::new(harness.replica(), Some((4, When::Before)));
    one.visit().await;
    assert!(one.crashed && one.passed.ends_with(&["write status"]), "{:?}", one.passed);
    harness.aws.world().script(Rule { times: Some(1), ..Rule::always(Fault::AccessDenied).on(DESCRIBE) });
    one.until("AccessDenied").await;
    let status = harness.status("orders").await;
    assert_eq!(status.active_key, None);
    assert_ne!(status.encryption_status, Some(EncryptionStatus::Enabled));
}
