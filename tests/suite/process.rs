//! The operator's own process on a real clock: killed at the worst moment, with invalid objects, and without
//! AWS.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use jsonpath_rust::JsonPath as _;
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, Fault, PlantedKey, PlantedStream, Rule, Settings, World};
use simulated_aws::{Clock, MACHINE_VARIABLES, SimulatedAws};
use stream_encryption_api::FINALIZER;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use test_cluster::TestCluster;

use crate::harness::{
    LEDGERS, client, cluster, firehose, fresh_namespace, manifest, operators_kubeconfig, own_cluster, spec,
};

pub(crate) const START: &str = "StartDeliveryStreamEncryption";

/// The operator as a process. Dropping it kills it.
pub(crate) struct OperatorProcess(Child);

impl OperatorProcess {
    /// Starts the binary with only a KUBECONFIG and AWS's standard environment.
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_stream-encryption-operator"));
        for name in MACHINE_VARIABLES {
            command.env_remove(name);
        }
        let child = command
            .arg("run")
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

    /// Sends this signal, such as `-STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        signal_to(self.0.id(), signal);
    }

    /// Returns whether SIGSTOP has reached all of its threads: on a busy machine, one may still run for a while.
    pub(crate) fn is_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else {
            // Without procfs it cannot be told.
            return true;
        };
        threads.flatten().all(|thread| {
            let state = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            state.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        })
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Returns its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("its state can be read")
    }

    /// Sends SIGKILL.
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

/// The chart's default policy, in the form of the command line.
pub(crate) fn own_account() -> String {
    serde_json::to_string(&StreamEncryptionPolicySpec::own_account()).expect("JSON")
}

/// Sends a signal to any process.
pub(crate) fn signal_to(process: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill {signal} {process}");
}

/// Time after which a test gives up on what takes as long as the machine needs. It is no promise of the operator.
const GIVE_UP: Duration = Duration::from_mins(5);

/// Waits, on the real clock, until a condition outside this process is true.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    within(what, GIVE_UP, is_so).await;
}

