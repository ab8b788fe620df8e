//! One stream of a report: its state, the calls and the periods in plaintext that are known of it, and its controls.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use stream_encryption_api::condition::whole_second;
use stream_encryption_api::ledger::{Action, Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::{EncryptionStatus, Service};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;

use super::controls::{CONTROLS, Control, ControlResult, Verdict, results};
use crate::adopt::found::{FoundEncryption, FoundStream};
use crate::plugin::claims::Claim;
use crate::plugin::cluster::Found;
use crate::plugin::fleet::{Entry, State};
use crate::plugin::ledger_calls::{LedgerCall, is_owner, of_ledger};
use crate::plugin::output::{Columns, NONE};

/// A stream, with its evidence.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedStream {
    #[serde(flatten)]
    pub(super) entry: Entry,
    /// What is known of the resource and the stream.
    #[serde(skip)]
    pub(super) claim: Claim,
    /// Whether a `StreamEncryption` manages the stream; `None` if that is not known.
    managed: Option<bool>,
    /// The calls of the ledger, those of others included, oldest first.
    calls: Vec<LedgerCall>,
    /// The periods in which records were in plaintext, oldest first.
    plaintext_periods: Vec<Period>,
    pub(super) controls: Vec<ControlResult>,
}

/// A period in plaintext. It may have begun earlier: the operator knows only what it has observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Period {
    from_time: Timestamp,
    /// Absent while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_time: Option<Timestamp>,
}

impl ReportedStream {
    /// Reports a resource, with the calls of its ledger.
    pub(super) fn of(found: &Found, ledgers: &BTreeMap<String, StreamLedger>) -> Self {
        let entry = Entry::of(found);
        let claim = Claim::of(&entry, ledgers);
        let stream: Option<StreamArn> = entry.stream.as_ref().and_then(|arn| arn.parse().ok());
        let ledger = stream.and_then(|stream| ledgers.get(&ledger::name(&stream)));
        let ledger = ledger.filter(|ledger| is_owner(ledger, &entry));
        let calls = ledger.map(|ledger| of_ledger(ledger, &entry)).unwrap_or_default();
        let encrypted = ledger
            .and_then(|ledger| Some(ledger.spec.known_encryption.as_ref()?.encrypted_since_time.as_ref()?.0));
        Self {
            plaintext_periods: plaintext_periods(&entry, &calls, encrypted),
            controls: entry.service.map(|service| results(service, entry.state)).unwrap_or_default(),
            calls,
            // Any other resource may or may not hold its stream.
            managed: claim.manages(&entry).then_some(true),
            claim,
            entry,
        }
    }

    /// Reports a stream that no resource of the report has.
    pub(super) fn of_aws(arn: &StreamArn, by: &Manager) -> Self {
        let mut entry = Entry::unmanaged(arn);
        if let Manager::Outside(name) = by
            && let Some((namespace, resource)) = name.split_once('/')
        {
            namespace.clone_into(&mut entry.namespace);
            resource.clone_into(&mut entry.resource);
        }
        entry.message = Some(by.words());
        let managed = match by {
            Manager::Outside(_) => Some(true),
            Manager::Nobody | Manager::Refused(..) => Some(false),
            Manager::Unproven(..) | Manager::Perhaps(_) | Manager::Unknown => None,
        };
        Self {
            claim: Claim::Unproven,
            managed,
            calls: Vec::new(),
            plaintext_periods: Vec::new(),
            controls: Vec::new(),
            entry,
        }
    }

    /// Returns the resource as `NAMESPACE/NAME`.
    pub(super) fn resource(&self) -> String {
        format!("{}/{}", self.entry.namespace, self.entry.resource)
    }

    /// Returns the resource that manages the stream, for a person. A resource that only names the stream does not manage it.
    pub(super) fn managed_by(&self) -> String {
        match self.managed {
            Some(true) => self.resource(),
            Some(false) => NONE.to_owned(),
            None if self.entry.resource.is_empty() => "not known".to_owned(),
            None => format!("not known (named by {})", self.resource()),
        }
    }

