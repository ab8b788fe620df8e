//! Kubernetes in memory: resources and ledgers, with the API server's rules for versions, generations,
//! conflicts, finalizers and deletion, as far as the operator and its users need them.
//!
//! It is pure: time, faults and delays come from the ports. A property test compares it with a real API
//! server (`tests/suite/simulated_kubernetes.rs`), so that a write has the same result as in Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stream_encryption_api::ledger::{StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Mode, StreamEncryption, StreamEncryptionSpec, StreamEncryptionStatus, UNSEEN,
};
use stream_encryption_api::{FINALIZER, RETRY_ANNOTATION};
use stream_encryption_core::controller::kube_api::KubeError;

/// Maximum number of calls in the schema of a ledger.
const MAX_LEDGER_ENTRIES: usize = 256;
/// Maximum number of external calls in this schema.
const MAX_EXTERNAL_CALLS: usize = 64;
/// Maximum length of texts in this schema, in characters.
const MAX_ARN_LENGTH: usize = 256;
const MAX_ID_LENGTH: usize = 64;
const MAX_CODE_BYTES: usize = 128;
const MAX_REASON_LENGTH: usize = 64;
const MAX_RETRY_LENGTH: usize = 256;
const MAX_CALLER_TYPE_LENGTH: usize = 32;

/// The namespace and name of a resource.
pub type Name = (String, String);

/// One change of a resource, as a watch delivers it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource after the change; before it, if the resource was deleted.
    pub resource: Arc<StreamEncryption>,
    pub deleted: bool,
}

/// All objects, and the history of the resources.
#[derive(Clone, Debug, Default)]
pub struct Store {
    version: u64,
    uids: u64,
    resources: BTreeMap<Name, Arc<StreamEncryption>>,
    /// The resources that are stored as created. The API server returns them with the CRD's default status,
    /// and stores this status with the next write, even if that write changes nothing.
    unstored_default: BTreeSet<Name>,
    ledgers: BTreeMap<String, StreamLedger>,
    changes: Vec<Change>,
    ledger_changes: Vec<LedgerChange>,
}

/// One change of a ledger: its name, and its content after the change, if it still exists.
pub type LedgerChange = (String, Option<StreamLedger>);

/// Returns the namespace and name of a resource.
pub fn name_of(resource: &StreamEncryption) -> Name {
    name_in(&resource.metadata)
}

