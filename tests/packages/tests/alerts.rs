//! Tests the alerts: their metrics exist, they fire when they should, and each has a runbook.

use std::collections::BTreeSet;
use std::fs;

use packages::metrics::documented;
use packages::objects::{only, word};
use packages::programs::run_promtool;
use packages::{path, promql, text};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::chart;

const RUNBOOKS: &str =
    "https://github.com/stream-encryption-operator/stream-encryption-operator/blob/main/docs/runbooks";

/// Returns the rule file for these chart values, including `prometheusRule`.
async fn rule_file(mut values: Value) -> Value {
    values["prometheusRule"]["enabled"] = json!(true);
    only(&chart(values).await, "PrometheusRule")["spec"].clone()
}

async fn alerts() -> Vec<Value> {
    let file = rule_file(json!({})).await;
    let alerts = file["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(alerts.len() > 6);
    alerts
}

/// Creates a folder with the rule file, as `rules.yaml`.
fn folder_with(rules: &Value) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("rules.yaml"), rules.to_string()).expect("it is written");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_use_documented_metrics_and_labels() {
    let known = documented();
    for alert in alerts().await {
        let query = word(&alert["expr"]);
        assert!(!promql::names(query).is_empty(), "{}", alert["alert"]);
        assert_eq!(promql::unknown(query, &known), Vec::<String>::new(), "{}: {query}", alert["alert"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_rules_for_all_values() {
    for values in [
        json!({}),
        json!({"driftIntervalSeconds": 86400, "events": {"driftIntervalSeconds": 86400}, "defaultPolicy": {"maxCallsPerDay": 1}, "prometheusRule": {"plaintextSeconds": 1, "callsLeft": 0}}),
    ] {
        let folder = folder_with(&rule_file(values).await);
        run_promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"], folder.path())
            .await
            .expect("the rules are good");
    }
}

/// A shard without a leader is not hidden by the leaders of other shards in its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_a_release_are_about_its_own_service() {
    let file = rule_file(json!({"serviceMonitor": {"enabled": true}, "fullnameOverride": "shard-a"})).await;
    for alert in file["groups"][0]["rules"].as_array().expect("rules") {
        let query = word(&alert["expr"]);
        let own = query.matches(r#"namespace="stream-encryption-system",service="shard-a""#).count();
        assert!(own > 0 && own == query.matches("stream_encryption_").count(), "{query}");
    }
    run_promtool(&["check", "rules", "rules.yaml"], folder_with(&file).path()).await.expect("good rules");
}

/// Returns a file of promtool's tests.
fn alert_tests(file: &str) -> String {
    text(&format!("tests/packages/rules/{file}.test.yaml")).replace("RUNBOOKS", RUNBOOKS)
}

/// Runs these tests on a rule file.
async fn tested(rules: &Value, tests: &str) -> anyhow::Result<String> {
    let folder = folder_with(rules);
    fs::write(folder.path().join("test.yaml"), tests).expect("it is written");
    run_promtool(&["test", "rules", "test.yaml"], folder.path()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_only_when_due() {
    let tests = alert_tests("alerts");
    tested(&rule_file(json!({})).await, &tests).await.expect("the tests pass");
    for alert in alerts().await {
        let name = word(&alert["alert"]);
        assert!(tests.contains(&format!("{RUNBOOKS}/{name}.md")), "no test lets {name} fire");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
    }
}

/// One Prometheus or ruler may have the metrics of several clusters.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_two_clusters_do_not_affect_each_other() {
    let file = rule_file(json!({})).await;
    tested(&file, &alert_tests("clusters")).await.expect("the tests pass");
    for rule in file["groups"][0]["rules"].as_array().expect("rules") {
        let whole = rule.to_string();
        for part in ["by (", "on ("] {
            let all = whole.matches(part).count();
            let split = whole.matches(&format!("{part}cluster, namespace")).count();
            assert_eq!(all, split, "each {part:?} has the cluster: {rule}");
        }
        assert!(word(&rule["expr"]).contains("by (cluster, namespace"), "{rule}");
    }
}

/// The queries then select the name of the Service, and the alerts do not have that label.
#[tokio::test(flavor = "multi_thread")]
async fn no_leader_alert_of_a_service_fires_in_a_crash_loop() {
    let file = rule_file(json!({"serviceMonitor": {"enabled": true}})).await;
    tested(&file, &alert_tests("service")).await.expect("the tests pass");
}

/// Such a metric is absent until the new leader has listed the resources.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_on_leader_only_metrics_outlast_its_change() {
    // Its runbook describes a change of the leader.
    const EXCEPTIONS: [&str; 1] = ["StreamEncryptionEventsStopped"];
    let page = text("docs/metrics.md");
    let marked = page.lines().filter(|line| line.ends_with(" Leader only. |"));
    let leader_only: Vec<&str> = marked.filter_map(|line| line.split('`').nth(1)).collect();
    assert!(leader_only.len() > 6, "{leader_only:?}");
    for alert in alerts().await {
        let name = word(&alert["alert"]);
        let query = word(&alert["expr"]);
        let names = promql::names(query);
        let is_leader_only = names.iter().any(|name| leader_only.contains(&name.as_str()));
        let outlasts = alert["keep_firing_for"].is_string() || query.contains("last_over_time(");
        assert!(!is_leader_only || outlasts || EXCEPTIONS.contains(&name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alert_tests_fail_on_modified_rules() {
    let file = rule_file(json!({"prometheusRule": {"plaintextSeconds": 7200}})).await;
    let error = tested(&file, &alert_tests("alerts")).await.expect_err("they fail");
    assert!(format!("{error:#}").contains("StreamEncryptionPlaintext"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alert_thresholds_follow_call_limit_and_drift_interval() {
    let file = rule_file(json!({"defaultPolicy": {"maxCallsPerDay": 2}, "driftIntervalSeconds": 3600})).await;
    let query = |name: &str| {
        let rules = file["groups"][0]["rules"].as_array().expect("rules");
        word(&rules.iter().find(|rule| rule["alert"] == name).expect("the alert")["expr"]).to_owned()
    };
    assert!(query("StreamEncryptionFewCallsLeft").ends_with("<= 1"));
    assert!(query("StreamEncryptionNotReconciling").contains("[10800s]"));
}

/// With events on, a stream is described less often: the alert must not take that for a standstill.
#[tokio::test(flavor = "multi_thread")]
async fn not_reconciling_alert_waits_for_the_longest_interval() {
    for (values, short, long) in [
        (json!({}), 1800, 10_800),
        (json!({"events": {"driftIntervalSeconds": 86_400}}), 1800, 259_200),
        (json!({"driftIntervalSeconds": 7200}), 21_600, 21_600),
    ] {
        let file = rule_file(values).await;
        let rules = file["groups"][0]["rules"].as_array().expect("rules");
        let alert = rules.iter().find(|rule| rule["alert"] == "StreamEncryptionNotReconciling");
        let query = word(&alert.expect("the alert")["expr"]);
        for part in [format!("[{short}s]"), format!("[{long}s]"), format!("offset {long}s")] {
            assert!(query.contains(&part), "{part}: {query}");
        }
    }
}

/// A Prometheus that was just started has no older samples to compare with.
#[tokio::test(flavor = "multi_thread")]
async fn not_reconciling_alert_needs_a_history_of_the_interval() {
    let file = rule_file(json!({"driftIntervalSeconds": 3600})).await;
    tested(&file, &alert_tests("drift-interval")).await.expect("the tests pass");
}

/// Returns the descriptions that name resources by a query.
async fn naming_descriptions(values: Value) -> Vec<String> {
    let file = rule_file(values).await;
    let rules = file["groups"][0]["rules"].as_array().expect("rules");
    let all = rules.iter().map(|rule| word(&rule["annotations"]["description"]));
    let naming: Vec<String> = all.filter(|text| text.contains("{{ with query")).map(str::to_owned).collect();
    assert_eq!(naming.len(), 6, "{naming:?}");
    naming
}

/// The queries in the descriptions use documented metrics, and select the namespaces that the operator watches.
#[tokio::test(flavor = "multi_thread")]
async fn descriptions_name_resources_of_watched_namespaces() {
    let known = documented();
    for (values, scope) in [
        (json!({}), r#"namespace=~\".+\""#),
        (
            json!({"installScope": "namespace", "watchNamespaces": ["data", "web"]}),
            r#"namespace=~\"data|web\""#,
        ),
    ] {
        for text in naming_descriptions(values).await {
            assert!(text.contains(scope), "{text}");
            let names = promql::names(&text);
            assert!(
                !names.is_empty() && names.iter().all(|name| promql::find(name, &known).is_some()),
                "{text}"
            );
        }
    }
}

/// kube-state-metrics exports no labels of a resource, so the queries find those of the other shards, too.
#[tokio::test(flavor = "multi_thread")]
async fn descriptions_of_label_shard_say_that_they_name_all_shards() {
    for (values, before_names) in [
        (json!({}), "}} Resources (at most 10): {{"),
        (json!({"watchLabelSelector": "shard=a"}), "}} Resources of all shards (at most 10): {{"),
    ] {
        for text in naming_descriptions(values).await {
            assert!(text.contains(before_names), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_runbooks_match() {
    let mut named = BTreeSet::new();
    for alert in alerts().await {
        let name = word(&alert["alert"]).to_owned();
        assert_eq!(alert["annotations"]["runbook_url"], format!("{RUNBOOKS}/{name}.md"));
        let page = text(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["\n## Diagnosis\n", "\n## Resolution\n"] {
            assert!(page.contains(part), "docs/runbooks/{name}.md has no {part:?}");
        }
        named.insert(name);
    }
    let there: BTreeSet<String> = fs::read_dir(path("docs/runbooks"))
        .expect("docs/runbooks")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .map(|file| file.trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(named, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_page_lists_every_alert_with_its_severity() {
    let page = text("docs/metrics.md");
    let (mut listed, alerts) = (0, alerts().await);
    for alert in &alerts {
        let name = word(&alert["alert"]);
        let line = format!("| [{name}](runbooks/{name}.md) | {} | ", word(&alert["labels"]["severity"]));
        listed += usize::from(page.contains(&line));
        assert!(page.contains(&line), "docs/metrics.md has no line {line:?}");
    }
    assert_eq!(page.matches("| [StreamEncryption").count(), listed);
}

/// Returns the reasons of the table in `docs/conditions.md`, each with whether it is stalled.
fn reasons() -> Vec<(String, bool)> {
    let page = text("docs/conditions.md");
    let (_, table) = page.split_once("\n## Reasons\n").expect("reasons");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let found: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[0].trim_end_matches('`').to_owned(), cells[3] == "True")
        })
        .collect();
    assert!(found.len() > 40, "{found:?}");
    found
}

/// The alert excludes only reasons that have their own alert. A typo would exclude nothing.
#[tokio::test(flavor = "multi_thread")]
async fn not_ready_alert_excludes_known_reasons_but_none_that_stalls() {
    let alerts = alerts().await;
    let alert = alerts.iter().find(|alert| alert["alert"] == "StreamEncryptionNotReady").expect("the alert");
    let (_, rest) = word(&alert["expr"]).split_once("reason!~\"").expect("reasons that are left out");
    let left_out: Vec<&str> = rest.split('"').next().expect("an end").split('|').collect();
    let reasons = reasons();
    for reason in left_out {
        let (_, stalls) = reasons.iter().find(|(name, _)| name == reason).expect(reason);
        assert!(!stalls, "{reason} requires action, and has no alert");
    }
}

/// A typo would match no resource.
#[tokio::test(flavor = "multi_thread")]
async fn aws_failing_alert_has_known_reasons_of_its_runbook() {
    let alerts = alerts().await;
    let alert =
        alerts.iter().find(|alert| alert["alert"] == "StreamEncryptionAwsFailing").expect("the alert");
    let (reasons, page) = (reasons(), text("docs/runbooks/StreamEncryptionAwsFailing.md"));
    let lists: Vec<&str> = word(&alert["expr"]).split("reason=~\"").skip(1).collect();
    let lists: Vec<&str> = lists.iter().map(|rest| rest.split('"').next().expect("an end")).collect();
    for reason in lists.iter().flat_map(|list| list.split('|')) {
        assert!(reasons.iter().any(|(name, _)| name == reason), "{reason} is unknown");
        assert!(page.contains(&format!("\n- `{reason}`: ")), "the runbook does not describe {reason}");
    }
    // The last list is that of the alert without a service, whose description names the reasons.
    for reason in lists.last().expect("reasons").split('|') {
        assert!(word(&alert["annotations"]["description"]).contains(reason), "{reason} is not in the alert");
    }
}

/// Without a filter, a command would print thousands of resources in lines of 300 characters.
#[test]
fn runbook_commands_filter_the_resources_they_print() {
    for entry in fs::read_dir(path("docs/runbooks")).expect("docs/runbooks") {
        let file = entry.expect("an entry").path();
        let page = fs::read_to_string(&file).expect("a page");
        for line in page.lines().filter(|line| line.starts_with("kubectl get strenc")) {
            assert!(line.contains(" | jq ") || line.contains(" | grep "), "{}: {line}", file.display());
        }
    }
}
