//! Rows 13 to 17: what AWS answers, shows late, or never does, and what others do to a stream. On a virtual clock.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Caller, Fault, KeyState, PlantedKey, Request, Rule, Service};
use stream_encryption_operator::api::condition::ConditionType;

use super::fuse::FusedOperator;
use super::rig::{Act, DAY, DESCRIBE, Journey, START, Scene, spec, stage, stopped};
use crate::play::{ACCESS_KEY, Play, REGION, message, reason, truth};

/// A stage on which streams are looked at for drift only each six hours, so that a day takes few visits.
async fn quiet_stage() -> Play {
    let mut play = stage().await;
    play.rules.drift_interval = SignedDuration::from_hours(6);
    play.restart();
    play
}

fn refuse(code: &str) -> Fault {
    Fault::Refuse { code: code.to_owned(), message: "as told".to_owned(), status: 400 }
}

#[tokio::test]
async fn whatever_aws_answers_to_start_for_a_day_it_is_told_and_the_calls_stay_few() {
    let play = quiet_stage().await;
    let cases = [
        ("throttled", Fault::Throttle, "AwsThrottled"),
        ("unwell", Fault::ServerError { status: 500 }, "OutcomeUnknown"),
        ("unavailable", Fault::ServerError { status: 503 }, "OutcomeUnknown"),
        ("key", refuse("InvalidKMSResourceException"), "KeyRefused"),
        ("in-use", refuse("ResourceInUseException"), "StreamInUse"),
        ("not-found", refuse("ResourceNotFoundException"), "StreamNotFound"),
        ("denied", Fault::AccessDenied, "AccessDenied"),
        ("invalid", refuse("InvalidArgumentException"), "CallRefused"),
        ("expired", refuse("ExpiredTokenException"), "CredentialsRejected"),
        ("limit", refuse("LimitExceededException"), "CallLimitReached"),
    ];
    for (name, fault, expected) in cases {
        play.aws.world().script(Rule::always(fault).on(START).of(name));
        let mut journey = Journey::new(&play, Service::Firehose, name, None);
        play.apply(name, &spec(&journey.arn, None)).await;
        journey.let_pass(SignedDuration::from_secs(10)).await;
        let told = reason(&play.status(name).await);
        println!("{name}: {told}");
        journey.let_pass(DAY).await;
        println!("{name}: {} calls", journey.changes());
        assert_eq!(told, expected, "{name}");
        assert!(journey.busiest_day() <= 20, "{name}: {} calls in a day", journey.busiest_day());
        play.aws.world().clear_faults();
        journey.let_pass(SignedDuration::from_hours(7)).await;
        journey.until("Encrypted").await;
    }
}

#[tokio::test]
async fn without_an_identity_or_with_expired_credentials_nothing_is_called_and_it_is_told() {
    let play = quiet_stage().await;
    for (name, operation, fault) in [
        ("sts", "GetCallerIdentity", Fault::ServerError { status: 503 }),
        ("expired", "*", refuse("ExpiredTokenException")),
    ] {
        let mut journey = Journey::new(&play, Service::Firehose, name, None);
        play.aws.world().script(Rule::always(fault).on(operation));
        play.apply(name, &spec(&journey.arn, None)).await;
        journey.let_pass(SignedDuration::from_hours(1)).await;
        let status = play.status(name).await;
        println!("{name}: {} {}", reason(&status), message(&status));
        assert_eq!(journey.changes(), 0, "{name}");
        assert!(!["", "Encrypted"].contains(&reason(&status).as_str()), "{name}");
        play.aws.world().clear_faults();
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "{name}");
    }
}

#[tokio::test]
async fn of_a_key_that_kms_does_not_answer_about_nobody_says_that_it_can_be_used() {
    let play = quiet_stage().await;
    let key = play.plant_key();
    play.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&journey.arn, Some(&key))).await;
    journey.until("KeyDisabled").await;
    play.aws.world().script(Rule::always(Fault::ServerError { status: 503 }).on("DescribeKey"));
    journey.until("AwsUnreachable").await;
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::KeyUsable), "Unknown");
    play.aws.world().clear_faults();
    journey.until("KeyDisabled").await;
    assert_eq!(journey.changes(), 0);
}

