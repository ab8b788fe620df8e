//! What the operator has observed of each stream: records each Describe, and until when the operator may still report an
//! observation that a later one contradicts.
//!
//! The checks of `status.rs` compare statuses with these records. P8 is checked here for each Describe.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::StreamKey;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::ledger::{self, MAX_IN_FLIGHT, READ_LAG};
use stream_encryption_core::model::observation::{Observation, StreamDescription};

use super::Invariants;
use crate::environment::{ACCOUNT, State};

/// Maximum time for which the operator may reject observations that contradict a call that it has known for 30 seconds, plus
/// some seconds. The call may be another replica's, dated by a clock that is ahead.
pub(super) const DISTRUST_PERIOD: SignedDuration = SignedDuration::from_secs(75);

/// The observations of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct ObservedStream {
    /// The last Describe of each replica.
    pub(super) last_describe: BTreeMap<usize, Timestamp>,
    /// The last Describe of each replica that showed the encryption of the stream, and not only a change or a failure.
    pub(super) last_stable: BTreeMap<usize, Timestamp>,
    /// The keys that were active at the observations, each with the time until which the operator may report
    /// it: indefinitely for the last settled observation and all later ones; for earlier keys, as long as
    /// AWS's responses may lag and reconciles in progress may not have read the newer observations.
    pub(super) active_keys: Vec<(Option<StreamKey>, Timestamp)>,
    /// The time of the last settled observation.
    pub(super) stable_encryption: Option<Timestamp>,
    /// The time of the settled observation before it.
    pub(super) previous_stable: Option<Timestamp>,
    /// Whether the last Describe reported that the stream does not exist.
    pub(super) missing: bool,
    /// Whether a Describe showed a past state of unknown age.
    pub(super) stale: bool,
    /// The start of the reconcile whose Describe showed the effect of the operator's last call, and the time
    /// of that reconcile's first status.
    pub(super) confirmed: Option<(Timestamp, Timestamp)>,
}

impl ObservedStream {
    /// Marks all observations so far as outdated. Until `reportable_until`, the operator may still report
    /// them.
    fn mark_outdated(&mut self, reportable_until: Timestamp) {
        self.stable_encryption = None;
        for (_, until) in &mut self.active_keys {
            *until = (*until).min(reportable_until);
        }
    }
}

/// The response to a Describe: `None` if the stream does not exist.
type DescribeResponse = Result<Option<StreamDescription>, AwsError>;

/// One Describe.
#[derive(Clone, Debug)]
pub(super) struct DescribeObservation {
    replica: usize,
    arn: String,
    /// The time of the state that it shows.
    at: Timestamp,
    /// The start of its reconcile.
    reconcile_began: Timestamp,
    /// The time until which the operator may still report a contradicting state.
    reportable_until: Timestamp,
    state: ObservedState,
}

/// The observed state of a stream.
#[derive(Clone, Debug)]
enum ObservedState {
    /// The stream does not exist.
    Missing,
    /// The stream exists.
    Stream {
        /// The actual active key.
        actual: Option<StreamKey>,
        /// Whether the state is not a change or a failure.
        shows_encryption: bool,
        /// Whether the operator must trust that state.
        stable_encryption: bool,
        /// Whether the state is a past one of unknown age.
        stale: bool,
        /// Whether the effect of the operator's last call is shown.
        effect: bool,
    },
}

/// The last Describe of a reconcile, if the operator must trust it: an earlier Describe has shown the effect
/// of the operator's last call.
#[derive(Clone, Debug)]
pub(super) struct TrustedDescribe {
    pub(super) arn: String,
    /// Whether the stream was shown as encrypted.
    pub(super) encrypted: bool,
}

/// The first Describe of a process after the last call of a stream.
#[derive(Clone, Debug)]
pub(super) struct FirstDescribe {
    /// The time of the call.
    call: Option<Timestamp>,
    /// The time of the Describe.
    at: Timestamp,
}

impl Invariants {
    /// Returns whether a Describe has shown the encryption of the stream, and not only a change or a failure.
    pub fn has_observed_settled(&self, stream: &str) -> bool {
        self.observed.get(stream).is_some_and(|observed| observed.stable_encryption.is_some())
    }

