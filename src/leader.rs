//! Leader election: only one of several replicas is active and the others wait, by a
//! [Lease](https://kubernetes.io/docs/concepts/architecture/leases/).
//!
//! `kube_lease_manager` acquires, renews and releases the lease. While another replica holds it, `standby.rs` waits instead
//! of the library. The library compares the lease with the local clock, so a replica whose clock is ahead would take it from
//! a leader that works. Two cases remain in which two replicas lead until the first one renews, up to 13 s later: two standbys
//! find the lease free at the same time, and the clock of the slower one is ahead; or somebody deletes the Lease.
//!
//! Leader election only saves work: two replicas that both act as leader describe streams twice as often but
//! make no call twice, because each call is fenced by its ledger.

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

mod standby;

use standby::Standby;

/// Validity of the lease after its last renewal, in seconds. A replica that fails is replaced after this
/// time.
const LEASE_DURATION: u64 = 30;
/// Time before the end of the lease at which it is renewed, in seconds.
const RENEW_GRACE_PERIOD: u64 = 17;
/// The time between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(LEASE_DURATION - RENEW_GRACE_PERIOD);
/// Timeouts of a request about the lease: an API server that does not respond counts as unavailable. A renewal is two
/// requests, so it fails within 12 s, less than [`RENEW_INTERVAL`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long failed renewals are repeated, counted from the end of the first: so short that the term ends before the lease
/// does, even if each write ends with a timeout. Reconciles that are running then may outlast the lease; the ledger is their
/// fence.
const REPEAT_FOR: Duration = Duration::from_secs(4);
/// Delay before a renewal is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Delay before the next attempt to acquire the lease, after an error.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Timeout of one attempt to acquire a free lease.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(10);

/// A candidate for the lease.
pub struct LeaderElection {
    client: Client,
    namespace: String,
    /// The name of the lease. Each operator of a namespace has its own.
    lease: String,
    /// The identity of this replica: the pod's name.
    identity: String,
}

impl LeaderElection {
    /// Creates a candidate for this lease in `namespace`. Without an `identity`, it has a random one, as long as it lives.
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
        let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
        let identity = identity.unwrap_or_else(random_identity);
        Ok(Self { client: Client::try_from(cluster)?, namespace, lease, identity })
    }

    /// Runs `work` each time this replica acquires the lease, until `end` is cancelled. The token of `work` is cancelled
    /// when the lease is lost or `end` is cancelled. `work` must then end soon, without waiting for AWS's rate limits. It
    /// runs in a task of its own, so it cannot delay a renewal. `on_lease_read` is called after each successful read of the
    /// lease: this replica then leads or waits, and is ready.
    pub async fn run<F: Future<Output = ()> + Send + 'static>(
        &self,
        end: &CancellationToken,
        on_lease_read: impl Fn(),
        work: impl Fn(CancellationToken) -> F,
    ) {
        let (mut warnings, mut refusals) = (Warnings::default(), Warnings::default());
        // Kept across attempts: a read that fails must not restart the wait for the lease to expire.
        let mut standby = Standby::new(
            self.client.clone(),
            &self.namespace,
            &self.lease,
            self.identity.clone(),
            Duration::from_secs(LEASE_DURATION),
        );
        while !end.is_cancelled() {
            let acquiring = self.acquire(&mut standby, &on_lease_read);
            let acquired = tokio::select! {
                acquired = acquiring => acquired,
                () = end.cancelled() => return,
            };
            let ended = match acquired {
                Ok(Some(manager)) => self.lead(&manager, end, &work).await,
                // Another replica was faster, or the API server is slow, or it answers each write with a conflict, which the
                // library repeats without an error.
                Ok(None) => {
                    if standby.nobody_holds_lease().await.unwrap_or_default() && refusals.is_due() {
                        let within = ACQUIRE_WITHIN.as_secs();
                        warn!(
                            lease = self.lease,
                            "nobody holds the lease, but it could not be acquired within {within} s; delete the Lease if that continues"
                        );
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                if warnings.is_due() {
                    let error = error_chain(&error);
                    warn!(error, lease = self.lease, "failed to read or write the lease");
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PERIOD) => {}
                    () = end.cancelled() => {}
                }
            }
        }
    }

    /// Waits until nobody holds the lease, and acquires it. Returns `None` if that takes longer than [`ACQUIRE_WITHIN`],
    /// for example because another replica acquires it first.
    async fn acquire(
        &self,
        standby: &mut Standby,
        on_lease_read: impl Fn(),
    ) -> kube_lease_manager::Result<Option<LeaseManager>> {
        standby.wait(&on_lease_read).await?;
        let manager = self.create_manager().await?;
        on_lease_read();
        // It returns `true` as soon as this replica holds the lease.
        match tokio::time::timeout(ACQUIRE_WITHIN, manager.changed()).await {
            Ok(is_held) => Ok(is_held?.then_some(manager)),
            Err(_) => Ok(None),
        }
    }

    /// Returns the manager of the lease, which it creates if the lease does not exist.
    async fn create_manager(&self) -> kube_lease_manager::Result<LeaseManager> {
        let manager = LeaseManagerBuilder::new(self.client.clone(), &self.lease)
            .with_namespace(&self.namespace)
            .with_duration(LEASE_DURATION)
            .with_grace(RENEW_GRACE_PERIOD)
            .with_identity(&self.identity);
        manager.build().await
    }

    /// Runs `work` until the lease is lost or cannot be renewed, or `work` ends after `end` is cancelled. A replica that cannot
    /// renew the lease does not lead: without the API server it could not write anything either.
    async fn lead<F: Future<Output = ()> + Send + 'static>(
        &self,
        manager: &LeaseManager,
        end: &CancellationToken,
        work: &impl Fn(CancellationToken) -> F,
    ) -> kube_lease_manager::Result<()> {
        info!(lease = self.lease, "became leader");
        let token = end.child_token();
        let mut running = AbortOnDropHandle::new(tokio::spawn(work(token.clone())));
        // The lease is renewed until `work` has ended.
        let failure = tokio::select! {
            failure = renew(async || manager.changed().await) => failure,
            ended = &mut running => {
                if let Err(error) = ended {
                    resume_unwind(error.into_panic());
                }
                // The next leader does not have to wait for the lease to expire.
                if let Err(error) = manager.release().await {
                    warn!(%error, lease = self.lease, "failed to release the lease");
                }
                return Ok(());
            }
        };
        warn!(lease = self.lease, "lost leadership");
        token.cancel();
        if let Err(error) = running.await {
            resume_unwind(error.into_panic());
        }
        failure
    }
}

