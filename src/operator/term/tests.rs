//! What runs beside the reconciles of a term, and its end.

use std::sync::atomic::Ordering;

use futures_util::stream;
use kube::runtime::watcher::Event;
use serde_json::json;
use stream_encryption_api::stream_encryption::StreamEncryptionStatus;
use stream_encryption_core::model::arn::StreamArn;
use stream_encryption_core::model::aws_event::{AwsEvent, EventScope, Subject};
use stream_encryption_core::packed::Packed;
use tokio::sync::Notify;

use super::super::dispatcher::{Trigger, Waiting};
use super::super::fakes::{self, ARN};
use super::*;
use crate::aws::rate_limit::RateLimiter;
use crate::kubernetes::store;
use crate::metrics::Metrics;

fn resource() -> MaybeInvalidResource {
    let metadata = json!({"name": "orders", "namespace": "data", "uid": "1"});
    let object = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": metadata,
        "spec": {"stream": {"arn": ARN}},
    });
    serde_json::from_value(object).unwrap()
}

fn invalid_resource(uid: &str) -> MaybeInvalidResource {
    let invalid = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": format!("orders-{uid}"), "namespace": "data", "uid": uid}, "spec": 7,
    });
    serde_json::from_value(invalid).unwrap()
}

#[tokio::test(start_paused = true)]
async fn memory_of_deleted_resources_is_evicted_without_a_sweep() {
    let resources: Vec<_> = (0..2_000).map(|uid| invalid_resource(&uid.to_string())).collect();
    let context = Arc::new(fakes::context(None));
    let store = Store::default();
    let reconciler =
        Reconciler { context: context.clone(), resources: store.clone(), metrics: Metrics::default() };
    let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
    let (may_start, end) = (SetOnce::new_with(Some(())), CancellationToken::new());
    let (changes, mut triggers) = tokio::sync::mpsc::unbounded_channel();
    let triggers = stream::poll_fn(move |task| triggers.poll_recv(task)).boxed();
    let remembered = || {
        let uids = resources.iter().filter_map(kube::ResourceExt::uid);
        uids.filter(|uid| context.memory.recall_with_expired(uid).status.is_some()).count()
    };
    let check = async {
        for resource in &resources {
            store.apply(&Event::Apply(resource.clone()));
            changes.send(Trigger::One(store::Key::of(resource))).unwrap();
        }
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(remembered(), resources.len());
        for resource in &resources {
            store.apply(&Event::Delete(resource.clone()));
            changes.send(Trigger::Deleted(resource.uid().unwrap())).unwrap();
            changes.send(Trigger::One(store::Key::of(resource))).unwrap();
        }
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(remembered(), 0);
        end.cancel();
    };
    tokio::join!(dispatcher.run(triggers, &may_start, &end), check);
}

