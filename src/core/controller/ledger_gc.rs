//! Garbage collection of ledgers: a ledger is deleted only if its owner no longer exists and none of its
//! calls counts any more.
//!
//! If a ledger were deleted too early, calls that AWS still counts would be lost, so a ledger is kept in
//! every case of doubt. The operator's clock may be wrong, too. So before the deletion of a ledger with
//! calls, AWS must have accepted a request that is dated by this clock.

use jiff::Timestamp;
use stream_encryption_api::ledger::{Owner, StreamLedgerSpec};
use tracing::{info, warn};

use super::context::Context;
use super::kube_api::{KubeApi, KubeError, ReadFrom};
use super::ledger_store::is_gone;
use super::stream_api::StreamApi;
use crate::model::ledger::{expires_at, external};

/// Checks every ledger once, deletes the expired ones, and returns their number.
pub async fn collect_expired<A: StreamApi, R: KubeApi>(context: &Context<A, R>) -> Result<usize, KubeError> {
    let mut retired = 0;
    for ledger in context.kube.ledgers().await? {
        let now = context.clock.now();
        if any_call_counts(&ledger.spec, now) {
            continue;
        }
        if is_cached(&context.kube, &ledger.spec.owner).await {
            continue;
        }
        match is_gone(&context.kube, &ledger.spec.owner).await {
            Ok(true) => {}
            Ok(false) => continue,
            // An owner that was written by hand may be impossible to look up; the other ledgers are still
            // checked.
            Err(error) => {
                warn!(stream = ledger.spec.stream_arn, %error, "failed to look up the owner of a ledger");
                continue;
            }
        }
        // The clock may have been set during the request to AWS.
        if !clock_is_right(context, &ledger.spec).await || any_call_counts(&ledger.spec, context.clock.now())
        {
            continue;
        }
        match context.kube.delete_ledger(&ledger).await {
            Ok(()) => {
                info!(stream = ledger.spec.stream_arn, "expired ledger deleted");
                retired += 1;
            }
            // A resource has just claimed the ledger.
            Err(KubeError::Conflict) => {}
            Err(error) => {
                warn!(stream = ledger.spec.stream_arn, %error, "failed to delete an expired ledger");
            }
        }
    }
    Ok(retired)
}

/// Returns whether the cache holds the owner. A cache that lags only delays a deletion, and in a fleet almost every ledger
/// has an owner: the API server is asked only about the others.
async fn is_cached<R: KubeApi>(kube: &R, owner: &Owner) -> bool {
    let cached = kube.resource(&owner.namespace, &owner.name, ReadFrom::Cache).await;
    matches!(cached, Ok(Some(resource)) if resource.metadata.uid.as_deref() == Some(&owner.uid))
}

/// Returns whether AWS still counts a call of the ledger at `now`.
fn any_call_counts(ledger: &StreamLedgerSpec, now: Timestamp) -> bool {
    ledger.calls.iter().any(|call| expires_at(call) > now)
        || ledger.external_calls.iter().any(|call| external::expires_at(call) > now)
}

/// Returns whether AWS accepts the operator's clock. A ledger without calls requires no check. The stream is
/// not described: no resource requests the stream any more, so there is no principal for a Describe.
async fn clock_is_right<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    ledger: &StreamLedgerSpec,
) -> bool {
    (ledger.calls.is_empty() && ledger.external_calls.is_empty()) || context.aws.verify_clock().await.is_ok()
}
