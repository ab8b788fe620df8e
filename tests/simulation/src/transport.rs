//! The connection of one process to everything outside it: the duration and the faults of a request, and the
//! points before or after a request at which the process may crash or pause. It makes no decisions, and does
//! not interpret requests.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Caller, Delivery, Rule};
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::ledger::MAX_CLOCK_SKEW;
use stream_encryption_core::model::service::Operation as AwsOperation;

use crate::aws_model;
use crate::environment::{Environment, Event, PlannedFailure, Process, ProcessFailure, State};
use crate::explore::injected_fault::{FaultPoint, InjectedFault, ProcessRequest};
use crate::kubernetes_faults::{KubernetesFault, KubernetesRequest};
use crate::operations;
use crate::writes::{Write, WriteResult};

/// The operator's timeout for a request to AWS.
const AWS_TIMEOUT: SignedDuration = SignedDuration::from_secs(10);
/// The operator's timeout for a request to the API server.
const KUBERNETES_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);

/// The connection of one process to everything outside it.
#[derive(Clone, Debug)]
pub struct Transport {
    pub environment: Arc<Environment>,
    pub process: Process,
}

impl Transport {
    /// Runs one request: sends it, executes it, and returns its response. `execute` returns the additional
    /// delay of the response.
    pub async fn request<T>(
        &self,
        request: ProcessRequest,
        execute: impl FnOnce(&mut State) -> (T, SignedDuration),
    ) -> T {
        let arrives_at = {
            let mut state = self.environment.state();
            let max_duration = state.latency.max(600);
            let duration = state.choices.duration(500..max_duration);
            state.now + duration
        };
        self.environment.wait_until(arrives_at).await;
        self.wait_while_paused().await;
        let planned = self.take_planned_failure(request);
        if let Some(planned) = planned.filter(|planned| !planned.executed) {
            self.fail(planned.failure).await;
        }
        let (response, returns_at) = {
            let mut state = self.environment.state();
            let (response, delay) = execute(&mut state);
            (response, (delay > SignedDuration::ZERO).then(|| state.now + delay))
        };
        if let Some(returns_at) = returns_at {
            self.environment.wait_until(returns_at).await;
        }
        if let Some(planned) = planned.filter(|planned| planned.executed) {
            self.fail(planned.failure).await;
        }
        self.wait_while_paused().await;
        response
    }

    /// Waits while the process is paused.
    async fn wait_while_paused(&self) {
        loop {
            let until = {
                let state = self.environment.state();
                let until = state.replicas[self.process.replica].paused_until;
                if until <= state.now {
                    return;
                }
                until
            };
            self.environment.wait_until(until).await;
        }
    }

    /// Returns the failure of the process at this request, if one is planned.
    fn take_planned_failure(&self, request: ProcessRequest) -> Option<PlannedFailure> {
        let mut state = self.environment.state();
        match state.injected_fault(FaultPoint::Process(request)) {
            Some(InjectedFault::ClockSet(hours)) => {
                let error = SignedDuration::from_hours(hours);
                operations::set_clock(&self.environment, &mut state, self.process.replica, error);
            }
            Some(fault) => return fault.planned_failure(),
            None => {}
        }
        let replica = &mut state.replicas[self.process.replica];
        let planned = replica.planned_failure.as_mut()?;
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        replica.planned_failure.take()
    }

    /// Crashes or pauses the process.
    async fn fail(&self, failure: ProcessFailure) {
        match failure {
            ProcessFailure::Crash(downtime) => {
                {
                    let mut state = self.environment.state();
                    let now = state.now;
                    state.trace.record(now, || {
                        format!("operator {} is killed in the middle of a request", self.process.replica)
                    });
                    state.events.add(now, Event::Crash(self.process));
                    state.events.add(now + downtime, Event::Boot(self.process.replica));
                }
                // The task is never polled again.
                std::future::pending::<()>().await;
            }
            ProcessFailure::Pause(time) => {
                {
                    let mut state = self.environment.state();
                    let now = state.now;
                    state.trace.record(now, || {
                        format!(
                            "operator {} is paused for {time:#}, in the middle of a request",
                            self.process.replica
                        )
                    });
                    let replica = &mut state.replicas[self.process.replica];
                    replica.paused_until = replica.paused_until.max(now + time);
                }
                self.wait_while_paused().await;
            }
        }
    }