    /// Takes what AWS has just described. It is newer than the status, of which only what agrees with it remains.
    pub(super) fn observe(&mut self, found: &FoundStream) {
        let before = self.entry.state;
        let (state, encryption_status) = match &found.encryption {
            FoundEncryption::Plaintext => (State::Plaintext, Some(EncryptionStatus::Disabled)),
            FoundEncryption::NotEncryptable(_) => (State::NotEncryptable, None),
            FoundEncryption::AwsOwned | FoundEncryption::Customer(_) | FoundEncryption::UnknownKey(_) => {
                (State::Encrypted, Some(EncryptionStatus::Enabled))
            }
            // The status knows more of a change than AWS reports, if it is about the same change.
            FoundEncryption::Changing(why) | FoundEncryption::Unsettled(why)
                if is_reported(self.entry.encryption_status, why) =>
            {
                (before, self.entry.encryption_status)
            }
            FoundEncryption::Changing(_) | FoundEncryption::Unsettled(_) => (State::Unknown, None),
        };
        self.entry.state = state;
        if self.entry.encryption_status.is_some() {
            self.entry.encryption_status = encryption_status;
        }
        if let FoundEncryption::NotEncryptable(source) = &found.encryption {
            self.entry.source = Some(source.clone());
        }
        let is_settled = found.encryption.is_settled();
        if is_settled {
            if self.entry.active_key != found.encryption.key() {
                self.entry.active_key_unusable_since_time = None;
            }
            self.entry.active_key = found.encryption.key();
            // In whole seconds, like that of a status.
            self.entry.last_describe_time = Some(whole_second(found.described_time).0);
        }
        if state != before {
            self.entry.encrypted_since_time = None;
            self.entry.plaintext_since_time = None;
            self.plaintext_periods.retain(|period| period.to_time.is_some());
        }
        let message = self.entry.message.take().unwrap_or_default();
        let differs = is_settled && state != before && self.entry.reason.is_some();
        let newer = if differs { "AWS reports another state than the status, which is older. " } else { "" };
        self.entry.message =
            Some(format!("{newer}{message}{}", more(found))).filter(|words| !words.is_empty());
        self.controls = results(found.arn.service, self.entry.state);
    }

    /// Takes that AWS does not list the stream. The status is older, so the report does not repeat its state, key and times.
    pub(super) fn observe_missing(&mut self, service: Service) {
        self.entry.state = State::Unknown;
        self.entry.encryption_status = None;
        self.entry.active_key = None;
        self.entry.active_key_unusable_since_time = None;
        self.entry.encrypted_since_time = None;
        self.entry.plaintext_since_time = None;
        let status = self.entry.message.take().map(|words| format!(" The status is older: {words}"));
        self.entry.message = Some(format!(
            "AWS does not list this stream. Create the stream, or delete the StreamEncryption.{}",
            status.unwrap_or_default()
        ));
        self.plaintext_periods.retain(|period| period.to_time.is_some());
        self.controls = results(service, State::Unknown);
    }

    /// Returns the verdict of a control; `None` if the control is not about this stream.
    pub(super) fn verdict(&self, control: &Control) -> Option<Verdict> {
        self.controls.iter().find(|result| result.id == control.id).map(|result| result.result)
    }

    /// Returns whether the stream fails a control.
    pub(super) fn fails_a_control(&self) -> bool {
        !self.failed_controls().is_empty()
    }

    /// Returns the ids of the controls that the stream fails.
    pub(super) fn failed_controls(&self) -> Vec<&'static str> {
        let failed = self.controls.iter().filter(|result| result.result == Verdict::Failed);
        failed.map(|result| result.id).collect()
    }

    /// Returns the stream as a row, with a field for each control.
    pub(super) fn row(&self) -> Row<'_> {
        let controls = self.controls.iter().map(|one| (one.id, one.result)).collect();
        Row { entry: &self.entry, managed: self.managed, controls }
    }
}

/// Who manages a stream that no resource of the report has.
#[derive(Clone)]
pub(super) enum Manager {
    /// This resource, which the report does not show.
    Outside(String),
    /// Not this resource, which names the stream: the operator leaves the stream alone, for this reason.
    Refused(String, String),
    /// Perhaps this resource, which names the stream. It is not known whether it manages the stream, for this reason.
    Unproven(String, String),
    /// This resource, if it names the stream in this account and region.
    Perhaps(String),
    /// No resource of the cluster.
    Nobody,
    /// Not known: not all resources could be read.
    Unknown,
}

