//! Reports a watch that the API server, or a proxy before it, accepts and ends or cuts at once. kube takes both for a regular
//! end, and begins such a watch anew immediately and without an error: the requests would never pause, the log would say
//! nothing, and the cache would stay in use although no change arrives. A watch that fails is begun anew after a pause, and
//! its cache is not read meanwhile.

use std::io;
use std::time::Duration;

use axum::BoxError;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;

use super::page_retry::gets;
use super::wrapped::wrapped;

type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// A watch that ends without an event within this time has failed. The API server ends a watch after its length of
/// [`WATCH_SECONDS`](super::connection::WATCH_SECONDS), and all watches while it shuts down.
const EARLY: Duration = Duration::from_secs(5);
const ENDED: &str = "the API server ended the watch at once";

/// Returns the same client, whose watches fail if they end at once.
#[must_use]
pub fn failing_early_ends(client: Client) -> Client {
    wrapped(client, |client, request| async move {
        let is_watch = gets(&request, "watch=true");
        let response = client.send(request).await?;
        let is_watch = is_watch && response.status().is_success();
        Ok(response.map(|body| if is_watch { checked(body) } else { unchecked(body) }))
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
    use futures_util::TryStreamExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, WatchParams};

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
}
