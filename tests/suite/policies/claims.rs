//! T5: claims on streams, by two teams with a user each. A claim needs a permission when it is made, and as
//! long as it is held.

use jiff::SignedDuration;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::PlantedStream;
use stream_encryption_api::ledger::{Owner, StreamLedger};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::model::ledger;

use super::{START, allow, forbid, policy, team};
use crate::harness::{Harness, firehose, reason};

const TWO_HOURS: SignedDuration = SignedDuration::from_hours(2);

fn of(stream: &str) -> Value {
    json!({"stream": {"arn": firehose(stream)}, "key": {"type": "AWS_OWNED_CMK"}})
}

/// The same spec with more fields.
fn with(stream: &str, more: &Value) -> Value {
    let mut spec = of(stream);
    spec.as_object_mut().expect("a spec").extend(more.as_object().expect("fields").clone());
    spec
}

/// Lets the team of `harness` use the streams, by a policy.
async fn allow_stream(harness: &Harness, streams: &[&str]) {
    let arns: Vec<String> = streams.iter().map(|stream| firehose(stream)).collect();
    let arns: Vec<&str> = arns.iter().map(String::as_str).collect();
    allow(harness, &policy(harness, &arns, &["AWS_OWNED_CMK"])).await;
}

fn resources(harness: &Harness) -> Api<StreamEncryption> {
    Api::namespaced(harness.tenant.clone(), &harness.namespace)
}

async fn delete(harness: &Harness, name: &str) {
    resources(harness).delete(name, &DeleteParams::default()).await.expect("the resource is deleted");
}

/// Changes an annotation of a resource as its team's user, and reconciles it.
async fn poke(harness: &Harness, name: &str, value: usize) {
    let patch = json!({"metadata": {"annotations": {"example.com/poke": value.to_string()}}});
    let parameters = PatchParams::default();
    resources(harness).patch(name, &parameters, &Patch::Merge(&patch)).await.expect("the annotation");
    harness.visit(name).await.expect("a reconcile");
}

async fn owner(harness: &Harness, stream: &str) -> Owner {
    harness.ledger(&firehose(stream)).await.expect("a ledger").spec.owner
}

async fn uid(harness: &Harness, name: &str) -> String {
    harness.resource(name).await.and_then(|resource| resource.metadata.uid).expect("the resource")
}

/// A team that uses its streams, and one without a policy that requests the same streams in every way.
async fn data_and_spies(streams: &[&str]) -> (Harness, Harness, Vec<String>) {
    let data = team().await;
    for stream in streams {
        data.aws
            .world()
            .plant_stream(PlantedStream { name: (*stream).to_owned(), ..PlantedStream::default() });
    }
    let finance = data.beside().await;
    allow_stream(&data, streams).await;
    let mut spies = Vec::new();
    for stream in streams {
        data.apply(stream, &of(stream)).await;
        data.until_it_says(stream, "Encrypted").await;
        for (name, more) in [
            ("plain", json!({})),
            ("suspended", json!({"suspend": true})),
            ("report", json!({"mode": "Observe"})),
            ("off", json!({"encryption": "Disabled"})),
        ] {
            let spy = format!("{stream}-{name}");
            finance.apply(&spy, &with(stream, &more)).await;
            finance.visit(&spy).await.expect("a reconcile");
            spies.push(spy);
        }
    }
    (data, finance, spies)
}

#[tokio::test]
async fn unpermitted_resource_cannot_claim_released_stream() {
    let (data, finance, spies) = data_and_spies(&["orders"]).await;
    let before = owner(&data, "orders").await;
    delete(&data, "orders").await;
    for (value, spy) in spies.iter().enumerate() {
        poke(&finance, spy, value).await;
        assert_eq!(owner(&data, "orders").await, before, "{spy}");
    }
    data.apply("orders", &of("orders")).await;
    data.until_it_says("orders", "Encrypted").await;
    assert_eq!(owner(&data, "orders").await.uid, uid(&data, "orders").await);
    assert_eq!(data.calls(START, "orders"), 1);
}

/// The same as a race: one team replaces its resource while the other keeps changing annotations.
#[tokio::test]
async fn replaced_resource_keeps_its_stream_during_contention() {
    let (data, finance, spies) = data_and_spies(&["orders"]).await;
    for round in 0..5 {
        let manifest = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": data.namespace},
            "spec": of("orders"),
        });
        let replaced = std::sync::atomic::AtomicBool::new(false);
        let replace = async {
            let replace = ["replace", "--force", "-f", "-"];
            let done = data.cluster.kubectl_with_input(&replace, &manifest.to_string()).await;
            replaced.store(true, std::sync::atomic::Ordering::Relaxed);
            done.expect("kubectl replace --force");
        };
        let pokes = async {
            let mut value = round * 1000;
            while !replaced.load(std::sync::atomic::Ordering::Relaxed) {
                for spy in &spies {
                    value += 1;
                    poke(&finance, spy, value).await;
                }
            }
        };
        tokio::join!(replace, pokes);
        data.until_it_says("orders", "Encrypted").await;
        assert_eq!(owner(&data, "orders").await.uid, uid(&data, "orders").await);
    }
    assert_eq!(data.calls(START, "orders"), 1);
}

