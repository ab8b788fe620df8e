//! How a request goes out: through the pacer, and a read again where that may help.
//!
//! A request that changes something goes out at most once, whatever comes back. This file knows no operation's content and
//! no credentials. What a request needed before it could be sent (a session) may fail too: that fault names another
//! operation, and says nothing about this one's rate.

use std::future::Future;
use std::time::Duration;

use super::pacing::{Pacer, Quota, Turn};
use crate::model::fault::{Class, Fault};

/// Of every request, from its signature to the last byte of the answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// How often a read is sent before its fault is handed on.
const READS: u32 = 3;

/// Sends requests through a pacer.
#[derive(Clone)]
pub(super) struct Requests {
    pacer: Pacer,
}

impl Requests {
    /// Requests that `pacer` lets go.
    pub(super) fn new(pacer: Pacer) -> Self {
        Self { pacer }
    }

    /// Sends a request that only reads: up to three times, when AWS throttles or does not answer.
    pub(super) async fn read<T, F>(
        &self,
        quota: &Quota,
        turn: &Turn,
        send: impl Fn() -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut tries = 1;
        loop {
            match self.once(quota, turn, &send).await {
                Err(fault) if tries < READS && may_help(quota, &fault) => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Sends a request once, in its turn.
    pub(super) async fn once<T, F>(
        &self,
        quota: &Quota,
        turn: &Turn,
        send: impl FnOnce() -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.turn(quota, turn).await;
        self.at_once(quota, send).await
    }

    /// Waits until a request may go that is then sent [`at_once`](Self::at_once).
    pub(super) async fn turn(&self, quota: &Quota, turn: &Turn) {
        self.pacer.acquire(quota, turn).await;
    }

    /// Sends a request once, without waiting: its turn has come already.
    pub(super) async fn at_once<T, F>(&self, quota: &Quota, send: impl FnOnce() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let outcome = send().await;
        match &outcome {
            Err(fault) if fault.operation != quota.operation => {}
            Err(Fault { class: Class::Throttled, .. }) => self.pacer.throttled(quota),
            // No answer says nothing about the rate.
            Err(Fault { class: Class::Transient | Class::UnknownOutcome | Class::NoCredentials, .. }) => {}
            Ok(_) | Err(_) => self.pacer.succeeded(quota),
        }
        outcome
    }
}

/// Whether it may help to send a read again. A session that could not be had was asked for as often as may help.
fn may_help(quota: &Quota, fault: &Fault) -> bool {
    fault.operation == quota.operation && matches!(fault.class, Class::Throttled | Class::Transient)
}
