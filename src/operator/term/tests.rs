//! Invalid and huge resources, as the watch delivers them: each is reported in its status, and none stops the
//! operator.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};
use stream_encryption_api::FINALIZER;
use stream_encryption_api::condition::{ConditionType, MAX_MESSAGE_BYTES, Reason, find};
use stream_encryption_api::ledger::{Action as Change, Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    ENCRYPTION_LEFT_ON, KubeApi, KubeError, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::stream_api::{Priority, Signer, StreamApi};
use stream_encryption_core::controller::{
    Clock, Config, Context, NoMetrics, reconcile, report_invalid_object,
};
use stream_encryption_core::model::arn::{AwsAccount, KmsKeyId, StreamArn};
use stream_encryption_core::model::aws_error::AwsError;
use stream_encryption_core::model::decision::decide;
use stream_encryption_core::model::key::{Key, KeyMetadata, KeyState};
use stream_encryption_core::model::ledger;
use stream_encryption_core::model::observation::{ReportedEncryption, StreamDescription, StreamState};
use stream_encryption_core::model::principal::Principal;
use stream_encryption_core::packed::Packed;
use tokio::sync::Notify;

use super::super::dispatcher::{Trigger, Waiting};
use super::*;
use crate::aws::rate_limit::RateLimiter;
use crate::json_mutation::{mutated, mutations};
use crate::kubernetes::store;
use crate::metrics::Metrics;

const ARN: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// An AWS in which every stream exists in plaintext and every key is usable.
#[derive(Default)]
struct Plaintext {
    called: Mutex<Vec<StreamArn>>,
    /// Notified of each call that waits for a permit, which is never granted; `None` if each permit is
    /// granted at once.
    waiting: Option<Notify>,
}

impl StreamApi for Plaintext {
    async fn identity(&self) -> Result<AwsAccount, AwsError> {
        Ok(AwsAccount { account: "111122223333".parse().unwrap(), partition: "aws".parse().unwrap() })
    }
    async fn verify_clock(&self) -> Result<(), AwsError> {
        Ok(())
    }
    async fn describe_stream(
        &self,
        stream: &StreamArn,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<(StreamDescription, Signer)>, AwsError> {
        let look = StreamDescription {
            arn: stream.clone(),
            created: None,
            source: Some("DirectPut".to_owned()),
            state: StreamState::Active,
            raw_status: "ACTIVE".to_owned(),
            encryption: ReportedEncryption::Off,
            retention: SignedDuration::from_hours(24),
        };
        Ok(Some((look, Signer { access_key_id: "AKIDEXAMPLE".to_owned(), session_age: None })))
    }
    async fn describe_key(
        &self,
        _: &StreamArn,
        name: &KmsKeyId,
        _: &Principal,
        _: Priority,
    ) -> Result<Option<KeyMetadata>, AwsError> {
        let KmsKeyId::Arn(arn) = name else { return Ok(None) };
        let (arn, state) = (arn.clone(), KeyState::Enabled);
        Ok(Some(KeyMetadata { arn, state, symmetric: true, encrypts: true, aws_managed: false }))
    }
    async fn acquire_permit(&self, _: &StreamArn, _: Change, _: &Principal, _: &Signer) -> bool {
        if let Some(waiting) = &self.waiting {
            waiting.notify_one();
            std::future::pending::<()>().await;
        }
        true
    }
    async fn start(
        &self,
        stream: &StreamArn,
        _: &Key,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<(), AwsError> {
        self.called.lock().unwrap().push(stream.clone());
        Ok(())
    }
    async fn stop(
        &self,
        stream: &StreamArn,
        _: Option<&Key>,
        _: &Principal,
        _: &Signer,
        _: Timestamp,
    ) -> Result<(), AwsError> {
        self.called.lock().unwrap().push(stream.clone());
        Ok(())
    }
    async fn put_record(&self, _: &StreamArn, _: &str, _: &Principal, _: &Signer) -> Result<bool, AwsError> {
        Ok(true)
    }
}

/// A cluster with one resource, and with the ledgers and the last status that the operator wrote.
#[derive(Default)]
struct Paper {
    resource: Mutex<Option<StreamEncryption>>,
    ledgers: Mutex<Vec<StreamLedger>>,
    status: Mutex<Option<StreamEncryptionStatus>>,
    /// Whether a write is stored but not acknowledged.
    silent: AtomicBool,
    /// Whether the resource no longer exists.
    gone: AtomicBool,
    /// The reasons of the events.
    events: Mutex<Vec<String>>,
}

impl KubeApi for Paper {
    async fn resource(&self, _: &str, _: &str, _: ReadFrom) -> Result<Option<StreamEncryption>, KubeError> {
        Ok(self.resource.lock().unwrap().clone())
    }
    async fn ledger(&self, name: &str, _: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        let ledgers = self.ledgers.lock().unwrap();
        Ok(ledgers.iter().find(|ledger| ledger.metadata.name.as_deref() == Some(name)).cloned())
    }
    async fn ledgers(&self) -> Result<Vec<StreamLedger>, KubeError> {
        Ok(self.ledgers.lock().unwrap().clone())
    }
    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        let ledger = StreamLedger::new(name, spec.clone());
        self.ledgers.lock().unwrap().push(ledger.clone());
        Ok(ledger)
    }
    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        let mut ledgers = self.ledgers.lock().unwrap();
        ledgers.retain(|other| other.metadata.name != ledger.metadata.name);
        ledgers.push(ledger.clone());
        Ok(ledger.clone())
    }
    async fn delete_ledger(&self, _: &StreamLedger) -> Result<(), KubeError> {
        Ok(())
    }
    async fn write_status(
        &self,
        _: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        *self.status.lock().unwrap() = Some(status.clone());
        let silent = self.silent.load(Ordering::Relaxed);
        if silent { Err(KubeError::Unavailable("no answer".to_owned())) } else { Ok(None) }
    }
    async fn publish_event(&self, _: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        self.events.lock().unwrap().push(event.reason.clone());
        Ok(())
    }
    async fn set_finalizer(&self, _: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        if let Some(resource) = &mut *self.resource.lock().unwrap() {
            resource.metadata.finalizers = present.then(|| vec![FINALIZER.to_owned()]);
        }
        // The removal of the finalizer of a deleted resource is the end of the resource.
        if self.gone.swap(!present, Ordering::Relaxed) {
            return Ok(None);
        }
        let silent = self.silent.load(Ordering::Relaxed);
        if silent { Err(KubeError::Unavailable("no answer".to_owned())) } else { Ok(Some("2".to_owned())) }
    }
    async fn policies(&self, _: &str, _: ReadFrom) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        Ok(vec![StreamEncryptionPolicySpec {
            allow_disable: true,
            ..StreamEncryptionPolicySpec::own_account()
        }])
    }
    async fn referenced_key(&self, _: &str, _: &KeyObjectReference) -> Result<ReferencedKey, KubeError> {
        Ok(ReferencedKey::Arn("not an ARN".to_owned()))
    }
}

