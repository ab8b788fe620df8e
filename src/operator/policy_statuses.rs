//! The status of every policy, kept current while this replica leads: whether the operator accepts the
//! policy, and how many namespaces and resources the policy applies to now.
//!
//! Reads the caches of the watches, and from the API server only the status of an invalid policy, which no cache holds. Writes
//! only a status that differs. An operator that watches a part of the resources, by namespaces or by a label selector,
//! writes none: several such operators would overwrite each other's numbers.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use stream_encryption_api::policy::{StreamEncryptionPolicy, StreamEncryptionPolicyStatus};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::Context;
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::model::arn::{AwsAccount, StreamArn};
use stream_encryption_core::model::permission::Policy;
use stream_encryption_core::model::policy_status::{PolicyStatusInput, invalid, policy_status};
use tokio::sync::{Notify, SetOnce};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::sources::Sources;
use crate::kubernetes::policies::{MaybeInvalidPolicy, NamespaceLabels, is_selected};
use crate::kubernetes::policy_status::{read, write};
use crate::kubernetes::store::Store;
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::telemetry::Warnings;

/// The pause after a change, so that many changes at a time lead to one write of each status.
const PAUSE: Duration = Duration::from_secs(5);
/// The pause before the next computation, as a multiple of the time that the last one took. With thousands of resources and a
/// hundred policies, a computation takes seconds.
const PAUSE_FACTOR: u32 = 20;
/// The longest pause between two attempts to write the same status. The pause begins with [`PAUSE`] and doubles with each failure, up to
/// this.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// Writes the statuses of the policies, which it computes from caches.
pub(super) struct PolicyStatusWriter {
    client: Client,
    policies: Store<MaybeInvalidPolicy>,
    namespaces: Store<NamespaceLabels>,
    resources: Store<MaybeInvalidResource>,
    /// Set when each of the caches holds its first list: an incomplete cache would lead to wrong numbers. Each cache has a single
    /// watch here, because this writer runs only if the operator watches everything.
    listed: [Arc<SetOnce<()>>; 3],
    /// Notified of every change of these caches.
    changed: Arc<Notify>,
    failures: Failures,
    warnings: Warnings,
}

impl PolicyStatusWriter {
    /// Creates the writer of the statuses of the policies in these sources.
    pub(super) fn new(client: Client, sources: &Sources) -> Self {
        let caches = &sources.caches;
        Self {
            client,
            policies: caches.policies.store(),
            namespaces: caches.namespaces.store(),
            resources: caches.resources.store(),
            listed: [
                caches.resources.first_lists_settled(),
                caches.policies.first_lists_settled(),
                caches.namespaces.first_lists_settled(),
            ],
            changed: sources.changed.clone(),
            failures: Failures::default(),
            warnings: Warnings::default(),
        }
    }

    /// Writes the statuses after each change. Never returns.
    pub(super) async fn keep_current<A: StreamApi, R: KubeApi>(mut self, context: &Context<A, R>) {
        let mut reported = Reported::default();
        for listed in &self.listed {
            listed.wait().await;
        }
        let changed = self.changed.clone();
        let mut attempts = Attempts::new(&changed);
        loop {
            attempts.wait().await;
            let took = self.write_all(context, &mut reported).await;
            attempts.record(self.failures.next_attempt(), took);
        }
    }

