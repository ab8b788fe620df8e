//! The check itself: runs the checker, counts what was reached, and tells a counterexample as a story.
//!
//! What is counted changes nothing: it only proves that the interesting situations were among those explored.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};
use stream_encryption_api::condition::Reason;

use crate::bounds::Bounds;
use crate::flaw::Flaw;
use crate::promise::EVERY_PROMISE;
use crate::protocol::{Act, Protocol};
use crate::world::World;

/// What cannot be seen in one world, only while it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A write met a ledger that somebody else had written.
    Conflict,
    /// The resource had changed when it was read again before a call.
    ResourceChanged,
    /// A replica ended between the reservation and the call.
    CrashBeforeSending,
    /// A replica was paused between the reservation and the call, and did not send it.
    NotSent,
    /// A look resolved a call whose outcome was never recorded.
    AdoptedPending,
    /// A look resolved a call that had no answer.
    AdoptedUnknown,
}

/// All of them.
pub const EVERY_EVENT: &[Event] = &[
    Event::Conflict,
    Event::ResourceChanged,
    Event::CrashBeforeSending,
    Event::NotSent,
    Event::AdoptedPending,
    Event::AdoptedUnknown,
];

/// How often something happened.
#[derive(Debug)]
pub struct Tally {
    events: [AtomicU64; 6],
    reasons: Vec<AtomicU64>,
}

impl Default for Tally {
    fn default() -> Self {
        let reasons = Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { events: Default::default(), reasons }
    }
}

