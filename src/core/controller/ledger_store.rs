//! The ledger store: reads a stream's ledger, and writes it only against the version that was read.
//!
//! A call to AWS requires a successful write here first. A conflict means that another writer was first: the
//! caller discards all its decisions. This file decides nothing; the arithmetic is in
//! [`crate::model::ledger`].
//!
//! A ledger is a claim on its stream, so a resource that no policy allows gets none: the resource neither
//! creates a ledger nor takes over the ledger of another resource, whatever the state of that resource.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Call, Outcome, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::StreamEncryption;
use tracing::warn;

use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{KubeApi, KubeError, ReadFrom};
use super::memory::UnwrittenEncryption;
use super::policies::permission_in;
use crate::model::arn::{AwsAccount, StreamArn};
use crate::model::aws_error::AwsError;
use crate::model::aws_event::CallEvent;
use crate::model::decision::Ownership;
use crate::model::ledger::{self, external};
use crate::model::status_fields;

/// A stream's ledger: as it was read, and as it is to be written.
#[derive(Clone, Debug)]
pub struct LedgerHandle {
    /// The ledger as it is to be written.
    pub spec: StreamLedgerSpec,
    /// Which resource manages the stream, according to the ledger; `Owned` if no ledger is stored.
    pub ownership: Ownership,
    /// The ledger's name.
    name: String,
    /// The ledger as it was last read or written; `None` if it is not stored.
    stored: Option<StreamLedger>,
    /// Whether another writer may have changed the ledger after this reconcile first read it, so that the observation may be
    /// older than the ledger. Also set if a write of this reconcile was applied without an acknowledgement, because the two cases
    /// look the same.
    pub(super) superseded: bool,
    /// The number of consecutive writes that the API server did not acknowledge, up to the last write of this reconcile. It may
    /// have executed them.
    pub(super) unacknowledged_writes: u32,
}

/// Returns the identity of a resource, as ledgers store it.
#[must_use]
pub fn resource_identity(resource: &StreamEncryption) -> Owner {
    resource_identity_of(&resource.metadata)
}

/// Returns the identity of a resource whose content may be invalid.
pub(super) fn resource_identity_of(read: &ObjectMeta) -> Owner {
    Owner {
        namespace: read.namespace.clone().unwrap_or_default(),
        name: read.name.clone().unwrap_or_default(),
        uid: read.uid.clone().unwrap_or_default(),
    }
}

/// The claim of a resource on a stream.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The stream.
    pub stream: &'a StreamArn,
    /// The operator's account. The word `own` stands for it in a policy without a role; in a policy with a role, `own`
    /// stands for the role's account.
    pub operator_account: &'a AwsAccount,
    /// Whether the claim may be made.
    pub allowed: bool,
}

/// Reads the ledger of a stream for `resource` from this source. If the cache holds another version than `known`, the last one
/// that this process saw, reads from the API server instead. If the ledger's owner no longer holds the stream and the claim
/// may be made, the ledger is taken over with its entire content. If no ledger is stored, returns a new one as `Owned`. It has
/// the calls that the status reports if the claim may be made, and is empty otherwise.
pub(super) async fn open<A, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    claim: &Claim<'_>,
    known: Option<&str>,
    from: ReadFrom,
) -> Result<LedgerHandle, KubeError> {
    let kube = &context.kube;
    let stream = claim.stream;
    let name = ledger::name(stream);
    let me = resource_identity(resource);
    let empty = ledger::new(stream, me.clone());
    let status = resource.status.as_ref().filter(|status| status_fields::may_be_of(status, stream));
    let reported = status.and_then(|status| status.calls.as_ref());
    // External calls are left out, because a rebuilt ledger records calls as the operator's own. The budget may then be
    // too large, until AWS refuses a call.
    let reported_calls = reported.map_or(0, |calls| calls.used.saturating_sub(calls.external.unwrap_or(0)));
    let stored = match read(kube, &name, known, reported_calls, from).await {
        Ok(stored) => stored,
        Err(KubeError::Rejected(why)) => {
            warn!(ledger = name, why, "failed to read the ledger");
            return Ok(LedgerHandle::new(name, empty, Ownership::LedgerInvalid, None));
        }
        Err(error) => return Err(error),
    };
    let Some(found) = stored else {
        if !claim.allowed {
            // No resource manages the stream. The policies do not allow this resource to manage it, or the resource is suspended.
            // `decide` reports that before it reads the ownership, so `Owned` has no effect. An empty ledger is not stored.
            return Ok(LedgerHandle::new(name, empty, Ownership::Owned, None));
        }
        if reported_calls > 0 {
            warn!(
                ledger = name,
                calls = reported_calls,
                "the ledger is gone: the calls that the status reports are counted as sent now"
            );
        }
        let spec = ledger::rebuilt_from_status(&empty, stream.service, reported_calls, context.clock.now());
        return Ok(LedgerHandle::new(name, spec, Ownership::Owned, None));
    };
    if let Err(corrupt) = ledger::validate(&found.spec, stream) {
        warn!(ledger = name, why = %corrupt, "invalid ledger");
        return Ok(LedgerHandle::new(name, empty, Ownership::LedgerInvalid, Some(found)));
    }
    let holder = &found.spec.owner;
    if *holder != me && (!claim.allowed || holds(kube, holder, claim).await?) {
        // This resource may not read the content of the ledger.
        return Ok(LedgerHandle::new(name, empty, Ownership::Another, Some(found)));
    }
    let spec = StreamLedgerSpec { owner: me, ..found.spec.clone() };
    Ok(LedgerHandle::new(name, spec, Ownership::Owned, Some(found)))
}

