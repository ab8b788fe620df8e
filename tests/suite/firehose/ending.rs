//! The ways out: turned off, deleted, suspended.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Calls as _, Fault, PlantedStream, Rule, Snapshot, StreamKey};
use stream_encryption_operator::api::condition::{ConditionType, find};
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::{Disabled, Disabling};

use crate::play::{firehose, message, reason, truth};

use super::{DESCRIBE, START, STOP, aws_owned, cmk, orders, play_with, stopped, word};

fn unavailable() -> Fault {
    Fault::Refuse { code: "ServiceUnavailable".into(), message: "no".into(), status: 503 }
}

#[tokio::test]
async fn turning_encryption_off_needs_permission() {
    let mut play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.policy = Some(StreamEncryptionPolicySpec::own_account());
    play.restart();
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "encryption": "Disabled"})).await;
    play.until_it_says("orders", "DisableNotPermitted").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!((play.calls(STOP, "orders"), play.calls(DESCRIBE, "orders")), (0, 0));

    play.policy =
        Some(StreamEncryptionPolicySpec { allow_disable: true, ..StreamEncryptionPolicySpec::own_account() });
    play.restart();
    let words = play.until_it_says("orders", "EncryptionDisabled").await;
    assert!(words.contains(&word(Some(Disabling), "Disabling")), "{words:?}");
    let status = play.status("orders").await;
    assert_eq!((status.encryption_status, status.key_in_force.clone()), (Some(Disabled), None));
    assert_eq!(truth(&status, ConditionType::Ready), "True");
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert_eq!(play.calls(STOP, "orders"), 1);
}

#[tokio::test]
async fn deleting_a_resource_leaves_the_stream_as_it_is_and_no_finalizer_is_set() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.resource("orders").await.expect("the resource").metadata.finalizers, None);
    play.kubectl(&["delete", "strenc", "orders"]).await;
    assert!(play.resource("orders").await.is_none());
    assert_eq!(play.calls(STOP, "orders"), 0);
    assert!(play.ledger(&firehose("orders")).await.is_some(), "the ledger outlives the resource");
}

#[tokio::test]
async fn deletion_policy_disable_holds_the_resource_until_encryption_is_off() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "deletionPolicy": "Disable"})).await;
    play.until_it_says("orders", "Encrypted").await;
    play.kubectl(&["delete", "strenc", "orders", "--wait=false"]).await;
    play.until_it_says("orders", "Disabling").await;
    for _ in 0..20 {
        if play.resource("orders").await.is_none() {
            break;
        }
        let wake = play.visit("orders").await.expect("a visit");
        play.aws.advance(wake.duration_since(play.aws.now()).max(SignedDuration::from_millis(1)));
    }
    assert!(play.resource("orders").await.is_none(), "it is let go");
    assert_eq!(play.calls(STOP, "orders"), 1);
}

#[tokio::test]
async fn a_suspended_resource_is_left_alone_and_its_ready_stays() {
    let mut play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let looks = play.calls(DESCRIBE, "orders");
    let mut spec = orders(&aws_owned());
    spec["suspend"] = json!(true);
    play.apply("orders", &spec).await;
    play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!((play.calls(START, "orders"), play.calls(DESCRIBE, "orders")), (1, looks));
    let status = play.status("orders").await;
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

    let version = play.resource("orders").await.expect("the resource").metadata.resource_version;
    play.restart();
    play.aws.world().script(Rule::always(unavailable()));
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    let left = play.resource("orders").await.expect("the resource").metadata.resource_version;
    assert_eq!(left, version, "a restart without AWS changes nothing of it");

    play.aws.world().clear_faults();
    spec["suspend"] = json!(false);
    play.apply("orders", &spec).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.status("orders").await.suspended_since_time, None);
    assert_eq!(play.calls(START, "orders"), 2, "what was changed meanwhile is corrected");
}

