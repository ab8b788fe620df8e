//! Rows 13 to 17: error responses, delayed state and missing responses of AWS, and changes by others. On a
//! virtual clock.

use jiff::SignedDuration;
use serde_json::json;
use simulated_aws::world::{Caller, Fault, KeyState, PlantedKey, Request, Rule, Service};
use stream_encryption_api::condition::ConditionType;

use super::crash_injection::FusedOperator;
use super::scenario::{Act, DAY, DESCRIBE, Run, START, Scene, spec, stage, stopped};
use crate::harness::{ACCESS_KEY, Harness, REGION, message, reason, truth};

/// A harness that checks for drift only every six hours, so that a day takes few reconciles.
async fn quiet_stage() -> Harness {
    let mut harness = stage().await;
    harness.config.drift_interval = SignedDuration::from_hours(6);
    harness.restart();
    harness
}

fn refuse(code: &str) -> Fault {
    Fault::Refuse { code: code.to_owned(), message: "as told".to_owned(), status: 400 }
}

#[tokio::test]
async fn every_start_error_is_reported_and_backs_off() {
    let harness = quiet_stage().await;
    let cases = [
        ("throttled", Fault::Throttle, "AwsThrottled"),
        ("unwell", Fault::ServerError { status: 500 }, "OutcomeUnknown"),
        ("unavailable", Fault::ServerError { status: 503 }, "OutcomeUnknown"),
        ("key", refuse("InvalidKMSResourceException"), "KeyAccessDenied"),
        ("in-use", refuse("ResourceInUseException"), "StreamInUse"),
        ("not-found", refuse("ResourceNotFoundException"), "StreamNotFound"),
        ("denied", Fault::AccessDenied, "AccessDenied"),
        ("invalid", refuse("InvalidArgumentException"), "CallRefused"),
        ("expired", refuse("ExpiredTokenException"), "CredentialsRejected"),
        ("limit", refuse("LimitExceededException"), "CallLimitReached"),
    ];
    for (name, fault, expected) in cases {
        harness.aws.world().script(Rule::always(fault).on(START).of(name));
        let mut journey = Run::new(&harness, Service::Firehose, name, None);
        harness.apply(name, &spec(&journey.arn, None)).await;
        journey.let_pass(SignedDuration::from_secs(10)).await;
        let told = reason(&harness.status(name).await);
        println!("{name}: {told}");
        journey.let_pass(DAY).await;
        println!("{name}: {} calls", journey.changes());
        assert_eq!(told, expected, "{name}");
        assert!(journey.busiest_day() <= 20, "{name}: {} calls in a day", journey.busiest_day());
        harness.aws.world().clear_faults();
        journey.let_pass(SignedDuration::from_hours(7)).await;
        journey.until("Encrypted").await;
    }
}

#[tokio::test]
async fn missing_identity_or_expired_credentials_block_calls() {
    let harness = quiet_stage().await;
    for (name, operation, fault) in [
        ("sts", "GetCallerIdentity", Fault::ServerError { status: 503 }),
        ("expired", "*", refuse("ExpiredTokenException")),
    ] {
        let mut journey = Run::new(&harness, Service::Firehose, name, None);
        harness.aws.world().script(Rule::always(fault).on(operation));
        harness.apply(name, &spec(&journey.arn, None)).await;
        journey.let_pass(SignedDuration::from_hours(1)).await;
        let status = harness.status(name).await;
        println!("{name}: {} {}", reason(&status), message(&status));
        assert_eq!(journey.changes(), 0, "{name}");
        assert!(!["", "Encrypted"].contains(&reason(&status).as_str()), "{name}");
        harness.aws.world().clear_faults();
        journey.until("Encrypted").await;
        assert_eq!(journey.changes(), 1, "{name}");
    }
}

#[tokio::test]
async fn key_usable_is_unknown_while_kms_does_not_answer() {
    let harness = quiet_stage().await;
    let key = harness.plant_key();
    harness.aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&journey.arn, Some(&key))).await;
    journey.until("KeyDisabled").await;
    harness.aws.world().script(Rule::always(Fault::ServerError { status: 503 }).on("DescribeKey"));
    journey.until("AwsUnreachable").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::KeyUsable), "Unknown");
    harness.aws.world().clear_faults();
    journey.until("KeyDisabled").await;
    assert_eq!(journey.changes(), 0);
}