impl Manager {
    fn words(&self) -> String {
        match self {
            Self::Outside(name) => {
                format!("StreamEncryption {name} manages this stream. It is not part of this report.")
            }
            Self::Refused(name, reason) => {
                format!("StreamEncryption {name} names this stream, but does not manage it: {reason}.")
            }
            Self::Unproven(name, doubt) => {
                format!("StreamEncryption {name} names this stream, but may not manage it: {doubt}.")
            }
            Self::Perhaps(name) => format!(
                "StreamEncryption {name} may manage this stream: it names a stream by its name, and the operator has not reconciled it yet."
            ),
            Self::Nobody => "No StreamEncryption manages this stream.".to_owned(),
            Self::Unknown => {
                "It is not known whether a StreamEncryption manages this stream: not all could be read."
                    .to_owned()
            }
        }
    }
}

/// Returns whether the status of a resource is about the change that AWS has just reported. Kinesis reports every change in the
/// same way.
fn is_reported(status: Option<EncryptionStatus>, why: &str) -> bool {
    let is_change = |change: &str| why == change || why == "the stream is being changed";
    match status {
        Some(EncryptionStatus::Enabling) => is_change("encryption is being enabled"),
        Some(EncryptionStatus::Disabling) => is_change("encryption is being disabled"),
        Some(EncryptionStatus::EnablingFailed) => why.starts_with("enabling encryption failed"),
        Some(EncryptionStatus::DisablingFailed) => why.starts_with("disabling encryption failed"),
        _ => false,
    }
}

/// Returns the tools that the tags of a stream name, and what is unknown of the stream.
fn more(found: &FoundStream) -> String {
    let owners = found.owners.as_deref().unwrap_or_default();
    let owners: Vec<String> = owners.iter().map(ToString::to_string).collect();
    let by = if owners.is_empty() {
        String::new()
    } else {
        format!(" According to its tags: {}.", owners.join(", "))
    };
    let why = match &found.encryption {
        FoundEncryption::Changing(why) | FoundEncryption::Unsettled(why) => {
            format!(" Its encryption is not known now: {why}.")
        }
        _ => String::new(),
    };
    format!("{by}{why}")
}

/// A stream as a row of CSV.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    managed: Option<bool>,
    #[serde(flatten)]
    controls: BTreeMap<&'static str, Verdict>,
}

impl Columns for Row<'_> {
    fn columns() -> Vec<&'static str> {
        let controls = CONTROLS.iter().map(|control| control.id);
        Entry::columns().into_iter().chain(["managed"]).chain(controls).collect()
    }
}

/// Maximum time from a Start to the encryption that it began.
const LONGEST_CHANGE: SignedDuration = SignedDuration::from_hours(1);

/// Returns the periods in plaintext that are known: the present one, and the one that the calls of the ledger ended.
/// `encrypted` is the time at which the operator first observed the present encryption.
fn plaintext_periods(entry: &Entry, calls: &[LedgerCall], encrypted: Option<Timestamp>) -> Vec<Period> {
    let ended = entry.encrypted_since_time.and_then(|since| {
        let from_time = start_of_encryption(calls, encrypted?)?;
        Some(Period { from_time, to_time: Some(since) })
    });
    let present = entry.plaintext_since_time.map(|since| Period { from_time: since, to_time: None });
    ended.into_iter().chain(present).collect()
}