#[tokio::test]
async fn suspension_is_reported_while_aws_does_not_answer() {
    let mut play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    play.restart();
    play.aws.world().script(Rule::always(unavailable()));
    for value in ["True", "until Monday"] {
        let suspend = format!("streamencryption.dev/suspend={value}");
        play.kubectl(&["annotate", "strenc", "orders", "--overwrite", &suspend]).await;
        play.visit("orders").await.expect("a visit");
        let status = play.status("orders").await;
        assert_eq!(
            (truth(&status, ConditionType::Ready), reason(&status)),
            ("True".into(), "Suspended".into())
        );
        assert!(message(&status).contains("streamencryption.dev/suspend"), "{}", message(&status));
    }
    assert!(message(&play.status("orders").await).contains("\"until Monday\" is unknown"));
}

#[tokio::test]
async fn retain_is_heard_while_aws_does_not_answer() {
    let mut play = play_with(Snapshot::default()).await;
    let by_name = json!({"service": "Firehose", "name": "orders"});
    for stream in [by_name, json!({"arn": firehose("orders")})] {
        let spec = |policy: &str| json!({"stream": stream, "deletionPolicy": policy});
        play.apply("orders", &spec("Disable")).await;
        play.until_it_says("orders", "Encrypted").await;
        let held = play.resource("orders").await.expect("the resource").metadata.finalizers;
        assert!(held.is_some_and(|finalizers| !finalizers.is_empty()));
        play.restart();
        play.aws.world().script(Rule::always(unavailable()));
        play.apply("orders", &spec("Retain")).await;
        play.kubectl(&["delete", "strenc", "orders", "--wait=false"]).await;
        play.visit("orders").await.expect("a visit");
        assert!(play.resource("orders").await.is_none(), "it is let go");
        play.aws.world().clear_faults();
    }
    assert_eq!(play.calls(STOP, "orders"), 0);
}

#[tokio::test]
async fn refusal_needs_no_answer_of_aws() {
    let mut play = play_with(Snapshot::default()).await;
    play.policy = Some(StreamEncryptionPolicySpec {
        streams: vec![firehose("clicks")],
        ..StreamEncryptionPolicySpec::own_account()
    });
    play.restart();
    play.aws.world().script(Rule::always(unavailable()));
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "deletionPolicy": "Disable"})).await;
    play.visit("orders").await.expect("a visit");
    assert_eq!(reason(&play.status("orders").await), "NotPermitted");
}

#[tokio::test]
async fn retry_that_changes_nothing_leaves_a_trace() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    for retry in ["monday", "tuesday"] {
        let annotation = format!("streamencryption.dev/retry={retry}");
        play.kubectl(&["annotate", "strenc", "orders", "--overwrite", &annotation]).await;
        play.let_pass("orders", SignedDuration::from_mins(1)).await;
        assert_eq!(play.status("orders").await.last_handled_retry.as_deref(), Some(retry));
    }
    assert!(play.events("orders").await.contains("RetryHandled"));
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn describe_time_costs_one_write_an_hour() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let mut times = std::collections::BTreeSet::new();
    let mut versions = std::collections::BTreeSet::new();
    for _ in 0..60 {
        play.let_pass("orders", SignedDuration::from_mins(10)).await;
        let resource = play.resource("orders").await.expect("the resource");
        versions.insert(resource.metadata.resource_version);
        let described = resource.status.and_then(|status| status.last_describe_time).expect("a time").0;
        assert!(play.aws.now().duration_since(described) <= SignedDuration::from_mins(75), "{described}");
        times.insert(described);
    }
    assert!((8..=10).contains(&times.len()), "in ten hours: {times:?}");
    assert!(versions.len() <= times.len() + 1, "{} writes for {} times", versions.len(), times.len());
}

