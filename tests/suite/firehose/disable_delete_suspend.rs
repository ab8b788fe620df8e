//! The end of encryption: disabled, resource deleted, resource suspended.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Calls as _, Fault, PlantedStream, Rule, Snapshot, StreamKey};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::EncryptionStatus::{Disabled, Disabling};

use super::{DESCRIBE, START, STOP, aws_owned, cmk, harness_with, orders, stopped, word};
use crate::harness::{firehose, message, reason, truth};

fn unavailable() -> Fault {
    Fault::Refuse { code: "ServiceUnavailable".into(), message: "no".into(), status: 503 }
}

#[tokio::test]
async fn disabling_encryption_requires_permission() {
    let mut harness = harness_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    harness.policy = Some(StreamEncryptionPolicySpec::own_account());
    harness.restart();
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "encryption": "Disabled"})).await;
    harness.until_it_says("orders", "DisableNotPermitted").await;
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!((harness.calls(STOP, "orders"), harness.calls(DESCRIBE, "orders")), (0, 0));

    harness.policy =
        Some(StreamEncryptionPolicySpec { allow_disable: true, ..StreamEncryptionPolicySpec::own_account() });
    harness.restart();
    let words = harness.until_it_says("orders", "EncryptionDisabled").await;
    assert!(words.contains(&word(Some(Disabling), "Disabling")), "{words:?}");
    let status = harness.status("orders").await;
    assert_eq!((status.encryption_status, status.active_key.clone()), (Some(Disabled), None));
    assert_eq!(truth(&status, ConditionType::Ready), "True");
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert_eq!(harness.calls(STOP, "orders"), 1);
}

#[tokio::test]
async fn deletion_with_retain_keeps_encryption_without_finalizer() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.resource("orders").await.expect("the resource").metadata.finalizers, None);
    harness.kubectl(&["delete", "strenc", "orders"]).await;
    assert!(harness.resource("orders").await.is_none());
    assert_eq!(harness.calls(STOP, "orders"), 0);
    assert!(harness.ledger(&firehose("orders")).await.is_some(), "the ledger outlives the resource");
}

#[tokio::test]
async fn deletion_policy_disable_blocks_deletion_until_disabled() {
    let harness = harness_with(Snapshot::default()).await;
    harness
        .apply("orders", &json!({"stream": {"arn": firehose("orders")}, "deletionPolicy": "Disable"}))
        .await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.kubectl(&["delete", "strenc", "orders", "--wait=false"]).await;
    harness.until_it_says("orders", "Disabling").await;
    for _ in 0..20 {
        if harness.resource("orders").await.is_none() {
            break;
        }
        let wake = harness.visit("orders").await.expect("a reconcile");
        harness.aws.advance(wake.duration_since(harness.aws.now()).max(SignedDuration::from_millis(1)));
    }
    assert!(harness.resource("orders").await.is_none(), "the finalizer is removed");
    assert_eq!(harness.calls(STOP, "orders"), 1);
}

#[tokio::test]
async fn suspended_resource_sends_no_request_and_keeps_ready() {
    let mut harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    let looks = harness.calls(DESCRIBE, "orders");
    let mut spec = orders(&aws_owned());
    spec["suspend"] = json!(true);
    harness.apply("orders", &spec).await;
    harness.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!((harness.calls(START, "orders"), harness.calls(DESCRIBE, "orders")), (1, looks));
    let status = harness.status("orders").await;
    assert_eq!(
        (truth(&status, ConditionType::Ready), reason(&status)),
        ("True".to_owned(), "Suspended".to_owned())
    );
    assert_eq!(status.observed_generation, Some(2));
    let (since, seen) = (
        status.suspended_since_time.clone().expect("a time"),
        status.last_describe_time.clone().expect("a time"),
    );
    let told = message(&status);
    assert!(told.contains(&format!("since {}", since.0)), "{told}");
    assert!(told.contains(&format!("last described at {}, as ENABLED", seen.0)), "{told}");

    let version = harness.resource("orders").await.expect("the resource").metadata.resource_version;
    harness.restart();
    harness.aws.world().script(Rule::always(unavailable()));
    harness.let_pass("orders", SignedDuration::from_hours(2)).await;
    let left = harness.resource("orders").await.expect("the resource").metadata.resource_version;
    assert_eq!(left, version, "a restart without AWS does not change the resource");

    harness.aws.world().clear_faults();
    spec["suspend"] = json!(false);
    harness.apply("orders", &spec).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.status("orders").await.suspended_since_time, None);
    assert_eq!(harness.calls(START, "orders"), 2, "a change during the suspension is corrected");
}

