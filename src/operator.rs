//! The runtime: sets everything up, runs one term of the controller each time this replica leads, and stops
//! on SIGTERM or SIGINT.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::controller::{Clock, Context};
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::work_queue::Lane;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Admin, MetricsText, Readiness};
use crate::aws::{Aws, AwsConfig};
use crate::kubernetes::early_end::failing_early_ends;
use crate::kubernetes::page_retry::repeating_pages;
use crate::kubernetes::store::Store;
use crate::kubernetes::valid_text::with_valid_text;
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::kubernetes::{Cluster, connection};
use crate::leader::LeaderElection;
use crate::metrics::{EventRegions, FleetSnapshot, Metrics, ScrapeInput};
use crate::settings::Settings;

mod aws_events;
mod client_certificate;
pub mod dispatcher;
#[cfg(test)]
mod fakes;
mod policy_statuses;
mod sources;
mod term;

use client_certificate::CertificateFile;
use dispatcher::Waiting;
use sources::WatchScope;
use term::Term;

/// State shared by the parts of this process.
struct Shared {
    context: Arc<Context<Aws, Cluster>>,
    metrics: Metrics,
    readiness: Readiness,
    /// The numbers of resources that are due and wait for a request to AWS, for the metrics.
    waiting: Waiting,
    /// The store of the resources; `None` while this replica does not lead.
    resources: Mutex<Option<Store<MaybeInvalidResource>>>,
}

/// Runs until SIGTERM or SIGINT, and then until the running reconciles have ended. A reconcile that still waits for AWS
/// ends at once, without a call. A second signal ends the process at once. Returns an error if it has ended for another reason
/// than a signal.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // Before everything else: the kernel discards a SIGTERM for the first process of a container until the process handles it.
    let end = shutdown_on_signal()?;
    let Some(connection) = end.run_until_cancelled(connect(&settings)).await else {
        info!("operator stopped");
        return Ok(());
    };
    let Connection { server, client, certificate, election } = connection?;
    let valid_until = *client.valid_until();
    // kube parses only UTF-8, and a user can store other bytes in an object's metadata.
    let client = with_valid_text(client);
    let shared = Arc::new(shared(&settings, &client).await?);
    if let Some(address) = settings.listen {
        let scraped = shared.clone();
        let metrics = MetricsText::new(move || scraped.metrics.encode(&scraped.scrape_input()));
        let admin = Admin { readiness: shared.readiness.clone(), metrics };
        admin.serve(address)?;
    }
    let scope = WatchScope {
        // Only for the watches: a failed page of a list is requested again, and a watch that ends at once counts as failed.
        client: failing_early_ends(repeating_pages(client)),
        namespaces: settings.watch_namespaces.clone(),
        selector: settings.watch_label_selector.clone(),
        ledger_namespace: settings.namespace.clone(),
        drift_interval: settings.drift_interval.unsigned_abs(),
        has_default_policy: settings.default_policy.is_some(),
    };
    let queue = settings.events_queue.as_ref().map(|queue| shared.context.aws.event_queue(queue));
    let term = Arc::new(Term { scope, queue, concurrency: settings.concurrency });
    info!(namespace = settings.namespace, server, version = env!("CARGO_PKG_VERSION"), "operator started");
    let work = Box::pin(async {
        if let Some(election) = election {
            let on_answer = || shared.readiness.record_answer();
            let lead = |token| term.clone().run(shared.clone(), token);
            election.run(&end, on_answer, lead).await;
        } else {
            term.run(shared.clone(), end.clone()).await;
        }
        anyhow::Ok(())
    });
    let (certificate, clock) = (certificate.as_ref(), &shared.context.clock);
    let ended =
        client_certificate::run_until_certificate_ends(work, valid_until, certificate, clock, &end).await;
    info!("operator stopped");
    ended
}

/// The connection to the API server.
struct Connection {
    /// The URL of the API server.
    server: String,
    client: Client,
    /// `None` if the client certificate comes from no file.
    certificate: Option<CertificateFile>,
    /// `None` without leader election.
    election: Option<LeaderElection>,
}

