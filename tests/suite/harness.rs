//! The test harness: the operator's own reconcile function, in this process, on a real API server and the
//! simulated AWS, with one virtual clock.
//!
//! [`Harness::until`] reconciles a resource as the controller would, and advances the clock to the time that
//! each reconcile requests. A day passes in seconds, nothing sleeps, and counts are exact.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::SystemTime;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::time::TimeSource;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, EncryptionStatus as Shown, PlantedKey, Settings, Snapshot, World};
use simulated_aws::{Clock as AwsClock, SimulatedAws};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{EncryptionStatus, StreamEncryption, StreamEncryptionStatus};
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics, reconcile};
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::model::ledger;
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::aws::rate_limit::RateLimiter;
use stream_encryption_operator::kubernetes::Cluster;
use test_cluster::TestCluster;

use crate::permissions::{
    OPERATOR, allow_tenant, tenant, until_operator_may_read, until_operator_may_write_ledgers,
};

/// The account and region of every harness.
pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-west-1";
/// The access key of every harness. The simulated AWS maps it to the account above.
pub(crate) const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
/// The operator's own namespace, with its service account.
pub(crate) const LEDGERS: &str = "stream-encryption-system";

/// One harness.
pub(crate) struct Harness {
    pub(crate) aws: Arc<SimulatedAws>,
    pub(crate) cluster: &'static TestCluster,
    /// A client with the operator's permissions.
    pub(crate) client: Client,
    /// A client with an administrator's permissions.
    pub(crate) administrator: Client,
    /// A client with the permissions of a user who may edit this namespace through the role that the operator
    /// installs, and nothing else.
    pub(crate) tenant: Client,
    pub(crate) namespace: String,
    /// The namespace of the ledgers.
    ledgers: String,
    /// The policy that applies in addition to the stored ones.
    pub(crate) policy: Option<StreamEncryptionPolicySpec>,
    pub(crate) config: Config,
    operator: Box<Context<Aws, Cluster>>,
    /// Whether a test makes Kubernetes fail. A failed reconcile is repeated after some seconds then, as in the
    /// controller.
    pub(crate) kubernetes_may_fail: bool,
    failed: AtomicUsize,
}

/// The encryption status and the reason of `Ready` after a reconcile.
pub(crate) type Word = (Option<EncryptionStatus>, String);

/// The cluster of this test binary, with the operator's definitions and roles installed as users install
/// them.
pub(crate) async fn cluster() -> &'static TestCluster {
    static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let cluster = test_cluster::shared().await.expect("a test cluster");
    INSTALLED.get_or_init(|| install(cluster)).await;
    cluster
}

/// Installs the operator's definitions and roles as users do.
pub(crate) async fn install(cluster: &TestCluster) {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    cluster.kubectl(&["apply", "--server-side", "-k", config]).await.expect("config/ is installed");
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    cluster.kubectl(&established).await.expect("the definitions are established");
    // The API server may report for a moment after that it initialises the storage. kubectl retries then.
    let kinds = "streamencryptions,streamledgers,streamencryptionpolicies";
    cluster.kubectl(&["get", kinds, "--all-namespaces"]).await.expect("their objects are served");
}

/// Starts a cluster with the operator's definitions and roles, and with these namespaces. Returns the kubeconfig of
/// the operator's account, too.
pub(crate) async fn own_cluster(namespaces: &[&str]) -> (TestCluster, std::path::PathBuf) {
    let own = TestCluster::start().await.expect("a cluster");
    install(&own).await;
    for namespace in namespaces {
        own.kubectl(&["create", "namespace", namespace]).await.expect("a namespace");
    }
    let account = own.service_account_kubeconfig(LEDGERS, OPERATOR).await;
    until_operator_may_read(&own).await;
    until_operator_may_write_ledgers(&own, LEDGERS).await;
    (own, account.expect("its account"))
}

pub(crate) async fn client(kubeconfig: &std::path::Path) -> Client {
    // Each test has its own runtime, and a client belongs to one runtime.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::try_from(config(kubeconfig).await).expect("a client")
}

pub(crate) async fn config(kubeconfig: &std::path::Path) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("a configuration");
    // kube would use the machine's proxy, although the API server is on this machine.
    config.proxy_url = None;
    config
}

