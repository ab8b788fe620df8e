//! Rows 1 and 2 with the operator's own process: kill -9 before and after every write that the API server gets from it, and
//! every request that AWS gets, each in turn; then it is started anew.
//!
//! On the real clock nobody waits for 15 minutes: killed between a reservation and its call, it ends in waiting, with no call.

use futures_util::{StreamExt as _, stream};

use super::proxy::{Asked, Meet, When};
use super::rig::namespaces;
use super::site::{Site, aws};
use crate::play::{cluster, operators_kubeconfig};
use crate::process::eventually;

/// Which side the kill is to be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Kubernetes,
    Aws,
}

/// At a time; each is an operator's process, and mostly waits.
const AT_A_TIME: usize = 8;

/// Kills the operator at the N-th request on this side, starts it anew and waits for the end.
async fn killed_at(site: Site<'_>, towards: Side, number: usize, when: When) {
    let at = format!("{when:?} request {number} to {towards:?}");
    let proxy = if towards == Side::Aws { &site.before_aws } else { &site.kubernetes };
    proxy.once(Asked::is_write, number - 1, Meet::Hold(when));
    let operator = site.start();
    site.ask_for_encryption().await;
    // The last requests of AWS's side come only if the looks fall as they fell in the reference.
    let done = async || proxy.held_so_far() > 0 || site.reason().await == "Encrypted";
    eventually(&at, 60, done).await;
    operator.kill();
    proxy.heal();

    let _operator = site.start();
    let mut end = String::new();
    eventually(&at, 60, async || {
        end = site.reason().await;
        end == "Encrypted" || end == "OutcomeUnknown" && site.outcomes().await == ["Pending"]
    })
    .await;
    if end == "Encrypted" {
        assert_eq!(site.starts(), 1, "{at}");
        assert_eq!(site.outcomes().await, ["Accepted"], "{at}");
    } else {
        assert_eq!(site.starts(), 0, "{at}: a reservation without a call is waited for");
    }
}

async fn killed_everywhere(towards: Side, prefix: &str) {
    let (cluster, aws) = (cluster().await, aws().await);
    let account = operators_kubeconfig(cluster).await;
    let name = &namespaces(cluster, &format!("{prefix}-ref"), 1).await[0];
    let reference = Site::prepare(cluster, &account, &aws, name).await;
    let operator = reference.start();
    reference.ask_for_encryption().await;
    eventually("it is encrypted", 60, async || {
        let events = reference.kubernetes.count(|asked| asked.path.ends_with("/events"));
        reference.reason().await == "Encrypted" && events == reference.kubernetes.count(Asked::is_status)
    })
    .await;
    operator.kill();
    assert_eq!(reference.starts(), 1);
    let count = match towards {
        Side::Kubernetes => reference.kubernetes.count(Asked::is_write),
        Side::Aws => reference.before_aws.count(Asked::is_write),
    };
    println!("{towards:?}: {count} requests in the reference");
    assert!(count >= 4, "{count} requests");

    let spots = (1..=count).flat_map(|number| [(number, When::Before), (number, When::After)]);
    let runs: Vec<_> = spots.zip(namespaces(cluster, prefix, 2 * count).await).collect();
    stream::iter(runs)
        .for_each_concurrent(AT_A_TIME, async |((number, when), name)| {
            let site = Site::prepare(cluster, &account, &aws, &name).await;
            killed_at(site, towards, number, when).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_every_write_the_process_ends_with_one_start_or_waits_without_any() {
    killed_everywhere(Side::Kubernetes, "kill-write").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_every_request_to_aws_the_process_ends_with_one_start_or_waits_without_any() {
    killed_everywhere(Side::Aws, "kill-call").await;
}
