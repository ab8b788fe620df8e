//! The Kubernetes port of an operator with a planted bug: wraps the simulated port.
//!
//! It may return and write modified objects. It never accesses AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, Reason};
use stream_encryption_api::ledger::{Attempts, Outcome, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, EncryptionStatus, KeyObjectReference, Mode, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::ledger_store::resource_identity;
use stream_encryption_core::model::ledger::{self, DAY, expires_at};
use stream_encryption_core::model::service::AWS_LIMIT;

use super::Bug;
use super::protocol::write_afterwards;
use crate::convergence::stream_of;
use crate::environment::{ACCOUNT, FOREIGN_ACCOUNT};
use crate::ports::Cluster;
use crate::store::name_of;

/// How long [`Bug::OwnClockPrunes`] keeps a call: longer than required, so that it makes no writes at rest.
const KEPT: SignedDuration = SignedDuration::from_hours(26);
/// The duration of a lease.
const LEASE: SignedDuration = SignedDuration::from_secs(15);

/// The Kubernetes port with a planted bug.
#[derive(Debug)]
pub struct SpoiledRecords {
    bug: Bug,
    cluster: Cluster,
    /// The attempts of each ledger, for the life of the process.
    attempts: Mutex<BTreeMap<String, Attempts>>,
    /// The reconciles that have begun, by task.
    begun: Mutex<BTreeSet<usize>>,
    /// The policies as first read, by namespace.
    policies: Mutex<BTreeMap<String, Vec<StreamEncryptionPolicySpec>>>,
}

/// Returns the same patterns for another account.
fn elsewhere(patterns: &[String]) -> Vec<String> {
    let account = format!(":{FOREIGN_ACCOUNT}:");
    patterns
        .iter()
        .map(|text| text.replace(":own:", &account).replace(&format!(":{ACCOUNT}:"), &account))
        .collect()
}

impl SpoiledRecords {
    pub(super) fn new(bug: Bug, cluster: Cluster) -> Self {
        Self { bug, cluster, attempts: Mutex::default(), begun: Mutex::default(), policies: Mutex::default() }
    }

    fn attempts(&self) -> MutexGuard<'_, BTreeMap<String, Attempts>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time by this replica's own clock.
    fn now(&self) -> Timestamp {
        let link = self.cluster.link();
        link.scene.clock_of(link.process.replica).now()
    }

    /// Returns whether this is the first request of a reconcile. The lease is checked only then, as in leader
    /// election.
    fn begins_a_visit(&self) -> bool {
        let task = {
            let state = self.cluster.link().scene.state();
            state.polled.name.is_some().then_some(state.polled.task)
        };
        task.is_some_and(|task| self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(task))
    }

    /// Returns whether a resource of this namespace is being reconciled.
    fn visits(&self, namespace: &str) -> bool {
        let state = self.cluster.link().scene.state();
        state.polled.name.as_ref().is_some_and(|visited| visited.0 == namespace)
    }

    /// Returns whether this resource is being reconciled.
    fn is_visited(&self, namespace: &str, name: &str) -> bool {
        let state = self.cluster.link().scene.state();
        state.polled.name.as_ref().is_some_and(|visited| visited.0 == namespace && visited.1 == name)
    }

    /// Waits until this process is the leader.
    async fn wait_to_lead(&self) {
        let scene = &self.cluster.link().scene;
        while !self.leads() {
            let again = scene.state().now + LEASE;
            scene.wait_until(again).await;
        }
    }

    /// Returns whether this process holds the lease, or acquires one that has expired by its own clock.
    fn leads(&self) -> bool {
        let link = self.cluster.link();
        let now = self.now();
        let state = &mut *link.scene.state();
        if state.replicas[link.process.replica].paused_until > state.now {
            return false;
        }
        if let Some((holder, renewed)) = &mut state.lease
            && *holder != link.process
        {
            let condition = &state.replicas[holder.replica];
            if condition.up && condition.life == holder.life && condition.paused_until <= state.now {
                // The holder renews its lease every few seconds while it runs.
                *renewed = state.now + link.scene.offset(holder.replica);
            }
            if now < *renewed + LEASE {
                return false;
            }
        }
        state.lease = Some((link.process, now));
        true
    }

    /// Returns the policies of a namespace, each modified.
    async fn policies_of(
        &self,
        namespace: &str,
        from: ReadFrom,
        change: impl Fn(&mut StreamEncryptionPolicySpec),
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        let mut policies = self.cluster.policies(namespace, from).await?;
        policies.iter_mut().for_each(change);
        Ok(policies)
    }

    /// Returns the policies of a namespace as first read in this process.
    async fn policies_kept(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        let known = self.policies.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        if let Some(policies) = known {
            return Ok(policies);
        }
        let policies = self.cluster.policies(namespace, from).await?;
        self.policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.to_owned(), policies.clone());
        Ok(policies)
    }

    /// Writes a resource into the ledger of its stream if the ledger's owner is deleted.
    async fn claim(&self, resource: &StreamEncryption) {
        let Some(stream) = stream_of(resource) else { return };
        let Ok(Some(mut ledger)) = self.cluster.ledger(&ledger::name(&stream), ReadFrom::ApiServer).await
        else {
            return;
        };
        let gone = self.cluster.link().scene.state().store.resource_by_uid(&ledger.spec.owner.uid).is_none();
        if gone {
            ledger.spec.owner = resource_identity(resource);
            // A conflict means that another replica was first.
            let _ = self.cluster.replace_ledger(&ledger).await;
        }
    }

    /// Returns a resource as the controller sees it.
    fn shown(&self, mut resource: StreamEncryption) -> StreamEncryption {
        match self.bug {
            Bug::StopOnDeletion if resource.spec.mode == Mode::Enforce => {
                let allowed = self.cluster.link().scene.state().policies.allow_any_stop();
                if allowed {
                    resource.spec.deletion_policy = DeletionPolicy::Disable;
                }
            }
            Bug::StatusRewritten => resource.status = None,
            _ => {}
        }
        resource
    }

    /// Returns a ledger as the controller sees it.
    async fn opened(&self, mut ledger: StreamLedger) -> StreamLedger {
        let now = self.now();
        match self.bug {
            Bug::SharpWindow => ledger.spec.calls.retain(|call| call.at() + DAY > now),
            Bug::OwnClockPrunes => {
                let before = ledger.spec.calls.len();
                ledger.spec.calls.retain(|call| expires_at(call) + KEPT > now);
                if ledger.spec.calls.len() < before
                    && let Ok(tidy) = self.cluster.replace_ledger(&ledger).await
                {
                    return tidy;
                }
            }
            Bug::BackoffInMemory => {
                let name = ledger.metadata.name.as_deref().unwrap_or_default();
                ledger.spec.attempts = self.attempts().get(name).cloned();
            }
            Bug::OwnershipIgnored => {
                let state = self.cluster.link().scene.state();
                let asking = state.polled.name.as_ref().and_then(|name| state.store.resource(name));
                if let Some(resource) = asking {
                    let (namespace, name) = name_of(resource);
                    let uid = resource.metadata.uid.clone().unwrap_or_default();
                    ledger.spec.owner = Owner { namespace, name, uid };
                }
            }
            _ => {}
        }
        ledger
    }

    fn to_be_written(&self, name: &str, spec: &StreamLedgerSpec) -> StreamLedgerSpec {
        let mut written = spec.clone();
        match self.bug {
            Bug::EffectForgotten => written.calls.iter_mut().for_each(|call| call.confirmed = false),
            Bug::UnknownRefunded => written.calls.retain(|call| call.outcome != Outcome::Unknown),
            Bug::BackoffInMemory => match written.attempts.take() {
                Some(attempts) => {
                    self.attempts().insert(name.to_owned(), attempts);
                }
                None => {
                    self.attempts().remove(name);
                }
            },
            _ => {}
        }
        written
    }

    /// Returns the interpreted result of a write.
    async fn written(
        &self,
        asked: StreamLedger,
        mut answer: Result<StreamLedger, KubeError>,
    ) -> Result<StreamLedger, KubeError> {
        match self.bug {
            Bug::NoCompareAndSwap | Bug::LeaseOnly => {
                while matches!(answer, Err(KubeError::Conflict)) {
                    let name = asked.metadata.name.as_deref().unwrap_or_default();
                    let Some(newer) = self.cluster.ledger(name, ReadFrom::ApiServer).await? else { break };
                    let over = StreamLedger { metadata: newer.metadata, spec: asked.spec.clone() };
                    answer = self.cluster.replace_ledger(&over).await;
                }
                answer
            }
            Bug::UnacknowledgedCounts => answer.or(Ok(asked)),
            Bug::BackoffInMemory => match answer {
                Ok(ledger) => Ok(self.opened(ledger).await),
                error => error,
            },
            _ => answer,
        }
    }
}