#[tokio::test]
async fn stuck_enabling_stream_is_only_described() {
    let harness = stage().await;
    harness.aws.world().script(Rule::once(Fault::Stuck).on(START));
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&journey.arn, None)).await;
    journey.let_pass(SignedDuration::from_hours(2)).await;
    assert_eq!(reason(&harness.status("orders").await), "Enabling");
    assert_eq!(journey.changes(), 1);
    let looks = harness.calls(DESCRIBE, "orders");
    assert!((200..=260).contains(&looks), "{looks} Describe requests in 2 hours: one in 30 s");
}

#[tokio::test]
async fn calls_used_up_by_others_are_reported_and_rarely_retried() {
    let harness = quiet_stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
    // Another tool in the same account, whose calls are not in the operator's ledger.
    let another = Caller::new("AKIASOMEBODYELSE");
    for turn in 0..24 {
        let operation = if turn % 2 == 0 { "StopDeliveryStreamEncryption" } else { START };
        let body = json!({"DeliveryStreamName": "orders"});
        let now = harness.aws.now();
        harness.aws.world().call(now, &another, REGION, &Request::firehose(operation, body));
        harness.aws.advance(SignedDuration::from_secs(10));
    }
    let now = harness.aws.now();
    harness.aws.world().set_stream(now, &journey.arn, stopped());
    journey.let_pass(SignedDuration::from_hours(7)).await;
    assert_eq!(reason(&harness.status("orders").await), "CallLimitReached");
    let ours = |calls: &[simulated_aws::world::Call]| {
        calls
            .iter()
            .filter(|call| call.changes_encryption() && call.principal.access_key == ACCESS_KEY)
            .count()
    };
    let asked = ours(harness.aws.world().calls());
    assert!(
        (2..=5).contains(&asked),
        "{asked} calls: AWS reports its limit, and the operator retries rarely"
    );
    journey.let_pass(DAY).await;
    journey.until("Encrypted").await;
}

#[tokio::test]
async fn failing_key_backs_off_on_firehose_and_kinesis() {
    let harness = quiet_stage().await;
    let failing = Fault::FailsLater { failure: simulated_aws::world::FailureType::KmsAccessDenied };
    let key = harness.aws.world().plant_key(PlantedKey::default());
    for (service, name, start) in
        [(Service::Firehose, "orders", START), (Service::Kinesis, "clicks", "StartStreamEncryption")]
    {
        let mut journey = Run::new(&harness, service, name, None);
        journey.harness(&[Scene { act: Act::Apply(spec(&journey.arn, None)), end: "Encrypted" }]).await;
        let before = harness.status(name).await.active_key;
        harness.aws.world().script(Rule::always(failing.clone()).on(start));
        harness.apply(name, &spec(&journey.arn, Some(&key))).await;
        journey.until("EnablingFailed").await;
        assert_eq!(harness.status(name).await.active_key, before, "{name}: the old key is active");
        journey.let_pass(DAY).await;
        assert!(journey.busiest_day() <= 11, "{name}: {} calls", journey.busiest_day());
        harness.aws.world().clear_faults();
        journey.let_pass(SignedDuration::from_hours(7)).await;
        journey.until("Encrypted").await;
    }
}

#[tokio::test]
async fn identity_outage_keeps_encrypted_and_drops_next_attempt() {
    let harness = stage().await;
    let mut journey = Run::new(&harness, Service::Firehose, "orders", None);
    harness.apply("orders", &spec(&journey.arn, None)).await;
    journey.until("Encrypted").await;
    let limit = Rule::always(refuse("LimitExceededException")).on(START);
    harness.aws.world().script(limit);
    harness.apply("orders", &spec(&journey.arn, Some(&harness.plant_key()))).await;
    journey.until("CallLimitReached").await;
    assert!(harness.status("orders").await.next_attempt_time.is_some());

    harness.aws.world().script(Rule::always(Fault::ServerError { status: 503 }).on("GetCallerIdentity"));
    harness.apply("orders", &spec(&journey.arn, Some(&harness.plant_key()))).await;
    journey.operator = FusedOperator::new(harness.replica(), None);
    journey.until("AwsUnreachable").await;
    let status = harness.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Encrypted), "True", "the last observation is kept");
    assert_eq!(status.next_attempt_time, None, "the wait for the other key does not apply to this one");
}
