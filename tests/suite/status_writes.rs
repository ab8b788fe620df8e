//! The status on the real API server: after each write it is exactly as the operator reports it, whoever wrote before.

use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::{PlantedKey, PlantedStream, Settings};
use stream_encryption_operator::api::condition::{ConditionType, find};
use stream_encryption_operator::api::stream_encryption::StreamEncryption;
use stream_encryption_operator::controller::malformed;

use crate::play::{Play, firehose, reason, truth};

const DESCRIBE: &str = "DescribeDeliveryStream";

async fn encrypted() -> Play {
    let play = Play::start(Settings::default()).await;
    play.aws.world().plant_stream(PlantedStream::default());
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "Encrypted").await;
    play
}

fn api(play: &Play) -> Api<StreamEncryption> {
    Api::namespaced(play.administrator.clone(), &play.namespace)
}

/// Changes the status as another field manager.
async fn restore(play: &Play, status: &Value) {
    let parameters =
        PatchParams { field_manager: Some("velero-server".to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "status": status }));
    api(play).patch_status("orders", &parameters, &patch).await.expect("the status is restored");
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "Of January.",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn restored_status_is_replaced_as_a_whole_at_the_next_visit() {
    let play = encrypted().await;
    let before = play.status("orders").await;
    let looks = play.calls(DESCRIBE, "orders");
    restore(
        &play,
        &json!({
            "conditions": [
                condition("Ready", "True", "Encrypted"),
                condition("Stalled", "True", "KeyNotSymmetric"),
                condition("KeyUsable", "False", "KeyNotSymmetric"),
                condition("SomebodyElses", "True", "Whatever"),
            ],
            "failure": {"type": "X", "message": "x", "time": "2026-01-01T00:00:00Z", "attempts": 3},
            "nextAttemptTime": "2026-01-02T00:00:00Z",
            "plainTextSince": "2026-01-01T00:00:00Z",
        }),
    )
    .await;
    assert_eq!(truth(&play.status("orders").await, ConditionType::Stalled), "True");
    play.visit("orders").await.expect("a visit");
    let after = play.status("orders").await;
    assert_eq!(find(&after.conditions, ConditionType::Stalled), None);
    assert_eq!((after.failure, after.next_attempt_time, after.plain_text_since), (None, None, None));
    let kinds = |conditions: &[_]| -> Vec<String> {
        let kind = |one: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| one.type_.clone();
        conditions.iter().map(kind).collect()
    };
    assert_eq!(kinds(&after.conditions), kinds(&before.conditions));
    assert_eq!(play.calls(DESCRIBE, "orders"), looks, "AWS is not asked for that");
}

#[tokio::test]
async fn foreign_status_in_the_operators_own_fields_is_corrected_at_the_next_visit() {
    let play = encrypted().await;
    let before = play.status("orders").await;
    let mut wrong = serde_json::to_value(&before).expect("a value");
    for condition in wrong["conditions"].as_array_mut().expect("conditions") {
        condition["message"] = json!("Of January.");
    }
    wrong["encryptionStatus"] = json!("ENABLING_FAILED");
    restore(&play, &wrong).await;
    play.visit("orders").await.expect("a visit");
    assert_eq!(play.status("orders").await, before);
    let version = play.resource("orders").await.expect("the resource").metadata.resource_version;
    play.visit("orders").await.expect("a visit");
    let settled = play.resource("orders").await.expect("the resource").metadata.resource_version;
    assert_eq!(settled, version, "and is left alone then");
}

#[tokio::test]
async fn status_is_whole_after_managed_fields_are_lost() {
    let play = Play::start(Settings::default()).await;
    play.aws.world().plant_stream(PlantedStream::default());
    let asymmetric =
        play.aws.world().plant_key(PlantedKey { spec: "RSA_2048".into(), ..PlantedKey::default() });
    let spec = |key: &str| json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key}});
    play.apply("orders", &spec(&asymmetric)).await;
    play.until_it_says("orders", "KeyNotSymmetric").await;
    let lost = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}));
    api(&play).patch("orders", &PatchParams::default(), &lost).await.expect("managedFields are lost");
    play.apply("orders", &spec(&play.plant_key())).await;
    play.until_it_says("orders", "Encrypted").await;
    let status = play.status("orders").await;
    assert_eq!(reason(&status), "Encrypted");
    assert_eq!(find(&status.conditions, ConditionType::Stalled), None, "{:?}", status.conditions);
}

#[tokio::test]
async fn status_write_leaves_spec_and_metadata_as_they_are() {
    let play = encrypted().await;
    let written = play.resource("orders").await.expect("the resource");
    let labels = Patch::Merge(json!({"metadata": {"labels": {"team": "data"}, "annotations": {"a": "b"}}}));
    api(&play).patch("orders", &PatchParams::default(), &labels).await.expect("it is labelled");
    restore(&play, &json!({"encryptionStatus": "DISABLED"})).await;
    play.visit("orders").await.expect("a visit");
    let after = play.resource("orders").await.expect("the resource");
    assert_eq!(after.status, written.status);
    assert_eq!((after.spec, after.metadata.generation), (written.spec, written.metadata.generation));
    assert_eq!(after.metadata.labels.expect("labels")["team"], "data");
    assert_eq!(after.metadata.annotations.expect("annotations")["a"], "b");
}

#[tokio::test]
async fn foreign_status_of_an_unreadable_object_is_corrected() {
    let play = Play::start(Settings::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let operator = play.replica();
    let told = async || {
        let read = play.resource("orders").await.expect("the resource").metadata;
        malformed(&operator, &read, "a field is wrong").await.expect("it is told");
        play.aws.advance(jiff::SignedDuration::from_secs(7));
        let resource = play.resource("orders").await.expect("the resource");
        (reason(&resource.status.expect("a status")), resource.metadata.resource_version)
    };
    assert_eq!(told().await.0, "SpecInvalid");
    restore(&play, &json!({"conditions": [condition("Ready", "True", "Encrypted")]})).await;
    let corrected = told().await;
    assert_eq!(corrected.0, "SpecInvalid");
    assert_eq!(told().await, corrected, "and is left alone then");
}
