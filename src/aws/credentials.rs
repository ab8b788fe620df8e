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
        if let Some(session) = self.sessions.iter_mut().find(|session| session.access_key_id == access_key_id) {
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