#[tokio::test]
async fn encrypted_is_unknown_after_three_looks_without_an_answer() {
    let denied = Fault::Refuse { code: "AccessDeniedException".into(), message: "no".into(), status: 400 };
    for fault in [unavailable(), denied] {
        let play = play_with(Snapshot::default()).await;
        play.apply("orders", &orders(&aws_owned())).await;
        play.until_it_says("orders", "Encrypted").await;
        let seen = play.status("orders").await.last_describe_time.expect("a time").0;
        play.aws.world().script(Rule::always(fault).on(DESCRIBE));
        play.until("orders", |status| truth(status, ConditionType::Ready) != "True").await;
        assert_eq!(
            truth(&play.status("orders").await, ConditionType::Encrypted),
            "True",
            "one look is missed"
        );
        play.until("orders", |status| truth(status, ConditionType::Encrypted) == "Unknown").await;
        let looks = play.aws.world().calls().count(DESCRIBE, "orders");
        let status = play.status("orders").await;
        let encrypted = find(&status.conditions, ConditionType::Encrypted).expect("Encrypted");
        assert!(encrypted.message.contains("Records are encrypted with"), "{}", encrypted.message);
        assert!(encrypted.message.starts_with("As of "), "{} at {seen}, {looks} looks", encrypted.message);
        let version = play.resource("orders").await.expect("the resource").metadata.resource_version;
        play.let_pass("orders", SignedDuration::from_mins(30)).await;
        let left = play.resource("orders").await.expect("the resource").metadata.resource_version;
        assert_eq!(left, version, "that is written once");
        play.aws.world().clear_faults();
        play.until_it_says("orders", "Encrypted").await;
        assert_eq!(truth(&play.status("orders").await, ConditionType::Encrypted), "True");
    }
}

#[tokio::test]
async fn suspended_resource_with_a_key_sends_no_request() {
    let mut play = play_with(Snapshot::default()).await;
    let key = play.plant_key();
    play.aws.world().plant_alias("alias/orders", &key);
    // With the account in the policy nothing of it depends on whose credentials the operator has.
    let keys = ["arn:aws:kms:eu-west-1:111122223333:key/*", "arn:aws:kms:eu-west-1:111122223333:alias/*"];
    play.policy = Some(StreamEncryptionPolicySpec {
        streams: vec![firehose("orders")],
        keys: keys.map(str::to_owned).to_vec(),
        ..StreamEncryptionPolicySpec::own_account()
    });
    let alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    for key in [cmk(&key), alias] {
        let mut spec = orders(&key);
        spec["suspend"] = json!(true);
        play.restart();
        let before = play.aws.world().calls().len();
        play.apply("orders", &spec).await;
        play.let_pass("orders", SignedDuration::from_hours(2)).await;
        assert_eq!(reason(&play.status("orders").await), "Suspended");
        assert_eq!(play.aws.world().calls().len(), before, "{key}");
    }
}

#[tokio::test]
async fn outdated_encrypted_stays_unknown_after_a_restart() {
    let mut play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    play.aws.world().script(Rule::always(unavailable()).on(DESCRIBE));
    play.until("orders", |status| truth(status, ConditionType::Encrypted) == "Unknown").await;
    let version = play.resource("orders").await.expect("the resource").metadata.resource_version;
    play.restart();
    play.visit("orders").await.expect("a visit");
    assert_eq!(truth(&play.status("orders").await, ConditionType::Encrypted), "Unknown");
    let left = play.resource("orders").await.expect("the resource").metadata.resource_version;
    assert_eq!(left, version, "nothing newer is known");
}

#[tokio::test]
async fn encrypted_is_unknown_after_three_unanswered_identities() {
    let mut play = play_with(Snapshot::default()).await;
    // By its name, a stream is of the operator's own account.
    play.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    play.until_it_says("orders", "Encrypted").await;
    play.restart();
    play.aws.world().script(Rule::always(unavailable()));
    for expected in ["True", "True", "Unknown"] {
        let wake = play.visit("orders").await.expect("a visit");
        assert_eq!(truth(&play.status("orders").await, ConditionType::Encrypted), expected);
        play.aws.advance(wake.duration_since(play.aws.now()).max(SignedDuration::from_millis(1)));
    }
}
