//! T5: claims on streams, by two teams with a user each. A claim needs a permission when it is made, and as
//! long as it is held.

use jiff::SignedDuration;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_api::ledger::{Owner, StreamLedger};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::model::ledger;

use super::{allow, forbid, orders, policy, team};
use crate::harness::{Harness, firehose, manifest, reason, truth};
use crate::matrix::scenario::{START, STOP};

const TWO_HOURS: SignedDuration = SignedDuration::from_hours(2);

/// The same spec with more fields.
fn with(more: &Value) -> Value {
    let mut spec = orders();
    spec.as_object_mut().expect("a spec").extend(more.as_object().expect("fields").clone());
    spec
}

/// Lets the team of `harness` use the stream `orders`, by a policy.
async fn allow_stream(harness: &Harness) {
    allow(harness, &policy(harness, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
}

fn resources(harness: &Harness) -> Api<StreamEncryption> {
    Api::namespaced(harness.tenant.clone(), &harness.namespace)
}

/// Changes an annotation of a resource as its team's user, and reconciles it.
async fn poke(harness: &Harness, name: &str, value: usize) {
    let patch = json!({"metadata": {"annotations": {"example.com/poke": value.to_string()}}});
    let parameters = PatchParams::default();
    resources(harness).patch(name, &parameters, &Patch::Merge(&patch)).await.expect("the annotation");
    harness.visit(name).await.expect("a reconcile");
}

async fn owner(harness: &Harness) -> Owner {
    harness.ledger(&firehose("orders")).await.expect("a ledger").spec.owner
}

/// A race: one team replaces its resource, while resources of a team without a policy, which ask for the same stream
/// in every way, are changed and reconciled.
#[tokio::test]
async fn replaced_resource_keeps_its_stream_during_contention() {
    let data = team().await;
    let finance = data.beside().await;
    allow_stream(&data).await;
    data.apply("orders", &orders()).await;
    data.until_it_says("orders", "Encrypted").await;
    let spies = ["plain", "suspended", "report", "off"];
    let wishes =
        [json!({}), json!({"suspend": true}), json!({"mode": "Observe"}), json!({"encryption": "Disabled"})];
    for (spy, wish) in spies.iter().zip(&wishes) {
        finance.apply(spy, &with(wish)).await;
    }
    for round in 0..5 {
        let manifest = manifest(&data.namespace, "orders", &orders());
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
                for spy in spies {
                    value += 1;
                    poke(&finance, spy, value).await;
                }
            }
        };
        tokio::join!(replace, pokes);
        data.until_it_says("orders", "Encrypted").await;
        let resource = data.resource("orders").await.expect("the resource");
        assert_eq!(Some(owner(&data).await.uid), resource.metadata.uid);
    }
    assert_eq!((data.calls(START, "orders"), data.calls(STOP, "orders")), (1, 0));
}

#[tokio::test]
async fn lost_ledger_is_not_recreated_without_permission() {
    let data = team().await;
    allow_stream(&data).await;
    data.apply("orders", &orders()).await;
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
    allow_stream(&data).await;
    data.until_it_says("orders", "Encrypted").await;
    let ledger = data.ledger(&firehose("orders")).await.expect("a ledger");
    assert_eq!((ledger.spec.calls.len(), data.calls(START, "orders")), (1, 1));
}

#[tokio::test]
async fn claim_ends_when_its_permission_is_withdrawn() {
    let alice = team().await;
    let bob = alice.beside().await;
    allow_stream(&alice).await;
    alice.apply("orders", &orders()).await;
    alice.until_it_says("orders", "Encrypted").await;
    let by_name =
        json!({"stream": {"service": "Firehose", "name": "orders"}, "key": {"type": "AWS_OWNED_CMK"}});
    bob.apply("orders", &by_name).await;
    bob.until_it_says("orders", "NotPermitted").await;

    // Both are allowed to use it: the current owner keeps it, also while suspended.
    allow_stream(&bob).await;
    bob.until_it_says("orders", "StreamAlreadyManaged").await;
    let status = bob.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert_eq!((status.calls, status.active_key), (None, None), "no state of the owner is reported");
    alice.apply("orders", &with(&json!({"suspend": true}))).await;
    alice.visit("orders").await.expect("a reconcile");
    bob.let_pass("orders", TWO_HOURS).await;
    assert_eq!(reason(&bob.status("orders").await), "StreamAlreadyManaged");
    assert_eq!(owner(&alice).await.namespace, alice.namespace);

    // Once only the other one is allowed, it gets the stream, with the calls that were made.
    forbid(&alice, &alice.namespace).await;
    bob.until_it_says("orders", "Encrypted").await;
    alice.apply("orders", &orders()).await;
    alice.until_it_says("orders", "NotPermitted").await;
    assert_eq!(owner(&alice).await.namespace, bob.namespace);
    assert_eq!(bob.status("orders").await.calls.map(|calls| calls.used), Some(1));
    assert_eq!(alice.calls(START, "orders"), 1);

    // Allowed again, the first one is no longer the owner.
    allow_stream(&alice).await;
    alice.until_it_says("orders", "StreamAlreadyManaged").await;
    assert_eq!(owner(&alice).await.namespace, bob.namespace);

    // A suspended resource claims no stream, also one that its owner has released.
    alice.apply("orders", &with(&json!({"suspend": true}))).await;
    bob.kubectl(&["delete", "strenc", "orders"]).await;
    poke(&alice, "orders", 1).await;
    bob.apply("orders", &orders()).await;
    bob.until_it_says("orders", "Encrypted").await;
    assert_eq!(owner(&alice).await.namespace, bob.namespace);

    // Once the owner is gone, the other one gets the stream, with the calls that were made.
    bob.kubectl(&["delete", "strenc", "orders"]).await;
    alice.apply("orders", &orders()).await;
    alice.until_it_says("orders", "Encrypted").await;
    assert_eq!(alice.status("orders").await.calls.map(|calls| calls.used), Some(1));
    assert_eq!(alice.calls(START, "orders"), 1);
}