fn name_in(metadata: &ObjectMeta) -> Name {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

impl Store {
    /// Returns every change of a resource so far, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns every change of a ledger so far, oldest first.
    pub fn ledger_changes(&self) -> &[LedgerChange] {
        &self.ledger_changes
    }

    /// Returns the uid of every resource that ever existed.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        let uids: BTreeSet<&str> =
            self.changes.iter().filter_map(|change| change.resource.metadata.uid.as_deref()).collect();
        uids.into_iter()
    }

    /// Adds the objects, and the part of their history that an outdated cache of the ledgers can contain.
    pub fn add_to_fingerprint(&self, add: &mut dyn FnMut(&dyn Debug)) {
        add(&(self.version, self.uids, &self.resources, &self.unstored_default, &self.ledgers));
        add(&(self.changes.len(), self.ledger_changes.len(), self.ledger_changes.iter().rev().nth(1)));
    }

    pub fn resources(&self) -> impl Iterator<Item = &Arc<StreamEncryption>> {
        self.resources.values()
    }

    pub fn resource(&self, name: &Name) -> Option<&Arc<StreamEncryption>> {
        self.resources.get(name)
    }

    pub fn resource_by_uid(&self, uid: &str) -> Option<&Arc<StreamEncryption>> {
        self.resources.values().find(|resource| resource.metadata.uid.as_deref() == Some(uid))
    }

    pub fn ledger(&self, name: &str) -> Option<&StreamLedger> {
        self.ledgers.get(name)
    }

    pub fn ledgers(&self) -> impl Iterator<Item = &StreamLedger> {
        self.ledgers.values()
    }

    /// Returns the number of writes that changed an object.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Runs `kubectl apply`: creates a resource, or changes its spec. Writes only if the spec differs.
    /// Returns false if the schema rejects the spec.
    pub fn apply(&mut self, name: &Name, spec: &StreamEncryptionSpec, now: Timestamp) -> bool {
        let resource = match self.resources.get(name) {
            Some(stored) if stored.spec == *spec => {
                self.write_unchanged(name);
                return true;
            }
            Some(stored) if stored.spec.stream != spec.stream => return false,
            _ if spec.mode == Mode::Observe && spec.deletion_policy == DeletionPolicy::Disable => {
                return false;
            }
            Some(stored) => {
                let mut changed = (**stored).clone();
                changed.spec = spec.clone();
                increment_generation(&mut changed.metadata);
                changed
            }
            None => {
                let mut created = StreamEncryption::new(&name.1, spec.clone());
                created.metadata.namespace = Some(name.0.clone());
                created.metadata.uid = Some(self.next_uid());
                created.metadata.generation = Some(1);
                created.metadata.creation_timestamp = Some(whole_second(now));
                // As in the CRD.
                let default_status =
                    StreamEncryptionStatus { observed_generation: Some(UNSEEN), ..Default::default() };
                created.status = Some(default_status);
                created
            }
        };
        let created = !self.resources.contains_key(name);
        self.put(resource);
        if created {
            self.unstored_default.insert(name.clone());
        }
        true
    }

    /// Runs `kubectl annotate`: requests an immediate retry.
    pub fn annotate(&mut self, name: &Name, retry: &str) {
        let Some(stored) = self.resources.get(name) else { return };
        let mut changed = (**stored).clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        if annotations.insert(RETRY_ANNOTATION.to_owned(), retry.to_owned()).as_deref() == Some(retry) {
            self.write_unchanged(name);
        } else {
            self.put(changed);
        }
    }

    /// Runs `kubectl delete`: a resource with a finalizer is only marked.
    pub fn delete(&mut self, name: &Name, now: Timestamp) {
        let Some(stored) = self.resources.get(name) else { return };
        if stored.metadata.finalizers.iter().flatten().next().is_none() {
            self.remove(name);
        } else if stored.metadata.deletion_timestamp.is_none() {
            let mut marked = (**stored).clone();
            marked.metadata.deletion_timestamp = Some(whole_second(now));
            increment_generation(&mut marked.metadata);
            self.put(marked);
        }
    }

    /// Creates a ledger; a conflict if a ledger of this name exists.
    pub fn create_ledger(&mut self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        validate_ledger(spec)?;
        if self.ledgers.contains_key(name) {
            return Err(KubeError::Conflict);
        }
        let mut ledger = StreamLedger::new(name, normalized(spec));
        ledger.metadata.uid = Some(self.next_uid());
        ledger.metadata.generation = Some(1);
        ledger.metadata.resource_version = Some(self.next_version());
        self.store_ledger(name, Some(ledger.clone()));
        Ok(ledger)
    }

    /// Replaces a ledger; a conflict unless its version is the one that was read. Writes only if the ledger
    /// differs.
    pub fn replace_ledger(&mut self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let name = ledger.metadata.name.clone().unwrap_or_default();
        let stored = self.ledgers.get(&name).ok_or(KubeError::Conflict)?;
        let is_same = stored.metadata.resource_version == ledger.metadata.resource_version
            && stored.metadata.uid == ledger.metadata.uid;
        if !is_same {
            return Err(KubeError::Conflict);
        }
        validate_ledger(&ledger.spec)?;
        if stored.spec.stream_arn != ledger.spec.stream_arn {
            return Err(KubeError::Rejected("streamARN is immutable".to_owned()));
        }
        let spec = normalized(&ledger.spec);
        if stored.spec == spec {
            return Ok(stored.clone());
        }
        let mut changed = StreamLedger { metadata: stored.metadata.clone(), spec };
        increment_generation(&mut changed.metadata);
        changed.metadata.resource_version = Some(self.next_version());
        self.store_ledger(&name, Some(changed.clone()));
        Ok(changed)
    }

    /// Deletes a ledger; a conflict unless its version is the one that was read.
    pub fn delete_ledger(&mut self, ledger: &StreamLedger) -> Result<(), KubeError> {
        let name = ledger.metadata.name.clone().unwrap_or_default();
        let is_same = self.ledgers.get(&name).is_some_and(|stored| {
            stored.metadata.resource_version == ledger.metadata.resource_version
                && stored.metadata.uid == ledger.metadata.uid
        });
        if !is_same {
            return Err(KubeError::Conflict);
        }
        self.version += 1;
        self.store_ledger(&name, None);
        Ok(())
    }

    /// Deletes a ledger regardless of its version, as a user or a garbage collector would.
    pub fn remove_ledger(&mut self, name: &str) -> bool {
        self.version += 1;
        self.store_ledger(name, None)
    }

    /// Stores a ledger or removes it. Returns whether it existed.
    fn store_ledger(&mut self, name: &str, ledger: Option<StreamLedger>) -> bool {
        self.ledger_changes.push((name.to_owned(), ledger.clone()));
        match ledger {
            Some(ledger) => self.ledgers.insert(name.to_owned(), ledger).is_some(),
            None => self.ledgers.remove(name).is_some(),
        }
    }

    /// Writes the status, if the resource still has the version that was read. Writes only if the status
    /// differs. Returns the new version; a resource that does not exist is not an error.
    pub fn write_status(
        &mut self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        let name = name_in(read);
        let Some(stored) = self.resources.get(&name) else { return Ok(None) };
        if stored.metadata.resource_version != read.resource_version {
            return Err(KubeError::Conflict);
        }
        let status = Some(normalized(status));
        if stored.status != status {
            let mut changed = (**stored).clone();
            changed.status = status;
            self.put(changed);
        }
        Ok(self.version_of(&name))
    }

    fn version_of(&self, name: &Name) -> Option<String> {
        self.resources.get(name)?.metadata.resource_version.clone()
    }

    /// Sets or removes the operator's finalizer, if the resource still has the version that was read.
    /// Removing the last finalizer of a resource that is being deleted deletes it. Returns the new version; a
    /// resource that does not exist is not an error.
    pub fn set_finalizer(&mut self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        let name = name_in(read);
        let Some(stored) = self.resources.get(&name) else { return Ok(None) };
        if stored.metadata.resource_version != read.resource_version {
            return Err(KubeError::Conflict);
        }
        let mut finalizers = stored.metadata.finalizers.clone().unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if present {
            if stored.metadata.deletion_timestamp.is_some() && before == finalizers.len() {
                return Err(KubeError::Rejected(
                    "no new finalizers can be added if the object is being deleted".to_owned(),
                ));
            }
            finalizers.push(FINALIZER.to_owned());
        }
        if stored.metadata.deletion_timestamp.is_some() && finalizers.is_empty() {
            let last = stored.metadata.resource_version.clone();
            self.remove(&name);
            return Ok(last);
        }
        let mut changed = (**stored).clone();
        changed.metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
        if changed.metadata.finalizers == stored.metadata.finalizers {
            self.write_unchanged(&name);
        } else {
            self.put(changed);
        }
        Ok(self.version_of(&name))
    }

    /// Handles a write that changes nothing: it has no effect, except that it stores a default.
    fn write_unchanged(&mut self, name: &Name) {
        if self.unstored_default.contains(name)
            && let Some(stored) = self.resources.get(name)
        {
            self.put((**stored).clone());
        }
    }

    fn put(&mut self, mut resource: StreamEncryption) {
        self.unstored_default.remove(&name_of(&resource));
        resource.metadata.resource_version = Some(self.next_version());
        let resource = Arc::new(resource);
        self.resources.insert(name_of(&resource), resource.clone());
        self.changes.push(Change { resource, deleted: false });
    }

    fn remove(&mut self, name: &Name) {
        self.unstored_default.remove(name);
        if let Some(resource) = self.resources.remove(name) {
            self.version += 1;
            self.changes.push(Change { resource, deleted: true });
        }
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn next_uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }
}

