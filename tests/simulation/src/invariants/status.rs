//! P6 and P9: checks each status against the observations of its reconcile, and against the true state of the
//! stream.
//!
//! The checks make allowances for facts that the operator cannot observe: a state that AWS has not shown yet,
//! changes between two Describes, and the last observations of another replica.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::StreamKey;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, ReadyState, Reason, find};
use stream_encryption_api::ledger::Owner;
use stream_encryption_api::stream_encryption::{
    EncryptionStatus, KeyIdentity, KeyType, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::ledger_store::resource_identity;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::ledger::{self, READ_LAG};
use stream_encryption_core::model::observation::{Observation, StreamDescription};

use super::Invariants;
use crate::environment::{ACCOUNT, Process, State};
use crate::trace::since_start;

/// Maximum time for which the operator may reject observations that contradict its last call, plus some
/// seconds. The last call may be another replica's, dated by a clock that is ahead.
const DISTRUST_PERIOD: SignedDuration = SignedDuration::from_secs(75);
/// AWS's settle time.
const PROPAGATION_DELAY: SignedDuration = SignedDuration::from_secs(5);

/// The observations of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct ObservedStream {
    /// The last Describe of each replica.
    last_describe: BTreeMap<usize, Timestamp>,
    /// The keys that were active at the observations, each with the time until which the operator may report
    /// it: indefinitely for the last settled observation and all later ones; for earlier keys, as long as
    /// AWS's responses may lag and reconciles in progress may not have read the newer observations.
    active_keys: Vec<(Option<StreamKey>, Timestamp)>,
    /// The time of the last settled observation.
    stable_encryption: Option<Timestamp>,
    /// The time of the settled observation before it.
    previous_stable: Option<Timestamp>,
    /// Whether the last Describe reported that the stream does not exist.
    missing: bool,
    /// Whether a Describe showed a past state of unknown age.
    stale: bool,
    /// The start of the reconcile whose Describe showed the effect of the operator's last call, and the time
    /// of that reconcile's first status.
    confirmed: Option<(Timestamp, Timestamp)>,
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
    arn: String,
    /// Whether the stream was shown as encrypted.
    encrypted: bool,
}

/// Returns a key of AWS in the form of the status.
pub fn key_identity(key: &StreamKey) -> KeyIdentity {
    match key {
        StreamKey::AwsOwned => KeyIdentity { kind: KeyType::AwsOwned, arn: None },
        StreamKey::Kms { given, .. } if given == "alias/aws/kinesis" => {
            KeyIdentity { kind: KeyType::AwsOwned, arn: None }
        }
        StreamKey::Kms { arn, .. } => KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.clone()) },
    }
}

/// Returns whether a status reports this key: completely, or only its type if the namespace may not use it.
fn is_reported(actual: Option<&StreamKey>, key: &KeyIdentity) -> bool {
    actual
        .map(key_identity)
        .is_some_and(|actual| actual.kind == key.kind && (key.arn.is_none() || key.arn == actual.arn))
}

/// The claims of a status about the stream: the active key, the state, and whether it is encrypted.
type StatusClaims<'a> = (Option<&'a KeyIdentity>, Option<EncryptionStatus>, Option<&'a String>);

/// Returns whether a status claims nothing new. `Encrypted` becomes Unknown if AWS has not responded for
/// long.
fn repeats_claims(before: StatusClaims<'_>, after: StatusClaims<'_>) -> bool {
    let withdrawn = after.2.is_some_and(|encrypted| encrypted == ConditionStatus::Unknown.as_str());
    (before.0, before.1) == (after.0, after.1) && (before.2 == after.2 || withdrawn)
}

/// Returns the claims of a status about the stream.
fn claims_of(status: &StreamEncryptionStatus) -> StatusClaims<'_> {
    let encrypted = find(&status.conditions, ConditionType::Encrypted);
    (status.active_key.as_ref(), status.encryption_status, encrypted.map(|condition| &condition.status))
}

