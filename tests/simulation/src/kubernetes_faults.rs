//! Faults of the API server: outages, revoked permissions, and single failing requests.
//!
//! This module only selects the fault of a request; the port executes it. The simulated AWS has its own
//! faults.

use jiff::{SignedDuration, Timestamp};

/// The requests of a replica to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KubernetesRequest {
    ReadResource,
    ReadLedger,
    ListLedgers,
    CreateLedger,
    ReplaceLedger,
    DeleteLedger,
    WriteStatus,
    /// Sets or removes the finalizer.
    SetFinalizer,
    /// Reads the object that `key.objectRef` names.
    ReadKey,
    /// Reads the policies of a namespace.
    ReadPolicies,
}

impl KubernetesRequest {
    /// Returns whether the request is a write.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::CreateLedger
                | Self::ReplaceLedger
                | Self::DeleteLedger
                | Self::WriteStatus
                | Self::SetFinalizer
        )
    }
}

/// The fault of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesFault {
    /// 429 or 503: refused, not executed.
    Refused,
    /// 409, although no other change was made.
    Conflict,
    /// 504 or no response, but executed.
    ResponseLost,
    /// No response within the deadline; executed after this delay.
    DelayedWrite(SignedDuration),
    /// The response takes this long.
    Slow(SignedDuration),
    /// 403: the permissions were revoked.
    Forbidden,
}

/// A fault that waits for a matching request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubernetesRule {
    /// The affected request; `None` for all requests.
    pub on: Option<KubernetesRequest>,
    /// The number of matching requests that pass first.
    pub skip: u32,
    pub fault: KubernetesFault,
}

/// The current faults of the API server.
#[derive(Clone, Debug)]
pub struct KubernetesFaults {
    /// The time until which the API server does not respond.
    pub down_until: Timestamp,
    /// The time until which the operator has no access to ledgers.
    pub forbidden_until: Timestamp,
    /// The pending faults of single requests.
    pub rules: Vec<KubernetesRule>,
}

impl KubernetesFaults {
    /// Returns a state without faults.
    pub fn none() -> Self {
        Self { down_until: Timestamp::MIN, forbidden_until: Timestamp::MIN, rules: Vec::new() }
    }

    /// Returns the fault that affects a request now.
    pub fn next_fault(&mut self, request: KubernetesRequest, now: Timestamp) -> Option<KubernetesFault> {
        if now < self.down_until {
            return Some(KubernetesFault::Refused);
        }
        let is_for_ledgers = matches!(
            request,
            KubernetesRequest::ReadLedger
                | KubernetesRequest::CreateLedger
                | KubernetesRequest::ReplaceLedger
                | KubernetesRequest::ListLedgers
        );
        if is_for_ledgers && now < self.forbidden_until {
            return Some(KubernetesFault::Forbidden);
        }
        let at = self.rules.iter_mut().position(|rule| {
            let matches = rule.on.is_none_or(|on| on == request);
            if matches && rule.skip > 0 {
                rule.skip -= 1;
                return false;
            }
            matches
        })?;
        Some(self.rules.remove(at).fault)
    }
}