    /// Applies the observations of a reconcile that has ended successfully or has written an object. Returns
    /// whether it had any observations.
    pub fn publish_observations(&mut self, task: usize, now: Timestamp) -> bool {
        let Some(observations) = self.unreported.get_mut(&task).map(std::mem::take) else { return false };
        for DescribeObservation { replica, arn, at, reconcile_began, reportable_until, state } in observations
        {
            self.remembered_encrypted.remove(&(replica, arn.clone()));
            let observed = self.observed.entry(arn).or_default();
            match state {
                ObservedState::Missing => {
                    observed.mark_outdated(reportable_until);
                    observed.missing = true;
                }
                ObservedState::Stream { actual, shows_encryption, stable_encryption, stale, effect } => {
                    if effect {
                        observed.confirmed = Some((reconcile_began, now));
                    }
                    observed.last_describe.insert(replica, at);
                    if shows_encryption {
                        observed.last_stable.insert(replica, at);
                    }
                    observed.missing = false;
                    if stable_encryption {
                        observed.previous_stable = observed.stable_encryption;
                        observed.mark_outdated(reportable_until);
                        observed.stable_encryption = Some(at);
                        observed.stale = stale;
                    }
                    observed.stale |= stale;
                    observed.active_keys.retain(|(previous, until)| *previous != actual && *until > at);
                    observed.active_keys.push((actual, Timestamp::MAX));
                }
            }
        }
        true
    }

    /// Records that a replica remembers nothing any more.
    pub fn memory_is_lost(&mut self, replica: usize) {
        self.remembered_encrypted.retain(|(other, _)| *other != replica);
        self.first_describes.retain(|(other, ..), _| *other != replica);
    }

    /// Discards the observations of a reconcile that may not write its ledger. They are not stored, and the
    /// status reports this.
    pub fn discard_observations(&mut self, task: usize) {
        self.unreported.remove(&task);
    }

    /// Records that a reconcile begins or continues.
    pub fn reconcile_continues(&mut self, task: usize, now: Timestamp) {
        self.reconcile_started.entry(task).or_insert(now);
    }

    /// Records that a reconcile has ended.
    pub fn reconcile_ended(&mut self, task: usize) {
        for observation in self.unreported.remove(&task).into_iter().flatten() {
            let key = (observation.replica, observation.arn);
            // If only the write of the status failed, the operator reports the response in the next reconcile.
            if matches!(observation.state, ObservedState::Stream { actual: Some(_), .. }) {
                self.remembered_encrypted.insert(key);
            } else {
                self.remembered_encrypted.remove(&key);
            }
        }
        self.trusted.remove(&task);
        self.reconcile_started.remove(&task);
        self.cached_policies_since.remove(&task);
        self.policies_read_since_permit.remove(&task);
        self.ledgers_read.remove(&task);
    }
}

impl State {
    /// Records a Describe. P8: checks that the stream belongs to the operator. The observation counts once
    /// its reconcile writes, because a dropped reconcile has observed nothing.
    pub fn record_describe(&mut self, replica: usize, stream: &StreamArn, response: &DescribeResponse) {
        let now = self.now;
        self.statistics.describes += 1;
        if stream.account.as_str() != ACCOUNT {
            self.invariants.record_violation("P8", now, || format!("a Describe of {stream}"));
        }
        let arn = stream.to_string();
        let lag = self.world.settings().read_lag;
        self.record_trusted_describe(stream, response);
        let state = match response {
            Ok(None) if !self.replicas[replica].foreign_credentials => ObservedState::Missing,
            Ok(Some(description)) if description.arn == *stream => {
                let actual = self.world.stream(&arn, now - lag).and_then(|actual| actual.active_key.clone());
                // Soon after a call, the operator may treat the observation as stale; also after one that it has recorded
                // and not sent.
                let last = self.invariants.last_call(&arn).max(self.invariants.last_reservation(&arn));
                let is_new = self.is_call_new_to_replica(replica, &arn, last, lag);
                let called = is_new || last.is_some_and(|at| now < at + READ_LAG + lag);
                let shows_encryption =
                    Observation::of(stream, Some(description)).stable_encryption().is_some();
                let stable_encryption = !called && shows_encryption;
                // A Describe of a Kinesis stream may be followed by a request to KMS for its key.
                let mut calls = self.world.calls().iter().rev();
                let describe = calls
                    .find(|call| call.operation.starts_with("Describe") && call.operation != "DescribeKey");
                let fault = describe.and_then(|call| call.fault.as_deref());
                self.trace.record(now, || {
                    let (state, encryption) = (&description.state, &description.encryption);
                    format!("operator {replica} describes {}: {state:?} {encryption:?}", stream.name())
                });
                let effect = self.shows_effect_of_last_call(stream, description);
                let stale = fault == Some("ReadLag");
                ObservedState::Stream { actual, shows_encryption, stable_encryption, stale, effect }
            }
            Ok(_) | Err(_) => return,
        };
        let reportable_until = now + DISTRUST_PERIOD + self.max_clock_difference();
        let reconcile_began = self.reconcile_began();
        let observation =
            DescribeObservation { replica, arn, at: now - lag, reconcile_began, reportable_until, state };
        self.invariants.unreported.entry(self.current_task.task).or_default().push(observation);
    }

