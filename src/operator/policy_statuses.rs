//! The status of every policy, kept current while this replica leads: whether the operator accepts the
//! policy, and how many namespaces and resources the policy applies to now.
//!
//! Reads only the caches of the watches; writes only a status that differs. An operator that watches a part of the
//! resources, by namespaces or by a label selector, writes none: several such operators would overwrite each
//! other's numbers.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

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
use crate::kubernetes::policy_status::write;
use crate::kubernetes::store::Store;
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::telemetry::Warnings;

/// The pause after a change, so that many changes at a time lead to one write of each status.
const PAUSE: Duration = Duration::from_secs(5);
/// How many times the time of the last computation must pass before the next one: with thousands of resources and a hundred
/// policies, a computation takes seconds.
const PAUSE_FACTOR: u32 = 20;
/// The longest pause. It doubles while the API server refuses a write or does not respond: each attempt computes all statuses
/// again.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// Writes the statuses of the policies, which it computes from caches.
pub(super) struct PolicyStatusWriter {
    client: Client,
    policies: Store<MaybeInvalidPolicy>,
    namespaces: Store<NamespaceLabels>,
    resources: Store<MaybeInvalidResource>,
    /// Set when each of the caches holds its first list: an incomplete cache would lead to wrong numbers.
    listed: [Arc<SetOnce<()>>; 3],
    /// Notified of every change of these caches.
    changed: Arc<Notify>,
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
            let (written, took) = self.write_all(context, &mut reported).await;
            attempts.record(written, took);
        }
    }

    /// Writes each status that differs from the stored one. Returns also how long the computations took.
    async fn write_all<A: StreamApi, R: KubeApi>(
        &mut self,
        context: &Context<A, R>,
        reported: &mut Reported,
    ) -> (Written, Duration) {
        let mut all = Written::Answered;
        let begin = Instant::now();
        let (policies, resources) = (self.policies.clone(), self.resources.clone());
        // Of many resources, this takes more than a second, in which this thread would run nothing else.
        let read = tokio::task::spawn_blocking(move || {
            (policies.select(Some), resources.select(|one| stream_of(one.0.as_ref().ok()?)))
        });
        let (policies, streams) = read.await.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        let mut took = begin.elapsed();
        let operator_account = operator_account(context, &policies, &streams).await;
        let fleet = PolicyStatusInput {
            operator_account: operator_account.as_ref(),
            streams: &streams,
            now: context.clock.now(),
        };
        reported.retain(&policies);
        for policy in &policies {
            // With many policies and resources, this takes seconds, in which the lease must be renewed.
            tokio::task::yield_now().await;
            let begin = Instant::now();
            let next = self.next_status(policy, &fleet, reported);
            took += begin.elapsed();
            if let Some(status) = next {
                all = all.max(self.write_one(policy, &status, reported).await);
            }
        }
        (all, took)
    }

    /// Returns the status of a policy; `None` if it is stored already. That of an invalid policy cannot be read, so it counts as
    /// stored once it was written.
    fn next_status(
        &self,
        policy: &MaybeInvalidPolicy,
        fleet: &PolicyStatusInput<'_>,
        reported: &Reported,
    ) -> Option<StreamEncryptionPolicyStatus> {
        match &policy.0 {
            Ok(policy) => {
                let before = policy.status.clone().unwrap_or_default();
                let (selected, generation) = (self.selected(policy), policy.metadata.generation);
                let status = policy_status(&policy.spec, generation, &selected, &before, fleet);
                (status != before).then_some(status)
            }
            Err(error) => {
                let (meta, before) = (metadata_of(policy), StreamEncryptionPolicyStatus::default());
                let is_reported = reported.holds(meta);
                (!is_reported).then(|| invalid(&error.error, meta.generation, &before, fleet.now))
            }
        }
    }

    /// Writes the status of a policy, and logs a failure, at most one a minute.
    async fn write_one(
        &mut self,
        policy: &MaybeInvalidPolicy,
        status: &StreamEncryptionPolicyStatus,
        reported: &mut Reported,
    ) -> Written {
        let meta = metadata_of(policy);
        let written = write(&self.client, meta, status).await;
        if policy.0.is_err() {
            reported.record(meta, &written);
        }
        match written {
            Ok(()) => Written::Answered,
            // The cache is behind: its next event leads to the next write.
            Err(KubeError::Conflict) => {
                debug!(policy = meta.name, "the policy has changed since it was read");
                Written::Answered
            }
            Err(error) => {
                if self.warnings.take_due() {
                    warn!(policy = meta.name, %error, "failed to write the status of a policy");
                }
                match error {
                    KubeError::Unavailable(_) => Written::Unanswered,
                    _ => Written::Refused,
                }
            }
        }
    }

    /// Returns the names of the selected namespaces, sorted.
    fn selected(&self, policy: &StreamEncryptionPolicy) -> Result<Vec<String>, String> {
        let none = std::collections::BTreeMap::new();
        let mut selected = Vec::new();
        for namespace in self.namespaces.select(Some) {
            let labels = namespace.metadata.labels.as_ref().unwrap_or(&none);
            if is_selected(&policy.spec.namespace_selector, labels)? {
                selected.extend(namespace.metadata.name.clone());
            }
        }
        selected.sort_unstable();
        Ok(selected)
    }
}

