//! As whom a request goes out: each is signed with a session of its principal, and with no other.
//!
//! A session is looked up when the request's turn has come, which may be minutes after it was asked for. The clients of the
//! SDK hold no credentials of their own, so what is not sent from here cannot be signed. This file knows no operation's
//! content.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::credentials::Session;
use super::faults::{no_session_in_time, signer_changed};
use super::pacing::{Quota, Turn};
use super::port::{Signer, Urgency};
use super::requests::{DEADLINE, Requests};
use super::sessions::Sessions;
use crate::model::fault::{Fault, Operation};
use crate::model::principal::Principal;

/// A read, and what may wait, goes out with a session that lasts this much longer: so the call that follows a look finds
/// one that still lasts, and need not wait for another after it has been reserved.
const EARLY: Duration = Duration::from_mins(1);
/// What must go at once goes with whatever lasts long enough to arrive.
const LATE: Duration = DEADLINE;

/// Sends requests in their turn, each with a session of its principal.
#[derive(Clone)]
pub(super) struct Calls {
    requests: Requests,
    sessions: Sessions,
}

impl Calls {
    /// Requests that go out with `sessions`.
    pub(super) fn new(requests: Requests, sessions: Sessions) -> Self {
        Self { requests, sessions }
    }

    /// Sends a request that only reads: up to three times, when AWS throttles or does not answer; and with another session
    /// at once, where AWS does not accept the one that was kept.
    pub(super) async fn read<T, F>(
        &self,
        quota: &Quota,
        by: &Principal,
        urgency: Urgency,
        send: impl Fn(Session) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let session = async || self.sessions.of(quota.operation, by, urgency, EARLY).await;
        let send = async || {
            let kept = session().await?;
            let outcome = send(kept.clone()).await;
            if self.sessions.is_another_due(by, &kept, outcome.as_ref().err()).await {
                let other = session().await?;
                if !other.is_same(&kept) {
                    return send(other).await;
                }
            }
            outcome
        };
        self.requests.read(quota, &Turn::of(by, urgency), send).await
    }

    /// Sends a request once, in its turn, if `signer` signs it.
    pub(super) async fn once<T, F>(
        &self,
        quota: &Quota,
        by: &Principal,
        signer: &Signer,
        send: impl FnOnce(Session) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.turn(quota, by).await;
        self.at_once(quota, by, signer, send).await
    }

    /// Waits until a request may go that is then sent [`at_once`](Self::at_once).
    async fn turn(&self, quota: &Quota, by: &Principal) {
        self.requests.turn(quota, &Turn::of(by, Urgency::Call)).await;
    }

    /// Waits as [`turn`](Self::turn) does. Returns whether `signer` would sign the request now.
    pub(super) async fn turn_of(&self, quota: &Quota, by: &Principal, signer: &Signer) -> bool {
        self.turn(quota, by).await;
        self.session(quota.operation, by).await.is_ok_and(|session| session.signer().is(signer))
    }

    /// Sends a request once, without waiting: its turn has come already. It waits for a session, should there be none, no
    /// longer than for an answer; and sends nothing with another one than `signer`'s.
    pub(super) async fn at_once<T, F>(
        &self,
        quota: &Quota,
        by: &Principal,
        signer: &Signer,
        send: impl FnOnce(Session) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let send = async || {
            let session = self.session(quota.operation, by).await?;
            if !session.signer().is(signer) {
                return Err(signer_changed(quota.operation));
            }
            let outcome = send(session.clone()).await;
            self.sessions.is_another_due(by, &session, outcome.as_ref().err()).await;
            outcome
        };
        self.requests.at_once(quota, send).await
    }

    /// The session that the next call would go out with.
    pub(super) async fn session(&self, operation: Operation, by: &Principal) -> Result<Session, Fault> {
        let session = self.sessions.of(operation, by, Urgency::Call, LATE);
        timeout(DEADLINE, session).await.unwrap_or_else(|_| Err(no_session_in_time(operation)))
    }
}
