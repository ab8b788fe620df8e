//! The ledger store: reads a stream's ledger, and writes it only against the version that was read.
//!
//! Whoever wants to call AWS must first have written here. A conflict means that somebody else wrote: the caller drops
//! all that it decided. Nothing here decides; the arithmetic is in [`crate::model::ledger`].
//!
//! A ledger is a claim on its stream, so a resource that no policy allows gets none: it neither creates a ledger nor takes over
//! the ledger of another, however that one's owner fares.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tracing::warn;

use super::permitted::permission_in;
use super::records::{RecordError, Records};
use crate::api::ledger::{Action, Owner, StreamLedger, StreamLedgerSpec};
use crate::api::stream_encryption::{Encryption, StreamEncryption};
use crate::model::decision::Ownership;
use crate::model::ledger;
use crate::model::pattern::Own;
use crate::model::permission::Refusal;
use crate::model::stream::StreamArn;

/// A stream's ledger, as it was read and as it shall be.
#[derive(Clone, Debug)]
pub struct Book {
    /// The ledger as it shall be.
    pub spec: StreamLedgerSpec,
    /// Whose stream it is.
    pub ownership: Ownership,
    /// The ledger's name.
    name: String,
    /// The ledger as it was read.
    stored: Option<StreamLedger>,
    /// Whether somebody else wrote it since.
    pub(super) overtaken: bool,
}

/// Who a resource is, in a ledger.
#[must_use]
pub fn owner(resource: &StreamEncryption) -> Owner {
    owner_of(&resource.metadata)
}

/// The same, of a resource whose content may not be readable.
pub(super) fn owner_of(read: &ObjectMeta) -> Owner {
    Owner {
        namespace: read.namespace.clone().unwrap_or_default(),
        name: read.name.clone().unwrap_or_default(),
        uid: read.uid.clone().unwrap_or_default(),
    }
}

/// What a resource wants of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The stream.
    pub stream: &'a StreamArn,
    /// Whose account the word `own` means in policies without a role.
    pub own: &'a Own,
    /// Whether it may be made.
    pub allowed: bool,
}

/// Reads the ledger of a stream for `resource`. Where its owner holds the stream no longer, and the claim may be made, it is taken
/// over with all that it holds.
pub async fn open<R: Records>(
    records: &R,
    resource: &StreamEncryption,
    claim: &Claim<'_>,
    now: Timestamp,
) -> Result<Book, RecordError> {
    let stream = claim.stream;
    let name = ledger::name(stream);
    let me = owner(resource);
    let empty = ledger::new(stream, me.clone());
    let stored = match records.ledger(&name).await {
        Ok(stored) => stored,
        Err(RecordError::Unusable(why)) => {
            warn!(ledger = name, why, "the ledger cannot be read");
            return Ok(Book::new(name, empty, Ownership::Unreadable, None));
        }
        Err(error) => return Err(error),
    };
    let Some(found) = stored else {
        if !claim.allowed {
            return Ok(Book::new(name, empty, Ownership::Own, None));
        }
        let told =
            resource.status.as_ref().and_then(|status| status.calls.as_ref()).map_or(0, |calls| calls.used);
        if told > 0 {
            warn!(
                ledger = name,
                calls = told,
                "the ledger is gone: the calls that the status tells of are taken as made now"
            );
        }
        let off = resource.spec.encryption == Encryption::Disabled;
        let spec = ledger::regained(&empty, if off { Action::Stop } else { Action::Start }, told, now);
        return Ok(Book::new(name, spec, Ownership::Own, None));
    };
    if let Err(corrupt) = ledger::check(&found.spec, stream) {
        warn!(ledger = name, why = %corrupt, "the ledger cannot be believed");
        return Ok(Book::new(name, empty, Ownership::Unreadable, Some(found)));
    }
    let holder = &found.spec.owner;
    if *holder != me && (!claim.allowed || holds(records, holder, claim).await?) {
        // What it holds is not this resource's to read.
        return Ok(Book::new(name, empty, Ownership::Another, Some(found)));
    }
    let spec = StreamLedgerSpec { owner: me, ..found.spec.clone() };
    Ok(Book::new(name, spec, Ownership::Own, Some(found)))
}

