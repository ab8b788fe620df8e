//! Reports a watch that the API server, or a proxy before it, accepts and ends or cuts at once. kube takes both for a regular
//! end, and begins such a watch anew immediately and without an error: the requests would never pause, the log would say
//! nothing, and the cache would stay in use although no change arrives. A watch that fails is begun anew after a pause, and
//! its cache is not read meanwhile.
//!
//! Also reports a watch that gets no response. After the regular end of a watch, kube begins the next one without an event,
//! and the cache would stay in use as well.

use std::io;
use std::time::Duration;

use axum::BoxError;
use axum::http::Response;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, timeout};

use super::page_retry::gets;
use super::wrapped::wrapped;

type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// A watch that ends without an event within this time has failed. The API server ends a watch after its length of
/// [`WATCH_SECONDS`](super::connection::WATCH_SECONDS), and all watches while it shuts down.
const EARLY: Duration = Duration::from_secs(5);
const ENDED: &str = "the API server ended the watch at once";

/// How long the API server may take to begin its response to a watch. The timeouts of the connection end earlier (30 s and
/// 79 s), and their errors name the cause. They do not apply while kube renews the token: a program of the kubeconfig may
/// never end, for example because it waits for a login in a browser.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(110);

/// Returns the same client, whose watches fail if they end at once, or get no response.
#[must_use]
pub fn failing_early_ends(client: Client) -> Client {
    wrapped(client, |client, request| async move {
        let is_watch = gets(&request, "watch=true");
        let sent = client.send(request);
        let response = if is_watch { limited(sent).await? } else { sent.await? };
        let is_watch = is_watch && response.status().is_success();
        Ok(response.map(|body| if is_watch { checked(body) } else { unchecked(body) }))
    })
}

/// Returns the response to a watch, or an error if there is none in time.
async fn limited(sent: impl Future<Output = kube::Result<Response<Body>>>) -> kube::Result<Response<Body>> {
    timeout(RESPONSE_TIMEOUT, sent).await.unwrap_or_else(|_| {
        let error = format!("no response to the watch within {} s", RESPONSE_TIMEOUT.as_secs());
        Err(kube::Error::Service(error.into()))
    })
}

fn unchecked(body: Body) -> ResponseBody {
    ResponseBody::new(body.map_err(Into::into))
}

/// Returns the frames of a watch, and an error if it ends without one, too early.
fn checked(body: Body) -> ResponseBody {
    let begin = Instant::now();
    let frames = stream::unfold(Some((BodyStream::new(body), true)), move |state| async move {
        let (mut body, is_empty) = state?;
        match body.next().await {
            // Without its cause, in which kube would find `UnexpectedEof`.
            Some(Err(error)) if is_empty && begin.elapsed() < EARLY => {
                Some((Err(io::Error::other(format!("{ENDED}: {error}")).into()), None))
            }
            Some(frame) => {
                let has_data = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(|data| !data.is_empty());
                let is_empty = is_empty && !frame.as_ref().is_ok_and(has_data);
                Some((frame.map_err(BoxError::from), Some((body, is_empty))))
            }
            None if is_empty && begin.elapsed() < EARLY => Some((Err(io::Error::other(ENDED).into()), None)),
            None => None,
        }
    });
    ResponseBody::new(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::Uri;
    use futures_util::TryStreamExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, WatchParams};
    use kube::runtime::watcher;

    use super::super::connection::READ_TIMEOUT;
    use super::super::watches;
    use super::*;

    /// Returns what a watch yields that ends after these seconds, with this content.
    async fn watched(
        seconds: u64,
        content: Result<&'static str, io::ErrorKind>,
    ) -> Result<usize, kube::Error> {
        let handler = async move || {
            axum::body::Body::from_stream(stream::once(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                content.map_err(io::Error::from)
            }))
        };
        let client = Client::new(Router::new().fallback(handler), "default");
        let api: Api<ConfigMap> = Api::namespaced(failing_early_ends(client), "default");
        let events: Vec<_> = api.watch(&WatchParams::default(), "1").await?.try_collect().await?;
        Ok(events.len())
    }

    #[tokio::test(start_paused = true)]
    async fn watch_that_ends_at_once_fails() {
        for end in [Ok(""), Err(io::ErrorKind::UnexpectedEof)] {
            assert!(watched(1, end).await.unwrap_err().to_string().contains(ENDED));
            assert_eq!(watched(5, end).await.unwrap(), 0);
        }
        let event = r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"2"}}}"#;
        assert_eq!(watched(1, Ok(event)).await.unwrap(), 1);
    }

    /// No change was seen while a program of the kubeconfig that renews the token did not end.
    #[tokio::test(start_paused = true)]
    async fn watch_without_a_response_fails() {
        let handler = async |uri: Uri| {
            if uri.query().is_some_and(|query| query.contains("watch=true")) {
                std::future::pending::<()>().await;
            }
            r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"1"},"items":[]}"#
        };
        let client = failing_early_ends(Client::new(Router::new().fallback(handler), "default"));
        let begin = Instant::now();
        let mut events = std::pin::pin!(watcher(Api::<ConfigMap>::all(client), watches::config()));
        let failure = async {
            loop {
                if let Some(Err(failure)) = events.next().await {
                    break failure;
                }
            }
        };
        let failure = timeout(Duration::from_hours(1), failure).await.expect("the watch fails");
        assert!(matches!(failure, watcher::Error::WatchStartFailed(_)), "{failure}");
        assert_eq!(begin.elapsed(), RESPONSE_TIMEOUT);
    }

    /// The errors of the connection name the cause.
    #[test]
    fn timeouts_of_the_connection_end_before_that_of_a_watch() {
        let config = kube::Config::new("https://kubernetes.invalid".parse().unwrap());
        assert!(RESPONSE_TIMEOUT > config.connect_timeout.unwrap() + READ_TIMEOUT);
    }
}
