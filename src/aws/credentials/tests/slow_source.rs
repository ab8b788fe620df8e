//! A source that responds late or never: how long requests wait for it, and how often it is queried.

use tokio::time::{Instant, advance, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A clock that moves with the paused time of the test.
fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || SystemTime::UNIX_EPOCH + 1_000 * HOUR + start.elapsed())
}

/// Returns credentials whose source answers each query after the next of `delays`, and then at once. Each session is
/// valid for 12 hours. Also returns the number of queries.
fn answering(delays: Vec<Duration>) -> (BaseCredentials, Arc<AtomicUsize>) {
    let (clock, queries) = (clock(), Arc::new(AtomicUsize::new(0)));
    let (now, count) = (clock.clone(), queries.clone());
    let provider = provide_credentials_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let delay = delays.get(number).copied().unwrap_or_default();
        let expiry = now() + 12 * HOUR;
        async move {
            sleep(delay).await;
            Ok(session(number as u64, Some(expiry)))
        }
    });
    (BaseCredentials::new(SharedCredentialsProvider::new(provider), clock), queries)
}

#[tokio::test(start_paused = true)]
async fn hanging_source_delays_no_request_after_the_first() {
    let (own, queries) = answering([vec![Duration::ZERO], vec![HOUR; 9]].concat());
    own.session(SOON).await.unwrap();
    advance(6 * HOUR).await;
    let start = Instant::now();
    own.session(SOON).await.unwrap();
    assert_eq!(start.elapsed(), DEADLINE);
    for _ in 0..60 {
        sleep(SECOND).await;
        let start = Instant::now();
        own.session(SOON).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    // After the first one, at most one query in 25 seconds: each lasts 20 seconds, and the next begins 5 seconds later.
    assert_eq!(queries.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn hanging_renewal_ahead_delays_only_the_read_that_began_it() {
    let (own, queries) = answering(vec![Duration::ZERO, HOUR]);
    own.session(SOON).await.unwrap();
    // The last quarter of an hour before the session is 5 hours old.
    advance(290 * MINUTE).await;
    let start = Instant::now();
    let read = async || {
        own.renew_ahead(SOON).await;
        own.session(SOON).await.unwrap();
        start.elapsed()
    };
    assert_eq!(tokio::join!(read(), read()), (RENEWAL_WAIT, Duration::ZERO));
    assert_eq!(queries.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn slow_renewal_ahead_provides_the_next_session() {
    let (own, _) = answering(vec![Duration::ZERO, 5 * SECOND]);
    own.session(SOON).await.unwrap();
    advance(290 * MINUTE).await;
    own.renew_ahead(SOON).await;
    assert_eq!(key(&own).await, "ASIA0");
    sleep(3 * SECOND).await;
    assert_eq!(key(&own).await, "ASIA1");
}

#[tokio::test(start_paused = true)]
async fn rejected_session_is_replaced_by_a_renewal_that_runs() {
    let (own, queries) = answering(vec![Duration::ZERO, 5 * SECOND]);
    let first = own.session(SOON).await.unwrap();
    advance(290 * MINUTE).await;
    let start = Instant::now();
    own.renew_ahead(SOON).await;
    assert!(own.mark_rejected(&first, false));
    assert_eq!(key(&own).await, "ASIA1");
    assert_eq!((start.elapsed(), queries.load(Ordering::Relaxed)), (5 * SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn hanging_source_without_a_session_is_remembered() {
    let (own, queries) = answering(vec![HOUR; 9]);
    assert_eq!(own.session(SOON).await.unwrap_err().problem, CredentialsProblem::TimedOut);
    assert_eq!(own.session(SOON).await.unwrap_err().problem, CredentialsProblem::TimedOut);
    let start = Instant::now();
    for _ in 0..4 {
        sleep(SECOND).await;
        let failure = own.session(SOON).await.unwrap_err();
        assert_eq!(failure.problem, CredentialsProblem::TimedOut);
    }
    assert_eq!((start.elapsed(), queries.load(Ordering::Relaxed)), (4 * SECOND, 1));
    assert!(own.state().last_logged_cause.is_some(), "the failure is in the log");
}

#[tokio::test(start_paused = true)]
async fn query_outlives_the_deadline_of_its_request() {
    let (own, queries) = answering(vec![12 * SECOND]);
    assert_eq!(own.session(SOON).await.unwrap_err().problem, CredentialsProblem::TimedOut);
    let start = Instant::now();
    own.session(SOON).await.unwrap();
    assert_eq!((start.elapsed(), queries.load(Ordering::Relaxed)), (2 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn query_outlives_a_dropped_request() {
    let (own, queries) = answering(vec![3 * SECOND]);
    assert!(timeout(SECOND, own.session(SOON)).await.is_err());
    let start = Instant::now();
    own.session(SOON).await.unwrap();
    assert_eq!((start.elapsed(), queries.load(Ordering::Relaxed)), (2 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn source_recovers_while_requests_keep_arriving() {
    // The source hangs once. Then it takes longer than the time between two requests.
    let (own, queries) = answering(vec![HOUR, SECOND / 10]);
    let mut requests = Vec::new();
    for _ in 0..1_000 {
        let own = own.clone();
        requests.push(tokio::spawn(async move { own.session(SOON).await.is_ok() }));
        sleep(SECOND / 16).await;
    }
    let mut outcomes = Vec::new();
    for request in requests {
        outcomes.push(request.await.unwrap());
    }
    // The hang is over after 20 seconds, and its failure is remembered for 5 seconds.
    let recovered = outcomes.iter().position(|&succeeded| succeeded).unwrap();
    assert!((24 * 16..=26 * 16).contains(&recovered), "{recovered}");
    assert!(outcomes[recovered..].iter().all(|&succeeded| succeeded));
    assert_eq!(queries.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn query_that_panics_is_a_failure() {
    let queries = Arc::new(AtomicUsize::new(0));
    let count = queries.clone();
    let provider = provide_credentials_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(number > 0, "the provider panics");
            Ok(session(1, None))
        }
    });
    let own = own(provider, &Hours::default());
    assert_eq!(own.session(SOON).await.unwrap_err().problem, CredentialsProblem::SourceFailed);
    own.session(SOON).await.unwrap();
    assert_eq!(queries.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn person_has_minutes_to_confirm_the_first_session() {
    let (own, queries) = answering(vec![120 * SECOND]);
    let start = Instant::now();
    own.wait_for_first(300 * SECOND).await;
    own.session(SOON).await.unwrap();
    assert_eq!((start.elapsed(), queries.load(Ordering::Relaxed)), (120 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn request_reports_the_failure_of_a_source_waited_for() {
    let (own, queries) = answering(vec![HOUR; 9]);
    own.wait_for_first(300 * SECOND).await;
    let start = Instant::now();
    assert_eq!(own.session(SOON).await.unwrap_err().problem, CredentialsProblem::TimedOut);
    assert_eq!((start.elapsed(), queries.load(Ordering::Relaxed)), (Duration::ZERO, 1));
}
