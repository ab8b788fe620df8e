//! The writes to Kubernetes, as values, so that a write can be executed now or after its sender has timed
//! out.
//!
//! Every change of a ledger and every status passes through this module, where the promises check it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::StreamEncryptionStatus;
use stream_encryption_core::controller::kube_api::KubeError;

use crate::environment::{Event, Process, State};

/// Maximum time between the start of a reconcile and its late write.
const LATEST: SignedDuration = SignedDuration::from_hours(24);

/// A write, with all its data.
#[derive(Clone, Debug)]
pub enum Write {
    Create(String, Box<StreamLedgerSpec>),
    Replace(Box<StreamLedger>),
    Delete(Box<StreamLedger>),
    /// Writes a status.
    Status(Box<ObjectMeta>, Box<StreamEncryptionStatus>),
    /// Sets the finalizer, or removes it.
    Finalizer(Box<ObjectMeta>, bool),
}

/// The result of a write.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The ledger after the write.
    pub ledger: Option<StreamLedger>,
    /// The version of the resource after the write.
    pub version: Option<String>,
}

impl State {
    /// Executes a write. The promises check its changes.
    pub fn carry_out(&mut self, write: &Write, by: Process) -> Result<Written, KubeError> {
        match write {
            Write::Create(name, spec) => {
                let made = self.store.create_ledger(name, spec)?;
                self.ledger_changed(None, Some(&made), by);
                Ok(Written { ledger: Some(made), ..Written::default() })
            }
            Write::Replace(ledger) => {
                let before = self.store.ledger(ledger.metadata.name.as_deref().unwrap_or_default()).cloned();
                let after = self.store.replace_ledger(ledger)?;
                self.ledger_changed(before.as_ref(), Some(&after), by);
                Ok(Written { ledger: Some(after), ..Written::default() })
            }
            Write::Delete(ledger) => {
                let before = self.store.ledger(ledger.metadata.name.as_deref().unwrap_or_default()).cloned();
                self.store.delete_ledger(ledger)?;
                self.ledger_changed(before.as_ref(), None, by);
                Ok(Written::default())
            }
            Write::Status(read, status) => {
                let uid = read.uid.as_deref().unwrap_or_default();
                let before = self.store.resource_by_uid(uid).cloned();
                let version = self.store.write_status(read, status)?;
                if let Some(before) = before {
                    self.status_written(by, &before, status);
                }
                Ok(Written { version, ..Written::default() })
            }
            Write::Finalizer(read, present) => {
                let version = self.store.set_finalizer(read, *present)?;
                Ok(Written { version, ..Written::default() })
            }
        }
    }

    /// Schedules a write for a later time; its outcome is not reported to its sender.
    pub fn postpone(&mut self, at: Timestamp, write: Write, by: Process) {
        // It is not known yet when the write lands, or whether it does.
        self.promises.visit_says(self.polled.task, Timestamp::MAX);
        self.late.push((write, by));
        self.agenda.add(at, Event::Late(self.late.len() - 1));
    }

    /// P3, P8: checks a claim: a policy allows the stream to the claiming resource, and the previous owner no
    /// longer exists or is no longer allowed it.
    fn claimed(&mut self, from: Option<&Owner>, claimed: &StreamLedgerSpec) {
        let now = self.now;
        let Ok(stream) = claimed.stream_arn.parse() else { return };
        let by = &claimed.owner;
        // The start of the reconcile of a late write is unknown.
        let since = self.promises.begun.get(&self.polled.task).copied().unwrap_or(now - LATEST);
        if !self.policies.allowed_at_some_time_since(since, &by.namespace, &stream) {
            self.promises.break_with("P8", now, || {
                format!("{}/{} claims {stream}, which no policy allows", by.namespace, by.name)
            });
        }
        if let Some(from) = from
            && self.store.resource_by_uid(&from.uid).is_some()
            && self.policies.allowed_at_all_times_since(since, &from.namespace, &stream)
        {
            self.promises.break_with("P3", now, || {
                format!("{} claimed {stream} from {}, which exists and is allowed it", by.uid, from.uid)
            });
        }
    }

    fn ledger_changed(&mut self, before: Option<&StreamLedger>, after: Option<&StreamLedger>, by: Process) {
        let now = self.now;
        self.promises.visit_says(self.polled.task, now);
        // The deletion of a ledger is cleanup, and ends by itself.
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
