//! `explain`: one resource in words, from its status and its ledger. What is, why, what happens next, what a person can
//! do. Reads only, and sends nothing to AWS.

mod actions;
mod deletion;
mod next;

use std::io::Write;

use anyhow::ensure;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stream_encryption_api::condition::{ConditionStatus, ConditionType, find};
use stream_encryption_api::ledger::{Outcome as CallOutcome, StreamLedger};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::ledger;
use stream_encryption_core::model::object::is_dns_subdomain;

use super::Outcome;
use super::age::relative;
use super::cluster::{Cluster, ClusterArguments};
use super::fleet::{Entry, State};
use super::ledger_calls::{LedgerCall, counts_calls, is_owner, of_ledger};
use super::output::{Cell, NONE, Table, Tone, ValueFormat, notice, printable, stdout, write_value};
use crate::telemetry::error_chain;

/// What can stand before the name, as kubectl accepts it, and prints it with `-o name`.
const TYPES: [&str; 5] = [
    "strenc",
    "streamencryption",
    "streamencryptions",
    "streamencryption.streamencryption.dev",
    "streamencryptions.streamencryption.dev",
];

/// The flags of `explain`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The name of the `StreamEncryption`, such as orders or strenc/orders.
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
    /// The calls of the ledger, those of others included, oldest first; absent if the ledger could not be read, or does not
    /// exist although the status counts calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Vec<LedgerCall>>,
}

/// Explains one resource.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let name = name_alone(&arguments.name)?;
    let cluster = arguments.cluster.connect().await?;
    let found = cluster.resource(name).await?;
    let now = Timestamp::now();
    let entry = Entry::of(&found).with_age(now);
    let resource = found.resource.as_deref().ok();
    let calls = match calls(&cluster, &entry).await {
        Ok(calls) => Some(calls),
        Err(error) => {
            notice(format_args!("Calls are not shown: {}.", error_chain(error.as_ref())));
            None
        }
    };
    let explanation = Explanation {
        next: cluster.with_flags(&next::of(&entry, resource, now)),
        actions: actions::of(&entry, resource, &cluster.operator_namespace)
            .iter()
            .map(|action| cluster.with_flags(action))
            .collect(),
        calls,
        entry,
    };
    let mut out = stdout();
    if !write_value(&mut out, arguments.output, &explanation)? {
        write_text(&mut out, &explanation, resource, now)?;
    }
    Ok(Outcome::Done)
}

/// Returns the name without its type. Any other name would address something else: it becomes part of a request's path.
fn name_alone(given: &str) -> anyhow::Result<&str> {
    let of_type = |kind: &&str| given.strip_prefix(*kind)?.strip_prefix('/');
    let name = TYPES.iter().find_map(of_type).unwrap_or(given);
    if !is_dns_subdomain(name) {
        return Err(super::usage(&format!(
            "{given:?} is not the name of a StreamEncryption: use its name alone, or strenc/NAME"
        )));
    }
    Ok(name)
}

/// Reads the calls of the resource's own ledger.
async fn calls(cluster: &Cluster, entry: &Entry) -> anyhow::Result<Vec<LedgerCall>> {
    let Some(stream) = entry.stream.as_ref().and_then(|arn| arn.parse::<StreamArn>().ok()) else {
        return Ok(Vec::new());
    };
    let ledger = cluster.ledger(&ledger::name(&stream)).await?;
    own_calls(ledger.as_ref(), entry, &cluster.operator_namespace)
}