/// Returns a name that no other replica has.
fn random_identity() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Renews the lease until this replica no longer holds it. `changed` renews it again and again. It returns `false` once this
/// replica does not hold it, or the error of a renewal. A renewal that fails is repeated while the lease is valid: an API server that
/// answers one request with an error, or is being replaced, must not end a term, which costs a list of all objects and a
/// Describe of each stream.
///
/// # Errors
/// Renewals have failed for so long that the lease may expire.
async fn renew<E: std::error::Error>(mut changed: impl AsyncFnMut() -> Result<bool, E>) -> Result<(), E> {
    let mut failing_since = None;
    loop {
        let begin = Instant::now();
        let error = match changed().await {
            Err(error) => error,
            Ok(_) => return Ok(()),
        };
        // A renewal that fails takes less than RENEW_INTERVAL. A longer call of `changed` has therefore renewed the lease before
        // it failed, so the time of the failures begins anew.
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

    use super::*;

    /// Renews a lease for at most an hour. `server` gets the time since the start, and returns how many seconds the renewal
    /// takes and whether it succeeds.
    async fn renew_with(mut server: impl FnMut(Duration) -> (u64, bool)) -> (Duration, Result<(), Error>) {
        let begin = Instant::now();
        let renewed = renew(async || {
            loop {
                let (seconds, succeeds) = server(begin.elapsed());
                tokio::time::sleep(Duration::from_secs(seconds)).await;
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
    async fn failed_renewals_do_not_end_a_term_within_the_lease() {
        let mut renewals = 0;
        let every_second_one_fails = |_| {
            renewals += 1;
            (4, renewals % 2 == 0)
        };
        let (lasted, renewed) = renew_with(every_second_one_fails).await;
        renewed.unwrap();
        assert!(lasted > Duration::from_hours(1));
    }

    #[tokio::test(start_paused = true)]
    async fn term_ends_while_its_lease_is_valid() {
        // The first failure takes `first` seconds, those after REPEAT_FOR take `last` seconds: from 0 to 6, the connect and the
        // response timeout.
        for (first, last) in (0..=6).flat_map(|first| (0..=6).map(move |last| (first, last))) {
            let fails_from = RENEW_INTERVAL * 50;
            let server = |at: Duration| match at.saturating_sub(fails_from) {
                Duration::ZERO if at < fails_from => (0, true),
                failing if failing < Duration::from_secs(first + 1) => (first, false),
                failing if failing >= Duration::from_secs(first) + REPEAT_FOR => (last, false),
                _ => (0, false),
            };
            let (lasted, renewed) = renew_with(server).await;
            assert!(renewed.is_err());
            let after = lasted.saturating_sub(fails_from);
            assert!(after < Duration::from_secs(RENEW_GRACE_PERIOD), "{first}, {last}: {after:?}");
        }
    }
}
