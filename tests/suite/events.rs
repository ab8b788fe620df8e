//! Events on the real API server: one for each text, and for names of any length.

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::json;
use simulated_aws::world::{PlantedStream, Settings};
use stream_encryption_operator::api::ledger::Owner;
use stream_encryption_operator::controller::book;
use stream_encryption_operator::controller::records::{Happening, Records as _};

use crate::play::{Play, firehose};

fn happening(note: &str) -> Happening {
    Happening {
        warning: false,
        reason: "Enabling".to_owned(),
        action: "Reconcile",
        note: note.to_owned(),
        encrypted_after: None,
    }
}

async fn events_of(play: &Play, name: &str) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(play.administrator.clone(), &play.namespace);
    let events = api.list(&ListParams::default()).await.expect("the events can be read");
    let of = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name);
    events.into_iter().filter(of).collect()
}

#[tokio::test]
async fn resources_with_long_names_have_events() {
    let play = Play::start(Settings::default()).await;
    for length in [230, 236, 237, 240, 253] {
        play.aws
            .world()
            .plant_stream(PlantedStream { name: format!("s{length}"), ..PlantedStream::default() });
        // With separators where the name is cut.
        let name = "a".repeat(228) + &"-b.c-d.e".repeat(4)[..length - 229] + "z";
        assert_eq!(name.len(), length);
        play.apply(&name, &json!({"stream": {"arn": firehose(&format!("s{length}"))}})).await;
        play.until_it_says(&name, "Encrypted").await;
        let reasons = play.events(&name).await;
        assert!(reasons.contains("Enabling") && reasons.contains("Encrypted"), "{length}: {reasons:?}");
    }
}

#[tokio::test]
async fn event_with_another_text_is_another_event() {
    let play = Play::start(Settings::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let owner = book::owner(&play.resource("orders").await.expect("the resource"));
    let operator = play.replica();
    for note in ["with key/2222", "with key/4444", "with key/2222"] {
        operator.records.tell(&owner, &happening(note)).await.expect("the event is published");
    }
    let events = events_of(&play, "orders").await;
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
async fn lost_event_is_an_error_for_its_sender() {
    let play = Play::start(Settings::default()).await;
    let nowhere = Owner {
        namespace: "no-such-namespace".to_owned(),
        name: "orders".to_owned(),
        uid: "0e9ab2c0-0000-4000-8000-000000000000".to_owned(),
    };
    assert!(play.replica().records.tell(&nowhere, &happening("lost")).await.is_err());
}
