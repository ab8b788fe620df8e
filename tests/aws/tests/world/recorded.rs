//! Compares the simulated AWS with the answers of the real AWS, recorded in `tests/aws/recorded`.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::{Caller, Fault, PlantedKey, PlantedStream, Request, Rule, Service, Settings, World};

const REGION: &str = "us-east-1";
const KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

/// Members whose values do not concern encryption or differ from stream to stream.
const INCIDENTAL: [&str; 9] = [
    "StreamCreationTimestamp",
    "CreateTimestamp",
    "LastUpdateTimestamp",
    "MaxRecordSizeInKiB",
    "VersionId",
    "Destinations",
    "SequenceNumber",
    "ShardId",
    "RecordId",
];

/// One plaintext stream of each service, `orders` and `clicks`, with the default settings.
struct Scene {
    world: World,
    now: Timestamp,
}

impl Scene {
    fn new() -> Scene {
        let settings = Settings { region: REGION.to_owned(), rate_limits: false, ..Settings::default() };
        let mut world = World::new(settings);
        world.plant_stream(PlantedStream::default());
        let (service, name) = (Service::Kinesis, "clicks".to_owned());
        world.plant_stream(PlantedStream { service, name, ..PlantedStream::default() });
        world.plant_key(PlantedKey { id: KEY_ID.to_owned(), ..PlantedKey::default() });
        Scene { world, now: "2026-01-02T00:00:00Z".parse().expect("a time") }
    }

    /// Returns the answer's body.
    fn call(&mut self, request: &Request) -> Value {
        let reply = self.world.call(self.now, &Caller::default(), REGION, request);
        reply.result.unwrap_or_else(|error| error.body())
    }

    fn kinesis(&mut self, operation: &str) -> Value {
        let body = json!({
            "StreamName": "clicks", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis",
            "PartitionKey": "a", "Data": "aGk=",
        });
        self.call(&Request::kinesis(operation, body))
    }

    fn firehose(&mut self, operation: &str, key: &Value) -> Value {
        let body = json!({
            "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": key,
            "Record": {"Data": "aGk="},
        });
        self.call(&Request::firehose(operation, body))
    }

    fn summary(&mut self) -> Value {
        self.kinesis("DescribeStreamSummary")
    }

    fn description(&mut self) -> Value {
        self.firehose("DescribeDeliveryStream", &Value::Null)
    }

    fn wait(&mut self, time: SignedDuration) {
        self.now += time;
    }
}

/// Returns the part of a recording that the simulated AWS also returns, without the values that differ from
/// stream to stream.
fn told(body: &Value) -> Value {
    match body {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !INCIDENTAL.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), told(value)))
            .collect(),
        other => other.clone(),
    }
}

#[track_caller]
fn assert_recorded(answer: &Value, recording: &str) {
    let path = format!("{}/recorded/{recording}.json", env!("CARGO_MANIFEST_DIR"));
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).expect(recording)).expect(recording);
    assert_eq!(told(answer), told(&recorded["body"]), "{recording}");
}

#[test]
fn kinesis_encryption_changes_match_recordings() {
    let mut scene = Scene::new();
    let updating = Settings::default().updating;
    let recorded_times = SignedDuration::from_secs(3)..=SignedDuration::from_secs(5);
    assert!(recorded_times.contains(&updating), "{updating:#}");
    assert_recorded(&scene.summary(), "kinesis-plaintext");
    assert_recorded(&scene.kinesis("PutRecord"), "kinesis-put-record-plain");
    assert_eq!(scene.kinesis("StartStreamEncryption"), json!({}));
    assert_recorded(&scene.summary(), "kinesis-updating-after-start");
    assert_recorded(&scene.kinesis("StartStreamEncryption"), "kinesis-in-use-updating");
    scene.wait(updating);
    assert_recorded(&scene.summary(), "kinesis-encrypted-aws-managed");
    // A Start with the active key is accepted, and the stream becomes UPDATING again.
    assert_eq!(scene.kinesis("StartStreamEncryption"), json!({}));
    assert_recorded(&scene.summary(), "kinesis-updating-after-stop");
    scene.wait(updating + Settings::default().settle);
    assert_recorded(&scene.kinesis("PutRecord"), "kinesis-put-record-encrypted");
    assert_eq!(scene.kinesis("StopStreamEncryption"), json!({}));
    assert_recorded(&scene.summary(), "kinesis-updating-after-stop");
    scene.wait(updating);
    assert_recorded(&scene.summary(), "kinesis-plaintext-after-stop");
    assert_recorded(&scene.kinesis("StopStreamEncryption"), "kinesis-stop-of-plaintext");
}

