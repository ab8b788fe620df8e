//! The writes to Kubernetes, as values, so that a write can be executed now or after its sender has timed
//! out.
//!
//! Every change of a ledger and every status passes through this module, where the invariants check it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::StreamEncryptionStatus;
use stream_encryption_core::controller::kube_api::KubeError;

use crate::environment::{Event, Process, State};

/// Maximum time between the start of a reconcile and its delayed write.
const MAX_WRITE_DELAY: SignedDuration = SignedDuration::from_hours(24);

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
pub struct WriteResult {
    /// The ledger after the write.
    pub ledger: Option<StreamLedger>,
    /// The version of the resource after the write.
    pub version: Option<String>,
}

impl State {
    /// Executes a write. The invariants check its changes.
    pub fn execute(&mut self, write: &Write, process: Process) -> Result<WriteResult, KubeError> {
        match write {
            Write::Create(name, spec) => {
                let created = self.store.create_ledger(name, spec)?;
                self.ledger_written(None, Some(&created), process);
                Ok(WriteResult { ledger: Some(created), ..WriteResult::default() })
            }
            Write::Replace(ledger) => {
                let before = self.store.ledger(ledger.metadata.name.as_deref().unwrap_or_default()).cloned();
                let after = self.store.replace_ledger(ledger)?;
                self.ledger_written(before.as_ref(), Some(&after), process);
                Ok(WriteResult { ledger: Some(after), ..WriteResult::default() })
            }
            Write::Delete(ledger) => {
                let before = self.store.ledger(ledger.metadata.name.as_deref().unwrap_or_default()).cloned();
                self.store.delete_ledger(ledger)?;
                self.ledger_written(before.as_ref(), None, process);
                Ok(WriteResult::default())
            }
            Write::Status(read, status) => {
                let uid = read.uid.as_deref().unwrap_or_default();
                let before = self.store.resource_by_uid(uid).cloned();
                let version = self.store.write_status(read, status)?;
                if let Some(before) = before {
                    self.check_status(process, &before, status);
                }
                Ok(WriteResult { version, ..WriteResult::default() })
            }
            Write::Finalizer(read, present) => {
                let version = self.store.set_finalizer(read, *present)?;
                Ok(WriteResult { version, ..WriteResult::default() })
            }
        }
    }

    /// Schedules a write for a later time; its outcome is not reported to its sender.
    pub fn delay_write(&mut self, at: Timestamp, write: Write, process: Process) {
        // It is not known yet when the write is executed, or whether it succeeds.
        self.invariants.publish_observations(self.current_task.task, Timestamp::MAX);
        self.delayed_writes.push((write, process));
        self.events.add(at, Event::DelayedWrite(self.delayed_writes.len() - 1));
    }

    /// P3, P8: checks a claim: a policy allows the stream to the claiming resource, and the previous owner no
    /// longer exists or is no longer allowed it.
    fn check_claim(&mut self, previous: Option<&Owner>, ledger: &StreamLedgerSpec) {
        let now = self.now;
        let Ok(stream) = ledger.stream_arn.parse() else { return };
        let owner = &ledger.owner;
        // The start of the reconcile of a delayed write is unknown.
        let since = self
            .invariants
            .reconcile_started
            .get(&self.current_task.task)
            .copied()
            .unwrap_or(now - MAX_WRITE_DELAY);
        if !self.policies.allowed_at_any_time_since(since, &owner.namespace, &stream) {
            self.invariants.record_violation("P8", now, || {
                format!("{}/{} claims {stream}, which no policy allows", owner.namespace, owner.name)
            });
        }
        if let Some(previous) = previous
            && self.store.resource_by_uid(&previous.uid).is_some()
            && self.policies.allowed_at_all_times_since(since, &previous.namespace, &stream)
        {
            self.invariants.record_violation("P3", now, || {
                format!(
                    "{} claimed {stream} from {}, which exists and is allowed it",
                    owner.uid, previous.uid
                )
            });
        }
    }

    /// P10: checks a change of a ledger, and records it.
    fn ledger_written(
        &mut self,
        before: Option<&StreamLedger>,
        after: Option<&StreamLedger>,
        process: Process,
    ) {
        let now = self.now;
        self.invariants.publish_observations(self.current_task.task, now);
        if let Some(ledger) = after.or(before) {
            let write = (process.replica, now, self.store.ledger_changes().len());
            self.invariants.ledger_writes.insert(ledger.spec.stream_arn.clone(), write);
        }
        // The deletion of a ledger is cleanup, and ends by itself.
        self.invariants.writes += u64::from(after.is_some());
        if let Some(after) = after
            && before.is_none_or(|before| before.spec.owner.uid != after.spec.owner.uid)
        {
            self.check_claim(before.map(|before| &before.spec.owner), &after.spec);
        }
        if let Some(after) = after {
            self.end_superseded_wait(before.map(|before| &before.spec), &after.spec, process);
        }
        self.invariants.check_ledger_change(
            before.map(|ledger| &ledger.spec),
            after.map(|ledger| &ledger.spec),
            now,
        );
        self.trace.record(now, || {
            let calls = |ledger: Option<&StreamLedger>| {
                ledger.map_or("gone".to_owned(), |ledger| {
                    let calls =
                        ledger.spec.calls.iter().map(|call| format!("{}={:?}", call.id, call.outcome));
                    let external = ledger.spec.external_calls.len();
                    let others =
                        if external == 0 { String::new() } else { format!(", {external} of others,") };
                    format!("{:?}{others} of {}", calls.collect::<Vec<_>>(), ledger.spec.owner.uid)
                })
            };
            format!("operator {} writes a ledger: {}", process.replica, calls(after))
        });
    }
}
