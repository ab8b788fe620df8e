//! The session of each principal: the operator's own, or one of a role for one resource.
//!
//! A role's session is cached until shortly before it ends, and is never used for another principal than the
//! one that it was created for: the role, its external id and the resource all determine its permissions. Reads renew
//! it well before its end; if that fails, it stays in use.
//! Principals without a role share the operator's own session: see `credentials`.
//! This module changes nothing in AWS, and never logs a secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use quick_cache::sync::Cache;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::Region;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::principal::{Principal, Role};
use stream_encryption_core::model::service::Operation;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::assume_role::{RoleAssumer, SESSION_DURATION};
use super::bounded_cache;
use super::cached_credentials::{CachedCredentials, RENEWAL_WAIT, Session, is_within};
use super::credentials::{BaseCredentials, Clock, MIN_REPLACEMENT_INTERVAL};
use super::credentials_source::CredentialsSource;
use super::error::{no_session, no_session_in_time};
use super::rate_limit::QueueKey;
use super::request_sender::RequestSender;

/// Maximum number of cached role sessions, about 3 KB each. If more resources than this have a role, the others assume
/// theirs again for each Describe, at the speed of the rate limiter, which is acceptable. Users determine the number of
/// these resources; they must not determine the memory.
const MAX_SESSIONS: usize = 4096;

/// Sessions by principal. Clones share them.
#[derive(Clone)]
pub(super) struct Sessions(Arc<Inner>);

struct Inner {
    base: BaseCredentials,
    assume: RoleAssumer,
    role_sessions: Cache<Principal, SharedRoleSession>,
    clock: Clock,
}

/// A role's session for one principal; empty until a request has obtained the session. The lock is held while requests
/// need another session, so that only one at a time obtains it; it is not held while one is obtained ahead.
type SharedRoleSession = Arc<Mutex<RoleSession>>;

/// The cached credentials of one principal, the time at which AWS last accepted some, and that at which some were last
/// discarded.
#[derive(Default)]
struct RoleSession {
    cached: Option<CachedCredentials>,
    last_accepted: Option<SystemTime>,
    last_discarded: Option<SystemTime>,
}

impl Sessions {
    /// Creates the sessions of `source`'s credentials and of the roles that they may assume, with `clock` for
    /// their age.
    pub(super) fn new(
        source: impl Into<CredentialsSource>,
        config: &SdkConfig,
        region: Region,
        sender: RequestSender,
        clock: Clock,
    ) -> Self {
        Self::at_most(MAX_SESSIONS, source, config, region, sender, clock)
    }

    fn at_most(
        limit: usize,
        source: impl Into<CredentialsSource>,
        config: &SdkConfig,
        region: Region,
        sender: RequestSender,
        clock: Clock,
    ) -> Self {
        let base = BaseCredentials::new(source, clock.clone());
        let assume = RoleAssumer::new(config, region, sender, base.clone());
        Self(Arc::new(Inner { base, assume, role_sessions: bounded_cache::cache(limit), clock }))
    }

    /// Returns the session with which a principal may send `operation`, with at least `min_lifetime` left if
    /// its source has one. If the role must be assumed first, an error of that request has the operation
    /// [`Operation::AssumeRole`].
    pub(super) async fn of(
        &self,
        operation: Operation,
        principal: &Principal,
        priority: Priority,
        min_lifetime: Duration,
    ) -> Result<Session, AwsError> {
        match &principal.role {
            Some(role) => self.assumed(role, principal, priority, min_lifetime).await,
            None => self.0.base.session(min_lifetime).await.map_err(|error| no_session(operation, &error)),
        }
    }

    /// Renews the session of a principal if it lasts for `min_lifetime`, but is to be renewed ahead. Waits for that at most
    /// [`RENEWAL_WAIT`]; the other requests of the principal use the cached session meanwhile, and also after a failure.
    pub(super) async fn renew_ahead(
        &self,
        principal: &Principal,
        priority: Priority,
        min_lifetime: Duration,
    ) {
        match &principal.role {
            Some(role) => self.renew_assumed(role, principal, priority, min_lifetime).await,
            None => self.0.base.renew_ahead(min_lifetime).await,
        }
    }

    /// Waits up to `deadline` for the first session of the own credentials.
    pub(super) async fn wait_for_first(&self, deadline: Duration) {
        self.0.base.wait_for_first(deadline).await;
    }

