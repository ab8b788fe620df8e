//! A session that AWS rejects, although it may be valid: for example because a region is not enabled.

use super::*;

/// Returns credentials with a clock, whose source answers each query with the next of `answers`, and then with the last
/// one. Also returns the number of queries.
fn answering(answers: &[Option<u64>]) -> (BaseCredentials, Seconds, Arc<AtomicUsize>) {
    let (seconds, queries) = (Seconds::default(), Arc::new(AtomicUsize::new(0)));
    let (answers, count) = (answers.to_vec(), queries.clone());
    let expiry = seconds.clock()() + 3 * HOUR;
    let provider = provide_credentials_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let answer = answers[number.min(answers.len() - 1)];
        let answer = answer.map(|id| session(id, Some(expiry)));
        async move { answer.ok_or_else(|| CredentialsError::provider_error("the agent restarts")) }
    });
    (BaseCredentials::new(SharedCredentialsProvider::new(provider), seconds.clock()), seconds, queries)
}

#[tokio::test]
async fn rejected_session_stays_in_use_while_the_source_fails() {
    let (own, seconds, _) = answering(&[Some(0), None, None, Some(1)]);
    let first = own.session(SOON).await.unwrap();
    assert!(own.mark_rejected(&first, false));
    for _ in 0..2 {
        assert_eq!(key(&own).await, "ASIA0");
    }
    seconds.pass(5);
    assert_eq!(key(&own).await, "ASIA0", "the source is queried, and no request waits for it");
    tokio::task::yield_now().await;
    seconds.pass(5);
    assert_eq!(key(&own).await, "ASIA0");
    tokio::task::yield_now().await;
    assert_eq!(key(&own).await, "ASIA1");
}

#[tokio::test]
async fn session_that_the_source_returns_again_is_kept_a_minute() {
    let (own, seconds, queries) = answering(&[Some(0)]);
    let first = own.session(SOON).await.unwrap();
    for minute in 1..4 {
        assert!(own.mark_rejected(&first, false));
        for _ in 0..60 {
            assert_eq!(key(&own).await, "ASIA0");
            assert!(!own.mark_rejected(&first, false));
            seconds.pass(1);
        }
        assert_eq!(queries.load(Ordering::Relaxed), 1 + minute);
    }
}

#[tokio::test]
async fn rejection_after_an_unchanged_renewal_queries_nothing() {
    let (own, seconds, queries) = answering(&[Some(0)]);
    let first = own.session(SOON).await.unwrap();
    // The last 10 seconds of the session: the source is queried again, and returns the same one.
    seconds.pass(3 * 60 * 60 - 5);
    assert_eq!(key(&own).await, "ASIA0");
    assert_eq!(queries.load(Ordering::Relaxed), 2);
    assert!(!own.mark_rejected(&first, false));
}

#[tokio::test]
async fn session_is_kept_while_another_region_accepts_it() {
    let (own, seconds, queries) = answering(&[Some(0), Some(1)]);
    let first = own.session(SOON).await.unwrap();
    for _ in 0..10 {
        own.mark_accepted(&first);
        seconds.pass(30);
        assert!(!own.mark_rejected(&first, true));
        assert_eq!(key(&own).await, "ASIA0");
    }
    assert_eq!(queries.load(Ordering::Relaxed), 1);
    seconds.pass(60);
    assert!(own.mark_rejected(&first, true), "no region accepts it any more");
    assert_eq!(key(&own).await, "ASIA1");
    own.mark_accepted(&first);
    let second = own.session(SOON).await.unwrap();
    seconds.pass(60);
    assert!(own.mark_rejected(&second, true), "the earlier session was accepted");
}

#[tokio::test]
async fn accepted_session_that_expires_is_replaced_at_once() {
    let (own, _, _) = answering(&[Some(0), Some(1)]);
    let first = own.session(SOON).await.unwrap();
    own.mark_accepted(&first);
    assert!(own.mark_rejected(&first, false));
    assert_eq!(key(&own).await, "ASIA1");
}