/// The kubeconfig of the operator's own service account, with exactly the permissions of `config/rbac`.
pub(crate) async fn operators_kubeconfig(cluster: &TestCluster) -> std::path::PathBuf {
    static MADE: tokio::sync::OnceCell<std::path::PathBuf> = tokio::sync::OnceCell::const_new();
    assert!(std::ptr::eq(cluster, self::cluster().await), "it is the account of the shared cluster");
    let account = async || {
        let account = cluster.service_account_kubeconfig(LEDGERS, OPERATOR).await.expect("its account");
        until_operator_may_read(cluster).await;
        account
    };
    MADE.get_or_init(account).await.clone()
}

/// Creates a namespace that no other test uses, for resources and for ledgers, with the operator's role for
/// ledgers and a user who may edit it.
pub(crate) async fn fresh_namespace(cluster: &TestCluster) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let namespace = format!("harness-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    cluster.kubectl(&["create", "namespace", &namespace]).await.expect("a namespace");
    for role in
        [include_str!("../../config/rbac/role.yaml"), include_str!("../../config/rbac/role_binding.yaml")]
    {
        // The first one is the object's own namespace; the last one in the binding is the namespace of the
        // operator's account.
        let here = role.replacen(&format!("namespace: {LEDGERS}"), &format!("namespace: {namespace}"), 1);
        cluster.apply(&here).await.expect("the operator's role for ledgers");
    }
    until_operator_may_write_ledgers(cluster, &namespace).await;
    allow_tenant(cluster, &namespace).await;
    namespace
}

/// The SDK configuration for an endpoint without TLS, with arbitrary credentials, dated by the machine's clock, and without the
/// machine's proxy.
pub(crate) fn sdk(url: &str, access_key: &str) -> SdkConfig {
    let credentials = Credentials::new(access_key, "not-a-secret", None, None, "harness");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::new(REGION))
        .endpoint_url(url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// An operator's own clock as the SDKs use it. Requests are dated by it, whether it is right or wrong.
struct DatedBy(Clock);

impl fmt::Debug for DatedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatedBy")
    }
}

impl TimeSource for DatedBy {
    fn now(&self) -> SystemTime {
        self.0.now().into()
    }
}

fn operator(
    aws: &Arc<SimulatedAws>,
    client: Client,
    namespace: &str,
    policy: Option<StreamEncryptionPolicySpec>,
    config: Config,
    clock: Clock,
) -> Context<Aws, Cluster> {
    // The virtual clock skips the time for which the rate limiter, on the real clock, would wait.
    let unpaced = RateLimiter::with_limits(100, RequestLimits::same(100_000));
    let dated = DatedBy(clock.clone());
    let sdk = sdk(&aws.url(), ACCESS_KEY).into_builder().time_source(dated).build();
    let sessions = clock.clone();
    Context {
        aws: Aws::from_config(sdk, config.region.clone(), unpaced, Arc::new(move || sessions.now().into())),
        kube: Cluster::new(client, namespace, policy),
        clock,
        decide,
        config,
        memory: Memory::default(),
        metrics: Box::new(NoMetrics),
    }
}

impl Harness {
    /// Starts a harness with these world settings, at noon of some day.
    pub(crate) async fn start(settings: Settings) -> Self {
        let cluster = cluster().await;
        let client = client(&operators_kubeconfig(cluster).await).await;
        let noon: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        let aws = SimulatedAws::start(
            World::new(Settings { rate_limits: false, ..settings }),
            AwsClock::Virtual(noon),
        )
        .await
        .expect("a simulated AWS");
        let aws = Arc::new(aws);
        let config = Config {
            region: REGION.parse().expect("a region"),
            drift_interval: SignedDuration::from_mins(10),
            drift_interval_with_events: None,
        };
        let policy = Some(StreamEncryptionPolicySpec {
            allow_disable: true,
            ..StreamEncryptionPolicySpec::own_account()
        });
        let namespace = fresh_namespace(cluster).await;
        let operator =
            operator(&aws, client.clone(), &namespace, policy.clone(), config.clone(), clock(&aws));
        let operator = Box::new(operator);
        let administrator = self::client(cluster.kubeconfig()).await;
        let tenant = Box::pin(tenant(cluster, &namespace)).await;
        let ledgers = namespace.clone();
        Self {
            aws,
            cluster,
            client,
            administrator,
            tenant,
            namespace,
            ledgers,
            policy,
            config,
            operator,
            kubernetes_may_fail: false,
            failed: AtomicUsize::new(0),
        }
    }