fn operator(resource: Option<StreamEncryption>) -> Context<Plaintext, Paper> {
    let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
    Context {
        aws: Plaintext::default(),
        records: Paper { resource: Mutex::new(resource), ..Paper::default() },
        clock: Clock::new(move || now, || Duration::ZERO),
        decide,
        config: Config {
            region: "eu-west-1".parse().unwrap(),
            drift_interval: SignedDuration::from_mins(10),
        },
        memory: Memory::default(),
        metrics: Box::new(NoMetrics),
    }
}

/// Generates the spec and the status of a resource that the API server would accept.
fn resource() -> impl Strategy<Value = Value> {
    let customer = |name: &str, value: Value| json!({"type": "CUSTOMER_MANAGED_CMK", name: value});
    let reference = json!({"group": "kms.services.k8s.aws", "kind": "Key", "name": "orders"});
    let keys = vec![
        Value::Null,
        json!({"type": "AWS_OWNED_CMK"}),
        customer("arn", json!(KEY)),
        customer("alias", json!("alias/orders")),
        customer("objectRef", reference),
    ];
    let streams =
        vec![json!({"arn": ARN}), json!({"service": "Kinesis", "name": "clicks", "region": "eu-west-2"})];
    // No ledger exists: a call in the status counts as made now, and the operator then makes no call.
    let used = prop::sample::select(vec![0, 1]);
    (prop::sample::select(streams), prop::sample::select(keys), used).prop_map(|(stream, key, used)| {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Encrypted", "message": "x", "observedGeneration": 1,
            "lastTransitionTime": "2025-12-31T00:00:00Z",
        });
        let mut object = json!({
            "spec": {
                "stream": stream, "encryption": "Enabled", "mode": "Enforce", "deletionPolicy": "Retain",
                "suspend": false, "verification": "PutRecord",
            },
            "status": {
                "observedGeneration": 1, "encryptionStatus": "ENABLED", "conditions": [condition],
                "stream": {"arn": ARN, "service": "Firehose", "account": "1", "region": "r", "name": "orders"},
                "failure": {"type": "X", "message": "x", "lastFailureTime": "2025-12-31T00:00:00Z", "attempts": 1},
                "calls": {"used": used, "limit": 20}, "verifiedTime": "2025-12-31T00:00:00Z",
            },
        });
        if !key.is_null() {
            object["spec"]["key"] = key;
        }
        object
    })
}

