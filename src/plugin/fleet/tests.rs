//! Tests of [`super`].

use serde_json::{Value, json};
use stream_encryption_api::FINALIZER;

use super::*;

fn entry(status: &Value) -> Entry {
    entry_of_generation(None, status)
}

fn entry_of_generation(generation: Option<i64>, status: &Value) -> Entry {
    entry_with(&json!({"generation": generation}), "Retain", status)
}

/// The entry of a resource with this metadata besides its name, and with this deletion policy.
fn entry_with(metadata: &Value, deletion_policy: &str, status: &Value) -> Entry {
    let mut resource = json!({
        "apiVersion": "streamencryption.dev/v1alpha1",
        "kind": "StreamEncryption",
        "metadata": metadata,
        "spec": {"stream": {"arn": "arn:aws:kinesis:eu-west-1:111122223333:stream/Orders"},
            "deletionPolicy": deletion_policy},
        "status": status,
    });
    resource["metadata"]["name"] = json!("orders");
    resource["metadata"]["namespace"] = json!("data");
    Entry::of(&Found {
        namespace: "data".to_owned(),
        name: "orders".to_owned(),
        resource: Ok(Box::new(serde_json::from_value(resource).unwrap())),
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "why",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn state_follows_the_condition_and_the_change() {
    for (encrypted, aws, state) in [
        ("True", "ENABLED", State::Encrypted),
        // A key change: records stay encrypted with the old key.
        ("True", "ENABLING", State::Encrypted),
        ("True", "ENABLING_FAILED", State::Encrypted),
        ("True", "DISABLING", State::Changing),
        ("False", "ENABLING", State::Changing),
        ("False", "DISABLED", State::Plaintext),
        ("False", "ENABLING_FAILED", State::Plaintext),
        ("Unknown", "ENABLED", State::Unknown),
    ] {
        let status = json!({"encryptionStatus": aws, "conditions": [condition("Encrypted", encrypted, "X")]});
        assert_eq!(entry(&status).state, state, "{encrypted} {aws}");
    }
    let other = condition("Ready", "False", "SourceNotDirectPut");
    assert_eq!(entry(&json!({"conditions": [other]})).state, State::NotEncryptable);
    assert_eq!(entry(&json!({"observedGeneration": -1})).state, State::Unknown);
}

/// A pipeline asks right after its apply, or while the operator does not run.
#[test]
fn status_of_an_earlier_spec_is_not_ready() {
    let seen = |generation| {
        let ready = [condition("Ready", "True", "Encrypted"), condition("Encrypted", "True", "Encrypted")];
        let status = json!({"observedGeneration": generation, "conditions": ready});
        let entry = entry_of_generation(Some(2), &status);
        let found = [Finding::NotReady, Finding::Reconciling, Finding::Stalled].map(|one| entry.has(one));
        (entry.outdated, entry.ready, entry.state, found)
    };
    assert_eq!(seen(2), (false, "True", State::Encrypted, [false; 3]));
    assert_eq!(seen(1), (true, "Unknown", State::Encrypted, [true, true, false]));
    assert!(!seen(UNSEEN).0, "the operator has not written any status");
}

/// The finalizer of another client may hold the resource for a long time, and runbooks use this list.
#[test]
fn deleted_resource_with_final_status_is_not_reconciling() {
    let conditions = [condition("Ready", "False", "Enabling"), condition("Reconciling", "True", "Enabling")];
    let status = json!({"observedGeneration": 1, "conditions": conditions});
    let deleted = |finalizer: &str, policy: &str, status: &Value| {
        let metadata = json!({"generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": [finalizer]});
        let entry = entry_with(&metadata, policy, status);
        (entry.has(Finding::Reconciling), entry.message.unwrap_or_default())
    };
    let other = "example.com/other";
    for (finalizer, policy) in [(other, "Retain"), (other, "Disable"), (FINALIZER, "Retain")] {
        let (is_reconciling, message) = deleted(finalizer, policy, &status);
        assert!(!is_reconciling, "{finalizer} {policy}");
        assert!(
            message.starts_with("The resource is being deleted; its status no longer changes."),
            "{message}"
        );
        assert!(message.ends_with("why") && !message.contains("spec has changed"), "{message}");
    }
    assert!(!deleted(other, "Retain", &Value::Null).0, "the operator has not written any status");
    let (is_reconciling, message) = deleted(FINALIZER, "Disable", &status);
    assert!(is_reconciling && message.contains("has not reconciled the deletion yet"), "{message}");
    assert!(!message.contains("spec has changed"), "{message}");
}

/// An auditor reads the column, and whoever retires a key counts by it.
#[test]
fn key_without_arn_is_named_by_its_type() {
    for kind in ["AWS_OWNED_CMK", "CUSTOMER_MANAGED_CMK"] {
        let key = json!({"type": kind});
        let entry = entry(&json!({"activeKey": key, "desiredKey": key}));
        assert_eq!((entry.active_key.as_deref(), entry.desired_key.as_deref()), (Some(kind), Some(kind)));
    }
}

#[test]
fn stream_is_known_before_the_first_reconcile() {
    let entry = entry(&Value::Null);
    assert_eq!(entry.name, "Orders");
    assert_eq!(entry.account.as_deref(), Some("111122223333"));
    assert_eq!((entry.service, entry.reason.clone()), (Some(Service::Kinesis), None));
    assert!(entry.has(Finding::NotReady) && entry.has(Finding::Unknown) && !entry.has(Finding::Plaintext));
}

/// While the operator does not run, its last statuses stay.
#[test]
fn state_of_an_old_describe_is_stale() {
    assert_eq!(MAX_DESCRIBE_AGE, SignedDuration::from_mins(50 * 60 + 44));
    let now: Timestamp = "2026-01-04T00:00:00Z".parse().unwrap();
    for (encrypted, described, stale) in [
        ("True", json!("2026-01-01T00:00:00Z"), true),
        ("False", json!("2026-01-01T00:00:00Z"), true),
        ("True", Value::Null, true),
        // An operator with a drift interval of a day writes no newer time.
        ("True", json!("2026-01-01T22:00:00Z"), false),
        ("True", json!("2026-01-04T00:00:01Z"), false),
        ("Unknown", json!("2026-01-01T00:00:00Z"), false),
    ] {
        let status = json!({"lastDescribeTime": described,
            "conditions": [condition("Encrypted", encrypted, "Encrypted")]});
        let entry = entry(&status).with_age(now);
        assert_eq!(entry.has(Finding::Stale), stale, "{encrypted} {described}");
    }
}

/// A newer operator has values that this version does not know.
#[test]
fn unreadable_resource_has_what_the_operator_reports() {
    let mut resource = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "orders", "namespace": "data"},
        "spec": {"stream": {"service": "Kinesis", "name": "Orders"}, "mode": "Newer"},
        "status": {"encryptionStatus": "ENABLED", "conditions": [condition("Ready", "True", "Encrypted")],
            "stream": {"arn": "arn:aws:kinesis:eu-west-1:111122223333:stream/Orders"}},
    });
    let of = |resource: &Value| Entry::of(&Found::of(serde_json::from_value(resource.clone()).unwrap()));
    let entry = of(&resource);
    assert_eq!((entry.reason.as_deref(), entry.stalled, entry.ready), (Some(UNREADABLE), false, "True"));
    assert_eq!((entry.service, entry.account.as_deref()), (Some(Service::Kinesis), Some("111122223333")));
    assert_eq!((entry.state, entry.resource.as_str()), (State::Unknown, "orders"), "nothing is derived");
    assert!(entry.has(Finding::Attention) && !entry.has(Finding::Reconciling));
    let message = entry.message.unwrap_or_default();
    assert!(
        message.contains("update the plugin") && message.ends_with("The operator reports Encrypted: why")
    );
    resource["status"]["conditions"] = json!([condition("Stalled", "True", "SpecInvalid")]);
    assert!(of(&resource).has(Finding::Stalled));
}