    /// Restarts the operator's process, with changed config if they were changed.
    pub(crate) fn restart(&mut self) {
        *self.operator = self.replica();
    }

    /// A second harness with the same operator and AWS, and another namespace with its own user.
    pub(crate) async fn beside(&self) -> Self {
        let namespace = fresh_namespace(self.cluster).await;
        Self {
            aws: self.aws.clone(),
            cluster: self.cluster,
            client: self.client.clone(),
            administrator: self.administrator.clone(),
            tenant: Box::pin(tenant(self.cluster, &namespace)).await,
            namespace,
            ledgers: self.ledgers.clone(),
            policy: self.policy.clone(),
            config: self.config.clone(),
            operator: Box::new(self.replica()),
            kubernetes_may_fail: false,
            failed: AtomicUsize::new(0),
        }
    }

    /// Restarts the operator with a client for the API server through a proxy.
    pub(crate) fn through(&mut self, client: Client) {
        self.client = client;
        self.kubernetes_may_fail = true;
        self.restart();
    }

    pub(crate) fn restart_with_clock(&mut self, clock: Clock) {
        *self.operator = self.replica_with_clock(clock);
    }

    /// Another replica of the operator, with its own memory.
    pub(crate) fn replica(&self) -> Context<Aws, Cluster> {
        self.replica_with_clock(clock(&self.aws))
    }

    /// Another replica on a node with its own clock, which may be wrong. Its requests to AWS are dated by it.
    pub(crate) fn replica_with_clock(&self, clock: Clock) -> Context<Aws, Cluster> {
        let policy = self.policy.clone();
        operator(&self.aws, self.client.clone(), &self.ledgers, policy, self.config.clone(), clock)
    }

    /// The status in the operator's cache.
    pub(crate) async fn kept_status(&self, name: &str) -> Option<StreamEncryptionStatus> {
        let uid = self.resource(name).await?.metadata.uid?;
        self.operator.memory.recall_with_expired(&uid).status.map(|status| status.read())
    }

    /// Applies a resource with this spec as the user of the namespace.
    pub(crate) async fn apply(&self, name: &str, spec: &Value) {
        let resource = manifest(&self.namespace, name, spec);
        let api: Api<StreamEncryption> = Api::namespaced(self.tenant.clone(), &self.namespace);
        let parameters = PatchParams::apply("a-user").force();
        api.patch(name, &parameters, &Patch::Apply(&resource)).await.expect("the resource is accepted");
    }

