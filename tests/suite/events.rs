//! Events on the real API server: one event for each note, and resource names of any length.

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::json;
use simulated_aws::world::Settings;
use stream_encryption_api::ledger::Owner;
use stream_encryption_core::controller::kube_api::{KubeApi as _, ReconcileEvent};
use stream_encryption_core::controller::ledger_store;

use crate::harness::{Harness, firehose, spec};
use crate::matrix::scenario::plant;

fn happening(note: &str) -> ReconcileEvent {
    ReconcileEvent {
        warning: false,
        reason: "Enabling".to_owned(),
        action: "Reconcile",
        note: note.to_owned(),
    }
}

pub(crate) async fn events_of(harness: &Harness, name: &str) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(harness.administrator.clone(), &harness.namespace);
    let events = api.list(&ListParams::default()).await.expect("the events can be read");
    let of = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name);
    events.into_iter().filter(of).collect()
}

#[tokio::test]
async fn resource_with_long_name_has_events() {
    let harness = Harness::start(Settings::default()).await;
    for length in [230, 236, 237, 240, 253] {
        let arn = plant(&harness, &format!("s{length}"));
        // Separators are at the position where the name is truncated.
        let name = "a".repeat(228) + &"-b.c-d.e".repeat(4)[..length - 229] + "z";
        assert_eq!(name.len(), length);
        harness.apply(&name, &spec(&arn, None)).await;
        harness.until_it_says(&name, "Encrypted").await;
        let reasons = harness.events(&name).await;
        assert!(reasons.contains("Enabling") && reasons.contains("Encrypted"), "{length}: {reasons:?}");
    }
}

#[tokio::test]
async fn event_with_another_note_is_another_event() {
    let harness = Harness::start(Settings::default()).await;
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let owner = ledger_store::resource_identity(&harness.resource("orders").await.expect("the resource"));
    let operator = harness.replica();
    for note in ["with key/2222", "with key/4444", "with key/2222"] {
        operator.kube.publish_event(&owner, &happening(note)).await.expect("the event is published");
    }
    let events = events_of(&harness, "orders").await;
    let mut told: Vec<_> = events
        .iter()
        .map(|event| {
            (event.note.clone().unwrap_or_default(), event.series.as_ref().map_or(1, |series| series.count))
        })
        .collect();
    told.sort();
    assert_eq!(told, [("with key/2222".to_owned(), 2), ("with key/4444".to_owned(), 1)]);
}

#[tokio::test]
async fn failed_event_returns_an_error() {
    let harness = Harness::start(Settings::default()).await;
    let nowhere = Owner {
        namespace: "no-such-namespace".to_owned(),
        name: "orders".to_owned(),
        uid: "0e9ab2c0-0000-4000-8000-000000000000".to_owned(),
    };
    assert!(harness.replica().kube.publish_event(&nowhere, &happening("lost")).await.is_err());
}
