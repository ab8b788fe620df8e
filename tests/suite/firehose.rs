//! Firehose streams, from `kubectl apply` to encrypted and through everything that can happen on the way.

use jiff::SignedDuration;
use serde_json::{Value, json};
use simulated_aws::world::{
    EncryptionStatus as Shown, FailureType, Fault, KeyState, NeverEncryptedShows, PlantedKey, PlantedStream,
    Rule, Settings, ShownKey, Snapshot, Source, StreamKey,
};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::api::stream_encryption::EncryptionStatus::{
    Disabled, Disabling, Enabled, Enabling, EnablingFailed,
};
use stream_encryption_operator::api::stream_encryption::KeyType;

use crate::play::{Play, firehose, message, reason, truth};

const DESCRIBE: &str = "DescribeDeliveryStream";
const START: &str = "StartDeliveryStreamEncryption";
const STOP: &str = "StopDeliveryStreamEncryption";

/// A world with one Firehose stream `orders` in this state; ENABLING and DISABLING take 5 s.
async fn play_with(state: Snapshot) -> Play {
    let five = SignedDuration::from_secs(5);
    let play = Play::start(Settings { enabling: five, disabling: five, ..Settings::default() }).await;
    play.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    play
}

fn orders(key: &Value) -> Value {
    json!({"stream": {"arn": firehose("orders")}, "key": key})
}

fn aws_owned() -> Value {
    json!({"type": "AWS_OWNED_CMK"})
}

fn cmk(arn: &str) -> Value {
    json!({"type": "CUSTOMER_MANAGED_CMK", "arn": arn})
}

/// A key whose policy keeps Firehose from it.
fn plant_denied_key(play: &Play) -> String {
    play.aws.world().plant_key(PlantedKey { policy: Some(denying()), ..PlantedKey::default() })
}

fn denying() -> Value {
    let all = json!({"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Principal": {"Service": "firehose.amazonaws.com"}, "Action": "kms:*", "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [all, deny]})
}

fn word(
    status: Option<stream_encryption_operator::api::stream_encryption::EncryptionStatus>,
    reason: &str,
) -> crate::play::Word {
    (status, reason.to_owned())
}

#[tokio::test]
async fn a_plain_text_stream_becomes_encrypted_with_one_start_and_at_most_four_looks() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    let words = play.until_it_says("orders", "Encrypted").await;
    assert_eq!(
        words,
        [word(Some(Enabling), "Enabling"), word(Some(Enabled), "Settling"), word(Some(Enabled), "Encrypted")]
    );
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(play.calls(DESCRIBE, "orders") <= 4, "{} looks", play.calls(DESCRIBE, "orders"));

    let status = play.status("orders").await;
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.key_in_force.expect("a key").kind, KeyType::AwsOwned);
    assert_eq!(status.calls.expect("the budget").used, 1);
    assert_eq!(status.plain_text_since, None);
    let events = play.events("orders").await;
    assert!(events.contains("Enabling") && events.contains("Encrypted"), "{events:?}");
}

#[tokio::test]
async fn a_stream_that_is_already_right_costs_one_look_and_no_call() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!((play.calls(START, "orders"), play.calls(DESCRIBE, "orders")), (0, 1));
}

#[tokio::test]
async fn at_rest_a_stream_costs_one_look_a_drift_interval_and_no_write() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let before = play.resource("orders").await.expect("the resource").metadata.resource_version;
    let ledger_before = play.ledger(&firehose("orders")).await.expect("the ledger").metadata.resource_version;
    let looks_before = play.calls(DESCRIBE, "orders");
    play.let_pass("orders", SignedDuration::from_hours(10)).await;
    let looks = play.calls(DESCRIBE, "orders") - looks_before;
    // Ten minutes, up to a tenth more or less for each resource.
    assert!((54..=67).contains(&looks), "{looks} looks in 10 hours");
    assert_eq!(play.resource("orders").await.expect("the resource").metadata.resource_version, before);
    assert_eq!(
        play.ledger(&firehose("orders")).await.expect("the ledger").metadata.resource_version,
        ledger_before
    );
}

#[tokio::test]
async fn encrypted_is_said_only_after_the_settle_time() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Settling").await;
    let status = play.status("orders").await;
    assert_eq!(
        truth(&status, ConditionType::Encrypted),
        "False",
        "AWS says ENABLED, and records may still be in plain text"
    );
    let enabled_at = play.aws.now();
    play.until_it_says("orders", "Encrypted").await;
    assert!(play.aws.now().duration_since(enabled_at) >= SignedDuration::from_secs(5));
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "True");
    assert!(status.encrypted_since.expect("a time").0 >= enabled_at + SignedDuration::from_secs(5));
}

