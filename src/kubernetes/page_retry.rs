//! Repeats the request for a page of a list that failed. kube begins a list anew after any failed page: with thousands of
//! objects, which are hundreds of pages, a list would rarely succeed while the API server refuses one request of a
//! hundred. Everything else is sent once, above all each watch: the cache must notice at once that a watch fails.
//!
//! A page whose token has expired (410) must not continue with the token that the API server offers: its objects would be
//! of a later version than those of the pages before, and the watch that follows would begin at the later version.

use std::time::Duration;

use axum::http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;

use super::retry::{self, Repetition};

/// How long the API server may take to begin its response to one request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The time after which a page is not requested again. Then the list has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// [`RESPONSE_TIMEOUT`] for a page of a list with a label selector. The API server begins its response once enough objects
/// match. Until then, it may read all objects that do not match: those of other shards. By default, it ends a request after 60 s.
const SELECTED_RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);
/// [`DEADLINE`] for a page of a list with a label selector.
const SELECTED_DEADLINE: Duration = Duration::from_mins(3);

/// Returns the same client, which repeats failed pages.
#[must_use]
pub fn repeating_pages(client: Client) -> Client {
    let pages = Repetition {
        applies_to: is_page,
        is_temporary,
        response_timeout: Some(RESPONSE_TIMEOUT),
        patience: DEADLINE,
    };
    let selected_pages = Repetition {
        applies_to: is_selected_page,
        response_timeout: Some(SELECTED_RESPONSE_TIMEOUT),
        patience: SELECTED_DEADLINE,
        ..pages
    };
    retry::repeating(retry::repeating(client, pages), selected_pages)
}

/// Returns whether the request is for a page of a list without a label selector. Only lists have the parameter `limit`;
/// watches have none.
fn is_page(request: &Request<Body>) -> bool {
    gets(request, "limit=") && !gets(request, "labelSelector=")
}

/// Returns whether the request is for a page of a list with a label selector.
fn is_selected_page(request: &Request<Body>) -> bool {
    gets(request, "limit=") && gets(request, "labelSelector=")
}

/// Returns whether the request is a GET with a parameter that begins so.
pub(super) fn gets(request: &Request<Body>, parameter: &str) -> bool {
    let mut parameters = request.uri().query().unwrap_or_default().split('&');
    request.method() == Method::GET && parameters.any(|given| given.starts_with(parameter))
}

/// Returns whether the same request may soon succeed.
fn is_temporary(response: &kube::Result<Response<Body>>) -> bool {
    match response {
        Ok(response) => retry::is_temporary_code(response.status().as_u16()),
        Err(error) => retry::is_temporary(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::header::RETRY_AFTER;
    use axum::http::{HeaderMap, StatusCode, Uri};
    use axum::response::IntoResponse;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams, WatchParams};
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::super::connection::READ_TIMEOUT;
    use super::*;

    /// The queries of the requests, and the time from the start at which each arrived.
    type Asked = Arc<Mutex<Vec<(String, Duration)>>>;

    /// Returns an API whose server returns these answers, one after the other and the last one again and again.
    fn api(answers: Vec<(u16, Option<u64>, Value)>) -> (Api<ConfigMap>, Asked) {
        let (asked, begin) = (Asked::default(), Instant::now());
        let log = asked.clone();
        let handler = async move |uri: Uri| {
            let mut log = log.lock().unwrap();
            let (code, retry_after, body) = answers[log.len().min(answers.len() - 1)].clone();
            log.push((uri.query().unwrap_or_default().to_owned(), begin.elapsed()));
            let mut headers = HeaderMap::new();
            headers.extend(retry_after.map(|seconds| (RETRY_AFTER, seconds.into())));
            (StatusCode::from_u16(code).unwrap(), headers, body.to_string()).into_response()
        };
        let client = Client::new(Router::new().fallback(handler), "default");
        (Api::namespaced(repeating_pages(client), "default"), asked)
    }

    fn page(next: &str) -> (u16, Option<u64>, Value) {
        let list =
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"continue": next}, "items": []});
        (200, None, list)
    }

    fn refusal(code: u16, retry_after: Option<u64>) -> (u16, Option<u64>, Value) {
        (
            code,
            retry_after,
            json!({"kind": "Status", "code": code, "message": "no", "reason": "No", "status": "Failure"}),
        )
    }

    fn second_page() -> ListParams {
        ListParams { limit: Some(10), continue_token: Some("one".to_owned()), ..ListParams::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_page_is_requested_again_with_its_token() {
        let (api, asked) = api(vec![refusal(503, None), refusal(429, Some(7)), page("two")]);
        let list = api.list(&second_page()).await.unwrap();
        assert_eq!(list.metadata.continue_.as_deref(), Some("two"));
        let asked = asked.lock().unwrap().clone();
        let seconds: Vec<_> = asked.iter().map(|(_, at)| at.as_secs_f32()).collect();
        assert_eq!(seconds, [0.0, 0.5, 7.5]);
        assert!(asked.iter().all(|(query, _)| query.contains("continue=one")), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn page_without_a_response_is_requested_again() {
        let asked = Asked::default();
        let log = asked.clone();
        let handler = async move |uri: Uri| {
            let number = {
                let mut log = log.lock().unwrap();
                log.push((uri.to_string(), Duration::ZERO));
                log.len()
            };
            if number < 3 {
                std::future::pending::<()>().await;
            }
            page("two").2.to_string()
        };
        let client = Client::new(Router::new().fallback(handler), "default");
        let api: Api<ConfigMap> = Api::namespaced(repeating_pages(client), "default");
        let begin = Instant::now();
        api.list(&second_page()).await.unwrap();
        assert_eq!((asked.lock().unwrap().len(), begin.elapsed().as_secs()), (3, 21));
    }

    /// The list of a shard never completed in a cluster with many resources of other shards.
    #[tokio::test(start_paused = true)]
    async fn slow_page_of_selected_objects_is_awaited() {
        for (selector, requests) in [(Some("shard=a"), 1), (None, 3)] {
            let asked = Asked::default();
            let log = asked.clone();
            let handler = async move |uri: Uri| {
                log.lock().unwrap().push((uri.to_string(), Duration::ZERO));
                tokio::time::sleep(Duration::from_secs(20)).await;
                page("two").2.to_string()
            };
            let client = Client::new(Router::new().fallback(handler), "default");
            let api: Api<ConfigMap> = Api::namespaced(repeating_pages(client), "default");
            let params = ListParams { label_selector: selector.map(str::to_owned), ..second_page() };
            let is_listed = api.list(&params).await.is_ok();
            assert_eq!((is_listed, asked.lock().unwrap().len()), (selector.is_some(), requests));
        }
        assert!(SELECTED_RESPONSE_TIMEOUT < READ_TIMEOUT, "the connection would fail before");
    }

    #[tokio::test(start_paused = true)]
    async fn page_fails_after_its_deadline_or_a_final_refusal() {
        for (answer, requests) in [(refusal(500, None), 6), (refusal(403, None), 1), (refusal(410, None), 1)]
        {
            let code = answer.0;
            let (api, asked) = api(vec![answer]);
            let Err(kube::Error::Api(status)) = api.list(&second_page()).await else { panic!("{code}") };
            assert_eq!((status.code, asked.lock().unwrap().len()), (code, requests));
            assert!(asked.lock().unwrap().last().unwrap().1 <= DEADLINE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watch_is_sent_once() {
        let (api, asked) = api(vec![refusal(503, None)]);
        assert!(api.watch(&WatchParams::default(), "1").await.is_err());
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
}
