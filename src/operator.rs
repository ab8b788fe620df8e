//! The driver: sets everything up, works in terms while this replica leads, and ends when it is told to.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Admin, Readiness};
use crate::aws::{Aws, Endpoints, Urgency};
use crate::controller::memory::Memory;
use crate::controller::{Clock, Operator, Rules};
use crate::kubernetes::{Cluster, connection};
use crate::leader::Candidate;
use crate::metrics::{Census, Counted, Metrics, Moment};
use crate::model::decision::decide;
use crate::settings::Settings;

mod places;
mod term;

use term::{Guarded, Watch};

/// What visits work with: the two ports are counted.
type Context = Operator<Counted<Aws>, Counted<Cluster>>;

/// What the parts of this process share.
struct Shared {
    operator: Context,
    metrics: Metrics,
    readiness: Readiness,
    /// The resources, while this replica leads.
    resources: Mutex<Option<Store<Guarded>>>,
}

/// Runs until SIGTERM or SIGINT; calls in flight are finished first. A second signal ends it at once.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let cluster = connection::config().await?;
    let client = Client::try_from(cluster.clone()).context("the cluster's configuration cannot be used")?;
    let shared = Arc::new(shared(&settings, &client).await?);
    let end = told_to_end()?;
    if let Some(address) = settings.listen {
        let asked = shared.clone();
        let metrics = Arc::new(move || asked.metrics.told(&asked.moment()));
        let admin = Admin { readiness: shared.readiness.clone(), metrics };
        admin.serve(address)?;
    }
    let watch = Watch {
        client,
        server: cluster.cluster_url.to_string(),
        namespace: settings.watch_namespace.clone(),
        concurrency: settings.concurrency,
        has_default_policy: settings.default_policy.is_some(),
    };
    info!(namespace = settings.namespace, version = env!("CARGO_PKG_VERSION"), "started");
    if settings.leader_election {
        let candidate = Candidate::new(&cluster, &settings.namespace, settings.identity.clone())?;
        let seen = || shared.readiness.reached();
        candidate.lead(&end, seen, |token| watch.serve(shared.clone(), token)).await;
    } else {
        watch.serve(shared, end).await;
    }
    info!("ended");
    Ok(())
}

async fn shared(settings: &Settings, client: &Client) -> anyhow::Result<Shared> {
    let endpoints = Endpoints {
        region: settings.region.clone(),
        endpoint_url: settings.aws_endpoint_url.clone(),
        share: settings.aws_rate_percent,
    };
    let aws = Aws::new(endpoints).await.context("AWS's configuration cannot be used")?;
    let metrics = Metrics::default();
    let cluster = Cluster::new(client.clone(), &settings.namespace, settings.default_policy.clone());
    let operator = Operator {
        aws: Counted::new(aws, metrics.clone()),
        records: Counted::new(cluster, metrics.clone()),
        clock: Clock::system(),
        decide,
        rules: Rules { region: settings.region.clone(), drift_interval: settings.drift_interval },
        memory: Memory::default(),
    };
    Ok(Shared { operator, metrics, readiness: Readiness::default(), resources: Mutex::default() })
}

/// Cancelled at SIGTERM or SIGINT.
fn told_to_end() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = CancellationToken::new();
    let told = end.clone();
    tokio::spawn(async move {
        for times in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if times > 1 {
                warn!("told to end again: a call in flight is resolved by whoever looks next");
                std::process::exit(1);
            }
            info!("told to end; calls in flight are finished first");
            told.cancel();
        }
    });
    Ok(end)
}

impl Shared {
    /// From now on these are the resources, or there are none at hand.
    fn has(&self, resources: Option<Store<Guarded>>) {
        *self.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
    }

    /// What is to be told at this moment.
    fn moment(&self) -> Moment {
        let pacer = self.operator.aws.port().pacer();
        let urgencies = [Urgency::Call, Urgency::Changing, Urgency::Drift];
        let pacer_waiting = urgencies.map(|urgency| (urgency, pacer.waiting(urgency))).to_vec();
        let store = self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let census = store.map(|store| {
            let resources = store.state();
            Census::of(resources.iter().map(|resource| resource.0.as_ref().ok()), Timestamp::now())
        });
        Moment { pacer_waiting, census }
    }
}
