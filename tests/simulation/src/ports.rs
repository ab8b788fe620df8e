//! The two ports of one process: [`Streams`] over the simulated AWS, [`Records`] over Kubernetes in memory.
//!
//! Between them and the controller nothing is replaced. Each request goes over the process's [`Link`]. The ports decide
//! nothing.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use simulated_aws::world::Caller;
use stream_encryption_operator::api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::{
    KeyObjectReference, Service, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_operator::aws::{Identity, Signer, Streams, Urgency};
use stream_encryption_operator::controller::records::{Happening, RecordError, Records, ReferencedKey};
use stream_encryption_operator::model::fault::{Class, Fault, Operation};
use stream_encryption_operator::model::key::{Key, KeyFacts, KeyName};
use stream_encryption_operator::model::observation::Look;
use stream_encryption_operator::model::principal::Principal;
use stream_encryption_operator::model::stream::StreamArn;

use crate::cloud;
use crate::faults::Request;
use crate::link::{Link, arrives};
use crate::policies::Act;
use crate::promises::Sent;
use crate::scene::{REGION, State};
use crate::writes::Write;

/// AWS, for one process.
#[derive(Debug)]
pub struct Aws {
    link: Link,
    /// As the operator's own adapter, it asks once whose credentials it has.
    identity: Mutex<Option<Identity>>,
}

/// Kubernetes, for one process.
#[derive(Clone, Debug)]
pub struct Cluster(Link);

impl Aws {
    /// AWS, for this process.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link, identity: Mutex::new(None) }
    }

    /// The link, for those who spoil it.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What the replica signs with.
    #[must_use]
    pub fn signer(&self) -> Signer {
        let access_key_id = {
            let state = self.link.scene.state();
            state.replicas[self.link.process.replica].caller().access_key
        };
        Signer { access_key_id, session_age: self.age() }
    }

    /// Has the replica sign with other credentials, if it is their time.
    fn exchange(&self) {
        let mut state = self.link.scene.state();
        let (now, number) = (state.now, self.link.process.replica);
        if let Some(mistaken) = state.replicas[number].mistaken_soon.take() {
            state.replicas[number].mistaken = mistaken;
            state
                .story
                .tell(now, || format!("operator {number} is about to call, and its credentials change"));
        }
    }

    /// As the operator's own adapter, it sends nothing with other credentials than those of the look.
    fn still_signs(&self, signer: &Signer, operation: Operation) -> Result<(), Fault> {
        if self.signer().is(signer) {
            return Ok(());
        }
        self.link.scene.state().tally.fault("credentials change between look and call");
        let code = Some("SignerChanged".to_owned());
        Err(Fault { operation, class: Class::Transient, code, message: String::new() })
    }

    /// How old the replica's session is.
    fn age(&self) -> Option<SignedDuration> {
        let state = self.link.scene.state();
        let made = state.replicas[self.link.process.replica].session;
        made.map(|made| state.now.duration_since(made))
    }

    /// Start, for the call that the ledger holds as of `reserved`. Its date is what AWS checks; nothing: when it is sent.
    pub async fn start_dated(
        &self,
        stream: &StreamArn,
        key: &Key,
        as_whom: &Principal,
        signer: &Signer,
        reserved: Timestamp,
        dated: Option<Timestamp>,
    ) -> Result<(), Fault> {
        let by = self.link.process;
        let operation = Operation::change(stream.service, Action::Start);
        self.still_signs(signer, operation)?;
        let age = self.age();
        let grant = stream.service == Service::Firehose && matches!(key, Key::Customer(_));
        if grant && age.is_some_and(|age| age > SignedDuration::from_mins(350)) {
            // The operator's own adapter refuses it: AWS could make no grant.
            return Err(Fault {
                operation,
                class: Class::Transient,
                code: Some("SessionTooOld".to_owned()),
                message: String::new(),
            });
        }
        self.link
            .ask_aws(operation, dated, |state, caller| {
                let now = state.now;
                let told = cloud::start(&mut state.world, now, caller, stream, key);
                let (action, key) = (Action::Start, Some(key));
                state.sent(&Sent { by, as_whom, stream, action, key, reserved }, &told.0);
                told
            })
            .await
    }

    /// Stop, for the call that the ledger holds as of `reserved`, dated as [`start_dated`](Self::start_dated) is.
    pub async fn stop_dated(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        as_whom: &Principal,
        signer: &Signer,
        reserved: Timestamp,
        dated: Option<Timestamp>,
    ) -> Result<(), Fault> {
        let by = self.link.process;
        let operation = Operation::change(stream.service, Action::Stop);
        self.still_signs(signer, operation)?;
        self.link
            .ask_aws(operation, dated, |state, caller| {
                let now = state.now;
                let told = cloud::stop(&mut state.world, now, caller, stream, in_force);
                let (action, key) = (Action::Stop, None);
                state.sent(&Sent { by, as_whom, stream, action, key, reserved }, &told.0);
                told
            })
            .await
    }
}

impl Cluster {
    /// Kubernetes, for this process.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self(link)
    }

    /// The link, for those who spoil it.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.0
    }
}