#[tokio::test]
async fn suspension_is_reported_while_aws_does_not_answer() {
    let mut harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.restart();
    harness.aws.world().script(Rule::always(unavailable()));
    for value in ["True", "until Monday"] {
        let suspend = format!("streamencryption.dev/suspend={value}");
        harness.kubectl(&["annotate", "strenc", "orders", "--overwrite", &suspend]).await;
        harness.visit("orders").await.expect("a reconcile");
        let status = harness.status("orders").await;
        assert_eq!(
            (truth(&status, ConditionType::Ready), reason(&status)),
            ("True".into(), "Suspended".into())
        );
        assert!(message(&status).contains("streamencryption.dev/suspend"), "{}", message(&status));
    }
    assert!(message(&harness.status("orders").await).contains("\"until Monday\" is unknown"));
}

#[tokio::test]
async fn retain_removes_finalizer_while_aws_does_not_answer() {
    let mut harness = harness_with(Snapshot::default()).await;
    let by_name = json!({"service": "Firehose", "name": "orders"});
    for stream in [by_name, json!({"arn": firehose("orders")})] {
        let spec = |policy: &str| json!({"stream": stream, "deletionPolicy": policy});
        harness.apply("orders", &spec("Disable")).await;
        harness.until_it_says("orders", "Encrypted").await;
        let held = harness.resource("orders").await.expect("the resource").metadata.finalizers;
        assert!(held.is_some_and(|finalizers| !finalizers.is_empty()));
        harness.restart();
        harness.aws.world().script(Rule::always(unavailable()));
        harness.apply("orders", &spec("Retain")).await;
        harness.kubectl(&["delete", "strenc", "orders", "--wait=false"]).await;
        harness.visit("orders").await.expect("a reconcile");
        assert!(harness.resource("orders").await.is_none(), "the finalizer is removed");
        harness.aws.world().clear_faults();
    }
    assert_eq!(harness.calls(STOP, "orders"), 0);
}

#[tokio::test]
async fn not_permitted_is_reported_while_aws_does_not_answer() {
    let mut harness = harness_with(Snapshot::default()).await;
    harness.policy = Some(StreamEncryptionPolicySpec {
        streams: vec![firehose("clicks")],
        ..StreamEncryptionPolicySpec::own_account()
    });
    harness.restart();
    harness.aws.world().script(Rule::always(unavailable()));
    harness
        .apply("orders", &json!({"stream": {"arn": firehose("orders")}, "deletionPolicy": "Disable"}))
        .await;
    harness.visit("orders").await.expect("a reconcile");
    assert_eq!(reason(&harness.status("orders").await), "NotPermitted");
}

#[tokio::test]
async fn retry_without_effect_is_recorded_in_status_and_event() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    for retry in ["monday", "tuesday"] {
        let annotation = format!("streamencryption.dev/retry={retry}");
        harness.kubectl(&["annotate", "strenc", "orders", "--overwrite", &annotation]).await;
        harness.let_pass("orders", SignedDuration::from_mins(1)).await;
        assert_eq!(harness.status("orders").await.last_handled_retry.as_deref(), Some(retry));
    }
    assert!(harness.events("orders").await.contains("RetryHandled"));
    assert_eq!(harness.calls(START, "orders"), 1);
}

#[tokio::test]
async fn describe_time_is_written_once_an_hour() {
    let harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    let mut times = std::collections::BTreeSet::new();
    let mut versions = std::collections::BTreeSet::new();
    for _ in 0..60 {
        harness.let_pass("orders", SignedDuration::from_mins(10)).await;
        let resource = harness.resource("orders").await.expect("the resource");
        versions.insert(resource.metadata.resource_version);
        let described = resource.status.and_then(|status| status.last_describe_time).expect("a time").0;
        assert!(harness.aws.now().duration_since(described) <= SignedDuration::from_mins(75), "{described}");
        times.insert(described);
    }
    assert!((8..=10).contains(&times.len()), "in ten hours: {times:?}");
    assert!(versions.len() <= times.len() + 1, "{} writes for {} times", versions.len(), times.len());
}

