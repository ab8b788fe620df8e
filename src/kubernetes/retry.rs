//! Repeats requests to the API server that fail for the moment. Which requests those are, which responses, and for how long,
//! is in `page_retry` for the operator, and in `refusal_retry` for a person's command. `ledgers` repeats its writes itself,
//! because they have a deadline, and their errors are known only once the whole response is read.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, sleep, timeout};

use super::wrapped::wrapped;

/// The first pause before a request is repeated. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Which requests of a client are repeated, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Repetition {
    /// Returns whether a request may be repeated.
    pub(super) applies_to: fn(&Request<Body>) -> bool,
    /// Returns whether the same request may succeed a moment later. Any other response is final.
    pub(super) is_temporary: fn(&kube::Result<Response<Body>>) -> bool,
    /// How long the API server may take to begin its response to one request.
    pub(super) response_timeout: Option<Duration>,
    /// The time after which a request is not repeated. Then its last response is final.
    pub(super) patience: Duration,
}

/// Returns the same client, which repeats requests.
pub(super) fn repeating(client: Client, repetition: Repetition) -> Client {
    wrapped(client, move |client, request| async move { send(&client, request, repetition).await })
}

async fn send(
    client: &Client,
    request: Request<Body>,
    repetition: Repetition,
) -> kube::Result<Response<Body>> {
    if !(repetition.applies_to)(&request) {
        return client.send(request).await;
    }
    let (parts, body) = request.into_parts();
    let begin = Instant::now();
    let mut next_pause = FIRST_PAUSE;
    loop {
        // Only a body that is in memory can be sent twice. Those of kube's requests are.
        let Some(copy) = body.try_clone() else {
            return client.send(Request::from_parts(parts, body)).await;
        };
        let sent = client.send(Request::from_parts(parts.clone(), copy));
        let response = match repetition.response_timeout {
            Some(limit) => {
                let response = timeout(limit, sent).await;
                response.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
            }
            None => sent.await,
        };
        if !(repetition.is_temporary)(&response) {
            return response;
        }
        let pause = response.as_ref().map_or(next_pause, |response| pause_of(response, next_pause));
        if pause > repetition.patience.saturating_sub(begin.elapsed()) {
            return response;
        }
        sleep(pause).await;
        next_pause *= 2;
    }
}

/// Returns the pause that the API server asks for, if it is longer than `pause`.
fn pause_of(response: &Response<Body>, pause: Duration) -> Duration {
    let wanted = || response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok();
    wanted().map_or(pause, |seconds| pause.max(Duration::from_secs(seconds)))
}

/// Returns whether the same request may soon succeed. A refusal for another reason than the load or the state of the API server
/// is final, also a conflict. A request without a response may have been carried out.
pub(super) fn is_temporary(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => is_temporary_code(status.code),
        // The connection failed, or the response did not arrive in time.
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        // Nothing was sent, such as without credentials, or the response cannot be parsed.
        _ => false,
    }
}

/// Returns whether the code of a refusal stands for the load or the state of the API server.
pub(super) fn is_temporary_code(code: u16) -> bool {
    code == 429 || code >= 500
}
