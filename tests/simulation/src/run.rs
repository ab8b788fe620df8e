//! Executes a plan from its start to its end, in virtual time, and checks the promises after every event.
//!
//! A seed or a list makes the choices that the plan leaves open; with a list, `order` selects the next event.

mod fingerprint;
mod order;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use jiff::{SignedDuration, Timestamp};

use crate::caches::{Caches, Kind, WATCH, Watches};
use crate::choices::Choices;
use crate::convergence;
use crate::environment::{BEGIN, Condition, Event, Polled, Process, Scene, State};
use crate::event_queue::Agenda;
use crate::explore::seen::Seen;
use crate::faults::KubernetesFaults;
use crate::invariants::{Broken, Promises};
use crate::operations;
use crate::plan::{CALM, END, Plan, RECKONING};
use crate::policies::{Allowed, Policies};
use crate::replica::{Outcome, Replica, Task};
use crate::stats::Tally;
use crate::store::Store;
use crate::trace::Story;
use crate::wiring::Parts;

/// The interval at which a process cleans up expired ledgers.
const RETIRE_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of reconciles in a run. An operator that exceeds it never comes to rest.
const MOST_VISITS: u64 = 60_000;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The broken promise, if any.
    pub broken: Option<Broken>,
    /// The statistics.
    pub tally: Tally,
    /// The trace, if it was requested.
    pub story: Story,
}

struct Run<'a, P: Parts> {
    plan: &'a Plan,
    parts: &'a P,
    scene: Arc<Scene>,
    replicas: Vec<Option<Replica<P>>>,
    tasks: BTreeMap<usize, Task>,
    begun: usize,
    /// The number of changes that were passed to the watches.
    given: usize,
    /// The numbers of calls and writes at the final check.
    stable_status: Option<(u64, u64)>,
    /// The number of the task that was polled last.
    current: usize,
    /// The number of the plan's events that have happened.
    happened: usize,
    /// Whether the state after the last choice point has been compared with those of other runs.
    compared: bool,
}

/// Executes a plan with operators of these parts. `told` enables the trace.
pub fn run<P: Parts>(plan: &Plan, parts: &P, told: bool) -> Report {
    let mut run = Run::new(plan, parts, told, Choices::of_seed(plan.seed));
    let end = BEGIN + END;
    while let Some(event) = run.scene.next_until(end) {
        run.happen(event);
        if run.watch_over() {
            break;
        }
    }
    run.reckon();
    run.ended()
}

/// Executes a plan until this long after its start, then ends all processes. Returns the environment.
pub fn until<P: Parts>(plan: &Plan, parts: &P, time: SignedDuration) -> Arc<Scene> {
    let mut run = Run::new(plan, parts, false, Choices::of_seed(plan.seed));
    while let Some(event) = run.scene.next_until(BEGIN + time) {
        run.happen(event);
        if run.watch_over() {
            break;
        }
    }
    run.scene.clone()
}

/// The result of a run with a list of choices.
#[derive(Debug)]
pub struct Followed {
    /// The result. Of a run that was cut short, without the final check.
    pub report: Report,
    pub choices: Choices,
    /// Whether the run was cut short, in a state from which everything has been explored already.
    pub cut: bool,
}

/// Executes a plan with the choices of a list. Cuts the run short in a state that `seen` contains already.
pub fn follow<P: Parts>(
    plan: &Plan,
    parts: &P,
    told: bool,
    choices: Choices,
    mut seen: Option<&mut Seen>,
) -> Followed {
    let mut run = Run::new(plan, parts, told, choices);
    let end = BEGIN + END;
    let mut cut = false;
    loop {
        if let Some(seen) = &mut seen
            && run.is_comparable()
            && seen.contains_or_insert(run.fingerprint())
        {
            cut = true;
            break;
        }
        let Some(event) = run.next_until(end) else { break };
        run.happen(event);
        if run.watch_over() {
            break;
        }
    }
    let choices = std::mem::replace(&mut run.scene.state().choices, Choices::of_seed(plan.seed));
    if !cut {
        run.reckon();
    }
    let report = run.ended();
    Followed { report, choices, cut }
}

