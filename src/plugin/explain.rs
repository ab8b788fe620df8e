//! `explain`: one resource in words, from its status and its ledger. What is, why, what happens next, what a person can
//! do. Reads only, and sends nothing to AWS.

mod actions;

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, ReadyState, Reason, find};
use stream_encryption_api::ledger::Outcome as CallOutcome;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;

use super::Outcome;
use super::age::relative;
use super::cluster::{Cluster, ClusterArguments};
use super::fleet::{Entry, State};
use super::ledger_calls::{LedgerCall, is_owner, of_ledger};
use super::output::{Cell, NONE, Table, Tone, ValueFormat, stdout, write_value};
use crate::telemetry::error_chain;

/// The flags of `explain`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The name of the `StreamEncryption`.
    name: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: ValueFormat,
}

/// Everything that is said about one resource.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    #[serde(flatten)]
    entry: Entry,
    /// What the operator does next.
    next: String,
    /// What a person can do, as commands or sentences.
    actions: Vec<String>,
    /// The calls of the ledger, oldest first; absent if the ledger could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Vec<LedgerCall>>,
}

/// Explains one resource.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let cluster = arguments.cluster.connect().await?;
    let found = cluster.resource(&arguments.name).await?;
    let entry = Entry::of(&found);
    let now = Timestamp::now();
    let resource = found.resource.as_deref().ok();
    let calls = match calls(&cluster, &entry).await {
        Ok(calls) => Some(calls),
        Err(error) => {
            eprintln!("Calls are not shown: {}.", error_chain(error.as_ref()));
            None
        }
    };
    let explanation =
        Explanation { next: next(&entry, now), actions: actions::of(&entry, resource), calls, entry };
    let mut out = stdout();
    if !write_value(&mut out, arguments.output, &explanation)? {
        write_text(&mut out, &explanation, resource, now)?;
    }
    Ok(Outcome::Done)
}

/// Reads the calls of the resource's own ledger. The ledger of another resource is not shown.
async fn calls(cluster: &Cluster, entry: &Entry) -> anyhow::Result<Vec<LedgerCall>> {
    let Some(stream) = entry.stream.as_ref().and_then(|arn| arn.parse::<StreamArn>().ok()) else {
        return Ok(Vec::new());
    };
    let ledger = cluster.ledger(&ledger::name(&stream)).await?;
    Ok(ledger.filter(|ledger| is_owner(ledger, entry)).map(|ledger| of_ledger(&ledger)).unwrap_or_default())
}

/// Returns what the operator does next, as a sentence.
fn next(entry: &Entry, now: Timestamp) -> String {
    let reason: Option<Reason> = entry.reason.as_ref().and_then(|reason| reason.parse().ok());
    let Some(reason) = reason else {
        return "The operator has not reconciled this resource yet. If that lasts longer than a minute, check that the operator runs and watches this namespace.".to_owned();
    };
    if let Some(at) = entry.next_attempt_time {
        return format!(
            "The operator makes the next encryption call at {at} ({}), if it is still needed.",
            relative(at, now)
        );
    }
    match reason.ready_state() {
        ReadyState::Ready => "The operator describes the stream at each drift interval (10 minutes by default), and corrects drift.",
        ReadyState::Progressing => "The operator checks again within seconds to minutes, and continues as soon as it can.",
        ReadyState::Unknown => "The operator sends the request again, with growing delays, until AWS answers.",
        ReadyState::Stalled => "The operator cannot continue by itself. It continues when the spec, a policy, the key or the other resource changes.",
        ReadyState::Reported => "The operator describes the stream at each drift interval (10 minutes by default), and makes no encryption call.",
        ReadyState::Unchanged => "Nothing happens while the resource is suspended.",
    }
    .to_owned()
}

