//! What the process remembers of a resource between two visits.
//!
//! Nothing here may matter for safety: a restart loses it all. It saves looks (a status that was just written brings
//! the resource back, and a look costs one of AWS's 5 a second), lets waits grow, and notices a cache that lags.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::asked::retry_of;
use crate::api::condition::Reason;
use crate::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use crate::model::key::{KeyArn, KeyFacts, KeyName};
use crate::model::observation::Look;

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
    /// What KMS said last of the key in force, by its ARN.
    pub key_in_force: Option<(KeyArn, Option<KeyFacts>)>,
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
    /// The retry annotation then; set by [`Memory::keep`].
    pub retry: Option<String>,
    /// Whether it was being deleted then; set by [`Memory::keep`].
    pub deleting: bool,
}

impl Memory {
    /// What is known of a resource. What was seen is left out once it is due, or when a person has changed something.
    pub fn recall(&self, resource: &StreamEncryption, now: Timestamp) -> Visit {
        let mut visit = self.lock().get(uid(resource)).cloned().unwrap_or_default();
        let asked_again = visit.retry != retry_of(resource) || visit.deleting != is_being_deleted(resource);
        if asked_again || visit.look_due.is_none_or(|due| due <= now) {
            visit.look = None;
            visit.key = None;
        }
        visit
    }

    /// Keeps what a visit saw and said.
    pub fn keep(&self, resource: &StreamEncryption, visit: Visit) {
        let visit = Visit { retry: retry_of(resource), deleting: is_being_deleted(resource), ..visit };
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