impl Streams for Aws {
    async fn identity(&self) -> Result<Identity, Fault> {
        if let Some(known) = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(known);
        }
        let account = self
            .link
            .ask_aws(Operation::GetCallerIdentity, None, |state, _| {
                // Credentials that turn out to be another account's were the operator's own when it asked.
                let own = Caller::new(crate::scene::OPERATOR);
                let now = state.now;
                cloud::identity(&mut state.world, now, &own, REGION)
            })
            .await?;
        let identity = Identity {
            account: account.parse().map_err(|_| cloud::fault(Operation::GetCallerIdentity, None))?,
            partition: "aws".parse().map_err(|_| cloud::fault(Operation::GetCallerIdentity, None))?,
        };
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity.clone());
        Ok(identity)
    }

    async fn answers(&self) -> Result<(), Fault> {
        self.link
            .ask_aws(Operation::GetCallerIdentity, None, |state, caller| {
                let now = state.now;
                cloud::identity(&mut state.world, now, caller, REGION)
            })
            .await
            .map(drop)
    }

    async fn look(
        &self,
        stream: &StreamArn,
        by: &Principal,
        _: Urgency,
    ) -> Result<Option<(Look, Signer)>, Fault> {
        let replica = self.link.process.replica;
        let signer = self.signer();
        let seen = self
            .link
            .ask_aws(Operation::look(stream.service), None, |state, caller| {
                let now = state.now;
                state.causes(by, stream, &Act::Look);
                let told = cloud::look(&mut state.world, now, caller, stream);
                if arrives(&told.1) {
                    state.looked(replica, stream, &told.0);
                }
                told
            })
            .await?;
        Ok(seen.map(|look| (look, signer)))
    }

    async fn key(
        &self,
        stream: &StreamArn,
        name: &KeyName,
        by: &Principal,
        _: Urgency,
    ) -> Result<Option<KeyFacts>, Fault> {
        self.link
            .ask_aws(Operation::DescribeKey, None, |state, caller| {
                let now = state.now;
                state.causes(by, stream, &Act::Ask(name));
                let told = cloud::key(&mut state.world, now, caller, stream, name);
                if told.0.is_err() {
                    // A key that cannot be read, and then can, is one that somebody has mended.
                    state.promises.stirred = now;
                }
                told
            })
            .await
    }

    async fn turn(&self, _: &StreamArn, _: Action, _: &Principal, signer: &Signer) -> bool {
        // The pacer is tested by itself; here it only takes its time, now and then.
        self.link
            .request(|state| {
                let waits = state.dice.u8(0..20) == 0;
                let seconds = if waits { state.dice.i64(1..40) } else { 0 };
                ((), SignedDuration::from_secs(seconds))
            })
            .await;
        let before = self.signer().is(signer);
        self.exchange();
        let early = self.link.scene.state().dice.bool();
        if early { self.signer().is(signer) } else { before }
    }

    async fn start(
        &self,
        stream: &StreamArn,
        key: &Key,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.start_dated(stream, key, by, signer, reserved, Some(reserved)).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        by: &Principal,
        signer: &Signer,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.stop_dated(stream, in_force, by, signer, reserved, Some(reserved)).await
    }

    async fn put_record(
        &self,
        stream: &StreamArn,
        _: &str,
        by: &Principal,
        signer: &Signer,
    ) -> Result<bool, Fault> {
        let operation = match stream.service {
            Service::Firehose => Operation::PutFirehoseRecord,
            Service::Kinesis => Operation::PutKinesisRecord,
        };
        self.still_signs(signer, operation)?;
        self.link
            .ask_aws(operation, None, |state, caller| {
                let now = state.now;
                state.causes(by, stream, &Act::Look);
                cloud::put_record(&mut state.world, now, caller, stream)
            })
            .await
    }
}

impl Records for Cluster {
    async fn resource(&self, namespace: &str, name: &str) -> Result<Option<StreamEncryption>, RecordError> {
        let name = (namespace.to_owned(), name.to_owned());
        let read = |state: &mut State| Ok(state.store.resource(&name).map(|resource| (**resource).clone()));
        self.0.ask_kubernetes(Request::ReadResource, read).await
    }

    async fn ledger(&self, name: &str) -> Result<Option<StreamLedger>, RecordError> {
        self.0.ask_kubernetes(Request::ReadLedger, |state| Ok(state.store.ledger(name).cloned())).await
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, RecordError> {
        self.0
            .ask_kubernetes(Request::ListLedgers, |state| Ok(state.store.ledgers().cloned().collect()))
            .await
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, RecordError> {
        let write = Write::Create(name.to_owned(), Box::new(spec.clone()));
        self.0.write(Request::CreateLedger, write).await?.ok_or(RecordError::Conflict)
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, RecordError> {
        let write = Write::Replace(Box::new(ledger.clone()));
        self.0.write(Request::ReplaceLedger, write).await?.ok_or(RecordError::Conflict)
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), RecordError> {
        self.0.write(Request::DeleteLedger, Write::Delete(Box::new(ledger.clone()))).await.map(drop)
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<(), RecordError> {
        let write = Write::Status(Box::new(read.clone()), Box::new(status.clone()));
        self.0.write(Request::WriteStatus, write).await.map(drop)
    }

    async fn tell(&self, of: &Owner, happening: &Happening) -> Result<(), RecordError> {
        let mut state = self.0.scene.state();
        let now = state.now;
        state.story.tell(now, || format!("event of {}/{}: {}", of.namespace, of.name, happening.reason));
        Ok(())
    }

    async fn set_finalizer(&self, resource: &StreamEncryption, present: bool) -> Result<(), RecordError> {
        let write = Write::Finalizer(Box::new(resource.clone()), present);
        self.0.write(Request::SetFinalizer, write).await.map(drop)
    }

    async fn policies(&self, namespace: &str) -> Result<Vec<StreamEncryptionPolicySpec>, RecordError> {
        self.0.ask_kubernetes(Request::ReadPolicies, |state| Ok(state.policies.of(namespace))).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, RecordError> {
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
