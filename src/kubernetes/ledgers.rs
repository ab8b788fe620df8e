//! Ledgers on the API server. Every update and deletion names the version that was read.
//!
//! A ledger is replaced as a whole, so all of its metadata is kept when it is read, except for the managed
//! fields, which the API server keeps itself.

use std::time::Duration;

use futures_util::Stream;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::core::DeserializeGuard;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _};
use stream_encryption_api::FIELD_MANAGER;
use stream_encryption_api::ledger::{StreamLedger, StreamLedgerSpec};
use stream_encryption_core::controller::kube_api::KubeError;

use super::request::{get_opt, with_timeout};
use super::watches;

fn post() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

/// A ledger, which may be invalid: one such object must not stop the watch of the others.
pub type GuardedLedger = DeserializeGuard<StreamLedger>;

/// Returns every event of the ledgers. The stream never ends; `again` is the backoff of a failed watch.
pub fn events(
    client: Client,
    namespace: &str,
    relist_every: Duration,
    again: impl Backoff + 'static,
) -> impl Stream<Item = watcher::Result<watcher::Event<GuardedLedger>>> + Send + 'static {
    let api: Api<GuardedLedger> = Api::namespaced(client, namespace);
    let config = watches::config().page_size(PAGE_SIZE);
    let events = watches::relisted(relist_every, move || watcher::watcher(api.clone(), config.clone()));
    events.backoff(again).modify(|ledger| ledger.meta_mut().managed_fields = None)
}

/// Reads a ledger, live.
pub(super) async fn read(api: &Api<StreamLedger>, name: &str) -> Result<Option<StreamLedger>, KubeError> {
    get_opt(api.get(name)).await
}

/// Number of ledgers in one page of a list.
const PAGE_SIZE: u32 = 50;

/// Lists all ledgers.
pub(super) async fn list(api: &Api<StreamLedger>) -> Result<Vec<StreamLedger>, KubeError> {
    let mut ledgers = Vec::new();
    let mut page = ListParams::default().limit(PAGE_SIZE);
    loop {
        let read = with_timeout(api.list(&page)).await?;
        ledgers.extend(read.items.into_iter().map(|mut ledger| {
            ledger.metadata.managed_fields = None;
            ledger
        }));
        match read.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(ledgers),
        }
    }
}

/// Creates a ledger.
pub(super) async fn create(
    api: &Api<StreamLedger>,
    name: &str,
    spec: &StreamLedgerSpec,
) -> Result<StreamLedger, KubeError> {
    with_timeout(api.create(&post(), &StreamLedger::new(name, spec.clone()))).await
}

/// Replaces a ledger, if it is still the version that was read.
pub(super) async fn replace(
    api: &Api<StreamLedger>,
    ledger: &StreamLedger,
) -> Result<StreamLedger, KubeError> {
    let ObjectMeta { name: Some(name), resource_version: Some(_), .. } = &ledger.metadata else {
        return Err(KubeError::Conflict);
    };
    match get_opt(api.replace(name, &post(), ledger)).await? {
        Some(replaced) => Ok(replaced),
        // The ledger was deleted: its old content must not be written back as if it were current.
        None => Err(KubeError::Conflict),
    }
}

/// Deletes a ledger, if it is still the version that was read.
pub(super) async fn delete(api: &Api<StreamLedger>, ledger: &StreamLedger) -> Result<(), KubeError> {
    let Some(name) = &ledger.metadata.name else { return Ok(()) };
    let unchanged = Preconditions {
        uid: ledger.metadata.uid.clone(),
        resource_version: ledger.metadata.resource_version.clone(),
    };
    get_opt(api.delete(name, &DeleteParams::default().preconditions(unchanged))).await.map(|_| ())
}
