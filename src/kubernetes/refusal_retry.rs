//! Repeats the requests of a person's command that the API server, or a proxy before it, refuses for the moment: because of
//! its load, or because it starts. The operator does not: its next reconcile sends the request, with the state at that time.
//!
//! kube's own retry is not for people. It repeats a request up to 15 times, in up to 8 minutes without a word, and waits as
//! long as the API server asks for, even hours. It repeats the same requests otherwise: whatever their method is, because a
//! refused request has changed nothing, and the plugin writes nothing but dry runs and reviews of permissions.

use std::time::Duration;

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, sleep};
use tower::service_fn;

use super::page_retry::pause_of;

/// The first pause before a request is repeated. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The time after which a request is not repeated. Then the person sees the refusal.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the same client, which repeats refused requests.
#[must_use]
pub fn repeating_refusals(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let send = move |request| {
        let client = client.clone();
        async move { send(&client, request).await }
    };
    Client::new(service_fn(send), namespace)
}

async fn send(client: &Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let begin = Instant::now();
    let mut next_pause = FIRST_PAUSE;
    loop {
        // Only a body that is in memory can be sent twice. Those of kube's requests are.
        let Some(copy) = body.try_clone() else {
            return client.send(Request::from_parts(parts, body)).await;
        };
        let response = client.send(Request::from_parts(parts.clone(), copy)).await?;
        if !is_refusal(response.status()) {
            return Ok(response);
        }
        let pause = pause_of(&response, next_pause);
        if pause > PATIENCE.saturating_sub(begin.elapsed()) {
            return Ok(response);
        }
        sleep(pause).await;
        next_pause *= 2;
    }
}

/// Returns whether the same request may succeed a moment later.
fn is_refusal(status: StatusCode) -> bool {
    let refusals =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    refusals.contains(&status)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::Method;
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse;

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
