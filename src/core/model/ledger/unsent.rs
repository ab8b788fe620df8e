//! Calls that were recorded in a ledger and not sent. AWS counts none of them, and none is an attempt or a correction. Pure.

use jiff::Timestamp;
use stream_encryption_api::ledger::{Call, Outcome, StreamLedgerSpec};

use super::{DAY, saturating_add};
use crate::model::aws_error::is_unsent_code;

/// Returns the times of the corrections in the last 24 hours that the operator has sent.
#[must_use]
pub fn corrections(ledger: &StreamLedgerSpec, now: Timestamp) -> Vec<Timestamp> {
    ledger
        .calls
        .iter()
        .filter(|call| call.correction && !is_unsent(call) && saturating_add(call.at(), DAY) > now)
        .map(Call::at)
        .collect()
}

/// Returns whether the last call corrects drift and was not sent: the next one corrects the same drift.
#[must_use]
pub fn is_correction_unsent(ledger: &StreamLedgerSpec) -> bool {
    ledger.calls.last().is_some_and(|call| call.correction && is_unsent(call))
}

/// Returns the last call that the operator has sent.
#[must_use]
pub fn last_sent_call(ledger: &StreamLedgerSpec) -> Option<&Call> {
    ledger.calls.iter().rev().find(|call| !is_unsent(call))
}

/// Returns the number of calls for the last target since the last one that was sent.
pub(super) fn unsent_in_a_row(ledger: &StreamLedgerSpec) -> u32 {
    let last = ledger.calls.last();
    let is_same = |call: &&Call| is_unsent(call) && last.is_some_and(|last| last.target == call.target);
    u32::try_from(ledger.calls.iter().rev().take_while(is_same).count()).unwrap_or(u32::MAX)
}

/// Returns whether the operator did not send this call.
pub(super) fn is_unsent(call: &Call) -> bool {
    call.outcome == Outcome::Refused && call.code.as_deref().is_some_and(is_unsent_code)
}
