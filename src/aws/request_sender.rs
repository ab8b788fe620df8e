//! Transmission of requests: through the rate limiter, with reads repeated if that may help.
//!
//! A request that changes something is sent at most once, whatever the response. This file depends neither on
//! the content of an operation nor on credentials. If the role of a request cannot be assumed, the error
//! names `AssumeRole`, and does not affect the rate of the request's own operation.

use std::future::Future;
use std::time::Duration;

use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};

use super::rate_limit::{QueueKey, QuotaScope, RateLimiter};

/// Deadline of every request but `ReceiveMessage`, from its signature to the last byte of the response.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The pauses before a read is sent again because of a temporary error, such as a refused connection. A throttled read
/// waits for the rate limiter instead.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Sends requests through a rate limiter.
#[derive(Clone)]
pub(super) struct RequestSender {
    rate_limiter: RateLimiter,
}

impl RequestSender {
    /// Creates a sender that is limited by `rate_limiter`.
    pub(super) fn new(rate_limiter: RateLimiter) -> Self {
        Self { rate_limiter }
    }

    /// Sends a request that only reads, up to three times if AWS throttles, does not respond, or returns a
    /// temporary error.
    pub(super) async fn read<T, F>(
        &self,
        quota: &QuotaScope,
        queue_key: &QueueKey,
        send: impl Fn() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        for pause in PAUSES {
            match self.send_queued(quota, queue_key, &send).await {
                Err(error) if may_help(quota, &error) => {
                    if error.kind == ErrorKind::Transient {
                        tokio::time::sleep(pause).await;
                    }
                }
                outcome => return outcome,
            }
        }
        self.send_queued(quota, queue_key, &send).await
    }

    /// Sends a request once, after the rate limiter has granted a permit.
    pub(super) async fn send_queued<T, F>(
        &self,
        quota: &QuotaScope,
        queue_key: &QueueKey,
        send: impl FnOnce() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        self.acquire_permit(quota, queue_key).await;
        self.send_now(quota, send).await
    }

    /// Waits for the permit of a request that is then sent with [`send_now`](Self::send_now).
    pub(super) async fn acquire_permit(&self, quota: &QuotaScope, queue_key: &QueueKey) {
        self.rate_limiter.acquire(quota, queue_key).await;
    }

    /// Sends a request once, without waiting for a permit: it was acquired before.
    pub(super) async fn send_now<T, F>(
        &self,
        quota: &QuotaScope,
        send: impl FnOnce() -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, AwsError>>,
    {
        let outcome = send().await;
        match &outcome {
            Err(error) if error.operation != quota.operation || error.is_of_full_shard() => {}
            Err(AwsError { kind: ErrorKind::Throttled, .. }) => self.rate_limiter.throttled(quota),
            // A missing response implies nothing about the rate.
            Err(AwsError {
                kind: ErrorKind::Transient | ErrorKind::UnknownOutcome | ErrorKind::NoCredentials,
                ..
            }) => {}
            Ok(_) | Err(_) => self.rate_limiter.succeeded(quota),
        }
        outcome
    }
}

/// Returns whether a repeated read may succeed. A failed `AssumeRole` was already repeated, so the read is
/// not repeated because of it.
fn may_help(quota: &QuotaScope, error: &AwsError) -> bool {
    error.operation == quota.operation && matches!(error.kind, ErrorKind::Throttled | ErrorKind::Transient)
}
