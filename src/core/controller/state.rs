//! The state of one reconcile: everything that has been gathered about one resource, as the input of the
//! decision.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};

use super::annotations::retry_token;
use super::clock::Moment;
use super::interruption::Interruption;
use super::kube_api::KubeError;
use super::ledger_store::LedgerHandle;
use super::memory::{KnownCall, LastReconcile, Remembered};
use super::previous_status::previous_status;
use super::resolve::ResolvedSpec;
use super::stream_api::Signer;
use super::term_end::TermEnd;
use crate::model::arn::KeyArn;
use crate::model::aws_error::AwsError;
use crate::model::decision::{Decision, DecisionInput, LastObservation, Ownership};
use crate::model::key::{Key, KeyProblem};
use crate::model::ledger;
use crate::model::observation::{Observation, Requested, StreamDescription};
use crate::model::status_fields;

/// Maximum age of the description and of the resolved spec after the wait for the rate limiter.
pub(super) const MAX_AGE_AFTER_PERMIT: Duration = Duration::from_secs(10);
/// Maximum duration of the last checks and the reservation, up to the call. If the reservation takes longer, the checks are
/// repeated.
pub(super) const MAX_CHECK_DURATION: Duration = Duration::from_secs(10);
/// Maximum age of the description and the resolved spec when the call is reserved, and when it is sent. A process that
/// was paused for longer does not send the call. Three pauses are not detected:
///
/// - one during the second Describe of a reconcile: the age of that description counts from the response, because the request
///   may wait for the rate limiter;
/// - one after the last check;
/// - that of a suspended machine, whose monotonic clock stands still.
///
/// After a pause that follows the reservation, AWS refuses a call that is more than 15 minutes late. A pause before the
/// reservation has no such bound; only changes of the ledger, the resource and the policies are noticed then.
pub(super) const MAX_AGE_AT_CALL: Duration = Duration::from_secs(20);

/// Everything that a reconcile has gathered.
pub(super) struct ReconcileState {
    /// The time for which the reconcile decides and reports. It is that of the last of these steps: the creation of this state,
    /// the end of a Describe, of the checks before a call, of a call, or of a test record.
    pub(super) now: Timestamp,
    /// The resolved spec.
    pub(super) spec: ResolvedSpec,
    /// The ledger.
    pub(super) ledger: LedgerHandle,
    /// The observation of the stream.
    pub(super) observed: Observed,
    /// When the last Describe of this reconcile that succeeded was requested. A Describe succeeds if AWS returns the description,
    /// or answers that the stream does not exist. A refusal is no success, unlike in `answered`. The time is kept if a later
    /// request to KMS fails and `observed` becomes `Failed`.
    pub(super) successful_describe: Option<Timestamp>,
    /// Whether AWS answered this reconcile, as [`Reconciled::answered`](super::Reconciled::answered) states.
    pub(super) answered: Option<bool>,
    /// The time, on the monotonic clock, from which the age of the description is counted. For the first Describe it is
    /// the time of the request. For a second one, which follows the permit for the call, it is the time of the response.
    pub(super) description_start: Duration,
    /// Whether the stream is described only because an event of AWS reports something. Such a Describe must not compete
    /// with changes, because somebody may be able to forge events.
    pub(super) is_for_event: bool,
    /// The action for which the rate limiter's permit was acquired.
    pub(super) permit: Option<Action>,
    /// The signer of the Describe in this reconcile; no other may sign the call after it.
    pub(super) signer: Option<Signer>,
    /// The active key, whether or not it is the desired one, and its problem: as KMS reported it with the
    /// description, otherwise as the status reports it.
    pub(super) active_key_report: Option<(KeyArn, Option<KeyProblem>)>,
    /// Whether the last status reports the active key, or that records are in plaintext.
    pub(super) is_encryption_reported: bool,
    /// Whether `requested` ignores since when this process has known the last call, so that only the time of day decides which
    /// observations are newer than that call. Set for a preview, which remembers no calls and sends none.
    pub(super) ignores_known_call: bool,
    /// The result of the last reconcile.
    pub(super) last: LastReconcile,
    /// The error if the finalizer could not be added or removed. The reconcile fails with it after its report.
    pub(super) finalizer_failure: Option<KubeError>,
    /// The time that AWS is expected to take to change the encryption.
    pub(super) expected_change: SignedDuration,
    /// The end of this replica's term as the leader: a reconcile that still waits for AWS ends then.
    pub(super) term_end: TermEnd,
}

