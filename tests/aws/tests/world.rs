//! The model on a virtual clock, without HTTP: every state machine and limit that it has.

#![allow(clippy::similar_names, reason = "the stage and its state")]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::world::{
    BadKey, Calls as _, DAY, Delivery, EncryptionStatus, FailureType, FirehoseCounts, KeyAfterDisabled,
    KeyIdEcho, KeyState, NeverEncryptedShows, PlantedRole, ShownKey, ShownWhileUpdating, Snapshot, Source,
    StreamKey, StreamStatus,
};
use simulated_aws::{Caller, Fault, PlantedKey, PlantedStream, Request, Rule, Service, Settings, World};

const REGION: &str = "eu-west-1";
const FIREHOSE: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
const KINESIS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";

/// A world with one Firehose stream `orders` and one Kinesis stream `clicks`, both plain, and its time.
struct Stage {
    world: World,
    now: Timestamp,
    caller: Caller,
}

impl Stage {
    fn new(settings: Settings) -> Stage {
        let mut world = World::new(Settings { rate_limits: false, ..settings });
        world.plant_stream(PlantedStream::default());
        world.plant_stream(PlantedStream {
            service: Service::Kinesis,
            name: "clicks".to_owned(),
            ..PlantedStream::default()
        });
        Stage { world, now: "2026-01-02T00:00:00Z".parse().expect("a time"), caller: Caller::default() }
    }

    fn plain() -> Stage {
        Stage::new(Settings::default())
    }

