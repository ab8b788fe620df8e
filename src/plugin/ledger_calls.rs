//! The calls of a ledger as people see them. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use stream_encryption_api::ledger::{Action, Call, ExternalCall, Outcome, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::stream_encryption::EncryptionStatus;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger::{self, QUOTA_WINDOW, external};
use stream_encryption_core::model::service::AWS_LIMIT;

use super::fleet::{Entry, key};

/// A call of the ledger.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LedgerCall {
    pub(super) time: Timestamp,
    pub(super) action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    /// Whether AWS accepted the call and reported a failure later.
    pub(super) failed: bool,
    pub(super) correction: bool,
    /// Whether somebody else made the call, as AWS's events reported it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) external: bool,
    /// The type of that caller's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller_type: Option<String>,
    /// Until when the operator keeps the call in the ledger, because AWS may still count it. Absent if a call of others
    /// does not count: AWS counts no such call, or events report more calls than AWS can accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept_until_time: Option<Timestamp>,
}

impl LedgerCall {
    fn of(call: &Call, failed: bool) -> Self {
        Self {
            time: call.at(),
            action: call.target.action,
            key: call.target.key.as_ref().map(key),
            outcome: call.outcome,
            code: call.code.clone(),
            failed: failed && call.outcome == Outcome::Accepted,
            correction: call.correction,
            external: false,
            caller_type: None,
            kept_until_time: Some(ledger::saturating_add(call.at(), QUOTA_WINDOW)),
        }
    }

    fn of_others(call: &ExternalCall, counts: bool) -> Self {
        Self {
            time: call.time.0,
            action: call.action,
            key: None,
            outcome: if call.code.is_some() { Outcome::Refused } else { Outcome::Accepted },
            code: call.code.clone(),
            failed: false,
            correction: false,
            external: true,
            caller_type: call.caller_type.clone(),
            kept_until_time: counts.then(|| external::expires_at(call)),
        }
    }

    /// Returns who made the call: empty for the operator.
    pub(super) fn caller(&self) -> String {
        let kind = self.caller_type.as_ref().map(|kind| format!(" ({kind})")).unwrap_or_default();
        if self.external { format!(", by others{kind}") } else { String::new() }
    }
}

/// Returns whether a ledger belongs to the resource of an entry.
pub(super) fn is_owner(ledger: &StreamLedger, entry: &Entry) -> bool {
    let owner = &ledger.spec.owner;
    owner.namespace == entry.namespace && owner.name == entry.resource
}

/// Returns whether the status of an entry counts calls. The operator counts them in the ledger of the stream.
pub(super) fn counts_calls(entry: &Entry) -> bool {
    entry.calls_used.is_some_and(|used| used > 0)
}

/// Returns a warning if there is no ledger of streams whose status counts calls. A list of a namespace that has no ledgers,
/// or that does not exist, is empty and no error.
pub(super) fn missing<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    ledgers: &BTreeMap<String, StreamLedger>,
    namespace: &str,
) -> Option<String> {
    let counting = entries.into_iter().filter(|entry| counts_calls(entry));
    let counting: Vec<StreamArn> = counting.filter_map(|entry| entry.stream.as_ref()?.parse().ok()).collect();
    let missing = counting.iter().filter(|stream| !ledgers.contains_key(&ledger::name(stream))).count();
    (missing > 0).then(|| {
        format!(
            "The report may lack calls: namespace {namespace} has no readable StreamLedger for {missing} of {} streams whose status counts calls. If the operator is in another namespace, use --operator-namespace.",
            counting.len()
        )
    })
}

/// Returns the calls of a ledger, oldest first. A failure is reported with the status, or noted with the next call.
pub(super) fn of_ledger(ledger: &StreamLedger, entry: &Entry) -> Vec<LedgerCall> {
    let calls = &ledger.spec.calls;
    let fails_now = matches!(
        entry.encryption_status,
        Some(EncryptionStatus::EnablingFailed | EncryptionStatus::DisablingFailed)
    );
    let failed = |at: usize| calls.get(at + 1).map_or(fails_now, |next| next.after_failure);
    let own = calls.iter().enumerate().map(|(at, call)| LedgerCall::of(call, failed(at)));
    let others = ledger.spec.external_calls.iter();
    let others = others.map(|call| LedgerCall::of_others(call, counts(&ledger.spec, call, entry)));
    let mut all: Vec<LedgerCall> = own.chain(others).collect();
    all.sort_by_key(|call| call.time);
    all
}

