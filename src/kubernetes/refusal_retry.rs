//! Repeats the requests of a person's command that the API server, or a proxy before it, refuses for the moment: because of
//! its load, or because it starts. The operator does not: its next reconcile sends the request, with the state at that time.
//!
//! kube's own retry is not for people. It repeats a request up to 15 times, in up to 8 minutes without a word, and waits as
//! long as the API server asks for, even hours. It repeats the same requests otherwise: whatever their method is, because a
//! refused request has changed nothing, and the plugin writes nothing but dry runs and reviews of permissions.

use std::time::Duration;

use axum::http::{Response, StatusCode};
use kube::Client;
use kube::client::Body;

use super::retry::{Repetition, repeating};

/// The time after which a request is not repeated. Then the person sees the refusal.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the same client, which repeats refused requests.
#[must_use]
pub fn repeating_refusals(client: Client) -> Client {
    let refusals = Repetition {
        applies_to: |_| true,
        is_temporary: is_refusal,
        response_timeout: None,
        patience: PATIENCE,
    };
    repeating(client, refusals)
}

/// Returns whether the same request may succeed a moment later. A request without a response is not repeated.
fn is_refusal(response: &kube::Result<Response<Body>>) -> bool {
    let refusals =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    response.as_ref().is_ok_and(|response| refusals.contains(&response.status()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::header::RETRY_AFTER;
    use axum::http::{Method, Request};
    use axum::response::IntoResponse;
    use tokio::time::Instant;

    use super::*;

    /// Sends a request to a server that gives these answers, each a status and the pause that it asks for, and the last one
    /// again and again. Returns the final status, and the times at which the requests arrived, in milliseconds.
    async fn sent(method: Method, answers: &[(u16, Option<u64>)]) -> (u16, Vec<u128>) {
        let (asked, begin) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let (log, answers) = (Arc::clone(&asked), answers.to_vec());
        let handler = async move |body: String| {
            assert_eq!(body, "{}", "each request has the whole body");
            let mut log = log.lock().unwrap();
            let (code, seconds) = answers[log.len().min(answers.len() - 1)];
            log.push(begin.elapsed().as_millis());
            let mut response = StatusCode::from_u16(code).unwrap().into_response();
            response.headers_mut().extend(seconds.map(|seconds| (RETRY_AFTER, seconds.into())));
            response
        };
        let client = repeating_refusals(Client::new(Router::new().fallback(handler), "default"));
        let request = Request::builder().method(method).uri("/").body(Body::from(b"{}".to_vec())).unwrap();
        let response = client.send(request).await.unwrap();
        let times = asked.lock().unwrap().clone();
        (response.status().as_u16(), times)
    }

    #[tokio::test(start_paused = true)]
    async fn refused_request_is_repeated_whatever_its_method() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH] {
            let answers = [(503, None), (429, Some(4)), (504, None), (200, None)];
            assert_eq!(sent(method, &answers).await, (200, vec![0, 500, 4_500, 6_500]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_refusal_is_returned_after_some_seconds() {
        assert_eq!(sent(Method::GET, &[(503, None)]).await, (503, vec![0, 500, 1_500, 3_500, 7_500]));
        // Nobody waits for an hour.
        assert_eq!(sent(Method::GET, &[(429, Some(3_600))]).await, (429, vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn other_answer_is_returned_at_once() {
        for code in [200, 401, 403, 404, 409, 410, 422, 500, 502] {
            assert_eq!(sent(Method::GET, &[(code, None)]).await, (code, vec![0]));
        }
    }
}
