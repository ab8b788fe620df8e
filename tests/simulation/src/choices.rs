//! The choices that a plan leaves open. A seed or a list makes them.
//!
//! With a seed, the duration of each request is random, events are handled in the order of their times, and
//! the plan contains all faults. With a list, no request takes time by itself, so events of the same moment
//! can be handled in any order. At each choice point the first alternative is taken, unless the list names
//! another one. The caller defines the alternatives; this module only selects one, and must never change the
//! environment.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::caches::WATCH_COMBINATIONS;
use crate::environment::{START, State};
use crate::explore::bounds::{Bounds, Limit};
use crate::explore::injected_fault::{FaultPoint, InjectedFault};

/// The source of the choices of a run.
#[derive(Debug)]
pub enum Choices {
    /// A random generator.
    Seeded(fastrand::Rng),
    /// A list of choices.
    Listed(Box<Listed>),
}

/// One choice: at the choice point with this number, the alternative with this number. The first alternative
/// has the number 0, and is never listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    /// The number of the choice point, counted from the start of the run.
    pub point: u32,
    /// The number of the alternative.
    pub alternative: u32,
}

/// A list of choices, and the alternatives that were offered so far.
#[derive(Debug)]
pub struct Listed {
    bounds: Arc<Bounds>,
    list: Vec<Choice>,
    /// The number of choices of the list that have been made.
    made: usize,
    /// The number of choice points so far.
    points: u32,
    /// The alternatives after the last choice of the list, each with the limit that it counts towards.
    offered: Vec<(Choice, Limit)>,
}

impl Choices {
    /// Returns the choices of a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self::Seeded(fastrand::Rng::with_seed(seed))
    }

    /// Returns choices from a list, with alternatives within these bounds.
    pub fn from_list(bounds: Arc<Bounds>, list: Vec<Choice>) -> Self {
        Self::Listed(Box::new(Listed { bounds, list, made: 0, points: 0, offered: Vec::new() }))
    }

    /// Returns choices without alternatives: no request takes time, and none fails.
    pub fn none() -> Self {
        let bounds = Bounds {
            orders: 0,
            max_faults: 0,
            early_operations: 0,
            choices: 0,
            faults: &[],
            window: SignedDuration::ZERO,
        };
        Self::from_list(Arc::new(bounds), Vec::new())
    }

    /// Returns a duration within this range of microseconds; zero with a list.
    pub fn duration(&mut self, micros: Range<u64>) -> SignedDuration {
        match self {
            Self::Seeded(rng) => {
                SignedDuration::from_micros(i64::try_from(rng.u64(micros)).unwrap_or_default())
            }
            Self::Listed(_) => SignedDuration::ZERO,
        }
    }

    /// Returns the wait for a permit of the rate limiter: mostly zero.
    pub fn wait_for_permit(&mut self) -> SignedDuration {
        match self {
            Self::Seeded(rng) => {
                let is_waiting = rng.u8(0..20) == 0;
                SignedDuration::from_secs(if is_waiting { rng.i64(1..40) } else { 0 })
            }
            Self::Listed(_) => SignedDuration::ZERO,
        }
    }

    /// Returns the time for which an API server stays outdated.
    pub fn outdated_duration(&mut self, seconds: Range<i64>) -> SignedDuration {
        match self {
            Self::Seeded(rng) => SignedDuration::from_secs(rng.i64(seconds)),
            Self::Listed(_) => SignedDuration::from_secs(seconds.start),
        }
    }

    /// Returns one of two equally likely alternatives.
    pub fn coin(&mut self) -> bool {
        match self {
            Self::Seeded(rng) => rng.bool(),
            Self::Listed(_) => true,
        }
    }

    /// Returns a combination of watches, as bits; all watches with a list.
    pub fn watches(&mut self) -> u8 {
        match self {
            Self::Seeded(rng) => rng.u8(1..WATCH_COMBINATIONS),
            Self::Listed(_) => WATCH_COMBINATIONS - 1,
        }
    }

    /// Returns the list, if a list makes the choices.
    pub fn list(&self) -> Option<&Listed> {
        match self {
            Self::Seeded(_) => None,
            Self::Listed(listed) => Some(listed),
        }
    }
}

impl Listed {
    /// Selects the first alternative, 0, or one of the others, each of which counts towards a limit.
    pub fn select(&mut self, now: Timestamp, others: impl IntoIterator<Item = Limit>) -> usize {
        let mut others = others.into_iter().zip(1..).peekable();
        if self.is_over(now) || others.peek().is_none() {
            return 0;
        }
        let point = self.points;
        self.points += 1;
        match self.list.get(self.made) {
            None => {
                let offers = others.map(|(limit, alternative)| (Choice { point, alternative }, limit));
                self.offered.extend(offers);
                0
            }
            Some(next) if next.point == point => {
                self.made += 1;
                let is_offered = others.any(|(_, alternative)| alternative == next.alternative);
                if is_offered { next.alternative as usize } else { 0 }
            }
            Some(_) => 0,
        }
    }

    /// Selects no fault, or one of those that the bounds allow at this point.
    fn fault(&mut self, now: Timestamp, fault_point: FaultPoint) -> Option<InjectedFault> {
        let bounds = self.bounds.clone();
        let possible = || bounds.faults.iter().filter(|fault| fault.is_possible_at(fault_point));
        let selected = self.select(now, possible().map(|_| Limit::Faults));
        possible().nth(selected.checked_sub(1)?).copied()
    }

    /// Returns whether there are no more choice points.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(START) >= self.bounds.window
    }

    /// Returns whether every choice of the list has been made.
    pub fn is_done(&self) -> bool {
        self.made == self.list.len()
    }

    /// Returns the number of choice points so far.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Returns the alternatives after the last choice of the list.
    pub fn offered(&self) -> &[(Choice, Limit)] {
        &self.offered
    }
}

impl State {
    /// Returns the fault that was selected for this point. A seed selects none: its plan has the faults.
    pub(crate) fn injected_fault(&mut self, fault_point: FaultPoint) -> Option<InjectedFault> {
        let Choices::Listed(listed) = &mut self.choices else { return None };
        let now = self.now;
        let fault = listed.fault(now, fault_point)?;
        let point = listed.points - 1;
        if let Some(kind) = fault.kind() {
            self.statistics.count(kind);
        }
        self.trace.record(now, || format!("-> choice {point}: {fault:?} at {fault_point:?}"));
        Some(fault)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.point, self.alternative)
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (point, alternative) = text.split_once(':')?;
            Some(Self { point: point.parse().ok()?, alternative: alternative.parse().ok()? })
        };
        read().ok_or_else(|| format!("{text:?} is not POINT:ALTERNATIVE"))
    }
}
