//! Rows 11 and 12: two replicas, and a wrong clock. What a replica or a paused reconcile no longer knows right causes
//! no call and hides nothing that another has learned.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Fault, KeyState, Rule};
use stream_encryption_api::stream_encryption::{EncryptionStatus, StreamEncryption};
use stream_encryption_core::controller::{Clock, reconcile};
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::kubernetes::Cluster;

use super::proxy::{Asked, Meet, When};
use super::scenario::{DESCRIBE, START, encrypted, plant, proxied, stage};
use crate::harness::{Harness, firehose, reason, spec};
use crate::process::eventually;

/// The operator of another process.
type Replica = stream_encryption_core::controller::Context<Aws, Cluster>;

/// A reconcile of `late` that is paused while AWS holds its answer to `operation`, and `meanwhile` happens.
async fn paused(
    harness: &Harness,
    late: &Replica,
    resource: &StreamEncryption,
    operation: &str,
    meanwhile: impl AsyncFnOnce(),
) {
    let asked = || harness.aws.world().calls().iter().filter(|call| call.operation == operation).count();
    let before = asked();
    harness.aws.world().script(Rule::once(Fault::Hold).on(operation));
    let meanwhile = async {
        eventually("the request is held", async || asked() > before).await;
        meanwhile().await;
        harness.aws.release_held();
    };
    let (done, ()) = tokio::join!(Box::pin(reconcile(late, resource)), meanwhile);
    done.expect("Kubernetes answers");
}

/// Makes AWS refuse every Start because others have used up the calls.
fn refuse_starts(harness: &Harness) {
    let limit = Fault::Refuse { code: "LimitExceededException".into(), message: String::new(), status: 400 };
    harness.aws.world().script(Rule::always(limit).on(START));
}

/// Checks that the ledger still knows the attempt that AWS refused, and that the next one waits.
async fn backoff_is_kept(harness: &Harness) {
    let ledger = harness.ledger(&firehose("orders")).await.expect("the ledger").spec;
    assert!(ledger.attempts.is_some(), "the attempt that AWS refused is still known");
    harness.visit("orders").await.expect("a reconcile");
    assert_eq!(harness.calls(START, "orders"), 2, "and the next attempt waits");
}

#[tokio::test]
async fn cached_key_of_stale_replica_causes_no_call() {
    let harness = stage().await;
    let key = harness.plant_key();
    harness.apply("orders", &spec(&firehose("orders"), Some(&key))).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.aws.advance(SignedDuration::from_mins(8));
    let other = harness.replica();
    let visit = async || {
        let resource = harness.resource("orders").await.expect("the resource");
        Box::pin(reconcile(&other, &resource)).await.expect("Kubernetes answers");
    };
    visit().await;

    // The first replica describes again, and finds a plaintext stream and a disabled key. The other replica
    // has seen neither.
    harness.turned_off_by_another(&firehose("orders"));
    harness.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    harness.aws.advance(SignedDuration::from_mins(6));
    harness.until_it_says("orders", "KeyDisabled").await;
    for _ in 0..5 {
        visit().await;
        harness.aws.advance(SignedDuration::from_secs(1));
    }
    assert_eq!(harness.calls(START, "orders"), 1, "no call with a key that was usable minutes ago");
}

#[tokio::test]
async fn reconcile_of_older_spec_keeps_backoff_of_newer_spec() {
    let harness = encrypted(stage().await).await;
    let (late, older) = (harness.replica(), harness.resource("orders").await.expect("the resource"));
    let key = harness.plant_key();
    refuse_starts(&harness);
    // The identity is requested between the reads of the resource and of the ledger.
    paused(&harness, &late, &older, "GetCallerIdentity", async || {
        harness.apply("orders", &spec(&firehose("orders"), Some(&key))).await;
        harness.until_it_says("orders", "CallLimitReached").await;
    })
    .await;
    backoff_is_kept(&harness).await;
}

