//! The writes to Kubernetes, as values: so that one can be carried out now, or after its sender has given up.
//!
//! Every change of a ledger and every status passes here, on its way past the promises.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_operator::api::ledger::{StreamLedger, StreamLedgerSpec};
use stream_encryption_operator::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use stream_encryption_operator::controller::records::RecordError;

use crate::scene::{Event, Process, State};

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

    fn ledger_changed(&mut self, before: Option<&StreamLedger>, after: Option<&StreamLedger>, by: Process) {
        let now = self.now;
        self.promises.visit_says(self.polled.task);
        // Putting a ledger away is housekeeping, and comes to an end by itself.
        self.promises.writes += u64::from(after.is_some());
        if let (Some(before), Some(after)) = (before, after)
            && before.spec.owner.uid != after.spec.owner.uid
            && self.store.resource_by_uid(&before.spec.owner.uid).is_some()
        {
            let (from, to) = (&before.spec.owner.uid, &after.spec.owner.uid);
            self.promises.break_with("P3", now, || {
                format!("{to} took {} from {from}, which is alive", after.spec.stream_arn)
            });
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
