//! The watch of the resources, and the configuration that keeps every watch small: one tenant's large objects
//! must not use up the memory of an operator that serves all of them.

use futures_util::{Stream, TryStreamExt as _};
use kube::Client;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};

use super::trimmed::Trimmed;
use crate::api::stream_encryption::StreamEncryption;
use crate::telemetry::error_chain;

/// Number of objects in one page of a list. A page is in memory twice as text, and each object may have 1.5
/// MB.
const PAGE_SIZE: u32 = 10;

/// Returns the configuration of lists and watches of objects that users may write.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE)
}

/// A resource, which may be invalid: one such object must not stop the watch of the others.
pub type Guarded = DeserializeGuard<StreamEncryption>;

/// Returns every event of the resources in one namespace, or in all: with their spec, the values of their
/// status, and their identity.
pub fn resources(
    client: Client,
    namespace: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<Guarded>>> + Send + 'static {
    let api: Api<Trimmed<Guarded>> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    watch(api, config()).map_ok(untrimmed).modify(drop_unused_fields)
}

/// Returns the same event with the object inside.
pub(super) fn untrimmed<K>(event: Event<Trimmed<K>>) -> Event<K> {
    match event {
        Event::Apply(object) => Event::Apply(object.0),
        Event::Delete(object) => Event::Delete(object.0),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.0),
        Event::InitDone => Event::InitDone,
    }
}

/// Drops the texts for users, and the metadata that each reconcile reads again. An invalid resource
/// is not read again, so it keeps its finalizers; users cannot create one, because the schema rejects it.
fn drop_unused_fields(resource: &mut Guarded) {
    match &mut resource.0 {
        Ok(resource) => {
            if let Some(status) = &mut resource.status {
                status.conditions.iter_mut().for_each(|condition| condition.message = String::new());
                status.failure = None;
            }
            resource.metadata.annotations = None;
            resource.metadata.finalizers = None;
        }
        Err(invalid) => invalid.metadata.annotations = None,
    }
}

/// Returns the reason why the resources cannot be watched, and what to do about it.
#[must_use]
pub fn explain(error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        other => return format!("no valid response from the API server: {}", error_chain(other)),
    };
    match status.code {
        // If the path does not exist, the response of the API server is not a Status object.
        404 => "the definitions are not installed; run `stream-encryption-operator crd | kubectl apply --server-side -f -`".to_owned(),
        401 => format!("the API server does not accept the operator's credentials: {}", status.message),
        403 => format!("the operator is not allowed to list or watch StreamEncryptions: {}", status.message),
        code => format!("the API server returned {code}: {}", status.message),
    }
}
