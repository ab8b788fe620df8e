//! The operator's own credentials: the age of their session, and new ones before the session is too old.
//!
//! Firehose creates its grant on the key with the caller's session. For this to succeed, AWS requires session
//! credentials of at most 6 hours
//! ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html)).
//! Credentials carry no time of issue, so the age of a session counts from when the operator first received
//! it: the session may be older, never younger. This file sends requests to the provider only, and never logs
//! or prints a secret.
//!
//! Credentials are replaced early if a file that they come from has changed, or if AWS no longer accepts
//! them. The provider is then created again, because it caches the files that it has read. If the provider fails,
//! the previous credentials stay in use until they expire. A session of 6 hours or more then still signs reads;
//! only `StartDeliveryStreamEncryption` with a customer managed key is not sent with it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use jiff::SignedDuration;
use stream_encryption_core::controller::stream_api::Signer;
use stream_encryption_core::model::credentials::CredentialsProblem;
use tokio::time::timeout;
use tracing::{info, warn};

use super::error::NoSession;
use super::request_sender::DEADLINE;
use super::signable::unsignable;
use super::source::{Contents, Source};

/// Time after a session was first received at which the provider is queried for a new one.
pub(super) const REFRESH_AFTER: Duration = Duration::from_hours(5);
/// Maximum age of a session for `StartDeliveryStreamEncryption` with a customer managed key.
pub(super) const MAX_SESSION_AGE: Duration = Duration::from_hours(6);
/// Time after which credentials without an expiry are requested again, as in the SDK's own cache.
const REFRESH_WITHOUT_EXPIRY: Duration = Duration::from_mins(15);
/// Minimum time between two reads of the files.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time for which a failure is cached before the source is queried again: every reconciliation of every
/// resource needs a session.
const FAILURE_CACHE_TTL: Duration = Duration::from_secs(5);
/// Minimum time between two discards of credentials that AWS does not accept.
const MIN_DISCARD_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum number of sessions whose age is tracked. A provider returns one at a time.
const MAX_TRACKED_SESSIONS: usize = 16;

/// A function that returns the current time.
pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The credentials to sign a request with.
#[derive(Clone)]
pub(super) struct Session {
    /// The credentials.
    pub(super) credentials: Credentials,
    /// The age of their session, as a lower bound; `None` for credentials without a session.
    pub(super) age: Option<Duration>,
}

/// Credentials that are cached until new ones must be requested.
#[derive(Clone)]
pub(super) struct CachedCredentials {
    credentials: Credentials,
    since: Option<SystemTime>,
    until: SystemTime,
}

/// The cached state of one principal.
#[derive(Default)]
pub(super) struct CredentialSlot {
    pub(super) cached: Option<CachedCredentials>,
    /// The time at which credentials were last discarded because AWS did not accept them.
    last_discarded: Option<SystemTime>,
}

/// The operator's own credentials.
pub(super) struct BaseCredentials {
    source: Source,
    clock: Clock,
    /// Locked while the provider is queried.
    state: tokio::sync::Mutex<State>,
    slot: Mutex<CredentialSlot>,
    provider: Mutex<Option<SharedCredentialsProvider>>,
    history: Mutex<SessionHistory>,
}

#[derive(Default)]
struct State {
    /// The content of the files when the provider was created.
    contents: Option<Contents>,
    /// The time at which the files were last read.
    read: Option<SystemTime>,
    /// Whether the files have changed and the credentials are still the old ones.
    is_stale: bool,
    /// The last failure and its time.
    failed: Option<(SystemTime, NoSession)>,
    /// The cause of failure that was logged last.
    last_logged_cause: Option<String>,
}

/// The sessions that the provider returned recently, by the id of their access key.
#[derive(Default)]
struct SessionHistory(Vec<KnownSession>);

struct KnownSession {
    access_key_id: String,
    first_received: SystemTime,
    last_received: SystemTime,
}

impl Session {
    /// Returns the session without its secrets, as the port identifies it.
    pub(super) fn signer(&self) -> Signer {
        Signer {
            access_key_id: self.credentials.access_key_id().to_owned(),
            session_age: self.age.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX)),
        }
    }

    /// Returns whether requests signed with either session are equivalent.
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

