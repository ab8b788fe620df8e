//! Ledgers on the API server. Every update and deletion names the version that was read.
//!
//! A ledger is replaced as a whole, so all of its metadata is kept when it is read, except for the managed
//! fields, which the API server keeps itself.

use std::time::Duration;

use axum::http;
use futures_util::Stream;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::core::{DeserializeGuard, Request, Status};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _};
use stream_encryption_api::FIELD_MANAGER;
use stream_encryption_api::ledger::{StreamLedger, StreamLedgerSpec};
use stream_encryption_core::controller::kube_api::{KubeError, LedgerPage};
use tokio::time::Instant;

use super::request::{DEADLINE, none_if_missing, strict, with_timeout};
use super::retry::is_temporary;
use super::watches;

/// Returns the parameters of a write by the operator's field manager.
fn as_operator() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

/// A ledger as the API server delivered it: valid, or the metadata of an invalid one with the error. One invalid object
/// must not stop the watch of the others.
pub type MaybeInvalidLedger = DeserializeGuard<StreamLedger>;

/// Returns every event of the ledgers. The stream never ends.
pub fn events(
    client: Client,
    namespace: &str,
    relist_every: Duration,
) -> impl Stream<Item = watcher::Result<watcher::Event<MaybeInvalidLedger>>> + Send + 'static {
    let api: Api<MaybeInvalidLedger> = Api::namespaced(client, namespace);
    let config = watches::config().page_size(PAGE_SIZE);
    let events = watches::relisted(relist_every, move || watcher::watcher(api.clone(), config.clone()));
    events.modify(|ledger| ledger.meta_mut().managed_fields = None)
}

/// Reads a ledger, live.
pub(super) async fn read(api: &Api<StreamLedger>, name: &str) -> Result<Option<StreamLedger>, KubeError> {
    none_if_missing(api.get(name)).await
}

/// Number of ledgers in one page of a list.
const PAGE_SIZE: u32 = 50;

/// Lists one page of the ledgers: the first one, or the one `after` another. It lacks invalid ledgers, such as one of a
/// later version of the operator: a page with such a ledger must not fail.
pub(super) async fn page(
    client: Client,
    namespace: &str,
    after: Option<&str>,
) -> Result<LedgerPage, KubeError> {
    let api: Api<MaybeInvalidLedger> = Api::namespaced(client, namespace);
    let list = async |token: Option<String>| {
        let page = ListParams { continue_token: token, ..ListParams::default() };
        api.list(&page.limit(PAGE_SIZE)).await
    };
    let request = async {
        match list(after.map(str::to_owned)).await {
            // The work on the pages before has taken longer than the API server keeps the state of the list. It then
            // offers the rest of the list in the current state.
            Err(kube::Error::Api(status)) if let Some(token) = token_of_expired(&status) => {
                list(Some(token)).await
            }
            listed => listed,
        }
    };
    let read = with_timeout(request).await?;
    let mut ledgers: Vec<StreamLedger> = read.items.into_iter().filter_map(|ledger| ledger.0.ok()).collect();
    for ledger in &mut ledgers {
        ledger.metadata.managed_fields = None;
    }
    Ok(LedgerPage { ledgers, next: read.metadata.continue_.filter(|token| !token.is_empty()) })
}

/// Returns the token with which a list can continue whose own token has expired.
fn token_of_expired(status: &Status) -> Option<String> {
    let offered = status.metadata.as_ref()?.continue_.clone()?;
    (status.code == 410 && !offered.is_empty()).then_some(offered)
}

/// Creates a ledger. A definition of an older version may lack a field, so the API server must validate strictly: a ledger
/// without some of its fields could lead to a call too many.
pub(super) async fn create(
    api: &Api<StreamLedger>,
    name: &str,
    spec: &StreamLedgerSpec,
) -> Result<StreamLedger, KubeError> {
    let ledger = StreamLedger::new(name, spec.clone());
    let request = Request::new(api.resource_url()).create(&as_operator(), bytes(&ledger)?);
    with_timeout(send_strictly(api, request)).await
}

/// The pauses before the write of a ledger is sent again. An API server that restarts responds again after seconds. If the
/// outcome of a call is not written, the stream waits for 31 minutes.
///
/// After a slow response, such as that to a webhook which times out, the write is not sent again: the deadline would hide the
/// error.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Replaces a ledger, if it is still the version that was read. The request is repeated while the API server does not
/// respond or cannot serve it. If it has applied a write without a response, the repeated one is a conflict. The API server
/// validates strictly, as in [`create`].
pub(super) async fn replace(
    api: &Api<StreamLedger>,
    ledger: &StreamLedger,
) -> Result<StreamLedger, KubeError> {
    let ObjectMeta { name: Some(name), resource_version: Some(_), .. } = &ledger.metadata else {
        return Err(KubeError::Conflict);
    };
    let (begin, body) = (Instant::now(), bytes(ledger)?);
    let send = async || {
        let request = Request::new(api.resource_url()).replace(name, &as_operator(), body.clone());
        send_strictly(api, request).await
    };
    let replaced = async {
        for pause in PAUSES {
            match send().await {
                Err(error) if is_temporary(&error) && begin.elapsed() < DEADLINE / 2 => {
                    tokio::time::sleep(pause).await;
                }
                replaced => return replaced,
            }
        }
        send().await
    };
    match none_if_missing(replaced).await? {
        Some(replaced) => Ok(replaced),
        // The ledger was deleted: its old content must not be written back as if it were current.
        None => Err(KubeError::Conflict),
    }
}

