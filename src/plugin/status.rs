//! `status`: the fleet as a table, a row for each stream or for each group of streams. Reads `StreamEncryptions` only.

mod watch;

use std::collections::BTreeMap;
use std::io::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use stream_encryption_api::stream_encryption::Service;

use super::Outcome;
use super::age::{relative, short};
use super::cluster::{Scope, ScopeArguments};
use super::fleet::{Entry, FEW_CALLS, Finding, State};
use super::output::{self, Cell, Format, NONE, Table, Tone, notice, stdout, write_next, write_rows};

/// The flags of `status`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    scope: ScopeArguments,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Show only streams with one of these findings, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FINDINGS")]
    only: Vec<Finding>,
    /// Count the streams by namespace, account, region, key or state, instead of listing them.
    #[arg(long, value_enum, conflicts_with = "watch")]
    by: Option<Group>,
    /// Exit with 3 if a stream has one of these findings, separated by commas; for pipelines. The help of --only explains
    /// them.
    #[arg(
        long,
        value_parser = Finding::names_only(),
        value_delimiter = ',',
        value_name = "FINDINGS",
        conflicts_with = "watch"
    )]
    fail_on: Vec<Finding>,
    /// Then print each stream again whenever its state changes or its resource is deleted, until interrupted.
    #[arg(short, long)]
    watch: bool,
}

/// What the streams are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The namespace.
    Namespace,
    /// The AWS account.
    Account,
    /// The AWS region.
    Region,
    /// The active key.
    Key,
    /// Whether records are encrypted.
    State,
}

/// The streams of one group.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    group: String,
    streams: u32,
    encrypted: u32,
    plaintext: u32,
    changing: u32,
    not_encryptable: u32,
    unknown: u32,
    not_ready: u32,
}

impl Finding {
    /// Returns a parser whose help has the names without their meanings, for a flag beside one that has both.
    fn names_only() -> impl TypedValueParser<Value = Self> {
        let names = Self::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names = names.map(|value| value.help(None::<&str>));
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }
}

impl output::Columns for Count {
    fn columns() -> Vec<&'static str> {
        vec![
            "group",
            "streams",
            "encrypted",
            "plaintext",
            "changing",
            "notEncryptable",
            "unknown",
            "notReady",
        ]
    }
}

/// Prints the fleet.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let cluster = arguments.scope.cluster.connect().await?;
    let scope = arguments.scope.scope(&cluster)?;
    let found = cluster.resources(&scope).await?;
    let now = Timestamp::now();
    let all: Vec<Entry> = found.iter().map(|found| Entry::of(found).with_age(now)).collect();
    let fails = all.iter().any(|entry| has_any(entry, &arguments.fail_on));
    let entries: Vec<Entry> = all
        .into_iter()
        .filter(|entry| arguments.only.is_empty() || has_any(entry, &arguments.only))
        .collect();
    if arguments.by.is_some() && entries.is_empty() && arguments.output == Format::Table {
        print_nothing(&scope, arguments);
    } else if let Some(group) = arguments.by {
        print_counts(&counts(&entries, group), group, arguments.output)?;
    } else {
        print_entries(&entries, &scope, arguments, now, &mut stdout())?;
    }
    if arguments.watch {
        watch::run(&cluster, &scope, entries, arguments).await?;
    }
    Ok(if fails { Outcome::Found } else { Outcome::Done })
}

fn has_any(entry: &Entry, findings: &[Finding]) -> bool {
    findings.iter().any(|finding| entry.has(*finding))
}

fn print_entries(
    entries: &[Entry],
    scope: &Scope,
    arguments: &Arguments,
    now: Timestamp,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if arguments.watch && matches!(arguments.output, Format::Json | Format::Yaml) {
        // The changes follow, and nothing can follow a list.
        for entry in entries {
            write_next(out, arguments.output, entry)?;
        }
        return Ok(());
    }
    if write_rows(out, arguments.output, entries)? {
        return Ok(());
    }
    if entries.is_empty() {
        print_nothing(scope, arguments);
        return Ok(());
    }
    table(entries, scope, arguments.output, now).write(out)?;
    Ok(())
}

fn print_nothing(scope: &Scope, arguments: &Arguments) {
    let what = if arguments.only.is_empty() { "StreamEncryption" } else { "stream with these findings" };
    match &scope.namespace {
        Some(namespace) => {
            notice(format_args!("Found no {what} in namespace {namespace}; use -A for all namespaces."));
        }
        None => notice(format_args!("Found no {what}.")),
    }
}

fn table(entries: &[Entry], scope: &Scope, format: Format, now: Timestamp) -> Table {
    let columns = Columns { namespace: scope.namespace.is_none(), wide: format == Format::Wide };
    let mut table = Table::new(columns.headings());
    for entry in entries {
        table.push(columns.cells(entry, now));
    }
    table
}

