//! Tests the pods: their permissions on the node, and the environment of the operator.

use std::net::SocketAddr;

use packages::objects::{NAMESPACE, only, rendered, word};
use packages::text;
use serde_json::{Value, json};

use crate::documents::blocks;
use crate::stage::{chart, cluster, kustomized_beside_clone};

/// Returns the operator's environment with these values; a variable that comes from a field has the field's
/// path as its value.
async fn environment(values: Value) -> std::collections::BTreeMap<String, String> {
    let objects = chart(values).await;
    let container = &only(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().expect("a list").iter();
    variables
        .map(|variable| {
            let value = variable["value"].as_str().map(str::to_owned);
            let field = || word(&variable["valueFrom"]["fieldRef"]["fieldPath"]).to_owned();
            (word(&variable["name"]).to_owned(), value.unwrap_or_else(field))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_pass_restricted_pod_security() {
    let cluster = cluster().await;
    let strict = "restricted-only";
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": strict, "labels": labels}});
    cluster.apply(&namespace.to_string()).await.expect("a namespace");
    let mut objects = chart(json!({})).await;
    for object in &mut objects {
        if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = json!(strict);
        }
    }
    objects.retain(|object| object["kind"] == "Deployment" || object["kind"] == "Pod");
    let account = "stream-encryption-operator";
    cluster.kubectl(&["create", "serviceaccount", account, "-n", strict]).await.expect("an account");

    let spec = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let metadata = json!({"name": "operator", "namespace": strict});
    let operator = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    for pod in [&operator, only(&objects, "Pod")] {
        cluster.kubectl_with_input(&create, &pod.to_string()).await.expect("the API server accepts it");
    }
    let mut careless = operator;
    careless["spec"]["containers"][0]["securityContext"] = json!({});
    let error = cluster.kubectl_with_input(&create, &careless.to_string()).await.expect_err("it is refused");
    assert!(error.to_string().contains("violates PodSecurity \"restricted"), "{error}");
}

/// `restricted` does not require a read-only root, so the API server would accept a pod without one.
#[tokio::test(flavor = "multi_thread")]
async fn pods_run_as_non_root_with_read_only_root() {
    let objects = chart(json!({})).await;
    for pod in [&only(&objects, "Deployment")["spec"]["template"]["spec"], &only(&objects, "Pod")["spec"]] {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod}");
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1), "{pod}");
        assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true, "{pod}");
    }
}

