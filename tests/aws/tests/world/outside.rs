//! Tests the events of changes that were made without a request.

use serde_json::{Value, json};
use simulated_aws::world::{KeyState, Snapshot, StreamKey};
use simulated_aws::{PlantedKey, PlantedStream};

use crate::stage::{FIREHOSE, KINESIS, Stage};

fn recording() -> Stage {
    let mut stage = Stage::plain();
    stage.world.record_events(true);
    stage
}

/// Returns the name and parameters of each new event, and checks that a person made all of them.
fn calls(stage: &mut Stage) -> Vec<(String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = stage.world.take_events();
    let details = events.iter().map(|event| &event.body["detail"]);
    details
        .map(|detail| {
            assert_eq!(detail["userIdentity"]["type"], "IAMUser");
            assert_eq!(detail["userIdentity"]["accessKeyId"], "AKIASOMEBODYELSE");
            (text(&detail["eventName"]), detail["requestParameters"].clone())
        })
        .collect()
}

fn names(stage: &mut Stage) -> Vec<String> {
    calls(stage).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn change_of_key_state_makes_the_calls_that_lead_there() {
    use KeyState::{Disabled, Enabled, PendingDeletion, PendingImport};
    let mut stage = recording();
    let key = stage.key(PlantedKey::default());
    let now = stage.now;
    let rows: [(KeyState, &[&str]); 7] = [
        (Enabled, &[]),
        (Disabled, &["DisableKey"]),
        (Enabled, &["EnableKey"]),
        (PendingDeletion, &["ScheduleKeyDeletion"]),
        (Enabled, &["CancelKeyDeletion", "EnableKey"]),
        (PendingImport, &[]),
        (Enabled, &[]),
    ];
    for (state, expected) in rows {
        assert!(stage.world.change_key(now, &key, |key| key.state = state));
        assert_eq!(names(&mut stage), expected, "{state:?}");
    }
    stage.world.change_key(now, &key, |key| key.policy = json!({ "Statement": [] }));
    let policy = json!({ "keyId": key, "policyName": "default", "policy": "{\"Statement\":[]}" });
    assert_eq!(calls(&mut stage), [("PutKeyPolicy".to_owned(), policy)]);
    assert!(stage.world.delete_key(now, &key));
    assert_eq!(names(&mut stage), ["ScheduleKeyDeletion"]);
    assert!(!stage.world.change_key(now, &key, |_| {}));
}

#[test]
fn change_of_alias_makes_create_update_or_delete() {
    let mut stage = recording();
    let (one, two) = (stage.key(PlantedKey::default()), stage.key(PlantedKey::default()));
    let now = stage.now;
    let alias = stage.world.change_alias(now, "alias/orders", &one);
    stage.world.change_alias(now, "alias/orders", &two);
    assert!(stage.world.delete_alias(now, &alias));
    assert!(!stage.world.delete_alias(now, &alias));
    let expected = [
        ("CreateAlias", json!({ "aliasName": "alias/orders", "targetKeyId": one })),
        ("UpdateAlias", json!({ "aliasName": "alias/orders", "targetKeyId": two })),
        ("DeleteAlias", json!({ "aliasName": "alias/orders" })),
    ];
    assert_eq!(calls(&mut stage), expected.map(|(name, body)| (name.to_owned(), body)));
}

#[test]
fn change_of_stream_encryption_makes_start_or_stop() {
    let mut stage = recording();
    let key = StreamKey::arn(&stage.key(PlantedKey::default()));
    let now = stage.now;
    let arn = key.key_arn().expect("an ARN").to_owned();
    for (stream, state) in [
        (FIREHOSE, Snapshot::enabled(key.clone())),
        (FIREHOSE, Snapshot::enabled(key.clone())),
        (FIREHOSE, Snapshot::default()),
        (KINESIS, Snapshot::enabled(key)),
        (KINESIS, Snapshot::default()),
    ] {
        assert!(stage.world.change_stream(now, stream, state));
    }
    let block = json!({ "keyType": "CUSTOMER_MANAGED_CMK", "keyARN": arn });
    let kinesis = json!({ "streamARN": KINESIS, "encryptionType": "KMS", "keyId": arn });
    let expected = [
        (
            "StartDeliveryStreamEncryption",
            json!({ "deliveryStreamName": "orders", "deliveryStreamEncryptionConfigurationInput": block }),
        ),
        ("StopDeliveryStreamEncryption", json!({ "deliveryStreamName": "orders" })),
        ("StartStreamEncryption", kinesis.clone()),
        ("StopStreamEncryption", kinesis),
    ];
    assert_eq!(calls(&mut stage), expected.map(|(name, body)| (name.to_owned(), body)));
}

#[test]
fn created_and_deleted_streams_make_events() {
    let mut stage = recording();
    let now = stage.now;
    let arn =
        stage.world.create_stream(now, PlantedStream { name: "new".into(), ..PlantedStream::default() });
    assert!(stage.world.delete_stream(now, &arn));
    assert!(!stage.world.delete_stream(now, &arn));
    assert!(stage.world.delete_stream(now, KINESIS));
    assert_eq!(names(&mut stage), ["CreateDeliveryStream", "DeleteDeliveryStream", "DeleteStream"]);
}

#[test]
fn planting_and_setting_make_no_event() {
    let mut stage = recording();
    let key = stage.key(PlantedKey::default());
    stage.world.plant_alias("alias/orders", &key);
    stage.world.set_stream(stage.now, FIREHOSE, Snapshot::enabled(StreamKey::arn(&key)));
    stage.world.remove_key(&key);
    assert_eq!(names(&mut stage), [""; 0]);
}
