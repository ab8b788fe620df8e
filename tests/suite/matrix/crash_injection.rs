//! Crash injection: both ports are wrapped, and a reconcile stops at the N-th write or AWS request, before or
//! after it takes effect.
//!
//! A test that drops the stopped reconcile simulates a crash; one that resumes it simulates a pause. The
//! injector also checks that no Start or Stop is sent before the API server has acknowledged its reservation.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Action, Outcome, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::controller::{Context, reconcile};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use tokio::sync::Notify;

use super::proxy::When;

const IDENTITY: &str = "identity";

/// A crash point: the number of a write or request, counted from 1, and the side of it.
pub(crate) type CrashPoint = (usize, When);

/// The crash injector of one operator process. Clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Injector(Arc<Inner>);

#[derive(Default)]
struct Inner {
    spot: Option<CrashPoint>,
    passed: Mutex<Passed>,
    reached: Notify,
    go_on: Notify,
}

/// The writes and requests so far.
#[derive(Default)]
struct Passed {
    names: Vec<&'static str>,
    /// By stream, the pending call in the last acknowledged write of its ledger.
    pending: BTreeMap<String, String>,
    sent: BTreeSet<(String, String)>,
}

/// A port with a crash injector.
pub(crate) struct Injected<P>(P, Injector);

/// An operator process with a crash injector.
pub(crate) struct FusedOperator<A, R> {
    operator: Context<Injected<A>, Injected<R>>,
    fuse: Injector,
}

/// The result of a reconcile.
#[derive(Debug)]
pub(crate) enum Visited {
    Done(Result<Timestamp, KubeError>),
    /// It stopped at the crash point and was dropped.
    Crashed,
}

impl<A: StreamApi, R: KubeApi> FusedOperator<A, R> {
    pub(crate) fn new(operator: Context<A, R>, spot: Option<CrashPoint>) -> Self {
        let fuse = Injector(Arc::new(Inner { spot, ..Inner::default() }));
        let Context { aws, records, clock, decide, config, memory, metrics } = operator;
        let (aws, records) = (Injected(aws, fuse.clone()), Injected(records, fuse.clone()));
        Self { operator: Context { aws, records, clock, decide, config, memory, metrics }, fuse }
    }

    /// Reconciles once, and drops the reconcile at the crash point.
    pub(crate) async fn visit_or_crash(&self, resource: &StreamEncryption) -> Visited {
        tokio::select! {
            biased;
            done = Box::pin(reconcile(&self.operator, resource)) => Visited::Done(done),
            () = self.fuse.0.reached.notified() => Visited::Crashed,
        }
    }

    /// Reconciles once, and runs `meanwhile` at the crash point.
    pub(crate) async fn visit_with_a_pause(
        &self,
        resource: &StreamEncryption,
        meanwhile: impl AsyncFnOnce(),
    ) -> Result<Timestamp, KubeError> {
        let mut visit = Box::pin(reconcile(&self.operator, resource));
        tokio::select! {
            biased;
            done = &mut visit => return done,
            () = self.fuse.0.reached.notified() => {}
        }
        meanwhile().await;
        self.fuse.0.go_on.notify_one();
        visit.await
    }

    /// Returns how long the controller would wait until this time, by the operator's own clock.
    pub(crate) fn wait_until(&self, wake: Timestamp) -> SignedDuration {
        wake.duration_since(self.operator.clock.now()).max(SignedDuration::from_millis(10))
    }

    /// Returns the names of the writes and requests so far.
    pub(crate) fn passed(&self) -> Vec<&'static str> {
        self.fuse.passed().names.clone()
    }
}

impl Injector {
    fn passed(&self) -> std::sync::MutexGuard<'_, Passed> {
        self.0.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a write or a request, and stops before or after it if that is the crash point.
    async fn around<T>(&self, name: &'static str, call: impl Future<Output = T>) -> T {
        let number = self.number(name);
        self.stop_at((number, When::Before)).await;
        let answer = call.await;
        self.stop_at((number, When::After)).await;
        answer
    }

    /// Returns its number, counted from 1, or 0 if it is not sent: the identity is requested only once per
    /// process.
    fn number(&self, name: &'static str) -> usize {
        let mut passed = self.passed();
        if name == IDENTITY && passed.names.contains(&name) {
            return 0;
        }
        passed.names.push(name);
        passed.names.len()
    }

    async fn stop_at(&self, here: CrashPoint) {
        if self.0.spot == Some(here) {
            self.0.reached.notify_one();
            self.0.go_on.notified().await;
        }
    }

    /// Records an acknowledged ledger write.
    fn acknowledged(&self, stored: &Result<StreamLedger, KubeError>) {
        let Ok(ledger) = stored else { return };
        let mut passed = self.passed();
        passed.pending.remove(&ledger.spec.stream_arn);
        if let Some(call) = ledger.spec.calls.last().filter(|call| call.outcome == Outcome::Pending) {
            passed.pending.insert(ledger.spec.stream_arn.clone(), call.id.clone());
        }
    }

    /// Checks a Start or Stop that is about to be sent.
    fn sends(&self, stream: &StreamArn) {
        let mut passed = self.passed();
        let stream = stream.to_string();
        let id = passed.pending.get(&stream).cloned().expect("a call without an acknowledged reservation");
        assert!(passed.sent.insert((stream, id)), "a second call for one reservation");
    }
}

impl<A: StreamApi> StreamApi for Injected<A> {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        self.1.around(IDENTITY, self.0.identity()).await
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.0.verify_clock().await
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        self.1.around("look", self.0.describe_stream(stream, principal, priority)).await
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        priority: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.1.around("key", self.0.describe_key(stream, name, principal, priority)).await
    }

    async fn acquire_permit(
        &self,
        stream: &StreamArn,
        action: Action,
        principal: &Principal,
        signer: &Signer,
    ) -> bool {
        self.0.acquire_permit(stream, action, principal, signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        self.1.sends(stream);
        self.1.around("start", self.0.start(stream, key, principal, signer, reserved)).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        self.1.sends(stream);
        self.1.around("stop", self.0.stop(stream, active_key, principal, signer, reserved)).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        self.1.around("put record", self.0.put_record(stream, record, principal, signer)).await
    }
}

impl<R: KubeApi> KubeApi for Injected<R> {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        self.0.resource(namespace, name, from).await
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        self.0.ledger(name, from).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, KubeError> {
        self.0.ledgers().await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let stored = self.1.around("create ledger", self.0.create_ledger(name, spec)).await;
        self.1.acknowledged(&stored);
        stored
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let stored = self.1.around("replace ledger", self.0.replace_ledger(ledger)).await;
        self.1.acknowledged(&stored);
        stored
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.1.around("delete ledger", self.0.delete_ledger(ledger)).await
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        self.1.around("write status", self.0.write_status(read, status)).await
    }

    async fn publish_event(&self, resource: &Owner, happening: &ReconcileEvent) -> Result<(), KubeError> {
        self.1.around("event", self.0.publish_event(resource, happening)).await
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        self.1.around("finalizer", self.0.set_finalizer(read, present)).await
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        self.0.policies(namespace, from).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        self.0.referenced_key(namespace, reference).await
    }
}
