//! Tests everything apart from encryption: streams created and deleted, keys in KMS, the log, and
//! determinism.

use serde_json::json;
use simulated_aws::world::{Calls as _, EncryptionStatus, FailureType, Snapshot, StreamKey};
use simulated_aws::{PlantedKey, PlantedStream, Request};

use crate::stage::{REGION, Stage, error};

#[test]
fn stream_can_be_planted_in_any_state() {
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
fn kms_resolves_ids_arns_and_aliases() {
    let mut stage = Stage::plain();
    let arn = stage.key(PlantedKey::default());
    let alias_arn = stage.world.plant_alias("alias/orders", &arn);
    let id = arn.rsplit('/').next().expect("an id");
    for given in [id, &arn, "alias/orders", &alias_arn] {
        let key = stage.call(&Request::kms("DescribeKey", json!({ "KeyId": given }))).expect("described");
        assert_eq!(key["KeyMetadata"]["Arn"], arn, "{given}");
    }
    let own =
        stage.call(&Request::kms("DescribeKey", json!({ "KeyId": "alias/aws/kinesis" }))).expect("described");
    assert_eq!(own["KeyMetadata"]["KeyManager"], "AWS");
}

#[test]
fn log_has_principal_operation_and_key() {
    let mut stage = Stage::plain();
    stage.start(None).expect("started");
    let calls = stage.world.calls();
    assert_eq!(calls.count("StartDeliveryStreamEncryption", "orders"), 1);
    assert_eq!(calls[0].key.as_deref(), Some("AWS_OWNED_CMK"));
    assert_eq!((calls[0].account.as_str(), calls[0].region.as_str()), ("111122223333", REGION));
    assert_eq!(calls[0].principal.arn, "arn:aws:iam::111122223333:user/AKIAIOSFODNN7EXAMPLE");
}

#[test]
fn same_requests_at_same_times_get_same_answers() {
    let run = || {
        let mut stage = Stage::plain();
        let key = stage.key(PlantedKey::default());
        let _ = (stage.start(Some(&key)), stage.start_kinesis("alias/aws/kinesis"), stage.put_is_encrypted());
        stage.wait(10);
        (stage.block(), stage.summary(), serde_json::to_string(stage.world.calls()).expect("JSON"))
    };
    assert_eq!(run(), run());
}
