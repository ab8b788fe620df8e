//! Signing of requests: each is signed with a session of its principal, and with no other.
//!
//! A session is looked up when the rate limiter permits the request, which may be minutes after the request
//! was queued. Only this file and `assume_role` sign requests: the SDK's clients hold no credentials of
//! their own. This file does not depend on the content of any operation.

use std::future::Future;
use std::time::Duration;

use stream_encryption_core::controller::stream_api::{Priority, Signer};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;
use tokio::time::timeout;

use super::cached_credentials::Session;
use super::error::{no_session_in_time, signer_changed};
use super::rate_limit::{QueueKey, QuotaScope};
use super::request_sender::{DEADLINE, RequestSender};
use super::sessions::Sessions;

/// Minimum remaining lifetime of the session for a read or another request that can wait. The call after a Describe can
/// then use the same session. Once the call is reserved, it need not wait for another session.
const MIN_LIFETIME_READ: Duration = Duration::from_mins(1);
/// Minimum remaining lifetime of the session for a request that must be sent at once: long enough to arrive.
const MIN_LIFETIME_CALL: Duration = DEADLINE;

/// Sends requests in the order of the rate limiter, each with a session of its principal. Only a read whose session
/// is rejected is sent a second time without a permit.
#[derive(Clone)]
pub(super) struct SignedRequestSender {
    sender: RequestSender,
    sessions: Sessions,
}

impl SignedRequestSender {
    /// Creates a sender of requests that are signed with `sessions`.
    pub(super) fn new(sender: RequestSender, sessions: Sessions) -> Self {
        Self { sender, sessions }
    }

    /// Waits up to `deadline` for the first session of the own credentials.
    pub(super) async fn wait_for_credentials(&self, deadline: Duration) {
        self.sessions.wait_for_first(deadline).await;
    }

    /// Sends a request that only reads, up to three times if AWS throttles, does not respond, or returns a
    /// temporary error. If AWS does not accept the cached session, the request is sent again at once with
    /// another one, without a second permit.
    pub(super) async fn read<T, F>(
        &self,
        quota: &QuotaScope,
        principal: &Principal,
        priority: Priority,
        send: impl Fn(Session) -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        let session =
            async || self.sessions.of(quota.operation, principal, priority, MIN_LIFETIME_READ).await;
        let send = async || {
            let cached = session().await?;
            let outcome = send(cached.clone()).await;
            if self.sessions.mark_outcome(principal, &cached, outcome.as_ref().err()).await {
                let other = session().await?;
                if !other.is_same(&cached) {
                    return send(other).await;
                }
            }
            outcome
        };
        // Calls renew no session ahead: a call is sent only with the session that signed the Describe before it.
        self.sessions.renew_ahead(principal, priority, MIN_LIFETIME_READ).await;
        // Requests that wait for a source of credentials or for STS should not hold permits: they would be sent all at once.
        // A request that was queued while the session was still valid may nevertheless hold its permit while it waits for a
        // new session.
        session().await?;
        self.sender.read(quota, &QueueKey::of(principal, priority), send).await
    }

    /// Acquires the permit of a request that is then sent with [`send_now`](Self::send_now), and returns whether
    /// `signer` would sign the request now.
    pub(super) async fn acquire_permit_for(
        &self,
        quota: &QuotaScope,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.sender.acquire_permit(quota, &QueueKey::of(principal, Priority::Call)).await;
        self.session(quota.operation, principal).await.is_ok_and(|session| session.signer().is(signer))
    }

    /// Sends a request once, without waiting for a permit: it was acquired before. The request waits at most
    /// [`DEADLINE`] for a session. If the session is not that of `signer`, the request is not sent.
    pub(super) async fn send_now<T, F>(
        &self,
        quota: &QuotaScope,
        principal: &Principal,
        signer: &Signer,
        send: impl FnOnce(Session) -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        let send = async || {
            let session = self.session(quota.operation, principal).await?;
            if !session.signer().is(signer) {
                return Err(signer_changed(quota.operation));
            }
            let outcome = send(session.clone()).await;
            self.sessions.mark_outcome(principal, &session, outcome.as_ref().err()).await;
            outcome
        };
        self.sender.send_now(quota, send).await
    }

    /// Sends a request of the operator itself once, without a permit: AWS's limit is far above what one process sends.
    pub(super) async fn send_without_permit<T, F>(
        &self,
        operation: Operation,
        send: impl FnOnce(Session) -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        let operator = Principal::operator();
        // No Describe precedes it, so it may renew its session ahead.
        self.sessions.renew_ahead(&operator, Priority::Call, MIN_LIFETIME_CALL).await;
        let session = self.session(operation, &operator).await?;
        let outcome = send(session.clone()).await;
        self.sessions.mark_outcome(&operator, &session, outcome.as_ref().err()).await;
        outcome
    }

    /// Returns the session with which the next call would be signed.
    pub(super) async fn session(
        &self,
        operation: Operation,
        principal: &Principal,
    ) -> Result<Session, AwsError> {
        let session = self.sessions.of(operation, principal, Priority::Call, MIN_LIFETIME_CALL);
        timeout(DEADLINE, session).await.unwrap_or_else(|_| Err(no_session_in_time(operation)))
    }
}
