//! Rows 11 and 12: the operator is paused for a minute or for 25 hours while a second replica continues, and
//! clocks jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Call, Service};
use stream_encryption_core::controller::Clock;

use super::crash_injection::{CrashPoint, FusedOperator};
use super::proxy::When;
use super::scenario::{Act, DAY, Injected, Run, Scene, spec, stage, stopped};
use crate::harness::{Harness, reason};

/// AWS's limit of calls in 24 hours.
const LIMIT: usize = 25;

/// Pauses a reconcile of one replica at a crash point, while the other replica encrypts the stream and time
/// passes. Returns whether the crash point exists.
async fn pauses_at(harness: &Harness, number: usize, when: When, pause: SignedDuration) -> bool {
    let name = format!("still-{}-{number}-{when:?}", pause.as_secs()).to_lowercase();
    let spot = format!("{when:?} number {number}, for {pause:#}");
    let mut other = Run::new(harness, Service::Firehose, &name, None);
    harness.apply(&name, &spec(&other.arn, None)).await;
    let paused = FusedOperator::new(harness.replica(), Some((number, when)));
    let resource = harness.resource(&name).await.expect("the resource");
    let mut came_by = false;
    let meanwhile = async || {
        came_by = true;
        other.until("Encrypted").await;
        harness.aws.advance(pause);
        // The observation of the paused reconcile is this old. Someone changes the stream back to the state
        // observed then.
        let now = harness.aws.now();
        harness.aws.world().set_stream(now, &other.arn, stopped());
    };
    // The reconcile may fail or be dropped; only the calls that it sends matter.
    let _ = paused.visit_with_a_pause(&resource, meanwhile).await;
    if !came_by {
        return false;
    }
    let (by_both, reserved) = (other.changes(), other.reserved().await);
    assert!(by_both <= 1 + usize::from(paused.passed().contains(&"start")), "{spot}: {by_both} calls");
    // After a day the ledger no longer keeps the earlier calls.
    assert!(by_both <= reserved || pause > DAY, "{spot}: {by_both} calls, {reserved} reservations");
    harness.aws.advance(SignedDuration::from_mins(11));
    other.operator = FusedOperator::new(harness.replica(), None);
    other.until("Encrypted").await;
    assert!(other.busiest_day() <= 3, "{spot}: {} calls in a day", other.busiest_day());
    true
}

#[tokio::test]
async fn paused_replica_makes_no_excess_call() {
    let harness = stage().await;
    for pause in [SignedDuration::from_mins(1), SignedDuration::from_hours(25)] {
        let mut spots = 0;
        for when in [When::Before, When::After] {
            for number in 1.. {
                if !pauses_at(&harness, number, when, pause).await {
                    break;
                }
                spots += 1;
            }
        }
        // Identity, Describe, reservation, Start, outcome, status, event.
        assert!(spots >= 14, "{spots} spots");
    }
}

#[tokio::test]
async fn outdated_reservation_is_not_used() {
    let harness = stage().await;
    for (pause, starts) in [(5, 1), (60, 0), (25 * 3600, 0)] {
        let name = format!("late-{pause}");
        let mut journey = Run::new(&harness, Service::Firehose, &name, None);
        harness.apply(&name, &spec(&journey.arn, None)).await;
        // Identity, Describe, and as the third the creation of the ledger.
        let paused = FusedOperator::new(harness.replica(), Some((3, When::After)));
        let resource = harness.resource(&name).await.expect("the resource");
        let time = async || harness.aws.advance(SignedDuration::from_secs(pause));
        paused.visit_with_a_pause(&resource, time).await.expect("Kubernetes answers");
        assert_eq!(paused.passed()[2], "create ledger");
        assert_eq!(journey.changes(), starts, "after {pause} s");
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "after {pause} s");
    }
}

/// An operator whose wall clock is wrong by this many seconds, and whose monotonic clock is right. The wall
/// clock dates its requests.
fn with_clock(harness: &Harness, wrong_by: &Arc<AtomicI64>) -> Injected {
    with_clock_and_fuse(harness, wrong_by, None)
}