    /// Records whether AWS accepted `session`. Has it replaced if `error` shows that AWS rejected it. Returns whether the
    /// next session may be a different one.
    pub(super) async fn mark_outcome(
        &self,
        principal: &Principal,
        session: &Session,
        error: Option<&AwsError>,
    ) -> bool {
        // AWS verifies the signature first, so a refusal for another cause shows that it accepted the session.
        let is_accepted = error.is_none_or(AwsError::is_of_accepted_session);
        let error = error.filter(|error| error.may_succeed_with_new_session());
        if principal.role.is_some() {
            // A session that is not cached any more is not used again.
            let Some(cache) = self.0.role_sessions.get(principal) else { return error.is_some() };
            let mut cache = cache.lock().await;
            let now = (self.0.clock)();
            if is_accepted && cache.is_of(session) {
                cache.last_accepted = Some(now);
            }
            return error.is_some_and(|error| cache.discard(session, now, error.is_denied_by_own_policy()));
        }
        if is_accepted {
            self.0.base.mark_accepted(session);
        }
        error.is_some_and(|error| {
            let may_be_of_one_request = error.is_key_unknown() || error.is_denied_by_own_policy();
            self.0.base.mark_rejected(session, may_be_of_one_request)
        })
    }

    async fn assumed(
        &self,
        role: &Role,
        principal: &Principal,
        priority: Priority,
        min_lifetime: Duration,
    ) -> Result<Session, AwsError> {
        let clock = &self.0.clock;
        let cache = self.0.role_session_of(principal);
        let mut cache = cache.lock().await;
        if let Some(session) = cache.cached.as_ref().and_then(|cached| cached.session(clock(), min_lifetime))
        {
            return Ok(session);
        }
        let assumed = self.assume(role, principal, priority).await?;
        Ok(cache.cached.insert(assumed).session_at(clock()))
    }

    async fn renew_assumed(
        &self,
        role: &Role,
        principal: &Principal,
        priority: Priority,
        min_lifetime: Duration,
    ) {
        let Some(cache) = self.0.role_sessions.get(principal) else { return };
        let now = (self.0.clock)();
        let begin = cache.try_lock().ok().and_then(|mut cache| cache.begin_renewal(now, min_lifetime));
        let Some(previous) = begin else { return };
        let in_time = timeout(RENEWAL_WAIT, self.assume(role, principal, priority)).await;
        match in_time.unwrap_or_else(|_| Err(no_session_in_time(Operation::AssumeRole))) {
            Ok(renewed) => {
                let mut cache = cache.lock().await;
                // Another request may have replaced the session meanwhile, or AWS may have rejected it.
                if cache.is_of(&previous) {
                    cache.cached = Some(renewed);
                }
            }
            Err(error) => warn!(
                role = %role.arn,
                namespace = principal.namespace,
                resource = principal.resource,
                code = error.code,
                aws_message = error.message,
                "failed to renew the session of the role ahead, using the previous one"
            ),
        }
    }

    async fn assume(
        &self,
        role: &Role,
        principal: &Principal,
        priority: Priority,
    ) -> Result<CachedCredentials, AwsError> {
        let Inner { assume, clock, .. } = &*self.0;
        // Measured from before the request by the local clock, so the session is discarded before AWS ends
        // it, even if the clocks differ.
        let since = clock();
        let credentials = assume.credentials(role, principal, &QueueKey::of(principal, priority)).await?;
        debug!(role = %role.arn, namespace = principal.namespace, resource = principal.resource, "assumed the role");
        let ends = since + SESSION_DURATION;
        let refresh_at = credentials.expiry().map_or(ends, |expiry| expiry.min(ends));
        Ok(CachedCredentials::new(credentials, Some(since), since, refresh_at))
    }
}

impl Inner {
    fn role_session_of(&self, principal: &Principal) -> SharedRoleSession {
        let Ok(cache) = self
            .role_sessions
            .get_or_insert_with(principal, || Ok::<_, Infallible>(SharedRoleSession::default()));
        cache
    }
}

impl RoleSession {
    /// Returns the cached session if another one is to be obtained now, although it lasts for `min_lifetime`.
    fn begin_renewal(&mut self, now: SystemTime, min_lifetime: Duration) -> Option<Session> {
        let cached = self.cached.as_mut()?;
        cached.begin_renewal(now, min_lifetime).then(|| cached.session_at(now))
    }

    /// Returns whether `session` is the cached one.
    fn is_of(&self, session: &Session) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached.is_of(session))
    }

    /// Discards `session`, which AWS rejected, unless another one was discarded shortly before. If the cause may concern one
    /// request only (`may_be_of_one_request`), also not if AWS accepted a session shortly before. Returns whether the next
    /// session may be a different one.
    fn discard(&mut self, session: &Session, now: SystemTime, may_be_of_one_request: bool) -> bool {
        if !self.is_of(session) {
            return true;
        }
        let recently = |then| is_within(MIN_REPLACEMENT_INTERVAL, then, now);
        if recently(self.last_discarded) || (may_be_of_one_request && recently(self.last_accepted)) {
            return false;
        }
        (self.cached, self.last_discarded) = (None, Some(now));
        true
    }
}

#[cfg(test)]
mod tests;