/// The columns of the table.
#[derive(Clone, Copy)]
struct Columns {
    namespace: bool,
    wide: bool,
}

impl Columns {
    fn headings(self) -> Vec<&'static str> {
        let mut headings = Vec::new();
        headings.extend(self.namespace.then_some("NAMESPACE"));
        headings.extend(["NAME", "STREAM", "STATE", "KEY", "READY", "PLAINTEXT", "CALLS LEFT"]);
        headings.push("NEXT ATTEMPT");
        headings.extend(self.wide.then_some(["AWS", "LAST DESCRIBE", "ARN"]).into_iter().flatten());
        headings
    }

    fn cells(self, entry: &Entry, now: Timestamp) -> Vec<Cell> {
        let mut cells = Vec::new();
        cells.extend(self.namespace.then(|| Cell::from(&entry.namespace)));
        cells.push(Cell::from(&entry.resource));
        cells.push(stream(entry).into());
        cells.push(Cell::toned(format!("{:?}", entry.state), tone(entry.state)));
        cells.push(active_key(entry));
        cells.push(ready(entry));
        cells.push(
            entry
                .plaintext_since_time
                .map_or(NONE.into(), |since| Cell::toned(short(now.duration_since(since)), Tone::Bad)),
        );
        cells.push(calls_left(entry));
        let next = entry.next_attempt_time.filter(|at| *at > now);
        cells.push(next.map_or(NONE.into(), |at| relative(at, now).into()));
        if self.wide {
            cells.push(entry.encryption_status.map_or(NONE, |status| status.as_str()).into());
            cells.push(entry.last_describe_time.map_or(NONE.into(), |at| relative(at, now).into()));
            cells.push(entry.stream.as_deref().unwrap_or(NONE).into());
        }
        cells
    }
}

/// Returns a stream by service and name.
fn stream(entry: &Entry) -> String {
    match entry.service {
        Some(Service::Firehose) => format!("firehose/{}", entry.name),
        Some(Service::Kinesis) => format!("kinesis/{}", entry.name),
        None => NONE.to_owned(),
    }
}

fn tone(state: State) -> Tone {
    match state {
        State::Encrypted => Tone::Good,
        State::Plaintext => Tone::Bad,
        State::Changing | State::Unknown => Tone::Notice,
        State::NotEncryptable => Tone::Plain,
    }
}

/// Returns the active key in short, the id of a customer managed key; with the desired key, if that is another one.
fn active_key(entry: &Entry) -> Cell {
    let short = |key: &str| key.rsplit_once('/').map_or(key, |(_, id)| id).to_owned();
    let active = entry.active_key.as_deref().map(short);
    let text = match &entry.desired_key {
        // No key can encrypt it.
        _ if entry.state == State::NotEncryptable => NONE.to_owned(),
        // The reason of Ready is then about the desired key.
        Some(desired) if entry.active_key.as_ref() != Some(desired) => {
            format!("{} -> {}", active.unwrap_or_default(), short(desired)).trim_start().to_owned()
        }
        _ => active.unwrap_or_else(|| NONE.to_owned()),
    };
    let tone = if entry.has(Finding::ActiveKeyUnusable) { Tone::Bad } else { Tone::Plain };
    Cell::toned(text, tone)
}

fn ready(entry: &Entry) -> Cell {
    let reason = entry.reason.as_deref().unwrap_or("not reconciled yet");
    let tone = match entry.ready {
        _ if entry.stalled => Tone::Bad,
        "True" => Tone::Good,
        _ => Tone::Notice,
    };
    Cell::toned(format!("{} ({reason})", entry.ready), tone)
}

fn calls_left(entry: &Entry) -> Cell {
    let (Some(left), Some(limit)) = (entry.calls_left(), entry.calls_limit) else { return NONE.into() };
    let tone = match left {
        0 => Tone::Bad,
        left if left <= FEW_CALLS => Tone::Notice,
        _ => Tone::Plain,
    };
    Cell::toned(format!("{left} of {limit}"), tone)
}

/// Returns the group of a stream by its active key. If the status shows no key, the stream may be encrypted with any key,
/// unless its state excludes that.
fn key_group(entry: &Entry) -> String {
    let has_no_key = match entry.state {
        // Without a recent Describe, somebody may have encrypted the stream meanwhile.
        State::Plaintext => entry.encrypted_is_false && !entry.stale,
        State::NotEncryptable => true,
        State::Changing | State::Unknown | State::Encrypted => false,
    };
    let without_key = if has_no_key { "no active key" } else { "not known" };
    entry.active_key.clone().unwrap_or_else(|| without_key.to_owned())
}

