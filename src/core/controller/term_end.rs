//! The end of the term in which a reconcile runs: the time for which this replica is the leader. A reconcile that still
//! waits for AWS ends then, without a call.
//!
//! Such a wait may last minutes, and the next leader would do the same work meanwhile. A call whose permit is
//! acquired is still sent, and its outcome recorded, unless the stream must be described again first.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::clock::Clock;
use super::interruption::Interruption;

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The end of a term. The default never comes.
#[derive(Clone, Default)]
pub struct TermEnd(Option<Arc<dyn Fn() -> Wait + Send + Sync>>);

impl TermEnd {
    /// Creates the end of a term from a function that waits for it.
    #[must_use]
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        wait: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(move || Box::pin(wait()))))
    }

    /// Waits for `request`. Ends the reconcile if the term ends first, or has ended.
    pub(super) async fn in_term<T>(
        &self,
        clock: &Clock,
        request: impl Future<Output = T> + Send,
    ) -> Result<T, Interruption> {
        self.unless_ended(request).await.ok_or_else(|| Interruption::Ended(clock.now()))
    }

    /// Waits for `request`. Returns `None` if the term ends first, or has ended. The request is on the heap,
    /// because the futures of the steps would become large otherwise.
    pub(super) fn unless_ended<T>(
        &self,
        request: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send {
        let (mut end, mut request) = (self.0.as_ref().map(|wait| wait()), Box::pin(request));
        poll_fn(move |context| {
            if end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready()) {
                return Poll::Ready(None);
            }
            request.as_mut().poll(context).map(Some)
        })
    }
}