    /// Records that the replica describes the stream. Returns whether the last call may be new to it, while no ledger says that the
    /// call took effect: it first described the stream after this call less than [`READ_LAG`] ago, or its clock, which may be
    /// behind that of the replica that made the call, does not show yet that this time has passed.
    fn is_call_new_to_replica(
        &mut self,
        replica: usize,
        arn: &str,
        last: Option<Timestamp>,
        lag: SignedDuration,
    ) -> bool {
        let now = self.now;
        let name = self.current_task.name.clone().unwrap_or_default();
        let uid = self.store.resource(&name).and_then(|resource| resource.metadata.uid.clone());
        let key = (replica, uid, arn.to_owned());
        let first =
            self.invariants.first_describes.entry(key).or_insert(FirstDescribe { call: last, at: now });
        if first.call != last {
            *first = FirstDescribe { call: last, at: now };
        }
        let known_since = first.at;
        let stream = arn.parse().ok();
        let ledger = stream.and_then(|stream| self.store.ledger(&ledger::name(&stream)));
        let unconfirmed = ledger
            .and_then(|ledger| ledger::last_unrefused_call(&ledger.spec))
            .filter(|call| !call.confirmed);
        let own_clock = now + self.replicas[replica].clock_error;
        unconfirmed
            .is_some_and(|call| now < known_since + READ_LAG + lag || own_clock < call.at() + READ_LAG + lag)
            && last.is_some_and(|at| now < at + MAX_IN_FLIGHT + self.max_clock_difference())
    }

    /// Returns the time at which the current reconcile began.
    pub(super) fn reconcile_began(&self) -> Timestamp {
        self.invariants.reconcile_started.get(&self.current_task.task).copied().unwrap_or(self.now)
    }

    /// Returns the time since which the policies have been in effect that the current reconcile last read
    /// from a cache; the current time if it read none.
    pub(super) fn cached_policies_since(&self) -> Timestamp {
        self.invariants.cached_policies_since.get(&self.current_task.task).copied().unwrap_or(self.now)
    }

    /// Returns whether a Describe shows that the last call of the stream's ledger is in progress or complete.
    fn shows_effect_of_last_call(&self, stream: &StreamArn, description: &StreamDescription) -> bool {
        let Some(ledger) = self.store.ledger(&ledger::name(stream)) else { return false };
        let observation = Observation::of(stream, Some(description));
        ledger::last_unrefused_call(&ledger.spec).is_some_and(|call| ledger::shows_effect(&observation, call))
    }

    /// Records the last Describe of a reconcile, if the operator has no reason to treat it as stale.
    fn record_trusted_describe(&mut self, stream: &StreamArn, response: &DescribeResponse) {
        let task = self.current_task.task;
        self.invariants.trusted.remove(&task);
        let arn = stream.to_string();
        let observation = match response {
            Ok(Some(description)) if description.arn == *stream => Observation::of(stream, Some(description)),
            Ok(_) | Err(_) => return,
        };
        let Some(encrypted) = observation.stable_encryption().map(|key| key.is_some()) else { return };
        let began = self.reconcile_began();
        let confirmed = self.invariants.observed.get(&arn).and_then(|observed| observed.confirmed);
        // A reconcile that had read the ledger before the call was reserved cannot record there that the call
        // took effect.
        let last = self.invariants.last_reservation(&arn);
        if confirmed.is_some_and(|(read, reported)| last.is_some_and(|last| last < read) && reported < began)
        {
            self.invariants.trusted.insert(task, TrustedDescribe { arn, encrypted });
        }
    }
}
