//! The output of the verbs: tables for people, JSON, YAML and CSV for scripts. Decides nothing about streams.
//!
//! Colours are written only to a terminal, and never if `NO_COLOR` is set. The machine-readable formats hold the same
//! rows, with all fields and with times in RFC 3339. Texts of others, such as messages of conditions, must not control a
//! terminal: cells, notices, CSV, JSON and YAML escape them, and the verbs write other texts by [`printable`].

use std::fmt;
use std::io::{self, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

pub(super) use crate::telemetry::{printable, printable_json};

/// The formats of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Comma-separated values, with a line of headings.
    Csv,
}

/// The formats of a list whose table has no more columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    /// A table or text.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Comma-separated values, with a line of headings.
    Csv,
}

impl From<ListFormat> for Format {
    fn from(format: ListFormat) -> Self {
        match format {
            ListFormat::Table => Self::Table,
            ListFormat::Json => Self::Json,
            ListFormat::Yaml => Self::Yaml,
            ListFormat::Csv => Self::Csv,
        }
    }
}

/// The formats of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ValueFormat {
    /// Text.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The meaning of a cell, which decides its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Neither good nor bad.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Changing, or worth a look.
    Notice,
    /// A problem.
    Bad,
}

impl Tone {
    /// Returns the colour.
    pub(super) fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Notice => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// A cell of a table. Its text is printable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Creates a cell with a colour.
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: printable(&text.into()).into_owned(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// What stands in a cell without a value.
pub(super) const NONE: &str = "-";

/// A table as kubectl prints it: headings in capitals, columns as wide as their content.
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Creates a table with these columns.
    pub(super) fn new(headings: Vec<&'static str>) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.headings.len());
        self.rows.push(row);
    }

    /// Returns the widths of the columns.
    pub(super) fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.chain([self.headings[column].len()]).max().unwrap_or_default()
        };
        (0..self.headings.len()).map(width).collect()
    }

    /// Writes the headings and all rows.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let widths = self.widths();
        let headings: Vec<Cell> = self.headings.iter().map(|heading| Cell::from(*heading)).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            write_row(out, row, &widths)?;
        }
        Ok(())
    }
}

/// Writes one row in columns of these widths; a longer cell moves the rest of its row.
pub(super) fn write_row(out: &mut impl Write, row: &[Cell], widths: &[usize]) -> io::Result<()> {
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        let style = cell.tone.style();
        write!(out, "{style}{}{style:#}", cell.text)?;
        if at + 1 < row.len() {
            let padding = width.saturating_sub(cell.text.chars().count()) + 3;
            write!(out, "{:padding$}", "")?;
        }
    }
    writeln!(out)
}

/// Returns the standard output: with colours on a terminal, without them elsewhere. A reader that leaves early, such as
/// `head`, is no error, and does not change the exit code of what was found.
pub(super) fn stdout() -> UntilClosed<AutoStream<io::StdoutLock<'static>>> {
    UntilClosed::of(AutoStream::auto(io::stdout().lock()))
}

/// Prints a sentence to the standard error, on one line. If nobody reads it, it is lost.
pub(super) fn notice(sentence: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&sentence.to_string()));
}

/// A writer that discards everything once its reader has left.
pub(super) struct UntilClosed<W> {
    out: W,
    is_closed: bool,
}

impl<W: Write> UntilClosed<W> {
    /// Creates a writer to `out`.
    pub(super) fn of(out: W) -> Self {
        Self { out, is_closed: false }
    }

    /// Returns whether the reader is known to have left.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn unless_closed<T>(
        &mut self,
        discarded: T,
        write: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_closed {
            return Ok(discarded);
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(discarded)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for UntilClosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), W::flush)
    }
}

/// Writes rows in a machine-readable format. Returns `false` for the formats that are tables.
pub(super) fn write_rows<T: Columns>(
    out: &mut impl Write,
    format: Format,
    rows: &[T],
) -> anyhow::Result<bool> {
    match format {
        Format::Table | Format::Wide => return Ok(false),
        Format::Json => write_json(out, &serde_json::to_string_pretty(rows)?)?,
        Format::Yaml => write_yaml(out, &rows)?,
        Format::Csv => write_csv(out, rows)?,
    }
    Ok(true)
}

/// Writes one row of a list that has no end, after others: a line of JSON, a document of YAML, or a line of CSV. Returns
/// `false` for the formats that are tables.
pub(super) fn write_next<T: Columns>(out: &mut impl Write, format: Format, row: &T) -> anyhow::Result<bool> {
    match format {
        Format::Table | Format::Wide => return Ok(false),
        Format::Json => write_json(out, &serde_json::to_string(row)?)?,
        Format::Yaml => {
            writeln!(out, "---")?;
            write_yaml(out, row)?;
        }
        Format::Csv => write_csv_row(out, row)?,
    }
    Ok(true)
}

/// Writes one value in a machine-readable format. Returns `false` for text.
pub(super) fn write_value<T: Serialize>(
    out: &mut impl Write,
    format: ValueFormat,
    value: &T,
) -> anyhow::Result<bool> {
    match format {
        ValueFormat::Text => return Ok(false),
        ValueFormat::Json => write_json(out, &serde_json::to_string_pretty(value)?)?,
        ValueFormat::Yaml => write_yaml(out, value)?,
    }
    Ok(true)
}

fn write_json(out: &mut impl Write, json: &str) -> io::Result<()> {
    writeln!(out, "{}", printable_json(json))
}

