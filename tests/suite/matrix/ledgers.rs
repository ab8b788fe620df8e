//! Rows 9, 21 and 22: changes to ledgers by others: webhooks that do not answer, a deleted ledger and a
//! ledger of a newer version.

use jiff::SignedDuration;
use serde_json::{Value, json};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_core::model::ledger;

use super::proxy::{Asked, Proxy};
use super::scenario::{DAY, START, changes, encrypted, proxied, stage};
use crate::harness::{Harness, firehose, message, reason, spec};
use crate::process::eventually;

/// A webhook without a server, for these resources in the harness's namespace.
fn webhook(harness: &Harness, resources: &[&str]) -> Value {
    // A port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": harness.namespace},
        "webhooks": [{
            "name": "down.streamencryption.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 1,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/")},
            // All tests share the cluster.
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": harness.namespace}},
            "rules": [{
                "apiGroups": ["streamencryption.dev"], "apiVersions": ["*"], "resources": resources,
                "operations": ["CREATE", "UPDATE", "DELETE"],
            }],
        }],
    })
}

/// Waits until the API server calls the webhook, or no longer does: until a label of `object` can be changed,
/// or cannot.
async fn until_changes_are(harness: &Harness, possible: bool, object: &str) {
    let label = ["label", object, "x=y", "--overwrite", "--dry-run=server", "-n", &harness.namespace];
    eventually("the API server knows of the webhook", async || {
        harness.cluster.kubectl(&label).await.is_ok() == possible
    })
    .await;
}

#[tokio::test]
async fn dead_resource_webhook_does_not_block_the_operator() {
    let harness = encrypted(stage().await).await;
    harness.cluster.apply(&webhook(&harness, &["streamencryptions"]).to_string()).await.expect("a webhook");
    until_changes_are(&harness, false, "strenc/orders").await;

    harness.turned_off_by_another(&firehose("orders"));
    harness.until_it_says("orders", "Enabling").await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(changes(&harness, "orders"), 2, "the webhook does not affect ledger and status writes");
    harness.kubectl(&["delete", "validatingwebhookconfiguration", &harness.namespace]).await;
}

#[tokio::test]
async fn dead_ledger_webhook_blocks_calls() {
    let mut harness = encrypted(stage().await).await;
    harness.kubernetes_may_fail = true;
    let ledger = ledger::name(&firehose("orders").parse().expect("an ARN"));
    harness.cluster.apply(&webhook(&harness, &["streamledgers"]).to_string()).await.expect("a webhook");
    until_changes_are(&harness, false, &format!("streamledger/{ledger}")).await;

    harness.turned_off_by_another(&firehose("orders"));
    harness.until_it_says("orders", "LedgerInvalid").await;
    // Each attempt waits for seconds of real time between its tries.
    harness.let_pass("orders", SignedDuration::from_mins(2)).await;
    assert!(harness.failed() > 0);
    assert_eq!(reason(&harness.status("orders").await), "LedgerInvalid", "nothing says Encrypted");
    assert_eq!(changes(&harness, "orders"), 1, "nothing can be reserved");
    harness.kubectl(&["delete", "validatingwebhookconfiguration", &harness.namespace]).await;
    until_changes_are(&harness, true, &format!("streamledger/{ledger}")).await;
    harness.until_it_says("orders", "Enabling").await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(changes(&harness, "orders"), 2);
}

#[tokio::test]
async fn deleted_ledger_does_not_reset_budget() {
    const LIMIT: u32 = 6;
    let mut harness = stage().await;
    harness.policy = Some(StreamEncryptionPolicySpec {
        max_calls_per_day: LIMIT,
        ..StreamEncryptionPolicySpec::own_account()
    });
    harness.restart();
    let keys = [harness.plant_key(), harness.plant_key()];
    let limit = LIMIT as usize;
    for turn in 0..limit {
        harness.apply("orders", &spec(&firehose("orders"), Some(&keys[turn % 2]))).await;
        harness.until_it_says("orders", "Encrypted").await;
        if turn == 3 {
            let name = ledger::name(&firehose("orders").parse().expect("an ARN"));
            harness.kubectl(&["delete", "streamledger", &name]).await;
            harness.restart();
        }
    }
    harness.apply("orders", &spec(&firehose("orders"), Some(&keys[0]))).await;
    harness.until_it_says("orders", "CallLimitReached").await;
    let status = harness.status("orders").await;
    assert!(message(&status).contains("6 of 6"), "{}", message(&status));
    harness.let_pass("orders", DAY - SignedDuration::from_hours(1)).await;
    assert_eq!(changes(&harness, "orders"), limit, "earlier calls count for the full 24 hours");
    harness.let_pass("orders", SignedDuration::from_hours(3)).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), limit + 1);
}

#[tokio::test]
async fn ledger_of_newer_version_is_neither_trusted_nor_written() {
    let mut harness = stage().await;
    let proxy = proxied(&mut harness).await;
    let harness = encrypted(harness).await;
    let key = harness.plant_key();
    // Definitions of a newer version, with which the API server keeps a field that this version does not
    // know.
    let newer = json!({"callsPerHour": 1});
    proxy.add_to_spec(Asked::is_ledger, Some(newer));
    harness.apply("orders", &spec(&firehose("orders"), Some(&key))).await;
    let writes = |proxy: &Proxy| proxy.count(|asked| asked.is_ledger() && asked.is_write());
    let before = writes(&proxy);
    harness.until_it_says("orders", "LedgerInvalid").await;
    harness.let_pass("orders", SignedDuration::from_hours(1)).await;
    assert_eq!(
        (changes(&harness, "orders"), writes(&proxy)),
        (1, before),
        "no call, and no write without the field"
    );
    let status = harness.status("orders").await;
    assert!(message(&status).contains("stream-"), "{}", message(&status));

    // The newer version is running again, or a user has fixed the ledger.
    proxy.add_to_spec(Asked::is_ledger, None);
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(changes(&harness, "orders"), 2);
}

#[tokio::test]
async fn api_server_drops_unknown_ledger_field() {
    let harness = encrypted(stage().await).await;
    let name = ledger::name(&firehose("orders").parse().expect("an ARN"));
    let patch = json!({"spec": {"callsPerHour": 1}}).to_string();
    harness.kubectl(&["patch", "streamledger", &name, "--type=merge", "-p", &patch]).await;
    let kept = harness.kubectl(&["get", "streamledger", &name, "-o", "jsonpath={.spec.callsPerHour}"]).await;
    assert_eq!(kept, "", "so the definitions must never be older than the newest operator that has run");
    harness.let_pass("orders", SignedDuration::from_mins(30)).await;
    assert_eq!(reason(&harness.status("orders").await), "Encrypted");
}
