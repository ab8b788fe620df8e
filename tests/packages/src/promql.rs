//! Finds the metrics and labels in a query. This is not a parser: the tests also run promtool, which has one.

use std::collections::BTreeMap;

use crate::metrics::{Metric, PREFIXES};

/// Labels that the scrape adds, not the operator. Every histogram has `le`.
const OF_THE_SCRAPE: [&str; 5] = ["cluster", "namespace", "pod", "job", "le"];

/// Returns the names in a query that `known` does not contain: metrics, and labels that none of the query's
/// metrics has.
pub fn unknown(query: &str, known: &BTreeMap<String, Metric>) -> Vec<String> {
    let metrics: Vec<(String, Option<&Metric>)> =
        names(query).into_iter().map(|name| (name.clone(), find(&name, known))).collect();
    let labels: Vec<&str> = metrics
        .iter()
        .filter_map(|(_, metric)| *metric)
        .flat_map(|metric| metric.labels.iter().map(String::as_str))
        .chain(OF_THE_SCRAPE)
        .collect();
    let missing = metrics.iter().filter(|(_, metric)| metric.is_none()).map(|(name, _)| name.clone());
    missing.chain(label_names(query).into_iter().filter(|label| !labels.contains(&label.as_str()))).collect()
}

/// Returns the metrics that a query names.
pub fn names(query: &str) -> Vec<String> {
    let word = |begin: usize| {
        query[begin..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
    };
    PREFIXES.iter().flat_map(|prefix| query.match_indices(prefix)).map(|(begin, _)| word(begin)).collect()
}

/// Returns a metric by its name in a query; a histogram is available as its three parts.
pub fn find<'a>(name: &str, known: &'a BTreeMap<String, Metric>) -> Option<&'a Metric> {
    known.get(name).filter(|metric| metric.kind != "histogram").or_else(|| {
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part))?;
        known.get(part).filter(|metric| metric.kind == "histogram")
    })
}

/// Returns the labels in braces, and those of `by (…)`, `on (…)` and `group_left (…)`.
fn label_names(query: &str) -> Vec<String> {
    let within = |opening: &str, closing: char| -> Vec<String> {
        let rests = query.split(opening).skip(1);
        rests.filter_map(|rest| rest.split(closing).next()).map(str::to_owned).collect()
    };
    let in_braces = within("{", '}').into_iter().flat_map(|inside| {
        // A value may contain a comma, but none of our values does.
        inside
            .split(',')
            .map(|one| one.split(['=', '!']).next().unwrap_or_default().trim().to_owned())
            .collect::<Vec<_>>()
    });
    let grouped = ["by (", "on (", "group_left ("].into_iter().flat_map(|opening| within(opening, ')'));
    let grouped =
        grouped.flat_map(|inside| inside.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>());
    in_braces.chain(grouped).filter(|label| !label.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeMap<String, Metric> {
        let metric = |kind: &str, labels: &[&str]| Metric {
            kind: kind.to_owned(),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        };
        BTreeMap::from([
            ("stream_encryption_a_total".to_owned(), metric("counter", &["result"])),
            ("stream_encryption_b_seconds".to_owned(), metric("histogram", &[])),
        ])
    }

    #[test]
    fn undocumented_metric_or_label_is_found() {
        let good =
            r#"sum by (pod, result) (rate(stream_encryption_a_total{namespace="x", result!~"a|b"}[5m]))"#;
        assert_eq!(unknown(good, &known()), Vec::<String>::new());
        assert_eq!(unknown("stream_encryption_a", &known()), ["stream_encryption_a"]);
        assert_eq!(unknown(r#"stream_encryption_a_total{reslut="ok"}"#, &known()), ["reslut"]);
        assert_eq!(unknown("sum by (reslut) (stream_encryption_a_total)", &known()), ["reslut"]);
        assert_eq!(unknown("kube_streamencryption_a", &known()), ["kube_streamencryption_a"]);
    }

    #[test]
    fn histogram_is_known_by_its_parts_only() {
        assert_eq!(
            unknown("sum by (le) (stream_encryption_b_seconds_bucket)", &known()),
            Vec::<String>::new()
        );
        assert_eq!(unknown("stream_encryption_b_seconds", &known()), ["stream_encryption_b_seconds"]);
    }
}