const WORDS: [&str; 12] = [
    "Enabled",
    "Disabled",
    "Disable",
    "Report",
    "Firehose",
    "Kinesis",
    "AWS_OWNED_CMK",
    "CUSTOMER_MANAGED_CMK",
    "alias/aws/kinesis",
    "arn:aws:firehose:eu-west-1:444455556666:deliverystream/orders",
    "arn:aws:firehose:eu-west-1:111122223333:deliverystream/a b",
    "ENABLING",
];
const MEMBERS: [&str; 8] =
    ["arn", "alias", "objectRef", "name", "region", "suspend", "tomorrow", "conditions"];

/// Generates a nearly valid resource, with a retry annotation that may be large.
fn suspicious() -> impl Strategy<Value = Value> {
    let retry = prop_oneof![
        2 => Just(None),
        1 => any::<String>().prop_map(Some),
        1 => prop::sample::select(vec!["ü", "€", "x", "\u{1f511}"]).prop_map(|c| Some(c.repeat(256 * 1024 / c.len()))),
    ];
    let damages = mutations(3, &MEMBERS, &WORDS, 0..4_000_000_000);
    (resource(), damages, retry).prop_map(|(object, damages, retry)| {
        // The API server writes the metadata, so the metadata is always valid.
        let mut object = mutated(object, &damages);
        if let Value::Object(members) = &mut object {
            members.insert("apiVersion".into(), json!("streamencryption.dev/v1alpha1"));
            members.insert("kind".into(), json!("StreamEncryption"));
            members.insert(
                "metadata".into(),
                json!({
                    "name": "orders", "namespace": "data", "uid": "1", "generation": 2,
                    "annotations": retry.map(|retry| json!({"streamencryption.dev/retry": retry})).unwrap_or_default(),
                }),
            );
        }
        object
    })
}

/// Reconciles a resource three times, as the runtime does: one of them may only add the finalizer. Returns the parsed resource and the operator's
/// context.
fn visited(object: &Value) -> (Guarded, Context<Plaintext, Paper>) {
    let guarded: Guarded = serde_json::from_value(object.clone()).unwrap();
    let operator = operator(guarded.0.as_ref().ok().cloned());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            match &guarded.0 {
                Ok(resource) => {
                    let wake = Box::pin(reconcile(&operator, resource)).await.unwrap();
                    assert!(wake >= operator.clock.now());
                }
                Err(invalid) => {
                    report_invalid_object(&operator, &invalid.metadata, &invalid.error).await.unwrap();
                }
            }
        }
    });
    (guarded, operator)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn status_of_random_resource_matches_its_state(object in suspicious()) {
        prop_assume!(object.is_object());
        let (guarded, operator) = visited(&object);
        let told = operator.records.status.lock().unwrap().clone();
        // The status of a suspended resource is not written if it was already right.
        let status = told.or_else(|| guarded.0.as_ref().ok().and_then(|resource| resource.status.clone()));
        let conditions = status.unwrap().conditions;
        let ready = find(&conditions, ConditionType::Ready).unwrap();
        if guarded.0.is_err() {
            prop_assert_eq!(&ready.reason, Reason::SpecInvalid.as_str());
        }
        if !guarded.0.as_ref().is_ok_and(|resource| resource.spec.suspend) {
            for condition in &conditions {
                prop_assert!(!condition.message.is_empty() && condition.message.len() <= MAX_MESSAGE_BYTES);
                prop_assert!(condition.reason.parse::<Reason>().is_ok(), "{}", condition.reason);
                prop_assert_eq!(condition.observed_generation, Some(2));
            }
            let words = conditions.iter().map(|condition| condition.message.len()).sum::<usize>();
            prop_assert!(words < 5 * MAX_MESSAGE_BYTES, "many huge conditions do not stay");
        }
    }

    #[test]
    fn calls_of_random_resources_are_in_their_ledgers(object in suspicious()) {
        prop_assume!(object.is_object());
        let (guarded, operator) = visited(&object);
        let called = operator.aws.called.lock().unwrap().clone();
        let ledgers = operator.records.ledgers.lock().unwrap().clone();
        prop_assert!(called.len() <= 1, "the second visit waits for the first call");
        for stream in called {
            let spec = &guarded.0.as_ref().unwrap().spec;
            let named = spec.stream.arn.clone().or_else(|| spec.stream.name.clone()).unwrap();
            prop_assert!(stream.to_string().ends_with(&named));
            prop_assert_eq!(stream.account.as_str(), "111122223333");
            let [ledger] = &ledgers[..] else { return Err(TestCaseError::fail("no ledger, or two")) };
            prop_assert_eq!(ledger.metadata.name.clone(), Some(ledger::name(&stream)));
            prop_assert_eq!(ledger.spec.calls.len(), 1);
            let retry = ledger.spec.attempts.as_ref().and_then(|attempts| attempts.retry.as_ref());
            prop_assert!(retry.is_none_or(|retry| retry.chars().count() <= 256));
        }
    }
}

