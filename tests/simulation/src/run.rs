//! Executes a plan from its start to its end, in virtual time, and checks the invariants after every event.
//!
//! A seed or a list makes the choices that the plan leaves open; with a list, `order` selects the next event.

mod aws_events;
mod fingerprint;
mod order;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use jiff::{SignedDuration, Timestamp};
use stream_encryption_core::controller::Reconciled;

use crate::aws_events::EventMessages;
use crate::caches::{Caches, MAX_WATCH_DELAY, WatchKind, Watches};
use crate::choices::Choices;
use crate::convergence;
use crate::environment::{CurrentTask, Environment, Event, Process, ReplicaState, START, State};
use crate::event_queue::EventQueue;
use crate::explore::seen::Seen;
use crate::invariants::{Invariants, Violation};
use crate::kubernetes_faults::KubernetesFaults;
use crate::operations;
use crate::plan::{CONVERGENCE_CHECK, END, FAULTS_END, Plan};
use crate::policies::{Policies, Policy};
use crate::replica::{Replica, Task, TaskOutcome};
use crate::statistics::Statistics;
use crate::store::Store;
use crate::trace::Trace;
use crate::wiring::Wiring;

/// The interval at which a process cleans up expired ledgers.
const LEDGER_GC_INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of reconciles in a run. An operator that exceeds it never converges.
const MAX_RECONCILES: u64 = 60_000;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The first violation, if any.
    pub violation: Option<Violation>,
    /// The statistics.
    pub statistics: Statistics,
    /// The trace, if it was requested.
    pub trace: Trace,
}

struct Run<'a, P: Wiring> {
    plan: &'a Plan,
    wiring: &'a P,
    environment: Arc<Environment>,
    replicas: Vec<Option<Replica<P>>>,
    tasks: BTreeMap<usize, Task>,
    started_tasks: usize,
    /// The number of changes that were passed to the watches.
    delivered_changes: usize,
    /// The numbers of calls and writes at the convergence check, if every status was stable then.
    stable_counts: Option<(u64, u64)>,
    /// The number of the task that was polled last.
    last_polled: usize,
    /// The number of operations of the plan that were executed.
    operations_done: usize,
    /// Whether the state after the last choice point has been compared with those of other runs.
    compared: bool,
}

/// Executes a plan with operators of this wiring. `traced` enables the trace.
pub fn run<P: Wiring>(plan: &Plan, wiring: &P, traced: bool) -> Report {
    let mut run = Run::new(plan, wiring, traced, Choices::from_seed(plan.seed));
    let end = START + END;
    while let Some(event) = run.environment.next_until(end) {
        run.handle(event);
        if run.after_event() {
            break;
        }
    }
    run.final_check();
    run.report()
}

/// Executes a plan until this long after its start, then ends all processes. Returns the environment.
pub fn run_until<P: Wiring>(plan: &Plan, wiring: &P, time: SignedDuration) -> Arc<Environment> {
    let mut run = Run::new(plan, wiring, false, Choices::from_seed(plan.seed));
    while let Some(event) = run.environment.next_until(START + time) {
        run.handle(event);
        if run.after_event() {
            break;
        }
    }
    run.environment.clone()
}

/// The result of a run with a list of choices.
#[derive(Debug)]
pub struct Replay {
    /// The result. Of a run that was cut short, without the final check.
    pub report: Report,
    pub choices: Choices,
    /// Whether the run was cut short, in a state from which everything has been explored already.
    pub pruned: bool,
}

/// Executes a plan with the choices of a list. Cuts the run short in a state that `seen` already contains.
pub fn replay<P: Wiring>(
    plan: &Plan,
    wiring: &P,
    traced: bool,
    choices: Choices,
    mut seen: Option<&mut Seen>,
) -> Replay {
    let mut run = Run::new(plan, wiring, traced, choices);
    let end = START + END;
    let mut pruned = false;
    loop {
        if let Some(seen) = &mut seen
            && run.is_comparable()
            && seen.contains_or_insert(run.fingerprint())
        {
            pruned = true;
            break;
        }
        let Some(event) = run.next_until(end) else { break };
        run.handle(event);
        if run.after_event() {
            break;
        }
    }
    let choices = std::mem::replace(&mut run.environment.state().choices, Choices::from_seed(plan.seed));
    if !pruned {
        run.final_check();
    }
    let report = run.report();
    Replay { report, choices, pruned }
}

