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
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::ledger_store::resource_identity;
use stream_encryption_core::model::ledger::{self, DAY, expires_at};
use stream_encryption_core::model::service::AWS_LIMIT;

use super::Bug;
use super::protocol::write_after_call;
use crate::convergence::stream_of;
use crate::environment::{ACCOUNT, FOREIGN_ACCOUNT};
use crate::ports::KubernetesPort;
use crate::store::name_of;

/// Time for which [`Bug::OwnClockPrunes`] keeps a call: longer than required, so that a converged resource
/// causes no writes.
const RETENTION: SignedDuration = SignedDuration::from_hours(26);
/// The duration of a lease.
const LEASE_DURATION: SignedDuration = SignedDuration::from_secs(15);

/// The Kubernetes port with a planted bug.
#[derive(Debug)]
pub struct BuggyKubeApi {
    bug: Bug,
    port: KubernetesPort,
    /// The attempts of each ledger, for the lifetime of the process.
    attempts: Mutex<BTreeMap<String, Attempts>>,
    /// The reconciles that have begun, by task.
    started: Mutex<BTreeSet<usize>>,
    /// The policies as first read, by namespace.
    policies: Mutex<BTreeMap<String, Vec<StreamEncryptionPolicySpec>>>,
}

/// Returns the same patterns for another account.
fn in_foreign_account(patterns: &[String]) -> Vec<String> {
    let account = format!(":{FOREIGN_ACCOUNT}:");
    patterns
        .iter()
        .map(|text| text.replace(":own:", &account).replace(&format!(":{ACCOUNT}:"), &account))
        .collect()
}

impl BuggyKubeApi {
    pub(super) fn new(bug: Bug, port: KubernetesPort) -> Self {
        Self { bug, port, attempts: Mutex::default(), started: Mutex::default(), policies: Mutex::default() }
    }

    fn attempts(&self) -> MutexGuard<'_, BTreeMap<String, Attempts>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time by this replica's own clock.
    fn now(&self) -> Timestamp {
        let transport = self.port.transport();
        transport.environment.clock(transport.process.replica).now()
    }

    /// Returns whether this is the first request of a reconcile. The lease is checked only then, as in leader
    /// election.
    fn is_first_request(&self) -> bool {
        let task = {
            let state = self.port.transport().environment.state();
            state.current_task.name.is_some().then_some(state.current_task.task)
        };
        task.is_some_and(|task| self.started.lock().unwrap_or_else(PoisonError::into_inner).insert(task))
    }

    /// Returns whether a resource of this namespace is being reconciled.
    fn reconciles_namespace(&self, namespace: &str) -> bool {
        let state = self.port.transport().environment.state();
        state.current_task.name.as_ref().is_some_and(|resource| resource.0 == namespace)
    }

    /// Returns whether this resource is being reconciled.
    fn is_reconciled(&self, namespace: &str, name: &str) -> bool {
        let state = self.port.transport().environment.state();
        state.current_task.name.as_ref().is_some_and(|resource| resource.0 == namespace && resource.1 == name)
    }

    /// Waits until this process is the leader.
    async fn wait_for_lease(&self) {
        let environment = &self.port.transport().environment;
        while !self.holds_lease() {
            let retry_at = environment.state().now + LEASE_DURATION;
            environment.wait_until(retry_at).await;
        }
    }

    /// Returns whether this process holds the lease, or acquires one that has expired by its own clock.
    fn holds_lease(&self) -> bool {
        let transport = self.port.transport();
        let now = self.now();
        let state = &mut *transport.environment.state();
        if state.replicas[transport.process.replica].paused_until > state.now {
            return false;
        }
        if let Some((holder, renewed)) = &mut state.lease
            && *holder != transport.process
        {
            let condition = &state.replicas[holder.replica];
            if condition.running
                && condition.incarnation == holder.incarnation
                && condition.paused_until <= state.now
            {
                // The holder renews its lease every few seconds while it runs.
                *renewed = state.now + transport.environment.clock_error(holder.replica);
            }
            if now < *renewed + LEASE_DURATION {
                return false;
            }
        }
        state.lease = Some((transport.process, now));
        true
    }