/// Returns the calls of the ledger of the stream. The ledger of another resource is not shown. If there is none although the
/// status counts calls, the namespace is probably not that of the operator.
fn own_calls(
    ledger: Option<&StreamLedger>,
    entry: &Entry,
    namespace: &str,
) -> anyhow::Result<Vec<LedgerCall>> {
    ensure!(
        ledger.is_some() || !counts_calls(entry),
        "namespace {namespace} has no StreamLedger of this stream, although its status counts calls; if the operator is in another namespace, use --operator-namespace"
    );
    let own = ledger.filter(|ledger| is_owner(ledger, entry));
    Ok(own.map(|ledger| of_ledger(ledger, entry)).unwrap_or_default())
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
    writeln!(out, "{}\n", printable(&stream(entry)))?;
    section(out, "State", &state(entry, resource, now))?;
    let reason = entry.reason.as_deref().unwrap_or("not reconciled yet");
    section(out, "Ready", &format!("{} ({reason})", entry.ready))?;
    let why = entry.message.as_deref().unwrap_or(NONE);
    section(out, "Why", why)?;
    let status = resource.and_then(|resource| resource.status.as_ref());
    if let Some(failure) = status.and_then(|status| status.failure.as_ref()) {
        let attempts = if failure.attempts == 1 {
            "1 attempt".to_owned()
        } else {
            format!("{} attempts", failure.attempts)
        };
        let message = if why.contains(&failure.message) { "" } else { &failure.message };
        let message = if message.is_empty() { ".".to_owned() } else { format!(": {message}") };
        section(out, "Failure", &format!("{}, after {attempts}{message}", failure.kind))?;
    }
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
    Ok(writeln!(out, "{title:<12}{}", printable(text))?)
}

fn stream(entry: &Entry) -> String {
    let Some(service) = entry.service else { return "The stream is not known yet.".to_owned() };
    let account = entry.account.as_ref().map(|account| format!(" of account {account}")).unwrap_or_default();
    let region = entry.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
    format!("{service:?} stream {}{account}{region}", entry.name)
}

/// Returns the state that all verbs report, and why, in the words of the condition, which has the exact times.
fn state(entry: &Entry, resource: Option<&StreamEncryption>, now: Timestamp) -> String {
    let status = resource.and_then(|resource| resource.status.as_ref());
    let encrypted = status.and_then(|status| find(&status.conditions, ConditionType::Encrypted));
    let message = match (encrypted, entry.state) {
        // The condition is Unknown also for a stream that cannot be encrypted.
        (Some(encrypted), _) => encrypted.message.replacen("Unknown: ", "", 1),
        (None, State::NotEncryptable) => "AWS cannot encrypt the stream.".to_owned(),
        (None, _) => "the status does not report whether records are encrypted.".to_owned(),
    };
    let described = entry.last_describe_time.map(|at| {
        format!(" Last Describe at most {} (the status shows this time up to a day late).", relative(at, now))
    });
    format!("{:?}: {message}{}", entry.state, described.unwrap_or_default())
}

/// Returns the message of the condition of the key, if it is not True and the message of Ready does not contain it.
fn other_messages(entry: &Entry, resource: Option<&StreamEncryption>) -> Vec<String> {
    let Some(status) = resource.and_then(|resource| resource.status.as_ref()) else { return Vec::new() };
    find(&status.conditions, ConditionType::KeyUsable)
        .into_iter()
        .filter(|condition| condition.status != ConditionStatus::True.as_str())
        .filter(|condition| !entry.message.as_ref().is_some_and(|why| why.contains(&condition.message)))
        .map(|condition| format!("{} is {}: {}", condition.type_, condition.status, condition.message))
        .collect()
}

fn budget(entry: &Entry, now: Timestamp) -> String {
    let (Some(left), Some(limit)) = (entry.calls_left(), entry.calls_limit) else {
        return "not known".to_owned();
    };
    let next = entry.calls_next_available_time.filter(|at| *at > now);
    let what = if left == 0 { "the next one" } else { "the oldest call stops counting" };
    let more = next.map(|at| format!("; {what} {}", relative(at, now))).unwrap_or_default();
    let external = entry.calls_external.filter(|count| *count > 0);
    let others = external.map(|count| format!(", {count} used by others")).unwrap_or_default();
    format!("{left} of {limit} in 24 hours{others}{more}")
}

