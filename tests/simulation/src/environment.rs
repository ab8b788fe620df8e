//! The complete state of one simulated environment, shared by the ports of all replicas and by the run.
//!
//! Only one task is polled at a time, so the lock is never contended. This module makes no decisions; it
//! holds the time, AWS, Kubernetes, the state of each replica's process, the active faults, and the state of
//! the checks.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Caller, World};
use stream_encryption_core::controller::Clock;

use crate::aws_events::EventMessages;
use crate::aws_model::AwsModel;
use crate::caches::{Caches, Watches};
use crate::choices::Choices;
use crate::event_queue::EventQueue;
use crate::invariants::Invariants;
use crate::kubernetes_faults::KubernetesFaults;
use crate::policies::Policies;
use crate::statistics::Statistics;
use crate::store::{Name, Store};
use crate::trace::Trace;
use crate::writes::Write;

/// The account of the operator.
pub const ACCOUNT: &str = "111122223333";
/// Another account, in which the operator has no permissions.
pub const FOREIGN_ACCOUNT: &str = "444455556666";
/// The region of all resources.
pub const REGION: &str = "eu-west-1";
/// The access key of every replica.
pub const OPERATOR_ACCESS_KEY: &str = "AKIAOPERATOR";
/// The access key of a replica with the credentials of another account.
pub const FOREIGN_ACCESS_KEY: &str = "AKIAFOREIGN";
/// The access key of callers outside the operator.
pub const EXTERNAL_ACCESS_KEY: &str = "AKIAOTHER";

/// The start time of every run.
pub const START: Timestamp = Timestamp::constant(1_772_366_400, 0);

/// A scheduled event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A waiting task continues.
    Wake(usize),
    /// An operation of the plan.
    Operation(usize),
    /// A replica's watch delivers changes up to this one.
    Watch {
        process: Process,
        /// The number of changes that have been delivered then.
        up_to: usize,
    },
    /// A resource is due in a replica's queue.
    Due {
        process: Process,
        /// The resource.
        name: Name,
    },
    /// A replica cleans up expired ledgers.
    LedgerGc(Process),
    /// A replica's watch delivers changes of the policies up to this one.
    PolicyWatch {
        replica: usize,
        /// The number of changes that have been delivered then.
        up_to: usize,
    },
    /// A replica crashes.
    Crash(Process),
    /// A replica starts.
    Boot(usize),
    /// A write is executed after its sender has timed out.
    DelayedWrite(usize),
    /// A lasting fault of AWS is cleared.
    AwsFaultCleared(u64),
    /// A replica's watch restarts with a list that is this many changes old.
    Relist {
        replica: usize,
        /// The number of changes missing from the list.
        behind: usize,
    },
    /// A message about an event of AWS is delivered.
    AwsEvent(usize),
    /// A heartbeat is sent to the queue of AWS's events.
    Heartbeat,
    /// All faults end, and no more operations of the plan are executed.
    FaultsEnd,
    /// Every resource must match its spec.
    ConvergenceCheck,
}

/// One incarnation of a replica: its number, and the number of its starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub replica: usize,
    pub incarnation: u32,
}

/// The current state of a replica's process and node.
#[derive(Debug)]
pub struct ReplicaState {
    /// The current incarnation.
    pub incarnation: u32,
    /// Whether the process is running.
    pub running: bool,
    /// The minimum and maximum error that its clock has had.
    pub clock_error_range: (SignedDuration, SignedDuration),
    /// The present error of its clock.
    pub clock_error: SignedDuration,
    /// The time until which it is paused.
    pub paused_until: Timestamp,
    /// The failure of the process at a later request, if one is planned.
    pub planned_failure: Option<PlannedFailure>,
    /// Whether its credentials belong to another account.
    pub foreign_credentials: bool,
    /// The value that `foreign_credentials` gets just before the next call.
    pub foreign_credentials_at_call: Option<bool>,
    /// The creation time of its session; `None` for credentials without a session.
    pub session: Option<Timestamp>,
    /// Whether its session is not renewed.
    pub session_not_renewed: bool,
    /// The delays of its watches.
    pub watches: Watches,
    /// The number of the next changes that its watch of the resources loses.
    pub watch_drops: u32,
    /// The caches of its watches.
    pub caches: Caches,
}

/// A planned failure of a process at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFailure {
    /// The number of requests that pass first.
    pub after: u32,
    /// Whether that request is executed before the failure.
    pub executed: bool,
    pub failure: ProcessFailure,
}

/// The failure of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFailure {
    /// It crashes, and restarts after this long.
    Crash(SignedDuration),
    /// It is paused for this long.
    Pause(SignedDuration),
}

