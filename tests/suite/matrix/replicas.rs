//! Two replicas, beside row 11: what one has seen, remembers or was asked for before is no ground to act against the other.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Fault, KeyState, Rule, Service};
use stream_encryption_operator::api::stream_encryption::EncryptionStatus;

use super::fuse::FusedOperator;
use super::proxy::When;
use super::rig::{DESCRIBE, Journey, START, spec, stage, stopped};

#[tokio::test]
async fn what_a_replica_remembers_of_a_key_is_no_ground_for_a_call_once_another_has_seen_more() {
    let play = stage().await;
    let key = play.plant_key();
    let mut one = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&one.arn, Some(&key))).await;
    one.until("Encrypted").await;
    play.aws.advance(SignedDuration::from_mins(8));
    let other = FusedOperator::new(play.replica(), None);
    let resource = play.resource("orders").await.expect("the resource");
    other.visit_or_crash(&resource).await;

    // The first looks again, and sees a stream in plain text and a key that is disabled; the other has seen neither.
    let now = play.aws.now();
    play.aws.world().set_stream(now, &one.arn, stopped());
    play.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    play.aws.advance(SignedDuration::from_mins(6));
    one.until("KeyDisabled").await;
    for _ in 0..5 {
        other.visit_or_crash(&play.resource("orders").await.expect("the resource")).await;
        play.aws.advance(SignedDuration::from_secs(1));
    }
    assert_eq!(play.calls(START, "orders"), 1, "no call with a key that was usable minutes ago");
}

#[tokio::test]
async fn a_visit_of_an_older_spec_wipes_out_no_backoff_of_a_newer_one() {
    let play = stage().await;
    let mut one = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&one.arn, None)).await;
    one.until("Encrypted").await;

    // Between its reading of the resource and of the ledger lies the question whose credentials these are.
    let late = FusedOperator::new(play.replica(), Some((1, When::After)));
    let older = play.resource("orders").await.expect("the resource");
    let key = play.plant_key();
    let limit = Fault::Refuse { code: "LimitExceededException".into(), message: String::new(), status: 400 };
    play.aws.world().script(Rule::always(limit).on(START));
    let meanwhile = async || {
        play.apply("orders", &spec(&one.arn, Some(&key))).await;
        one.until("CallLimitReached").await;
    };
    late.visit_with_a_pause(&older, meanwhile).await.expect("Kubernetes can be asked");
    assert_eq!(late.passed()[0], "identity");
    let ledger = play.ledger(&one.arn).await.expect("the ledger").spec;
    assert!(ledger.attempts.is_some(), "the attempt that AWS refused is still known");
    one.visit().await;
    assert_eq!(play.calls(START, "orders"), 2, "and the next one waits");
}

#[tokio::test]
async fn a_visit_that_was_paused_before_its_look_wipes_out_no_backoff_of_the_key_that_an_alias_names_by_now()
{
    let play = stage().await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.aws.world().plant_alias("alias/orders", &old);
    let mut one = Journey::new(&play, Service::Firehose, "orders", None);
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    play.apply("orders", &json!({"stream": {"arn": one.arn}, "key": key})).await;
    one.until("Encrypted").await;

    // It has asked KMS what the alias names, and is paused for ten minutes.
    let late = FusedOperator::new(play.replica(), Some((2, When::After)));
    let resource = play.resource("orders").await.expect("the resource");
    let limit = Fault::Refuse { code: "LimitExceededException".into(), message: String::new(), status: 400 };
    play.aws.world().script(Rule::always(limit).on(START));
    let meanwhile = async || {
        play.aws.world().plant_alias("alias/orders", &new);
        play.aws.advance(SignedDuration::from_mins(10));
        one.until("CallLimitReached").await;
    };
    late.visit_with_a_pause(&resource, meanwhile).await.expect("Kubernetes can be asked");
    assert_eq!(late.passed()[..2], ["identity", "key"]);
    let ledger = play.ledger(&one.arn).await.expect("the ledger").spec;
    assert!(ledger.attempts.is_some(), "the attempt that AWS refused is still known");
    one.visit().await;
    assert_eq!(play.calls(START, "orders"), 2, "and the next one waits");
}

#[tokio::test]
async fn where_kms_cannot_be_asked_again_after_a_pause_no_call_follows_what_it_said_before() {
    let play = stage().await;
    let key = play.plant_key();
    let one = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&one.arn, Some(&key))).await;

    // It has asked KMS for the key, and is paused for ten minutes.
    let late = FusedOperator::new(play.replica(), Some((2, When::After)));
    let resource = play.resource("orders").await.expect("the resource");
    let meanwhile = async || {
        play.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
        play.aws.world().script(Rule::always(Fault::Throttle).on("DescribeKey"));
        play.aws.advance(SignedDuration::from_mins(10));
    };
    late.visit_with_a_pause(&resource, meanwhile).await.expect("Kubernetes can be asked");
    let passed = late.passed();
    assert_eq!(passed.iter().filter(|name| **name == "key").count(), 2, "{passed:?}");
    assert_eq!(play.calls(START, "orders"), 0, "the key was usable ten minutes ago");
}

#[tokio::test]
async fn where_aws_cannot_be_asked_its_last_word_is_not_repeated_beside_what_was_learned_since() {
    let play = stage().await;
    let mut one = Journey::new(&play, Service::Firehose, "orders", None);
    let mut report = spec(&one.arn, None);
    play.apply("orders", &report).await;
    one.until("Encrypted").await;
    report["drift"] = json!("Report");
    play.apply("orders", &report).await;
    play.aws.advance(SignedDuration::from_mins(1));
    let now = play.aws.now();
    play.aws.world().set_stream(now, &one.arn, stopped());

    // Identity, look, ledger: it has learned that the stream is in plain text, and does not come to say so.
    one.operator = FusedOperator::new(play.replica(), Some((4, When::Before)));
    one.visit().await;
    assert!(one.crashed && one.passed.ends_with(&["write status"]), "{:?}", one.passed);
    play.aws.world().script(Rule { times: Some(1), ..Rule::always(Fault::AccessDenied).on(DESCRIBE) });
    one.until("AccessDenied").await;
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force, None);
    assert_ne!(status.encryption_status, Some(EncryptionStatus::Enabled));
}