/// Returns the calls as a table, oldest first.
fn timeline(calls: &[LedgerCall], now: Timestamp) -> Table {
    let mut table = Table::new(vec!["TIME", "AGE", "CALL", "KEY", "AWS'S REPLY", "COUNTS UNTIL"]);
    for call in calls {
        let tone = match call.outcome {
            CallOutcome::Accepted if call.failed => Tone::Bad,
            CallOutcome::Accepted => Tone::Good,
            CallOutcome::Refused => Tone::Bad,
            CallOutcome::Pending | CallOutcome::Unknown => Tone::Notice,
        };
        let code = call.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        let failed = if call.failed { ", then failed" } else { "" };
        let correction = if call.correction { ", corrects drift" } else { "" };
        let kept = match call.kept_until_time {
            Some(kept) if kept > now => seconds(kept),
            Some(_) => "no longer".to_owned(),
            None => "does not count".to_owned(),
        };
        table.push(vec![
            seconds(call.time).into(),
            relative(call.time, now).into(),
            format!("{:?}{correction}{}", call.action, call.caller()).into(),
            call.key.as_deref().unwrap_or(NONE).into(),
            Cell::toned(format!("{:?}{code}{failed}", call.outcome), tone),
            kept.into(),
        ]);
    }
    table
}

/// Returns a time in whole seconds.
fn seconds(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin::cluster::Found;

    /// The text for a resource with this status.
    fn explained(status: &Value) -> String {
        let resource: StreamEncryption = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data"},
            "spec": {"stream": {"service": "Firehose", "name": "orders"}},
            "status": status,
        }))
        .unwrap();
        let found = Found {
            namespace: "data".to_owned(),
            name: "orders".to_owned(),
            resource: Ok(Box::new(resource.clone())),
        };
        let entry = Entry::of(&found);
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let explanation = Explanation {
            next: next::of(&entry, Some(&resource), now),
            actions: actions::of(&entry, Some(&resource), "system"),
            calls: None,
            entry,
        };
        let mut out = anstream::StripStream::new(Vec::new());
        write_text(&mut out, &explanation, Some(&resource), now).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn state_is_the_word_of_the_other_verbs() {
        let source =
            "Unknown: the stream's source is MSKAsSource, and encryption at rest depends on that source.";
        let outdated = format!("As of 2026-01-01T00:00:00Z or later: {source}");
        for (reason, encrypted, message, state) in [
            (
                "SourceNotDirectPut",
                "Unknown",
                source,
                "State       NotEncryptable: the stream's source is MSKAsSource, and",
            ),
            (
                "SourceNotDirectPut",
                "Unknown",
                &outdated,
                "State       NotEncryptable: As of 2026-01-01T00:00:00Z or later: the stream's",
            ),
            (
                "StreamNotFound",
                "Unknown",
                "Unknown: the stream was not found.",
                "State       Unknown: the stream was not found.\n",
            ),
            (
                "Encrypted",
                "True",
                "Records have been encrypted since 2026-01-01T00:00:00Z, with the AWS-owned key.",
                "State       Encrypted: Records have been encrypted since 2026-01-01T00:00:00Z, with",
            ),
        ] {
            let conditions = [
                condition("Ready", "False", reason, "Why."),
                condition("Encrypted", encrypted, reason, message),
            ];
            let text = explained(&json!({"conditions": conditions}));
            assert!(text.contains(state), "{text}");
        }
        assert!(explained(&json!({})).contains("State       Unknown: the status does not report"));
    }

    #[test]
    fn message_with_escape_sequences_is_shown_escaped() {
        let forged = condition("Ready", "False", "NotPermitted", "Why.\u{1b}[2K\nState       Encrypted");
        let text = explained(&json!({"conditions": [forged]}));
        assert!(text.contains("Why         Why.\\u{1b}[2K\\nState       Encrypted\n"), "{text}");
    }

    #[test]
    fn age_of_the_description_is_a_bound() {
        let text = explained(&json!({"lastDescribeTime": "2026-01-01T00:00:00Z"}));
        assert!(text.contains("Last Describe at most 5s ago (the status shows"), "{text}");
    }

    #[test]
    fn calls_left_name_those_used_by_others() {
        let text = explained(&json!({"calls": {"used": 20, "external": 18, "limit": 25}}));
        assert!(text.contains("Calls left  5 of 25 in 24 hours, 18 used by others\n"), "{text}");
        for calls in [json!({"used": 20, "limit": 20}), json!({"used": 20, "external": 0, "limit": 20})] {
            assert!(!explained(&json!({"calls": calls})).contains("others"), "{calls}");
        }
    }

    #[test]
    fn name_can_have_the_type_that_kubectl_prints() {
        for kind in TYPES {
            assert_eq!(name_alone(&format!("{kind}/orders")).unwrap(), "orders");
        }
        for name in ["orders", "strenc", "strenc.orders", "streamencryption.dev"] {
            assert_eq!(name_alone(name).unwrap(), name);
        }
        for other in ["", "strenc/", "pods/orders", "strenc/a/b", "../orders", "orders?watch=1", "Orders"] {
            let error = name_alone(other).unwrap_err();
            assert!(error.is::<crate::plugin::UsageError>(), "{other}: {error}");
            assert!(error.to_string().starts_with(&format!("{other:?} is not the name")), "{error}");
        }
    }

    #[test]
    fn ledger_that_is_missing_is_not_read_as_no_calls() {
        let calls = |used: u32| {
            let entry = Entry { calls_used: Some(used), ..Entry::default() };
            own_calls(None, &entry, "system").map(|calls| calls.len()).map_err(|error| error.to_string())
        };
        assert_eq!(calls(0), Ok(0));
        let error = calls(1).unwrap_err();
        assert!(error.starts_with("namespace system has no StreamLedger of this stream"), "{error}");
    }

    #[test]
    fn timeline_has_a_row_for_each_call_of_others() {
        let time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let call = |code: Option<&str>, kept: Option<&str>| LedgerCall {
            time,
            action: stream_encryption_api::ledger::Action::Stop,
            key: None,
            outcome: if code.is_some() { CallOutcome::Refused } else { CallOutcome::Accepted },
            code: code.map(str::to_owned),
            failed: false,
            correction: false,
            external: true,
            caller_type: Some("IAMUser".to_owned()),
            kept_until_time: kept.map(|kept| kept.parse().unwrap()),
        };
        let calls = [call(None, Some("2026-01-02T00:15:00Z")), call(Some("LimitExceededException"), None)];
        let mut out = anstream::StripStream::new(Vec::new());
        timeline(&calls, ledger::saturating_add(time, jiff::SignedDuration::from_secs(5)))
            .write(&mut out)
            .unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let by_others = "Stop, by others (IAMUser)";
        assert_eq!(rows[0][2..], [by_others, NONE, "Accepted", "2026-01-02T00:15:00Z"], "{text}");
        assert_eq!(rows[1][2..], [by_others, NONE, "Refused (LimitExceededException)", "does not count"]);
    }

    #[test]
    fn message_is_printed_once() {
        let key = "KEY is the active key and is disabled. Enable it.";
        let cause = "The operator has no AWS credentials.";
        let text = explained(&json!({
            "conditions": [
                condition("Ready", "False", "EnablingFailed", &format!("{key} {cause} Next attempt at TIME.")),
                condition("KeyUsable", "False", "KeyDisabled", key),
            ],
            "failure": {"type": "NoCredentials", "message": cause, "attempts": 1,
                "lastFailureTime": "2026-01-01T00:00:00Z"},
        }));
        assert_eq!(text.matches(key).count(), 1, "{text}");
        assert_eq!(text.matches(cause).count(), 1, "{text}");
        assert!(text.contains("Failure     NoCredentials, after 1 attempt.\n"), "{text}");
    }
}
