//! Leader election: only one of several replicas is active and the others wait, by a
//! [Lease](https://kubernetes.io/docs/concepts/architecture/leases/).
//!
//! `kube_lease_manager` acquires and renews the lease. While another replica holds it, `standby.rs` waits instead of the
//! library. The library compares the lease with the local clock, so a replica whose clock is ahead would take it from a leader
//! that works. This module releases the lease itself, too, because the library would release one that another replica holds.
//!
//! Leader election only saves work. Two replicas can lead at once for some seconds, in each of these cases:
//!
//! - Somebody deletes the Lease, and a standby creates it again.
//! - A leader is paused, or its last reconciles outlast the lease.
//! - A leader stops renewing without noticing it, because its clock is set back or its renewals get conflicts. It and the
//!   standbys then find by their reads that the lease has expired. A standby reads more often than the leader, so it may
//!   begin to lead some seconds before the old leader stops.
//! - Two standbys find the lease free. From then on the library decides by the local clock, so one whose clock is ahead by more
//!   than `RENEW_GRACE_PERIOD` takes the lease from the other.
//!
//! Then streams are described twice as often, but no replica repeats a Start or Stop of the other: each is recorded in the
//! stream's ledger before it is sent, and the API server accepts that record from one of them only.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::resume_unwind;
use std::time::Duration;

use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::telemetry::{Warnings, error_chain};

mod lease_client;
mod renewals;
mod standby;
#[cfg(test)]
mod test_server;

use lease_client::LeaseClient;
use standby::Standby;

/// Validity of the lease after its last renewal, in seconds. A replica that fails is replaced after this
/// time.
const LEASE_DURATION: u64 = 30;
/// Time before the end of the lease at which it is renewed, in seconds.
const RENEW_GRACE_PERIOD: u64 = 17;
/// The time between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(LEASE_DURATION - RENEW_GRACE_PERIOD);
/// Timeouts of a request about the lease: an API server that does not respond counts as unavailable. A request fails within 6 s
/// (to connect, then to respond). A renewal is two requests, a write and a read, so one that fails does so within 12 s.
/// [`renew_until_lost`] depends on this being less than [`RENEW_INTERVAL`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long after the first failure a failed renewal is still repeated. The last repetition must end before the lease expires,
/// [`RENEW_GRACE_PERIOD`] after the renewal was due. The worst case is 6 s (first write) + 4 s (`REPEAT_FOR`) + 1 s
/// ([`REPEAT_AFTER`]) + 6 s (last write) = 17 s. Only writes count: before a read that fails, the write has renewed the lease.
///
/// Reconciles that are running then may outlast the lease; the ledger is their fence.
const REPEAT_FOR: Duration = Duration::from_secs(4);
/// Delay before a renewal is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Delay before the next attempt to acquire the lease, after an error.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Timeout of one attempt to acquire a free lease: five requests, with 3 s for each response, and a connection.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(18);

/// A candidate for the lease.
pub struct LeaderElection {
    client: Client,
    namespace: String,
    lease: LeaseClient,
}

impl LeaderElection {
    /// Creates a candidate for this lease in `namespace`. The replicas of one installation share a lease; another
    /// installation in the namespace needs a lease of another name. `identity` is the pod's name; without one, the replica has a
    /// random one, as long as it lives.
    pub fn new(
        cluster: &Config,
        namespace: &str,
        lease: &str,
        identity: Option<String>,
    ) -> kube::Result<Self> {
        let mut cluster = cluster.clone();
        cluster.connect_timeout = Some(CONNECT_TIMEOUT);
        cluster.read_timeout = Some(RESPONSE_TIMEOUT);
        cluster.write_timeout = Some(RESPONSE_TIMEOUT);
        let client = Client::try_from(cluster)?;
        Ok(Self::with_client(client, namespace, lease, identity.unwrap_or_else(random_identity)))
    }

    fn with_client(client: Client, namespace: &str, lease: &str, identity: String) -> Self {
        let lease = LeaseClient::new(client.clone(), namespace, lease, identity);
        Self { client, namespace: namespace.to_owned(), lease }
    }

