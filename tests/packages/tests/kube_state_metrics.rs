//! Tests the metrics of each resource by its name, with the real kube-state-metrics: they have the documented
//! labels and the values of the status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use packages::metrics::{Metric, PREFIXES, documented};
use packages::objects::{only, parsed, word};
use packages::programs::kube_state_metrics;
use packages::{CHART, kept, path, text};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::documents::blocks;
use crate::stage::{chart, cluster};

const FILE: &str = "config/monitoring/kube-state-metrics.yaml";

/// Returns the entry of the configuration for our kind.
fn configuration() -> Value {
    let file: Value = serde_saphyr::from_str(&text(FILE)).expect("YAML");
    assert_eq!(file["spec"]["resources"].as_array().map(Vec::len), Some(1));
    file["spec"]["resources"][0].clone()
}

/// Returns the paths in a `labelsFromPath`, by label.
fn labels(of: &Value) -> Map<String, Value> {
    of["labelsFromPath"].as_object().cloned().unwrap_or_default()
}

/// Returns the part of a metric's configuration that depends on its type.
fn typed(metric: &Value) -> &Value {
    let each = &metric["each"];
    &each[word(&each["type"]).to_lowercase()]
}

#[test]
fn chart_has_same_configuration_of_kube_state_metrics() {
    kept(&format!("{CHART}/files/kube-state-metrics.yaml"), &text(FILE));
}

#[tokio::test(flavor = "multi_thread")]
async fn config_map_has_the_configuration() {
    assert!(chart(json!({})).await.iter().all(|one| one["kind"] != "ConfigMap"));
    let values = json!({"enabled": true, "namespace": "monitoring", "extraLabels": {"a": "b"}, "annotations": {"c": "d"}});
    let objects = chart(json!({"kubeStateMetrics": {"configMap": values}})).await;
    let map = only(&objects, "ConfigMap");
    assert_eq!(word(&map["data"]["config.yaml"]).trim_end(), text(FILE).trim_end());
    let metadata = &map["metadata"];
    assert_eq!((&metadata["namespace"], &metadata["labels"]["a"]), (&json!("monitoring"), &json!("b")));
    assert_eq!(metadata["annotations"], json!({"c": "d"}));
    // The documented values name this object and this key.
    let page = text("docs/metrics.md");
    let used: Value = serde_saphyr::from_str(blocks(&page, "yaml kube-state-metrics")[0]).expect("YAML");
    assert_eq!(used["volumes"][0]["configMap"]["name"], metadata["name"]);
    let file = format!("{}/config.yaml", word(&used["volumeMounts"][0]["mountPath"]));
    assert_eq!(used["extraArgs"], json!([format!("--custom-resource-state-config-file={file}")]));
    assert_eq!(used["volumes"][0]["name"], used["volumeMounts"][0]["name"]);
}

#[test]
fn metrics_by_name_have_documented_labels() {
    let configuration = configuration();
    let common = labels(&configuration);
    let configured: BTreeMap<String, Metric> = configuration["metrics"]
        .as_array()
        .expect("metrics")
        .iter()
        .map(|metric| {
            let all = [labels(typed(metric)), labels(metric), common.clone()].into_iter().flatten();
            // The page names `namespace` once, for all metrics.
            let labels = all.map(|(label, _)| label).filter(|label| label != "namespace").collect();
            let kind = word(&metric["each"]["type"]).to_lowercase();
            (format!("{}{}", PREFIXES[1], word(&metric["name"])), Metric { kind, labels })
        })
        .collect();
    let sorted = |metrics: BTreeMap<String, Metric>| -> BTreeMap<String, (String, BTreeSet<String>)> {
        let set = |metric: Metric| (metric.kind, metric.labels.into_iter().collect());
        metrics.into_iter().map(|(name, metric)| (name, set(metric))).collect()
    };
    let mut page = documented();
    page.retain(|name, _| name.starts_with(PREFIXES[1]));
    assert_eq!(sorted(configured), sorted(page), "left: {FILE}; right: docs/metrics.md");
}

