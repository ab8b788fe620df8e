//! When each resource became Ready, by a watch of the benchmark's own.
//!
//! The operator's metrics would tell the number, too, but a scrape would cost the operator CPU time. This file only
//! watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::StreamExt as _;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use stream_encryption_api::condition::{ConditionStatus, ConditionType, find};
use stream_encryption_api::stream_encryption::StreamEncryption;
use tokio::task::AbortHandle;

/// How long no resource may change before the benchmark gives up. Resources may be described for minutes before
/// the first one is Ready.
const PATIENCE: Duration = Duration::from_mins(2);
/// Number of resources that the error names.
const NAMED: usize = 3;

/// The watch of the resources, from its first complete list until it is dropped.
pub(crate) struct Readiness {
    state: Arc<Mutex<State>>,
    watch: AbortHandle,
}

#[derive(Default)]
struct State {
    /// When each resource was Ready first.
    ready: HashMap<String, Instant>,
    /// The state of each resource that has not been Ready yet.
    waiting: HashMap<String, String>,
    /// When the last one of those changed.
    changed: Option<Instant>,
}

impl Readiness {
    /// Watches the resources, and returns when all `expected` are listed.
    pub(crate) async fn watch(client: Client, expected: usize) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let seen = state.clone();
        let api: Api<StreamEncryption> = Api::all(client);
        let changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
        let watching = tokio::spawn(changes.for_each(move |change| {
            if let Ok(resource) = change {
                lock(&seen).see(&resource);
            }
            std::future::ready(())
        }));
        let readiness = Self { state, watch: watching.abort_handle() };
        let end = Instant::now() + PATIENCE;
        while lock(&readiness.state).waiting.len() < expected {
            if Instant::now() > end {
                bail!("the resources are not listed within {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(readiness)
    }

    /// Returns the number of resources that have been Ready, or an error if none has changed for long.
    pub(crate) fn count(&self, since: Instant) -> anyhow::Result<usize> {
        let state = lock(&self.state);
        let last = state.changed.map_or(since, |changed| changed.max(since));
        if last.elapsed() > PATIENCE && !state.waiting.is_empty() {
            let named: Vec<String> =
                state.waiting.iter().take(NAMED).map(|(name, state)| format!("{name}: {state}")).collect();
            bail!(
                "{} resources are Ready, {} are not, and none has changed for {} s; for example\n{}",
                state.ready.len(),
                state.waiting.len(),
                PATIENCE.as_secs(),
                named.join("\n")
            );
        }
        Ok(state.ready.len())
    }

    /// Returns the time from `since` until each resource was Ready, in order.
    pub(crate) fn times(&self, since: Instant) -> Vec<Duration> {
        let state = lock(&self.state);
        let mut times: Vec<Duration> = state.ready.values().map(|at| at.duration_since(since)).collect();
        times.sort_unstable();
        times
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl State {
    fn see(&mut self, resource: &StreamEncryption) {
        let name = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any());
        if self.ready.contains_key(&name) {
            return;
        }
        self.changed = Some(Instant::now());
        let conditions = resource.status.as_ref().map_or(&[][..], |status| &status.conditions);
        match find(conditions, ConditionType::Ready) {
            Some(ready) if ready.status == ConditionStatus::True.as_str() => {
                self.waiting.remove(&name);
                self.ready.insert(name, Instant::now());
            }
            ready => {
                let state = ready
                    .map_or("no status".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message));
                self.waiting.insert(name, state);
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
