//! The environment of the scenarios: one moto that enforces policies, one real API server, and operators with
//! one role session each.
//!
//! Streams, keys and roles are created first, while moto still allows everything; then [`Stage::enforce`] is
//! called. Each scenario has its own operator and virtual clock, so scenarios run in parallel and none waits.
//! No scenario reads or changes the stream of another.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_firehose::types::{CompressionFormat, ExtendedS3DestinationConfiguration};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::emulators::Moto;
use simulated_aws::raw_client::{Answer, RawClient};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{Service, StreamEncryption, StreamEncryptionStatus};
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::{Clock, Config, Context, NoMetrics, reconcile};
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::model::request_limits::RequestLimits;
use stream_encryption_core::model::schedule;
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::aws::rate_limit::RateLimiter;
use stream_encryption_operator::kubernetes::Cluster;

use super::ACCOUNT;
use super::adapter::MotoAdapter;
use super::documents::Document;
use crate::harness::{
    ACCESS_KEY, REGION, client, cluster, fresh_namespace, manifest, message, operators_kubeconfig, reason,
    sdk,
};

const BUCKET: &str = "records";
/// Reasons on the way to the goal. Any other reason is the goal or a failure.
const ON_THE_WAY: [&str; 3] = ["Settling", "Enabling", "Disabling"];
/// A scenario has failed once it has had the same failure reason in this many reconciles, whatever time
/// passed between them.
const FAILED_AFTER: usize = 3;
/// Maximum number of reconciles of a scenario.
const VISITS: usize = 30;

/// The environment.
pub(super) struct Stage {
    moto: Moto,
    namespace: String,
    user: Client,
    operator: Client,
    /// A usable customer managed key.
    pub(super) key: String,
}

/// The last reason of `Ready`, and its message.
pub(super) struct Word {
    pub(super) reason: String,
    pub(super) message: String,
}

impl Stage {
    /// Creates an environment without enforcement. `None` if moto cannot run on this machine.
    pub(super) async fn start() -> Option<Self> {
        let moto = Moto::start().await.expect("moto starts")?;
        let cluster = cluster().await;
        let key = aws_sdk_kms::Client::new(&sdk(moto.url(), ACCESS_KEY)).create_key().send().await;
        let key = key.expect("a key").key_metadata.expect("its metadata").arn.expect("its ARN");
        let bucket = RawClient::new(moto.url()).plain(Method::PUT, &format!("/{BUCKET}"), &Value::Null).await;
        accepted(&bucket.expect("an answer"));
        Some(Self {
            namespace: fresh_namespace(cluster).await,
            user: client(cluster.kubeconfig()).await,
            operator: client(&operators_kubeconfig(cluster).await).await,
            key,
            moto,
        })
    }

    /// Creates a plaintext stream.
    pub(super) async fn make_stream(&self, service: Service, name: &str) {
        let config = sdk(self.moto.url(), ACCESS_KEY);
        match service {
            Service::Firehose => {
                let destination = ExtendedS3DestinationConfiguration::builder()
                    .role_arn(format!("arn:aws:iam::{ACCOUNT}:role/firehose"))
                    .bucket_arn(format!("arn:aws:s3:::{BUCKET}"))
                    // Without this field moto's Describe omits it, and the SDK cannot parse the response.
                    .compression_format(CompressionFormat::Uncompressed)
                    .build()
                    .expect("a destination");
                let client = aws_sdk_firehose::Client::new(&config);
                let create = client.create_delivery_stream().delivery_stream_name(name);
                let create = create.extended_s3_destination_configuration(destination);
                Box::pin(create.send()).await.expect("a Firehose stream");
            }
            Service::Kinesis => {
                let client = aws_sdk_kinesis::Client::new(&config);
                let create = client.create_stream().stream_name(name).shard_count(1);
                create.send().await.expect("a Kinesis stream");
            }
        }
    }