    /// Writes each status that differs from the stored one, and logs the first failure, at most one a minute. Returns how long
    /// the computations took.
    async fn write_all<A: StreamApi, R: KubeApi>(
        &mut self,
        context: &Context<A, R>,
        reported: &mut Reported,
    ) -> Duration {
        let mut errors = Vec::new();
        let begin = Instant::now();
        let (policies, resources) = (self.policies.clone(), self.resources.clone());
        // Of many resources, this takes more than a second, in which this thread would run nothing else.
        let copied = tokio::task::spawn_blocking(move || {
            (policies.select(Some), resources.select(|one| stream_of(one.0.as_ref().ok()?)))
        });
        let (policies, streams) = copied.await.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        let mut took = begin.elapsed();
        let operator_account = operator_account(context, &policies, &streams).await;
        let fleet = PolicyStatusInput {
            operator_account: operator_account.as_ref(),
            streams: &streams,
            now: context.clock.now(),
        };
        reported.retain(&policies);
        self.failures.retain(&policies);
        for policy in &policies {
            let meta = metadata_of(policy);
            if self.failures.postpones(meta) {
                continue;
            }
            // With many policies and resources, this takes seconds, in which the lease must be renewed.
            tokio::task::yield_now().await;
            let written = match &policy.0 {
                Ok(policy) => {
                    let begin = Instant::now();
                    let next = self.next_status(policy, &fleet);
                    took += begin.elapsed();
                    match next {
                        Some(status) => write(&self.client, meta, &status).await,
                        None => Ok(()),
                    }
                }
                Err(error) => self.report_invalid(meta, &error.error, fleet.now, reported).await,
            };
            let written = match written {
                // The cache is behind: its next event leads to the next write.
                Err(KubeError::Conflict) => {
                    debug!(policy = meta.name, "the policy has changed since it was read");
                    Ok(())
                }
                written => written,
            };
            self.failures.record(meta, written.is_err());
            errors.extend(written.err().map(|error| (&meta.name, error)));
        }
        if let Some((policy, error)) = errors.first()
            && self.warnings.take_due()
        {
            warn!(policy, %error, failed = errors.len(), "failed to write the status of a policy");
        }
        took
    }

    /// Returns the status of a policy; `None` if it is stored already.
    fn next_status(
        &self,
        policy: &StreamEncryptionPolicy,
        fleet: &PolicyStatusInput<'_>,
    ) -> Option<StreamEncryptionPolicyStatus> {
        let before = policy.status.clone().unwrap_or_default();
        let (selected, generation) = (self.selected(policy), policy.metadata.generation);
        let status = policy_status(&policy.spec, generation, &selected, &before, fleet);
        (status != before).then_some(status)
    }

    /// Writes the status of an invalid policy, unless it is stored already. An earlier term may have stored it, with the time
    /// since which the policy has not been accepted.
    async fn report_invalid(
        &self,
        policy: &ObjectMeta,
        error: &str,
        now: Timestamp,
        reported: &mut Reported,
    ) -> Result<(), KubeError> {
        if reported.holds(policy) {
            return Ok(());
        }
        let before = read(&self.client, policy.name.as_deref().unwrap_or_default()).await?;
        let status = invalid(error, policy.generation, &before, now);
        let stored = if status == before { Ok(()) } else { write(&self.client, policy, &status).await };
        reported.record(policy, &stored);
        stored
    }

    /// Returns the names of the selected namespaces, sorted.
    fn selected(&self, policy: &StreamEncryptionPolicy) -> Result<Vec<String>, String> {
        let mut selected = Vec::new();
        for namespace in self.namespaces.select(Some) {
            if is_selected(&policy.spec.namespace_selector, namespace.metadata.labels.as_ref())? {
                selected.extend(namespace.metadata.name.clone());
            }
        }
        selected.sort_unstable();
        Ok(selected)
    }
}

/// The times of the attempts: after each change, and without a change when a failed write is due again.
struct Attempts<'a> {
    changed: &'a Notify,
    /// When the next failed write is due again.
    retry_at: Option<Instant>,
    /// The time before which no attempt begins: an earlier one took long.
    not_before: Instant,
}

impl<'a> Attempts<'a> {
    fn new(changed: &'a Notify) -> Self {
        Self { changed, retry_at: None, not_before: Instant::now() }
    }

    /// Waits until the next attempt.
    async fn wait(&self) {
        let after_change = async {
            self.changed.notified().await;
            tokio::time::sleep(PAUSE).await;
        };
        if let Some(at) = self.retry_at {
            let _ = tokio::time::timeout_at(at, after_change).await;
        } else {
            after_change.await;
        }
        tokio::time::sleep_until(self.not_before).await;
    }

    /// Records when the next failed write is due again, and how long the computations of an attempt took. The next attempt waits
    /// [`PAUSE_FACTOR`] times as long: each write of a `StreamEncryption`'s status is a change, too, so the computations would
    /// be repeated all the time.
    fn record(&mut self, retry_at: Option<Instant>, took: Duration) {
        self.not_before = Instant::now() + took.saturating_mul(PAUSE_FACTOR);
        self.retry_at = retry_at;
    }
}

