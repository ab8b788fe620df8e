//! The output of `adopt`: a row for each stream, and a summary of each account and region. Decides nothing.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::KeyArn;
use stream_encryption_core::model::service::profile;

use super::super::output::{
    Cell, Columns, Format, NONE, Table, Tone, ValueFormat, notice, stdout, write_rows, write_value,
};
use super::{Adoption, Arguments, NotSearched, steps};
use crate::adopt::found::FoundEncryption;
use crate::adopt::owners::Owner;
use crate::adopt::plan::PlannedStream;
use crate::adopt::survey::PlaceSurvey;

/// A stream.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    account: String,
    region: String,
    service: Service,
    name: String,
    arn: String,
    /// Encrypted, Plaintext, `NotEncryptable` or Unknown.
    state: &'static str,
    /// The ARN of the active key, or `AWS_OWNED_CMK`.
    #[serde(skip_serializing_if = "Option::is_none")]
    active_key: Option<String>,
    /// The tools that manage the stream according to its tags, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
    /// The resource that manages the stream, as NAMESPACE/NAME.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_encryption: Option<String>,
    /// The file of its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// Why there is no new manifest for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
}

impl Columns for Row {
    fn columns() -> Vec<&'static str> {
        vec![
            "account",
            "region",
            "service",
            "name",
            "arn",
            "state",
            "activeKey",
            "managedBy",
            "streamEncryption",
            "manifest",
            "leftOut",
        ]
    }
}

/// The streams of an account and region.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    account: String,
    region: String,
    streams: usize,
    encrypted: usize,
    plaintext: usize,
    not_encryptable: usize,
    unknown: usize,
    /// The streams that a `StreamEncryption` manages.
    managed: usize,
    /// The number of streams of each other tool.
    other_tools: BTreeMap<&'static str, usize>,
    /// The streams for which there is a manifest, or would be one with --write.
    to_adopt: usize,
}

/// Everything, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    streams: &'a [Row],
    summary: &'a [Summary],
    /// What could not be read.
    problems: &'a [String],
    /// Whether the whole cluster was searched for resources that manage a stream.
    searched_cluster: bool,
    /// Whether at least the namespace of the manifests was.
    searched_namespace: bool,
    /// What became of each file of --write: created, overwritten, unchanged or different.
    files: BTreeMap<&'a str, &'static str>,
}

/// Prints the report: on the standard output the result, on the standard error what went wrong.
pub(super) fn print(adoption: &Adoption, arguments: &Arguments) -> anyhow::Result<()> {
    let rows: Vec<Row> = adoption.plan.iter().map(|planned| row(planned, adoption)).collect();
    let summary: Vec<Summary> = adoption.surveys.iter().map(|survey| summary(survey, adoption)).collect();
    let problems: Vec<String> = adoption.surveys.iter().flat_map(problems).collect();
    let mut out = stdout();
    let report = Report {
        streams: &rows,
        summary: &summary,
        problems: &problems,
        searched_cluster: adoption.not_searched.is_none(),
        searched_namespace: !adoption.is_namespace_unknown(),
        files: adoption.written.iter().map(|(path, written)| (path.as_str(), written.word())).collect(),
    };
    match arguments.output {
        Format::Json => {
            write_value(&mut out, ValueFormat::Json, &report)?;
        }
        Format::Yaml => {
            write_value(&mut out, ValueFormat::Yaml, &report)?;
        }
        Format::Csv => {
            write_rows(&mut out, arguments.output, &rows)?;
        }
        Format::Table | Format::Wide => {
            if !rows.is_empty() {
                table(&rows, arguments.output).write(&mut out)?;
                writeln!(out)?;
            }
            summary_table(&summary).write(&mut out)?;
            write!(out, "{}", steps::next(adoption, arguments))?;
        }
    }
    out.flush()?;
    if !matches!(arguments.output, Format::Table | Format::Wide) {
        steps::differing(adoption).lines().for_each(notice);
    }
    match &adoption.not_searched {
        Some(NotSearched { why, searched_namespace: true }) => {
            notice(format_args!(
                "Looked for StreamEncryptions in namespace {} only: {why}.",
                adoption.namespace
            ));
        }
        Some(NotSearched { why, .. }) => {
            notice(format_args!("Did not look for StreamEncryptions: {why}."));
        }
        None => {}
    }
    let reused: usize = adoption.surveys.iter().map(|survey| survey.reused).sum();
    if reused > 0 {
        notice(format_args!(
            "{reused} streams were described by an earlier run in the last hour; --restart describes them again."
        ));
    }
    for note in adoption.notes.iter().chain(&foreign_keys(&adoption.plan)).chain(&problems) {
        notice(note);
    }
    Ok(())
}