    /// Runs `work` each time this replica acquires the lease, until `end` is cancelled. The token of `work` is cancelled
    /// when the lease is lost or `end` is cancelled. `work` must then end soon, without waiting for AWS's rate limits. It
    /// runs in a task of its own, so it cannot delay a renewal. `on_lease_read` is called after a standby has read the lease, and
    /// just before it acquires the lease: the replica reaches the API server, so it is ready, whether it leads or not.
    pub async fn run<F: Future<Output = ()> + Send + 'static>(
        &self,
        end: &CancellationToken,
        on_lease_read: impl Fn(),
        work: impl Fn(CancellationToken) -> F,
    ) {
        let (mut error_warnings, mut acquire_warnings) = (Warnings::default(), Warnings::default());
        // Kept across attempts: a read that fails must not restart the wait for the lease to expire.
        let mut standby = Standby::new(self.lease.clone(), Duration::from_secs(LEASE_DURATION));
        while !end.is_cancelled() {
            let acquiring = self.acquire(&mut standby, &mut acquire_warnings, &on_lease_read);
            let acquired = tokio::select! {
                acquired = acquiring => acquired,
                () = end.cancelled() => break,
            };
            let ended = match acquired {
                Ok(Some(manager)) => self.lead(&manager, end, &work).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                if error_warnings.take_due() {
                    let error = error_chain(&error);
                    warn!(error, lease = self.lease.name, "failed to read or write the lease");
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PERIOD) => {}
                    () = end.cancelled() => {}
                }
            }
        }
        // Even if this replica does not lead, it may hold the lease: a request acquired or renewed the lease, but a later one
        // failed, or this replica did not wait for the response.
        self.release().await;
    }

    /// Waits, without a limit, until nobody holds the lease. Then returns `None` if acquiring it takes longer than
    /// [`ACQUIRE_WITHIN`], for example because another replica acquires it first.
    async fn acquire(
        &self,
        standby: &mut Standby,
        warnings: &mut Warnings,
        on_lease_read: impl Fn(),
    ) -> kube_lease_manager::Result<Option<LeaseManager>> {
        standby.wait(&on_lease_read).await?;
        let manager = self.create_manager().await?;
        on_lease_read();
        // `changed` returns `true` as soon as this replica holds the lease.
        if let Ok(is_held) = tokio::time::timeout(ACQUIRE_WITHIN, manager.changed()).await {
            return Ok(is_held?.then_some(manager));
        }
        // If no other replica holds the lease now, there are three possible causes: another one held it for a moment, the API
        // server is slow, or another field manager owns fields of the Lease. In the third case, each server-side apply gets a
        // conflict, and the library repeats it without returning an error.
        if self.lease.no_other_holds_it().await? && warnings.take_due() {
            warn!(
                lease = self.lease.name,
                "no other replica holds the lease, but it could not be acquired within {} s: another replica has just released it, the API server is slow, or fields of the Lease belong to another field manager; in the latter case, delete the Lease",
                ACQUIRE_WITHIN.as_secs()
            );
        }
        Ok(None)
    }

    /// Returns a manager of the lease. Creates the lease if it does not exist.
    async fn create_manager(&self) -> kube_lease_manager::Result<LeaseManager> {
        let manager = LeaseManagerBuilder::new(self.client.clone(), &self.lease.name)
            .with_namespace(&self.namespace)
            .with_duration(LEASE_DURATION)
            .with_grace(RENEW_GRACE_PERIOD)
            .with_identity(&self.lease.identity);
        manager.build().await
    }

    /// Runs `work`. Returns when the lease is lost, when it cannot be renewed, or when `work` has ended because `end` was
    /// cancelled. In the last case, this replica still holds the lease. A replica that cannot renew the lease does not lead:
    /// without the API server it could not write anything either.
    async fn lead<F: Future<Output = ()> + Send + 'static>(
        &self,
        manager: &LeaseManager,
        end: &CancellationToken,
        work: &impl Fn(CancellationToken) -> F,
    ) -> kube_lease_manager::Result<()> {
        info!(lease = self.lease.name, "became leader");
        let token = end.child_token();
        let mut running = AbortOnDropHandle::new(tokio::spawn(work(token.clone())));
        // The lease is renewed until `work` has ended.
        let lost = tokio::select! {
            lost = renew_until_lost(async || manager.changed().await) => lost,
            // The library may not notice that the lease has expired, or that another replica holds it.
            () = renewals::until_expired_or_taken(&self.lease, Duration::from_secs(LEASE_DURATION)) => Ok(()),
            ended = &mut running => {
                if let Err(error) = ended {
                    resume_unwind(error.into_panic());
                }
                return Ok(());
            }
        };
        let cause = lost
            .as_ref()
            .err()
            .map_or_else(|| "the lease has expired or was taken".to_owned(), |error| error_chain(error));
        // Logged now, because the reconciles may take long to end.
        warn!(cause, lease = self.lease.name, "lost leadership");
        token.cancel();
        if let Err(error) = running.await {
            resume_unwind(error.into_panic());
        }
        lost
    }

    /// Releases the lease if this replica holds it.
    async fn release(&self) {
        let lease = &self.lease.name;
        match self.lease.release().await {
            Ok(true) => {}
            Ok(false) => warn!(lease, "failed to release the lease, because something else writes it"),
            Err(error) => warn!(error = error_chain(&error), lease, "failed to release the lease"),
        }
    }
}