impl CachedCredentials {
    /// Creates cached credentials of a session that began at `since` and may be used until `until`.
    pub(super) fn new(credentials: Credentials, since: SystemTime, until: SystemTime) -> Self {
        Self { credentials, since: Some(since), until }
    }

    /// Returns the session as of `now`; `None` if it has less than `min_lifetime` left.
    pub(super) fn session(&self, now: SystemTime, min_lifetime: Duration) -> Option<Session> {
        (now + min_lifetime < self.until).then(|| self.session_at(now))
    }

    /// Returns the session as of `now`; `None` if it has expired. The expiry may be later than the time at which
    /// new credentials are requested.
    fn unexpired_session(&self, now: SystemTime) -> Option<Session> {
        (now < self.credentials.expiry().unwrap_or(self.until)).then(|| self.session_at(now))
    }

    /// Returns the session as of `now`.
    pub(super) fn session_at(&self, now: SystemTime) -> Session {
        let age = self.since.map(|since| now.duration_since(since).unwrap_or_default());
        Session { credentials: self.credentials.clone(), age }
    }
}

impl CredentialSlot {
    /// Discards `session`, which AWS did not accept, unless another one was discarded shortly before. Returns
    /// whether the next session may be a different one.
    pub(super) fn discard(&mut self, session: &Session, now: SystemTime) -> bool {
        if !self.cached.as_ref().is_some_and(|cached| is_same(&cached.credentials, &session.credentials)) {
            return true;
        }
        if is_within(MIN_DISCARD_INTERVAL, self.last_discarded, now) {
            return false;
        }
        (self.cached, self.last_discarded) = (None, Some(now));
        true
    }
}

/// Returns whether `then` was less than `span` ago. Returns `false` if `then` is in the future, which happens
/// after the clock was set back.
fn is_within(span: Duration, then: Option<SystemTime>, now: SystemTime) -> bool {
    then.and_then(|then| now.duration_since(then).ok()).is_some_and(|passed| passed < span)
}

impl BaseCredentials {
    /// Creates an instance for the credentials of `source`, with `clock` for their age.
    pub(super) fn new(source: impl Into<Source>, clock: Clock) -> Self {
        Self {
            source: source.into(),
            clock,
            state: tokio::sync::Mutex::default(),
            slot: Mutex::default(),
            provider: Mutex::default(),
            history: Mutex::default(),
        }
    }

