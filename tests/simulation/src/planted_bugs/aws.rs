//! The AWS port of an operator with a planted bug: wraps the simulated port.
//!
//! It may send additional, late or different requests, and misinterpret responses. It never accesses
//! Kubernetes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::Action;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription};
use stream_encryption_core::model::principal::Principal;

use super::Bug;
use super::protocol::{EarlyDescribes, enabling_as_enabled};
use crate::ports::{AwsPort, Call};

/// Time for which [`Bug::CachedDescribe`] caches a description.
const STREAM_CACHE_TTL: SignedDuration = SignedDuration::from_mins(5);
/// Time for which [`Bug::CachedKeyDescribe`] caches a response of KMS.
const KEY_CACHE_TTL: SignedDuration = SignedDuration::from_hours(1);
/// The number of attempts that the SDK makes by default.
const MAX_ATTEMPTS: i64 = 3;

/// The AWS port with a planted bug.
#[derive(Debug)]
pub struct BuggyAws {
    bug: Bug,
    port: AwsPort,
    cache: Mutex<Cache>,
    early_describes: EarlyDescribes,
}

/// The last responses of AWS by stream or key, with their times.
type Responses<T> = BTreeMap<String, (Timestamp, T)>;

/// Returns the cached response, if it is younger than `ttl`.
fn cached_response<T: Clone>(
    responses: &Responses<T>,
    key: &str,
    now: Timestamp,
    ttl: SignedDuration,
) -> Option<T> {
    responses.get(key).filter(|(at, _)| now < *at + ttl).map(|(_, response)| response.clone())
}

/// The cached state of this process.
#[derive(Debug, Default)]
struct Cache {
    /// The last description of each stream, with its time.
    describes: Responses<Option<(StreamDescription, Signer)>>,
    /// The last description of each key, with its time.
    keys: Responses<Option<KeyMetadata>>,
    /// The last requested key, by stream.
    requested_keys: BTreeMap<String, Key>,
    /// The last encryption that AWS reported as complete, by stream.
    complete: BTreeMap<String, ReportedEncryption>,
}

impl BuggyAws {
    pub(super) fn new(bug: Bug, port: AwsPort) -> Self {
        Self { bug, port, cache: Mutex::default(), early_describes: EarlyDescribes::default() }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.port.transport().environment.state().now
    }

    /// Sends a call. With [`Bug::SdkRetries`], a Start is repeated as by the SDK with retries enabled.
    async fn call(
        &self,
        stream: &StreamArn,
        call: Call<'_>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        let signer = &self.signer(signer);
        let dated = (self.bug != Bug::PauseNotNoticed).then_some(reserved);
        let mut attempts =
            if self.bug == Bug::SdkRetries && matches!(call, Call::Start(_)) { 1 } else { MAX_ATTEMPTS };
        loop {
            let response = self.port.call(stream, call, principal, signer, reserved, dated).await;
            let retry = matches!(
                &response,
                Err(error)
                    if matches!(error.kind, ErrorKind::LimitReached | ErrorKind::UnknownOutcome | ErrorKind::Throttled)
            );
            if !retry || attempts == MAX_ATTEMPTS {
                return self.interpret(response);
            }
            let backoff = SignedDuration::from_millis(300 * attempts);
            let at = self.now() + backoff;
            self.port.transport().environment.wait_until(at).await;
            attempts += 1;
        }
    }

    /// Returns the principal of the request.
    fn used_principal(&self, principal: &Principal) -> Principal {
        let role = if self.bug == Bug::RoleForgotten { None } else { principal.role.clone() };
        Principal { role, ..principal.clone() }
    }

    /// Returns the signer of a call after a Describe that `describe_signer` signed.
    fn signer(&self, describe_signer: &Signer) -> Signer {
        if self.bug == Bug::SignedAnew { self.port.signer() } else { describe_signer.clone() }
    }

    /// Returns the operator's interpretation of an response.
    fn interpret(&self, response: Result<Accepted, AwsError>) -> Result<Accepted, AwsError> {
        match response {
            Err(error) if self.bug == Bug::NoResponseIsRefusal && error.kind == ErrorKind::UnknownOutcome => {
                Err(AwsError { kind: ErrorKind::Transient, ..error })
            }
            response => response,
        }
    }
}

impl StreamApi for BuggyAws {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        if self.bug == Bug::DescribeBeforeLedger {
            self.early_describes.describe(&self.port).await;
        }
        self.port.identity().await
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.port.verify_clock().await
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let name = stream.to_string();
        let now = self.now();
        if self.bug == Bug::CachedDescribe
            && let Some(description) = cached_response(&self.cache().describes, &name, now, STREAM_CACHE_TTL)
        {
            return Ok(description);
        }
        if self.bug == Bug::DescribeBeforeLedger
            && let Some(description) = self.early_describes.take(&self.port, stream, principal)
        {
            return Ok(description);
        }
        let mut description =
            self.port.describe_stream(stream, &self.used_principal(principal), priority).await?;
        let now = self.now();
        let mut cache = self.cache();
        if self.bug == Bug::FailedShownAsDone
            && let (Some((description, _)), Some(requested_key)) =
                (&mut description, cache.requested_keys.get(&name))
            && matches!(description.encryption, ReportedEncryption::Failed { action: Action::Start, .. })
        {
            description.encryption = ReportedEncryption::On(requested_key.clone());
        }
        if self.bug == Bug::FailureChangesNothing
            && let Some((description, _)) = &mut description
        {
            match &description.encryption {
                ReportedEncryption::On(_) | ReportedEncryption::Off => {
                    cache.complete.insert(name.clone(), description.encryption.clone());
                }
                ReportedEncryption::Failed { .. } => {
                    let before = cache.complete.get(&name).cloned();
                    description.encryption = before.unwrap_or_else(|| description.encryption.clone());
                }
                _ => {}
            }
        }
        if self.bug == Bug::EventBelieved
            && let Some((description, _)) = &mut description
            && self.port.transport().environment.state().messages.reports_stop(stream, now)
        {
            description.encryption = ReportedEncryption::Off;
        }
        if self.bug == Bug::EnablingIsEnabled {
            description = enabling_as_enabled(description, cache.requested_keys.get(&name));
        }
        cache.describes.insert(name, (now, description.clone()));
        Ok(description)
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let key = name.to_string();
        let now = self.now();
        if self.bug == Bug::CachedKeyDescribe
            && let Some(metadata) = cached_response(&self.cache().keys, &key, now, KEY_CACHE_TTL)
        {
            return Ok(metadata);
        }
        let metadata = self.port.describe_key(stream, name, principal, priority).await?;
        let now = self.now();
        self.cache().keys.insert(key, (now, metadata.clone()));
        Ok(metadata)
    }

    async fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        let signer = self.signer(signer);
        self.port.acquire_permit(stream, action, principal, &signer).await
    }

    async fn acquire_record_permit(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.port.acquire_record_permit(stream, principal, &self.signer(signer)).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.cache().requested_keys.insert(stream.to_string(), key.clone());
        self.call(stream, Call::Start(key), principal, signer, reserved).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.call(stream, Call::Stop(active_key), principal, signer, reserved).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        self.port.put_record(stream, record, principal, &self.signer(signer)).await
    }
}
