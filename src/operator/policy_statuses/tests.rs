//! The statuses of policies: when they are written, and what follows from a write that fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use jiff::SignedDuration;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use stream_encryption_core::controller::Clock;

use super::super::fakes;
use super::*;
use crate::test_log::Log;

#[test]
fn invalid_policy_is_reported_again_after_a_conflict() {
    let policy = |generation| ObjectMeta {
        uid: Some("uid-1".to_owned()),
        generation: Some(generation),
        ..ObjectMeta::default()
    };
    let mut reported = Reported::default();
    for error in [KubeError::Conflict, KubeError::Unavailable("no answer".to_owned())] {
        reported.record(&policy(1), &Err(error));
        assert!(!reported.holds(&policy(1)));
    }
    reported.record(&policy(1), &Ok(()));
    assert!(reported.holds(&policy(1)));
    assert!(!reported.holds(&policy(2)), "it has changed");
}

/// A policy of this generation.
fn policy(name: &str, generation: i64) -> Event<MaybeInvalidPolicy> {
    let policy = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "generation": generation}, "spec": {},
    });
    Event::Apply(serde_json::from_value(policy).unwrap())
}

/// A writer of the statuses of 20 policies.
fn writer(server: Router, changed: &Arc<Notify>) -> PolicyStatusWriter {
    let listed = || Arc::new(SetOnce::new_with(Some(())));
    let policies: Store<MaybeInvalidPolicy> = Store::default();
    for number in 0..20 {
        policies.apply(&policy(&format!("policy-{number}"), 1));
    }
    PolicyStatusWriter {
        client: Client::new(server, "default"),
        policies,
        namespaces: Store::default(),
        resources: Store::default(),
        listed: [listed(), listed(), listed()],
        changed: changed.clone(),
        failures: Failures::default(),
        warnings: Warnings::default(),
    }
}

/// Reports a change each second, for so many seconds.
async fn change_for(seconds: u64, changed: &Notify) {
    for _ in 0..seconds {
        changed.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_write_is_repeated_with_growing_pauses() {
    let changed = Notify::new();
    let (mut attempts, mut failures) = (Attempts::new(&changed), Failures::default());
    let policy = ObjectMeta { uid: Some("uid-1".to_owned()), ..ObjectMeta::default() };
    for pauses in [&[5, 10, 20, 40, 80, 120, 120][..], &[5]] {
        let waiting = tokio::time::timeout(Duration::from_hours(1), attempts.wait());
        waiting.await.expect_err("nothing has changed");
        for pause in pauses {
            failures.record(&policy, true);
            attempts.record(failures.next_attempt(), Duration::ZERO);
            assert!(failures.postpones(&policy));
            let start = Instant::now();
            attempts.wait().await;
            assert_eq!(start.elapsed().as_secs(), *pause);
            assert!(!failures.postpones(&policy));
        }
        failures.record(&policy, false);
        attempts.record(failures.next_attempt(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_writes_are_logged_and_repeated_seldom() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let server = Router::new().fallback(async move |method: Method| {
        count.fetch_add(1, Ordering::Relaxed);
        if method == Method::GET {
            (StatusCode::OK, r#"{"items": []}"#)
        } else {
            (StatusCode::FORBIDDEN, "no")
        }
    });
    let changed = Arc::new(Notify::new());
    let writer = writer(server, &changed);
    let (log, _guard) = Log::capture();
    let context = fakes::context(None);
    tokio::select! {
        () = writer.keep_current(&context) => unreachable!("it never returns"),
        () = change_for(600, &changed) => {}
    }
    let (lines, requests) = (log.lines_with("failed to write").len(), requests.load(Ordering::Relaxed));
    assert!((1..=10).contains(&lines), "{}", log.text());
    assert!(log.text().contains("failed=20"), "{}", log.text());
    // Each write follows a read, because the policies are invalid.
    assert!((40..=400).contains(&requests), "{requests} requests");
}

#[tokio::test(start_paused = true)]
async fn refused_write_delays_no_other_status() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let record = written.clone();
    let server = Router::new().fallback(async move |uri: Uri, body: String| {
        let path = uri.path().to_owned();
        let is_refused = path.ends_with("/policy-0/status");
        record.lock().unwrap().push((path, body));
        let status = if is_refused { StatusCode::FORBIDDEN } else { StatusCode::OK };
        (status, r#"{"metadata": {"resourceVersion": "2"}, "items": []}"#)
    });
    let changed = Arc::new(Notify::new());
    let statuses = writer(server, &changed);
    let (policies, context) = (statuses.policies.clone(), fakes::context(None));
    let story = async {
        change_for(600, &changed).await;
        policies.apply(&policy("policy-9", 2));
        written.lock().unwrap().clear();
        change_for(10, &changed).await;
    };
    tokio::select! {
        () = statuses.keep_current(&context) => unreachable!("it never returns"),
        () = story => {}
    }
    let written = written.lock().unwrap();
    let is_changed = |(path, body): &(String, String)| {
        path.ends_with("/policy-9/status") && body.contains("\"observedGeneration\":2")
    };
    assert!(written.iter().any(is_changed), "{written:?}");
}

/// Three terms, of this replica or of others, on one API server.
#[tokio::test(start_paused = true)]
async fn stored_status_of_invalid_policy_is_kept_in_later_terms() {
    let (stored, writes) = (Arc::new(Mutex::new(Value::Null)), Arc::new(AtomicUsize::new(0)));
    let (status, count) = (stored.clone(), writes.clone());
    let server = Router::new().fallback(async move |method: Method, body: String| {
        let mut status = status.lock().unwrap();
        if method == Method::PATCH {
            count.fetch_add(1, Ordering::Relaxed);
            let operations: Value = serde_json::from_str(&body).unwrap();
            *status = operations[1]["value"].clone();
        }
        json!({"metadata": {"resourceVersion": "2"}, "items": [{"status": status.clone()}]}).to_string()
    });
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let changed = Arc::new(Notify::new());
    for (hour, generation, written) in [(0, 1, 1), (1, 1, 1), (2, 2, 2)] {
        let policies: Store<MaybeInvalidPolicy> = Store::default();
        policies.apply(&policy("data", generation));
        let statuses = PolicyStatusWriter { policies, ..writer(server.clone(), &changed) };
        let now = begin + SignedDuration::from_hours(hour);
        let context = Context { clock: Clock::new(move || now, || Duration::ZERO), ..fakes::context(None) };
        tokio::select! {
            () = statuses.keep_current(&context) => unreachable!("it never returns"),
            () = change_for(30, &changed) => {}
        }
        let status = stored.lock().unwrap().clone();
        assert_eq!(writes.load(Ordering::Relaxed), written, "{status}");
        assert_eq!(status["observedGeneration"], generation);
        let since = &status["conditions"][0]["lastTransitionTime"];
        assert_eq!(since, "2026-01-01T00:00:00Z", "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_computation_is_repeated_after_long_pause() {
    let changed = Notify::new();
    let mut attempts = Attempts::new(&changed);
    for (took, idle, pause) in [(100, 0, 5), (1_000, 0, 20), (1_000, 60, 5)] {
        attempts.record(None, Duration::from_millis(took));
        tokio::time::sleep(Duration::from_secs(idle)).await;
        changed.notify_one();
        let start = Instant::now();
        attempts.wait().await;
        assert_eq!(start.elapsed().as_secs(), pause);
    }
}
