//! One reconcile, as a table of contents: resolve, observe, decide, execute, report, and when to be back.
//!
//! The steps decide nothing but what their files say; [`crate::model::decision::decide`] decides. AWS is reached through
//! [`Streams`] and Kubernetes through [`Records`] only, so the same code runs in the simulation. A call is decided only
//! from a look that is newer than the ledger that was read: a remembered look is good for words, never for a call.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tracing::debug;

use crate::api::stream_encryption::StreamEncryption;
use crate::aws::Streams;
use crate::model::decision::{Decision, Step, decide};
use crate::model::stream::Region;

pub mod book;
mod case;
mod execute;
mod finalize;
pub mod memory;
mod observe;
pub mod records;
mod report;
mod resolve;
pub mod retire;

use case::Case;
use memory::Memory;
use records::{RecordError, Records};

pub use report::malformed;

/// What a reconcile works with.
pub struct Operator<A, R> {
    /// AWS.
    pub aws: A,
    /// Kubernetes.
    pub records: R,
    /// The clock.
    pub clock: Clock,
    /// What the administrator set.
    pub rules: Rules,
    /// What this process remembers between two visits; nothing that may not be lost.
    pub memory: Memory,
}

/// The clock, as a value: tests and the simulation bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that tells what `now` tells.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// Now, in whole microseconds: what Kubernetes stores is then equal to what was written.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = (self.0)();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// What the administrator set for all resources.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The region of streams given by name without one.
    pub region: Region,
    /// How often to look for drift.
    pub drift_interval: SignedDuration,
    /// Calls per stream in 24 hours, of AWS's 25.
    pub max_calls_per_day: u32,
    /// Whether encryption may be turned off.
    pub allow_disable: bool,
}

/// Visits one resource once, and tells when to be back.
///
/// An error means that Kubernetes could not be asked; everything else is told in the resource's status.
pub async fn reconcile<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
) -> Result<Timestamp, RecordError> {
    let visit = operator.memory.recall(resource, operator.clock.now());
    let subject = match resolve::resolve(operator, resource, &visit).await? {
        Ok(subject) => subject,
        Err(unresolved) => return report::unresolved(operator, resource, &visit, unresolved).await,
    };
    if finalize::is_released(operator, resource, &subject).await? {
        return Ok(operator.clock.now() + subject.drift_interval);
    }
    let book = book::open(&operator.records, resource, &subject.stream).await?;
    let mut case = Case::new(operator.clock.now(), subject, book, visit);

    let mut decision = decide(&case.input());
    if decision.step == Step::Look || (matches!(decision.step, Step::Call(_)) && !case.look_is_fresh()) {
        observe::observe(operator, &mut case).await;
        decision = decide(&case.input());
    }
    match act(operator, resource, &mut case, decision).await {
        Ok(decision) => report::report(operator, resource, case, decision).await,
        // Somebody else wrote first, or the resource has changed: all that was seen and decided is void.
        Err(RecordError::Conflict) => {
            debug!("dropped, to be decided anew");
            operator.memory.forget(resource);
            Ok(operator.clock.now() + SignedDuration::from_secs(1))
        }
        Err(error) => Err(error),
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
        Step::Call(reservation) => execute::call(operator, resource, case, reservation).await?,
        Step::Verify => execute::verify(operator, resource, case).await,
        Step::Release => {
            finalize::release(operator, resource).await?;
            return Ok(decision);
        }
        Step::Look | Step::Rest => {
            case.book.save(&operator.records).await?;
            return Ok(decision);
        }
    }
    case.now = operator.clock.now();
    let after = decide(&case.input());
    // What the step led to is said now; what is to be done next is done at the next visit.
    let wake = if after.step == Step::Rest { after.wake } else { after.wake.max(case.now + SignedDuration::from_secs(2)) };
    Ok(Decision { wake, look_due: after.look_due.min(wake), ..after })
}