/// Returns whether the owner of a ledger holds its stream still: the resource exists, and a policy of its namespace allows it
/// the stream. Every doubt leaves the stream with its owner.
async fn holds<R: Records>(records: &R, owner: &Owner, claim: &Claim<'_>) -> Result<bool, RecordError> {
    match is_gone(records, owner).await {
        Ok(true) => return Ok(false),
        // It exists, even if its content cannot be read.
        Ok(false) | Err(RecordError::Unusable(_)) => {}
        Err(error) => return Err(error),
    }
    match permission_in(records, &owner.namespace, claim.own.clone()).await {
        Ok(permission) => Ok(permission.stream(claim.stream) != Err(Refusal::Stream)),
        Err(RecordError::Unusable(why)) => {
            warn!(namespace = owner.namespace, why, "the policies of a stream's owner cannot be read");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Whether the resource that owns a ledger is no more, or is another one of that name.
pub(super) async fn is_gone<R: Records>(records: &R, owner: &Owner) -> Result<bool, RecordError> {
    let live = records.resource(&owner.namespace, &owner.name).await?;
    Ok(live.is_none_or(|live| live.metadata.uid.as_deref() != Some(&owner.uid)))
}

impl Book {
    fn new(name: String, spec: StreamLedgerSpec, ownership: Ownership, stored: Option<StreamLedger>) -> Self {
        Self { spec, ownership, name, stored, overtaken: false }
    }

    /// Returns whether the ledger is stored, as far as this visit knows.
    pub(super) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// The name of the resource that owns the stream, if that is another one of the same namespace: others are not to be told.
    pub(super) fn other_owner(&self) -> Option<&str> {
        let other = &self.stored.as_ref().filter(|_| self.ownership == Ownership::Another)?.spec.owner;
        (other.namespace == self.spec.owner.namespace).then_some(other.name.as_str())
    }

    /// The version of the ledger that is stored, as far as this visit knows.
    pub(super) fn version(&self) -> Option<&str> {
        self.stored.as_ref().and_then(|stored| stored.metadata.resource_version.as_deref())
    }

    /// Writes the ledger if it is not stored as it shall be. A ledger with nothing in it is not made. One that cannot be
    /// written is as good as one that cannot be read.
    pub async fn save<R: Records>(&mut self, records: &R) -> Result<(), RecordError> {
        let saved = self.write(records).await;
        if matches!(saved, Err(RecordError::Unusable(_))) {
            self.ownership = Ownership::Unreadable;
        }
        saved
    }

    /// Whether the ledger is to be another than it was read.
    pub(super) fn is_changed(&self) -> bool {
        self.ownership == Ownership::Own && self.stored.as_ref().is_none_or(|stored| stored.spec != self.spec)
    }

    async fn write<R: Records>(&mut self, records: &R) -> Result<(), RecordError> {
        if !self.is_changed() {
            return Ok(());
        }
        let saved = match &self.stored {
            Some(stored) => {
                let changed = StreamLedger { metadata: stored.metadata.clone(), spec: self.spec.clone() };
                records.replace_ledger(&changed).await?
            }
            None if self.spec.in_force.is_none()
                && self.spec.stream_created.is_none()
                && self.spec.calls.is_empty() =>
            {
                return Ok(());
            }
            None => records.create_ledger(&self.name, &self.spec).await?,
        };
        self.spec = saved.spec.clone();
        self.stored = Some(saved);
        Ok(())
    }

    /// Changes the ledger and writes it, from a fresh read where somebody else wrote meanwhile. Only for what is true
    /// whatever else the ledger holds, such as the outcome of a call that was made.
    pub async fn amend<R: Records>(
        &mut self,
        records: &R,
        change: impl Fn(&StreamLedgerSpec) -> StreamLedgerSpec,
    ) -> Result<(), RecordError> {
        for _ in 0..3 {
            self.spec = change(&self.spec);
            match self.save(records).await {
                Err(RecordError::Conflict) => {}
                done => return done,
            }
            let Some(fresh) = records.ledger(&self.name).await? else { return Err(RecordError::Conflict) };
            self.spec = fresh.spec.clone();
            self.stored = Some(fresh);
            self.overtaken = true;
        }
        Err(RecordError::Conflict)
    }
}
