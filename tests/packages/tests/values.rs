//! Tests the chart's values: mistakes are rejected, and every accepted value is documented.

use packages::objects::{of_kind, only, parsed, render, rendered, word};
use packages::{CHART, kept, text, values};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::conventions::everything;
use crate::stage::would_take;

/// A value that a parent chart passes down; this chart neither uses nor documents it.
const OF_A_PARENT: &str = "enabled";
/// Values that are empty by default, which selects everything or leaves the choice to Kubernetes, while the
/// schema lists their fields.
const EMPTY: [&str; 4] =
    [".defaultPolicy.namespaceSelector", ".admissionPolicy.namespaceSelector", ".strategy", ".dnsConfig"];

/// Fields of Kubernetes objects that null deletes. On `OpenShift`, the ids are deleted.
const DELETED_BY_NULL: [&str; 7] = [
    "podSecurityContext.runAsUser",
    "podSecurityContext.runAsGroup",
    "podSecurityContext.fsGroup",
    "resources.requests.cpu",
    "resources.requests.memory",
    "resources.limits.memory",
    "nodeSelector.kubernetes.io/os",
];

fn defaults() -> Value {
    serde_saphyr::from_str(&text(&format!("{CHART}/values.yaml"))).expect("YAML")
}

fn schema() -> Value {
    serde_json::from_str(&text(&format!("{CHART}/values.schema.json"))).expect("JSON")
}

fn documented() -> Vec<values::Documented> {
    values::documented(&text(&format!("{CHART}/values.yaml")))
}

/// Returns `value` at a path, and no other values.
fn at(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| Value::Object(Map::from_iter([(key.clone(), inner)])))
}

