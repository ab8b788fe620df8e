//! P6 and P9: checks each status against the observations of its reconcile (`observations.rs`), and against the true state of
//! the stream.
//!
//! The checks make allowances for facts that the operator cannot observe: a state that AWS has not shown yet,
//! changes between two Describes, and the last observations of another replica.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use simulated_aws::world::{EncryptionStatus as AwsEncryption, StreamKey};
use stream_encryption_api::condition::{ConditionStatus, ConditionType, ReadyState, Reason, find};
use stream_encryption_api::ledger::{Outcome, Owner};
use stream_encryption_api::stream_encryption::{
    EncryptionStatus, KeyIdentity, KeyType, Service, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::ledger_store::resource_identity;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;

use super::LastStatus;
use super::observations::{DISTRUST_PERIOD, TrustedDescribe};
use crate::environment::{Process, State};
use crate::trace::since_start;

/// The shortest retention period of a stream.
const SHORTEST_RETENTION: SignedDuration = SignedDuration::from_hours(24);
/// AWS's settle time.
const PROPAGATION_DELAY: SignedDuration = SignedDuration::from_secs(5);

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

/// Returns whether a status changes only in times and counts that change while the resource is at rest:
///
/// - calls expire, and the message of `Drifted` states the number of calls left;
/// - the message of `Drifted` states when a call would be made, which depends on the time; at most once an hour;
/// - the time ends until which the previous key is required, or it is extended while the active key is unknown, at most
///   twice in a retention period;
/// - the time of AWS's last response is updated, at most once a day.
fn is_only_aged(mut old: StreamEncryptionStatus, mut new: StreamEncryptionStatus, now: Timestamp) -> bool {
    let described_at =
        |status: &StreamEncryptionStatus| status.last_describe_time.as_ref().map(|time| time.0);
    let since_describe = described_at(&old).zip(described_at(&new)).map(|(old, new)| new.duration_since(old));
    let is_daily = since_describe.is_some_and(|time| time >= SignedDuration::from_hours(24));
    let is_drifted = find(&new.conditions, ConditionType::Ready)
        .is_some_and(|ready| ready.reason == Reason::Drifted.as_str());
    let is_hourly_message =
        is_drifted && since_describe.is_some_and(|time| time >= SignedDuration::from_hours(1));
    let is_expired = old
        .previous_key
        .take_if(|key| new.previous_key.is_none() && key.required_until_time.0 <= now)
        .is_some();
    let is_unknown = old.active_key.is_none() && new.active_key.is_none();
    let mut is_extended = false;
    if let (Some(old), Some(new)) = (&mut old.previous_key, &mut new.previous_key)
        && is_unknown
        && new.required_until_time.0.duration_since(old.required_until_time.0) >= SHORTEST_RETENTION / 2
    {
        old.required_until_time = new.required_until_time.clone();
        is_extended = true;
    }
    let is_recounted = old.calls != new.calls;
    let without_times = |mut status: StreamEncryptionStatus| {
        let drifted = status.conditions.iter_mut().filter(|one| one.reason == Reason::Drifted.as_str());
        drifted.for_each(|condition| condition.message.clear());
        StreamEncryptionStatus { calls: None, last_describe_time: None, ..status }
    };
    (is_recounted || is_expired || is_extended || is_daily || is_hourly_message)
        && without_times(old) == without_times(new)
}

impl State {
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
        let is_only_aged = is_only_aged(before.status.clone().unwrap_or_default(), status.clone(), now);
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
        // The replica cannot have later observations of another replica. Its own last Describe may have shown no more than a
        // change, so that the key of its status is that of an earlier one.
        let superseded = observed.is_some_and(|observed| {
            let stable_at =
                observed.last_stable.get(&process.replica).map_or(known_at, |at| known_at.min(*at));
            let is_later = |times: &BTreeMap<usize, Timestamp>, own_at| {
                times.iter().any(|(other, at)| *other != process.replica && *at > own_at)
            };
            is_later(&observed.last_describe, known_at) || is_later(&observed.last_stable, stable_at)
        });
        // A wait that is reported from an outdated ledger may have ended in the current one.
        let is_ledger_outdated = status.stream.as_ref().is_some_and(|stream| {
            let write = stream.arn.as_deref().and_then(|arn| self.invariants.ledger_writes.get(arn));
            let read = self.invariants.ledgers_read.get(&self.current_task.task).copied().unwrap_or_default();
            write.is_some_and(|(replica, _, changes)| *replica != process.replica && *changes > read)
        });
        let observed_at = if is_ledger_outdated { Timestamp::MAX } else { known_at };
        let last = LastStatus { replica: process.replica, written_at: now, observed_at };
        self.invariants.last_status.insert(owner.uid.clone(), last);
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
            self.check_claims(process, &owner, status);
        }
    }

    /// P6: checks the claims of a status about its stream.
    fn check_claims(&mut self, process: Process, owner: &Owner, status: &StreamEncryptionStatus) {
        let now = self.now;
        let Some(arn) = status.stream.as_ref().and_then(|stream| stream.arn.as_deref()) else { return };
        let Some(observed) = self.invariants.observed.get(arn) else { return };
        if observed.missing {
            // The status keeps the last known key. Once the stream exists again, this key is no longer
            // relevant.
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
        let active_key = status.active_key.as_ref().filter(|key| is_comparable(key));
        let Some(stable_encryption) = observed.stable_encryption else {
            if let Some(key) = active_key
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
        if observed.stale {
            return;
        }
        if changed >= stable_encryption {
            self.check_after_failure(process, owner, status, changed);
            return;
        }
        if let Some(key) = active_key
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
        let remembered = (process.replica, arn.to_owned());
        let is_reported_encrypted = (reports_encrypted || reports_enabled)
            && !recently_encrypted
            && !self.invariants.remembered_encrypted.contains(&remembered);
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

    /// P6: checks the claim that records are encrypted after somebody else's change of which AWS has shown no more than the last
    /// failure. The operator cannot know which key is active, unless that is the failure of its own last call.
    fn check_after_failure(
        &mut self,
        process: Process,
        owner: &Owner,
        status: &StreamEncryptionStatus,
        changed: Timestamp,
    ) {
        let now = self.now;
        let Some(arn) = status.stream.as_ref().and_then(|stream| stream.arn.as_deref()) else { return };
        let described =
            self.invariants.observed.get(arn).and_then(|stream| stream.last_describe.get(&process.replica));
        let clocks = self.max_clock_difference();
        let is_shown = described.is_some_and(|at| *at > changed + DISTRUST_PERIOD + clocks);
        let is_plaintext = |at| self.world.stream(arn, at).is_some_and(|stream| stream.active_key.is_none());
        let reports_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == ConditionStatus::True.as_str());
        // A Stop that is in progress or has failed shows that records are still encrypted. Only the simulated AWS lets a Stop of a
        // stream in plaintext fail.
        let shows_start = [AwsEncryption::Enabling, AwsEncryption::EnablingFailed];
        let is_start =
            self.world.stream(arn, now).is_some_and(|stream| shows_start.contains(&stream.encryption));
        // Kinesis reports neither a failure nor which change is in progress.
        let Some(stream) = arn.parse::<StreamArn>().ok().filter(|stream| stream.service == Service::Firehose)
        else {
            return;
        };
        let ledger = self.store.ledger(&ledger::name(&stream));
        let is_own_failure = ledger.is_some_and(|ledger| {
            let known = ledger.spec.known_encryption.as_ref();
            let mut calls = ledger.spec.calls.iter().filter(|call| call.outcome != Outcome::Refused);
            known.is_some_and(|known| calls.any(|call| known.since_time.0 < call.at()))
        });
        if is_shown
            && is_start
            && reports_encrypted
            && !is_own_failure
            && is_plaintext(now)
            && is_plaintext(now - DISTRUST_PERIOD - clocks)
        {
            self.invariants.record_violation("P6", now, || {
                format!(
                    "{} reports encrypted since before somebody else's change, and records are in plaintext",
                    owner.name
                )
            });
        }
    }
}
