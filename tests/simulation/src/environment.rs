//! The complete state of one simulated environment, shared by the ports of all replicas and by the run.
//!
//! Only one task is polled at a time, so the lock is never contended. This module decides nothing; it holds
//! the time, AWS, Kubernetes, the state of each replica's process, the active faults, and the state of the
//! checks.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Caller, World};
use stream_encryption_core::controller::Clock;

use crate::aws_model::AwsModel;
use crate::caches::{Caches, Watches};
use crate::choices::Choices;
use crate::event_queue::Agenda;
use crate::faults::KubernetesFaults;
use crate::invariants::Promises;
use crate::policies::Policies;
use crate::stats::Tally;
use crate::store::{Name, Store};
use crate::trace::Story;
use crate::writes::Write;

/// The account of the operator.
pub const ACCOUNT: &str = "111122223333";
/// Another account, in which the operator has no permissions.
pub const FOREIGN_ACCOUNT: &str = "444455556666";
/// The region of all resources.
pub const REGION: &str = "eu-west-1";
/// The access key of every replica.
pub const OPERATOR: &str = "AKIAOPERATOR";
/// The access key of a replica with the credentials of another account.
pub const MISTAKEN: &str = "AKIAMISTAKEN";
/// The access key of callers outside the operator.
pub const OUTSIDER: &str = "AKIAOUTSIDER";

/// The start time of every run.
pub const BEGIN: Timestamp = Timestamp::constant(1_772_366_400, 0);

/// A scheduled event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A waiting task continues.
    Wake(usize),
    /// An event of the plan.
    Happening(usize),
    /// A replica's watch delivers changes up to this one.
    Watch {
        process: Process,
        /// The number of changes that have been delivered then.
        upto: usize,
    },
    /// A resource is due in a replica's queue.
    Due {
        process: Process,
        /// The resource.
        name: Name,
    },
    /// A replica cleans up expired ledgers.
    Retire(Process),
    /// A replica's watch delivers changes of the policies up to this one.
    PoliciesTold {
        replica: usize,
        /// The number of changes that have been delivered then.
        upto: usize,
    },
    /// A replica crashes.
    Crash(Process),
    /// A replica starts.
    Boot(usize),
    /// A write is executed after its sender has timed out.
    Late(usize),
    /// A lasting fault of AWS ends.
    AwsMends(u64),
    /// A replica's watch restarts with a list that is this many changes old.
    Relist {
        replica: usize,
        /// The number of changes missing from the list.
        behind: usize,
    },
    /// All faults end, and no more events of the plan happen.
    Calm,
    /// Every resource must match its spec.
    Reckoning,
}

/// One life of a replica: its number, and how often it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub replica: usize,
    pub life: u32,
}

/// The current condition of a replica's process and node.
#[derive(Debug)]
pub struct Condition {
    /// The current life.
    pub life: u32,
    /// Whether it runs.
    pub up: bool,
    /// The minimum and maximum error that its clock has had.
    pub clocks: (SignedDuration, SignedDuration),
    /// The time until which it is paused.
    pub paused_until: Timestamp,
    /// The fate that awaits it at a later request.
    pub doom: Option<Doom>,
    /// Whether its credentials belong to another account.
    pub mistaken: bool,
    /// The value that `mistaken` gets just before the next call.
    pub mistaken_soon: Option<bool>,
    /// The creation time of its session; `None` for credentials without a session.
    pub session: Option<Timestamp>,
    /// Whether its session is not renewed.
    pub stuck_session: bool,
    /// The delays of its watches.
    pub watches: Watches,
    /// The number of the next changes that its watch of the resources loses.
    pub watch_drops: u32,
    /// The caches of its watches.
    pub caches: Caches,
}

/// The fate of a process at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// The number of requests that pass first.
    pub after: u32,
    /// Whether that request is still executed.
    pub carried_out: bool,
    pub fate: Fate,
}

/// The fate of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
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
    pub agenda: Agenda<Event>,
    /// The choices that the plan leaves open; they are made in the order of events only.
    pub choices: Choices,
    /// AWS.
    pub world: World,
    /// Kubernetes.
    pub store: Store,
    /// The time of each change of a ledger.
    pub ledger_times: Vec<Timestamp>,
    pub replicas: Vec<Condition>,
    /// The faults of the API server.
    pub kubernetes: KubernetesFaults,
    /// The policies of the administrators.
    pub policies: Policies,
    /// The objects that `key.objectRef` may reference, and the ARN in each.
    pub key_objects: Vec<(Name, Option<String>)>,
    /// Whether the CRD of these objects is installed.
    pub key_kind: bool,
    /// Maximum duration of a request, in microseconds.
    pub latency: u64,
    /// The number of writes and events that replicas have sent to the API server.
    pub kubernetes_writes: u64,
    /// The writes that are still to be executed.
    pub late: Vec<(Write, Process)>,
    /// The leader, and since when by its own clock: for a planted bug that relies on a lease. The real
    /// operator has no lease here.
    pub lease: Option<(Process, Timestamp)>,
    /// The task that is polled, and its resource.
    pub polled: Polled,
    /// The state of the checks.
    pub promises: Promises,
    /// The trace.
    pub story: Story,
    /// The statistics.
    pub tally: Tally,
}