    /// Sends a request to AWS, dated `dated` by the operator's clock, or with its current time if `dated` is
    /// `None`.
    pub(crate) async fn send_to_aws<T>(
        &self,
        operation: AwsOperation,
        dated: Option<Timestamp>,
        send: impl FnOnce(&mut State, &Caller) -> aws_model::Response<T>,
    ) -> Result<T, AwsError> {
        let replica = self.process.replica;
        // The request is signed when it is sent.
        let caller = self.environment.state().replicas[replica].caller();
        self.request(ProcessRequest::Aws(operation), |state| {
            let clock_error = self.environment.clock_error(replica);
            let date = dated.unwrap_or(state.now + clock_error);
            if date.duration_since(state.now).abs() > MAX_CLOCK_SKEW {
                let now = state.now;
                state.trace.record(now, || {
                    format!("AWS refuses a request of operator {replica}: it is dated {date}")
                });
                state.statistics.count("AWS refuses a wrong date");
                let error = simulated_aws::world::AwsError::new("InvalidSignatureException", "");
                return (Err(aws_model::aws_error(operation, Some(&error))), SignedDuration::ZERO);
            }
            if let Some(fault) =
                state.injected_fault(FaultPoint::Aws(operation)).and_then(InjectedFault::to_aws)
            {
                state.world.script(Rule::once(fault));
            }
            let (response, delivery) = send(state, &caller);
            match delivery {
                _ if !arrives(&delivery) => (Err(aws_model::aws_error(operation, None)), AWS_TIMEOUT),
                Delivery::After(delay) => (response, delay),
                Delivery::Prompt | Delivery::Lost | Delivery::Held => (response, SignedDuration::ZERO),
            }
        })
        .await
    }

    /// Sends a request to the API server.
    pub(crate) async fn send_to_kubernetes<T>(
        &self,
        request: KubernetesRequest,
        execute: impl FnOnce(&mut State) -> Result<T, KubeError>,
    ) -> Result<T, KubeError> {
        self.request(ProcessRequest::Kubernetes(request), |state| {
            let unavailable = || Err(KubeError::Unavailable("simulated".to_owned()));
            let now = state.now;
            let injected =
                state.injected_fault(FaultPoint::Kubernetes(request)).and_then(InjectedFault::to_kubernetes);
            let fault = state.kubernetes_faults.next_fault(request, now).or(injected);
            if let Some(fault) = fault {
                state.statistics.count(kubernetes_fault_name(fault));
                state.trace.record(now, || {
                    format!("API server fault on {request:?} by operator {}: {fault:?}", self.process.replica)
                });
            }
            match fault {
                None => (execute(state), SignedDuration::ZERO),
                Some(KubernetesFault::Refused | KubernetesFault::DelayedWrite(_)) => {
                    (unavailable(), SignedDuration::ZERO)
                }
                Some(KubernetesFault::Conflict) => (Err(KubeError::Conflict), SignedDuration::ZERO),
                Some(KubernetesFault::Forbidden) => {
                    state.invariants.discard_observations(state.current_task.task);
                    (Err(KubeError::Rejected("forbidden".to_owned())), SignedDuration::ZERO)
                }
                Some(KubernetesFault::ResponseLost) => {
                    let _ = execute(state);
                    (unavailable(), SignedDuration::ZERO)
                }
                Some(KubernetesFault::Slow(delay)) if delay < KUBERNETES_TIMEOUT => (execute(state), delay),
                Some(KubernetesFault::Slow(_)) => {
                    let _ = execute(state);
                    (unavailable(), KUBERNETES_TIMEOUT)
                }
            }
        })
        .await
    }

    /// Sends a write to the API server. A delayed write is executed after its sender has timed out.
    pub(crate) async fn write(
        &self,
        request: KubernetesRequest,
        write: Write,
    ) -> Result<WriteResult, KubeError> {
        let process = self.process;
        let delay = {
            let mut state = self.environment.state();
            state.kubernetes_writes += 1;
            let now = state.now;
            match state.kubernetes_faults.rules.iter().position(|rule| {
                rule.on == Some(request)
                    && rule.skip == 0
                    && matches!(rule.fault, KubernetesFault::DelayedWrite(_))
            }) {
                Some(at) if now >= state.kubernetes_faults.down_until => {
                    match state.kubernetes_faults.rules.remove(at).fault {
                        KubernetesFault::DelayedWrite(delay) => Some(delay),
                        _ => None,
                    }
                }
                _ => {
                    state.injected_fault(FaultPoint::KubernetesWrite(request)).and_then(InjectedFault::delay)
                }
            }
        };
        if let Some(delay) = delay {
            return self
                .request(ProcessRequest::Kubernetes(request), |state| {
                    state.statistics.count(kubernetes_fault_name(KubernetesFault::DelayedWrite(delay)));
                    let now = state.now;
                    state.trace.record(now, || {
                        format!(
                            "operator {}'s {request:?} gets no answer, and is executed later",
                            process.replica
                        )
                    });
                    state.delay_write(now + delay, write, process);
                    (Err(KubeError::Unavailable("simulated".to_owned())), KUBERNETES_TIMEOUT)
                })
                .await;
        }
        self.send_to_kubernetes(request, |state| state.execute(&write, process)).await
    }
}

/// Returns whether a response arrives before the timeout.
pub(crate) fn arrives(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Prompt | Delivery::Lost => true,
        Delivery::After(delay) => *delay < AWS_TIMEOUT,
        Delivery::Held => false,
    }
}

fn kubernetes_fault_name(fault: KubernetesFault) -> &'static str {
    match fault {
        KubernetesFault::Refused => "API server refuses or is down",
        KubernetesFault::Conflict => "API server answers 409",
        KubernetesFault::ResponseLost => "API server's answer is lost",
        KubernetesFault::DelayedWrite(_) => "API server executes a write late",
        KubernetesFault::Slow(_) => "API server is slow",
        KubernetesFault::Forbidden => "API server denies access to ledgers",
    }
}