    fn key(&mut self, key: PlantedKey) -> String {
        self.world.plant_key(key)
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The answer, or the error's code.
    fn call(&mut self, request: &Request) -> Result<Value, String> {
        self.world.call(self.now, &self.caller, REGION, request).result.map_err(|error| error.code)
    }

    fn start(&mut self, key: Option<&str>) -> Result<Value, String> {
        let block = match key {
            Some(arn) => json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": arn }),
            None => json!({ "KeyType": "AWS_OWNED_CMK" }),
        };
        self.call(&Request::firehose(
            "StartDeliveryStreamEncryption",
            json!({ "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": block }),
        ))
    }

    fn stop(&mut self) -> Result<Value, String> {
        self.call(&Request::firehose(
            "StopDeliveryStreamEncryption",
            json!({ "DeliveryStreamName": "orders" }),
        ))
    }

    /// The encryption block of the Firehose stream.
    fn block(&mut self) -> Value {
        let answer = self
            .call(&Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "orders" })))
            .expect("described");
        answer["DeliveryStreamDescription"]
            .get("DeliveryStreamEncryptionConfiguration")
            .cloned()
            .unwrap_or_default()
    }

    fn status(&mut self) -> String {
        self.block()["Status"].as_str().unwrap_or("no block").to_owned()
    }

    fn put_is_encrypted(&mut self) -> bool {
        let put = Request::firehose(
            "PutRecord",
            json!({ "DeliveryStreamName": "orders", "Record": { "Data": "aGk=" } }),
        );
        self.call(&put).expect("put")["Encrypted"].as_bool().expect("a truth value")
    }

    fn start_kinesis(&mut self, key: &str) -> Result<Value, String> {
        let body = json!({ "StreamName": "clicks", "EncryptionType": "KMS", "KeyId": key });
        self.call(&Request::kinesis("StartStreamEncryption", body))
    }

    fn stop_kinesis(&mut self) -> Result<Value, String> {
        let body = json!({ "StreamARN": KINESIS, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis" });
        self.call(&Request::kinesis("StopStreamEncryption", body))
    }

    /// Status, type and key of the Kinesis stream.
    fn summary(&mut self) -> (String, String, String) {
        let answer = self
            .call(&Request::kinesis("DescribeStreamSummary", json!({ "StreamName": "clicks" })))
            .expect("described");
        let text =
            |name: &str| answer["StreamDescriptionSummary"][name].as_str().unwrap_or_default().to_owned();
        (text("StreamStatus"), text("EncryptionType"), text("KeyId"))
    }
}

fn error(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}

#[test]
fn firehose_goes_from_enabling_to_enabled_and_from_disabling_to_disabled() {
    let mut stage = Stage::plain();
    assert_eq!(stage.status(), "DISABLED");
    assert_eq!(stage.start(None), Ok(json!({})));
    assert_eq!(stage.block(), json!({ "Status": "ENABLING", "KeyType": "AWS_OWNED_CMK" }));
    stage.wait(9);
    assert_eq!(stage.status(), "ENABLING");
    stage.wait(1);
    assert_eq!(stage.block(), json!({ "Status": "ENABLED", "KeyType": "AWS_OWNED_CMK" }));
    assert_eq!(stage.stop(), Ok(json!({})));
    assert_eq!(stage.status(), "DISABLING");
    stage.wait(10);
    assert_eq!(stage.block(), json!({ "Status": "DISABLED" }));
}

#[test]
fn records_follow_the_encryption_five_seconds_later() {
    let mut stage = Stage::plain();
    stage.start(None).expect("started");
    for (wait, encrypted) in [(0, false), (10, false), (4, false), (1, true)] {
        stage.wait(wait);
        assert_eq!(stage.put_is_encrypted(), encrypted, "after {wait} more seconds");
    }
    stage.stop().expect("stopped");
    for (wait, encrypted) in [(10, true), (4, true), (1, false)] {
        stage.wait(wait);
        assert_eq!(stage.put_is_encrypted(), encrypted, "after {wait} more seconds");
    }
}

#[test]
fn a_bad_key_fails_for_its_real_cause() {
    let state = |state| PlantedKey { state, ..PlantedKey::default() };
    let deny = |principal: Value| {
        let statements = json!([
            { "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" },
            { "Effect": "Deny", "Principal": principal, "Action": "kms:*", "Resource": "*" },
        ]);
        PlantedKey { policy: Some(json!({ "Statement": statements })), ..PlantedKey::default() }
    };
    let rows = [
        ("disabled", state(KeyState::Disabled), "DISABLED_KMS_KEY", Some("DisabledException")),
        (
            "pending deletion",
            state(KeyState::PendingDeletion),
            "INVALID_KMS_KEY",
            Some("InvalidStateException"),
        ),
        ("pending import", state(KeyState::PendingImport), "INVALID_KMS_KEY", Some("InvalidStateException")),
        ("unavailable", state(KeyState::Unavailable), "INVALID_KMS_KEY", Some("InvalidStateException")),
        (
            "asymmetric",
            PlantedKey { spec: "RSA_2048".to_owned(), ..PlantedKey::default() },
            "INVALID_KMS_KEY",
            Some("InvalidStateException"),
        ),
        (
            "for signatures",
            PlantedKey { usage: "SIGN_VERIFY".to_owned(), ..PlantedKey::default() },
            "INVALID_KMS_KEY",
            Some("InvalidStateException"),
        ),
        (
            "in another region",
            PlantedKey { region: "us-east-1".to_owned(), ..PlantedKey::default() },
            "INVALID_KMS_KEY",
            Some("InvalidStateException"),
        ),
        (
            "denied to the caller",
            deny(json!({ "AWS": "arn:aws:iam::111122223333:root" })),
            "KMS_ACCESS_DENIED",
            Some("AccessDeniedException"),
        ),
        (
            "denied to Firehose",
            deny(json!({ "Service": "firehose.amazonaws.com" })),
            "KMS_ACCESS_DENIED",
            Some("AccessDeniedException"),
        ),
        (
            "of another account",
            PlantedKey { account: "999988887777".to_owned(), ..PlantedKey::default() },
            "KMS_ACCESS_DENIED",
            Some("AccessDeniedException"),
        ),
    ];
    for (says, key, failure, kms) in rows {
        let mut stage = Stage::plain();
        let arn = stage.key(key.clone());
        stage.start(Some(&arn)).expect("accepted");
        assert_eq!(stage.status(), "ENABLING", "{says}");
        stage.wait(10);
        assert_eq!(stage.status(), "ENABLING_FAILED", "{says}");
        assert_eq!(stage.block()["FailureDescription"]["Type"], failure, "{says}");

        let mut stage = Stage::new(Settings { bad_key: BadKey::RefusedAtOnce, ..Settings::default() });
        let arn = stage.key(key);
        let body = json!({ "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput":
            { "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": arn } });
        let request = Request::firehose("StartDeliveryStreamEncryption", body);
        let refused =
            stage.world.call(stage.now, &stage.caller, REGION, &request).result.expect_err("refused");
        assert_eq!(
            (refused.code.as_str(), refused.kms_code.as_deref()),
            ("InvalidKMSResourceException", kms),
            "{says}"
        );
        assert_eq!(stage.status(), "DISABLED", "{says}");
    }
    let mut stage = Stage::plain();
    stage
        .start(Some("arn:aws:kms:eu-west-1:111122223333:key/00000000-1111-2222-3333-444444444444"))
        .expect("accepted");
    stage.wait(10);
    assert_eq!(stage.block()["FailureDescription"]["Type"], "KMS_KEY_NOT_FOUND");
}

#[test]
fn a_failed_re_key_leaves_the_old_key_in_force() {
    for shows in [ShownKey::Asked, ShownKey::InForce] {
        let mut stage = Stage::new(Settings { failed_re_key_shows: shows, ..Settings::default() });
        let good = stage.key(PlantedKey::default());
        let bad = stage.key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
        stage.start(Some(&good)).expect("started");
        stage.wait(20);
        stage.start(Some(&bad)).expect("accepted");
        stage.wait(20);
        assert_eq!(stage.block()["Status"], "ENABLING_FAILED");
        assert_eq!(stage.block()["KeyARN"], if shows == ShownKey::Asked { bad.as_str() } else { &good });
        let truth = stage.world.stream(FIREHOSE, stage.now).expect("there").in_force.clone();
        assert_eq!(truth, Some(StreamKey::arn(&good)));
        assert!(stage.put_is_encrypted());
        assert_eq!(
            stage.world.grants(stage.now).map(|g| g.key_arn.as_str()).collect::<Vec<_>>(),
            [good.as_str()]
        );
    }
}

#[test]
fn a_grant_lives_from_start_until_the_re_key_or_stop_is_done() {
    let mut stage = Stage::plain();
    let (first, second) = (stage.key(PlantedKey::default()), stage.key(PlantedKey::default()));
    let granted =
        |stage: &Stage| stage.world.grants(stage.now).map(|g| g.key_arn.clone()).collect::<Vec<_>>();
    stage.start(Some(&first)).expect("started");
    assert_eq!(granted(&stage), std::slice::from_ref(&first));
    stage.wait(10);
    stage.start(Some(&second)).expect("started");
    assert_eq!(granted(&stage), [first, second.clone()]);
    stage.wait(10);
    assert_eq!(granted(&stage), [second]);
    stage.stop().expect("stopped");
    stage.wait(10);
    assert!(granted(&stage).is_empty());
}

#[test]
fn every_failure_type_can_be_scripted_for_start_and_for_stop() {
    let types = [
        "RETIRE_KMS_GRANT_FAILED",
        "CREATE_KMS_GRANT_FAILED",
        "KMS_ACCESS_DENIED",
        "DISABLED_KMS_KEY",
        "INVALID_KMS_KEY",
        "KMS_KEY_NOT_FOUND",
        "KMS_OPT_IN_REQUIRED",
        "VPC_ENDPOINT_SERVICE_NAME_NOT_FOUND",
        "VPC_INTERFACE_ENDPOINT_SERVICE_ACCESS_DENIED",
        "CREATE_ENI_FAILED",
        "DELETE_ENI_FAILED",
        "SUBNET_NOT_FOUND",
        "SECURITY_GROUP_NOT_FOUND",
        "ENI_ACCESS_DENIED",
        "SUBNET_ACCESS_DENIED",
        "SECURITY_GROUP_ACCESS_DENIED",
        "UNKNOWN_ERROR",
    ];
    for name in types {
        let mut stage = Stage::plain();
        let failure: FailureType = serde_json::from_value(json!(name)).expect("a type of the API");
        stage.world.script(Rule::once(Fault::FailsLater { failure }).on("Start*"));
        stage.start(None).expect("accepted");
        stage.wait(10);
        assert_eq!(
            (stage.status(), &stage.block()["FailureDescription"]["Type"]),
            ("ENABLING_FAILED".to_owned(), &json!(name))
        );
        stage.start(None).expect("accepted");
        stage.wait(10);
        stage.world.script(Rule::once(Fault::FailsLater { failure }).on("Stop*"));
        stage.stop().expect("accepted");
        stage.wait(10);
        assert_eq!(
            (stage.status(), &stage.block()["FailureDescription"]["Type"]),
            ("DISABLING_FAILED".to_owned(), &json!(name))
        );
    }
}

#[test]
fn a_start_or_stop_while_another_is_under_way_is_refused() {
    let mut stage = Stage::plain();
    stage.start(None).expect("started");
    assert_eq!(stage.start(None), error("ResourceInUseException"));
    assert_eq!(stage.stop(), error("ResourceInUseException"));
    stage.wait(10);
    stage.stop().expect("stopped");
    assert_eq!(stage.start(None), error("ResourceInUseException"));
    let mut state = Snapshot { status: StreamStatus::Creating, ..Snapshot::default() };
    stage.world.set_stream(stage.now, FIREHOSE, state.clone());
    assert_eq!(stage.start(None), error("ResourceInUseException"));
    state.status = StreamStatus::Deleting;
    stage.world.set_stream(stage.now, FIREHOSE, state);
    assert_eq!(stage.start(None), error("ResourceInUseException"));
}

#[test]
fn only_direct_put_takes_encryption() {
    for source in [Source::KinesisStreamAsSource, Source::MSKAsSource, Source::DatabaseAsSource] {
        let mut stage = Stage::plain();
        stage.world.plant_stream(PlantedStream { source, ..PlantedStream::default() });
        assert_eq!(stage.start(None), error("InvalidArgumentException"), "{source:?}");
        assert_eq!(stage.status(), "DISABLED", "{source:?}");
    }
}

#[test]
fn input_is_checked_as_the_api_constrains_it() {
    let long = "a".repeat(65);
    let names = [
        ("", "ValidationException"),
        ("a b", "ValidationException"),
        (long.as_str(), "ValidationException"),
        ("missing", "ResourceNotFoundException"),
    ];
    for (name, code) in names {
        let request =
            Request::firehose("StartDeliveryStreamEncryption", json!({ "DeliveryStreamName": name }));
        assert_eq!(Stage::plain().call(&request), error(code), "{name}");
    }
    let keys = [
        (json!({ "KeyType": "CUSTOMER_MANAGED_CMK" }), "InvalidArgumentException"),
        (json!({ "KeyType": "MINE" }), "ValidationException"),
        (json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": "alias/orders" }), "ValidationException"),
        (
            json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": "arn:aws:kms:eu-west-1:111122223333:alias/orders" }),
            "ValidationException",
        ),
        (
            json!({ "KeyType": "AWS_OWNED_CMK", "KeyARN": "arn:aws:kms:eu-west-1:111122223333:key/a" }),
            "InvalidArgumentException",
        ),
    ];
    for (block, code) in keys {
        let body =
            json!({ "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": block });
        let mut stage = Stage::plain();
        assert_eq!(
            stage.call(&Request::firehose("StartDeliveryStreamEncryption", body)),
            error(code),
            "{block}"
        );
        assert!(!stage.world.calls()[0].counted, "a call that reached no stream does not count");
    }
}

#[test]
fn firehose_allows_25_starts_and_stops_together_in_a_rolling_day() {
    let mut stage = Stage::plain();
    for round in 0..25 {
        let outcome = if round % 2 == 0 { stage.start(None) } else { stage.stop() };
        assert_eq!(outcome, Ok(json!({})), "call {round}");
        stage.wait(60);
    }
    assert_eq!(stage.stop(), error("LimitExceededException"));
    assert_eq!(stage.start(None), error("LimitExceededException"));
    stage.now += DAY - SignedDuration::from_secs(25 * 60 + 1);
    assert_eq!(stage.stop(), error("LimitExceededException"), "one second early");
    stage.wait(1);
    assert_eq!(stage.stop(), Ok(json!({})), "the oldest call has left the window");
    assert_eq!(stage.world.calls().busiest_window("orders", DAY), 28);
    assert_eq!(stage.world.calls().iter().filter(|call| call.counted).count(), 26);
}

#[test]
fn whether_refused_calls_count_is_a_setting() {
    for (counts, accepted_after) in [
        (FirehoseCounts::Accepted, true),
        (FirehoseCounts::ReachedTheStream, false),
        (FirehoseCounts::EvenOverTheLimit, false),
    ] {
        let mut stage = Stage::new(Settings { firehose_counts: counts, ..Settings::default() });
        stage.start(None).expect("started");
        for _ in 0..24 {
            assert_eq!(stage.start(None), error("ResourceInUseException"));
        }
        stage.wait(60);
        assert_eq!(stage.start(None).is_ok(), accepted_after, "{counts:?}");
        // Twelve hours later a refused call counts only in the harshest reading.
        stage.now += SignedDuration::from_hours(12);
        for _ in 0..30 {
            let _ = stage.start(None);
            stage.wait(20);
        }
        stage.now += SignedDuration::from_hours(13) - SignedDuration::from_secs(600);
        assert_eq!(stage.start(None).is_ok(), counts != FirehoseCounts::EvenOverTheLimit, "{counts:?}");
    }
}

#[test]
fn a_stream_made_again_has_not_won_new_calls() {
    let mut stage = Stage::plain();
    stage.world.settings().call_limit = 1;
    stage.start(None).expect("started");
    stage.world.remove_stream(FIREHOSE);
    stage.world.plant_stream(PlantedStream::default());
    assert_eq!(stage.start(None), error("LimitExceededException"));
}

#[test]
fn one_key_encrypts_no_more_streams_than_the_limit() {
    let mut stage = Stage::new(Settings { streams_per_key: 2, ..Settings::default() });
    let key = stage.key(PlantedKey::default());
    for name in ["a", "b"] {
        let state = Snapshot::enabled(StreamKey::arn(&key));
        stage.world.plant_stream(PlantedStream { name: name.to_owned(), state, ..PlantedStream::default() });
    }
    assert_eq!(stage.start(Some(&key)), error("LimitExceededException"));
    assert_eq!(stage.start(None), Ok(json!({})), "Firehose's own key has no such limit");
    assert_eq!(Settings::default().streams_per_key, 500);
}

#[test]
fn session_credentials_older_than_six_hours_cannot_create_a_grant() {
    for (hours, minutes, status) in [(5, 59, "ENABLED"), (6, 1, "ENABLING_FAILED")] {
        let mut stage = Stage::plain();
        let key = stage.key(PlantedKey::default());
        let body = json!({ "RoleArn": "arn:aws:iam::111122223333:role/se", "RoleSessionName": "op", "DurationSeconds": 43200 });
        let answer = stage.call(&Request::sts("AssumeRole", body)).expect("assumed");
        stage.caller = Caller::new(answer["Credentials"]["AccessKeyId"].as_str().expect("a key id"));
        stage.wait(hours * 3600 + minutes * 60);
        stage.start(Some(&key)).expect("accepted");
        stage.wait(10);
        assert_eq!(stage.status(), status);
        if status == "ENABLING_FAILED" {
            assert_eq!(stage.block()["FailureDescription"]["Type"], "CREATE_KMS_GRANT_FAILED");
            stage.start(None).expect("accepted");
            stage.wait(10);
            assert_eq!(stage.status(), "ENABLED", "Firehose's own key needs no grant");
        }
    }
}

#[test]
fn a_session_carries_account_role_name_and_external_id_and_expires() {
    let mut stage = Stage::plain();
    let role = "arn:aws:iam::444455556666:role/team/se";
    stage.world.plant_role(PlantedRole {
        arn: role.to_owned(),
        external_id: Some("x1".to_owned()),
        ..PlantedRole::default()
    });
    let assume = |id: &str| {
        Request::sts("AssumeRole", json!({ "RoleArn": role, "RoleSessionName": "op", "ExternalId": id }))
    };
    assert_eq!(stage.call(&assume("wrong")), error("AccessDenied"));
    let answer = stage.call(&assume("x1")).expect("assumed");
    stage.caller = Caller::new(answer["Credentials"]["AccessKeyId"].as_str().expect("a key id"));
    let identity = stage.call(&Request::sts("GetCallerIdentity", json!({}))).expect("an identity");
    assert_eq!(identity["Account"], "444455556666");
    assert_eq!(identity["Arn"], "arn:aws:sts::444455556666:assumed-role/se/op");
    let session =
        stage.world.calls().last().and_then(|call| call.principal.session.clone()).expect("a session");
    assert_eq!((session.role.as_str(), session.external_id.as_deref()), (role, Some("x1")));
    assert_eq!(stage.stop(), error("ResourceNotFoundException"), "that account has no stream of this name");
    stage.wait(3600);
    assert_eq!(stage.stop(), error("ExpiredTokenException"));
}

#[test]
fn what_describe_shows_where_aws_documents_nothing_is_a_setting() {
    let mut stage =
        Stage::new(Settings { key_after_disabled: KeyAfterDisabled::Kept, ..Settings::default() });
    let never_encrypted_shows = NeverEncryptedShows::NoBlock;
    stage.world.plant_stream(PlantedStream { never_encrypted_shows, ..PlantedStream::default() });
    assert_eq!(stage.status(), "no block");
    stage.start(None).expect("started");
    stage.wait(10);
    stage.stop().expect("stopped");
    stage.wait(10);
    assert_eq!(stage.block(), json!({ "Status": "DISABLED", "KeyType": "AWS_OWNED_CMK" }));
}

#[test]
fn kinesis_goes_through_updating_to_active() {
    for (shown, during) in [(ShownWhileUpdating::New, "KMS"), (ShownWhileUpdating::Old, "NONE")] {
        let mut stage = Stage::new(Settings { while_updating: shown, ..Settings::default() });
        stage.start_kinesis("alias/aws/kinesis").expect("started");
        let (status, kind, _) = stage.summary();
        assert_eq!((status.as_str(), kind.as_str()), ("UPDATING", during));
        assert_eq!(stage.start_kinesis("alias/aws/kinesis"), error("ResourceInUseException"));
        stage.wait(5);
        assert_eq!(stage.summary(), ("ACTIVE".to_owned(), "KMS".to_owned(), "alias/aws/kinesis".to_owned()));
        let put = Request::kinesis(
            "PutRecord",
            json!({ "StreamName": "clicks", "Data": "aGk=", "PartitionKey": "a" }),
        );
        assert_eq!(stage.call(&put).expect("put")["EncryptionType"], "NONE");
        stage.wait(5);
        assert_eq!(stage.call(&put).expect("put")["EncryptionType"], "KMS");
        stage.stop_kinesis().expect("stopped");
        stage.wait(5);
        assert_eq!(stage.summary(), ("ACTIVE".to_owned(), "NONE".to_owned(), String::new()));
    }
}

#[test]
fn a_failed_kinesis_update_shows_as_active_with_the_old_key() {
    let mut stage = Stage::plain();
    stage.world.script(
        Rule::once(Fault::FailsLater { failure: FailureType::UnknownError }).on("StartStreamEncryption"),
    );
    stage.start_kinesis("alias/aws/kinesis").expect("accepted");
    stage.wait(5);
    assert_eq!(stage.summary(), ("ACTIVE".to_owned(), "NONE".to_owned(), String::new()));
}

#[test]
fn kinesis_refuses_a_bad_key_at_once_in_its_own_words() {
    let state = |state| PlantedKey { state, ..PlantedKey::default() };
    let foreign = PlantedKey { account: "999988887777".to_owned(), ..PlantedKey::default() };
    let rows = [
        (state(KeyState::Disabled), "KMSDisabledException"),
        (state(KeyState::PendingDeletion), "KMSInvalidStateException"),
        (state(KeyState::PendingImport), "KMSInvalidStateException"),
        (state(KeyState::Unavailable), "KMSInvalidStateException"),
        (foreign, "KMSAccessDeniedException"),
    ];
    for (key, code) in rows {
        let mut stage = Stage::plain();
        let arn = stage.key(key);
        assert_eq!(stage.start_kinesis(&arn), error(code));
        assert_eq!(stage.summary().0, "ACTIVE");
    }
    assert_eq!(Stage::plain().start_kinesis("alias/missing"), error("KMSNotFoundException"));
    assert_eq!(Stage::plain().start_kinesis("garbage"), error("InvalidArgumentException"));
    let body = json!({ "StreamName": "clicks", "EncryptionType": "NONE", "KeyId": "alias/aws/kinesis" });
    assert_eq!(
        Stage::plain().call(&Request::kinesis("StartStreamEncryption", body)),
        error("InvalidArgumentException")
    );
    let body = json!({ "StreamName": "clicks", "EncryptionType": "KMS" });
    assert_eq!(
        Stage::plain().call(&Request::kinesis("StopStreamEncryption", body)),
        error("ValidationException")
    );
}

#[test]
fn kinesis_echoes_the_key_as_the_setting_says() {
    for echo in [KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias] {
        let mut stage = Stage::new(Settings { kinesis_key_id: echo, ..Settings::default() });
        let arn = stage.key(PlantedKey::default());
        let alias = stage.world.plant_alias("alias/clicks", &arn);
        stage.start_kinesis(&alias).expect("started");
        stage.wait(5);
        let expected = match echo {
            KeyIdEcho::AsGiven => alias,
            KeyIdEcho::KeyArn => arn,
            KeyIdEcho::Alias => "alias/clicks".to_owned(),
        };
        assert_eq!(stage.summary().2, expected);
    }
}

#[test]
fn kinesis_counts_successful_starts_and_stops_apart() {
    let mut stage = Stage::plain();
    for _ in 0..25 {
        stage.start_kinesis("alias/aws/kinesis").expect("started");
        assert_eq!(
            stage.start_kinesis("alias/aws/kinesis"),
            error("ResourceInUseException"),
            "refused calls do not count"
        );
        stage.wait(5);
        stage.stop_kinesis().expect("stopped");
        stage.wait(5);
    }
    assert_eq!(stage.start_kinesis("alias/aws/kinesis"), error("LimitExceededException"));
    assert_eq!(stage.stop_kinesis(), error("LimitExceededException"));
    stage.now += DAY - SignedDuration::from_secs(250);
    assert_eq!(stage.start_kinesis("alias/aws/kinesis"), Ok(json!({})));
}

#[test]
fn resharding_is_updating_too() {
    let mut stage = Stage::plain();
    let reshard = Request::kinesis(
        "UpdateShardCount",
        json!({ "StreamName": "clicks", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING" }),
    );
    stage.call(&reshard).expect("accepted");
    assert_eq!(stage.summary(), ("UPDATING".to_owned(), "NONE".to_owned(), String::new()));
    assert_eq!(stage.start_kinesis("alias/aws/kinesis"), error("ResourceInUseException"));
    stage.wait(5);
    assert_eq!(stage.start_kinesis("alias/aws/kinesis"), Ok(json!({})));
}

#[test]
fn calls_faster_than_the_published_rate_are_throttled() {
    let rows = [
        (
            Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "orders" })),
            5,
            "ThrottlingException",
        ),
        (
            Request::firehose("StartDeliveryStreamEncryption", json!({ "DeliveryStreamName": "orders" })),
            5,
            "ThrottlingException",
        ),
        (
            Request::kinesis("DescribeStreamSummary", json!({ "StreamName": "clicks" })),
            20,
            "LimitExceededException",
        ),
        (Request::kinesis("DescribeStream", json!({ "StreamName": "clicks" })), 10, "LimitExceededException"),
        (Request::kms("DescribeKey", json!({ "KeyId": "alias/aws/kinesis" })), 2000, "ThrottlingException"),
    ];
    for (request, limit, code) in rows {
        let mut stage = Stage::plain();
        stage.world.settings().rate_limits = true;
        for _ in 0..limit {
            assert_ne!(stage.call(&request), error(code), "{request:?}");
        }
        assert_eq!(stage.call(&request), error(code), "{request:?}");
        let elsewhere = stage.world.call(stage.now, &stage.caller, "us-east-1", &request).result;
        assert!(
            elsewhere.is_err_and(|e| e.code != code) || request.service == Service::Kms,
            "another region has its own rate"
        );
        stage.wait(1);
        assert_ne!(stage.call(&request), error(code), "{request:?} a second later");
    }
}

#[test]
fn each_fault_does_what_its_line_says() {
    let minute = SignedDuration::from_mins(1);
    let refuse = Fault::Refuse { code: "MadeUp".to_owned(), message: String::new(), status: 418 };
    // The fault; what the call answers; whether it was executed; how the answer travels.
    let rows = [
        (refuse, "MadeUp", false, Delivery::Prompt),
        (Fault::AccessDenied, "AccessDeniedException", false, Delivery::Prompt),
        (Fault::Throttle, "ThrottlingException", false, Delivery::Prompt),
        (Fault::ServerError { status: 500 }, "InternalFailure", false, Delivery::Prompt),
        (Fault::ServerErrorAfterwards { status: 503 }, "ServiceUnavailableException", true, Delivery::Prompt),
        (Fault::LoseRequest, "RequestLost", false, Delivery::Lost),
        (Fault::LoseReply, "OK", true, Delivery::Lost),
        (Fault::Late { by: minute }, "RequestLost", false, Delivery::Lost),
        (Fault::Hold, "OK", true, Delivery::Held),
        (Fault::Slow { by: minute }, "OK", true, Delivery::After(minute)),
        (Fault::NoOp, "OK", false, Delivery::Prompt),
        (Fault::Takes { time: minute }, "OK", true, Delivery::Prompt),
        (Fault::Stuck, "OK", true, Delivery::Prompt),
    ];
    for (fault, outcome, executed, delivery) in rows {
        let mut stage = Stage::plain();
        stage.world.script(Rule::once(fault.clone()).on("StartDeliveryStreamEncryption").of("orders"));
        let request =
            Request::firehose("StartDeliveryStreamEncryption", json!({ "DeliveryStreamName": "orders" }));
        let reply = stage.world.call(stage.now, &stage.caller, REGION, &request);
        let call = stage.world.calls().last().expect("logged").clone();
        assert_eq!(
            (call.outcome.as_str(), call.executed, reply.delivery),
            (outcome, executed, delivery),
            "{fault:?}"
        );
        assert_eq!(stage.status(), if executed { "ENABLING" } else { "DISABLED" }, "{fault:?}");
        assert!(stage.world.rules().is_empty(), "once is once");
        stage.wait(30);
        let takes_longer = matches!(fault, Fault::Takes { .. } | Fault::Stuck);
        assert_eq!(stage.status() == "ENABLING", takes_longer, "{fault:?}");
        stage.wait(45);
        assert_eq!(stage.status() == "ENABLING", matches!(fault, Fault::Stuck), "{fault:?}");
        let arrived = executed || matches!(fault, Fault::Late { .. });
        assert_eq!(stage.status() == "DISABLED", !arrived, "{fault:?}: a late request arrives in the end");
    }
}

#[test]
fn rules_match_by_operation_target_key_principal_and_count() {
    let mut stage = Stage::plain();
    let other = stage.key(PlantedKey::default());
    stage.world.script(Rule { key: Some(other.clone()), times: None, ..Rule::always(Fault::AccessDenied) });
    assert_eq!(stage.start(Some(&other)), error("AccessDeniedException"));
    stage.start(None).expect("another key is not denied");
    stage.world.clear_faults();
    let number =
        stage.world.script(Rule { skip: 1, times: Some(2), ..Rule::always(Fault::Throttle) }.on("Describe*"));
    let describe = Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "orders" }));
    let outcomes: Vec<bool> = (0..4).map(|_| stage.call(&describe).is_ok()).collect();
    assert_eq!(outcomes, [true, false, false, true]);
    assert!(!stage.world.clear_fault(number), "it has done its calls");
    stage
        .world
        .script(Rule { principal: Some("AKIASOMEBODYELSE".to_owned()), ..Rule::always(Fault::AccessDenied) });
    assert!(stage.call(&describe).is_ok());
    stage.caller = Caller::new("AKIASOMEBODYELSE");
    assert_eq!(stage.call(&describe), error("AccessDeniedException"));
}

