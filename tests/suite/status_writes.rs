//! The status on the real API server: each write restores it exactly as the operator reports it, whoever
//! wrote before.

use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::PlantedKey;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::report_invalid_object;

use crate::harness::{Harness, firehose, reason, spec, truth};
use crate::matrix::scenario::{DESCRIBE, encrypted, stage};

fn api(harness: &Harness) -> Api<StreamEncryption> {
    Api::namespaced(harness.administrator.clone(), &harness.namespace)
}

/// Changes the status as another field manager.
async fn restore(harness: &Harness, status: &Value) {
    let parameters =
        PatchParams { field_manager: Some("velero-server".to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "status": status }));
    api(harness).patch_status("orders", &parameters, &patch).await.expect("the status is restored");
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "Of January.",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn restored_status_is_replaced_at_next_reconcile() {
    let harness = encrypted(stage().await).await;
    let before = harness.status("orders").await;
    let looks = harness.calls(DESCRIBE, "orders");
    restore(
        &harness,
        &json!({
            "conditions": [
                condition("Ready", "True", "Encrypted"),
                condition("Stalled", "True", "KeyNotSymmetric"),
                condition("KeyUsable", "False", "KeyNotSymmetric"),
                condition("SomebodyElses", "True", "Whatever"),
            ],
            "failure": {"type": "X", "message": "x", "lastFailureTime": "2026-01-01T00:00:00Z", "attempts": 3},
            "nextAttemptTime": "2026-01-02T00:00:00Z",
            "plaintextSinceTime": "2026-01-01T00:00:00Z",
        }),
    )
    .await;
    assert_eq!(truth(&harness.status("orders").await, ConditionType::Stalled), "True");
    harness.visit("orders").await.expect("a reconcile");
    let after = harness.status("orders").await;
    assert_eq!(find(&after.conditions, ConditionType::Stalled), None);
    assert_eq!((after.failure, after.next_attempt_time, after.plaintext_since_time), (None, None, None));
    let kinds = |conditions: &[_]| -> Vec<String> {
        let kind = |one: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| one.type_.clone();
        conditions.iter().map(kind).collect()
    };
    assert_eq!(kinds(&after.conditions), kinds(&before.conditions));
    assert_eq!(harness.calls(DESCRIBE, "orders"), looks, "no further Describe is sent");
}

#[tokio::test]
async fn foreign_change_of_own_status_fields_is_corrected() {
    let harness = encrypted(stage().await).await;
    let before = harness.status("orders").await;
    let mut wrong = serde_json::to_value(&before).expect("a value");
    for condition in wrong["conditions"].as_array_mut().expect("conditions") {
        condition["message"] = json!("Of January.");
    }
    wrong["encryptionStatus"] = json!("ENABLING_FAILED");
    restore(&harness, &wrong).await;
    harness.visit("orders").await.expect("a reconcile");
    assert_eq!(harness.status("orders").await, before);
    let version = harness.resource("orders").await.expect("the resource").metadata.resource_version;
    harness.visit("orders").await.expect("a reconcile");
    let settled = harness.resource("orders").await.expect("the resource").metadata.resource_version;
    assert_eq!(settled, version, "and is not written again");
}

#[tokio::test]
async fn status_is_complete_after_managed_fields_are_lost() {
    let harness = stage().await;
    let asymmetric =
        harness.aws.world().plant_key(PlantedKey { spec: "RSA_2048".into(), ..PlantedKey::default() });
    harness.apply("orders", &spec(&firehose("orders"), Some(&asymmetric))).await;
    harness.until_it_says("orders", "KeyNotSymmetric").await;
    let lost = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}));
    api(&harness).patch("orders", &PatchParams::default(), &lost).await.expect("managedFields are lost");
    harness.apply("orders", &spec(&firehose("orders"), Some(&harness.plant_key()))).await;
    harness.until_it_says("orders", "Encrypted").await;
    let status = harness.status("orders").await;
    assert_eq!(reason(&status), "Encrypted");
    assert_eq!(find(&status.conditions, ConditionType::Stalled), None, "{:?}", status.conditions);
}

/// Returns the field managers of the metadata, with their fields.
async fn managers_of_metadata(harness: &Harness) -> String {
    let metadata = api(harness).get_metadata("orders").await.expect("the metadata").metadata;
    let managers = metadata.managed_fields.into_iter().flatten().filter(|entry| entry.subresource.is_none());
    let managers = managers.map(|entry| json!([entry.manager, entry.fields_v1.map(|fields| fields.0)]));
    serde_json::to_string(&managers.collect::<Vec<_>>()).expect("JSON")
}

#[tokio::test]
async fn status_write_keeps_spec_and_metadata() {
    let harness = encrypted(stage().await).await;
    let written = harness.resource("orders").await.expect("the resource");
    let metadata =
        json!({"labels": {"team": "data"}, "annotations": {"a": "b"}, "finalizers": ["x.example/keep"]});
    let applied = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": metadata, "spec": {},
    });
    let gitops = PatchParams::apply("gitops");
    api(&harness).patch("orders", &gitops, &Patch::Apply(&applied)).await.expect("it is applied");
    let managers_before = managers_of_metadata(&harness).await;
    assert!(managers_before.contains("gitops"), "{managers_before}");
    restore(&harness, &json!({"encryptionStatus": "DISABLED"})).await;
    harness.visit("orders").await.expect("a reconcile");
    let after = harness.resource("orders").await.expect("the resource");
    assert_eq!(after.status, written.status);
    assert_eq!((after.spec, after.metadata.generation), (written.spec, written.metadata.generation));
    let metadata = api(&harness).get_metadata("orders").await.expect("the metadata").metadata;
    assert_eq!(metadata.labels.expect("labels")["team"], "data");
    assert_eq!(metadata.annotations.expect("annotations")["a"], "b");
    assert_eq!(managers_of_metadata(&harness).await, managers_before, "an apply still removes a label");
}

#[tokio::test]
async fn foreign_status_of_an_invalid_object_is_corrected() {
    let harness = stage().await;
    harness.apply("orders", &spec(&firehose("orders"), None)).await;
    let operator = harness.replica();
    let told = async || {
        let read = harness.resource("orders").await.expect("the resource").metadata;
        report_invalid_object(&operator, &read, "a field is wrong").await.expect("the status is written");
        harness.aws.advance(jiff::SignedDuration::from_secs(7));
        let resource = harness.resource("orders").await.expect("the resource");
        (reason(&resource.status.expect("a status")), resource.metadata.resource_version)
    };
    assert_eq!(told().await.0, "SpecInvalid");
    restore(&harness, &json!({"conditions": [condition("Ready", "True", "Encrypted")]})).await;
    let corrected = told().await;
    assert_eq!(corrected.0, "SpecInvalid");
    assert_eq!(told().await, corrected, "and is not written again");
}
