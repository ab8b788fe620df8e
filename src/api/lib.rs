//! The types that Kubernetes stores; nothing is computed here.
//!
//! [`stream_encryption`] is the resource that users write, [`policy`] the permissions that administrators
//! grant, [`ledger`] the operator's own record of one stream, and [`condition`] the conditions of a status.
//! `crds/` is generated from these types.
//!
//! Another Rust program can read and write the resources with this crate and kube's client. It depends on no part of
//! the operator, and the program chooses the version of Kubernetes, by a feature of k8s-openapi.
//!
//! ```
//! use stream_encryption_api::condition::{ConditionType, find};
//! use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionSpec, StreamReference};
//!
//! let stream = StreamReference {
//!     arn: Some("arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".to_owned()),
//!     ..StreamReference::default()
//! };
//! let resource = StreamEncryption::new("orders", StreamEncryptionSpec { stream, ..Default::default() });
//! // With a client: `Api::<StreamEncryption>::namespaced(client, "data").create(&params, &resource)`
//! assert_eq!(serde_json::to_value(&resource)?["kind"], "StreamEncryption");
//!
//! let is_encrypted = |resource: &StreamEncryption| {
//!     let status = resource.status.as_ref()?;
//!     find(&status.conditions, ConditionType::Encrypted).map(|condition| condition.status == "True")
//! };
//! assert_eq!(is_encrypted(&resource), None);
//! # Ok::<(), serde_json::Error>(())
//! ```

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub mod condition;
pub mod crd;
pub mod ledger;
pub mod policy;
mod reason;
pub mod stream_encryption;

/// The finalizer of a resource whose `deletionPolicy` is `Disable`, while policies allow it to disable the encryption.
pub const FINALIZER: &str = "streamencryption.dev/disable-encryption";
/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "stream-encryption-operator";
/// The annotation that requests a retry: a change of its value starts the next attempt now, without waiting
/// for the backoff. It never exceeds the budget.
pub const RETRY_ANNOTATION: &str = "streamencryption.dev/retry";
/// `"true"` (or yes, on, 1, in upper or lower case) acts as `spec.suspend: true`, for a quick change while the spec is
/// managed in Git.
pub const SUSPEND_ANNOTATION: &str = "streamencryption.dev/suspend";

/// Returns whether an object has the [`FINALIZER`].
#[must_use]
pub fn has_finalizer(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}
