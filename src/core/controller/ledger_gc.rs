//! Garbage collection of ledgers: a ledger is deleted only if its owner no longer exists, no later resource with the owner's
//! name requests the ledger's stream, and none of its calls counts any more.
//!
//! If a ledger were deleted too early, calls that AWS still counts would be lost, so a ledger is kept in
//! every case of doubt. Its owner is always read from the API server before the deletion, and the deletion names the
//! version that was checked, so a ledger from a cache that lags is not deleted. The operator's clock may be wrong, too. So
//! before the deletion of a ledger with calls, AWS must have accepted a request that is dated by this clock.
//!
//! There may be a hundred thousand ledgers, and almost all of their owners exist. So only one page of ledgers is in
//! memory at a time. An owner that a current cache holds is not looked up. An owner that another operator manages is
//! looked up once a day.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamReference};
use tracing::{info, warn};

use super::context::Context;
use super::kube_api::{KubeApi, KubeError, ReadFrom};
use super::ledger_store::{is_gone, is_owner};
use super::stream_api::StreamApi;
use crate::model::arn::StreamArn;
use crate::model::ledger::{expires_at, external};

/// Time during which a ledger is not checked again after the API server has returned its owner, or has not responded to a
/// request about it. The ledger is deleted later by at most this time.
const CHECK_INTERVAL: Duration = Duration::from_hours(24);

/// A cleanup ends after this many unanswered requests. An answered deletion sets their number to zero, and so does an
/// answered lookup after which the ledger is kept. A lookup that finds no owner does not: the deletion that follows may
/// fail.
const MAX_UNANSWERED: usize = 3;

/// The cleanup of ledgers, with its memory of the ledgers that need not be checked again yet.
#[derive(Default)]
pub struct LedgerGc {
    /// The monotonic time of the next check, by the name of the ledger. There are two kinds of such ledgers:
    ///
    /// - The owner exists although no cache holds it: another operator, which watches other labels, manages it. Or a new
    ///   resource under its name may take the ledger over.
    /// - The API server did not respond. If it never responds about some ledgers, for example because of a webhook, then
    ///   the next cleanup reaches the others.
    next_checks: HashMap<String, Duration>,
}