/// The policies whose last write failed, by uid: the API server refused it, for lack of a permission or because of a webhook, or
/// did not answer it. The other policies do not wait for them.
#[derive(Default)]
struct Failures(HashMap<String, Failure>);

struct Failure {
    generation: Option<i64>,
    /// The pause before the next attempt.
    pause: Duration,
    next_attempt: Instant,
}

impl Failures {
    /// Removes the policies that no longer exist.
    fn retain(&mut self, policies: &[Arc<MaybeInvalidPolicy>]) {
        self.0.retain(|uid, _| policies.iter().any(|policy| uid_of(metadata_of(policy)) == uid));
    }

    /// Returns the failure of this generation: a changed policy may be accepted.
    fn of(&self, policy: &ObjectMeta) -> Option<&Failure> {
        self.0.get(uid_of(policy)).filter(|failure| failure.generation == policy.generation)
    }

    /// Returns whether the next attempt is not due yet.
    fn postpones(&self, policy: &ObjectMeta) -> bool {
        self.of(policy).is_some_and(|failure| failure.next_attempt > Instant::now())
    }

    /// Records the result of an attempt.
    fn record(&mut self, policy: &ObjectMeta, failed: bool) {
        if !failed {
            self.0.remove(uid_of(policy));
            return;
        }
        let doubled = |failure: &Failure| failure.pause.saturating_mul(2).min(LONGEST_PAUSE);
        let pause = self.of(policy).map_or(PAUSE, doubled);
        let failure = Failure { generation: policy.generation, pause, next_attempt: Instant::now() + pause };
        self.0.insert(uid_of(policy).to_owned(), failure);
    }

    /// Returns when the first of them is due; `None` if no write failed.
    fn next_attempt(&self) -> Option<Instant> {
        self.0.values().map(|failure| failure.next_attempt).min()
    }
}

/// The generation of each invalid policy whose status is stored, by uid: the watch does not deliver the status.
#[derive(Default)]
struct Reported(HashMap<String, Option<i64>>);

impl Reported {
    /// Removes the policies that no longer exist.
    fn retain(&mut self, policies: &[Arc<MaybeInvalidPolicy>]) {
        self.0.retain(|uid, _| policies.iter().any(|policy| uid_of(metadata_of(policy)) == uid));
    }

    /// Returns whether the status of this generation is stored.
    fn holds(&self, policy: &ObjectMeta) -> bool {
        self.0.get(uid_of(policy)) == Some(&policy.generation)
    }

    /// Records the result of a write. A status that was not written is written again after the next event:
    /// another client may have changed the policy without a new generation.
    fn record(&mut self, policy: &ObjectMeta, written: &Result<(), KubeError>) {
        if written.is_ok() {
            self.0.insert(uid_of(policy).to_owned(), policy.generation);
        }
    }
}

/// Returns the operator's account if the number of resources of any policy depends on it.
async fn operator_account<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    policies: &[Arc<MaybeInvalidPolicy>],
    streams: &[(String, StreamArn)],
) -> Option<AwsAccount> {
    let mut valid = policies.iter().filter_map(|policy| Policy::read(&policy.0.as_ref().ok()?.spec).0);
    if streams.is_empty() || !valid.any(|policy| policy.streams_depend_on_operator()) {
        return None;
    }
    context.aws.identity().await.ok()
}

/// Returns the namespace and the stream of a resource: as its spec names it, or as its status resolved it.
fn stream_of(resource: &StreamEncryption) -> Option<(String, StreamArn)> {
    let resolved = || resource.status.as_ref()?.stream.as_ref()?.arn.clone();
    let arn = resource.spec.stream.arn.clone().or_else(resolved)?;
    Some((resource.metadata.namespace.clone()?, arn.parse().ok()?))
}

fn metadata_of(policy: &MaybeInvalidPolicy) -> &ObjectMeta {
    match &policy.0 {
        Ok(policy) => &policy.metadata,
        Err(invalid) => &invalid.metadata,
    }
}

fn uid_of(policy: &ObjectMeta) -> &str {
    policy.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
