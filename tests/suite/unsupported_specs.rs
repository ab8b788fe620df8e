//! Unsupported specs: within seconds a condition says what to do, and the operator makes no call.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, KeyState, PlantedKey, PlantedStream, Rule, Settings};
use stream_encryption_api::condition::ConditionType;
use stream_encryption_core::controller::kube_api::{KubeApi as _, ReconcileEvent};
use stream_encryption_core::controller::{ledger_store, report_invalid_object};

use crate::harness::{ACCOUNT, Harness, firehose, message, truth};

/// One unsupported spec, and the expected status.
struct Mistake {
    sentence: &'static str,
    spec: Value,
    reason: &'static str,
    /// The part of the message that says what to do.
    advice: &'static str,
    stalled: bool,
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn unsupported_spec_is_reported_within_seconds_without_a_call() {
    let harness = Harness::start(Settings::default()).await;
    harness.aws.world().plant_stream(PlantedStream::default());
    let key = |state| harness.aws.world().plant_key(PlantedKey { state, ..PlantedKey::default() });
    let pending = key(KeyState::PendingDeletion);
    let import = key(KeyState::PendingImport);
    let rsa = harness.aws.world().plant_key(PlantedKey { spec: "RSA_2048".into(), ..PlantedKey::default() });
    let sign = harness.aws.world().plant_key(PlantedKey {
        usage: "SIGN_VERIFY".into(),
        spec: "RSA_2048".into(),
        ..PlantedKey::default()
    });
    let elsewhere = format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/00000009-0000-4000-8000-000000000009");
    let missing = format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/00000008-0000-4000-8000-000000000008");
    let foreign_key = "arn:aws:kms:eu-west-1:444455556666:key/00000007-0000-4000-8000-000000000007";
    let with = |arn: &str| json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": arn}});
    let alias = json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/nobody"}});
    let reference = json!({"group": "kms.services.k8s.aws", "kind": "Key", "name": "orders"});
    let reference = json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "objectRef": reference}});
    let stream = |arn: String| json!({"stream": {"arn": arn}});
    let mistakes = [
        Mistake {
            sentence: "a missing stream",
            spec: stream(firehose("nobody")),
            reason: "StreamNotFound",
            advice: "the operator keeps checking",
            stalled: false,
        },
        Mistake {
            sentence: "a stream of a foreign account",
            spec: stream(firehose("orders").replace(ACCOUNT, "444455556666")),
            reason: "NotPermitted",
            advice: "sk an administrator to allow",
            stalled: true,
        },
        Mistake {
            sentence: "a key of a foreign account",
            spec: with(foreign_key),
            reason: "NotPermitted",
            advice: "sk an administrator to allow",
            stalled: true,
        },
        Mistake {
            sentence: "a missing key",
            spec: with(&missing),
            reason: "KeyNotFound",
            advice: "Set an existing key",
            stalled: false,
        },
        Mistake {
            sentence: "a missing alias",
            spec: alias,
            reason: "KeyNotFound",
            advice: "Create the alias, or set another key",
            stalled: false,
        },
        Mistake {
            sentence: "a key pending deletion",
            spec: with(&pending),
            reason: "KeyPendingDeletion",
            advice: "Cancel the deletion",
            stalled: false,
        },
        Mistake {
            sentence: "a key without material",
            spec: with(&import),
            reason: "KeyPendingImport",
            advice: "Import the key material",
            stalled: false,
        },
        Mistake {
            sentence: "an asymmetric key",
            spec: with(&rsa),
            reason: "KeyNotSymmetric",
            advice: "Set a symmetric",
            stalled: true,
        },
        Mistake {
            sentence: "a signing key",
            spec: with(&sign),
            reason: "KeyUsageWrong",
            advice: "ENCRYPT_DECRYPT",
            stalled: true,
        },
        Mistake {
            sentence: "a key of another region",
            spec: with(&elsewhere),
            reason: "KeyInOtherRegion",
            advice: "in the stream's region",
            stalled: true,
        },
        Mistake {
            sentence: "a reference to a kind that is not installed",
            spec: reference,
            reason: "KeyReferenceCRDMissing",
            advice: "Install the KMS controller of ACK",
            stalled: false,
        },
    ];
    for Mistake { sentence, spec, reason, advice, stalled } in mistakes {
        let began = harness.aws.now();
        harness.apply("orders", &spec).await;
        harness.until_it_says("orders", reason).await;
        let status = harness.status("orders").await;
        assert!(harness.aws.now().duration_since(began) <= SignedDuration::from_secs(5), "{sentence}");
        assert!(message(&status).contains(advice), "{sentence}: {}", message(&status));
        assert_eq!(truth(&status, ConditionType::Stalled) == "True", stalled, "{sentence}");
        assert_eq!(truth(&status, ConditionType::Reconciling) == "True", !stalled, "{sentence}");
        harness.let_pass("orders", SignedDuration::from_hours(1)).await;
        harness.kubectl(&["delete", "strenc", "orders"]).await;
    }
    assert_eq!(harness.calls("StartDeliveryStreamEncryption", "orders"), 0);
}