/// Increments the generation, which counts changes of the spec and the deletion mark.
fn increment_generation(metadata: &mut ObjectMeta) {
    metadata.generation = Some(metadata.generation.unwrap_or(0) + 1);
}

/// Validates the bounds of a ledger's schema.
fn validate_ledger(spec: &StreamLedgerSpec) -> Result<(), KubeError> {
    let is_within = |text: &str, max| text.chars().count() <= max;
    let is_valid = |text: Option<&String>, max| text.is_none_or(|text| is_within(text, max));
    let error = if spec.calls.len() > MAX_LEDGER_ENTRIES {
        Some(format!("spec.calls: Too many: must have at most {MAX_LEDGER_ENTRIES} items"))
    } else if spec.stream_arn.is_empty() || !is_within(&spec.stream_arn, MAX_ARN_LENGTH) {
        Some(format!("spec.streamARN: must have 1 to {MAX_ARN_LENGTH} characters"))
    } else if !spec.calls.iter().all(|call| {
        is_within(&call.id, MAX_ID_LENGTH)
            && is_valid(call.code.as_ref(), MAX_CODE_BYTES)
            && is_valid(call.request_id.as_ref(), MAX_CODE_BYTES)
    }) {
        Some("spec.calls: Too long: an id or a code".to_owned())
    } else if spec.external_calls.len() > MAX_EXTERNAL_CALLS
        || !spec.external_calls.iter().all(|call| {
            (1..=MAX_ID_LENGTH).contains(&call.event_id.chars().count())
                && is_valid(call.code.as_ref(), MAX_CODE_BYTES)
                && is_valid(call.caller_type.as_ref(), MAX_CALLER_TYPE_LENGTH)
        })
    {
        Some("spec.externalCalls: too many or too long".to_owned())
    } else if !spec.attempts.iter().all(|attempts| {
        is_valid(attempts.reason.as_ref(), MAX_REASON_LENGTH)
            && is_valid(attempts.retry.as_ref(), MAX_RETRY_LENGTH)
    }) {
        Some("spec.attempts: Too long: the reason or the retry".to_owned())
    } else {
        None
    };
    error.map_or(Ok(()), |error| Err(KubeError::Rejected(error)))
}

/// Returns the stored form of an object: a `Time` is truncated to seconds, a `MicroTime` to microseconds.
fn normalized<T: Clone + Serialize + DeserializeOwned>(object: &T) -> T {
    serde_json::to_value(object).and_then(serde_json::from_value).unwrap_or_else(|_| object.clone())
}

/// Returns a time in the precision of Kubernetes metadata.
fn whole_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
