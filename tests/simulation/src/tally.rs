//! What is counted over many runs: faults by kind, rows of the decision, visits, calls and time. It never decides anything.

use std::cell::RefCell;
use std::collections::BTreeMap;

use stream_encryption_operator::api::condition::Reason;
use stream_encryption_operator::api::ledger::Action;
use stream_encryption_operator::model::decision::{Decision, Input, Step, decide};

/// A row of the decision, as far as one can tell it apart from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// What is done.
    pub step: Done,
    /// What is said.
    pub reason: Reason,
    /// Whether it waits for a time at which it will call.
    pub until: bool,
}

/// What is done, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Done {
    /// Looks.
    Look,
    /// Rests.
    Rest,
    /// Calls Start.
    Start,
    /// Calls Start, or Stop, against what somebody else did.
    Correct,
    /// Calls Stop.
    Stop,
    /// Writes a record.
    Verify,
    /// Lets the resource go.
    Release,
}

/// Counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Faults and other happenings, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each row of the decision was reached.
    pub rows: BTreeMap<Row, u64>,
    /// Visits.
    pub visits: u64,
    /// Looks.
    pub looks: u64,
    /// Starts and Stops that were sent.
    pub calls: u64,
    /// Lives of processes beyond the first.
    pub restarts: u64,
    /// Resources that were as asked for at the end.
    pub converged: u64,
    /// Resources that could not be, and said why.
    pub blocked: u64,
    /// Runs.
    pub runs: u64,
    /// Simulated seconds.
    pub seconds: u64,
}

thread_local! {
    static ROWS: RefCell<BTreeMap<Row, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// The real decision, and a note of the row that was reached.
#[must_use]
pub fn noted(input: &Input<'_>) -> Decision {
    let decision = decide(input);
    note(&decision);
    decision
}

/// Notes the row of a decision.
pub fn note(decision: &Decision) {
    let step = match &decision.step {
        Step::Look => Done::Look,
        Step::Rest => Done::Rest,
        Step::Call(call) if call.correction => Done::Correct,
        Step::Call(call) if call.target.action == Action::Start => Done::Start,
        Step::Call(_) => Done::Stop,
        Step::Verify => Done::Verify,
        Step::Release => Done::Release,
    };
    let row = Row { step, reason: decision.reason, until: decision.next_attempt.is_some() };
    ROWS.with_borrow_mut(|rows| *rows.entry(row).or_default() += 1);
}

impl Tally {
    /// Counts one fault or happening.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Takes over the rows that were noted on this thread since the last time.
    pub fn take_rows(&mut self) {
        ROWS.with_borrow_mut(|rows| {
            for (row, count) in std::mem::take(rows) {
                *self.rows.entry(row).or_default() += count;
            }
        });
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Tally) {
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (row, count) in &other.rows {
            *self.rows.entry(*row).or_default() += count;
        }
        self.visits += other.visits;
        self.looks += other.looks;
        self.calls += other.calls;
        self.restarts += other.restarts;
        self.converged += other.converged;
        self.blocked += other.blocked;
        self.runs += other.runs;
        self.seconds += other.seconds;
    }
}
