//! A play: the operator's own steps, in this process, on a real API server and the simulated AWS, with one virtual clock.
//!
//! [`Play::until`] visits a resource as the driver would, and moves the clock to the time at which each visit asks to
//! be back. So a day passes in seconds, nothing sleeps, and what is counted is exact.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::time::TimeSource;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use simulated_aws::world::{Calls as _, PlantedKey, Settings, World};
use simulated_aws::{Clock as AwsClock, SimulatedAws};
use stream_encryption_operator::api::condition::{ConditionType, find};
use stream_encryption_operator::api::ledger::StreamLedger;
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::{
    EncryptionStatus, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::aws::pacing::Pacer;
use stream_encryption_operator::controller::memory::Memory;
use stream_encryption_operator::controller::records::RecordError;
use stream_encryption_operator::controller::{Clock, Operator, Rules, reconcile};
use stream_encryption_operator::kubernetes::Cluster;
use stream_encryption_operator::model::decision::decide;
use stream_encryption_operator::model::ledger;
use test_cluster::TestCluster;

/// The account and region of every play.
pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-west-1";
/// The access key of every play; the simulated AWS gives it the account above.
pub(crate) const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
/// The operator's own namespace, with its service account.
pub(crate) const LEDGERS: &str = "stream-encryption-system";

/// One play.
pub(crate) struct Play {
    pub(crate) aws: Arc<SimulatedAws>,
    pub(crate) cluster: &'static TestCluster,
    /// Kubernetes as the operator may use it.
    pub(crate) client: Client,
    /// Kubernetes as an administrator may use it.
    pub(crate) administrator: Client,
    /// Kubernetes as a user may who edits this namespace, by the role that the operator brings, and nothing else.
    pub(crate) tenant: Client,
    pub(crate) namespace: String,
    /// The namespace of the ledgers.
    ledgers: String,
    /// What counts beside the policies that are stored.
    pub(crate) policy: Option<StreamEncryptionPolicySpec>,
    pub(crate) rules: Rules,
    operator: Box<Operator<Aws, Cluster>>,
}

/// What a visit left, in one line.
pub(crate) type Word = (Option<EncryptionStatus>, String);

/// The cluster of this test binary, with the operator's definitions and roles installed as users install them.
pub(crate) async fn cluster() -> &'static TestCluster {
    static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let cluster = test_cluster::shared().await.expect("a test cluster");
    INSTALLED
        .get_or_init(async || {
            install(cluster).await;
        })
        .await;
    cluster
}

/// Installs the operator's definitions and roles as users do.
pub(crate) async fn install(cluster: &TestCluster) {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    cluster.kubectl(&["apply", "--server-side", "-k", config]).await.expect("config/ is installed");
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    cluster.kubectl(&established).await.expect("the definitions are established");
    // Established, and yet the API server may say for a moment that it initialises their storage; kubectl then asks again.
    let kinds = "streamencryptions,streamledgers,streamencryptionpolicies";
    cluster.kubectl(&["get", kinds, "--all-namespaces"]).await.expect("their objects are served");
}

/// A client of a kubeconfig.
pub(crate) async fn client(kubeconfig: &std::path::Path) -> Client {
    // Each test has a runtime of its own, and a client belongs to one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::try_from(config(kubeconfig).await).expect("a client")
}

async fn config(kubeconfig: &std::path::Path) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.expect("a configuration")
}

/// The user who may edit a namespace that [`fresh_namespace`] made. Not an administrator, and of no group.
pub(crate) fn tenant_of(namespace: &str) -> String {
    format!("tenant-of-{namespace}")
}

/// What gives that user the role that the operator brings for whoever edits a namespace.
pub(crate) fn binding_of_tenant(namespace: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "tenants", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "stream-encryption-operator-edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": tenant_of(namespace)}],
    })
}

/// A client with that user's rights.
pub(crate) async fn tenant(cluster: &TestCluster, namespace: &str) -> Client {
    let mut config = config(cluster.kubeconfig()).await;
    config.auth_info.impersonate = Some(tenant_of(namespace));
    Client::try_from(config).expect("a client")
}

/// The operator's own service account, with exactly the rights of `config/rbac`.
pub(crate) async fn operators_kubeconfig(cluster: &TestCluster) -> std::path::PathBuf {
    static MADE: tokio::sync::OnceCell<std::path::PathBuf> = tokio::sync::OnceCell::const_new();
    let account = async || {
        cluster.service_account_kubeconfig(LEDGERS, "stream-encryption-operator").await.expect("its account")
    };
    MADE.get_or_init(account).await.clone()
}

