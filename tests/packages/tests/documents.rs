//! Tests the pages about installation: the chart accepts their YAML, and their links are valid.

use packages::objects::render;
use packages::{CHART, path, text};
use serde_json::Value;

/// Returns the fenced blocks of a page in this language.
pub(crate) fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    page.split(opening.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_values_are_chart_values() {
    let pages = text("docs/install.md") + &text("docs/metrics.md") + &text("docs/performance.md");
    let values = blocks(&pages, "yaml");
    assert_eq!(values.len(), 5);
    for yaml in values {
        let values: Value = serde_saphyr::from_str(yaml).expect("YAML");
        render(&values).await.expect("the chart accepts the values");
    }
}

#[test]
fn repository_links_are_valid() {
    const REPOSITORY: &str =
        "https://github.com/stream-encryption-operator/stream-encryption-operator/blob/main/";
    for (page, folder) in [
        ("docs/install.md", "docs"),
        ("docs/metrics.md", "docs"),
        ("docs/policies.md", "docs"),
        ("docs/README.md", "docs"),
        ("docs/settings.md", "docs"),
        ("docs/beside.md", "docs"),
        ("docs/releases.md", "docs"),
        ("docs/sharding.md", "docs"),
        ("docs/performance.md", "docs"),
        ("docs/keys.md", "docs"),
        ("docs/iam.md", "docs"),
        (&format!("{CHART}/README.md"), CHART),
        (&format!("{CHART}/Chart.yaml"), CHART),
    ] {
        let text = text(page);
        let relative = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let absolute = text.split(REPOSITORY).skip(1).filter_map(|rest| rest.split([')', '#', '\n']).next());
        let mut followed = 0;
        for link in relative.filter(|link| !link.starts_with("http") && !link.is_empty()) {
            assert!(path(folder).join(link).exists(), "{page}: {link}");
            followed += 1;
        }
        for link in absolute {
            assert!(path(link).is_file(), "{page}: {link}");
            followed += 1;
        }
        assert!(followed > 0, "{page} has no links");
    }
}
