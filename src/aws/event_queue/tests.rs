//! Requests to SQS and their responses, in the forms that AWS documents.

use std::time::Duration;

use aws_sdk_sqs::config::SharedHttpClient;
use aws_smithy_http_client::test_util::NeverClient;
use serde_json::json;
use stream_encryption_core::model::aws_error::ErrorKind;

use super::super::replay::{ReplayClient, Sent, config, sender};
use super::*;

const URL: &str = "https://sqs.eu-central-1.amazonaws.com/111122223333/stream-encryption-events";

fn queue(recorded: &ReplayClient) -> EventQueue {
    EventQueue::new(&recorded.config(), sender(), &URL.parse().unwrap(), &"eu-west-1".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn messages_are_received_by_long_polling() {
    let message = |number: u32| {
        json!({
            "MessageId": format!("id-{number}"), "ReceiptHandle": format!("receipt-{number}"), "Body": "{}",
            "MD5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
        })
    };
    let recorded = ReplayClient::answers([
        (200, json!({"Messages": [message(1), message(2)]}).to_string()),
        (200, "{}".to_owned()),
    ]);
    let queue = queue(&recorded);
    let received = queue.receive().await.unwrap();
    let expected = |number: u32| Message { body: "{}".to_owned(), receipt: format!("receipt-{number}") };
    assert_eq!(received, [expected(1), expected(2)]);
    assert_eq!(queue.receive().await.unwrap(), []);
    let sent = &recorded.sent()[0];
    assert_eq!(
        (sent.host.as_str(), sent.operation.as_str()),
        ("sqs.eu-central-1.amazonaws.com", "ReceiveMessage")
    );
    assert_eq!(sent.body, json!({"QueueUrl": URL, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20}));
}

#[tokio::test(start_paused = true)]
async fn finished_messages_are_deleted_in_one_request() {
    let recorded = ReplayClient::answers([(
        200,
        json!({"Successful": [{"Id": "0"}, {"Id": "1"}], "Failed": []}).to_string(),
    )]);
    assert_eq!(queue(&recorded).delete(&["receipt-1".to_owned(), "receipt-2".to_owned()]).await, []);
    let [sent] = recorded.sent().try_into().unwrap();
    assert_eq!(sent.operation, "DeleteMessageBatch");
    let entries =
        json!([{"Id": "0", "ReceiptHandle": "receipt-1"}, {"Id": "1", "ReceiptHandle": "receipt-2"}]);
    assert_eq!(sent.body, json!({"QueueUrl": URL, "Entries": entries}));
}

#[tokio::test(start_paused = true)]
async fn message_that_sqs_does_not_delete_is_an_error() {
    for (is_sender_fault, code, kind) in
        [(true, "ReceiptHandleIsInvalid", ErrorKind::Invalid), (false, "InternalError", ErrorKind::Transient)]
    {
        let failed = json!({"Id": "1", "SenderFault": is_sender_fault, "Code": code, "Message": "recorded"});
        let answer = json!({"Successful": [{"Id": "0"}], "Failed": [failed]});
        let recorded = ReplayClient::answers([(200, answer.to_string())]);
        let receipts = ["receipt-1".to_owned(), "receipt-2".to_owned()];
        let [error] = queue(&recorded).delete(&receipts).await.try_into().unwrap();
        assert_eq!((error.operation, error.kind), (Operation::DeleteMessage, kind));
        assert_eq!((error.code.as_deref(), error.message.as_str()), (Some(code), "recorded"));
    }
}

#[tokio::test(start_paused = true)]
async fn message_that_is_not_deleted_delays_no_other_deletion() {
    let failed =
        json!({"Id": "3", "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "recorded"});
    let partly = (200, json!({"Successful": [], "Failed": [failed]}).to_string());
    let denied = (400, json!({"__type": "AccessDeniedException", "message": "recorded"}).to_string());
    let all = (200, json!({"Successful": [], "Failed": []}).to_string());
    let receipts: Vec<String> = (0..15).map(|number| format!("receipt-{number}")).collect();
    for (first, kind, sizes) in
        [(partly, ErrorKind::Invalid, vec![10, 5]), (denied, ErrorKind::Denied, vec![10])]
    {
        let recorded = ReplayClient::answers([first, all.clone()]);
        let errors = queue(&recorded).delete(&receipts).await;
        assert_eq!(errors.iter().map(|error| error.kind).collect::<Vec<_>>(), [kind]);
        let size = |sent: Sent| sent.body["Entries"].as_array().unwrap().len();
        assert_eq!(recorded.sent().into_iter().map(size).collect::<Vec<_>>(), sizes, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn state_of_the_queue_is_read() {
    let attributes = json!({
        "ApproximateNumberOfMessages": "7", "ApproximateNumberOfMessagesNotVisible": "2", "VisibilityTimeout": "30",
        "Policy": "{}", "QueueArn": "arn:aws:sqs:eu-central-1:111122223333:stream-encryption-events",
    });
    let recorded = ReplayClient::answers([(200, json!({ "Attributes": attributes }).to_string())]);
    let expected = QueueState {
        waiting: Some(7),
        received: Some(2),
        policy: Some("{}".to_owned()),
        visibility_timeout: Some(30),
    };
    assert_eq!(queue(&recorded).state().await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_queue_are_classified() {
    for (code, kind) in [
        ("com.amazonaws.sqs#QueueDoesNotExist", ErrorKind::NotFound),
        ("AccessDeniedException", ErrorKind::Denied),
        ("ExpiredToken", ErrorKind::CredentialsRejected),
        ("com.amazonaws.sqs#RequestThrottled", ErrorKind::Throttled),
    ] {
        let recorded =
            ReplayClient::answers([(400, json!({"__type": code, "message": "recorded"}).to_string())]);
        assert_eq!(queue(&recorded).receive().await.unwrap_err().kind, kind, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_for_messages_outlasts_the_long_poll() {
    let start = tokio::time::Instant::now();
    let never = config(SharedHttpClient::new(NeverClient::new()));
    let silent = EventQueue::new(&never, sender(), &URL.parse().unwrap(), &"eu-west-1".parse().unwrap());
    let error = silent.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    let waited = start.elapsed();
    assert!(waited >= RECEIVE_DEADLINE && waited < RECEIVE_DEADLINE + Duration::from_secs(2), "{waited:?}");
}

#[test]
fn region_of_the_queue_is_that_of_its_url() {
    for (url, region) in [
        (URL, Some("eu-central-1")),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/111122223333/events", Some("us-gov-west-1")),
        ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/events", Some("cn-north-1")),
        ("https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com/111122223333/events", Some("eu-west-1")),
        ("https://eu-west-2.queue.amazonaws.com/111122223333/events", Some("eu-west-2")),
        ("https://cn-north-1.queue.amazonaws.com.cn/111122223333/events", Some("cn-north-1")),
        ("https://queue.amazonaws.com/111122223333/events", Some("us-east-1")),
        ("http://127.0.0.1:4566/111122223333/events", None),
    ] {
        let queue: QueueUrl = url.parse().unwrap();
        assert_eq!(queue.region.map(|region| region.to_string()), region.map(str::to_owned), "{url}");
    }
}

#[test]
fn text_that_is_no_queue_url_is_refused() {
    for text in [
        "",
        "stream-encryption-events",
        "arn:aws:sqs:eu-west-1:111122223333:events",
        "https://sqs.eu-west-1.amazonaws.com",
        "https://sqs.eu-west-1.amazonaws.com/111122223333",
        "https://sqs.eu-west-1.amazonaws.com/1111/events",
        "https://sqs.eu-west-1.amazonaws.com/111122223333/events/more",
        "https://sqs.eu-west-1.amazonaws.com/111122223333/a b",
        "https:///111122223333/events",
    ] {
        assert!(text.parse::<QueueUrl>().is_err(), "{text:?}");
    }
}