#[test]
fn a_lagging_describe_shows_the_past() {
    let mut stage = Stage::new(Settings { read_lag: SignedDuration::from_secs(3), ..Settings::default() });
    stage.start(None).expect("started");
    assert_eq!(stage.status(), "DISABLED");
    assert_eq!(stage.start(None), error("ResourceInUseException"), "only reads lag");
    stage.wait(3);
    assert_eq!(stage.status(), "ENABLING");
}

#[test]
fn a_stream_can_be_planted_in_any_state() {
    let mut stage = Stage::plain();
    let key = stage.key(PlantedKey::default());
    let failed = Snapshot::enabling_failed(StreamKey::arn(&key), None, FailureType::KmsAccessDenied);
    let disabling_failed =
        Snapshot { encryption: EncryptionStatus::DisablingFailed, ..Snapshot::enabled(StreamKey::AwsOwned) };
    let rows = [
        (Snapshot::enabled(StreamKey::arn(&key)), "ENABLED", true),
        (failed, "ENABLING_FAILED", false),
        (disabling_failed, "DISABLING_FAILED", true),
    ];
    for (state, status, encrypted) in rows {
        stage.world.plant_stream(PlantedStream { state, ..PlantedStream::default() });
        assert_eq!((stage.status().as_str(), stage.put_is_encrypted()), (status, encrypted));
    }
}

