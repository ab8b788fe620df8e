//! Leader election: only one of several replicas is active and the others wait, by a
//! [Lease](https://kubernetes.io/docs/concepts/architecture/leases/).
//!
//! Leader election only saves work: two replicas that both act as leader describe streams twice as often but
//! make no call twice, because each call is fenced by its ledger. A lease that is taken over because of a
//! wrong clock is therefore harmless.

use std::future::Future;
use std::time::Duration;

use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::error_chain;

/// Validity of the lease after its last renewal, in seconds. A replica that fails is replaced after this
/// time.
const LEASE_DURATION: u64 = 15;
/// Time before the end of the lease at which it is renewed, in seconds.
const RENEW_GRACE_PERIOD: u64 = 5;
/// Timeout of a request about the lease: an API server that does not respond counts as unavailable.
const DEADLINE: Duration = Duration::from_secs(4);
/// Delay before the lease is requested again.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A candidate for the lease.
pub struct LeaderElection {
    client: Client,
    namespace: String,
    /// The name of the lease. Each operator of a namespace has its own.
    lease: String,
    /// The identity of this replica: the pod's name.
    identity: Option<String>,
}

impl LeaderElection {
    /// Creates a candidate for this lease in `namespace`; without an identity it uses a random one.
    pub fn new(
        cluster: &Config,
        namespace: &str,
        lease: &str,
        identity: Option<String>,
    ) -> kube::Result<Self> {
        let mut cluster = cluster.clone();
        cluster.connect_timeout = Some(DEADLINE);
        cluster.read_timeout = Some(DEADLINE);
        cluster.write_timeout = Some(DEADLINE);
        let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
        Ok(Self { client: Client::try_from(cluster)?, namespace, lease, identity })
    }

    /// Runs `work` each time this replica acquires the lease, until `end` is cancelled. `work` must end soon
    /// after its token is cancelled, without waiting for AWS's rate limits. This happens when the lease is
    /// lost or
    /// `end` is cancelled. `seen` is called once the lease was read, because the leader is then known.
    pub async fn run<F: Future<Output = ()>>(
        &self,
        end: &CancellationToken,
        seen: impl Fn(),
        work: impl Fn(CancellationToken) -> F,
    ) {
        while !end.is_cancelled() {
            let asked = self.ask();
            let lease = tokio::select! {
                lease = asked => lease,
                () = end.cancelled() => return,
            };
            let lost = match lease {
                Ok(lease) => {
                    seen();
                    self.follow(&lease, end, &work).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = lost {
                let error = error_chain(&error);
                warn!(error, lease = self.lease, "failed to read or write the lease");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PERIOD) => {}
                    () = end.cancelled() => {}
                }
            }
        }
    }

    /// Returns the lease, which is created if it does not exist.
    async fn ask(&self) -> kube_lease_manager::Result<LeaseManager> {
        let lease = LeaseManagerBuilder::new(self.client.clone(), &self.lease)
            .with_namespace(&self.namespace)
            .with_duration(LEASE_DURATION)
            .with_grace(RENEW_GRACE_PERIOD);
        match &self.identity {
            Some(identity) => lease.with_identity(identity).build().await,
            None => lease.build().await,
        }
    }

    /// Follows a lease until a request about it fails or `end` is cancelled. A replica that cannot renew the
    /// lease does not lead: without the API server it could not write anything either.
    async fn follow<F: Future<Output = ()>>(
        &self,
        lease: &LeaseManager,
        end: &CancellationToken,
        work: &impl Fn(CancellationToken) -> F,
    ) -> kube_lease_manager::Result<()> {
        loop {
            let held = tokio::select! {
                held = lease.changed() => held?,
                () = end.cancelled() => return Ok(()),
            };
            if !held {
                continue;
            }
            info!(lease = self.lease, "became leader");
            let token = end.child_token();
            let running = work(token.clone());
            tokio::pin!(running);
            // The lease is renewed until `work` has ended.
            let lost = tokio::select! {
                lost = lease.changed() => lost,
                () = &mut running => {
                    // The next leader does not have to wait for the lease to expire.
                    if let Err(error) = lease.release().await {
                        warn!(%error, lease = self.lease, "failed to release the lease");
                    }
                    return Ok(());
                }
            };
            warn!(lease = self.lease, "lost leadership");
            token.cancel();
            running.await;
            lost?;
        }
    }
}