/// A pipeline of an older plugin would pass.
#[test]
fn unknown_reason_needs_attention_unless_ready() {
    for (ready, expected) in [("False", true), ("Unknown", true), ("True", false)] {
        let status = json!({"conditions": [condition("Ready", ready, "FutureReason")]});
        assert_eq!(entry(&status).has(Finding::Attention), expected, "{ready}");
    }
}

#[test]
fn plugin_page_lists_each_finding() {
    let page = include_str!("../../../docs/kubectl-plugin.md");
    let (_, table) = page.split_once("| finding | the stream or its resource |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let listed: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    let values = Finding::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
    assert_eq!(listed, values, "left: docs/kubectl-plugin.md; right: the code");
    let age =
        format!("{} hours and {} minutes", MAX_DESCRIBE_AGE.as_hours(), MAX_DESCRIBE_AGE.as_mins() % 60);
    assert!(page.contains(&age), "{age}");
}

/// Each runbook lists the streams of its alert by one of these findings.
#[test]
fn findings_tell_desired_key_from_active_key_and_reconciling_from_changing() {
    let findings =
        [Finding::KeyUnusable, Finding::ActiveKeyUnusable, Finding::Reconciling, Finding::Changing];
    let found = |status: &Value| findings.map(|finding| entry(status).has(finding));
    let conditions = |usable: &str, more: &[&str]| {
        let mut conditions =
            vec![condition("Ready", "False", "KeyDisabled"), condition("KeyUsable", usable, "KeyDisabled")];
        conditions.extend(more.iter().map(|kind| condition(kind, "True", "KeyDisabled")));
        conditions
    };
    let waits = json!({"encryptionStatus": "DISABLED", "conditions": conditions("False", &["Reconciling"])});
    assert_eq!(found(&waits), [true, false, true, false]);
    // The operator changes the stream to a usable key.
    let lost = json!({"encryptionStatus": "ENABLING", "activeKeyUnusableSinceTime": "2026-01-01T00:00:00Z",
        "conditions": conditions("False", &["Reconciling"])});
    assert_eq!(found(&lost), [true, true, true, true]);
    for usable in ["True", "Unknown"] {
        let stalled = json!({"conditions": conditions(usable, &["Stalled"])});
        assert_eq!(found(&stalled), [false; 4], "{usable}");
    }
    let new = json!({"observedGeneration": UNSEEN});
    assert_eq!(found(&new), [false, false, true, false]);
    let good =
        json!({"encryptionStatus": "ENABLED", "conditions": [condition("Ready", "True", "Encrypted")]});
    assert_eq!(found(&good), [false; 4]);
}

/// A script that reads the CSV would miss a field, or find an empty column.
#[test]
fn columns_are_exactly_the_fields() {
    let time = "2026-01-01T00:00:00Z";
    let key = json!({"type": "AWS_OWNED_CMK"});
    let full = entry(&json!({
        "encryptionStatus": "ENABLED",
        "stream": {"arn": "arn:aws:kinesis:eu-west-1:111122223333:stream/Orders", "service": "Kinesis",
            "account": "111122223333", "region": "eu-west-1", "name": "Orders", "source": "DirectPut"},
        "activeKey": key, "desiredKey": key,
        "encryptedSinceTime": time, "plaintextSinceTime": time, "activeKeyUnusableSinceTime": time,
        "lastDescribeTime": time, "verifiedTime": time, "nextAttemptTime": time,
        "calls": {"used": 1, "external": 1, "limit": 21, "nextAvailableTime": time},
        "conditions": [condition("Ready", "True", "Encrypted"), condition("KeyUsable", "True", "KeyEnabled")],
    }));
    let row = serde_json::to_value(full).unwrap();
    let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    let mut columns = Entry::columns();
    fields.sort_unstable();
    columns.sort_unstable();
    assert_eq!(columns, fields);
}
