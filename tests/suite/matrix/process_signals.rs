//! Rows 11 and 23 with the operator's own process: paused and resumed, ended while a call is in flight, and
//! with a log that is not read.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use simulated_aws::world::{Fault, Rule};

use super::process_env::{Site, aws};
use super::proxy::{Asked, Meet, When};
use super::scenario::{DESCRIBE, START, namespaces};
use crate::harness::{cluster, operators_kubeconfig};
use crate::process::eventually;

fn is_ledger_write(asked: &Asked) -> bool {
    asked.is_write() && asked.is_ledger()
}

/// Waits this long. A process that does nothing offers nothing to wait for.
async fn time_passes(time: Duration) {
    let end = Instant::now() + time;
    eventually("time passes", async || Instant::now() >= end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_paused_after_reservation_does_not_send_call() {
    let site = Site::fresh("stopped").await;
    site.kubernetes.once(is_ledger_write, 0, Meet::Hold(When::After));
    let first = site.start();
    site.ask_for_encryption().await;
    site.kubernetes.held(1).await;
    first.signal("-STOP");
    eventually("all of its threads are stopped", async || first.is_stopped()).await;
    site.kubernetes.release();

    // A second replica sees the reservation, and that its call may still arrive.
    let second = site.start();
    site.until_it_says("OutcomeUnknown").await;
    // The Describe before the reservation is valid for 20 s.
    time_passes(Duration::from_secs(20)).await;
    assert_eq!(site.outcomes().await, ["Pending"]);
    second.kill();
    let looks = site.calls(DESCRIBE);
    first.signal("-CONT");
    // The process finds the acknowledgement too old and drops its call. If the write of the reservation timed
    // out while it was paused, it does not know whether it holds a reservation, and describes the stream.
    eventually("the process continues", async || {
        let first = site.outcomes().await.into_iter().next();
        first.is_some_and(|first| first == "Refused OperatorPaused") || site.calls(DESCRIBE) > looks
    })
    .await;
    // The wait after the dropped call may already be over. A Start is then a call with an entry of its own.
    let starts = site.starts();
    let outcomes = site.outcomes().await;
    assert!(starts < outcomes.len(), "{starts} Starts, but the ledger has {outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_start_records_the_outcome_first() {
    let site = Site::fresh("ended").await;
    site.aws.world().script(Rule::once(Fault::Hold).on(START));
    let mut operator = site.start();
    site.ask_for_encryption().await;
    eventually("Start is sent", async || site.starts() == 1).await;
    operator.signal("-TERM");
    time_passes(Duration::from_secs(1)).await;
    assert!(operator.ended().is_none(), "a call is in flight");
    site.aws.release_held();
    eventually("it ends", async || operator.ended().is_some()).await;
    assert!(operator.ended().is_some_and(|status| status.success()));
    assert_eq!(site.outcomes().await, ["Accepted"]);

    let _operator = site.start();
    site.until_it_says("Encrypted").await;
    assert_eq!(site.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_before_first_list_ends_the_process() {
    let site = Site::fresh("unlisted").await;
    site.kubernetes.always(|asked| asked.path.ends_with("/streamencryptions"), Meet::Hold(When::Before));
    let mut operator = site.start();
    site.kubernetes.held(1).await;
    operator.signal("-TERM");
    eventually("it ends", async || operator.ended().is_some()).await;
    assert!(operator.ended().is_some_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_or_full_log_does_not_stop_the_operator() {
    let cluster = cluster().await;
    let account = operators_kubeconfig(cluster).await;
    let names = namespaces(cluster, "log", 2).await;
    let aws = aws().await;
    let gone = Site::prepare(cluster, &account, &aws, &names[0]).await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let _one = gone.start_logging_to(writer);
    gone.ask_for_encryption().await;

    let full = Site::prepare(cluster, &account, &aws, &names[1]).await;
    let device = std::fs::File::options().write(true).open("/dev/full");
    let other = device.ok().map(|device| full.start_logging_to(device));
    full.ask_for_encryption().await;

    gone.until_it_says("Encrypted").await;
    assert_eq!(gone.starts(), 1);
    // Only Linux has a device that is always full.
    if other.is_some() {
        full.until_it_says("Encrypted").await;
        assert_eq!(full.starts(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_log_blocks_without_repeating_a_call() {
    let site = Site::fresh("unread").await;
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    // A pipe holds 64 kB, so there is little room for the operator's first lines.
    writer.write_all(&vec![b'\n'; 65_000]).expect("there is room");
    let _operator = site.start_logging_to(writer);
    site.ask_for_encryption().await;
    time_passes(Duration::from_secs(3)).await;
    println!("Describe requests while the log is not read: {}", site.calls(DESCRIBE));
    assert!(site.starts() <= 1);
    std::thread::spawn(move || {
        let mut taken = [0; 4096];
        while reader.read(&mut taken).is_ok_and(|count| count > 0) {}
    });
    site.until_it_says("Encrypted").await;
    assert_eq!(site.starts(), 1);
    assert_eq!(site.outcomes().await, ["Accepted"]);
}
