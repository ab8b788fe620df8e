//! Fakes of the two ports over one state, with a hook before any request.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};

use crate::controller::kube_api::{KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey};
use crate::controller::memory::Memory;
use crate::controller::stream_api::{Priority, Signer, StreamApi};
use crate::controller::{Clock, Config, Context, NoMetrics};
use crate::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use crate::model::aws_error::{Accepted, AwsError, ErrorKind};
use crate::model::decision::decide;
use crate::model::key::{Key, KeyMetadata};
use crate::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use crate::model::principal::Principal;
use crate::model::service::Operation;

/// The namespace of the other resource.
pub const RIVALS: &str = "web";

/// A request of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    ReadResource(ReadFrom),
    ReadLedger(ReadFrom),
    WriteLedger,
    DeleteLedger,
    WriteStatus,
    SetFinalizer,
    ReadPolicies(ReadFrom),
    Describe,
    DescribeKey,
    Permit,
    Start,
    PutRecord,
    VerifyClock,
    /// No request, but a look at the monotonic clock.
    Monotonic,
}

type Hook = Box<dyn FnOnce(&mut State) -> Result<(), KubeError> + Send>;

fn pause(seconds: u64) -> Hook {
    Box::new(move |state| {
        state.elapsed += Duration::from_secs(seconds);
        Ok(())
    })
}

/// How AWS answers a request for the identity of the operator's credentials.
#[derive(Clone, Copy, Debug)]
pub enum Identity {
    Known,
    Fails,
    Hangs,
}

/// One stream, one resource, and what the operator did.
#[allow(clippy::struct_excessive_bools, reason = "each is one fault, which a test sets")]
pub struct State {
    /// The time since the start, of both clocks.
    pub elapsed: Duration,
    /// By how much the wall clock is ahead.
    pub clock_error: SignedDuration,
    pub resource: Option<StreamEncryption>,
    /// The resource in a cache that lags; `None` if the cache is current.
    pub lagging: Option<StreamEncryption>,
    /// The ledger in a cache that lags.
    pub lagging_ledger: Option<StreamLedger>,
    /// Another resource, in the namespace `web`.
    pub rival: Option<StreamEncryption>,
    /// Whether another operator manages the resource, so that this operator's cache does not hold it.
    pub is_foreign: bool,
    pub ledger: Option<StreamLedger>,
    /// The ledgers of other streams.
    pub other_ledgers: Vec<StreamLedger>,
    pub policies: Vec<StreamEncryptionPolicySpec>,
    /// Whether no policy selects the namespace `web`.
    pub denies_rival: bool,
    pub encryption: ReportedEncryption,
    pub stream_created: Option<Timestamp>,
    /// What AWS returns for the identity of the operator's credentials.
    pub identity: Identity,
    /// Whether AWS answers no Describe.
    pub describe_fails: bool,
    /// Whether AWS knows no stream of this name.
    pub is_missing: bool,
    /// The key that KMS describes, whatever the name; `None` if there is none.
    pub kms_key: Option<KeyMetadata>,
    /// How KMS refuses or fails; `None` if it answers.
    pub kms_error: Option<ErrorKind>,
    /// Whether KMS never answers, and the connection stays open.
    pub kms_hangs: bool,
    /// Whether AWS does not confirm the clock.
    pub refuses_clock: bool,
    /// Whether AWS refuses each call because the calls of the stream are used up.
    pub refuses_calls: bool,
    /// The write to the API server whose response is lost each time, after the write was applied.
    pub loses_response_to: Option<Request>,
    /// Whether the API server refuses each write of a status.
    pub refuses_status: bool,
    /// Whether the response to a test record says that it was not encrypted.
    pub is_record_plaintext: bool,
    /// Whether the rate limiter grants permits for calls.
    pub grants_permits: bool,
    pub requests: Vec<Request>,
    /// The events: reason and note.
    pub events: Vec<(String, String)>,
    hooks: Vec<(Request, Hook)>,
    version: u64,
}

impl State {
    pub fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Returns the response to a write that was applied, unless it is lost.
    fn respond<T>(&self, request: Request, response: T) -> Result<T, KubeError> {
        let is_lost = self.loses_response_to == Some(request);
        if is_lost { Err(KubeError::Unavailable("no response".to_owned())) } else { Ok(response) }
    }
}

/// The state, shared by the ports and the test.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

