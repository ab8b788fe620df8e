//! `report`: evidence for an audit. Each stream with its state, since when, by which observation, and the controls that it
//! answers; as a table, JSON, YAML, CSV, or one HTML page. Reads only.

mod controls;
mod page;
mod streams;
mod surveyed;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use stream_encryption_api::ledger::StreamLedger;

use super::Outcome;
use super::age::short;
use super::cluster::{Cluster, Found, Scope, ScopeArguments};
use super::fleet::{MAX_DESCRIBE_AGE, State};
use super::ledger_calls;
use super::output::{self, Cell, NONE, Table, Tone, ValueFormat, notice, printable, stdout, write_value};
use super::places::PlaceArguments;
use crate::adopt::atomic_file;
use crate::telemetry::error_chain;
use controls::{CONTROLS, Verdict, results};
use streams::ReportedStream;

/// The flags of `report`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    scope: ScopeArguments,
    /// Survey the streams of AWS, too, managed or not. Requires --region.
    #[arg(long, requires = "region")]
    aws: bool,
    #[command(flatten)]
    places: PlaceArguments,
    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Write to this file instead of the standard output.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Exit with 3 if a stream fails a control, or if its last Describe is too old; for pipelines.
    #[arg(long)]
    fail_on_failed_controls: bool,
}

/// The formats of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables: the sums, the controls, and the streams that fail one.
    #[default]
    Table,
    /// One HTML page with pictures, without any other file.
    Html,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Comma-separated values, one line for each stream and one column for each control.
    Csv,
}

/// A report: when, of what, and every stream. The HTML page reads the same fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    generated_time: Timestamp,
    version: &'static str,
    /// The URL of the API server.
    server: String,
    /// The namespaces and labels that were read, in words.
    scope: String,
    /// Whether the streams of AWS were listed, too.
    aws: bool,
    /// The surveyed accounts and regions.
    accounts: Vec<String>,
    /// What the report lacks or leaves out, as sentences.
    warnings: Vec<String>,
    /// The accounts, regions and resources that could not be read, with the cause. The report is incomplete with any.
    unread: Vec<String>,
    streams: Vec<ReportedStream>,
}

impl Report {
    /// Checks the age of each stream's last Describe. If it is too old, the state is no longer known, and the stream passes no
    /// control. A survey comes first: its Describes count.
    fn check_age(&mut self) {
        let mut stale = 0;
        for stream in &mut self.streams {
            stream.entry = std::mem::take(&mut stream.entry).with_age(self.generated_time);
            if stream.entry.stale {
                stale += 1;
                expire(stream);
            }
        }
        if stale > 0 {
            self.warnings.push(format!(
                "The report has no Describe of the last {} for {stale} of {} streams, so these pass no control. The operator may not run, or the resources may be suspended. With --aws and --region, the report describes the streams itself.",
                short(MAX_DESCRIBE_AGE),
                self.streams.len()
            ));
        }
    }

    /// Returns whether a pipeline must not pass: a stream fails a control, or its last Describe is too old to tell.
    fn fails(&self) -> bool {
        self.streams.iter().any(|stream| stream.entry.stale || stream.fails_a_control())
    }
}

/// Takes that the last Describe is too old to prove the state. The state of a stream that failed its controls stays: nothing
/// shows that the stream has been encrypted since.
fn expire(stream: &mut ReportedStream) {
    let entry = &mut stream.entry;
    if matches!(entry.state, State::Plaintext | State::Changing) {
        return;
    }
    entry.state = State::Unknown;
    let status = entry.message.take().map(|words| format!(" The status is of that time: {words}"));
    entry.message = Some(format!(
        "The last Describe is too old: the state may have changed since.{}",
        status.unwrap_or_default()
    ));
    stream.controls = entry.service.map(|service| results(service, State::Unknown)).unwrap_or_default();
}

