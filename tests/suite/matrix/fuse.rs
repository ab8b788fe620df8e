//! The two ports with a fuse: at the N-th write or call to AWS, before or after it went through, the visit stands still.
//!
//! Who drops the visit then has crashed the operator there; who lets it go on has paused it. Beside that the fuse is a
//! witness: no Start or Stop may pass whose reservation the API server has not acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_operator::api::ledger::{Action, Outcome, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_operator::aws::{Identity, Signer, Streams, Urgency};
use stream_encryption_operator::controller::records::{Happening, RecordError, Records, ReferencedKey};
use stream_encryption_operator::controller::{Operator, reconcile};
use stream_encryption_operator::model::fault::Fault;
use stream_encryption_operator::model::key::{Key, KeyFacts, KeyName};
use stream_encryption_operator::model::observation::Look;
use stream_encryption_operator::model::principal::Principal;
use stream_encryption_operator::model::stream::StreamArn;
use tokio::sync::Notify;

use super::proxy::When;

const IDENTITY: &str = "identity";

/// Where the visit is to stand still: at which write or call, counted from 1.
pub(crate) type Spot = (usize, When);

/// The fuse of one operator's process. Clones are the same fuse.
#[derive(Clone, Default)]
pub(crate) struct Fuse(Arc<Inner>);

#[derive(Default)]
struct Inner {
    spot: Option<Spot>,
    passed: Mutex<Passed>,
    reached: Notify,
    go_on: Notify,
}

/// What has passed.
#[derive(Default)]
struct Passed {
    names: Vec<&'static str>,
    /// The call that the last acknowledged write of a stream's ledger left pending.
    pending: BTreeMap<String, String>,
    sent: BTreeSet<(String, String)>,
}

/// A port with a fuse.
pub(crate) struct Fused<P>(P, Fuse);

/// An operator's process with a fuse.
pub(crate) struct FusedOperator<A, R> {
    operator: Operator<Fused<A>, Fused<R>>,
    fuse: Fuse,
}

/// How a visit ended.
#[derive(Debug)]
pub(crate) enum Visited {
    Done(Result<Timestamp, RecordError>),
    /// It stood still at the spot, and was dropped.
    Crashed,
}

impl<A: Streams, R: Records> FusedOperator<A, R> {
    pub(crate) fn new(operator: Operator<A, R>, spot: Option<Spot>) -> Self {
        let fuse = Fuse(Arc::new(Inner { spot, ..Inner::default() }));
        let Operator { aws, records, clock, decide, rules, memory } = operator;
        let (aws, records) = (Fused(aws, fuse.clone()), Fused(records, fuse.clone()));
        Self { operator: Operator { aws, records, clock, decide, rules, memory }, fuse }
    }

    /// One visit, which ends for ever at the spot.
    pub(crate) async fn visit_or_crash(&self, resource: &StreamEncryption) -> Visited {
        tokio::select! {
            biased;
            done = Box::pin(reconcile(&self.operator, resource)) => Visited::Done(done),
            () = self.fuse.0.reached.notified() => Visited::Crashed,
        }
    }

    /// One visit, in which `meanwhile` happens at the spot.
    pub(crate) async fn visit_with_a_pause(
        &self,
        resource: &StreamEncryption,
        meanwhile: impl AsyncFnOnce(),
    ) -> Result<Timestamp, RecordError> {
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

    /// How long the driver would wait for this time: on the operator's own clock.
    pub(crate) fn wait_until(&self, wake: Timestamp) -> SignedDuration {
        wake.duration_since(self.operator.clock.now()).max(SignedDuration::from_millis(10))
    }

    /// The writes and calls so far, by name.
    pub(crate) fn passed(&self) -> Vec<&'static str> {
        self.fuse.passed().names.clone()
    }
}

impl Fuse {
    fn passed(&self) -> std::sync::MutexGuard<'_, Passed> {
        self.0.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write or a call.
    async fn around<T>(&self, name: &'static str, call: impl Future<Output = T>) -> T {
        let number = self.number(name);
        self.stand_still_at((number, When::Before)).await;
        let answer = call.await;
        self.stand_still_at((number, When::After)).await;
        answer
    }

