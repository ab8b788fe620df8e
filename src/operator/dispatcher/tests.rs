//! The order of the reconciles, and what their results lead to.

use futures_util::stream;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use stream_encryption_api::stream_encryption::{DeletionPolicy, Service};

use super::super::fakes::{self, ARN, FakeCluster, Plaintext};
use super::*;
use crate::metrics::ScrapeInput;

fn reconciler(spec: &Value) -> (Reconciler<Plaintext, FakeCluster>, Key) {
    let resource: MaybeInvalidResource = serde_json::from_value(json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "spec": spec,
        "metadata": {"name": "orders", "namespace": "data", "uid": "1", "generation": 1},
    }))
    .unwrap();
    let context = Arc::new(fakes::context(resource.0.as_ref().ok().cloned()));
    let (resources, key) = (Store::default(), Key::of(&resource));
    resources.apply(&Event::Apply(resource));
    (Reconciler { context, resources, metrics: Metrics::default() }, key)
}

#[tokio::test(start_paused = true)]
async fn policy_changes_within_a_second_lead_to_one_reconcile() {
    let (reconciler, _) = self::reconciler(&json!({"stream": 7}));
    let metrics = reconciler.metrics.clone();
    let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
    let changes = stream::iter(0..3).then(async |_| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Trigger::All
    });
    let triggers = changes.chain(stream::pending()).boxed();
    let (may_start, end) = (SetOnce::new_with(Some(())), CancellationToken::new());
    let assert_reconciled = |times: u32| {
        let line = format!("stream_encryption_reconciles_total{{result=\"ok\"}} {times}\n");
        let text = metrics.encode(&ScrapeInput::default());
        assert!(text.contains(&line), "{line} is not in {text}");
    };
    let check = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_reconciled(0);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_reconciled(1);
        end.cancel();
    };
    tokio::join!(dispatcher.run(triggers, &may_start, &end), check);
}

#[tokio::test]
async fn first_reconciles_are_those_described_longest_ago() {
    let (reconciler, _) = self::reconciler(&json!({"stream": 7}));
    for (name, described) in [("a", Some("2026-01-02")), ("b", None), ("z", Some("2026-01-01"))] {
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": "data", "uid": name}, "spec": {"stream": {"arn": ARN}},
            "status": {"lastDescribeTime": described.map(|day| format!("{day}T00:00:00Z"))},
        });
        reconciler.resources.apply(&Event::Apply(serde_json::from_value(resource).unwrap()));
    }
    let mut dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
    dispatcher.schedule_oldest_first();
    let work = |_: &Key| {
        let (scope, namespace) = (AwsLimit::NoRequest, "data".to_owned());
        Some(Work { scope, lane: Lane::Drift, namespace })
    };
    let second = Duration::from_secs(1);
    let order: Vec<String> = std::iter::from_fn(|| {
        let key = dispatcher.queue.next(second, work)?;
        dispatcher.queue.end(key.clone(), None);
        Some(key.name().to_owned())
    })
    .collect();
    assert_eq!(order, ["b", "z", "a"]);
}

#[tokio::test]
async fn reconcile_tells_whether_aws_has_responded() {
    let (reconciler, key) = self::reconciler(&json!({"stream": {"arn": ARN}}));
    for (unresponsive, responds) in [(true, Some(false)), (false, Some(true))] {
        reconciler.context.aws.unresponsive.store(unresponsive, Ordering::Relaxed);
        assert_eq!(responded(&reconciler, &key).await, responds);
    }
    // Without a request to AWS, nothing is known.
    for spec in [json!({"stream": 7}), json!({"stream": {"arn": ARN}, "suspend": true})] {
        let (reconciler, key) = self::reconciler(&spec);
        assert_eq!(responded(&reconciler, &key).await, None, "{spec}");
    }
}

/// Reconciles the resource, and returns whether AWS has responded.
async fn responded(reconciler: &Reconciler<Plaintext, FakeCluster>, key: &Key) -> Option<bool> {
    let ended = reconcile_resource(reconciler.clone(), key.clone(), CancellationToken::new()).await;
    ended.response.map(|response| response.responds)
}

