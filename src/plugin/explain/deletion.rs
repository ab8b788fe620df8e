//! The deletion of a resource, and what it does to the encryption of the stream. Pure.

use jiff::Timestamp;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::is_deleted_without_disabling;

/// The deletion of a resource that still exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deletion {
    /// When somebody deleted the resource.
    pub(super) since: Timestamp,
    /// Whether the operator disables encryption before the resource is gone.
    pub(super) disables_encryption: bool,
}

impl Deletion {
    /// Returns the deletion of a resource; `None` if the resource is not being deleted.
    pub(super) fn of(resource: &StreamEncryption) -> Option<Self> {
        let since = resource.metadata.deletion_timestamp.as_ref()?.0;
        Some(Self { since, disables_encryption: !is_deleted_without_disabling(resource) })
    }
}
