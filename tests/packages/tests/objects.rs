//! Tests that the API server accepts the chart's objects, for all values.

use packages::CHART;
use packages::objects::{NAMESPACE, RELEASE, name, of_kind, only, parsed, word};
use packages::programs::{helm_3, run_helm, run_this_helm};
use serde_json::{Value, json};

use crate::conventions::{self, everything};
use crate::stage::{chart, would_take};

/// Returns sets of values, each with a name, that together enable every part of the chart.
pub(crate) fn varied() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("the defaults", json!({})),
        (
            "everything that is off by default",
            json!({
                "serviceMonitor": {"enabled": true, "additionalLabels": {"release": "prometheus"}},
                "prometheusRule": {"enabled": true, "alertLabels": {"team": "data"}},
                "grafanaDashboard": {"enabled": true, "annotations": {"grafana_folder": "AWS"}},
                "kubeStateMetrics": {"configMap": {"enabled": true, "annotations": {"a": "b"}}},
                "networkPolicy": {"enabled": true},
                "admissionPolicy": {"enabled": true},
            }),
        ),
        (
            "one namespace, without definitions",
            json!({"installScope": "namespace", "watchNamespaces": ["data"], "crds": {"enabled": false}}),
        ),
        (
            "some resources of several namespaces, refused early",
            json!({"installScope": "namespace", "watchNamespaces": ["data", "web"], "watchLabelSelector": "shard in (a,b),!legacy",
                   "admissionPolicy": {"enabled": true}}),
        ),
        ("one namespace, its own", json!({"installScope": "namespace"})),
        (
            "early refusal in some namespaces",
            json!({"admissionPolicy": {"enabled": true, "accounts": ["111122223333", "444455556666"], "allowDisable": true,
                                       "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}}),
        ),
        (
            "every setting of the operator",
            json!({
                "aws": {"region": "us-gov-west-1", "endpointUrl": "http://simulated-aws.test:4566", "ratePercent": 1,
                        "requestLimits": [{"operation": "kinesis:DescribeStreamSummary", "account": "111122223333",
                                           "region": "us-gov-west-1", "requestsPerSecond": 10000}],
                        "credentials": {"secretName": "aws", "secretKey": "file", "profile": "streams"}},
                "defaultPolicy": {"maxCallsPerDay": 25, "allowDisable": true}, "driftIntervalSeconds": 86400, "concurrency": 65535,
                "events": {"queueUrl": "https://sqs.eu-west-1.amazonaws.com/111122223333/events", "driftIntervalSeconds": 86400},
                "leaderElection": {"enabled": false}, "replicaCount": 0,
                "log": {"level": "warn,stream_encryption_operator=trace", "format": "text"},
                "extraEnv": [{"name": "AWS_ENDPOINT_URL_KMS", "value": "https://kms.test"}],
                "extraArgs": ["--drift-interval-seconds", "60"],
            }),
        ),
        (
            "every setting of the pods",
            json!({
                "commonLabels": {"cost-center": "42"}, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"},
                "image": {"repository": "registry.test:5000/operator", "digest": format!("sha256:{}", "a".repeat(64)), "pullPolicy": "Always"},
                "imagePullSecrets": [{"name": "registry"}], "priorityClassName": "", "resources": {}, "nodeSelector": {},
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}}},
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                                               "labelSelector": {"matchLabels": {"own": "selector"}}}],
                "extraVolumes": [{"name": "extra", "emptyDir": {}}], "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
                "podDisruptionBudget": {"minAvailable": "50%"},
                "podSecurityContext": {"runAsUser": null, "runAsGroup": null, "fsGroup": null},
            }),
        ),
        (
            "names and accounts of one's own",
            json!({
                "fullnameOverride": "encrypts", "nameOverride": "streams",
                "serviceAccount": {"create": false, "name": "mine"}, "rbac": {"aggregateToView": false, "aggregateToEdit": false},
                "metrics": {"listen": {"address": "[::]", "port": 9090}, "service": {"port": 80, "annotations": {"prometheus.io/scrape": "true"}}},
                "crds": {"keep": false, "annotations": {"note": "mine"}},
                "podDisruptionBudget": {"minAvailable": null, "maxUnavailable": 0},
            }),
        ),
        (
            "no rights and no service",
            json!({"rbac": {"create": false}, "metrics": {"service": {"enabled": false}}, "podDisruptionBudget": {"enabled": false}}),
        ),
        (
            "closed doors",
            json!({
                "networkPolicy": {"enabled": true, "ingressFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
                                  "egressPorts": [443], "extraEgress": [{"ports": [{"port": 4566}]}]},
                "serviceMonitor": {"enabled": true, "relabelings": [{"action": "labeldrop", "regex": "instance"}],
                                   "metricRelabelings": [{"action": "keep", "sourceLabels": ["__name__"], "regex": "stream_.*"}]},
                "podDisruptionBudget": {"minAvailable": 0},
            }),
        ),
    ];
    all.extend(conventions::varied());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_helm_lint_passes() {
    for (what, values) in varied() {
        let lint = ["lint", "--strict", CHART, "--namespace", "stream-encryption-system", "--values", "-"];
        run_helm(&lint, &values.to_string(), None).await.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_3_and_helm_4_render_the_same() {
    let helm = &helm_3().await.expect("Helm 3");
    for (what, values) in varied() {
        // A plain Go build of Helm does not set the Kubernetes version that it supports.
        let kubernetes = ["--kube-version", "1.35.4"];
        let template =
            [&["template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-"][..], &kubernetes]
                .concat();
        let made = run_this_helm(helm, &template, &values.to_string(), None).await;
        let made = made.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert_eq!(parsed(&made).expect("YAML"), chart(values).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_accepts_chart_for_all_values() {
    let mut kinds = std::collections::BTreeSet::new();
    for (what, values) in varied() {
        let objects = chart(values).await;
        let taken = would_take(&objects).await.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert_eq!(taken.lines().count(), objects.len(), "{what}: {taken}");
        kinds.extend(objects.iter().map(|object| word(&object["kind"]).to_owned()));
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "CustomResourceDefinition",
            "Deployment",
            "NetworkPolicy",
            "Pod",
            "PodDisruptionBudget",
            "PrometheusRule",
            "Role",
            "RoleBinding",
            "Service",
            "ServiceAccount",
            "ServiceMonitor",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_is_the_only_hook() {
    for (what, values) in varied() {
        for object in chart(values).await {
            let hook = &object["metadata"]["annotations"]["helm.sh/hook"];
            assert!(
                hook.is_null() || (object["kind"] == "Pod" && hook == "test"),
                "{what}: {}",
                name(&object)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_selects_operator_pods_but_not_test_pod() {
    let objects = chart(json!({})).await;
    let selector = only(&objects, "Service")["spec"]["selector"].as_object().expect("a selector");
    let matches = |labels: &Value| selector.iter().all(|(key, value)| labels[key] == *value);
    let deployment = only(&objects, "Deployment");
    assert!(matches(&deployment["spec"]["template"]["metadata"]["labels"]));
    assert!(!matches(&only(&objects, "Pod")["metadata"]["labels"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn service_monitor_selects_release_service() {
    let objects = chart(json!({"serviceMonitor": {"enabled": true}})).await;
    let (monitor, service) = (only(&objects, "ServiceMonitor"), only(&objects, "Service"));
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    assert!(wanted.iter().all(|(key, value)| service["metadata"]["labels"][key] == *value));
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_has_common_labels() {
    let mut values = everything();
    values["commonLabels"] = json!({"cost-center": "42"});
    let objects = chart(values).await;
    for object in &objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["cost-center"], "42", "{}", name(object));
        assert_eq!(labels["app.kubernetes.io/part-of"], "stream-encryption-operator", "{}", name(object));
    }
    let pods = of_kind(&objects, "Deployment").map(|one| &one["spec"]["template"]["metadata"]["labels"]);
    assert!(pods.into_iter().all(|labels| labels["cost-center"] == "42"));
}

/// Flux refuses an object with a key twice. So does this parser.
#[tokio::test(flavor = "multi_thread")]
async fn users_labels_replace_those_of_the_chart() {
    let label = |value: &str| json!({"app.kubernetes.io/part-of": value});
    let mut values = everything();
    for (pointer, own) in [
        ("/commonLabels", label("all")),
        ("/podLabels", label("pods")),
        ("/podAnnotations", json!({"kubectl.kubernetes.io/default-container": "sidecar"})),
        ("/serviceAccount/labels", label("account")),
        ("/serviceMonitor/additionalLabels", label("monitor")),
        ("/prometheusRule/additionalLabels", label("rule")),
        ("/prometheusRule/alertLabels", json!({"severity": "page"})),
        ("/grafanaDashboard/extraLabels", label("dashboard")),
        ("/grafanaDashboard/sidecarLabel", json!("helm.sh/chart")),
        ("/kubeStateMetrics/configMap/extraLabels", label("metrics")),
    ] {
        let path: Vec<&str> = pointer.split('/').skip(1).collect();
        let (last, parents) = path.split_last().expect("a key");
        parents.iter().fold(&mut values, |inner, key| &mut inner[*key])[*last] = own;
    }
    let objects = chart(values).await;
    let part_of =
        |object: &Value| word(&object["metadata"]["labels"]["app.kubernetes.io/part-of"]).to_owned();
    for (kind, expected) in [
        ("Deployment", "all"),
        ("Pod", "all"),
        ("ServiceAccount", "account"),
        ("ServiceMonitor", "monitor"),
        ("PrometheusRule", "rule"),
    ] {
        assert_eq!(part_of(only(&objects, kind)), expected, "{kind}");
    }
    let mut config_maps: Vec<_> = of_kind(&objects, "ConfigMap").map(part_of).collect();
    config_maps.sort();
    assert_eq!(config_maps, ["dashboard", "metrics"]);
    let template = &only(&objects, "Deployment")["spec"]["template"];
    assert_eq!(part_of(template), "pods");
    assert_eq!(template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "sidecar");
    let rules =
        only(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().expect("rules").clone();
    let severities: Vec<_> = rules
        .iter()
        .filter(|rule| rule["alert"].is_string())
        .map(|alert| &alert["labels"]["severity"])
        .collect();
    assert!(severities.len() > 5 && severities.iter().all(|severity| *severity == "page"), "{severities:?}");
}
