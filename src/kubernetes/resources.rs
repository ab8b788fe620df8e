//! What users see, on the API server: status, events and the finalizer. The spec, labels and annotations are never written.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource};
use serde_json::json;
use tracing::debug;

use super::ask::{DEADLINE, MANAGER, ask_for};
use super::trimmed::Trimmed;
use crate::api::FINALIZER;
use crate::api::ledger::Owner;
use crate::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus};
use crate::controller::records::{Happening, RecordError};

/// The longest note of an event, in bytes: the API server refuses a longer one.
const LONGEST_NOTE: usize = 1024;

/// A resource, live, without the metadata that the operator does not use.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<StreamEncryption>, RecordError> {
    let api: Api<Trimmed<StreamEncryption>> = Api::namespaced(client.clone(), namespace);
    Ok(ask_for(api.get(name)).await?.map(|read| read.0))
}

/// Writes the status, if the resource is still the version that was read: what was seen of another version, or before a pause,
/// is not written over what others have said since. The uid alone would not do: a server-side apply to `/status` takes the
/// object's own (seen on 1.35.4).
pub(super) async fn write_status(
    api: &Api<StreamEncryption>,
    read: &ObjectMeta,
    status: &StreamEncryptionStatus,
) -> Result<(), RecordError> {
    let name = read.name.as_deref().unwrap_or_default();
    let body = json!({
        "apiVersion": StreamEncryption::api_version(&()),
        "kind": StreamEncryption::kind(&()),
        "metadata": {"name": name, "uid": read.uid, "resourceVersion": read.resource_version},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    ask_for(api.patch_status(name, &parameters, &Patch::Apply(&body))).await.map(|_| ())
}

/// Adds or removes the finalizer, if the list of finalizers is still the one that was read.
pub(super) async fn set_finalizer(
    api: &Api<StreamEncryption>,
    resource: &StreamEncryption,
    present: bool,
) -> Result<(), RecordError> {
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let mut finalizers = resource.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if present {
        finalizers.push(FINALIZER.to_owned());
    }
    let body = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": resource.metadata.resource_version,
    }});
    ask_for(api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await.map(|_| ())
}

/// Publishes an event.
pub(super) async fn tell(recorder: &Recorder, resource: &Owner, happening: &Happening) {
    let about = ObjectReference {
        api_version: Some(StreamEncryption::api_version(&()).into_owned()),
        kind: Some(StreamEncryption::kind(&()).into_owned()),
        namespace: Some(resource.namespace.clone()),
        name: Some(resource.name.clone()),
        uid: Some(resource.uid.clone()),
        ..ObjectReference::default()
    };
    let event = event(happening);
    match tokio::time::timeout(DEADLINE, recorder.publish(&event, &about)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an event was lost"),
        Err(_) => debug!("an event was lost: no answer in time"),
    }
}

fn event(happening: &Happening) -> Event {
    let note = &happening.note[..happening.note.floor_char_boundary(LONGEST_NOTE)];
    Event {
        type_: if happening.warning { EventType::Warning } else { EventType::Normal },
        reason: happening.reason.clone(),
        note: Some(note.to_owned()),
        action: happening.action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_event_fit_into_one_in_whatever_language_they_are() {
        for (note, kept) in [
            ("short".to_owned(), "short".to_owned()),
            ("ü".repeat(1000), "ü".repeat(512)),
            ("€".repeat(1000), "€".repeat(341)),
            ("x".repeat(1025), "x".repeat(1024)),
            (String::new(), String::new()),
        ] {
            let happening = Happening {
                warning: true,
                reason: "SpecInvalid".to_owned(),
                action: "Reconcile",
                note,
                encrypted_after: None,
            };
            assert_eq!(event(&happening).note, Some(kept));
        }
    }
}
