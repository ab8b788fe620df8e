//! The scene: everything that one simulated world is, shared by the ports of all replicas and by the run.
//!
//! One task is polled at a time, so the lock is never waited for. Nothing here decides; it holds the time, AWS, Kubernetes,
//! the state of each replica's process, the faults in force, and what is watched over.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{Caller, World};
use stream_encryption_operator::controller::Clock;

use crate::agenda::Agenda;
use crate::faults::KubernetesFaults;
use crate::policies::Policies;
use crate::promises::Promises;
use crate::store::{Name, Store};
use crate::story::Story;
use crate::tally::Tally;
use crate::writes::Write;

/// The account of the operator, and another one.
pub const ACCOUNT: &str = "111122223333";
/// An account in which the operator has no business.
pub const FOREIGN_ACCOUNT: &str = "444455556666";
/// The region of everything.
pub const REGION: &str = "eu-west-1";
/// The access key of every replica.
pub const OPERATOR: &str = "AKIAOPERATOR";
/// The access key that a replica has while its credentials are of another account.
pub const MISTAKEN: &str = "AKIAMISTAKEN";
/// The access key of people who call AWS behind the operator's back.
pub const OUTSIDER: &str = "AKIAOUTSIDER";

/// The beginning of every run.
pub const BEGIN: Timestamp = Timestamp::constant(1_772_366_400, 0);

/// What happens at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task that waits goes on.
    Wake(usize),
    /// A happening of the plan.
    Happening(usize),
    /// A replica's watch tells changes up to this one.
    Watch {
        /// Which process.
        process: Process,
        /// How many changes it then has been told.
        upto: usize,
    },
    /// A resource is due in a replica's queue.
    Due {
        /// Which process.
        process: Process,
        /// Which resource.
        name: Name,
    },
    /// A replica looks for ledgers to retire.
    Retire(Process),
    /// A replica's watch of policies tells that they have changed.
    PoliciesTold(usize),
    /// A replica ends without a warning.
    Crash(Process),
    /// A replica starts.
    Boot(usize),
    /// A write is carried out whose sender has given up.
    Late(usize),
    /// A fault of AWS that lasted ends.
    AwsMends(u64),
    /// A replica's watch begins anew, with a list that is so many changes old.
    Relist {
        /// Which replica.
        replica: usize,
        /// How many changes the list lacks.
        behind: usize,
    },
    /// All faults end, and nobody does anything any more.
    Calm,
    /// All should be as asked for.
    Reckoning,
}

/// One life of a replica: its number, and how often it has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Which replica.
    pub replica: usize,
    /// Which life.
    pub life: u32,
}

/// What a replica's process and node are like now.
#[derive(Debug)]
pub struct Condition {
    /// Its present life.
    pub life: u32,
    /// Whether it runs.
    pub up: bool,
    /// How far its clock has been off, at the least and at the most.
    pub clocks: (SignedDuration, SignedDuration),
    /// Until when it is paused.
    pub paused_until: Timestamp,
    /// What will befall it after so many requests.
    pub doom: Option<Doom>,
    /// Whether its credentials are of another account.
    pub mistaken: bool,
    /// What that becomes when it is next about to call.
    pub mistaken_soon: Option<bool>,
    /// When its session was made; nothing for credentials without one.
    pub session: Option<Timestamp>,
    /// Whether nobody renews its session.
    pub stuck_session: bool,
    /// How far its watch lags behind.
    pub watch_lag: SignedDuration,
    /// Until when its watch tells nothing.
    pub watch_frozen_until: Timestamp,
    /// How many of the next changes its watch loses.
    pub watch_drops: u32,
    /// How many changes its watch has told.
    pub told: usize,
}

/// What befalls a process at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// So many requests pass first.
    pub after: u32,
    /// Whether that request still goes through.
    pub carried_out: bool,
    /// What befalls it.
    pub fate: Fate,
}

/// What befalls a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ends, and starts again after this long.
    Crash(SignedDuration),
    /// It stands still for so long.
    Pause(SignedDuration),
}

