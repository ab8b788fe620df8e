//! The fixture: one stream of each service on a virtual clock, and the requests of the tests.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::{Caller, PlantedKey, PlantedStream, Request, Service, Settings, World};

pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const FIREHOSE: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
pub(crate) const KINESIS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";

/// A world with one Firehose stream `orders` and one Kinesis stream `clicks`, both plaintext, and its time.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) now: Timestamp,
    pub(crate) caller: Caller,
}

/// Returns settings in which a change of Firehose's encryption takes 10 seconds.
pub(crate) fn quick() -> Settings {
    let ten = SignedDuration::from_secs(10);
    Settings { enabling: ten, disabling: ten, ..Settings::default() }
}

impl Stage {
    pub(crate) fn new(settings: Settings) -> Stage {
        let mut world = World::new(Settings { rate_limits: false, ..settings });
        world.plant_stream(PlantedStream::default());
        world.plant_stream(PlantedStream {
            service: Service::Kinesis,
            name: "clicks".to_owned(),
            ..PlantedStream::default()
        });
        Stage { world, now: "2026-01-02T00:00:00Z".parse().expect("a time"), caller: Caller::default() }
    }

    pub(crate) fn plain() -> Stage {
        Stage::new(quick())
    }

    pub(crate) fn key(&mut self, key: PlantedKey) -> String {
        self.world.plant_key(key)
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Returns the answer, or the error's code.
    pub(crate) fn call(&mut self, request: &Request) -> Result<Value, String> {
        self.world.call(self.now, &self.caller, REGION, request).result.map_err(|error| error.code)
    }

    pub(crate) fn start(&mut self, key: Option<&str>) -> Result<Value, String> {
        let block = match key {
            Some(arn) => json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": arn }),
            None => json!({ "KeyType": "AWS_OWNED_CMK" }),
        };
        self.call(&Request::firehose(
            "StartDeliveryStreamEncryption",
            json!({ "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": block }),
        ))
    }

    pub(crate) fn stop(&mut self) -> Result<Value, String> {
        self.call(&Request::firehose(
            "StopDeliveryStreamEncryption",
            json!({ "DeliveryStreamName": "orders" }),
        ))
    }

    /// Returns the encryption block of the Firehose stream.
    pub(crate) fn block(&mut self) -> Value {
        let answer = self
            .call(&Request::firehose("DescribeDeliveryStream", json!({ "DeliveryStreamName": "orders" })))
            .expect("described");
        answer["DeliveryStreamDescription"]
            .get("DeliveryStreamEncryptionConfiguration")
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn status(&mut self) -> String {
        self.block()["Status"].as_str().unwrap_or("no block").to_owned()
    }

    pub(crate) fn put_is_encrypted(&mut self) -> bool {
        let put = Request::firehose(
            "PutRecord",
            json!({ "DeliveryStreamName": "orders", "Record": { "Data": "aGk=" } }),
        );
        self.call(&put).expect("put")["Encrypted"].as_bool().expect("a truth value")
    }

    pub(crate) fn start_kinesis(&mut self, key: &str) -> Result<Value, String> {
        let body = json!({ "StreamName": "clicks", "EncryptionType": "KMS", "KeyId": key });
        self.call(&Request::kinesis("StartStreamEncryption", body))
    }

    pub(crate) fn stop_kinesis(&mut self) -> Result<Value, String> {
        let body = json!({ "StreamARN": KINESIS, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis" });
        self.call(&Request::kinesis("StopStreamEncryption", body))
    }

    /// Returns the status, type and key of the Kinesis stream.
    pub(crate) fn summary(&mut self) -> (String, String, String) {
        let answer = self
            .call(&Request::kinesis("DescribeStreamSummary", json!({ "StreamName": "clicks" })))
            .expect("described");
        let text =
            |name: &str| answer["StreamDescriptionSummary"][name].as_str().unwrap_or_default().to_owned();
        (text("StreamStatus"), text("EncryptionType"), text("KeyId"))
    }
}

pub(crate) fn error(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}
