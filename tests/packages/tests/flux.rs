//! Tests the health check expressions of `docs/gitops.md` with the evaluator of Flux, and that the `HelmRelease` in
//! `config/flux` installs the chart.

use packages::objects::{NAMESPACE, RELEASE, only, parsed};
use packages::programs::flux_statuses;
use packages::{CHART, text};
use serde_json::{Value, json};

use crate::documents::blocks;
use crate::stage::chart;

/// Returns the entry of the page for our kind.
fn check() -> Value {
    let page = text("docs/gitops.md");
    let value: Value = serde_saphyr::from_str(blocks(&page, "yaml flux-health")[0]).expect("YAML");
    let check = value["healthCheckExprs"][0].clone();
    assert_eq!(
        (&check["apiVersion"], &check["kind"]),
        (&json!("streamencryption.dev/v1alpha1"), &json!("StreamEncryption"))
    );
    check
}

/// Returns a resource of generation 2 with this observed generation and these conditions.
fn resource(observed: i64, conditions: &[(&str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason}))
        .collect();
    let mut status = json!({"observedGeneration": observed});
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
           "metadata": {"name": "orders", "namespace": "data", "generation": 2}, "status": status})
}

/// Returns the rows of the table of reasons: the reason, and the statuses of Ready, Reconciling and Stalled.
fn reasons() -> Vec<[String; 4]> {
    let page = text("docs/conditions.md");
    let (_, table) = page.split_once("\n## Reasons\n").expect("reasons");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let found: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            [cells[0].trim_end_matches('`'), cells[1], cells[2], cells[3]].map(str::to_owned)
        })
        .collect();
    assert!(found.len() > 40, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_health_of_every_reason_is_as_documented() {
    let mut cases = Vec::new();
    for [reason, ready, reconciling, stalled] in reasons() {
        // A suspended resource keeps its status.
        let statuses =
            if ready == "as before" { vec!["True", "False", "Unknown"] } else { vec![ready.as_str()] };
        for status in statuses {
            let all = [("Ready", status), ("Reconciling", &reconciling), ("Stalled", &stalled)];
            let conditions: Vec<_> = all
                .into_iter()
                .filter(|(_, status)| *status != "-")
                .map(|(kind, status)| (kind, status, &*reason))
                .collect();
            let expected = match (stalled.as_str(), status, reason.as_str()) {
                ("True", ..) => "Failed",
                (_, "True", _) | (_, _, "Suspended" | "Drifted") => "Current",
                _ => "InProgress",
            };
            cases.push((resource(2, &conditions), expected));
        }
    }
    cases.push((resource(-1, &[]), "InProgress"));
    cases.push((resource(2, &[]), "InProgress"));
    cases.push((resource(1, &[("Ready", "True", "Encrypted")]), "InProgress"));
    let resources: Vec<&Value> = cases.iter().map(|(resource, _)| resource).collect();
    let statuses = flux_statuses(&json!({"check": check(), "resources": resources})).await.expect("statuses");
    assert_eq!(statuses.len(), cases.len());
    for ((resource, expected), status) in cases.iter().zip(&statuses) {
        assert_eq!(status, expected, "{resource}");
    }
    let of = |wanted: &str| cases.iter().filter(|(_, status)| *status == wanted).count();
    assert!(of("Failed") > 5 && of("Current") > 5 && of("InProgress") > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_rejects_unknown_field_and_wrong_expression() {
    let asked = |field: &str, value: &str| {
        let mut check = check();
        check[field] = json!(value);
        json!({"check": check, "resources": [resource(2, &[("Ready", "True", "Encrypted")])]})
    };
    for (field, value, words) in [("curent", "true", "unknown field"), ("failed", "has(", "failed")] {
        let error = format!("{:#}", flux_statuses(&asked(field, value)).await.expect_err("it is rejected"));
        assert!(error.contains(words), "{error}");
    }
}

/// Returns the spec of the object of this kind in `config/flux`.
fn spec(kind: &str) -> Value {
    let objects = parsed(&text("config/flux/helmrelease.yaml")).expect("YAML");
    assert_eq!(objects.len(), 2);
    let object = only(&objects, kind);
    assert_eq!(object["metadata"], json!({"name": RELEASE, "namespace": "flux-system"}), "{kind}");
    object["spec"].clone()
}

/// The kinds belong to Flux, so the test API server does not know them.
#[tokio::test(flavor = "multi_thread")]
async fn helm_release_installs_chart_of_this_version() {
    let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
    let url = "https://github.com/stream-encryption-operator/stream-encryption-operator.git";
    assert_eq!(spec("GitRepository"), json!({"interval": "10m", "url": url, "ref": {"tag": tag}}));

    let mut release = spec("HelmRelease");
    let values = release.as_object_mut().and_then(|spec| spec.remove("values")).expect("values");
    let source = json!({"kind": "GitRepository", "name": RELEASE});
    let template =
        json!({"chart": format!("./{CHART}"), "reconcileStrategy": "Revision", "sourceRef": source});
    // By default, Flux gives up after one failure, and restores no object that somebody deleted or changed.
    // Without `upgrade.remediation`, it rolls no upgrade back.
    let strategy = json!({"name": "RetryOnFailure"});
    let expected = json!({"interval": "10m", "releaseName": RELEASE, "targetNamespace": NAMESPACE,
        "install": {"createNamespace": true, "strategy": strategy}, "upgrade": {"strategy": strategy},
        "driftDetection": {"mode": "enabled"}, "chart": {"spec": template}});
    assert_eq!(release, expected);

    let expected = json!({"aws": {"region": "eu-west-1"},
        "image": {"repository": "registry.example.com/stream-encryption-operator"}});
    assert_eq!(values, expected);
    chart(values).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gitops_files_disable_default_policy_once_uncommented() {
    for (file, values) in [
        ("config/flux/helmrelease.yaml", "/spec/values"),
        ("config/argocd/application-operator.yaml", "/spec/source/helm/valuesObject"),
    ] {
        let uncommented = text(file).replace("# defaultPolicy: ", "defaultPolicy: ");
        let objects = parsed(&uncommented).expect(file);
        let values = objects.last().and_then(|object| object.pointer(values)).expect(file);
        assert_eq!(values["defaultPolicy"], json!({"enabled": false}), "{file}");
        chart(values.clone()).await;
    }
}
