//! Tests the pages about installation and contribution: the chart accepts their YAML, and their links are
//! valid.

use std::fs;

use packages::objects::render;
use packages::{CHART, path, text};
use serde_json::Value;

use crate::stage::would_take;

/// Returns the fenced blocks of a page in this language.
pub(crate) fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    page.split(opening.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_values_and_objects_are_accepted() {
    for (page, count) in [
        ("events", 2),
        ("iam", 1),
        ("install", 4),
        ("kubectl-plugin", 1),
        ("metrics", 2),
        ("performance", 1),
        ("policies", 5),
        ("proxy", 4),
        ("sharding", 4),
    ] {
        let text = text(&format!("docs/{page}.md"));
        let yamls = blocks(&text, "yaml");
        assert_eq!(yamls.len(), count, "{page}");
        for yaml in yamls {
            let value: Value = serde_saphyr::from_str(yaml).expect("YAML");
            if value["kind"].is_string() {
                would_take(&[value]).await.expect("the API server accepts it");
            } else {
                render(&value).await.expect("the chart accepts the values");
            }
        }
    }
}

#[test]
fn repository_links_are_valid() {
    const REPOSITORY: &str =
        "https://github.com/stream-encryption-operator/stream-encryption-operator/blob/main/";
    let runbooks = fs::read_dir(path("docs/runbooks")).expect("docs/runbooks");
    let runbooks = runbooks.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let runbooks: Vec<String> = runbooks.map(|name| format!("docs/runbooks/{name}")).collect();
    let (readme, about) = (format!("{CHART}/README.md"), format!("{CHART}/Chart.yaml"));
    let pages = [
        ("README.md", "."),
        ("CONTRIBUTING.md", "."),
        ("SECURITY.md", "."),
        ("CHANGELOG.md", "."),
        ("docs/install.md", "docs"),
        ("docs/events.md", "docs"),
        ("docs/metrics.md", "docs"),
        ("docs/policies.md", "docs"),
        ("docs/proxy.md", "docs"),
        ("docs/gitops.md", "docs"),
        ("docs/README.md", "docs"),
        ("docs/settings.md", "docs"),
        ("docs/beside.md", "docs"),
        ("docs/releases.md", "docs"),
        ("docs/sharding.md", "docs"),
        ("docs/performance.md", "docs"),
        ("docs/keys.md", "docs"),
        ("docs/iam.md", "docs"),
        ("docs/security.md", "docs"),
        ("docs/versions.md", "docs"),
        ("docs/architecture.md", "docs"),
        (&*readme, CHART),
        (&about, CHART),
    ];
    for (page, folder) in
        pages.into_iter().chain(runbooks.iter().map(|page| (page.as_str(), "docs/runbooks")))
    {
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
        assert!(followed > 0 || folder == "docs/runbooks", "{page} has no links");
    }
}
