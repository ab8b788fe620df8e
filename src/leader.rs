//! Leader election: only one of several replicas is active and the others wait, by a
//! [Lease](https://kubernetes.io/docs/concepts/architecture/leases/).
//!
//! As in client-go, a standby acquires the lease if nobody else holds it, or if it has not changed for its validity, which is
//! 30 s or more. A leader renews it every 5 s. The leader stops if it could not renew the lease for 30 s, if somebody else holds
//! the lease, or if somebody has deleted it. Leader and standby measure by their monotonic clocks, so it does not matter what time
//! the replicas' clocks show. The leader measures from before its last renewal, a standby from after it has read that renewal,
//! so the leader stops first. The crate `kube-lease-manager` is not used, because it compares the lease with the local clock,
//! and its writes do not name the version that was read.
//!
//! Leader election only saves work. Two replicas can lead at once for some seconds, if somebody deletes or edits the Lease, if
//! a leader is paused, or if its last reconciles outlast the lease. Then streams are described twice as often, but no replica
//! repeats a Start or Stop of the other: each is recorded in the stream's ledger before it is sent, and the API server accepts
//! that record from one of them only.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::resume_unwind;
use std::time::Duration;

use kube::{Client, Config};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::telemetry::{Warnings, error_chain};

mod lease_client;
mod standby;
#[cfg(test)]
mod test_server;

use lease_client::{HeldLease, LEASE_DURATION, LeaseClient};
use standby::Standby;

/// Time between two renewals of the lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two attempts to acquire the lease, and before a failed renewal is repeated. A standby notices within this time
/// that the lease was released.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// How long a renewal may take. It can be repeated once before the lease expires. A webhook for all kinds that does not respond
/// delays each write by its timeout, which is 10 s by default. If its `failurePolicy` is `Ignore`, the API server then carries out
/// the write.
const RENEW_TIMEOUT: Duration = Duration::from_secs(11);
/// Timeouts of a request about the lease, to connect and then to respond. `RESPONSE_TIMEOUT` also closes an idle connection.
/// So it is longer than the interval of the renewals: otherwise each renewal would need a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a replica that ends tries to release the lease. Longer than a webhook delays the write by default, as in
/// [`RENEW_TIMEOUT`].
const RELEASE_WITHIN: Duration = Duration::from_secs(13);

/// A candidate for the lease.
pub struct LeaderElection {
    lease: LeaseClient,
}

