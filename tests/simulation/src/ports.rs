//! The two ports of one process: [`StreamApi`] on the simulated AWS, and [`KubeApi`] on the in-memory
//! Kubernetes.
//!
//! Everything above these ports is the operator's own code. Each request passes through the process's
//! [`Link`]. The ports decide nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use simulated_aws::world::Caller;
use stream_encryption_api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, Service, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::{Operation, profile};

use crate::aws_model;
use crate::environment::{REGION, State};
use crate::explore::fault::Asked;
use crate::faults::Request;
use crate::invariants::Sent;
use crate::policies::Act;
use crate::transport::{Link, arrives};
use crate::writes::Write;

/// The AWS port of one process.
#[derive(Debug)]
pub struct Aws {
    link: Link,
    /// As in the operator's own adapter, the identity is requested once.
    identity: Mutex<Option<AwsAccount>>,
}

/// A Start with a key, or a Stop of a stream with this active key.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Start(&'a Key),
    Stop(Option<&'a Key>),
}

/// The Kubernetes port of one process.
#[derive(Clone, Debug)]
pub struct Cluster(Link);

impl Aws {
    /// Creates the AWS port of this process.
    pub fn new(link: Link) -> Self {
        Self { link, identity: Mutex::new(None) }
    }

    /// Returns the link, for planted bugs.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Returns the replica's current signer.
    pub fn signer(&self) -> Signer {
        let access_key_id = {
            let state = self.link.scene.state();
            state.replicas[self.link.process.replica].caller().access_key
        };
        Signer { access_key_id, session_age: self.age() }
    }

    /// Changes the replica's credentials, if they are to change just before a call.
    fn exchange(&self) {
        let mut state = self.link.scene.state();
        let (now, number) = (state.now, self.link.process.replica);
        if let Some(mistaken) = state.replicas[number].mistaken_soon.take() {
            state.replicas[number].mistaken = mistaken;
            state
                .story
                .tell(now, || format!("the credentials of operator {number} change just before a call"));
        }
    }

    /// Waits for a permit, and returns whether the signer would still sign. The rate limiter has its own tests; here
    /// acquiring a permit only takes some time, occasionally.
    async fn wait_for_permit(&self, signer: &Signer) -> bool {
        self.link.request(Asked::Permit, |state| ((), state.choices.wait_for_permit())).await;
        let before = self.signer().is(signer);
        self.exchange();
        let state = &mut *self.link.scene.state();
        state.promises.read_since_permit.insert(state.polled.task, false);
        let early = state.choices.coin();
        let now = || state.replicas[self.link.process.replica].caller().access_key == signer.access_key_id;
        if early { now() } else { before }
    }

    /// Refuses a request, as the operator's own adapter does, if the signer is not that of the Describe.
    fn still_signs(&self, signer: &Signer, operation: Operation) -> Result<(), AwsError> {
        if self.signer().is(signer) {
            return Ok(());
        }
        self.link.scene.state().tally.fault("credentials change between Describe and call");
        let code = Some("SignerChanged".to_owned());
        Err(AwsError { operation, kind: ErrorKind::Transient, code, message: String::new() })
    }

    /// Returns the age of the replica's session.
    fn age(&self) -> Option<SignedDuration> {
        let state = self.link.scene.state();
        let made = state.replicas[self.link.process.replica].session;
        made.map(|made| state.now.duration_since(made))
    }

    /// Sends the call for the ledger entry that was reserved at `reserved`. AWS checks the date `dated`; `None` for
    /// the time of sending.
    pub async fn call(
        &self,
        stream: &StreamArn,
        call: Call<'_>,
        as_whom: &Principal,
        signer: &Signer,
        reserved: Timestamp,
        dated: Option<Timestamp>,
    ) -> Result<(), AwsError> {
        let by = self.link.process;
        let (action, key) = match call {
            Call::Start(key) => (Action::Start, Some(key)),
            Call::Stop(_) => (Action::Stop, None),
        };
        let operation = Operation::change(stream.service, action);
        self.still_signs(signer, operation)?;
        let grant = stream.service == Service::Firehose && matches!(key, Some(Key::Customer(_)));
        if grant && self.age().is_some_and(|age| age > SignedDuration::from_mins(350)) {
            // The operator's own adapter refuses the call, because AWS could not create a grant.
            let code = Some("SessionTooOld".to_owned());
            return Err(AwsError { operation, kind: ErrorKind::Transient, code, message: String::new() });
        }
        self.link
            .ask_aws(operation, dated, |state, caller| {
                let told = match call {
                    Call::Start(key) => state.aws(caller).start(stream, key),
                    Call::Stop(active_key) => state.aws(caller).stop(stream, active_key),
                };
                state.is_checked_after_permit("a call");
                state.sent(&Sent { by, as_whom, stream, action, key, reserved }, &told.0);
                told
            })
            .await
    }
}

impl Cluster {
    /// Creates the Kubernetes port of this process.
    pub fn new(link: Link) -> Self {
        Self(link)
    }

    /// Returns the link, for planted bugs.
    pub fn link(&self) -> &Link {
        &self.0
    }

    /// Returns the state with the caches, if a read may use them. While the API server does not answer, the
    /// operator knows that its watches fail, and does not read the caches.
    fn cache(&self, from: ReadFrom) -> Option<MutexGuard<'_, State>> {
        let state = self.0.scene.state();
        (from == ReadFrom::Cache && state.now >= state.kubernetes.down_until).then_some(state)
    }
}