/// A namespace that no other test uses, for resources and for ledgers, with the operator's role for ledgers in it, and a user who
/// may edit it.
pub(crate) async fn fresh_namespace(cluster: &TestCluster) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let namespace = format!("play-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    cluster.kubectl(&["create", "namespace", &namespace]).await.expect("a namespace");
    for role in
        [include_str!("../../config/rbac/role.yaml"), include_str!("../../config/rbac/role_binding.yaml")]
    {
        // The first is the object's own namespace; the binding's last one is that of the operator's account.
        let here = role.replacen(&format!("namespace: {LEDGERS}"), &format!("namespace: {namespace}"), 1);
        cluster.apply(&here).await.expect("the operator's role for ledgers");
    }
    cluster.apply(&binding_of_tenant(&namespace).to_string()).await.expect("a user who may edit it");
    namespace
}

/// The SDKs' configuration towards an endpoint, with credentials of nobody in particular, dated by the machine's clock.
pub(crate) fn sdk(url: &str, access_key: &str) -> SdkConfig {
    let credentials = Credentials::new(access_key, "not-a-secret", None, None, "play");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::new(REGION))
        .endpoint_url(url)
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// An operator's own clock as the SDKs take it: right or wrong, its requests are dated by it.
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
    rules: Rules,
    clock: Clock,
) -> Operator<Aws, Cluster> {
    // The virtual clock leaps over what the pacer, on the real one, would wait for.
    let unpaced = Pacer::with_limits(100, |_| 100_000);
    let dated = DatedBy(clock.clone());
    let sdk = sdk(&aws.url(), ACCESS_KEY).into_builder().time_source(dated).build();
    let sessions = clock.clone();
    Operator {
        aws: Aws::over(sdk, rules.region.clone(), unpaced, Arc::new(move || sessions.now().into())),
        records: Cluster::new(client, namespace, policy),
        clock,
        decide,
        rules,
        memory: Memory::default(),
    }
}