    /// Runs kubectl in the harness's namespace and returns its output.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments = [arguments, &["-n", &self.namespace]].concat();
        self.cluster.kubectl(&arguments).await.expect("kubectl")
    }

    /// The resource as it is now.
    pub(crate) async fn resource(&self, name: &str) -> Option<StreamEncryption> {
        let api: Api<StreamEncryption> = Api::namespaced(self.tenant.clone(), &self.namespace);
        api.get_opt(name).await.expect("the resource can be read")
    }

    pub(crate) async fn status(&self, name: &str) -> StreamEncryptionStatus {
        self.resource(name).await.and_then(|resource| resource.status).unwrap_or_default()
    }

    pub(crate) async fn ledger(&self, arn: &str) -> Option<StreamLedger> {
        let api: Api<StreamLedger> = Api::namespaced(self.administrator.clone(), &self.ledgers);
        api.get_opt(&ledger::name(&arn.parse().expect("an ARN"))).await.expect("the ledger can be read")
    }

    /// Reconciles a resource once, now. Returns the requested time of the next reconcile.
    pub(crate) async fn visit(&self, name: &str) -> Result<Timestamp, KubeError> {
        match self.resource(name).await {
            Some(resource) => Box::pin(reconcile(&self.operator, &resource)).await,
            None => Ok(self.aws.now() + SignedDuration::from_mins(10)),
        }
    }

    /// Reconciles a resource at each requested time, until its status satisfies `enough`. Returns every
    /// (encryption status, reason) on the way, without repetitions. Panics after 300 reconciles.
    pub(crate) async fn until(
        &self,
        name: &str,
        enough: impl Fn(&StreamEncryptionStatus) -> bool,
    ) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        for _ in 0..300 {
            let wait = self.visit_or_retry(name).await;
            let live = self.resource(name).await.expect("the resource");
            let status = live.status.unwrap_or_default();
            // A status of an older generation is ignored.
            if status.observed_generation == live.metadata.generation {
                let word = (status.encryption_status, reason(&status));
                if words.last() != Some(&word) {
                    words.push(word);
                }
                if enough(&status) {
                    return words;
                }
            }
            self.aws.advance(wait);
        }
        panic!("not within 300 reconciles; on the way: {words:#?}");
    }

    /// The same, until `Ready` has this reason.
    pub(crate) async fn until_it_says(&self, name: &str, reason_wanted: &str) -> Vec<Word> {
        self.until(name, |status| reason(status) == reason_wanted).await
    }

    /// Reconciles a resource at each requested time, for this long.
    pub(crate) async fn let_pass(&self, name: &str, time: SignedDuration) {
        let end = self.aws.now() + time;
        loop {
            let wait = self.visit_or_retry(name).await;
            let left = end.duration_since(self.aws.now());
            self.aws.advance(wait.min(left));
            if wait >= left {
                return;
            }
        }
    }

    /// Reconciles a resource once. Returns how long the controller would wait, by the operator's own clock.
    async fn visit_or_retry(&self, name: &str) -> SignedDuration {
        match self.visit(name).await {
            Ok(wake) => wake.duration_since(self.operator.clock.now()).max(SignedDuration::from_millis(1)),
            Err(error) => {
                assert!(self.kubernetes_may_fail, "Kubernetes answers: {error}");
                self.failed.fetch_add(1, Ordering::Relaxed);
                SignedDuration::from_secs(3)
            }
        }
    }

    /// Returns how many reconciles failed because Kubernetes did not answer.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Somebody else disables encryption of a stream.
    pub(crate) fn turned_off_by_another(&self, arn: &str) {
        assert!(self.aws.world().set_stream(self.aws.now(), arn, stopped()), "a stream");
    }

    /// Returns the number of calls in a ledger.
    pub(crate) async fn reserved(&self, arn: &str) -> usize {
        self.ledger(arn).await.map_or(0, |ledger| ledger.spec.calls.len())
    }

    /// Creates a usable key.
    pub(crate) fn plant_key(&self) -> String {
        self.aws.world().plant_key(PlantedKey::default())
    }

    /// Returns how often AWS received this operation for this stream or key.
    pub(crate) fn calls(&self, operation: &str, target: &str) -> usize {
        self.aws.world().calls().count(operation, target)
    }

    /// The reasons of all events of a resource.
    pub(crate) async fn events(&self, name: &str) -> BTreeSet<String> {
        let events = crate::events::events_of(self, name).await;
        events.into_iter().filter_map(|event| event.reason).collect()
    }
}

fn clock(aws: &Arc<SimulatedAws>) -> Clock {
    let (wall, steady) = (aws.clone(), aws.clone());
    // Only virtual time passes; a reconcile takes none.
    Clock::new(move || wall.now(), move || steady.now().as_duration().unsigned_abs())
}

/// The reason of `Ready`.
pub(crate) fn reason(status: &StreamEncryptionStatus) -> String {
    find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.clone()).unwrap_or_default()
}

/// The status of a condition: True, False, Unknown, or empty if the condition is absent.
pub(crate) fn truth(status: &StreamEncryptionStatus, kind: ConditionType) -> String {
    find(&status.conditions, kind).map(|condition| condition.status.clone()).unwrap_or_default()
}

/// The message of `Ready`.
pub(crate) fn message(status: &StreamEncryptionStatus) -> String {
    find(&status.conditions, ConditionType::Ready).map(|ready| ready.message.clone()).unwrap_or_default()
}

/// The ARN of a Firehose stream.
pub(crate) fn firehose(name: &str) -> String {
    format!("arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{name}")
}

/// The ARN of a Kinesis data stream.
pub(crate) fn kinesis(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}")
}

/// A resource with this spec.
pub(crate) fn manifest(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// A spec with this customer managed key, or without a key.
pub(crate) fn spec(arn: &str, key: Option<&str>) -> Value {
    match key {
        Some(key) => json!({"stream": {"arn": arn}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": key}}),
        None => json!({"stream": {"arn": arn}}),
    }
}

/// A stream whose encryption was enabled and is disabled now.
pub(crate) fn stopped() -> Snapshot {
    Snapshot { encryption: Shown::Disabled, requested_key: None, active_key: None, ..Snapshot::default() }
}