/// Writes a report.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if !arguments.aws && names_aws(&arguments.places) {
        return Err(super::usage(
            "--region, --role-arn, --service and --aws-endpoint-url belong to --aws: add --aws to survey AWS",
        ));
    }
    let cluster = arguments.scope.cluster.connect().await?;
    let scope = arguments.scope.scope(&cluster)?;
    arguments.file.as_deref().map_or(Ok(()), check_writable)?;
    let found = cluster.resources(&scope).await?;
    let (mut report, ledgers) = read(&cluster, &scope, &found).await?;
    if arguments.aws {
        surveyed::add(&mut report, &cluster, &scope, &found, &ledgers, &arguments.places).await?;
    }
    report.check_age();
    for warning in report.warnings.iter().chain(&report.unread) {
        notice(warning);
    }
    match &arguments.file {
        Some(path) => {
            let mut text = Vec::new();
            write(&mut text, arguments.output, &report)?;
            let text = anstream::adapter::strip_bytes(&text).into_vec();
            if write_file(path, &text)? {
                notice(format_args!("Wrote {} with {} streams.", path.display(), report.streams.len()));
            }
        }
        None => write(&mut stdout(), arguments.output, &report)?,
    }
    ensure!(report.unread.is_empty(), "not everything could be read; the problems are listed above");
    Ok(if arguments.fail_on_failed_controls && report.fails() { Outcome::Found } else { Outcome::Done })
}

/// Checks that a file can be written, so that a wrong path fails before a survey that may take an hour. Keeps what the file
/// has until there is a report. A pipe is not opened: its reader would see its end.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    if path.metadata().is_ok_and(|existing| !existing.is_file() && !existing.is_dir()) {
        return Ok(());
    }
    let opened = OpenOptions::new().create(true).write(true).truncate(false).open(path);
    opened.map(drop).with_context(|| not_written(path))
}

/// Writes a report to a file. Returns `false` if the file is a pipe whose reader has left: as for the standard output, that is
/// no error, and does not change the exit code of what was found.
fn write_file(path: &Path, text: &[u8]) -> anyhow::Result<bool> {
    match atomic_file::write(path, text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).with_context(|| not_written(path)),
    }
}

fn not_written(path: &Path) -> String {
    format!("failed to write {}", path.display())
}

/// Returns whether the flags are about AWS.
fn names_aws(places: &PlaceArguments) -> bool {
    let is_one_service = places.services().len() == 1;
    let has_places = !places.regions().is_empty() || !places.roles().is_empty();
    has_places || is_one_service || places.endpoint_url().is_some()
}

/// Returns the report of these resources, and the ledgers that the person may read.
async fn read(
    cluster: &Cluster,
    scope: &Scope,
    found: &[Found],
) -> anyhow::Result<(Report, BTreeMap<String, StreamLedger>)> {
    let mut warnings = Vec::new();
    let (ledgers, are_read) = match cluster.ledgers().await {
        Ok(ledgers) => (ledgers, true),
        Err(error) => {
            warnings.push(format!("The report has no calls: {}.", error_chain(error.as_ref())));
            (BTreeMap::default(), false)
        }
    };
    let mut streams = found.iter().map(|found| ReportedStream::of(found, &ledgers)).collect();
    warnings.extend(surveyed::one_per_stream(&mut streams));
    if are_read {
        let entries = streams.iter().map(|stream| &stream.entry);
        warnings.extend(ledger_calls::missing(entries, &ledgers, &cluster.operator_namespace));
    }
    let report = Report {
        generated_time: Timestamp::now().round(jiff::Unit::Second)?,
        version: env!("CARGO_PKG_VERSION"),
        server: cluster.server.clone(),
        scope: scope.to_string(),
        aws: false,
        accounts: Vec::new(),
        warnings,
        unread: Vec::new(),
        streams,
    };
    Ok((report, ledgers))
}

fn write(out: &mut impl Write, format: Format, report: &Report) -> anyhow::Result<()> {
    match format {
        Format::Table => write_tables(out, report)?,
        Format::Html => out.write_all(page::html(report)?.as_bytes())?,
        Format::Json => drop(write_value(out, ValueFormat::Json, report)?),
        Format::Yaml => drop(write_value(out, ValueFormat::Yaml, report)?),
        Format::Csv => {
            let rows: Vec<_> = report.streams.iter().map(ReportedStream::row).collect();
            output::write_rows(out, output::Format::Csv, &rows)?;
        }
    }
    Ok(())
}

