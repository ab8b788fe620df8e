//! Retires ledgers: a ledger is deleted only when its owner is gone and none of its calls counts any more.
//!
//! Deleting one too early would make the operator forget calls that AWS still counts, so every doubt keeps it.

use tracing::{info, warn};

use super::book::is_gone;
use super::context::Operator;
use super::records::{RecordError, Records};
use crate::aws::Streams;
use crate::model::ledger::counts_until;

/// Looks at every ledger once, and tells how many were retired.
pub async fn retire<A: Streams, R: Records>(operator: &Operator<A, R>) -> Result<usize, RecordError> {
    let now = operator.clock.now();
    let mut retired = 0;
    for ledger in operator.records.ledgers().await? {
        let counts = ledger.spec.calls.iter().any(|call| counts_until(call) > now);
        if counts || !is_gone(&operator.records, &ledger.spec.owner).await? {
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
