//! What cannot work: within seconds a condition tells a person what to do, and no call is spent on it.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, KeyState, PlantedKey, PlantedStream, Rule, Settings};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::controller::records::{Happening, Records as _};
use stream_encryption_operator::controller::{book, malformed};

use crate::play::{ACCOUNT, Play, firehose, message, truth};

/// One mistake: what the spec says, and what is to be read.
struct Mistake {
    sentence: &'static str,
    spec: Value,
    reason: &'static str,
    /// A piece of the message that says what to do.
    advice: &'static str,
    stalled: bool,
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn every_mistake_is_told_within_seconds_and_costs_no_call() {
    let play = Play::start(Settings::default()).await;
    play.aws.world().plant_stream(PlantedStream::default());
    let key = |state| play.aws.world().plant_key(PlantedKey { state, ..PlantedKey::default() });
    let pending = key(KeyState::PendingDeletion);
    let import = key(KeyState::PendingImport);
    let rsa = play.aws.world().plant_key(PlantedKey { spec: "RSA_2048".into(), ..PlantedKey::default() });
    let sign = play.aws.world().plant_key(PlantedKey {
        usage: "SIGN_VERIFY".into(),
        spec: "RSA_2048".into(),
        ..PlantedKey::default()
    });
    let elsewhere = format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/00000009-0000-4000-8000-000000000009");
    let missing = format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/00000008-0000-4000-8000-000000000008");
    let foreign_key = "arn:aws:kms:eu-west-1:444455556666:key/00000007-0000-4000-8000-000000000007";
    let with = |arn: &str| json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": arn}});
    let alias = json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/nobody"}});
    let reference = json!({"apiVersion": "kms.services.k8s.aws/v1alpha1", "kind": "Key", "name": "orders"});
    let reference = json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "ref": reference}});
    let stream = |arn: String| json!({"stream": {"arn": arn}});
    let mistakes = [
        Mistake {
            sentence: "a missing stream",
            spec: stream(firehose("nobody")),
            reason: "StreamNotFound",
            advice: "looked for again",
            stalled: false,
        },
        Mistake {
            sentence: "a stream of a foreign account",
            spec: stream(firehose("orders").replace(ACCOUNT, "444455556666")),
            reason: "NotPermitted",
            advice: "have an administrator allow it",
            stalled: true,
        },
        Mistake {
            sentence: "a key of a foreign account",
            spec: with(foreign_key),
            reason: "NotPermitted",
            advice: "have an administrator allow it",
            stalled: true,
        },
        Mistake {
            sentence: "a missing key",
            spec: with(&missing),
            reason: "KeyNotFound",
            advice: "Make the key or name another one",
            stalled: false,
        },
        Mistake {
            sentence: "a missing alias",
            spec: alias,
            reason: "KeyNotFound",
            advice: "Make the key or name another one",
            stalled: false,
        },
        Mistake {
            sentence: "a key that is going to be deleted",
            spec: with(&pending),
            reason: "KeyPendingDeletion",
            advice: "Cancel that",
            stalled: false,
        },
        Mistake {
            sentence: "a key without material",
            spec: with(&import),
            reason: "KeyPendingImport",
            advice: "Import it",
            stalled: false,
        },
        Mistake {
            sentence: "an asymmetric key",
            spec: with(&rsa),
            reason: "KeyNotSymmetric",
            advice: "Name a symmetric",
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
            advice: "of the stream's region",
            stalled: true,
        },
        Mistake {
            sentence: "a reference to a kind that is not installed",
            spec: reference,
            reason: "KeyReferenceKindMissing",
            advice: "Install the KMS controller of ACK",
            stalled: false,
        },
    ];
    for Mistake { sentence, spec, reason, advice, stalled } in mistakes {
        let began = play.aws.now();
        play.apply("orders", &spec).await;
        play.until_it_says("orders", reason).await;
        let status = play.status("orders").await;
        assert!(play.aws.now().duration_since(began) <= SignedDuration::from_secs(5), "{sentence}");
        assert!(message(&status).contains(advice), "{sentence}: {}", message(&status));
        assert_eq!(truth(&status, ConditionType::Stalled) == "True", stalled, "{sentence}");
        assert_eq!(truth(&status, ConditionType::Reconciling) == "True", !stalled, "{sentence}");
        play.let_pass("orders", SignedDuration::from_hours(1)).await;
        play.kubectl(&["delete", "strenc", "orders"]).await;
    }
    assert_eq!(play.calls("StartDeliveryStreamEncryption", "orders"), 0);
}