fn write_yaml(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    let yaml = serde_saphyr::to_string(value)?;
    if printable_json(&yaml) == yaml {
        write!(out, "{yaml}")?;
    } else {
        // The serializer does not escape characters that change the direction of text. JSON is YAML, too.
        write_json(out, &serde_json::to_string_pretty(value)?)?;
    }
    Ok(())
}

/// Rows that have a CSV form: its columns are the same whatever the rows hold, so that scripts can rely on them.
pub(super) trait Columns: Serialize {
    /// The names of the fields that are columns, in their order. Lists and objects have no place in a table.
    fn columns() -> Vec<&'static str>;
}

/// Writes CSV, with a line of headings. A cell that a spreadsheet would take for a formula begins with an apostrophe.
fn write_csv<T: Columns>(out: &mut impl Write, rows: &[T]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(T::columns())?;
    rows.iter().try_for_each(|row| write_record(&mut writer, row))?;
    writer.flush()?;
    Ok(())
}

/// Writes a row of CSV after others, without the headings.
fn write_csv_row<T: Columns>(out: &mut impl Write, row: &T) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    write_record(&mut writer, row)?;
    writer.flush()?;
    Ok(())
}

fn write_record<T: Columns>(writer: &mut csv::Writer<impl Write>, row: &T) -> anyhow::Result<()> {
    let row = serde_json::to_value(row)?;
    writer.write_record(T::columns().iter().map(|column| match &row[column] {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => printable(&without_formula(text)).into_owned(),
        other => other.to_string(),
    }))?;
    Ok(())
}

/// Returns a text that a spreadsheet shows instead of evaluating it
/// ([CSV injection](https://owasp.org/www-community/attacks/CSV_Injection)).
fn without_formula(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        calls: Option<u32>,
        list: Vec<u32>,
    }

    impl Columns for Row {
        fn columns() -> Vec<&'static str> {
            vec!["name", "calls"]
        }
    }

    fn rows() -> [Row; 2] {
        [
            Row { name: "=cmd()", calls: None, list: vec![1] },
            Row { name: "a,\"b\"", calls: Some(3), list: Vec::new() },
        ]
    }

    #[test]
    fn table_has_columns_as_wide_as_content() {
        let mut table = Table::new(vec!["NAME", "STATE", "KEY"]);
        table.push(vec!["orders".into(), Cell::toned("Plaintext", Tone::Bad), NONE.into()]);
        table.push(vec!["x".into(), Cell::toned("Encrypted", Tone::Good), "own".into()]);
        let mut out = anstream::StripStream::new(Vec::new());
        table.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out.into_inner()).unwrap(),
            "NAME     STATE       KEY\norders   Plaintext   -\nx        Encrypted   own\n"
        );
    }

    /// A tenant writes the name of a stream, and AWS quotes its callers.
    #[test]
    fn control_characters_of_others_are_escaped_in_each_format() {
        let row = Row { name: "a\u{1b}]0;x\u{7}\nb\u{9b}\u{202e}c", calls: None, list: Vec::new() };
        let mut table = Table::new(vec!["NAME"]);
        table.push(vec![row.name.into()]);
        let mut out = anstream::StripStream::new(Vec::new());
        table.write(&mut out).unwrap();
        let table = String::from_utf8(out.into_inner()).unwrap();
        assert_eq!(table, "NAME\na\\u{1b}]0;x\\u{7}\\nb\\u{9b}\\u{202e}c\n");
        for format in [Format::Csv, Format::Json, Format::Yaml] {
            let mut out = Vec::new();
            write_rows(&mut out, format, std::slice::from_ref(&row)).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{format:?}: {text:?}");
        }
    }

    #[test]
    fn escapes_of_json_and_yaml_keep_the_text() {
        for name in ["a\u{9b}2J", "x\u{202e}y\u{2069}", "x\u{2066}\n\u{1b}"] {
            let row = Row { name, calls: None, list: Vec::new() };
            for format in [Format::Json, Format::Yaml] {
                let mut out = Vec::new();
                write_next(&mut out, format, &row).unwrap();
                let text = String::from_utf8(out).unwrap();
                assert_eq!(printable_json(&text), text);
                let read: serde_json::Value = match format {
                    Format::Json => serde_json::from_str(&text).unwrap(),
                    _ => serde_saphyr::from_str(&text).unwrap(),
                };
                assert_eq!(read["name"], name, "{text}");
            }
        }
    }

    #[test]
    fn csv_has_the_columns_and_no_formula() {
        let mut out = Vec::new();
        write_rows(&mut out, Format::Csv, &rows()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name,calls\n'=cmd(),\n\"a,\"\"b\"\"\",3\n");
        let mut later = Vec::new();
        write_csv_row(&mut later, &rows()[1]).unwrap();
        assert_eq!(String::from_utf8(later).unwrap(), "\"a,\"\"b\"\"\",3\n");
    }

    #[test]
    fn output_without_a_reader_is_discarded() {
        struct Closing(Vec<u8>);
        impl Write for Closing {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if !self.0.is_empty() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                self.0.extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = UntilClosed::of(Closing(Vec::new()));
        for line in ["first", "second", "third"] {
            out.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(out.out.0, b"first");
    }

    #[test]
    fn json_and_yaml_have_every_field() {
        for (format, words) in [(Format::Json, "\"list\": ["), (Format::Yaml, "list:")] {
            let mut out = Vec::new();
            assert!(write_rows(&mut out, format, &rows()).unwrap());
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(words), "{text}");
        }
        assert!(!write_rows(&mut Vec::new(), Format::Table, &rows()).unwrap());
    }
}
