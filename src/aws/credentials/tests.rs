//! The age of a session, and the times at which the provider is queried for another one, hour by hour.

mod rejection;
mod renewal;
mod slow_source;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::future;

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_secs(10);

fn session(id: u64, expiry: Option<SystemTime>) -> Credentials {
    Credentials::new(format!("ASIA{id}"), "secret", Some("token".to_owned()), expiry, "test")
}

/// A clock that a test moves, in hours.
#[derive(Clone, Default)]
struct Hours(Arc<AtomicU64>);

impl Hours {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * u32::try_from(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn go_to(&self, hours: u64) {
        self.0.store(hours, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let hours = self.clone();
        Arc::new(move || hours.now())
    }
}

fn own(provider: impl ProvideCredentials + 'static, hours: &Hours) -> BaseCredentials {
    BaseCredentials::new(SharedCredentialsProvider::new(provider), hours.clock())
}

async fn age(own: &BaseCredentials) -> Option<Duration> {
    own.session(SOON).await.unwrap().age
}

#[tokio::test]
async fn credentials_without_session_have_no_age() {
    let hours = Hours::default();
    let own = own(Credentials::new("AKIA", "secret", None, None, "test"), &hours);
    for hour in [0, 48] {
        hours.go_to(hour);
        assert_eq!(age(&own).await, None);
    }
}

#[tokio::test]
async fn session_is_renewed_after_five_hours_or_at_its_expiry() {
    for (ends_after, asked_at) in
        [(None, vec![0, 5, 10]), (Some(12), vec![0, 5, 10]), (Some(3), vec![0, 3, 6, 9])]
    {
        let hours = Hours::default();
        let (made, asked) = (hours.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = asked.clone();
        let own = own(
            provide_credentials_fn(move || {
                let hour = made.0.load(Ordering::Relaxed);
                noted.lock().unwrap().push(hour);
                let expiry = ends_after.map(|hours| made.now() + HOUR * hours);
                async move { Ok(session(hour, expiry)) }
            }),
            &hours,
        );
        for hour in 0..12 {
            hours.go_to(hour);
            let since = *asked_at.iter().rfind(|&&asked| asked <= hour).unwrap();
            assert_eq!(age(&own).await, Some(HOUR * u32::try_from(hour - since).unwrap()));
        }
        assert_eq!(*asked.lock().unwrap(), asked_at);
    }
}

#[tokio::test]
async fn credentials_without_expiry_are_requested_again() {
    let hours = Hours::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let own = own(
        provide_credentials_fn(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(Credentials::new("AKIA", "secret", None, None, "test")) }
        }),
        &hours,
    );
    for (hour, times) in [(0, 1), (0, 1), (1, 2)] {
        hours.go_to(hour);
        own.session(SOON).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), times);
    }
}

#[tokio::test]
async fn session_that_is_returned_again_keeps_its_age() {
    let hours = Hours::default();
    let own = own(session(1, None), &hours);
    for hour in 0..48 {
        hours.go_to(hour);
        assert_eq!(age(&own).await, Some(HOUR * u32::try_from(hour).unwrap()));
    }
}

/// Returns the credentials of a source that always returns the same session, which expires after `lifetime`, and the
/// number of queries.
fn same_session(seconds: &Seconds, lifetime: Duration) -> (BaseCredentials, Arc<AtomicUsize>) {
    let queries = Arc::new(AtomicUsize::new(0));
    let (expiry, count) = (seconds.clock()() + lifetime, queries.clone());
    let provider = provide_credentials_fn(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(session(0, Some(expiry))) }
    });
    (BaseCredentials::new(SharedCredentialsProvider::new(provider), seconds.clock()), queries)
}

#[tokio::test]
async fn session_that_is_returned_again_is_queried_once_a_minute() {
    // Older than 5 hours, and within a minute of its expiry.
    for (lifetime, age) in [(12 * HOUR, 6 * HOUR), (HOUR, Duration::from_secs(3_550))] {
        let seconds = Seconds::default();
        let (own, queries) = same_session(&seconds, lifetime);
        own.session(SOON).await.unwrap();
        seconds.pass(age.as_secs());
        for _ in 0..30 {
            own.session(Duration::from_mins(1)).await.unwrap();
            seconds.pass(1);
        }
        assert_eq!(queries.load(Ordering::Relaxed), 2, "{lifetime:?}");
        seconds.pass(40);
        own.session(SOON).await.unwrap();
        assert_eq!(queries.load(Ordering::Relaxed), 3, "{lifetime:?}");
    }
}

#[tokio::test]
async fn expired_session_that_is_returned_again_is_queried_rarely() {
    let seconds = Seconds::default();
    let (own, queries) = same_session(&seconds, HOUR);
    own.session(SOON).await.unwrap();
    seconds.pass(7200);
    for _ in 0..30 {
        for _ in 0..20 {
            own.session(SOON).await.unwrap();
        }
        seconds.pass(1);
    }
    // One query in each 5 seconds.
    assert_eq!(queries.load(Ordering::Relaxed), 7);
}

