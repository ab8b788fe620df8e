//! Another session ahead of the time at which it is needed: when the source is queried, and how often.

use std::ops::Range;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// Returns credentials whose source returns another session for each query, but fails for the numbers in `failing`. Each
/// session expires after `lifetime`. Also returns the number of queries.
fn answering(
    seconds: &Seconds,
    lifetime: Option<Duration>,
    failing: Range<usize>,
) -> (BaseCredentials, Arc<AtomicUsize>) {
    let queries = Arc::new(AtomicUsize::new(0));
    let (now, count) = (seconds.clock(), queries.clone());
    let provider = provide_credentials_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let answer = if failing.contains(&number) {
            Err(CredentialsError::provider_error("the agent restarts"))
        } else {
            Ok(session(number as u64, lifetime.map(|lifetime| now() + lifetime)))
        };
        async move { answer }
    });
    (BaseCredentials::new(SharedCredentialsProvider::new(provider), seconds.clock()), queries)
}

/// Returns the access key id with which a read is signed.
async fn read(own: &BaseCredentials) -> String {
    own.renew_ahead(MINUTE).await;
    own.session(MINUTE).await.unwrap().credentials.access_key_id().to_owned()
}

#[tokio::test]
async fn session_is_renewed_a_quarter_or_15_minutes_ahead() {
    for (lifetime, renewed_at) in [
        (Some(20 * MINUTE), 15 * MINUTE),
        (Some(HOUR), 45 * MINUTE),
        (Some(3 * HOUR), 165 * MINUTE),
        (Some(12 * HOUR), 285 * MINUTE),
        (None, 285 * MINUTE),
    ] {
        let seconds = Seconds::default();
        let (own, queries) = answering(&seconds, lifetime, 0..0);
        assert_eq!(read(&own).await, "ASIA0");
        seconds.pass(renewed_at.as_secs() - 1);
        assert_eq!(read(&own).await, "ASIA0", "{lifetime:?}");
        seconds.pass(1);
        // A call renews nothing.
        assert_eq!(key(&own).await, "ASIA0", "{lifetime:?}");
        assert_eq!(read(&own).await, "ASIA1", "{lifetime:?}");
        assert_eq!((read(&own).await.as_str(), queries.load(Ordering::Relaxed)), ("ASIA1", 2));
    }
}

#[tokio::test]
async fn short_session_is_not_renewed_for_each_request() {
    // The first one is renewed after 6 of its 8 minutes. A quarter of the second one is less than a read requires.
    for (lifetime, time) in [(8 * MINUTE, HOUR), (2 * MINUTE, 10 * MINUTE)] {
        let seconds = Seconds::default();
        let (own, queries) = answering(&seconds, Some(lifetime), 0..0);
        for _ in 0..time.as_secs() {
            read(&own).await;
            seconds.pass(1);
        }
        assert_eq!(queries.load(Ordering::Relaxed), 10, "{lifetime:?}");
    }
}

#[tokio::test]
async fn unchanged_session_is_not_renewed_for_each_request() {
    let seconds = Seconds::default();
    let (own, queries) = same_session(&seconds, HOUR);
    for _ in 0..59 * 60 {
        read(&own).await;
        seconds.pass(1);
    }
    // At its begin, 15 minutes before its end, and when a quarter of these 15 minutes was left.
    assert_eq!(queries.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn failed_renewal_ahead_keeps_the_session_for_a_minute() {
    let seconds = Seconds::default();
    let (own, queries) = answering(&seconds, Some(HOUR), 1..3);
    read(&own).await;
    seconds.pass(45 * 60);
    for failed in 1..3 {
        for _ in 0..60 {
            assert_eq!(read(&own).await, "ASIA0");
            assert_eq!(queries.load(Ordering::Relaxed), 1 + failed);
            seconds.pass(1);
        }
    }
    assert_eq!(read(&own).await, "ASIA3");
    assert_eq!(queries.load(Ordering::Relaxed), 4);
}
