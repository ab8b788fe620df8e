//! One reconcile, as a table of contents: resolve, observe, decide, execute, report, and when to be back.
//!
//! The steps decide nothing but what their files say; [`crate::model::decision::decide`] decides. AWS is reached through
//! [`Streams`] and Kubernetes through [`Records`] only, so the same code runs in the simulation. A call is decided only
//! from a look that is newer than the ledger that was read: a remembered look is good for words, never for a call or a record.

use jiff::{SignedDuration, Timestamp};
use tracing::{Instrument as _, debug, info_span, warn};

use crate::api::condition::Reason;
use crate::api::stream_encryption::StreamEncryption;
use crate::aws::Streams;
use crate::model::decision::{Decision, Ownership, Step};
use crate::model::message;

mod age;
mod asked;
pub mod book;
mod case;
mod context;
mod execute;
mod finalize;
pub mod memory;
mod observe;
mod permitted;
mod publish;
pub mod records;
mod report;
mod resolve;
pub mod retire;

use case::Case;
use finalize::Hold;
use records::{RecordError, Records};
use resolve::Unresolved;

pub use context::{Clock, Decide, Operator, Rules};
pub use publish::malformed;

/// Visits one resource once, as it is now, and tells when to be back. `cached` only says that there is one: a cache lags,
/// and if its watch ever lost a change, nothing but the next change would tell.
///
/// An error means that Kubernetes could not be asked; everything else is told in the resource's status.
pub async fn reconcile<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    cached: &StreamEncryption,
) -> Result<Timestamp, RecordError> {
    let of = book::owner(cached);
    let Some(resource) = &operator.records.resource(&of.namespace, &of.name).await? else {
        return Ok(operator.clock.now() + operator.rules.drift_interval);
    };
    let span = info_span!("visit", namespace = of.namespace, resource = of.name);
    match visit(operator, resource).instrument(span).await {
        // Somebody else wrote first, or the resource has changed: all that was seen and decided is void.
        Err(RecordError::Conflict) => {
            debug!(namespace = of.namespace, name = of.name, "dropped, to be decided anew");
            operator.memory.forget(resource);
            Ok(operator.clock.now() + records::AFTER_CONFLICT)
        }
        outcome => outcome,
    }
}

/// Visits the resource that was just read. [`RecordError::Conflict`]: it is to be read again.
async fn visit<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
) -> Result<Timestamp, RecordError> {
    let visit = operator.memory.recall(resource, operator.clock.now());
    if let Some(wake) = wake_after(operator, &finalize::unless_wanted(operator, resource).await?) {
        return Ok(wake);
    }
    let subject = match resolve::resolve(operator, resource, &visit).await? {
        Ok(subject) => subject,
        // Nothing can be turned off that cannot be made out, and the stream of a resource does not change.
        Err(Unresolved::Spec(why)) if resource.metadata.deletion_timestamp.is_some() => {
            let why = format!("The spec has no meaning: {why}.");
            finalize::release_unchanged(operator, resource, &why).await?;
            return Ok(operator.clock.now() + operator.rules.drift_interval);
        }
        Err(unresolved) => return report::unresolved(operator, resource, &visit, unresolved).await,
    };
    if let Some(wake) = wake_after(operator, &finalize::as_permitted(operator, resource, &subject).await?) {
        return Ok(wake);
    }
    let book = book::open(&operator.records, resource, &subject.claim(), operator.clock.now()).await?;
    let mut case = Case::new(operator.clock.now(), subject, book, visit, resource);

    let mut decision = (operator.decide)(&case.input());
    if matches!(decision.step, Step::Look | Step::Call(_) | Step::Verify) {
        if case.visit.key.is_some() || case.visit.active_key.is_some() {
            // What is remembered of the keys is as old as the look that is not good enough any more.
            operator.memory.forget(resource);
            return Ok(operator.clock.now());
        }
        if let Err(unresolved) = observe::observe(operator, resource, &mut case).await? {
            return report::unresolved(operator, resource, &case.visit, unresolved).await;
        }
        decision = (operator.decide)(&case.input());
    }
    let decision = match act(operator, resource, &mut case, decision).await {
        Err(RecordError::Unusable(why)) if case.book.ownership == Ownership::Unreadable => {
            warn!(stream = %case.subject.stream, why, "the ledger cannot be written");
            (operator.decide)(&case.input())
        }
        decided => decided?,
    };
    let known = case.key_lost();
    observe::key_in_force(operator, &mut case).await;
    let decision = if case.key_lost() == known || decision.step == Step::Release {
        decision
    } else {
        afterwards(operator, &case)
    };
    report::report(operator, resource, case, decision).await
}

/// When to be back after the finalizer was changed; nothing: the visit goes on.
fn wake_after<A, R>(operator: &Operator<A, R>, hold: &Hold) -> Option<Timestamp> {
    match hold {
        Hold::AsItShouldBe => None,
        // It is another version now, and is visited as that.
        Hold::Changed => Some(operator.clock.now()),
        Hold::Released => Some(operator.clock.now() + operator.rules.drift_interval),
    }
}

/// Carries the step out, and decides what to say after it.
async fn act<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    case: &mut Case,
    decision: Decision,
) -> Result<Decision, RecordError> {
    match &decision.step {
        Step::Call(reservation) => {
            if !execute::turn(operator, case, reservation).await {
                let seen = observe::observe(operator, resource, case).await?;
                if seen.is_err() || (operator.decide)(&case.input()).step != decision.step {
                    return Err(RecordError::Conflict);
                }
            }
            execute::call(operator, resource, case, reservation).await?;
        }
        Step::Verify => {
            execute::note(operator, resource, case).await?;
            execute::verify(operator, resource, case).await;
        }
        Step::Release => {
            if decision.reason == Reason::NotPermitted {
                let why = message::ready(&case.input(), &decision);
                finalize::release_unchanged(operator, resource, &why).await?;
            } else {
                finalize::release(operator, resource).await?;
            }
            return Ok(decision);
        }
        Step::Look | Step::Rest => {
            execute::note(operator, resource, case).await?;
            return Ok(decision);
        }
    }
    case.now = operator.clock.now();
    Ok(afterwards(operator, case))
}

/// What to report after a step. What is to be done next is done at the next visit.
fn afterwards<A: Streams, R: Records>(operator: &Operator<A, R>, case: &Case) -> Decision {
    let after = (operator.decide)(&case.input());
    let wake = if after.step == Step::Rest {
        after.wake
    } else {
        after.wake.max(case.now + SignedDuration::from_secs(2))
    };
    Decision { wake, look_due: after.look_due.min(wake), ..after }
}