#[tokio::test]
async fn what_is_not_permitted_is_not_even_looked_at() {
    let play = Play::start(Settings::default()).await;
    let foreign = firehose("orders").replace(ACCOUNT, "444455556666");
    play.apply("orders", &json!({"stream": {"arn": foreign}})).await;
    play.until_it_says("orders", "NotPermitted").await;
    play.let_pass("orders", SignedDuration::from_hours(1)).await;
    assert_eq!(play.calls("DescribeDeliveryStream", "orders"), 0);
    assert!(play.ledger(&foreign).await.is_none(), "nor is it claimed");
}

#[tokio::test]
async fn a_missing_right_is_named() {
    for (operation, right) in [
        ("DescribeDeliveryStream", "firehose:DescribeDeliveryStream"),
        ("StartDeliveryStreamEncryption", "firehose:StartDeliveryStreamEncryption"),
        ("DescribeKey", "kms:DescribeKey"),
    ] {
        let play = Play::start(Settings::default()).await;
        play.aws.world().plant_stream(PlantedStream::default());
        let key = play.aws.world().plant_key(PlantedKey::default());
        play.aws.world().script(Rule::always(Fault::AccessDenied).on(operation));
        let key = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key});
        play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
        play.until("orders", |status| {
            ["AccessDenied", "KeyUnreadable"].contains(&crate::play::reason(status).as_str())
        })
        .await;
        let words = message(&play.status("orders").await);
        assert!(words.contains(&format!("rant {right}")), "{words}");
    }
}

#[tokio::test]
async fn an_aws_that_does_not_answer_is_told_and_what_was_known_stays() {
    let play = Play::start(Settings::default()).await;
    play.aws.world().plant_stream(PlantedStream::default());
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "Encrypted").await;
    let known = play.status("orders").await;
    play.aws.world().script(Rule::always(Fault::ServerError { status: 503 }));
    play.until_it_says("orders", "AwsUnreachable").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Ready), "Unknown");
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    assert_eq!(
        (status.encryption_status, status.key_in_force),
        (known.encryption_status, known.key_in_force)
    );
    play.aws.world().clear_faults();
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls("StartDeliveryStreamEncryption", "orders"), 1);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_told_once_and_not_written_again() {
    let play = Play::start(Settings::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    let operator = play.replica();
    let mut versions = Vec::new();
    for why in ["a field is wrong", "a field is wrong", "another field is wrong"] {
        let read = play.resource("orders").await.expect("the resource").metadata;
        malformed(&operator, &read, why).await.expect("it is told");
        versions.push(play.resource("orders").await.expect("the resource").metadata.resource_version);
        play.aws.advance(SignedDuration::from_secs(7));
    }
    assert_eq!(versions[0], versions[1], "the same words are not written twice");
    assert_ne!(versions[1], versions[2]);
    assert!(message(&play.status("orders").await).contains("another field is wrong"));
}

#[tokio::test]
async fn a_resource_that_is_suspended_from_the_start_is_not_written_again_and_again() {
    let play = Play::start(Settings::default()).await;
    play.aws.advance(SignedDuration::from_millis(700));
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "suspend": true})).await;
    play.until_it_says("orders", "Suspended").await;
    let told = play.status("orders").await;
    let written = play.kept_status("orders").await;
    assert_eq!(written, Some(told), "what was written is what is read, so nothing is left to write");
}

#[tokio::test]
async fn what_is_told_in_a_script_with_long_characters_arrives() {
    let play = Play::start(Settings::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "suspend": true})).await;
    let resource = play.resource("orders").await.expect("the resource");
    let note = "€".repeat(1000);
    let happening = Happening {
        warning: true,
        reason: "SpecInvalid".into(),
        action: "Reconcile",
        note,
        encrypted_after: None,
    };
    play.replica().records.tell(&book::owner(&resource), &happening).await.expect("it is published");
    let told =
        play.kubectl(&["get", "events", "-o", "jsonpath={.items[?(@.reason=='SpecInvalid')].message}"]).await;
    assert_eq!(told, "€".repeat(341), "Kubernetes takes 1024 bytes");
}
