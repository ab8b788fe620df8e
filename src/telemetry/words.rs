//! Texts for logs and standard error: errors with their causes, and log records that stay on one line.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::io;

use super::LogFormat;

/// Returns an error and its causes on one line. A cause that the text already contains is not repeated.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut description = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !description.contains(&text) {
            let _ = write!(description, ": {text}");
        }
        cause = error.source();
    }
    description
}

/// Returns a text of others as a terminal can show it: on one line, without control characters, and without characters
/// that change the direction of the text around them. These are escaped.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_unprintable, LogFormat::Text)
}

/// Returns JSON as a terminal can show it, with the same lines and the same meaning: the characters that [`printable`] escapes
/// are only in strings of it, and become escapes of JSON.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escaped(json, |c| c != '\n' && is_unprintable(c), LogFormat::Json)
}

/// Returns whether a character ends a line, controls a terminal, or changes the direction of the text around it. Some readers
/// treat U+2028 and U+2029 as the end of a line.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a text with the escapes of its format.
fn escaped(text: &str, is_escaped: impl Fn(char) -> bool, format: LogFormat) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match format {
            _ if !is_escaped(c) => shown.push(c),
            LogFormat::Text => shown.extend(c.escape_default()),
            // Each of these characters has at most four digits.
            LogFormat::Json => {
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
        }
    }
    Cow::Owned(shown)
}

/// Writes each log record as exactly one line, as [`printable`] shows it.
pub(super) struct Lines<W> {
    /// The destination.
    pub(super) to: W,
    /// The format of the records.
    pub(super) format: LogFormat,
    /// Whether records have colours, which begin with an escape character. Escape characters in values are
    /// already escaped.
    pub(super) coloured: bool,
}

impl<W: io::Write> io::Write for Lines<W> {
    /// Writes a record, which arrives in one piece.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        self.to.write_all(one_line(&text, self.format, self.coloured).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn one_line(record: &str, format: LogFormat, coloured: bool) -> Cow<'_, str> {
    let (line, end) = record.strip_suffix('\n').map_or((record, ""), |line| (line, "\n"));
    match escaped(line, |c| is_unprintable(c) && !(coloured && c == '\u{1b}'), format) {
        Cow::Borrowed(_) => Cow::Borrowed(record),
        Cow::Owned(text) => Cow::Owned(text + end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_start_a_new_line() {
        for (record, line) in [
            ("INFO all is well\n", "INFO all is well\n"),
            ("INFO x\nERROR y\r\n\tz\n", "INFO x\\nERROR y\\r\\n\\tz\n"),
            ("\u{1b}[2mINFO\u{1b}[0m ü\u{85}x\u{2028}y\n", "\u{1b}[2mINFO\u{1b}[0m ü\\u{85}x\\u{2028}y\n"),
            ("x\u{202e}y\n", "x\\u{202e}y\n"),
            ("without an end\0", "without an end\\u{0}"),
        ] {
            assert_eq!(one_line(record, LogFormat::Text, true), line);
        }
        assert_eq!(one_line("\u{1b}[2m\n", LogFormat::Text, false), "\\u{1b}[2m\n");
    }

    #[test]
    fn escaped_characters_of_json_are_valid_json() {
        let text = "\u{7f}\u{85}\u{9f}\u{2028}\u{2029}ü";
        let record = serde_json::to_string(text).unwrap();
        let line = one_line(&record, LogFormat::Json, false);
        assert_eq!(line, "\"\\u007f\\u0085\\u009f\\u2028\\u2029ü\"");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn printable_json_has_the_same_lines_and_meaning() {
        let value = serde_json::json!({"a\u{9b}": "x\u{202e}y\u{2066}z\u{2028}\u{7f}\n\u{1b}ü"});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let shown = printable_json(&json);
        let expected = r#""a\u009b": "x\u202ey\u2066z\u2028\u007f\n\u001bü""#;
        assert_eq!(shown, format!("{{\n  {expected}\n}}"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn text_of_others_does_not_control_a_terminal() {
        for (text, shown) in [
            ("Grüße, \"x\" \\ 'y'", "Grüße, \"x\" \\ 'y'"),
            ("a\u{1b}[2Jb\u{9b}31m\n\u{7}", "a\\u{1b}[2Jb\\u{9b}31m\\n\\u{7}"),
            ("x\u{202e}y\u{2066}z\u{2028}", "x\\u{202e}y\\u{2066}z\\u{2028}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn error_chain_contains_each_cause_once() {
        let error = anyhow::anyhow!("refused").context("tcp: refused").context("cannot connect");
        assert_eq!(error_chain(error.as_ref()), "cannot connect: tcp: refused");
    }
}
