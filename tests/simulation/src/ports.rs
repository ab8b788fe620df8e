//! The two ports of one process: [`StreamApi`] on the simulated AWS, and [`KubeApi`] on the in-memory
//! Kubernetes.
//!
//! Everything above these ports is the operator's own code. Each request passes through the process's
//! [`Transport`]. The ports make no decisions.

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
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::{Accepted, AwsError, ErrorKind};
use stream_encryption_core::model::key::{Key, KeyMetadata};
use stream_encryption_core::model::observation::StreamDescription;
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::model::service::{Operation as AwsOperation, profile};

use crate::aws_model;
use crate::environment::{REGION, State};
use crate::explore::injected_fault::ProcessRequest;
use crate::invariants::SentCall;
use crate::kubernetes_faults::KubernetesRequest;
use crate::policies::Access;
use crate::transport::{Transport, arrives};
use crate::writes::Write;

/// The AWS port of one process.
#[derive(Debug)]
pub struct AwsPort {
    transport: Transport,
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
pub struct KubernetesPort(Transport);

impl AwsPort {
    /// Creates the AWS port of this process.
    pub fn new(transport: Transport) -> Self {
        Self { transport, identity: Mutex::new(None) }
    }

    /// Returns the transport, for planted bugs.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns the replica's current signer.
    pub fn signer(&self) -> Signer {
        let access_key_id = {
            let state = self.transport.environment.state();
            state.replicas[self.transport.process.replica].caller().access_key
        };
        Signer { access_key_id, session_age: self.session_age() }
    }

    /// Changes the replica's credentials, if a change just before a call is planned.
    fn change_credentials_before_call(&self) {
        let mut state = self.transport.environment.state();
        let (now, number) = (state.now, self.transport.process.replica);
        if let Some(are_foreign) = state.replicas[number].foreign_credentials_at_call.take() {
            state.replicas[number].foreign_credentials = are_foreign;
            state
                .trace
                .record(now, || format!("the credentials of operator {number} change just before a call"));
        }
    }

    /// Waits for a permit, and returns whether the signer is still valid. The rate limiter has its own tests;
    /// here acquiring a permit only takes some time, occasionally.
    async fn wait_for_permit(&self, signer: &Signer) -> bool {
        self.transport.request(ProcessRequest::Permit, |state| ((), state.choices.wait_for_permit())).await;
        let before = self.signer().is(signer);
        self.change_credentials_before_call();
        let state = &mut *self.transport.environment.state();
        state.invariants.policies_read_since_permit.insert(state.current_task.task, false);
        let changes_early = state.choices.coin();
        let now =
            || state.replicas[self.transport.process.replica].caller().access_key == signer.access_key_id;
        if changes_early { now() } else { before }
    }

    /// Refuses a request, as the operator's own adapter does, if the signer is not that of the Describe.
    fn check_signer(&self, signer: &Signer, operation: AwsOperation) -> Result<(), AwsError> {
        if self.signer().is(signer) {
            return Ok(());
        }
        self.transport.environment.state().statistics.count("credentials change between Describe and call");
        let code = Some("SignerChanged".to_owned());
        Err(AwsError {
            operation,
            kind: ErrorKind::Transient,
            code,
            message: String::new(),
            request_id: None,
        })
    }

    /// Returns the age of the replica's session.
    fn session_age(&self) -> Option<SignedDuration> {
        let state = self.transport.environment.state();
        let created = state.replicas[self.transport.process.replica].session;
        created.map(|created| state.now.duration_since(created))
    }