    /// Returns the policies of a namespace, each modified.
    async fn policies_of(
        &self,
        namespace: &str,
        from: ReadFrom,
        change: impl Fn(&mut StreamEncryptionPolicySpec),
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        let mut policies = self.port.policies(namespace, from).await?;
        policies.iter_mut().for_each(change);
        Ok(policies)
    }

    /// Returns the policies of a namespace as first read in this process.
    async fn policies_first_read(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        let cached = self.policies.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        if let Some(policies) = cached {
            return Ok(policies);
        }
        let policies = self.port.policies(namespace, from).await?;
        self.policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.to_owned(), policies.clone());
        Ok(policies)
    }

    /// Writes a resource into the ledger of its stream if the ledger's owner is deleted.
    async fn claim(&self, resource: &StreamEncryption) {
        let Some(stream) = stream_of(resource) else { return };
        let Ok(Some(mut ledger)) = self.port.ledger(&ledger::name(&stream), ReadFrom::ApiServer).await else {
            return;
        };
        let is_deleted =
            self.port.transport().environment.state().store.resource_by_uid(&ledger.spec.owner.uid).is_none();
        if is_deleted {
            ledger.spec.owner = resource_identity(resource);
            // A conflict means that another replica has claimed it first.
            let _ = self.port.replace_ledger(&ledger).await;
        }
    }

    /// Returns the resource that the controller receives.
    fn modify_resource(&self, mut resource: StreamEncryption) -> StreamEncryption {
        match self.bug {
            Bug::StopOnDeletion if resource.spec.mode == Mode::Enforce => {
                let is_allowed = self.port.transport().environment.state().policies.allow_any_stop();
                if is_allowed {
                    resource.spec.deletion_policy = DeletionPolicy::Disable;
                }
            }
            Bug::StatusRewritten => resource.status = None,
            _ => {}
        }
        resource
    }

    /// Returns the ledger that the controller receives.
    async fn modify_ledger(&self, mut ledger: StreamLedger) -> StreamLedger {
        let now = self.now();
        match self.bug {
            Bug::SharpWindow => ledger.spec.calls.retain(|call| call.at() + DAY > now),
            Bug::OwnClockPrunes => {
                let before = ledger.spec.calls.len();
                ledger.spec.calls.retain(|call| expires_at(call) + RETENTION > now);
                if ledger.spec.calls.len() < before
                    && let Ok(pruned) = self.port.replace_ledger(&ledger).await
                {
                    return pruned;
                }
            }
            Bug::BackoffInMemory => {
                let name = ledger.metadata.name.as_deref().unwrap_or_default();
                ledger.spec.attempts = self.attempts().get(name).cloned();
            }
            Bug::OwnershipIgnored => {
                let state = self.port.transport().environment.state();
                let resource = state.current_task.name.as_ref().and_then(|name| state.store.resource(name));
                if let Some(resource) = resource {
                    let (namespace, name) = name_of(resource);
                    let uid = resource.metadata.uid.clone().unwrap_or_default();
                    ledger.spec.owner = Owner { namespace, name, uid };
                }
            }
            _ => {}
        }
        ledger
    }

    /// Returns the ledger that is written.
    fn modify_write(&self, name: &str, spec: &StreamLedgerSpec) -> StreamLedgerSpec {
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
    async fn interpret_write(
        &self,
        requested: StreamLedger,
        mut result: Result<StreamLedger, KubeError>,
    ) -> Result<StreamLedger, KubeError> {
        match self.bug {
            Bug::NoCompareAndSwap | Bug::LeaseOnly => {
                while matches!(result, Err(KubeError::Conflict)) {
                    let name = requested.metadata.name.as_deref().unwrap_or_default();
                    let Some(newer) = self.port.ledger(name, ReadFrom::ApiServer).await? else { break };
                    let overwriting = StreamLedger { metadata: newer.metadata, spec: requested.spec.clone() };
                    result = self.port.replace_ledger(&overwriting).await;
                }
                result
            }
            Bug::UnacknowledgedCounts => result.or(Ok(requested)),
            Bug::BackoffInMemory => match result {
                Ok(ledger) => Ok(self.modify_ledger(ledger).await),
                error => error,
            },
            _ => result,
        }
    }
}

