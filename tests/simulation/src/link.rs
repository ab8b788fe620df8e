//! One process's way to everything outside it: the time that a request takes, the faults that it meets, and the moments at
//! which the process may crash or stand still, before a request is carried out or after. It decides nothing, and knows no
//! request's meaning.

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Caller, Delivery};
use std::sync::Arc;
use stream_encryption_operator::api::ledger::StreamLedger;
use stream_encryption_operator::controller::records::RecordError;
use stream_encryption_operator::model::fault::{Fault, Operation};
use stream_encryption_operator::model::ledger::ARRIVAL;

use crate::cloud;
use crate::faults::{KubernetesFault, Request};
use crate::scene::{Doom, Event, Fate, Process, Scene, State};
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
    pub(crate) async fn ask_aws<T>(
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
    pub(crate) async fn ask_kubernetes<T>(
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
                    state.promises.visit_forgets(state.polled.task);
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
    pub(crate) async fn write(
        &self,
        request: Request,
        write: Write,
    ) -> Result<Option<StreamLedger>, RecordError> {
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
pub(crate) fn arrives(delivery: &Delivery) -> bool {
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
