//! Records on which stream and keys a resource depends, so that AWS's events about them lead to a reconcile of it.

use stream_encryption_api::stream_encryption::StreamEncryption;

use super::context::Context;
use super::resolve::ResolvedSpec;
use crate::model::arn::{KeyArn, KmsKeyId};

/// Records the stream of a resource before it is described, if the operator receives AWS's events: what happens after the
/// description must not be missed. Also records the desired key, which the resolve step has just described.
pub(super) fn add_desired<A, R>(context: &Context<A, R>, resource: &StreamEncryption, spec: &ResolvedSpec) {
    if context.config.receives_events() {
        context.memory.events.add_dependencies(resource, &spec.stream, &spec.key_names().collect::<Vec<_>>());
    }
}

/// Records the stream, the desired key and the active key of a resource, instead of everything that was recorded before. If
/// KMS has not answered about the desired key, nothing is removed: `key_names` leaves out an alias about which KMS has not
/// answered, and an earlier `add_desired` or `register_from_status` has recorded it.
pub(super) fn replace<A, R>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    spec: &ResolvedSpec,
    active_key: Option<KeyArn>,
) {
    if context.config.receives_events() {
        let active_key = active_key.map(KmsKeyId::Arn);
        let keys: Vec<KmsKeyId> = spec.key_names().chain(active_key).collect();
        let inbox = &context.memory.events;
        if spec.is_key_unanswered() {
            inbox.add_dependencies(resource, &spec.stream, &keys);
        } else {
            inbox.replace_dependencies(resource, &spec.stream, &keys);
        }
    }
}
