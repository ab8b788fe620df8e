//! Tests the kustomize components: their files are generated from the chart, and added to `config/default` they
//! create what the chart creates.

use packages::objects::{NAMESPACE, RELEASE, by_name, only};
use packages::programs::run_helm;
use packages::{CHART, kept, text};
use serde_json::{Value, json};

use crate::documents::blocks;
use crate::stage::{chart, kustomized_beside_clone};

/// The release of the page's Prometheus, which ignores objects without this label.
const PROMETHEUS: &str = "kube-prometheus-stack";
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

/// Returns the objects of the page's kustomization, in the reader's folder `name` beside the clone of the repository.
async fn documented(name: &str) -> Vec<Value> {
    let page = text("docs/install.md");
    let [written] = blocks(&page, "yaml components")[..] else { panic!("one kustomization") };
    kustomized_beside_clone(name, written).await
}

#[tokio::test(flavor = "multi_thread")]
async fn components_and_default_match_chart() {
    let mut ours = by_name(&documented("components").await);
    ours.remove("Namespace/stream-encryption-system").expect("the namespace");
    let mut values = values();
    for section in ["serviceMonitor", "prometheusRule"] {
        values[section]["additionalLabels"] = json!({"release": PROMETHEUS});
    }
    let mut charts = by_name(&chart(values).await);
    charts.remove("Pod/stream-encryption-operator-test").expect("the pod of `helm test`");
    assert_eq!(charts, ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_monitoring_has_label_of_kube_prometheus_stack() {
    let page = text("docs/install.md");
    let values = blocks(&page, "yaml").into_iter().find(|yaml| yaml.contains("serviceMonitor:"));
    let values = serde_saphyr::from_str(values.expect("the values of the page")).expect("YAML");
    for objects in [chart(values).await, documented("components-labels").await] {
        for kind in ["ServiceMonitor", "PrometheusRule"] {
            assert_eq!(only(&objects, kind)["metadata"]["labels"]["release"], PROMETHEUS, "{kind}");
        }
    }
}