/// Counts the streams by group, the largest group first.
fn counts(entries: &[Entry], group: Group) -> Vec<Count> {
    let mut groups: BTreeMap<String, Count> = BTreeMap::new();
    for entry in entries {
        let name = match group {
            Group::Namespace => Some(entry.namespace.clone()),
            Group::Account => entry.account.clone(),
            Group::Region => entry.region.clone(),
            Group::Key => Some(key_group(entry)),
            Group::State => Some(format!("{:?}", entry.state)),
        };
        let name = name.unwrap_or_else(|| NONE.to_owned());
        let count = groups.entry(name.clone()).or_insert_with(|| Count { group: name, ..Count::default() });
        count.streams += 1;
        *match entry.state {
            State::Encrypted => &mut count.encrypted,
            State::Plaintext => &mut count.plaintext,
            State::Changing => &mut count.changing,
            State::NotEncryptable => &mut count.not_encryptable,
            State::Unknown => &mut count.unknown,
        } += 1;
        count.not_ready += u32::from(entry.has(Finding::NotReady));
    }
    let mut counts: Vec<Count> = groups.into_values().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.streams));
    counts
}

fn print_counts(counts: &[Count], group: Group, format: Format) -> anyhow::Result<()> {
    let mut out = stdout();
    if write_rows(&mut out, format, counts)? {
        return Ok(());
    }
    let heading = match group {
        Group::Namespace => "NAMESPACE",
        Group::Account => "ACCOUNT",
        Group::Region => "REGION",
        Group::Key => "ACTIVE KEY",
        Group::State => "STATE",
    };
    let mut table = Table::new(vec![
        heading,
        "STREAMS",
        "ENCRYPTED",
        "PLAINTEXT",
        "CHANGING",
        "NOT ENCRYPTABLE",
        "UNKNOWN",
        "NOT READY",
    ]);
    let toned = |count: u32, tone| Cell::toned(count.to_string(), if count > 0 { tone } else { Tone::Plain });
    for count in counts {
        table.push(vec![
            Cell::from(&count.group),
            count.streams.to_string().into(),
            toned(count.encrypted, Tone::Good),
            toned(count.plaintext, Tone::Bad),
            toned(count.changing, Tone::Notice),
            count.not_encryptable.to_string().into(),
            toned(count.unknown, Tone::Notice),
            toned(count.not_ready, Tone::Notice),
        ]);
    }
    table.write(&mut out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::plugin::cluster::Found;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A pipeline must not pass for as long as the operator does not run.
    #[test]
    fn pipeline_can_fail_on_a_stale_state() {
        let now: Timestamp = "2026-01-04T00:00:00Z".parse().unwrap();
        let fail_on = Program::parse_from(["status", "--fail-on", "plaintext,stale"]).arguments.fail_on;
        for (described, fails) in [("2026-01-01T00:00:00Z", true), ("2026-01-03T00:00:00Z", false)] {
            let last_describe_time = Some(described.parse().unwrap());
            let entry = Entry { state: State::Encrypted, last_describe_time, ..Entry::default() };
            assert_eq!(has_any(&entry.with_age(now), &fail_on), fails, "{described}");
        }
    }

    /// Whoever retires a key relies on it.
    #[test]
    fn stream_without_known_key_is_not_counted_as_without_key() {
        for (state, key, group) in [
            (State::Plaintext, None, "no active key"),
            (State::NotEncryptable, None, "no active key"),
            (State::Unknown, None, "not known"),
            (State::Changing, None, "not known"),
            (State::Unknown, Some("AWS_OWNED_CMK"), "AWS_OWNED_CMK"),
        ] {
            let active_key = key.map(str::to_owned);
            let entry = Entry { state, active_key, encrypted_is_false: true, ..Entry::default() };
            let counts = counts(&[entry], Group::Key);
            let groups: Vec<(&str, u32)> =
                counts.iter().map(|count| (count.group.as_str(), count.streams)).collect();
            assert_eq!(groups, [(group, 1)], "{state:?} {key:?}");
        }
    }

    /// The operator can no longer describe the stream, or does not run, and somebody encrypts the stream meanwhile.
    #[test]
    fn stream_that_was_in_plaintext_may_use_any_key() {
        let now: Timestamp = "2026-01-04T00:00:00Z".parse().unwrap();
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
        for (encrypted, described, group) in
            [("False", new, "no active key"), ("False", old, "not known"), ("Unknown", new, "not known")]
        {
            let condition = json!({"type": "Encrypted", "status": encrypted, "reason": "AccessDenied", "message": "why",
                "lastTransitionTime": old});
            let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": "orders", "namespace": "data"},
                "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
                "status": {"conditions": [condition], "plaintextSinceTime": old, "lastDescribeTime": described}});
            let found = Found::of(serde_json::from_value(resource).unwrap());
            let entry = Entry::of(&found).with_age(now);
            assert_eq!(entry.state, State::Plaintext);
            assert_eq!(key_group(&entry), group, "{encrypted} {described}");
        }
    }
}
