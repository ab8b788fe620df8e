//! One read for all who ask at about the same time.
//!
//! A fleet's reconciles read the same list immediately before their calls, and each may only use a response to a request
//! that was sent after it has asked. At most one request runs at a time here: those who ask meanwhile share the next one,
//! which is sent when it ends. A response must never reach a reader that asked after its request was sent.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stream_encryption_core::controller::kube_api::KubeError;
use tokio::sync::Mutex;

/// A read that many share. The last response stays in memory.
pub(super) struct SharedRead<T> {
    /// How many reads have been asked for. The number of a read is the count after it has asked.
    asked: AtomicU64,
    /// Locked while a request runs.
    last: Mutex<Last<T>>,
}

/// The last request.
struct Last<T> {
    /// The number of the last read that had asked before the request was sent; 0 before the first one.
    serves: u64,
    response: Result<Arc<T>, KubeError>,
}

impl<T: Default> Default for SharedRead<T> {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), last: Mutex::new(Last { serves: 0, response: Ok(Arc::default()) }) }
    }
}

impl<T> SharedRead<T> {
    /// Returns the response to a request that is sent after this call, by `send` or by another reader.
    ///
    /// # Errors
    /// That of the request, for all who share it: they do not wait for the deadlines of further requests.
    pub(super) async fn read<S>(&self, send: impl FnOnce() -> S) -> Result<Arc<T>, KubeError>
    where
        S: Future<Output = Result<T, KubeError>>,
    {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if last.serves < number {
            let serves = self.asked.load(Ordering::SeqCst);
            // If this reader is dropped here, the next one sends a request of its own.
            let response = send().await.map(Arc::new);
            *last = Last { serves, response };
        }
        last.response.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
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
        fn held() -> Self {
            Self { answers: Some(Semaphore::new(0)), ..Self::default() }
        }

        fn answer_one(&self) {
            self.answers.as_ref().unwrap().add_permits(1);
        }

        async fn request(&self) -> Result<u64, KubeError> {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some(answers) = &self.answers {
                answers.acquire().await.unwrap().forget();
            }
            Ok(number)
        }
    }

    #[tokio::test]
    async fn readers_during_a_request_share_the_next() {
        let (server, shared) = (Server::held(), SharedRead::default());
        let mut first = pin!(shared.read(|| server.request()));
        assert_eq!(first.as_mut().now_or_never(), None);
        let mut others = pin!(join_all((0..20).map(|_| shared.read(|| server.request()))));
        assert_eq!(others.as_mut().now_or_never(), None);
        server.answer_one();
        assert_eq!(first.await, Ok(Arc::new(1)));
        assert_eq!(others.as_mut().now_or_never(), None);
        server.answer_one();
        assert_eq!(others.await, vec![Ok(Arc::new(2)); 20]);
        assert_eq!(server.requests.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn reader_never_gets_a_response_to_an_earlier_request() {
        let (server, shared) = (Server::default(), SharedRead::default());
        for number in 1..=3 {
            assert_eq!(shared.read(|| server.request()).await, Ok(Arc::new(number)));
        }
    }

    #[tokio::test]
    async fn dropped_reader_leaves_the_request_to_the_next() {
        let (server, shared) = (Server::held(), SharedRead::default());
        let mut dropped = Box::pin(shared.read(|| server.request()));
        assert_eq!(dropped.as_mut().now_or_never(), None);
        let mut next = pin!(shared.read(|| server.request()));
        assert_eq!(next.as_mut().now_or_never(), None);
        drop(dropped);
        assert_eq!(next.as_mut().now_or_never(), None);
        server.answer_one();
        assert_eq!(next.await, Ok(Arc::new(2)));
    }

    #[tokio::test]
    async fn failure_reaches_all_who_share_the_request() {
        let (server, shared) = (Server::held(), SharedRead::default());
        let failure = KubeError::Unavailable("no response".to_owned());
        let mut first = pin!(shared.read(|| server.request()));
        assert_eq!(first.as_mut().now_or_never(), None);
        let failing = || shared.read(|| server.request().map(|_| Err(failure.clone())));
        let mut others = pin!(join_all((0..3).map(|_| failing())));
        assert_eq!(others.as_mut().now_or_never(), None);
        server.answer_one();
        server.answer_one();
        assert_eq!(first.await, Ok(Arc::new(1)));
        assert_eq!(others.await, vec![Err(failure.clone()); 3]);
        assert_eq!(server.requests.load(Ordering::SeqCst), 2);
    }
}
