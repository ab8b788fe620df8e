//! The operator's own credentials: how old their session is, and new ones before it is too old.
//!
//! Firehose makes its grant on the key with the caller's session, and AWS says not to start encryption with a session
//! of more than 6 hours
//! ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html)).
//! Credentials carry no time of issue, so a session counts from when the operator first saw it: it may be older, never
//! younger. This file asks nobody but the provider, never logs a secret, and shows none.
//!
//! Credentials are given up before their time where a file that they come from has changed, and where AWS does not accept
//! them any more. The provider is then made anew, for what it has read it keeps.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use jiff::SignedDuration;
use tokio::time::timeout;
use tracing::{info, warn};

use super::faults::NoSession;
use super::port::Signer;
use super::requests::DEADLINE;
use super::signable::unsignable;
use super::source::{Contents, Source};
use crate::model::credentials::Missing;

/// A session is given up this long after it was first seen, so that the provider is asked for a new one.
pub(super) const REFRESH_AFTER: Duration = Duration::from_hours(5);
/// No `StartDeliveryStreamEncryption` with a customer managed key goes out with a session older than this.
pub(super) const OLDEST_SESSION: Duration = Duration::from_hours(6);
/// Credentials that say nothing of their end are asked for again after this long, as the SDK's own cache does it.
const NO_END: Duration = Duration::from_mins(15);
/// Files are read no more often than this.
const FILES_READ_EVERY: Duration = Duration::from_secs(5);
/// A failure is handed on for this long, before the source is asked again: every visit of every resource asks.
const FAILURE_HOLDS: Duration = Duration::from_secs(5);
/// Credentials that AWS does not accept are given up no more often than this.
const GIVEN_UP_EVERY: Duration = Duration::from_mins(1);
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

/// What is kept for one principal.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) kept: Option<Kept>,
    /// When they were last given up because AWS did not accept them.
    given_up: Option<SystemTime>,
}

/// The operator's own credentials.
pub(super) struct Own {
    source: Source,
    clock: Clock,
    state: tokio::sync::Mutex<State>,
    provider: Mutex<Option<SharedCredentialsProvider>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct State {
    slot: Slot,
    /// What the files held when the provider was made.
    contents: Option<Contents>,
    /// When the files were last read.
    read: Option<SystemTime>,
    /// The files have changed, and the credentials are still those of before.
    is_stale: bool,
    /// The last failure, and when it came.
    failed: Option<(SystemTime, NoSession)>,
    /// What the log was told last of a failure.
    told: Option<String>,
}

/// Every session that the provider handed on of late, by its access key's id.
#[derive(Default)]
struct Seen(Vec<Sighting>);

struct Sighting {
    access_key_id: String,
    first: SystemTime,
    last: SystemTime,
}

impl Session {
    /// What the port calls it: without what is secret.
    pub(super) fn signer(&self) -> Signer {
        Signer {
            access_key_id: self.credentials.access_key_id().to_owned(),
            session_age: self.age.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX)),
        }
    }

    /// Whether a request signed with the one is as good as one signed with the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        is_same(&self.credentials, &other.credentials)
    }
}

