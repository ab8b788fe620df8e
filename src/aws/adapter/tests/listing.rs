//! The lists of streams and tags: their pages, their parameters and their errors.

use super::super::super::pages::Tag;
use super::*;

/// Returns one page of each of these lists of names or tags, the last one without a successor.
fn pages(items: &str, has_more: &str, lists: &[serde_json::Value]) -> ReplayClient {
    ReplayClient::answers(lists.iter().enumerate().map(|(number, list)| {
        let more = number + 1 < lists.len();
        (200, json!({ items: list, has_more: more }).to_string())
    }))
}

async fn streams(recorded: &ReplayClient, service: Service) -> Result<Vec<String>, AwsError> {
    let aws = aws(recorded.http_client()).await;
    let streams = aws.list_streams(service, &ours_account(), &ours().region, &somebody()).await?;
    Ok(streams.iter().map(ToString::to_string).collect())
}

#[tokio::test(start_paused = true)]
async fn page_of_streams_continues_after_the_last_name() {
    let lists = [json!(["a", "b"]), json!(["c"])];
    for (service, items, has_more, after, arn) in [
        (
            Service::Firehose,
            "DeliveryStreamNames",
            "HasMoreDeliveryStreams",
            "ExclusiveStartDeliveryStreamName",
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream",
        ),
        (
            Service::Kinesis,
            "StreamNames",
            "HasMoreStreams",
            "ExclusiveStartStreamName",
            "arn:aws:kinesis:eu-west-1:111122223333:stream",
        ),
    ] {
        let recorded = pages(items, has_more, &lists);
        assert_eq!(
            streams(&recorded, service).await.unwrap(),
            ["a", "b", "c"].map(|name| format!("{arn}/{name}"))
        );
        let bodies: Vec<_> = recorded.sent().into_iter().map(|sent| sent.body).collect();
        assert_eq!(bodies, [json!({"Limit": 1000}), json!({"Limit": 1000, after: "b"})]);
    }
}

#[tokio::test(start_paused = true)]
async fn account_without_streams_has_an_empty_list() {
    let recorded = pages("StreamNames", "HasMoreStreams", &[json!([])]);
    assert_eq!(streams(&recorded, Service::Kinesis).await.unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn empty_page_with_a_successor_is_an_error() {
    let recorded = pages("StreamNames", "HasMoreStreams", &[json!(["a"]), json!([]), json!(["b"])]);
    let error = streams(&recorded, Service::Kinesis).await.unwrap_err();
    assert_eq!((error.operation, error.code.as_deref()), (Op::ListStreams, Some("InvalidResponse")));
    assert_eq!(recorded.sent().len(), 2);
}

/// An emulator or a proxy may ignore where the page is to start.
#[tokio::test(start_paused = true)]
async fn page_that_is_returned_again_is_an_error() {
    let recorded = pages("StreamNames", "HasMoreStreams", &[json!(["a", "b"]), json!(["a", "b"]), json!([])]);
    let error = streams(&recorded, Service::Kinesis).await.unwrap_err();
    assert_eq!((error.operation, error.code.as_deref()), (Op::ListStreams, Some("InvalidResponse")));
    assert_eq!(recorded.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn name_that_no_stream_can_have_is_an_error() {
    let recorded = pages("DeliveryStreamNames", "HasMoreDeliveryStreams", &[json!(["a/b"])]);
    let error = streams(&recorded, Service::Firehose).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("InvalidResponse"));
}

#[tokio::test(start_paused = true)]
async fn page_of_tags_continues_after_the_last_key() {
    let tag = |key: &str, value: &str| Tag { key: key.to_owned(), value: value.to_owned() };
    let lists = [json!([{"Key": "team", "Value": "data"}]), json!([{"Key": "without-value"}])];
    let firehose = json!({"DeliveryStreamName": "orders", "Limit": 50});
    let kinesis = json!({"StreamARN": stream(Service::Kinesis).to_string(), "Limit": 50});
    for (service, first) in [(Service::Firehose, firehose), (Service::Kinesis, kinesis)] {
        let recorded = pages("Tags", "HasMoreTags", &lists);
        let aws = aws(recorded.http_client()).await;
        let tags = aws.list_tags(&stream(service), &somebody()).await.unwrap();
        assert_eq!(tags, [tag("team", "data"), tag("without-value", "")]);
        let mut second = first.clone();
        second["ExclusiveStartTagKey"] = json!("team");
        let bodies: Vec<_> = recorded.sent().into_iter().map(|sent| sent.body).collect();
        assert_eq!(bodies, [first, second], "{service:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_that_is_gone_has_no_tags() {
    let recorded = ReplayClient::answers([(400, r#"{"__type":"ResourceNotFoundException"}"#)]);
    let aws = aws(recorded.http_client()).await;
    assert_eq!(aws.list_tags(&stream(Service::Firehose), &somebody()).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn survey_leaves_half_of_the_limit_to_the_operator() {
    let recorded =
        ReplayClient::answers((0..21).map(|_| (200, json!({"Tags": [], "HasMoreTags": false}).to_string())));
    let aws = aws(recorded.http_client()).await;
    let start = Instant::now();
    for _ in 0..21 {
        aws.list_tags(&stream(Service::Firehose), &somebody()).await.unwrap();
    }
    // 80 % of five a second, and half of that.
    let elapsed = start.elapsed().as_secs_f64();
    assert!((9.0..=11.0).contains(&elapsed), "{elapsed}");
}
