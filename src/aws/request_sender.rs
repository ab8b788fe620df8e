//! Transmission of requests: through the rate limiter, with reads repeated if that may help.
//!
//! A request that changes something is sent at most once, whatever the response. This file depends neither on
//! the content of an operation nor on credentials. If the role of a request cannot be assumed, the error
//! names `AssumeRole`, and does not affect the rate of the request's own operation.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};

use super::rate_limit::{QueueKey, QuotaScope, RateLimiter};

/// Deadline of every request but `ReceiveMessage`, from its signature to the last byte of the response.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The pauses before a read is sent again because of a temporary error, such as a refused connection. A throttled read
/// waits for the rate limiter instead.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Maximum number of limits that are remembered as unresponsive; then all are forgotten. Users can name any number of regions.
const MAX_UNRESPONSIVE: usize = 1000;

/// Sends requests through a rate limiter. Clones share it.
#[derive(Clone)]
pub(super) struct RequestSender {
    rate_limiter: RateLimiter,
    /// The limits whose last read failed each time for a temporary reason.
    unresponsive: Arc<Mutex<HashSet<QuotaScope>>>,
}

impl RequestSender {
    /// Creates a sender that is limited by `rate_limiter`.
    pub(super) fn new(rate_limiter: RateLimiter) -> Self {
        Self { rate_limiter, unresponsive: Arc::default() }
    }

    /// Sends a request that only reads, up to three times if AWS throttles, does not respond, or returns a
    /// temporary error. If all of them fail for a temporary reason, the following reads are sent once until one succeeds: with a
    /// region that does not respond, each read would take half a minute.
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
                        if self.is_unresponsive(quota) {
                            return Err(error);
                        }
                        tokio::time::sleep(pause).await;
                    }
                }
                outcome => {
                    self.record_response(quota, &outcome);
                    return outcome;
                }
            }
        }
        let outcome = self.send_queued(quota, queue_key, &send).await;
        self.record_response(quota, &outcome);
        outcome
    }

    fn is_unresponsive(&self, quota: &QuotaScope) -> bool {
        self.unresponsive.lock().unwrap_or_else(PoisonError::into_inner).contains(quota)
    }

    /// Records the outcome of a read that is not repeated any more.
    fn record_response<T>(&self, quota: &QuotaScope, outcome: &Result<T, AwsError>) {
        let mut unresponsive = self.unresponsive.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(error) if error.operation != quota.operation => {}
            Err(error) if error.kind == ErrorKind::Transient => {
                if unresponsive.len() >= MAX_UNRESPONSIVE {
                    unresponsive.clear();
                }
                unresponsive.insert(quota.clone());
            }
            Ok(_) | Err(_) => {
                unresponsive.remove(quota);
            }
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use stream_encryption_core::controller::stream_api::Priority;
    use stream_encryption_core::model::service::Operation;

    use super::*;

    fn error(kind: ErrorKind) -> AwsError {
        let operation = Operation::DescribeKey;
        AwsError { operation, kind, code: None, message: String::new(), request_id: None }
    }

    #[tokio::test(start_paused = true)]
    async fn reads_of_unresponsive_limit_are_sent_once() {
        let sender = RequestSender::new(RateLimiter::new(80));
        let sent = AtomicUsize::new(0);
        let requests = async |region: &str, answer: Result<(), ErrorKind>| {
            let quota = QuotaScope {
                operation: Operation::DescribeKey,
                account: None,
                region: region.parse().unwrap(),
            };
            let queue_key = QueueKey { priority: Priority::Drift, namespace: "data".to_owned() };
            sent.store(0, Ordering::Relaxed);
            let answered = async || {
                sent.fetch_add(1, Ordering::Relaxed);
                answer.map_err(error)
            };
            let _ = sender.read(&quota, &queue_key, answered).await;
            sent.load(Ordering::Relaxed)
        };
        let down = Err(ErrorKind::Transient);
        assert_eq!(requests("eu-west-1", down).await, 3);
        assert_eq!(requests("eu-west-1", down).await, 1);
        assert_eq!(requests("us-east-1", down).await, 3, "another region");
        // A refusal is a response, too.
        for answer in [Ok(()), Err(ErrorKind::Denied)] {
            assert_eq!(requests("eu-west-1", answer).await, 1);
            assert_eq!(requests("eu-west-1", down).await, 3, "after {answer:?}");
        }
    }
}
