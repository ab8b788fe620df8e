//! Tests: invalid and huge resources, as the watch delivers them. Each is reported in its status, and none stops the
//! operator.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};
use stream_encryption_api::FINALIZER;
use stream_encryption_api::condition::{ConditionType, MAX_MESSAGE_BYTES, Reason, find};
use stream_encryption_core::controller::kube_api::ENCRYPTION_LEFT_ON;
use stream_encryption_core::controller::{Context, reconcile, report_invalid_object};
use stream_encryption_core::model::ledger;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::super::dispatcher::{Dispatcher, Reconciler, Trigger, Waiting};
use super::super::fakes::{self, ARN, FakeCluster, Plaintext};
use crate::aws::rate_limit::RateLimiter;
use crate::json_mutation::{mutated, mutations};
use crate::kubernetes::store::{Key, Store};
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::metrics::Metrics;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

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

/// Reconciles a resource three times, as the runtime does: one of them may only add the finalizer. Returns
/// the parsed resource and the operator's context.
fn reconciled(object: &Value) -> (MaybeInvalidResource, Context<Plaintext, FakeCluster>) {
    let delivered: MaybeInvalidResource = serde_json::from_value(object.clone()).unwrap();
    let context = fakes::context(delivered.0.as_ref().ok().cloned());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            match &delivered.0 {
                Ok(resource) => {
                    let wake = Box::pin(reconcile(&context, resource)).await.unwrap();
                    assert!(wake >= context.clock.now());
                }
                Err(invalid) => {
                    report_invalid_object(&context, &invalid.metadata, &invalid.error).await.unwrap();
                }
            }
        }
    });
    (delivered, context)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn status_of_random_resource_matches_its_state(object in suspicious()) {
        prop_assume!(object.is_object());
        let (delivered, context) = reconciled(&object);
        let written = context.kube.status.lock().unwrap().clone();
        // The status of a suspended resource is not written if it was already right.
        let status = written.or_else(|| delivered.0.as_ref().ok().and_then(|resource| resource.status.clone()));
        let conditions = status.unwrap().conditions;
        let ready = find(&conditions, ConditionType::Ready).unwrap();
        if delivered.0.is_err() {
            prop_assert_eq!(&ready.reason, Reason::SpecInvalid.as_str());
        }
        if !delivered.0.as_ref().is_ok_and(|resource| resource.spec.suspend) {
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
        let (delivered, context) = reconciled(&object);
        let called = context.aws.called.lock().unwrap().clone();
        let ledgers = context.kube.ledgers.lock().unwrap().clone();
        prop_assert!(called.len() <= 1, "the second reconcile waits for the first call");
        for stream in called {
            let spec = &delivered.0.as_ref().unwrap().spec;
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
    let context = fakes::context(None);
    let read = ObjectMeta { uid: Some("uid-1".to_owned()), generation: Some(1), ..ObjectMeta::default() };
    report_invalid_object(&context, &read, "stream is missing").await.unwrap();
    context.kube.silent.store(true, Ordering::Relaxed);
    report_invalid_object(&context, &read, "key is wrong").await.unwrap_err();
    context.kube.silent.store(false, Ordering::Relaxed);
    report_invalid_object(&context, &read, "stream is missing").await.unwrap();
    let status = context.kube.status.lock().unwrap().clone().unwrap();
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("stream is missing"), "{}", ready.message);
}

#[tokio::test]
async fn encryption_left_on_is_reported_once() {
    for silent in [false, true] {
        let context = fakes::context(None);
        context.kube.silent.store(silent, Ordering::Relaxed);
        let read = ObjectMeta {
            uid: Some("uid-1".to_owned()),
            resource_version: Some("1".to_owned()),
            deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        };
        // The cache still holds the resource after its finalizer was removed.
        for _ in 0..3 {
            // The first removal is not acknowledged if `silent`.
            let _ = report_invalid_object(&context, &read, "stream is missing").await;
        }
        let events = context.kube.events.lock().unwrap();
        assert_eq!(
            events.iter().filter(|event| *event == ENCRYPTION_LEFT_ON).count(),
            1,
            "{silent}: {events:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refused_writes_are_repeated_with_growing_waits() {
    for deleted in [false, true] {
        let object = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "spec": 7,
            "metadata": {
                "name": "orders", "namespace": "data", "uid": "1", "finalizers": [FINALIZER],
                "deletionTimestamp": deleted.then_some("2025-12-31T00:00:00Z"),
            },
        });
        let resource: MaybeInvalidResource = serde_json::from_value(object).unwrap();
        let context = Arc::new(fakes::context(None));
        context.kube.conflicts.store(true, Ordering::Relaxed);
        let resources = Store::default();
        resources.apply(&Event::Apply(resource.clone()));
        let reconciler = Reconciler { context: context.clone(), resources, metrics: Metrics::default() };
        let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
        let (may_start, end) = (SetOnce::new_with(Some(())), CancellationToken::new());
        let trigger = Trigger::One(Key::of(&resource));
        let triggers = stream::iter([trigger]).chain(stream::pending()).boxed();
        let writes = || context.kube.writes.load(Ordering::Relaxed);
        let check = async {
            tokio::time::sleep(Duration::from_mins(10)).await;
            assert!((10..30).contains(&writes()), "{} writes", writes());
            context.kube.conflicts.store(false, Ordering::Relaxed);
            let refused = writes();
            tokio::time::sleep(Duration::from_mins(10)).await;
            assert_eq!(writes(), refused + 1, "the write succeeds");
            assert!(deleted || context.memory.recall_with_expired("1").failures == 0);
            end.cancel();
        };
        tokio::join!(dispatcher.run(triggers, &may_start, &end), check);
    }
}

#[test]
fn random_resources_cover_calls_reasons_and_parse_errors() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let resources = suspicious();
    let (mut called, mut reported, mut unreadable) = (0, 0, 0);
    for _ in 0..200 {
        let object = resources.new_tree(&mut runner).unwrap().current();
        if object.is_object() {
            let (delivered, context) = reconciled(&object);
            let calls = context.aws.called.lock().unwrap().len();
            *(if delivered.0.is_err() {
                &mut unreadable
            } else if calls == 0 {
                &mut reported
            } else {
                &mut called
            }) += 1;
        }
    }
    assert!(called > 20 && reported > 20 && unreadable > 20, "{called} {reported} {unreadable}");
}
