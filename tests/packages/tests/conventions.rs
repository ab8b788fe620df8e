//! Tests the values that charts of other operators have too, under the same names. `objects.rs` tests that the
//! API server accepts them, and `values.rs` which values are rejected.

use packages::CHART;
use packages::objects::{NAMESPACE, RELEASE, name, of_kind, only, rendered, word};
use packages::programs::run_helm;
use serde_json::{Value, json};

use crate::stage::chart;

/// Every part of the chart that is off by default.
pub(crate) fn everything() -> Value {
    json!({
        "serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "grafanaDashboard": {"enabled": true},
        "networkPolicy": {"enabled": true}, "admissionPolicy": {"enabled": true},
        "kubeStateMetrics": {"configMap": {"enabled": true}},
    })
}

/// Returns sets of values, each with a name, that together use every value of this file.
pub(crate) fn varied() -> Vec<(&'static str, Value)> {
    vec![
        (
            "values of other charts",
            json!({
                "global": {"imageRegistry": "mirror.test:5000", "imagePullSecrets": ["mirror"]},
                "namespaceOverride": "elsewhere", "deploymentAnnotations": {"reload": "true"},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "0%"}}, "revisionHistoryLimit": 3,
                "livenessProbe": {"initialDelaySeconds": 30, "failureThreshold": 6}, "readinessProbe": {"periodSeconds": 5},
                "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.10"], "searches": ["svc.cluster.local"],
                                                   "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
                "envFrom": [{"secretRef": {"name": "proxy"}}],
                "extraContainers": [{"name": "sidecar", "image": "sidecar:1"}], "extraInitContainers": [{"name": "init", "image": "init:1"}],
                "extraObjects": ["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-extra', namespace: elsewhere}\n"],
                "serviceAccount": {"labels": {"team": "data"}}, "rbac": {"aggregateToEdit": false},
                "metrics": {"service": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]}},
                "serviceMonitor": {"enabled": true, "namespace": "monitoring", "annotations": {"a": "b"}, "honorLabels": true, "sampleLimit": 5000},
                "grafanaDashboard": {"enabled": true, "namespace": "monitoring", "extraLabels": {"folder": "aws"}},
                "prometheusRule": {"enabled": true, "namespace": "monitoring"}, "podDisruptionBudget": {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
            }),
        ),
        ("the network of the nodes", json!({"hostNetwork": true, "strategy": {"type": "Recreate"}})),
    ]
}

/// Returns the Deployment with these values.
async fn deployment(values: Value) -> Value {
    only(&chart(values).await, "Deployment").clone()
}

/// Returns the specification of the operator's pods with these values.
async fn pod(values: Value) -> Value {
    deployment(values).await["spec"]["template"]["spec"].clone()
}

