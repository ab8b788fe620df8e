//! Validation of `spec.stream` and of the fields that say what to do with it.

use super::{ENCRYPTIONS, Refused, Taken, encryption, judge, judge_objects};
use serde_json::json;

const WRITE_ARN: &str = "must be the ARN of a Firehose stream (arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME) or of a Kinesis data stream (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)";
const ONE_OF: &str = "exactly one of arn or (service, name) must be set";
const TOGETHER: &str = "service and name must be set together";
const NAME: &str = "must contain only a-z, A-Z, 0-9, '_', '.', '-'; use arn for an ARN";
const REGION: &str = "must be an AWS region, for example eu-west-1";

#[tokio::test]
async fn stream_is_named_in_exactly_one_way() {
    judge("...", &[
        ("a Firehose stream by its ARN", "stream: {arn: 'arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders'}", Taken),
        ("a Kinesis stream by its ARN", "stream: {arn: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders'}", Taken),
        ("a stream in China", "stream: {arn: 'arn:aws-cn:firehose:cn-north-1:111122223333:deliverystream/orders'}", Taken),
        ("a stream of the American government", "stream: {arn: 'arn:aws-us-gov:kinesis:us-gov-west-1:111122223333:stream/orders'}", Taken),
        ("a stream in an isolated partition", "stream: {arn: 'arn:aws-iso-b:kinesis:us-isob-east-1:111122223333:stream/orders'}", Taken),
        ("every character that a name may have", "stream: {arn: 'arn:aws:kinesis:eu-west-1:111122223333:stream/aZ09_.-'}", Taken),
        ("a Firehose stream by its name", "stream: {service: Firehose, name: orders}", Taken),
        ("a Kinesis stream by its name", "stream: {service: Kinesis, name: orders}", Taken),
        ("a stream by name, in a region", "stream: {service: Kinesis, name: orders, region: ap-southeast-2}", Taken),
        ("a stream by name, in a government region", "stream: {service: Kinesis, name: orders, region: us-gov-east-1}", Taken),
        ("neither ARN nor name", "stream: {}", Refused(ONE_OF)),
        ("only a service", "stream: {service: Firehose}", Refused(ONE_OF)),
        ("only a region", "stream: {region: eu-west-1}", Refused(ONE_OF)),
        ("ARN and name", "stream: {arn: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders', service: Kinesis, name: orders}", Refused(ONE_OF)),
        ("a service beside the ARN", "stream: {arn: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders', service: Kinesis}", Refused(TOGETHER)),
        ("a name without its service", "stream: {name: orders}", Refused(TOGETHER)),
        ("a region beside the ARN", "stream: {arn: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders', region: eu-west-1}", Refused("region must not be set with arn")),
        ("a service that is none", "stream: {service: SQS, name: orders}", Refused(r#"supported values: "Firehose", "Kinesis""#)),
        ("a service in lower case", "stream: {service: firehose, name: orders}", Refused(r#"supported values: "Firehose", "Kinesis""#)),
        ("no stream", "encryption: Enabled", Refused("spec.stream: Required value")),
        ("a stream that is null", "stream: null", Refused("spec.stream")),
        ("an ARN where the stream should be", "stream: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders'", Refused("spec.stream")),
        ("a name that is a number", "stream: {service: Kinesis, name: 42}", Refused("spec.stream.name")),
        ("a field that does not exist", "stream: {arn: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders', account: '1'}", Refused(r#"unknown field "spec.stream.account""#)),
    ])
    .await;
}

#[tokio::test]
async fn arn_must_name_a_stream() {
    judge(
        "stream: {arn: ...}",
        &[
            ("a wildcard as name", "'arn:aws:kinesis:eu-west-1:111122223333:stream/*'", Refused(WRITE_ARN)),
            (
                "a region of China in the partition aws",
                "'arn:aws:kinesis:cn-north-1:111122223333:stream/orders'",
                Refused(WRITE_ARN),
            ),
            (
                "a region that AWS may have one day",
                "'arn:aws:kinesis:zz-central-12:111122223333:stream/orders'",
                Taken,
            ),
            (
                "a line break at its end",
                "\"arn:aws:kinesis:eu-west-1:111122223333:stream/orders\\n\"",
                Refused(WRITE_ARN),
            ),
            (
                "a second line that is good",
                "\"x\\narn:aws:kinesis:eu-west-1:111122223333:stream/orders\"",
                Refused(WRITE_ARN),
            ),
            (
                "a letter of another alphabet",
                "'arn:aws:kinesis:eu-west-1:111122223333:stream/оrders'",
                Refused(WRITE_ARN),
            ),
            (
                "digits of another alphabet",
                "'arn:aws:kinesis:eu-west-1:١١١١٢٢٢٢٣٣٣٣:stream/orders'",
                Refused(WRITE_ARN),
            ),
            ("nothing", "''", Refused("spec.stream.arn")),
        ],
    )
    .await;
}

#[tokio::test]
async fn stream_name_and_region_are_validated() {
    judge("stream: {...}", &[
        ("a name with a line break", "service: Kinesis, name: \"orders\\n\"", Refused(NAME)),
        ("a name with an umlaut", "service: Kinesis, name: aufträge", Refused(NAME)),
        (
            "an ARN as name",
            "service: Kinesis, name: 'arn:aws:kinesis:eu-west-1:111122223333:stream/orders'",
            Refused(NAME),
        ),
        ("no name", "service: Kinesis, name: ''", Refused("spec.stream.name")),
        ("a region in words", "service: Kinesis, name: orders, region: Ireland", Refused(REGION)),
        (
            "an availability zone as region",
            "service: Kinesis, name: orders, region: eu-west-1a",
            Refused(REGION),
        ),
        (
            "a region that is too long",
            "service: Kinesis, name: orders, region: abcdefghijkl-abcdefghijkl-abcdefg-1",
            Refused("spec.stream.region"),
        ),
        (
            "a region that is too long, in an ARN",
            "arn: 'arn:aws:kinesis:abcdefghijkl-abcdefghijkl-abcdefg-1:111122223333:stream/orders'",
            Refused(WRITE_ARN),
        ),
        (
            "a partition that is too long, in an ARN",
            "arn: 'arn:aws-abcdefghijkl-abcdefghijkl-abcdef:kinesis:eu-west-1:111122223333:stream/orders'",
            Refused(WRITE_ARN),
        ),
    ])
    .await;
}

#[tokio::test]
async fn stream_name_length_depends_on_service() {
    let mut rows = Vec::new();
    for (service, arn, longest, too_long) in [
        (
            "Firehose",
            "arn:aws:firehose:eu-west-1:111122223333:deliverystream/",
            64,
            "a Firehose stream name must be no more than 64 characters",
        ),
        (
            "Kinesis",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/",
            128,
            "Too long: may not be more than 128 bytes",
        ),
    ] {
        for (length, verdicts) in [
            (1, [Taken, Taken]),
            (longest, [Taken, Taken]),
            (longest + 1, [Refused(too_long), Refused(WRITE_ARN)]),
            (
                1_000_000,
                [
                    Refused("Too long: may not be more than 128 bytes"),
                    Refused("Too long: may not be more than 256 bytes"),
                ],
            ),
        ] {
            let name = "a".repeat(length);
            let by_name = json!({"stream": {"service": service, "name": name}});
            let by_arn = json!({"stream": {"arn": format!("{arn}{name}")}});
            for (spec, verdict) in [by_name, by_arn].iter().zip(verdicts) {
                rows.push((format!("{service}, {length} characters"), encryption("judged", spec), verdict));
            }
        }
    }
    judge_objects(ENCRYPTIONS, rows).await;
}

#[tokio::test]
async fn enum_and_bool_fields_reject_other_values() {
    judge("{stream: {service: Kinesis, name: orders}, ...}", &[
        ("all that can be written", "encryption: Enabled, mode: Observe, deletionPolicy: Retain, suspend: true, verification: PutRecord", Taken),
        ("turned off", "encryption: Disabled, deletionPolicy: Disable", Taken),
        ("true as encryption", "encryption: true", Refused("spec.encryption")),
        ("enabled in lower case", "encryption: enabled", Refused(r#"supported values: "Enabled", "Disabled""#)),
        ("another word for drift", "mode: Ignore", Refused(r#"supported values: "Enforce", "Observe""#)),
        ("the deletion policy of CloudFormation", "deletionPolicy: Delete", Refused(r#"supported values: "Retain", "Disable""#)),
        ("a deletion that would need a call where none may be made", "mode: Observe, deletionPolicy: Disable", Refused("deletionPolicy: Disable requires mode: Enforce")),
        ("yes as suspend", "suspend: 'yes'", Refused("spec.suspend")),
        ("true as verification", "verification: true", Refused("spec.verification")),
        ("a field that does not exist", "retries: 3", Refused(r#"unknown field "spec.retries""#)),
        ("a field in another spelling", "deletion_policy: Retain", Refused(r#"unknown field "spec.deletion_policy""#)),
    ])
    .await;
}

#[tokio::test]
async fn resource_without_spec_is_rejected() {
    let object = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": {"name": "judged"},
    });
    judge_objects(ENCRYPTIONS, [("no spec", object, Refused("spec: Required value"))]).await;
}
