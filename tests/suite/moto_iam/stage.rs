//! Where the scenarios play: one moto that enforces policies, one real API server, and operators that have a role's session each.
//!
//! Streams, keys and roles are made first, when moto still lets everybody do everything; then [`Stage::enforce`]. Each play has
//! an operator and a virtual clock of its own, so plays go on side by side and nothing waits. No play reads or changes another
//! one's stream.

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
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::{Service, StreamEncryption, StreamEncryptionStatus};
use stream_encryption_operator::aws::Aws;
use stream_encryption_operator::aws::pacing::Pacer;
use stream_encryption_operator::controller::memory::Memory;
use stream_encryption_operator::controller::{Clock, Operator, Rules, reconcile};
use stream_encryption_operator::kubernetes::Cluster;
use stream_encryption_operator::model::decision::decide;

use super::ACCOUNT;
use super::documents::Document;
use super::port::Behind;
use crate::play::{
    ACCESS_KEY, REGION, client, cluster, fresh_namespace, message, operators_kubeconfig, reason, sdk,
};

const BUCKET: &str = "records";
/// What the operator says on its way; anything else is the goal, or stands in the way.
const ON_THE_WAY: [&str; 3] = ["Settling", "Enabling", "Disabling"];
/// A play has failed once it has said the same of what stands in its way in so many visits, whatever time passed between them.
const FAILED_AFTER: usize = 3;
/// Visits in which every play comes to its end.
const VISITS: usize = 30;

/// The stage.
pub(super) struct Stage {
    moto: Moto,
    namespace: String,
    user: Client,
    operator: Client,
    /// A customer managed key that works.
    pub(super) key: String,
}

/// What the operator said in the end: the reason of `Ready`, and its message.
pub(super) struct Word {
    pub(super) reason: String,
    pub(super) message: String,
}

impl Stage {
    /// A stage on which nothing is enforced yet; nothing where moto cannot run.
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

    /// A new stream in plain text.
    pub(super) async fn make_stream(&self, service: Service, name: &str) {
        let config = sdk(self.moto.url(), ACCESS_KEY);
        match service {
            Service::Firehose => {
                let destination = ExtendedS3DestinationConfiguration::builder()
                    .role_arn(format!("arn:aws:iam::{ACCOUNT}:role/firehose"))
                    .bucket_arn(format!("arn:aws:s3:::{BUCKET}"))
                    // Without it moto's Describe leaves it out, and the SDK cannot read that.
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

    /// A session of a new role that has this policy and no other.
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

    /// From now on moto lets nobody do what no policy allows.
    pub(super) async fn enforce(&self) {
        let raw = RawClient::new(self.moto.url());
        accepted(&raw.plain(Method::POST, "/moto-api/reset-auth", &json!(0)).await.expect("an answer"));
    }

    /// Applies the specs one after the other, each when the one before has led to its goal, and visits the resource whenever the
    /// operator asks for it. Ends with what it says at the last goal, or before that, again and again.
    pub(super) async fn play(
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
            let resource = json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
                "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
            });
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

    fn operator(&self, session: &Credentials, passed: &Arc<AtomicI64>) -> Operator<Behind, Cluster> {
        let begin = Timestamp::now();
        let (wall, steady) = (passed.clone(), passed.clone());
        let elapsed = |passed: &AtomicI64| SignedDuration::from_millis(passed.load(Ordering::Relaxed));
        let clock = Clock::new(move || begin + elapsed(&wall), move || elapsed(&steady).unsigned_abs());
        let rules = Rules {
            region: REGION.parse().expect("a region"),
            drift_interval: SignedDuration::from_mins(10),
        };
        let credentials = SharedCredentialsProvider::new(session.clone());
        let sdk = sdk(self.moto.url(), ACCESS_KEY).into_builder().credentials_provider(credentials).build();
        let dated = clock.clone();
        let unpaced = Pacer::with_limits(100, |_| 100_000);
        let aws = Aws::over(sdk, rules.region.clone(), unpaced, Arc::new(move || dated.now().into()));
        let own_account = StreamEncryptionPolicySpec::own_account();
        let policy = StreamEncryptionPolicySpec { allow_disable: true, ..own_account };
        let records = Cluster::new(self.operator.clone(), &self.namespace, Some(policy));
        Operator { aws: Behind(aws), records, clock, decide, rules, memory: Memory::default() }
    }

    async fn iam(&self, parameters: &[(&str, &str)]) {
        let mut form = "Version=2010-05-08".to_owned();
        for (name, value) in parameters {
            let _ = write!(form, "&{name}={}", escaped(value));
        }
        accepted(&RawClient::new(self.moto.url()).iam(&form).await.expect("an answer"));
    }
}

/// Visits until `Ready` gives the goal as its reason, or another one that stays.
async fn until(
    operator: &Operator<Behind, Cluster>,
    api: &Api<StreamEncryption>,
    name: &str,
    passed: &AtomicI64,
    goal: &str,
) -> Word {
    let mut said: Vec<String> = Vec::new();
    for _ in 0..VISITS {
        let before = api.get(name).await.expect("the resource");
        let wake = Box::pin(reconcile(operator, &before)).await.expect("Kubernetes can be asked");
        let live = api.get(name).await.expect("the resource");
        let status = live.status.unwrap_or_default();
        // What it says of an older spec is not meant.
        if status.observed_generation == live.metadata.generation {
            let word = word(&status);
            let same = said.iter().rev().take_while(|other| **other == word.reason).count() + 1;
            let in_the_way = !ON_THE_WAY.contains(&word.reason.as_str());
            if word.reason == goal || (in_the_way && same == FAILED_AFTER) {
                return word;
            }
            said.push(word.reason);
        }
        let wait = operator.rules.wait(operator.clock.now(), wake);
        passed.fetch_add(i64::try_from(wait.as_millis()).expect("minutes"), Ordering::Relaxed);
    }
    panic!("{name} is not {goal} within {VISITS} visits; on the way: {said:?}");
}

fn word(status: &StreamEncryptionStatus) -> Word {
    Word { reason: reason(status), message: message(status) }
}

fn accepted(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A value of a form.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        let _ = write!(escaped, "%{byte:02X}");
        escaped
    })
}
