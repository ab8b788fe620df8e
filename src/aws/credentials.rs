//! The operator's own credentials: how old their session is, and new ones before it is too old.
//!
//! Firehose makes its grant on the key with the caller's session, and AWS says not to start encryption with a session
//! of more than 6 hours
//! ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html)).
//! Credentials carry no time of issue, so a session counts from when the operator first saw it: it may be older, never
//! younger. This file asks nobody but the provider, never logs a secret, and shows none.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::time::timeout;

use super::requests::DEADLINE;

/// A session is given up this long after it was first seen, so that the provider is asked for a new one.
pub(super) const REFRESH_AFTER: Duration = Duration::from_hours(5);
/// No `StartDeliveryStreamEncryption` with a customer managed key goes out with a session older than this.
pub(super) const OLDEST_SESSION: Duration = Duration::from_hours(6);
/// Credentials that say nothing of their end are asked for again after this long, as the SDK's own cache does it.
const NO_END: Duration = Duration::from_mins(15);
/// The sessions that are remembered. A provider hands on one at a time.
const REMEMBERED: usize = 16;

/// Tells the time.
pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What a request is signed with.
#[derive(Clone)]
pub(super) struct Session {
    /// The credentials.
    pub(super) credentials: Credentials,
    /// How old their session is, at least; nothing for credentials without a session.
    pub(super) age: Option<Duration>,
}

/// Credentials that are kept until others are to be asked for.
#[derive(Clone)]
pub(super) struct Kept {
    credentials: Credentials,
    since: Option<SystemTime>,
    until: SystemTime,
}

/// The operator's own credentials.
pub(super) struct Own {
    provider: SharedCredentialsProvider,
    clock: Clock,
    kept: tokio::sync::Mutex<Option<Kept>>,
    seen: Mutex<Seen>,
}

/// Every session that the provider handed on of late, by its access key's id.
#[derive(Default)]
struct Seen(Vec<Sighting>);

struct Sighting {
    access_key_id: String,
    first: SystemTime,
    last: SystemTime,
}

impl Kept {
    /// Credentials of a session that began at `since` and is to be kept until `until`.
    pub(super) fn new(credentials: Credentials, since: SystemTime, until: SystemTime) -> Self {
        Self { credentials, since: Some(since), until }
    }

    /// The session as it is at `now`, if it lasts for `lasting` more.
    pub(super) fn session(&self, now: SystemTime, lasting: Duration) -> Option<Session> {
        (now + lasting < self.until).then(|| self.session_at(now))
    }

    /// The session as it is at `now`.
    pub(super) fn session_at(&self, now: SystemTime) -> Session {
        let age = self.since.map(|since| now.duration_since(since).unwrap_or_default());
        Session { credentials: self.credentials.clone(), age }
    }
}

impl Own {
    /// The credentials of `provider`, dated by `clock`.
    pub(super) fn new(provider: SharedCredentialsProvider, clock: Clock) -> Self {
        Self { provider, clock, kept: tokio::sync::Mutex::default(), seen: Mutex::default() }
    }

    /// The session to sign with: one that lasts for `lasting` more, wherever the provider has such a one. One request at a
    /// time asks the provider, and none waits for it longer than for AWS.
    pub(super) async fn session(&self, lasting: Duration) -> Result<Session, CredentialsError> {
        let in_time = timeout(DEADLINE, async {
            let mut kept = self.kept.lock().await;
            if let Some(session) = kept.as_ref().and_then(|kept| kept.session((self.clock)(), lasting)) {
                return Ok(session);
            }
            let fresh = self.dated(self.provider.provide_credentials().await?);
            Ok(kept.insert(fresh).session_at((self.clock)()))
        });
        match in_time.await {
            Ok(outcome) => outcome,
            // The instance's own credentials are good for longer than they say, while their source does not answer.
            Err(_) => match AsRef::<dyn ProvideCredentials>::as_ref(&self.provider).fallback_on_interrupt() {
                Some(credentials) => Ok(self.dated(credentials).session_at((self.clock)())),
                None => Err(CredentialsError::provider_timed_out(DEADLINE)),
            },
        }
    }

    fn dated(&self, credentials: Credentials) -> Kept {
        let now = (self.clock)();
        let since = credentials.session_token().is_some().then(|| {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.note(credentials.access_key_id(), now)
        });
        let ends = [credentials.expiry(), since.map(|since| since + REFRESH_AFTER)];
        let until = ends.into_iter().flatten().min().unwrap_or(now + NO_END);
        Kept { credentials, since, until }
    }
}

impl Seen {
    /// When the session of `access_key_id` was first seen.
    fn note(&mut self, access_key_id: &str, now: SystemTime) -> SystemTime {
        let Self(sightings) = self;
        if let Some(known) = sightings.iter_mut().find(|known| known.access_key_id == access_key_id) {
            known.last = now;
            return known.first;
        }
        if sightings.len() == REMEMBERED {
            let stalest = (0..sightings.len()).min_by_key(|&at| sightings[at].last);
            stalest.map(|at| sightings.swap_remove(at));
        }
        sightings.push(Sighting { access_key_id: access_key_id.to_owned(), first: now, last: now });
        now
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("age", &self.age).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
