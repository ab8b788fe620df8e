//! One visit's case: everything that has been gathered about one resource, as the decision's input.

use std::time::Duration;

use jiff::Timestamp;

use super::book::Book;
use super::memory::Visit;
use super::publish::before;
use super::records::RecordError;
use super::resolve::Subject;
use crate::api::condition::{ConditionType, find};
use crate::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use crate::aws::Signer;
use crate::model::claims;
use crate::model::decision::{Input, Seen};
use crate::model::fault::Fault;
use crate::model::key::{Key, KeyArn, KeyProblem};
use crate::model::observation::{Look, Observation};

/// How old may be what a call follows: its look, what was resolved for it, its reservation. A process that was paused longer
/// does not send it.
pub(super) const FRESH: Duration = Duration::from_secs(10);

/// Everything that has been gathered.
pub(super) struct Case {
    /// When.
    pub(super) now: Timestamp,
    /// What is asked for.
    pub(super) subject: Subject,
    /// The ledger.
    pub(super) book: Book,
    /// The stream.
    pub(super) sight: Sight,
    /// When it was looked at in this visit, on the steady clock.
    pub(super) looked: Duration,
    /// What signed that look. Nothing else may sign what follows it.
    pub(super) signer: Option<Signer>,
    /// The active key, whichever key is asked for, and what is wrong with it: what KMS answered with the look, else what the
    /// status reports.
    pub(super) active_key: Option<(KeyArn, Option<KeyProblem>)>,
    /// What the last visit left.
    pub(super) visit: Visit,
}

/// What is known of the stream.
#[allow(clippy::large_enum_variant, reason = "one lives at a time, for one visit")]
pub(super) enum Sight {
    /// Nothing yet.
    NotYet,
    /// AWS could not be asked.
    Failed(Fault),
    /// It was looked at.
    At {
        /// When the look was asked for.
        at: Timestamp,
        /// What AWS answered.
        look: Option<Look>,
        /// What it means.
        observation: Observation,
        /// Whether it was looked at in this visit.
        fresh: bool,
    },
}

impl Sight {
    /// A look, and what it means for `subject`.
    pub(super) fn of(subject: &Subject, at: Timestamp, look: Option<Look>, fresh: bool) -> Self {
        let observation = Observation::of(&subject.stream, look.as_ref());
        Self::At { at, look, observation, fresh }
    }
}

impl Case {
    /// A case with what the last visit saw, if that is still good. It is not once another replica has written the ledger: what
    /// that one saw is newer, and words made from both would contradict themselves.
    pub(super) fn new(
        now: Timestamp,
        subject: Subject,
        book: Book,
        visit: Visit,
        resource: &StreamEncryption,
    ) -> Self {
        let remembered = visit.look.clone().filter(|_| visit.ledger.as_deref() == book.version());
        let sight = match (&subject.fault, remembered) {
            (Some(fault), _) => Sight::Failed(fault.clone()),
            (None, Some((at, look))) => Sight::of(&subject, at, look, false),
            (None, None) => Sight::NotYet,
        };
        let active_key = match sight {
            Sight::At { .. } => visit.active_key.clone(),
            Sight::NotYet | Sight::Failed(_) => {
                before(&resource.metadata, resource.status.as_ref(), &visit).and_then(reported_loss)
            }
        };
        Self { now, subject, book, sight, looked: Duration::ZERO, signer: None, active_key, visit }
    }

    /// The decision's input.
    pub(super) fn input(&self) -> Input<'_> {
        let active_key_problem = self.key_lost().map(|(_, problem)| problem);
        Input { active_key_problem, ..self.without_the_active_key() }
    }

    /// The decision's input, apart from what KMS reported of the active key.
    fn without_the_active_key(&self) -> Input<'_> {
        Input {
            now: self.now,
            stream: &self.subject.stream,
            intent: &self.subject.intent,
            permission: &self.subject.permission,
            ownership: self.book.ownership,
            other_owner: self.book.other_owner(),
            ledger: &self.book.spec,
            seen: match &self.sight {
                Sight::NotYet => Seen::NotYet,
                Sight::Failed(fault) => Seen::Failed(fault),
                Sight::At { at, observation, .. } => Seen::At(*at, observation),
            },
            active_key_problem: None,
            session_age: self.signer.as_ref().and_then(|signer| signer.session_age),
            waiting: self.visit.waiting,
            drift_interval: self.subject.drift_interval,
        }
    }

    /// The active key, if records are lost with it, and why.
    pub(super) fn key_lost(&self) -> Option<(KeyArn, KeyProblem)> {
        let (arn, problem) = self.active_key.as_ref()?;
        let problem = problem.filter(|problem| problem.loses_records())?;
        // It may be another one that is in force by now.
        let is_in_force = claims::customer_key_in_force(&self.without_the_active_key()).as_ref() == Some(arn);
        is_in_force.then(|| (arn.clone(), problem))
    }

    /// Takes what is asked for by now.
    pub(super) fn resolve_again(&mut self, subject: Subject) -> Result<(), RecordError> {
        if subject.stream != self.subject.stream {
            // Other credentials name another account's stream, and the ledger is not that stream's.
            return Err(RecordError::Conflict);
        }
        self.subject = subject;
        Ok(())
    }

    /// How long before `steady` it was begun to resolve what is asked for.
    pub(super) fn resolved_before(&self, steady: Duration) -> Duration {
        steady.saturating_sub(self.subject.resolved)
    }

    /// Whether the stream was looked at in this visit, after the ledger was read.
    pub(super) fn look_is_fresh(&self) -> bool {
        matches!(self.sight, Sight::At { fresh: true, .. })
    }

    /// A time at which AWS took the operator's clock for right, in this visit: it answered a request that was dated so. Of
    /// the times before and after, the earlier one, should somebody have set the clock in between.
    pub(super) fn proven(&self) -> Option<Timestamp> {
        match &self.sight {
            Sight::At { at, fresh: true, .. } => Some((*at).min(self.now)),
            Sight::At { .. } | Sight::NotYet | Sight::Failed(_) => None,
        }
    }

    /// The look, if there is one.
    pub(super) fn look(&self) -> Option<(Timestamp, &Option<Look>)> {
        match &self.sight {
            Sight::At { at, look, .. } => Some((*at, look)),
            Sight::NotYet | Sight::Failed(_) => None,
        }
    }
}

/// The loss of the active key that a status reports. It is reported on where KMS does not answer: what one process remembers,
/// another one does not, and a restart forgets it.
fn reported_loss(status: &StreamEncryptionStatus) -> Option<(KeyArn, Option<KeyProblem>)> {
    status.active_key_unusable_since_time.as_ref()?;
    let Key::Customer(arn) = Key::of(status.key_in_force.as_ref()?) else { return None };
    let reason = find(&status.conditions, ConditionType::KeyUsable)?.reason.parse().ok()?;
    Some((arn, Some(KeyProblem::of_key_in_force(reason)?)))
}
