//! Transmission of requests: through the rate limiter, with reads repeated if that may help.
//!
//! A request that changes something is sent at most once, whatever the response. This file depends neither on
//! the content of an operation nor on credentials. If the role of a request cannot be assumed, the error
//! names `AssumeRole`, and does not affect the rate of the request's own operation.

use std::future::Future;
use std::time::Duration;

use super::rate_limit::{QueueKey, Quota, RateLimiter};
use crate::model::aws_error::{AwsError, ErrorKind};

/// Deadline of every request, from its signature to the last byte of the response.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of times that a read is sent before its error is returned.
const READS: u32 = 3;

/// Sends requests through a rate limiter.
#[derive(Clone)]
pub(super) struct Requests {
    rate_limiter: RateLimiter,
}

impl Requests {
    /// Creates a sender that is limited by `rate_limiter`.
    pub(super) fn new(rate_limiter: RateLimiter) -> Self {
        Self { rate_limiter }
    }

    /// Sends a request that only reads, up to three times if AWS throttles or does not respond.
    pub(super) async fn read<T, F>(
        &self,
        quota: &Quota,
        turn: &QueueKey,
        send: impl Fn() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        let mut tries = 1;
        loop {
            match self.send_queued(quota, turn, &send).await {
                Err(fault) if tries < READS && may_help(quota, &fault) => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Sends a request once, after the rate limiter has granted a permit.
    pub(super) async fn send_queued<T, F>(
        &self,
        quota: &Quota,
        turn: &QueueKey,
        send: impl FnOnce() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        self.acquire_permit(quota, turn).await;
        self.send_now(quota, send).await
    }

    /// Waits for the permit of a request that is then sent with [`send_now`](Self::send_now).
    pub(super) async fn acquire_permit(&self, quota: &Quota, turn: &QueueKey) {
        self.rate_limiter.acquire(quota, turn).await;
    }

    /// Sends a request once, without waiting: its permit was acquired before.
    pub(super) async fn send_now<T, F>(&self, quota: &Quota, send: impl FnOnce() -> F) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        let outcome = send().await;
        match &outcome {
            Err(fault) if fault.operation != quota.operation => {}
            Err(AwsError { class: ErrorKind::Throttled, .. }) => self.rate_limiter.throttled(quota),
            // A missing response implies nothing about the rate.
            Err(AwsError {
                class: ErrorKind::Transient | ErrorKind::UnknownOutcome | ErrorKind::NoCredentials,
                ..
            }) => {}
            Ok(_) | Err(_) => self.rate_limiter.succeeded(quota),
        }
        outcome
    }
}

/// Returns whether a repeated read may succeed. A failed `AssumeRole` was already repeated, so the read is
/// not repeated because of it.
fn may_help(quota: &Quota, fault: &AwsError) -> bool {
    fault.operation == quota.operation && matches!(fault.class, ErrorKind::Throttled | ErrorKind::Transient)
}