#[test]
fn streams_are_created_with_encryption_and_deleted() {
    let mut stage = Stage::plain();
    let create = json!({ "DeliveryStreamName": "new", "DeliveryStreamEncryptionConfigurationInput": { "KeyType": "AWS_OWNED_CMK" } });
    let describe = Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "new" }));
    stage.call(&Request::firehose("CreateDeliveryStream", create)).expect("created");
    let seen = |stage: &mut Stage| stage.call(&describe).map(|d| d["DeliveryStreamDescription"].clone());
    assert_eq!(seen(&mut stage).expect("there")["DeliveryStreamStatus"], "CREATING");
    stage.wait(5);
    assert_eq!(
        seen(&mut stage).expect("there")["DeliveryStreamEncryptionConfiguration"]["Status"],
        "ENABLING"
    );
    let delete = Request::firehose("DeleteDeliveryStream", json!({ "DeliveryStreamName": "new" }));
    assert_eq!(stage.call(&delete), error("ResourceInUseException"));
    stage.wait(10);
    assert_eq!(
        seen(&mut stage).expect("there")["DeliveryStreamEncryptionConfiguration"]["Status"],
        "ENABLED"
    );
    stage.call(&delete).expect("accepted");
    assert_eq!(seen(&mut stage).expect("there")["DeliveryStreamStatus"], "DELETING");
    stage.wait(5);
    assert_eq!(seen(&mut stage), error("ResourceNotFoundException"));
}

