//! The connection of one process to everything outside it: the duration and the faults of a request, and the
//! points before or after a request at which the process may crash or pause. It decides nothing, and does not
//! interpret requests.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Caller, Delivery, Rule};
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::ledger::MAX_CLOCK_SKEW;
use stream_encryption_core::model::service::Operation;

use crate::aws_model;
use crate::environment::{Doom, Event, Fate, Process, Scene, State};
use crate::explore::fault::{Asked, Fault, Place};
use crate::faults::{KubernetesFault, Request};
use crate::operations;
use crate::writes::{Write, Written};

/// The operator's timeout for a request to AWS.
const AWS_DEADLINE: SignedDuration = SignedDuration::from_secs(10);
/// The operator's timeout for a request to the API server.
const KUBERNETES_DEADLINE: SignedDuration = SignedDuration::from_secs(15);

/// The connection of one process to everything outside it.
#[derive(Clone, Debug)]
pub struct Link {
    pub scene: Arc<Scene>,
    pub process: Process,
}

impl Link {
    /// Runs one request: sends it, executes it, and returns its answer. `carry_out` returns the additional
    /// delay of the answer.
    pub async fn request<T>(
        &self,
        asked: Asked,
        carry_out: impl FnOnce(&mut State) -> (T, SignedDuration),
    ) -> T {
        let arrives = {
            let mut state = self.scene.state();
            let most = state.latency.max(600);
            let takes = state.choices.duration(500..most);
            state.now + takes
        };
        self.scene.wait_until(arrives).await;
        self.stand_still().await;
        let doom = self.doom(asked);
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

    /// Waits while the process is paused.
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

    fn doom(&self, asked: Asked) -> Option<Doom> {
        let mut state = self.scene.state();
        match state.mishap(Place::Process(asked)) {
            Some(Fault::ClockSet(hours)) => {
                let off = SignedDuration::from_hours(hours);
                operations::set_clock(&self.scene, &mut state, self.process.replica, off);
            }
            Some(fault) => return fault.doom(),
            None => {}
        }
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
                // The task is never polled again.
                std::future::pending::<()>().await;
            }
            Fate::Pause(time) => {
                {
                    let mut state = self.scene.state();
                    let now = state.now;
                    state.story.tell(now, || {
                        format!(
                            "operator {} is paused for {time:#}, in the middle of a request",
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

    /// Sends a request to AWS, dated `dated` by the operator's clock, or with its current time if `dated` is
    /// `None`.
    pub(crate) async fn ask_aws<T>(
        &self,
        operation: Operation,
        dated: Option<Timestamp>,
        send: impl FnOnce(&mut State, &Caller) -> aws_model::Told<T>,
    ) -> Result<T, AwsError> {
        let replica = self.process.replica;
        // It is signed when it is sent.
        let caller = self.scene.state().replicas[replica].caller();
        self.request(Asked::Aws(operation), |state| {
            let offset = self.scene.offset(replica);
            let date = dated.unwrap_or(state.now + offset);
            if date.duration_since(state.now).abs() > MAX_CLOCK_SKEW {
                let now = state.now;
                state
                    .story
                    .tell(now, || format!("AWS refuses a request of operator {replica}: it is dated {date}"));
                state.tally.fault("AWS refuses a wrong date");
                let error = simulated_aws::world::AwsError::new("InvalidSignatureException", "");
                return (Err(aws_model::fault(operation, Some(&error))), SignedDuration::ZERO);
            }
            if let Some(fault) = state.mishap(Place::Aws(operation)).and_then(Fault::of_aws) {
                state.world.script(Rule::once(fault));
            }
            let (answer, delivery) = send(state, &caller);
            match delivery {
                _ if !arrives(&delivery) => (Err(aws_model::fault(operation, None)), AWS_DEADLINE),
                Delivery::After(by) => (answer, by),
                Delivery::Prompt | Delivery::Lost | Delivery::Held => (answer, SignedDuration::ZERO),
            }
        })
        .await
    }

    /// Sends a request to the API server.
    pub(crate) async fn ask_kubernetes<T>(
        &self,
        request: Request,
        carry_out: impl FnOnce(&mut State) -> Result<T, KubeError>,
    ) -> Result<T, KubeError> {
        self.request(Asked::Kubernetes(request), |state| {
            let unavailable = || Err(KubeError::Unavailable("simulated".to_owned()));
            let now = state.now;
            let chosen = state.mishap(Place::Kubernetes(request)).and_then(Fault::of_kubernetes);
            let fault = state.kubernetes.meet(request, now).or(chosen);
            if let Some(fault) = fault {
                state.tally.fault(kubernetes_fault(fault));
                state.story.tell(now, || {
                    format!("API server fault on {request:?} by operator {}: {fault:?}", self.process.replica)
                });
            }
            match fault {
                None => (carry_out(state), SignedDuration::ZERO),
                Some(KubernetesFault::Refused | KubernetesFault::Late(_)) => {
                    (unavailable(), SignedDuration::ZERO)
                }
                Some(KubernetesFault::Conflict) => (Err(KubeError::Conflict), SignedDuration::ZERO),
                Some(KubernetesFault::Forbidden) => {
                    state.promises.visit_forgets(state.polled.task);
                    (Err(KubeError::Rejected("forbidden".to_owned())), SignedDuration::ZERO)
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

    /// Sends a write to the API server. A late write is executed after its sender has timed out.
    pub(crate) async fn write(&self, request: Request, write: Write) -> Result<Written, KubeError> {
        let process = self.process;
        let late = {
            let mut state = self.scene.state();
            state.kubernetes_writes += 1;
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
                _ => state.mishap(Place::Written(request)).and_then(Fault::lateness),
            }
        };
        if let Some(by) = late {
            return self
                .request(Asked::Kubernetes(request), |state| {
                    state.tally.fault(kubernetes_fault(KubernetesFault::Late(by)));
                    let now = state.now;
                    state.story.tell(now, || {
                        format!(
                            "operator {}'s {request:?} gets no answer, and is executed later",
                            process.replica
                        )
                    });
                    state.postpone(now + by, write, process);
                    (Err(KubeError::Unavailable("simulated".to_owned())), KUBERNETES_DEADLINE)
                })
                .await;
        }
        self.ask_kubernetes(request, |state| state.carry_out(&write, process)).await
    }
}

/// Returns whether an answer arrives before the timeout.
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
        KubernetesFault::Late(_) => "API server executes a write late",
        KubernetesFault::Slow(_) => "API server is slow",
        KubernetesFault::Forbidden => "API server denies access to ledgers",
    }
}