impl LedgerGc {
    /// Checks every ledger once, deletes the expired ones, and returns their number.
    ///
    /// # Errors
    /// The API server does not respond to a list or to several other requests in succession, or refuses to list the
    /// ledgers. The remaining ledgers are then not checked, because a request for each of them could wait until its
    /// deadline. They are not checked either if AWS does not confirm the clock, which is not an error.
    pub async fn collect_expired<A: StreamApi, R: KubeApi>(
        &mut self,
        context: &Context<A, R>,
    ) -> Result<usize, KubeError> {
        let now = context.clock.monotonic();
        self.next_checks.retain(|_, next| *next > now);
        let (mut deleted, mut unanswered, mut after) = (0, 0, None);
        loop {
            let page = context.kube.ledgers(after.as_deref()).await?;
            for ledger in page.ledgers {
                match self.is_expired(context, &ledger, &mut unanswered).await {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(error) => {
                        self.postpone(context, &ledger);
                        tolerate(&mut unanswered, error)?;
                        continue;
                    }
                }
                if !is_clock_confirmed(context, &ledger.spec).await {
                    warn!("failed to verify the clock with AWS, keeping the remaining expired ledgers");
                    return Ok(deleted);
                }
                // The clock may have been set during the request to AWS.
                if any_call_counts(&ledger.spec, context.clock.now()) {
                    continue;
                }
                match delete(context, &ledger).await {
                    Ok(is_deleted) => {
                        unanswered = 0;
                        deleted += usize::from(is_deleted);
                    }
                    Err(error) => {
                        self.postpone(context, &ledger);
                        tolerate(&mut unanswered, error)?;
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(deleted);
            }
        }
    }

    /// Returns whether a ledger has no call that counts, and no owner. Sets `unanswered` to zero if a response of the API
    /// server is why the ledger is kept. If the owner is gone, the response to the deletion decides.
    async fn is_expired<A: StreamApi, R: KubeApi>(
        &mut self,
        context: &Context<A, R>,
        ledger: &StreamLedger,
        unanswered: &mut usize,
    ) -> Result<bool, KubeError> {
        let owner = &ledger.spec.owner;
        if any_call_counts(&ledger.spec, context.clock.now())
            || self.next_checks.contains_key(name_of(ledger))
            || is_cached(&context.kube, owner).await
        {
            return Ok(false);
        }
        match context.kube.resource(&owner.namespace, &owner.name, ReadFrom::ApiServer).await {
            Ok(Some(found)) if is_owner(&found, owner) || names_stream(&found, &ledger.spec) => {
                *unanswered = 0;
                self.postpone(context, ledger);
                Ok(false)
            }
            Ok(_) => Ok(true),
            // An owner that was written by hand may be impossible to look up; the other ledgers are still
            // checked.
            Err(error @ (KubeError::Rejected(_) | KubeError::Conflict)) => {
                *unanswered = 0;
                warn!(stream = ledger.spec.stream_arn, %error, "failed to look up the owner of a ledger");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Excludes a ledger from the checks for [`CHECK_INTERVAL`].
    fn postpone<A, R>(&mut self, context: &Context<A, R>, ledger: &StreamLedger) {
        self.next_checks.insert(name_of(ledger).to_owned(), context.clock.monotonic() + CHECK_INTERVAL);
    }
}

fn name_of(ledger: &StreamLedger) -> &str {
    ledger.metadata.name.as_deref().unwrap_or_default()
}

/// Logs a request that the API server did not answer. Returns the error after [`MAX_UNANSWERED`]: the API server itself, or
/// a webhook for all deletions, is unavailable then. The requests about one ledger may fail for ever, for example because
/// of a webhook. They must not prevent the cleanup of the other ledgers.
fn tolerate(unanswered: &mut usize, error: KubeError) -> Result<(), KubeError> {
    *unanswered += 1;
    if *unanswered >= MAX_UNANSWERED {
        return Err(error);
    }
    warn!(%error, "no response about a ledger, keeping it");
    Ok(())
}

/// Deletes a ledger. Returns whether it was deleted.
async fn delete<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    ledger: &StreamLedger,
) -> Result<bool, KubeError> {
    match context.kube.delete_ledger(ledger).await {
        Ok(()) => {
            info!(stream = ledger.spec.stream_arn, "expired ledger deleted");
            Ok(true)
        }
        // A resource has just claimed the ledger, or somebody else has deleted it, or it was read from a cache that lags.
        Err(KubeError::Conflict) => Ok(false),
        Err(error @ KubeError::Rejected(_)) => {
            warn!(stream = ledger.spec.stream_arn, %error, "failed to delete an expired ledger");
            Ok(false)
        }
        Err(error @ KubeError::Unavailable(_)) => Err(error),
    }
}

/// Returns whether the cache holds the owner. A cache that lags only delays a deletion. While the cache cannot be read, for
/// example because its watch has failed, the API server is asked instead.
async fn is_cached<R: KubeApi>(kube: &R, owner: &Owner) -> bool {
    is_gone(kube, owner, ReadFrom::Cache).await == Ok(false)
}

/// Returns whether the resource names the stream of a ledger. A resource that was restored from a backup has a new uid, and its
/// next reconcile takes the ledger over if policies allow it. A name without a region is taken for a name in any region.
fn names_stream(resource: &StreamEncryption, ledger: &StreamLedgerSpec) -> bool {
    let StreamReference { arn, service, name, region } = &resource.spec.stream;
    if arn.is_some() {
        return arn.as_ref() == Some(&ledger.stream_arn);
    }
    let Ok(stream) = ledger.stream_arn.parse::<StreamArn>() else { return false };
    *service == Some(stream.service)
        && name.as_deref() == Some(stream.name())
        && region.as_deref().is_none_or(|region| region == stream.region.as_str())
}

/// Returns whether AWS still counts a call of the ledger at `now`.
fn any_call_counts(ledger: &StreamLedgerSpec, now: Timestamp) -> bool {
    ledger.calls.iter().any(|call| expires_at(call) > now)
        || ledger.external_calls.iter().any(|call| external::expires_at(call) > now)
}

/// Returns whether AWS accepts the operator's clock. A ledger without calls requires no check. The stream is
/// not described: no resource requests the stream any more, so there is no principal for a Describe.
async fn is_clock_confirmed<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    ledger: &StreamLedgerSpec,
) -> bool {
    (ledger.calls.is_empty() && ledger.external_calls.is_empty()) || context.aws.verify_clock().await.is_ok()
}