impl<'a, P: Wiring> Run<'a, P> {
    fn new(plan: &'a Plan, wiring: &'a P, traced: bool, choices: Choices) -> Self {
        let mut events = EventQueue::default();
        for replica in 0..plan.replicas {
            events.add(START, Event::Boot(replica));
        }
        for (number, (at, _)) in plan.operations.iter().enumerate() {
            events.add(START + *at, Event::Operation(number));
        }
        events.add(START + FAULTS_END, Event::FaultsEnd);
        events.add(START + CONVERGENCE_CHECK, Event::ConvergenceCheck);
        if plan.events.is_some() {
            events.add(START, Event::Heartbeat);
        }
        let replica_state = |replica: usize| ReplicaState {
            incarnation: 0,
            running: false,
            clock_error_range: (plan.clock_errors[replica], plan.clock_errors[replica]),
            clock_error: plan.clock_errors[replica],
            paused_until: Timestamp::MIN,
            planned_failure: None,
            foreign_credentials: false,
            foreign_credentials_at_call: None,
            session: plan.sessions.then_some(START),
            session_not_renewed: false,
            watches: Watches::undelayed(),
            watch_drops: 0,
            caches: Caches::default(),
        };
        let environment = Environment::new(State {
            now: START,
            events,
            choices,
            world: operations::world(plan),
            store: Store::default(),
            ledger_change_times: Vec::new(),
            replicas: (0..plan.replicas).map(replica_state).collect(),
            kubernetes_faults: KubernetesFaults::none(),
            policies: Policies::new(vec![Policy::own_account(plan.allow_disable)], plan.max_calls),
            key_objects: Vec::new(),
            key_crd_installed: true,
            latency: plan.latency,
            kubernetes_writes: 0,
            delayed_writes: Vec::new(),
            lease: None,
            current_task: CurrentTask::default(),
            messages: EventMessages::new(plan),
            invariants: Invariants::new(plan.max_calls),
            trace: Trace::new(traced),
            statistics: Statistics::default(),
        });
        for (replica, error) in plan.clock_errors.iter().enumerate() {
            environment.set_clock_error(&mut environment.state(), replica, *error);
        }
        Self {
            plan,
            wiring,
            environment,
            replicas: (0..plan.replicas).map(|_| None).collect(),
            tasks: BTreeMap::new(),
            started_tasks: 0,
            delivered_changes: 0,
            stable_counts: None,
            last_polled: 0,
            operations_done: 0,
            compared: false,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(task) => self.poll(task),
            Event::Operation(number) => {
                self.operations_done = number + 1;
                operations::execute(&self.environment, self.plan, &self.plan.operations[number].1);
            }
            Event::Watch { process, up_to } => self.deliver_resources(process, up_to),
            Event::Due { process, name } => {
                let environment = self.environment.clone();
                let task = self
                    .running_process(process)
                    .and_then(|(replica, now)| replica.start_reconcile(&environment, &name, now));
                if let Some(task) = task {
                    self.start_task(task);
                }
            }
            Event::LedgerGc(process) => self.collect_ledgers(process),
            Event::PolicyWatch { replica, up_to } => self.deliver_policies(replica, up_to),
            Event::Crash(process) => self.crash(process),
            Event::Boot(replica) => self.boot(replica),
            Event::DelayedWrite(number) => {
                let mut state = self.environment.state();
                // The event must not be attributed to the last reconcile.
                state.current_task = CurrentTask::default();
                let (write, process) = state.delayed_writes[number].clone();
                let _ = state.execute(&write, process);
            }
            Event::AwsFaultCleared(rule) => {
                self.environment.state().world.clear_fault(rule);
            }
            Event::Relist { replica, behind } => self.relist_unless_frozen(replica, behind),
            Event::AwsEvent(number) => self.deliver_event(number),
            Event::Heartbeat => self.send_heartbeat(),
            Event::FaultsEnd => self.end_faults(),
            Event::ConvergenceCheck => {
                let mut state = self.environment.state();
                let stable_status = convergence::check_convergence(&mut state);
                self.stable_counts = stable_status.then(|| (state.invariants.calls, state.invariants.writes));
            }
        }
    }