/// Returns when the operator's first Start was accepted that led to an encryption: the last one before the encryption was
/// observed, and the failed ones of which it is a retry. Until then, records were in plaintext.
///
/// An earlier Start is about another encryption, which somebody ended meanwhile, and a later one changes the key of an
/// encrypted stream. What an event reports of a Start of others is no evidence.
fn start_of_encryption(calls: &[LedgerCall], encrypted: Timestamp) -> Option<Timestamp> {
    let mut first = None;
    let may_have_led_to_it =
        |call: &&LedgerCall| call.time < encrypted && encrypted.duration_since(call.time) < LONGEST_CHANGE;
    for call in calls.iter().rev().filter(may_have_led_to_it) {
        match (call.action, call.outcome) {
            (_, Outcome::Refused) => {}
            (Action::Stop, _) => break,
            (Action::Start, Outcome::Accepted) if !call.external => {
                if first.is_some() && !call.failed {
                    break;
                }
                first = Some(call.time);
            }
            (Action::Start, _) => {}
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::surveyed::found;
    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
    const SINCE: &str = "2026-01-01T00:00:00Z";

    /// A stream with this status, and with what AWS reports later.
    fn observed(status: &Value, encryption: FoundEncryption) -> ReportedStream {
        let mut status = status.clone();
        status["lastDescribeTime"] = json!(SINCE);
        let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"}, "spec": {"stream": {"arn": ORDERS}}, "status": status});
        let resource = Found::of(serde_json::from_value(resource).unwrap());
        let mut stream = ReportedStream::of(&resource, &BTreeMap::new());
        stream.observe(&found(ORDERS, encryption));
        stream
    }

    fn status(encrypted: &str, aws: &str, since: &str) -> Value {
        let condition = |kind: &str| {
            json!({"type": kind, "status": encrypted, "reason": "Encrypted", "message": "why",
            "lastTransitionTime": SINCE})
        };
        json!({"conditions": [condition("Ready"), condition("Encrypted")], "encryptionStatus": aws, since: SINCE})
    }

    #[test]
    fn state_of_now_has_no_times_of_another_state() {
        for (status, encryption, state) in [
            (status("True", "ENABLED", "encryptedSinceTime"), FoundEncryption::Plaintext, State::Plaintext),
            (status("False", "DISABLED", "plaintextSinceTime"), FoundEncryption::AwsOwned, State::Encrypted),
        ] {
            let stream = observed(&status, encryption);
            let entry = &stream.entry;
            assert_eq!(
                (entry.state, entry.encrypted_since_time, entry.plaintext_since_time),
                (state, None, None)
            );
            assert_eq!(stream.plaintext_periods, []);
            let aws = entry.encryption_status.map(EncryptionStatus::as_str);
            assert_eq!(aws, Some(if state == State::Plaintext { "DISABLED" } else { "ENABLED" }));
            assert!(
                entry.message.as_deref().is_some_and(|words| words.contains("older")),
                "{:?}",
                entry.message
            );
        }
        let same = observed(&status("True", "ENABLED", "encryptedSinceTime"), FoundEncryption::AwsOwned);
        assert!(same.entry.encrypted_since_time.is_some());
        assert_eq!(same.entry.message.as_deref(), Some("why"));
    }

    /// A script that reads the CSV would miss a field.
    #[test]
    fn csv_has_each_field_of_the_json_except_lists() {
        let stream = observed(&status("True", "ENABLED", "encryptedSinceTime"), FoundEncryption::AwsOwned);
        let (fields, columns) = (serde_json::to_value(&stream).unwrap(), Row::columns());
        for (field, value) in fields.as_object().unwrap() {
            assert_eq!(columns.contains(&field.as_str()), !value.is_array(), "{field}");
        }
        assert_eq!(serde_json::to_value(stream.row()).unwrap()["managed"], json!(true));
    }

    #[test]
    fn change_that_the_status_does_not_know_is_unknown() {
        let changing = |why: &str| FoundEncryption::Changing(why.to_owned());
        let encrypted = status("True", "ENABLED", "encryptedSinceTime");
        let stream = observed(&encrypted, changing("encryption is being disabled"));
        assert_eq!(stream.entry.state, State::Unknown);
        assert_eq!(
            stream.entry.last_describe_time,
            Some(SINCE.parse().unwrap()),
            "AWS has described no state"
        );
        // Any state may be the present one, also that of the status.
        let resharded = observed(&encrypted, changing("the stream is being changed")).entry.message;
        let expected = "why Its encryption is not known now: the stream is being changed.";
        assert_eq!(resharded.as_deref(), Some(expected));
        let known = status("True", "DISABLING", "encryptedSinceTime");
        assert_eq!(observed(&known, changing("encryption is being disabled")).entry.state, State::Changing);
        assert_eq!(observed(&known, changing("encryption is being enabled")).entry.state, State::Unknown);
    }

    #[test]
    fn kinesis_change_that_the_status_knows_keeps_its_times() {
        let updating = FoundEncryption::Changing("the stream is being changed".to_owned());
        let enabling = observed(&status("False", "ENABLING", "plaintextSinceTime"), updating.clone());
        assert_eq!((enabling.entry.state, enabling.plaintext_periods.len()), (State::Changing, 1));
        assert!(enabling.entry.plaintext_since_time.is_some() && enabling.fails_a_control());
        let disabling = observed(&status("True", "DISABLING", "encryptedSinceTime"), updating);
        assert_eq!(disabling.entry.state, State::Changing);
    }

    /// Returns the start of the period in plaintext that these own calls ended: action, time, outcome and whether it is
    /// called after a failure. The encryption was observed at 10:36, and is effective 5 s later.
    fn plaintext_since(calls: &[(&str, &str, &str, bool)], others: &Value) -> Option<String> {
        let calls: Vec<Value> = calls
            .iter()
            .map(|(action, time, outcome, after_failure)| {
                json!({"id": time, "target": {"action": action, "key": {"type": "AWS_OWNED_CMK"}},
                    "time": format!("2026-01-01T{time}.000000Z"), "outcome": outcome, "afterFailure": after_failure})
            })
            .collect();
        let mut status = status("True", "ENABLED", "encryptedSinceTime");
        status["encryptedSinceTime"] = json!("2026-01-01T10:36:05Z");
        let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"}, "spec": {"stream": {"arn": ORDERS}}, "status": status});
        let ledger: StreamLedger = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": "x"},
            "spec": {"streamARN": ORDERS, "owner": {"namespace": "data", "name": "orders", "uid": "1"}, "calls": calls,
                "externalCalls": others, "knownEncryption": {"key": {"type": "AWS_OWNED_CMK"},
                "sinceTime": "2026-01-01T10:36:00.000000Z", "encryptedSinceTime": "2026-01-01T10:36:00.000000Z"}},
        }))
        .unwrap();
        let ledgers = BTreeMap::from([(ledger::name(&ORDERS.parse().unwrap()), ledger)]);
        let stream = ReportedStream::of(&Found::of(serde_json::from_value(resource).unwrap()), &ledgers);
        let [period] = stream.plaintext_periods.as_slice() else {
            assert_eq!(stream.plaintext_periods, []);
            return None;
        };
        assert_eq!(period.to_time, Some("2026-01-01T10:36:05Z".parse().unwrap()));
        Some(period.from_time.strftime("%H:%M:%S").to_string())
    }

    #[test]
    fn plaintext_begins_with_calls_that_led_to_encryption() {
        let start = |time, after_failure| ("Start", time, "Accepted", after_failure);
        let none = json!([]);
        let stopped = json!([{"eventID": "1", "action": "Stop", "time": "2026-01-01T10:30:00Z"}]);
        let started = json!([{"eventID": "1", "action": "Start", "time": "2026-01-01T10:30:00Z"}]);
        for (why, calls, others, since) in [
            ("one call", vec![start("10:35:00", false)], &none, Some("10:35:00")),
            (
                "retry of a failure",
                vec![start("10:00:00", false), start("10:35:00", true)],
                &none,
                Some("10:00:00"),
            ),
            (
                "encrypted in between",
                vec![start("10:00:00", false), start("10:35:00", false)],
                &none,
                Some("10:35:00"),
            ),
            (
                "stopped in between",
                vec![
                    start("10:00:00", false),
                    ("Stop", "10:20:00", "Accepted", false),
                    start("10:35:00", false),
                ],
                &none,
                Some("10:35:00"),
            ),
            (
                "stopped by others",
                vec![start("10:00:00", false), start("10:35:00", true)],
                &stopped,
                Some("10:35:00"),
            ),
            ("started by others", vec![], &started, None),
            ("encrypted already", vec![start("10:36:00", false), start("10:36:01", false)], &none, None),
            ("refused", vec![("Start", "10:35:00", "Refused", false)], &none, None),
            ("long ago", vec![start("09:30:00", false)], &none, None),
        ] {
            assert_eq!(plaintext_since(&calls, others).as_deref(), since, "{why}");
        }
    }
}
