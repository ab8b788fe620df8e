//! Tests Firehose: the states of its encryption, its keys and grants, and the output of Describe.

use serde_json::{Value, json};
use simulated_aws::world::{
    BadKey, FailureType, KeyAfterDisabled, KeyState, NeverEncryptedShows, SameKey, ShownKey, Snapshot,
    Source, StreamKey, StreamStatus,
};
use simulated_aws::{Fault, PlantedKey, PlantedStream, Request, Rule, Settings};

use crate::stage::{FIREHOSE, REGION, Stage, error, quick};

#[test]
fn records_follow_encryption_after_five_seconds() {
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
fn unusable_key_fails_with_its_cause() {
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

        let mut stage = Stage::new(Settings { bad_key: BadKey::RefusedAtOnce, ..quick() });
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
fn failed_re_key_keeps_old_key_active() {
    for shows in [ShownKey::Asked, ShownKey::Active] {
        let mut stage = Stage::new(Settings { failed_re_key_shows: shows, ..quick() });
        let good = stage.key(PlantedKey::default());
        let bad = stage.key(PlantedKey { state: KeyState::Disabled, ..PlantedKey::default() });
        stage.start(Some(&good)).expect("started");
        stage.wait(20);
        stage.start(Some(&bad)).expect("accepted");
        stage.wait(20);
        assert_eq!(stage.block()["Status"], "ENABLING_FAILED");
        assert_eq!(stage.block()["KeyARN"], if shows == ShownKey::Asked { bad.as_str() } else { &good });
        let truth = stage.world.stream(FIREHOSE, stage.now).expect("there").active_key.clone();
        assert_eq!(truth, Some(StreamKey::arn(&good)));
        assert!(stage.put_is_encrypted());
        assert_eq!(
            stage.world.grants(stage.now).map(|g| g.key_arn.as_str()).collect::<Vec<_>>(),
            [good.as_str()]
        );
    }
}

#[test]
fn start_with_active_key_follows_setting() {
    for (same_key, at_once, in_the_end) in [
        (SameKey::FailsLater, Ok(json!({})), "ENABLING_FAILED"),
        (SameKey::RefusedAtOnce, error("InvalidArgumentException"), "ENABLED"),
        (SameKey::Accepted, Ok(json!({})), "ENABLED"),
    ] {
        for customer in [false, true] {
            let mut stage = Stage::new(Settings { same_key, ..quick() });
            let key = customer.then(|| stage.key(PlantedKey::default()));
            stage.start(key.as_deref()).expect("started");
            stage.wait(10);
            let active_key = stage.world.stream(FIREHOSE, stage.now).expect("there").active_key.clone();
            assert_eq!(stage.start(key.as_deref()), at_once, "{same_key:?}");
            stage.wait(10);
            assert_eq!(stage.status(), in_the_end, "{same_key:?}");
            assert_eq!(stage.world.stream(FIREHOSE, stage.now).expect("there").active_key, active_key);
        }
    }
}

#[test]
fn grant_exists_from_start_until_re_key_or_stop_completes() {
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
fn every_failure_type_can_be_scripted_for_start_and_stop() {
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
fn start_or_stop_during_another_is_refused() {
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
fn only_direct_put_can_be_encrypted() {
    for source in [Source::KinesisStreamAsSource, Source::MSKAsSource, Source::DatabaseAsSource] {
        let mut stage = Stage::plain();
        stage.world.plant_stream(PlantedStream { source, ..PlantedStream::default() });
        assert_eq!(stage.start(None), error("InvalidArgumentException"), "{source:?}");
        assert_eq!(stage.status(), "no block", "{source:?}");
    }
}

#[test]
fn input_is_validated_as_in_api_model() {
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
fn undocumented_describe_output_follows_settings() {
    let mut stage = Stage::new(Settings { key_after_disabled: KeyAfterDisabled::Kept, ..quick() });
    let never_encrypted_shows = NeverEncryptedShows::NoBlock;
    stage.world.plant_stream(PlantedStream { never_encrypted_shows, ..PlantedStream::default() });
    assert_eq!(stage.status(), "no block");
    stage.start(None).expect("started");
    stage.wait(10);
    stage.stop().expect("stopped");
    stage.wait(10);
    assert_eq!(stage.block(), json!({ "Status": "DISABLED", "KeyType": "AWS_OWNED_CMK" }));
}