#[tokio::test]
async fn encrypted_is_unknown_after_three_failed_describes() {
    let denied = Fault::Refuse { code: "AccessDeniedException".into(), message: "no".into(), status: 400 };
    for fault in [unavailable(), denied] {
        let harness = harness_with(Snapshot::default()).await;
        harness.apply("orders", &orders(&aws_owned())).await;
        harness.until_it_says("orders", "Encrypted").await;
        let seen = harness.status("orders").await.last_describe_time.expect("a time").0;
        harness.aws.world().script(Rule::always(fault).on(DESCRIBE));
        harness.until("orders", |status| truth(status, ConditionType::Ready) != "True").await;
        assert_eq!(
            truth(&harness.status("orders").await, ConditionType::Encrypted),
            "True",
            "one Describe has failed"
        );
        harness.until("orders", |status| truth(status, ConditionType::Encrypted) == "Unknown").await;
        let looks = harness.aws.world().calls().count(DESCRIBE, "orders");
        let status = harness.status("orders").await;
        let encrypted = find(&status.conditions, ConditionType::Encrypted).expect("Encrypted");
        assert!(encrypted.message.contains("Records have been encrypted since"), "{}", encrypted.message);
        assert!(
            encrypted.message.starts_with("As of "),
            "{} at {seen}, {looks} Describe requests",
            encrypted.message
        );
        let version = harness.resource("orders").await.expect("the resource").metadata.resource_version;
        harness.let_pass("orders", SignedDuration::from_mins(30)).await;
        let left = harness.resource("orders").await.expect("the resource").metadata.resource_version;
        assert_eq!(left, version, "the status is written once");
        harness.aws.world().clear_faults();
        harness.until_it_says("orders", "Encrypted").await;
        assert_eq!(truth(&harness.status("orders").await, ConditionType::Encrypted), "True");
    }
}

#[tokio::test]
async fn suspended_resource_with_a_key_sends_no_request() {
    let mut harness = harness_with(Snapshot::default()).await;
    let key = harness.plant_key();
    harness.aws.world().plant_alias("alias/orders", &key);
    // With the account written in the policy, nothing depends on the account of the operator's credentials.
    let keys = ["arn:aws:kms:eu-west-1:111122223333:key/*", "arn:aws:kms:eu-west-1:111122223333:alias/*"];
    harness.policy = Some(StreamEncryptionPolicySpec {
        streams: vec![firehose("orders")],
        keys: keys.map(str::to_owned).to_vec(),
        ..StreamEncryptionPolicySpec::own_account()
    });
    let alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    for key in [cmk(&key), alias] {
        let mut spec = orders(&key);
        spec["suspend"] = json!(true);
        harness.restart();
        let before = harness.aws.world().calls().len();
        harness.apply("orders", &spec).await;
        harness.let_pass("orders", SignedDuration::from_hours(2)).await;
        assert_eq!(reason(&harness.status("orders").await), "Suspended");
        assert_eq!(harness.aws.world().calls().len(), before, "{key}");
    }
}

#[tokio::test]
async fn encrypted_stays_unknown_after_restart() {
    let mut harness = harness_with(Snapshot::default()).await;
    harness.apply("orders", &orders(&aws_owned())).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.aws.world().script(Rule::always(unavailable()).on(DESCRIBE));
    harness.until("orders", |status| truth(status, ConditionType::Encrypted) == "Unknown").await;
    let version = harness.resource("orders").await.expect("the resource").metadata.resource_version;
    harness.restart();
    harness.visit("orders").await.expect("a reconcile");
    assert_eq!(truth(&harness.status("orders").await, ConditionType::Encrypted), "Unknown");
    let left = harness.resource("orders").await.expect("the resource").metadata.resource_version;
    assert_eq!(left, version, "nothing newer is known");
}

#[tokio::test]
async fn encrypted_is_unknown_after_three_failed_identity_requests() {
    let mut harness = harness_with(Snapshot::default()).await;
    // A stream given by name belongs to the operator's own account.
    harness.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    harness.until_it_says("orders", "Encrypted").await;
    harness.restart();
    harness.aws.world().script(Rule::always(unavailable()));
    for expected in ["True", "True", "Unknown"] {
        let wake = harness.visit("orders").await.expect("a reconcile");
        assert_eq!(truth(&harness.status("orders").await, ConditionType::Encrypted), expected);
        harness.aws.advance(wake.duration_since(harness.aws.now()).max(SignedDuration::from_millis(1)));
    }
}