#[tokio::test]
async fn longer_required_lifetime_requests_a_new_session() {
    let hours = Hours::default();
    let made = Arc::new(AtomicU64::new(0));
    let counted = made.clone();
    let provider = provide_credentials_fn(move || {
        let id = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(session(id, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(30)))) }
    });
    let own = own(provider, &hours);
    for (min_lifetime, asked) in [(SOON, 1), (SOON, 1), (Duration::from_mins(1), 2), (SOON, 2)] {
        own.session(min_lifetime).await.unwrap();
        assert_eq!(made.load(Ordering::Relaxed), asked, "{min_lifetime:?}");
    }
}

/// A provider that never responds, and may have fallback credentials.
#[derive(Debug)]
struct Silent(Option<Credentials>);

impl ProvideCredentials for Silent {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(std::future::pending())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn silent_provider_times_out_after_the_aws_deadline() {
    let start = tokio::time::Instant::now();
    let silent = own(Silent(None), &Hours::default());
    let (one, other) = tokio::join!(silent.session(SOON), silent.session(SOON));
    assert!(one.is_err() && other.is_err());
    assert_eq!(start.elapsed(), DEADLINE);
    let of_an_instance = own(Silent(Some(session(7, None))), &Hours::default());
    assert_eq!(of_an_instance.session(SOON).await.unwrap().credentials.access_key_id(), "ASIA7");
}

#[tokio::test(start_paused = true)]
async fn session_is_used_until_its_expiry_while_the_source_fails() {
    for is_silent in [false, true] {
        for (lifetime, last_hour) in [(Some(12), 11), (Some(3), 2), (None, 4)] {
            let hours = Hours::default();
            let at = hours.clone();
            let own = own(
                provide_credentials_fn(move || {
                    let (hour, now) = (at.0.load(Ordering::Relaxed), at.now());
                    async move {
                        match hour {
                            0 => Ok(session(0, lifetime.map(|hours| now + HOUR * hours))),
                            _ if is_silent => std::future::pending().await,
                            _ => Err(CredentialsError::provider_error("the agent restarts")),
                        }
                    }
                }),
                &hours,
            );
            for hour in 0..14 {
                hours.go_to(hour);
                let start = tokio::time::Instant::now();
                let outcome = own.session(SOON).await;
                assert!(start.elapsed() <= DEADLINE);
                let age = outcome.ok().map(|session| session.age.unwrap());
                let expected = (hour <= last_hour).then(|| HOUR * u32::try_from(hour).unwrap());
                assert_eq!(age, expected, "{is_silent} {lifetime:?} {hour}");
            }
        }
    }
}

/// A source that reads a file: every provider that it creates has read the file once.
struct File {
    path: std::path::PathBuf,
    made: Arc<AtomicUsize>,
}

impl File {
    fn new(name: &str, key: &str) -> Self {
        let path = std::env::temp_dir().join(format!("credentials-{}-{name}", std::process::id()));
        std::fs::write(&path, key).unwrap();
        Self { path, made: Arc::default() }
    }

    fn own(&self, clock: Clock) -> BaseCredentials {
        let (path, made) = (self.path.clone(), self.made.clone());
        let provider = move || -> futures_util::future::BoxFuture<'static, _> {
            let content = std::fs::read_to_string(&path).unwrap_or_default();
            made.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                SharedCredentialsProvider::new(provide_credentials_fn(move || {
                    let (key, token) = content.split_once(' ').unwrap_or((content.as_str(), ""));
                    let token = (!token.is_empty()).then(|| token.to_owned());
                    let read = Credentials::new(key, "secret", token, None, "file");
                    let read =
                        if key.is_empty() { Err(CredentialsError::not_loaded("empty")) } else { Ok(read) };
                    async move { read }
                }))
            })
        };
        let path = self.path.to_str().unwrap().to_owned();
        let environment = move |name: &str| (name == "AWS_SHARED_CREDENTIALS_FILE").then(|| path.clone());
        BaseCredentials::new(CredentialsSource::new(Box::new(provider), environment), clock)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A clock that a test moves, in seconds.
#[derive(Clone, Default)]
struct Seconds(Arc<AtomicU64>);

impl Seconds {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let seconds = self.clone();
        Arc::new(move || {
            SystemTime::UNIX_EPOCH
                + Duration::from_hours(1_000)
                + Duration::from_secs(seconds.0.load(Ordering::Relaxed))
        })
    }
}

async fn key(own: &BaseCredentials) -> String {
    own.session(SOON).await.unwrap().credentials.access_key_id().to_owned()
}

#[tokio::test]
async fn changed_credentials_file_is_reloaded_within_seconds() {
    let (file, seconds) = (File::new("changes", "AKIA1"), Seconds::default());
    let own = file.own(seconds.clock());
    assert_eq!(key(&own).await, "AKIA1");
    std::fs::write(&file.path, "AKIA2").unwrap();
    seconds.pass(5);
    assert_eq!(key(&own).await, "AKIA2");
    // Another file is renamed over it, as for a Secret of Kubernetes; here with an older time of
    // modification.
    let other = file.path.with_extension("next");
    std::fs::write(&other, "AKIA3").unwrap();
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    std::fs::rename(&other, &file.path).unwrap();
    seconds.pass(5);
    assert_eq!(key(&own).await, "AKIA3");
    for _ in 0..20 {
        seconds.pass(5);
        assert_eq!(key(&own).await, "AKIA3");
    }
    assert_eq!(file.made.load(Ordering::Relaxed), 3, "a file that stays is not read into a new provider");
}

