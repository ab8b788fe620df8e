//! P6 and P9: checks each status against the observations of its reconcile, and against the true state of the
//! stream.
//!
//! The checks make allowances for what the operator cannot know: what AWS has not shown yet, changes between
//! two Describes, and what another replica has just observed.

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

use super::Promises;
use crate::environment::{ACCOUNT, Process, State};
use crate::trace::since_begin;

/// How long the operator may reject observations that contradict its last call, plus some seconds. The last
/// call may be another replica's, dated by a clock that is ahead.
const DISBELIEF: SignedDuration = SignedDuration::from_secs(75);
/// AWS's settle time.
const PROPAGATION_DELAY: SignedDuration = SignedDuration::from_secs(5);

/// What was observed of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct ShownOf {
    /// The last Describe of each replica.
    last: BTreeMap<usize, Timestamp>,
    /// The keys that were active at the observations, each with the time until which the operator may report
    /// it: indefinitely for the last settled observation and all later ones; for earlier keys, as long as
    /// AWS's answers may lag and reconciles in progress may not have read the newer observations.
    active_key: Vec<(Option<StreamKey>, Timestamp)>,
    /// The time of the last settled observation.
    stable_encryption: Option<Timestamp>,
    /// The time of the settled observation before it.
    settled_before: Option<Timestamp>,
    /// Whether the last Describe reported that the stream does not exist.
    missing: bool,
    /// Whether a Describe showed a past state of unknown age.
    blurred: bool,
    /// The start of the reconcile whose Describe showed the effect of the operator's last call, and the time of
    /// that reconcile's first status.
    confirmed: Option<(Timestamp, Timestamp)>,
}

impl ShownOf {
    /// Marks all observations so far as outdated. Until `disbelieved` the operator may still report them.
    fn forget(&mut self, disbelieved: Timestamp) {
        self.stable_encryption = None;
        for (_, until) in &mut self.active_key {
            *until = (*until).min(disbelieved);
        }
    }
}

/// One Describe.
#[derive(Clone, Debug)]
pub(super) struct Glimpse {
    replica: usize,
    arn: String,
    /// The time of the state that it shows.
    at: Timestamp,
    /// The start of its reconcile.
    begun: Timestamp,
    /// The time until which the operator may still report what contradicts it.
    disbelieved: Timestamp,
    what: What,
}

/// What a Describe shows.
#[derive(Clone, Debug)]
enum What {
    /// The stream does not exist.
    Missing,
    /// The stream exists.
    Stream {
        /// The key that is really active.
        real: Option<StreamKey>,
        /// Whether the operator must trust that state.
        stable_encryption: bool,
        /// Whether the state is a past one of unknown age.
        blurred: bool,
        /// Whether the effect of the operator's last call is shown.
        effect: bool,
    },
}

/// The last Describe of a reconcile, if the operator must trust it: an earlier Describe has shown the effect
/// of the operator's last call.
#[derive(Clone, Debug)]
pub(super) struct Believed {
    arn: String,
    /// Whether the stream was shown as encrypted.
    on: bool,
}

/// Returns a key of AWS in the form of the status.
pub fn written(key: &StreamKey) -> KeyIdentity {
    match key {
        StreamKey::AwsOwned => KeyIdentity { kind: KeyType::AwsOwned, arn: None },
        StreamKey::Kms { given, .. } if given == "alias/aws/kinesis" => {
            KeyIdentity { kind: KeyType::AwsOwned, arn: None }
        }
        StreamKey::Kms { arn, .. } => KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.clone()) },
    }
}

/// Returns whether a status reports this key: completely, or only its type if the namespace may not use it.
fn is_told(real: Option<&StreamKey>, key: &KeyIdentity) -> bool {
    real.map(written).is_some_and(|real| real.kind == key.kind && (key.arn.is_none() || key.arn == real.arn))
}

/// The claims of a status about the stream: the active key, the state, and whether it is encrypted.
type Claimed<'a> = (Option<&'a KeyIdentity>, Option<EncryptionStatus>, Option<&'a String>);

