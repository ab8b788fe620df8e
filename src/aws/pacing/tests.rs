//! The pacer on a paused clock: rates, urgency, fairness, slowing down and growing back.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Four a second at the default share.
fn describe() -> Quota {
    Quota::of(
        Operation::DescribeDeliveryStream,
        &"arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap(),
    )
}

fn turn(urgency: Urgency, namespace: &str) -> Turn {
    Turn { urgency, namespace: namespace.to_owned() }
}

/// Waits in the background, and notes who went when.
fn arrive(
    pacer: &Pacer,
    went: &Arc<Mutex<Vec<(String, Instant)>>>,
    turn: Turn,
) -> tokio::task::JoinHandle<()> {
    let (pacer, went) = (pacer.clone(), went.clone());
    tokio::spawn(async move {
        pacer.acquire(&describe(), &turn).await;
        went.lock().unwrap().push((format!("{:?} {}", turn.urgency, turn.namespace), Instant::now()));
    })
}

/// Uses up the tokens of this second.
async fn empty(pacer: &Pacer) {
    for _ in 0..4 {
        pacer.acquire(&describe(), &turn(Urgency::Call, "before")).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_second_ever_sees_more_than_the_rate(
        arrivals in prop::collection::vec((0_u64..800, 0_usize..3, "[abc]"), 1..60),
        share in 20_u8..=100,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let went = runtime.block_on(async {
            let (pacer, went) = (Pacer::new(share), Arc::default());
            let mut waiters = vec![];
            for (pause, urgency, namespace) in &arrivals {
                sleep(Duration::from_millis(*pause)).await;
                waiters.push(arrive(&pacer, &went, turn(URGENCIES[*urgency], namespace)));
            }
            for waiter in waiters {
                waiter.await.unwrap();
            }
            went.lock().unwrap().clone()
        });
        prop_assert_eq!(went.len(), arrivals.len());
        let rate = usize::from(share) * 5 / 100;
        for (_, start) in &went {
            let within = went.iter().filter(|(_, at)| at >= start && *at < *start + SECOND).count();
            prop_assert!(within <= rate, "{} in a second at {} a second", within, rate);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_before_the_looks_that_wait() {
    let (pacer, went) = (Pacer::new(80), Arc::default());
    empty(&pacer).await;
    let mut waiters = vec![];
    for urgency in [Urgency::Drift, Urgency::Changing, Urgency::Call] {
        waiters.push(arrive(&pacer, &went, turn(urgency, "data")));
        tokio::task::yield_now().await;
    }
    assert_eq!(URGENCIES.map(|urgency| pacer.waiting(urgency)), [1, 1, 1]);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!(URGENCIES.map(|urgency| pacer.waiting(urgency)), [0, 0, 0]);
    let order: Vec<String> = went.lock().unwrap().iter().map(|(who, _)| who.clone()).collect();
    assert_eq!(order, ["Call data", "Changing data", "Drift data"]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_of_one_namespace_do_not_delay_the_only_one_of_another() {
    let (pacer, went) = (Pacer::new(80), Arc::default());
    empty(&pacer).await;
    let crowd: Vec<_> = (0..1000).map(|_| arrive(&pacer, &went, turn(Urgency::Drift, "crowd"))).collect();
    tokio::task::yield_now().await;
    let start = Instant::now();
    arrive(&pacer, &went, turn(Urgency::Drift, "lone")).await.unwrap();
    assert!(start.elapsed() <= SECOND + Duration::from_millis(1), "{:?}", start.elapsed());
    for waiter in crowd {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_requests_of_one_namespace_delay_no_drift_look_of_another() {
    let (pacer, went) = (Pacer::new(80), Arc::default());
    empty(&pacer).await;
    let crowd: Vec<_> = (0..1000).map(|_| arrive(&pacer, &went, turn(Urgency::Changing, "crowd"))).collect();
    tokio::task::yield_now().await;
    // One after the other, as the visits of a few resources come.
    for _ in 0..10 {
        let start = Instant::now();
        arrive(&pacer, &went, turn(Urgency::Drift, "lone")).await.unwrap();
        assert!(start.elapsed() <= SECOND + Duration::from_millis(1), "{:?}", start.elapsed());
    }
    for waiter in crowd {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_is_skipped_and_costs_no_token() {
    let (pacer, went) = (Pacer::new(80), Arc::default());
    empty(&pacer).await;
    let start = Instant::now();
    let gone: Vec<_> = (0..100).map(|_| arrive(&pacer, &went, turn(Urgency::Call, "gone"))).collect();
    let stay: Vec<_> = (0..4).map(|_| arrive(&pacer, &went, turn(Urgency::Drift, "stay"))).collect();
    tokio::task::yield_now().await;
    for waiter in gone {
        waiter.abort();
    }
    for waiter in stay {
        waiter.await.unwrap();
    }
    assert!(start.elapsed() <= SECOND + Duration::from_millis(1), "{:?}", start.elapsed());
    assert_eq!(went.lock().unwrap().len(), 4);
    assert_eq!(pacer.waiting(Urgency::Call), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_granted_to_a_waiter_that_gave_up_goes_back() {
    let pacer = Pacer::new(80);
    let lane = pacer.lane(&describe());
    empty(&pacer).await;
    let drift = turn(Urgency::Drift, "data");
    let (quota, mut waiter) = (describe(), None);
    let waiting = waiter.insert(Box::pin(pacer.acquire(&quota, &drift)));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    // The token is granted, but the waiter never gets to see it.
    advance(SECOND).await;
    tokio::task::yield_now().await;
    assert!(lane.lock().queue.is_empty());
    drop(waiter);
    let start = Instant::now();
    empty(&pacer).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_waits_for_any_more_goes_back() {
    let (pacer, went) = (Pacer::new(80), Arc::default());
    empty(&pacer).await;
    let gone = arrive(&pacer, &went, turn(Urgency::Call, "gone"));
    tokio::task::yield_now().await;
    gone.abort();
    sleep(SECOND + Duration::from_millis(1)).await;
    assert!(pacer.lane(&describe()).lock().queue.is_empty());
    let start = Instant::now();
    empty(&pacer).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake_those_who_wait() {
    let pacer = Pacer::new(80);
    let (grant, _waiter) = oneshot::channel();
    let lane = pacer.lane(&describe());
    lane.lock().queue.push(&turn(Urgency::Call, "first"), grant);
    let (quota, newcomer) = (describe(), turn(Urgency::Drift, "newcomer"));
    // There are tokens, but the one who waits has not got one yet.
    assert!(futures_util::poll!(Box::pin(pacer.acquire(&quota, &newcomer))).is_pending());
}

#[tokio::test(start_paused = true)]
async fn throttling_halves_the_rate_of_that_limit_alone_and_success_brings_it_back() {
    let pacer = Pacer::new(80);
    let other = Quota { region: "us-east-1".parse().unwrap(), ..describe() };
    pacer.throttled(&describe());
    assert_eq!((pacer.rate(&describe()), pacer.rate(&other)), (2_000, 4_000));
    let start = Instant::now();
    for _ in 0..5 {
        pacer.acquire(&describe(), &turn(Urgency::Drift, "data")).await;
    }
    assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
    for _ in 0..20 {
        pacer.succeeded(&describe());
        advance(SECOND).await;
    }
    assert_eq!(pacer.rate(&describe()), 4_000);
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_while_nobody_waits() {
    let (pacer, went) = (Pacer::new(80), Arc::default());
    let waiters: Vec<_> = (0..20).map(|_| arrive(&pacer, &went, turn(Urgency::Drift, "data"))).collect();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    tokio::task::yield_now().await;
    let lane = pacer.lane(&describe());
    assert!(!lane.lock().served);
    // The pacer's, and the one above.
    assert_eq!(Arc::strong_count(&lane), 2);
}

#[tokio::test(start_paused = true)]
async fn limits_that_nobody_uses_any_more_are_forgotten_but_not_that_one_was_throttled() {
    let pacer = Pacer::new(80);
    pacer.throttled(&describe());
    for number in 0..3 * MANY_LANES {
        let quota = Quota { account: Some(format!("{number:012}").parse().unwrap()), ..describe() };
        pacer.acquire(&quota, &turn(Urgency::Drift, "data")).await;
        advance(Duration::from_millis(10)).await;
    }
    let lanes = pacer.lanes.lock().unwrap().len();
    assert!(lanes <= MANY_LANES + 1, "{lanes}");
    assert_eq!(pacer.rate(&describe()), 2_000);
}