impl LeaderElection {
    /// Creates a candidate for this lease in `namespace`. The replicas of one installation share a lease; another
    /// installation in the namespace needs a lease of another name. `identity` is the pod's name; without one, the replica has a
    /// random one, as long as it lives.
    ///
    /// # Errors
    /// The configuration of the cluster is invalid.
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
        let identity = identity.unwrap_or_else(random_identity);
        Ok(Self { lease: LeaseClient::new(client, namespace, lease, identity) })
    }

    /// Runs `work` each time this replica acquires the lease, until `end` is cancelled. The token of `work` is cancelled
    /// when the lease is lost or `end` is cancelled. `work` must then end soon, without waiting for AWS's rate limits. It
    /// runs in a task of its own, so it cannot delay a renewal.
    ///
    /// `on_answer` reports that the replica is ready. It is called after each read that finds the lease, after each request to
    /// acquire the lease that did not fail (a conflict is no failure), and after each renewal that leaves this replica the holder.
    /// It is not called after a read that finds no lease, because the API server may not permit the replica to create one.
    pub async fn run<F: Future<Output = ()> + Send + 'static>(
        &self,
        end: &CancellationToken,
        on_answer: impl Fn(),
        work: impl Fn(CancellationToken) -> F,
    ) {
        // Limits the warning below to one a minute.
        let mut warnings = Warnings::default();
        // The same standby makes each attempt, also after this replica has led: a new standby would begin the wait of 30 s anew.
        let mut standby = Standby::new(self.lease.clone());
        while !end.is_cancelled() {
            // `end` does not interrupt this request, because the API server could carry it out after the release below. One that
            // has timed out can still be carried out later; then the lease is held until it expires.
            match standby.try_acquire(&on_answer).await {
                Ok(Some(held)) if !end.is_cancelled() => self.lead(held, end, &on_answer, &work).await,
                Ok(_) => {}
                Err(error) => {
                    if warnings.take_due() {
                        let error = error_chain(&error);
                        warn!(error, lease = self.lease.name, "failed to read or acquire the lease");
                    }
                }
            }
            tokio::select! {
                () = sleep(RETRY_PERIOD) => {}
                () = end.cancelled() => {}
            }
        }
        // A replica that does not lead may hold the lease, too: the response to its last request may have been lost.
        self.release().await;
    }

    /// Runs `work` while this replica holds the lease. Returns when the lease is lost and `work` has ended, or when `work` has
    /// ended because `end` was cancelled. In the latter case, this replica still holds the lease.
    async fn lead<F: Future<Output = ()> + Send + 'static>(
        &self,
        held: HeldLease,
        end: &CancellationToken,
        on_answer: &impl Fn(),
        work: &impl Fn(CancellationToken) -> F,
    ) {
        info!(lease = self.lease.name, "became leader");
        let token = end.child_token();
        let mut running = AbortOnDropHandle::new(tokio::spawn(work(token.clone())));
        // The lease is renewed until `work` has ended.
        let ended = tokio::select! {
            cause = renew_until_lost(&self.lease, held, on_answer) => {
                // Logged now, because the reconciles may take long to end.
                warn!(cause, lease = self.lease.name, "lost leadership");
                token.cancel();
                running.await
            }
            ended = &mut running => ended,
        };
        if let Err(error) = ended {
            resume_unwind(error.into_panic());
        }
    }

    /// Releases the lease if this replica holds it. Repeats what fails, but not for long: the pod is about to be killed.
    async fn release(&self) {
        let lease = &self.lease.name;
        let mut cause = "no response".to_owned();
        let released = async {
            loop {
                cause = match self.lease.release().await {
                    Ok(true) => return,
                    Ok(false) => "something else writes it".to_owned(),
                    Err(error) => error_chain(&error),
                };
                sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(RELEASE_WITHIN, released).await.is_err() {
            warn!(
                cause,
                lease,
                "failed to release the lease: if this replica holds it, no other one leads before it expires"
            );
        }
    }
}

/// Returns a name that no other replica has.
fn random_identity() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Renews the lease until this replica has lost it. Returns the cause.
///
/// A renewal that fails is repeated while the lease is valid, because each change of the leader costs a list of all objects and
/// a Describe of each stream. No other replica acquires the lease in this time. `on_answer` is called after each renewal that
/// leaves this replica the holder.
async fn renew_until_lost(lease: &LeaseClient, mut held: HeldLease, on_answer: &impl Fn()) -> String {
    let mut failure = None;
    loop {
        let next = (held.renewed_at + RENEW_INTERVAL).max(Instant::now() + RETRY_PERIOD);
        let renewal = async {
            sleep_until(next).await;
            let renewed = timeout(RENEW_TIMEOUT, lease.renew(&held)).await;
            renewed.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
        };
        match timeout_at(held.renewed_at + LEASE_DURATION, renewal).await {
            Ok(Ok(Some(still_held))) => {
                on_answer();
                (held, failure) = (still_held, None);
            }
            Ok(Ok(None)) => return "this replica no longer holds the lease".to_owned(),
            Ok(Err(error)) => {
                debug!(
                    error = error_chain(&error),
                    lease = lease.name,
                    "failed to renew the lease, repeating"
                );
                failure = Some(error_chain(&error));
            }
            Err(_) => {
                let cause = failure
                    .as_deref()
                    .unwrap_or("this process was paused, or something else writes the lease");
                return format!("the lease was not renewed for {} s: {cause}", LEASE_DURATION.as_secs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::test_server::{FIRST, Reply, Server, StoredLease, held_by};
    use super::*;

    fn answered(_: Duration, _: &str, _: &mut StoredLease) -> Reply {
        Reply::Answered
    }

    /// Acquires a lease, and returns after how many seconds this replica loses it; `None` after an hour.
    async fn loses_after(
        script: impl Fn(Duration, &str, &mut StoredLease) -> Reply + Send + Sync + 'static,
    ) -> Option<u64> {
        let server = Server::new(None, script);
        let begin = Instant::now();
        let held = server.lease(FIRST).acquire(None).await.unwrap().unwrap();
        let lease = server.lease(FIRST);
        let lost = tokio::time::timeout(Duration::from_hours(1), renew_until_lost(&lease, held, &|| {}));
        lost.await.ok().map(|_| begin.elapsed().as_secs())
    }

    fn during(
        seconds: std::ops::Range<u64>,
        reply: Reply,
    ) -> impl Fn(Duration, &str, &mut StoredLease) -> Reply {
        move |at, _, _| if seconds.contains(&at.as_secs()) { reply } else { Reply::Answered }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_renewals_do_not_end_a_term_while_it_is_valid() {
        assert_eq!(loses_after(answered).await, None);
        // The renewals at 105 s and after it fail, except for the last one before 130 s.
        for reply in [Reply::Unavailable, Reply::DoneButUnavailable, Reply::UnknownPath] {
            assert_eq!(loses_after(during(105..128, reply)).await, None, "{reply:?}");
        }
        // For twelve of twenty seconds, somebody else writes the lease, such as its labels, just before each write.
        let labels = |at: Duration, request: &str, lease: &mut StoredLease| {
            lease.version += u64::from(request != "GET" && at.as_secs() % 20 < 12);
            Reply::Answered
        };
        assert_eq!(loses_after(labels).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn each_renewal_is_reported_as_an_answer() {
        let server = Server::new(None, during(101..10_000, Reply::Never));
        let lease = server.lease(FIRST);
        let held = lease.acquire(None).await.unwrap().unwrap();
        let answers = Cell::new(0);
        renew_until_lost(&lease, held, &|| answers.set(answers.get() + 1)).await;
        assert_eq!(answers.get(), 20);
    }

    /// A webhook that does not respond, with the default timeout; and one renewal without a response.
    #[tokio::test(start_paused = true)]
    async fn slow_renewals_do_not_end_a_term() {
        assert_eq!(loses_after(during(1..10_000, Reply::After(Duration::from_secs(10)))).await, None);
        assert_eq!(loses_after(during(105..117, Reply::Never)).await, None);
        assert!(RENEW_INTERVAL + RENEW_TIMEOUT + RETRY_PERIOD + RENEW_TIMEOUT < LEASE_DURATION);
        assert!(RESPONSE_TIMEOUT > RENEW_INTERVAL, "idle connections are used again");
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_failures_end_the_term_when_the_lease_expires() {
        for reply in [Reply::Unavailable, Reply::Never] {
            // The last renewal is at 100 s.
            assert_eq!(loses_after(during(101..10_000, reply)).await, Some(130), "{reply:?}");
        }
        let conflicts = |at: Duration, request: &str, lease: &mut StoredLease| {
            lease.version += u64::from(request != "GET" && at.as_secs() > 100);
            Reply::Answered
        };
        assert_eq!(loses_after(conflicts).await, Some(130));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_was_taken_or_deleted_is_lost_at_the_next_renewal() {
        for now in [None, Some(held_by("second", 0))] {
            let taken = move |at: Duration, _: &str, lease: &mut StoredLease| {
                if at.as_secs() > 100 {
                    lease.spec.clone_from(&now);
                }
                Reply::Answered
            };
            assert_eq!(loses_after(taken).await, Some(105));
        }
    }

    /// Runs a replica until `end` is cancelled. Its work counts how many replicas lead, and the most at once.
    async fn replica(
        server: Arc<Server>,
        identity: &str,
        end: CancellationToken,
        leading: &'static [AtomicU32; 2],
    ) {
        let election = LeaderElection { lease: server.lease(identity) };
        let work = |token: CancellationToken| async move {
            let now = leading[0].fetch_add(1, Ordering::Relaxed) + 1;
            leading[1].fetch_max(now, Ordering::Relaxed);
            token.cancelled().await;
            leading[0].fetch_sub(1, Ordering::Relaxed);
        };
        election.run(&end, || {}, work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_of_three_replicas_leads_in_any_outage() {
        static LEADING: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
        // An outage begins every 180 s. Outage number n lasts n % 60 s.
        let server = Server::new(None, |at, _, _| {
            let (outage, second) = (at.as_secs() / 180, at.as_secs() % 180);
            let fails = second < outage % 60;
            match outage % 3 {
                0 if fails => Reply::Unavailable,
                1 if fails => Reply::DoneButUnavailable,
                2 if fails => Reply::After(Duration::from_millis(2500)),
                _ => Reply::Answered,
            }
        });
        let end = CancellationToken::new();
        let of = |identity| replica(server.clone(), identity, end.clone(), &LEADING);
        let hours = async {
            for _ in 0..100 {
                sleep(Duration::from_secs(179)).await;
                assert_eq!(LEADING[0].load(Ordering::Relaxed), 1);
            }
            end.cancel();
        };
        tokio::join!(of(FIRST), of("second"), of("third"), hours);
        assert_eq!(LEADING[1].load(Ordering::Relaxed), 1);
        assert_eq!(server.holder(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn release_is_repeated_until_its_time_has_passed() {
        for (until, is_held) in [(5, false), (3600, true)] {
            let begin = Instant::now();
            let server = Server::new(Some(held_by(FIRST, 0)), during(0..until, Reply::Unavailable));
            LeaderElection { lease: server.lease(FIRST) }.release().await;
            assert_eq!(server.holder().is_some(), is_held);
            assert!(begin.elapsed() <= RELEASE_WITHIN);
        }
    }

    /// A webhook that does not respond, with the default timeout.
    #[tokio::test(start_paused = true)]
    async fn slow_release_frees_the_lease() {
        let begin = Instant::now();
        let server = Server::new(Some(held_by(FIRST, 0)), |_, request, _| {
            Reply::After(Duration::from_secs(if request == "GET" { 1 } else { 10 }))
        });
        LeaderElection { lease: server.lease(FIRST) }.release().await;
        assert_eq!((server.holder(), begin.elapsed().as_secs()), (None, 11), "it reads both answers");
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_while_acquiring_releases_the_lease() {
        static LEADING: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
        for reply in [Reply::DoneButUnavailable, Reply::After(Duration::from_secs(2))] {
            let server = Server::new(
                None,
                move |_, request, _| {
                    if request == "POST" { reply } else { Reply::Answered }
                },
            );
            let end = CancellationToken::new();
            let shutdown = async {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(server.holder().as_deref(), Some(FIRST));
                end.cancel();
            };
            tokio::join!(replica(server.clone(), FIRST, end.clone(), &LEADING), shutdown);
            assert_eq!(server.holder(), None, "{reply:?}");
        }
    }
}