fn with_clock_and_fuse(harness: &Harness, wrong_by: &Arc<AtomicI64>, spot: Option<CrashPoint>) -> Injected {
    let (wall, steady, wrong_by) = (harness.aws.clone(), harness.aws.clone(), Arc::clone(wrong_by));
    let clock = Clock::new(
        move || wall.now() + SignedDuration::from_secs(wrong_by.load(Ordering::Relaxed)),
        move || steady.now().as_duration().unsigned_abs(),
    );
    FusedOperator::new(harness.replica_with_clock(clock), spot)
}

/// Number of calls that AWS has counted in the last 24 hours of its clock. Requests refused for their date do
/// not count.
fn counted_by_aws(harness: &Harness, name: &str) -> usize {
    let now = harness.aws.now();
    let world = harness.aws.world();
    let counts = |call: &&Call| call.counted && call.target == name && now.duration_since(call.time) < DAY;
    world.calls().iter().filter(counts).count()
}

/// Changes the key every half hour for 30 hours, while the operator's clock is wrong by `wrong_by` seconds
/// from change `from` to change `to`. Returns the number of calls in the busiest 24 hours of AWS's clock, and
/// in total.
async fn many_changes_with_a_wrong_clock(wrong_by: i64, from: usize, to: usize) -> (usize, usize) {
    let mut harness = stage().await;
    harness.config.drift_interval = SignedDuration::from_mins(30);
    let keys = [harness.plant_key(), harness.plant_key()];
    let wrong = Arc::new(AtomicI64::new(0));
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.operator = with_clock(&harness, &wrong);
    for turn in 0..60 {
        let is_wrong = (from..to).contains(&turn);
        wrong.store(if is_wrong { wrong_by } else { 0 }, Ordering::Relaxed);
        harness.apply("orders", &spec(&journey.arn, Some(&keys[turn % 2]))).await;
        let before = journey.changes();
        journey.let_pass(SignedDuration::from_mins(30)).await;
        if is_wrong {
            assert_eq!(
                journey.changes(),
                before,
                "AWS refuses every request with that date, so no call is made"
            );
        }
        let (held, counted) = (journey.reserved().await, counted_by_aws(&harness, "orders"));
        assert!(held >= counted, "change {turn}: the ledger holds {held} calls, AWS counts {counted}");
    }
    journey.let_pass(DAY).await;
    journey.until("Encrypted").await;
    (journey.busiest_day(), journey.changes())
}

#[tokio::test]
async fn clock_one_hour_fast_makes_no_excess_call() {
    let (busiest, all) = many_changes_with_a_wrong_clock(3600, 10, 12).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
    assert!(all > 25, "{all} calls: the next day's calls are used, too");
}

#[tokio::test]
async fn clock_one_hour_fast_while_calls_expire_makes_no_excess_call() {
    // From the 46th half hour on the first calls are 24 hours old, by that clock.
    let (busiest, _) = many_changes_with_a_wrong_clock(3600, 45, 49).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
}

#[tokio::test]
async fn clock_one_hour_slow_makes_no_excess_call() {
    let (busiest, all) = many_changes_with_a_wrong_clock(-3600, 10, 12).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
    assert!(all > 25, "{all} calls: the next day's calls are used, too");
}

#[tokio::test]
async fn clock_jump_two_days_back_makes_no_excess_call() {
    let (busiest, _) = many_changes_with_a_wrong_clock(-2 * 86_400, 10, 20).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
}

#[tokio::test]
async fn clock_jump_two_days_ahead_makes_no_excess_call() {
    let (busiest, all) = many_changes_with_a_wrong_clock(2 * 86_400, 10, 20).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
    assert!(all > 25, "{all} calls: the next day's calls are used, too");
}