impl KubeApi for BuggyKubeApi {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        let is_reconciled = self.is_reconciled(namespace, name);
        let from = match self.bug {
            Bug::CachedResource if is_reconciled => ReadFrom::Cache,
            Bug::CachedOwner if !is_reconciled => ReadFrom::Cache,
            _ => from,
        };
        if self.bug == Bug::LeaseOnly && self.is_first_request() {
            self.wait_for_lease().await;
        }
        let resource = self.port.resource(namespace, name, from).await?;
        if let (Bug::ClaimedWithoutPolicy, Some(resource)) = (self.bug, &resource)
            && self.is_reconciled(namespace, name)
        {
            self.claim(resource).await;
        }
        Ok(resource.map(|resource| self.modify_resource(resource)))
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        let from = if self.bug == Bug::CachedLedger { ReadFrom::Cache } else { from };
        match self.port.ledger(name, from).await? {
            Some(ledger) => Ok(Some(self.modify_ledger(ledger).await)),
            None => Ok(None),
        }
    }

    async fn ledgers(&self, after: Option<&str>) -> Result<LedgerPage, KubeError> {
        let mut page = self.port.ledgers(after).await?;
        if self.bug == Bug::LedgerDeletedEarly {
            for ledger in &mut page.ledgers {
                ledger.spec.calls.clear();
            }
        }
        Ok(page)
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let requested = StreamLedger::new(name, self.modify_write(name, spec));
        if self.bug == Bug::RecordedAfterwards {
            return write_after_call(&self.port, &requested).await;
        }
        let result = self.port.create_ledger(name, &requested.spec).await;
        if self.bug == Bug::LeaseOnly {
            // The API server still creates no object twice.
            return result;
        }
        self.interpret_write(requested, result).await
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let name = ledger.metadata.name.as_deref().unwrap_or_default();
        let spec = self.modify_write(name, &ledger.spec);
        let requested = StreamLedger { metadata: ledger.metadata.clone(), spec };
        if self.bug == Bug::RecordedAfterwards {
            return write_after_call(&self.port, &requested).await;
        }
        let result = self.port.replace_ledger(&requested).await;
        self.interpret_write(requested, result).await
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.port.delete_ledger(ledger).await
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
        self.port.write_status(read, &status).await
    }

    async fn publish_event(&self, owner: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        self.port.publish_event(owner, event).await
    }

    async fn set_finalizer(&self, read: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        self.port.set_finalizer(read, present).await
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        match self.bug {
            Bug::PoliciesReadOnce => self.policies_first_read(namespace, from).await,
            Bug::CachedPolicies => self.port.policies(namespace, ReadFrom::Cache).await,
            Bug::ForeignStream => {
                self.policies_of(namespace, from, |policy| {
                    policy.streams.extend(in_foreign_account(&policy.streams));
                })
                .await
            }
            Bug::ForeignKey => {
                self.policies_of(namespace, from, |policy| {
                    policy.keys.extend(in_foreign_account(&policy.keys));
                })
                .await
            }
            Bug::ClaimOutlivesPolicy if !self.reconciles_namespace(namespace) => {
                Ok(vec![StreamEncryptionPolicySpec::own_account()])
            }
            Bug::BudgetIgnored => {
                self.policies_of(namespace, from, |policy| policy.max_calls_per_day = AWS_LIMIT).await
            }
            _ => self.port.policies(namespace, from).await,
        }
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        self.port.referenced_key(namespace, reference).await
    }
}
