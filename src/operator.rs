//! The driver: watches, the queue, and the shutdown. It hands each resource to [`crate::controller::reconcile`], as many
//! at a time as it was told to, and comes back when that says.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{Stream, StreamExt};
use jiff::SignedDuration;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tracing::{debug, error, info, warn};

use crate::api::stream_encryption::StreamEncryption;
use crate::aws::{Aws, Endpoints};
use crate::controller::memory::Memory;
use crate::controller::records::{AFTER_CONFLICT, RecordError};
use crate::controller::{Clock, Operator, Rules, malformed, reconcile, retire};
use crate::kubernetes::{Cluster, keys};
use crate::model::decision::decide;
use crate::settings::Settings;

/// A resource whose content may not be what its schema says: one such object must not stop the watch of all others.
type Guarded = DeserializeGuard<StreamEncryption>;
type Context = Operator<Aws, Cluster>;

/// How often ledgers are looked through for those that may be retired.
const RETIRE_EVERY: Duration = Duration::from_hours(1);

/// Runs until SIGTERM or SIGINT; calls in flight are finished first.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let client = client().await?;
    let endpoints = Endpoints {
        region: settings.region.clone(),
        endpoint_url: settings.aws_endpoint_url.clone(),
        share: settings.aws_rate_percent,
    };
    let aws = Aws::new(endpoints).await.context("AWS's configuration cannot be used")?;
    let context = Arc::new(Operator {
        aws,
        records: Cluster::new(client.clone(), &settings.namespace),
        clock: Clock::system(),
        decide,
        rules: Rules {
            region: settings.region,
            drift_interval: settings.drift_interval,
            max_calls_per_day: settings.max_calls_per_day,
            allow_disable: settings.allow_disable,
        },
        memory: Memory::default(),
    });

    let api: Api<Guarded> = match &settings.watch_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let controller = Controller::new(api, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(settings.concurrency))
        .trigger_backoff(EverySeconds(3));
    let store = controller.store();
    let key_changes = users_of(keys::changes(client, settings.watch_namespace.as_deref()), store.clone());
    info!(
        namespace = settings.namespace,
        watching = settings.watch_namespace.as_deref().unwrap_or("all namespaces"),
        "started"
    );

    let housekeeping = tokio::spawn(keep_house(context.clone(), store));
    controller
        .reconcile_on(key_changes)
        .shutdown_on_signal()
        .run(visit, failed, context)
        .for_each(|result| async move {
            match result {
                // What failed in a visit is told in `failed`; an object that is gone is no error.
                Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
                Err(error @ controller::Error::QueueError(_)) => {
                    error!(%error, "cannot watch StreamEncryptions: are the definitions installed (`stream-encryption-operator crd | kubectl apply -f -`), and may the operator list them?");
                }
                Err(error @ controller::Error::RunnerError(_)) => error!(%error, "the queue failed"),
            }
        })
        .await;
    housekeeping.abort();
    info!("ended");
    Ok(())
}

/// The API server, from KUBECONFIG or the pod's service account.
async fn client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer().await.context("no cluster: set KUBECONFIG, or run in a pod")?;
    // Each request has a deadline of its own, and the next visit retries with what is true then.
    config.default_retry = false;
    Client::try_from(config).context("the cluster's configuration cannot be used")
}

/// One visit of one resource.
async fn visit(resource: Arc<Guarded>, context: Arc<Context>) -> Result<Action, RecordError> {
    let wake = match &resource.0 {
        Ok(resource) => Box::pin(reconcile(&context, resource)).await?,
        Err(invalid) => {
            let read = &invalid.metadata;
            warn!(namespace = read.namespace, name = read.name, error = %invalid.error, "a resource cannot be read");
            malformed(&context, read, &invalid.error).await?;
            return Ok(Action::await_change());
        }
    };
    let wait = wake.duration_since(context.clock.now()).max(SignedDuration::from_millis(10));
    Ok(Action::requeue(wait.unsigned_abs()))
}

/// Somebody else wrote first, or Kubernetes could not be asked: again soon, but not all resources at once.
#[allow(clippy::needless_pass_by_value, reason = "kube's signature")]
fn failed(resource: Arc<Guarded>, error: &RecordError, _: Arc<Context>) -> Action {
    if matches!(error, RecordError::Conflict) {
        return Action::requeue(AFTER_CONFLICT.unsigned_abs());
    }
    warn!(name = resource.name_any(), namespace = resource.namespace(), %error, "Kubernetes could not be asked");
    let spread = u64::from(resource.uid().unwrap_or_default().bytes().fold(0_u8, u8::wrapping_add));
    Action::requeue(Duration::from_millis(3000 + spread * 20))
}

/// The resources whose key is the object that changed.
fn users_of(
    changes: impl Stream<Item = (String, String)> + Send + 'static,
    store: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes.flat_map(move |(namespace, name)| {
        let uses = |resource: &Guarded| {
            let reference = resource.0.as_ref().ok()?.spec.key.as_ref()?.reference.as_ref()?;
            (reference.name == name && resource.namespace().as_deref() == Some(&namespace))
                .then(|| ObjectRef::from_obj(resource))
        };
        let found: Vec<_> = store.state().iter().filter_map(|resource| uses(resource)).collect();
        debug!(namespace, key = name, users = found.len(), "a key object changed");
        futures_util::stream::iter(found)
    })
}

/// How long to wait before a broken watch is begun again. Short and always the same: the definitions may just have been
/// installed, or the API server been restarted, and one operator asking is no load.
struct EverySeconds(u64);

impl Iterator for EverySeconds {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(self.0))
    }
}

impl Backoff for EverySeconds {
    fn reset(&mut self) {}
}

/// Retires ledgers, and forgets resources that are gone.
async fn keep_house(context: Arc<Context>, store: Store<Guarded>) {
    let mut every = tokio::time::interval(RETIRE_EVERY);
    loop {
        every.tick().await;
        if let Err(error) = retire::retire(&context).await {
            warn!(%error, "the ledgers could not be looked through");
        }
        if store.wait_until_ready().await.is_ok() {
            let alive: std::collections::HashSet<String> =
                store.state().iter().filter_map(|resource| resource.uid()).collect();
            context.memory.retain(|uid| alive.contains(uid));
        }
    }
}

#[cfg(test)]
mod tests;
