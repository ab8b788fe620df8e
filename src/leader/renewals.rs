//! Whether a lease is renewed, measured by the monotonic clock of this replica.
//!
//! The clocks of nodes can differ by more than the lease lasts, and can be set. So the time in the lease is never compared
//! with a clock, and only shows whether the lease was renewed. As in client-go, a lease has expired if it has not changed for
//! its duration.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use tokio::time::{Instant, sleep};

use super::lease_client::LeaseClient;

/// Time between two reads of the own lease by the leader.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The renewals of a lease, as this replica has read them.
pub(super) struct Renewals {
    duration: Duration,
    /// The content of the lease when it was last read.
    content: Option<LeaseSpec>,
    /// When this replica read that content first.
    since: Instant,
}

impl Renewals {
    /// Creates the renewals of a lease that expires if it is not renewed for `duration`.
    pub(super) fn new(duration: Duration) -> Self {
        Self { duration, content: None, since: Instant::now() }
    }

    /// Records the content of the lease.
    pub(super) fn record(&mut self, content: LeaseSpec) {
        if self.content.as_ref() != Some(&content) {
            (self.content, self.since) = (Some(content), Instant::now());
        }
    }

    /// Returns whether the lease has expired: its content has not changed for its duration.
    pub(super) fn has_expired(&self) -> bool {
        self.since.elapsed() >= self.duration
    }
}

/// Returns once this replica does not hold the lease any more, or has not seen it renewed for `duration`. The library alone
/// may notice neither: it waits by the local clock, which can be set back, and repeats a renewal without limit while the API
/// server answers it with a conflict.
pub(super) async fn until_expired_or_taken(lease: &LeaseClient, duration: Duration) {
    let mut renewals = Renewals::new(duration);
    while !renewals.has_expired() {
        sleep(CHECK_INTERVAL).await;
        // A failed read, or a deleted lease, counts as no renewal: the time goes on.
        let Ok(Some(found)) = lease.read().await else { continue };
        let content = found.spec.unwrap_or_default();
        if !lease.is_own(&content) {
            return;
        }
        renewals.record(content);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_server::{Fault, HOLDER, Server, spec_after_renewals};
    use super::*;

    const DURATION: Duration = Duration::from_secs(30);

    /// Returns the time after which the leader notices that it has lost its lease; `None` after an hour.
    async fn lasts(at_read: fn(Duration, &mut Value), fault: Fault) -> Option<u64> {
        let begin = Instant::now();
        let server = Server::new(at_read, fault);
        let lease = LeaseClient::new(server.client(), "system", "operator", HOLDER.to_owned());
        let lost =
            tokio::time::timeout(Duration::from_hours(1), until_expired_or_taken(&lease, DURATION)).await;
        lost.is_ok().then(|| begin.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn leader_that_renews_its_lease_keeps_it() {
        for fault in [Fault::None, Fault::EveryFifthReadFails] {
            let renew = |at: Duration, spec: &mut Value| *spec = spec_after_renewals(at.as_secs() / 13);
            assert_eq!(lasts(renew, fault).await, None, "{fault:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leader_that_does_not_renew_its_lease_loses_it() {
        let stop = |at: Duration, spec: &mut Value| *spec = spec_after_renewals(at.as_secs().min(100) / 20);
        assert_eq!(lasts(stop, Fault::None).await, Some(130));
    }

    #[tokio::test(start_paused = true)]
    async fn leader_without_api_server_loses_its_lease() {
        assert_eq!(lasts(|_, _| {}, Fault::EveryReadFails).await, Some(30));
    }

    #[tokio::test(start_paused = true)]
    async fn leader_stops_when_another_replica_holds_its_lease() {
        let take = |at: Duration, spec: &mut Value| {
            *spec = if at.as_secs() < 50 {
                spec_after_renewals(at.as_secs())
            } else {
                json!({"holderIdentity": "second"})
            };
        };
        assert_eq!(lasts(take, Fault::None).await, Some(50));
    }
}