/// Everything that changes.
#[derive(Debug)]
pub struct State {
    /// AWS's time, which is the true one.
    pub now: Timestamp,
    /// What comes.
    pub agenda: Agenda<Event>,
    /// The dice, thrown in the order of events only.
    pub dice: fastrand::Rng,
    /// AWS.
    pub world: World,
    /// Kubernetes.
    pub store: Store,
    /// The replicas.
    pub replicas: Vec<Condition>,
    /// What is wrong with the API server.
    pub kubernetes: KubernetesFaults,
    /// What administrators allow.
    pub policies: Policies,
    /// Which objects `key.ref` may name, and the ARN that each shows.
    pub key_objects: Vec<(Name, Option<String>)>,
    /// Whether the cluster knows the kind of these objects.
    pub key_kind: bool,
    /// How long a request takes, at the most, in microseconds.
    pub latency: u64,
    /// Writes that are still to be carried out.
    pub late: Vec<(Write, Process)>,
    /// Who leads, and since when by its own clock: for a spoiled operator that relies on a lease. The real one has none here.
    pub lease: Option<(Process, Timestamp)>,
    /// The task that is polled, and what it is about.
    pub polled: Polled,
    /// What is watched over.
    pub promises: Promises,
    /// What is told of it.
    pub story: Story,
    /// What is counted.
    pub tally: Tally,
}

/// The task that is polled.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    /// Its number.
    pub task: usize,
    /// The resource that it visits, if it does.
    pub name: Option<Name>,
}

/// A world that can be shared.
#[derive(Debug)]
pub struct Scene {
    state: Mutex<State>,
    /// The time again, in microseconds, so that a clock is read without the lock.
    now: AtomicI64,
    /// How far each replica's clock is off, in microseconds.
    offsets: Vec<AtomicI64>,
}

impl Scene {
    /// A scene that begins with `state`.
    #[must_use]
    pub fn new(state: State) -> Arc<Self> {
        let offsets = state.replicas.iter().map(|_| AtomicI64::new(0)).collect();
        let now = AtomicI64::new(state.now.as_microsecond());
        Arc::new(Self { state: Mutex::new(state), now, offsets })
    }

    /// The state. It must not be held while anything waits.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event until `end`, and the time moved to it.
    pub fn next_until(&self, end: Timestamp) -> Option<Event> {
        let mut state = self.state();
        let (at, event) = state.agenda.next_until(end)?;
        state.now = state.now.max(at);
        self.now.store(state.now.as_microsecond(), Ordering::Relaxed);
        Some(event)
    }

    /// How far a replica's clock is off.
    #[must_use]
    pub fn offset(&self, replica: usize) -> SignedDuration {
        SignedDuration::from_micros(self.offsets[replica].load(Ordering::Relaxed))
    }

    /// Sets a replica's clock.
    pub fn set_offset(&self, state: &mut State, replica: usize, by: SignedDuration) {
        self.offsets[replica].store(i64::try_from(by.as_micros()).unwrap_or(0), Ordering::Relaxed);
        let (least, most) = state.replicas[replica].clocks;
        state.replicas[replica].clocks = (least.min(by), most.max(by));
    }

    /// What a replica's clock shows.
    #[must_use]
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

    /// Waits until `at`.
    pub fn wait_until(self: &Arc<Self>, at: Timestamp) -> impl Future<Output = ()> + Send + 'static {
        Until { scene: self.clone(), at, written: false }
    }
}

impl State {
    /// How far the clocks of the replicas are apart, and have been since the beginning, at the most.
    #[must_use]
    pub fn clocks_apart(&self) -> SignedDuration {
        let clocks = || self.replicas.iter().flat_map(|replica| [replica.clocks.0, replica.clocks.1]);
        clocks().max().zip(clocks().min()).map_or(SignedDuration::ZERO, |(most, least)| most - least)
    }
}

impl Condition {
    /// Who its requests come from.
    #[must_use]
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
        if state.now >= self.at {
            return Poll::Ready(());
        }
        if !self.written {
            self.written = true;
            let task = state.polled.task;
            state.agenda.add(self.at, Event::Wake(task));
        }
        Poll::Pending
    }
}
