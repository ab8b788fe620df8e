//! One stream of a report: its state, the calls and the periods in plaintext that are known of it, and its controls.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use stream_encryption_api::ledger::{Action, Outcome, StreamLedger};
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;

use super::controls::{CONTROLS, Control, ControlResult, Verdict, results};
use crate::adopt::found::{FoundEncryption, FoundStream};
use crate::plugin::cluster::Found;
use crate::plugin::fleet::{Entry, State};
use crate::plugin::ledger_calls::{LedgerCall, is_owner, of_ledger};
use crate::plugin::output::Columns;

/// A stream, with its evidence.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedStream {
    #[serde(flatten)]
    pub(super) entry: Entry,
    /// The calls of the ledger, those of others included, oldest first.
    calls: Vec<LedgerCall>,
    /// The periods in which records were in plaintext, oldest first.
    plaintext_periods: Vec<Period>,
    controls: Vec<ControlResult>,
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
        let stream: Option<StreamArn> = entry.stream.as_ref().and_then(|arn| arn.parse().ok());
        let ledger = stream.and_then(|stream| ledgers.get(&ledger::name(&stream)));
        let calls = ledger
            .filter(|ledger| is_owner(ledger, &entry))
            .map(|ledger| of_ledger(ledger, &entry))
            .unwrap_or_default();
        Self {
            plaintext_periods: plaintext_periods(&entry, &calls),
            controls: entry.service.map(|service| results(service, entry.state)).unwrap_or_default(),
            calls,
            entry,
        }
    }

    /// Reports a stream that no `StreamEncryption` manages.
    pub(super) fn unmanaged(arn: &StreamArn) -> Self {
        let entry = Entry::unmanaged(arn);
        Self { calls: Vec::new(), plaintext_periods: Vec::new(), controls: Vec::new(), entry }
    }

    /// Takes what AWS has just described: newer than the status, except for a change in progress, of which the status
    /// knows more.
    pub(super) fn observe(&mut self, found: &FoundStream, at: Timestamp) {
        let state = match &found.encryption {
            FoundEncryption::Plaintext => State::Plaintext,
            FoundEncryption::NotEncryptable(source) => {
                self.entry.source = Some(source.clone());
                State::NotEncryptable
            }
            FoundEncryption::AwsOwned | FoundEncryption::Customer(_) | FoundEncryption::UnknownKey(_) => {
                State::Encrypted
            }
            FoundEncryption::Unsettled(_) => self.entry.state,
        };
        if !matches!(found.encryption, FoundEncryption::Unsettled(_)) {
            self.entry.state = state;
            self.entry.active_key = found.encryption.key();
        }
        self.entry.last_describe_time = Some(at);
        if self.entry.resource.is_empty() {
            self.entry.message = Some(unmanaged_message(found));
        }
        self.controls = results(found.arn.service, self.entry.state);
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
        let results = self.controls.iter();
        Row { entry: &self.entry, controls: results.map(|one| (one.id, one.result)).collect() }
    }
}

/// Returns who may manage a stream that no `StreamEncryption` manages, and what is unknown of it.
fn unmanaged_message(found: &FoundStream) -> String {
    let owners = found.owners.as_deref().unwrap_or_default();
    let owners: Vec<String> = owners.iter().map(ToString::to_string).collect();
    let by = if owners.is_empty() {
        String::new()
    } else {
        format!(" According to its tags: {}.", owners.join(", "))
    };
    let why = match &found.encryption {
        FoundEncryption::Unsettled(why) => format!(" Its encryption is not known: {why}."),
        _ => String::new(),
    };
    format!("No StreamEncryption manages this stream.{by}{why}")
}

/// A stream as a row of CSV.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    #[serde(flatten)]
    controls: BTreeMap<&'static str, Verdict>,
}

impl Columns for Row<'_> {
    fn columns() -> Vec<&'static str> {
        Entry::columns().into_iter().chain(CONTROLS.iter().map(|control| control.id)).collect()
    }
}

/// Maximum time from a Start to the encryption that it began.
const LONGEST_CHANGE: SignedDuration = SignedDuration::from_hours(1);

/// Returns the periods in plaintext that are known: the present one, and the one that the calls of the ledger ended.
fn plaintext_periods(entry: &Entry, calls: &[LedgerCall]) -> Vec<Period> {
    let mut periods = Vec::new();
    if let Some(encrypted) = entry.encrypted_since_time {
        // Records were in plaintext when the first call was accepted that led to the encryption. What an event reports of
        // others is no evidence.
        let led_to_it = calls.iter().filter(|call| {
            !call.external
                && call.action == Action::Start
                && call.outcome == Outcome::Accepted
                && call.time < encrypted
                && encrypted.duration_since(call.time) < LONGEST_CHANGE
        });
        if let Some(first) = led_to_it.map(|call| call.time).min() {
            periods.push(Period { from_time: first, to_time: Some(encrypted) });
        }
    }
    periods.extend(entry.plaintext_since_time.map(|since| Period { from_time: since, to_time: None }));
    periods
}