impl World {
    /// Creates a world with a stream in plaintext, and with this resource.
    pub fn new(mut resource: StreamEncryption) -> Self {
        resource.metadata.resource_version = Some("0".to_owned());
        Self(Arc::new(Mutex::new(State {
            elapsed: Duration::ZERO,
            clock_error: SignedDuration::ZERO,
            resource: Some(resource),
            lagging: None,
            lagging_ledger: None,
            rival: None,
            denies_rival: false,
            is_foreign: false,
            ledger: None,
            other_ledgers: Vec::new(),
            policies: vec![StreamEncryptionPolicySpec::own_account()],
            encryption: ReportedEncryption::Off,
            stream_created: None,
            identity: Identity::Known,
            describe_fails: false,
            is_missing: false,
            kms_key: None,
            kms_error: None,
            kms_hangs: false,
            refuses_clock: false,
            refuses_calls: false,
            loses_response_to: None,
            refuses_status: false,
            is_record_plaintext: false,
            grants_permits: true,
            requests: Vec::new(),
            events: Vec::new(),
            hooks: Vec::new(),
            version: 0,
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `hook` before the next such request that has no earlier hook. With an error, the request fails.
    pub fn before(
        &self,
        request: Request,
        hook: impl FnOnce(&mut State) -> Result<(), KubeError> + Send + 'static,
    ) {
        self.state().hooks.push((request, Box::new(hook)));
    }

    /// Lets time pass before the next such request.
    pub fn pause_before(&self, request: Request, seconds: u64) {
        self.before(request, pause(seconds));
    }

    /// Lets time pass after the check of the description's age that follows the wait for a permit.
    pub fn pause_after_permit(&self, seconds: u64) {
        self.before(Request::Permit, move |state| {
            state.hooks.push((Request::Monotonic, Box::new(|_| Ok(()))));
            state.hooks.push((Request::Monotonic, pause(seconds)));
            Ok(())
        });
    }

    /// Lets time pass in the checks that follow the wait for a permit.
    pub fn pause_in_checks(&self, seconds: u64) {
        self.before(Request::Permit, move |state| {
            state.hooks.push((Request::ReadResource(ReadFrom::ApiServer), pause(seconds)));
            Ok(())
        });
    }

    /// Returns the number of such requests.
    pub fn count(&self, request: Request) -> usize {
        self.state().requests.iter().filter(|other| **other == request).count()
    }

    /// Returns the context of an operator that has just started.
    pub fn context(&self) -> Context<Self, Self> {
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (wall, monotonic) = (self.clone(), self.clone());
        let wall = move || {
            let state = wall.state();
            begin + state.elapsed + state.clock_error
        };
        let monotonic = move || monotonic.to_aws(Request::Monotonic).elapsed;
        Context {
            aws: self.clone(),
            kube: self.clone(),
            clock: Clock::new(wall, monotonic),
            decide,
            config: Config {
                region: "eu-west-1".parse().unwrap(),
                drift_interval: SignedDuration::from_mins(10),
                drift_interval_with_events: Some(SignedDuration::from_mins(60)),
            },
            memory: Memory::default(),
            metrics: Box::new(NoMetrics),
        }
    }

    fn request(&self, request: Request) -> Result<MutexGuard<'_, State>, KubeError> {
        let mut state = self.state();
        state.requests.push(request);
        if let Some(at) = state.hooks.iter().position(|(on, _)| *on == request) {
            let (_, hook) = state.hooks.remove(at);
            hook(&mut state)?;
        }
        Ok(state)
    }

    /// As [`request`](Self::request), for requests that do not go to Kubernetes.
    fn to_aws(&self, request: Request) -> MutexGuard<'_, State> {
        self.request(request).expect("its hook does not fail")
    }
}

fn refusal(operation: Operation, kind: ErrorKind) -> AwsError {
    AwsError { operation, kind, code: None, message: "refused".to_owned(), request_id: None }
}

impl StreamApi for World {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        let identity = self.state().identity;
        match identity {
            Identity::Known => {
                Ok(AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() })
            }
            Identity::Fails => Err(refusal(Operation::GetCallerIdentity, ErrorKind::Transient)),
            Identity::Hangs => std::future::pending().await,
        }
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        let refuses = self.to_aws(Request::VerifyClock).refuses_clock;
        if refuses {
            Err(refusal(Operation::GetCallerIdentity, ErrorKind::CredentialsRejected))
        } else {
            Ok(())
        }
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let state = self.to_aws(Request::Describe);
        if state.describe_fails {
            return Err(refusal(Operation::DescribeDeliveryStream, ErrorKind::Transient));
        }
        if state.is_missing {
            return Ok(None);
        }
        let description = StreamDescription {
            arn: stream.clone(),
            created: state.stream_created,
            source: Some("DirectPut".to_owned()),
            state: StreamState::Active,
            raw_status: "ACTIVE".to_owned(),
            encryption: state.encryption.clone(),
            retention: SignedDuration::from_hours(24),
        };
        let signer = Signer { access_key_id: "AKIDEXAMPLE".to_owned(), session_age: None };
        Ok(Some((description, signer)))
    }

    async fn describe_key(
        &self,
        _: &StreamArn,
        _: &KmsKeyId,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let (key, error, hangs) = {
            let state = self.to_aws(Request::DescribeKey);
            (state.kms_key.clone(), state.kms_error, state.kms_hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        error.map_or(Ok(key), |kind| Err(refusal(Operation::DescribeKey, kind)))
    }

    async fn acquire_permit(&self, _: &StreamArn, _: Action, _: &Principal, _: &Signer) -> bool {
        drop(self.to_aws(Request::Permit));
        std::future::poll_fn(|_| if self.state().grants_permits { Poll::Ready(true) } else { Poll::Pending })
            .await
    }

    async fn start(
        &self,
        _: &StreamArn,
        _: &Key,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<Accepted, AwsError> {
        if self.to_aws(Request::Start).refuses_calls {
            let operation = Operation::StartDeliveryStreamEncryption;
            return Err(refusal(operation, ErrorKind::LimitReached));
        }
        Ok(Accepted::default())
    }

    async fn stop(
        &self,
        _: &StreamArn,
        _: Option<&Key>,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<Accepted, AwsError> {
        unreachable!("no test disables encryption")
    }

    async fn put_record(&self, _: &StreamArn, _: &str, _: &Principal, _: &Signer) -> Result<bool, AwsError> {
        Ok(!self.to_aws(Request::PutRecord).is_record_plaintext)
    }
}

impl KubeApi for World {
    async fn resource(
        &self,
        namespace: &str,
        _: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        let state = self.request(Request::ReadResource(from))?;
        if namespace == RIVALS {
            return Ok(state.rival.clone());
        }
        Ok(match from {
            ReadFrom::Cache if state.is_foreign => None,
            ReadFrom::Cache => state.lagging.clone().or_else(|| state.resource.clone()),
            ReadFrom::ApiServer => state.resource.clone(),
        })
    }

    async fn ledger(&self, _: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        let state = self.request(Request::ReadLedger(from))?;
        let lagging = state.lagging_ledger.as_ref().filter(|_| from == ReadFrom::Cache);
        Ok(lagging.or(state.ledger.as_ref()).cloned())
    }

    /// Returns one ledger. The token is the name of the next one.
    async fn ledgers(&self, after: Option<&str>) -> Result<LedgerPage, KubeError> {
        let state = self.state();
        let is_before = |ledger: &&StreamLedger| after.is_some() && ledger.metadata.name.as_deref() != after;
        let first = state.lagging_ledger.as_ref().or(state.ledger.as_ref());
        let mut ledgers = first.into_iter().chain(&state.other_ledgers).skip_while(is_before);
        let page = ledgers.next().cloned().into_iter().collect();
        Ok(LedgerPage { ledgers: page, next: ledgers.next().and_then(|next| next.metadata.name.clone()) })
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let mut state = self.request(Request::WriteLedger)?;
        if state.ledger.is_some() {
            return Err(KubeError::Conflict);
        }
        let mut ledger = StreamLedger::new(name, spec.clone());
        ledger.metadata.resource_version = Some(state.next_version());
        state.ledger = Some(ledger.clone());
        state.respond(Request::WriteLedger, ledger)
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let mut state = self.request(Request::WriteLedger)?;
        let stored = state.ledger.as_ref().and_then(|stored| stored.metadata.resource_version.clone());
        if stored != ledger.metadata.resource_version {
            return Err(KubeError::Conflict);
        }
        let mut ledger = ledger.clone();
        ledger.metadata.resource_version = Some(state.next_version());
        state.ledger = Some(ledger.clone());
        state.respond(Request::WriteLedger, ledger)
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        let mut state = self.request(Request::DeleteLedger)?;
        let is_read_version = |stored: &StreamLedger| {
            stored.metadata.name == ledger.metadata.name
                && stored.metadata.resource_version == ledger.metadata.resource_version
        };
        if !state.ledger.iter().chain(&state.other_ledgers).any(is_read_version) {
            return Err(KubeError::Conflict);
        }
        state.ledger = state.ledger.take().filter(|stored| !is_read_version(stored));
        state.other_ledgers.retain(|stored| !is_read_version(stored));
        Ok(())
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        let mut state = self.request(Request::WriteStatus)?;
        if state.refuses_status {
            return Err(KubeError::Unavailable("a webhook does not answer".to_owned()));
        }
        let version = Some(state.next_version());
        let Some(resource) = &mut state.resource else { return Ok(None) };
        if resource.metadata.resource_version != read.resource_version {
            return Err(KubeError::Conflict);
        }
        resource.metadata.resource_version.clone_from(&version);
        resource.status = Some(status.clone());
        state.respond(Request::WriteStatus, version)
    }

    async fn publish_event(&self, _: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        self.state().events.push((event.reason.clone(), event.note.clone()));
        Ok(())
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        let mut state = self.request(Request::SetFinalizer)?;
        let version = Some(state.next_version());
        let Some(resource) = &mut state.resource else { return Ok(None) };
        if resource.metadata.resource_version != read.resource_version {
            return Err(KubeError::Conflict);
        }
        resource.metadata.resource_version.clone_from(&version);
        resource.metadata.finalizers = present.then(|| vec![FINALIZER.to_owned()]);
        if !present && resource.metadata.deletion_timestamp.is_some() {
            state.resource = None;
        }
        Ok(version)
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        let state = self.request(Request::ReadPolicies(from))?;
        if namespace == RIVALS && state.denies_rival {
            return Ok(Vec::new());
        }
        Ok(state.policies.clone())
    }

    async fn referenced_key(&self, _: &str, _: &KeyObjectReference) -> Result<ReferencedKey, KubeError> {
        Ok(ReferencedKey::NotReady)
    }
}

/// Runs a future of which no request waits.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}