impl StreamApi for Aws {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        if let Some(known) = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(known);
        }
        let account = self
            .link
            .ask_aws(Operation::GetCallerIdentity, None, |state, _| {
                // If the credentials prove to be another account's, they were the operator's own at the time
                // of the request.
                let own = Caller::new(crate::environment::OPERATOR);
                state.aws(&own).identity(REGION)
            })
            .await?;
        let identity = AwsAccount {
            account: account.parse().map_err(|_| aws_model::fault(Operation::GetCallerIdentity, None))?,
            partition: "aws".parse().map_err(|_| aws_model::fault(Operation::GetCallerIdentity, None))?,
        };
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity.clone());
        Ok(identity)
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.link
            .ask_aws(Operation::GetCallerIdentity, None, |state, caller| state.aws(caller).identity(REGION))
            .await
            .map(drop)
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        by: &Principal,
        _: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let replica = self.link.process.replica;
        let signer = self.signer();
        let seen = self
            .link
            .ask_aws(profile(stream.service).describe, None, |state, caller| {
                state.causes(by, stream, &Act::Look);
                let told = state.aws(caller).look(stream);
                if arrives(&told.1) {
                    state.looked(replica, stream, &told.0);
                }
                told
            })
            .await?;
        Ok(seen.map(|look| (look, signer)))
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        by: &Principal,
        _: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.link
            .ask_aws(Operation::DescribeKey, None, |state, caller| {
                let now = state.now;
                state.causes(by, stream, &Act::Ask(name));
                let told = state.aws(caller).key(stream, name);
                if told.0.is_err() {
                    // A key that becomes readable again was fixed by a user.
                    state.promises.stirred = now;
                }
                told
            })
            .await
    }

    async fn acquire_permit(&self, _: &StreamArn, _: Action, _: &Principal, signer: &Signer) -> bool {
        self.wait_for_permit(signer).await
    }

    async fn acquire_record_permit(&self, _: &StreamArn, _: &Principal, signer: &Signer) -> bool {
        self.wait_for_permit(signer).await
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        self.call(stream, Call::Start(key), by, signer, reserved, Some(reserved)).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), AwsError> {
        self.call(stream, Call::Stop(active_key), by, signer, reserved, Some(reserved)).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        _: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        let operation = profile(stream.service).put_record;
        self.still_signs(signer, operation)?;
        self.link
            .ask_aws(operation, None, |state, caller| {
                state.causes_live(by, stream, &Act::Look);
                state.is_checked_after_permit("a test record");
                state.aws(caller).put_record(stream)
            })
            .await
    }
}

impl KubeApi for Cluster {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        let name = (namespace.to_owned(), name.to_owned());
        if let Some(mut state) = self.cache(from) {
            return Ok(state.cached_resource(self.0.process.replica, &name));
        }
        let read = |state: &mut State| Ok(state.store.resource(&name).map(|resource| (**resource).clone()));
        self.0.ask_kubernetes(Request::ReadResource, read).await
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        if let Some(mut state) = self.cache(from) {
            return Ok(state.cached_ledger(self.0.process.replica, name));
        }
        self.0.ask_kubernetes(Request::ReadLedger, |state| Ok(state.store.ledger(name).cloned())).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, KubeError> {
        self.0
            .ask_kubernetes(Request::ListLedgers, |state| Ok(state.store.ledgers().cloned().collect()))
            .await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let write = Write::Create(name.to_owned(), Box::new(spec.clone()));
        self.0.write(Request::CreateLedger, write).await?.ledger.ok_or(KubeError::Conflict)
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let write = Write::Replace(Box::new(ledger.clone()));
        self.0.write(Request::ReplaceLedger, write).await?.ledger.ok_or(KubeError::Conflict)
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.0.write(Request::DeleteLedger, Write::Delete(Box::new(ledger.clone()))).await.map(drop)
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        let write = Write::Status(Box::new(read.clone()), Box::new(status.clone()));
        self.0.write(Request::WriteStatus, write).await.map(|written| written.version)
    }

    async fn publish_event(&self, of: &Owner, happening: &ReconcileEvent) -> Result<(), KubeError> {
        let mut state = self.0.scene.state();
        state.kubernetes_writes += 1;
        let now = state.now;
        state.story.tell(now, || format!("event of {}/{}: {}", of.namespace, of.name, happening.reason));
        Ok(())
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        let write = Write::Finalizer(Box::new(read.clone()), present);
        self.0.write(Request::SetFinalizer, write).await.map(|written| written.version)
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        if let Some(mut state) = self.cache(from) {
            return Ok(state.cached_policies(self.0.process.replica, namespace));
        }
        let policies =
            self.0.ask_kubernetes(Request::ReadPolicies, |state| Ok(state.policies.of(namespace))).await;
        let state = &mut *self.0.scene.state();
        if policies.is_ok()
            && let Some(is_read) = state.promises.read_since_permit.get_mut(&state.polled.task)
        {
            *is_read = true;
        }
        policies
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        let read = |state: &mut State| {
            if !state.key_kind {
                return Ok(ReferencedKey::KindMissing);
            }
            let name = (namespace.to_owned(), reference.name.clone());
            let found = state.key_objects.iter().find(|(known, _)| *known == name);
            Ok(found.and_then(|(_, arn)| arn.clone()).map_or(ReferencedKey::NotReady, ReferencedKey::Arn))
        };
        self.0.ask_kubernetes(Request::ReadKey, read).await
    }
}
