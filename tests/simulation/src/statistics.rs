//! Statistics over many runs: faults by kind, rows of the decision, reconciles, calls and time. They never
//! affect a decision.

use std::cell::RefCell;
use std::collections::BTreeMap;

use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;
use stream_encryption_core::model::decision::{Decision, DecisionInput, Step, decide};

/// A row of the decision, as far as its result identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionRow {
    pub step: StepKind,
    /// The reason in the status.
    pub reason: Reason,
    /// Whether it waits for a time at which it will make a call.
    pub has_next_attempt: bool,
}

/// The step of a decision, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// Describes the stream.
    Describe,
    Wait,
    /// Calls Start.
    Start,
    /// Calls Start or Stop to correct drift.
    Correct,
    /// Calls Stop.
    Stop,
    /// Writes a test record.
    Verify,
    RemoveFinalizer,
}

/// The statistics.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Faults and other events, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The number of times that each row of the decision was reached.
    pub rows: BTreeMap<DecisionRow, u64>,
    /// The number of reconciles.
    pub reconciles: u64,
    /// The number of Describes.
    pub describes: u64,
    /// The number of Starts and Stops that were sent.
    pub calls: u64,
    /// The number of restarts of processes.
    pub restarts: u64,
    /// The number of resources that match their spec at the end.
    pub converged: u64,
    /// The number of resources that could not match their spec, and reported why.
    pub blocked: u64,
    /// The number of runs.
    pub runs: u64,
    /// The number of simulated seconds.
    pub seconds: u64,
}

thread_local! {
    static ROWS: RefCell<BTreeMap<DecisionRow, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Runs the real decision, and records the row that was reached.
pub fn decide_and_record(input: &DecisionInput<'_>) -> Decision {
    let decision = decide(input);
    record_decision(&decision);
    decision
}

/// Records the row of a decision.
pub fn record_decision(decision: &Decision) {
    let step = match &decision.step {
        Step::Describe => StepKind::Describe,
        Step::Wait => StepKind::Wait,
        Step::ChangeEncryption(call) if call.correction => StepKind::Correct,
        Step::ChangeEncryption(call) if call.target.action == Action::Start => StepKind::Start,
        Step::ChangeEncryption(_) => StepKind::Stop,
        Step::Verify => StepKind::Verify,
        Step::RemoveFinalizer => StepKind::RemoveFinalizer,
    };
    let row =
        DecisionRow { step, reason: decision.reason, has_next_attempt: decision.next_attempt.is_some() };
    ROWS.with_borrow_mut(|rows| *rows.entry(row).or_default() += 1);
}

impl Statistics {
    /// Counts one fault or event.
    pub fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Adds the rows that were recorded on this thread since the last call of this function.
    pub fn collect_rows(&mut self) {
        ROWS.with_borrow_mut(|rows| {
            for (row, count) in std::mem::take(rows) {
                *self.rows.entry(row).or_default() += count;
            }
        });
    }

    /// Adds other statistics.
    pub fn add(&mut self, other: &Statistics) {
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (row, count) in &other.rows {
            *self.rows.entry(*row).or_default() += count;
        }
        self.reconciles += other.reconciles;
        self.describes += other.describes;
        self.calls += other.calls;
        self.restarts += other.restarts;
        self.converged += other.converged;
        self.blocked += other.blocked;
        self.runs += other.runs;
        self.seconds += other.seconds;
    }
}