/// Returns a name that no other replica has.
fn random_identity() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Renews the lease until this replica no longer holds it. `changed` renews it again and again. It returns `false` once this
/// replica does not hold it, or the error of a renewal. A renewal that fails is repeated for [`REPEAT_FOR`]: an API
/// server that answers a request with an error, or is unavailable for a moment, must not end a term, which costs a list of all
/// objects and a Describe of each stream.
///
/// # Errors
/// Renewals have failed for [`REPEAT_FOR`].
async fn renew_until_lost<E: std::error::Error>(
    mut changed: impl AsyncFnMut() -> Result<bool, E>,
) -> Result<(), E> {
    let mut failing_since = None;
    loop {
        let begin = Instant::now();
        let Err(error) = changed().await else { return Ok(()) };
        // `changed` renews again and again, and returns at the first failure. If it ran for `RENEW_INTERVAL` or longer, it has
        // renewed the lease before it failed, because one failing renewal takes at most 12 s. So this is the first failure of a
        // new series. There are two exceptions. In the first call of a term, no failure is recorded yet, so nothing is lost. And
        // `changed` repeats conflicts itself, so it can run that long without a renewal; `until_expired_or_taken` then ends
        // the term.
        if begin.elapsed() >= RENEW_INTERVAL {
            failing_since = None;
        }
        if failing_since.get_or_insert_with(Instant::now).elapsed() >= REPEAT_FOR {
            return Err(error);
        }
        debug!(%error, "failed to renew the lease, repeating");
        tokio::time::sleep(REPEAT_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::test_server::{Fault, HOLDER, Server};
    use super::*;

    /// Renews a lease for at most an hour. `server` gets the time since the start, and returns how long the renewal takes
    /// and whether it succeeds.
    async fn renew_with(
        mut server: impl FnMut(Duration) -> (Duration, bool),
    ) -> (Duration, Result<(), Error>) {
        let begin = Instant::now();
        let renewed = renew_until_lost(async || {
            loop {
                let (lasts, succeeds) = server(begin.elapsed());
                tokio::time::sleep(lasts).await;
                if !succeeds {
                    return Err(Error::from(ErrorKind::TimedOut));
                }
                tokio::time::sleep(RENEW_INTERVAL).await;
                if begin.elapsed() > Duration::from_hours(1) {
                    return Ok(false);
                }
            }
        });
        let renewed = renewed.await;
        (begin.elapsed(), renewed)
    }

    #[tokio::test(start_paused = true)]
    async fn single_failed_renewals_do_not_end_a_term() {
        let mut renewals = 0;
        let every_second_one_fails = |_| {
            renewals += 1;
            (Duration::from_secs(4), renewals % 2 == 0)
        };
        let (lasted, renewed) = renew_with(every_second_one_fails).await;
        renewed.unwrap();
        assert!(lasted > Duration::from_hours(1));
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_failures_end_the_term_before_the_lease() {
        // The first failure takes `first` seconds. The repetition after it ends just before `REPEAT_FOR`, so that there is a last
        // one, which takes `last` seconds. Each takes at most 6 s: the connect and the response timeout.
        for (first, last) in (0..=6).flat_map(|first| (0..=6).map(move |last| (first, last))) {
            let fails_from = RENEW_INTERVAL * 50;
            let first = Duration::from_secs(first);
            let middle = REPEAT_FOR.saturating_sub(REPEAT_AFTER + Duration::from_millis(1));
            let mut failures = 0;
            let server = |at: Duration| {
                if at < fails_from {
                    return (Duration::ZERO, true);
                }
                failures += 1;
                match failures {
                    1 => (first, false),
                    2 => (middle, false),
                    _ => (Duration::from_secs(last), false),
                }
            };
            let (lasted, renewed) = renew_with(server).await;
            assert!(renewed.is_err());
            let after = lasted.saturating_sub(fails_from);
            assert!(after < Duration::from_secs(RENEW_GRACE_PERIOD), "{first:?}, {last}: {after:?}");
        }
    }

    #[tokio::test]
    async fn shutdown_while_acquiring_releases_the_lease() {
        let server = Server::new(|_, _| {}, Fault::HangingPatch);
        let election = LeaderElection::with_client(server.client(), "system", "operator", HOLDER.to_owned());
        let end = CancellationToken::new();
        let shutdown = async {
            server.hangs.notified().await;
            assert!(server.is_held());
            end.cancel();
        };
        let run = async { tokio::join!(election.run(&end, || {}, |_| std::future::pending()), shutdown) };
        tokio::time::timeout(Duration::from_mins(1), run).await.unwrap();
        assert!(!server.is_held());
    }
}
