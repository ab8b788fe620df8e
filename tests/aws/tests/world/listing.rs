//! Tests the lists of streams and of tags: their pages, and the account and region that they cover.

use serde_json::{Value, json};
use simulated_aws::{PlantedStream, Request, Service};

use crate::stage::{KINESIS, Stage, error};

/// Plants streams of this service with these names.
fn plant(stage: &mut Stage, service: Service, names: impl IntoIterator<Item = String>) {
    for name in names {
        stage.world.plant_stream(PlantedStream { service, name, ..PlantedStream::default() });
    }
}

#[test]
fn firehose_lists_ten_streams_by_default() {
    let mut stage = Stage::plain();
    plant(&mut stage, Service::Firehose, (0..30).map(|number| format!("s-{number:02}")));
    let mut list = |body: Value| stage.call(&Request::firehose("ListDeliveryStreams", body)).expect("listed");
    let first = list(json!({}));
    assert_eq!(first["DeliveryStreamNames"].as_array().map(Vec::len), Some(10));
    assert_eq!(first["HasMoreDeliveryStreams"], true);
    let rest = list(json!({"Limit": 10_000, "ExclusiveStartDeliveryStreamName": "s-27"}));
    assert_eq!(rest, json!({"DeliveryStreamNames": ["s-28", "s-29"], "HasMoreDeliveryStreams": false}));
    let refused = stage.call(&Request::firehose("ListDeliveryStreams", json!({"Limit": 10_001})));
    assert_eq!(refused, error("ValidationException"));
}

#[test]
fn kinesis_lists_a_hundred_streams_with_a_token() {
    let mut stage = Stage::plain();
    plant(&mut stage, Service::Kinesis, (0..120).map(|number| format!("s-{number:03}")));
    let mut list = |body: Value| stage.call(&Request::kinesis("ListStreams", body)).expect("listed");
    let first = list(json!({}));
    assert_eq!(first["StreamNames"].as_array().map(Vec::len), Some(100));
    assert_eq!(first["StreamSummaries"][0]["StreamARN"], KINESIS);
    let second = list(json!({"NextToken": first["NextToken"]}));
    assert_eq!(
        (second["StreamNames"].as_array().map(Vec::len), &second["HasMoreStreams"]),
        (Some(21), &json!(false))
    );
    let by_name = list(json!({"ExclusiveStartStreamName": "s-118"}));
    assert_eq!(by_name["StreamNames"], json!(["s-119"]));
}

#[test]
fn list_covers_one_account_and_region() {
    let mut stage = Stage::plain();
    let orders = |account: &str, region: &str, name: &str| PlantedStream {
        account: account.to_owned(),
        region: region.to_owned(),
        name: name.to_owned(),
        ..PlantedStream::default()
    };
    stage.world.plant_stream(orders("444455556666", "", "of-another-account"));
    stage.world.plant_stream(orders("", "eu-central-1", "elsewhere"));
    let listed = stage.call(&Request::firehose("ListDeliveryStreams", json!({}))).expect("listed");
    assert_eq!(listed["DeliveryStreamNames"], json!(["orders"]));
}

#[test]
fn tags_are_listed_in_pages_by_key() {
    let mut stage = Stage::plain();
    let tags: Vec<(String, String)> =
        (0..12).map(|number| (format!("k{number:02}"), format!("v{number}"))).collect();
    for (service, name) in [(Service::Firehose, "orders"), (Service::Kinesis, "clicks")] {
        let tags = tags.iter().cloned().collect();
        stage.world.plant_stream(PlantedStream {
            service,
            name: name.to_owned(),
            tags,
            ..PlantedStream::default()
        });
    }
    let of_firehose = |body: Value| {
        let mut body = body;
        body["DeliveryStreamName"] = json!("orders");
        Request::firehose("ListTagsForDeliveryStream", body)
    };
    let of_kinesis = |body: Value| {
        let mut body = body;
        body["StreamARN"] = json!(KINESIS);
        Request::kinesis("ListTagsForStream", body)
    };
    let requests: [&dyn Fn(Value) -> Request; 2] = [&of_firehose, &of_kinesis];
    for request in requests {
        let all = stage.call(&request(json!({}))).expect("listed");
        assert_eq!((all["Tags"].as_array().map(Vec::len), &all["HasMoreTags"]), (Some(12), &json!(false)));
        let first = stage.call(&request(json!({"Limit": 10}))).expect("listed");
        assert_eq!((first["Tags"].as_array().map(Vec::len), &first["HasMoreTags"]), (Some(10), &json!(true)));
        let rest = stage.call(&request(json!({"ExclusiveStartTagKey": "k10"}))).expect("listed");
        assert_eq!(rest, json!({"Tags": [{"Key": "k11", "Value": "v11"}], "HasMoreTags": false}));
        assert_eq!(stage.call(&request(json!({"Limit": 51}))), error("ValidationException"));
    }
    let missing = Request::firehose("ListTagsForDeliveryStream", json!({"DeliveryStreamName": "gone"}));
    assert_eq!(stage.call(&missing), error("ResourceNotFoundException"));
    let missing = Request::kinesis("ListTagsForStream", json!({"StreamName": "gone"}));
    assert_eq!(stage.call(&missing), error("ResourceNotFoundException"));
}
