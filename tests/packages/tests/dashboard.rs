//! Tests the dashboard: it is JSON, its queries are valid `PromQL`, and their metrics exist.

use std::collections::BTreeSet;
use std::fs;

use packages::metrics::{PREFIXES, documented};
use packages::objects::{only, word};
use packages::programs::run_promtool;
use packages::{path, promql};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::chart;

/// Returns the dashboard from the chart's `ConfigMap`.
async fn dashboard() -> Value {
    dashboard_with(json!({"enabled": true})).await
}

async fn dashboard_with(values: Value) -> Value {
    let objects = chart(json!({"grafanaDashboard": values})).await;
    let map = only(&objects, "ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    serde_json::from_str(word(&map["data"]["stream-encryption-operator.json"])).expect("JSON")
}

/// Returns the queries of all panels, each with its panel's title.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let all: Vec<(String, String)> = panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().expect("targets").iter();
            targets
                .map(|target| (word(&panel["title"]).to_owned(), word(&target["expr"]).to_owned()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(all.len() > 10);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn panels_use_documented_metrics_and_labels() {
    let known = documented();
    for (title, query) in queries(&dashboard().await) {
        assert!(!promql::names(&query).is_empty(), "{title}");
        assert_eq!(promql::unknown(&query, &known), Vec::<String>::new(), "{title}: {query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_metric_has_a_panel() {
    let dashboard = dashboard().await;
    let shown: BTreeSet<String> =
        queries(&dashboard).iter().flat_map(|(_, query)| promql::names(query)).collect();
    // The tables show only some of what kube-state-metrics exports.
    for name in documented().into_keys().filter(|name| name.starts_with(PREFIXES[0])) {
        assert!(shown.contains(&name) || shown.contains(&format!("{name}_bucket")), "no panel shows {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_valid_promql() {
    // As recording rules, with Grafana's own variables replaced.
    let rules: Vec<Value> = queries(&dashboard().await)
        .into_iter()
        .enumerate()
        .map(|(number, (_, query))| {
            let query =
                query.replace("$cluster", ".*").replace("$namespace", "x").replace("$__rate_interval", "5m");
            assert!(!query.contains('$'), "{query}");
            json!({"record": format!("panel:{number}"), "expr": query})
        })
        .collect();
    let folder = TempDir::new().expect("a folder");
    let file = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(folder.path().join("rules.yaml"), file.to_string()).expect("it is written");
    run_promtool(&["check", "rules", "rules.yaml"], folder.path()).await.expect("they are understood");
}

/// One Prometheus may scrape several clusters. The metrics of kube-state-metrics have the namespaces of the
/// resources, not that of the operator.
#[tokio::test(flavor = "multi_thread")]
async fn queries_select_chosen_cluster_and_namespace() {
    for (title, query) in queries(&dashboard().await) {
        for metric in promql::names(&query) {
            let namespace = if metric.starts_with(PREFIXES[0]) { r#", namespace="$namespace""# } else { "" };
            let selected = format!(r#"{metric}{{cluster=~"$cluster"{namespace}"#);
            assert!(query.contains(&selected), "{title}: {query}");
        }
    }
}

/// Two clusters may have resources with the same name.
#[tokio::test(flavor = "multi_thread")]
async fn tables_have_a_row_for_each_cluster_and_name_it() {
    let dashboard = dashboard().await;
    let panels = dashboard["panels"].as_array().expect("panels");
    let tables: Vec<&Value> = panels.iter().filter(|panel| panel["type"] == "table").collect();
    assert_eq!(tables.len(), 2);
    for table in tables {
        let (title, query) = (&table["title"], word(&table["targets"][0]["expr"]));
        let by_cluster = query.matches("by (cluster, ").count();
        assert!(by_cluster > 0 && by_cluster == query.matches("by (").count(), "{title}: {query}");
        let [columns, order] = [0_usize, 1].map(|number| &table["transformations"][number]["options"]);
        let columns = columns["include"]["names"].as_array().expect("columns");
        assert!(columns.contains(&json!("cluster")), "{title}: {columns:?}");
        assert_eq!(order["indexByName"]["cluster"], 0, "{title}");
    }
}

/// The leader of each shard exports its own counts, so a maximum would hide all but one.
#[tokio::test(flavor = "multi_thread")]
async fn panels_add_the_counts_of_all_shards() {
    let queries = queries(&dashboard().await);
    for count in [
        "plaintext_streams",
        "unusable_keys",
        "aws_event_regions",
        "resources",
        "streams",
        "rate_limiter_waiting",
    ] {
        let metric = format!("{}{count}", PREFIXES[0]);
        let mut shown = 0;
        for (title, query) in &queries {
            if promql::names(query).contains(&metric) {
                assert!(query.starts_with("sum by ("), "{title}: {query}");
                shown += 1;
            }
        }
        assert!(shown > 0, "no panel shows {metric}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_to_existing_pages_and_alert_list() {
    const REPOSITORY: &str =
        "https://github.com/stream-encryption-operator/stream-encryption-operator/blob/main/";
    let dashboard = dashboard().await;
    let urls: Vec<&str> =
        dashboard["links"].as_array().expect("links").iter().map(|link| word(&link["url"])).collect();
    assert!(urls.contains(&"/alerting/list?search=StreamEncryption"), "{urls:?}");
    let pages: Vec<&str> = urls.iter().filter_map(|url| url.strip_prefix(REPOSITORY)).collect();
    assert!(pages.contains(&"docs/runbooks") && pages.len() > 2, "{urls:?}");
    for page in pages {
        assert!(path(page.split('#').next().unwrap_or_default()).exists(), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_pages_follow_docs_base_url() {
    const DOCS: &str = "https://git.example.com/operator/docs";
    let dashboard = dashboard_with(json!({"enabled": true, "docsBaseUrl": DOCS})).await;
    let links = dashboard["links"].as_array().expect("links");
    let pages: Vec<&str> = links.iter().filter_map(|link| word(&link["url"]).strip_prefix(DOCS)).collect();
    assert_eq!(pages, ["/runbooks", "/conditions.md#reasons", "/metrics.md"]);
}

/// A runbook names a panel in quotes.
#[tokio::test(flavor = "multi_thread")]
async fn panels_named_by_runbooks_exist() {
    let dashboard = dashboard().await;
    let titles: Vec<&str> =
        dashboard["panels"].as_array().expect("panels").iter().map(|panel| word(&panel["title"])).collect();
    let mut named = 0;
    for entry in fs::read_dir(path("docs/runbooks")).expect("docs/runbooks") {
        let page = fs::read_to_string(entry.expect("an entry").path()).expect("a page");
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        for mention in page.split("dashboard").skip(1) {
            let Some(title) = mention.split('"').nth(1) else { continue };
            assert!(titles.contains(&title), "no panel is called {title:?}");
            named += 1;
        }
    }
    assert!(named > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn panels_have_unique_ids_and_positions() {
    let dashboard = dashboard().await;
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{} is wider than the page", panel["title"]);
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}
