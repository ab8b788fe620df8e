//! Rows 11 and 12: the operator stands still for a minute or for 25 hours, a second replica goes on meanwhile, and clocks jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Call, Service};
use stream_encryption_operator::controller::Clock;

use super::fuse::{FusedOperator, Spot};
use super::proxy::When;
use super::rig::{Act, DAY, Fused, Journey, Scene, spec, stage, stopped};
use crate::play::{Play, reason};

/// AWS's limit of calls in 24 hours.
const LIMIT: usize = 25;

/// One visit of one replica stands still at a spot; meanwhile the other plays the stream to its end, and time passes.
/// Tells whether there was such a spot.
async fn stands_still(play: &Play, number: usize, when: When, pause: SignedDuration) -> bool {
    let name = format!("still-{}-{number}-{when:?}", pause.as_secs()).to_lowercase();
    let spot = format!("{when:?} number {number}, for {pause:#}");
    let mut other = Journey::new(play, Service::Firehose, &name, None);
    play.apply(&name, &spec(&other.arn, None)).await;
    let paused = FusedOperator::new(play.replica(), Some((number, when)));
    let resource = play.resource(&name).await.expect("the resource");
    let mut came_by = false;
    let meanwhile = async || {
        came_by = true;
        other.until("Encrypted").await;
        play.aws.advance(pause);
        // What the paused visit saw is as long ago; somebody has changed the stream, so that it looks as it did then.
        let now = play.aws.now();
        play.aws.world().set_stream(now, &other.arn, stopped());
    };
    // It may fail or be dropped: what counts is what it sends.
    let _ = paused.visit_with_a_pause(&resource, meanwhile).await;
    if !came_by {
        return false;
    }
    let (by_both, reserved) = (other.changes(), other.reserved().await);
    assert!(by_both <= 1 + usize::from(paused.passed().contains(&"start")), "{spot}: {by_both} calls");
    // A day later those of before are no longer kept.
    assert!(by_both <= reserved || pause > DAY, "{spot}: {by_both} calls, {reserved} reservations");
    play.aws.advance(SignedDuration::from_mins(11));
    other.operator = FusedOperator::new(play.replica(), None);
    other.until("Encrypted").await;
    assert!(other.busiest_day() <= 3, "{spot}: {} calls in a day", other.busiest_day());
    true
}

#[tokio::test]
async fn wherever_a_replica_stands_still_for_a_minute_or_a_day_while_another_goes_on_no_call_is_too_much() {
    let play = stage().await;
    for pause in [SignedDuration::from_mins(1), SignedDuration::from_hours(25)] {
        let mut spots = 0;
        for when in [When::Before, When::After] {
            for number in 1.. {
                if !stands_still(&play, number, when, pause).await {
                    break;
                }
                spots += 1;
            }
        }
        // Identity, look, reservation, Start, outcome, status, event.
        assert!(spots >= 14, "{spots} spots");
    }
}

#[tokio::test]
async fn a_reservation_that_was_acknowledged_too_long_ago_is_not_used() {
    let play = stage().await;
    for (pause, starts) in [(5, 1), (60, 0), (25 * 3600, 0)] {
        let name = format!("late-{pause}");
        let mut journey = Journey::new(&play, Service::Firehose, &name, None);
        play.apply(&name, &spec(&journey.arn, None)).await;
        // Identity, look, the ledger is made: the third.
        let paused = FusedOperator::new(play.replica(), Some((3, When::After)));
        let resource = play.resource(&name).await.expect("the resource");
        let time = async || play.aws.advance(SignedDuration::from_secs(pause));
        paused.visit_with_a_pause(&resource, time).await.expect("Kubernetes can be asked");
        assert_eq!(paused.passed()[2], "create ledger");
        assert_eq!(journey.changes(), starts, "after {pause} s");
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "after {pause} s");
    }
}