/// Returns a note about the streams to adopt that are encrypted with a key of another account: whoever may change a stream can
/// set such a key, and the written files allow it.
fn foreign_keys(plan: &[PlannedStream]) -> Option<String> {
    let to_adopt = plan.iter().filter(|planned| planned.key.is_ok());
    let mut accounts: Vec<&str> = to_adopt
        .filter_map(|planned| match &planned.stream.encryption {
            FoundEncryption::Customer(key) if key.account != planned.stream.arn.account => {
                Some(key.account.as_str())
            }
            _ => None,
        })
        .collect();
    let count = accounts.len();
    accounts.sort_unstable();
    accounts.dedup();
    (count > 0).then(|| {
        format!(
            "{} {} encrypted with a key of another account ({}): check the key before you allow it.",
            steps::streams(count),
            steps::are(count),
            accounts.join(", ")
        )
    })
}

fn problems(survey: &PlaceSurvey) -> Vec<String> {
    let place = &survey.place;
    let named = |problem: &String| format!("{} {}: {problem}", place.account.account, place.region);
    survey.problems.iter().map(named).collect()
}

fn row(planned: &PlannedStream, adoption: &Adoption) -> Row {
    let stream = &planned.stream;
    let owners: Vec<String> = stream.owners.iter().flatten().map(ToString::to_string).collect();
    Row {
        account: stream.arn.account.to_string(),
        region: stream.arn.region.to_string(),
        service: stream.arn.service,
        name: stream.arn.name().to_owned(),
        arn: stream.arn.to_string(),
        state: stream.encryption.state(),
        active_key: stream.encryption.key(),
        managed_by: (!owners.is_empty()).then(|| owners.join(", ")),
        stream_encryption: planned.managed_by.clone(),
        manifest: adoption.layout.manifests.get(&stream.arn).cloned(),
        left_out: planned.key.as_ref().err().cloned(),
    }
}

fn summary(survey: &PlaceSurvey, adoption: &Adoption) -> Summary {
    let of_place = || adoption.plan.iter().filter(|planned| planned.place == survey.place);
    let count = |state: &str| of_place().filter(|planned| planned.stream.encryption.state() == state).count();
    let mut other_tools = BTreeMap::new();
    for planned in of_place() {
        let mut tools: Vec<&'static str> = planned.stream.owners.iter().flatten().map(tool).collect();
        tools.sort_unstable();
        tools.dedup();
        for tool in tools {
            *other_tools.entry(tool).or_default() += 1;
        }
    }
    Summary {
        account: survey.place.account.account.to_string(),
        region: survey.place.region.to_string(),
        streams: of_place().count(),
        encrypted: count("Encrypted"),
        plaintext: count("Plaintext"),
        not_encryptable: count("NotEncryptable"),
        unknown: count("Unknown"),
        managed: of_place().filter(|planned| planned.managed_by.is_some()).count(),
        other_tools,
        to_adopt: of_place().filter(|planned| planned.key.is_ok()).count(),
    }
}

fn tool(owner: &Owner) -> &'static str {
    match owner {
        Owner::CloudFormation(_) => "CloudFormation",
        Owner::Cdk => "CDK",
        Owner::Ack(_) => "ACK",
        Owner::Crossplane(_) => "Crossplane",
        Owner::Hint { .. } => "tags",
    }
}

