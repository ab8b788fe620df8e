//! The ledgers on the API server. Every write names the version that it replaces.

use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};

use super::ask::{ask, ask_for};
use crate::api::FIELD_MANAGER;
use crate::api::ledger::{StreamLedger, StreamLedgerSpec};
use crate::controller::records::RecordError;

fn post() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

/// A ledger, live.
pub(super) async fn read(api: &Api<StreamLedger>, name: &str) -> Result<Option<StreamLedger>, RecordError> {
    ask_for(api.get(name)).await
}

/// How many ledgers are read at a time.
const PAGE_SIZE: u32 = 50;

/// Every ledger.
pub(super) async fn list(api: &Api<StreamLedger>) -> Result<Vec<StreamLedger>, RecordError> {
    let mut ledgers = Vec::new();
    let mut page = ListParams::default().limit(PAGE_SIZE);
    loop {
        let read = ask(api.list(&page)).await?;
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

/// Makes a ledger.
pub(super) async fn create(
    api: &Api<StreamLedger>,
    name: &str,
    spec: &StreamLedgerSpec,
) -> Result<StreamLedger, RecordError> {
    ask(api.create(&post(), &StreamLedger::new(name, spec.clone()))).await
}

/// Replaces a ledger, if it is still the one that was read.
pub(super) async fn replace(
    api: &Api<StreamLedger>,
    ledger: &StreamLedger,
) -> Result<StreamLedger, RecordError> {
    let ObjectMeta { name: Some(name), resource_version: Some(_), .. } = &ledger.metadata else {
        return Err(RecordError::Conflict);
    };
    match ask_for(api.replace(name, &post(), ledger)).await? {
        Some(replaced) => Ok(replaced),
        // Somebody deleted it: what it held must not be written back as if it were current.
        None => Err(RecordError::Conflict),
    }
}

/// Deletes a ledger, if it is still the one that was read.
pub(super) async fn delete(api: &Api<StreamLedger>, ledger: &StreamLedger) -> Result<(), RecordError> {
    let Some(name) = &ledger.metadata.name else { return Ok(()) };
    let unchanged = Preconditions {
        uid: ledger.metadata.uid.clone(),
        resource_version: ledger.metadata.resource_version.clone(),
    };
    ask_for(api.delete(name, &DeleteParams::default().preconditions(unchanged))).await.map(|_| ())
}
