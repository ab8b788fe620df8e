//! Wrong operators: each does one thing otherwise than the product, to prove that the check would find it.
//!
//! They live in the test tree only. A flaw wraps what goes into or comes out of the product's functions, or changes the
//! order of a replica's steps; the product has no switches.

use stream_encryption_operator::api::ledger::{Outcome, StreamLedgerSpec};
use stream_encryption_operator::model::decision::{Decision, Input, Step, decide};
use stream_encryption_operator::model::ledger::{DAY, Reservation, later};

use crate::names::Wish;
use crate::promise::Promise;

/// One thing done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The ledger is written whatever is stored by now.
    NoCompareAndSwap,
    /// A call without an answer is taken back.
    RefundOfUnknownCalls,
    /// A call counts for 24 hours from its reservation, however late it arrived.
    SharpWindow,
    /// The stream is looked at before the ledger is read.
    LookOlderThanLedger,
    /// The call is sent, then reserved.
    SendBeforeReserve,
    /// A call without an outcome is tried again at once.
    NoWaitForLateCalls,
    /// The resource is not read again before the call.
    NoLiveReadOfTheResource,
    /// A call without an answer is sent again, as an SDK does by itself.
    SentTwice,
    /// ENABLING is taken for ENABLED.
    EnablingTakenForEnabled,
    /// The old key is turned off before the new one is turned on.
    StopBeforeReKey,
    /// What AWS refuses for the limit is never tried again.
    GivesUpAtTheLimit,
}

/// All of them, with the promise that each breaks.
pub const EVERY_FLAW: &[(Flaw, Promise)] = &[
    (Flaw::NoCompareAndSwap, Promise::OneOpenCall),
    (Flaw::RefundOfUnknownCalls, Promise::Limit),
    (Flaw::SharpWindow, Promise::Limit),
    (Flaw::LookOlderThanLedger, Promise::OneOpenCall),
    (Flaw::SendBeforeReserve, Promise::WriteAhead),
    (Flaw::NoWaitForLateCalls, Promise::OneOpenCall),
    (Flaw::NoLiveReadOfTheResource, Promise::NoStop),
    (Flaw::SentTwice, Promise::Limit),
    (Flaw::EnablingTakenForEnabled, Promise::Truth),
    (Flaw::StopBeforeReKey, Promise::NoStop),
    (Flaw::GivesUpAtTheLimit, Promise::Rest),
];

/// The product's decision, or what a wrong operator makes of it.
pub(crate) fn decided(flaw: Option<Flaw>, input: &Input<'_>) -> Decision {
    let with = |ledger: &StreamLedgerSpec| decide(&Input { ledger, ..input.clone() });
    let mut believed = input.ledger.clone();
    match flaw {
        Some(Flaw::SharpWindow) => {
            believed.calls.retain(|call| later(call.at(), DAY) > input.now);
            with(&believed)
        }
        Some(Flaw::NoWaitForLateCalls) => {
            for call in &mut believed.calls {
                if matches!(call.outcome, Outcome::Pending | Outcome::Unknown) {
                    call.outcome = Outcome::Refused;
                }
            }
            believed.attempts = None;
            with(&believed)
        }
        Some(Flaw::StopBeforeReKey) => stop_first(input),
        Some(Flaw::GivesUpAtTheLimit) => give_up(input),
        _ => decide(input),
    }
}

fn stop_first(input: &Input<'_>) -> Decision {
    let mut decision = decide(input);
    let encrypted = input.ledger.in_force.as_ref().is_some_and(|known| known.key.is_some());
    if let (Step::Call(call), true) = (&mut decision.step, encrypted) {
        call.target = Reservation { target: stop(), ..call.clone() }.target;
    }
    decision
}

fn stop() -> stream_encryption_operator::api::ledger::Target {
    Wish::Off.intent().wanted.target().expect("plain text can be asked for")
}

fn give_up(input: &Input<'_>) -> Decision {
    let decision = decide(input);
    let reason = input.ledger.attempts.as_ref().and_then(|attempts| attempts.reason.as_deref());
    if reason == Some("CallLimitReached") { Decision { step: Step::Rest, ..decision } } else { decision }
}
