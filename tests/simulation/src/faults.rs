//! What is wrong with the API server: outages, rights that were taken away, and single requests that go wrong.
//!
//! Pure bookkeeping: it says which fault a request meets; the port acts on it. Faults of AWS are the simulated AWS's own.

use jiff::{SignedDuration, Timestamp};

/// The requests that one replica makes to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Reads a resource.
    ReadResource,
    /// Reads a ledger.
    ReadLedger,
    /// Lists the ledgers.
    ListLedgers,
    /// Makes a ledger.
    CreateLedger,
    /// Replaces a ledger.
    ReplaceLedger,
    /// Deletes a ledger.
    DeleteLedger,
    /// Writes a status.
    WriteStatus,
    /// Sets or takes away the finalizer.
    SetFinalizer,
    /// Reads the object that `key.ref` names.
    ReadKey,
    /// Reads the policies of a namespace.
    ReadPolicies,
}

impl Request {
    /// Whether it changes something.
    #[must_use]
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

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesFault {
    /// 429 or 503: refused, not carried out.
    Refused,
    /// 409, though nothing else has changed.
    Conflict,
    /// 504, or no answer: carried out all the same.
    AnswerLost,
    /// No answer within the deadline; carried out this much later.
    Late(SignedDuration),
    /// It takes this long.
    Slow(SignedDuration),
    /// 403: the rights were taken away.
    Forbidden,
}

/// A fault that waits for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubernetesRule {
    /// Which requests; nothing: all.
    pub on: Option<Request>,
    /// So many pass first.
    pub skip: u32,
    /// What goes wrong.
    pub fault: KubernetesFault,
}

/// Everything that is wrong with the API server.
#[derive(Clone, Debug)]
pub struct KubernetesFaults {
    /// Until when nobody answers.
    pub down_until: Timestamp,
    /// Until when the operator may not touch ledgers.
    pub forbidden_until: Timestamp,
    /// Single faults to come.
    pub rules: Vec<KubernetesRule>,
}

impl KubernetesFaults {
    /// Nothing is wrong.
    #[must_use]
    pub fn none() -> Self {
        Self { down_until: Timestamp::MIN, forbidden_until: Timestamp::MIN, rules: Vec::new() }
    }

    /// The fault that a request meets now.
    pub fn meet(&mut self, request: Request, now: Timestamp) -> Option<KubernetesFault> {
        if now < self.down_until {
            return Some(KubernetesFault::Refused);
        }
        let of_ledgers = matches!(
            request,
            Request::ReadLedger | Request::CreateLedger | Request::ReplaceLedger | Request::ListLedgers
        );
        if of_ledgers && now < self.forbidden_until {
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
