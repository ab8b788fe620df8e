//! The operator's own process, on a real clock: killed at the worst moment, before objects that it cannot read, without AWS.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, Fault, PlantedKey, PlantedStream, Rule, Settings, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use test_cluster::TestCluster;

use crate::play::{LEDGERS, cluster, firehose, fresh_namespace, operators_kubeconfig};

pub(crate) const START: &str = "StartDeliveryStreamEncryption";

/// The operator as a process. Dropping it kills it.
pub(crate) struct OperatorProcess(Child);

impl OperatorProcess {
    /// Starts the binary with nothing but a KUBECONFIG and AWS's standard environment.
    pub(crate) fn start(kubeconfig: &Path, namespace: &str, environment: &[(&str, &str)]) -> Self {
        Self::logging_to(Stdio::null(), kubeconfig, namespace, environment)
    }

    /// The same, with its log.
    pub(crate) fn logging_to(
        log: impl Into<Stdio>,
        kubeconfig: &Path,
        namespace: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_stream-encryption-operator"))
            .arg("run")
            // The machine may have its own.
            .env_remove("AWS_CA_BUNDLE")
            .env("KUBECONFIG", kubeconfig)
            .env("WATCH_NAMESPACE", namespace)
            .env("POD_NAMESPACE", namespace)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("DRIFT_INTERVAL_SECONDS", "10")
            .env("DEFAULT_POLICY", own_account())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(child.expect("the operator starts"))
    }