#[tokio::test]
async fn half_written_file_keeps_previous_credentials() {
    let (file, seconds) = (File::new("half", "AKIA1"), Seconds::default());
    let own = file.own(seconds.clock());
    assert_eq!(key(&own).await, "AKIA1");
    std::fs::write(&file.path, "").unwrap();
    seconds.pass(5);
    assert_eq!(key(&own).await, "AKIA1");
    std::fs::write(&file.path, "AKIA2").unwrap();
    seconds.pass(5);
    assert_eq!(key(&own).await, "AKIA2");
}

#[tokio::test]
async fn session_age_is_kept_when_the_file_changes() {
    let (file, seconds) = (File::new("same", "ASIA1 token"), Seconds::default());
    let own = file.own(seconds.clock());
    assert_eq!(age(&own).await, Some(Duration::ZERO));
    seconds.pass(60);
    // Other settings in the same file, or the same content in another file.
    std::fs::write(&file.path, "ASIA1 token2").unwrap();
    assert_eq!(age(&own).await, Some(Duration::from_mins(1)));
}

#[tokio::test]
async fn rejected_credentials_are_replaced_once_a_minute() {
    let seconds = Seconds::default();
    let made = Arc::new(AtomicU64::new(0));
    let counted = made.clone();
    let provider = provide_credentials_fn(move || {
        let id = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(session(id, None)) }
    });
    let own = BaseCredentials::new(SharedCredentialsProvider::new(provider), seconds.clock());
    let first = own.session(SOON).await.unwrap();
    assert!(own.mark_rejected(&first, false));
    let second = own.session(SOON).await.unwrap();
    assert_eq!(second.credentials.access_key_id(), "ASIA1");
    // A late rejection of the first session does not affect the second one.
    assert!(own.mark_rejected(&first, false));
    for _ in 0..59 {
        seconds.pass(1);
        assert!(!own.mark_rejected(&second, false));
        assert_eq!(key(&own).await, "ASIA1");
    }
    seconds.pass(1);
    assert!(own.mark_rejected(&second, false));
    assert_eq!(key(&own).await, "ASIA2");
    assert_eq!(made.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn failing_source_is_queried_once_in_five_seconds() {
    let seconds = Seconds::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let provider = provide_credentials_fn(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err(CredentialsError::provider_error("the token has expired: run aws sso login")) }
    });
    let own = BaseCredentials::new(SharedCredentialsProvider::new(provider), seconds.clock());
    for _ in 0..10 {
        let failure = own.session(SOON).await.unwrap_err();
        assert_eq!(failure.problem, CredentialsProblem::SourceFailed);
        assert!(failure.cause.ends_with("run aws sso login"), "{}", failure.cause);
        seconds.pass(1);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn unsignable_credentials_are_not_returned() {
    for (id, secret, token) in
        [("AKIA\n", "secret", None), ("AKIA", "secret\n", None), ("ASIA", "secret", Some("token\r\n"))]
    {
        let broken = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
        let failure = own(broken, &Hours::default()).session(SOON).await.unwrap_err();
        assert_eq!(failure.problem, CredentialsProblem::Unsignable);
        assert!(failure.cause.contains("contains a line break"), "{}", failure.cause);
    }
}

#[tokio::test]
async fn profile_without_credentials_is_named_in_the_error() {
    let make = || -> futures_util::future::BoxFuture<'static, _> {
        let nothing = provide_credentials_fn(|| async { Err(CredentialsError::not_loaded("nothing")) });
        Box::pin(async move { SharedCredentialsProvider::new(nothing) })
    };
    let environment = |name: &str| (name == "AWS_PROFILE").then(|| "prod".to_owned());
    let own =
        BaseCredentials::new(CredentialsSource::new(Box::new(make), environment), Hours::default().clock());
    let failure = own.session(SOON).await.unwrap_err();
    assert_eq!(failure.problem, CredentialsProblem::Misconfigured);
    assert!(failure.cause.starts_with("the profile \"prod\" of AWS_PROFILE"), "{}", failure.cause);
}

#[test]
fn session_in_use_is_not_evicted_by_unused_ones() {
    let mut history = SessionHistory::default();
    let at = |hour: u32| SystemTime::UNIX_EPOCH + HOUR * hour;
    history.first_received_at("ASIA-in-use", at(0));
    for hour in 1..100 {
        history.first_received_at(&format!("ASIA{hour}"), at(hour));
        assert_eq!(history.first_received_at("ASIA-in-use", at(hour)), at(0));
    }
    assert_eq!(history.0.len(), MAX_TRACKED_SESSIONS);
}

#[tokio::test]
async fn debug_output_contains_no_secret() {
    let session = own(session(1, None), &Hours::default()).session(SOON).await.unwrap();
    assert_eq!(format!("{session:?}"), "Session { age: Some(0ns), .. }");
}