#[tokio::test(start_paused = true)]
async fn sweep_evicts_memory_of_resources_that_do_not_exist() {
    let resource = resource();
    let context = Arc::new(fakes::context(None));
    for uid in ["1", "2"] {
        context.memory.keep_status(uid, Some(Packed::of(&StreamEncryptionStatus::default())), None, 0);
    }
    let store = Store::default();
    store.apply(&Event::Apply(resource.clone()));
    let known = || ["1", "2"].map(|uid| context.memory.recall_with_expired(uid).status.is_some());
    let sweeps = repeat_sweep(&context, &store);
    tokio::pin!(sweeps);

    let wait = async |sweeps: &mut std::pin::Pin<&mut _>, time| {
        tokio::time::timeout(time, sweeps).await.expect_err("it ends never");
    };
    wait(&mut sweeps, Duration::from_secs(1)).await;
    assert_eq!(known(), [true, false], "the first time is at once");
    store.apply(&Event::Delete(resource));
    wait(&mut sweeps, SWEEP_INTERVAL.saturating_sub(Duration::from_secs(10))).await;
    assert_eq!(known(), [true, false]);
    wait(&mut sweeps, Duration::from_secs(10)).await;
    assert_eq!(known(), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn long_cleanup_delays_no_sweep_and_is_followed_by_a_pause() {
    let mut context = fakes::context(None);
    context.aws.clock_delay = CLEANUP_INTERVAL.saturating_mul(5);
    let ledger = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedger", "metadata": {"name": "stream-1"},
        "spec": {
            "streamARN": ARN,
            "owner": {"namespace": "data", "name": "orders", "uid": "1"},
            "calls": [{
                "id": "1", "target": {"action": "Stop"}, "time": "2025-01-01T00:00:00.000000Z", "outcome": "Accepted",
            }],
        },
    });
    context.kube.ledgers.lock().unwrap().push(serde_json::from_value(ledger).unwrap());
    let (context, store) = (Arc::new(context), Store::default());
    let started = || context.aws.clock_requests.load(Ordering::Relaxed);
    let tasks = async { tokio::join!(repeat_cleanup(&context), repeat_sweep(&context, &store)) };
    tokio::pin!(tasks);
    let second = Duration::from_secs(1);
    for (time, cleanups) in [(second, 1), (context.aws.clock_delay, 1), (CLEANUP_INTERVAL, 2)] {
        context.memory.keep_status("1", Some(Packed::of(&StreamEncryptionStatus::default())), None, 0);
        tokio::time::timeout(time, &mut tasks).await.expect_err("it ends never");
        assert!(context.memory.recall_with_expired("1").status.is_none(), "the cleanup is not awaited");
        assert_eq!(started(), cleanups, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn term_ends_although_a_call_waits_for_its_permit() {
    let resource = resource();
    let mut context = fakes::context(resource.0.as_ref().ok().cloned());
    context.aws.waiting = Some(Notify::new());
    let context = Arc::new(context);
    let store = Store::default();
    store.apply(&Event::Apply(resource.clone()));
    let reconciler = Reconciler { context: context.clone(), resources: store, metrics: Metrics::default() };
    let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
    let (filled, end) = (SetOnce::new_with(Some(())), CancellationToken::new());
    let trigger = Trigger::One(store::Key::of(&resource));
    let triggers = stream::iter([trigger]).chain(stream::pending()).boxed();
    let stop = async {
        context.aws.waiting.as_ref().unwrap().notified().await;
        end.cancel();
    };
    let term = async { tokio::join!(dispatcher.run(triggers, &filled, &end), stop) };
    tokio::time::timeout(Duration::from_secs(10), term).await.expect("the term ends");
    assert!(context.aws.called.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn event_about_a_resource_is_expected_until_its_deletion() {
    let resource = resource();
    let mut context = fakes::context(resource.0.as_ref().ok().cloned());
    context.config.drift_interval_with_events = Some(jiff::SignedDuration::from_mins(60));
    let context = Arc::new(context);
    let store = Store::default();
    store.apply(&Event::Apply(resource.clone()));
    let reconciler =
        Reconciler { context: context.clone(), resources: store.clone(), metrics: Metrics::default() };
    let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
    let (may_start, end) = (SetOnce::new(), CancellationToken::new());
    let trigger = Trigger::One(store::Key::of(&resource));
    let triggers = stream::iter([trigger]).chain(stream::pending()).boxed();
    let stream: StreamArn = ARN.parse().unwrap();
    let woken = || {
        let scope = EventScope::of(&stream);
        let time = jiff::Timestamp::UNIX_EPOCH;
        let event = AwsEvent { scope, time, subject: Subject::Stream(stream.clone()) };
        context.memory.events.receive(&event, Duration::ZERO, Duration::ZERO).len()
    };
    let check = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(woken(), 1, "before its first reconcile");
        store.apply(&Event::Delete(resource.clone()));
        may_start.set(()).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(woken(), 0);
        end.cancel();
    };
    tokio::join!(dispatcher.run(triggers, &may_start, &end), check);
}

#[tokio::test(start_paused = true)]
async fn tasks_and_caches_stop_before_running_reconciles_end() {
    let mut background = JoinSet::new();
    let is_running = Arc::new(());
    let task = is_running.clone();
    background.spawn(async move {
        std::future::pending::<()>().await;
        drop(task);
    });
    let (reconciles, end) = (Notify::new(), CancellationToken::new());
    let stopped = std::cell::Cell::new(false);
    let term = run_until_end(reconciles.notified(), background, || stopped.set(true), &end);
    tokio::pin!(term);
    let second = Duration::from_secs(1);
    for has_ended in [false, true] {
        if has_ended {
            end.cancel();
        }
        tokio::time::timeout(second, &mut term).await.expect_err("a reconcile is running");
        assert_eq!(stopped.get(), has_ended);
        assert_eq!(Arc::strong_count(&is_running), if has_ended { 1 } else { 2 });
    }
    reconciles.notify_one();
    term.await;
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_task_ends_the_term_with_a_panic() {
    let mut background = JoinSet::new();
    background.spawn(std::future::ready(()));
    background.spawn(async { panic!("a task has failed") });
    let term = tokio::spawn(async move {
        let reconciles = std::future::pending();
        run_until_end(reconciles, background, || {}, &CancellationToken::new()).await;
    });
    let ended = tokio::time::timeout(Duration::from_secs(1), term).await.expect("the term ends");
    assert!(ended.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn no_reconcile_begins_after_the_end_of_the_term() {
    let invalid = invalid_resource("1");
    for ends_early in [false, true] {
        let context = Arc::new(fakes::context(None));
        let store = Store::default();
        store.apply(&Event::Apply(invalid.clone()));
        let reconciler =
            Reconciler { context: context.clone(), resources: store, metrics: Metrics::default() };
        let dispatcher = Dispatcher::new(reconciler, RateLimiter::new(80), 4, Waiting::default());
        let (may_start, end) = (SetOnce::new_with(Some(())), CancellationToken::new());
        let trigger = Trigger::One(store::Key::of(&invalid));
        let triggers = stream::iter([trigger]).chain(stream::pending()).boxed();
        let stop = async {
            // With one thread, the task of the reconcile exists here, but was not polled yet.
            if !ends_early {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            end.cancel();
        };
        tokio::join!(dispatcher.run(triggers, &may_start, &end), stop);
        assert_eq!(context.kube.status.lock().unwrap().is_none(), ends_early);
    }
}
