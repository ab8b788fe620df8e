//! Fakes of the two ports: an AWS in which every request succeeds, and a cluster with one resource.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::ledger::{Action as Change, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind, SIGNER_CHANGED};
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::model::key::{Key, KeyMetadata, KeyState};
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::Operation;
use tokio::sync::Notify;

pub(super) const ARN: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

/// An AWS in which every stream exists in plaintext and every key is usable.
#[derive(Default)]
pub(super) struct Plaintext {
    pub(super) called: Mutex<Vec<StreamArn>>,
    /// Notified of each call that waits for a permit, which is never granted; `None` if each permit is
    /// granted at once.
    pub(super) waiting: Option<Notify>,
    /// Whether AWS does not respond to a Describe.
    pub(super) unresponsive: AtomicBool,
    /// Whether a Start is not sent, because its signer has changed.
    pub(super) holds_calls_back: AtomicBool,
    /// Number of requests that verify the clock.
    pub(super) clock_requests: AtomicU32,
    /// Time until AWS confirms the clock.
    pub(super) clock_delay: Duration,
}

impl StreamApi for Plaintext {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        Ok(AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() })
    }
    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.clock_requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.clock_delay).await;
        Ok(())
    }
    async fn describe_stream(
        &self,
        stream: &StreamArn,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        if self.unresponsive.load(Ordering::Relaxed) {
            let operation = Operation::DescribeDeliveryStream;
            let (kind, message) = (ErrorKind::Transient, "no response".to_owned());
            return Err(AwsError { operation, kind, code: None, message, request_id: None });
        }
        let description = StreamDescription {
            arn: stream.clone(),
            created: None,
            source: Some("DirectPut".to_owned()),
            state: StreamState::Active,
            raw_status: "ACTIVE".to_owned(),
            encryption: ReportedEncryption::Off,
            retention: SignedDuration::from_hours(24),
        };
        Ok(Some((description, Signer { access_key_id: "AKIDEXAMPLE".to_owned(), session_age: None })))
    }
    async fn describe_key(
        &self,
        _: &StreamArn,
        name: &KmsKeyId,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let KmsKeyId::Arn(arn) = name else { return Ok(None) };
        let (arn, state) = (arn.clone(), KeyState::Enabled);
        Ok(Some(KeyMetadata { arn, state, symmetric: true, encrypts: true, aws_managed: false }))
    }
    async fn acquire_permit(&self, _: &StreamArn, _: Change, _: &Principal, _: &Signer) -> bool {
        if let Some(waiting) = &self.waiting {
            waiting.notify_one();
            std::future::pending::<()>().await;
        }
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
        if self.holds_calls_back.load(Ordering::Relaxed) {
            let operation = Operation::change(stream.service, Change::Start);
            return Err(AwsError::not_sent(operation, SIGNER_CHANGED, "the credentials have changed"));
        }
        self.called.lock().unwrap().push(stream.clone());
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
        self.called.lock().unwrap().push(stream.clone());
        Ok(Accepted::default())
    }
    async fn put_record(&self, _: &StreamArn, _: &str, _: &Principal, _: &Signer) -> Result<bool, AwsError> {
        Ok(true)
    }
}

/// A cluster with one resource, and with the ledgers and the last status that the operator wrote.
#[derive(Default)]
pub(super) struct FakeCluster {
    pub(super) resource: Mutex<Option<StreamEncryption>>,
    pub(super) ledgers: Mutex<Vec<StreamLedger>>,
    pub(super) status: Mutex<Option<StreamEncryptionStatus>>,
    /// Whether a write is stored but not acknowledged.
    pub(super) silent: AtomicBool,
    /// Whether the metadata of each write is outdated.
    pub(super) conflicts: AtomicBool,
    /// Whether each write is refused.
    pub(super) refuses: AtomicBool,
    /// Number of reads of the resource from the API server, not from the cache.
    pub(super) live_reads: AtomicU32,
    /// Number of writes of the status or the finalizer.
    pub(super) writes: AtomicU32,
    /// Whether the resource no longer exists.
    pub(super) gone: AtomicBool,
    /// The reasons of the events.
    pub(super) events: Mutex<Vec<String>>,
}

impl FakeCluster {
    fn count_write(&self) -> Result<(), KubeError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(KubeError::Rejected("forbidden".to_owned()));
        }
        if self.conflicts.load(Ordering::Relaxed) { Err(KubeError::Conflict) } else { Ok(()) }
    }
}

impl KubeApi for FakeCluster {
    async fn resource(
        &self,
        _: &str,
        _: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        if from == ReadFrom::ApiServer {
            self.live_reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.resource.lock().unwrap().clone())
    }
    async fn ledger(&self, name: &str, _: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        let ledgers = self.ledgers.lock().unwrap();
        Ok(ledgers.iter().find(|ledger| ledger.metadata.name.as_deref() == Some(name)).cloned())
    }
    async fn ledgers(&self, _: Option<&str>) -> Result<LedgerPage, KubeError> {
        Ok(LedgerPage { ledgers: self.ledgers.lock().unwrap().clone(), next: None })
    }
    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let ledger = StreamLedger::new(name, spec.clone());
        self.ledgers.lock().unwrap().push(ledger.clone());
        Ok(ledger)
    }
    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let mut ledgers = self.ledgers.lock().unwrap();
        ledgers.retain(|other| other.metadata.name != ledger.metadata.name);
        ledgers.push(ledger.clone());
        Ok(ledger.clone())
    }
    async fn delete_ledger(&self, _: &StreamLedger) -> Result<(), KubeError> {
        Ok(())
    }
    async fn write_status(
        &self,
        _: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        self.count_write()?;
        *self.status.lock().unwrap() = Some(status.clone());
        let silent = self.silent.load(Ordering::Relaxed);
        if silent { Err(KubeError::Unavailable("no answer".to_owned())) } else { Ok(None) }
    }
    async fn publish_event(&self, _: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        self.events.lock().unwrap().push(event.reason.clone());
        Ok(())
    }
    async fn set_finalizer(&self, _: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        self.count_write()?;
        if let Some(resource) = &mut *self.resource.lock().unwrap() {
            resource.metadata.finalizers = present.then(|| vec![FINALIZER.to_owned()]);
        }
        // The removal of the finalizer of a deleted resource is the end of the resource.
        if self.gone.swap(!present, Ordering::Relaxed) {
            return Ok(None);
        }
        let silent = self.silent.load(Ordering::Relaxed);
        if silent { Err(KubeError::Unavailable("no answer".to_owned())) } else { Ok(Some("2".to_owned())) }
    }
    async fn policies(&self, _: &str, _: ReadFrom) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        Ok(vec![StreamEncryptionPolicySpec {
            allow_disable: true,
            ..StreamEncryptionPolicySpec::own_account()
        }])
    }
    async fn referenced_key(&self, _: &str, _: &KeyObjectReference) -> Result<ReferencedKey, KubeError> {
        Ok(ReferencedKey::Arn("not an ARN".to_owned()))
    }
}

pub(super) fn context(resource: Option<StreamEncryption>) -> Context<Plaintext, FakeCluster> {
    let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
    Context {
        aws: Plaintext::default(),
        kube: FakeCluster { resource: Mutex::new(resource), ..FakeCluster::default() },
        clock: Clock::new(move || now, || Duration::ZERO),
        decide,
        config: Config {
            region: "eu-west-1".parse().unwrap(),
            drift_interval: SignedDuration::from_mins(10),
            drift_interval_with_events: None,
        },
        memory: Memory::default(),
        metrics: Box::new(NoMetrics),
    }
}