/// Returns whether a status claims nothing new. `Encrypted` becomes Unknown if AWS has not responded for long.
fn is_repeated(before: Claimed<'_>, after: Claimed<'_>) -> bool {
    let withdrawn = after.2.is_some_and(|encrypted| encrypted == ConditionStatus::Unknown.as_str());
    (before.0, before.1) == (after.0, after.1) && (before.2 == after.2 || withdrawn)
}

/// Returns the claims of a status about the stream.
fn claimed(status: &StreamEncryptionStatus) -> Claimed<'_> {
    let encrypted = find(&status.conditions, ConditionType::Encrypted);
    (status.active_key.as_ref(), status.encryption_status, encrypted.map(|condition| &condition.status))
}

impl Promises {
    /// Applies the observations of a reconcile that has ended successfully or has written an object. Returns
    /// whether it had any observations.
    pub fn visit_says(&mut self, task: usize, now: Timestamp) -> bool {
        let Some(glimpses) = self.unsaid.get_mut(&task).map(std::mem::take) else { return false };
        for Glimpse { replica, arn, at, begun, disbelieved, what } in glimpses {
            let shown = self.shown.entry(arn).or_default();
            match what {
                What::Missing => {
                    shown.forget(disbelieved);
                    shown.missing = true;
                }
                What::Stream { real, stable_encryption, blurred, effect } => {
                    if effect {
                        shown.confirmed = Some((begun, now));
                    }
                    shown.last.insert(replica, at);
                    shown.missing = false;
                    if stable_encryption {
                        shown.settled_before = shown.stable_encryption;
                        shown.forget(disbelieved);
                        shown.stable_encryption = Some(at);
                        shown.blurred = blurred;
                    }
                    shown.blurred |= blurred;
                    shown.active_key.retain(|(known, until)| *known != real && *until > at);
                    shown.active_key.push((real, Timestamp::MAX));
                }
            }
        }
        true
    }

    /// Discards the observations of a reconcile that may not write its ledger. They are not stored, and the
    /// status reports this.
    pub fn visit_forgets(&mut self, task: usize) {
        self.unsaid.remove(&task);
    }

    /// Records that a reconcile begins or continues.
    pub fn visit_goes_on(&mut self, task: usize, now: Timestamp) {
        self.begun.entry(task).or_insert(now);
    }

    /// Records that a reconcile has ended.
    pub fn visit_ends(&mut self, task: usize) {
        self.unsaid.remove(&task);
        self.believed.remove(&task);
        self.begun.remove(&task);
        self.policies_shown.remove(&task);
        self.read_since_permit.remove(&task);
    }
}

impl State {
    /// Records a Describe. P8: checks that the stream belongs to the operator. The observation counts once
    /// its reconcile writes, because a dropped reconcile has observed nothing.
    pub fn looked(
        &mut self,
        replica: usize,
        stream: &StreamArn,
        seen: &Result<Option<StreamDescription>, AwsError>,
    ) {
        let now = self.now;
        self.tally.looks += 1;
        if stream.account.as_str() != ACCOUNT {
            self.promises.break_with("P8", now, || format!("a Describe of {stream}"));
        }
        let arn = stream.to_string();
        let lag = self.world.settings().read_lag;
        self.must_be_believed(stream, seen);
        let what = match seen {
            Ok(None) if !self.replicas[replica].mistaken => What::Missing,
            Ok(Some(look)) if look.arn == *stream => {
                let real = self.world.stream(&arn, now - lag).and_then(|real| real.active_key.clone());
                // Soon after a call, the operator may treat the observation as stale.
                let called = self.promises.called.get(&arn).is_some_and(|at| now < *at + READ_LAG + lag);
                let stable_encryption =
                    !called && Observation::of(stream, Some(look)).stable_encryption().is_some();
                // A Describe of a Kinesis stream may be followed by a request to KMS for its key.
                let mut calls = self.world.calls().iter().rev();
                let described = calls
                    .find(|call| call.operation.starts_with("Describe") && call.operation != "DescribeKey");
                let fault = described.and_then(|call| call.fault.as_deref());
                self.story.tell(now, || {
                    let (state, encryption) = (&look.state, &look.encryption);
                    format!("operator {replica} describes {}: {state:?} {encryption:?}", stream.name())
                });
                let effect = self.shows_the_effect_of_the_last_call(stream, look);
                What::Stream { real, stable_encryption, blurred: fault == Some("ReadLag"), effect }
            }
            Ok(_) | Err(_) => return,
        };
        let disbelieved = now + DISBELIEF + self.clocks_apart();
        let begun = self.reconcile_began();
        let glimpse = Glimpse { replica, arn, at: now - lag, begun, disbelieved, what };
        self.promises.unsaid.entry(self.polled.task).or_default().push(glimpse);
    }

