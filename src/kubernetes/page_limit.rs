//! Limits how many pages of lists are read at the same time. An operator may watch hundreds of namespaces, each with a list of
//! its own, and all lists begin together. A page may have 15 MB, and users write its objects.
//!
//! A namespace whose pages do not arrive must never delay the others without limit: each page has a deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::page_retry::is_page;
use super::wrapped::wrapped;

/// Maximum number of pages that are read at the same time.
const PAGES: usize = 4;
/// How long a page may take, with its repeated requests and until its body is read.
const DEADLINE: Duration = Duration::from_secs(30);

/// Returns the same client, which reads only a few pages at the same time.
#[must_use]
pub fn limiting_pages(client: Client) -> Client {
    let permits = Arc::new(Semaphore::new(PAGES));
    wrapped(client, move |client, request| {
        let permits = permits.clone();
        async move {
            if !is_page(&request) {
                return client.send(request).await;
            }
            // The semaphore is never closed, so this always acquires a permit.
            let _permit = permits.acquire().await;
            let read = timeout(DEADLINE, read(&client, request)).await;
            read.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
        }
    })
}

/// Sends a request, and reads the body of its response.
async fn read(client: &Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    let (parts, body) = client.send(request).await?.into_parts();
    Ok(Response::from_parts(parts, body.collect_bytes().await?.into()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use futures_util::future::join_all;
    use futures_util::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams};
    use tokio::time::Instant;

    use super::*;

    /// Requests ten pages at the same time, whose bodies end after this time. Returns how many succeed, how many were open at
    /// the same time, and the seconds until all have ended.
    async fn read_pages(body_takes: Duration) -> (usize, usize, u64) {
        let open = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let counted = open.clone();
        let handler = async move || {
            let most = counted[0].fetch_add(1, Ordering::Relaxed) + 1;
            counted[1].fetch_max(most, Ordering::Relaxed);
            let counted = counted.clone();
            axum::body::Body::from_stream(stream::once(async move {
                tokio::time::sleep(body_takes).await;
                counted[0].fetch_sub(1, Ordering::Relaxed);
                let list = r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{},"items":[]}"#;
                Ok::<_, io::Error>(list)
            }))
        };
        let client = Client::new(Router::new().fallback(handler), "default");
        let api: Api<ConfigMap> = Api::namespaced(limiting_pages(client), "default");
        let (begin, page) = (Instant::now(), ListParams { limit: Some(10), ..ListParams::default() });
        let pages = join_all((0..10).map(|_| api.list(&page))).await;
        let read = pages.iter().filter(|page| page.is_ok()).count();
        (read, open[1].load(Ordering::Relaxed), begin.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn few_pages_are_read_at_the_same_time() {
        assert_eq!(read_pages(Duration::from_secs(1)).await, (10, PAGES, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_page_fails_and_lets_others_begin() {
        let (read, _, seconds) = read_pages(Duration::from_hours(1)).await;
        assert_eq!((read, seconds), (0, 90));
    }
}
