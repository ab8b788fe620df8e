//! Resources with `deletionPolicy: Disable` that are deleted while the encryption of their stream stays on: the
//! operator reports this although Kubernetes accepts no event in a namespace that is being deleted.

use serde_json::{Value, json};
use simulated_aws::world::Calls as _;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;

use crate::harness::{LEDGERS, firehose};
use crate::process::{Place, apply, eventually, free_address};
use crate::readiness::asked;
use crate::startup::Log;

/// A default policy that allows to disable encryption, for streams whose names match `streams`.
fn policy(streams: &str) -> String {
    let policy = StreamEncryptionPolicySpec {
        allow_disable: true,
        streams: vec![format!("arn:aws:firehose:*:own:deliverystream/{streams}")],
        ..StreamEncryptionPolicySpec::own_account()
    };
    serde_json::to_string(&policy).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_left_on_in_deleted_namespace_is_reported() {
    let place = Place::new().await;
    let Place { cluster, namespace, .. } = &place;
    let address = free_address().to_string();
    let start = |policy: String, log: std::fs::File| {
        let environment =
            [("DEFAULT_POLICY", policy.as_str()), ("LISTEN", &address), ("POD_NAMESPACE", LEDGERS)];
        place.logging_to(log, &environment)
    };
    let (_log, file) = Log::new();
    let operator = start(policy("*"), file);
    let spec: Value = json!({"stream": {"arn": firehose("orders")}, "deletionPolicy": "Disable"});
    apply(cluster, namespace, "orders", &spec).await;
    place.until_it_is_encrypted().await;
    operator.kill();

    let (log, file) = Log::new();
    cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"]).await.expect("it is deleted");
    cluster
        .kubectl(&["delete", "strenc", "orders", "-n", namespace, "--wait=false"])
        .await
        .expect("it is deleted");
    let finalizers = place.field("{.metadata.finalizers}").await;
    assert!(finalizers.contains("disable-encryption"), "{finalizers}");
    let _operator = start(policy("other"), file);
    log.until("leaving the encryption unchanged").await;
    eventually("the resource is gone", async || {
        cluster.kubectl(&["get", "strenc", "orders", "-n", namespace]).await.is_err()
    })
    .await;
    let warning = log.text();
    let warning =
        warning.lines().find(|line| line.contains("leaving the encryption unchanged")).expect("a line");
    for part in ["WARN", "\"orders\"", namespace, &firehose("orders")] {
        assert!(warning.contains(part), "{part} is not in {warning}");
    }
    let metrics = format!("http://{address}/metrics");
    let (_, page) = asked(&metrics).await.expect("the metrics");
    assert!(page.contains("stream_encryption_encryption_left_on_total 1"), "{page}");
    // After the removal there is no status to report, and so no other event.
    assert!(page.contains("stream_encryption_events_lost_total 1"), "{page}");
    assert_eq!(log.text().matches("an event was lost").count(), 1, "{}", log.text());
    assert_eq!(place.aws.world().calls().count("StopDeliveryStreamEncryption", "orders"), 0);
}
