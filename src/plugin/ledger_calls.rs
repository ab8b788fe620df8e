//! The calls of a ledger as people see them. Pure.

use jiff::Timestamp;
use serde::Serialize;
use stream_encryption_api::ledger::{Action, Call, Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::EncryptionStatus;
use stream_encryption_core::model::ledger::{self, QUOTA_WINDOW};

use super::fleet::{Entry, key};

/// A call of the ledger.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LedgerCall {
    pub(super) time: Timestamp,
    pub(super) action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    /// Whether AWS accepted the call and reported a failure later.
    pub(super) failed: bool,
    pub(super) correction: bool,
    /// Until when the operator keeps the call in the ledger, because AWS may still count it.
    pub(super) kept_until_time: Timestamp,
}

impl LedgerCall {
    fn of(call: &Call, failed: bool) -> Self {
        Self {
            time: call.at(),
            action: call.target.action,
            key: call.target.key.as_ref().map(key),
            outcome: call.outcome,
            code: call.code.clone(),
            failed: failed && call.outcome == Outcome::Accepted,
            correction: call.correction,
            kept_until_time: ledger::saturating_add(call.at(), QUOTA_WINDOW),
        }
    }
}

/// Returns whether a ledger belongs to the resource of an entry.
pub(super) fn is_owner(ledger: &StreamLedger, entry: &Entry) -> bool {
    let owner = &ledger.spec.owner;
    owner.namespace == entry.namespace && owner.name == entry.resource
}

/// Returns the calls of a ledger, oldest first. A failure is reported with the status, or noted with the next call.
pub(super) fn of_ledger(ledger: &StreamLedger, entry: &Entry) -> Vec<LedgerCall> {
    let calls = &ledger.spec.calls;
    let fails_now = matches!(
        entry.encryption_status,
        Some(EncryptionStatus::EnablingFailed | EncryptionStatus::DisablingFailed)
    );
    let failed = |at: usize| calls.get(at + 1).map_or(fails_now, |next| next.after_failure);
    calls.iter().enumerate().map(|(at, call)| LedgerCall::of(call, failed(at))).collect()
}
