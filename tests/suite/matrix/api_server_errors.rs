//! Rows 5, 7, 8 and 10: failed responses of the API server to each of the operator's requests in turn.
//!
//! On a virtual clock, with the proxy between the operator and the API server.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::Service;

use super::proxy::{Asked, Meet, Proxy, When};
use super::scenario::{Act, Run, START, Scene, proxied, spec, stage, stopped};
use crate::harness::{Harness, reason};

/// A harness whose operator reaches the API server through a proxy.
async fn stage_with_proxy() -> (Harness, Proxy) {
    let mut harness = stage().await;
    let proxy = proxied(&mut harness).await;
    (harness, proxy)
}

fn anything(_: &Asked) -> bool {
    true
}

fn is_ledger_write(asked: &Asked) -> bool {
    asked.is_write() && asked.is_ledger()
}

fn is_read(asked: &Asked) -> bool {
    !asked.is_write()
}

/// Encrypts a stream with each of `meets` applied to each request of this kind in turn. All runs must end
/// alike.
async fn meet_everywhere(of: fn(&Asked) -> bool, prefix: &str, meets: &[Meet]) {
    let (harness, proxy) = stage_with_proxy().await;
    let scenes =
        |journey: &Run<'_>| vec![Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }];
    let before = proxy.count(of);
    let mut reference = Run::new(&harness, Service::Firehose, &format!("{prefix}-ref"), None);
    let ends = reference.harness(&scenes(&reference)).await;
    let requests = proxy.count(of) - before;
    println!("{prefix}: {requests} requests, {} answers", meets.len());
    assert!(requests >= 2, "{requests} requests");
    for number in 0..requests {
        for (at, meet) in meets.iter().enumerate() {
            let spot = format!("{prefix}: {meet:?} to request {number}");
            let mut journey = Run::new(&harness, Service::Firehose, &format!("{prefix}-{number}-{at}"), None);
            proxy.once(of, number, *meet);
            let ended = journey.harness(&scenes(&journey)).await;
            // If a status is not written, its event is not published either, and no other request takes its
            // place.
            assert!(proxy.all_met() || number + 1 == requests, "{spot}: the request was never sent");
            proxy.heal();
            assert_eq!(ended, ends, "{spot}");
            assert_eq!(journey.changes(), 1, "{spot}");
            assert!(journey.reserved().await <= 2, "{spot}");
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
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let key = harness.plant_key();
    harness.apply("orders", &spec(&journey.arn, Some(&key))).await;
    // The proxy holds the reservation of the re-key while someone else writes the same ledger.
    proxy.once(is_ledger_write, 0, Meet::Hold(When::Before));
    let resource = harness.resource("orders").await.expect("the resource");
    let visit = async { journey.operator.visit_or_crash(&resource).await };
    let meddle = async {
        proxy.held(1).await;
        let name =
            harness.ledger(&journey.arn).await.and_then(|ledger| ledger.metadata.name).expect("a ledger");
        let other = json!({"spec": {"streamCreationTime": "2020-01-01T00:00:00.000000Z"}}).to_string();
        harness.kubectl(&["patch", "streamledger", &name, "--type=merge", "-p", &other]).await;
        proxy.release();
    };
    tokio::join!(visit, meddle);
    assert_eq!(harness.calls(START, "orders"), 1, "the reservation was refused, so no call is sent");
    assert_eq!(proxy.answered(is_ledger_write, 409), 1);
    journey.until("Encrypted").await;
    assert_eq!(harness.calls(START, "orders"), 2);
}

#[tokio::test]
async fn api_server_outage_blocks_calls_until_it_ends() {
    for (outage, meet) in [
        (SignedDuration::from_secs(30), Meet::Answer(503, When::Before)),
        (SignedDuration::from_hours(25), Meet::Cut(When::Before)),
    ] {
        let (harness, proxy) = stage_with_proxy().await;
        let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
        journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
        let now = harness.aws.now();
        harness.aws.world().set_stream(now, &journey.arn, stopped());
        proxy.always(anything, meet);
        // A reconcile every 3 s for 25 hours would prove no more than these twenty.
        for _ in 0..20 {
            journey.visit().await;
            harness.aws.advance(outage / 20);
        }
        assert_eq!((journey.failed, journey.changes()), (20, 1), "{outage:#}");
        proxy.heal();
        journey.until("Enabling").await;
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 2, "{outage:#}");
    }
}

#[tokio::test]
async fn calls_are_blocked_while_ledgers_cannot_be_written() {
    for meet in [Meet::Answer(500, When::Before), Meet::Answer(403, When::Before), Meet::Cut(When::Before)] {
        let (harness, proxy) = stage_with_proxy().await;
        let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
        harness.apply("orders", &spec(&journey.arn, None)).await;
        proxy.always(is_ledger_write, meet);
        journey.let_pass(SignedDuration::from_mins(2)).await;
        assert_eq!(journey.changes(), 0, "{meet:?}");
        proxy.heal();
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "{meet:?}");
    }
}

#[tokio::test]
async fn failed_status_write_is_repeated_without_a_call() {
    let (harness, proxy) = stage_with_proxy().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&journey.arn, None)).await;
    proxy.always(Asked::is_status, Meet::Answer(500, When::Before));
    journey.let_pass(SignedDuration::from_mins(2)).await;
    assert!(journey.failed >= 10, "{} reconciles could not write the status", journey.failed);
    assert_eq!(reason(&harness.status("orders").await), "", "no status is written");
    assert_eq!(journey.changes(), 1, "the ledger prevents a second call");
    proxy.heal();
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 1);
}