    /// `kill` with this signal, such as `-STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        signal_to(self.0.id(), signal);
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("it can be asked")
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it is killed");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The chart's default policy, as the command line takes it.
pub(crate) fn own_account() -> String {
    serde_json::to_string(&StreamEncryptionPolicySpec::own_account()).expect("JSON")
}

/// `kill` of any process.
pub(crate) fn signal_to(process: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill {signal} {process}");
}

/// Waits, on the real clock, until something outside this process has come true.
pub(crate) async fn eventually(what: &str, seconds: u64, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !is_so().await {
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An address whose port was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address")
}

/// Waits until the resource `orders` is encrypted.
pub(crate) async fn until_it_is_encrypted(cluster: &TestCluster, namespace: &str) {
    eventually("it is encrypted", 40, async || {
        field(cluster, namespace, "orders", REASON).await == "Encrypted"
    })
    .await;
}

/// One field of a resource, by kubectl's jsonpath.
pub(crate) async fn field(cluster: &TestCluster, namespace: &str, name: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    cluster.kubectl(&["get", "strenc", name, "-n", namespace, "-o", &path]).await.unwrap_or_default()
}

pub(crate) const REASON: &str = "{.status.conditions[?(@.type=='Ready')].reason}";

pub(crate) async fn apply(cluster: &TestCluster, namespace: &str, name: &str, spec: &Value) {
    let resource = json!({
        "apiVersion": "streamencryption.dev/v1alpha1",
        "kind": "StreamEncryption",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    });
    cluster.apply(&resource.to_string()).await.expect("the resource is accepted");
}

/// A simulated AWS on the real clock, with one stream, in which a change takes 2 s.
pub(crate) async fn world() -> SimulatedAws {
    let two = SignedDuration::from_secs(2);
    let settings = Settings { enabling: two, disabling: two, ..Settings::default() };
    let mut world = World::new(settings);
    world.plant_stream(PlantedStream::default());
    SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_a_start_was_sent_the_operator_sends_no_second_one() {
    let cluster = cluster().await;
    let kubeconfig = operators_kubeconfig(cluster).await;
    let namespace = fresh_namespace(cluster).await;
    let aws = world().await;
    let url = aws.url();
    let environment = [("AWS_ENDPOINT_URL", url.as_str())];
    // AWS carries the Start out, and its answer does not come.
    aws.world().script(Rule::once(Fault::Hold).on(START));
    let operator = OperatorProcess::start(&kubeconfig, &namespace, &environment);
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    eventually("Start was sent", 20, async || aws.world().calls().count(START, "orders") == 1).await;
    operator.kill();
    let pending =
        ["get", "streamledgers", "-n", &namespace, "-o", "jsonpath={.items[*].spec.calls[*].outcome}"];
    assert!(
        cluster.kubectl(&pending).await.expect("the ledgers").contains("Pending"),
        "the outcome is not recorded"
    );

    let _operator = OperatorProcess::start(&kubeconfig, &namespace, &environment);
    until_it_is_encrypted(cluster, &namespace).await;
    assert_eq!(aws.world().calls().count(START, "orders"), 1);
}

/// T12: what AWS says, or whoever answers in its place, makes no line of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_several_lines_is_one_line_of_the_log_and_every_line_is_json() {
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let aws = world().await;
    let (code, message) = ("SomethingNew".to_owned(), "no\n{\"message\":\"forged\"}\nnor this".to_owned());
    aws.world().script(Rule::always(Fault::Refuse { code, message, status: 400 }).on(START));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let operator = OperatorProcess::logging_to(
        writer,
        &operators_kubeconfig(cluster).await,
        &namespace,
        &[("AWS_ENDPOINT_URL", &aws.url())],
    );
    apply(cluster, &namespace, "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    eventually("it is told", 40, async || {
        field(cluster, &namespace, "orders", REASON).await == "CallRefused"
    })
    .await;
    operator.kill();
    let log = std::io::read_to_string(reader).expect("text");
    assert!(log.contains("forged"), "AWS's message is in\n{log}");
    for line in log.lines() {
        let told: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(told["level"].is_string(), "this is no line of the operator's: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_aws_is_told_within_seconds() {
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let url = format!("http://{}", free_address());
    let _operator = OperatorProcess::start(
        &operators_kubeconfig(cluster).await,
        &namespace,
        &[("AWS_ENDPOINT_URL", &url)],
    );
    apply(cluster, &namespace, "lost", &json!({"stream": {"arn": firehose("lost")}})).await;
    eventually("it is told", 15, async || {
        field(cluster, &namespace, "lost", REASON).await == "AwsUnreachable"
    })
    .await;
}

/// A cluster of its own, on which anything may be installed, with an operator on it.
async fn own_stage(definitions: &str) -> (TestCluster, SimulatedAws, OperatorProcess) {
    let own = TestCluster::start().await.expect("a cluster");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    own.kubectl(&["apply", "--server-side", "-k", config]).await.expect("config/ is installed");
    own.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        concat!(env!("CARGO_MANIFEST_DIR"), "/crds"),
    ])
    .await
    .expect("crds/");
    own.kubectl_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], definitions)
        .await
        .expect("more definitions");
    own.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
        .await
        .expect("established");
    own.kubectl(&["create", "namespace", "data"]).await.expect("a namespace");
    let account =
        own.service_account_kubeconfig(LEDGERS, "stream-encryption-operator").await.expect("its account");
    let aws = world().await;
    let operator = OperatorProcess::start(
        &account,
        "data",
        &[("AWS_ENDPOINT_URL", &aws.url()), ("POD_NAMESPACE", LEDGERS)],
    );
    (own, aws, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_stops_nobody_else() {
    // A schema that lets everything pass stands for objects that are older than a rule.
    let lax = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "streamencryptions.streamencryption.dev"},
        "spec": {
            "group": "streamencryption.dev",
            "scope": "Namespaced",
            "names": {"kind": "StreamEncryption", "plural": "streamencryptions", "singular": "streamencryption", "shortNames": ["strenc"]},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    let (own, _aws, _operator) = own_stage(&lax.to_string()).await;
    apply(&own, "data", "broken", &json!({"stream": 7})).await;
    apply(&own, "data", "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    eventually("the good one is encrypted", 40, async || {
        field(&own, "data", "orders", REASON).await == "Encrypted"
    })
    .await;
    eventually("the bad one is told", 10, async || {
        field(&own, "data", "broken", REASON).await == "SpecInvalid"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_object_of_ack_is_followed_promptly() {
    let keys = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "keys.kms.services.k8s.aws"},
        "spec": {
            "group": "kms.services.k8s.aws",
            "scope": "Namespaced",
            "names": {"kind": "Key", "plural": "keys", "singular": "key"},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    let (own, aws, _operator) = own_stage(&keys.to_string()).await;
    let reference = json!({"apiVersion": "kms.services.k8s.aws/v1alpha1", "kind": "Key", "name": "orders"});
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "ref": reference});
    apply(&own, "data", "orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
    eventually("it waits", 20, async || {
        field(&own, "data", "orders", REASON).await == "KeyReferenceNotReady"
    })
    .await;

    for _ in 0..2 {
        let arn = aws.world().plant_key(PlantedKey::default());
        let object = json!({
            "apiVersion": "kms.services.k8s.aws/v1alpha1", "kind": "Key",
            "metadata": {"name": "orders", "namespace": "data"},
            "status": {"ackResourceMetadata": {"arn": arn}},
        });
        own.apply(&object.to_string()).await.expect("the key object");
        let starts = aws.world().calls().count(START, "orders");
        eventually("it reacts", 5, async || aws.world().calls().count(START, "orders") == starts + 1).await;
        let in_force = async || field(&own, "data", "orders", "{.status.keyInForce.arn}").await == arn;
        eventually("its key is in force", 30, in_force).await;
    }
}
