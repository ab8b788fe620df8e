//! One read for all who ask at about the same time.
//!
//! A fleet's reconciles read the same list immediately before their calls, and each may only use a response to a
//! request that was sent after it has asked. While a request runs, those who ask share the next one, which is sent when
//! the running one ends, or after [`MAX_WAIT`]: a request that hangs must not delay the others until its deadline. A
//! response must never reach a reader that asked after its request was sent. It stays in memory only while a reader
//! waits for it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use stream_encryption_core::controller::kube_api::KubeError;

/// How long the next request waits for the end of the running one. The checks before a call, of which this read is one,
/// may take 10 s in total.
const MAX_WAIT: Duration = Duration::from_secs(3);

type Response<T> = Result<Arc<T>, KubeError>;

/// A read that many share.
pub(super) struct SharedRead<T> {
    /// The request that is not sent yet. It is dropped with its last reader.
    next: Mutex<Option<WeakShared<BoxFuture<'static, Response<T>>>>>,
    /// A request holds this lock while it runs. A request that has waited [`MAX_WAIT`] for the lock runs without it.
    running: tokio::sync::Mutex<()>,
}

impl<T> Default for SharedRead<T> {
    fn default() -> Self {
        Self { next: Mutex::default(), running: tokio::sync::Mutex::default() }
    }
}

impl<T: Send + Sync + 'static> SharedRead<T> {
    /// Returns the response to a request that is sent after this call, by `send` or by that of another reader.
    ///
    /// # Errors
    /// That of the request, for all who share it: they do not wait for the deadlines of further requests.
    pub(super) async fn read<S>(self: &Arc<Self>, send: impl FnOnce() -> S + Send + 'static) -> Response<T>
    where
        S: Future<Output = Result<T, KubeError>> + Send,
    {
        self.next_request(send).await
    }

    /// Returns the request that is not sent yet, or creates it.
    fn next_request<S>(
        self: &Arc<Self>,
        send: impl FnOnce() -> S + Send + 'static,
    ) -> Shared<BoxFuture<'static, Response<T>>>
    where
        S: Future<Output = Result<T, KubeError>> + Send,
    {
        let mut next = self.next();
        if let Some(request) = next.as_ref().and_then(WeakShared::upgrade) {
            return request;
        }
        let shared = self.clone();
        let request = async move {
            let _running = tokio::time::timeout(MAX_WAIT, shared.running.lock()).await;
            // From now on, no further reader shares this request.
            *shared.next() = None;
            send().await.map(Arc::new)
        };
        let request = request.boxed().shared();
        *next = request.downgrade();
        request
    }

    fn next(&self) -> MutexGuard<'_, Option<WeakShared<BoxFuture<'static, Response<T>>>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// A server that answers each request with its number, once the test permits it.
    #[derive(Default)]
    struct Server {
        requests: AtomicU64,
        answers: Option<Semaphore>,
    }

    impl Server {
        fn held() -> Arc<Self> {
            Arc::new(Self { answers: Some(Semaphore::new(0)), ..Self::default() })
        }

        fn answer_one(&self) {
            self.answers.as_ref().unwrap().add_permits(1);
        }

        fn requests(&self) -> u64 {
            self.requests.load(Ordering::SeqCst)
        }

        async fn request(self: Arc<Self>) -> Result<u64, KubeError> {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some(answers) = &self.answers {
                answers.acquire().await.unwrap().forget();
            }
            Ok(number)
        }
    }

    async fn read(shared: &Arc<SharedRead<u64>>, server: &Arc<Server>) -> Response<u64> {
        let server = server.clone();
        shared.read(|| server.request()).await
    }

    #[tokio::test]
    async fn readers_during_a_request_share_the_next() {
        let (server, shared) = (Server::held(), Arc::new(SharedRead::default()));
        let mut first = pin!(read(&shared, &server));
        assert_eq!(first.as_mut().now_or_never(), None);
        let mut others = pin!(join_all((0..20).map(|_| read(&shared, &server))));
        assert_eq!(others.as_mut().now_or_never(), None);
        server.answer_one();
        assert_eq!(first.await, Ok(Arc::new(1)));
        assert_eq!(others.as_mut().now_or_never(), None);
        server.answer_one();
        assert_eq!(others.await, vec![Ok(Arc::new(2)); 20]);
        assert_eq!(server.requests(), 2);
    }

    #[tokio::test]
    async fn reader_never_gets_a_response_to_an_earlier_request() {
        let (server, shared) = (Arc::new(Server::default()), Arc::new(SharedRead::default()));
        for number in 1..=3 {
            assert_eq!(read(&shared, &server).await, Ok(Arc::new(number)));
        }
    }

    #[tokio::test]
    async fn dropped_reader_leaves_the_request_to_the_next() {
        let (server, shared) = (Server::held(), Arc::new(SharedRead::default()));
        let mut dropped = Box::pin(read(&shared, &server));
        assert_eq!(dropped.as_mut().now_or_never(), None);
        let mut next = pin!(read(&shared, &server));
        assert_eq!(next.as_mut().now_or_never(), None);
        drop(dropped);
        assert_eq!(next.as_mut().now_or_never(), None);
        server.answer_one();
        assert_eq!(next.await, Ok(Arc::new(2)));
    }

    #[tokio::test]
    async fn failure_reaches_all_who_share_the_request() {
        let (server, shared) = (Server::held(), Arc::new(SharedRead::default()));
        let failure = KubeError::Unavailable("no response".to_owned());
        let mut first = pin!(read(&shared, &server));
        assert_eq!(first.as_mut().now_or_never(), None);
        let failing = || {
            let (server, failure) = (server.clone(), failure.clone());
            shared.read(|| server.request().map(|_| Err(failure)))
        };
        let mut others = pin!(join_all((0..3).map(|_| failing())));
        assert_eq!(others.as_mut().now_or_never(), None);
        server.answer_one();
        server.answer_one();
        assert_eq!(first.await, Ok(Arc::new(1)));
        assert_eq!(others.await, vec![Err(failure.clone()); 3]);
        assert_eq!(server.requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn hung_request_delays_readers_by_three_seconds() {
        let (server, shared) = (Server::held(), Arc::new(SharedRead::default()));
        let mut hung = pin!(read(&shared, &server));
        assert_eq!(hung.as_mut().now_or_never(), None);
        for requests in 2..=3 {
            let mut readers = pin!(join_all((0..20).map(|_| read(&shared, &server))));
            let waited =
                tokio::time::timeout(MAX_WAIT.saturating_sub(Duration::from_millis(10)), readers.as_mut());
            assert!(waited.await.is_err());
            assert_eq!(server.requests(), requests - 1, "they wait for the request that hangs");
            let waited = tokio::time::timeout(Duration::from_millis(20), readers.as_mut());
            assert!(waited.await.is_err());
            assert_eq!(server.requests(), requests, "they share one more request");
        }
    }

    #[tokio::test]
    async fn response_is_dropped_with_its_last_reader() {
        let (server, shared) = (Arc::new(Server::default()), Arc::new(SharedRead::default()));
        let response = read(&shared, &server).await.unwrap();
        assert_eq!(Arc::strong_count(&response), 1);
    }
}