    /// Its number, from 1; 0 for what is not sent: AWS is asked for the identity once in a process.
    fn number(&self, name: &'static str) -> usize {
        let mut passed = self.passed();
        if name == IDENTITY && passed.names.contains(&name) {
            return 0;
        }
        passed.names.push(name);
        passed.names.len()
    }

    async fn stand_still_at(&self, here: Spot) {
        if self.0.spot == Some(here) {
            self.0.reached.notify_one();
            self.0.go_on.notified().await;
        }
    }

    /// A ledger was acknowledged.
    fn acknowledged(&self, stored: &Result<StreamLedger, RecordError>) {
        let Ok(ledger) = stored else { return };
        let mut passed = self.passed();
        passed.pending.remove(&ledger.spec.stream_arn);
        if let Some(call) = ledger.spec.calls.last().filter(|call| call.outcome == Outcome::Pending) {
            passed.pending.insert(ledger.spec.stream_arn.clone(), call.id.clone());
        }
    }

    /// A Start or Stop is about to be sent.
    fn sends(&self, stream: &StreamArn) {
        let mut passed = self.passed();
        let stream = stream.to_string();
        let id = passed.pending.get(&stream).cloned().expect("a call without an acknowledged reservation");
        assert!(passed.sent.insert((stream, id)), "a second call for one reservation");
    }
}

impl<A: Streams> Streams for Fused<A> {
    async fn identity(&self) -> Result<Identity, Fault> {
        self.1.around(IDENTITY, self.0.identity()).await
    }

    async fn answers(&self) -> Result<(), Fault> {
        self.0.answers().await
    }

    async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        self.1.around("look", self.0.look(stream, by, urgency)).await
    }

    async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        urgency: Urgency,
    ) -> Result<Option<KeyFacts>, Fault> {
        self.1.around("key", self.0.key(stream, name, by, urgency)).await
    }

    async fn turn(&self, stream: &StreamArn, action: Action, by: &Principal, signer: &Signer) -> bool {
        self.0.turn(stream, action, by, signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.1.sends(stream);
        self.1.around("start", self.0.start(stream, key, by, signer, reserved)).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.1.sends(stream);
        self.1.around("stop", self.0.stop(stream, in_force, by, signer, reserved)).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        record: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        self.1.around("put record", self.0.put_record(stream, record, by, signer)).await
    }
}

impl<R: Records> Records for Fused<R> {
    async fn resource(&self, namespace: &str, name: &str) -> Result<Option<StreamEncryption>, RecordError> {
        self.0.resource(namespace, name).await
    }

    async fn ledger(&self, name: &str) -> Result<Option<StreamLedger>, RecordError> {
        self.0.ledger(name).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, RecordError> {
        self.0.ledgers().await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, RecordError> {
        let stored = self.1.around("create ledger", self.0.create_ledger(name, spec)).await;
        self.1.acknowledged(&stored);
        stored
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, RecordError> {
        let stored = self.1.around("replace ledger", self.0.replace_ledger(ledger)).await;
        self.1.acknowledged(&stored);
        stored
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), RecordError> {
        self.1.around("delete ledger", self.0.delete_ledger(ledger)).await
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<(), RecordError> {
        self.1.around("write status", self.0.write_status(read, status)).await
    }

    async fn tell(&self, resource: &Owner, happening: &Happening) -> Result<(), RecordError> {
        self.1.around("event", self.0.tell(resource, happening)).await
    }

    async fn set_finalizer(&self, resource: &StreamEncryption, present: bool) -> Result<(), RecordError> {
        self.1.around("finalizer", self.0.set_finalizer(resource, present)).await
    }

    async fn policies(&self, namespace: &str) -> Result<Vec<StreamEncryptionPolicySpec>, RecordError> {
        self.0.policies(namespace).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, RecordError> {
        self.0.referenced_key(namespace, reference).await
    }
}
