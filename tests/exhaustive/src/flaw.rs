//! Wrong operators: each does one thing otherwise than the product, to prove that the check would find it.
//!
//! They live in the test tree only. A flaw wraps what goes into or comes out of the product's functions, or changes the
//! order of a replica's steps; the product has no switches.

use stream_encryption_api::ledger::{Outcome, StreamLedgerSpec};
use stream_encryption_core::model::decision::{Decision, DecisionInput, Step, decide};
use stream_encryption_core::model::ledger::{DAY, saturating_add};

use crate::bounds::{Bounds, Fault};
use crate::names::{Encryption, Wish};
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

/// All of them.
pub const EVERY_FLAW: &[Flaw] = &[
    Flaw::NoCompareAndSwap,
    Flaw::RefundOfUnknownCalls,
    Flaw::SharpWindow,
    Flaw::LookOlderThanLedger,
    Flaw::SendBeforeReserve,
    Flaw::NoWaitForLateCalls,
    Flaw::NoLiveReadOfTheResource,
    Flaw::SentTwice,
    Flaw::EnablingTakenForEnabled,
    Flaw::StopBeforeReKey,
    Flaw::GivesUpAtTheLimit,
];

impl Flaw {
    /// Bounds that are just wide enough for the flaw to show, and the promise that it breaks.
    #[must_use]
    pub fn bounds(self) -> (Bounds, &'static [Promise]) {
        let open = &[Promise::OneOpenCall];
        let limit = &[Promise::Limit];
        match self {
            Self::NoCompareAndSwap | Self::LookOlderThanLedger => (Bounds::new(2, 0, 0, 1, 0), open),
            Self::RefundOfUnknownCalls => {
                let kinds = &[Fault::LostReply, Fault::Failure];
                (Bounds { kinds, ..Bounds::new(1, 2, 0, 2, 0) }, limit)
            }
            Self::SharpWindow => {
                let kinds = &[Fault::TimeOut, Fault::Failure];
                (Bounds { kinds, ..Bounds::new(1, 2, 0, 4, 0) }, limit)
            }
            Self::SendBeforeReserve => (Bounds::new(2, 0, 0, 0, 0), &[Promise::WriteAhead]),
            Self::NoWaitForLateCalls => {
                (Bounds { kinds: &[Fault::TimeOut], ..Bounds::new(2, 1, 0, 1, 0) }, open)
            }
            Self::NoLiveReadOfTheResource => {
                let wishes = &[Wish::Off, Wish::One];
                (
                    Bounds { found: Encryption::Foreign, wishes, ..Bounds::new(2, 0, 1, 0, 0) },
                    &[Promise::NoStop],
                )
            }
            Self::SentTwice => (Bounds { kinds: &[Fault::LostReply], ..Bounds::new(1, 1, 0, 0, 0) }, limit),
            Self::EnablingTakenForEnabled => (Bounds::new(2, 0, 0, 0, 0), &[Promise::ConditionStatus]),
            Self::StopBeforeReKey => {
                (Bounds { found: Encryption::Foreign, ..Bounds::new(2, 0, 0, 0, 0) }, &[Promise::NoStop])
            }
            Self::GivesUpAtTheLimit => {
                (Bounds { kinds: &[Fault::Refusal], ..Bounds::new(2, 1, 0, 0, 0) }, &[Promise::Rest])
            }
        }
    }
}

/// The product's decision, or what a wrong operator makes of it.
pub(crate) fn decided(flaw: Option<Flaw>, input: &DecisionInput<'_>) -> Decision {
    let with = |ledger: &StreamLedgerSpec| decide(&DecisionInput { ledger, ..input.clone() });
    let mut believed = input.ledger.clone();
    match flaw {
        Some(Flaw::SharpWindow) => {
            believed.calls.retain(|call| saturating_add(call.at(), DAY) > input.now);
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

fn stop_first(input: &DecisionInput<'_>) -> Decision {
    let mut decision = decide(input);
    let encrypted = input.ledger.known_encryption.as_ref().is_some_and(|known| known.key.is_some());
    if let (Step::ChangeEncryption(call), true) = (&mut decision.step, encrypted) {
        call.target = Wish::Off.desired().encryption.target().expect("plaintext can be asked for");
    }
    decision
}

fn give_up(input: &DecisionInput<'_>) -> Decision {
    let decision = decide(input);
    let reason = input.ledger.attempts.as_ref().and_then(|attempts| attempts.reason.as_deref());
    if reason == Some("CallLimitReached") { Decision { step: Step::Wait, ..decision } } else { decision }
}
