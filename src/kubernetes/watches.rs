//! The watch of the resources, and the configuration that keeps every watch small: one tenant's large objects
//! must not use up the memory of an operator that serves all of them.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use kube::api::Api;
use kube::core::{DeserializeGuard, Selector, error_boundary::InvalidObject};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{PredicateConfig, WatchStreamExt as _, watcher as watch};
use kube::{Client, Resource as _};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::trigger::trigger as trigger_of;

use super::trimmed::Trimmed;
use crate::telemetry::error_chain;

/// Number of objects in one page of a list. A page is in memory twice as text, and each object may have 1.5
/// MB.
const PAGE_SIZE: u32 = 10;

/// Returns the configuration of lists and watches of objects that users may write.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE)
}

/// Returns the events of the watches that `begin` returns, one after the other, each for the time `every`. Each
/// begins with a list. A watch that has lost a change would never notice it, and every reconcile reads from its
/// cache.
pub(super) fn relisted<W: Stream>(every: Duration, begin: impl Fn() -> W) -> impl Stream<Item = W::Item> {
    stream::repeat_with(move || begin().take_until(tokio::time::sleep(every))).flatten()
}

/// A resource, which may be invalid: one such object must not stop the watch of the others.
pub type Guarded = DeserializeGuard<StreamEncryption>;

/// Returns every event of the resources in one namespace, or in all, whose labels match the selector. For a
/// resource whose labels no longer match, the API server returns the event of a deletion. The stream never ends;
/// `again` is the backoff of a failed watch.
pub fn resources(
    client: Client,
    namespace: Option<&str>,
    selector: Option<&Selector>,
    relist_every: Duration,
    again: impl Backoff + 'static,
) -> impl Stream<Item = watcher::Result<Event<Guarded>>> + Send + 'static {
    let api: Api<Trimmed<Guarded>> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = match selector {
        Some(selector) => config().labels_from(selector),
        None => config(),
    };
    relisted(relist_every, move || watch(api.clone(), config.clone())).map_ok(untrimmed).backoff(again)
}

/// Drops the content of every resource: the trigger depends on its metadata only, and the controller reads the
/// resource from the cache. A resource that is gone is marked, so that its trigger changes: if only its labels did
/// not match for a while, it returns unchanged, and must be reconciled then.
pub fn without_content(
    events: impl Stream<Item = watcher::Result<Event<Guarded>>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<Event<Guarded>>> + Send + 'static {
    events.map_ok(|event| match event {
        Event::Apply(resource) => Event::Apply(only_metadata(resource)),
        Event::InitApply(resource) => Event::InitApply(only_metadata(resource)),
        Event::Delete(resource) => {
            let metadata = resource.meta().clone();
            Event::Delete(DeserializeGuard(Err(InvalidObject { error: GONE.to_owned(), metadata })))
        }
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

/// The mark of a resource that is gone, in place of the error of its content.
const GONE: &str = "gone";

fn only_metadata(resource: Guarded) -> Guarded {
    DeserializeGuard(Err(match resource.0 {
        Ok(resource) => InvalidObject { error: String::new(), metadata: resource.metadata },
        Err(invalid) => invalid,
    }))
}

/// Returns a hash that changes whenever the resource without content is to be reconciled.
#[must_use]
pub fn trigger(resource: &Guarded) -> Option<u64> {
    let InvalidObject { error, metadata } = resource.0.as_ref().err()?;
    Some(trigger_of(metadata, error))
}

/// How long kube remembers the hash of an object that it has not seen. The hashes of deleted objects use memory
/// for that time, so it is short. A forgotten object costs a reconcile without requests.
#[must_use]
pub fn remembered() -> PredicateConfig {
    PredicateConfig::default().ttl(Duration::from_mins(10))
}

/// Returns every object that appears, changes or is deleted, once the cache that the same events fill holds
/// the change. The objects of a list are returned when the list is complete, because kube's store holds them
/// only then.
pub fn changes<K: Send + 'static>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<K>> + Send + 'static {
    let mut listed = Vec::new();
    let changed = events.map_ok(move |event| {
        let changed = match event {
            Event::Init => {
                listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                listed.push(object);
                Vec::new()
            }
            Event::InitDone => std::mem::take(&mut listed),
            Event::Apply(object) | Event::Delete(object) => vec![object],
        };
        stream::iter(changed.into_iter().map(Ok))
    });
    changed.try_flatten()
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

/// Returns the reason why the objects of a kind cannot be watched, and what to do about it. `kind` is the plural
/// of the kind.
#[must_use]
pub fn explain(error: &watcher::Error, kind: &str) -> String {
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
        403 => format!("the operator is not allowed to list or watch {kind}: {}", status.message),
        code => format!("the API server returned {code}: {}", status.message),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn listed_objects_are_returned_when_list_is_complete() {
        let events = [
            Event::Init,
            Event::InitApply(1),
            // The list fails, and begins again.
            Event::Init,
            Event::InitApply(2),
            Event::InitApply(3),
            Event::InitDone,
            Event::Apply(4),
            Event::Delete(5),
            Event::Init,
            Event::InitApply(6),
        ];
        let changed: Vec<u8> =
            changes(stream::iter(events.map(Ok))).map(|changed| changed.unwrap()).collect().await;
        assert_eq!(changed, [2, 3, 4, 5]);
    }

    fn resource(name: &str) -> Guarded {
        let metadata = serde_json::json!({"name": name, "namespace": "data", "uid": name, "generation": 1});
        let spec = serde_json::json!({"stream": {"service": "Kinesis", "name": name}});
        let resource = serde_json::json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": metadata, "spec": spec,
        });
        serde_json::from_value(resource).unwrap()
    }

    /// Its labels are moved to those of another shard and back, and nothing else changes.
    #[tokio::test]
    async fn returning_resource_is_reconciled_again() {
        let [moved, other] = ["moved", "other"].map(resource);
        let events = [
            Event::Apply(moved.clone()),
            Event::Apply(moved.clone()),
            Event::Apply(other.clone()),
            Event::Delete(moved.clone()),
            Event::Apply(other),
            Event::Apply(moved),
        ];
        let events = without_content(stream::iter(events.map(Ok)));
        let triggers = changes(events).predicate_filter(trigger, remembered());
        let names: Vec<String> =
            triggers.map(|one| one.unwrap().meta().name.clone().unwrap()).collect().await;
        assert_eq!(names, ["moved", "other", "moved", "moved"]);
    }

    #[tokio::test(start_paused = true)]
    async fn watch_begins_anew_after_its_time() {
        let second = Duration::from_secs(1);
        let every = second.saturating_mul(60);
        // A watch that returns its list at once, and then nothing.
        let begin = || stream::iter([()]).chain(stream::pending());
        let start = tokio::time::Instant::now();
        let mut events = std::pin::pin!(relisted(every, begin));
        for number in 0..3 {
            events.next().await.unwrap();
            assert_eq!(start.elapsed().as_secs(), number * every.as_secs());
        }
    }
}
