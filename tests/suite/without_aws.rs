//! What the operator reports, and does, while AWS does not answer or is not asked: resources that are suspended, deleted
//! or not permitted, and how long a status keeps what AWS showed last.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{Fault, KeyState, PlantedStream, Rule, Service, Settings};
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;

use crate::harness::{Harness, firehose, kinesis, message, reason, spec, truth};
use crate::matrix::scenario::{DESCRIBE, START, STOP, encrypted, stage};

fn unavailable() -> Fault {
    Fault::Refuse { code: "ServiceUnavailable".into(), message: "no".into(), status: 503 }
}

fn orders() -> Value {
    spec(&firehose("orders"), None)
}

#[tokio::test]
async fn suspended_resource_sends_no_request_and_keeps_ready() {
    let mut harness = encrypted(stage().await).await;
    let looks = harness.calls(DESCRIBE, "orders");
    let mut spec = orders();
    spec["suspend"] = json!(true);
    harness.apply("orders", &spec).await;
    harness.turned_off_by_another(&firehose("orders"));
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
    assert!(told.contains(&format!("is ENABLED, as of {} or up to a day later", seen.0)), "{told}");

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
async fn suspended_resource_with_a_key_sends_no_request() {
    let mut harness = stage().await;
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
    for key in [json!({"type": "CUSTOMER_MANAGED_CMK", "arn": key}), alias] {
        let mut spec = json!({"stream": {"arn": firehose("orders")}, "key": key});
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
async fn suspension_is_reported_while_aws_does_not_answer() {
    let mut harness = encrypted(stage().await).await;
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
    let mut harness = stage().await;
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
    let mut harness = stage().await;
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
    let finalizers = harness.resource("orders").await.expect("the resource").metadata.finalizers;
    assert_eq!(finalizers, None, "its deletion needs no permission");
}

#[tokio::test]
async fn encrypted_is_unknown_after_three_failed_describes() {
    let denied = Fault::Refuse { code: "AccessDeniedException".into(), message: "no".into(), status: 400 };
    for fault in [unavailable(), denied] {
        let mut harness = encrypted(stage().await).await;
        let seen = harness.status("orders").await.last_describe_time.expect("a time").0;
        harness.aws.world().script(Rule::always(fault).on(DESCRIBE));
        harness.until("orders", |status| truth(status, ConditionType::Ready) != "True").await;
        assert_eq!(
            truth(&harness.status("orders").await, ConditionType::Encrypted),
            "True",
            "one Describe has failed"
        );
        harness.until("orders", |status| truth(status, ConditionType::Encrypted) == "Unknown").await;
        let looks = harness.calls(DESCRIBE, "orders");
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
        harness.restart();
        harness.visit("orders").await.expect("a reconcile");
        let left = harness.resource("orders").await.expect("the resource").metadata.resource_version;
        assert_eq!(left, version, "a new process knows nothing newer");
        harness.aws.world().clear_faults();
        harness.until_it_says("orders", "Encrypted").await;
        assert_eq!(truth(&harness.status("orders").await, ConditionType::Encrypted), "True");
    }
}

#[tokio::test]
async fn encrypted_is_unknown_after_three_failed_identity_requests() {
    let mut harness = stage().await;
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
async fn key_usable_is_unknown_while_kms_does_not_answer() {
    let harness = stage().await;
    let key = harness.plant_key();
    harness.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    harness.apply("orders", &spec(&firehose("orders"), Some(&key))).await;
    harness.until_it_says("orders", "KeyDisabled").await;
    harness.aws.world().script(Rule::always(Fault::ServerError { status: 503 }).on("DescribeKey"));
    harness.until_it_says("orders", "AwsUnreachable").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::KeyUsable), "Unknown");
    harness.aws.world().clear_faults();
    harness.until_it_says("orders", "KeyDisabled").await;
    assert_eq!(harness.calls(START, "orders"), 0);
}

#[tokio::test]
async fn identity_outage_keeps_encrypted_and_drops_next_attempt() {
    let mut harness = encrypted(stage().await).await;
    let limit = Fault::Refuse { code: "LimitExceededException".into(), message: "no".into(), status: 400 };
    harness.aws.world().script(Rule::always(limit).on(START));
    harness.apply("orders", &spec(&firehose("orders"), Some(&harness.plant_key()))).await;
    harness.until_it_says("orders", "CallLimitReached").await;
    assert!(harness.status("orders").await.next_attempt_time.is_some());

    harness.aws.world().script(Rule::always(Fault::ServerError { status: 503 }).on("GetCallerIdentity"));
    harness.apply("orders", &spec(&firehose("orders"), Some(&harness.plant_key()))).await;
    harness.restart();
    harness.until_it_says("orders", "AwsUnreachable").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "the last observation is kept");
    assert_eq!(status.next_attempt_time, None, "the wait for the other key does not apply to this one");
}

#[tokio::test]
async fn test_record_is_repeated_only_when_due() {
    let unsettled = Settings { settle: SignedDuration::from_hours(1), ..Settings::default() };
    let harness = Harness::start(unsettled).await;
    let name = "clicks".to_owned();
    harness.aws.world().plant_stream(PlantedStream {
        service: Service::Kinesis,
        name,
        ..PlantedStream::default()
    });
    harness
        .apply("clicks", &json!({"stream": {"arn": kinesis("clicks")}, "verification": "PutRecord"}))
        .await;
    harness.until_it_says("clicks", "Verifying").await;
    let requests =
        || (harness.calls("PutRecord", "clicks"), harness.calls("DescribeStreamSummary", "clicks"));
    let sent = requests();
    assert!(sent.0 > 0, "{sent:?}");
    let mut next = harness.aws.now();
    for _ in 0..5 {
        next = harness.visit("clicks").await.expect("a reconcile");
    }
    assert_eq!(requests(), sent, "a reconcile before the time is not the reason for a request");
    harness.aws.advance(next.duration_since(harness.aws.now()));
    harness.visit("clicks").await.expect("a reconcile");
    assert_eq!(requests(), (sent.0 + 1, sent.1 + 1));
}