#[tokio::test]
async fn invalid_resource_is_reported_again_after_lost_response() {
    let operator = operator(None);
    let read = ObjectMeta { uid: Some("uid-1".to_owned()), generation: Some(1), ..ObjectMeta::default() };
    report_invalid_object(&operator, &read, "stream is missing").await.unwrap();
    operator.records.silent.store(true, Ordering::Relaxed);
    report_invalid_object(&operator, &read, "key is wrong").await.unwrap_err();
    operator.records.silent.store(false, Ordering::Relaxed);
    report_invalid_object(&operator, &read, "stream is missing").await.unwrap();
    let status = operator.records.status.lock().unwrap().clone().unwrap();
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("stream is missing"), "{}", ready.message);
}

#[tokio::test]
async fn encryption_left_on_is_reported_once() {
    for silent in [false, true] {
        let operator = operator(None);
        operator.records.silent.store(silent, Ordering::Relaxed);
        let read = ObjectMeta {
            uid: Some("uid-1".to_owned()),
            resource_version: Some("1".to_owned()),
            deletion_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                Timestamp::UNIX_EPOCH,
            )),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        };
        // The cache still holds the resource after its finalizer was removed.
        for _ in 0..3 {
            // The first removal is not acknowledged if `silent`.
            let _ = report_invalid_object(&operator, &read, "stream is missing").await;
        }
        assert_eq!(*operator.records.events.lock().unwrap(), [ENCRYPTION_LEFT_ON], "{silent}");
    }
}

#[test]
fn random_resources_cover_calls_reasons_and_parse_errors() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let resources = suspicious();
    let (mut called, mut told, mut unreadable) = (0, 0, 0);
    for _ in 0..200 {
        let object = resources.new_tree(&mut runner).unwrap().current();
        if object.is_object() {
            let (guarded, operator) = visited(&object);
            let calls = operator.aws.called.lock().unwrap().len();
            *(if guarded.0.is_err() {
                &mut unreadable
            } else if calls == 0 {
                &mut told
            } else {
                &mut called
            }) += 1;
        }
    }
    assert!(called > 20 && told > 20 && unreadable > 20, "{called} {told} {unreadable}");
}

#[tokio::test(start_paused = true)]
async fn memory_of_deleted_resources_is_evicted_hourly() {
    let metadata = json!({"name": "orders", "namespace": "data", "uid": "1"});
    let spec = json!({"stream": {"arn": ARN}});
    let object = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": metadata, "spec": spec,
    });
    let resource: Guarded = serde_json::from_value(object).unwrap();
    let operator = operator(None);
    for uid in ["1", "2"] {
        operator.memory.keep_status(uid, Some(Packed::of(&StreamEncryptionStatus::default())), None);
    }
    let store = Store::default();
    store.apply(&Event::Apply(resource.clone()));
    let known = || ["1", "2"].map(|uid| operator.memory.recall_all(uid).status.is_some());
    let keeping = repeat_housekeeping(&operator, &store);
    tokio::pin!(keeping);

    let wait = async |keeping: &mut std::pin::Pin<&mut _>, time| {
        tokio::time::timeout(time, keeping).await.expect_err("it ends never");
    };
    wait(&mut keeping, Duration::from_secs(1)).await;
    assert_eq!(known(), [true, false], "the first time is at once");
    store.apply(&Event::Delete(resource));
    wait(&mut keeping, HOUSEKEEPING_INTERVAL.saturating_sub(Duration::from_secs(10))).await;
    assert_eq!(known(), [true, false]);
    wait(&mut keeping, Duration::from_secs(10)).await;
    assert_eq!(known(), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn term_ends_although_a_call_waits_for_its_permit() {
    let metadata = json!({"name": "orders", "namespace": "data", "uid": "1"});
    let object = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": metadata,
        "spec": {"stream": {"arn": ARN}},
    });
    let resource: Guarded = serde_json::from_value(object).unwrap();
    let mut operator = operator(resource.0.as_ref().ok().cloned());
    operator.aws.waiting = Some(Notify::new());
    let operator = Arc::new(operator);
    let store = Store::default();
    store.apply(&Event::Apply(resource.clone()));
    let reconciler = Reconciler { operator: operator.clone(), resources: store, metrics: Metrics::default() };
    let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
    let (filled, end) = (SetOnce::new_with(Some(())), CancellationToken::new());
    let trigger = Trigger::One(store::Key::of(&resource));
    let triggers = stream::iter([trigger]).chain(stream::pending()).boxed();
    let stop = async {
        operator.aws.waiting.as_ref().unwrap().notified().await;
        end.cancel();
    };
    let term = async { tokio::join!(dispatcher.run(triggers, &filled, &end), stop) };
    tokio::time::timeout(Duration::from_secs(10), term).await.expect("the term ends");
    assert!(operator.aws.called.lock().unwrap().is_empty());
}