fn write_text(
    out: &mut impl Write,
    explanation: &Explanation,
    resource: Option<&StreamEncryption>,
    now: Timestamp,
) -> anyhow::Result<()> {
    let entry = &explanation.entry;
    let bold = anstyle::Style::new().bold();
    writeln!(out, "{bold}StreamEncryption {} in namespace {}{bold:#}", entry.resource, entry.namespace)?;
    writeln!(out, "{}\n", stream(entry))?;
    section(out, "State", &state(entry, now))?;
    let reason = entry.reason.as_deref().unwrap_or("not reconciled yet");
    section(out, "Ready", &format!("{} ({reason})", entry.ready))?;
    section(out, "Why", entry.message.as_deref().unwrap_or(NONE))?;
    for condition in other_messages(entry, resource) {
        section(out, "", &condition)?;
    }
    section(out, "Next", &explanation.next)?;
    section(out, "Calls left", &budget(entry, now))?;
    for (at, action) in explanation.actions.iter().enumerate() {
        section(out, if at == 0 { "You can" } else { "" }, action)?;
    }
    if let Some(calls) = explanation.calls.as_ref().filter(|calls| !calls.is_empty()) {
        writeln!(out, "\n{bold}Encryption calls of this stream{bold:#}")?;
        timeline(calls, now).write(out)?;
    }
    Ok(())
}

fn section(out: &mut impl Write, title: &str, text: &str) -> anyhow::Result<()> {
    Ok(writeln!(out, "{title:<12}{text}")?)
}

fn stream(entry: &Entry) -> String {
    let Some(service) = entry.service else { return "The stream is not known yet.".to_owned() };
    let account = entry.account.as_ref().map(|account| format!(" of account {account}")).unwrap_or_default();
    let region = entry.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
    format!("{service:?} stream {}{account}{region}", entry.name)
}

fn state(entry: &Entry, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| {
        time.map(|at| format!(" since {at} ({})", relative(at, now))).unwrap_or_default()
    };
    let key = entry.active_key.as_ref().map(|key| format!(", with {key}")).unwrap_or_default();
    let described = match entry.last_describe_time {
        Some(at) => format!(" Last described {}.", relative(at, now)),
        None => String::new(),
    };
    let state = match entry.state {
        State::Encrypted => format!("Records are encrypted{}{key}.", since(entry.encrypted_since_time)),
        State::Plaintext => format!("Records are in plaintext{}.", since(entry.plaintext_since_time)),
        State::Changing => format!(
            "AWS is changing the encryption{}.",
            match entry.encryption_status {
                Some(status) => format!(" ({})", status.as_str()),
                None => String::new(),
            }
        ),
        State::NotEncryptable => "The stream cannot be encrypted itself.".to_owned(),
        State::Unknown => "It is not known whether records are encrypted.".to_owned(),
    };
    state + &described
}

/// Returns the messages of the other conditions that are not True and say something else than Ready.
fn other_messages(entry: &Entry, resource: Option<&StreamEncryption>) -> Vec<String> {
    let Some(status) = resource.and_then(|resource| resource.status.as_ref()) else { return Vec::new() };
    [ConditionType::Encrypted, ConditionType::KeyUsable]
        .into_iter()
        .filter_map(|kind| find(&status.conditions, kind))
        .filter(|condition| condition.status != ConditionStatus::True.as_str())
        .filter(|condition| Some(&condition.message) != entry.message.as_ref())
        .map(|condition| format!("{} is {}: {}", condition.type_, condition.status, condition.message))
        .collect()
}

fn budget(entry: &Entry, now: Timestamp) -> String {
    let (Some(left), Some(limit)) = (entry.calls_left(), entry.calls_limit) else {
        return "not known".to_owned();
    };
    let next = entry.calls_next_available_time.filter(|at| *at > now);
    let more = next.map(|at| format!("; one more {}", relative(at, now))).unwrap_or_default();
    format!("{left} of {limit} in 24 hours{more}")
}

/// Returns the calls as a table, oldest first.
fn timeline(calls: &[LedgerCall], now: Timestamp) -> Table {
    let mut table = Table::new(vec!["TIME", "AGE", "CALL", "KEY", "OUTCOME", "COUNTS UNTIL"]);
    for call in calls {
        let tone = match call.outcome {
            CallOutcome::Accepted => Tone::Good,
            CallOutcome::Refused => Tone::Bad,
            CallOutcome::Pending | CallOutcome::Unknown => Tone::Notice,
        };
        let code = call.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        let correction = if call.correction { ", corrects drift" } else { "" };
        let kept = call.kept_until_time;
        table.push(vec![
            seconds(call.time).into(),
            relative(call.time, now).into(),
            format!("{:?}{correction}", call.action).into(),
            call.key.as_deref().unwrap_or(NONE).into(),
            Cell::toned(format!("{:?}{code}", call.outcome), tone),
            if kept > now { relative(kept, now) } else { "no longer".to_owned() }.into(),
        ]);
    }
    table
}

/// Returns a time in whole seconds.
fn seconds(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}