    /// Creates a role with only this policy, and returns a session of it.
    pub(super) async fn session(&self, role: &str, policy: &Document) -> Credentials {
        let trust = json!({"Version": "2012-10-17", "Statement": []}).to_string();
        let make = [("Action", "CreateRole"), ("RoleName", role), ("AssumeRolePolicyDocument", &trust)];
        self.iam(&make).await;
        let policy = policy.for_moto();
        let put = [("Action", "PutRolePolicy"), ("RoleName", role), ("PolicyName", "operator")];
        self.iam(&[&put[..], &[("PolicyDocument", &policy)]].concat()).await;
        let sts = aws_sdk_sts::Client::new(&sdk(self.moto.url(), ACCESS_KEY));
        let assume = sts.assume_role().role_arn(format!("arn:aws:iam::{ACCOUNT}:role/{role}"));
        let session = assume.role_session_name("operator").send().await.expect("a session");
        let given = session.credentials.expect("credentials");
        Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            None,
            "moto",
        )
    }

    /// Makes moto enforce policies from now on.
    pub(super) async fn enforce(&self) {
        let raw = RawClient::new(self.moto.url());
        accepted(&raw.plain(Method::POST, "/moto-api/reset-auth", &json!(0)).await.expect("an answer"));
    }

    /// Applies the specs one after the other, each once the previous one has reached its goal, and reconciles
    /// at each requested time. Returns the reason at the last goal, or the reason of the failure.
    pub(super) async fn harness(
        &self,
        session: &Credentials,
        name: &str,
        specs: &[(Value, &'static str)],
    ) -> Word {
        let passed = Arc::new(AtomicI64::new(0));
        let operator = self.operator(session, &passed);
        let api: Api<StreamEncryption> = Api::namespaced(self.user.clone(), &self.namespace);
        let mut last = None;
        for (spec, goal) in specs {
            let resource = manifest(&self.namespace, name, spec);
            let parameters = PatchParams::apply("a-user").force();
            api.patch(name, &parameters, &Patch::Apply(&resource)).await.expect("it is accepted");
            let word = until(&operator, &api, name, &passed, goal).await;
            let reached = word.reason == *goal;
            last = Some(word);
            if !reached {
                break;
            }
        }
        last.expect("at least one spec")
    }

    fn operator(&self, session: &Credentials, passed: &Arc<AtomicI64>) -> Context<MotoAdapter, Cluster> {
        let begin = Timestamp::now();
        let (wall, steady) = (passed.clone(), passed.clone());
        let elapsed = |passed: &AtomicI64| SignedDuration::from_millis(passed.load(Ordering::Relaxed));
        let clock = Clock::new(move || begin + elapsed(&wall), move || elapsed(&steady).unsigned_abs());
        let config = Config {
            region: REGION.parse().expect("a region"),
            drift_interval: SignedDuration::from_mins(10),
            drift_interval_with_events: None,
        };
        let credentials = SharedCredentialsProvider::new(session.clone());
        let sdk = sdk(self.moto.url(), ACCESS_KEY).into_builder().credentials_provider(credentials).build();
        let dated = clock.clone();
        let unpaced = RateLimiter::with_limits(100, RequestLimits::same(100_000));
        let aws = Aws::from_config(sdk, config.region.clone(), unpaced, Arc::new(move || dated.now().into()));
        let own_account = StreamEncryptionPolicySpec::own_account();
        let policy = StreamEncryptionPolicySpec { allow_disable: true, ..own_account };
        let kube = Cluster::new(self.operator.clone(), &self.namespace, Some(policy));
        Context {
            aws: MotoAdapter(aws),
            kube,
            clock,
            decide,
            config,
            memory: Memory::default(),
            metrics: Box::new(NoMetrics),
        }
    }

    async fn iam(&self, parameters: &[(&str, &str)]) {
        let mut form = "Version=2010-05-08".to_owned();
        for (name, value) in parameters {
            let _ = write!(form, "&{name}={}", escaped(value));
        }
        accepted(&RawClient::new(self.moto.url()).iam(&form).await.expect("an answer"));
    }
}

/// Reconciles until `Ready` has the goal as its reason, or another reason that stays.
async fn until(
    operator: &Context<MotoAdapter, Cluster>,
    api: &Api<StreamEncryption>,
    name: &str,
    passed: &AtomicI64,
    goal: &str,
) -> Word {
    let mut said: Vec<String> = Vec::new();
    for _ in 0..VISITS {
        let before = api.get(name).await.expect("the resource");
        let wake = Box::pin(reconcile(operator, &before)).await.expect("Kubernetes answers");
        let live = api.get(name).await.expect("the resource");
        let status = live.status.unwrap_or_default();
        // A status of an older generation is ignored.
        if status.observed_generation == live.metadata.generation {
            let word = word(&status);
            let same = said.iter().rev().take_while(|other| **other == word.reason).count() + 1;
            let in_the_way = !ON_THE_WAY.contains(&word.reason.as_str());
            if word.reason == goal || (in_the_way && same == FAILED_AFTER) {
                return word;
            }
            said.push(word.reason);
        }
        let wait = schedule::after_reconcile(operator.config.drift_interval, operator.clock.now(), wake);
        passed.fetch_add(i64::try_from(wait.as_millis()).expect("minutes"), Ordering::Relaxed);
    }
    panic!("{name} is not {goal} within {VISITS} reconciles; on the way: {said:?}");
}

fn word(status: &StreamEncryptionStatus) -> Word {
    Word { reason: reason(status), message: message(status) }
}

fn accepted(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Encodes a value for a form.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        let _ = write!(escaped, "%{byte:02X}");
        escaped
    })
}