/// Reads a ledger. The cache is not believed if it lags behind `known`, or if it holds no ledger although the
/// status reports calls.
async fn read<R: KubeApi>(
    kube: &R,
    name: &str,
    known: Option<&str>,
    reported_calls: u32,
    from: ReadFrom,
) -> Result<Option<StreamLedger>, KubeError> {
    let found = kube.ledger(name, from).await?;
    let version = found.as_ref().and_then(|found| found.metadata.resource_version.as_deref());
    let lags = known.is_some_and(|known| version != Some(known)) || reported_calls > 0 && found.is_none();
    if from == ReadFrom::Cache && lags { kube.ledger(name, ReadFrom::ApiServer).await } else { Ok(found) }
}

/// Returns whether the owner of a ledger holds the stream: the resource exists, and a policy of its namespace allows
/// the stream. In every case of doubt the owner keeps the stream.
pub(super) async fn holds<R: KubeApi>(kube: &R, owner: &Owner, claim: &Claim<'_>) -> Result<bool, KubeError> {
    match is_gone(kube, owner, ReadFrom::ApiServer).await {
        Ok(true) => return Ok(false),
        // The resource exists, or may exist: it cannot be read.
        Ok(false) | Err(KubeError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    match permission_in(kube, &owner.namespace, claim.operator_account.clone(), ReadFrom::ApiServer).await {
        Ok(permission) => Ok(permission.allows(claim.stream)),
        Err(KubeError::Rejected(why)) => {
            warn!(namespace = owner.namespace, why, "failed to read the policies of the stream's owner");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the resource that owns a ledger no longer exists according to this source, or another one exists
/// under its name.
pub(super) async fn is_gone<R: KubeApi>(kube: &R, owner: &Owner, from: ReadFrom) -> Result<bool, KubeError> {
    let found = kube.resource(&owner.namespace, &owner.name, from).await?;
    Ok(!found.is_some_and(|found| is_owner(&found, owner)))
}

/// Returns whether this resource is the owner of a ledger, and not a later one under its name.
pub(super) fn is_owner(resource: &StreamEncryption, owner: &Owner) -> bool {
    resource.metadata.uid.as_deref() == Some(&owner.uid)
}

impl LedgerHandle {
    fn new(name: String, spec: StreamLedgerSpec, ownership: Ownership, stored: Option<StreamLedger>) -> Self {
        Self { spec, ownership, name, stored, superseded: false, unacknowledged_writes: 0 }
    }

    /// Applies events that report calls. Returns whether a call of somebody else was added. The ledger of
    /// another resource is left as it is, and none is created unless the resource `may_claim` the stream.
    pub(super) fn record_events(&mut self, events: &[CallEvent], may_claim: bool, now: Timestamp) -> bool {
        if !self.may_record_events(may_claim) || events.is_empty() {
            return false;
        }
        let recorded = external::record_events(&self.spec, events, now);
        let is_news = recorded.external_calls != self.spec.external_calls;
        self.spec = recorded;
        is_news
    }

    /// Records that the call with this id was not sent, for this cause, if the ledger has its reservation without an outcome.
    pub(super) fn record_unsent(&mut self, id: &str, cause: &AwsError, now: Timestamp) {
        let is_pending = |call: &Call| call.id == id && call.outcome == Outcome::Pending;
        if !self.spec.calls.iter().any(is_pending) {
            return;
        }
        warn!(ledger = self.name, call = id, cause = cause.message, "the call was not sent");
        self.spec = ledger::record_outcome(&self.spec, id, Err(cause), now);
    }

    /// Returns whether this resource may enter the calls of others into the ledger. It may if it owns a stored ledger. If no
    /// ledger is stored, it may if it may claim the stream.
    pub(super) fn may_record_events(&self, may_claim: bool) -> bool {
        self.ownership == Ownership::Owned && (may_claim || self.is_stored())
    }

    /// Returns the last call that AWS may have applied; `None` if there is none, if an observation has already shown the effect
    /// or the failure of this call, or if this resource does not own the ledger.
    pub(super) fn unconfirmed_call(&self) -> Option<&Call> {
        if self.ownership != Ownership::Owned {
            return None;
        }
        ledger::last_unrefused_call(&self.spec).filter(|call| !call.confirmed)
    }

    /// Returns what this reconcile has learned of the encryption, if the ledger could be read and cannot be written.
    pub(super) fn unwritten_encryption(&self) -> Option<Box<UnwrittenEncryption>> {
        let stored = self.stored.as_ref().filter(|_| self.ownership == Ownership::LedgerInvalid)?;
        let is_written = stored.spec.stream_creation_time == self.spec.stream_creation_time
            && stored.spec.known_encryption == self.spec.known_encryption;
        (!is_written).then(|| {
            Box::new(UnwrittenEncryption {
                ledger_version: stored.metadata.resource_version.clone(),
                stream_creation_time: self.spec.stream_creation_time.clone(),
                known: self.spec.known_encryption.clone(),
            })
        })
    }

    /// Applies what the last reconcile of this process has learned of the encryption, if the ledger is still the one that lacks
    /// it.
    pub(super) fn restore_encryption(&mut self, unwritten: &UnwrittenEncryption) {
        if self.ownership != Ownership::Owned || self.version() != unwritten.ledger_version.as_deref() {
            return;
        }
        if self.spec.stream_creation_time != unwritten.stream_creation_time {
            // The attempts were made on the earlier stream under the same name.
            self.spec.satisfied = None;
            self.spec.attempts = None;
        }
        self.spec.stream_creation_time.clone_from(&unwritten.stream_creation_time);
        self.spec.known_encryption.clone_from(&unwritten.known);
    }

    /// Returns whether the ledger is stored, as of the last read or write in this reconcile.
    pub(super) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// Returns the name of the resource that owns the stream, if that is another one of the same namespace.
    /// Names from other namespaces are not disclosed.
    pub(super) fn other_owner(&self) -> Option<&str> {
        let other = &self.stored.as_ref().filter(|_| self.ownership == Ownership::Another)?.spec.owner;
        (other.namespace == self.spec.owner.namespace).then_some(other.name.as_str())
    }

    /// Returns the version of the stored ledger, as of the last read or write in this reconcile.
    pub(super) fn version(&self) -> Option<&str> {
        self.stored.as_ref().and_then(|stored| stored.metadata.resource_version.as_deref())
    }

    /// Writes the ledger if it differs from the stored one. An empty ledger is not created. A ledger that
    /// cannot be written is treated like one that cannot be read.
    pub async fn save<R: KubeApi>(&mut self, kube: &R) -> Result<(), KubeError> {
        let saved = self.write(kube).await;
        if matches!(saved, Err(KubeError::Rejected(_))) {
            self.ownership = Ownership::LedgerInvalid;
        }
        saved
    }

    /// Returns whether the ledger is owned and differs from the stored one. An empty ledger is not stored.
    pub(super) fn is_changed(&self) -> bool {
        let LedgerHandle { spec, .. } = self;
        let is_empty = spec.known_encryption.is_none()
            && spec.stream_creation_time.is_none()
            && spec.calls.is_empty()
            && spec.external_calls.is_empty();
        self.ownership == Ownership::Owned
            && self.stored.as_ref().map_or(!is_empty, |stored| stored.spec != *spec)
    }

    /// Returns whether the change claims the stream.
    pub(super) fn claims(&self) -> bool {
        self.is_changed() && self.stored.as_ref().is_none_or(|stored| stored.spec.owner != self.spec.owner)
    }

    /// Returns the owner from whom the change takes the stream over.
    pub(super) fn replaced_owner(&self) -> Option<&Owner> {
        Some(&self.stored.as_ref().filter(|_| self.claims())?.spec.owner)
    }

    /// Returns whether the change depends on the spec: it claims the stream, begins or ends attempts, or records
    /// that the desired state is reached.
    pub(super) fn depends_on_spec(&self) -> bool {
        let depends = |stored: &StreamLedger| {
            stored.spec.attempts != self.spec.attempts || stored.spec.satisfied != self.spec.satisfied
        };
        self.claims() || self.is_changed() && self.stored.as_ref().is_some_and(depends)
    }

    /// Returns [`Interruption::Outdated`] if the ledger is not the current one. For a step that does not write
    /// the ledger: a write is checked by the API server.
    pub(super) async fn ensure_unchanged<R: KubeApi>(&self, kube: &R) -> Result<(), Interruption> {
        let current = match kube.ledger(&self.name, ReadFrom::ApiServer).await {
            Err(KubeError::Rejected(_)) if self.ownership == Ownership::LedgerInvalid => return Ok(()),
            current => current?,
        };
        let version = current.as_ref().and_then(|current| current.metadata.resource_version.as_deref());
        if version == self.version() { Ok(()) } else { Err(Interruption::Outdated) }
    }

    async fn write<R: KubeApi>(&mut self, kube: &R) -> Result<(), KubeError> {
        if !self.is_changed() {
            return Ok(());
        }
        let saved = match &self.stored {
            Some(stored) => {
                let changed = StreamLedger { metadata: stored.metadata.clone(), spec: self.spec.clone() };
                kube.replace_ledger(&changed).await?
            }
            None => kube.create_ledger(&self.name, &self.spec).await?,
        };
        self.spec = saved.spec.clone();
        self.stored = Some(saved);
        Ok(())
    }

    /// Replaces `spec` by the stored ledger, after a write has failed. Undoes the `LedgerInvalid` that `save` sets: the
    /// resource owns the stored ledger.
    pub(super) fn discard_changes(&mut self) {
        if let Some(stored) = &self.stored {
            self.spec.clone_from(&stored.spec);
            self.ownership = Ownership::Owned;
        }
    }

    /// Changes the ledger and writes it. If another writer was first, or the API server does not acknowledge the write, the
    /// change is applied to a fresh read. Only for changes that are right whatever else the ledger holds, and however often they
    /// are made, such as the outcome of a call that was sent. If that outcome were lost, the stream would wait for
    /// [`MAX_IN_FLIGHT`](ledger::MAX_IN_FLIGHT), 31 minutes.
    pub async fn update_with_retry<R: KubeApi>(
        &mut self,
        kube: &R,
        change: impl Fn(&StreamLedgerSpec) -> StreamLedgerSpec,
    ) -> Result<(), KubeError> {
        let mut last_error = KubeError::Conflict;
        for _ in 0..3 {
            self.spec = change(&self.spec);
            let version = self.version().map(ToOwned::to_owned);
            match self.save(kube).await {
                // Whether or not the ledger can be read now, it may be newer than the observation.
                Err(KubeError::Conflict) => self.superseded = true,
                Err(error @ KubeError::Unavailable(_)) => last_error = error,
                done => return done,
            }
            let fresh = match kube.ledger(&self.name, ReadFrom::ApiServer).await {
                Ok(Some(fresh)) => fresh,
                Ok(None) => return Err(KubeError::Conflict),
                // The API server is still unavailable. If the write was applied after all, the next one conflicts.
                Err(error @ KubeError::Unavailable(_)) => {
                    last_error = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // The write may have been applied, or another writer may have been first.
            self.superseded |= fresh.metadata.resource_version != version;
            self.spec = fresh.spec.clone();
            self.stored = Some(fresh);
        }
        Err(last_error)
    }
}