/// What this reconcile knows of the stream: nothing yet, a failed request, or a description and the [`Observation`] that
/// follows from it.
#[allow(clippy::large_enum_variant, reason = "one lives at a time, for one reconcile")]
pub(super) enum Observed {
    /// The stream has not been described yet.
    NotYet,
    /// A request to AWS failed.
    Failed(AwsError),
    /// The stream was described.
    Described {
        /// When the Describe was requested.
        at: Moment,
        /// The response of AWS; `None` if the stream does not exist.
        description: Option<StreamDescription>,
        /// The observation that follows from the response.
        observation: Observation,
        /// Whether the stream was described in this reconcile.
        fresh: bool,
    },
}

impl Observed {
    /// Interprets a description, for the stream of `spec`.
    pub(super) fn of(
        spec: &ResolvedSpec,
        at: Moment,
        description: Option<StreamDescription>,
        fresh: bool,
    ) -> Self {
        let observation = match Observation::of(&spec.stream, description.as_ref()) {
            Observation::Missing if spec.reaches_another_account() => Observation::OtherStream,
            observation => observation,
        };
        Self::Described { at, description, observation, fresh }
    }
}

impl ReconcileState {
    /// Creates the state, with the description of the last reconcile if that description is still valid. The description is
    /// invalid if it is of another stream, or was requested with the credentials of another account. It is also invalid as soon
    /// as another replica has written the ledger: that replica's observation is newer, and a message based on both would
    /// contradict itself.
    pub(super) fn new(
        now: Timestamp,
        spec: ResolvedSpec,
        ledger: LedgerHandle,
        last: LastReconcile,
        resource: &StreamEncryption,
        expected_change: SignedDuration,
    ) -> Self {
        let is_valid = |remembered: &&Remembered| {
            last.ledger_version.as_deref() == ledger.version()
                && remembered.identity == spec.stream_identity()
        };
        let remembered = last.remembered.as_ref().filter(is_valid);
        let described = remembered
            .and_then(|remembered| Some((remembered.stream.clone()?, &remembered.active_key_report)));
        let before = previous_status(&resource.metadata, resource.status.as_ref(), &last);
        // Of a status about another stream, `about` keeps only the last handled retry.
        let before = before.as_deref().map(|before| status_fields::about(before, &spec.stream));
        let is_encryption_reported = before.as_deref().is_some_and(status_fields::is_encryption_reported);
        let (observed, active_key_report) = match (&spec.key_error, described) {
            (None, Some(((at, description), report))) => {
                (Observed::of(&spec, at, description, false), report.as_deref().cloned())
            }
            (error, _) => {
                let observed = error.clone().map_or(Observed::NotYet, Observed::Failed);
                (observed, before.as_deref().and_then(reported_unusable_key))
            }
        };
        Self {
            now,
            ignores_known_call: false,
            answered: spec.answered(),
            spec,
            ledger,
            observed,
            successful_describe: None,
            description_start: Duration::ZERO,
            is_for_event: false,
            permit: None,
            signer: None,
            active_key_report,
            is_encryption_reported,
            last,
            finalizer_failure: None,
            expected_change,
            term_end: TermEnd::default(),
        }
    }

