//! How large fleets use AWS's limits. The figures do not depend on the machine: the clock is paused, and advances only
//! when every task waits.

use std::time::Duration;

use fleet::run::{Fleet, Run};
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::request_limits::RequestLimits;

const SECOND: Duration = Duration::from_secs(1);

/// Runs a fleet until all resources are Ready, and returns the times.
async fn ready(fleet: &Fleet) -> (Vec<Duration>, Run) {
    let run = Run::start(fleet);
    let ready = run.wait_for_ready(fleet.streams()).await;
    (ready, run)
}

#[tokio::test(start_paused = true)]
async fn plaintext_fleet_is_ready_within_1_05_of_the_floor() {
    let fleet = Fleet::of(500);
    let (ready, run) = ready(&fleet).await;
    let (all, median) = (ready[499], ready[250]);
    assert!(all < fleet.floor().mul_f64(1.05), "{all:?}, floor {:?}", fleet.floor());
    assert!(median < all.mul_f64(0.6), "the median is Ready after {median:?} of {all:?}");
    let requests = run.operator.aws.requests();
    assert_eq!((requests.starts, requests.throttled), (500, 0));
    assert!(requests.describes <= 1050, "{requests:?}");
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn encrypted_fleet_is_ready_within_1_05_of_the_floor() {
    let fleet = Fleet { service: Service::Kinesis, encrypted: true, ..Fleet::of(10_000) };
    let (ready, run) = ready(&fleet).await;
    let all = ready[9999];
    assert!(all < fleet.floor().mul_f64(1.05), "{all:?}, floor {:?}", fleet.floor());
    let requests = run.operator.aws.requests();
    assert_eq!((requests.describes, requests.starts, requests.throttled), (10_000, 0, 0));
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn raised_limits_make_500_streams_ready_within_10_s() {
    let limits = RequestLimits::same(10_000);
    let fleet = Fleet { limits, change: Duration::ZERO, ..Fleet::of(500) };
    let (ready, run) = ready(&fleet).await;
    assert!(ready[499] < SECOND * 10, "{:?}", ready[499]);
    let requests = run.operator.aws.requests();
    assert_eq!((requests.describes, requests.starts, requests.throttled), (1000, 500, 0));
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn accounts_and_regions_do_not_slow_each_other() {
    let namespaces = (0..5).map(|team| (format!("team-{team}"), 800)).collect();
    let fleet = Fleet { namespaces, accounts: 5, regions: 4, concurrency: 160, ..Fleet::of(0) };
    let (ready, run) = ready(&fleet).await;
    let all = ready[3999];
    assert!(all < fleet.floor().mul_f64(1.1), "{all:?}, floor {:?}", fleet.floor());
    assert_eq!(run.operator.aws.requests().throttled, 0);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn new_stream_starts_within_2s_among_10000_drift_checks() {
    let drift_interval = Duration::from_mins(10);
    let namespaces = vec![("data".to_owned(), 10_000), ("web".to_owned(), 0)];
    let fleet = Fleet { namespaces, encrypted: true, drift_interval, ..Fleet::of(0) };
    let (_, run) = ready(&fleet).await;
    // All of them are due then.
    tokio::time::sleep(drift_interval * 2).await;
    for number in 0..20 {
        tokio::time::sleep(Duration::from_millis(7_310)).await;
        let (created, stream) = (tokio::time::Instant::now(), fleet.stream(1, number));
        run.create("web", stream.clone(), false);
        tokio::time::sleep(SECOND * 2).await;
        let started = run.operator.aws.started(&stream).expect("a Start within two seconds");
        assert!(started - created < SECOND * 2, "{:?}", started - created);
    }
    assert_eq!(run.operator.aws.requests().throttled, 0);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn namespaces_of_9900_and_100_streams_take_turns() {
    let namespaces = vec![("large".to_owned(), 9_900), ("small".to_owned(), 100)];
    let fleet = Fleet { namespaces, ..Fleet::of(0) };
    let run = Run::start(&fleet);
    run.wait_for_ready(fleet.streams()).await;
    let ready = run.operator.kube.ready();
    let last_small = ready.iter().rposition(|ready| ready.namespace == "small").expect("Ready");
    // Each namespace had half of the turns until then.
    assert!(last_small < 250, "{last_small} resources were Ready before the last one of `small`");
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn slow_changes_are_described_when_most_are_complete() {
    let fleet = Fleet { change: Duration::from_secs(45), ..Fleet::of(1000) };
    let (ready, run) = ready(&fleet).await;
    let all = ready[999];
    assert!(all < fleet.floor().mul_f64(1.2), "{all:?}, floor {:?}", fleet.floor());
    let requests = run.operator.aws.requests();
    assert!(requests.describes < 2400, "{requests:?}");
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn each_stream_at_rest_with_events_is_described_once_an_hour() {
    let hour = Duration::from_hours(1);
    let fleet = Fleet {
        service: Service::Kinesis,
        encrypted: true,
        drift_interval: Duration::from_mins(10),
        drift_interval_with_events: Some(hour),
        ..Fleet::of(5000)
    };
    let (_, run) = ready(&fleet).await;
    let rest = async |minutes: u32, heartbeats: bool| {
        for _ in 0..minutes / 5 {
            if heartbeats {
                run.receive_heartbeat(&fleet.stream(0, 0));
            }
            tokio::time::sleep(Duration::from_mins(5)).await;
            run.find_silent();
        }
    };
    // The checks by the shorter interval spread over the longer one.
    rest(180, true).await;
    let counts = || (run.operator.aws.requests().describes, run.operator.kube.requests());
    let before = counts();
    rest(60, true).await;
    let after = counts();
    let describes = after.0 - before.0;
    // One for each stream, and less than 8 % more.
    assert!(describes < 5400, "{describes} in an hour");
    // The statuses are not written: the time of the Describe is updated once a day.
    let requests = after.1 - before.1;
    assert!(requests <= 100, "{requests} requests to the API server");
    // Without heartbeats for 15 minutes the checks come by the shorter interval again, eight a second at most.
    rest(30, false).await;
    let describes = counts().0 - after.0;
    assert!(describes > 6 * 15 * 60, "{describes} in half an hour of silence");
    run.end().await;
}
