//! Tests Kinesis: its updates, its keys, and how it echoes them.

use serde_json::json;
use simulated_aws::world::{FailureType, KeyIdEcho, KeyState, ShownWhileUpdating};
use simulated_aws::{Fault, PlantedKey, Request, Rule, Settings};

use crate::stage::{Stage, error, quick};

#[test]
fn kinesis_goes_through_updating_to_active() {
    for (shown, during) in [(ShownWhileUpdating::New, "KMS"), (ShownWhileUpdating::Old, "NONE")] {
        let mut stage = Stage::new(Settings { while_updating: shown, ..quick() });
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
        assert_eq!(stage.call(&put).expect("put").get("EncryptionType"), None);
        stage.wait(5);
        assert_eq!(stage.call(&put).expect("put")["EncryptionType"], "KMS");
        stage.stop_kinesis().expect("stopped");
        stage.wait(5);
        assert_eq!(stage.summary(), ("ACTIVE".to_owned(), "NONE".to_owned(), String::new()));
    }
}

#[test]
fn kinesis_stop_of_plaintext_is_refused_and_not_counted() {
    let mut stage = Stage::plain();
    assert_eq!(stage.stop_kinesis(), error("InvalidArgumentException"));
    assert!(!stage.world.calls()[0].counted);
    assert_eq!(stage.summary().0, "ACTIVE");
}

#[test]
fn kinesis_arn_of_unknown_account_is_refused() {
    let mut stage = Stage::plain();
    let mut describe = |account: &str| {
        let arn = format!("arn:aws:kinesis:eu-west-1:{account}:stream/clicks");
        stage.call(&Request::kinesis("DescribeStreamSummary", json!({ "StreamARN": arn })))
    };
    assert_eq!(describe("999988887777"), error("UnrecognizedClientException"));
    assert!(describe("111122223333").is_ok());
    stage.world.plant_account("AKIASOMEBODYELSE", "999988887777");
    let arn = "arn:aws:kinesis:eu-west-1:999988887777:stream/clicks";
    let request = Request::kinesis("DescribeStreamSummary", json!({ "StreamARN": arn }));
    assert_eq!(stage.call(&request), error("ResourceNotFoundException"));
}

#[test]
fn failed_kinesis_update_ends_active_with_old_key() {
    let mut stage = Stage::plain();
    stage.world.script(
        Rule::once(Fault::FailsLater { failure: FailureType::UnknownError }).on("StartStreamEncryption"),
    );
    stage.start_kinesis("alias/aws/kinesis").expect("accepted");
    stage.wait(5);
    assert_eq!(stage.summary(), ("ACTIVE".to_owned(), "NONE".to_owned(), String::new()));
}

#[test]
fn kinesis_refuses_unusable_key_at_once() {
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
fn kinesis_key_id_follows_setting() {
    for echo in [KeyIdEcho::AsGiven, KeyIdEcho::KeyArn, KeyIdEcho::Alias] {
        let mut stage = Stage::new(Settings { kinesis_key_id: echo, ..quick() });
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
fn resharding_shows_updating() {
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