impl Invariants {
    /// Applies the observations of a reconcile that has ended successfully or has written an object. Returns
    /// whether it had any observations.
    pub fn publish_observations(&mut self, task: usize, now: Timestamp) -> bool {
        let Some(observations) = self.unreported.get_mut(&task).map(std::mem::take) else { return false };
        for DescribeObservation { replica, arn, at, reconcile_began, reportable_until, state } in observations
        {
            let observed = self.observed.entry(arn).or_default();
            match state {
                ObservedState::Missing => {
                    observed.mark_outdated(reportable_until);
                    observed.missing = true;
                }
                ObservedState::Stream { actual, stable_encryption, stale, effect } => {
                    if effect {
                        observed.confirmed = Some((reconcile_began, now));
                    }
                    observed.last_describe.insert(replica, at);
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
        self.unreported.remove(&task);
        self.trusted.remove(&task);
        self.reconcile_started.remove(&task);
        self.cached_policies_since.remove(&task);
        self.policies_read_since_permit.remove(&task);
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
                // Soon after a call, the operator may treat the observation as stale.
                let called = self.invariants.last_call.get(&arn).is_some_and(|at| now < *at + READ_LAG + lag);
                let stable_encryption =
                    !called && Observation::of(stream, Some(description)).stable_encryption().is_some();
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
                ObservedState::Stream { actual, stable_encryption, stale: fault == Some("ReadLag"), effect }
            }
            Ok(_) | Err(_) => return,
        };
        let reportable_until = now + DISTRUST_PERIOD + self.max_clock_difference();
        let reconcile_began = self.reconcile_began();
        let observation =
            DescribeObservation { replica, arn, at: now - lag, reconcile_began, reportable_until, state };
        self.invariants.unreported.entry(self.current_task.task).or_default().push(observation);
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
        ledger::last_unrefused_call(&ledger.spec)
            .is_some_and(|call| ledger::matches_target(&observation, &call.target))
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

    /// P6: checks that a status does not contradict what AWS has just shown, once AWS has shown the effect of
    /// the operator's last call.
    fn check_contradiction(&mut self, owner: &Owner, status: &StreamEncryptionStatus) {
        let Some(TrustedDescribe { arn, encrypted }) =
            self.invariants.trusted.get(&self.current_task.task).cloned()
        else {
            return;
        };
        if status.stream.as_ref().is_none_or(|stream| stream.arn.as_ref() != Some(&arn)) {
            return;
        }
        let now = self.now;
        let reports_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == ConditionStatus::True.as_str());
        let reported = status.encryption_status;
        let is_contradicted = if encrypted {
            reported == Some(EncryptionStatus::Disabled)
        } else {
            reports_encrypted || reported == Some(EncryptionStatus::Enabled) || status.active_key.is_some()
        };
        if is_contradicted {
            self.invariants.record_violation("P6", now, || {
                let observed = if encrypted { "ENABLED" } else { "DISABLED" };
                format!("{} reports {reported:?}, but AWS has just shown {observed}", owner.name)
            });
        }
    }

    /// P6 and P9: checks that a status reports only what was observed, and that every wait has a reason and
    /// an end.
    pub fn check_status(
        &mut self,
        process: Process,
        before: &StreamEncryption,
        status: &StreamEncryptionStatus,
    ) {
        let now = self.now;
        let has_observations = self.invariants.publish_observations(self.current_task.task, now);
        let owner = resource_identity(before);
        let mut previous = before.status.clone().unwrap_or_default();
        // The status may change because calls expire, or the time until which the previous key is required; this ends
        // by itself. The message of `Drifted` states the number of calls left, too. Once an hour, and not more often, the
        // status updates the time of AWS's last response.
        let described_at =
            |status: &StreamEncryptionStatus| status.last_describe_time.as_ref().map(|time| time.0);
        let is_hourly = described_at(&previous)
            .zip(described_at(status))
            .is_some_and(|(old, new)| new.duration_since(old) >= SignedDuration::from_hours(1));
        let expired = previous
            .previous_key
            .take_if(|key| status.previous_key.is_none() && key.required_until_time.0 <= now);
        let without_times = |mut status: StreamEncryptionStatus| {
            let drifted = status.conditions.iter_mut().filter(|one| one.reason == Reason::Drifted.as_str());
            drifted.for_each(|condition| condition.message.clear());
            StreamEncryptionStatus { calls: None, last_describe_time: None, ..status }
        };
        let is_only_aged = (previous.calls != status.calls || expired.is_some() || is_hourly)
            && without_times(previous) == without_times(status.clone());
        // Simultaneous Describes of several replicas may exceed AWS's rate limit; the rate limiter, which
        // spreads them, is not simulated.
        let has_reason = |status: Option<&StreamEncryptionStatus>, reason: Reason| {
            let ready = status.and_then(|status| find(&status.conditions, ConditionType::Ready));
            ready.is_some_and(|ready| ready.reason == reason.as_str())
        };
        let is_throttled = has_reason(before.status.as_ref(), Reason::AwsThrottled)
            || has_reason(Some(status), Reason::AwsThrottled);
        self.invariants.writes += u64::from(!is_only_aged && !is_throttled);
        let began = self.reconcile_began();
        // The status may be based on the Describe of an earlier reconcile.
        let observed =
            status.stream.as_ref().and_then(|stream| self.invariants.observed.get(stream.arn.as_deref()?));
        let known_at = observed
            .and_then(|observed| observed.last_describe.get(&process.replica))
            .map_or(began, |at| began.min(*at));
        // The replica cannot have later observations of another replica.
        let superseded = observed.is_some_and(|observed| {
            observed.last_describe.iter().any(|(other, at)| *other != process.replica && *at > known_at)
        });
        self.invariants.status_observed_at.insert(owner.uid.clone(), known_at);
        let ready = find(&status.conditions, ConditionType::Ready);
        self.trace.record(now, || {
            format!(
                "operator {} writes the status of {}/{}: {} {:?}, active key {:?}, next attempt {:?}",
                process.replica,
                owner.namespace,
                owner.name,
                ready.map_or("-", |ready| &ready.reason),
                status.encryption_status,
                status.active_key.as_ref().map(|key| key.arn.as_deref().unwrap_or("AWS-owned")),
                status.next_attempt_time.as_ref().map(|next| since_start(next.0)),
            )
        });
        let Some(reason) = ready.and_then(|ready| ready.reason.parse::<Reason>().ok()) else {
            self.invariants
                .record_violation("P9", now, || format!("the status of {} has no reason", owner.name));
            return;
        };
        // If AWS did not return all facts, the status keeps the last known state.
        let keeps_last_state = matches!(reason.ready_state(), ReadyState::Unknown | ReadyState::Unchanged)
            || matches!(
                reason,
                Reason::NotPermitted
                    | Reason::ConflictingPolicyRoles
                    | Reason::DisableNotPermitted
                    | Reason::AccessDenied
                    | Reason::SpecInvalid
            );
        if !keeps_last_state {
            self.check_contradiction(&owner, status);
        }
        let is_waiting = matches!(
            reason,
            Reason::EnablingFailed
                | Reason::DisablingFailed
                | Reason::NotApplied
                | Reason::DriftCorrectionLimitReached
        );
        if is_waiting && !before.spec.suspend && status.next_attempt_time.is_none() {
            self.invariants.record_violation("P9", now, || {
                format!("{} waits because of {reason}, without a reported end", owner.name)
            });
        }
        // Without a Describe, the status keeps the last known key. Claims that are repeated without a
        // Describe were checked when they were first made.
        let is_repeated =
            before.status.as_ref().is_some_and(|before| repeats_claims(claims_of(before), claims_of(status)));
        if reason != Reason::DisableNotPermitted && (has_observations || !is_repeated) && !superseded {
            self.check_claims(&owner, status);
        }
    }

    /// P6: checks the claims of a status about its stream.
    fn check_claims(&mut self, owner: &Owner, status: &StreamEncryptionStatus) {
        let now = self.now;
        let Some(arn) = status.stream.as_ref().and_then(|stream| stream.arn.as_deref()) else { return };
        let Some(observed) = self.invariants.observed.get(arn) else { return };
        if observed.missing {
            // The status keeps the last known key. Once the stream exists again, this key is no longer
            // relevant.
            return;
        }
        let Some(stable_encryption) = observed.stable_encryption else {
            if let Some(key) = &status.active_key
                && !observed
                    .active_keys
                    .iter()
                    .any(|(actual, until)| *until > now && is_reported(actual.as_ref(), key))
            {
                let key = key.clone();
                self.invariants.record_violation("P6", now, || {
                    format!("{} reports {key:?} as the active key, but AWS never showed it", owner.name)
                });
            }
            return;
        };
        let changed = self.invariants.external_changes.get(arn).copied().unwrap_or(Timestamp::MIN);
        if observed.stale || changed >= stable_encryption {
            return;
        }
        // Kinesis may name a key by an alias that KMS does not resolve, and while KMS does not respond it is
        // unknown whether AWS manages a key; in both cases the status cannot report more. The ARN of a
        // customer managed key that no policy allows is redacted.
        let is_aws_managed = |arn: &str| arn.contains(":key/0000");
        let may_be_aws_managed = observed
            .active_keys
            .iter()
            .any(|(actual, _)| matches!(actual, Some(StreamKey::Kms { arn, .. }) if is_aws_managed(arn)));
        let is_comparable = |key: &KeyIdentity| match &key.arn {
            Some(arn) => arn.starts_with("arn:") && !is_aws_managed(arn),
            None => key.kind == KeyType::AwsOwned || !may_be_aws_managed,
        };
        if let Some(key) = status.active_key.as_ref().filter(|key| is_comparable(key))
            && !observed.active_keys.iter().any(|(actual, _)| is_reported(actual.as_ref(), key))
        {
            let (key, actual) = (key.clone(), observed.active_keys.clone());
            self.invariants.record_violation("P6", now, || {
                format!("{} reports {key:?} as the active key, but the active key was {actual:?}", owner.name)
            });
            return;
        }
        let reports_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == ConditionStatus::True.as_str());
        let reports_enabled = status.encryption_status == Some(EncryptionStatus::Enabled);
        // The other replicas read one replica's observations in the ledger.
        let Some(last_describe) = observed.last_describe.values().max().copied() else { return };
        // The operator measures the settle time by its own clock: with two replicas it is unknown by which
        // clock, and after a clock was set, how long it really was. A change by another caller that was
        // reverted between two Describes was not observed.
        let clock_is_steady = !self.invariants.clock_changed_recently(now);
        let is_fully_observed = observed.previous_stable.is_none_or(|before| changed < before);
        let is_settle_time_known = self.replicas.len() == 1
            && now >= self.invariants.unusual_skew_until
            && clock_is_steady
            && is_fully_observed;
        let at = if reports_encrypted && is_settle_time_known {
            last_describe.min(now - PROPAGATION_DELAY)
        } else {
            last_describe
        };
        let is_plaintext = |at| self.world.stream(arn, at).is_none_or(|actual| actual.active_key.is_none());
        // The stream was encrypted until a moment ago, and the operator may not trust a newer observation
        // yet.
        let is_off = observed.active_keys.last().is_some_and(|(actual, _)| actual.is_none());
        let is_recent = |until: Timestamp| until > now && (is_off || until < Timestamp::MAX);
        let recently_encrypted =
            observed.active_keys.iter().any(|(actual, until)| actual.is_some() && is_recent(*until));
        let is_reported_encrypted = (reports_encrypted || reports_enabled) && !recently_encrypted;
        if is_reported_encrypted
            && changed < at
            && is_plaintext(at)
            && is_plaintext(now - DISTRUST_PERIOD - self.max_clock_difference())
        {
            self.invariants.record_violation("P6", now, || {
                format!(
                    "{} reports encrypted, but at {} records were in plaintext",
                    owner.name,
                    since_start(at)
                )
            });
        }
    }
}
