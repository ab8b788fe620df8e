//! Rows 3, 4 and 6: the operator's cache is stale or misses a change, or its watch cannot be resumed.
//!
//! The operator is a process, and the proxy is on its watch.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use simulated_aws::world::PlantedKey;

use super::process_env::{Site, aws};
use super::proxy::{Asked, Meet, When};
use super::scenario::{DESCRIBE, namespaces};
use crate::harness::{LEDGERS, cluster, operators_kubeconfig, spec};
use crate::process::{OperatorProcess, eventually, within};

/// Returns whether a request reads the resource as it is now, as the operator does immediately before a call.
fn is_live_read(asked: &Asked) -> bool {
    !asked.is_write() && !asked.is_watch() && asked.path.contains("/streamencryptions/")
}

pub(super) fn is_list(asked: &Asked) -> bool {
    !asked.is_write() && !asked.is_watch() && asked.path.ends_with("/streamencryptions")
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_watch_causes_no_call_against_live_spec() {
    let site = Site::fresh("frozen").await;
    let _operator = site.start();
    site.ask_for_encryption().await;
    site.until_it_says("Encrypted").await;

    site.kubernetes.freeze(true);
    let mut hands_off = spec(&site.arn(), None);
    hands_off["mode"] = json!("Observe");
    site.apply(&hands_off).await;
    site.turned_off_by_another();
    let (reads, looks) = (site.kubernetes.count(is_live_read), site.calls(DESCRIBE));
    eventually("the operator reconciles and describes", async || {
        site.kubernetes.count(is_live_read) > reads && site.calls(DESCRIBE) > looks
    })
    .await;
    assert_eq!(site.starts(), 1, "the cache has mode Enforce, the live resource has mode Observe");

    site.kubernetes.freeze(false);
    site.until_it_says("Drifted").await;
    let correct = json!({"stream": {"arn": site.arn()}, "mode": "Enforce"});
    site.apply(&correct).await;
    site.until_it_says("Encrypted").await;
    assert_eq!(site.starts(), 2);
}

/// Events of the watch of resources in the run below, until the second key is requested: the resource and three statuses
/// (`Enabling`, `Settling`, `Encrypted`), then the new spec and three statuses.
const LINES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn change_is_found_if_its_watch_event_is_lost() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let aws = aws().await;
    let keys = [(); 2].map(|()| aws.world().plant_key(PlantedKey::default()));
    let names = namespaces(cluster, "lost-line", LINES).await;
    stream::iter(names.into_iter().enumerate())
        .for_each_concurrent(LINES, async |(number, name)| {
            let site = Site::prepare(cluster, &account, &aws, &name).await;
            site.kubernetes.lose_line(number);
            let _operator = site.start();
            // The list does not deliver a resource that is created after it.
            eventually("the operator watches", async || site.kubernetes.count(is_our_watch) > 0).await;
            site.ask_for_encryption().await;
            if number == 0 {
                eventually("the event is dropped", async || site.kubernetes.has_lost_it()).await;
                // The operator cannot know of a resource whose first event was lost until its watch ends,
                // after at most 75 s, and resumes from the last version that it received. No bookmark has arrived yet.
                site.kubernetes.cut_watches();
            }
            site.until_it_says("Encrypted").await;
            // On a slow machine, the regular list may deliver one of the events in place of the watch. The second key leads to
            // further ones.
            for (earlier, key) in (1..).zip(&keys) {
                site.apply(&spec(&site.arn(), Some(key))).await;
                site.until_it_says("Encrypted").await;
                assert_eq!(site.starts(), earlier + 1, "event {number}");
            }
            assert!(site.kubernetes.has_lost_it(), "the watch had no event {number}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_watch_is_noticed_before_it_lists_again() {
    let site = Site::fresh("hung").await;
    let key = site.aws.world().plant_key(PlantedKey::default());
    let url = site.before_aws.url();
    // The watches list everything again after six minutes.
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("POD_NAMESPACE", LEDGERS), ("DRIFT_INTERVAL_SECONDS", "60")];
    let _operator = OperatorProcess::start(site.kubernetes.kubeconfig(), &site.name, &environment);
    site.ask_for_encryption().await;
    site.until_it_says("Encrypted").await;

    // The watch ends as usual, and the request that begins it anew gets no answer.
    site.kubernetes.always(is_our_watch, Meet::Hold(When::Before));
    site.kubernetes.cut_watches();
    site.kubernetes.held(1).await;
    site.apply(&spec(&site.arn(), Some(&key))).await;
    within("the change is found", Duration::from_secs(200), async || site.starts() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_works_if_one_watch_is_forbidden() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let aws = aws().await;
    let key = aws.world().plant_key(PlantedKey::default());
    // The role of an earlier version does not allow to watch ledgers.
    let watches: [fn(&Asked) -> bool; 3] = [
        |asked| asked.is_watch() && asked.path.ends_with("/streamledgers"),
        |asked| asked.is_watch() && asked.path.ends_with("/streamencryptionpolicies"),
        |asked| asked.is_watch() && asked.path.ends_with("/namespaces"),
    ];
    let names = namespaces(cluster, "forbidden-watch", watches.len()).await;
    stream::iter(names.into_iter().zip(watches))
        .for_each_concurrent(None, async |(name, watch)| {
            let site = Site::prepare(cluster, &account, &aws, &name).await;
            site.kubernetes.always(watch, Meet::Answer(403, When::Before));
            let _operator = site.start();
            site.ask_for_encryption().await;
            site.until_it_says("Encrypted").await;
            site.apply(&spec(&site.arn(), Some(&key))).await;
            site.until_it_says("Encrypted").await;
            assert_eq!(site.starts(), 2, "{name}");
            assert!(site.kubernetes.answered(watch, 403) > 0, "{name}: it was forbidden");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_watch_is_relisted_without_a_second_call() {
    let site = Site::fresh("gone").await;
    let key = site.aws.world().plant_key(PlantedKey::default());
    let _operator = site.start();
    site.ask_for_encryption().await;
    site.until_it_says("Encrypted").await;

    let lists = site.kubernetes.count(is_list);
    site.kubernetes.once(is_our_watch, 0, Meet::Answer(410, When::Before));
    site.kubernetes.cut_watches();
    eventually("the operator lists again", async || {
        site.kubernetes.said_gone() == 1 && site.kubernetes.count(is_list) > lists
    })
    .await;
    let rekeyed: Value = spec(&site.arn(), Some(&key));
    site.apply(&rekeyed).await;
    site.until_it_says("Encrypted").await;
    assert_eq!(site.starts(), 2);
}

fn is_our_watch(asked: &Asked) -> bool {
    asked.is_watch() && asked.path.ends_with("/streamencryptions")
}
