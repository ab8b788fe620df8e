//! The operator's own credentials: the age of their session, and new ones before the session is too old.
//!
//! Firehose creates its grant on the key with the caller's session. For this to succeed, AWS requires session
//! credentials of at most 6 hours
//! ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html)).
//! Credentials carry no time of issue, so the age of a session counts from when the operator first received
//! it: the session may be older, never younger. This file sends requests to the provider only, and never logs
//! or prints a secret.
//!
//! Credentials are replaced early if a file that they come from has changed, or if AWS rejects them. The provider is
//! then created again, because it caches the files that it has read. A rejection may also concern one region or one
//! request only. So the previous credentials stay in use until the provider returns other ones, or until they expire.
//! Credentials without an expiry are used until the provider would be queried again. While the provider fails, a session
//! may become older than 6 hours. It then still signs reads; only `StartDeliveryStreamEncryption` with a customer managed
//! key is not sent with it.
//!
//! One query of the provider runs at a time, in a task of its own. The requests that wait for it share its result. The
//! deadline of a request ends the wait of that request, not the query. The provider is also queried ahead of the time at
//! which another session is needed. Only the request that begins such a query waits for it, and briefly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use stream_encryption_core::model::credentials::CredentialsProblem;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::cached_credentials::{CachedCredentials, RENEWAL_WAIT, Session, is_within};
use super::credentials_source::{Contents, CredentialsSource};
use super::error::NoSession;
use super::request_sender::DEADLINE;
use super::signable::unsignable;

/// Time after a session was first received at which the provider is queried for a new one.
pub(super) const REFRESH_AFTER: Duration = Duration::from_hours(5);
/// Maximum age of a session for `StartDeliveryStreamEncryption` with a customer managed key.
pub(super) const MAX_SESSION_AGE: Duration = Duration::from_hours(6);
/// Time after which credentials without an expiry are requested again, as in the SDK's own cache.
const REFRESH_WITHOUT_EXPIRY: Duration = Duration::from_mins(15);
/// Minimum time between two reads of the files.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Deadline of a query. It is longer than that of a request, so that a slow source still provides a session for the
/// next requests, and that a source with a deadline of its own can report the cause of its failure.
const QUERY_DEADLINE: Duration = Duration::from_secs(20);
/// Time for which a failure is cached before the source is queried again: every reconciliation of every
/// resource needs a session.
const FAILURE_CACHE_TTL: Duration = Duration::from_secs(5);
/// Time for which credentials that the source has returned again are not requested again. If they are about to expire
/// or have expired, it is [`FAILURE_CACHE_TTL`].
const MIN_QUERY_INTERVAL: Duration = Duration::from_mins(1);
/// Minimum time between two queries because AWS rejected the credentials.
pub(super) const MIN_REPLACEMENT_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum number of sessions whose age is tracked. A provider returns one at a time.
const MAX_TRACKED_SESSIONS: usize = 16;

/// A function that returns the current time.
pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The operator's own credentials. Clones share them.
#[derive(Clone)]
pub(super) struct BaseCredentials(Arc<Inner>);

struct Inner {
    source: CredentialsSource,
    clock: Clock,
    /// Locked while the files are read, and until the query that may follow has begun.
    files: tokio::sync::Mutex<Files>,
    state: Mutex<State>,
}

#[derive(Default)]
struct Files {
    /// The content of the files when the provider was created.
    contents: Option<Contents>,
    /// The time at which the files were last read.
    read: Option<SystemTime>,
}

#[derive(Default)]
struct State {
    cached: Option<CachedCredentials>,
    provider: Option<SharedCredentialsProvider>,
    /// Whether the cached credentials must be replaced: the files have changed, or AWS rejected the credentials.
    is_stale: bool,
    /// The time at which AWS last rejected credentials that were then replaced.
    last_rejected: Option<SystemTime>,
    /// The time at which AWS last accepted the cached credentials; `None` if it has not.
    last_accepted: Option<SystemTime>,
    /// The time at which the provider returned the cached credentials again; `None` if it has not.
    returned_again: Option<SystemTime>,
    /// The last query.
    query: Option<Query>,
    /// The last failure and its time; `None` after a success.
    failed: Option<(SystemTime, NoSession)>,
    /// The cause of failure that was logged last.
    last_logged_cause: Option<String>,
    history: SessionHistory,
}

