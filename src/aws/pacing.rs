//! When a request may go: one queue and one bucket for each of AWS's limits.
//!
//! AWS limits the requests of an account and region, for each operation. The pacer stays under the limit by a share that
//! the administrator sets, slows down when AWS throttles all the same, and serves by [`Turn`]. It sends nothing itself.
//! A waiter that is dropped costs no token, and nothing runs in the background while nobody waits.

mod bucket;
mod queue;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::bucket::Bucket;
pub use self::queue::Turn;
use self::queue::{Queue, URGENCIES};
use super::port::Urgency;
use crate::model::fault::Operation;
use crate::model::stream::{Account, Region, StreamArn};

/// The share of AWS's limits that the operator uses, in percent, where the administrator says nothing else.
pub const DEFAULT_SHARE: u8 = 80;
/// Lanes are kept until there are more than this; then those that nobody uses go.
const MANY_LANES: usize = 1024;

/// One of AWS's limits: whose requests it counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The operation.
    pub operation: Operation,
    /// The account; nothing while it is not known yet (`GetCallerIdentity`).
    pub account: Option<Account>,
    /// The region.
    pub region: Region,
}

impl Quota {
    /// The limit that counts `operation` on `stream`.
    #[must_use]
    pub fn of(operation: Operation, stream: &StreamArn) -> Self {
        Self { operation, account: Some(stream.account.clone()), region: stream.region.clone() }
    }
}

/// Lets requests go under AWS's limits, namespaces in turn and of each the most urgent first. Clones share the queues.
#[derive(Clone)]
pub struct Pacer {
    share: u32,
    limits: fn(Operation) -> u32,
    lanes: Arc<Mutex<HashMap<Quota, Arc<Lane>>>>,
    waiters: Arc<[AtomicUsize; URGENCIES.len()]>,
}

/// What AWS allows of `operation`, in requests a second for an account and region: [Firehose's
/// quotas](https://docs.aws.amazon.com/firehose/latest/dev/limits.html), [those of
/// Kinesis](https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html), [those of
/// KMS](https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html), [those of
/// STS](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-sts-requests).
fn limit(operation: Operation) -> u32 {
    match operation {
        Operation::DescribeDeliveryStream
        | Operation::StartDeliveryStreamEncryption
        | Operation::StopDeliveryStreamEncryption
        // AWS documents no limit for these two; ours is that of Firehose.
        | Operation::StartStreamEncryption
        | Operation::StopStreamEncryption => 5,
        Operation::DescribeStreamSummary => 20,
        Operation::DescribeKey => 2_000,
        // These limits are higher, or of each stream, and the operator needs few of these requests.
        Operation::PutFirehoseRecord
        | Operation::PutKinesisRecord
        // STS allows an account 600 requests a second of all kinds, and others ask as well.
        | Operation::AssumeRole => 100,
        Operation::GetCallerIdentity => 10,
    }
}

impl Pacer {
    /// A pacer that uses `share` percent of AWS's limits: 1 to 100; what lies outside counts as the nearest of these.
    #[must_use]
    pub fn new(share: u8) -> Self {
        Self::with_limits(share, limit)
    }

    /// The same under other limits, in requests a second: AWS raises some of them on request.
    #[must_use]
    pub fn with_limits(share: u8, limits: fn(Operation) -> u32) -> Self {
        Self { share: u32::from(share.clamp(1, 100)), limits, lanes: Arc::default(), waiters: Arc::default() }
    }

    /// Waits until a request may go. Dropping the future gives up the place in the queue and takes no token.
    pub async fn acquire(&self, quota: &Quota, turn: &Turn) {
        let lane = self.lane(quota);
        let _waiting = Waiting::among(&self.waiters, turn.urgency);
        let granted = {
            let mut state = lane.lock();
            if state.queue.is_empty() && state.bucket.take(Instant::now()).is_ok() {
                return;
            }
            let (grant, granted) = oneshot::channel();
            state.queue.push(turn, grant);
            if !state.served {
                state.served = true;
                tokio::spawn(serve(lane.clone()));
            }
            granted
        };
        // An error means that the runtime is ending: nobody grants anything any more.
        match granted.await {
            Ok(token) => token.spend(),
            Err(_) => std::future::pending().await,
        }
    }

    /// AWS throttled a request: half as fast from now on.
    pub fn throttled(&self, quota: &Quota) {
        self.lane(quota).lock().bucket.throttled(Instant::now());
    }

    /// AWS answered a request without throttling: a little faster again.
    pub fn succeeded(&self, quota: &Quota) {
        self.lane(quota).lock().bucket.succeeded(Instant::now());
    }

    /// How many requests wait with this urgency, over all queues: a gauge for the metrics.
    #[must_use]
    pub fn waiting(&self, urgency: Urgency) -> usize {
        self.waiters[urgency as usize].load(Ordering::Relaxed)
    }

    /// How fast requests go at present, in thousandths of a request a second.
    #[must_use]
    pub fn rate(&self, quota: &Quota) -> u32 {
        self.lane(quota).lock().bucket.rate()
    }

    fn lane(&self, quota: &Quota) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() > MANY_LANES {
            let now = Instant::now();
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.lock().bucket.is_fresh(now));
        }
        let full_rate = (self.limits)(quota.operation) * 10 * self.share;
        lanes.entry(quota.clone()).or_insert_with(|| Arc::new(Lane::new(full_rate))).clone()
    }
}

/// The queue and the bucket of one limit.
struct Lane(Mutex<State>);

struct State {
    bucket: Bucket,
    queue: Queue<oneshot::Sender<Token>>,
    /// Whether a task serves the queue.
    served: bool,
}

impl Lane {
    fn new(full_rate: u32) -> Self {
        Self(Mutex::new(State { bucket: Bucket::new(full_rate), queue: Queue::new(), served: false }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go whoever may go now, and tells when the next may; nothing, if nobody waits any more.
    fn grant(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.lock();
        while !state.queue.is_empty() {
            let now = Instant::now();
            if let Err(again) = state.bucket.take(now) {
                return Some(again);
            }
            let mut granted = false;
            while !granted && let Some(waiter) = state.queue.pop() {
                let token = Token { lane: Some(self.clone()), taken: now };
                // A waiter that is gone leaves it to the next one. Under this lock no token may be dropped unspent.
                granted = waiter.send(token).map_err(Token::spend).is_ok();
            }
            if !granted {
                state.bucket.give_back(now);
            }
        }
        state.served = false;
        None
    }
}

/// Serves a lane's queue until it is empty.
async fn serve(lane: Arc<Lane>) {
    while let Some(again) = lane.grant() {
        tokio::time::sleep_until(again).await;
    }
}

/// The right to send one request. Dropped unused, it goes back into the bucket.
struct Token {
    /// Where it came from, until it is spent.
    lane: Option<Arc<Lane>>,
    taken: Instant,
}

impl Token {
    fn spend(mut self) {
        self.lane = None;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            lane.lock().bucket.give_back(self.taken);
        }
    }
}

/// Counts one waiter for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiters: &'a [AtomicUsize; URGENCIES.len()], urgency: Urgency) -> Self {
        let count = &waiters[urgency as usize];
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