/// An operator whose wall clock is wrong by so many seconds, and whose steady clock is right. Its requests are dated by it.
fn with_clock(play: &Play, wrong_by: &Arc<AtomicI64>) -> Fused {
    with_clock_and_fuse(play, wrong_by, None)
}

fn with_clock_and_fuse(play: &Play, wrong_by: &Arc<AtomicI64>, spot: Option<Spot>) -> Fused {
    let (wall, steady, wrong_by) = (play.aws.clone(), play.aws.clone(), Arc::clone(wrong_by));
    let clock = Clock::new(
        move || wall.now() + SignedDuration::from_secs(wrong_by.load(Ordering::Relaxed)),
        move || steady.now().as_duration().unsigned_abs(),
    );
    FusedOperator::new(play.replica_with_clock(clock), spot)
}

/// Calls that AWS has counted in the last 24 hours of its clock; what it refuses for its date counts nowhere.
fn counted_by_aws(play: &Play, name: &str) -> usize {
    let now = play.aws.now();
    let world = play.aws.world();
    let counts = |call: &&Call| call.counted && call.target == name && now.duration_since(call.time) < DAY;
    world.calls().iter().filter(counts).count()
}

/// A user who changes the key each half hour for 30 hours, while the operator's clock is wrong by `wrong_by` seconds from
/// the `from`-th change to the `to`-th. Tells the calls of the busiest 24 hours of AWS's clock, and all of them.
async fn many_changes_with_a_wrong_clock(wrong_by: i64, from: usize, to: usize) -> (usize, usize) {
    let mut play = stage().await;
    play.rules.drift_interval = SignedDuration::from_mins(30);
    let keys = [play.plant_key(), play.plant_key()];
    let wrong = Arc::new(AtomicI64::new(0));
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.operator = with_clock(&play, &wrong);
    for turn in 0..60 {
        let is_wrong = (from..to).contains(&turn);
        wrong.store(if is_wrong { wrong_by } else { 0 }, Ordering::Relaxed);
        play.apply("orders", &spec(&journey.arn, Some(&keys[turn % 2]))).await;
        let before = journey.changes();
        journey.let_pass(SignedDuration::from_mins(30)).await;
        if is_wrong {
            assert_eq!(
                journey.changes(),
                before,
                "AWS answers no look that is dated so, and so nothing is called"
            );
        }
        let (held, counted) = (journey.reserved().await, counted_by_aws(&play, "orders"));
        assert!(held >= counted, "change {turn}: the ledger holds {held} calls, AWS counts {counted}");
    }
    journey.let_pass(DAY).await;
    journey.until("Encrypted").await;
    (journey.busiest_day(), journey.changes())
}

#[tokio::test]
async fn a_clock_that_is_an_hour_fast_for_an_hour_makes_no_call_too_much() {
    let (busiest, all) = many_changes_with_a_wrong_clock(3600, 10, 12).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
    assert!(all > 25, "{all} calls: the next day's are used, too");
}

#[tokio::test]
async fn a_clock_that_is_an_hour_fast_while_calls_age_out_makes_no_call_too_much() {
    // From the 46th half hour on the first calls are 24 hours old, on that clock.
    let (busiest, _) = many_changes_with_a_wrong_clock(3600, 45, 49).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
}

#[tokio::test]
async fn a_clock_that_is_an_hour_slow_for_an_hour_makes_no_call_too_much() {
    let (busiest, all) = many_changes_with_a_wrong_clock(-3600, 10, 12).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
    assert!(all > 25, "{all} calls: the next day's are used, too");
}

#[tokio::test]
async fn a_clock_that_leaps_back_two_days_and_forth_makes_no_call_too_much() {
    let (busiest, _) = many_changes_with_a_wrong_clock(-2 * 86_400, 10, 20).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
}

#[tokio::test]
async fn a_clock_that_leaps_ahead_two_days_and_back_forgets_no_call_and_makes_none_too_much() {
    let (busiest, all) = many_changes_with_a_wrong_clock(2 * 86_400, 10, 20).await;
    assert!(busiest <= LIMIT, "{busiest} calls in 24 hours");
    assert!(all > 25, "{all} calls: the next day's are used, too");
}

