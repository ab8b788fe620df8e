//! The template of a stack and the client of the queue against moto's EventBridge and SQS: the rule selects the
//! events that the operator uses and no others, and they arrive in the form that the operator parses.

use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use simulated_aws::emulators::Moto;
use simulated_aws::raw_client::RawClient;
use simulated_aws::world::Service;
use stream_encryption_core::model::aws_event::{self, Subject};
use stream_encryption_operator::aws::rate_limit::RateLimiter;
use stream_encryption_operator::aws::{Aws, QueueUrl};

use crate::harness::{ACCESS_KEY, REGION, sdk};

/// The account of moto.
const ACCOUNT: &str = "123456789012";

/// Returns the pattern of the rule in the template.
fn pattern() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/events/cloudformation.yaml");
    let template: Value =
        serde_saphyr::from_str(&fs::read_to_string(path).expect("the template")).expect("YAML");
    let resources = template["Resources"].as_object().expect("resources").clone();
    let mut patterns = resources.into_values().map(|resource| resource["Properties"]["EventPattern"].clone());
    patterns.find(|pattern| pattern["detail"]["eventName"].is_array()).expect("a rule")
}

fn record(service: &str, name: &str, parameters: &Value) -> Value {
    let detail = json!({
        "eventSource": format!("{service}.amazonaws.com"), "eventName": name, "eventTime": "2026-11-28T07:00:00Z",
        "awsRegion": REGION, "eventID": name, "requestID": name, "requestParameters": parameters,
    });
    json!({
        "Source": format!("aws.{service}"), "DetailType": "AWS API Call via CloudTrail", "Detail": detail.to_string(),
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "requires moto from PyPI; .ci/run runs it"]
async fn rule_of_the_template_selects_the_events_of_the_operator() {
    let Some(moto) = Moto::start().await.expect("moto starts") else { return };
    let raw = RawClient::new(moto.url());
    let created =
        raw.json(Service::Sqs, "CreateQueue", &json!({"QueueName": "events"})).await.expect("an answer");
    let url = created.json()["QueueUrl"].as_str().expect("a URL").to_owned();
    let asked = json!({"QueueUrl": url, "AttributeNames": ["QueueArn"]});
    let attributes = raw.json(Service::Sqs, "GetQueueAttributes", &asked).await.expect("an answer").json();
    let arn = &attributes["Attributes"]["QueueArn"];
    let rule = json!({"Name": "events", "EventPattern": pattern().to_string()});
    assert_eq!(raw.events("PutRule", &rule).await.expect("an answer").status, 200);
    let target = json!({"Rule": "events", "Targets": [{"Id": "queue", "Arn": arn}]});
    assert_eq!(raw.events("PutTargets", &target).await.expect("an answer").status, 200);
    let entries = [
        record("kinesis", "StopStreamEncryption", &json!({"streamName": "clicks"})),
        record("firehose", "CreateDeliveryStream", &json!({"deliveryStreamName": "orders"})),
        record("kinesis", "AddTagsToStream", &json!({"streamName": "clicks"})),
        record("s3", "DeleteBucket", &json!({"bucketName": "orders"})),
        record("kms", "DisableKey", &json!({"keyId": "22222222-2222-4222-8222-222222222222"})),
    ];
    let put = raw.events("PutEvents", &json!({"Entries": entries})).await.expect("an answer");
    assert_eq!(put.json()["FailedEntryCount"], json!(0), "{}", put.text);

    let config = sdk(moto.url(), ACCESS_KEY);
    let region = REGION.parse().expect("a region");
    let aws = Aws::from_config(config, region, RateLimiter::new(80), Arc::new(SystemTime::now));
    let queue = aws.event_queue(&url.parse::<QueueUrl>().expect("a queue's URL"));
    let mut found = Vec::new();
    while found.len() < 3 {
        let messages = queue.receive().await.expect("messages");
        assert!(!messages.is_empty(), "only {found:?} of the events arrived");
        for message in &messages {
            // moto leaves the account out, which EventBridge always names.
            let mut envelope: Value = serde_json::from_str(&message.body).expect("JSON");
            envelope["account"] = json!(ACCOUNT);
            let body = envelope.to_string();
            let event = aws_event::parse(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
            found.push(match event.subject {
                Subject::Call(stream, _) | Subject::Stream(stream) => stream.name().to_owned(),
                Subject::Key(key) => key.id().to_owned(),
                other => panic!("{other:?}"),
            });
        }
        let receipts: Vec<String> = messages.into_iter().map(|message| message.receipt).collect();
        assert_eq!(queue.delete(&receipts).await, [], "they are deleted");
    }
    found.sort();
    assert_eq!(found, ["22222222-2222-4222-8222-222222222222", "clicks", "orders"]);
    let state = queue.state().await.expect("its state");
    assert_eq!((state.waiting, state.received), (Some(0), Some(0)));
}
