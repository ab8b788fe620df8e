//! Rows 5, 7, 8 and 10: what the API server answers, or does not, to the operator's requests, each in turn.
//!
//! On a virtual clock, with the proxy between the operator's own steps and the API server.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::Service;

use super::proxy::{Asked, Meet, Proxy, When};
use super::rig::{Act, Journey, START, Scene, proxied, spec, stage, stopped};
use crate::play::{Play, reason};

/// A play whose operator reaches the API server through a proxy.
async fn stage_with_proxy() -> (Play, Proxy) {
    let mut play = stage().await;
    let proxy = proxied(&mut play).await;
    (play, proxy)
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

/// Plays a stream to encrypted with each of `meets` at each request of this kind in turn. Tells nothing: all end alike.
async fn meet_everywhere(of: fn(&Asked) -> bool, prefix: &str, meets: &[Meet]) {
    let (play, proxy) = stage_with_proxy().await;
    let scenes =
        |journey: &Journey<'_>| vec![Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }];
    let before = proxy.count(of);
    let mut reference = Journey::new(&play, Service::Firehose, &format!("{prefix}-ref"), None);
    let ends = reference.play(&scenes(&reference)).await;
    let requests = proxy.count(of) - before;
    println!("{prefix}: {requests} requests, {} answers", meets.len());
    assert!(requests >= 2, "{requests} requests");
    for number in 0..requests {
        for (at, meet) in meets.iter().enumerate() {
            let spot = format!("{prefix}: {meet:?} to request {number}");
            let mut journey =
                Journey::new(&play, Service::Firehose, &format!("{prefix}-{number}-{at}"), None);
            proxy.once(of, number, *meet);
            let ended = journey.play(&scenes(&journey)).await;
            // The event of a status that is not written does not come either, and no other takes its place.
            assert!(proxy.all_met() || number + 1 == requests, "{spot}: it never came");
            proxy.heal();
            assert_eq!(ended, ends, "{spot}");
            assert_eq!(journey.changes(), 1, "{spot}");
            assert!(journey.reserved().await <= 2, "{spot}");
        }
    }
}

#[tokio::test]
async fn whichever_write_is_refused_or_lands_unheard_the_stream_is_encrypted_with_one_start() {
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
async fn whichever_read_is_refused_the_stream_is_encrypted_with_one_start() {
    meet_everywhere(is_read, "read", &[Meet::Answer(503, When::Before), Meet::Cut(When::After)]).await;
}

#[tokio::test]
async fn whichever_write_of_a_ledger_or_a_status_is_a_conflict_all_is_decided_anew() {
    meet_everywhere(is_ledger_write, "ledger", &[Meet::Answer(409, When::Before)]).await;
    meet_everywhere(Asked::is_status, "status", &[Meet::Answer(409, When::Before)]).await;
}

#[tokio::test]
async fn a_second_writer_between_the_read_and_the_reservation_stops_the_call() {
    let (play, proxy) = stage_with_proxy().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    let key = play.plant_key();
    play.apply("orders", &spec(&journey.arn, Some(&key))).await;
    // The reservation of the re-key is held on its way while somebody else writes the same ledger.
    proxy.once(is_ledger_write, 0, Meet::Hold(When::Before));
    let resource = play.resource("orders").await.expect("the resource");
    let visit = async { journey.operator.visit_or_crash(&resource).await };
    let meddle = async {
        proxy.held(1).await;
        let name = play.ledger(&journey.arn).await.and_then(|ledger| ledger.metadata.name).expect("a ledger");
        let other = json!({"spec": {"streamCreated": "2020-01-01T00:00:00.000000Z"}}).to_string();
        play.kubectl(&["patch", "streamledger", &name, "--type=merge", "-p", &other]).await;
        proxy.release();
    };
    tokio::join!(visit, meddle);
    assert_eq!(play.calls(START, "orders"), 1, "the write was refused, so nothing is sent");
    assert_eq!(proxy.answered(is_ledger_write, 409), 1);
    journey.until("Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
}

#[tokio::test]
async fn while_the_api_server_does_not_answer_nothing_is_called_and_then_all_goes_on() {
    for (outage, meet) in [
        (SignedDuration::from_secs(30), Meet::Answer(503, When::Before)),
        (SignedDuration::from_hours(25), Meet::Cut(When::Before)),
    ] {
        let (play, proxy) = stage_with_proxy().await;
        let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
        journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
        let now = play.aws.now();
        play.aws.world().set_stream(now, &journey.arn, stopped());
        proxy.always(anything, meet);
        // A visit every 3 s of 25 hours would prove no more than some of them.
        for _ in 0..20 {
            journey.visit().await;
            play.aws.advance(outage / 20);
        }
        assert_eq!((journey.failed, journey.changes()), (20, 1), "{outage:#}");
        proxy.heal();
        journey.until("Enabling").await;
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 2, "{outage:#}");
    }
}

#[tokio::test]
async fn while_ledgers_cannot_be_written_nothing_is_called_though_all_else_works() {
    for meet in [Meet::Answer(500, When::Before), Meet::Answer(403, When::Before), Meet::Cut(When::Before)] {
        let (play, proxy) = stage_with_proxy().await;
        let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
        play.apply("orders", &spec(&journey.arn, None)).await;
        proxy.always(is_ledger_write, meet);
        journey.let_pass(SignedDuration::from_mins(2)).await;
        assert_eq!(journey.changes(), 0, "{meet:?}");
        proxy.heal();
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "{meet:?}");
    }
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_at_the_next_visit_without_a_call() {
    let (play, proxy) = stage_with_proxy().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&journey.arn, None)).await;
    proxy.always(Asked::is_status, Meet::Answer(500, When::Before));
    journey.let_pass(SignedDuration::from_mins(2)).await;
    assert!(journey.failed >= 10, "{} visits could not write it", journey.failed);
    assert_eq!(reason(&play.status("orders").await), "", "nothing is told");
    assert_eq!(journey.changes(), 1, "the ledger told what was done already");
    proxy.heal();
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 1);
}