/// The task that is polled.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    /// Its number.
    pub task: usize,
    /// The resource that it reconciles, if any.
    pub name: Option<Name>,
}

/// An environment that can be shared.
#[derive(Debug)]
pub struct Scene {
    state: Mutex<State>,
    /// A copy of the time, in microseconds, so that a clock is read without the lock.
    now: AtomicI64,
    /// The error of each replica's clock, in microseconds.
    offsets: Vec<AtomicI64>,
}

impl Scene {
    /// Creates a scene with the initial state `state`.
    pub fn new(state: State) -> Arc<Self> {
        let offsets = state.replicas.iter().map(|_| AtomicI64::new(0)).collect();
        let now = AtomicI64::new(state.now.as_microsecond());
        Arc::new(Self { state: Mutex::new(state), now, offsets })
    }

    /// Locks the state. The guard must not be held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next event until `end`, and advances the time to it.
    pub fn next_until(&self, end: Timestamp) -> Option<Event> {
        let mut state = self.state();
        let (at, event) = state.agenda.next_until(end)?;
        self.advance(&mut state, at);
        Some(event)
    }

    /// Advances the time to `at`, unless it is past.
    pub fn advance(&self, state: &mut State, at: Timestamp) {
        state.now = state.now.max(at);
        self.now.store(state.now.as_microsecond(), Ordering::Relaxed);
    }

    /// Returns the error of a replica's clock.
    pub fn offset(&self, replica: usize) -> SignedDuration {
        SignedDuration::from_micros(self.offsets[replica].load(Ordering::Relaxed))
    }

    /// Sets a replica's clock.
    pub fn set_offset(&self, state: &mut State, replica: usize, by: SignedDuration) {
        self.offsets[replica].store(i64::try_from(by.as_micros()).unwrap_or(0), Ordering::Relaxed);
        let (least, most) = state.replicas[replica].clocks;
        state.replicas[replica].clocks = (least.min(by), most.max(by));
    }

    /// Returns the time of a replica's clock.
    pub fn clock_of(self: &Arc<Self>, replica: usize) -> Clock {
        let (wall, steady) = (self.clone(), self.clone());
        Clock::new(
            move || {
                let shown = wall.now.load(Ordering::Relaxed) + wall.offsets[replica].load(Ordering::Relaxed);
                Timestamp::from_microsecond(shown).unwrap_or(Timestamp::MAX)
            },
            move || {
                let passed = steady.now.load(Ordering::Relaxed) - BEGIN.as_microsecond();
                Duration::from_micros(passed.unsigned_abs())
            },
        )
    }

    pub fn wait_until(self: &Arc<Self>, at: Timestamp) -> impl Future<Output = ()> + Send + 'static {
        Until { scene: self.clone(), at, written: false }
    }
}

impl State {
    /// Returns AWS as this caller sees it now.
    pub fn aws<'a>(&'a mut self, who: &'a Caller) -> AwsModel<'a> {
        AwsModel { world: &mut self.world, now: self.now, who }
    }

    /// Returns the maximum difference between the clocks of the replicas since the start.
    pub fn clocks_apart(&self) -> SignedDuration {
        let clocks = || self.replicas.iter().flat_map(|replica| [replica.clocks.0, replica.clocks.1]);
        clocks().max().zip(clocks().min()).map_or(SignedDuration::ZERO, |(most, least)| most - least)
    }
}

impl Condition {
    /// Returns the caller of its requests.
    pub fn caller(&self) -> Caller {
        Caller::new(if self.mistaken { MISTAKEN } else { OPERATOR })
    }
}

struct Until {
    scene: Arc<Scene>,
    at: Timestamp,
    written: bool,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let scene = self.scene.clone();
        let mut state = scene.state();
        if !self.written {
            // Even a request that takes no time lets others act first.
            self.written = true;
            let task = state.polled.task;
            state.agenda.add(self.at, Event::Wake(task));
            return Poll::Pending;
        }
        if state.now >= self.at { Poll::Ready(()) } else { Poll::Pending }
    }
}
