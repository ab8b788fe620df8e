//! The writes to Kubernetes, as values: so that one can be carried out now, or after its sender has given up.
//!
//! Every change of a ledger and every status passes here, on its way past the promises.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_operator::api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_operator::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use stream_encryption_operator::controller::records::RecordError;

use crate::scene::{Event, Process, State};

/// How long before a late write its visit may have begun.
const LATEST: SignedDuration = SignedDuration::from_hours(24);

/// A write, with all that it needs.
#[derive(Clone, Debug)]
pub enum Write {
    /// Makes a ledger.
    Create(String, Box<StreamLedgerSpec>),
    /// Replaces a ledger.
    Replace(Box<StreamLedger>),
    /// Deletes a ledger.
    Delete(Box<StreamLedger>),
    /// Writes a status.
    Status(Box<ObjectMeta>, Box<StreamEncryptionStatus>),
    /// Sets the finalizer, or takes it away.
    Finalizer(Box<StreamEncryption>, bool),
}

impl State {
    /// Carries a write out. The promises see what it changes.
    pub fn carry_out(&mut self, write: &Write, by: Process) -> Result<Option<StreamLedger>, RecordError> {
        match write {
            Write::Create(name, spec) => {
                let made = self.store.create_ledger(name, spec)?;
                self.ledger_changed(None, Some(&made), by);
                Ok(Some(made))
            }
            Write::Replace(ledger) => {
                let before = self.store.ledger(ledger.metadata.name.as_deref().unwrap_or_default()).cloned();
                let after = self.store.replace_ledger(ledger)?;
                self.ledger_changed(before.as_ref(), Some(&after), by);
                Ok(Some(after))
            }
            Write::Delete(ledger) => {
                let before = self.store.ledger(ledger.metadata.name.as_deref().unwrap_or_default()).cloned();
                self.store.delete_ledger(ledger)?;
                self.ledger_changed(before.as_ref(), None, by);
                Ok(None)
            }
            Write::Status(read, status) => {
                let uid = read.uid.as_deref().unwrap_or_default();
                let before = self.store.resource_by_uid(uid).cloned();
                self.store.write_status(read, status)?;
                if let Some(before) = before {
                    self.status_written(by, &before, status);
                }
                Ok(None)
            }
            Write::Finalizer(resource, present) => {
                self.store.set_finalizer(resource, *present).map(|()| None)
            }
        }
    }

    /// Carries a write out at a later time; nobody hears of its outcome.
    pub fn postpone(&mut self, at: Timestamp, write: Write, by: Process) {
        self.promises.visit_says(self.polled.task);
        self.late.push((write, by));
        self.agenda.add(at, Event::Late(self.late.len() - 1));
    }

    /// P3, P8: a stream is claimed by a resource that a policy allows it, and from none that exists and is allowed it.
    fn claimed(&mut self, from: Option<&Owner>, claimed: &StreamLedgerSpec) {
        let now = self.now;
        let Ok(stream) = claimed.stream_arn.parse() else { return };
        let by = &claimed.owner;
        // Nothing is known of the visit whose write is carried out late.
        let since = self.promises.begun.get(&self.polled.task).copied().unwrap_or(now - LATEST);
        if !self.policies.allowed_at_some_time_since(since, &by.namespace, &stream) {
            self.promises.break_with("P8", now, || {
                format!("{}/{} claims {stream}, which no policy allows it", by.namespace, by.name)
            });
        }
        if let Some(from) = from
            && self.store.resource_by_uid(&from.uid).is_some()
            && self.policies.allowed_at_all_times_since(since, &from.namespace, &stream)
        {
            self.promises.break_with("P3", now, || {
                format!("{} took {stream} from {}, which is alive and allowed it", by.uid, from.uid)
            });
        }
    }

    fn ledger_changed(&mut self, before: Option<&StreamLedger>, after: Option<&StreamLedger>, by: Process) {
        let now = self.now;
        self.promises.visit_says(self.polled.task);
        // Putting a ledger away is housekeeping, and comes to an end by itself.
        self.promises.writes += u64::from(after.is_some());
        if let Some(after) = after
            && before.is_none_or(|before| before.spec.owner.uid != after.spec.owner.uid)
        {
            self.claimed(before.map(|before| &before.spec.owner), &after.spec);
        }
        self.promises.ledger_changed(
            before.map(|ledger| &ledger.spec),
            after.map(|ledger| &ledger.spec),
            now,
        );
        self.story.tell(now, || {
            let calls = |ledger: Option<&StreamLedger>| {
                ledger.map_or("gone".to_owned(), |ledger| {
                    let calls =
                        ledger.spec.calls.iter().map(|call| format!("{}={:?}", call.id, call.outcome));
                    format!("{:?} of {}", calls.collect::<Vec<_>>(), ledger.spec.owner.uid)
                })
            };
            format!("operator {} writes a ledger: {}", by.replica, calls(after))
        });
    }
}