async fn send_strictly(
    api: &Api<StreamLedger>,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<StreamLedger> {
    api.clone().into_client().request(strict(request.map_err(kube::Error::BuildRequest)?)?).await
}

fn bytes(ledger: &StreamLedger) -> Result<Vec<u8>, KubeError> {
    serde_json::to_vec(ledger).map_err(|error| KubeError::Rejected(error.to_string()))
}

/// Deletes a ledger, if it is still the version that was read.
pub(super) async fn delete(api: &Api<StreamLedger>, ledger: &StreamLedger) -> Result<(), KubeError> {
    let ObjectMeta { name: Some(name), uid: Some(uid), resource_version: Some(version), .. } =
        &ledger.metadata
    else {
        return Err(KubeError::Conflict);
    };
    let unchanged = Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
    let deleted =
        none_if_missing(api.delete(name, &DeleteParams::default().preconditions(unchanged))).await?;
    // If it is missing, somebody else has deleted it.
    deleted.map(drop).ok_or(KubeError::Conflict)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::Request;
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;

    /// Returns a client whose API server answers each request, given as its query, with a status code and an object.
    fn client(answer: impl Fn(&str) -> (u16, Value) + Clone + Send + Sync + 'static) -> Client {
        let handler = async move |request: Request| {
            let (code, object) = answer(request.uri().query().unwrap_or_default());
            (StatusCode::from_u16(code).unwrap(), object.to_string())
        };
        Client::new(Router::new().fallback(handler), "default")
    }

    fn list(ledgers: &[Value], next: &str) -> (u16, Value) {
        let list = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedgerList",
            "metadata": {"continue": next}, "items": ledgers,
        });
        (200, list)
    }

    fn ledger(name: &str, owner: &Value) -> Value {
        json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": name},
            "spec": {"streamARN": "arn", "owner": owner},
        })
    }

    /// Returns a ledger with the version that the API server gave it.
    fn stored() -> StreamLedger {
        let owner = json!({"namespace": "data", "name": "orders", "uid": "1"});
        let mut stored: StreamLedger = serde_json::from_value(ledger("orders", &owner)).unwrap();
        stored.metadata.resource_version = Some("1".to_owned());
        stored
    }

    fn names(page: &LedgerPage) -> Vec<&str> {
        page.ledgers.iter().filter_map(|ledger| ledger.metadata.name.as_deref()).collect()
    }

    #[tokio::test]
    async fn page_lacks_invalid_ledgers_only() {
        let owner = json!({"namespace": "data", "name": "orders", "uid": "1"});
        let ledgers = [ledger("of-later-version", &json!({"team": "data"})), ledger("valid", &owner)];
        let client = client(move |query| list(&ledgers, if query.contains("continue=") { "" } else { "2" }));
        let first = page(client.clone(), "default", None).await.unwrap();
        assert_eq!((names(&first), first.next.as_deref()), (vec!["valid"], Some("2")));
        let last = page(client, "default", Some("2")).await.unwrap();
        assert_eq!((names(&last), last.next.as_deref()), (vec!["valid"], None));
    }

    #[tokio::test]
    async fn list_with_expired_token_continues_in_current_state() {
        let owner = json!({"namespace": "data", "name": "orders", "uid": "1"});
        let client = client(move |query| {
            if query.contains("continue=new") {
                return list(&[ledger("valid", &owner)], "");
            }
            let expired = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
                "message": "The provided continue parameter is too old", "metadata": {"continue": "new"},
            });
            (410, expired)
        });
        assert_eq!(names(&page(client, "default", Some("old")).await.unwrap()), ["valid"]);
    }

    /// Returns the result of a write of which the API server answers the first requests with this code, and the number of
    /// requests.
    async fn replaced_after(
        failures: usize,
        code: u16,
        reason: &'static str,
    ) -> (Result<StreamLedger, KubeError>, usize) {
        let stored = stored();
        let requests = Arc::new(AtomicUsize::new(0));
        let (counted, answered) = (requests.clone(), stored.clone());
        let client = client(move |query| {
            assert!(query.contains("fieldValidation=Strict"), "{query}");
            if counted.fetch_add(1, Ordering::Relaxed) < failures {
                let status = json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": "no"});
                return (code, status);
            }
            (200, serde_json::to_value(&answered).unwrap())
        });
        let replaced = replace(&Api::namespaced(client, "default"), &stored).await;
        (replaced, requests.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn write_is_repeated_while_the_api_server_restarts() {
        for (failures, code) in [(0, 503), (4, 503), (2, 429)] {
            let (replaced, requests) = replaced_after(failures, code, "").await;
            assert!(replaced.is_ok() && requests == failures + 1, "{replaced:?} after {requests}");
        }
        let (replaced, requests) = replaced_after(5, 503, "").await;
        assert!(matches!(replaced, Err(KubeError::Unavailable(_))) && requests == 5, "{replaced:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn error_of_a_webhook_that_times_out_is_returned() {
        let server = Router::new().fallback(async || {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let status = json!({"kind": "Status", "status": "Failure", "code": 500, "message": "failed calling webhook"});
            (StatusCode::INTERNAL_SERVER_ERROR, status.to_string())
        });
        let api = Api::namespaced(Client::new(server, "default"), "default");
        let error = replace(&api, &stored()).await.unwrap_err();
        assert_eq!(error, KubeError::Unavailable("failed calling webhook".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_write_is_sent_once() {
        for (code, reason, error) in [(409, "Conflict", "Conflict"), (403, "Forbidden", "Rejected")] {
            let (replaced, requests) = replaced_after(9, code, reason).await;
            let replaced = format!("{:?}", replaced.unwrap_err());
            assert!(replaced.starts_with(error) && requests == 1, "{replaced} after {requests}");
        }
    }
}