/// Returns the operator's container.
fn container(pod: &Value) -> &Value {
    pod["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .find(|one| one["name"] == "operator")
        .expect("it")
}

/// Returns the images of all pods, and their pull secrets.
async fn images(values: Value) -> (Vec<String>, Vec<Value>) {
    let objects = chart(values).await;
    let pods = [&only(&objects, "Deployment")["spec"]["template"]["spec"], &only(&objects, "Pod")["spec"]];
    let image = |pod: &&Value| word(&pod["containers"][0]["image"]).to_owned();
    (pods.iter().map(image).collect(), pods.iter().map(|pod| pod["imagePullSecrets"].clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_override_moves_every_object() {
    for scope in [json!({}), json!({"installScope": "namespace"})] {
        let mut values = everything();
        values.as_object_mut().expect("values").extend(scope.as_object().expect("values").clone());
        let there = chart(values.clone()).await;
        values["namespaceOverride"] = json!("elsewhere");
        let moved = chart(values).await;
        // The name of the release's namespace has no other meaning in the chart's objects.
        let expected = Value::Array(there).to_string().replace(NAMESPACE, "elsewhere");
        assert_eq!(Value::Array(moved.clone()).to_string(), expected);
        let bindings: Vec<_> = moved.iter().filter(|one| one["subjects"].is_array()).collect();
        assert!(
            bindings.len() > 1 && bindings.iter().all(|one| one["subjects"][0]["namespace"] == "elsewhere")
        );
        let selected = &only(&moved, "ServiceMonitor")["spec"]["namespaceSelector"];
        assert_eq!(*selected, json!({"matchNames": ["elsewhere"]}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn image_registry_of_parent_replaces_own() {
    for (repository, expected) in [
        (None, "mirror.test:5000/stream-encryption-operator/stream-encryption-operator:0.1.0"),
        (Some("quay.test/team/operator"), "mirror.test:5000/team/operator:0.1.0"),
        (Some("registry:5000/operator"), "mirror.test:5000/operator:0.1.0"),
        (Some("localhost/operator"), "mirror.test:5000/operator:0.1.0"),
        (Some("team/operator"), "mirror.test:5000/team/operator:0.1.0"),
        (Some("operator"), "mirror.test:5000/operator:0.1.0"),
    ] {
        let mut values = json!({"global": {"imageRegistry": "mirror.test:5000"}});
        if let Some(repository) = repository {
            values["image"] = json!({"repository": repository});
        }
        assert_eq!(images(values).await.0, [expected, expected]);
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    let values = json!({"global": {"imageRegistry": "mirror.test/cache"}, "image": {"repository": "x.test/a", "digest": digest}});
    assert_eq!(images(values).await.0[0], format!("mirror.test/cache/a@{digest}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_of_parent_are_added_once() {
    let values = json!({"imagePullSecrets": [{"name": "own"}, {"name": "both"}],
                        "global": {"imagePullSecrets": ["both", {"name": "parents"}]}});
    let expected = json!([{"name": "own"}, {"name": "both"}, {"name": "parents"}]);
    assert_eq!(images(values).await.1, [expected.clone(), expected]);
    let values = json!({"global": {"imagePullSecrets": ["parents"]}});
    assert_eq!(images(values).await.1[0], json!([{"name": "parents"}]));
    assert_eq!(images(json!({})).await.1, [Value::Null, Value::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_containers_are_added_beside_operator() {
    let sidecar = json!({"name": "sidecar", "image": "sidecar:1"});
    let init = json!({"name": "init", "image": "init:1"});
    let plain = pod(json!({})).await;
    let pod = pod(json!({"extraContainers": [sidecar], "extraInitContainers": [init]})).await;
    assert_eq!(pod["containers"], json!([container(&plain), sidecar]));
    assert_eq!(pod["initContainers"], json!([init]));
    assert_eq!(plain["initContainers"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_objects_are_rendered_as_templates() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n";
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "{{ include \"stream-encryption-operator.fullname\" . }}-object"}});
    let objects = chart(json!({"extraObjects": [text, object]})).await;
    let names: Vec<String> = of_kind(&objects, "ConfigMap").map(name).collect();
    assert_eq!(names, ["text", "object"].map(|one| format!("ConfigMap/{RELEASE}-{one}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn container_reads_env_from_given_sources() {
    let sources = json!([{"secretRef": {"name": "proxy"}}, {"prefix": "A_", "configMapRef": {"name": "b", "optional": true}}]);
    assert_eq!(container(&pod(json!({"envFrom": sources})).await)["envFrom"], sources);
    assert_eq!(container(&pod(json!({})).await)["envFrom"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_has_strategy_history_and_annotations() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "0%"}});
    let values =
        json!({"strategy": strategy, "revisionHistoryLimit": 0, "deploymentAnnotations": {"reload": "true"}});
    let made = deployment(values).await;
    assert_eq!((&made["spec"]["strategy"], &made["spec"]["revisionHistoryLimit"]), (&strategy, &json!(0)));
    assert_eq!(made["metadata"]["annotations"], json!({"reload": "true"}));
    // A new pod needs the port that the old one on its node uses.
    let host = deployment(json!({"hostNetwork": true})).await;
    assert_eq!(host["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
    let given = deployment(json!({"hostNetwork": true, "strategy": strategy})).await;
    assert_eq!(given["spec"]["strategy"], strategy);
    let plain = deployment(json!({})).await;
    assert_eq!(
        (&plain["spec"]["strategy"], &plain["spec"]["revisionHistoryLimit"]),
        (
            &json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
            &json!(10)
        )
    );
    assert_eq!(plain["metadata"]["annotations"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_and_host_network_follow_values() {
    let plain = pod(json!({})).await;
    for field in ["hostNetwork", "dnsPolicy", "dnsConfig"] {
        assert_eq!(plain[field], Value::Null, "{field}");
    }
    let dns = json!({"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "2"}]});
    let own = pod(json!({"dnsPolicy": "None", "dnsConfig": dns})).await;
    assert_eq!((&own["dnsPolicy"], &own["dnsConfig"]), (&json!("None"), &dns));
    let host = pod(json!({"hostNetwork": true})).await;
    assert_eq!((&host["hostNetwork"], &host["dnsPolicy"]), (&json!(true), &json!("ClusterFirstWithHostNet")));
    assert_eq!(pod(json!({"hostNetwork": true, "dnsPolicy": "Default"})).await["dnsPolicy"], "Default");
    // Helm deletes the default of a value that is left empty.
    assert_eq!(pod(json!({"hostNetwork": null})).await["hostNetwork"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_timings_follow_values() {
    let live =
        json!({"initialDelaySeconds": 20, "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 6});
    let ready = json!({"periodSeconds": 5});
    let pod = pod(json!({"livenessProbe": live, "readinessProbe": ready})).await;
    let timings = |probe: &str| {
        let mut probe = container(&pod)[probe].clone();
        probe.as_object_mut().expect("a probe").remove("httpGet").expect("a request");
        probe
    };
    assert_eq!(timings("livenessProbe"), live);
    let expected =
        json!({"initialDelaySeconds": 0, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3});
    assert_eq!(timings("readinessProbe"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_has_given_ip_families() {
    let service = async |values: Value| {
        let spec = only(&chart(json!({"metrics": {"service": values}})).await, "Service")["spec"].clone();
        (spec["ipFamilyPolicy"].clone(), spec["ipFamilies"].clone())
    };
    assert_eq!(service(json!({})).await, (Value::Null, Value::Null));
    let dual = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    assert_eq!(service(dual).await, (json!("PreferDualStack"), json!(["IPv6", "IPv4"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn service_account_has_given_labels() {
    let objects = chart(json!({"serviceAccount": {"labels": {"azure": "no"}}})).await;
    let labels = &only(&objects, "ServiceAccount")["metadata"]["labels"];
    assert_eq!((&labels["azure"], labels.as_object().map(serde_json::Map::len)), (&json!("no"), Some(7)));
}

/// YAML reads such names as numbers and truth values.
#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_texts_whatever_their_names() {
    let watched = ["111122223333", "no", "1e3"];
    let values = json!({"installScope": "namespace", "watchNamespaces": watched, "namespaceOverride": "0123", "serviceMonitor": {"enabled": true}});
    let objects = chart(values).await;
    let monitored = &only(&objects, "ServiceMonitor")["spec"]["namespaceSelector"];
    assert_eq!(*monitored, json!({"matchNames": ["0123"]}));
    for object in objects.iter().filter(|object| object["metadata"].get("namespace").is_some()) {
        let namespace = object["metadata"]["namespace"].as_str();
        let is_known = namespace.is_some_and(|name| name == "0123" || watched.contains(&name));
        assert!(is_known, "{}: {}", object["kind"], object["metadata"]);
    }
    let cluster_roles = objects.iter().filter(|object| object["kind"] == "ClusterRole");
    let rules = cluster_roles.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default());
    let names = rules.filter(|rule| rule["resources"] == json!(["namespaces"]));
    assert_eq!(names.map(|rule| rule["resourceNames"].clone()).collect::<Vec<_>>(), [json!(watched)]);
}

/// YAML reads such names as numbers, too.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_other_objects_are_texts_if_they_are_numbers() {
    let values = json!({
        "aws": {"credentials": {"secretName": "123", "secretKey": "1e3"}}, "priorityClassName": "0",
        "imagePullSecrets": [{"name": "111122223333"}], "global": {"imagePullSecrets": ["0123"]},
        "serviceAccount": {"create": false, "name": "1e3"},
    });
    let objects = chart(values).await;
    let pod = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let secret = json!({"secretName": "123", "items": [{"key": "1e3", "path": "1e3"}]});
    assert_eq!(pod["volumes"][0]["secret"], secret);
    assert_eq!(pod["priorityClassName"], "0");
    for pod in [pod, &only(&objects, "Pod")["spec"]] {
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "111122223333"}, {"name": "0123"}]));
        assert_eq!(pod["serviceAccountName"], "1e3");
    }
}

/// A Service cannot have such a name, or YAML reads it as another value.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_names_are_refused() {
    for name in ["123", "4operators", "on", "no", "null"] {
        let error = rendered(&json!({"fullnameOverride": name})).await.expect_err(name);
        assert!(format!("{error:#}").contains("set fullnameOverride to a name that"), "{name}: {error:#}");
    }
    // The labels are texts, too.
    let objects =
        chart(json!({"nameOverride": "123", "fullnameOverride": "one", "serviceAccount": {"name": "1e3"}}))
            .await;
    assert_eq!(only(&objects, "Service")["metadata"]["labels"]["app.kubernetes.io/name"], "123");
    assert_eq!(only(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"], "1e3");
    let objects =
        chart(json!({"fullnameOverride": "4ops", "metrics": {"service": {"enabled": false}}})).await;
    assert_eq!(only(&objects, "Deployment")["metadata"]["name"], "4ops");
    // The longest name is not cut.
    for name in ["none", "one-1", &"a".repeat(52)] {
        let objects = chart(json!({"fullnameOverride": name})).await;
        assert_eq!(only(&objects, "Service")["metadata"]["name"], name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_disruption_budget_evicts_as_given() {
    let policy = async |values: Value| {
        let objects = chart(json!({"podDisruptionBudget": values})).await;
        only(&objects, "PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"].clone()
    };
    assert_eq!(policy(json!({})).await, "AlwaysAllow");
    assert_eq!(policy(json!({"unhealthyPodEvictionPolicy": "IfHealthyBudget"})).await, "IfHealthyBudget");
    assert_eq!(policy(json!({"unhealthyPodEvictionPolicy": ""})).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_monitor_follows_values() {
    let plain = chart(json!({"serviceMonitor": {"enabled": true}})).await;
    let values = json!({"enabled": true, "namespace": "monitoring", "annotations": {"a": "b"}, "honorLabels": true, "sampleLimit": 5000});
    let objects = chart(json!({"serviceMonitor": values})).await;
    let (before, monitor) = (only(&plain, "ServiceMonitor"), only(&objects, "ServiceMonitor"));
    assert_eq!(monitor["metadata"]["namespace"], "monitoring");
    assert_eq!(monitor["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(monitor["spec"]["namespaceSelector"], json!({"matchNames": [NAMESPACE]}));
    let limits = |one: &Value| {
        (one["spec"]["endpoints"][0]["honorLabels"].clone(), one["spec"]["sampleLimit"].clone())
    };
    assert_eq!(limits(monitor), (json!(true), json!(5000)));
    assert_eq!(limits(before), (Value::Null, Value::Null));
    assert_eq!(before["metadata"]["namespace"], NAMESPACE);
}

/// The rules select the metrics of the operator's namespace, wherever the `PrometheusRule` is.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_rule_has_given_namespace() {
    let rule =
        async |values: Value| only(&chart(json!({"prometheusRule": values})).await, "PrometheusRule").clone();
    let plain = rule(json!({"enabled": true})).await;
    let moved = rule(json!({"enabled": true, "namespace": "monitoring"})).await;
    assert_eq!(
        (&plain["metadata"]["namespace"], &moved["metadata"]["namespace"]),
        (&json!(NAMESPACE), &json!("monitoring"))
    );
    assert_eq!(plain["spec"], moved["spec"]);
}

/// The Prometheus Operator ignores a `ServiceMonitor` whose timeout is longer than its interval.
#[tokio::test(flavor = "multi_thread")]
async fn service_monitor_has_a_scrape_timeout_only_if_set() {
    let endpoint = async |mut values: Value| {
        values["enabled"] = json!(true);
        let objects = chart(json!({"serviceMonitor": values})).await;
        only(&objects, "ServiceMonitor")["spec"]["endpoints"][0].clone()
    };
    let short = endpoint(json!({"interval": "5s"})).await;
    assert_eq!((&short["interval"], &short["scrapeTimeout"]), (&json!("5s"), &Value::Null));
    assert_eq!(endpoint(json!({"scrapeTimeout": "4s"})).await["scrapeTimeout"], "4s");
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_has_given_labels_and_namespace() {
    let values = json!({"enabled": true, "namespace": "monitoring", "extraLabels": {"folder": "aws"}});
    let objects = chart(json!({"grafanaDashboard": values})).await;
    let metadata = &only(&objects, "ConfigMap")["metadata"];
    assert_eq!(metadata["namespace"], "monitoring");
    assert_eq!(
        (&metadata["labels"]["folder"], &metadata["labels"]["grafana_dashboard"]),
        (&json!("aws"), &json!("1"))
    );
}

/// Users with the role `admin` have the permissions of `edit` too, so only its absence makes a difference.
#[tokio::test(flavor = "multi_thread")]
async fn only_admins_may_write_without_aggregation_to_edit() {
    let labels = async |rbac: Value| {
        let objects = chart(json!({"rbac": rbac})).await;
        let role = of_kind(&objects, "ClusterRole").find(|role| name(role).ends_with("-edit"));
        role.map(|role| {
            let labels = role["metadata"]["labels"].as_object().expect("labels").keys();
            labels.filter_map(|key| Some(key.split_once("/aggregate-to-")?.1.to_owned())).collect::<Vec<_>>()
        })
    };
    let both = Some(vec!["admin".to_owned(), "edit".to_owned()]);
    assert_eq!(labels(json!({})).await, both);
    assert_eq!(labels(json!({"aggregateToAdmin": false})).await, both);
    assert_eq!(labels(json!({"aggregateToEdit": false})).await, Some(vec!["admin".to_owned()]));
    assert_eq!(labels(json!({"aggregateToEdit": false, "aggregateToAdmin": false})).await, None);
}

/// Returns the notes that Helm prints after an installation with these values.
async fn notes(values: Value) -> String {
    let install = ["install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", "-"];
    let printed = run_helm(&install, &values.to_string(), None).await.expect("it renders");
    printed.split_once("\nNOTES:\n").expect("notes").1.to_owned()
}

/// A user of the operator's namespace can run a pod with the operator's service account.
#[tokio::test(flavor = "multi_thread")]
async fn notes_warn_if_operator_watches_its_own_namespace() {
    let advice = "set watchNamespaces to other namespaces";
    let watched = |namespaces: &[&str]| json!({"installScope": "namespace", "watchNamespaces": namespaces});
    assert!(notes(watched(&[])).await.contains(advice));
    assert!(notes(watched(&["data", NAMESPACE])).await.contains(advice));
    assert!(!notes(watched(&["data"])).await.contains(advice));
    assert!(!notes(json!({})).await.contains(advice));
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_ask_for_repository_if_image_is_unpublished() {
    let advice = "--set image.repository=";
    assert!(notes(json!({})).await.contains(advice));
    assert!(!notes(json!({"image": {"repository": "registry.test/operator"}})).await.contains(advice));
    assert!(!notes(json!({"global": {"imageRegistry": "registry.test"}})).await.contains(advice));
}