#[tokio::test]
async fn paused_reconcile_keeps_backoff_of_retargeted_alias() {
    let harness = stage().await;
    let (old, new) = (harness.plant_key(), harness.plant_key());
    harness.aws.world().plant_alias("alias/orders", &old);
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    harness.until_it_says("orders", "Encrypted").await;
    let (late, resource) = (harness.replica(), harness.resource("orders").await.expect("the resource"));
    refuse_starts(&harness);
    // The reconcile has resolved the alias in KMS, and is paused for ten minutes.
    paused(&harness, &late, &resource, "DescribeKey", async || {
        harness.aws.world().plant_alias("alias/orders", &new);
        harness.aws.advance(SignedDuration::from_mins(10));
        harness.until_it_says("orders", "CallLimitReached").await;
    })
    .await;
    backoff_is_kept(&harness).await;
}

#[tokio::test]
async fn paused_reconcile_makes_no_call_on_outdated_key_state() {
    let harness = stage().await;
    let key = harness.plant_key();
    harness.apply("orders", &spec(&firehose("orders"), Some(&key))).await;
    let (late, resource) = (harness.replica(), harness.resource("orders").await.expect("the resource"));
    // The reconcile has described the key in KMS, and is paused for ten minutes.
    paused(&harness, &late, &resource, "DescribeKey", async || {
        harness.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
        harness.aws.world().script(Rule::always(Fault::Throttle).on("DescribeKey"));
        harness.aws.advance(SignedDuration::from_mins(10));
    })
    .await;
    assert!(harness.calls("DescribeKey", &key) >= 2, "KMS is asked again");
    assert_eq!(harness.calls(START, "orders"), 0, "the key was usable ten minutes ago");
}

#[tokio::test]
async fn denied_describe_does_not_repeat_outdated_status() {
    let mut harness = stage().await;
    let proxy = proxied(&mut harness).await;
    let mut harness = encrypted(harness).await;
    let mut report = spec(&firehose("orders"), None);
    report["mode"] = json!("Observe");
    harness.apply("orders", &report).await;
    harness.aws.advance(SignedDuration::from_mins(1));
    harness.turned_off_by_another(&firehose("orders"));

    // The operator has recorded in the ledger that the stream is in plaintext, and ends before it writes the
    // status.
    harness.restart();
    proxy.once(Asked::is_status, 0, Meet::Cut(When::Before));
    harness.visit("orders").await.expect_err("the status is not written");
    harness.restart();
    harness.aws.world().script(Rule { times: Some(1), ..Rule::always(Fault::AccessDenied).on(DESCRIBE) });
    harness.until_it_says("orders", "AccessDenied").await;
    let status = harness.status("orders").await;
    assert_eq!(status.active_key, None);
    assert_ne!(status.encryption_status, Some(EncryptionStatus::Enabled));
}

/// Like AWS, the simulated AWS refuses requests that are dated more than 15 minutes off.
#[tokio::test]
async fn clock_rejected_by_aws_blocks_calls_until_corrected() {
    let mut harness = stage().await;
    for wrong_by in [16 * 60, -16 * 60, 2 * 86_400, -2 * 86_400] {
        let name = format!("wrong{wrong_by}");
        let arn = plant(&harness, &name);
        let error = Arc::new(AtomicI64::new(wrong_by));
        let (wall, steady, wrong) = (harness.aws.clone(), harness.aws.clone(), Arc::clone(&error));
        harness.restart_with_clock(Clock::new(
            move || wall.now() + SignedDuration::from_secs(wrong.load(Ordering::Relaxed)),
            move || steady.now().as_duration().unsigned_abs(),
        ));
        harness.apply(&name, &spec(&arn, None)).await;
        let before = harness.aws.world().calls().len();
        harness.let_pass(&name, SignedDuration::from_mins(10)).await;
        assert_eq!(harness.calls(START, &name), 0, "{wrong_by}");
        assert_eq!(reason(&harness.status(&name).await), "CredentialsRejected", "{wrong_by}");
        assert!(
            harness.aws.world().calls()[before..].iter().all(|call| {
                ["InvalidSignatureException", "SignatureDoesNotMatch"].contains(&call.outcome.as_str())
            }),
            "every request is dated by the operator's own clock"
        );
        error.store(0, Ordering::Relaxed);
        harness.until_it_says(&name, "Encrypted").await;
        assert_eq!(harness.calls(START, &name), 1, "{wrong_by}");
    }
}
