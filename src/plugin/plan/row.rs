//! The plan of one object, as a row of every format. Pure.

use std::io::Write;

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use stream_encryption_api::condition::{ReadyState, Reason, Remedy};
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::{
    Encryption, EncryptionStatus, KeyIdentity, KeyType, Mode, StreamEncryption,
};
use stream_encryption_core::controller::preview::{PlannedStep, Preview};
use stream_encryption_core::model::service::Operation;

use super::Finding;
use super::dry_run::Change;
use crate::plugin::age::relative;
use crate::plugin::fleet::key;
use crate::plugin::output::{Columns, NONE, Tone, printable};

/// The operation of a test record.
const PUT_RECORD: &str = "PutRecord";

/// The note if the operator waits for a Key object that the files have.
const KEY_OF_FILES: &str = "The files have the Key of key.objectRef. The operator continues once this Key is applied and has an ARN.";

/// The plan of one object.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a column of the output")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<String>,
    /// Absent if the API server refuses the object, or if the object was not planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
    /// The operation, such as `StartDeliveryStreamEncryption` or `PutRecord`; absent if nothing would be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active_key: Option<String>,
    /// Whether the API server, a policy or the operator refuses it.
    pub(super) refused: bool,
    /// Whether the operator would make no call now, and somebody should act, for example because the key is disabled.
    waiting: bool,
    /// Whether the operator would make no call now, but makes or may make one later although nobody acts.
    call_later: bool,
    /// Whether there is no plan, because the cluster or AWS could not be read.
    pub(super) unplanned: bool,
    /// The reason that the operator would report; absent if it would report none, if the API server refuses the object,
    /// or if the object was not planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
    /// What the plan assumes about the apply.
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_used: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_time: Option<Timestamp>,
}

impl Columns for Row {
    fn columns() -> Vec<&'static str> {
        vec![
            "namespace",
            "resource",
            "stream",
            "change",
            "call",
            "callKey",
            "activeKey",
            "refused",
            "waiting",
            "unplanned",
            "reason",
            "callsUsed",
            "callsLimit",
            "nextAttemptTime",
            "callLater",
            "message",
            "note",
        ]
    }
}

/// What the plan of an object comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    CallLater,
    NoCall,
    Waiting,
    Refused,
    Unplanned,
}

impl Row {
    /// Returns the row of an object that would be refused.
    pub(super) fn refused(namespace: &str, name: &str, message: String) -> Self {
        Self { refused: true, ..Self::without_plan(namespace, name, message) }
    }

    /// Returns the row of an object without a plan, because the cluster or AWS could not be read.
    pub(super) fn unplanned(namespace: &str, name: &str, message: String) -> Self {
        Self { unplanned: true, ..Self::without_plan(namespace, name, message) }
    }

    fn without_plan(namespace: &str, name: &str, message: String) -> Self {
        Self { namespace: namespace.to_owned(), resource: name.to_owned(), message, ..Self::default() }
    }

    /// Returns the row of a planned object. `requested` is the encryption that AWS is applying, if that is known. `has_key` states
    /// whether the files have the Key object of `key.objectRef`.
    pub(super) fn planned(
        namespace: &str,
        resource: &StreamEncryption,
        change: Change,
        note: String,
        plan: Preview,
        requested: Option<&Target>,
        has_key: bool,
    ) -> Self {
        let service = plan.stream.as_ref().map(|stream| stream.service);
        let (call, call_key) = match (&plan.step, service) {
            (PlannedStep::Call(target), Some(service)) => {
                (Some(Operation::change(service, target.action).name()), target.key.as_ref().map(key))
            }
            (PlannedStep::TestRecord, Some(_)) => (Some(PUT_RECORD), None),
            (
                PlannedStep::Call(_)
                | PlannedStep::TestRecord
                | PlannedStep::RemoveFinalizer
                | PlannedStep::Nothing,
                _,
            ) => (None, None),
        };
        let refused = plan.reason.is_some_and(|reason| reason.ready_state() == ReadyState::Stalled);
        let is_key_missing = plan.reason == Some(Reason::KeyReferenceNotReady);
        let awaits_key = has_key && (is_key_missing || plan.reason == Some(Reason::KeyReferenceCRDMissing));
        let note =
            if awaits_key { [note.as_str(), KEY_OF_FILES].join(" ").trim_start().to_owned() } else { note };
        Self {
            // The apply creates the Key, but does not install its controller.
            waiting: !refused
                && call.is_none()
                && !(awaits_key && is_key_missing)
                && plan.reason.is_some_and(|reason| reason.remedy() == Remedy::Person),
            call_later: !refused && calls_later(resource, change, &plan, requested, awaits_key),
            refused,
            unplanned: false,
            namespace: namespace.to_owned(),
            resource: resource.name_any(),
            stream: plan.stream.map(|stream| stream.to_string()),
            change: Some(change),
            call,
            call_key,
            active_key: plan.active_key.as_ref().map(key),
            reason: plan.reason.map(Reason::as_str),
            message: plan.message,
            note,
            calls_used: plan.calls.map(|calls| calls.used),
            calls_limit: plan.calls.map(|calls| calls.limit),
            next_attempt_time: plan.next_attempt,
        }
    }

    /// Returns whether the row has what a pipeline fails on. A test record is no encryption call.
    pub(super) fn has(&self, finding: Finding) -> bool {
        match finding {
            Finding::Calls => self.call_later || self.call.is_some_and(|call| call != PUT_RECORD),
            Finding::Refused => self.refused,
            Finding::Waiting => self.waiting,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            _ if self.unplanned => Kind::Unplanned,
            _ if self.refused => Kind::Refused,
            _ if self.call_later => Kind::CallLater,
            _ if self.waiting => Kind::Waiting,
            _ if self.has(Finding::Calls) => Kind::Call,
            _ => Kind::NoCall,
        }
    }
}