/// Waits as [`eventually`] does, for this time at most: for a condition that would become true later in another way, such
/// as by the next check for drift.
pub(crate) async fn within(what: &str, time: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + time;
    while !is_so().await {
        assert!(Instant::now() < end, "not within {time:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An address on which one process can listen. Its port is below those of outgoing connections: the tests make
/// thousands of these, and one of them could take a port that is only free now.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + number % 12_000).expect("it is below 32,000");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A namespace of the shared cluster, and a simulated AWS with the stream `orders`.
pub(crate) struct Place {
    pub(crate) cluster: &'static TestCluster,
    /// The kubeconfig of the operator's account.
    pub(crate) account: PathBuf,
    pub(crate) namespace: String,
    pub(crate) aws: SimulatedAws,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let cluster = cluster().await;
        let (account, namespace) = (operators_kubeconfig(cluster).await, fresh_namespace(cluster).await);
        Self { cluster, account, namespace, aws: world().await }
    }

    /// Starts an operator with these variables.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> OperatorProcess {
        self.logging_to(Stdio::null(), variables)
    }

    pub(crate) fn logging_to(&self, log: impl Into<Stdio>, variables: &[(&str, &str)]) -> OperatorProcess {
        let url = self.aws.url();
        let environment = [&[("AWS_ENDPOINT_URL", url.as_str())], variables].concat();
        OperatorProcess::logging_to(log, &self.account, &self.namespace, &environment)
    }

    /// Creates the resource `orders`, without a key.
    pub(crate) async fn ask_for_encryption(&self) {
        apply(self.cluster, &self.namespace, "orders", &spec(&firehose("orders"), None)).await;
    }

    /// Returns one field of the resource `orders`.
    pub(crate) async fn field(&self, path: &str) -> String {
        field(self.cluster, &self.namespace, "orders", path).await
    }

    /// Waits until the resource `orders` is encrypted.
    pub(crate) async fn until_it_is_encrypted(&self) {
        until_it_says(self.cluster, &self.namespace, "orders", "Encrypted").await;
    }

    /// The number of Starts of `orders` that AWS received.
    pub(crate) fn starts(&self) -> usize {
        self.aws.world().calls().count(START, "orders")
    }
}

/// Waits until `Ready` has this reason.
pub(crate) async fn until_it_says(cluster: &TestCluster, namespace: &str, name: &str, reason: &str) {
    let says_it = async || field(cluster, namespace, name, REASON).await == reason;
    eventually(&format!("{namespace}/{name}: {reason}"), says_it).await;
}

/// Returns fields of a resource as text, in the form of kubectl's jsonpath: `{.status.calls.used}/{.status.calls.limit}`.
/// Returns nothing if it cannot be read. Tests ask ten times a second, which kubectl would take too long for.
pub(crate) async fn field(cluster: &TestCluster, namespace: &str, name: &str, path: &str) -> String {
    let url = format!("/apis/streamencryption.dev/v1alpha1/namespaces/{namespace}/streamencryptions/{name}");
    let request = http::Request::get(url).body(Vec::new()).expect("a request");
    let read = client(cluster.kubeconfig()).await.request::<Value>(request).await;
    let Ok(resource) = read else { return String::new() };
    let mut text = String::new();
    for (number, part) in path.split(['{', '}']).enumerate() {
        if number % 2 == 0 {
            text.push_str(part);
            continue;
        }
        for found in resource.query(&format!("${part}")).expect("a JSONPath") {
            text.push_str(&found.as_str().map_or_else(|| found.to_string(), str::to_owned));
        }
    }
    text
}

pub(crate) const REASON: &str = "{.status.conditions[?(@.type=='Ready')].reason}";
pub(crate) const MESSAGE: &str = "{.status.conditions[?(@.type=='Ready')].message}";

pub(crate) async fn apply(cluster: &TestCluster, namespace: &str, name: &str, spec: &Value) {
    cluster.apply(&manifest(namespace, name, spec).to_string()).await.expect("the resource is accepted");
}

/// A simulated AWS on the real clock, with one stream, in which a change takes 2 s.
pub(crate) async fn world() -> SimulatedAws {
    let two = SignedDuration::from_secs(2);
    let settings = Settings { enabling: two, disabling: two, ..Settings::default() };
    let mut world = World::new(settings);
    world.plant_stream(PlantedStream::default());
    SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS")
}

/// T12: a message of AWS, or of a server in its place, adds no log line of its own.
#[tokio::test(flavor = "multi_thread")]
async fn multi_line_aws_message_is_logged_as_one_json_line() {
    let place = Place::new().await;
    let (code, message) = ("SomethingNew".to_owned(), "no\n{\"message\":\"forged\"}\nnor this".to_owned());
    place.aws.world().script(Rule::always(Fault::Refuse { code, message, status: 400 }).on(START));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let operator = place.logging_to(writer, &[]);
    place.ask_for_encryption().await;
    until_it_says(place.cluster, &place.namespace, "orders", "CallRefused").await;
    operator.kill();
    let log = std::io::read_to_string(reader).expect("text");
    assert!(log.contains("forged"), "AWS's message is in\n{log}");
    for line in log.lines() {
        // As YAML, which refuses a field that occurs twice: a reader of JSON would lose one of them.
        let told: Value = serde_saphyr::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(told["level"].is_string(), "not a log line of the operator: {line}");
    }
}

/// A cluster of its own, with further definitions and an operator.
pub(crate) async fn own_stage(definitions: &str) -> (TestCluster, SimulatedAws, OperatorProcess) {
    let (own, account) = own_cluster(&["data"]).await;
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
    let aws = world().await;
    let operator = OperatorProcess::start(
        &account,
        "data",
        &[("AWS_ENDPOINT_URL", &aws.url()), ("POD_NAMESPACE", LEDGERS)],
    );
    (own, aws, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_object_blocks_neither_others_nor_its_deletion() {
    // A schema that accepts everything stands for objects that are older than a validation rule.
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
    let (own, aws, _operator) = own_stage(&lax.to_string()).await;
    apply(&own, "data", "broken", &json!({"stream": 7})).await;
    apply(&own, "data", "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    until_it_says(&own, "data", "orders", "Encrypted").await;
    until_it_says(&own, "data", "broken", "SpecInvalid").await;
    let finalizers = json!({"metadata": {"finalizers": [FINALIZER]}}).to_string();
    let broken = ["strenc", "broken", "-n", "data"];
    own.kubectl(&[&["patch"], &broken[..], &["--type=merge", "-p", &finalizers]].concat())
        .await
        .expect("a finalizer");
    own.kubectl(&[&["delete"], &broken[..], &["--wait=false"]].concat()).await.expect("it is deleted");
    eventually("its finalizer is removed", async || {
        own.kubectl(&[&["get"], &broken[..]].concat()).await.is_err()
    })
    .await;

    // The API server takes the managed fields of a request, and does not check their times. The types of Kubernetes in Rust
    // cannot hold this one.
    let name_label = json!({"f:metadata": {"f:labels": {"f:kubernetes.io/metadata.name": {}}}});
    for (object, version, fields) in [
        ("strenc/orders", "streamencryption.dev/v1alpha1", json!({"f:spec": {"f:stream": {"f:arn": {}}}})),
        ("namespace/data", "v1", name_label),
    ] {
        let entry = json!({
            "manager": "x", "operation": "Update", "apiVersion": version, "time": "9999-12-31T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        });
        let patch = json!({"metadata": {"managedFields": [entry]}}).to_string();
        own.kubectl(&["patch", object, "-n", "data", "--type=merge", "-p", &patch]).await.expect("a patch");
        let stored = own.kubectl(&["get", object, "-n", "data", "-o", "yaml", "--show-managed-fields"]).await;
        let stored = stored.expect("the object");
        assert!(stored.contains("9999-12-31"), "{stored}");
    }
    aws.world().plant_stream(PlantedStream { name: "later".to_owned(), ..PlantedStream::default() });
    apply(&own, "data", "later", &json!({"stream": {"arn": firehose("later")}})).await;
    until_it_says(&own, "data", "later", "Encrypted").await;
}

/// A minimal definition of a kind `Key` in `group`.
pub(crate) fn key_definition(group: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("keys.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Key", "plural": "keys", "singular": "key"},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn key_objects_of_ack_and_crossplane_are_followed_promptly() {
    const ACK: (&str, &str) = ("kms.services.k8s.aws", "v1alpha1");
    const CROSSPLANE: (&str, &str) = ("kms.aws.m.upbound.io", "v1beta1");
    let definitions = [ACK, CROSSPLANE].map(|(group, version)| key_definition(group, version));
    let definitions = json!({"apiVersion": "v1", "kind": "List", "items": definitions});
    let (own, aws, _operator) = own_stage(&definitions.to_string()).await;
    for ((group, version), stream) in [(ACK, "orders"), (CROSSPLANE, "payments")] {
        if stream != "orders" {
            aws.world().plant_stream(PlantedStream { name: stream.to_owned(), ..PlantedStream::default() });
        }
        let reference = json!({"group": group, "kind": "Key", "name": "main"});
        let key = json!({"type": "CUSTOMER_MANAGED_CMK", "objectRef": reference});
        apply(&own, "data", stream, &json!({"stream": {"arn": firehose(stream)}, "key": key})).await;
        until_it_says(&own, "data", stream, "KeyReferenceNotReady").await;

        for _ in 0..2 {
            let arn = aws.world().plant_key(PlantedKey::default());
            let status = match group {
                "kms.services.k8s.aws" => json!({"ackResourceMetadata": {"arn": arn}}),
                _ => json!({"atProvider": {"arn": arn}}),
            };
            let object = json!({
                "apiVersion": format!("{group}/{version}"), "kind": "Key",
                "metadata": {"name": "main", "namespace": "data"},
                "status": status,
            });
            let starts = aws.world().calls().count(START, stream);
            own.apply(&object.to_string()).await.expect("the key object");
            within("another Start is sent", Duration::from_secs(20), async || {
                aws.world().calls().count(START, stream) == starts + 1
            })
            .await;
            let is_active = async || field(&own, "data", stream, "{.status.activeKey.arn}").await == arn;
            eventually("its key is active", is_active).await;
        }
    }
}
