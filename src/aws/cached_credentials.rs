//! Credentials with the age of their session, and the times at which others are requested.
//!
//! Others are requested ahead of the time at which they are needed, so that no request fails because the source is
//! unavailable for some minutes at just that time. Until then, a failure has no effect. This file sends nothing, and
//! never logs or prints a secret.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use jiff::SignedDuration;
use stream_encryption_core::controller::stream_api::Signer;

/// Maximum time by which other credentials are requested ahead.
const MAX_RENEWAL_LEAD: Duration = Duration::from_mins(15);
/// The time by which other credentials are requested ahead is at most this fraction of the time for which these can be
/// used. So credentials that end soon are not requested again for each request, and neither are those that the source
/// returns unchanged.
const RENEWAL_LEAD_DIVISOR: u32 = 4;
/// Minimum time between two attempts to obtain other credentials ahead.
const RENEWAL_INTERVAL: Duration = Duration::from_mins(1);
/// Time for which the request that begins a renewal ahead waits for it. It is longer than an `AssumeRole` that succeeds
/// when it is repeated, and short enough for a Describe that must be followed by a call within seconds.
pub(super) const RENEWAL_WAIT: Duration = Duration::from_secs(3);

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
    /// The time at which the session was first received; `None` for credentials without a session.
    since: Option<SystemTime>,
    /// The time from which other credentials are requested, and these are used if that fails.
    renew_at: SystemTime,
    /// The time from which requests wait for other credentials.
    refresh_at: SystemTime,
    /// The time at which the last renewal ahead began.
    renewal_began: Option<SystemTime>,
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
    /// Creates cached credentials of a session that began at `since`, as the source returned them at `received`. Requests
    /// wait for other ones from `refresh_at`.
    pub(super) fn new(
        credentials: Credentials,
        since: Option<SystemTime>,
        received: SystemTime,
        refresh_at: SystemTime,
    ) -> Self {
        let usable = refresh_at.duration_since(received).unwrap_or_default();
        let renew_at = refresh_at - (usable / RENEWAL_LEAD_DIVISOR).min(MAX_RENEWAL_LEAD);
        Self { credentials, since, renew_at, refresh_at, renewal_began: None }
    }

    /// Returns the session as of `now`; `None` if other credentials are to be requested within `min_lifetime`.
    pub(super) fn session(&self, now: SystemTime, min_lifetime: Duration) -> Option<Session> {
        (now + min_lifetime < self.refresh_at).then(|| self.session_at(now))
    }

    /// Returns whether to request other credentials now, although these can be used for `min_lifetime`, and records that
    /// as an attempt. If it fails, or never ends, the next one is due after [`RENEWAL_INTERVAL`].
    pub(super) fn begin_renewal(&mut self, now: SystemTime, min_lifetime: Duration) -> bool {
        let is_due = self.renew_at <= now && now + min_lifetime < self.refresh_at;
        if !is_due || is_within(RENEWAL_INTERVAL, self.renewal_began, now) {
            return false;
        }
        self.renewal_began = Some(now);
        true
    }

    /// Returns the session as of `now`; `None` if it has expired. The expiry may be later than `refresh_at`.
    pub(super) fn unexpired_session(&self, now: SystemTime) -> Option<Session> {
        (now < self.credentials.expiry().unwrap_or(self.refresh_at)).then(|| self.session_at(now))
    }

    /// Returns whether the credentials have not expired by `time`.
    pub(super) fn outlasts(&self, time: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| time < expiry)
    }

    /// Returns whether these are the credentials of `session`.
    pub(super) fn is_of(&self, session: &Session) -> bool {
        is_same(&self.credentials, &session.credentials)
    }

    /// Returns the session as of `now`.
    pub(super) fn session_at(&self, now: SystemTime) -> Session {
        let age = self.since.map(|since| now.duration_since(since).unwrap_or_default());
        Session { credentials: self.credentials.clone(), age }
    }
}

/// Returns whether `then` was less than `span` ago. Returns `false` if `then` is in the future, which happens
/// after the clock was set back.
pub(super) fn is_within(span: Duration, then: Option<SystemTime>, now: SystemTime) -> bool {
    then.and_then(|then| now.duration_since(then).ok()).is_some_and(|passed| passed < span)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("age", &self.age).finish_non_exhaustive()
    }
}