    /// Returns the time at which the current reconcile began.
    pub(super) fn reconcile_began(&self) -> Timestamp {
        self.promises.begun.get(&self.polled.task).copied().unwrap_or(self.now)
    }

    /// Returns since when the policies had been in effect that the current reconcile last read from a cache; the
    /// current time if it read none.
    pub(super) fn policies_shown(&self) -> Timestamp {
        self.promises.policies_shown.get(&self.polled.task).copied().unwrap_or(self.now)
    }

    /// Returns whether a Describe shows that the last call of the stream's ledger is in progress or complete.
    fn shows_the_effect_of_the_last_call(&self, stream: &StreamArn, look: &StreamDescription) -> bool {
        let Some(ledger) = self.store.ledger(&ledger::name(stream)) else { return false };
        let observation = Observation::of(stream, Some(look));
        ledger::last_unrefused_call(&ledger.spec)
            .is_some_and(|call| ledger::matches_target(&observation, &call.target))
    }

    /// Records the last Describe of a reconcile, if the operator has no reason to treat it as stale.
    fn must_be_believed(&mut self, stream: &StreamArn, seen: &Result<Option<StreamDescription>, AwsError>) {
        let task = self.polled.task;
        self.promises.believed.remove(&task);
        let arn = stream.to_string();
        let observation = match seen {
            Ok(Some(look)) if look.arn == *stream => Observation::of(stream, Some(look)),
            Ok(_) | Err(_) => return,
        };
        let Some(on) = observation.stable_encryption().map(|key| key.is_some()) else { return };
        let begun = self.reconcile_began();
        let confirmed = self.promises.shown.get(&arn).and_then(|shown| shown.confirmed);
        // A reconcile that had read the ledger before the call was reserved cannot store there that the call took effect.
        let last = self.promises.last_reserved(&arn);
        if confirmed.is_some_and(|(read, said)| last.is_some_and(|last| last < read) && said < begun) {
            self.promises.believed.insert(task, Believed { arn, on });
        }
    }

