//! Tests the kustomize components: their files are generated from the chart, and added to `config/default` they
//! create what the chart creates.

use packages::objects::{NAMESPACE, RELEASE, by_name};
use packages::programs::run_helm;
use packages::{CHART, kept, text};
use serde_json::{Value, json};

use crate::documents::blocks;
use crate::stage::{chart, kustomized_beside_clone};

const ABOUT: &str = "# Generated from the chart by UPDATE_PACKAGES=1 cargo test -p packages.\n";

/// Returns the values that enable every component.
fn values() -> Value {
    json!({"serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true},
           "grafanaDashboard": {"enabled": true}, "networkPolicy": {"enabled": true}})
}

/// Returns the only object of a template, as Helm prints it, without what only concerns Helm.
async fn object(template: &str) -> String {
    let file = format!("templates/{template}.yaml");
    let arguments =
        ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-", "--show-only", &file];
    let printed = run_helm(&arguments, &values().to_string(), None).await.expect("it renders");
    let lines = printed.lines().filter(|line| {
        let word = line.trim_start();
        !["---", "# Source: ", "helm.sh/chart: ", "app.kubernetes.io/managed-by: "]
            .iter()
            .any(|beginning| word.starts_with(beginning))
    });
    lines.fold(ABOUT.to_owned(), |text, line| text + line + "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn component_files_match_chart() {
    for (template, file) in [
        ("servicemonitor", "monitoring/service_monitor"),
        ("prometheusrule", "monitoring/prometheus_rule"),
        ("dashboard", "monitoring/dashboard"),
        ("networkpolicy", "network-policy/network_policy"),
    ] {
        kept(&format!("config/components/{file}.yaml"), &object(template).await);
    }
}

/// The kustomization of the page, in the reader's folder beside the clone of the repository.
#[tokio::test(flavor = "multi_thread")]
async fn components_and_default_match_chart() {
    let page = text("docs/install.md");
    let written = blocks(&page, "yaml components");
    assert_eq!(written.len(), 1);
    let mut ours = by_name(&kustomized_beside_clone("components", written[0]).await);
    ours.remove("Namespace/stream-encryption-system").expect("the namespace");
    let mut charts = by_name(&chart(values()).await);
    charts.remove("Pod/stream-encryption-operator-test").expect("the pod of `helm test`");
    assert_eq!(charts, ours);
}