/// Returns whether a call of others counts against AWS's limit, or did until it expired.
fn counts(ledger: &StreamLedgerSpec, call: &ExternalCall, entry: &Entry) -> bool {
    let Some(service) = entry.service else { return true };
    // As of the call, so that the result does not change when it expires.
    let counted = |calls: Vec<ExternalCall>| {
        let ledger = StreamLedgerSpec { calls: Vec::new(), external_calls: calls, ..ledger.clone() };
        ledger::budget(&ledger, service, call.action, AWS_LIMIT, call.time.0).external > 0
    };
    counted(vec![call.clone()]) && counted(ledger.external_calls.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stream_encryption_api::stream_encryption::Service;

    use super::*;

    const CALL: &str = "2026-01-01T08:00:00Z";

    fn external(number: u32, more: &Value) -> Value {
        let mut call = json!({"eventID": format!("event-{number}"), "action": "Start", "time": CALL});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call
    }

    fn calls(service: Service, own: &Value, others: &[Value]) -> Vec<LedgerCall> {
        let ledger: StreamLedger = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": "x"},
            "spec": {"streamARN": "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks",
                "owner": {"namespace": "data", "name": "clicks", "uid": "1"}, "calls": own, "externalCalls": others},
        }))
        .unwrap();
        of_ledger(&ledger, &Entry { service: Some(service), ..Entry::default() })
    }

    #[test]
    fn calls_of_others_are_listed_by_time_with_their_caller() {
        let own = json!([{"id": "a", "target": {"action": "Start", "key": {"type": "AWS_OWNED_CMK"}},
            "time": "2026-01-01T09:00:00.000000Z", "outcome": "Accepted"}]);
        let others = [external(1, &json!({"callerType": "IAMUser"}))];
        let calls = calls(Service::Firehose, &own, &others);
        let callers: Vec<String> = calls.iter().map(LedgerCall::caller).collect();
        assert_eq!(callers, [", by others (IAMUser)", ""]);
        assert_eq!(calls[0].kept_until_time, Some("2026-01-02T08:15:00Z".parse().unwrap()));
        assert_eq!(calls[0].outcome, Outcome::Accepted);
    }

    #[test]
    fn ledger_is_missing_only_if_the_status_counts_calls() {
        let entry = |name: &str, calls_used: Option<u32>| Entry {
            stream: Some(format!("arn:aws:kinesis:eu-west-1:111122223333:stream/{name}")),
            calls_used,
            ..Entry::default()
        };
        let entries = [entry("a", Some(2)), entry("b", Some(1)), entry("c", Some(0)), entry("d", None)];
        let warning = |named: &[&Entry]| {
            let ledger: StreamLedger = serde_json::from_value(json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": "x"},
                "spec": {"streamARN": "x", "owner": {"namespace": "data", "name": "x", "uid": "1"}},
            }))
            .unwrap();
            let arn = |entry: &Entry| entry.stream.as_ref().unwrap().parse::<StreamArn>().unwrap();
            let ledgers = named.iter().map(|entry| (ledger::name(&arn(entry)), ledger.clone())).collect();
            missing(&entries, &ledgers, "system")
        };
        let words =
            |count: u32| format!("namespace system has no readable StreamLedger for {count} of 2 streams");
        for (named, count) in [(&[][..], 2), (&[&entries[1]], 1)] {
            let warning = warning(named).unwrap();
            assert!(warning.contains(&words(count)) && warning.contains("--operator-namespace"), "{warning}");
        }
        assert_eq!(warning(&[&entries[0], &entries[1]]), None);
    }

    #[test]
    fn refused_call_of_others_does_not_count() {
        let refused = [external(1, &json!({"code": "InvalidKMSResourceException"}))];
        let counts = |service| calls(service, &json!([]), &refused)[0].kept_until_time.is_some();
        assert_eq!([Service::Firehose, Service::Kinesis].map(counts), [false, false]);
    }

    #[test]
    fn more_calls_than_aws_accepts_do_not_count() {
        let counted = |number: u32| {
            let others: Vec<Value> = (0..number).map(|number| external(number, &json!({}))).collect();
            let calls = calls(Service::Kinesis, &json!([]), &others);
            calls.iter().filter(|call| call.kept_until_time.is_some()).count()
        };
        assert_eq!((counted(25), counted(26)), (25, 0));
    }
}