    /// P6: checks that a status does not contradict what AWS has just shown, once AWS has shown the effect of
    /// the operator's last call.
    fn contradicts(&mut self, of: &Owner, status: &StreamEncryptionStatus) {
        let Some(Believed { arn, on }) = self.promises.believed.get(&self.polled.task).cloned() else {
            return;
        };
        if status.stream.as_ref().is_none_or(|stream| stream.arn.as_ref() != Some(&arn)) {
            return;
        }
        let now = self.now;
        let said_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == ConditionStatus::True.as_str());
        let said = status.encryption_status;
        let contradicted = if on {
            said == Some(EncryptionStatus::Disabled)
        } else {
            said_encrypted || said == Some(EncryptionStatus::Enabled) || status.active_key.is_some()
        };
        if contradicted {
            self.promises.break_with("P6", now, || {
                let shown = if on { "ENABLED" } else { "DISABLED" };
                format!("{} reports {said:?}, but AWS has just shown {shown}", of.name)
            });
        }
    }

    /// P6 and P9: checks that a status reports only what was observed, and that every wait has a reason and
    /// an end.
    pub fn status_written(
        &mut self,
        by: Process,
        before: &StreamEncryption,
        status: &StreamEncryptionStatus,
    ) {
        let now = self.now;
        let looked = self.promises.visit_says(self.polled.task, now);
        let of = resource_identity(before);
        let known = before.status.clone().unwrap_or_default();
        // The status may change because calls expire; this ends by itself. Once an hour, and not more often,
        // it updates the time of AWS's last answer.
        let answered =
            |status: &StreamEncryptionStatus| status.last_describe_time.as_ref().map(|time| time.0);
        let hourly = answered(&known)
            .zip(answered(status))
            .is_some_and(|(old, new)| new.duration_since(old) >= SignedDuration::from_hours(1));
        let news = |status: StreamEncryptionStatus| StreamEncryptionStatus {
            calls: None,
            last_describe_time: None,
            ..status
        };
        let only_aged = (known.calls != status.calls || hourly) && news(known) == news(status.clone());
        // Simultaneous Describes of several replicas may exceed AWS's rate limit; the rate limiter, which
        // spreads them, is not simulated.
        let says = |status: Option<&StreamEncryptionStatus>, reason: Reason| {
            let ready = status.and_then(|status| find(&status.conditions, ConditionType::Ready));
            ready.is_some_and(|ready| ready.reason == reason.as_str())
        };
        let throttled =
            says(before.status.as_ref(), Reason::AwsThrottled) || says(Some(status), Reason::AwsThrottled);
        self.promises.writes += u64::from(!only_aged && !throttled);
        let begun = self.reconcile_began();
        // The status may be based on the Describe of an earlier reconcile.
        let shown = status.stream.as_ref().and_then(|stream| self.promises.shown.get(stream.arn.as_deref()?));
        let known = shown.and_then(|shown| shown.last.get(&by.replica)).map_or(begun, |at| begun.min(*at));
        // The replica cannot know what another replica has observed since.
        let overtaken = shown
            .is_some_and(|shown| shown.last.iter().any(|(other, at)| *other != by.replica && *at > known));
        self.promises.told.insert(of.uid.clone(), known);
        let ready = find(&status.conditions, ConditionType::Ready);
        self.story.tell(now, || {
            format!(
                "operator {} writes the status of {}/{}: {} {:?}, active key {:?}, next attempt {:?}",
                by.replica,
                of.namespace,
                of.name,
                ready.map_or("-", |ready| &ready.reason),
                status.encryption_status,
                status.active_key.as_ref().map(|key| key.arn.as_deref().unwrap_or("AWS-owned")),
                status.next_attempt_time.as_ref().map(|next| since_begin(next.0)),
            )
        });
        let Some(reason) = ready.and_then(|ready| ready.reason.parse::<Reason>().ok()) else {
            self.promises.break_with("P9", now, || format!("the status of {} has no reason", of.name));
            return;
        };
        // If AWS could not be asked for all facts, the status keeps the last known state.
        let not_of_the_look = matches!(reason.ready_state(), ReadyState::Unknown | ReadyState::Unchanged)
            || matches!(
                reason,
                Reason::NotPermitted
                    | Reason::ConflictingPolicyRoles
                    | Reason::DisableNotPermitted
                    | Reason::AccessDenied
                    | Reason::SpecInvalid
            );
        if !not_of_the_look {
            self.contradicts(&of, status);
        }
        let waits = matches!(
            reason,
            Reason::EnablingFailed
                | Reason::DisablingFailed
                | Reason::NotApplied
                | Reason::DriftCorrectionLimitReached
        );
        if waits && !before.spec.suspend && status.next_attempt_time.is_none() {
            self.promises.break_with("P9", now, || {
                format!("{} waits because of {reason}, without a reported end", of.name)
            });
        }
        // Without a Describe, the status keeps the last known key. Claims that are repeated without a
        // Describe were checked when they were first made.
        let repeated =
            before.status.as_ref().is_some_and(|before| is_repeated(claimed(before), claimed(status)));
        if reason != Reason::DisableNotPermitted && (looked || !repeated) && !overtaken {
            self.claims(&of, status);
        }
    }

    fn claims(&mut self, of: &Owner, status: &StreamEncryptionStatus) {
        let now = self.now;
        let Some(arn) = status.stream.as_ref().and_then(|stream| stream.arn.as_deref()) else { return };
        let Some(shown) = self.promises.shown.get(arn) else { return };
        if shown.missing {
            // The status keeps the last known key. Once the stream exists again, this key is no longer
            // relevant.
            return;
        }
        let Some(stable_encryption) = shown.stable_encryption else {
            if let Some(key) = &status.active_key
                && !shown.active_key.iter().any(|(real, until)| *until > now && is_told(real.as_ref(), key))
            {
                let key = key.clone();
                self.promises.break_with("P6", now, || {
                    format!("{} reports {key:?} as the active key, but AWS never showed it", of.name)
                });
            }
            return;
        };
        let touched = self.promises.touched.get(arn).copied().unwrap_or(Timestamp::MIN);
        if shown.blurred || touched >= stable_encryption {
            return;
        }
        // Kinesis may name a key by an alias that KMS does not resolve, and while KMS does not answer it is
        // unknown whether AWS manages a key; in both cases the status cannot say more. The ARN of a customer
        // managed key that no policy allows is redacted.
        let is_aws_managed = |arn: &str| arn.contains(":key/0000");
        let may_be_aws_managed = shown
            .active_key
            .iter()
            .any(|(real, _)| matches!(real, Some(StreamKey::Kms { arn, .. }) if is_aws_managed(arn)));
        let by_arn = |key: &KeyIdentity| match &key.arn {
            Some(arn) => arn.starts_with("arn:") && !is_aws_managed(arn),
            None => key.kind == KeyType::AwsOwned || !may_be_aws_managed,
        };
        if let Some(key) = status.active_key.as_ref().filter(|key| by_arn(key))
            && !shown.active_key.iter().any(|(real, _)| is_told(real.as_ref(), key))
        {
            let (key, real) = (key.clone(), shown.active_key.clone());
            self.promises.break_with("P6", now, || {
                format!("{} reports {key:?} as the active key, but the active key was {real:?}", of.name)
            });
            return;
        }
        let said_encrypted = find(&status.conditions, ConditionType::Encrypted)
            .is_some_and(|condition| condition.status == ConditionStatus::True.as_str());
        let said_enabled = status.encryption_status == Some(EncryptionStatus::Enabled);
        // The other replicas read one replica's observations in the ledger.
        let Some(looked) = shown.last.values().max().copied() else { return };
        // The operator measures the settle time by its own clock: with two replicas it is unknown by which
        // clock, and after a clock was set, how long it really was. A change by another caller that was
        // reverted between two Describes was not observed.
        let clock_is_steady = !self.promises.a_clock_was_set_shortly_before(now);
        let seen_all_along = shown.settled_before.is_none_or(|before| touched < before);
        let waited_for =
            self.replicas.len() == 1 && now >= self.promises.wild_until && clock_is_steady && seen_all_along;
        let at = if said_encrypted && waited_for { looked.min(now - PROPAGATION_DELAY) } else { looked };
        let plain = |at| self.world.stream(arn, at).is_none_or(|real| real.active_key.is_none());
        // The stream was encrypted until a moment ago, and the operator may not trust a newer observation
        // yet.
        let off = shown.active_key.last().is_some_and(|(real, _)| real.is_none());
        let until_lately = |until: Timestamp| until > now && (off || until < Timestamp::MAX);
        let lately = shown.active_key.iter().any(|(real, until)| real.is_some() && until_lately(*until));
        let said = (said_encrypted || said_enabled) && !lately;
        if said && touched < at && plain(at) && plain(now - DISBELIEF - self.clocks_apart()) {
            self.promises.break_with("P6", now, || {
                format!("{} reports encrypted, but at {} records were in plaintext", of.name, since_begin(at))
            });
        }
    }
}