/// Returns the schema of a field below a schema.
fn field<'a>(schema: &'a Value, path: &Value) -> &'a Value {
    path.as_array().into_iter().flatten().fold(schema, |schema, part| {
        let part = word(part);
        // `[type=Ready]` is an element of a list.
        if part.starts_with('[') { &schema["items"] } else { &schema["properties"][part] }
    })
}

/// A misspelt path would export nothing.
#[test]
fn every_exported_field_exists() {
    let definition = &parsed(&text("crds/streamencryptions.streamencryption.dev.yaml")).expect("YAML")[0];
    let version = &definition["spec"]["versions"][0];
    let configuration = configuration();
    let kind = &configuration["groupVersionKind"];
    assert_eq!(
        (&kind["group"], &kind["version"], &kind["kind"]),
        (&definition["spec"]["group"], &version["name"], &definition["spec"]["names"]["kind"])
    );
    let root = &version["schema"]["openAPIV3Schema"];
    let mut checked = 0;
    for metric in configuration["metrics"].as_array().expect("metrics") {
        let own = typed(metric);
        let target = field(root, &own["path"]);
        // The labels of a list are those of its elements.
        let target = if target["type"] == "array" { &target["items"] } else { target };
        let below = labels(own).into_iter().chain([("value".to_owned(), own["valueFrom"].clone())]);
        let of_root = labels(metric).into_iter().map(|one| (root, one));
        for (schema, (label, path)) in below.map(|one| (target, one)).chain(of_root) {
            assert_ne!(field(schema, &path)["type"], Value::Null, "{}: {label}: {path}", metric["name"]);
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

/// Requests a page of a server on this machine; `None` while it does not respond.
async fn get(port: u16, page: &str) -> Option<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    connection.write_all(format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await.ok()?;
    response.starts_with("HTTP/1.0 200").then_some(response)
}

/// Returns the metrics of a namespace in a scrape, without the labels that all of them have, in order.
fn of_namespace(scrape: &str, namespace: &str) -> Vec<String> {
    let own = format!("namespace=\"{namespace}\"");
    let lines =
        scrape.lines().filter_map(|line| line.strip_prefix(PREFIXES[1])).filter(|line| line.contains(&own));
    let mut found: Vec<String> = lines
        .map(|line| {
            let (name, rest) = line.split_once('{').expect("labels");
            let (labels, value) = rest.split_once("} ").expect("a value");
            let mut labels: Vec<&str> = labels.split(',').collect();
            labels.retain(|label| *label != own && !label.starts_with("customresource_"));
            labels.sort_unstable();
            format!("{name}{{{}}} {}", labels.join(","), value.parse::<f64>().expect("a number"))
        })
        .collect();
    found.sort();
    found
}

/// kube-state-metrics has only the permissions that `docs/metrics.md` names.
#[tokio::test(flavor = "multi_thread")]
async fn kube_state_metrics_exports_each_resource() {
    const NAMESPACE: &str = "by-name";
    let cluster = cluster().await;
    let page = text("docs/metrics.md");
    let values: Value = serde_saphyr::from_str(blocks(&page, "yaml kube-state-metrics")[0]).expect("YAML");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": NAMESPACE}, "rules": values["rbac"]["extraRules"]});
    cluster.apply(&role.to_string()).await.expect("a role");
    for command in [
        ["create", "namespace", NAMESPACE].as_slice(),
        &["create", "serviceaccount", "reader", "-n", NAMESPACE],
        &[
            "create",
            "clusterrolebinding",
            NAMESPACE,
            "--clusterrole=by-name",
            "--serviceaccount=by-name:reader",
        ],
    ] {
        cluster.kubectl(command).await.expect("it is created");
    }
    for name in ["new", "orders"] {
        let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"stream": {"service": "Firehose", "name": name}}});
        cluster.apply(&resource.to_string()).await.expect("a resource");
    }
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {
        "stream": {"arn": "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders", "account": "111122223333",
                   "name": "orders", "region": "eu-west-1", "service": "Firehose"},
        "activeKey": {"type": "CUSTOMER_MANAGED_CMK", "arn": "arn:key"}, "encryptionStatus": "DISABLED",
        "conditions": [condition("Ready", "False", "Suspended"), condition("Encrypted", "Unknown", "AwsUnreachable"),
                       condition("KeyUsable", "True", "KeyEnabled")],
        "suspendedSinceTime": "2026-01-01T00:00:00Z", "plaintextSinceTime": "2026-01-01T00:00:01.5Z",
        "activeKeyUnusableSinceTime": "2026-01-01T00:00:02Z", "nextAttemptTime": "2026-01-01T00:00:03Z",
        "lastDescribeTime": "2026-01-01T00:00:04Z", "calls": {"used": 3, "limit": 20, "nextAvailableTime": "2026-01-02T00:00:00Z"},
    }});
    let patch = ["patch", "strenc", "orders", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p"];
    cluster.kubectl(&[&patch[..], &[&status.to_string()]].concat()).await.expect("a status");

    let kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, "reader").await.expect("a kubeconfig");
    let free = || async { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port") };
    let (one, two) = (free().await, free().await);
    let [port, telemetry] = [&one, &two].map(|port| port.local_addr().expect("an address").port());
    drop((one, two));
    let log = cluster.folder().join("kube-state-metrics.log");
    let log_file = std::fs::File::create(&log).expect("a file");
    let _program = tokio::process::Command::new(kube_state_metrics().await.expect("kube-state-metrics"))
        .arg("--custom-resource-state-only")
        .arg(format!("--custom-resource-state-config-file={}", path(FILE).display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(["--host=127.0.0.1", "--telemetry-host=127.0.0.1"])
        .args([format!("--port={port}"), format!("--telemetry-port={telemetry}")])
        .stdin(Stdio::null())
        .stdout(log_file.try_clone().expect("a file"))
        .stderr(log_file)
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");

    let expected = [
        r#"active_key_unusable_since_timestamp_seconds{key="arn:key",name="orders"} 1767225602"#,
        r#"calls_limit{name="orders"} 20"#,
        r#"calls_used{name="orders"} 3"#,
        r#"info{account="111122223333",arn="arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders",aws_service="Firehose",encryption="Enabled",encryption_status="DISABLED",mode="Enforce",name="orders",ready="False",reason="Suspended",region="eu-west-1",suspended_since="2026-01-01T00:00:00Z"} 1"#,
        r#"info{encryption="Enabled",mode="Enforce",name="new"} 1"#,
        r#"last_describe_timestamp_seconds{name="orders"} 1767225604"#,
        r#"next_attempt_timestamp_seconds{name="orders"} 1767225603"#,
        r#"plaintext_since_timestamp_seconds{encryption="Enabled",name="orders"} 1767225601"#,
        r#"status_condition{condition="Encrypted",name="orders",reason="AwsUnreachable",status="Unknown"} 0"#,
        r#"status_condition{condition="KeyUsable",name="orders",reason="KeyEnabled",status="True"} 1"#,
        r#"status_condition{condition="Ready",name="orders",reason="Suspended",status="False"} 0"#,
    ];
    let end = Instant::now() + Duration::from_mins(1);
    let mut found = Vec::new();
    while found != expected && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(300)).await;
        found =
            get(port, "/metrics").await.map(|scrape| of_namespace(&scrape, NAMESPACE)).unwrap_or_default();
    }
    let log = std::fs::read_to_string(log).expect("a log");
    assert_eq!(found, expected, "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| line.starts_with('E')).collect();
    assert_eq!(errors, Vec::<&str>::new(), "fields that are absent are no errors");
}
