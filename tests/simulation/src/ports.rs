//! The two ports of one process: [`Streams`] over the simulated AWS, [`Records`] over Kubernetes in memory.
//!
//! Between them and the controller nothing is replaced. Each request takes time, may meet a fault, and is a moment at which
//! the process may crash or stand still, before it is carried out or after. The ports decide nothing.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use simulated_aws::world::{Caller, Delivery};
use stream_encryption_operator::api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_operator::api::stream_encryption::{
    KeyObjectReference, Service, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_operator::aws::{Identity, Streams, Turn};
use stream_encryption_operator::controller::records::{Happening, RecordError, Records, ReferencedKey};
use stream_encryption_operator::model::fault::{Class, Fault, Operation};
use stream_encryption_operator::model::key::{Key, KeyFacts, KeyName};
use stream_encryption_operator::model::ledger::ARRIVAL;
use stream_encryption_operator::model::observation::Look;
use stream_encryption_operator::model::stream::StreamArn;

use crate::cloud;
use crate::faults::{KubernetesFault, Request};
use crate::scene::{Doom, Event, Fate, Process, REGION, Scene, State};
use crate::writes::Write;

/// How long the operator waits for AWS.
const AWS_DEADLINE: SignedDuration = SignedDuration::from_secs(10);
/// How long the operator waits for the API server.
const KUBERNETES_DEADLINE: SignedDuration = SignedDuration::from_secs(15);

/// One process's way to everything outside it.
#[derive(Clone, Debug)]
pub struct Link {
    /// The scene.
    pub scene: Arc<Scene>,
    /// The process.
    pub process: Process,
}

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

impl Link {
    /// One request: on its way, carried out, and back. `carry_out` tells how much longer than usual the answer takes.
    pub async fn request<T>(&self, carry_out: impl FnOnce(&mut State) -> (T, SignedDuration)) -> T {
        let arrives = {
            let mut state = self.scene.state();
            let most = state.latency.max(600);
            let micros = state.dice.u64(500..most);
            state.now + SignedDuration::from_micros(i64::try_from(micros).unwrap_or(0))
        };
        self.scene.wait_until(arrives).await;
        self.stand_still().await;
        let doom = self.doom();
        if let Some(doom) = doom.filter(|doom| !doom.carried_out) {
            self.meet(doom.fate).await;
        }
        let (answer, back) = {
            let mut state = self.scene.state();
            let (answer, longer) = carry_out(&mut state);
            (answer, (longer > SignedDuration::ZERO).then(|| state.now + longer))
        };
        if let Some(back) = back {
            self.scene.wait_until(back).await;
        }
        if let Some(doom) = doom.filter(|doom| doom.carried_out) {
            self.meet(doom.fate).await;
        }
        self.stand_still().await;
        answer
    }

    /// A paused process does nothing until it goes on.
    async fn stand_still(&self) {
        loop {
            let until = {
                let state = self.scene.state();
                let until = state.replicas[self.process.replica].paused_until;
                if until <= state.now {
                    return;
                }
                until
            };
            self.scene.wait_until(until).await;
        }
    }

    fn doom(&self) -> Option<Doom> {
        let mut state = self.scene.state();
        let replica = &mut state.replicas[self.process.replica];
        let doom = replica.doom.as_mut()?;
        if doom.after > 0 {
            doom.after -= 1;
            return None;
        }
        replica.doom.take()
    }

    async fn meet(&self, fate: Fate) {
        match fate {
            Fate::Crash(downtime) => {
                {
                    let mut state = self.scene.state();
                    let now = state.now;
                    state.story.tell(now, || {
                        format!("operator {} is killed in the middle of a request", self.process.replica)
                    });
                    state.agenda.add(now, Event::Crash(self.process));
                    state.agenda.add(now + downtime, Event::Boot(self.process.replica));
                }
                // Nobody polls it again.
                std::future::pending::<()>().await;
            }
            Fate::Pause(time) => {
                {
                    let mut state = self.scene.state();
                    let now = state.now;
                    state.story.tell(now, || {
                        format!(
                            "operator {} stands still for {time:#}, in the middle of a request",
                            self.process.replica
                        )
                    });
                    let replica = &mut state.replicas[self.process.replica];
                    replica.paused_until = replica.paused_until.max(now + time);
                }
                self.stand_still().await;
            }
        }
    }

    /// A request to AWS, dated `dated` by the operator's clock; its own clock now, where nothing else is told.
    async fn ask_aws<T>(
        &self,
        operation: Operation,
        dated: Option<Timestamp>,
        send: impl FnOnce(&mut State, &Caller) -> cloud::Told<T>,
    ) -> Result<T, Fault> {
        let replica = self.process.replica;
        // It is signed when it is sent.
        let caller = self.scene.state().replicas[replica].caller();
        self.request(|state| {
            let offset = self.scene.offset(replica);
            let date = dated.unwrap_or(state.now + offset);
            if date.duration_since(state.now).abs() > ARRIVAL {
                let now = state.now;
                state
                    .story
                    .tell(now, || format!("AWS refuses a request of operator {replica}: it is dated {date}"));
                state.tally.fault("AWS refuses a wrong date");
                let error = simulated_aws::world::AwsError::new("InvalidSignatureException", "");
                return (Err(cloud::fault(operation, Some(&error))), SignedDuration::ZERO);
            }
            let (answer, delivery) = send(state, &caller);
            match delivery {
                _ if !arrives(&delivery) => (Err(cloud::fault(operation, None)), AWS_DEADLINE),
                Delivery::After(by) => (answer, by),
                Delivery::Prompt | Delivery::Lost | Delivery::Held => (answer, SignedDuration::ZERO),
            }
        })
        .await
    }

    /// A request to the API server.
    async fn ask_kubernetes<T>(
        &self,
        request: Request,
        carry_out: impl FnOnce(&mut State) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        self.request(|state| {
            let unavailable = || Err(RecordError::Unavailable("simulated".to_owned()));
            let now = state.now;
            let fault = state.kubernetes.meet(request, now);
            if let Some(fault) = fault {
                state.tally.fault(kubernetes_fault(fault));
                state.story.tell(now, || {
                    format!(
                        "the API server, asked to {request:?} by operator {}: {fault:?}",
                        self.process.replica
                    )
                });
            }
            match fault {
                None => (carry_out(state), SignedDuration::ZERO),
                Some(KubernetesFault::Refused | KubernetesFault::Late(_)) => {
                    (unavailable(), SignedDuration::ZERO)
                }
                Some(KubernetesFault::Conflict) => (Err(RecordError::Conflict), SignedDuration::ZERO),
                Some(KubernetesFault::Forbidden) => {
                    (Err(RecordError::Unusable("forbidden".to_owned())), SignedDuration::ZERO)
                }
                Some(KubernetesFault::AnswerLost) => {
                    let _ = carry_out(state);
                    (unavailable(), SignedDuration::ZERO)
                }
                Some(KubernetesFault::Slow(by)) if by < KUBERNETES_DEADLINE => (carry_out(state), by),
                Some(KubernetesFault::Slow(_)) => {
                    let _ = carry_out(state);
                    (unavailable(), KUBERNETES_DEADLINE)
                }
            }
        })
        .await
    }

    /// A write to the API server; one that is late is carried out after its answer was given up.
    async fn write(&self, request: Request, write: Write) -> Result<Option<StreamLedger>, RecordError> {
        let process = self.process;
        let late = {
            let mut state = self.scene.state();
            let now = state.now;
            match state.kubernetes.rules.iter().position(|rule| {
                rule.on == Some(request) && rule.skip == 0 && matches!(rule.fault, KubernetesFault::Late(_))
            }) {
                Some(at) if now >= state.kubernetes.down_until => {
                    match state.kubernetes.rules.remove(at).fault {
                        KubernetesFault::Late(by) => Some(by),
                        _ => None,
                    }
                }
                _ => None,
            }
        };
        if let Some(by) = late {
            return self
                .request(|state| {
                    state.tally.fault(kubernetes_fault(KubernetesFault::Late(by)));
                    let now = state.now;
                    state.story.tell(now, || {
                        format!(
                            "operator {}'s {request:?} gets no answer, and is carried out later",
                            process.replica
                        )
                    });
                    state.postpone(now + by, write, process);
                    (Err(RecordError::Unavailable("simulated".to_owned())), KUBERNETES_DEADLINE)
                })
                .await;
        }
        self.ask_kubernetes(request, |state| state.carry_out(&write, process)).await
    }
}

/// Whether an answer comes before it is given up.
fn arrives(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Prompt | Delivery::Lost => true,
        Delivery::After(by) => *by < AWS_DEADLINE,
        Delivery::Held => false,
    }
}

