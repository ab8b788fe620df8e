//! One reconcile, as a table of contents: resolve, observe, decide, execute, report, requeue.
//!
//! Each step decides only what its own file states; [`crate::model::decision::decide`] makes the decision.
//! The steps reach AWS through [`StreamApi`] and Kubernetes through [`KubeApi`] only, so the same code runs
//! in the simulation. A call or a test record requires a Describe that is newer than the ledger that was
//! read. A cached description suffices for a status, but never for a call or a test record.
//!
//! The resource, the policies and the ledger come from the caches of watches. A stale cache cannot cause a
//! wrong change: immediately before a call, a test record and the removal of the finalizer, the API server is
//! asked again, and every write names the version that was read.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::StreamEncryption;
use tracing::{Instrument as _, debug, info_span, warn};

use crate::controller::stream_api::StreamApi;
use crate::model::decision::{Decision, Ownership, Step};
use crate::model::message;

mod age;
mod annotations;
mod context;
mod execute;
mod finalize;
mod interruption;
pub mod kube_api;
pub mod ledger_gc;
pub mod ledger_store;
pub mod memory;
mod observe;
mod permitted;
mod publish;
mod recheck;
mod report;
mod resolve;
mod state;
pub mod stream_api;
pub mod trigger;

use finalize::FinalizerState;
use interruption::Interruption;
use kube_api::{KubeApi, KubeError, ReadFrom};
use resolve::ResolveError;
use state::ReconcileState;

pub use context::{Clock, Config, Context, Decide, NoMetrics, ReconcileMetrics};
pub use publish::report_invalid_object;

/// Reconciles one resource once, and returns the time of the next reconcile. `cached` is the resource in the
/// cache of the watch. If this process has seen another version of it, the API server is asked instead.
///
/// Returns an error if a request to Kubernetes failed; every other problem is reported in the resource's
/// status.
pub async fn reconcile<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    cached: &StreamEncryption,
) -> Result<Timestamp, KubeError> {
    let of = ledger_store::owner(cached);
    let from = operator.memory.read_from(cached);
    let Some(resource) = &operator.records.resource(&of.namespace, &of.name, from).await? else {
        return Ok(operator.clock.now() + operator.config.drift_interval);
    };
    let span = info_span!("reconcile", namespace = of.namespace, resource = of.name);
    match reconcile_read(operator, resource, from).instrument(span).await {
        Err(Interruption::Outdated) => {
            debug!(namespace = of.namespace, name = of.name, "state changed, requeueing");
            operator.memory.forget(resource);
            operator.memory.read_again(&of.uid);
            Ok(operator.clock.now() + kube_api::AFTER_CONFLICT)
        }
        Err(Interruption::Kubernetes(error)) => Err(error),
        Ok(wake) => Ok(wake),
    }
}

