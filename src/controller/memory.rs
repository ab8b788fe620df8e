//! What the process remembers of a resource between two visits.
//!
//! Nothing here may matter for safety: a restart loses it all. It saves looks (a status that was just written brings
//! the resource back, and a look costs one of AWS's 5 a second), lets waits grow, and notices a cache that lags.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::asked::retry_of;
use crate::api::condition::Reason;
use crate::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use crate::model::key::{KeyArn, KeyFacts, KeyName, KeyProblem};
use crate::model::ledger::later;
use crate::model::observation::Look;

/// How old a look must be before the retry annotation has the stream looked at anew for nothing but the annotation.
pub const RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// The memories of all resources, by uid.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Visit>>);

/// What the last visit left.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// What was seen of the stream, and when; nothing once it is too old to be used.
    pub look: Option<(Timestamp, Option<Look>)>,
    /// The version of the ledger that the look was read with.
    pub ledger: Option<String>,
    /// What KMS said of the key, by the name that was asked for.
    pub key: Option<(KeyName, Option<KeyFacts>)>,
    /// The active key at the look, and what was wrong with it.
    pub active_key: Option<(KeyArn, Option<KeyProblem>)>,
    /// The reason given, and since when.
    pub waiting: Option<(Reason, Timestamp)>,
    /// The status last written.
    pub status: Option<StreamEncryptionStatus>,
    /// Whether a write of the status since then went unheard: it may have landed, or may land yet.
    pub unheard: bool,
    /// How many looks in a row AWS has not answered.
    pub unanswered: u32,
    /// Until when the look is good.
    pub look_due: Option<Timestamp>,
    /// The retry annotation for which the stream was looked at last; set by [`Memory::keep`].
    pub retry: Option<String>,
    /// When the stream is looked at anew for a retry annotation that has changed too soon after the last look.
    pub retry_due: Option<Timestamp>,
    /// Whether it was being deleted then; set by [`Memory::keep`].
    pub deleting: bool,
}

impl Memory {
    /// What is known of a resource. What was seen is left out once it is due, or when a person has changed something.
    pub fn recall(&self, resource: &StreamEncryption, now: Timestamp) -> Visit {
        let mut visit = self.lock().get(uid(resource)).cloned().unwrap_or_default();
        let deleted = visit.deleting != is_being_deleted(resource);
        let retried = visit.retry != retry_of(resource);
        // A clock that was set back must not have it wait for longer.
        let latest = later(now, RETRY_PAUSE);
        visit.retry_due = look_again_from(&visit).filter(|due| retried && *due > now && *due <= latest);
        let asked_again = deleted || retried && visit.retry_due.is_none();
        if asked_again || visit.look_due.is_none_or(|due| due <= now) {
            visit.look = None;
            visit.key = None;
            visit.active_key = None;
        }
        visit
    }

    /// Keeps what a visit saw and said.
    pub fn keep(&self, resource: &StreamEncryption, visit: Visit) {
        // As long as the look is the one that was too young, the annotation has had no effect.
        let waits = visit.retry_due.is_some() && visit.retry_due == look_again_from(&visit);
        let retry = if waits { visit.retry.clone() } else { retry_of(resource) };
        let visit = Visit { retry, deleting: is_being_deleted(resource), ..visit };
        self.lock().insert(uid(resource).to_owned(), visit);
    }

    /// What is known of the resource of this uid, which may be one that cannot be read.
    #[must_use]
    pub fn visit_of(&self, uid: &str) -> Visit {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Keeps only what was said: all that there is of a resource that cannot be read.
    pub fn keep_status(&self, uid: &str, status: Option<StreamEncryptionStatus>, unheard: bool) {
        self.lock().insert(uid.to_owned(), Visit { status, unheard, ..Visit::default() });
    }

    /// Forgets what was seen of a resource: it must be looked at anew. The status written is still known.
    pub fn forget(&self, resource: &StreamEncryption) {
        if let Some(visit) = self.lock().get_mut(uid(resource)) {
            visit.look_due = None;
        }
    }

    /// A write of the status of the resource of this uid was not answered. No write that is acknowledged after it lets it land any more.
    pub fn unheard(&self, uid: &str) {
        self.lock().entry(uid.to_owned()).or_default().unheard = true;
    }

    /// Forgets every resource whose uid is not among `alive`.
    pub fn retain(&self, alive: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| alive(uid));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Visit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From when on the retry annotation has the stream looked at anew.
fn look_again_from(visit: &Visit) -> Option<Timestamp> {
    visit.look.as_ref().map(|(at, _)| later(*at, RETRY_PAUSE))
}

fn is_being_deleted(resource: &StreamEncryption) -> bool {
    resource.metadata.deletion_timestamp.is_some()
}

fn uid(resource: &StreamEncryption) -> &str {
    resource.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn retried(retry: &str) -> StreamEncryption {
        let mut resource = resource(false);
        let annotation = (crate::api::RETRY_ANNOTATION.to_owned(), retry.to_owned());
        resource.metadata.annotations = Some([annotation].into());
        resource
    }

    #[test]
    fn changed_retry_annotation_has_an_old_look_thrown_away_only() {
        let memory = Memory::default();
        let begin = Timestamp::UNIX_EPOCH;
        let at = |seconds| begin + SignedDuration::from_secs(seconds);
        let look_at = |seconds| Visit {
            look: Some((at(seconds), None)),
            look_due: Some(Timestamp::MAX),
            ..Visit::default()
        };
        memory.keep(&retried("0"), look_at(0));
        let mut looks = 0;
        // Somebody changes it every second.
        for second in 1..=60 {
            let resource = retried(&second.to_string());
            let visit = memory.recall(&resource, at(second));
            if visit.look.is_none() {
                looks += 1;
                memory.keep(&resource, look_at(second));
            } else {
                assert!(visit.retry_due.is_some_and(|due| due <= at(second + 10)), "it is not forgotten");
                memory.keep(&resource, visit);
            }
        }
        assert_eq!(looks, 6);
        // The last change counts once.
        assert!(memory.recall(&retried("60"), at(70)).look.is_some());
        memory.keep(&retried("61"), memory.recall(&retried("61"), at(69)));
        assert!(memory.recall(&retried("61"), at(70)).look.is_none());
    }

    fn resource(deleting: bool) -> StreamEncryption {
        let resource = serde_json::json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": "orders", "uid": "uid-1"},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
        });
        let mut resource: StreamEncryption = serde_json::from_value(resource).unwrap();
        resource.metadata.deletion_timestamp = deleting.then_some(Time(Timestamp::UNIX_EPOCH));
        resource
    }

    /// Each visit that looks may say another status than another replica did, and each status leads to a visit of both.
    #[test]
    fn a_resource_that_is_being_deleted_is_looked_at_anew_once_and_not_at_every_visit() {
        let memory = Memory::default();
        let now = Timestamp::UNIX_EPOCH;
        let seen = || Visit { look: Some((now, None)), look_due: Some(Timestamp::MAX), ..Visit::default() };
        memory.keep(&resource(false), seen());
        assert!(memory.recall(&resource(false), now).look.is_some());
        assert!(memory.recall(&resource(true), now).look.is_none(), "the deletion is news");
        memory.keep(&resource(true), seen());
        assert!(memory.recall(&resource(true), now).look.is_some(), "and then it is not");
    }
}