impl Play {
    /// A play in the world that `settings` make, at noon of some day.
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
        let rules = Rules {
            region: REGION.parse().expect("a region"),
            drift_interval: SignedDuration::from_mins(10),
        };
        let policy = Some(StreamEncryptionPolicySpec {
            allow_disable: true,
            ..StreamEncryptionPolicySpec::own_account()
        });
        let namespace = fresh_namespace(cluster).await;
        let operator = operator(&aws, client.clone(), &namespace, policy.clone(), rules.clone(), clock(&aws));
        let operator = Box::new(operator);
        let administrator = self::client(cluster.kubeconfig()).await;
        let tenant = Box::pin(tenant(cluster, &namespace)).await;
        let ledgers = namespace.clone();
        Self { aws, cluster, client, administrator, tenant, namespace, ledgers, policy, rules, operator }
    }

    /// The same after the operator's process ended and started again, with other rules perhaps.
    pub(crate) fn restart(&mut self) {
        *self.operator = self.replica();
    }

    /// The same operator and AWS, and another namespace with a user of its own.
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
            rules: self.rules.clone(),
            operator: Box::new(self.replica()),
        }
    }

    /// The same, but the operator reaches the API server by another client, such as one through a proxy.
    pub(crate) fn through(&mut self, client: Client) {
        self.client = client;
        self.restart();
    }

    /// Another replica of the operator, with a memory of its own.
    pub(crate) fn replica(&self) -> Operator<Aws, Cluster> {
        self.replica_with_clock(clock(&self.aws))
    }

    /// Another replica on a node with a clock of its own, which may be wrong: its requests to AWS are dated by it.
    pub(crate) fn replica_with_clock(&self, clock: Clock) -> Operator<Aws, Cluster> {
        let policy = self.policy.clone();
        operator(&self.aws, self.client.clone(), &self.ledgers, policy, self.rules.clone(), clock)
    }

    /// The status that the operator remembers to have written.
    pub(crate) async fn kept_status(&self, name: &str) -> Option<StreamEncryptionStatus> {
        let uid = self.resource(name).await?.metadata.uid?;
        self.operator.memory.visit_of(&uid).status
    }

    /// An operator that may do everything, and whose ledgers are to lie in another namespace.
    pub(crate) fn with_ledgers_in(&self, namespace: &str) -> Operator<Aws, Cluster> {
        let policy = self.policy.clone();
        operator(
            &self.aws,
            self.administrator.clone(),
            namespace,
            policy,
            self.rules.clone(),
            clock(&self.aws),
        )
    }

    /// Applies a resource as the user of the namespace. `spec` is its spec.
    pub(crate) async fn apply(&self, name: &str, spec: &Value) {
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1",
            "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        let api: Api<StreamEncryption> = Api::namespaced(self.tenant.clone(), &self.namespace);
        let parameters = PatchParams::apply("a-user").force();
        api.patch(name, &parameters, &Patch::Apply(&resource)).await.expect("the resource is accepted");
    }

    /// What kubectl prints, in the play's namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments = [arguments, &["-n", &self.namespace]].concat();
        self.cluster.kubectl(&arguments).await.expect("kubectl")
    }

    /// The resource as it is now.
    pub(crate) async fn resource(&self, name: &str) -> Option<StreamEncryption> {
        let api: Api<StreamEncryption> = Api::namespaced(self.tenant.clone(), &self.namespace);
        api.get_opt(name).await.expect("the resource can be read")
    }

    /// Its status.
    pub(crate) async fn status(&self, name: &str) -> StreamEncryptionStatus {
        self.resource(name).await.and_then(|resource| resource.status).unwrap_or_default()
    }

    /// The ledger of a stream.
    pub(crate) async fn ledger(&self, arn: &str) -> Option<StreamLedger> {
        let api: Api<StreamLedger> = Api::namespaced(self.administrator.clone(), &self.ledgers);
        api.get_opt(&ledger::name(&arn.parse().expect("an ARN"))).await.expect("the ledger can be read")
    }

    /// Visits a resource once, now; tells when to be back.
    pub(crate) async fn visit(&self, name: &str) -> Result<Timestamp, RecordError> {
        match self.resource(name).await {
            Some(resource) => Box::pin(reconcile(&self.operator, &resource)).await,
            None => Ok(self.aws.now() + SignedDuration::from_mins(10)),
        }
    }

    /// Visits a resource, and again whenever it asks to be visited, until its status is as `enough` says. Tells every
    /// (encryption status, reason) on the way, without repetitions. More than 300 visits are a failure.
    pub(crate) async fn until(
        &self,
        name: &str,
        enough: impl Fn(&StreamEncryptionStatus) -> bool,
    ) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        for _ in 0..300 {
            let wake = self.visit(name).await.expect("Kubernetes can be asked");
            let live = self.resource(name).await.expect("the resource");
            let status = live.status.unwrap_or_default();
            // What it says of an older spec is not meant.
            if status.observed_generation == live.metadata.generation {
                let word = (status.encryption_status, reason(&status));
                if words.last() != Some(&word) {
                    words.push(word);
                }
                if enough(&status) {
                    return words;
                }
            }
            let wait = wake.duration_since(self.aws.now()).max(SignedDuration::from_millis(1));
            self.aws.advance(wait);
        }
        panic!("not within 300 visits; on the way: {words:#?}");
    }

    /// The same, until `Ready` has this reason.
    pub(crate) async fn until_it_says(&self, name: &str, reason_wanted: &str) -> Vec<Word> {
        self.until(name, |status| reason(status) == reason_wanted).await
    }

    /// Visits a resource whenever it asks, for so long.
    pub(crate) async fn let_pass(&self, name: &str, time: SignedDuration) {
        let end = self.aws.now() + time;
        loop {
            let wake = self.visit(name).await.expect("Kubernetes can be asked");
            if wake >= end {
                self.aws.advance(end.duration_since(self.aws.now()));
                return;
            }
            self.aws.advance(wake.duration_since(self.aws.now()).max(SignedDuration::from_millis(1)));
        }
    }

    /// A key that works.
    pub(crate) fn plant_key(&self) -> String {
        self.aws.world().plant_key(PlantedKey::default())
    }

    /// How often AWS got this operation for this stream or key.
    pub(crate) fn calls(&self, operation: &str, target: &str) -> usize {
        self.aws.world().calls().count(operation, target)
    }

    /// The reasons of all events of a resource.
    pub(crate) async fn events(&self, name: &str) -> BTreeSet<String> {
        let api: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.administrator.clone(), &self.namespace);
        let events = api.list(&ListParams::default()).await.expect("the events can be read");
        let of = |event: &k8s_openapi::api::events::v1::Event| {
            event.regarding.as_ref().and_then(|about| about.name.clone()).is_some_and(|about| about == name)
        };
        events.into_iter().filter(of).filter_map(|event| event.reason).collect()
    }
}

fn clock(aws: &Arc<SimulatedAws>) -> Clock {
    let (wall, steady) = (aws.clone(), aws.clone());
    // Only play time passes: what a visit does on the real clock takes none.
    Clock::new(move || wall.now(), move || steady.now().as_duration().unsigned_abs())
}

/// The reason of `Ready`.
pub(crate) fn reason(status: &StreamEncryptionStatus) -> String {
    find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.clone()).unwrap_or_default()
}

/// The status of a condition: True, False, Unknown, or nothing.
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
