//! Rows 18 and 19: resources and streams that go and come again, and resources that want the same stream. On a virtual clock.

use jiff::SignedDuration;
use kube::api::Api;
use serde_json::json;
use simulated_aws::world::{PlantedStream, Service};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::stream_encryption::StreamEncryption;
use stream_encryption_operator::controller::reconcile;

use super::rig::{Act, DAY, Journey, START, Scene, namespaces, plant, spec, stage};
use crate::play::{firehose, reason, truth};

#[tokio::test]
async fn a_resource_deleted_while_its_stream_is_enabling_and_made_again_costs_no_second_start() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    let apply = || Act::Apply(spec(&firehose("orders"), None));
    let scenes = [
        Scene { act: apply(), end: "Enabling" },
        Scene { act: Act::Delete, end: "" },
        Scene { act: apply(), end: "Encrypted" },
    ];
    journey.play(&scenes).await;
    assert_eq!((journey.changes(), journey.reserved().await), (1, 1));
}

#[tokio::test]
async fn a_resource_that_is_to_turn_encryption_off_is_let_go_soon_also_when_deleted_while_enabling() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    let spec = json!({"stream": {"arn": journey.arn}, "deletionPolicy": "Disable"});
    journey.play(&[Scene { act: Act::Apply(spec), end: "Enabling" }]).await;
    let deleted = play.aws.now();
    journey.play(&[Scene { act: Act::Delete, end: "" }]).await;
    assert_eq!(journey.changes(), 2, "one Start, one Stop");
    let took = play.aws.now().duration_since(deleted);
    assert!(took <= SignedDuration::from_mins(2), "{took:#}");
}

#[tokio::test]
async fn a_resource_made_again_thirty_times_an_hour_with_other_keys_stays_within_the_budget() {
    let play = stage().await;
    let keys = [play.plant_key(), play.plant_key()];
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    for turn in 0..30 {
        play.apply("orders", &spec(&journey.arn, Some(&keys[turn % 2]))).await;
        journey.let_pass(SignedDuration::from_mins(2)).await;
        journey.play(&[Scene { act: Act::Delete, end: "" }]).await;
    }
    assert_eq!((journey.changes(), journey.busiest_day()), (20, 20));
    assert_eq!(journey.reserved().await, 20, "the ledger outlives every one of them");
}

#[tokio::test]
async fn a_stream_made_again_thirty_times_an_hour_stays_within_the_budget() {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&journey.arn, None)).await;
    for _ in 0..30 {
        let created = Some(play.aws.now());
        play.aws.world().plant_stream(PlantedStream { created, ..PlantedStream::default() });
        // The look for drift finds it at the latest.
        journey.let_pass(SignedDuration::from_mins(11)).await;
    }
    assert!(journey.busiest_day() <= 20, "{}", journey.busiest_day());
    assert!(journey.changes() >= 15, "{} Starts: most of them were seen", journey.changes());
    play.aws.world().remove_stream(&journey.arn);
    journey.let_pass(SignedDuration::from_mins(11)).await;
    assert_eq!(reason(&play.status("orders").await), "StreamNotFound");
    plant(&play, Service::Firehose, "orders");
    journey.let_pass(DAY + SignedDuration::from_hours(1)).await;
    journey.until("Encrypted").await;
}

#[tokio::test]
async fn of_two_resources_that_name_one_stream_in_two_ways_in_two_namespaces_one_owns_it() {
    let play = stage().await;
    let key = play.plant_key();
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;

    let elsewhere = namespaces(play.cluster, "owner", 1).await.remove(0);
    let by_name = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "mine", "namespace": elsewhere},
        "spec": {
            "stream": {"service": "Firehose", "name": "orders"},
            "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key},
        },
    });
    play.cluster.apply(&by_name.to_string()).await.expect("the resource is accepted");
    let api: Api<StreamEncryption> = Api::namespaced(play.administrator.clone(), &elsewhere);
    let operator = play.replica();
    for _ in 0..5 {
        let resource = api.get("mine").await.expect("the resource");
        Box::pin(reconcile(&operator, &resource)).await.expect("Kubernetes can be asked");
        play.aws.advance(SignedDuration::from_mins(11));
    }
    let status = api.get("mine").await.expect("the resource").status.unwrap_or_default();
    assert_eq!(reason(&status), "StreamOwnedByAnother");
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert_eq!(play.calls(START, "orders"), 1, "no call by the one that does not own it");
    assert_eq!(play.calls("StopDeliveryStreamEncryption", "orders"), 0);
}