/// The result of an attempt to write the statuses, or one of them. Of several results, the greatest one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Written {
    /// The API server has carried out every write, or the cache is behind.
    Answered,
    /// The API server has refused a write, for lack of a permission or because of a webhook. The next change leads to the next
    /// attempt.
    Refused,
    /// The API server has not answered a write, which is therefore repeated without a change.
    Unanswered,
}

/// The times of the attempts: after each change, and without a change while a write is not answered. The pauses grow while the
/// writes fail.
struct Attempts<'a> {
    changed: &'a Notify,
    /// Whether a change must come before the next attempt.
    awaits_change: bool,
    /// The pause before the next attempt.
    pause: Duration,
    /// The time before which no attempt begins: an earlier one took long.
    not_before: Instant,
}

impl<'a> Attempts<'a> {
    fn new(changed: &'a Notify) -> Self {
        Self { changed, awaits_change: true, pause: PAUSE, not_before: Instant::now() }
    }

    /// Waits until the next attempt.
    async fn wait(&self) {
        if self.awaits_change {
            self.changed.notified().await;
        }
        tokio::time::sleep(self.pause).await;
        tokio::time::sleep_until(self.not_before).await;
    }

    /// Records the result of an attempt, and how long its computations took: each write of a status is a change of a
    /// resource, too, so they would be repeated all the time.
    fn record(&mut self, written: Written, took: Duration) {
        self.not_before = Instant::now() + took.saturating_mul(PAUSE_FACTOR);
        self.awaits_change = written != Written::Unanswered;
        self.pause = match written {
            Written::Answered => PAUSE,
            Written::Refused | Written::Unanswered => self.pause.saturating_mul(2).min(LONGEST_PAUSE),
        };
    }
}

/// The generation of each invalid policy whose status was written, by uid: its own status cannot be parsed.
#[derive(Default)]
struct Reported(HashMap<String, Option<i64>>);

impl Reported {
    /// Removes the policies that no longer exist.
    fn retain(&mut self, policies: &[Arc<MaybeInvalidPolicy>]) {
        self.0.retain(|uid, _| policies.iter().any(|policy| uid_of(metadata_of(policy)) == uid));
    }

    /// Returns whether the status of this generation was written.
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::super::fakes::{self, Log};
    use super::*;

    #[test]
    fn invalid_policy_is_reported_again_after_a_conflict() {
        let policy = |generation| ObjectMeta {
            uid: Some("uid-1".to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        let mut reported = Reported::default();
        for error in [KubeError::Conflict, KubeError::Unavailable("no answer".to_owned())] {
            reported.record(&policy(1), &Err(error));
            assert!(!reported.holds(&policy(1)));
        }
        reported.record(&policy(1), &Ok(()));
        assert!(reported.holds(&policy(1)));
        assert!(!reported.holds(&policy(2)), "it has changed");
    }

    #[tokio::test(start_paused = true)]
    async fn unanswered_write_is_repeated_with_growing_pauses() {
        let changed = Notify::new();
        let mut attempts = Attempts::new(&changed);
        for pauses in [&[5, 10, 20, 40, 80, 120, 120][..], &[5]] {
            let waiting = tokio::time::timeout(Duration::from_hours(1), attempts.wait());
            waiting.await.expect_err("nothing has changed");
            changed.notify_one();
            for pause in pauses {
                let start = tokio::time::Instant::now();
                attempts.wait().await;
                assert_eq!(start.elapsed().as_secs(), *pause);
                attempts.record(Written::Unanswered, Duration::ZERO);
            }
            attempts.record(Written::Answered, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_writes_are_logged_and_repeated_seldom() {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let server = Router::new().fallback(async move || {
            count.fetch_add(1, Ordering::Relaxed);
            (StatusCode::FORBIDDEN, "no")
        });
        let listed = || Arc::new(SetOnce::new_with(Some(())));
        let policies: Store<MaybeInvalidPolicy> = Store::default();
        let changed = Arc::new(Notify::new());
        for number in 0..20 {
            let name = format!("policy-{number}");
            let policy = json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
                "metadata": {"name": name, "uid": name, "resourceVersion": "1", "generation": 1}, "spec": {},
            });
            policies.apply(&Event::Apply(serde_json::from_value(policy).unwrap()));
        }
        let writer = PolicyStatusWriter {
            client: Client::new(server, "default"),
            policies,
            namespaces: Store::default(),
            resources: Store::default(),
            listed: [listed(), listed(), listed()],
            changed: changed.clone(),
            warnings: Warnings::default(),
        };
        let (log, _guard) = Log::capture();
        let context = fakes::context(None);
        let ten_minutes = async {
            for _ in 0..600 {
                changed.notify_one();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = writer.keep_current(&context) => unreachable!("it never returns"),
            () = ten_minutes => {}
        }
        let (lines, requests) = (log.lines_with("failed to write").len(), requests.load(Ordering::Relaxed));
        assert!((1..=10).contains(&lines), "{}", log.text());
        assert!((20..=200).contains(&requests), "{requests} requests");
    }

    #[tokio::test(start_paused = true)]
    async fn long_computation_is_repeated_after_long_pause() {
        let changed = Notify::new();
        let mut attempts = Attempts::new(&changed);
        for (took, idle, pause) in [(100, 0, 5), (1_000, 0, 20), (1_000, 60, 5)] {
            attempts.record(Written::Answered, Duration::from_millis(took));
            tokio::time::sleep(Duration::from_secs(idle)).await;
            changed.notify_one();
            let start = Instant::now();
            attempts.wait().await;
            assert_eq!(start.elapsed().as_secs(), pause);
        }
    }
}