fn is_same(one: &Credentials, other: &Credentials) -> bool {
    let parts = |of: &Credentials| {
        [of.access_key_id(), of.secret_access_key(), of.session_token().unwrap_or_default()]
            .map(str::to_owned)
    };
    parts(one) == parts(other)
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

impl Slot {
    /// AWS did not accept `session`. Gives it up, unless another one was given up shortly before; whether what is asked for
    /// next may be another one.
    pub(super) fn give_up(&mut self, session: &Session, now: SystemTime) -> bool {
        if !self.kept.as_ref().is_some_and(|kept| is_same(&kept.credentials, &session.credentials)) {
            return true;
        }
        if is_within(GIVEN_UP_EVERY, self.given_up, now) {
            return false;
        }
        (self.kept, self.given_up) = (None, Some(now));
        true
    }
}

/// Whether `then` was less than so long ago. What a clock dates ahead of itself was not.
fn is_within(span: Duration, then: Option<SystemTime>, now: SystemTime) -> bool {
    then.and_then(|then| now.duration_since(then).ok()).is_some_and(|passed| passed < span)
}

impl Own {
    /// The credentials of `source`, dated by `clock`.
    pub(super) fn new(source: impl Into<Source>, clock: Clock) -> Self {
        Self {
            source: source.into(),
            clock,
            state: tokio::sync::Mutex::default(),
            provider: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// The session to sign with: one that lasts for `lasting` more, wherever the provider has such a one. One request at a
    /// time asks the provider, and none waits for it longer than for AWS.
    pub(super) async fn session(&self, lasting: Duration) -> Result<Session, NoSession> {
        let in_time = timeout(DEADLINE, async {
            let mut state = self.state.lock().await;
            let now = (self.clock)();
            self.read_files(&mut state, now).await;
            let kept = state.slot.kept.as_ref().and_then(|kept| kept.session(now, lasting));
            if let Some(session) = &kept
                && !state.is_stale
            {
                return Ok(session.clone());
            }
            let failed = state.failed.as_ref().filter(|(at, _)| is_within(FAILURE_HOLDS, Some(*at), now));
            let fresh = match failed {
                Some((_, failure)) => Err(failure.clone()),
                None => self.ask(&mut state, now).await,
            };
            // Half a file may have been read: what was good before is good for a while.
            fresh.or_else(|failure| kept.ok_or(failure))
        });
        match in_time.await {
            Ok(outcome) => outcome,
            // The instance's own credentials are good for longer than they say, while their source does not answer.
            Err(_) => match self.provider().as_ref().and_then(fallback) {
                Some(credentials) => Ok(self.dated(credentials).session_at((self.clock)())),
                None => Err((&CredentialsError::provider_timed_out(DEADLINE)).into()),
            },
        }
    }

    /// AWS did not accept `session`. Whether the next one may be another.
    pub(super) async fn rejected(&self, session: &Session) -> bool {
        let mut state = self.state.lock().await;
        let had_some = state.slot.kept.is_some();
        let may_help = state.slot.give_up(session, (self.clock)());
        if had_some && state.slot.kept.is_none() {
            *self.provider() = None;
            state.failed = None;
        }
        may_help
    }

    /// Notices files that have changed since the provider was made.
    async fn read_files(&self, state: &mut State, now: SystemTime) {
        if is_within(FILES_READ_EVERY, state.read, now) {
            return;
        }
        state.read = Some(now);
        let contents = self.source.contents().await;
        if state.contents.as_ref().is_some_and(|before| *before != contents) {
            info!("a file with AWS credentials or settings has changed, and is read anew");
            (state.is_stale, state.failed) = (true, None);
            *self.provider() = None;
        }
        state.contents = Some(contents);
    }

    async fn ask(&self, state: &mut State, now: SystemTime) -> Result<Session, NoSession> {
        let known = self.provider().clone();
        let provider = match known {
            Some(provider) => provider,
            None => self.source.provider().await,
        };
        *self.provider() = Some(provider.clone());
        let answer = provider.provide_credentials().await;
        let answer = answer.map_err(|error| self.failure(&error)).and_then(|credentials| {
            match unsignable(&credentials) {
                Some(cause) => Err(NoSession { missing: Missing::Unsignable, cause }),
                None => Ok(credentials),
            }
        });
        match answer {
            Ok(credentials) => {
                if state.told.take().is_some() {
                    info!("AWS credentials can be had again");
                }
                (state.is_stale, state.failed) = (false, None);
                let fresh = self.dated(credentials);
                Ok(state.slot.kept.insert(fresh).session_at((self.clock)()))
            }
            Err(failure) => {
                // What failed once may fail for good: the SDK's reader of profiles does.
                *self.provider() = None;
                if state.told.as_ref() != Some(&failure.cause) {
                    warn!(
                        code = failure.missing.code(),
                        cause = failure.cause,
                        "there are no AWS credentials"
                    );
                    state.told = Some(failure.cause.clone());
                }
                state.failed = Some((now, failure.clone()));
                Err(failure)
            }
        }
    }

    fn failure(&self, error: &CredentialsError) -> NoSession {
        let failure = NoSession::from(error);
        match self.source.profile() {
            Some(profile) if failure.missing == Missing::NotFound => NoSession {
                missing: Missing::Misconfigured,
                cause: format!("the profile {profile:?} of AWS_PROFILE provides none: {}", failure.cause),
            },
            _ => failure,
        }
    }

    fn provider(&self) -> MutexGuard<'_, Option<SharedCredentialsProvider>> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner)
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

fn fallback(provider: &SharedCredentialsProvider) -> Option<Credentials> {
    AsRef::<dyn ProvideCredentials>::as_ref(provider).fallback_on_interrupt()
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