    /// Returns what AWS returned, for the next reconciles. A failed request leaves nothing to be used again.
    pub(super) fn remembered(&self, resource: &StreamEncryption, decision: &Decision) -> Option<Remembered> {
        let stream = match &self.observed {
            Observed::Described { at, description, .. } => Some((*at, description.clone())),
            Observed::NotYet if self.spec.described_key.is_some() => None,
            // The description of another identity is kept. A policy that is replaced, or whose role changes, may be as before in a
            // moment. The stream then need not be described again.
            Observed::NotYet if self.last.ledger_version.as_deref() == self.ledger.version() => {
                let identity = self.spec.stream_identity();
                return self.last.remembered.clone().filter(|remembered| remembered.identity != identity);
            }
            Observed::NotYet | Observed::Failed(_) => return None,
        };
        // The description may be from an earlier reconcile: a retry annotation that has changed since then takes effect with
        // the next description.
        let identity = self.spec.stream_identity();
        let is_used = |remembered: &&Remembered| !self.is_fresh() && remembered.identity == identity;
        let remembered = self.last.remembered.as_ref().filter(is_used);
        // An earlier due time stays in force: an earlier decision needed a newer description from that time on, even if this
        // one does not. The same applies to a test record that was not written yet.
        let dues = [remembered.map(|remembered| remembered.due), self.next_record()];
        let due = dues.into_iter().flatten().fold(decision.describe_due, Timestamp::min);
        Some(Remembered {
            identity,
            stream,
            key: self.spec.described_key.clone().map(Box::new),
            active_key_report: self.active_key_report.clone().map(Box::new),
            due,
            retry: remembered.map_or_else(|| retry_token(resource), |remembered| remembered.retry.clone()),
            deleting: self.spec.desired.deleting,
        })
    }

    /// Returns the time before which no further test record may be written, if it is still to come.
    pub(super) fn next_record(&self) -> Option<Timestamp> {
        self.last.next_record.filter(|next| *next > self.now)
    }

    /// Returns whether a test record may be written: the stream was described in this reconcile, and the last record was
    /// written long enough ago.
    pub(super) fn may_write_record(&self) -> bool {
        self.is_fresh() && self.next_record().is_none()
    }

