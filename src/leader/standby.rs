//! What a replica does while it does not lead: it reads the lease, and acquires it once no other replica holds it.
//!
//! As in client-go, a lease has expired once this replica has read the same content for its validity, which is 30 s
//! ([`LEASE_DURATION`]) or more, by its monotonic clock. The times in the lease are not compared with a clock: the clocks of
//! nodes can differ by more than 30 s.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use tokio::time::Instant;
use tracing::info;

use super::lease_client::{HeldLease, LEASE_DURATION, LeaseClient};

/// A replica that does not lead.
pub(super) struct Standby {
    lease: LeaseClient,
    /// The content of the lease when it was last read.
    content: Option<LeaseSpec>,
    /// When this replica first read this content.
    since: Instant,
}

impl Standby {
    /// Creates a standby for this lease.
    pub(super) fn new(lease: LeaseClient) -> Self {
        Self { lease, content: None, since: Instant::now() }
    }

    /// Reads the lease, and acquires it unless another replica holds it. Returns `None` if another one holds it, or if
    /// somebody has written it since it was read. `on_answer` is called after a read that finds the lease, and after a request
    /// to acquire the lease that did not fail (a conflict is no failure). It is not called after a read that finds no lease,
    /// because the API server may not permit the replica to create one.
    ///
    /// # Errors
    /// The API server does not respond, or refuses a request.
    pub(super) async fn try_acquire(&mut self, on_answer: impl Fn()) -> kube::Result<Option<HeldLease>> {
        let found = self.lease.read().await?;
        if found.is_some() {
            on_answer();
        }
        self.record(found.as_ref());
        let other = found.as_ref().and_then(|lease| self.lease.other_holder(lease));
        if other.is_some() && !self.has_expired() {
            return Ok(None);
        }
        let acquired = self.lease.acquire(found.as_ref()).await?;
        on_answer();
        if let (Some(_), Some(holder)) = (&acquired, other) {
            info!(lease = self.lease.name, holder, "replaced a holder that did not renew the lease");
        }
        Ok(acquired)
    }

    /// Records the content of the lease that was read.
    fn record(&mut self, found: Option<&Lease>) {
        let content = found.and_then(|lease| lease.spec.as_ref());
        if self.content.as_ref() != content {
            (self.content, self.since) = (content.cloned(), Instant::now());
        }
    }

    /// Returns whether this replica has read the same content of the lease for the whole validity of the lease. This is the
    /// validity that the lease contains, but at least 30 s. A later version of the operator may write a longer one.
    fn has_expired(&self) -> bool {
        let written = self.content.as_ref().and_then(|content| content.lease_duration_seconds);
        let written = written.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        self.since.elapsed() >= written.map_or(LEASE_DURATION, |written| written.max(LEASE_DURATION))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use serde_json::json;

    use super::super::RETRY_PERIOD;
    use super::super::test_server::{FIRST, Reply, Server, held_by};
    use super::*;

    /// Returns after how many seconds a standby acquires the lease; `None` after an hour.
    async fn acquires_after(server: &Arc<Server>, identity: &str) -> Option<u64> {
        let begin = Instant::now();
        let mut standby = Standby::new(server.lease(identity));
        while begin.elapsed() < Duration::from_hours(1) {
            if let Ok(Some(_)) = standby.try_acquire(|| {}).await {
                return Some(begin.elapsed().as_secs());
            }
            tokio::time::sleep(RETRY_PERIOD).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_is_renewed_is_never_acquired() {
        let server = Server::new(None, |at, _, lease| {
            lease.spec = Some(held_by(FIRST, at.as_secs() / 28));
            Reply::Answered
        });
        assert_eq!(acquires_after(&server, "second").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn lease_without_renewal_is_acquired_after_its_duration() {
        // A read that fails does not begin the duration anew.
        for reads_fail in [false, true] {
            let server = Server::new(Some(held_by(FIRST, 0)), move |at, request, lease| {
                if at.as_secs() == 100 {
                    lease.spec = Some(held_by(FIRST, 1));
                } else if at.as_secs() < 100 {
                    lease.spec = Some(held_by(FIRST, at.as_secs() / 20));
                }
                let fails = reads_fail && request == "GET" && at.as_secs() % 10 == 6;
                if fails { Reply::Unavailable } else { Reply::Answered }
            });
            assert_eq!(acquires_after(&server, "second").await, Some(130), "{reads_fail}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn longer_validity_that_the_holder_wrote_is_respected() {
        let mut spec = held_by(FIRST, 0);
        spec["leaseDurationSeconds"] = json!(60);
        let server = Server::new(Some(spec), |_, _, _| Reply::Answered);
        assert_eq!(acquires_after(&server, "second").await, Some(60));
    }

    #[tokio::test(start_paused = true)]
    async fn released_lease_is_acquired_within_two_seconds() {
        let server = Server::new(Some(held_by(FIRST, 0)), |at, _, lease| {
            if at.as_secs() == 6 {
                lease.spec = Some(json!({}));
            }
            Reply::Answered
        });
        assert_eq!(acquires_after(&server, "second").await, Some(6));
    }

    #[tokio::test(start_paused = true)]
    async fn free_or_own_lease_is_acquired_at_once() {
        for spec in [None, Some(json!({})), Some(held_by("", 0)), Some(held_by(FIRST, 0))] {
            let server = Server::new(spec.clone(), |_, _, _| Reply::Answered);
            assert_eq!(acquires_after(&server, FIRST).await, Some(0), "{spec:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replica_that_cannot_create_the_lease_is_not_ready() {
        for (stored, reply, is_ready) in [
            (None, Reply::Unavailable, false),
            (None, Reply::UnknownPath, false),
            (None, Reply::Answered, true),
            (Some(held_by(FIRST, 0)), Reply::Unavailable, true),
        ] {
            let server = Server::new(
                stored.clone(),
                move |_, request, _| {
                    if request == "GET" { Reply::Answered } else { reply }
                },
            );
            let ready = Cell::new(false);
            let _ = Standby::new(server.lease("second")).try_acquire(|| ready.set(true)).await;
            assert_eq!(ready.get(), is_ready, "{stored:?}, {reply:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replica_that_cannot_write_does_not_acquire() {
        let server = Server::new(Some(held_by(FIRST, 0)), |_, request, _| {
            if request == "GET" { Reply::Answered } else { Reply::Unavailable }
        });
        for identity in [FIRST, "second"] {
            assert_eq!(acquires_after(&server, identity).await, None);
        }
    }
}