/// `OpenShift` creates no pod with a user or a group that is not in the range of its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn documented_openshift_pods_set_no_user_and_group() {
    let page = text("docs/install.md");
    let values = blocks(&page, "yaml").into_iter().find(|yaml| yaml.starts_with("podSecurityContext:"));
    let values = serde_saphyr::from_str(values.expect("the values of the page")).expect("YAML");
    let [patch] = blocks(&page, "yaml openshift")[..] else { panic!("one patch") };
    // It ends with its patches.
    let kustomization = format!("{}{patch}", blocks(&page, "yaml kustomization")[0]);
    let (charts, ours) = (chart(values).await, kustomized_beside_clone("openshift", &kustomization).await);
    for pod in [
        &only(&charts, "Deployment")["spec"]["template"]["spec"],
        &only(&charts, "Pod")["spec"],
        &only(&ours, "Deployment")["spec"]["template"]["spec"],
    ] {
        let expected = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(pod["securityContext"], expected, "{pod}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_has_pod_listen_address_and_leader_election() {
    let told = environment(json!({})).await;
    assert_eq!(told["POD_NAME"], "metadata.name");
    assert_eq!(told["POD_NAMESPACE"], "metadata.namespace");
    assert_eq!(told["LISTEN"], "[::]:8080");
    assert_eq!(told["LEADER_ELECTION"], "true");
    let elsewhere = json!({"metrics": {"listen": {"address": "[::]", "port": 9090}}, "leaderElection": {"enabled": false}});
    let told = environment(elsewhere).await;
    assert_eq!((told["LISTEN"].as_str(), told["LEADER_ELECTION"].as_str()), ("[::]:9090", "false"));
}

/// The operator parses the variable as a socket address, and exits if it is none.
#[tokio::test(flavor = "multi_thread")]
async fn accepted_listen_addresses_are_socket_addresses() {
    for address in ["0.0.0.0", "10.0.0.1", "[::]", "[2001:db8::1]", "[::ffff:10.0.0.1]"] {
        let told = environment(json!({"metrics": {"listen": {"address": address}}})).await;
        assert!(told["LISTEN"].parse::<SocketAddr>().is_ok(), "{}", told["LISTEN"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn region_is_unset_by_default() {
    assert!(!environment(json!({})).await.contains_key("AWS_REGION"));
    assert_eq!(environment(json!({"aws": {"region": "eu-west-1"}})).await["AWS_REGION"], "eu-west-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_part_is_set_only_on_request() {
    assert!(!environment(json!({})).await.contains_key("WATCH_NAMESPACE"));
    assert_eq!(environment(json!({"installScope": "namespace"})).await["WATCH_NAMESPACE"], NAMESPACE);
    let values = json!({"installScope": "namespace", "watchNamespaces": ["data", "web"]});
    assert_eq!(environment(values).await["WATCH_NAMESPACE"], "data,web");
    assert!(!environment(json!({})).await.contains_key("WATCH_LABEL_SELECTOR"));
    let values = json!({"watchLabelSelector": "shard notin (a,b)"});
    assert_eq!(environment(values).await["WATCH_LABEL_SELECTOR"], "shard notin (a,b)");
}

const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/events";

#[tokio::test(flavor = "multi_thread")]
async fn event_queue_is_set_only_on_request() {
    let names = ["EVENTS_QUEUE_URL", "EVENTS_DRIFT_INTERVAL_SECONDS"];
    let told = environment(json!({})).await;
    assert!(names.iter().all(|name| !told.contains_key(*name)), "{told:?}");
    let told = environment(json!({"events": {"queueUrl": QUEUE}})).await;
    assert_eq!(names.map(|name| told[name].as_str()), [QUEUE, "3600"]);
}

/// Returns values with which the chart sets every variable.
fn every_variable() -> Value {
    json!({"aws": {"region": "eu-west-1", "endpointUrl": "https://aws.test", "credentials": {"secretName": "aws"},
                   "requestLimits": [{"operation": "kms:DescribeKey", "requestsPerSecond": 50}]},
           "events": {"queueUrl": QUEUE}, "installScope": "namespace", "watchLabelSelector": "shard=a"})
}

/// Without the SDK's own variable, STS would still provide the operator's credentials from AWS's endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn endpoint_url_also_applies_to_source_of_credentials() {
    let told = environment(json!({"aws": {"endpointUrl": "https://aws.test"}})).await;
    let names = ["STREAM_ENCRYPTION_AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL"];
    assert_eq!(names.map(|name| told[name].as_str()), ["https://aws.test"; 2]);
    let told = environment(json!({})).await;
    assert!(names.iter().all(|name| !told.contains_key(*name)), "{told:?}");
}

/// The operator rejects an invalid value of a variable that it knows, so only an unknown name could go
/// unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn every_variable_is_read_by_operator() {
    let settings = text("src/settings.rs");
    // These are read by the AWS SDK.
    let elsewhere = ["AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE"];
    let told = environment(every_variable()).await;
    assert!(told.len() > 12, "{told:?}");
    for name in told.keys().filter(|name| !elsewhere.contains(&name.as_str())) {
        assert!(settings.contains(&format!("env = \"{name}\"")), "src/settings.rs reads no {name}");
    }
}

/// A server-side apply refuses a container that has a variable twice.
#[tokio::test(flavor = "multi_thread")]
async fn extra_variables_that_the_chart_sets_are_refused() {
    let mut values = every_variable();
    let told = environment(values.clone()).await;
    values["extraEnv"] = told.keys().map(|name| json!({"name": name, "value": "a"})).collect();
    let error = format!("{:#}", rendered(&values).await.expect_err("they are refused"));
    let page = text("docs/settings.md");
    for name in told.keys() {
        let row = page.lines().find(|line| line.contains(&format!(" | `{name}` | "))).expect(name);
        // The first cell names the value of the chart, if there is one.
        let value = row.split('|').nth(1).and_then(|cell| cell.split('`').nth(1));
        let expected = value.map_or_else(|| name.clone(), |value| format!("{name} (set {value}"));
        assert!(error.contains(&expected), "{expected}: {error}");
    }
    let region = json!([{"name": "AWS_REGION", "value": "eu-west-1"}]);
    assert_eq!(environment(json!({"extraEnv": region})).await["AWS_REGION"], "eu-west-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_credentials_are_mounted_as_sdk_file() {
    let values =
        json!({"aws": {"credentials": {"secretName": "aws", "secretKey": "file", "profile": "streams"}}});
    let objects = chart(values.clone()).await;
    let pod = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let mount = &pod["containers"][0]["volumeMounts"][0];
    let told = environment(values).await;
    assert_eq!(told["AWS_SHARED_CREDENTIALS_FILE"], format!("{}/file", word(&mount["mountPath"])));
    assert_eq!(told["AWS_PROFILE"], "streams");
    assert_eq!(mount["name"], pod["volumes"][0]["name"]);
    assert_eq!(mount["readOnly"], true);
    assert_eq!(
        pod["volumes"][0]["secret"],
        json!({"secretName": "aws", "items": [{"key": "file", "path": "file"}]})
    );
}

/// EKS reads the annotations of the service account only when a pod is created.
#[tokio::test(flavor = "multi_thread")]
async fn changed_service_account_annotations_replace_pods() {
    let template = async |role: Option<&str>| {
        let annotations = role.map(|role| json!({"eks.amazonaws.com/role-arn": role}));
        let values = json!({"serviceAccount": {"annotations": annotations.unwrap_or(json!({}))}});
        only(&chart(values).await, "Deployment")["spec"]["template"].clone()
    };
    let [none, one, other] = [
        template(None).await,
        template(Some("arn:aws:iam::111122223333:role/one")).await,
        template(Some("arn:aws:iam::111122223333:role/other")).await,
    ];
    assert!(none != one && one != other && none != other, "{none}, {one}, {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn network_policy_allows_ipv4_and_ipv6_credential_sources() {
    let objects = chart(json!({"networkPolicy": {"enabled": true}})).await;
    let policy = only(&objects, "NetworkPolicy").to_string();
    for address in ["169.254.170.23/32", "fd00:ec2::23/128", "169.254.169.254/32", "fd00:ec2::254/128"] {
        assert!(policy.contains(&format!("\"{address}\"")), "{address}: {policy}");
    }
}

/// The API server of the tests does not have this kind.
#[tokio::test(flavor = "multi_thread")]
async fn documented_cilium_policy_opens_node_to_operator() {
    let page = text("docs/install.md");
    let values = blocks(&page, "yaml").into_iter().find(|yaml| yaml.contains("kind: CiliumNetworkPolicy"));
    let values = serde_saphyr::from_str(values.expect("the values of the page")).expect("YAML");
    let objects = chart(values).await;
    only(&objects, "NetworkPolicy");
    let (policy, deployment) = (only(&objects, "CiliumNetworkPolicy"), only(&objects, "Deployment"));
    assert_eq!(policy["metadata"]["namespace"], deployment["metadata"]["namespace"]);
    let selector = policy["spec"]["endpointSelector"]["matchLabels"].as_object().expect("labels");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value), "{policy}");
    let port = json!({"port": "80", "protocol": "TCP"});
    let node = json!([{"toEntities": ["host"], "toPorts": [{"ports": [port]}]}]);
    assert_eq!(policy["spec"]["egress"], node);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_service_and_test_use_listen_port() {
    let objects = chart(json!({"metrics": {"listen": {"port": 9090}, "service": {"port": 80}}})).await;
    let container = &only(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["ports"][0], json!({"name": "http", "containerPort": 9090, "protocol": "TCP"}));
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "http"}), "{probe}");
    }
    let port = &only(&objects, "Service")["spec"]["ports"][0];
    assert_eq!((&port["targetPort"], &port["port"]), (&json!("http"), &json!(80)));
    let url = "http://stream-encryption-operator.stream-encryption-system.svc:80/readyz";
    assert_eq!(only(&objects, "Pod")["spec"]["containers"][0]["args"], json!(["check", "--url", url]));
}