/// Returns whether the operator makes or may make a call later although nobody acts: at a known time, or because the change
/// that it waits for may end with another encryption than the desired one, or because the files have the Key that it waits for.
fn calls_later(
    resource: &StreamEncryption,
    change: Change,
    plan: &Preview,
    requested: Option<&Target>,
    awaits_key: bool,
) -> bool {
    if plan.step != PlannedStep::Nothing || resource.spec.mode == Mode::Observe {
        return false;
    }
    let active = plan.active_key.as_ref().map(|key| Target { action: Action::Start, key: Some(key.clone()) });
    let may_differ =
        |encryption: Option<&Target>| encryption.is_none_or(|encryption| !is_desired(resource, encryption));
    let is_converged = change == Change::Unchanged && matches_status(resource, plan.active_key.as_ref());
    plan.next_attempt.is_some()
        || awaits_key
        || match plan.reason {
            Some(Reason::Enabling | Reason::Disabling) => may_differ(requested),
            // A reshard, for example, keeps the encryption.
            Some(Reason::StreamUpdating) => !is_converged && may_differ(active.as_ref()),
            Some(Reason::Settling) => may_differ(active.as_ref()),
            Some(Reason::StreamCreating | Reason::OutcomeUnknown) => true,
            _ => false,
        }
}

/// Returns whether the spec is known to ask for this encryption. The spec alone does not show which key an alias or an object
/// stands for.
fn is_desired(resource: &StreamEncryption, encryption: &Target) -> bool {
    if wants_plaintext(resource) {
        return encryption.action == Action::Stop;
    }
    encryption.action == Action::Start
        && resource.spec.key.as_ref().is_none_or(|key| {
            let names_key = key.kind == KeyType::AwsOwned || key.arn.is_some();
            let named = KeyIdentity { kind: key.kind, arn: key.arn.clone() };
            names_key && encryption.key.as_ref() == Some(&named)
        })
}

/// Returns whether the status shows that this active key is the desired one, or that plaintext is desired and active. Unlike the
/// spec, it shows which key an alias or an object stands for.
fn matches_status(resource: &StreamEncryption, active: Option<&KeyIdentity>) -> bool {
    let generation = resource.metadata.generation;
    let status = resource.status.as_ref().filter(|status| status.observed_generation == generation);
    status.is_some_and(|status| match active {
        None => wants_plaintext(resource) && status.encryption_status == Some(EncryptionStatus::Disabled),
        Some(key) => {
            // The ARN of a key is hidden from a namespace that may not use it.
            let is_shown = key.kind == KeyType::AwsOwned || key.arn.is_some();
            is_shown && !wants_plaintext(resource) && status.desired_key.as_ref() == Some(key)
        }
    })
}

fn wants_plaintext(resource: &StreamEncryption) -> bool {
    resource.spec.encryption == Encryption::Disabled || resource.metadata.deletion_timestamp.is_some()
}

impl Kind {
    /// Returns the sign of the row, and its meaning.
    fn sign(self) -> (&'static str, Tone) {
        match self {
            Self::Call => (">", Tone::Notice),
            Self::CallLater => ("~", Tone::Notice),
            Self::NoCall => ("=", Tone::Good),
            Self::Waiting => ("?", Tone::Bad),
            Self::Refused => ("!", Tone::Bad),
            Self::Unplanned => ("x", Tone::Bad),
        }
    }
}

/// Returns a number with its noun.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Writes the plan of each object, and a sum.
pub(super) fn write_text(out: &mut impl Write, rows: &[Row], now: Timestamp) -> anyhow::Result<()> {
    for row in rows {
        let kind = row.kind();
        let (sign, tone) = kind.sign();
        let style = tone.style();
        let change = match row.change {
            Some(Change::Created) => "new",
            Some(Change::Changed) => "changed",
            Some(Change::Unchanged) => "unchanged",
            None if row.unplanned => "not planned",
            None => "refused",
        };
        let stream = printable(row.stream.as_deref().unwrap_or(NONE));
        let name = format!("{}/{}", row.namespace, row.resource);
        let (name, message) = (printable(&name), printable(&row.message));
        writeln!(out, "{style}{sign}{style:#} {name} ({change})  {stream}")?;
        let next = row.next_attempt_time.map(|at| format!(" ({})", relative(at, now))).unwrap_or_default();
        match (kind, row.call) {
            (Kind::NoCall, Some(_)) => {
                writeln!(out, "    write a test record (PutRecord), no encryption call")?;
            }
            (Kind::CallLater, _) => writeln!(out, "    no call yet: {message}{next}")?,
            (Kind::NoCall | Kind::Waiting, _) => writeln!(out, "    no call: {message}{next}")?,
            (Kind::Call | Kind::Refused | Kind::Unplanned, _) => writeln!(out, "    {message}")?,
        }
        if !row.note.is_empty() {
            writeln!(out, "    {}", printable(&row.note))?;
        }
    }
    let count = |kind| rows.iter().filter(|row| row.kind() == kind).count();
    let later = match count(Kind::CallLater) {
        0 => String::new(),
        count => format!(", {count} later"),
    };
    let unplanned = match count(Kind::Unplanned) {
        0 => String::new(),
        count => format!(", {count} not planned"),
    };
    writeln!(
        out,
        "\nPlan for {}: {}{later}, {} without a call, {} waiting for your action, {} refused{unplanned}.",
        counted(rows.len(), "object"),
        counted(count(Kind::Call), "encryption call"),
        count(Kind::NoCall),
        count(Kind::Waiting),
        count(Kind::Refused),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