    /// Returns the input of the decision.
    pub(super) fn input(&self) -> DecisionInput<'_> {
        let active_key_problem = self.active_key_unusable().map(|(_, problem)| problem);
        DecisionInput { active_key_problem, ..self.input_without_active_key_problem() }
    }

    /// Returns the input of the decision with `active_key_problem: None`. It suffices to find out which key is active.
    fn input_without_active_key_problem(&self) -> DecisionInput<'_> {
        DecisionInput {
            now: self.now,
            stream: &self.spec.stream,
            desired: &self.spec.desired,
            permission: &self.spec.permission,
            ownership: self.ledger.ownership,
            other_owner: self.ledger.other_owner(),
            ledger: &self.ledger.spec,
            last_observation: match &self.observed {
                Observed::NotYet => LastObservation::NotYet,
                Observed::Failed(error) => LastObservation::Failed(error),
                Observed::Described { at, observation, .. } => {
                    LastObservation::Described(self.requested(*at), observation)
                }
            },
            is_encryption_reported: self.is_encryption_reported,
            active_key_problem: None,
            session_age: self.signer.as_ref().and_then(|signer| signer.session_age),
            last_reason: self.last.reason,
            drift_interval: self.spec.drift_interval,
            expected_change: self.expected_change,
        }
    }

    /// Returns the time of a Describe in relation to the last call of the ledger.
    pub(super) fn requested(&self, at: Moment) -> Requested {
        if self.ignores_known_call {
            return at.wall.into();
        }
        let call = ledger::last_unrefused_call(&self.ledger.spec);
        let known =
            self.last.known_call.as_ref().filter(|known| call.is_some_and(|call| call.id == known.id));
        // A call that the ledger did not have when this reconcile opened it was sent, or read, after the Describe.
        let call_known_for = known.map_or(Duration::ZERO, |known| at.monotonic.saturating_sub(known.since));
        Requested { at: at.wall, call_known_for }
    }

    /// Returns the unconfirmed call of the ledger and since when this process has known it, for the next reconcile.
    pub(super) fn known_call(&self, now: Duration) -> Option<Box<KnownCall>> {
        known_call(&self.ledger, self.last.known_call.as_deref(), now)
    }

    /// Returns the active key and its problem, if records are lost because of the key.
    pub(super) fn active_key_unusable(&self) -> Option<(KeyArn, KeyProblem)> {
        let (arn, problem) = self.active_key_report.as_ref()?;
        let problem = problem.filter(|problem| problem.makes_key_unusable())?;
        // Another key may be active by now.
        let input = self.input_without_active_key_problem();
        let is_in_force = status_fields::active_customer_key(&input).as_ref() == Some(arn);
        is_in_force.then(|| (arn.clone(), problem))
    }

    /// Replaces the resolved spec. Returns [`Interruption::Outdated`] if the new spec is about another stream, or was
    /// resolved with other policies: the ledger that was opened may not belong to it.
    pub(super) fn replace_spec(&mut self, spec: ResolvedSpec) -> Result<(), Interruption> {
        if spec.stream != self.spec.stream || spec.permission != self.spec.permission {
            // With other credentials the name is that of another account's stream, to which the ledger does
            // not belong.
            return Err(Interruption::Outdated);
        }
        self.spec = spec;
        Ok(())
    }

    /// Returns the age of the resolved spec at `monotonic`, from the start of the resolve step.
    pub(super) fn spec_age(&self, monotonic: Duration) -> Duration {
        monotonic.saturating_sub(self.spec.resolve_started)
    }

    /// Returns the age at `monotonic` of the description in this reconcile, or of the resolved spec if that
    /// is older.
    pub(super) fn age(&self, monotonic: Duration) -> Duration {
        monotonic.saturating_sub(self.description_start).max(self.spec_age(monotonic))
    }

    /// Returns whether the stream was described in this reconcile, after the ledger was read.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.observed, Observed::Described { fresh: true, .. })
    }

    /// Returns the earlier of the times before and after the Describe of this reconcile. AWS accepted a date between them, so
    /// the operator's clock was right then. It is the earlier one, in case the clock was set in between. Correct only
    /// while [`now`](Self::now) is the time after the Describe: no later step may have set it.
    pub(super) fn verified_now(&self) -> Option<Timestamp> {
        match &self.observed {
            Observed::Described { at, fresh: true, .. } => Some(at.wall.min(self.now)),
            Observed::Described { .. } | Observed::NotYet | Observed::Failed(_) => None,
        }
    }

    /// Returns whether a request of this reconcile failed without showing that AWS accepts the time of the operator's clock. AWS
    /// verifies the date and the session with the signature, before anything else. So an error that shows an accepted session
    /// ([`is_of_accepted_session`](crate::model::aws_error::AwsError::is_of_accepted_session)) also shows an accepted date.
    pub(super) fn is_clock_in_doubt(&self) -> bool {
        matches!(&self.observed, Observed::Failed(error) if !error.is_of_accepted_session())
    }

    /// Returns when the stream was described; `None` if there is no description.
    pub(super) fn described_at(&self) -> Option<Timestamp> {
        match &self.observed {
            Observed::Described { at, .. } => Some(at.wall),
            Observed::NotYet | Observed::Failed(_) => None,
        }
    }

    /// Returns the description of the stream; `None` if there is none, or if the stream does not exist.
    pub(super) fn description(&self) -> Option<&StreamDescription> {
        match &self.observed {
            Observed::Described { description, .. } => description.as_ref(),
            Observed::NotYet | Observed::Failed(_) => None,
        }
    }
}

/// Returns the unconfirmed call of the ledger ([`LedgerHandle::unconfirmed_call`]), known since `now` unless it was known before;
/// `None` if there is none. If this resource does not own the ledger, returns `known`.
pub(super) fn known_call(
    ledger: &LedgerHandle,
    known: Option<&KnownCall>,
    now: Duration,
) -> Option<Box<KnownCall>> {
    if ledger.ownership != Ownership::Owned {
        // The ledger cannot be read now, or another resource owns it.
        return known.cloned().map(Box::new);
    }
    let call = ledger.unconfirmed_call()?;
    let known = known.filter(|known| known.id == call.id).cloned();
    Some(Box::new(known.unwrap_or_else(|| KnownCall { id: call.id.clone(), since: now })))
}

/// Returns the unusable active key that a status reports, and its problem. The status keeps its report if KMS does
/// not answer: other replicas do not have the memory of this process, and a restart loses it.
fn reported_unusable_key(status: &StreamEncryptionStatus) -> Option<(KeyArn, Option<KeyProblem>)> {
    status.active_key_unusable_since_time.as_ref()?;
    let Key::Customer(arn) = Key::of(status.active_key.as_ref()?) else { return None };
    let reason = find(&status.conditions, ConditionType::KeyUsable)?.reason.parse().ok()?;
    Some((arn, Some(KeyProblem::of_active_key(reason)?)))
}