#[test]
fn kinesis_creation_and_deletion_match_recordings() {
    let mut scene = Scene::new();
    assert_eq!(scene.kinesis("DeleteStream"), json!({}));
    assert_recorded(&scene.summary(), "kinesis-deleting");
    scene.wait(Settings::default().deleting);
    assert_recorded(&scene.summary(), "kinesis-not-found");
    assert_eq!(scene.kinesis("CreateStream"), json!({}));
    assert_recorded(&scene.summary(), "kinesis-creating");
}

#[test]
fn kinesis_errors_match_recordings() {
    let mut scene = Scene::new();
    let arn = "arn:aws:kinesis:us-west-2:111122223333:stream/clicks";
    let elsewhere = Request::kinesis("DescribeStreamSummary", json!({ "StreamARN": arn }));
    assert_recorded(&scene.call(&elsewhere), "kinesis-arn-of-another-region");
    scene.world.script(Rule::once(Fault::Throttle));
    assert_recorded(&scene.summary(), "kinesis-rate-of-the-account");
    for _ in 0..25 {
        assert_eq!(scene.kinesis("StartStreamEncryption"), json!({}));
        scene.wait(Settings::default().updating);
    }
    assert_recorded(&scene.kinesis("StartStreamEncryption"), "kinesis-quota-of-a-day");
}

#[test]
fn firehose_encryption_changes_match_recordings() {
    let mut scene = Scene::new();
    let (enabling, disabling) = (Settings::default().enabling, Settings::default().disabling);
    let minute_and_a_half = SignedDuration::from_secs(90);
    for time in [enabling, disabling] {
        assert!((SignedDuration::from_secs(15)..=minute_and_a_half).contains(&time), "{time:#}");
    }
    assert_recorded(&scene.description(), "firehose-never-encrypted");
    assert_recorded(&scene.firehose("PutRecord", &Value::Null), "firehose-put-record-plain");
    assert_eq!(
        scene.firehose("StartDeliveryStreamEncryption", &json!({"KeyType": "AWS_OWNED_CMK"})),
        json!({})
    );
    scene.wait(enabling);
    assert_recorded(&scene.description(), "firehose-enabled-aws-owned");
    let customer = json!({
        "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": format!("arn:aws:kms:{REGION}:111122223333:key/{KEY_ID}"),
    });
    assert_eq!(scene.firehose("StartDeliveryStreamEncryption", &customer), json!({}));
    assert_recorded(&scene.description(), "firehose-enabling-customer");
    scene.wait(enabling);
    assert_recorded(&scene.description(), "firehose-enabled-customer");
    assert_eq!(scene.firehose("StopDeliveryStreamEncryption", &Value::Null), json!({}));
    let in_use = scene.firehose("DeleteDeliveryStream", &Value::Null);
    assert_eq!(in_use["message"], "Cannot delete firehose orders when encryption is in DISABLING status");
    scene.wait(disabling);
    assert_recorded(&scene.description(), "firehose-disabled-after-stop");
    assert_eq!(scene.firehose("DeleteDeliveryStream", &Value::Null), json!({}));
    assert_recorded(&scene.description(), "firehose-deleting");
    scene.wait(Settings::default().deleting);
    assert_recorded(&scene.description(), "firehose-not-found");
    scene.world.script(Rule::once(Fault::Throttle));
    assert_recorded(&scene.description(), "firehose-throttled");
}
