//! ARNs of streams, keys and roles: what is accepted, what is refused, and what is printed.

use super::*;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ROLE: &str = "arn:aws:iam::111122223333:role/stream-encryption";

#[test]
fn stream_arn_round_trips() {
    for arn in [
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders",
        "arn:aws:kinesis:ap-southeast-2:111122223333:stream/a.b_c-D9",
        "arn:aws-us-gov:firehose:us-gov-west-1:111122223333:deliverystream/x",
        "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/x",
    ] {
        assert_eq!(arn.parse::<StreamArn>().unwrap().to_string(), arn);
    }
}

#[test]
fn region_prefix_determines_partition() {
    for (region, partition) in [
        ("eu-west-1", "aws"),
        ("us-east-2", "aws"),
        // A region that AWS does not have today.
        ("zz-central-12", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eusc-de-east-1", "aws-eusc"),
    ] {
        let region: Region = region.parse().unwrap();
        assert_eq!(region.partition().as_str(), partition, "{region}");
        let arn = |partition: &str| format!("arn:{partition}:kinesis:{region}:111122223333:stream/x");
        assert!(arn(partition).parse::<StreamArn>().is_ok(), "{region}");
        let other = if partition == "aws" { "aws-cn" } else { "aws" };
        let refused = arn(other).parse::<StreamArn>();
        assert!(matches!(refused, Err(ParseError::OtherPartition(..))), "{refused:?}");
    }
}

#[test]
fn stream_arn_parts_are_parsed() {
    let arn: StreamArn =
        "arn:aws-us-gov:firehose:us-gov-west-1:111122223333:deliverystream/x".parse().unwrap();
    let parts = [arn.partition.as_str(), arn.region.as_str(), arn.account.as_str(), arn.name()];
    assert_eq!(parts, ["aws-us-gov", "us-gov-west-1", "111122223333", "x"]);
    assert_eq!(arn.service, Service::Firehose);
}

#[test]
fn invalid_stream_arn_is_rejected() {
    let long = format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{}", "a".repeat(65));
    for arn in [
        "",
        "orders",
        "arn:aws:s3:::bucket",
        "arn:aws:firehose:eu-west-1:111122223333:stream/orders",
        "arn:aws:kinesis:eu-west-1:111122223333:deliverystream/orders",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/orders/consumer/x:1",
        "arn:aws:kinesis:eu-west-1:11112222333:stream/orders",
        "arn:aws:kinesis:euwest1:111122223333:stream/orders",
        "arn:gcp:kinesis:eu-west-1:111122223333:stream/orders",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/",
        "xrn:aws:kinesis:eu-west-1:111122223333:stream/orders",
        &long,
    ] {
        assert!(arn.parse::<StreamArn>().is_err(), "{arn}");
    }
}

#[test]
fn key_arn_round_trips_and_alias_arn_is_rejected() {
    assert_eq!(KEY.parse::<KeyArn>().unwrap().to_string(), KEY);
    for bad in [
        "",
        "1234abcd",
        "arn:aws:kms:eu-west-1:111122223333:alias/orders",
        "arn:aws:kms:eu-west-1:111122223333:key/",
        "arn:aws:s3:eu-west-1:111122223333:key/x",
    ] {
        assert!(bad.parse::<KeyArn>().is_err(), "{bad}");
    }
}

#[test]
fn alias_of_aws_managed_key_is_rejected() {
    assert!(alias("alias/orders/2026").is_ok());
    for bad in ["orders", "alias/", "alias/aws/kinesis", "alias/a b"] {
        assert!(alias(bad).is_err(), "{bad}");
    }
}

#[test]
fn role_arn_round_trips() {
    for arn in [
        ROLE,
        "arn:aws:iam::111122223333:role/a",
        "arn:aws-cn:iam::111122223333:role/teams/data/stream-encryption",
        "arn:aws-us-gov:iam::111122223333:role/+=,.@_-9",
        "arn:aws:iam::111122223333:role/a:b/c",
    ] {
        assert_eq!(arn.parse::<RoleArn>().unwrap().to_string(), arn);
    }
}

#[test]
fn invalid_role_arn_is_rejected() {
    let longest_name = format!("arn:aws:iam::111122223333:role/{}", "a".repeat(64));
    let longest_path = format!("arn:aws:iam::111122223333:role/{}/a", "a".repeat(510));
    for arn in [&longest_name, &longest_path] {
        assert!(arn.parse::<RoleArn>().is_ok(), "{arn}");
    }
    for arn in [
        "",
        "stream-encryption",
        "arn:aws:iam::111122223333:role",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role/teams/",
        "arn:aws:iam::111122223333:role//a",
        "arn:aws:iam::111122223333:role/a//b",
        "arn:aws:iam::111122223333:role/*",
        "arn:aws:iam::111122223333:role/*/b",
        "arn:aws:iam::111122223333:root",
        "arn:aws:iam::*:role/a",
        "arn:aws:iam::111122223333:roles/a",
        "arn:aws:iam::111122223333:user/a",
        "arn:aws:sts::111122223333:assumed-role/a/session",
        "arn:aws:iam:eu-west-1:111122223333:role/a",
        "arn:aws:iam::11112222333:role/a",
        "arn:gcp:iam::111122223333:role/a",
        "xrn:aws:iam::111122223333:role/a",
        "arn:aws:iam::111122223333:role/a b",
        "arn:aws:iam::111122223333:role/a/b:c",
        "arn:aws:iam::111122223333:role/ä",
        "arn:aws:iam::111122223333:role/a b/c",
        &longest_name.replace("role/", "role/a"),
        &longest_path.replace("role/", "role/a"),
    ] {
        assert!(arn.parse::<RoleArn>().is_err(), "{arn}");
    }
}
