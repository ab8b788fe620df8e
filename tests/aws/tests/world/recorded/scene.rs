//! The fixture: the streams and the key of the recordings, served over HTTP on a virtual clock.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulated_aws::http::Model;
use simulated_aws::raw_client::RawClient;
use simulated_aws::{
    Caller, Clock, PlantedKey, PlantedStream, Request, Service, Settings, SimulatedAws, World,
};

pub(super) const REGION: &str = "us-east-1";
pub(super) const CLICKS: &str = "arn:aws:kinesis:us-east-1:111122223333:stream/clicks";
pub(super) const KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
pub(super) const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// An answer as sent over the wire.
pub(super) struct Answer {
    pub(super) operation: String,
    pub(super) status: u16,
    /// The JSON; the text of a body that is not JSON.
    pub(super) body: Value,
}

impl Answer {
    /// Replaces a text that differs for a reason that the caller states.
    pub(super) fn renamed(self, ours: &str, recorded: &str) -> Answer {
        let text = self.body.to_string();
        assert!(text.contains(ours), "{text} lacks {ours}");
        Answer { body: serde_json::from_str(&text.replace(ours, recorded)).expect("JSON"), ..self }
    }

    pub(super) fn assert_accepted(&self) {
        assert_eq!((self.status, &self.body), (200, &json!("")), "{}", self.operation);
    }
}

/// One plaintext stream of each service, `orders` and `clicks`, and one customer managed key.
pub(super) struct Scene {
    aws: SimulatedAws,
    client: RawClient,
}

impl Scene {
    /// Starts with the default settings, but without limits of requests per second.
    pub(super) async fn new() -> Scene {
        Scene::with(Settings { rate_limits: false, ..Settings::default() }).await
    }

    pub(super) async fn with(settings: Settings) -> Scene {
        let mut world = World::new(Settings { region: REGION.to_owned(), ..settings });
        world.plant_stream(PlantedStream::default());
        world.plant_stream(clicks());
        world.plant_key(PlantedKey { id: KEY_ID.to_owned(), ..PlantedKey::default() });
        let start: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
        let aws = SimulatedAws::start(world, Clock::Virtual(start)).await.expect("it starts");
        // The virtual clock differs from the machine's clock.
        let client = RawClient { region: REGION.to_owned(), date: None, ..RawClient::new(&aws.url()) };
        Scene { aws, client }
    }

    pub(super) fn world(&self) -> Model<'_> {
        self.aws.world()
    }

    pub(super) fn wait(&self, time: SignedDuration) {
        self.aws.advance(time);
    }

    /// Makes the following requests as `assumed-role/<role>/session`.
    pub(super) fn assume(&mut self, role: &str) {
        let role = format!("arn:aws:iam::111122223333:role/{role}");
        let request = Request::sts("AssumeRole", json!({"RoleArn": role, "RoleSessionName": "session"}));
        let reply = self.aws.world().call(self.aws.now(), &Caller::default(), REGION, &request);
        let answer = reply.result.expect("credentials");
        answer["Credentials"]["AccessKeyId"].as_str().expect("a key").clone_into(&mut self.client.access_key);
    }

    pub(super) async fn call(&self, service: Service, operation: &str, body: &Value) -> Answer {
        let answer = self.client.json(service, operation, body).await.expect("an answer");
        let body = serde_json::from_str(&answer.text).unwrap_or_else(|_| json!(answer.text));
        Answer { operation: operation.to_owned(), status: answer.status, body }
    }

    /// Returns the answer of STS, which is XML, as a tool decodes it.
    pub(super) async fn identity(&self) -> Answer {
        let operation = "GetCallerIdentity".to_owned();
        let answer =
            self.client.query("Action=GetCallerIdentity&Version=2011-06-15").await.expect("an answer");
        let element = |name: &str| {
            let (_, rest) = answer.text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(text, _)| json!(text))
        };
        let members = ["UserId", "Account", "Arn"].map(|name| (name.to_owned(), element(name)));
        let body = members.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        Answer { operation, status: answer.status, body }
    }

    /// Sends a request about `clicks`, with Kinesis's own key.
    pub(super) async fn kinesis(&self, operation: &str) -> Answer {
        self.kinesis_with(operation, &json!({})).await
    }

    /// Sends a request about `clicks`, with other members.
    pub(super) async fn kinesis_with(&self, operation: &str, members: &Value) -> Answer {
        let mut body = json!({
            "StreamName": "clicks", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis",
            "PartitionKey": "a", "Data": "aGk=",
        });
        for (name, value) in members.as_object().expect("members") {
            body[name] = value.clone();
        }
        self.call(Service::Kinesis, operation, &body).await
    }

    /// Sends a request about `orders`, with this key.
    pub(super) async fn firehose(&self, operation: &str, key: &Value) -> Answer {
        let body = json!({
            "DeliveryStreamName": "orders", "DeliveryStreamEncryptionConfigurationInput": key,
            "Record": {"Data": "aGk="},
        });
        self.call(Service::Firehose, operation, &body).await
    }

    pub(super) async fn summary(&self) -> Answer {
        self.kinesis("DescribeStreamSummary").await
    }

    pub(super) async fn description(&self) -> Answer {
        self.firehose("DescribeDeliveryStream", &Value::Null).await
    }

    pub(super) async fn key(&self, id: &str) -> Answer {
        self.call(Service::Kms, "DescribeKey", &json!({ "KeyId": id })).await
    }
}

/// The Kinesis stream of the recordings.
pub(super) fn clicks() -> PlantedStream {
    PlantedStream { service: Service::Kinesis, name: "clicks".to_owned(), ..PlantedStream::default() }
}