fn write_tables(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    let bold = anstyle::Style::new().bold();
    let Report { generated_time, scope, server, streams, .. } = report;
    writeln!(out, "{bold}Encryption of streams, {scope}{bold:#}\n{server}, {generated_time}\n")?;
    let mut sums = Table::new(vec!["STATE", "STREAMS"]);
    for state in [State::Encrypted, State::Plaintext, State::Changing, State::NotEncryptable, State::Unknown]
    {
        let count = streams.iter().filter(|stream| stream.entry.state == state).count();
        sums.push(vec![format!("{state:?}").into(), count.to_string().into()]);
    }
    sums.push(vec!["all".into(), streams.len().to_string().into()]);
    sums.write(out)?;
    writeln!(out)?;
    let mut table = Table::new(vec!["CONTROL", "FRAMEWORK", "PASSED", "FAILED", "NOT APPLICABLE", "UNKNOWN"]);
    for control in CONTROLS {
        let count = |verdict| streams.iter().filter(|one| one.verdict(control) == Some(verdict)).count();
        let failed = count(Verdict::Failed);
        table.push(vec![
            control.id.into(),
            control.framework.into(),
            count(Verdict::Passed).to_string().into(),
            Cell::toned(failed.to_string(), if failed > 0 { Tone::Bad } else { Tone::Plain }),
            count(Verdict::NotApplicable).to_string().into(),
            count(Verdict::Unknown).to_string().into(),
        ]);
    }
    table.write(out)?;
    let failing: Vec<_> = streams.iter().filter(|stream| stream.fails_a_control()).collect();
    if !report.fails() && report.unread.is_empty() {
        writeln!(out, "\nNo stream fails a control.")?;
        return Ok(());
    }
    if !report.unread.is_empty() {
        writeln!(out, "\n{bold}This report is incomplete: not everything could be read{bold:#}")?;
        for problem in &report.unread {
            writeln!(out, "{}", printable(problem))?;
        }
    }
    if failing.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{bold}Streams that fail a control{bold:#}")?;
    let mut table =
        Table::new(vec!["STREAM", "STATE", "PLAINTEXT", "LAST DESCRIBE", "MANAGED BY", "FAILED CONTROLS"]);
    for stream in failing {
        let entry = &stream.entry;
        let age = |time: Option<Timestamp>| {
            time.map_or(NONE.to_owned(), |at| short(report.generated_time.duration_since(at)))
        };
        table.push(vec![
            entry.stream.as_deref().unwrap_or(&entry.name).into(),
            format!("{:?}", entry.state).into(),
            age(entry.plaintext_since_time).into(),
            age(entry.last_describe_time).into(),
            stream.managed_by().into(),
            stream.failed_controls().join(", ").into(),
        ]);
    }
    table.write(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd as _;

    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::plugin::Command;
    use crate::settings::PluginArguments;

    /// Runs the report of a cluster that does not answer into a file, and returns the error.
    async fn error_with_file(file: &Path) -> String {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let text = "{apiVersion: v1, kind: Config, current-context: c, users: [{name: c, user: {}}], \
                    contexts: [{name: c, context: {cluster: c, user: c}}], \
                    clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}";
        fs::write(&kubeconfig, text).unwrap();
        let (kubeconfig, file) = (kubeconfig.display().to_string(), file.display().to_string());
        let words = [
            "kubectl-streamencryption",
            "report",
            "--kubeconfig",
            &kubeconfig,
            "-n",
            "data",
            "--file",
            &file,
        ];
        let Command::Report(arguments) = PluginArguments::try_parse_from(words).unwrap().command else {
            panic!("no report")
        };
        Box::pin(run(&arguments)).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn file_that_cannot_be_written_fails_before_any_request() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing").join("report.html");
        let error = error_with_file(&missing).await;
        assert!(error.starts_with("failed to write ") && error.ends_with("report.html"), "{error}");
        let earlier = folder.path().join("report.html");
        fs::write(&earlier, "earlier").unwrap();
        let error = error_with_file(&earlier).await;
        assert!(error.starts_with("failed to list"), "{error}");
        assert_eq!(fs::read_to_string(&earlier).unwrap(), "earlier", "the report of an earlier run stays");
    }

    #[test]
    fn pipe_whose_reader_has_left_is_no_error() {
        let (reader, pipe) = std::io::pipe().unwrap();
        let path = PathBuf::from(format!("/dev/fd/{}", pipe.as_raw_fd()));
        assert!(write_file(&path, b"read").unwrap());
        drop(reader);
        assert!(!write_file(&path, b"not read").unwrap());
    }

    fn report(generated_time: Timestamp, streams: Vec<ReportedStream>) -> Report {
        Report {
            generated_time,
            version: "",
            server: String::new(),
            scope: String::new(),
            aws: true,
            accounts: Vec::new(),
            warnings: Vec::new(),
            unread: Vec::new(),
            streams,
        }
    }

    fn tables(report: &Report) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        write_tables(&mut out, report).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    /// The operator does not run, or somebody has suspended the resource.
    #[test]
    fn stream_described_long_ago_passes_no_control() {
        let stream = |encrypted: &str, described: &str| {
            let condition = json!({"type": "Encrypted", "status": encrypted, "reason": "Encrypted", "message": "why",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": "orders", "namespace": "data"},
                "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
                "status": {"conditions": [condition], "lastDescribeTime": described}});
            ReportedStream::of(&Found::of(serde_json::from_value(resource).unwrap()), &BTreeMap::new())
        };
        let verdicts = |report: &Report| -> Vec<Vec<Verdict>> {
            let of =
                |stream: &ReportedStream| stream.controls.iter().map(|one| one.result).collect::<Vec<_>>();
            report.streams.iter().map(of).collect()
        };
        let now = "2026-01-04T00:00:00Z".parse().unwrap();
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
        let mut stale = report(now, vec![stream("True", old), stream("False", old), stream("True", new)]);
        stale.check_age();
        let expected = [[Verdict::Unknown; 3], [Verdict::Failed; 3], [Verdict::Passed; 3]];
        assert_eq!(verdicts(&stale), expected);
        let [warning] = &stale.warnings[..] else { panic!("one warning: {:?}", stale.warnings) };
        assert!(
            warning.starts_with("The report has no Describe of the last 2d2h for 2 of 3 streams"),
            "{warning}"
        );
        let table = tables(&stale);
        for (state, count) in [("Encrypted", "1"), ("Plaintext", "1"), ("Unknown", "1"), ("all", "3")] {
            let is_sum = |line: &str| line.split_whitespace().eq([state, count]);
            assert!(table.lines().any(is_sum), "{state}: {table}");
        }
        let written = serde_json::to_value(&stale.streams[0]).unwrap();
        assert_eq!(written["state"], "Unknown");
        let mut fresh = report(now, vec![stream("True", new)]);
        fresh.check_age();
        assert_eq!((verdicts(&fresh), fresh.warnings.len()), (vec![vec![Verdict::Passed; 3]], 0));
        // A pipeline must not pass for as long as the operator does not run.
        let mut unproven = report(now, vec![stream("True", old)]);
        unproven.check_age();
        for (report, fails) in [(&unproven, true), (&fresh, false)] {
            assert_eq!(report.fails(), fails);
            assert_eq!(tables(report).contains("No stream fails a control."), !fails);
        }
    }

    #[test]
    fn incomplete_report_does_not_say_that_all_is_well() {
        let mut report = report(Timestamp::UNIX_EPOCH, Vec::new());
        assert!(tables(&report).ends_with("No stream fails a control.\n"));
        report.unread.push("111122223333 in eu-west-1: AccessDenied".to_owned());
        let incomplete = tables(&report);
        assert!(
            incomplete.ends_with("not everything could be read\n111122223333 in eu-west-1: AccessDenied\n")
        );
        assert!(!incomplete.contains("No stream fails"), "{incomplete}");
    }
}
