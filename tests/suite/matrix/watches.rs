//! Rows 3, 4 and 6: what the operator's cache holds is old, lacks a change, or cannot be gone on with.
//!
//! The operator is a process, and the proxy sits on its watch.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use simulated_aws::world::{PlantedKey, Service};

use super::proxy::{Asked, Meet, When};
use super::rig::{Act, DESCRIBE, Journey, START, Scene, namespaces, spec, stage, stopped};
use super::site::{Site, aws};
use crate::play::{cluster, operators_kubeconfig};
use crate::process::eventually;

/// A read of the resource as it is now, which each visit begins with.
fn is_live_read(asked: &Asked) -> bool {
    !asked.is_write() && !asked.is_watch() && asked.path.contains("/streamencryptions/")
}

fn is_list(asked: &Asked) -> bool {
    !asked.is_write() && !asked.is_watch() && asked.path.ends_with("/streamencryptions")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_watch_is_frozen_the_operator_calls_nothing_that_the_live_spec_does_not_ask_for() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let name = &namespaces(cluster, "frozen", 1).await[0];
    let site = Site::prepare(cluster, &account, &aws().await, name).await;
    let _operator = site.start();
    site.ask_for_encryption().await;
    site.until_it_says("Encrypted", 40).await;

    site.kubernetes.freeze(true);
    let mut hands_off = spec(&site.arn(), None);
    hands_off["drift"] = json!("Report");
    site.apply(&hands_off).await;
    site.turned_off_by_another();
    let (reads, looks) = (site.kubernetes.count(is_live_read), site.calls(DESCRIBE));
    eventually("it visits, and looks", 40, async || {
        site.kubernetes.count(is_live_read) > reads && site.calls(DESCRIBE) > looks
    })
    .await;
    assert_eq!(site.starts(), 1, "the cache says Correct, the live resource says Report");

    site.kubernetes.freeze(false);
    site.until_it_says("Drifted", 20).await;
    let correct = json!({"stream": {"arn": site.arn()}, "drift": "Correct"});
    site.apply(&correct).await;
    site.until_it_says("Encrypted", 40).await;
    assert_eq!(site.starts(), 2);
}

#[tokio::test]
async fn a_visit_with_an_old_copy_of_the_resource_sends_nothing() {
    let play = stage().await;
    let (old, new) = (play.plant_key(), play.plant_key());
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    let first = spec(&journey.arn, Some(&old));
    journey.play(&[Scene { act: Act::Apply(first.clone()), end: "Encrypted" }]).await;
    let copy = play.resource("orders").await.expect("the resource");
    let second = spec(&journey.arn, Some(&new));
    journey.play(&[Scene { act: Act::Apply(second), end: "Encrypted" }]).await;
    // As a replica would whose API server lags hours behind: in it the old key is asked for, and another one is in force.
    for _ in 0..5 {
        Box::pin(stream_encryption_operator::controller::reconcile(&play.replica(), &copy))
            .await
            .expect("Kubernetes can be asked");
    }
    assert_eq!(play.calls(START, "orders"), 2);

    // And as one that has not seen that its resource was deleted, and made again to be left alone.
    play.kubectl(&["delete", "strenc", "orders"]).await;
    let mut left_alone = first;
    left_alone["suspend"] = json!(true);
    play.apply("orders", &left_alone).await;
    let now = play.aws.now();
    play.aws.world().set_stream(now, &journey.arn, stopped());
    for _ in 0..5 {
        // A ledger of a resource that is gone may be refused, too: what counts is that nothing is sent.
        let _ = Box::pin(stream_encryption_operator::controller::reconcile(&play.replica(), &copy)).await;
    }
    assert_eq!(play.calls(START, "orders"), 2);
}

/// Lines of the watch in the journey below: the resource and three statuses, the new spec and three statuses more.
const LINES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn whichever_line_of_the_watch_is_lost_what_it_told_is_found() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let aws = aws().await;
    let key = aws.world().plant_key(PlantedKey::default());
    let names = namespaces(cluster, "lost-line", LINES).await;
    stream::iter(names.into_iter().enumerate())
        .for_each_concurrent(LINES, async |(number, name)| {
            let site = Site::prepare(cluster, &account, &aws, &name).await;
            site.kubernetes.lose_line(number);
            let _operator = site.start();
            eventually("it watches", 40, async || site.kubernetes.count(Asked::is_watch) > 0).await;
            site.ask_for_encryption().await;
            if number == 0 {
                eventually("the line is lost", 20, async || site.kubernetes.has_lost_it()).await;
                // Of a resource that it has never heard of it can know nothing until its watch ends, after at most
                // 290 s, and goes on from the last line that it got.
                site.kubernetes.cut_watches();
            }
            site.until_it_says("Encrypted", 60).await;
            site.apply(&spec(&site.arn(), Some(&key))).await;
            site.until_it_says("Encrypted", 60).await;
            assert!(site.kubernetes.has_lost_it(), "there were not {number} lines");
            assert_eq!(site.starts(), 2, "line {number}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_cannot_go_on_is_begun_anew_and_nothing_is_called_twice() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let name = &namespaces(cluster, "gone", 1).await[0];
    let aws = aws().await;
    let key = aws.world().plant_key(PlantedKey::default());
    let site = Site::prepare(cluster, &account, &aws, name).await;
    let _operator = site.start();
    site.ask_for_encryption().await;
    site.until_it_says("Encrypted", 40).await;

    let lists = site.kubernetes.count(is_list);
    site.kubernetes.once(is_our_watch, 0, Meet::Answer(410, When::Before));
    site.kubernetes.cut_watches();
    eventually("it lists anew", 20, async || {
        site.kubernetes.said_gone() == 1 && site.kubernetes.count(is_list) > lists
    })
    .await;
    let rekeyed: Value = spec(&site.arn(), Some(&key));
    site.apply(&rekeyed).await;
    site.until_it_says("Encrypted", 40).await;
    assert_eq!(site.starts(), 2);
}

fn is_our_watch(asked: &Asked) -> bool {
    asked.is_watch() && asked.path.ends_with("/streamencryptions")
}