#[test]
fn kms_answers_for_ids_arns_and_aliases_and_moves_keys_through_their_states() {
    let mut stage = Stage::plain();
    let made = stage.call(&Request::kms("CreateKey", json!({}))).expect("a key");
    let (id, arn) = (made["KeyMetadata"]["KeyId"].clone(), made["KeyMetadata"]["Arn"].clone());
    let alias = json!({ "AliasName": "alias/orders", "TargetKeyId": id });
    stage.call(&Request::kms("CreateAlias", alias.clone())).expect("an alias");
    assert_eq!(stage.call(&Request::kms("CreateAlias", alias)), error("AlreadyExistsException"));
    let alias_arn = json!("arn:aws:kms:eu-west-1:111122223333:alias/orders");
    for given in [&id, &arn, &json!("alias/orders"), &alias_arn] {
        let key = stage.call(&Request::kms("DescribeKey", json!({ "KeyId": given }))).expect("described");
        assert_eq!(key["KeyMetadata"]["Arn"], arn, "{given}");
    }
    let own =
        stage.call(&Request::kms("DescribeKey", json!({ "KeyId": "alias/aws/kinesis" }))).expect("described");
    assert_eq!(own["KeyMetadata"]["KeyManager"], "AWS");
    for (operation, state) in [
        ("DisableKey", "Disabled"),
        ("EnableKey", "Enabled"),
        ("ScheduleKeyDeletion", "PendingDeletion"),
        ("CancelKeyDeletion", "Disabled"),
    ] {
        stage.call(&Request::kms(operation, json!({ "KeyId": id }))).expect(operation);
        let key = stage.call(&Request::kms("DescribeKey", json!({ "KeyId": id }))).expect("described");
        assert_eq!(key["KeyMetadata"]["KeyState"], state, "{operation}");
    }
    stage
        .call(&Request::kms("ScheduleKeyDeletion", json!({ "KeyId": id, "PendingWindowInDays": 7 })))
        .expect("scheduled");
    stage.now += SignedDuration::from_hours(7 * 24);
    assert_eq!(stage.call(&Request::kms("DescribeKey", json!({ "KeyId": id }))), error("NotFoundException"));
}