fn table(rows: &[Row], format: Format) -> Table {
    let wide = format == Format::Wide;
    let mut headings = vec!["ACCOUNT", "REGION", "STREAM", "STATE", "ACTIVE KEY", "MANAGED BY", "ADOPT"];
    headings.extend(wide.then_some("ARN"));
    let mut table = Table::new(headings);
    for row in rows {
        let resource = row.stream_encryption.as_ref().map(|resource| format!("StreamEncryption {resource}"));
        let managed: Vec<&str> = resource.iter().chain(&row.managed_by).map(String::as_str).collect();
        let managed = if managed.is_empty() { NONE.to_owned() } else { managed.join(", ") };
        let mut cells = vec![
            Cell::from(&row.account),
            Cell::from(&row.region),
            Cell::from(format!("{}/{}", profile(row.service).arn_service, row.name)),
            Cell::toned(row.state, tone(row.state)),
            Cell::from(row.active_key.as_deref().map_or(NONE.to_owned(), |key| short(key, row, wide))),
            Cell::from(managed),
            Cell::from(adopt(row)),
        ];
        cells.extend(wide.then(|| Cell::from(&row.arn)));
        table.push(cells);
    }
    table
}

/// Returns whether a stream is taken over, and otherwise why not.
fn adopt(row: &Row) -> String {
    match (&row.left_out, &row.stream_encryption) {
        (None, _) => "yes".to_owned(),
        (Some(_), Some(_)) => "no".to_owned(),
        (Some(why), None) => format!("no: {why}"),
    }
}

/// Returns the id of a key of the stream's account, and any other key as it is: an id does not show whose key it is.
fn short(key: &str, row: &Row, wide: bool) -> String {
    match key.parse::<KeyArn>() {
        Ok(arn) if !wide && arn.account.as_str() == row.account => arn.id().to_owned(),
        _ => key.to_owned(),
    }
}

fn tone(state: &str) -> Tone {
    match state {
        "Encrypted" => Tone::Good,
        "Plaintext" => Tone::Bad,
        "Unknown" => Tone::Notice,
        _ => Tone::Plain,
    }
}

fn summary_table(summary: &[Summary]) -> Table {
    let mut table = Table::new(vec![
        "ACCOUNT",
        "REGION",
        "STREAMS",
        "ENCRYPTED",
        "PLAINTEXT",
        "NOT ENCRYPTABLE",
        "UNKNOWN",
        "MANAGED",
        "OTHER TOOLS",
        "TO ADOPT",
    ]);
    for one in summary {
        let tools: Vec<String> =
            one.other_tools.iter().map(|(tool, count)| format!("{tool} {count}")).collect();
        let plaintext = if one.plaintext == 0 { Tone::Plain } else { Tone::Bad };
        table.push(vec![
            Cell::from(&one.account),
            Cell::from(&one.region),
            Cell::from(one.streams.to_string()),
            Cell::from(one.encrypted.to_string()),
            Cell::toned(one.plaintext.to_string(), plaintext),
            Cell::from(one.not_encryptable.to_string()),
            Cell::from(one.unknown.to_string()),
            Cell::from(one.managed.to_string()),
            Cell::from(if tools.is_empty() { NONE.to_owned() } else { tools.join(", ") }),
            Cell::from(one.to_adopt.to_string()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::steps::tests::adoption;
    use super::*;
    use crate::adopt::keys::ManifestKey;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn key_of_another_account_is_shown_and_noted() {
        let foreign = format!("arn:aws:kms:eu-west-1:999988887777:key/{ID}");
        let own = foreign.replace("999988887777", "111122223333");
        let note = |plan: &[PlannedStream]| foreign_keys(plan).unwrap_or_default();
        for (key, shown, is_foreign) in [(&foreign, foreign.as_str(), true), (&own, ID, false)] {
            let mut adoption = adoption(0);
            adoption.plan[0].stream.encryption = FoundEncryption::Customer(key.parse().unwrap());
            adoption.plan[0].key = Ok(ManifestKey::Arn(key.parse().unwrap()));
            let mut printed = Vec::new();
            table(&[row(&adoption.plan[0], &adoption)], Format::Table).write(&mut printed).unwrap();
            let printed = String::from_utf8(printed).unwrap();
            assert!(printed.contains(&format!(" {shown} ")), "{printed}");
            let one = "1 stream is encrypted with a key of another account (999988887777): check the key before you allow it.";
            assert_eq!(note(&adoption.plan), if is_foreign { one } else { "" });
            adoption.plan.push(adoption.plan[0].clone());
            let two = "2 streams are encrypted with a key of another account (999988887777):";
            assert_eq!(note(&adoption.plan).starts_with(two), is_foreign);
            for planned in &mut adoption.plan {
                planned.key = Err("a StreamEncryption manages it".to_owned());
            }
            assert_eq!(note(&adoption.plan), "", "no file allows the key");
        }
    }
}
