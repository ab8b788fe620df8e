//! Every state that a `StreamEncryption` can be in, as tools outside see it, and the words that `docs/conditions.md` promises
//! of each.
//!
//! The conditions are made by the function that the operator makes them with.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;
use stream_encryption_operator::api::FINALIZER;
use stream_encryption_operator::api::condition::{
    ConditionType, Reason, Standing, Truth, condition, standing,
};
use stream_encryption_operator::api::stream_encryption::{StreamEncryption, StreamEncryptionStatus, UNSEEN};

/// What `Ready` tells in every state; a tool that shows a message shows this.
pub(crate) const WORDS: &str = "What is the case. What to do.";

const GENERATION: i64 = 3;

/// A state, and the row of the table that it belongs to.
pub(crate) struct State {
    pub(crate) row: &'static str,
    /// What tells it from the others of that row.
    pub(crate) name: String,
    /// As the API server stores it.
    pub(crate) resource: Value,
}

/// One row of the table: what each tool says.
pub(crate) struct Row {
    pub(crate) kstatus: String,
    pub(crate) argo_cd: String,
}

/// The table in `docs/conditions.md`, by its first cell.
pub(crate) fn table() -> BTreeMap<String, Row> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/conditions.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) =
        text.split_once("\n## What other tools say\n").expect("docs/conditions.md has that heading");
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

/// Every state.
pub(crate) fn every() -> Vec<State> {
    let mut states = vec![State { row: "not seen yet", name: String::new(), resource: json(&resource()) }];
    for reason in Reason::ALL {
        for others in [Truth::True, Truth::False] {
            let name = format!("{reason}, and Encrypted and KeyUsable are {}", others.as_str());
            let mut add = |row, resource: &StreamEncryption| {
                states.push(State { row, name: name.clone(), resource: json(resource) });
            };
            let told = told(*reason, others, GENERATION);
            for suspended in suspended_in_both_ways(&told) {
                add(while_suspended(*reason), &suspended);
            }
            for suspended in suspended_in_both_ways(&kept_while_suspended(told.clone())) {
                let was_ready = reason.standing() == Standing::Ready;
                add(if was_ready { "suspended, and ready before" } else { "suspended" }, &suspended);
            }
            add("being deleted", &being_deleted(&told));
            let mut changed = with(told.clone());
            changed.metadata.generation = Some(GENERATION + 1);
            add("changed, and not seen since", &changed);
            if let Some(row) = plain(*reason) {
                add(row, &with(told));
            }
        }
    }
    states
}

/// The row of a resource that is neither suspended nor deleted nor changed. Nothing but a suspension gives `Suspended`.
fn plain(reason: Reason) -> Option<&'static str> {
    match reason.standing() {
        Standing::Ready => Some("ready"),
        Standing::Progressing => Some("progressing"),
        Standing::Unknown => Some("unknown"),
        Standing::Stalled => Some("stalled"),
        Standing::Reported => Some("reported"),
        Standing::Unchanged => None,
    }
}

/// The row of a resource that is suspended and told of all the same: before the operator has seen the suspension, and where it
/// cannot so much as make out what the resource asks for.
fn while_suspended(reason: Reason) -> &'static str {
    match reason.standing() {
        Standing::Ready => "suspended, and ready before",
        Standing::Stalled => "suspended, and stalled",
        Standing::Progressing | Standing::Unknown | Standing::Reported | Standing::Unchanged => "suspended",
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

/// The conditions that a reason leads to, with the two that stand for themselves.
fn told(reason: Reason, others: Truth, generation: i64) -> Vec<Condition> {
    let (generation, now) = (Some(generation), Timestamp::UNIX_EPOCH);
    let mut conditions = standing(&[], reason, WORDS, generation, now);
    for kind in [ConditionType::Encrypted, ConditionType::KeyUsable] {
        conditions.push(condition(&[], kind, others, reason, "Something else.", generation, now));
    }
    conditions
}

/// What the operator leaves of the conditions once it has seen the suspension, and `Ready` with its own reason.
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
fn the_table_of_other_tools_has_a_row_for_every_state_and_no_other() {
    let mut rows: Vec<String> = table().into_keys().collect();
    let mut states: Vec<&str> = every().iter().map(|state| state.row).collect();
    states.sort_unstable();
    states.dedup();
    rows.sort_unstable();
    assert_eq!(rows, states, "left: docs/conditions.md; right: the states");
}