    /// Returns the process, if it is still the same incarnation, and is running and not paused. For a paused
    /// process, the event is deferred until it resumes.
    fn running_process(&mut self, process: Process) -> Option<(&mut Replica<P>, Timestamp)> {
        let now = self.environment.state().now;
        let replica = self.replicas[process.replica].as_mut()?;
        (replica.process == process).then_some((replica, now))
    }

    /// Returns the time until which a process is paused, if it is paused.
    fn paused(&self, process: Process) -> Option<Timestamp> {
        let state = self.environment.state();
        let until = state.replicas[process.replica].paused_until;
        (until > state.now).then_some(until)
    }

    fn start_task(&mut self, task: Task) {
        if let Some(until) = self.paused(task.process) {
            // The reconcile begins when the process resumes; until then the queue holds it.
            if let (Some(name), Some(replica)) = (&task.name, self.replicas[task.process.replica].as_mut()) {
                replica.defer(&self.environment, name, until);
            }
            return;
        }
        self.started_tasks += 1;
        self.tasks.insert(self.started_tasks, task);
        self.poll(self.started_tasks);
    }

    /// Polls a task: the operator's own code runs until the task waits.
    fn poll(&mut self, number: usize) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        self.last_polled = number;
        {
            let mut state = self.environment.state();
            state.current_task.task = number;
            let now = state.now;
            state.invariants.reconcile_continues(number, now);
            state.current_task.name.clone_from(&task.name);
        }
        let Poll::Ready(outcome) = task.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return;
        };
        let Some(task) = self.tasks.remove(&number) else { return };
        let completed =
            matches!(&outcome, TaskOutcome::Reconciled(Ok(end)) if self.is_complete(task.process, *end));
        {
            let state = &mut *self.environment.state();
            if completed {
                state.invariants.publish_observations(number, state.now);
            }
            state.invariants.reconcile_ended(number);
        }
        if let (TaskOutcome::Reconciled(result), Some(name)) = (outcome, &task.name) {
            self.environment.state().statistics.reconciles += 1;
            if let Some(replica) = self.replicas[task.process.replica].as_mut() {
                replica.requeue(&self.environment, name, &result);
            }
        }
    }

    /// Returns whether a reconcile has run to its end. One that discarded what it was based on has observed nothing.
    fn is_complete(&self, process: Process, end: Reconciled) -> bool {
        let now = self.environment.clock(process.replica).now();
        !end.is_outdated && end.wake.duration_since(now) > SignedDuration::from_secs(1)
    }

    fn collect_ledgers(&mut self, process: Process) {
        let Some((replica, now)) = self.running_process(process) else { return };
        let task = replica.collect_ledgers();
        self.environment.state().events.add(now + LEDGER_GC_INTERVAL, Event::LedgerGc(process));
        self.start_task(task);
        // The watches list everything again at the same interval.
        self.environment.state().events.add(now, Event::Relist { replica: process.replica, behind: 0 });
    }

    fn crash(&mut self, process: Process) {
        if self.running_process(process).is_none() {
            return;
        }
        self.replicas[process.replica] = None;
        self.tasks.retain(|_, task| task.process != process);
        let mut state = self.environment.state();
        let now = state.now;
        state.trace.record(now, || format!("operator {} crashes", process.replica));
        let replica_state = &mut state.replicas[process.replica];
        replica_state.running = false;
        replica_state.planned_failure = None;
        replica_state.caches = Caches::default();
        replica_state.paused_until = Timestamp::MIN;
        state.invariants.memory_is_lost(process.replica);
    }

    fn boot(&mut self, replica: usize) {
        let process = {
            let mut state = self.environment.state();
            let now = state.now;
            let replica_state = &mut state.replicas[replica];
            if replica_state.running {
                return;
            }
            replica_state.running = true;
            replica_state.incarnation += 1;
            replica_state.session = replica_state.session.map(|_| now);
            let process = Process { replica, incarnation: replica_state.incarnation };
            state.statistics.restarts += u64::from(process.incarnation > 1);
            state.trace.record(now, || format!("operator {replica} starts"));
            state.events.add(now, Event::LedgerGc(process));
            process
        };
        self.replicas[replica] = Some(Replica::boot(&self.environment, process, self.plan, self.wiring));
        self.relist(replica, 0);
    }

    fn end_faults(&mut self) {
        operations::end_faults_and_recover(&self.environment, self.plan);
        for replica in 0..self.plan.replicas {
            if self.replicas[replica].is_none() {
                self.boot(replica);
            }
        }
    }

    /// Passes new changes to the watches, renews sessions, and checks the invariants. Returns whether the run
    /// is over.
    fn after_event(&mut self) -> bool {
        let state = &mut *self.environment.state();
        let now = state.now;
        state.ledger_change_times.resize(state.store.ledger_changes().len(), now);
        let changes = state.store.changes().len();
        if changes > self.delivered_changes {
            // Runs Kubernetes' reaction to a deletion, which only a planted bug has.
            #[allow(clippy::unnecessary_to_owned, reason = "the state changes meanwhile")]
            for change in state.store.changes()[self.delivered_changes..].to_vec() {
                state.invariants.record_spec(&change.resource, change.deleted, now);
                if change.deleted {
                    self.wiring.after_deletion(state, &change.resource);
                }
            }
            self.delivered_changes = changes;
            for replica in self.replicas.iter().flatten() {
                let lag = state.replicas[replica.process.replica].watches.lag(WatchKind::Resources);
                let at = now + lag + state.choices.duration(1_000..MAX_WATCH_DELAY);
                state.events.add(at, Event::Watch { process: replica.process, up_to: changes });
            }
        }
        for replica_state in &mut state.replicas {
            let is_old = replica_state
                .session
                .is_some_and(|created| now.duration_since(created) > SignedDuration::from_hours(4));
            if is_old && !replica_state.session_not_renewed {
                replica_state.session = Some(now);
            }
        }
        state.send_call_events();
        let State { invariants, world, statistics, .. } = state;
        invariants.check_log(world);
        if statistics.reconciles > MAX_RECONCILES {
            invariants.record_violation("P5", now, || format!("more than {MAX_RECONCILES} reconciles"));
        }
        invariants.violation.is_some()
    }

    /// Checks convergence again at the end of the run (P4, P5).
    fn final_check(&self) {
        let state = &mut *self.environment.state();
        if state.invariants.violation.is_none() {
            convergence::check_convergence(state);
            let now = state.now;
            if let Some((calls, writes)) = self.stable_counts
                && (calls, writes) != (state.invariants.calls, state.invariants.writes)
            {
                let (more_calls, more_writes) =
                    (state.invariants.calls - calls, state.invariants.writes - writes);
                state.invariants.record_violation("P5", now, || {
                    format!("{more_calls} calls and {more_writes} writes after everything matched its spec")
                });
            }
        }
    }

    /// Returns the result.
    fn report(self) -> Report {
        drop(self.tasks);
        drop(self.replicas);
        let state = &mut *self.environment.state();
        state.statistics.collect_rows();
        state.statistics.runs = 1;
        state.statistics.seconds = u64::try_from(state.now.duration_since(START).as_secs()).unwrap_or(0);
        let faults = state.world.calls().iter().filter_map(|call| call.fault.clone());
        for fault in faults.collect::<Vec<_>>() {
            state.statistics.count(aws_fault_name(&fault));
        }
        Report {
            violation: state.invariants.violation.clone(),
            statistics: std::mem::take(&mut state.statistics),
            trace: std::mem::take(&mut state.trace),
        }
    }
}

fn aws_fault_name(name: &str) -> &'static str {
    match name {
        "Refuse" => "AWS refuses",
        "AccessDenied" => "AWS denies access",
        "Throttle" => "AWS throttles",
        "ServerError" => "AWS answers 5xx, not executed",
        "ServerErrorAfterwards" => "AWS answers 5xx, executed",
        "LoseRequest" => "a request to AWS is lost",
        "LoseReply" => "AWS's reply is lost, executed",
        "Late" => "a request arrives late at AWS",
        "Hold" => "AWS's reply is held back, executed",
        "Slow" => "AWS is slow",
        "NoOp" => "AWS answers OK without an effect",
        "FailsLater" => "AWS accepts and fails later",
        "Takes" => "AWS takes long to complete a change",
        "ReadLag" => "AWS returns a stale answer",
        _ => "another AWS fault",
    }
}