impl<'a, P: Parts> Run<'a, P> {
    fn new(plan: &'a Plan, parts: &'a P, told: bool, choices: Choices) -> Self {
        let mut agenda = Agenda::default();
        for replica in 0..plan.replicas {
            agenda.add(BEGIN, Event::Boot(replica));
        }
        for (number, (at, _)) in plan.happenings.iter().enumerate() {
            agenda.add(BEGIN + *at, Event::Happening(number));
        }
        agenda.add(BEGIN + CALM, Event::Calm);
        agenda.add(BEGIN + RECKONING, Event::Reckoning);
        let condition = |replica: usize| Condition {
            life: 0,
            up: false,
            clocks: (plan.clocks[replica], plan.clocks[replica]),
            paused_until: Timestamp::MIN,
            doom: None,
            mistaken: false,
            mistaken_soon: None,
            session: plan.sessions.then_some(BEGIN),
            stuck_session: false,
            watches: Watches::prompt(),
            watch_drops: 0,
            caches: Caches::default(),
        };
        let scene = Scene::new(State {
            now: BEGIN,
            agenda,
            choices,
            world: operations::world(plan),
            store: Store::default(),
            ledger_times: Vec::new(),
            replicas: (0..plan.replicas).map(condition).collect(),
            kubernetes: KubernetesFaults::none(),
            policies: Policies::new(vec![Allowed::own_account(plan.allow_disable)], plan.max_calls),
            key_objects: Vec::new(),
            key_kind: true,
            latency: plan.latency,
            kubernetes_writes: 0,
            late: Vec::new(),
            lease: None,
            polled: Polled::default(),
            promises: Promises::new(plan.max_calls),
            story: Story::new(told),
            tally: Tally::default(),
        });
        for (replica, off) in plan.clocks.iter().enumerate() {
            scene.set_offset(&mut scene.state(), replica, *off);
        }
        Self {
            plan,
            parts,
            scene,
            replicas: (0..plan.replicas).map(|_| None).collect(),
            tasks: BTreeMap::new(),
            begun: 0,
            given: 0,
            stable_status: None,
            current: 0,
            happened: 0,
            compared: false,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(task) => self.poll(task),
            Event::Happening(number) => {
                self.happened = number + 1;
                operations::act(&self.scene, self.plan, &self.plan.happenings[number].1);
            }
            Event::Watch { process, upto } => self.watch(process, upto),
            Event::Due { process, name } => {
                let scene = self.scene.clone();
                let task = self.alive(process).and_then(|(replica, now)| replica.visit(&scene, &name, now));
                if let Some(task) = task {
                    self.begin(task);
                }
            }
            Event::Retire(process) => self.retire(process),
            Event::PoliciesTold { replica, upto } => self.policies_told(replica, upto),
            Event::Crash(process) => self.crash(process),
            Event::Boot(replica) => self.boot(replica),
            Event::Late(number) => {
                let mut state = self.scene.state();
                // The event must not be attributed to the last reconcile.
                state.polled = Polled::default();
                let (write, by) = state.late[number].clone();
                let _ = state.carry_out(&write, by);
            }
            Event::AwsMends(rule) => {
                self.scene.state().world.clear_fault(rule);
            }
            Event::Relist { replica, behind } => self.relist_unless_frozen(replica, behind),
            Event::Calm => self.calm(),
            Event::Reckoning => {
                let mut state = self.scene.state();
                let stable_status = convergence::reckon(&mut state);
                self.stable_status = stable_status.then(|| (state.promises.calls, state.promises.writes));
            }
        }
    }

    /// Returns the process, if it is still the same life, and is running and not paused. For a paused
    /// process, the event is deferred until it resumes.
    fn alive(&mut self, process: Process) -> Option<(&mut Replica<P>, Timestamp)> {
        let now = self.scene.state().now;
        let replica = self.replicas[process.replica].as_mut()?;
        (replica.process == process).then_some((replica, now))
    }

    /// Returns the time until which a process is paused, if it is paused.
    fn paused(&self, process: Process) -> Option<Timestamp> {
        let state = self.scene.state();
        let until = state.replicas[process.replica].paused_until;
        (until > state.now).then_some(until)
    }

    fn begin(&mut self, task: Task) {
        if let Some(until) = self.paused(task.process) {
            // The reconcile begins when the process resumes; until then the queue holds it.
            if let (Some(name), Some(replica)) = (&task.name, self.replicas[task.process.replica].as_mut()) {
                replica.hold(&self.scene, name, until);
            }
            return;
        }
        self.begun += 1;
        self.tasks.insert(self.begun, task);
        self.poll(self.begun);
    }

