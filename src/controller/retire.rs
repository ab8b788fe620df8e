//! Retires ledgers: a ledger is deleted only when its owner is gone and none of its calls counts any more.
//!
//! Deleting one too early would make the operator forget calls that AWS still counts, so every doubt keeps it. The operator's
//! own clock is such a doubt: AWS, which refuses a request that is dated wrongly, has to have answered one just now.

use jiff::Timestamp;
use tracing::{info, warn};

use super::book::is_gone;
use super::context::Operator;
use super::records::{RecordError, Records};
use crate::api::ledger::StreamLedgerSpec;
use crate::aws::Streams;
use crate::model::ledger::counts_until;

/// Looks at every ledger once, and tells how many were retired.
pub async fn retire<A: Streams, R: Records>(operator: &Operator<A, R>) -> Result<usize, RecordError> {
    let mut retired = 0;
    for ledger in operator.records.ledgers().await? {
        let now = operator.clock.now();
        if counts(&ledger.spec, now) {
            continue;
        }
        match is_gone(&operator.records, &ledger.spec.owner).await {
            Ok(true) => {}
            Ok(false) => continue,
            // An owner that was written by hand may be one that nobody can look up: the others are looked at all the same.
            Err(error) => {
                warn!(stream = ledger.spec.stream_arn, %error, "the owner of a ledger could not be looked up");
                continue;
            }
        }
        // The clock may have been set while AWS was asked.
        if !is_right(operator, &ledger.spec).await || counts(&ledger.spec, operator.clock.now()) {
            continue;
        }
        match operator.records.delete_ledger(&ledger).await {
            Ok(()) => {
                info!(
                    stream = ledger.spec.stream_arn,
                    "retired the ledger of a stream that nobody asks for any more"
                );
                retired += 1;
            }
            // Somebody has just claimed it.
            Err(RecordError::Conflict) => {}
            Err(error) => warn!(stream = ledger.spec.stream_arn, %error, "a ledger could not be retired"),
        }
    }
    Ok(retired)
}

/// Whether AWS still counts a call of the ledger, if this is the time.
fn counts(ledger: &StreamLedgerSpec, now: Timestamp) -> bool {
    ledger.calls.iter().any(|call| counts_until(call) > now)
}

/// Whether AWS accepts the operator's clock. A ledger without calls needs no clock. The stream is not looked at: nobody asks
/// for it any more, so there is nobody as whom to look.
async fn is_right<A: Streams, R: Records>(operator: &Operator<A, R>, ledger: &StreamLedgerSpec) -> bool {
    ledger.calls.is_empty() || operator.aws.answers().await.is_ok()
}
