//! AWS with many streams: each is in plaintext, is being encrypted, or is encrypted. Requests above AWS's limits are
//! refused.
//!
//! As in the operator's own adapter, the rate limiter permits each request, and learns of each answer. This module
//! knows no keys, no failures and no other clients.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::service::{Operation, profile};
use stream_encryption_operator::aws::rate_limit::{QueueKey, QuotaScope, RateLimiter};
use tokio::time::{Instant, sleep};

/// How long a request to AWS takes.
const LATENCY: Duration = Duration::from_millis(40);
/// The time in which AWS counts requests.
const SECOND: Duration = Duration::from_secs(1);

/// AWS.
pub struct FleetAws {
    limiter: RateLimiter,
    limits: RequestLimits,
    /// The time that AWS takes to encrypt a stream.
    change: Duration,
    state: Mutex<State>,
}

/// What AWS knows and has counted.
#[derive(Default)]
struct State {
    streams: HashMap<StreamArn, Encryption>,
    /// The requests of the last second, by limit.
    requests: HashMap<QuotaScope, VecDeque<Instant>>,
    counts: Requests,
}

#[derive(Clone, Copy)]
enum Encryption {
    Plaintext,
    /// Encrypted from this time on; until then it is being encrypted.
    From(Instant),
}

/// The requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Describes.
    pub describes: u64,
    /// Starts.
    pub starts: u64,
    /// The requests among them that AWS refused because of its limits.
    pub throttled: u64,
}

impl FleetAws {
    /// Creates AWS with these limits, without streams. It takes `change` to encrypt a stream, and `limiter` is the
    /// operator's.
    #[must_use]
    pub fn new(limiter: RateLimiter, limits: RequestLimits, change: Duration) -> Self {
        Self { limiter, limits, change, state: Mutex::default() }
    }

    /// Creates a stream.
    pub fn create(&self, stream: StreamArn, is_encrypted: bool) {
        let encryption = if is_encrypted { Encryption::From(Instant::now()) } else { Encryption::Plaintext };
        self.state().streams.insert(stream, encryption);
    }

    /// Returns the time at which a stream was started to be encrypted.
    #[must_use]
    pub fn started(&self, stream: &StreamArn) -> Option<Instant> {
        match self.state().streams.get(stream)? {
            Encryption::Plaintext => None,
            Encryption::From(at) => Some(*at - self.change),
        }
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and counts it against AWS's limit.
    async fn send(&self, operation: Operation, stream: &StreamArn) -> Result<(), AwsError> {
        sleep(LATENCY).await;
        let (quota, now) = (QuotaScope::of(operation, stream), Instant::now());
        let is_throttled = {
            let mut state = self.state();
            let recent = state.requests.entry(quota.clone()).or_default();
            while recent.front().is_some_and(|&at| at + SECOND <= now) {
                recent.pop_front();
            }
            let limit = self.limits.of(operation, Some(&stream.account), &stream.region);
            let is_throttled = recent.len() >= limit as usize;
            if !is_throttled {
                recent.push_back(now);
            }
            state.counts.throttled += u64::from(is_throttled);
            let count =
                if operation.is_mutating() { &mut state.counts.starts } else { &mut state.counts.describes };
            *count += 1;
            is_throttled
        };
        if is_throttled {
            self.limiter.throttled(&quota);
            return Err(error(operation, ErrorKind::Throttled));
        }
        self.limiter.succeeded(&quota);
        Ok(())
    }

    async fn permit(&self, operation: Operation, stream: &StreamArn, by: &Principal, priority: Priority) {
        let key = QueueKey { priority, namespace: by.namespace.clone() };
        self.limiter.acquire(&QuotaScope::of(operation, stream), &key).await;
    }
}

fn error(operation: Operation, kind: ErrorKind) -> AwsError {
    AwsError { operation, kind, code: None, message: String::new(), request_id: None }
}

fn signer() -> Signer {
    Signer { access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(), session_age: None }
}

impl StreamApi for FleetAws {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        let known = || error(Operation::GetCallerIdentity, ErrorKind::Transient);
        let account = "111122223333".parse().map_err(|_| known())?;
        Ok(AwsAccount { account, partition: "aws".parse().map_err(|_| known())? })
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        Ok(())
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        by: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let operation = profile(stream.service).describe;
        self.permit(operation, stream, by, priority).await;
        self.send(operation, stream).await?;
        let Some(encryption) = self.state().streams.get(stream).copied() else { return Ok(None) };
        let encryption = match encryption {
            Encryption::Plaintext => ReportedEncryption::Off,
            Encryption::From(at) if Instant::now() < at => ReportedEncryption::Enabling,
            Encryption::From(_) => ReportedEncryption::On(Key::AwsOwned),
        };
        let description = StreamDescription {
            arn: stream.clone(),
            created: Some(Timestamp::UNIX_EPOCH),
            source: Some("DirectPut".to_owned()),
            state: StreamState::Active,
            raw_status: "ACTIVE".to_owned(),
            encryption,
            retention: SignedDuration::from_hours(24),
        };
        Ok(Some((description, signer())))
    }

    async fn describe_key(
        &self,
        _: &StreamArn,
        _: &KmsKeyId,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        Ok(None)
    }

    async fn acquire_permit(&self, stream: &StreamArn, action: Action, by: &Principal, _: &Signer) -> bool {
        self.permit(Operation::change(stream.service, action), stream, by, Priority::Call).await;
        true
    }

    async fn start(
        &self,
        stream: &StreamArn,
        _: &Key,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.send(profile(stream.service).start, stream).await?;
        self.state().streams.insert(stream.clone(), Encryption::From(Instant::now() + self.change));
        Ok(Accepted::default())
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        _: Option<&Key>,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.send(profile(stream.service).stop, stream).await?;
        Ok(Accepted::default())
    }

    async fn put_record(&self, _: &StreamArn, _: &str, _: &Principal, _: &Signer) -> Result<bool, AwsError> {
        Ok(true)
    }
}
