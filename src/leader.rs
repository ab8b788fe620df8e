//! Leader election: of several replicas one works and the others wait, by a
//! [Lease](https://kubernetes.io/docs/concepts/architecture/leases/).
//!
//! It only saves work: two replicas that both believe to lead look twice as often and make no call twice, because each call
//! is fenced by its ledger. So a lease that is taken over by a wrong clock is a nuisance and no danger.

use std::future::Future;
use std::time::Duration;

use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::error_chain;

/// The lease's name, in the operator's namespace.
pub const LEASE: &str = "stream-encryption-operator";
/// How long a lease is good after its last renewal, in seconds. A replica that dies is followed after this time.
const DURATION: u64 = 15;
/// So long before its end it is renewed, in seconds.
const GRACE: u64 = 5;
/// How long a request about the lease may take: an API server that keeps silent is one that cannot be asked.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long to wait before the lease is asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// A candidate for the lease.
pub struct Candidate {
    client: Client,
    namespace: String,
    /// Who it is: the pod's name.
    identity: Option<String>,
}

impl Candidate {
    /// A candidate for the lease in `namespace`; without an identity it makes one up.
    pub fn new(cluster: &Config, namespace: &str, identity: Option<String>) -> kube::Result<Self> {
        let mut cluster = cluster.clone();
        cluster.connect_timeout = Some(DEADLINE);
        cluster.read_timeout = Some(DEADLINE);
        cluster.write_timeout = Some(DEADLINE);
        Ok(Self { client: Client::try_from(cluster)?, namespace: namespace.to_owned(), identity })
    }

    /// Runs `term` each time this replica gets the lease, until `end`. A term is to end soon after its token is cancelled: the
    /// lease is lost, or `end` has come. `seen` is called when the lease could be read: it is known who leads.
    pub async fn lead<F: Future<Output = ()>>(
        &self,
        end: &CancellationToken,
        seen: impl Fn(),
        term: impl Fn(CancellationToken) -> F,
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
                    follow(&lease, end, &term).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = lost {
                let error = error_chain(&error);
                warn!(error, lease = LEASE, "the lease cannot be read or written");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = end.cancelled() => {}
                }
            }
        }
    }

    /// The lease; it is made where there is none.
    async fn ask(&self) -> kube_lease_manager::Result<LeaseManager> {
        let lease = LeaseManagerBuilder::new(self.client.clone(), LEASE)
            .with_namespace(&self.namespace)
            .with_duration(DURATION)
            .with_grace(GRACE);
        match &self.identity {
            Some(identity) => lease.with_identity(identity).build().await,
            None => lease.build().await,
        }
    }
}

/// Follows a lease until it cannot be asked, or `end` has come. Whoever cannot renew it does not lead: nothing could be
/// written anyway.
async fn follow<F: Future<Output = ()>>(
    lease: &LeaseManager,
    end: &CancellationToken,
    term: &impl Fn(CancellationToken) -> F,
) -> kube_lease_manager::Result<()> {
    loop {
        let held = tokio::select! {
            held = lease.changed() => held?,
            () = end.cancelled() => return Ok(()),
        };
        if !held {
            continue;
        }
        info!(lease = LEASE, "leads");
        let token = end.child_token();
        let work = term(token.clone());
        tokio::pin!(work);
        // It is renewed for as long as the term takes to end.
        let lost = tokio::select! {
            lost = lease.changed() => lost,
            () = &mut work => {
                // The next one need not wait for the lease to run out.
                if let Err(error) = lease.release().await {
                    warn!(%error, lease = LEASE, "the lease could not be given back");
                }
                return Ok(());
            }
        };
        warn!(lease = LEASE, "leads no more");
        token.cancel();
        work.await;
        lost?;
    }
}