/// Creates the clients of the API server. kube runs the program of the kubeconfig meanwhile, and blocks the thread until the
/// program ends. The program may wait for a person, and a signal must end the operator then, too. So the blocked thread is
/// another one, which the end of the operator leaves behind.
async fn connect(settings: &Settings) -> anyhow::Result<Connection> {
    let (cluster, settings) = (connection::config().await?, settings.clone());
    let connecting = tokio::task::spawn_blocking(move || {
        let certificate = CertificateFile::read(&cluster.auth_info);
        let client =
            Client::try_from(cluster.clone()).context("the cluster's configuration cannot be used")?;
        let election = if settings.leader_election {
            let (namespace, lease) = (&settings.namespace, &settings.lease);
            Some(LeaderElection::new(&cluster, namespace, lease, settings.identity.clone())?)
        } else {
            None
        };
        anyhow::Ok(Connection { server: cluster.cluster_url.to_string(), client, certificate, election })
    });
    connecting.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

async fn shared(settings: &Settings, client: &Client) -> anyhow::Result<Shared> {
    let endpoints = AwsConfig {
        region: settings.region.clone(),
        endpoint_url: settings.aws_endpoint_url.clone(),
        rate_percent: settings.aws_rate_percent,
        request_limits: settings.aws_request_limits.clone(),
    };
    let aws = Aws::new(endpoints).await.context("AWS's configuration cannot be used")?;
    let metrics = Metrics::default();
    let cluster = Cluster::new(client.clone(), &settings.namespace, settings.default_policy.clone())
        .watching(&settings.watch_namespaces)
        .for_reconciles(settings.concurrency);
    let context = Context {
        aws,
        kube: cluster,
        clock: Clock::system(),
        decide,
        config: settings.config(),
        memory: Memory::default(),
        metrics: Box::new(metrics.clone()),
    };
    Ok(Shared {
        context: Arc::new(context),
        metrics,
        readiness: Readiness::default(),
        waiting: Waiting::default(),
        resources: Mutex::default(),
    })
}

/// Returns a token that is cancelled at SIGTERM or SIGINT.
fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = CancellationToken::new();
    let token = end.clone();
    tokio::spawn(async move {
        for times in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if times > 1 {
                warn!("second shutdown signal, stopping at once: the next leader resolves calls in flight");
                std::process::exit(1);
            }
            info!("shutdown signal, finishing the reconciles that are running");
            token.cancel();
        }
    });
    Ok(end)
}

impl Shared {
    /// Sets the store of the resources; `None` when this replica stops leading.
    fn set_store(&self, resources: Option<Store<MaybeInvalidResource>>) {
        *self.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
    }

    /// Returns the values that are computed at a scrape.
    fn scrape_input(&self) -> ScrapeInput {
        let rate_limiter = self.context.aws.rate_limiter();
        let due = |lanes: &[Lane]| lanes.iter().map(|lane| self.waiting.get(*lane)).sum::<usize>();
        let lanes: [(Priority, &[Lane]); 3] = [
            (Priority::Call, &[]),
            (Priority::Changing, &[Lane::Changed, Lane::InProgress]),
            (Priority::Drift, &[Lane::Event, Lane::Drift]),
        ];
        let rate_limiter_waiting =
            lanes.map(|(priority, lanes)| (priority, rate_limiter.waiting(priority) + due(lanes))).to_vec();
        let store = self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fleet = store.map(|store| {
            let (mut fleet, now) = (FleetSnapshot::default(), Timestamp::now());
            store.for_each(|resource| match &resource.0 {
                Ok(resource) => fleet.add(resource, self.context.memory.described_at(resource), now),
                Err(invalid) => fleet.add_invalid(&invalid.metadata, now),
            });
            fleet
        });
        // A standby receives no events.
        let receives = fleet.is_some() && self.context.config.receives_events();
        let event_regions = receives.then(|| {
            let ages = self.context.memory.events.ages(self.context.clock.monotonic());
            EventRegions::of(ages.into_iter().map(|(_, age)| age))
        });
        let watches_not_current = self.context.kube.watches_not_current();
        ScrapeInput { rate_limiter_waiting, fleet, event_regions, watches_not_current }
    }
}

#[cfg(test)]
mod tests;