    /// Returns the session to sign with, with at least `min_lifetime` left if the provider has one. If the
    /// provider fails, this is the previous session until it expires. Only one request at a time queries the
    /// provider, and each waits at most [`DEADLINE`].
    pub(super) async fn session(&self, min_lifetime: Duration) -> Result<Session, NoSession> {
        let in_time = timeout(DEADLINE, async {
            let mut state = self.state.lock().await;
            let now = (self.clock)();
            self.read_files(&mut state, now).await;
            if !state.is_stale
                && let Some(session) = self.cached(|cached| cached.session(now, min_lifetime))
            {
                return Ok(session);
            }
            let failed = state.failed.as_ref().filter(|(at, _)| is_within(FAILURE_CACHE_TTL, Some(*at), now));
            match failed {
                Some((_, failure)) => Err(failure.clone()),
                None => self.fetch(&mut state, now).await,
            }
        });
        let (failure, timed_out) = match in_time.await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(failure)) => (failure, false),
            Err(_) => ((&CredentialsError::provider_timed_out(DEADLINE)).into(), true),
        };
        // The provider may be unavailable for a while, or may have read a file that was half written.
        if let Some(session) = self.cached(|cached| cached.unexpired_session((self.clock)())) {
            return Ok(session);
        }
        // While the metadata service (IMDS) does not respond, the SDK extends the use of an instance's
        // credentials beyond their expiry.
        let extended = if timed_out { self.provider().as_ref().and_then(fallback) } else { None };
        extended.map(|credentials| self.with_age(credentials).session_at((self.clock)())).ok_or(failure)
    }

    /// Discards `session`, which AWS did not accept. Returns whether the next session may be a different one.
    pub(super) async fn discard(&self, session: &Session) -> bool {
        let mut state = self.state.lock().await;
        let (was_discarded, may_help) = {
            let mut slot = self.slot();
            let had_some = slot.cached.is_some();
            let may_help = slot.discard(session, (self.clock)());
            (had_some && slot.cached.is_none(), may_help)
        };
        if was_discarded {
            *self.provider() = None;
            state.failed = None;
        }
        may_help
    }

    /// Checks for files that have changed since the provider was created.
    async fn read_files(&self, state: &mut State, now: SystemTime) {
        if is_within(FILE_CHECK_INTERVAL, state.read, now) {
            return;
        }
        state.read = Some(now);
        let contents = self.source.contents().await;
        if state.contents.as_ref().is_some_and(|before| *before != contents) {
            info!("AWS credentials or settings file changed, reloading");
            (state.is_stale, state.failed) = (true, None);
            *self.provider() = None;
        }
        state.contents = Some(contents);
    }

    async fn fetch(&self, state: &mut State, now: SystemTime) -> Result<Session, NoSession> {
        let known = self.provider().clone();
        let provider = match known {
            Some(provider) => provider,
            None => self.source.provider().await,
        };
        *self.provider() = Some(provider.clone());
        let answer = provider.provide_credentials().await;
        let answer = answer.map_err(|error| self.failure(&error)).and_then(|credentials| {
            match unsignable(&credentials) {
                Some(cause) => Err(NoSession { problem: CredentialsProblem::Unsignable, cause }),
                None => Ok(credentials),
            }
        });
        match answer {
            Ok(credentials) => {
                if state.last_logged_cause.take().is_some() {
                    info!("obtained AWS credentials again");
                }
                (state.is_stale, state.failed) = (false, None);
                let fresh = self.with_age(credentials);
                Ok(self.slot().cached.insert(fresh).session_at((self.clock)()))
            }
            Err(failure) => {
                // A provider that failed once may fail permanently: the SDK's reader of profiles does.
                *self.provider() = None;
                if state.last_logged_cause.as_ref() != Some(&failure.cause) {
                    warn!(
                        code = failure.problem.code(),
                        cause = failure.cause,
                        "failed to obtain AWS credentials"
                    );
                    state.last_logged_cause = Some(failure.cause.clone());
                }
                state.failed = Some((now, failure.clone()));
                Err(failure)
            }
        }
    }

    fn failure(&self, error: &CredentialsError) -> NoSession {
        let failure = NoSession::from(error);
        match self.source.profile() {
            Some(profile) if failure.problem == CredentialsProblem::NotFound => NoSession {
                problem: CredentialsProblem::Misconfigured,
                cause: format!(
                    "the profile {profile:?} of AWS_PROFILE provides no credentials: {}",
                    failure.cause
                ),
            },
            _ => failure,
        }
    }

    fn cached(&self, session: impl FnOnce(&CachedCredentials) -> Option<Session>) -> Option<Session> {
        self.slot().cached.as_ref().and_then(session)
    }

    fn slot(&self) -> MutexGuard<'_, CredentialSlot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn provider(&self) -> MutexGuard<'_, Option<SharedCredentialsProvider>> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_age(&self, credentials: Credentials) -> CachedCredentials {
        let now = (self.clock)();
        let since = credentials.session_token().is_some().then(|| {
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.first_received_at(credentials.access_key_id(), now)
        });
        let ends = [credentials.expiry(), since.map(|since| since + REFRESH_AFTER)];
        let until = ends.into_iter().flatten().min().unwrap_or(now + REFRESH_WITHOUT_EXPIRY);
        CachedCredentials { credentials, since, until }
    }
}

fn fallback(provider: &SharedCredentialsProvider) -> Option<Credentials> {
    AsRef::<dyn ProvideCredentials>::as_ref(provider).fallback_on_interrupt()
}

impl SessionHistory {
    /// Returns when the session of `access_key_id` was first received.
    fn first_received_at(&mut self, access_key_id: &str, now: SystemTime) -> SystemTime {
        let Self(sessions) = self;
        if let Some(known) = sessions.iter_mut().find(|known| known.access_key_id == access_key_id) {
            known.last_received = now;
            return known.first_received;
        }
        if sessions.len() == MAX_TRACKED_SESSIONS {
            let oldest = (0..sessions.len()).min_by_key(|&at| sessions[at].last_received);
            oldest.map(|at| sessions.swap_remove(at));
        }
        sessions.push(KnownSession {
            access_key_id: access_key_id.to_owned(),
            first_received: now,
            last_received: now,
        });
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
