//! Rows 9, 21 and 22: changes to ledgers by others: webhooks that do not answer, a deleted ledger and a
//! ledger of a newer version.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::Service;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_core::model::ledger;

use super::crash_injection::FusedOperator;
use super::proxy::{Asked, Meet, Proxy, When};
use super::scenario::{Act, DAY, Run, Scene, proxied, spec, stage, stopped};
use crate::harness::{Harness, message, reason};
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
    eventually("the API server knows of the webhook", 30, async || {
        harness.cluster.kubectl(&label).await.is_ok() == possible
    })
    .await;
}

#[tokio::test]
async fn dead_resource_webhook_does_not_block_the_operator() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    harness.cluster.apply(&webhook(&harness, &["streamencryptions"]).to_string()).await.expect("a webhook");
    until_changes_are(&harness, false, "strenc/orders").await;

    journey.harness(&[Scene { act: Act::Outside(stopped()), end: "Enabling" }]).await;
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2, "the webhook does not affect ledger and status writes");
    harness.kubectl(&["delete", "validatingwebhookconfiguration", &harness.namespace]).await;
}

#[tokio::test]
async fn dead_ledger_webhook_blocks_calls() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let ledger = ledger::name(&journey.arn.parse().expect("an ARN"));
    harness.cluster.apply(&webhook(&harness, &["streamledgers"]).to_string()).await.expect("a webhook");
    until_changes_are(&harness, false, &format!("streamledger/{ledger}")).await;

    let now = harness.aws.now();
    harness.aws.world().set_stream(now, &journey.arn, stopped());
    journey.let_pass(SignedDuration::from_mins(11)).await;
    assert!(journey.failed > 0);
    assert_eq!(journey.changes(), 1, "nothing can be reserved");
    harness.kubectl(&["delete", "validatingwebhookconfiguration", &harness.namespace]).await;
    until_changes_are(&harness, true, &format!("streamledger/{ledger}")).await;
    journey.until("Enabling").await;
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2);
}

#[tokio::test]
async fn deleted_ledger_does_not_reset_budget() {
    for (service, limit) in [(Service::Firehose, 6), (Service::Kinesis, 6)] {
        let mut harness = stage().await;
        harness.policy = Some(StreamEncryptionPolicySpec {
            max_calls_per_day: limit,
            ..StreamEncryptionPolicySpec::own_account()
        });
        harness.restart();
        let keys = [harness.plant_key(), harness.plant_key()];
        let mut journey = Run::new(&harness, service, "orders", None);
        for turn in 0..limit as usize {
            let change =
                Scene { act: Act::Apply(spec(&journey.arn, Some(&keys[turn % 2]))), end: "Encrypted" };
            journey.harness(&[change]).await;
            if turn == 3 {
                let name = ledger::name(&journey.arn.parse().expect("an ARN"));
                harness.kubectl(&["delete", "streamledger", &name]).await;
                journey.operator = FusedOperator::new(harness.replica(), None);
            }
        }
        assert_eq!(journey.changes(), limit as usize, "{service:?}");
        harness.apply("orders", &spec(&journey.arn, Some(&keys[0]))).await;
        journey.until("CallLimitReached").await;
        journey.let_pass(DAY - SignedDuration::from_hours(1)).await;
        assert_eq!(
            journey.changes(),
            limit as usize,
            "{service:?}: earlier calls count for the full 24 hours"
        );
        journey.let_pass(SignedDuration::from_hours(3)).await;
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), limit as usize + 1, "{service:?}");
    }
}

#[tokio::test]
async fn ledger_of_newer_version_is_neither_trusted_nor_written() {
    let mut harness = stage().await;
    let proxy = proxied(&mut harness).await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let key = harness.plant_key();
    // Definitions of a newer version, with which the API server keeps a field that this version does not
    // know.
    let newer = json!({"callsPerHour": 1});
    proxy.add_to_spec(Asked::is_ledger, Some(newer));
    harness.apply("orders", &spec(&journey.arn, Some(&key))).await;
    let writes = |proxy: &Proxy| proxy.count(|asked| asked.is_ledger() && asked.is_write());
    let before = writes(&proxy);
    journey.until("LedgerInvalid").await;
    journey.let_pass(SignedDuration::from_hours(1)).await;
    assert_eq!((journey.changes(), writes(&proxy)), (1, before), "no call, and no write without the field");
    let status = harness.status("orders").await;
    assert!(message(&status).contains("stream-"), "{}", message(&status));

    // The newer version is running again, or a user has fixed the ledger.
    proxy.add_to_spec(Asked::is_ledger, None);
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2);
}

#[tokio::test]
async fn api_server_drops_unknown_ledger_field() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let name = ledger::name(&journey.arn.parse().expect("an ARN"));
    let patch = json!({"spec": {"callsPerHour": 1}}).to_string();
    harness.kubectl(&["patch", "streamledger", &name, "--type=merge", "-p", &patch]).await;
    let kept = harness.kubectl(&["get", "streamledger", &name, "-o", "jsonpath={.spec.callsPerHour}"]).await;
    assert_eq!(kept, "", "so the definitions must never be older than the newest operator that has run");
    journey.let_pass(SignedDuration::from_mins(30)).await;
    assert_eq!(reason(&harness.status("orders").await), "Encrypted");
}

#[tokio::test]
async fn missing_ledger_permission_blocks_calls_and_is_reported() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.kubectl(&["delete", "rolebinding", "stream-encryption-operator"]).await;
    harness.apply("orders", &spec(&journey.arn, None)).await;
    // The API server's authorizer sees the change a moment later.
    eventually("LedgerInvalid is reported", 20, async || {
        journey.visit().await;
        reason(&harness.status("orders").await) == "LedgerInvalid" || journey.changes() > 0
    })
    .await;
    journey.let_pass(SignedDuration::from_hours(1)).await;
    assert_eq!(journey.changes(), 0);
}

#[tokio::test]
async fn unreadable_ledger_blocks_calls() {
    let mut harness = stage().await;
    let proxy = proxied(&mut harness).await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&journey.arn, None)).await;
    proxy.always(|asked| asked.is_ledger() && !asked.is_write(), Meet::Answer(500, When::Before));
    journey.let_pass(SignedDuration::from_mins(10)).await;
    assert_eq!(journey.changes(), 0);
    proxy.heal();
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 1);
}
