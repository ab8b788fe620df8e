//! Rows 5, 8 and 10: failed responses of the API server to each of the operator's requests in turn.
//!
//! On a virtual clock, with the proxy between the operator and the API server.

use serde_json::json;
use stream_encryption_core::controller::reconcile;

use super::proxy::{Asked, Meet, Proxy, When};
use super::scenario::{START, changes, encrypted, plant, proxied, stage};
use crate::harness::{Harness, firehose, spec};

/// A harness whose operator reaches the API server through a proxy.
async fn stage_with_proxy() -> (Harness, Proxy) {
    let mut harness = stage().await;
    let proxy = proxied(&mut harness).await;
    (harness, proxy)
}

fn is_ledger_write(asked: &Asked) -> bool {
    asked.is_write() && asked.is_ledger()
}

fn is_read(asked: &Asked) -> bool {
    !asked.is_write()
}

/// Encrypts a stream with a process of its own. Returns its end state, in the status, in the ledger and at AWS.
async fn encrypt(harness: &mut Harness, name: &str) -> String {
    let arn = plant(harness, name);
    harness.restart();
    harness.apply(name, &spec(&arn, None)).await;
    harness.until_it_says(name, "Encrypted").await;
    let (status, ledger) = (harness.status(name).await, harness.ledger(&arn).await.expect("the ledger").spec);
    let known = ledger.known_encryption.map(|known| known.key);
    let world = harness.aws.world();
    let stream = world.stream(&arn, harness.aws.now()).map(|at| (at.encryption, &at.active_key));
    format!("{:?} {:?}, ledger {known:?}, AWS {stream:?}", status.encryption_status, status.active_key)
}

/// Encrypts a stream with each of `meets` applied to each request of this kind in turn. All runs must end
/// alike.
async fn meet_everywhere(of: fn(&Asked) -> bool, prefix: &str, meets: &[Meet]) {
    let (mut harness, proxy) = stage_with_proxy().await;
    let before = proxy.count(of);
    let end = encrypt(&mut harness, &format!("{prefix}-ref")).await;
    let requests = proxy.count(of) - before;
    println!("{prefix}: {requests} requests, {} answers", meets.len());
    assert!(requests >= 2, "{requests} requests");
    for number in 0..requests {
        for (at, meet) in meets.iter().enumerate() {
            let spot = format!("{prefix}: {meet:?} to request {number}");
            let name = format!("{prefix}-{number}-{at}");
            proxy.once(of, number, *meet);
            assert_eq!(encrypt(&mut harness, &name).await, end, "{spot}");
            // If a status is not written, its event is not published either, and no other request takes its
            // place.
            assert!(proxy.all_met() || number + 1 == requests, "{spot}: the request was never sent");
            proxy.heal();
            assert_eq!(changes(&harness, &name), 1, "{spot}");
            assert!(harness.reserved(&firehose(&name)).await <= 2, "{spot}");
        }
    }
}

#[tokio::test]
async fn failed_or_unacknowledged_write_causes_no_second_start() {
    let meets = [
        Meet::Answer(429, When::Before),
        Meet::Answer(500, When::Before),
        Meet::Answer(503, When::Before),
        Meet::Answer(504, When::After),
        Meet::Cut(When::Before),
        Meet::Cut(When::After),
    ];
    meet_everywhere(Asked::is_write, "write", &meets).await;
}

#[tokio::test]
async fn failed_read_causes_no_second_start() {
    meet_everywhere(is_read, "read", &[Meet::Answer(503, When::Before), Meet::Cut(When::After)]).await;
}

#[tokio::test]
async fn ledger_or_status_conflict_causes_no_second_start() {
    meet_everywhere(is_ledger_write, "ledger", &[Meet::Answer(409, When::Before)]).await;
    meet_everywhere(Asked::is_status, "status", &[Meet::Answer(409, When::Before)]).await;
}

#[tokio::test]
async fn concurrent_ledger_write_prevents_the_call() {
    let (harness, proxy) = stage_with_proxy().await;
    let harness = encrypted(harness).await;
    let key = harness.plant_key();
    harness.apply("orders", &spec(&firehose("orders"), Some(&key))).await;
    // The proxy holds the reservation of the re-key while someone else writes the same ledger.
    proxy.once(is_ledger_write, 0, Meet::Hold(When::Before));
    let (operator, resource) = (harness.replica(), harness.resource("orders").await.expect("the resource"));
    let meddle = async {
        proxy.held(1).await;
        let ledger = harness.ledger(&firehose("orders")).await;
        let name = ledger.and_then(|ledger| ledger.metadata.name).expect("a ledger");
        let other = json!({"spec": {"streamCreationTime": "2020-01-01T00:00:00.000000Z"}}).to_string();
        harness.kubectl(&["patch", "streamledger", &name, "--type=merge", "-p", &other]).await;
        proxy.release();
    };
    // The reconcile may fail or be repeated; only the call that it must not send matters.
    let (_, ()) = tokio::join!(Box::pin(reconcile(&operator, &resource)), meddle);
    assert_eq!(harness.calls(START, "orders"), 1, "the reservation was refused, so no call is sent");
    assert_eq!(proxy.answered(is_ledger_write, 409), 1);
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
}
