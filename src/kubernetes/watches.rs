//! The watch of the resources, and the configuration that keeps every watch small: one tenant's large objects
//! must not use up the memory of an operator that serves all of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use kube::api::Api;
use kube::core::{DeserializeGuard, Selector, Status};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use stream_encryption_api::stream_encryption::StreamEncryption;
use tokio::sync::SetOnce;

use super::connection::WATCH_SECONDS;
use super::trimmed::Trimmed;
use crate::telemetry::error_chain;

/// Number of objects in one page of a list. A page is in memory twice as text, and each object may have 1.5 MB. The
/// pages are requested one after the other, so a list of 10,000 objects takes a thousand times as long as one request.
const PAGE_SIZE: u32 = 10;

/// Returns the configuration of lists and watches of objects that users may write.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE_SIZE)
}

/// Returns the events of a watch that begins anew, with a list, after each interval `every`. Otherwise a change that
/// the watch has lost would never be seen, because every reconcile reads from the cache that the watch fills. `begin`
/// begins a watch. The interval begins when the list is complete, however long the list takes. A failed watch goes on
/// after a pause. The stream never ends.
///
/// While it lists, no watch runs, and a change is seen once the list is complete; calls are checked live. A list beside
/// the earlier watch would not be safe: a late event of the watch could replace a newer object of the list, and the
/// watch that follows the list would not repeat the newer one.
pub(super) fn relisted<K, W>(
    every: Duration,
    begin: impl Fn() -> W,
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    W: Stream<Item = watcher::Result<Event<K>>>,
{
    let begin = move || {
        let listed = Arc::new(SetOnce::new());
        let is_over = {
            let listed = listed.clone();
            async move {
                listed.wait().await;
                tokio::time::sleep(every).await;
            }
        };
        let events = begin().inspect_ok(move |event| {
            if matches!(event, Event::InitDone) {
                // The flag is already set if this is a later list of the same watch.
                let _ = listed.set(());
            }
        });
        events.take_until(is_over)
    };
    stream::repeat_with(begin).flatten().backoff(WatchBackoff::default())
}

/// The pauses before a failed watch begins anew: half of kube's own, so they grow from less than a second to 15 to 30
/// s, at random. An operator may have hundreds of watches, which an outage of the API server ends at the same time.
#[derive(Default)]
pub(super) struct WatchBackoff(DefaultBackoff);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause / 2)
    }
}

impl Backoff for WatchBackoff {
    /// Does nothing. Each attempt to list begins with an event that is no error, and the pauses would never grow if it
    /// reset them. kube's backoff resets itself two minutes after the last failure.
    fn reset(&mut self) {}
}

/// A resource as the API server delivered it: valid, or the metadata of an invalid one with the error. One invalid
/// object must not stop the watch of the others.
pub type MaybeInvalidResource = DeserializeGuard<StreamEncryption>;

/// Returns every event of the resources in one namespace, or in all, whose labels match the selector. For a
/// resource whose labels no longer match, the API server returns the event of a deletion. The stream never ends.
pub fn resources(
    client: Client,
    namespace: Option<&str>,
    selector: Option<&Selector>,
    relist_every: Duration,
) -> impl Stream<Item = watcher::Result<Event<MaybeInvalidResource>>> + Send + 'static {
    let api: Api<Trimmed<MaybeInvalidResource>> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = match selector {
        Some(selector) => config().labels_from(selector),
        None => config(),
    };
    relisted(relist_every, move || watch(api.clone(), config.clone())).map_ok(unwrap_trimmed)
}

/// Returns the same event with the object inside.
pub(crate) fn unwrap_trimmed<K, M>(event: Event<Trimmed<K, M>>) -> Event<K> {
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
    let Some(status) = status_of(error) else {
        return format!("no valid response from the API server: {}", error_chain(error));
    };
    match status.code {
        // If the path does not exist, the response of the API server is not a Status object.
        404 => "the definitions are not installed; run `stream-encryption-operator crd | kubectl apply --server-side -f -`".to_owned(),
        401 => format!("the API server does not accept the operator's credentials: {}", status.message),
        403 => format!("the operator is not allowed to list or watch {kind}: {}", status.message),
        code => format!("the API server returned {code}: {}", status.message),
    }
}

/// Returns the status with which the API server rejected a list or a watch; `None` if it has not responded.
pub(super) fn status_of(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn watch_begins_anew_after_its_time() {
        let second = Duration::from_secs(1);
        let every = second.saturating_mul(60);
        // A watch that returns its list at once, and then nothing.
        let begin = || stream::iter([Ok(Event::<()>::InitDone)]).chain(stream::pending());
        let start = tokio::time::Instant::now();
        let mut events = std::pin::pin!(relisted(every, begin));
        for number in 0..3 {
            events.next().await.unwrap().unwrap();
            assert_eq!(start.elapsed().as_secs(), number * every.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn long_list_completes_before_watch_begins_anew() {
        let minute = Duration::from_mins(1);
        let begin = || {
            let list = stream::iter([Event::<()>::Init, Event::InitDone]).then(async |event| {
                tokio::time::sleep(minute.saturating_mul(5)).await;
                Ok(event)
            });
            list.chain(stream::pending())
        };
        let start = tokio::time::Instant::now();
        let mut events = std::pin::pin!(relisted(minute, begin));
        for minutes in [5, 10, 16, 21] {
            let event = tokio::time::timeout(Duration::from_hours(1), events.next()).await;
            event.expect("the list completes").unwrap().unwrap();
            assert_eq!(start.elapsed(), minute.saturating_mul(minutes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_failed_lists_grow() {
        let begin = || stream::iter([Ok(Event::<()>::Init), Err(watcher::Error::NoResourceVersion)]);
        let failures = relisted(Duration::from_hours(1), begin).filter(|event| {
            let failed = event.is_err();
            async move { failed }
        });
        let start = tokio::time::Instant::now();
        let times: Vec<Duration> = failures.map(|_| start.elapsed()).take(100).collect().await;
        assert!(times[1] < Duration::from_secs(1), "{times:?}");
        let [next, last] = [times[98], times[99]];
        assert!(last >= next + Duration::from_secs(15), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_watches_begin_anew_at_different_times() {
        let pauses = |_| WatchBackoff::default().take(10).collect::<Vec<_>>();
        let [one, other] = [0, 1].map(pauses);
        assert_ne!(one, other);
    }
}