#[tokio::test]
async fn while_a_stream_is_being_enabled_its_records_are_said_to_be_in_plain_text() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force, None);
    assert!(status.plain_text_since.is_some());
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert!(message(&status).contains("still in plain text"), "{}", message(&status));
}

#[tokio::test]
async fn a_stream_that_comes_without_any_encryption_block_is_in_plain_text() {
    let play = Play::start(Settings::default()).await;
    let bare =
        PlantedStream { never_encrypted_shows: NeverEncryptedShows::NoBlock, ..PlantedStream::default() };
    play.aws.world().plant_stream(bare);
    play.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_stream_whose_owner_does_not_care_keeps_the_key_that_somebody_chose() {
    let play = play_with(Snapshot::default()).await;
    let key = play.plant_key();
    let state = Snapshot::enabled(StreamKey::arn(&key));
    play.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 0);
    assert_eq!(play.status("orders").await.key_in_force.expect("a key").arn, Some(key));
}

#[tokio::test]
async fn a_failed_first_enable_leaves_plain_text_and_backs_off() {
    let play = play_with(Snapshot::default()).await;
    let key = plant_denied_key(&play);
    play.apply("orders", &orders(&cmk(&key))).await;
    let words = play.until_it_says("orders", "EnablingFailed").await;
    assert_eq!(words, [word(Some(Enabling), "Enabling"), word(Some(EnablingFailed), "EnablingFailed")]);
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force, None);
    assert!(status.plain_text_since.is_some());
    assert_eq!(truth(&status, ConditionType::Encrypted), "False");
    assert_eq!(
        truth(&status, ConditionType::Reconciling),
        "True",
        "a mended policy helps, so it is not stalled"
    );
    let failure = status.failure.expect("a failure");
    assert_eq!((failure.kind.as_str(), failure.attempts), ("KMS_ACCESS_DENIED", 1));
    let next = status.next_attempt_time.expect("a next attempt").0;
    assert!(next.duration_since(play.aws.now()) <= SignedDuration::from_mins(5));

    // Doubling from 5 minutes to 6 hours makes ten attempts in a day, and the budget is never near its end.
    play.let_pass("orders", SignedDuration::from_hours(24)).await;
    assert_eq!(play.calls(START, "orders"), 10);
}

#[tokio::test]
async fn a_re_key_names_the_old_key_until_the_new_one_is_in_force() {
    let play = play_with(Snapshot::default()).await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.apply("orders", &orders(&cmk(&old))).await;
    play.until_it_says("orders", "Encrypted").await;
    play.apply("orders", &orders(&cmk(&new))).await;
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert_eq!(status.key_in_force.clone().expect("a key").arn, Some(old));
    assert_eq!(status.key.clone().expect("a key").arn, Some(new.clone()));
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "with the old key");
    play.until_it_says("orders", "Settling").await;
    assert_eq!(
        truth(&play.status("orders").await, ConditionType::Encrypted),
        "True",
        "records were encrypted all along"
    );
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.status("orders").await.key_in_force.expect("a key").arn, Some(new));
    assert_eq!(play.calls(START, "orders"), 2);
}

#[tokio::test]
async fn after_a_failed_re_key_the_old_key_is_in_force_whichever_key_aws_shows() {
    for shows in [ShownKey::Asked, ShownKey::InForce] {
        let play = Play::start(Settings { failed_re_key_shows: shows, ..Settings::default() }).await;
        play.aws.world().plant_stream(PlantedStream::default());
        let (old, denied) = (play.plant_key(), plant_denied_key(&play));
        play.apply("orders", &orders(&cmk(&old))).await;
        play.until_it_says("orders", "Encrypted").await;
        play.apply("orders", &orders(&cmk(&denied))).await;
        play.until_it_says("orders", "EnablingFailed").await;
        let status = play.status("orders").await;
        assert_eq!(status.encryption_status, Some(EnablingFailed), "{shows:?}");
        assert_eq!(status.key_in_force.clone().expect("a key").arn, Some(old.clone()), "{shows:?}");
        assert_eq!(truth(&status, ConditionType::Encrypted), "True", "{shows:?}");
        assert!(message(&status).contains(&old), "{}", message(&status));
        assert_eq!(play.calls(START, "orders"), 2, "{shows:?}");

        // Whoever goes back to the old key has what was asked for, and spends no call on it.
        play.apply("orders", &orders(&cmk(&old))).await;
        play.until_it_says("orders", "Encrypted").await;
        assert_eq!(play.calls(START, "orders"), 2, "{shows:?}");
    }
}

