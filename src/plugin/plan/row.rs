//! The plan of one object, as a row of every format. Pure.

use std::io::Write;

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use stream_encryption_api::condition::{ReadyState, Reason, Remedy};
use stream_encryption_api::ledger::{Action, Target};
use stream_encryption_api::stream_encryption::{Encryption, KeyIdentity, KeyType, Mode, StreamEncryption};
use stream_encryption_core::controller::preview::{PlannedStep, Preview};
use stream_encryption_core::model::service::Operation;

use super::Finding;
use super::dry_run::Change;
use crate::plugin::age::relative;
use crate::plugin::fleet::key;
use crate::plugin::output::{Columns, NONE, Tone, printable};

/// The operation of a test record.
const PUT_RECORD: &str = "PutRecord";

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

    /// Returns the row of a planned object. `requested` is the encryption that AWS is applying, if that is known.
    pub(super) fn planned(
        namespace: &str,
        resource: &StreamEncryption,
        change: Change,
        note: String,
        plan: Preview,
        requested: Option<&Target>,
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
        Self {
            waiting: !refused
                && call.is_none()
                && plan.reason.is_some_and(|reason| reason.remedy() == Remedy::Person),
            call_later: !refused && calls_later(resource, &plan, requested),
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
/// that it waits for may end with another encryption than the desired one.
fn calls_later(resource: &StreamEncryption, plan: &Preview, requested: Option<&Target>) -> bool {
    if plan.step != PlannedStep::Nothing || resource.spec.mode == Mode::Observe {
        return false;
    }
    let active = plan.active_key.as_ref().map(|key| Target { action: Action::Start, key: Some(key.clone()) });
    let may_differ =
        |encryption: Option<&Target>| encryption.is_none_or(|encryption| !is_desired(resource, encryption));
    plan.next_attempt.is_some()
        || match plan.reason {
            Some(Reason::Enabling | Reason::Disabling) => may_differ(requested),
            Some(Reason::StreamUpdating | Reason::Settling) => may_differ(active.as_ref()),
            Some(Reason::StreamCreating | Reason::OutcomeUnknown) => true,
            _ => false,
        }
}

/// Returns whether the spec is known to ask for this encryption. The spec alone does not show which key an alias or an object
/// stands for.
fn is_desired(resource: &StreamEncryption, encryption: &Target) -> bool {
    let spec = &resource.spec;
    if spec.encryption == Encryption::Disabled || resource.metadata.deletion_timestamp.is_some() {
        return encryption.action == Action::Stop;
    }
    encryption.action == Action::Start
        && spec.key.as_ref().is_none_or(|key| {
            let names_key = key.kind == KeyType::AwsOwned || key.arn.is_some();
            let named = KeyIdentity { kind: key.kind, arn: key.arn.clone() };
            names_key && encryption.key.as_ref() == Some(&named)
        })
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
mod tests {
    use stream_encryption_api::stream_encryption::{KeyReference, StreamEncryptionSpec};

    use super::*;

    const OLD_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/old";
    const NEW_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/new";

    fn key_identity(arn: &str) -> KeyIdentity {
        KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(arn.to_owned()) }
    }

    /// The row of a resource with the new key, for a plan without a step while the old key is active.
    fn without_step(
        reason: Reason,
        next_attempt: Option<Timestamp>,
        requested: Option<&str>,
        mode: Mode,
    ) -> Row {
        let stream = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap();
        let plan = Preview {
            stream: Some(stream),
            active_key: Some(key_identity(OLD_KEY)),
            step: PlannedStep::Nothing,
            reason: Some(reason),
            message: "why".to_owned(),
            calls: None,
            next_attempt,
        };
        let key = KeyReference {
            kind: KeyType::CustomerManaged,
            arn: Some(NEW_KEY.to_owned()),
            alias: None,
            object_ref: None,
        };
        let spec = StreamEncryptionSpec { key: Some(key), mode, ..StreamEncryptionSpec::default() };
        let resource = StreamEncryption::new("orders", spec);
        let target = |arn: &str| Target { action: Action::Start, key: Some(key_identity(arn)) };
        let requested = requested.map(target);
        Row::planned("data", &resource, Change::Changed, String::new(), plan, requested.as_ref())
    }

    fn row(call: Option<&'static str>) -> Row {
        Row { call, change: Some(Change::Changed), message: "why".to_owned(), ..Row::default() }
    }

    fn text(rows: &[Row]) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        write_text(&mut out, rows, Timestamp::UNIX_EPOCH).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn test_record_is_no_encryption_call() {
        let record = row(Some(PUT_RECORD));
        assert!(!record.has(Finding::Calls) && row(Some("StartStreamEncryption")).has(Finding::Calls));
        let text = text(&[record]);
        assert!(text.starts_with("= ") && text.contains(": 0 encryption calls, 1 without a call,"), "{text}");
    }

    #[test]
    fn call_at_a_known_time_is_a_later_call() {
        let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(4);
        let limit = without_step(Reason::CallLimitReached, Some(at), None, Mode::Enforce);
        assert!(limit.has(Finding::Calls) && limit.has(Finding::Waiting));
        let text = text(&[limit, row(None)]);
        assert!(text.starts_with("~ data/orders "), "{text}");
        assert!(text.contains("    no call yet: why (in 4h)\n"), "{text}");
        assert!(text.contains(": 0 encryption calls, 1 later, 1 without a call, 0 waiting"), "{text}");
    }

    #[test]
    fn change_to_another_encryption_is_followed_by_a_call() {
        for (reason, requested, is_later) in [
            (Reason::Enabling, None, true),
            (Reason::Enabling, Some(OLD_KEY), true),
            (Reason::Enabling, Some(NEW_KEY), false),
            (Reason::Disabling, None, true),
            (Reason::StreamUpdating, None, true),
            (Reason::StreamCreating, None, true),
            (Reason::Settling, None, true),
            (Reason::OutcomeUnknown, None, true),
            (Reason::Encrypted, None, false),
            (Reason::KeyDisabled, None, false),
        ] {
            let row = without_step(reason, None, requested, Mode::Enforce);
            assert_eq!(row.has(Finding::Calls), is_later, "{reason}, {requested:?}");
            // Nothing is called in this mode.
            assert!(!without_step(reason, None, requested, Mode::Observe).has(Finding::Calls), "{reason}");
        }
    }

    #[test]
    fn encryption_of_the_spec_is_known_without_an_alias() {
        let start = |key: Option<KeyIdentity>| Target { action: Action::Start, key };
        let stop = Target { action: Action::Stop, key: None };
        let of_arn = start(Some(key_identity(NEW_KEY)));
        let key = |kind, alias: Option<&str>| {
            Some(KeyReference { kind, arn: None, alias: alias.map(ToOwned::to_owned), object_ref: None })
        };
        let of = |spec: StreamEncryptionSpec, target: &Target| {
            is_desired(&StreamEncryption::new("orders", spec), target)
        };
        let enabled = |key| StreamEncryptionSpec { key, ..StreamEncryptionSpec::default() };
        assert!(of(enabled(None), &of_arn) && !of(enabled(None), &stop), "any key is accepted");
        let alias = || enabled(key(KeyType::CustomerManaged, Some("alias/orders")));
        // The ARN of a key is hidden from a namespace that may not use it.
        let hidden = start(Some(KeyIdentity { kind: KeyType::CustomerManaged, arn: None }));
        assert!(!of(alias(), &of_arn) && !of(alias(), &hidden));
        let aws_owned = start(Some(KeyIdentity { kind: KeyType::AwsOwned, arn: None }));
        assert!(of(enabled(key(KeyType::AwsOwned, None)), &aws_owned));
        let disabled =
            StreamEncryptionSpec { encryption: Encryption::Disabled, ..StreamEncryptionSpec::default() };
        assert!(of(disabled.clone(), &stop) && !of(disabled, &aws_owned));
    }

    #[test]
    fn message_with_escape_sequences_is_shown_escaped() {
        let refused = Row::refused("data", "orders", "No.\u{1b}[1A\n= data/x".to_owned());
        let text = text(&[refused]);
        assert!(text.contains("    No.\\u{1b}[1A\\n= data/x\n"), "{text}");
    }

    #[test]
    fn object_without_a_plan_promises_nothing() {
        let unplanned = Row::unplanned("data", "orders", "AWS did not answer.".to_owned());
        for finding in [Finding::Calls, Finding::Refused, Finding::Waiting] {
            assert!(!unplanned.has(finding), "{finding:?}");
        }
        let text = text(&[unplanned, row(None)]);
        assert!(text.starts_with("x data/orders (not planned)  -\n    AWS did not answer.\n"), "{text}");
        assert!(
            text.contains("1 without a call, 0 waiting for your action, 0 refused, 1 not planned."),
            "{text}"
        );
    }

    #[test]
    fn columns_are_exactly_the_fields() {
        let filled = Row {
            stream: Some("s".to_owned()),
            call_key: Some("k".to_owned()),
            active_key: Some("k".to_owned()),
            reason: Some("r"),
            note: "n".to_owned(),
            calls_used: Some(1),
            calls_limit: Some(2),
            next_attempt_time: Some(Timestamp::UNIX_EPOCH),
            ..row(Some(PUT_RECORD))
        };
        let row = serde_json::to_value(filled).unwrap();
        let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = Row::columns();
        fields.sort_unstable();
        columns.sort_unstable();
        assert_eq!(columns, fields);
    }
}
