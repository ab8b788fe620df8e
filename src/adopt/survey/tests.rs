//! The words of problems. `tests/suite/adopt` surveys the simulated AWS.

use stream_encryption_core::model::service::Operation;

use super::*;

fn error(kind: ErrorKind, code: &str) -> AwsError {
    let message = "AWS's words".to_owned();
    AwsError {
        operation: Operation::DescribeDeliveryStream,
        kind,
        code: Some(code.to_owned()),
        message,
        request_id: None,
    }
}

fn stream(name: &str) -> StreamArn {
    format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{name}").parse().unwrap()
}

#[test]
fn equal_failures_are_one_problem() {
    let denied = || error(ErrorKind::Denied, "AccessDeniedException");
    let failed = [
        (stream("a"), denied()),
        (stream("b"), error(ErrorKind::Transient, "InternalFailure")),
        (stream("c"), denied()),
    ];
    assert_eq!(
        summary(&failed),
        [
            "a and 1 more streams: firehose:DescribeDeliveryStream failed: AccessDeniedException",
            "b: firehose:DescribeDeliveryStream failed: InternalFailure",
        ]
    );
}

#[test]
fn rejected_credentials_hint_at_a_disabled_region() {
    let text = described(&error(ErrorKind::CredentialsRejected, "UnrecognizedClientException"));
    assert!(text.contains("AWS's words") && text.contains("has not enabled this region"), "{text}");
    let text = described(&error(ErrorKind::Denied, "AccessDeniedException"));
    assert_eq!(text, "firehose:DescribeDeliveryStream failed: AccessDeniedException: AWS's words");
}

#[test]
fn requests_are_those_of_no_resource_of_the_operator() {
    let place =
        Place { account: AwsAccount::of(&stream("a")), region: "eu-west-1".parse().unwrap(), role: None };
    assert_eq!(place.principal().namespace, "");
}