#[tokio::test]
async fn a_mended_policy_and_a_retry_heal_a_failed_re_key_at_once() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    let key = plant_denied_key(&play);
    play.apply("orders", &orders(&cmk(&key))).await;
    play.until_it_says("orders", "EnablingFailed").await;
    let failed_at = play.aws.now();
    play.aws.world().plant_key(PlantedKey {
        id: key.rsplit('/').next().expect("an id").to_owned(),
        ..PlantedKey::default()
    });
    play.kubectl(&["annotate", "strenc", "orders", "streamencryption.dev/retry=2026-03-01T12:01:00Z"]).await;
    let words = play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
    let took = play.aws.now().duration_since(failed_at);
    assert!(took < SignedDuration::from_mins(1), "it waited for the backoff: {took:#}, {words:?}");
}

#[tokio::test]
async fn a_disabled_key_waits_without_a_call_and_goes_on_once_enabled() {
    let play = play_with(Snapshot::default()).await;
    let key = play.aws.world().plant_key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
    play.apply("orders", &orders(&cmk(&key))).await;
    play.until_it_says("orders", "KeyDisabled").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::KeyUsable), "False");
    play.let_pass("orders", SignedDuration::from_hours(3)).await;
    assert_eq!(play.calls(START, "orders"), 0);
    let id = key.rsplit('/').next().expect("an id").to_owned();
    play.aws.world().plant_key(PlantedKey { id, ..PlantedKey::default() });
    let enabled_at = play.aws.now();
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(play.aws.now().duration_since(enabled_at) <= SignedDuration::from_mins(11));
}

#[tokio::test]
async fn a_stream_fed_by_kinesis_is_refused_without_any_call() {
    let play = Play::start(Settings::default()).await;
    play.aws
        .world()
        .plant_stream(PlantedStream { source: Source::KinesisStreamAsSource, ..PlantedStream::default() });
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "SourceNotDirectPut").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert_eq!(play.calls(START, "orders"), 0);
}

#[tokio::test]
async fn encryption_that_somebody_turned_off_is_corrected_and_told() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    play.until_it_says("orders", "Enabling").await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(play.events("orders").await.contains("DriftCorrected"));
}

#[tokio::test]
async fn after_three_corrections_in_a_day_the_operator_stops_fighting() {
    let play = play_with(Snapshot::enabled(StreamKey::AwsOwned)).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    for _ in 0..3 {
        play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
        play.until_it_says("orders", "Enabling").await;
        play.until_it_says("orders", "Encrypted").await;
    }
    play.aws.world().plant_stream(PlantedStream { state: stopped(), ..PlantedStream::default() });
    play.until_it_says("orders", "Contested").await;
    assert_eq!(truth(&play.status("orders").await, ConditionType::Stalled), "True");
    play.let_pass("orders", SignedDuration::from_hours(20)).await;
    assert_eq!(play.calls(START, "orders"), 3);
    play.let_pass("orders", SignedDuration::from_hours(5)).await;
    assert_eq!(play.calls(START, "orders"), 4, "a day later it is corrected again");
}

#[tokio::test]
async fn with_drift_report_a_difference_is_told_and_nothing_is_called() {
    let play = play_with(stopped()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "drift": "Report"})).await;
    play.until_it_says("orders", "Drifted").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    let status = play.status("orders").await;
    assert_eq!(status.encryption_status, Some(Disabled));
    assert_eq!(truth(&status, ConditionType::Ready), "False");
    assert_eq!(truth(&status, ConditionType::Reconciling) + &truth(&status, ConditionType::Stalled), "");
    assert_eq!(play.calls(START, "orders"), 0);
}

#[tokio::test]
async fn a_lost_reply_is_resolved_by_looking_and_costs_no_second_start() {
    let play = play_with(Snapshot::default()).await;
    play.aws.world().script(Rule::once(Fault::LoseReply).on(START));
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_lost_request_is_sent_again_only_once_it_can_no_longer_arrive() {
    let play = play_with(Snapshot::default()).await;
    let began = play.aws.now();
    play.aws.world().script(Rule::once(Fault::LoseRequest).on(START));
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "OutcomeUnknown").await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
    assert!(play.aws.now().duration_since(began) >= SignedDuration::from_mins(15));
}