#[tokio::test]
async fn a_clock_that_leaps_at_any_spot_of_a_visit_makes_no_call_that_aws_counts_and_the_ledger_does_not() {
    let play = stage().await;
    for wrong_by in [2 * 86_400, -2 * 86_400] {
        let mut spots = 0;
        for (number, when) in (1..).flat_map(|number| [(number, When::Before), (number, When::After)]) {
            let wrong = Arc::new(AtomicI64::new(0));
            let name = format!("leap-{}-{number}-{when:?}", wrong_by > 0).to_lowercase();
            let spot = format!("{wrong_by} s, {when:?} number {number}");
            let mut journey = Journey::new(&play, Service::Firehose, &name, None);
            play.apply(&name, &spec(&journey.arn, None)).await;
            let leaping = with_clock_and_fuse(&play, &wrong, Some((number, when)));
            let resource = play.resource(&name).await.expect("the resource");
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
            let (held, counted) = (journey.reserved().await, counted_by_aws(&play, &name));
            assert!(held >= counted, "{spot}: the ledger holds {held} calls, AWS has got {counted}");
            // Whatever is dated by that clock is in vain; once it is set right, all goes on.
            journey.operator = with_clock(&play, &wrong);
            journey.let_pass(SignedDuration::from_mins(5)).await;
            wrong.store(0, Ordering::Relaxed);
            journey.operator = with_clock(&play, &wrong);
            journey.until("Encrypted").await;
            assert!(journey.busiest_day() <= 2, "{spot}: {} calls", journey.busiest_day());
            let (held, counted) = (journey.reserved().await, counted_by_aws(&play, &name));
            assert!(held >= counted, "{spot}: the ledger holds {held} calls, AWS has got {counted}");
        }
        // Before and after: identity, look, reservation, Start, outcome, status, event.
        assert!(spots >= 14, "{spots} spots");
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_is_no_lasting_obstacle() {
    let play = stage().await;
    let key = play.plant_key();
    // As far as AWS takes it.
    let wrong = Arc::new(AtomicI64::new(14 * 60));
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.operator = with_clock(&play, &wrong);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    wrong.store(0, Ordering::Relaxed);
    let ledger = play.ledger(&journey.arn).await.expect("the ledger");
    assert!(ledger.spec.calls[0].at() > play.aws.now(), "a call of the future");
    play.apply("orders", &spec(&journey.arn, Some(&key))).await;
    journey.until("Encrypted").await;
    assert_eq!(journey.changes(), 2);
    let status = json!(play.status("orders").await);
    assert_eq!(status["calls"]["used"], 2, "a call of the future counts");
}

#[tokio::test]
async fn with_a_clock_that_aws_does_not_take_nothing_is_called_and_it_is_told_until_the_clock_is_right() {
    let play = stage().await;
    for wrong_by in [16 * 60, -16 * 60, 2 * 86_400, -2 * 86_400] {
        let name = format!("wrong{wrong_by}");
        let wrong = Arc::new(AtomicI64::new(wrong_by));
        let mut journey = Journey::new(&play, Service::Firehose, &name, None);
        journey.operator = with_clock(&play, &wrong);
        play.apply(&name, &spec(&journey.arn, None)).await;
        let before = play.aws.world().calls().len();
        journey.let_pass(SignedDuration::from_mins(10)).await;
        assert_eq!(journey.changes(), 0, "{wrong_by}");
        assert_eq!(reason(&play.status(&name).await), "CredentialsRejected", "{wrong_by}");
        assert!(
            play.aws.world().calls()[before..].iter().all(|call| {
                ["InvalidSignatureException", "SignatureDoesNotMatch"].contains(&call.outcome.as_str())
            }),
            "every request is dated by the operator's own clock"
        );
        wrong.store(0, Ordering::Relaxed);
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "{wrong_by}");
    }
}