#[tokio::test]
async fn clock_jump_during_reconcile_makes_no_unrecorded_call() {
    let harness = stage().await;
    for wrong_by in [2 * 86_400, -2 * 86_400] {
        let mut spots = 0;
        for (number, when) in (1..).flat_map(|number| [(number, When::Before), (number, When::After)]) {
            let wrong = Arc::new(AtomicI64::new(0));
            let name = format!("leap-{}-{number}-{when:?}", wrong_by > 0).to_lowercase();
            let spot = format!("{wrong_by} s, {when:?} number {number}");
            let mut journey = Run::new(&harness, Service::Firehose, &name, None);
            harness.apply(&name, &spec(&journey.arn, None)).await;
            let leaping = with_clock_and_fuse(&harness, &wrong, Some((number, when)));
            let resource = harness.resource(&name).await.expect("the resource");
            let mut came_by = false;
            let leap = async || {
                came_by = true;
                wrong.store(wrong_by, Ordering::Relaxed);
            };
            let _ = leaping.visit_with_a_pause(&resource, leap).await;
            if !came_by {
                break;
            }
            spots += 1;
            let (held, counted) = (journey.reserved().await, counted_by_aws(&harness, &name));
            assert!(held >= counted, "{spot}: the ledger holds {held} calls, AWS has got {counted}");
            // All requests dated by that clock fail. Once the clock is right, the operator continues.
            journey.operator = with_clock(&harness, &wrong);
            journey.let_pass(SignedDuration::from_mins(5)).await;
            wrong.store(0, Ordering::Relaxed);
            journey.operator = with_clock(&harness, &wrong);
            journey.until("Encrypted").await;
            assert!(journey.busiest_day() <= 2, "{spot}: {} calls", journey.busiest_day());
            let (held, counted) = (journey.reserved().await, counted_by_aws(&harness, &name));
            assert!(held >= counted, "{spot}: the ledger holds {held} calls, AWS has got {counted}");
        }
        // Before and after: identity, Describe, reservation, Start, outcome, status, event.
        assert!(spots >= 14, "{spots} spots");
    }
}

#[tokio::test]
async fn corrected_fast_clock_does_not_block_calls() {
    let harness = stage().await;
    let key = harness.plant_key();
    // The largest error that AWS accepts.
    let wrong = Arc::new(AtomicI64::new(14 * 60));
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.operator = with_clock(&harness, &wrong);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    wrong.store(0, Ordering::Relaxed);
    let ledger = harness.ledger(&journey.arn).await.expect("the ledger");
    assert!(ledger.spec.calls[0].at() > harness.aws.now(), "a call in the future");
    harness.apply("orders", &spec(&journey.arn, Some(&key))).await;
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2);
    let status = json!(harness.status("orders").await);
    assert_eq!(status["calls"]["used"], 2, "a call in the future counts");
}

#[tokio::test]
async fn clock_rejected_by_aws_blocks_calls_until_corrected() {
    let harness = stage().await;
    for wrong_by in [16 * 60, -16 * 60, 2 * 86_400, -2 * 86_400] {
        let name = format!("wrong{wrong_by}");
        let wrong = Arc::new(AtomicI64::new(wrong_by));
        let mut journey = Run::new(&harness, Service::Firehose, &name, None);
        journey.operator = with_clock(&harness, &wrong);
        harness.apply(&name, &spec(&journey.arn, None)).await;
        let before = harness.aws.world().calls().len();
        journey.let_pass(SignedDuration::from_mins(10)).await;
        assert_eq!(journey.changes(), 0, "{wrong_by}");
        assert_eq!(reason(&harness.status(&name).await), "CredentialsRejected", "{wrong_by}");
        assert!(
            harness.aws.world().calls()[before..].iter().all(|call| {
                ["InvalidSignatureException", "SignatureDoesNotMatch"].contains(&call.outcome.as_str())
            }),
            "every request is dated by the operator's own clock"
        );
        wrong.store(0, Ordering::Relaxed);
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "{wrong_by}");
    }
}