impl KubeApi for SpoiledRecords {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        let visited = self.is_visited(namespace, name);
        let from = match self.bug {
            Bug::CachedResource if visited => ReadFrom::Cache,
            Bug::CachedOwner if !visited => ReadFrom::Cache,
            _ => from,
        };
        if self.bug == Bug::LeaseOnly && self.begins_a_visit() {
            self.wait_to_lead().await;
        }
        let resource = self.cluster.resource(namespace, name, from).await?;
        if let (Bug::ClaimedWithoutPolicy, Some(resource)) = (self.bug, &resource)
            && self.is_visited(namespace, name)
        {
            self.claim(resource).await;
        }
        Ok(resource.map(|resource| self.shown(resource)))
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        let from = if self.bug == Bug::CachedLedger { ReadFrom::Cache } else { from };
        match self.cluster.ledger(name, from).await? {
            Some(ledger) => Ok(Some(self.opened(ledger).await)),
            None => Ok(None),
        }
    }

    async fn ledgers(&self) -> Result<Vec<StreamLedger>, KubeError> {
        let mut ledgers = self.cluster.ledgers().await?;
        if self.bug == Bug::RetiredEarly {
            for ledger in &mut ledgers {
                ledger.spec.calls.clear();
            }
        }
        Ok(ledgers)
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let asked = StreamLedger::new(name, self.to_be_written(name, spec));
        if self.bug == Bug::RecordedAfterwards {
            return write_afterwards(&self.cluster, &asked).await;
        }
        let answer = self.cluster.create_ledger(name, &asked.spec).await;
        if self.bug == Bug::LeaseOnly {
            // The API server still creates no object twice.
            return answer;
        }
        self.written(asked, answer).await
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let name = ledger.metadata.name.as_deref().unwrap_or_default();
        let spec = self.to_be_written(name, &ledger.spec);
        let asked = StreamLedger { metadata: ledger.metadata.clone(), spec };
        if self.bug == Bug::RecordedAfterwards {
            return write_afterwards(&self.cluster, &asked).await;
        }
        let answer = self.cluster.replace_ledger(&asked).await;
        self.written(asked, answer).await
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.cluster.delete_ledger(ledger).await
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        let mut status = status.clone();
        if self.bug == Bug::NoSettling && status.encryption_status == Some(EncryptionStatus::Enabled) {
            let encrypted = ConditionType::Encrypted.as_str();
            for condition in status.conditions.iter_mut().filter(|condition| condition.type_ == encrypted) {
                ConditionStatus::True.as_str().clone_into(&mut condition.status);
                condition.reason = Reason::Encrypted.to_string();
            }
        }
        self.cluster.write_status(read, &status).await
    }

    async fn publish_event(&self, of: &Owner, happening: &ReconcileEvent) -> Result<(), KubeError> {
        self.cluster.publish_event(of, happening).await
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        self.cluster.set_finalizer(read, present).await
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        match self.bug {
            Bug::PoliciesKept => self.policies_kept(namespace, from).await,
            Bug::CachedPolicies => self.cluster.policies(namespace, ReadFrom::Cache).await,
            Bug::ForeignStream => {
                self.policies_of(namespace, from, |policy| policy.streams.extend(elsewhere(&policy.streams)))
                    .await
            }
            Bug::ForeignKey => {
                self.policies_of(namespace, from, |policy| policy.keys.extend(elsewhere(&policy.keys))).await
            }
            Bug::ClaimOutlivesPolicy if !self.visits(namespace) => {
                Ok(vec![StreamEncryptionPolicySpec::own_account()])
            }
            Bug::BudgetIgnored => {
                self.policies_of(namespace, from, |policy| policy.max_calls_per_day = AWS_LIMIT).await
            }
            _ => self.cluster.policies(namespace, from).await,
        }
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        self.cluster.referenced_key(namespace, reference).await
    }
}