    /// Polls a task: the operator's own code runs until it waits.
    fn poll(&mut self, number: usize) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        self.current = number;
        {
            let mut state = self.scene.state();
            state.polled.task = number;
            let now = state.now;
            state.promises.visit_goes_on(number, now);
            state.polled.name.clone_from(&task.name);
        }
        let Poll::Ready(outcome) = task.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return;
        };
        let Some(task) = self.tasks.remove(&number) else { return };
        let said = matches!(&outcome, Outcome::Visited(Ok(wake)) if self.is_done(task.process, *wake));
        {
            let state = &mut *self.scene.state();
            if said {
                state.promises.visit_says(number, state.now);
            }
            state.promises.visit_ends(number);
        }
        if let (Outcome::Visited(result), Some(name)) = (outcome, &task.name) {
            self.scene.state().tally.visits += 1;
            if let Some(replica) = self.replicas[task.process.replica].as_mut() {
                replica.visited(&self.scene, name, &result);
            }
        }
    }

    /// Returns whether a reconcile with this requeue time has completed; a dropped reconcile is requeued
    /// within a second.
    fn is_done(&self, process: Process, wake: Timestamp) -> bool {
        let now = self.scene.clock_of(process.replica).now();
        wake.duration_since(now) > SignedDuration::from_secs(1)
    }

    fn retire(&mut self, process: Process) {
        let Some((replica, now)) = self.alive(process) else { return };
        let task = replica.retire();
        self.scene.state().agenda.add(now + RETIRE_EVERY, Event::Retire(process));
        self.begin(task);
        // The watches begin anew as often.
        self.scene.state().agenda.add(now, Event::Relist { replica: process.replica, behind: 0 });
    }

    fn crash(&mut self, process: Process) {
        if self.alive(process).is_none() {
            return;
        }
        self.replicas[process.replica] = None;
        self.tasks.retain(|_, task| task.process != process);
        let mut state = self.scene.state();
        let now = state.now;
        state.story.tell(now, || format!("operator {} crashes", process.replica));
        let condition = &mut state.replicas[process.replica];
        condition.up = false;
        condition.doom = None;
        condition.caches = Caches::default();
        condition.paused_until = Timestamp::MIN;
    }

    fn boot(&mut self, replica: usize) {
        let process = {
            let mut state = self.scene.state();
            let now = state.now;
            let condition = &mut state.replicas[replica];
            if condition.up {
                return;
            }
            condition.up = true;
            condition.life += 1;
            condition.session = condition.session.map(|_| now);
            let process = Process { replica, life: condition.life };
            state.tally.restarts += u64::from(process.life > 1);
            state.story.tell(now, || format!("operator {replica} starts"));
            state.agenda.add(now, Event::Retire(process));
            process
        };
        self.replicas[replica] = Some(Replica::boot(&self.scene, process, self.plan, self.parts));
        self.relist(replica, 0);
    }

    fn calm(&mut self) {
        operations::calm(&self.scene, self.plan);
        for replica in 0..self.plan.replicas {
            if self.replicas[replica].is_none() {
                self.boot(replica);
            }
        }
    }

    /// Passes new changes to the watches, renews sessions, and checks the promises. Returns whether the run
    /// is over.
    fn watch_over(&mut self) -> bool {
        let state = &mut *self.scene.state();
        let now = state.now;
        state.ledger_times.resize(state.store.ledger_changes().len(), now);
        let changes = state.store.changes().len();
        if changes > self.given {
            // Runs Kubernetes' reaction to a deletion, which only a planted bug has.
            #[allow(clippy::unnecessary_to_owned, reason = "the state changes meanwhile")]
            for change in state.store.changes()[self.given..].to_vec() {
                state.promises.note_change(&change.resource, change.deleted, now);
                if change.deleted {
                    self.parts.after_deletion(state, &change.resource);
                }
            }
            self.given = changes;
            for replica in self.replicas.iter().flatten() {
                let lag = state.replicas[replica.process.replica].watches.lag(Kind::Resources);
                let at = now + lag + state.choices.duration(1_000..WATCH);
                state.agenda.add(at, Event::Watch { process: replica.process, upto: changes });
            }
        }
        for condition in &mut state.replicas {
            let old = condition
                .session
                .is_some_and(|made| now.duration_since(made) > SignedDuration::from_hours(4));
            if old && !condition.stuck_session {
                condition.session = Some(now);
            }
        }
        let State { promises, world, tally, .. } = state;
        promises.read_log(world);
        if tally.visits > MOST_VISITS {
            promises.break_with("P5", now, || format!("more than {MOST_VISITS} reconciles"));
        }
        promises.broken.is_some()
    }

    /// Makes the final check.
    fn reckon(&self) {
        let state = &mut *self.scene.state();
        if state.promises.broken.is_none() {
            convergence::reckon(state);
            let now = state.now;
            if let Some((calls, writes)) = self.stable_status
                && (calls, writes) != (state.promises.calls, state.promises.writes)
            {
                let (more_calls, more_writes) =
                    (state.promises.calls - calls, state.promises.writes - writes);
                state.promises.break_with("P5", now, || {
                    format!("{more_calls} calls and {more_writes} writes after everything matched its spec")
                });
            }
        }
    }

    /// Returns the result.
    fn ended(self) -> Report {
        drop(self.tasks);
        drop(self.replicas);
        let state = &mut *self.scene.state();
        state.tally.take_rows();
        state.tally.runs = 1;
        state.tally.seconds = u64::try_from(state.now.duration_since(BEGIN).as_secs()).unwrap_or(0);
        let faults = state.world.calls().iter().filter_map(|call| call.fault.clone());
        for fault in faults.collect::<Vec<_>>() {
            state.tally.fault(aws_fault(&fault));
        }
        Report {
            broken: state.promises.broken.clone(),
            tally: std::mem::take(&mut state.tally),
            story: std::mem::take(&mut state.story),
        }
    }
}

fn aws_fault(name: &str) -> &'static str {
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