#[tokio::test]
async fn a_stream_that_is_enabling_for_hours_is_only_looked_at() {
    let play = stage().await;
    play.aws.world().script(Rule::once(Fault::Stuck).on(START));
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&journey.arn, None)).await;
    journey.let_pass(SignedDuration::from_hours(2)).await;
    assert_eq!(reason(&play.status("orders").await), "Enabling");
    assert_eq!(journey.changes(), 1);
    let looks = play.calls(DESCRIBE, "orders");
    assert!((200..=260).contains(&looks), "{looks} looks in 2 hours: one in 30 s");
}

#[tokio::test]
async fn others_who_spend_the_calls_and_turn_encryption_off_are_told_of_and_not_fought() {
    let play = quiet_stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    // Another tool, in the same account, beside the operator's ledger.
    let another = Caller::new("AKIASOMEBODYELSE");
    for turn in 0..24 {
        let operation = if turn % 2 == 0 { "StopDeliveryStreamEncryption" } else { START };
        let body = json!({"DeliveryStreamName": "orders"});
        let now = play.aws.now();
        play.aws.world().call(now, &another, REGION, &Request::firehose(operation, body));
        play.aws.advance(SignedDuration::from_secs(10));
    }
    let now = play.aws.now();
    play.aws.world().set_stream(now, &journey.arn, stopped());
    journey.let_pass(SignedDuration::from_hours(7)).await;
    assert_eq!(reason(&play.status("orders").await), "CallLimitReached");
    let ours = |calls: &[simulated_aws::world::Call]| {
        calls
            .iter()
            .filter(|call| call.changes_encryption() && call.principal.access_key == ACCESS_KEY)
            .count()
    };
    let asked = ours(play.aws.world().calls());
    assert!(
        (2..=5).contains(&asked),
        "{asked} calls: AWS says that there are none left, and is asked rarely"
    );
    journey.let_pass(DAY).await;
    journey.until("Encrypted").await;
}

#[tokio::test]
async fn a_key_that_fails_a_stream_of_kinesis_and_one_of_firehose_backs_both_off() {
    let play = quiet_stage().await;
    let failing = Fault::FailsLater { failure: simulated_aws::world::FailureType::KmsAccessDenied };
    let key = play.aws.world().plant_key(PlantedKey::default());
    for (service, name, start) in
        [(Service::Firehose, "orders", START), (Service::Kinesis, "clicks", "StartStreamEncryption")]
    {
        let mut journey = Journey::new(&play, service, name, None);
        journey.play(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
        let before = play.status(name).await.key_in_force;
        play.aws.world().script(Rule::always(failing.clone()).on(start));
        play.apply(name, &spec(&journey.arn, Some(&key))).await;
        journey.until("EnablingFailed").await;
        assert_eq!(play.status(name).await.key_in_force, before, "{name}: the old key is in force");
        journey.let_pass(DAY).await;
        assert!(journey.busiest_day() <= 11, "{name}: {} calls", journey.busiest_day());
        play.aws.world().clear_faults();
        journey.let_pass(SignedDuration::from_hours(7)).await;
        journey.until("Encrypted").await;
    }
}

#[tokio::test]
async fn while_aws_does_not_tell_whose_credentials_these_are_what_was_seen_stays_told_and_no_attempt_is_promised()
 {
    let play = stage().await;
    let mut journey = Journey::new(&play, Service::Firehose, "orders", None);
    play.apply("orders", &spec(&journey.arn, None)).await;
    journey.until("Encrypted").await;
    let limit = Rule::always(refuse("LimitExceededException")).on(START);
    play.aws.world().script(limit);
    play.apply("orders", &spec(&journey.arn, Some(&play.plant_key()))).await;
    journey.until("CallLimitReached").await;
    assert!(play.status("orders").await.next_attempt_time.is_some());

    play.aws.world().script(Rule::always(Fault::ServerError { status: 503 }).on("GetCallerIdentity"));
    play.apply("orders", &spec(&journey.arn, Some(&play.plant_key()))).await;
    journey.operator = FusedOperator::new(play.replica(), None);
    journey.until("AwsUnreachable").await;
    let status = play.status("orders").await;
    assert_eq!(
        truth(&status, ConditionType::Encrypted),
        "True",
        "it was seen, and nothing else has been since"
    );
    assert_eq!(status.next_attempt_time, None, "what the other key waited for is no wait of this one");
}