    /// Sends the call for the ledger entry that was reserved at `reserved`. AWS checks the date `dated`;
    /// `None` for the time of sending.
    pub async fn call(
        &self,
        stream: &StreamArn,
        call: Call<'_>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
        dated: Option<Timestamp>,
    ) -> Result<Accepted, AwsError> {
        let process = self.transport.process;
        let (action, key) = match call {
            Call::Start(key) => (Action::Start, Some(key)),
            Call::Stop(_) => (Action::Stop, None),
        };
        let operation = AwsOperation::change(stream.service, action);
        self.check_signer(signer, operation)?;
        let needs_grant = stream.service == Service::Firehose && matches!(key, Some(Key::Customer(_)));
        if needs_grant && self.session_age().is_some_and(|age| age > SignedDuration::from_mins(350)) {
            // The operator's own adapter refuses the call, because AWS could not create a grant.
            let code = Some("SessionTooOld".to_owned());
            return Err(AwsError {
                operation,
                kind: ErrorKind::Transient,
                code,
                message: String::new(),
                request_id: None,
            });
        }
        self.transport
            .send_to_aws(operation, dated, |state, caller| {
                let response = match call {
                    Call::Start(key) => state.aws(caller).start(stream, key),
                    Call::Stop(active_key) => state.aws(caller).stop(stream, active_key),
                };
                state.check_policies_read_after_permit("a call");
                state
                    .check_call(&SentCall { process, principal, stream, action, key, reserved }, &response.0);
                response
            })
            .await
    }
}

impl KubernetesPort {
    /// Creates the Kubernetes port of this process.
    pub fn new(transport: Transport) -> Self {
        Self(transport)
    }

    /// Returns the transport, for planted bugs.
    pub fn transport(&self) -> &Transport {
        &self.0
    }

    /// Returns the state with the caches, if a read may use them. While the API server does not respond, the
    /// watches of the operator fail, and it does not read the caches.
    fn cache(&self, from: ReadFrom) -> Option<MutexGuard<'_, State>> {
        let state = self.0.environment.state();
        (from == ReadFrom::Cache && state.now >= state.kubernetes_faults.down_until).then_some(state)
    }
}

