//! The rate limiter on a paused clock: rates, priority, fairness, slowdown and recovery.

use std::time::Duration;

use proptest::prelude::*;
use stream_encryption_core::model::request_limits::RequestLimit;
use tokio::time::{advance, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the scope of a limit of four requests per second at the default share.
fn describe_scope() -> QuotaScope {
    QuotaScope::of(
        Operation::DescribeDeliveryStream,
        &"arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap(),
    )
}

fn queue_key(priority: Priority, namespace: &str) -> QueueKey {
    QueueKey { priority, namespace: namespace.to_owned() }
}

/// Waits in the background, and records the order and time of the permits.
fn arrive(
    rate_limiter: &RateLimiter,
    permits: &Arc<Mutex<Vec<(String, Instant)>>>,
    queue_key: QueueKey,
) -> tokio::task::JoinHandle<()> {
    let (rate_limiter, permits) = (rate_limiter.clone(), permits.clone());
    tokio::spawn(async move {
        rate_limiter.acquire(&describe_scope(), &queue_key).await;
        permits
            .lock()
            .unwrap()
            .push((format!("{:?} {}", queue_key.priority, queue_key.namespace), Instant::now()));
    })
}

/// Uses up the tokens of this second, and returns how long that took.
async fn empty(rate_limiter: &RateLimiter) -> Duration {
    let start = Instant::now();
    for _ in 0..4 {
        rate_limiter.acquire(&describe_scope(), &queue_key(Priority::Call, "before")).await;
    }
    start.elapsed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_second_exceeds_the_rate(
        arrivals in prop::collection::vec((0_u64..800, 0_usize..3, "[abc]"), 1..60),
        share in 20_u8..=100,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let permits = runtime.block_on(async {
            let (rate_limiter, permits) = (RateLimiter::new(share), Arc::default());
            let mut waiters = vec![];
            for (pause, priority, namespace) in &arrivals {
                sleep(Duration::from_millis(*pause)).await;
                waiters.push(arrive(&rate_limiter, &permits, queue_key(PRIORITIES[*priority], namespace)));
            }
            for waiter in waiters {
                waiter.await.unwrap();
            }
            permits.lock().unwrap().clone()
        });
        prop_assert_eq!(permits.len(), arrivals.len());
        let rate = usize::from(share) * 5 / 100;
        for (_, start) in &permits {
            let within = permits.iter().filter(|(_, at)| at >= start && *at < *start + SECOND).count();
            prop_assert!(within <= rate, "{} in a second at {} a second", within, rate);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn call_precedes_waiting_describe_requests() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    empty(&rate_limiter).await;
    let mut waiters = vec![];
    for priority in [Priority::Drift, Priority::Changing, Priority::Call] {
        waiters.push(arrive(&rate_limiter, &permits, queue_key(priority, "data")));
        tokio::task::yield_now().await;
    }
    assert_eq!(PRIORITIES.map(|priority| rate_limiter.waiting(priority)), [1, 1, 1]);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!(PRIORITIES.map(|priority| rate_limiter.waiting(priority)), [0, 0, 0]);
    let order: Vec<String> = permits.lock().unwrap().iter().map(|(who, _)| who.clone()).collect();
    assert_eq!(order, ["Call data", "Changing data", "Drift data"]);
}

#[tokio::test(start_paused = true)]
async fn busy_namespace_does_not_delay_another_namespace() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    empty(&rate_limiter).await;
    let crowd: Vec<_> =
        (0..1000).map(|_| arrive(&rate_limiter, &permits, queue_key(Priority::Drift, "crowd"))).collect();
    tokio::task::yield_now().await;
    let start = Instant::now();
    arrive(&rate_limiter, &permits, queue_key(Priority::Drift, "lone")).await.unwrap();
    assert!(start.elapsed() <= SECOND + Duration::from_millis(1), "{:?}", start.elapsed());
    for waiter in crowd {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_requests_do_not_delay_drift_checks_of_others() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    empty(&rate_limiter).await;
    let crowd: Vec<_> =
        (0..1000).map(|_| arrive(&rate_limiter, &permits, queue_key(Priority::Changing, "crowd"))).collect();
    tokio::task::yield_now().await;
    // One after the other, like the reconciliations of a few resources.
    for _ in 0..10 {
        let start = Instant::now();
        arrive(&rate_limiter, &permits, queue_key(Priority::Drift, "lone")).await.unwrap();
        assert!(start.elapsed() <= SECOND + Duration::from_millis(1), "{:?}", start.elapsed());
    }
    for waiter in crowd {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_waiter_is_skipped_and_costs_no_token() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    empty(&rate_limiter).await;
    let start = Instant::now();
    let gone: Vec<_> =
        (0..100).map(|_| arrive(&rate_limiter, &permits, queue_key(Priority::Call, "gone"))).collect();
    let stay: Vec<_> =
        (0..4).map(|_| arrive(&rate_limiter, &permits, queue_key(Priority::Changing, "stay"))).collect();
    tokio::task::yield_now().await;
    for waiter in gone {
        waiter.abort();
    }
    for waiter in stay {
        waiter.await.unwrap();
    }
    assert!(start.elapsed() <= SECOND + SECOND / 100, "{:?}", start.elapsed());
    assert_eq!(permits.lock().unwrap().len(), 4);
    assert_eq!(rate_limiter.waiting(Priority::Call), 0);
}

#[tokio::test(start_paused = true)]
async fn token_granted_to_cancelled_waiter_is_returned() {
    let rate_limiter = RateLimiter::new(80);
    let quota = rate_limiter.quota(&describe_scope());
    let time_to_empty = empty(&rate_limiter).await;
    let drift = queue_key(Priority::Drift, "data");
    let scope = describe_scope();
    let mut waiter = Box::pin(rate_limiter.acquire(&scope, &drift));
    assert!(futures_util::poll!(waiter.as_mut()).is_pending());
    // The token is granted, but the waiter is dropped before it receives the token.
    advance(SECOND).await;
    tokio::task::yield_now().await;
    assert!(quota.state().queue.is_empty());
    drop(waiter);
    assert_eq!(empty(&rate_limiter).await, time_to_empty, "with a token less it takes longer");
}

#[tokio::test(start_paused = true)]
async fn token_of_cancelled_waiter_goes_to_the_next_at_once() {
    let rate_limiter = RateLimiter::new(20);
    let (scope, changing) = (describe_scope(), queue_key(Priority::Changing, "data"));
    rate_limiter.acquire(&scope, &changing).await;
    let mut first = Box::pin(rate_limiter.acquire(&scope, &changing));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let mut second = Box::pin(rate_limiter.acquire(&scope, &changing));
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    let start = Instant::now();
    advance(SECOND).await;
    tokio::task::yield_now().await;
    drop(first);
    second.await;
    assert_eq!(start.elapsed(), SECOND, "without this token, the next one is available after two seconds");
}

#[tokio::test(start_paused = true)]
async fn cancelled_waiters_use_up_no_turns() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    empty(&rate_limiter).await;
    let arrive = |priority, namespace| arrive(&rate_limiter, &permits, queue_key(priority, namespace));
    let gone: Vec<_> = (0..100).map(|_| arrive(Priority::Drift, "lone")).collect();
    let crowd: Vec<_> = (0..1000).map(|_| arrive(Priority::Changing, "crowd")).collect();
    tokio::task::yield_now().await;
    for waiter in gone {
        waiter.abort();
    }
    let start = Instant::now();
    arrive(Priority::Drift, "lone").await.unwrap();
    assert!(start.elapsed() <= 2 * SECOND, "{:?}", start.elapsed());
    for waiter in crowd {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn token_without_waiters_is_returned() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    let time_to_empty = empty(&rate_limiter).await;
    let gone = arrive(&rate_limiter, &permits, queue_key(Priority::Call, "gone"));
    tokio::task::yield_now().await;
    gone.abort();
    sleep(SECOND + Duration::from_millis(1)).await;
    assert!(rate_limiter.quota(&describe_scope()).state().queue.is_empty());
    assert_eq!(empty(&rate_limiter).await, time_to_empty, "with a token less it takes longer");
}

#[tokio::test(start_paused = true)]
async fn change_overtakes_drift_checks_that_used_their_half() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    let crowd: Vec<_> =
        (0..1000).map(|_| arrive(&rate_limiter, &permits, queue_key(Priority::Drift, "crowd"))).collect();
    sleep(SECOND * 60).await;
    let granted = permits.lock().unwrap().len();
    assert!((118..=122).contains(&granted), "{granted} in a minute");
    let start = Instant::now();
    arrive(&rate_limiter, &permits, queue_key(Priority::Changing, "crowd")).await.unwrap();
    assert!(start.elapsed() <= SECOND / 4, "{:?}", start.elapsed());
    for waiter in crowd {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn newcomer_does_not_overtake_waiters() {
    let rate_limiter = RateLimiter::new(80);
    let (grant, _waiter) = oneshot::channel();
    let quota = rate_limiter.quota(&describe_scope());
    quota.state().queue.push(&queue_key(Priority::Call, "first"), grant);
    let (scope, newcomer) = (describe_scope(), queue_key(Priority::Drift, "newcomer"));
    // There are tokens, but the request that already waits has not received one yet.
    assert!(futures_util::poll!(Box::pin(rate_limiter.acquire(&scope, &newcomer))).is_pending());
}

#[tokio::test(start_paused = true)]
async fn throttling_slows_only_its_limit_until_success() {
    let rate_limiter = RateLimiter::new(80);
    let other = QuotaScope { region: "us-east-1".parse().unwrap(), ..describe_scope() };
    rate_limiter.throttled(&describe_scope());
    assert_eq!((rate_limiter.rate(&describe_scope()), rate_limiter.rate(&other)), (2_000, 4_000));
    let start = Instant::now();
    for _ in 0..5 {
        rate_limiter.acquire(&describe_scope(), &queue_key(Priority::Drift, "data")).await;
    }
    assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
    for _ in 0..20 {
        rate_limiter.succeeded(&describe_scope());
        advance(SECOND).await;
    }
    assert_eq!(rate_limiter.rate(&describe_scope()), 4_000);
}

#[tokio::test(start_paused = true)]
async fn raised_rate_applies_to_requests_that_wait() {
    let rate_limiter = RateLimiter::new(80);
    for _ in 0..6 {
        rate_limiter.throttled(&describe_scope());
        advance(SECOND).await;
    }
    let (scope, changing) = (describe_scope(), queue_key(Priority::Changing, "data"));
    rate_limiter.acquire(&scope, &changing).await;
    let start = Instant::now();
    let mut waiting = Box::pin(rate_limiter.acquire(&scope, &changing));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    // The task now sleeps until the next token, which is due in five seconds at 0.2 per second.
    tokio::task::yield_now().await;
    rate_limiter.succeeded(&scope);
    waiting.await;
    assert_eq!(start.elapsed(), SECOND * 5 / 2, "at 0.4 per second");
}

#[tokio::test(start_paused = true)]
async fn raised_limit_applies_to_its_account_and_region() {
    let limit = RequestLimit {
        operation: Operation::DescribeDeliveryStream,
        account: describe_scope().account,
        region: Some(describe_scope().region),
        requests_per_second: 50,
    };
    let rate_limiter = RateLimiter::with_limits(80, RequestLimits::new(vec![limit]));
    let elsewhere = QuotaScope { region: "us-east-1".parse().unwrap(), ..describe_scope() };
    let of_another = QuotaScope { account: Some("444455556666".parse().unwrap()), ..describe_scope() };
    for (quota, rate) in [(describe_scope(), 40_000), (elsewhere, 4_000), (of_another, 4_000)] {
        assert_eq!(rate_limiter.rate(&quota), rate, "{quota:?}");
        let describes =
            rate_limiter.describes_per_second(Service::Firehose, quota.account.as_ref(), &quota.region);
        assert_eq!(describes * 1000, rate as usize, "{quota:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_task_runs_without_waiters() {
    let (rate_limiter, permits) = (RateLimiter::new(80), Arc::default());
    let waiters: Vec<_> =
        (0..20).map(|_| arrive(&rate_limiter, &permits, queue_key(Priority::Drift, "data"))).collect();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    tokio::task::yield_now().await;
    let quota = rate_limiter.quota(&describe_scope());
    assert!(!quota.state().has_task);
    // One reference is the rate limiter's, the other is the one above.
    assert_eq!(Arc::strong_count(&quota), 2);
}

#[tokio::test(start_paused = true)]
async fn unused_limits_are_evicted_unless_throttled() {
    let rate_limiter = RateLimiter::new(80);
    rate_limiter.throttled(&describe_scope());
    for number in 0..3 * EVICTION_THRESHOLD {
        let quota =
            QuotaScope { account: Some(format!("{number:012}").parse().unwrap()), ..describe_scope() };
        rate_limiter.acquire(&quota, &queue_key(Priority::Drift, "data")).await;
        advance(Duration::from_millis(10)).await;
    }
    let quotas = rate_limiter.quotas.lock().unwrap().by_scope.len();
    assert!(quotas <= EVICTION_THRESHOLD + 1, "{quotas}");
    assert_eq!(rate_limiter.rate(&describe_scope()), 2_000);
}