#[tokio::test]
async fn an_answer_that_changes_nothing_backs_off_like_a_failure() {
    let play = play_with(Snapshot::default()).await;
    play.aws.world().script(Rule::always(Fault::NoOp).on(START));
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "NotApplied").await;
    play.let_pass("orders", SignedDuration::from_hours(24)).await;
    let starts = play.calls(START, "orders");
    assert!((9..=10).contains(&starts), "{starts} Starts in a day");
}

#[tokio::test]
async fn stale_answers_of_describe_cause_no_second_start() {
    let play = play_with(Snapshot::default()).await;
    play.aws.world().script(Rule::always(Fault::ReadLag { by: SignedDuration::from_secs(10) }).on(DESCRIBE));
    play.apply("orders", &orders(&aws_owned())).await;
    let words = play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(words.contains(&word(Some(Enabling), "Enabling")), "{words:?}");
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
    let play = play_with(Snapshot::default()).await;
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
        ("True".to_owned(), "Encrypted".to_owned())
    );
    assert_eq!(status.observed_generation, Some(2));
}

#[tokio::test]
async fn one_stream_has_one_owner_and_the_other_makes_no_call() {
    let play = play_with(Snapshot::default()).await;
    play.apply("first", &orders(&aws_owned())).await;
    play.until_it_says("first", "Encrypted").await;
    let key = play.plant_key();
    play.apply("second", &orders(&cmk(&key))).await;
    play.until_it_says("second", "StreamOwnedByAnother").await;
    play.let_pass("second", SignedDuration::from_hours(1)).await;
    assert_eq!(play.calls(START, "orders"), 1);
    let status = play.status("second").await;
    assert_eq!((status.calls, status.key_in_force), (None, None), "nothing of the owner's is told");

    play.kubectl(&["delete", "strenc", "first"]).await;
    play.until_it_says("second", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 2);
    assert_eq!(
        play.status("second").await.calls.expect("the budget").used,
        2,
        "the owner's calls are inherited"
    );
}

#[tokio::test]
async fn an_alias_that_is_pointed_at_another_key_is_a_re_key() {
    let play = play_with(Snapshot::default()).await;
    let (old, new) = (play.plant_key(), play.plant_key());
    play.aws.world().plant_alias("alias/orders", &old);
    play.apply("orders", &orders(&json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"}))).await;
    play.until_it_says("orders", "Encrypted").await;
    play.aws.world().plant_alias("alias/orders", &new);
    play.until("orders", |status| {
        status.key_in_force.as_ref().is_some_and(|key| key.arn.as_ref() == Some(&new))
    })
    .await;
    assert_eq!(play.calls(START, "orders"), 2);
}

#[tokio::test]
async fn a_failure_that_was_there_before_us_is_not_guessed_at() {
    let play = play_with(Snapshot::default()).await;
    let key = play.plant_key();
    let state = Snapshot::enabling_failed(
        StreamKey::arn(&key),
        Some(StreamKey::AwsOwned),
        FailureType::KmsAccessDenied,
    );
    play.aws.world().plant_stream(PlantedStream { state, ..PlantedStream::default() });
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("orders", "KeyInForceUnknown").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "Unknown");
    assert_eq!(status.encryption_status, Some(EnablingFailed));
    play.apply("orders", &orders(&cmk(&key))).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn a_stream_made_again_under_its_name_keeps_its_calls_and_loses_its_key() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &orders(&aws_owned())).await;
    play.until_it_says("orders", "Encrypted").await;
    let again = PlantedStream { created: Some(play.aws.now()), ..PlantedStream::default() };
    play.aws.world().plant_stream(again);
    play.until_it_says("orders", "Enabling").await;
    let status = play.status("orders").await;
    assert_eq!((status.key_in_force, status.calls.expect("the budget").used), (None, 2));
    assert!(!play.events("orders").await.contains("DriftCorrected"), "a new stream is no drift");
}

#[tokio::test]
async fn a_record_proves_that_records_are_encrypted_where_that_is_asked_for() {
    let play = play_with(Snapshot::default()).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "verify": {"putRecord": true}}))
        .await;
    play.until_it_says("orders", "Encrypted").await;
    assert!(play.calls("PutRecord", "orders") >= 1);
    assert!(play.status("orders").await.verified_time.is_some());
    let records = play.calls("PutRecord", "orders");
    play.let_pass("orders", SignedDuration::from_hours(5)).await;
    assert_eq!(play.calls("PutRecord", "orders"), records, "one proof for each change");
}

/// Encryption was on and is off.
fn stopped() -> Snapshot {
    Snapshot { encryption: Shown::Disabled, ..Snapshot::default() }
}