impl Tally {
    pub(crate) fn event(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reason(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|one| *one == reason) {
            self.reasons[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// Different worlds.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The longest of the shortest ways to a world.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What was broken, and how.
    pub broken: Vec<(String, Story)>,
    /// What ought to be reachable, and was not.
    pub unreached: Vec<String>,
    /// How often each decision was made.
    pub reasons: Vec<(Reason, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, took, broken, unreached, reasons } = self;
        let seconds = took.as_secs_f64();
        writeln!(f, "{states} states, {steps} steps between them, {depth} deep, in {seconds:.1} s")?;
        writeln!(f, "  decided: {reasons:?}")?;
        if !unreached.is_empty() {
            writeln!(f, "  never: {unreached:?}")?;
        }
        broken.iter().try_for_each(|(promise, story)| {
            writeln!(f, "  {promise}: broken in {} steps\n{}", story.steps, story.text)
        })
    }
}

/// A way to a world.
#[derive(Debug)]
pub struct Story {
    /// How many steps it has.
    pub steps: usize,
    /// One line for each.
    pub text: String,
}

/// Explores everything within the bounds, and holds the product to all promises.
#[must_use]
pub fn check(bounds: Bounds, threads: usize) -> Report {
    explore(Protocol::new(bounds, None, EVERY_PROMISE), threads)
}

/// Looks for the shortest story in which a wrong operator breaks its promise. With one thread, that is the first found.
#[must_use]
pub fn check_flaw(flaw: Flaw) -> Report {
    let (bounds, promise) = flaw.bounds();
    explore(Protocol::new(bounds, Some(flaw), promise), 1)
}

/// Holds the product to the same promise within the same bounds.
#[must_use]
pub fn check_without(flaw: Flaw) -> Report {
    let (bounds, promise) = flaw.bounds();
    explore(Protocol::new(bounds, None, promise), 1)
}

fn explore(model: Protocol, threads: usize) -> Report {
    let begin = Instant::now();
    let checker =
        model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let took = begin.elapsed();
    let mut broken = Vec::new();
    let mut unreached = Vec::new();
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match (found, property.expectation.discovery_is_failure()) {
            (Some(path), true) => broken.push((property.name.to_owned(), told(path.into_vec()))),
            (None, false) => unreached.push(property.name.to_owned()),
            (Some(_), false) | (None, true) => {}
        }
    }
    let tally = &checker.model().operator.tally;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let never = EVERY_EVENT.iter().filter(|event| count(&tally.events[**event as usize]) == 0);
    unreached.extend(never.map(|event| format!("{event:?}")));
    let reasons = Reason::ALL.iter().copied().zip(tally.reasons.iter().map(count));
    let reasons = reasons.filter(|(_, times)| *times > 0).collect();
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    Report { states, steps, depth, took, broken, unreached, reasons }
}

fn told(path: Vec<(World, Option<Act>)>) -> Story {
    let mut text = String::new();
    let mut steps = 0;
    let begin = path.first().map(|(world, _)| world.now);
    for (world, act) in path {
        let Some(act) = act else {
            let _ = writeln!(text, "  so {}", brief(&world));
            break;
        };
        steps += 1;
        let since = begin.map_or(0, |begin| world.now.duration_since(begin).as_secs());
        let (hours, minutes, seconds) = (since / 3600, since / 60 % 60, since % 60);
        let _ = writeln!(text, "  {steps:>3}. {hours:02}:{minutes:02}:{seconds:02} {}", line(&world, act));
    }
    Story { steps, text }
}

fn line(world: &World, act: Act) -> String {
    let name = |replica: usize| ["replica A", "replica B"][replica];
    let sent = |request: usize| {
        let call = world.wire.get(request);
        call.map_or(String::new(), |call| format!("the request for {:?} ({})", call.to, call.id))
    };
    match act {
        Act::Open { replica, lagging: false } => format!("{} reads the ledger", name(replica)),
        Act::Open { replica, lagging: true } => {
            format!("{} reads the ledger, with an old resource from its cache", name(replica))
        }
        Act::Step { replica } => format!("{} {}", name(replica), doing(world, replica)),
        Act::LookAtThePast { replica } => {
            format!("{} looks, and AWS shows what was: {:?}", name(replica), world.aws.before)
        }
        Act::Crash { replica } => format!("{} crashes", name(replica)),
        Act::TimesOut { replica } => format!("{} stops waiting for an answer", name(replica)),
        Act::Arrives { request } => format!("{} arrives at AWS", sent(request)),
        Act::ArrivesUnheard { request } => {
            format!("{} arrives at AWS, and the answer is lost", sent(request))
        }
        Act::MeetsTheLimit { request } => format!("{} is refused: LimitExceeded", sent(request)),
        Act::Finishes => "AWS is done".to_owned(),
        Act::Fails => "AWS fails to change the stream".to_owned(),
        Act::Outside(to) => format!("somebody else asks AWS for {to:?}"),
        Act::Wishes(wish) => format!("the user asks for {wish:?}"),
        Act::Pause => "a short time passes".to_owned(),
        Act::Moment => "time passes to the next moment at which something ends".to_owned(),
    }
}

fn doing(world: &World, replica: usize) -> String {
    use crate::world::At;
    let Some(visit) = &world.replicas[replica] else { return String::new() };
    match visit.at {
        At::Opened => format!("looks: {:?} in force, {:?}", world.aws.view.active_key, world.aws.view.phase),
        At::Learned => "reads the resource again, before it writes what it has learned".to_owned(),
        At::Confirmed => "writes what it has learned".to_owned(),
        At::Decided => "has decided to call, and reads the resource again".to_owned(),
        At::Checked => "reserves the call in the ledger".to_owned(),
        At::Reserved => "sends the call".to_owned(),
        At::Waiting => "waits".to_owned(),
        At::Answered(heard) => format!("records what it heard: {heard:?}"),
    }
}

fn brief(world: &World) -> String {
    let World { aws, wire, ledger, broken, .. } = world;
    let calls: Vec<String> = ledger
        .iter()
        .flat_map(|ledger| &ledger.calls)
        .map(|call| format!("{} {:?}", call.id, call.outcome))
        .collect();
    let log: Vec<String> = aws.log.iter().map(|call| format!("{} at {}", call.id, call.at)).collect();
    format!(
        "{broken:?} is broken: AWS has counted {log:?}, {} on their way, and the ledger holds {calls:?}",
        wire.len()
    )
}
