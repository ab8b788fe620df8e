//! The metrics that `docs/metrics.md` documents.

use std::collections::BTreeMap;

/// The documentation of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// gauge, counter or histogram.
    pub kind: String,
    pub labels: Vec<String>,
}

/// Beginnings of the names of metrics: of the operator's, and of those that kube-state-metrics exports.
pub const PREFIXES: [&str; 2] = ["stream_encryption_", "kube_streamencryption_"];

/// Returns every documented metric by its name as scraped.
pub fn documented() -> BTreeMap<String, Metric> {
    let page = crate::text("docs/metrics.md");
    let found: BTreeMap<String, Metric> = page.lines().filter_map(line).collect();
    assert!(found.len() > 10, "docs/metrics.md is read wrongly: {found:?}");
    found
}

/// Parses one line of the table.
fn line(line: &str) -> Option<(String, Metric)> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
    let [name, kind, labels, ..] = cells[..] else { return None };
    let name = name.trim_matches('`');
    PREFIXES.iter().find(|prefix| name.starts_with(**prefix))?;
    let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
    let metric = Metric { kind: kind.to_owned(), labels: labels.filter(|label| !label.is_empty()).collect() };
    Some((name.to_owned(), metric))
}
