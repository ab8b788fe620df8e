//! Every state of a `StreamEncryption` as other tools see it, and the results that `docs/conditions.md`
//! promises for it.
//!
//! The conditions come from the function that the operator uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::condition::{
    ConditionStatus, ConditionType, ReadyState, Reason, condition, ready_conditions,
};
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionStatus, UNSEEN};

/// The message of `Ready` in every state. A tool that shows a message must show this one.
pub(crate) const WORDS: &str = "What is the case. What to do.";

const GENERATION: i64 = 3;

/// A state, and its row in the table.
pub(crate) struct State {
    pub(crate) row: &'static str,
    /// Distinguishes it from the other states of that row.
    pub(crate) name: String,
    /// The resource as the API server stores it.
    pub(crate) resource: Value,
}

/// One row of the table: the result in each tool.
pub(crate) struct Row {
    pub(crate) kstatus: String,
    pub(crate) argo_cd: String,
}

/// The table in `docs/conditions.md`, by its first cell.
pub(crate) fn table() -> BTreeMap<String, Row> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/conditions.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) =
        text.split_once("\n## Status in other tools\n").expect("docs/conditions.md has that heading");
    let section = rest.split("\n## ").next().unwrap_or_default();
    section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("| kstatus |"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [resource, _, kstatus, argo_cd] = cells[..] else { panic!("four cells are wanted: {line}") };
            (resource.to_owned(), Row { kstatus: kstatus.to_owned(), argo_cd: argo_cd.to_owned() })
        })
        .collect()
}

pub(crate) fn every() -> Vec<State> {
    let mut states =
        vec![State { row: "not reconciled yet", name: String::new(), resource: json(&resource()) }];
    for reason in Reason::ALL {
        for others in [ConditionStatus::True, ConditionStatus::False] {
            let name = format!("{reason}, and Encrypted and KeyUsable are {}", others.as_str());
            let mut add = |row, resource: &StreamEncryption| {
                states.push(State { row, name: name.clone(), resource: json(resource) });
            };
            let told = conditions_of(*reason, others, GENERATION);
            for suspended in suspended_in_both_ways(&told) {
                add(while_suspended(*reason), &suspended);
            }
            for suspended in suspended_in_both_ways(&kept_while_suspended(told.clone())) {
                let was_ready = reason.ready_state() == ReadyState::Ready;
                add(if was_ready { "suspended, and ready before" } else { "suspended" }, &suspended);
            }
            add("being deleted", &being_deleted(&told));
            let mut changed = with(told.clone());
            changed.metadata.generation = Some(GENERATION + 1);
            add("changed, and not reconciled since", &changed);
            if let Some(row) = plain(*reason) {
                add(row, &with(told));
            }
        }
    }
    states
}

/// The row of a resource that is neither suspended, deleted nor changed. `None` for `Suspended`, which
/// requires a suspension.
fn plain(reason: Reason) -> Option<&'static str> {
    match reason.ready_state() {
        ReadyState::Ready => Some("ready"),
        ReadyState::Progressing => Some("progressing"),
        ReadyState::Unknown => Some("unknown"),
        ReadyState::Stalled => Some("stalled"),
        ReadyState::Reported => Some("different, with mode: Observe"),
        ReadyState::Unchanged => None,
    }
}

/// The row of a suspended resource that has another reason: the operator has not seen the suspension yet, or
/// cannot parse the spec.
fn while_suspended(reason: Reason) -> &'static str {
    match reason.ready_state() {
        ReadyState::Ready => "suspended, and ready before",
        ReadyState::Stalled => "suspended, and stalled",
        ReadyState::Progressing | ReadyState::Unknown | ReadyState::Reported | ReadyState::Unchanged => {
            "suspended"
        }
    }
}

fn resource() -> StreamEncryption {
    let spec = serde_json::from_value(serde_json::json!({
        "stream": {"arn": "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders"},
        "deletionPolicy": "Disable",
    }));
    let mut resource = StreamEncryption::new("orders", spec.expect("a spec"));
    resource.metadata.namespace = Some("data".to_owned());
    resource.metadata.generation = Some(GENERATION);
    let unseen = StreamEncryptionStatus { observed_generation: Some(UNSEEN), ..Default::default() };
    resource.status = Some(unseen);
    resource
}

fn with(conditions: Vec<Condition>) -> StreamEncryption {
    let status = StreamEncryptionStatus {
        observed_generation: Some(GENERATION),
        conditions,
        ..StreamEncryptionStatus::default()
    };
    StreamEncryption { status: Some(status), ..resource() }
}

/// The conditions that a reason implies, with `Encrypted` and `KeyUsable`, which are independent of it.
fn conditions_of(reason: Reason, others: ConditionStatus, generation: i64) -> Vec<Condition> {
    let (generation, now) = (Some(generation), Timestamp::UNIX_EPOCH);
    let mut conditions = ready_conditions(&[], reason, WORDS, generation, now);
    for kind in [ConditionType::Encrypted, ConditionType::KeyUsable] {
        conditions.push(condition(&[], kind, others, reason, "Something else.", generation, now));
    }
    conditions
}

/// The conditions that remain once the operator has seen the suspension: `Ready` gets the reason Suspended.
fn kept_while_suspended(mut conditions: Vec<Condition>) -> Vec<Condition> {
    let is_ready = |condition: &&mut Condition| condition.type_ == ConditionType::Ready.as_str();
    if let Some(ready) = conditions.iter_mut().find(is_ready) {
        ready.reason = Reason::Suspended.to_string();
    }
    let taken = [ConditionType::Reconciling, ConditionType::Stalled].map(ConditionType::as_str);
    conditions.retain(|condition| !taken.contains(&condition.type_.as_str()));
    conditions
}

fn suspended_in_both_ways(conditions: &[Condition]) -> [StreamEncryption; 2] {
    let mut by_spec = with(conditions.to_vec());
    by_spec.spec.suspend = true;
    let mut by_annotation = with(conditions.to_vec());
    let annotation = ("streamencryption.dev/suspend".to_owned(), "true".to_owned());
    by_annotation.metadata.annotations = Some([annotation].into());
    [by_spec, by_annotation]
}

fn being_deleted(conditions: &[Condition]) -> StreamEncryption {
    let mut resource = with(conditions.to_vec());
    resource.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    resource.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    resource
}

fn json(resource: &StreamEncryption) -> Value {
    serde_json::to_value(resource).expect("JSON")
}

#[test]
fn tools_table_covers_exactly_the_states() {
    let mut rows: Vec<String> = table().into_keys().collect();
    let mut states: Vec<&str> = every().iter().map(|state| state.row).collect();
    states.sort_unstable();
    states.dedup();
    rows.sort_unstable();
    assert_eq!(rows, states, "left: docs/conditions.md; right: the states");
}