#[tokio::test]
async fn stream_without_permission_is_not_described() {
    let harness = Harness::start(Settings::default()).await;
    let foreign = firehose("orders").replace(ACCOUNT, "444455556666");
    harness.apply("orders", &json!({"stream": {"arn": foreign}})).await;
    harness.until_it_says("orders", "NotPermitted").await;
    harness.let_pass("orders", SignedDuration::from_hours(1)).await;
    assert_eq!(harness.calls("DescribeDeliveryStream", "orders"), 0);
    assert!(harness.ledger(&foreign).await.is_none(), "and it is not claimed");
}

#[tokio::test]
async fn missing_aws_permission_is_named() {
    for (operation, right) in [
        ("DescribeDeliveryStream", "firehose:DescribeDeliveryStream"),
        ("StartDeliveryStreamEncryption", "firehose:StartDeliveryStreamEncryption"),
        ("DescribeKey", "kms:DescribeKey"),
    ] {
        let harness = Harness::start(Settings::default()).await;
        harness.aws.world().plant_stream(PlantedStream::default());
        let key = harness.aws.world().plant_key(PlantedKey::default());
        harness.aws.world().script(Rule::always(Fault::AccessDenied).on(operation));
        let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
        harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
        harness
            .until("orders", |status| {
                ["AccessDenied", "KeyDescribeDenied"].contains(&crate::harness::reason(status).as_str())
            })
            .await;
        let words = message(&harness.status("orders").await);
        assert!(words.contains(&format!("rant {right}")), "{words}");
    }
}

#[tokio::test]
async fn aws_outage_is_reported_and_last_state_is_kept() {
    let harness = Harness::start(Settings::default()).await;
    harness.aws.world().plant_stream(PlantedStream::default());
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.until_it_says("orders", "Encrypted").await;
    let known = harness.status("orders").await;
    harness.aws.world().script(Rule::always(Fault::ServerError { status: 503 }));
    harness.until_it_says("orders", "AwsUnreachable").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Ready), "Unknown");
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    assert_eq!((status.encryption_status, status.active_key), (known.encryption_status, known.active_key));
    harness.aws.world().clear_faults();
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.calls("StartDeliveryStreamEncryption", "orders"), 1);
}

#[tokio::test]
async fn invalid_object_is_reported_once() {
    let harness = Harness::start(Settings::default()).await;
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let operator = harness.replica();
    let mut versions = Vec::new();
    for why in ["a field is wrong", "a field is wrong", "another field is wrong"] {
        let read = harness.resource("orders").await.expect("the resource").metadata;
        report_invalid_object(&operator, &read, why).await.expect("the status is written");
        versions.push(harness.resource("orders").await.expect("the resource").metadata.resource_version);
        harness.aws.advance(SignedDuration::from_secs(7));
    }
    assert_eq!(versions[0], versions[1], "the same message is not written twice");
    assert_ne!(versions[1], versions[2]);
    assert!(message(&harness.status("orders").await).contains("another field is wrong"));
}

#[tokio::test]
async fn resource_created_suspended_is_written_once() {
    let harness = Harness::start(Settings::default()).await;
    harness.aws.advance(SignedDuration::from_millis(700));
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "suspend": true})).await;
    harness.until_it_says("orders", "Suspended").await;
    let told = harness.status("orders").await;
    let written = harness.kept_status("orders").await;
    assert_eq!(written, Some(told), "the written status equals the stored one, so no write is left");
}

#[tokio::test]
async fn event_note_is_truncated_at_a_character_boundary() {
    let harness = Harness::start(Settings::default()).await;
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "suspend": true})).await;
    let resource = harness.resource("orders").await.expect("the resource");
    let note = "€".repeat(1000);
    let happening = ReconcileEvent { warning: true, reason: "SpecInvalid".into(), action: "Reconcile", note };
    harness
        .replica()
        .records
        .publish_event(&ledger_store::owner(&resource), &happening)
        .await
        .expect("it is published");
    let told = harness
        .kubectl(&["get", "events", "-o", "jsonpath={.items[?(@.reason=='SpecInvalid')].message}"])
        .await;
    assert_eq!(told, "€".repeat(341), "Kubernetes accepts 1024 bytes");
}