/// A restored backup gives every resource a new uid, so for a moment no ledger has an existing owner.
#[tokio::test]
async fn restored_backup_gives_no_stream_to_unpermitted_resources() {
    let streams = ["orders", "payments", "clicks"];
    let (data, finance, spies) = data_and_spies(&streams).await;
    for stream in streams {
        delete(&data, stream).await;
    }
    for spy in &spies {
        delete(&finance, spy).await;
    }
    for (spy, stream) in spies.iter().zip(streams.iter().flat_map(|stream| [stream; 4])) {
        finance.apply(spy, &of(stream)).await;
        finance.visit(spy).await.expect("a reconcile");
    }
    for stream in streams {
        data.apply(stream, &of(stream)).await;
        data.until_it_says(stream, "Encrypted").await;
        assert_eq!(owner(&data, stream).await.namespace, data.namespace);
        assert_eq!(data.calls(START, stream), 1, "{stream}");
    }
}

#[tokio::test]
async fn lost_ledger_is_not_recreated_without_permission() {
    let data = team().await;
    allow_stream(&data, &["orders"]).await;
    data.apply("orders", &of("orders")).await;
    data.until_it_says("orders", "Encrypted").await;
    forbid(&data, &data.namespace).await;
    let ledgers: Api<StreamLedger> = Api::namespaced(data.administrator.clone(), &data.namespace);
    let name = ledger::name(&firehose("orders").parse().expect("an ARN"));
    ledgers.delete(&name, &DeleteParams::default()).await.expect("the ledger is deleted");
    data.visit("orders").await.expect("a reconcile");
    let status = data.status("orders").await;
    assert_eq!(reason(&status), "NotPermitted");
    assert!(data.ledger(&firehose("orders")).await.is_none(), "a claim without a permission");

    // The call is still counted: first by the status, and by a ledger once one may be created.
    assert_eq!(status.calls.map(|calls| calls.used), Some(1));
    allow_stream(&data, &["orders"]).await;
    data.until_it_says("orders", "Encrypted").await;
    let ledger = data.ledger(&firehose("orders")).await.expect("a ledger");
    assert_eq!((ledger.spec.calls.len(), data.calls(START, "orders")), (1, 1));
}

#[tokio::test]
async fn claim_ends_when_its_permission_is_withdrawn() {
    let alice = team().await;
    let bob = alice.beside().await;
    allow_stream(&alice, &["orders"]).await;
    alice.apply("orders", &of("orders")).await;
    alice.until_it_says("orders", "Encrypted").await;
    bob.apply("orders", &of("orders")).await;
    bob.until_it_says("orders", "NotPermitted").await;

    // Both are allowed to use it: the current owner keeps it, also while suspended.
    allow_stream(&bob, &["orders"]).await;
    bob.until_it_says("orders", "StreamAlreadyManaged").await;
    alice.apply("orders", &with("orders", &json!({"suspend": true}))).await;
    alice.visit("orders").await.expect("a reconcile");
    bob.let_pass("orders", TWO_HOURS).await;
    assert_eq!(reason(&bob.status("orders").await), "StreamAlreadyManaged");
    assert_eq!(owner(&alice, "orders").await.namespace, alice.namespace);

    // Once only the other one is allowed, it gets the stream, with the calls that were made.
    forbid(&alice, &alice.namespace).await;
    bob.until_it_says("orders", "Encrypted").await;
    alice.apply("orders", &of("orders")).await;
    alice.until_it_says("orders", "NotPermitted").await;
    assert_eq!(owner(&alice, "orders").await.uid, uid(&bob, "orders").await);
    assert_eq!(bob.status("orders").await.calls.map(|calls| calls.used), Some(1));
    assert_eq!(alice.calls(START, "orders"), 1);

    // Allowed again, the first one is no longer the owner.
    allow_stream(&alice, &["orders"]).await;
    alice.until_it_says("orders", "StreamAlreadyManaged").await;
    assert_eq!(owner(&alice, "orders").await.namespace, bob.namespace);
}

#[tokio::test]
async fn suspended_resource_cannot_claim_released_stream() {
    let alice = team().await;
    let bob = alice.beside().await;
    for harness in [&alice, &bob] {
        allow_stream(harness, &["orders"]).await;
    }
    bob.apply("orders", &of("orders")).await;
    bob.until_it_says("orders", "Encrypted").await;
    alice.apply("orders", &with("orders", &json!({"suspend": true}))).await;
    delete(&bob, "orders").await;
    poke(&alice, "orders", 1).await;
    bob.apply("orders", &of("orders")).await;
    bob.until_it_says("orders", "Encrypted").await;
    assert_eq!(owner(&alice, "orders").await.namespace, bob.namespace);
}
