//! What Kubernetes stores, as types; nothing is computed here.
//!
//! [`stream_encryption`] is the resource that users write, [`policy`] what administrators allow them, [`ledger`] the operator's own
//! record of one stream, and [`condition`] the words in which a status speaks. `crds/` is generated from these types.

pub mod condition;
pub mod crd;
#[cfg(test)]
pub(crate) mod damage;
pub mod ledger;
pub mod policy;
pub mod stream_encryption;

/// The API group of every resource of the operator.
pub const GROUP: &str = "streamencryption.dev";
/// The version of every resource of the operator.
pub const VERSION: &str = "v1alpha1";
/// The finalizer that a resource carries while `deletionPolicy` is `Disable`, and only then.
pub const FINALIZER: &str = "streamencryption.dev/disable-encryption";
/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "stream-encryption-operator";
/// Changing the value of this annotation asks for a try now, without waiting for the backoff. It never gets past the budget.
pub const RETRY_ANNOTATION: &str = "streamencryption.dev/retry";
/// `"true"` (or yes, on, 1, in any case) acts as `spec.suspend: true`: for a person in a hurry where the spec belongs to Git.
pub const SUSPEND_ANNOTATION: &str = "streamencryption.dev/suspend";
