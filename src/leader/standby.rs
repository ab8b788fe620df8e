//! What a replica does while another one leads: it reads the lease until nobody holds it.
//!
//! A holder is removed only if its lease has expired, if it is this replica, or if it has no name.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tracing::info;

use super::lease_client::{LeaseClient, holder_of};
use super::renewals::Renewals;

/// Time between two reads of the lease. A standby notices within this time that a lease was released. A replica that has just
/// lost a race for the lease still waits inside the library: it notices the release when its attempt ends, after at most
/// `ACQUIRE_WITHIN`.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// A replica that does not lead.
pub(super) struct Standby {
    lease: LeaseClient,
    renewals: Renewals,
}

/// Who holds a lease.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// An empty name, which somebody has written: the library takes it for another replica.
    Unnamed,
    /// This replica, in an earlier term or before its container was restarted.
    ThisReplica,
    /// Another replica. The lease has changed within its duration.
    Another,
    /// Another replica. The lease has not changed for its duration.
    Expired,
}

impl Standby {
    /// Creates a standby for this lease, which expires if it is not renewed for `duration`.
    pub(super) fn new(lease: LeaseClient, duration: Duration) -> Self {
        Self { lease, renewals: Renewals::new(duration) }
    }

    /// Returns once nobody holds the lease, or the lease does not exist. `on_read` is called after each read that
    /// finds the lease.
    ///
    /// # Errors
    /// The API server does not respond, or refuses the request.
    pub(super) async fn wait(&mut self, on_read: impl Fn()) -> kube::Result<()> {
        loop {
            let Some(lease) = self.lease.read().await? else { return Ok(()) };
            on_read();
            let holder = self.holder(&lease);
            if holder == Holder::Nobody {
                return Ok(());
            }
            // This replica is removed, too. Otherwise the library would report the lease as held without writing it: a replica
            // that cannot write would become leader again and again, and one whose container was restarted could lead on a
            // lease that is about to expire.
            let is_removable = matches!(holder, Holder::Unnamed | Holder::ThisReplica | Holder::Expired);
            if is_removable && self.lease.remove_holder(&lease).await? {
                let identity = lease.spec.as_ref().and_then(holder_of);
                let expired = holder == Holder::Expired;
                info!(lease = self.lease.name, holder = identity, expired, "removed the holder of the lease");
                return Ok(());
            }
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }

    fn holder(&mut self, lease: &Lease) -> Holder {
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.is_none() {
            return Holder::Nobody;
        }
        if holder_of(&spec).is_none() {
            return Holder::Unnamed;
        }
        if self.lease.is_own(&spec) {
            return Holder::ThisReplica;
        }
        self.renewals.record(spec);
        if self.renewals.has_expired() { Holder::Expired } else { Holder::Another }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::super::test_server::{Fault, HOLDER, Server, spec_after_renewals};
    use super::*;

    const DURATION: Duration = Duration::from_secs(30);

    /// Returns the time after which the standby stops waiting, and whether the lease has a holder then. `None` after an hour.
    async fn waits(
        at_read: fn(Duration, &mut Value),
        fault: Fault,
        identity: &str,
    ) -> (Option<Duration>, bool) {
        let begin = Instant::now();
        let server = Server::new(at_read, fault);
        let lease = LeaseClient::new(server.client(), "system", "operator", identity.to_owned());
        let mut standby = Standby::new(lease, DURATION);
        // As the caller does, after a request that failed.
        let waiting = async {
            while standby.wait(|| {}).await.is_err() {
                tokio::time::sleep(READ_INTERVAL).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_hours(1), waiting).await;
        (waited.is_ok().then(|| begin.elapsed()), server.is_held())
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_is_renewed_is_never_ended() {
        let renew = |at: Duration, spec: &mut Value| *spec = spec_after_renewals(at.as_secs() / 28);
        assert_eq!(waits(renew, Fault::None, "second").await, (None, true));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_without_renewal_is_ended_after_its_duration() {
        let die = |at: Duration, spec: &mut Value| *spec = spec_after_renewals(at.as_secs().min(100) / 20);
        // A read that fails does not begin the duration anew.
        for fault in [Fault::None, Fault::EveryFifthReadFails] {
            let (Some(waited), false) = waits(die, fault, "second").await else {
                panic!("the lease was not ended")
            };
            let since_renewal = waited.saturating_sub(Duration::from_secs(100));
            assert!(since_renewal >= DURATION && since_renewal <= DURATION + READ_INTERVAL * 3, "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn released_lease_is_noticed_within_seconds() {
        let release = |at: Duration, spec: &mut Value| {
            if at.as_secs() >= 5 {
                *spec = json!({});
            }
        };
        let (waited, _) = waits(release, Fault::None, "second").await;
        assert!(waited.is_some_and(|waited| waited <= Duration::from_secs(7)), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn own_lease_is_not_waited_for() {
        assert_eq!(waits(|_, _| {}, Fault::None, HOLDER).await, (Some(Duration::ZERO), false));
        // A replica that cannot write does not lead.
        assert_eq!(waits(|_, _| {}, Fault::Contention, HOLDER).await, (None, true));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_with_an_empty_holder_is_freed() {
        let clear = |_: Duration, spec: &mut Value| {
            *spec = spec_after_renewals(1);
            spec["holderIdentity"] = json!("");
        };
        let server = Server::new(clear, Fault::None);
        let lease = LeaseClient::new(server.client(), "system", "operator", "second".to_owned());
        Standby::new(lease, DURATION).wait(|| {}).await.unwrap();
        assert!(!server.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_changes_after_the_read_is_not_ended() {
        assert_eq!(waits(|_, _| {}, Fault::Contention, "second").await, (None, true));
    }
}
