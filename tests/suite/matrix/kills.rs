//! Rows 1 and 2 with the operator's own process: `kill -9` before and after every write to the API server and
//! every request to AWS, each in turn, followed by a restart.
//!
//! The real clock does not let a test wait 15 minutes. A process that is killed between a reservation and its
//! call ends up waiting, with no call.

use futures_util::{StreamExt as _, stream};

use super::process_env::{Site, aws};
use super::proxy::{Asked, Meet, When};
use super::scenario::namespaces;
use crate::harness::{cluster, operators_kubeconfig};
use crate::process::eventually;

/// The server whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Kubernetes,
    Aws,
}

/// Number of processes in parallel. They mostly wait.
const AT_A_TIME: usize = 8;

/// Kills the operator at the N-th request to this server, restarts it and waits for the end state.
async fn killed_at(site: Site<'_>, towards: Side, number: usize, when: When) {
    let at = format!("{when:?} request {number} to {towards:?}");
    let proxy = if towards == Side::Aws { &site.before_aws } else { &site.kubernetes };
    proxy.once(Asked::is_write, number - 1, Meet::Hold(when));
    let operator = site.start();
    site.ask_for_encryption().await;
    // The last requests to AWS occur only if the Describe requests fall at the same moments as in the
    // reference run.
    let done = async || proxy.held_so_far() > 0 || site.reason().await == "Encrypted";
    eventually(&at, done).await;
    operator.kill();
    proxy.heal();

    let _operator = site.start();
    let mut end = String::new();
    eventually(&at, async || {
        end = site.reason().await;
        end == "Encrypted" || end == "OutcomeUnknown" && site.outcomes().await == ["Pending"]
    })
    .await;
    if end == "Encrypted" {
        assert_eq!(site.starts(), 1, "{at}");
        assert_eq!(site.outcomes().await, ["Accepted"], "{at}");
    } else {
        assert_eq!(site.starts(), 0, "{at}: the operator waits for the end of the reservation");
    }
}

async fn killed_everywhere(towards: Side, prefix: &str) {
    let (cluster, aws) = (cluster().await, aws().await);
    let account = operators_kubeconfig(cluster).await;
    let name = &namespaces(cluster, &format!("{prefix}-ref"), 1).await[0];
    let reference = Site::prepare(cluster, &account, &aws, name).await;
    let operator = reference.start();
    reference.ask_for_encryption().await;
    eventually("it is encrypted", async || {
        let events = reference.kubernetes.count(|asked| asked.path.ends_with("/events"));
        // Each status has an event, except for Settling.
        let statuses = reference.kubernetes.count(Asked::is_status);
        reference.reason().await == "Encrypted" && events + 1 == statuses
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
async fn kill_around_any_write_causes_no_second_start() {
    killed_everywhere(Side::Kubernetes, "kill-write").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_around_any_aws_request_causes_no_second_start() {
    killed_everywhere(Side::Aws, "kill-call").await;
}