/// The mutable state.
#[derive(Debug)]
pub struct State {
    /// AWS's time, which is the true time.
    pub now: Timestamp,
    /// The scheduled events.
    pub events: EventQueue<Event>,
    /// The choices that the plan leaves open; they are made in the order of events only.
    pub choices: Choices,
    /// AWS.
    pub world: World,
    /// Kubernetes.
    pub store: Store,
    /// The time of each change of a ledger.
    pub ledger_change_times: Vec<Timestamp>,
    pub replicas: Vec<ReplicaState>,
    /// The faults of the API server.
    pub kubernetes_faults: KubernetesFaults,
    /// The policies of the administrators.
    pub policies: Policies,
    /// The objects that `key.objectRef` may reference, and the ARN in each.
    pub key_objects: Vec<(Name, Option<String>)>,
    /// Whether the CRD of these objects is installed.
    pub key_crd_installed: bool,
    /// Maximum duration of a request, in microseconds.
    pub latency: u64,
    /// The number of writes and events that replicas have sent to the API server.
    pub kubernetes_writes: u64,
    /// The writes that are still to be executed.
    pub delayed_writes: Vec<(Write, Process)>,
    /// The leader, and the renewal time by its own clock: for a planted bug that relies on a lease. The real
    /// operator has no lease here.
    pub lease: Option<(Process, Timestamp)>,
    /// The task that is polled, and its resource.
    pub current_task: CurrentTask,
    /// The messages about events of AWS.
    pub messages: EventMessages,
    /// The state of the checks.
    pub invariants: Invariants,
    /// The trace.
    pub trace: Trace,
    /// The statistics.
    pub statistics: Statistics,
}

/// The task that is polled.
#[derive(Clone, Debug, Default)]
pub struct CurrentTask {
    /// Its number.
    pub task: usize,
    /// The resource that it reconciles, if any.
    pub name: Option<Name>,
}

/// An environment that can be shared.
#[derive(Debug)]
pub struct Environment {
    state: Mutex<State>,
    /// A copy of the time, in microseconds, so that a clock is read without the lock.
    now: AtomicI64,
    /// The error of each replica's clock, in microseconds.
    clock_errors: Vec<AtomicI64>,
}

impl Environment {
    /// Creates an environment with this initial state.
    pub fn new(state: State) -> Arc<Self> {
        let clock_errors = state.replicas.iter().map(|_| AtomicI64::new(0)).collect();
        let now = AtomicI64::new(state.now.as_microsecond());
        Arc::new(Self { state: Mutex::new(state), now, clock_errors })
    }

    /// Locks the state. The guard must not be held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next event until `end`, and advances the time to it.
    pub fn next_until(&self, end: Timestamp) -> Option<Event> {
        let mut state = self.state();
        let (at, event) = state.events.next_until(end)?;
        self.advance(&mut state, at);
        Some(event)
    }

    /// Advances the time to `at`, unless it is past.
    pub fn advance(&self, state: &mut State, at: Timestamp) {
        state.now = state.now.max(at);
        self.now.store(state.now.as_microsecond(), Ordering::Relaxed);
    }

    /// Returns the error of a replica's clock.
    pub fn clock_error(&self, replica: usize) -> SignedDuration {
        SignedDuration::from_micros(self.clock_errors[replica].load(Ordering::Relaxed))
    }

    /// Sets a replica's clock.
    pub fn set_clock_error(&self, state: &mut State, replica: usize, error: SignedDuration) {
        self.clock_errors[replica].store(i64::try_from(error.as_micros()).unwrap_or(0), Ordering::Relaxed);
        let (lowest, highest) = state.replicas[replica].clock_error_range;
        state.replicas[replica].clock_error_range = (lowest.min(error), highest.max(error));
        state.replicas[replica].clock_error = error;
    }

    /// Returns the time of a replica's clock. No two replicas read it at the same nanosecond.
    pub fn clock(self: &Arc<Self>, replica: usize) -> Clock {
        let (wall, monotonic) = (self.clone(), self.clone());
        Clock::new(
            move || {
                let micros =
                    wall.now.load(Ordering::Relaxed) + wall.clock_errors[replica].load(Ordering::Relaxed);
                let nanos = i128::from(micros) * 1_000 + replica as i128;
                Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::MAX)
            },
            move || {
                let elapsed = monotonic.now.load(Ordering::Relaxed) - START.as_microsecond();
                Duration::from_micros(elapsed.unsigned_abs())
            },
        )
    }

    pub fn wait_until(self: &Arc<Self>, at: Timestamp) -> impl Future<Output = ()> + Send + 'static {
        WaitUntil { environment: self.clone(), at, scheduled: false }
    }
}

impl State {
    /// Returns the simulated AWS at the current time, for requests of this caller.
    pub fn aws<'a>(&'a mut self, caller: &'a Caller) -> AwsModel<'a> {
        AwsModel { world: &mut self.world, now: self.now, caller }
    }

    /// Returns the maximum difference between the clocks of the replicas since the start.
    pub fn max_clock_difference(&self) -> SignedDuration {
        let ranges = || {
            self.replicas
                .iter()
                .flat_map(|replica| [replica.clock_error_range.0, replica.clock_error_range.1])
        };
        ranges().max().zip(ranges().min()).map_or(SignedDuration::ZERO, |(highest, lowest)| highest - lowest)
    }
}

impl ReplicaState {
    /// Returns the caller of its requests.
    pub fn caller(&self) -> Caller {
        Caller::new(if self.foreign_credentials { FOREIGN_ACCESS_KEY } else { OPERATOR_ACCESS_KEY })
    }
}

struct WaitUntil {
    environment: Arc<Environment>,
    at: Timestamp,
    scheduled: bool,
}

impl Future for WaitUntil {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let environment = self.environment.clone();
        let mut state = environment.state();
        if !self.scheduled {
            // Even a request that takes no time lets other tasks run first.
            self.scheduled = true;
            let task = state.current_task.task;
            state.events.add(self.at, Event::Wake(task));
            return Poll::Pending;
        }
        if state.now >= self.at { Poll::Ready(()) } else { Poll::Pending }
    }
}
