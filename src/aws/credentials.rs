//! How old the operator's AWS session is, and new credentials before it is too old.
//!
//! Firehose makes its grant on the key with the caller's session, and AWS says not to start encryption with a session
//! of more than 6 hours
//! ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html)).
//! Credentials carry no time of issue, so a session counts from when the operator first saw it: it may be older, never
//! younger. This file never logs a secret, and never keeps more of one than the access key's id.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

/// Credentials of a session are handed on as expiring this long after they were first seen, so that the SDK's cache asks for new ones.
pub(super) const REFRESH_AFTER: Duration = Duration::from_hours(5);
/// No `StartDeliveryStreamEncryption` with a customer managed key goes out with a session older than this.
pub(super) const OLDEST_SESSION: Duration = Duration::from_hours(6);
/// A session that was handed on is asked for again this long before its expiry; the SDK's cache does it 10 s before.
const MARGIN: Duration = Duration::from_secs(10);
/// The sessions that are remembered. A provider hands on one at a time.
const REMEMBERED: usize = 16;

/// Tells the time.
pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A provider of credentials that knows how old their session is.
#[derive(Clone)]
pub(super) struct Sessions {
    provider: Arc<dyn ProvideCredentials>,
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    sessions: Vec<Session>,
    latest: Option<Latest>,
}

struct Session {
    access_key_id: String,
    first: SystemTime,
    last: SystemTime,
}

/// What was handed on last, which is what the SDK's cache holds.
#[derive(Clone, Copy)]
struct Latest {
    first_seen: Option<SystemTime>,
    expiry: Option<SystemTime>,
}

impl Sessions {
    /// Sessions of `provider`, dated by `clock`.
    pub(super) fn new(provider: impl ProvideCredentials + 'static, clock: Clock) -> Self {
        Self { provider: Arc::new(provider), clock, seen: Arc::default() }
    }

    /// How long ago the session was first seen whose credentials the next request will carry; nothing for credentials without a session.
    /// Asks the provider where nothing was handed on yet, or what was has expired.
    pub(super) async fn age(&self) -> Result<Option<Duration>, CredentialsError> {
        if !self.latest().is_some_and(|latest| self.lasts(latest)) {
            self.fetch().await?;
        }
        let first_seen = self.latest().and_then(|latest| latest.first_seen);
        Ok(first_seen.map(|first| (self.clock)().duration_since(first).unwrap_or_default()))
    }

    fn latest(&self) -> Option<Latest> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).latest
    }

    fn lasts(&self, latest: Latest) -> bool {
        latest.expiry.is_none_or(|expiry| (self.clock)() + MARGIN < expiry)
    }

    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let mut credentials = self.provider.provide_credentials().await?;
        let now = (self.clock)();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first_seen =
            credentials.session_token().is_some().then(|| seen.note(credentials.access_key_id(), now));
        if let Some(first) = first_seen {
            let cap = first + REFRESH_AFTER;
            let expiry = credentials.expiry().map_or(cap, |expiry| expiry.min(cap));
            *credentials.expiry_mut() = Some(expiry);
        }
        seen.latest = Some(Latest { first_seen, expiry: credentials.expiry() });
        Ok(credentials)
    }
}

impl Seen {
    /// When the session of `access_key_id` was first seen.
    fn note(&mut self, access_key_id: &str, now: SystemTime) -> SystemTime {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.access_key_id == access_key_id)
        {
            session.last = now;
            return session.first;
        }
        if self.sessions.len() == REMEMBERED {
            let stalest = (0..self.sessions.len()).min_by_key(|&at| self.sessions[at].last);
            stalest.map(|at| self.sessions.swap_remove(at));
        }
        self.sessions.push(Session { access_key_id: access_key_id.to_owned(), first: now, last: now });
        now
    }
}

impl ProvideCredentials for Sessions {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.fetch())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.provider.fallback_on_interrupt()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

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

    #[tokio::test]
    async fn credentials_without_a_session_have_no_age_and_keep_their_expiry() {
        let hours = Hours::default();
        let sessions = Sessions::new(Credentials::new("AKIA", "secret", None, None, "test"), hours.clock());
        assert_eq!(sessions.provide_credentials().await.unwrap().expiry(), None);
        hours.go_to(48);
        assert_eq!(sessions.age().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_session_expires_for_the_sdk_five_hours_after_it_was_first_seen_or_earlier() {
        for (own_expiry, handed_on) in [(None, 5), (Some(12), 5), (Some(1), 1)] {
            let hours = Hours::default();
            let own_expiry = own_expiry.map(|hours| SystemTime::UNIX_EPOCH + hours * HOUR);
            let sessions = Sessions::new(session(1, own_expiry), hours.clock());
            let credentials = sessions.provide_credentials().await.unwrap();
            assert_eq!(credentials.expiry(), Some(SystemTime::UNIX_EPOCH + handed_on * HOUR));
            assert_eq!(credentials.session_token(), Some("token"));
        }
    }

    #[tokio::test]
    async fn a_session_that_a_provider_hands_on_again_keeps_its_age() {
        let hours = Hours::default();
        let sessions = Sessions::new(session(1, None), hours.clock());
        for hour in 0..48 {
            hours.go_to(hour);
            assert_eq!(sessions.age().await.unwrap(), Some(HOUR * u32::try_from(hour).unwrap()));
        }
    }

    #[tokio::test]
    async fn a_provider_that_can_is_asked_for_a_new_session_before_the_old_one_is_too_old() {
        let hours = Hours::default();
        let made = hours.clone();
        // A new session whenever somebody asks, good for 12 hours.
        let provider = aws_credential_types::credential_fn::provide_credentials_fn(move || {
            let expiry = made.now() + 12 * HOUR;
            let id = made.0.load(Ordering::Relaxed);
            async move { Ok(session(id, Some(expiry))) }
        });
        let sessions = Sessions::new(provider, hours.clock());
        for hour in 0..48 {
            hours.go_to(hour);
            assert_eq!(sessions.age().await.unwrap(), Some(HOUR * u32::try_from(hour % 5).unwrap()));
        }
    }

    #[tokio::test]
    async fn a_session_in_use_is_not_forgotten_for_many_that_are_not() {
        let mut seen = Seen::default();
        let at = |hour: u32| SystemTime::UNIX_EPOCH + HOUR * hour;
        seen.note("ASIA-in-use", at(0));
        for hour in 1..100 {
            seen.note(&format!("ASIA{hour}"), at(hour));
            assert_eq!(seen.note("ASIA-in-use", at(hour)), at(0));
        }
        assert_eq!(seen.sessions.len(), REMEMBERED);
    }

    #[test]
    fn no_secret_is_in_the_debug_output() {
        let sessions = Sessions::new(session(1, None), Hours::default().clock());
        assert_eq!(format!("{sessions:?}"), "Sessions { .. }");
    }
}