/// Collects the path of every object in the schema that accepts only known fields.
fn closed(path: &[String], schema: &Value, found: &mut Vec<Vec<String>>) {
    if schema["additionalProperties"] == false {
        found.push(path.to_vec());
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        closed(&[path, std::slice::from_ref(key)].concat(), inner, found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_key_is_rejected_at_any_depth() {
    let mut places = Vec::new();
    closed(&[], &schema(), &mut places);
    assert!(places.len() > 15, "{places:?}");
    for place in places {
        let values = at(&[place.as_slice(), &["tpyo".to_owned()]].concat(), json!(1));
        let error = format!("{:#}", render(&values).await.expect_err(&format!("{values} is refused")));
        assert!(error.contains("additional properties 'tpyo' not allowed"), "{values}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_values_are_rejected() {
    for (path, wrong) in [
        ("replicaCount", json!("two")),
        ("replicaCount", json!(-1)),
        ("replicaCount", json!(1.5)),
        ("defaultPolicy.maxCallsPerDay", json!(0)),
        ("defaultPolicy.maxCallsPerDay", json!(26)),
        ("defaultPolicy.streams", json!(["arn:aws:kinesis:*:*:stream/*"])),
        ("defaultPolicy.streams", json!(["arn:aws:kinesis:eu-west-01:own:stream/*"])),
        ("defaultPolicy.keys", json!(["*"])),
        ("defaultPolicy.keys", json!(["arn:aws:kms:europe-west-1:own:key/*"])),
        (
            "defaultPolicy.namespaceSelector.matchExpressions",
            json!([{"key": "a", "operator": "Exists", "values": ["b"]}]),
        ),
        ("defaultPolicy.namespaceSelector.matchExpressions", json!([{"key": "a", "operator": "In"}])),
        (
            "defaultPolicy.namespaceSelector.matchExpressions",
            json!([{"key": "a", "operator": "NotIn", "values": []}]),
        ),
        (
            "defaultPolicy.namespaceSelector.matchExpressions",
            json!([{"key": "a", "operator": "Exists", "vlaues": []}]),
        ),
        ("admissionPolicy.accounts", json!(["1111-2222-3333"])),
        ("admissionPolicy.accounts", json!([111_122_223_333_u64])),
        ("admissionPolicy.enabled", json!("auto")),
        ("driftIntervalSeconds", json!(9)),
        ("driftIntervalSeconds", json!(86401)),
        ("events.queueUrl", json!("arn:aws:sqs:eu-west-1:111122223333:events")),
        ("events.queueUrl", json!("https://sqs.eu-west-1.amazonaws.com/1111/events")),
        ("events.queueUrl", json!("https://sqs.eu-west-1.amazonaws.com/111122223333/events.fifo")),
        ("events.driftIntervalSeconds", json!(9)),
        ("concurrency", json!(0)),
        ("concurrency", json!(65536)),
        ("defaultPolicy.allowDisable", json!("yes")),
        ("aws.region", json!("Ireland")),
        ("aws.ratePercent", json!(0)),
        ("aws.ratePercent", json!(101)),
        ("aws.requestLimits", json!({"kms:DescribeKey": 50})),
        ("aws.requestLimits", json!([{"operation": "kms:DescribeKey"}])),
        ("aws.requestLimits", json!([{"operation": "DescribeKey", "requestsPerSecond": 50}])),
        ("aws.requestLimits", json!([{"operation": "kms:DescribeKey", "requestsPerSecond": 0}])),
        ("aws.requestLimits", json!([{"operation": "kms:DescribeKey", "requestsPerSecond": 10_001}])),
        (
            "aws.requestLimits",
            json!([{"operation": "kms:DescribeKey", "requestsPerSecond": 50, "account": 1}]),
        ),
        (
            "aws.requestLimits",
            json!([{"operation": "kms:DescribeKey", "requestsPerSecond": 50, "region": "x"}]),
        ),
        (
            "aws.requestLimits",
            json!([{"operation": "kms:DescribeKey", "requestsPerSecond": 50, "acount": "1"}]),
        ),
        ("aws.endpointUrl", json!("localhost:4566")),
        ("image.digest", json!("sha256:abc")),
        ("image.pullPolicy", json!("Sometimes")),
        ("installScope", json!("clusters")),
        ("watchNamespaces", json!("data")),
        ("watchNamespaces", json!(["data", "data"])),
        ("watchLabelSelector", json!({"shard": "a"})),
        ("log.format", json!("xml")),
        ("metrics.listen.address", json!("::")),
        ("metrics.listen.address", json!("localhost")),
        ("metrics.listen.address", json!("10.0.0.256")),
        ("metrics.listen.address", json!("0.0.0.0:8080")),
        ("metrics.listen.port", json!(80)),
        ("metrics.service.port", json!(65536)),
        ("podDisruptionBudget.minAvailable", json!("half")),
        ("serviceMonitor.interval", json!("half a minute")),
        ("serviceMonitor.scrapeTimeout", json!("10")),
        ("prometheusRule.namespace", json!("Monitoring")),
        ("prometheusRule.callsLeft", json!(26)),
        ("prometheusRule.runbookBaseUrl", json!("runbooks/")),
        ("grafanaDashboard.docsBaseUrl", json!("docs/")),
        ("commonLabels", json!({"cost-center": 42})),
        ("resources", json!({"request": {}})),
        ("tolerations", json!({})),
        ("networkPolicy.egressPorts", json!([])),
        ("fullnameOverride", json!("Capitals")),
        ("fullnameOverride", json!("a".repeat(53))),
        ("namespaceOverride", json!("Capitals")),
        ("global.imageRegistry", json!("https://registry.test")),
        ("global.imageRegistry", json!("registry.test/")),
        ("global.imagePullSecrets", json!([{"nmae": "registry"}])),
        ("strategy", json!({"type": "OnDelete"})),
        ("strategy", json!({"rollingUpdate": {"maxSurge": "half"}})),
        ("revisionHistoryLimit", json!(-1)),
        ("livenessProbe.periodSeconds", json!(0)),
        ("livenessProbe.failureThreshold", json!(0)),
        ("readinessProbe.timeoutSeconds", json!("5s")),
        ("readinessProbe.initialDelaySeconds", json!(-1)),
        ("hostNetwork", json!("yes")),
        ("dnsPolicy", json!("Cluster")),
        ("dnsConfig", json!({"options": [{"value": "2"}]})),
        ("dnsConfig", json!({"options": [{"name": "ndots", "value": 2}]})),
        ("envFrom", json!([{"name": "proxy"}])),
        ("envFrom", json!([{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}])),
        ("extraContainers", json!([{"name": "sidecar"}])),
        ("extraInitContainers", json!([{"image": "init:1"}])),
        ("extraObjects", json!({"kind": "ConfigMap"})),
        ("extraObjects", json!([{"kind": "ConfigMap"}])),
        ("deploymentAnnotations", json!({"reload": true})),
        ("serviceAccount.labels", json!({"team": 1})),
        ("rbac.aggregateToAdmin", json!("yes")),
        ("metrics.service.ipFamilyPolicy", json!("DualStack")),
        ("metrics.service.ipFamilies", json!(["IPv5"])),
        ("metrics.service.ipFamilies", json!(["IPv4", "IPv4"])),
        ("serviceMonitor.namespace", json!("Monitoring")),
        ("serviceMonitor.sampleLimit", json!(-1)),
        ("serviceMonitor.honorLabels", json!("yes")),
        ("grafanaDashboard.extraLabels", json!({"folder": 1})),
        ("podDisruptionBudget.unhealthyPodEvictionPolicy", json!("Always")),
    ] {
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        let error = format!(
            "{:#}",
            render(&at(&keys, wrong.clone())).await.expect_err(&format!("{path}: {wrong} is refused"))
        );
        let place = format!("'/{}", keys.join("/"));
        assert!(error.contains(&place), "{path}: {wrong}: the error names the place: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contradicting_values_are_rejected() {
    for (values, words) in [
        (json!({"watchNamespaces": ["data"]}), "'/watchNamespaces'"),
        (json!({"installScope": "namespace", "watchNamespaces": ["data,more"]}), "'/watchNamespaces/0'"),
        (json!({"installScope": "namespace", "watchNamespaces": [""]}), "'/watchNamespaces/0'"),
        (
            json!({"serviceMonitor": {"enabled": true}, "metrics": {"service": {"enabled": false}}}),
            "serviceMonitor.enabled needs metrics.service.enabled",
        ),
        (
            json!({"metrics": {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}}}),
            "'/metrics/service/ipFamilies'",
        ),
        (json!({"dnsPolicy": "None"}), "dnsPolicy: None needs dnsConfig.nameservers"),
        (
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
            "strategy.rollingUpdate must not be set with type: Recreate",
        ),
        (
            json!({"extraContainers": [{"name": "operator", "image": "a:1"}]}),
            "must not use the name operator twice",
        ),
        (
            json!({"extraContainers": [{"name": "a", "image": "a:1"}], "extraInitContainers": [{"name": "a", "image": "a:1"}]}),
            "must not use the name a twice",
        ),
        (
            json!({"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            "extraEnv must not contain A twice",
        ),
        (
            json!({"hostNetwork": true, "networkPolicy": {"enabled": true}}),
            "networkPolicy.enabled has no effect with hostNetwork",
        ),
        (
            json!({"commonLabels": {"app.kubernetes.io/name": "operator"}}),
            "commonLabels must not contain app.kubernetes.io/name",
        ),
        (
            json!({"podLabels": {"app.kubernetes.io/instance": "operator"}}),
            "podLabels must not contain app.kubernetes.io/instance",
        ),
        (
            json!({"admissionPolicy": {"enabled": true}, "defaultPolicy": {"allowDisable": true}}),
            "set admissionPolicy.allowDisable too",
        ),
        (
            json!({"admissionPolicy": {"enabled": true, "accounts": ["111122223333"]},
                   "defaultPolicy": {"keys": ["AWS_OWNED_CMK", "arn:aws:kms:*:444455556666:key/*"]}}),
            "add 444455556666 to admissionPolicy.accounts",
        ),
    ] {
        let error = format!("{:#}", render(&values).await.expect_err("it is refused"));
        assert!(error.contains(words), "{values}: {error}");
    }
}

/// Collects the path of every value in `values.yaml`, with its default.
fn places(path: &[String], value: &Value, found: &mut Vec<(Vec<String>, Value)>) {
    if !path.is_empty() {
        found.push((path.to_vec(), value.clone()));
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        places(&[path, std::slice::from_ref(key)].concat(), inner, found);
    }
}

/// Returns the chart with everything enabled, and this value at a path.
async fn render_with(path: &[String], value: Value) -> anyhow::Result<String> {
    let mut values = everything();
    *path.iter().fold(&mut values, |inner, key| &mut inner[key]) = value;
    render(&values).await
}

/// Helm deletes the default of a value that is left empty. No setting may change by that without an error.
#[tokio::test(flavor = "multi_thread")]
async fn values_left_empty_render_or_are_refused_by_the_chart() {
    let mut all = Vec::new();
    places(&[], &defaults(), &mut all);
    assert!(all.len() > 150, "{all:?}");
    // Helm needs most of this time to start, so some run at a time.
    for some in all.chunks(4) {
        let mut runs = JoinSet::new();
        for (path, default) in some.iter().cloned() {
            runs.spawn(async move {
                let place = path.join(".");
                let is_scalar = !default.is_object() && !default.is_array();
                match render_with(&path, Value::Null).await {
                    Err(error) => {
                        let error = format!("{error:#}");
                        // Helm begins the message of a template's `fail` with these words.
                        let is_message = error.contains("execution error at (") && error.contains(&place);
                        let pointer = format!("/{}", path.join("/"));
                        let (section, key) = pointer.rsplit_once('/').expect("a slash");
                        let missing = format!("at '{section}': missing property '{key}'");
                        assert!(is_message || error.contains(&missing), "{place}: {error}");
                    }
                    Ok(printed) if is_scalar && !DELETED_BY_NULL.contains(&place.as_str()) => {
                        let expected = render_with(&path, default).await.expect("it renders");
                        assert_eq!(printed, expected, "{place}: null is not the default");
                    }
                    Ok(_) => {}
                }
            });
        }
        runs.join_all().await;
    }
}

/// The operator does not start with a default policy that lacks a required field.
#[tokio::test(flavor = "multi_thread")]
async fn default_policy_is_complete_if_a_value_is_left_empty() {
    let mut all = Vec::new();
    places(&["defaultPolicy".to_owned()], &defaults()["defaultPolicy"], &mut all);
    let mut valid = 0;
    for (path, _) in all {
        let Ok(printed) = render_with(&path, Value::Null).await else { continue };
        let objects = parsed(&printed).expect("YAML");
        let container = &only(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        let mut variables = container["env"].as_array().expect("variables").iter();
        let policy = variables.find(|variable| variable["name"] == "DEFAULT_POLICY").expect("the policy");
        let spec: Value = serde_json::from_str(word(&policy["value"])).expect("JSON");
        let object = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
                            "metadata": {"name": "default"}, "spec": spec});
        would_take(&[object]).await.unwrap_or_else(|error| panic!("{}: {error:#}", path.join(".")));
        valid += 1;
    }
    assert!(valid > 0, "a selector may be left empty");
}

/// A rule without ports allows every port, and a CEL expression cannot count the elements of null.
#[tokio::test(flavor = "multi_thread")]
async fn lists_left_empty_do_not_weaken_network_or_admission_policy() {
    let values = json!({"networkPolicy": {"enabled": true, "egressPorts": null}});
    let error = format!("{:#}", rendered(&values).await.expect_err("it is refused"));
    assert!(error.contains("networkPolicy.egressPorts must not be empty"), "{error}");
    rendered(&json!({"networkPolicy": {"egressPorts": null}})).await.expect("there is no policy");

    let values = json!({"admissionPolicy": {"enabled": true, "accounts": null}});
    let objects = rendered(&values).await.expect("it renders");
    let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
    let variables = policies.flat_map(|policy| policy["spec"]["variables"].as_array().expect("variables"));
    let accounts: Vec<_> = variables.filter(|variable| variable["name"] == "accounts").collect();
    assert_eq!(accounts, [&json!({"name": "accounts", "expression": "[]"})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn global_values_of_parent_chart_are_accepted() {
    render(&json!({"global": {"imageRegistry": "registry.test", "domain": "example.test"}, "enabled": true}))
        .await
        .expect("it renders");
}

/// The operator has each of these limits too. A value beyond one of them would be detected only in the log of
/// a pod that does not start.
#[test]
fn schema_limits_match_operator() {
    let settings = text("src/settings.rs").split_whitespace().collect::<Vec<_>>().join(" ");
    let limits = |path: &str| {
        let place = path.split('.').fold(schema(), |schema, key| schema["properties"][key].clone());
        (place["minimum"].clone(), place["maximum"].clone())
    };
    assert!(
        text("src/settings/default_policy.rs").contains("(1..=AWS_LIMIT)")
            && text("src/core/model/service.rs").contains("AWS_LIMIT: u32 = 25")
    );
    assert_eq!(limits("defaultPolicy.maxCallsPerDay"), (json!(1), json!(25)));
    assert!(settings.contains("self.aws_rate_percent.into(), [1, 100]"));
    assert_eq!(limits("aws.ratePercent"), (json!(1), json!(100)));
    assert!(settings.contains("self.drift_interval_seconds, [10, 86_400]"));
    assert_eq!(limits("driftIntervalSeconds"), (json!(10), json!(86_400)));
    assert!(settings.contains("self.events_drift_interval_seconds, [10, 86_400]"));
    assert_eq!(limits("events.driftIntervalSeconds"), (json!(10), json!(86_400)));
    assert!(
        settings.contains("self.concurrency.into(), [1, u16::MAX.into()]")
            && settings.contains("pub concurrency: u16")
    );
    assert_eq!(limits("concurrency"), (json!(1), json!(u16::MAX)));
    let limit = &schema()["properties"]["aws"]["properties"]["requestLimits"]["items"]["properties"];
    assert!(text("src/settings/request_limits.rs").contains("HIGHEST: u32 = 10_000;"));
    let rate = &limit["requestsPerSecond"];
    assert_eq!((&rate["minimum"], &rate["maximum"]), (&json!(1), &json!(10_000)));
    let operations = text("src/core/model/service.rs");
    let operations: Vec<&str> = operations
        .split(": \"")
        .skip(1)
        .filter_map(|rest| rest.split_once("\", "))
        .map(|(it, _)| it)
        .filter(|it| !it.contains(' '))
        // The operator never lists streams, and requests to a queue need no permit.
        .filter(|it| !it.contains(":List") && !it.starts_with("sqs:"))
        .collect();
    assert_eq!(json!(operations), limit["operation"]["enum"]);
}

/// A default policy with another pattern would be detected only in the log of a pod that does not start.
#[test]
fn default_policy_patterns_match_policy_crd() {
    let definition: Value =
        serde_saphyr::from_str(&text("crds/streamencryptionpolicies.streamencryption.dev.yaml"))
            .expect("YAML");
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let of_crd = |field: &str| {
        let rule = &spec["properties"][field]["x-kubernetes-validations"][0]["rule"];
        let (_, rest) = word(rule).split_once(".matches('").expect("an expression");
        rest.split('\'').next().expect("an end").to_owned()
    };
    let of_chart = |field: &str| {
        schema()["properties"]["defaultPolicy"]["properties"][field]["items"]["pattern"].clone()
    };
    assert_eq!(of_chart("streams"), of_crd("streams"));
    let keys = of_crd("keys");
    let keys = keys.strip_prefix('^').and_then(|keys| keys.strip_suffix('$')).expect("a whole text");
    assert_eq!(of_chart("keys"), format!("^(AWS_OWNED_CMK|{keys})$"));
}

#[test]
fn chart_defaults_match_operator() {
    let settings = text("src/settings.rs");
    for (path, variable) in [
        ("aws.ratePercent", "AWS_RATE_PERCENT"),
        ("driftIntervalSeconds", "DRIFT_INTERVAL_SECONDS"),
        ("events.driftIntervalSeconds", "EVENTS_DRIFT_INTERVAL_SECONDS"),
        ("concurrency", "CONCURRENCY"),
    ] {
        let default = path.split('.').fold(defaults(), |values, key| values[key].clone());
        let (_, rest) =
            settings.split_once(&format!("env = \"{variable}\", default_value_t = ")).expect(variable);
        let (value, _) = rest.split_once(')').expect(variable);
        let constant = settings.split_once(&format!("const {value}: u32 = ")).map(|(_, rest)| rest);
        let value = constant.and_then(|rest| rest.split_once(';')).map_or(value, |(value, _)| value);
        assert_eq!(value.replace('_', ""), default.to_string(), "{variable}");
    }
    let log = &defaults()["log"];
    assert!(settings.contains("env = \"LOG\", default_value = DEFAULT_LOG"));
    assert!(settings.contains(&format!("const DEFAULT_LOG: &str = {};", log["level"])));
    assert!(
        settings.contains(&format!("env = \"LOG_FORMAT\", value_enum, default_value = {}", log["format"]))
    );
}

/// Collects the values that are not below a documented one.
fn undocumented(path: &[String], value: &Value, known: &[Vec<String>], found: &mut Vec<String>) {
    if known.iter().any(|one| one == path) {
        return;
    }
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => {
            for (key, inner) in object {
                undocumented(&[path, std::slice::from_ref(key)].concat(), inner, known, found);
            }
        }
        None => found.push(path.join(".")),
    }
}

#[test]
fn every_value_is_documented() {
    let known: Vec<Vec<String>> = documented().into_iter().map(|one| one.path).collect();
    assert!(known.len() > 60, "values.yaml is read wrongly: {known:?}");
    let mut found = Vec::new();
    undocumented(&[], &defaults(), &known, &mut found);
    assert_eq!(found, Vec::<String>::new(), "undocumented values");
}

#[test]
fn schema_and_values_have_same_keys() {
    fn same(path: &str, values: &Value, schema: &Value) {
        let known = schema["properties"].as_object().unwrap_or_else(|| panic!("{path} is not in the schema"));
        let values = values.as_object().unwrap_or_else(|| panic!("{path} is no object"));
        if EMPTY.contains(&path) {
            assert_eq!(values.len(), 0, "{path}");
            return;
        }
        let mut known: Vec<&str> =
            known.keys().map(String::as_str).filter(|key| *key != OF_A_PARENT || !path.is_empty()).collect();
        let mut there: Vec<&str> = values.keys().map(String::as_str).collect();
        known.sort_unstable();
        there.sort_unstable();
        if path == ".resources" {
            // A Kubernetes field; `claims` is rarely needed.
            known.retain(|key| *key != "claims");
        }
        assert_eq!(known, there, "left: the schema; right: values.yaml, at {path:?}");
        for (key, value) in values {
            let inner = &schema["properties"][key];
            // A parent chart has other values below `global`.
            if inner["additionalProperties"] == false || key == "global" {
                same(&format!("{path}.{key}"), value, inner);
            }
        }
    }
    same("", &defaults(), &schema());
}

#[test]
fn chart_readme_table_matches_values() {
    let readme = format!("{CHART}/README.md");
    let made = values::with_table(&text(&readme), &text(&format!("{CHART}/values.yaml"))).expect("a table");
    kept(&readme, &made);
}