fn kubernetes_fault(fault: KubernetesFault) -> &'static str {
    match fault {
        KubernetesFault::Refused => "API server refuses or is down",
        KubernetesFault::Conflict => "API server answers 409",
        KubernetesFault::AnswerLost => "API server's answer is lost",
        KubernetesFault::Late(_) => "API server carries a write out late",
        KubernetesFault::Slow(_) => "API server is slow",
        KubernetesFault::Forbidden => "API server forbids the ledgers",
    }
}

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

    /// Start, for the call that the ledger holds as of `reserved`. Its date is what AWS checks; nothing: when it is sent.
    pub async fn start_dated(
        &self,
        stream: &StreamArn,
        key: &Key,
        reserved: Timestamp,
        dated: Option<Timestamp>,
    ) -> Result<(), Fault> {
        let process = self.link.process;
        let operation = Operation::change(stream.service, Action::Start);
        let age = self.session_age().await?;
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
                state.sent(process, stream, Action::Start, Some(key), reserved, &told.0);
                told
            })
            .await
    }

    /// Stop, for the call that the ledger holds as of `reserved`, dated as [`start_dated`](Self::start_dated) is.
    pub async fn stop_dated(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        reserved: Timestamp,
        dated: Option<Timestamp>,
    ) -> Result<(), Fault> {
        let process = self.link.process;
        self.link
            .ask_aws(Operation::change(stream.service, Action::Stop), dated, |state, caller| {
                let now = state.now;
                let told = cloud::stop(&mut state.world, now, caller, stream, in_force);
                state.sent(process, stream, Action::Stop, None, reserved, &told.0);
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

    async fn look(&self, stream: &StreamArn, _: &Turn) -> Result<Option<Look>, Fault> {
        let replica = self.link.process.replica;
        self.link
            .ask_aws(Operation::look(stream.service), None, |state, caller| {
                let now = state.now;
                let told = cloud::look(&mut state.world, now, caller, stream);
                if arrives(&told.1) {
                    state.looked(replica, stream, &told.0);
                }
                told
            })
            .await
    }

    async fn key(&self, stream: &StreamArn, name: &KeyName, _: &Turn) -> Result<Option<KeyFacts>, Fault> {
        self.link
            .ask_aws(Operation::DescribeKey, None, |state, caller| {
                let now = state.now;
                state.asked_for_key(name);
                cloud::key(&mut state.world, now, caller, stream, name)
            })
            .await
    }

    async fn turn(&self, _: &StreamArn, _: Action, _: &Turn) {
        // The pacer is tested by itself; here it only takes its time, now and then.
        self.link
            .request(|state| {
                let waits = state.dice.u8(0..20) == 0;
                let seconds = if waits { state.dice.i64(1..40) } else { 0 };
                ((), SignedDuration::from_secs(seconds))
            })
            .await;
    }

    async fn start(&self, stream: &StreamArn, key: &Key, reserved: Timestamp) -> Result<(), Fault> {
        self.start_dated(stream, key, reserved, Some(reserved)).await
    }

    async fn stop(
        &self,
        stream: &StreamArn,
        in_force: Option<&Key>,
        reserved: Timestamp,
    ) -> Result<(), Fault> {
        self.stop_dated(stream, in_force, reserved, Some(reserved)).await
    }

    async fn put_record(&self, stream: &StreamArn, _: &str, _: &Turn) -> Result<bool, Fault> {
        let operation = match stream.service {
            Service::Firehose => Operation::PutFirehoseRecord,
            Service::Kinesis => Operation::PutKinesisRecord,
        };
        self.link
            .ask_aws(operation, None, |state, caller| {
                let now = state.now;
                cloud::put_record(&mut state.world, now, caller, stream)
            })
            .await
    }

    async fn session_age(&self) -> Result<Option<SignedDuration>, Fault> {
        let state = self.link.scene.state();
        let made = state.replicas[self.link.process.replica].session;
        Ok(made.map(|made| state.now.duration_since(made)))
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

    async fn tell(&self, of: &Owner, happening: &Happening) {
        let mut state = self.0.scene.state();
        let now = state.now;
        state.story.tell(now, || format!("event of {}/{}: {}", of.namespace, of.name, happening.reason));
    }

    async fn set_finalizer(&self, resource: &StreamEncryption, present: bool) -> Result<(), RecordError> {
        let write = Write::Finalizer(Box::new(resource.clone()), present);
        self.0.write(Request::SetFinalizer, write).await.map(drop)
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