#[test]
fn the_log_keeps_who_what_when_and_the_records() {
    let mut stage = Stage::plain();
    stage.start(None).expect("started");
    stage.put_is_encrypted();
    let calls = stage.world.calls();
    assert_eq!(calls.count("StartDeliveryStreamEncryption", "orders"), 1);
    assert_eq!(calls.changes_in_window("orders", stage.now, DAY), 1);
    assert_eq!(calls[0].key.as_deref(), Some("AWS_OWNED_CMK"));
    assert_eq!((calls[0].account.as_str(), calls[0].region.as_str()), ("111122223333", REGION));
    assert_eq!(calls[0].principal.arn, "arn:aws:iam::111122223333:user/AKIAIOSFODNN7EXAMPLE");
    assert_eq!(calls[1].records, [json!("aGk=")]);
}

#[test]
fn the_same_calls_at_the_same_times_give_the_same_answers() {
    let run = || {
        let mut stage = Stage::plain();
        let key = stage.key(PlantedKey::default());
        let _ = (stage.start(Some(&key)), stage.start_kinesis("alias/aws/kinesis"), stage.put_is_encrypted());
        stage.wait(10);
        (stage.block(), stage.summary(), serde_json::to_string(stage.world.calls()).expect("JSON"))
    };
    assert_eq!(run(), run());
}
