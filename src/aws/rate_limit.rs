//! Rate limiter: one queue and one token bucket for each of AWS's limits.
//!
//! AWS limits the requests of an account and region, for each operation. The rate limiter uses only the share of each limit
//! that the administrator sets. Requests that only detect drift get at most half of that share. It slows down if AWS throttles
//! nevertheless, and serves requests by priority, and namespaces in turn. It sends nothing itself. A waiter that is dropped
//! while it waits costs no token. The background task of a queue ends when no request waits any more.

mod bucket;
mod queue;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::arn::{Account, Region, StreamArn};
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::service::{Operation, profile};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use self::bucket::DRIFT_DIVISOR;
use self::bucket::TokenBucket;
pub use self::queue::QueueKey;
use self::queue::{PRIORITIES, Queue};

/// Default share of AWS's limits that the operator uses, in percent.
pub const DEFAULT_RATE_PERCENT: u8 = 80;
/// Number of quotas in memory up to which none is evicted.
const EVICTION_THRESHOLD: usize = 1024;

/// The scope of one of AWS's limits: the requests that count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuotaScope {
    /// The operation.
    pub operation: Operation,
    /// The account; `None` for requests to STS, which count for the operator's own account.
    pub account: Option<Account>,
    /// The region.
    pub region: Region,
}

impl QuotaScope {
    /// Returns the scope of the limit that applies to `operation` on `stream`.
    #[must_use]
    pub fn of(operation: Operation, stream: &StreamArn) -> Self {
        Self { operation, account: Some(stream.account.clone()), region: stream.region.clone() }
    }
}

/// Grants permits within AWS's limits, by priority and in turn across namespaces. Clones share the quotas.
#[derive(Clone)]
pub struct RateLimiter {
    rate_percent: u32,
    limits: Arc<RequestLimits>,
    quotas: Arc<Mutex<Quotas>>,
    waiters: Arc<[AtomicUsize; PRIORITIES.len()]>,
}

impl RateLimiter {
    /// Creates a rate limiter that uses `rate_percent` percent of AWS's limits, clamped to 1 to 100.
    #[must_use]
    pub fn new(rate_percent: u8) -> Self {
        Self::with_limits(rate_percent, RequestLimits::default())
    }

    /// Creates a rate limiter that uses `rate_percent` percent of these limits, which may differ from AWS's defaults.
    #[must_use]
    pub fn with_limits(rate_percent: u8, limits: RequestLimits) -> Self {
        Self {
            rate_percent: u32::from(rate_percent.clamp(1, 100)),
            limits: Arc::new(limits),
            quotas: Arc::default(),
            waiters: Arc::default(),
        }
    }

    /// Waits for a permit to send a request. If the future is dropped, the request no longer waits and takes no token.
    pub async fn acquire(&self, scope: &QuotaScope, queue_key: &QueueKey) {
        let quota = self.quota(scope);
        let _waiting = Waiting::among(&self.waiters, queue_key.priority);
        let granted = {
            let mut state = quota.state();
            let detects_drift = queue_key.priority == Priority::Drift;
            if state.queue.is_empty() && state.bucket.take(Instant::now(), detects_drift).is_ok() {
                return;
            }
            let (grant, granted) = oneshot::channel();
            state.queue.push(queue_key, grant);
            if state.has_task {
                quota.changed.notify_one();
            } else {
                state.has_task = true;
                tokio::spawn(serve(quota.clone()));
            }
            granted
        };
        match granted.await {
            // The caller sends the request, so the token must not be given back.
            Ok(token) => token.disarm(),
            // Never: a sender is dropped without a token only if this receiver is gone.
            Err(_) => std::future::pending().await,
        }
    }

    /// Halves the rate, because AWS throttled a request.
    pub fn throttled(&self, scope: &QuotaScope) {
        self.quota(scope).state().bucket.throttled(Instant::now());
    }

    /// Raises the rate a little, because AWS answered a request without throttling.
    pub fn succeeded(&self, scope: &QuotaScope) {
        let quota = self.quota(scope);
        let is_raised = quota.state().bucket.succeeded(Instant::now());
        if is_raised {
            quota.changed.notify_one();
        }
    }

    /// Returns how many streams of a service may be described per second in an account and region while AWS does not
    /// throttle, rounded down. `None` stands for the operator's own account while it is not known: a limit that was set for
    /// one account does not apply to it.
    #[must_use]
    pub fn describes_per_second(
        &self,
        service: Service,
        account: Option<&Account>,
        region: &Region,
    ) -> usize {
        let rate = self.full_rate(profile(service).describe, account, region);
        usize::try_from(rate / 1000).unwrap_or(usize::MAX)
    }

