//! Rows 9, 21 and 22: what others do to the ledgers: webhooks that do not answer, a deleted ledger, one of a newer version.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::Service;
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::model::ledger;

use super::fuse::FusedOperator;
use super::proxy::{Asked, Meet, Proxy, When};
use super::rig::{Act, DAY, Journey, Scene, proxied, spec, stage, stopped};
use crate::play::{Play, message, reason};
use crate::process::eventually;

/// A webhook that nobody serves, for these resources in the play's namespace.
fn webhook(play: &Play, resources: &[&str]) -> Value {
    // A port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": play.namespace},
        "webhooks": [{
            "name": "down.streamencryption.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 1,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/")},
            // The cluster is everybody's.
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": play.namespace}},
            "rules": [{
                "apiGroups": ["streamencryption.dev"], "apiVersions": ["*"], "resources": resources,
                "operations": ["CREATE", "UPDATE", "DELETE"],
            }],
        }],
    })
}

/// Waits until the API server asks the webhook, or does not: a label of `object` cannot be changed, or can.
async fn until_changes_are(play: &Play, possible: bool, object: &str) {
    let label = ["label", object, "x=y", "--overwrite", "--dry-run=server", "-n", &play.namespace];
    eventually("the API server knows of the webhook", 30, async || {
        play.cluster.kubectl(&label).await.is_ok() == possible
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_is_down_keeps_users_from_editing_and_the_operator_from_nothing() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    play.cluster.apply(&webhook(&play, &["streamencryptions"]).to_string()).await.expect("a webhook");
    until_changes_are(&play, false, "strenc/orders").await;

    journey.play(&[Scene { act: Act::Outside(stopped()), end: "Enabling" }]).await;
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2, "ledger and status are written past it");
    play.kubectl(&["delete", "validatingwebhookconfiguration", &play.namespace]).await;
}

#[tokio::test]
async fn a_webhook_that_is_down_before_the_ledgers_stops_all_calls_until_it_is_gone() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let ledger = ledger::name(&journey.arn.parse().expect("an ARN"));
    play.cluster.apply(&webhook(&play, &["streamledgers"]).to_string()).await.expect("a webhook");
    until_changes_are(&play, false, &format!("streamledger/{ledger}")).await;

    let now = play.aws.now();
    play.aws.world().set_stream(now, &journey.arn, stopped());
    journey.let_pass(SignedDuration::from_mins(11)).await;
    assert!(journey.failed > 0);
    assert_eq!(journey.changes(), 1, "nothing can be reserved");
    play.kubectl(&["delete", "validatingwebhookconfiguration", &play.namespace]).await;
    until_changes_are(&play, true, &format!("streamledger/{ledger}")).await;
    journey.until("Enabling").await;
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2);
}

#[tokio::test]
async fn a_deleted_ledger_gives_no_new_budget() {
    for (service, limit) in [(Service::Firehose, 6), (Service::Kinesis, 6)] {
        let mut play = stage().await;
        play.policy = Some(StreamEncryptionPolicySpec {
            max_calls_per_day: limit,
            ..StreamEncryptionPolicySpec::own_account()
        });
        play.restart();
        let keys = [play.plant_key(), play.plant_key()];
        let mut journey = Journey::new(&play, service, "orders", None);
        for turn in 0..limit as usize {
            let change =
                Scene { act: Act::Apply(spec(&journey.arn, Some(&keys[turn % 2]))), end: "Encrypted" };
            journey.play(&[change]).await;
            if turn == 3 {
                let name = ledger::name(&journey.arn.parse().expect("an ARN"));
                play.kubectl(&["delete", "streamledger", &name]).await;
                journey.operator = FusedOperator::new(play.replica(), None);
            }
        }
        assert_eq!(journey.changes(), limit as usize, "{service:?}");
        play.apply("orders", &spec(&journey.arn, Some(&keys[0]))).await;
        journey.until("CallLimitReached").await;
        journey.let_pass(DAY - SignedDuration::from_hours(1)).await;
        assert_eq!(
            journey.changes(),
            limit as usize,
            "{service:?}: the calls of before count as long as any"
        );
        journey.let_pass(SignedDuration::from_hours(3)).await;
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), limit as usize + 1, "{service:?}");
    }
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_neither_believed_nor_written() {
    let mut play = stage().await;
    let proxy = proxied(&mut play).await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let key = play.plant_key();
    // The definitions of a newer version, with which the API server keeps a field that this version has never heard of.
    let newer = json!({"callsPerHour": 1});
    proxy.add_to_spec(Asked::is_ledger, Some(newer));
    play.apply("orders", &spec(&journey.arn, Some(&key))).await;
    let writes = |proxy: &Proxy| proxy.count(|asked| asked.is_ledger() && asked.is_write());
    let before = writes(&proxy);
    journey.until("LedgerUnreadable").await;
    journey.let_pass(SignedDuration::from_hours(1)).await;
    assert_eq!(
        (journey.changes(), writes(&proxy)),
        (1, before),
        "neither called nor written back without the field"
    );
    let status = play.status("orders").await;
    assert!(message(&status).contains("stream-"), "{}", message(&status));

    // The newer version is back, or a person has looked.
    proxy.add_to_spec(Asked::is_ledger, None);
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2);
}

#[tokio::test]
async fn a_field_that_the_installed_definitions_do_not_know_is_not_kept_by_the_api_server() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let name = ledger::name(&journey.arn.parse().expect("an ARN"));
    let patch = json!({"spec": {"callsPerHour": 1}}).to_string();
    play.kubectl(&["patch", "streamledger", &name, "--type=merge", "-p", &patch]).await;
    let kept = play.kubectl(&["get", "streamledger", &name, "-o", "jsonpath={.spec.callsPerHour}"]).await;
    assert_eq!(kept, "", "so the definitions must never be older than the newest operator that has run");
    journey.let_pass(SignedDuration::from_mins(30)).await;
    assert_eq!(reason(&play.status("orders").await), "Encrypted");
}

#[tokio::test]
async fn without_the_right_to_the_ledgers_nothing_is_called_and_it_is_told() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.kubectl(&["delete", "rolebinding", "stream-encryption-operator"]).await;
    play.apply("orders", &spec(&journey.arn, None)).await;
    // The API server's authorizer learns of it a moment later.
    eventually("it is told", 20, async || {
        journey.visit().await;
        reason(&play.status("orders").await) == "LedgerUnreadable" || journey.changes() > 0
    })
    .await;
    journey.let_pass(SignedDuration::from_hours(1)).await;
    assert_eq!(journey.changes(), 0);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_stops_all_calls() {
    let mut play = stage().await;
    let proxy = proxied(&mut play).await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&journey.arn, None)).await;
    proxy.always(|asked| asked.is_ledger() && !asked.is_write(), Meet::Answer(500, When::Before));
    journey.let_pass(SignedDuration::from_mins(10)).await;
    assert_eq!(journey.changes(), 0);
    proxy.heal();
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 1);
}