#[tokio::test]
async fn aws_has_responded_although_the_call_was_held_back() {
    let (reconciler, key) = self::reconciler(&json!({"stream": {"arn": ARN}}));
    reconciler.context.aws.holds_calls_back.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(responded(&reconciler, &key).await, Some(true));
        let resource = reconciler.resources.get(&key).unwrap();
        assert_eq!(last_reason(&reconciler.context, &resource), Some(Reason::AwsUnreachable));
        // The next reconcile describes the stream again.
        reconciler.context.memory.record_interruption(resource.0.as_ref().unwrap());
    }
    assert!(reconciler.context.aws.called.lock().unwrap().is_empty());
}

#[tokio::test]
async fn reconcile_that_ends_early_does_not_repeat_an_answer() {
    let (reconciler, key) = self::reconciler(&json!({"stream": {"arn": ARN}}));
    let context = &reconciler.context;
    context.aws.unresponsive.store(true, Ordering::Relaxed);
    assert_eq!(responded(&reconciler, &key).await, Some(false));
    // The next reconcile only adds the finalizer.
    context.kube.resource.lock().unwrap().as_mut().unwrap().spec.deletion_policy = DeletionPolicy::Disable;
    assert_eq!(responded(&reconciler, &key).await, None);
    assert_eq!(context.kube.writes.load(Ordering::Relaxed), 2, "the status, and the finalizer");
}

/// The read removes the resource from the cache if it no longer exists and its watch fails.
#[tokio::test]
async fn invalid_resource_is_read_if_its_report_is_refused() {
    for (refused, reads) in [(false, 0), (true, 1)] {
        let (reconciler, key) = self::reconciler(&json!({"stream": 7}));
        let kube = &reconciler.context.kube;
        kube.refuses.store(refused, Ordering::Relaxed);
        let ended = reconcile_resource(reconciler.clone(), key, CancellationToken::new()).await;
        assert_eq!(kube.live_reads.load(Ordering::Relaxed), reads, "{refused}");
        assert_eq!(ended.wait.is_some(), refused, "the report is repeated");
    }
}

#[tokio::test]
async fn resource_deleted_during_its_reconcile_is_forgotten() {
    let (reconciler, key) = self::reconciler(&json!({"stream": 7}));
    let (context, resources) = (reconciler.context.clone(), reconciler.resources.clone());
    let resource = resources.get(&key).unwrap();
    let mut dispatcher = Dispatcher::new(reconciler.clone(), RateLimiter::new(80), 4, Waiting::default());
    for (change, is_remembered) in
        [(Event::Apply(resource.clone()), true), (Event::Delete(resource.clone()), false)]
    {
        // The reconcile ends after the watch has reported the change.
        let ended = reconcile_resource(reconciler.clone(), key.clone(), CancellationToken::new()).await;
        resources.apply(&change);
        dispatcher.ended(Ok(ended));
        assert_eq!(context.memory.recall_with_expired("1").status.is_some(), is_remembered, "{change:?}");
    }
}

#[test]
fn resource_that_needs_no_request_does_not_wait_for_aws() {
    let mut queue = WorkQueue::new(0, |_| 1);
    let describe = AwsLimit::Describe(Service::Firehose, None, "eu-west-1".parse().unwrap());
    for name in ["described", "new"] {
        queue.schedule(Key::new("data", name), Duration::ZERO);
    }
    let started = queue.next(Duration::ZERO, |key| {
        let is_new = *key == Key::new("data", "new");
        let scope = if is_new { describe.clone() } else { AwsLimit::NoRequest };
        Some(Work { scope, lane: Lane::Changed, namespace: "data".to_owned() })
    });
    assert_eq!((started, queue.waiting(Lane::Changed)), (None, 2));
    assert_eq!(waiting_for_aws(&queue, Lane::Changed), 1);
}
