//! Rows 18 and 19: resources and streams that are deleted and created again, and resources that name the same
//! stream. On a virtual clock.

use jiff::SignedDuration;
use kube::api::Api;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Service};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::reconcile;

use super::scenario::{Act, DAY, Run, START, Scene, namespaces, plant, spec, stage};
use crate::harness::{firehose, reason, truth};

#[tokio::test]
async fn recreated_resource_while_enabling_causes_no_second_start() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    let apply = || Act::Apply(spec(&firehose("orders"), None));
    let scenes = [
        Scene { act: apply(), end: "Enabling" },
        Scene { act: Act::Delete, end: "" },
        Scene { act: apply(), end: "Encrypted" },
    ];
    journey.harness(&scenes).await;
    assert_eq!((journey.changes(), journey.reserved().await), (1, 1));
}

#[tokio::test]
async fn deletion_while_enabling_disables_encryption_soon() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    let spec = json!({"stream": {"arn": journey.arn}, "deletionPolicy": "Disable"});
    journey.harness(&[Scene { act: Act::Apply(spec), end: "Enabling" }]).await;
    let deleted = harness.aws.now();
    journey.harness(&[Scene { act: Act::Delete, end: "" }]).await;
    assert_eq!(journey.changes(), 2, "one Start, one Stop");
    let took = harness.aws.now().duration_since(deleted);
    assert!(took <= SignedDuration::from_mins(2), "{took:#}");
}

#[tokio::test]
async fn recreating_a_resource_stays_within_budget() {
    let harness = stage().await;
    let keys = [harness.plant_key(), harness.plant_key()];
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    for turn in 0..30 {
        harness.apply("orders", &spec(&journey.arn, Some(&keys[turn % 2]))).await;
        journey.let_pass(SignedDuration::from_mins(2)).await;
        journey.harness(&[Scene { act: Act::Delete, end: "" }]).await;
    }
    assert_eq!((journey.changes(), journey.busiest_day()), (20, 20));
    assert_eq!(journey.reserved().await, 20, "the ledger outlives every resource");
}

#[tokio::test]
async fn recreating_a_stream_stays_within_budget() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&journey.arn, None)).await;
    for _ in 0..30 {
        let created = Some(harness.aws.now());
        harness.aws.world().plant_stream(PlantedStream { created, ..PlantedStream::default() });
        // The drift check finds the new stream at the latest.
        journey.let_pass(SignedDuration::from_mins(11)).await;
    }
    assert!(journey.busiest_day() <= 20, "{}", journey.busiest_day());
    assert!(journey.changes() >= 15, "{} Starts: most new streams were found", journey.changes());
    harness.aws.world().remove_stream(&journey.arn);
    journey.let_pass(SignedDuration::from_mins(11)).await;
    assert_eq!(reason(&harness.status("orders").await), "StreamNotFound");
    plant(&harness, Service::Firehose, "orders");
    journey.let_pass(DAY + SignedDuration::from_hours(1)).await;
    journey.until("Encrypted").await;
}

#[tokio::test]
async fn only_one_resource_manages_a_stream_across_namespaces() {
    let harness = stage().await;
    let key = harness.plant_key();
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;

    let elsewhere = namespaces(harness.cluster, "owner", 1).await.remove(0);
    let by_name = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "mine", "namespace": elsewhere},
        "spec": {
            "stream": {"service": "Firehose", "name": "orders"},
            "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key},
        },
    });
    harness.cluster.apply(&by_name.to_string()).await.expect("the resource is accepted");
    let api: Api<StreamEncryption> = Api::namespaced(harness.administrator.clone(), &elsewhere);
    let operator = harness.replica();
    for _ in 0..5 {
        let resource = api.get("mine").await.expect("the resource");
        Box::pin(reconcile(&operator, &resource)).await.expect("Kubernetes answers");
        harness.aws.advance(SignedDuration::from_mins(11));
    }
    let status = api.get("mine").await.expect("the resource").status.unwrap_or_default();
    assert_eq!(reason(&status), "StreamAlreadyManaged");
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert_eq!(harness.calls(START, "orders"), 1, "no call by the resource that does not manage the stream");
    assert_eq!(harness.calls("StopDeliveryStreamEncryption", "orders"), 0);
}