/// The result of a query; `None` while the query runs.
type Query = watch::Receiver<Option<Result<Session, NoSession>>>;

/// The sessions that the provider returned recently, by the id of their access key.
#[derive(Default)]
struct SessionHistory(Vec<KnownSession>);

struct KnownSession {
    access_key_id: String,
    first_received: SystemTime,
    last_received: SystemTime,
}

impl BaseCredentials {
    /// Creates an instance for the credentials of `source`, with `clock` for their age.
    pub(super) fn new(source: impl Into<CredentialsSource>, clock: Clock) -> Self {
        let (files, state) = Default::default();
        Self(Arc::new(Inner { source: source.into(), clock, files, state }))
    }

    /// Returns the session to sign with, with at least `min_lifetime` left if the provider has one. If the
    /// provider fails, this is the previous session until it expires. The request waits at most [`DEADLINE`].
    pub(super) async fn session(&self, min_lifetime: Duration) -> Result<Session, NoSession> {
        let in_time = timeout(DEADLINE, self.cached_or_queried(min_lifetime)).await;
        let now = self.now();
        let mut state = self.state();
        let failure = match in_time {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let failure = timed_out(DEADLINE);
                // From now on, requests that can use the previous session use it at once instead of waiting for this
                // query: `cached_or_queried` returns this failure to them.
                state.failed.get_or_insert((now, failure.clone()));
                failure
            }
        };
        // The provider may be unavailable for a while, or may have read a file that was half written.
        if let Some(session) = state.unexpired_session(now) {
            return Ok(session);
        }
        // While the metadata service (IMDS) does not respond, the SDK extends the use of an instance's
        // credentials beyond their expiry.
        let timed_out = failure.problem == CredentialsProblem::TimedOut;
        let extended = if timed_out { state.provider.as_ref().and_then(fallback) } else { None };
        extended.map(|credentials| state.with_age(credentials, now).session_at(now)).ok_or(failure)
    }

    /// Queries the source before the first request, and waits for it up to `deadline`: a person may have to confirm on a
    /// device or in a browser. A failure is left to the requests.
    pub(super) async fn wait_for_first(&self, deadline: Duration) {
        let mut query = {
            let mut state = self.state();
            match state.running_query() {
                Some(query) => query,
                None => self.start_query(&mut state, deadline),
            }
        };
        let _ = query.wait_for(Option::is_some).await;
    }

    /// Queries the source if the cached session lasts for `min_lifetime`, but is to be renewed ahead. Waits for the answer
    /// at most [`RENEWAL_WAIT`]. After a failure, the cached session stays in use.
    pub(super) async fn renew_ahead(&self, min_lifetime: Duration) {
        let mut query = {
            // Not while the files are read: a change would be noticed while the query runs, and its end clears `is_stale`.
            let Ok(_files) = self.0.files.try_lock() else { return };
            let now = self.now();
            let mut state = self.state();
            if !state.begin_renewal(now, min_lifetime) {
                return;
            }
            self.start_query(&mut state, QUERY_DEADLINE)
        };
        let _ = timeout(RENEWAL_WAIT, query.wait_for(Option::is_some)).await;
    }

    /// Records that AWS has accepted `session`.
    pub(super) fn mark_accepted(&self, session: &Session) {
        let now = self.now();
        let mut state = self.state();
        if state.cached.as_ref().is_some_and(|cached| cached.is_of(session)) {
            state.last_accepted = Some(now);
        }
    }

    /// Has `session`, which AWS rejected, replaced by the next query. The session stays in use if the provider does not
    /// return another one. Returns whether the next session may be a different one. Some causes may concern one request
    /// only (`may_be_of_one_request`): a region that the account has not enabled knows no key of the account, and a policy
    /// may deny one action explicitly. So a session that AWS has just accepted in another request is kept: otherwise a
    /// resource that names such a region would have the session of all others replaced every minute.
    pub(super) fn mark_rejected(&self, session: &Session, may_be_of_one_request: bool) -> bool {
        let now = self.now();
        let mut state = self.state();
        if !state.cached.as_ref().is_some_and(|cached| cached.is_of(session)) {
            return true;
        }
        let recently = |then| is_within(MIN_REPLACEMENT_INTERVAL, then, now);
        if may_be_of_one_request && recently(state.last_accepted) {
            return false;
        }
        if recently(state.last_rejected) || recently(state.returned_again) {
            return false;
        }
        // The result of a query that is already running replaces the session, too, and the next request waits for it.
        if state.running_query().is_none() {
            (state.last_rejected, state.provider) = (Some(now), None);
        }
        state.is_stale = true;
        true
    }

    /// Returns the cached session, or the result of a query. Returns the last failure instead of waiting if it is
    /// recent, or if the previous session can be used while a query runs.
    async fn cached_or_queried(&self, min_lifetime: Duration) -> Result<Session, NoSession> {
        let mut query = {
            let mut files = self.0.files.lock().await;
            // Not while a query runs: its end clears `is_stale`, but its provider may have read the files before they
            // changed.
            if self.state().running_query().is_none() {
                self.read_files(&mut files).await;
            }
            let now = self.now();
            let mut state = self.state();
            if let Some(session) = state.current_session(now, min_lifetime) {
                return Ok(session);
            }
            let failed = state.failed.clone();
            let query = match (state.running_query(), &failed) {
                (Some(query), _) => query,
                (None, Some((at, failure))) if is_within(FAILURE_CACHE_TTL, Some(*at), now) => {
                    return Err(failure.clone());
                }
                (None, _) => self.start_query(&mut state, QUERY_DEADLINE),
            };
            match failed {
                Some((_, failure)) if state.unexpired_session(now).is_some() => return Err(failure),
                _ => query,
            }
        };
        let result = query.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
        // There is no result if the provider has panicked.
        result
            .unwrap_or_else(|| Err((&CredentialsError::unhandled("the query ended without a result")).into()))
    }

    /// Checks for files that have changed since the provider was created.
    async fn read_files(&self, files: &mut Files) {
        let now = self.now();
        if is_within(FILE_CHECK_INTERVAL, files.read, now) {
            return;
        }
        files.read = Some(now);
        let contents = self.0.source.contents().await;
        if files.contents.as_ref().is_some_and(|before| *before != contents) {
            info!("AWS credentials or settings file changed, reloading");
            let mut state = self.state();
            (state.is_stale, state.failed, state.provider) = (true, None, None);
        }
        files.contents = Some(contents);
    }

    fn start_query(&self, state: &mut State, deadline: Duration) -> Query {
        let (sender, query) = watch::channel(None);
        state.query = Some(query.clone());
        let own = self.clone();
        tokio::spawn(async move {
            let answer = timeout(deadline, own.request_credentials()).await;
            let answer = answer.unwrap_or_else(|_| Err(timed_out(deadline)));
            let now = own.now();
            sender.send_replace(Some(own.state().finish_query(answer, now)));
        });
        query
    }

    async fn request_credentials(&self) -> Result<Credentials, NoSession> {
        let known = self.state().provider.clone();
        let provider = match known {
            Some(provider) => provider,
            None => self.0.source.provider().await,
        };
        self.state().provider = Some(provider.clone());
        let credentials = provider.provide_credentials().await.map_err(|error| self.failure(&error))?;
        match unsignable(&credentials) {
            Some(cause) => Err(NoSession { problem: CredentialsProblem::Unsignable, cause }),
            None => Ok(credentials),
        }
    }

    fn failure(&self, error: &CredentialsError) -> NoSession {
        let failure = NoSession::from(error);
        match self.0.source.profile() {
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

    fn now(&self) -> SystemTime {
        (self.0.clock)()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the cached session unless a query is due.
    fn current_session(&self, now: SystemTime, min_lifetime: Duration) -> Option<Session> {
        let cached = self.cached.as_ref().filter(|_| !self.is_stale)?;
        cached.session(now, min_lifetime).or_else(|| {
            // An expired session is used, too: the SDK returns that of an instance again while the metadata service fails,
            // and AWS accepts it then.
            let outlasts = cached.outlasts(now + DEADLINE);
            let interval = if outlasts { MIN_QUERY_INTERVAL } else { FAILURE_CACHE_TTL };
            is_within(interval, self.returned_again, now).then(|| cached.session_at(now))
        })
    }

    /// Returns whether a query is to begin now, although the cached session lasts for `min_lifetime`.
    fn begin_renewal(&mut self, now: SystemTime, min_lifetime: Duration) -> bool {
        if self.is_stale || self.running_query().is_some() {
            return false;
        }
        self.cached.as_mut().is_some_and(|cached| cached.begin_renewal(now, min_lifetime))
    }

    fn unexpired_session(&self, now: SystemTime) -> Option<Session> {
        self.cached.as_ref().and_then(|cached| cached.unexpired_session(now))
    }

    fn running_query(&self) -> Option<Query> {
        // A query that has panicked has dropped its sender.
        let runs = |query: &&Query| query.borrow().is_none() && query.has_changed().is_ok();
        self.query.as_ref().filter(runs).cloned()
    }

    /// Stores the answer of the provider, and returns it as the result of the query.
    fn finish_query(
        &mut self,
        answer: Result<Credentials, NoSession>,
        now: SystemTime,
    ) -> Result<Session, NoSession> {
        match answer {
            Ok(credentials) => {
                let has_expired = credentials.expiry().is_some_and(|expiry| expiry <= now);
                if has_expired {
                    self.log_once("the source returned credentials that have expired", "CredentialsExpired");
                } else if self.last_logged_cause.take().is_some() {
                    info!("obtained AWS credentials again");
                }
                (self.is_stale, self.failed) = (false, None);
                let fresh = self.with_age(credentials, now);
                let session = fresh.session_at(now);
                let returned_again = self.cached.as_ref().is_some_and(|cached| cached.is_of(&session));
                self.returned_again = returned_again.then_some(now);
                self.last_accepted = self.last_accepted.filter(|_| returned_again);
                self.cached = Some(fresh);
                Ok(session)
            }
            Err(failure) => {
                // A provider that failed once may fail permanently: the SDK's reader of profiles does. One that does
                // not respond may still have fallback credentials.
                if failure.problem != CredentialsProblem::TimedOut {
                    self.provider = None;
                }
                self.log_once(&failure.cause, failure.problem.code());
                self.failed = Some((now, failure.clone()));
                Err(failure)
            }
        }
    }

    /// Logs why there are no new credentials, unless that was logged last.
    fn log_once(&mut self, cause: &str, code: &str) {
        if self.last_logged_cause.as_deref() != Some(cause) {
            warn!(code, cause, "failed to obtain AWS credentials");
            self.last_logged_cause = Some(cause.to_owned());
        }
    }

    fn with_age(&mut self, credentials: Credentials, now: SystemTime) -> CachedCredentials {
        let since = credentials
            .session_token()
            .is_some()
            .then(|| self.history.first_received_at(credentials.access_key_id(), now));
        let ends = [credentials.expiry(), since.map(|since| since + REFRESH_AFTER)];
        let refresh_at = ends.into_iter().flatten().min().unwrap_or(now + REFRESH_WITHOUT_EXPIRY);
        CachedCredentials::new(credentials, since, now, refresh_at)
    }
}

fn timed_out(after: Duration) -> NoSession {
    (&CredentialsError::provider_timed_out(after)).into()
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

#[cfg(test)]
mod tests;
