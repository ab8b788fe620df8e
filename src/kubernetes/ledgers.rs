//! Ledgers on the API server. Every update and deletion names the version that was read.

use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};

use super::request::{get_opt, with_timeout};
use crate::api::FIELD_MANAGER;
use crate::api::ledger::{StreamLedger, StreamLedgerSpec};
use crate::controller::kube_api::KubeError;

fn post() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
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