    /// Returns the number of requests that wait with this priority, over all quotas: a gauge for the metrics.
    #[must_use]
    pub fn waiting(&self, priority: Priority) -> usize {
        self.waiters[priority as usize].load(Ordering::Relaxed)
    }

    /// Returns the current rate, in thousandths of a request per second.
    #[must_use]
    pub fn rate(&self, scope: &QuotaScope) -> u32 {
        self.quota(scope).state().bucket.rate()
    }

    /// Returns the rate while AWS does not throttle, in thousandths of a request per second.
    fn full_rate(&self, operation: Operation, account: Option<&Account>, region: &Region) -> u32 {
        self.limits.of(operation, account, region) * 10 * self.rate_percent
    }

    fn quota(&self, scope: &QuotaScope) -> Arc<Quota> {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        quotas.evict_unused();
        let full_rate = self.full_rate(scope.operation, scope.account.as_ref(), &scope.region);
        quotas.by_scope.entry(scope.clone()).or_insert_with(|| Arc::new(Quota::new(full_rate))).clone()
    }
}

/// The quotas that are in use, or have been lately.
#[derive(Default)]
struct Quotas {
    by_scope: HashMap<QuotaScope, Arc<Quota>>,
    /// How many were left after the last eviction.
    kept: usize,
}

impl Quotas {
    /// Evicts the unused quotas, if there are many and twice as many as after the last eviction: each eviction visits all.
    fn evict_unused(&mut self) {
        if self.by_scope.len() <= EVICTION_THRESHOLD.max(2 * self.kept) {
            return;
        }
        let now = Instant::now();
        self.by_scope.retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.state().bucket.is_fresh(now));
        self.kept = self.by_scope.len();
    }
}

/// The queue and the bucket of one limit.
struct Quota {
    state: Mutex<State>,
    /// Wakes the task before its timer: a request has arrived, a token has returned unused, or the rate was raised.
    changed: Notify,
}

struct State {
    bucket: TokenBucket,
    queue: Queue<oneshot::Sender<Token>>,
    /// Whether a task is granting the permits of the queue.
    has_task: bool,
}

impl Quota {
    fn new(full_rate: u32) -> Self {
        let state = State { bucket: TokenBucket::new(full_rate), queue: Queue::new(), has_task: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants permits until the bucket is empty, and returns the time of the next token; `None` if no request
    /// waits.
    fn grant(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let drift_available_from = state.bucket.drift_available_from(now);
            let Some(priority) = state.queue.next(drift_available_from <= now) else {
                if state.queue.is_empty() {
                    state.has_task = false;
                    return None;
                }
                // Only requests that detect drift wait.
                return Some(drift_available_from);
            };
            let detects_drift = priority == Priority::Drift;
            if let Err(again) = state.bucket.take(now, detects_drift) {
                return Some(again);
            }
            let waiter = state.queue.pop(priority, |waiter| !waiter.is_closed());
            let is_granted = waiter.is_some_and(|waiter| {
                let token = Token { quota: Some(self.clone()), taken: now, detects_drift };
                // If the waiter is gone, `send` returns the token. Its drop would lock this quota again and deadlock, so it
                // is disarmed here, and given back below.
                waiter.send(token).map_err(Token::disarm).is_ok()
            });
            if is_granted {
                state.queue.count_granted(priority);
            } else {
                state.bucket.give_back(now, detects_drift);
            }
        }
    }
}

/// Serves a queue until it is empty.
async fn serve(quota: Arc<Quota>) {
    while let Some(again) = quota.grant() {
        tokio::select! {
            () = tokio::time::sleep_until(again) => {}
            () = quota.changed.notified() => {}
        }
    }
}

/// The permit to send one request. It returns to the bucket if it is dropped unused.
struct Token {
    /// The origin of the token; `None` if it must not return there.
    quota: Option<Arc<Quota>>,
    taken: Instant,
    detects_drift: bool,
}

impl Token {
    /// Drops the token without returning it.
    fn disarm(mut self) {
        self.quota = None;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(quota) = self.quota.take() {
            quota.state().bucket.give_back(self.taken, self.detects_drift);
            // Wakes the task, which otherwise sleeps until the second of this token has passed.
            quota.changed.notify_one();
        }
    }
}

/// Counts one waiter while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiters: &'a [AtomicUsize; PRIORITIES.len()], priority: Priority) -> Self {
        let count = &waiters[priority as usize];
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