/// Reconciles the resource that was read from this source, with policies and a ledger from the same source.
/// Returns [`Interruption::Outdated`] if all of them must be read again.
async fn reconcile_read<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
    from: ReadFrom,
) -> Result<Timestamp, Interruption> {
    let visit = operator.memory.recall(resource, operator.clock.now());
    if let Some(wake) = wake_after(operator, &finalize::remove_unwanted_finalizer(operator, resource).await?)
    {
        return Ok(wake);
    }
    let subject = match resolve::resolve(operator, resource, &visit, from).await? {
        Ok(subject) => subject,
        // Encryption cannot be disabled for a stream that cannot be resolved, and the stream of a resource is
        // immutable.
        Err(ResolveError::Spec(why)) if resource.metadata.deletion_timestamp.is_some() => {
            let why = format!("Invalid spec: {why}.");
            finalize::release_unchanged(operator, &resource.metadata, finalize::stream_of(resource), &why)
                .await?;
            return Ok(operator.clock.now() + operator.config.drift_interval);
        }
        Err(unresolved) => return Ok(report::unresolved(operator, resource, &visit, unresolved).await?),
    };
    if let Some(wake) = wake_after(operator, &finalize::sync_finalizer(operator, resource, &subject).await?) {
        return Ok(wake);
    }
    let known = visit.ledger.as_deref();
    let book =
        ledger_store::open(&operator.records, resource, &subject.claim(), known, from, operator.clock.now())
            .await?;
    let mut case = ReconcileState::new(operator.clock.now(), subject, book, visit, resource);

    let mut decision = (operator.decide)(&case.input());
    if decision.step == Step::Verify && decision.describe_due > case.now {
        // Not whenever something wakes the resource.
        decision.step = Step::Wait;
    }
    if matches!(decision.step, Step::Describe | Step::ChangeEncryption(_) | Step::Verify) {
        if case.visit.key.is_some() || case.visit.active_key.is_some() {
            // The cached key metadata is as old as the description, which is no longer recent enough.
            operator.memory.forget(resource);
            return Ok(operator.clock.now());
        }
        if let Err(unresolved) = observe::observe(operator, resource, &mut case).await? {
            return Ok(report::unresolved(operator, resource, &case.visit, unresolved).await?);
        }
        decision = (operator.decide)(&case.input());
    }
    let decision = match execute_plan(operator, resource, &mut case, decision).await {
        Err(Interruption::Kubernetes(KubeError::Rejected(why)))
            if case.book.ownership == Ownership::LedgerInvalid =>
        {
            warn!(stream = %case.subject.stream, why, "failed to write the ledger");
            (operator.decide)(&case.input())
        }
        decided => decided?,
    };
    let known = case.active_key_unusable();
    observe::active_key(operator, &mut case).await;
    let decision = if case.active_key_unusable() == known || decision.step == Step::RemoveFinalizer {
        decision
    } else {
        afterwards(operator, &case)
    };
    Ok(report::report(operator, resource, case, decision).await?)
}

/// Returns the time of the next reconcile if the finalizer step ends this one; `None` if this one continues.
fn wake_after<A, R>(operator: &Context<A, R>, hold: &FinalizerState) -> Option<Timestamp> {
    match hold {
        FinalizerState::UpToDate => None,
        // The resource has another version now, which the next reconcile handles.
        FinalizerState::Changed => Some(operator.clock.now()),
        FinalizerState::Released => Some(operator.clock.now() + operator.config.drift_interval),
    }
}

/// Executes the step, and returns the decision to report.
async fn execute_plan<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
    case: &mut ReconcileState,
    decision: Decision,
) -> Result<Decision, Interruption> {
    match &decision.step {
        Step::ChangeEncryption(reservation) => {
            if !execute::acquire_permit(operator, case, reservation).await {
                let seen = observe::observe(operator, resource, case).await?;
                if seen.is_err() || (operator.decide)(&case.input()).step != decision.step {
                    return Err(Interruption::Outdated);
                }
            }
            execute::change_encryption(operator, resource, case, reservation).await?;
        }
        Step::Verify => {
            execute::save_ledger(operator, resource, case).await?;
            execute::verify(operator, resource, case).await?;
        }
        Step::RemoveFinalizer => {
            recheck::ensure_policies_unchanged(operator, resource, &case.subject.permission).await?;
            case.book.ensure_unchanged(&operator.records).await?;
            if decision.reason == Reason::NotPermitted {
                let why = message::ready(&case.input(), &decision);
                finalize::release_unchanged(
                    operator,
                    &resource.metadata,
                    finalize::stream_of(resource),
                    &why,
                )
                .await?;
            } else {
                finalize::release(operator, &resource.metadata).await?;
            }
            return Ok(decision);
        }
        Step::Describe | Step::Wait => {
            execute::save_ledger(operator, resource, case).await?;
            return Ok(decision);
        }
    }
    case.now = operator.clock.now();
    Ok(afterwards(operator, case))
}

/// Returns the decision to report after a step. The next reconcile executes the step that follows.
fn afterwards<A: StreamApi, R: KubeApi>(operator: &Context<A, R>, case: &ReconcileState) -> Decision {
    let after = (operator.decide)(&case.input());
    let wake = if after.step == Step::Wait {
        after.wake
    } else {
        after.wake.max(case.now + SignedDuration::from_secs(2))
    };
    Decision { wake, describe_due: after.describe_due.min(wake), ..after }
}
