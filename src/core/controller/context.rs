//! The context of a reconcile: the two ports, the clock, the decision, the administrator's configuration, and
//! the process's memory.

use std::time::Duration;

use jiff::SignedDuration;
use stream_encryption_api::ledger::{Action, Owner};
use stream_encryption_api::stream_encryption::{Service, StreamEncryption};

use super::clock::Clock;
use super::kube_api::{KubeApi, ReconcileEvent};
use super::memory::Memory;
use crate::model::arn::{KmsKeyId, Region, StreamArn};
use crate::model::aws_error::ErrorKind;
use crate::model::decision::{Decision, DecisionInput};

/// The context of a reconcile.
pub struct Context<A, R> {
    /// The port to AWS.
    pub aws: A,
    /// The port to Kubernetes.
    pub kube: R,
    /// The clock.
    pub clock: Clock,
    /// The decision function, [`crate::model::decision::decide`]. The simulation wraps the function, to
    /// record which rules apply and to prove that a wrong rule would be detected.
    pub decide: Decide,
    /// The administrator's configuration.
    pub config: Config,
    /// The memory of this process between two reconciles; its loss is always safe.
    pub memory: Memory,
    /// The counters of what reconciles find. No decision depends on them.
    pub metrics: Box<dyn ReconcileMetrics>,
}

/// Counts what reconciles do and find. An implementation counts only what it is interested in.
pub trait ReconcileMetrics: Send + Sync {
    /// Counts a Describe of a stream, by whether it succeeded. A refusal counts as a failure here, unlike in
    /// [`Reconciled::answered`](super::Reconciled::answered).
    fn described(&self, _: Service, _succeeded: bool) {}

    /// Counts a Start or Stop that was reserved, by its outcome: accepted, or the kind of the error. The error may be
    /// that the operator could not send the call.
    fn called(&self, _: Service, _: Action, _outcome: Result<(), ErrorKind>) {}

    /// Records how long a stream's records were in plaintext, once AWS reports them as encrypted.
    fn encrypted(&self, _: Service, _after: SignedDuration) {}

    /// Counts a deleted resource whose finalizer was removed and whose stream stays encrypted against its
    /// `deletionPolicy`, whether or not Kubernetes accepts the event for it.
    fn encryption_left_on(&self) {}

    /// Counts an event that Kubernetes did not accept.
    fn event_lost(&self) {}
}

/// The time after a change from which every response of AWS shows the change. KMS documents "in some cases, several minutes".
/// <https://docs.aws.amazon.com/kms/latest/developerguide/accessing-kms.html#programming-eventual-consistency>
const SETTLING: Duration = Duration::from_mins(20);

/// Counts nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoMetrics;

impl ReconcileMetrics for NoMetrics {}

impl<A, R> Context<A, R> {
    /// Returns the interval between two checks of a resource's stream for drift: longer while AWS's events arrive. After an
    /// event, the short interval applies for the time [`SETTLING`], or twice the short interval if that is longer. `key` is the
    /// key that the resource names.
    pub(super) fn drift_interval(
        &self,
        resource: &StreamEncryption,
        stream: &StreamArn,
        key: Option<&KmsKeyId>,
    ) -> SignedDuration {
        let short = self.config.drift_interval;
        let (events, now) = (&self.memory.events, self.clock.monotonic());
        if events.suffice_for(resource, stream, key, now, SETTLING.max(short.unsigned_abs() * 2)) {
            self.config.longest_drift_interval()
        } else {
            short
        }
    }
}

impl<A, R: KubeApi> Context<A, R> {
    /// Publishes an event about a resource. Events inform users, and no decision depends on them: the port logs the
    /// loss of an event, and the metrics count it.
    pub async fn publish_event(&self, resource: &Owner, event: &ReconcileEvent) {
        if self.kube.publish_event(resource, event).await.is_err() {
            self.metrics.event_lost();
        }
    }
}

/// A decision function.
pub type Decide = fn(&DecisionInput<'_>) -> Decision;

/// The administrator's configuration for all resources. Policies define the permissions.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region of streams that are given by name without a region.
    pub region: Region,
    /// The interval between two checks for drift.
    pub drift_interval: SignedDuration,
    /// The interval while AWS's events arrive; `None` if the operator receives none.
    pub drift_interval_with_events: Option<SignedDuration>,
}

impl Config {
    /// Returns whether the operator receives AWS's events, so that resources must be registered for them.
    #[must_use]
    pub fn receives_events(&self) -> bool {
        self.drift_interval_with_events.is_some()
    }

    /// Returns the longest interval between two checks for drift.
    #[must_use]
    pub fn longest_drift_interval(&self) -> SignedDuration {
        self.drift_interval_with_events.map_or(self.drift_interval, |long| long.max(self.drift_interval))
    }
}