impl StreamApi for AwsPort {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        if let Some(known) = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(known);
        }
        let account = self
            .transport
            .send_to_aws(AwsOperation::GetCallerIdentity, None, |state, _| {
                // If the credentials prove to be another account's, they were the operator's own at the time
                // of the request.
                let own = Caller::new(crate::environment::OPERATOR_ACCESS_KEY);
                state.aws(&own).identity(REGION)
            })
            .await?;
        let identity = AwsAccount {
            account: account
                .parse()
                .map_err(|_| aws_model::aws_error(AwsOperation::GetCallerIdentity, None))?,
            partition: "aws"
                .parse()
                .map_err(|_| aws_model::aws_error(AwsOperation::GetCallerIdentity, None))?,
        };
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity.clone());
        Ok(identity)
    }

    async fn verify_clock(&self) -> Result<(), AwsError> {
        self.transport
            .send_to_aws(AwsOperation::GetCallerIdentity, None, |state, caller| {
                state.aws(caller).identity(REGION)
            })
            .await
            .map(drop)
    }

    async fn describe_stream(
        &self,
        stream: &StreamArn,
        principal: &Principal,
        _: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let replica = self.transport.process.replica;
        let signer = self.signer();
        let described = self
            .transport
            .send_to_aws(profile(stream.service).describe, None, |state, caller| {
                state.check_access(principal, stream, &Access::Describe);
                let response = state.aws(caller).describe_stream(stream);
                if arrives(&response.1) {
                    state.record_describe(replica, stream, &response.0);
                }
                response
            })
            .await?;
        Ok(described.map(|description| (description, signer)))
    }

    async fn describe_key(
        &self,
        stream: &StreamArn,
        name: &KmsKeyId,
        principal: &Principal,
        _: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        self.transport
            .send_to_aws(AwsOperation::DescribeKey, None, |state, caller| {
                let now = state.now;
                state.check_access(principal, stream, &Access::DescribeKey(name));
                let response = state.aws(caller).describe_key(stream, name);
                if response.0.is_err() {
                    // A key that becomes readable again was fixed by a user.
                    state.invariants.last_trigger = now;
                }
                response
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
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.call(stream, Call::Start(key), principal, signer, reserved, Some(reserved)).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        active_key: Option<&Key>,
        principal: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<Accepted, AwsError> {
        self.call(stream, Call::Stop(active_key), principal, signer, reserved, Some(reserved)).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        _: &str,
        principal: &Principal,
        signer: &Signer,
    ) -> Result<bool, AwsError> {
        let operation = profile(stream.service).put_record;
        self.check_signer(signer, operation)?;
        self.transport
            .send_to_aws(operation, None, |state, caller| {
                state.check_live_access(principal, stream, &Access::Describe);
                state.check_policies_read_after_permit("a test record");
                state.aws(caller).put_record(stream)
            })
            .await
    }
}

impl KubeApi for KubernetesPort {
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
        self.0.send_to_kubernetes(KubernetesRequest::ReadResource, read).await
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        if let Some(mut state) = self.cache(from) {
            return Ok(state.cached_ledger(self.0.process.replica, name));
        }
        self.0
            .send_to_kubernetes(KubernetesRequest::ReadLedger, |state| {
                let number = state.store.ledger_changes().len();
                state.invariants.ledgers_read.insert(state.current_task.task, number);
                Ok(state.store.ledger(name).cloned())
            })
            .await
    }

    async fn ledgers(&self, _: Option<&str>) -> Result<LedgerPage, KubeError> {
        if let Some(mut state) = self.cache(ReadFrom::Cache) {
            let ledgers = state.cached_ledgers(self.0.process.replica);
            return Ok(LedgerPage { ledgers, next: None });
        }
        self.0
            .send_to_kubernetes(KubernetesRequest::ListLedgers, |state| {
                Ok(LedgerPage { ledgers: state.store.ledgers().cloned().collect(), next: None })
            })
            .await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let write = Write::Create(name.to_owned(), Box::new(spec.clone()));
        self.0.write(KubernetesRequest::CreateLedger, write).await?.ledger.ok_or(KubeError::Conflict)
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let write = Write::Replace(Box::new(ledger.clone()));
        self.0.write(KubernetesRequest::ReplaceLedger, write).await?.ledger.ok_or(KubeError::Conflict)
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.0.write(KubernetesRequest::DeleteLedger, Write::Delete(Box::new(ledger.clone()))).await.map(drop)
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        let write = Write::Status(Box::new(read.clone()), Box::new(status.clone()));
        self.0.write(KubernetesRequest::WriteStatus, write).await.map(|written| written.version)
    }

    async fn publish_event(&self, owner: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        let mut state = self.0.environment.state();
        state.kubernetes_writes += 1;
        let now = state.now;
        state.trace.record(now, || format!("event of {}/{}: {}", owner.namespace, owner.name, event.reason));
        Ok(())
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        let write = Write::Finalizer(Box::new(read.clone()), present);
        self.0.write(KubernetesRequest::SetFinalizer, write).await.map(|written| written.version)
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        if let Some(mut state) = self.cache(from) {
            return Ok(state.cached_policies(self.0.process.replica, namespace));
        }
        let policies = self
            .0
            .send_to_kubernetes(KubernetesRequest::ReadPolicies, |state| {
                Ok(state.policies.for_namespace(namespace))
            })
            .await;
        let state = &mut *self.0.environment.state();
        if policies.is_ok()
            && let Some(is_read) =
                state.invariants.policies_read_since_permit.get_mut(&state.current_task.task)
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
            if !state.key_crd_installed {
                return Ok(ReferencedKey::KindMissing);
            }
            let name = (namespace.to_owned(), reference.name.clone());
            let object = state.key_objects.iter().find(|(object, _)| *object == name);
            Ok(object.and_then(|(_, arn)| arn.clone()).map_or(ReferencedKey::NotReady, ReferencedKey::Arn))
        };
        self.0.send_to_kubernetes(KubernetesRequest::ReadKey, read).await
    }
}
