//! Validation of `spec.key`.

use super::{Refused, Row, Taken, judge};

const LEAVE_OUT: &str = "arn, alias and objectRef must not be set when type is AWS_OWNED_CMK";
const ONE_OF: &str = "exactly one of arn, alias, objectRef must be set when type is CUSTOMER_MANAGED_CMK";
const WRITE_ARN: &str =
    "must be the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/ID); use alias for an alias";
const WRITE_ALIAS: &str =
    "must be the alias of a customer managed key (alias/NAME); use type: AWS_OWNED_CMK for a key of AWS";
const WRITE_OBJECT: &str =
    "must be the name of a Key object: only a-z, 0-9, '-', '.', starting and ending with a letter or digit";

macro_rules! key {
    ($key:literal) => {
        concat!("{stream: {service: Firehose, name: orders}, key: ", $key, "}")
    };
}

const ACK: &str =
    key!("{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key, name: orders}}");

#[tokio::test]
async fn key_is_named_in_exactly_one_way() {
    let rows: &[Row] = &[
        ("the AWS-owned key", key!("{type: AWS_OWNED_CMK}"), Taken),
        (
            "a key by ARN",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, arn: 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'}"
            ),
            Taken,
        ),
        (
            "a multi-region key",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, arn: 'arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab'}"
            ),
            Taken,
        ),
        ("a key by alias", key!("{type: CUSTOMER_MANAGED_CMK, alias: alias/orders}"), Taken),
        ("a key of ACK", ACK, Taken),
        ("no type", key!("{alias: alias/orders}"), Refused("spec.key.type: Required value")),
        (
            "a type that is none",
            key!("{type: AWS_MANAGED_CMK}"),
            Refused(r#"supported values: "AWS_OWNED_CMK", "CUSTOMER_MANAGED_CMK""#),
        ),
        (
            "an ARN with the AWS-owned key",
            key!("{type: AWS_OWNED_CMK, arn: 'arn:aws:kms:eu-west-1:111122223333:key/1'}"),
            Refused(LEAVE_OUT),
        ),
        (
            "an alias with the AWS-owned key",
            key!("{type: AWS_OWNED_CMK, alias: alias/orders}"),
            Refused(LEAVE_OUT),
        ),
        (
            "a reference with the AWS-owned key",
            key!("{type: AWS_OWNED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key, name: orders}}"),
            Refused(LEAVE_OUT),
        ),
        ("a customer managed key without name", key!("{type: CUSTOMER_MANAGED_CMK}"), Refused(ONE_OF)),
        (
            "a customer managed key with two names",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, arn: 'arn:aws:kms:eu-west-1:111122223333:key/1', alias: alias/orders}"
            ),
            Refused(ONE_OF),
        ),
        (
            "a field that does not exist",
            key!("{type: AWS_OWNED_CMK, id: '1'}"),
            Refused(r#"unknown field "spec.key.id""#),
        ),
        ("a key as a text", key!("alias/orders"), Refused("spec.key")),
    ];
    judge(rows).await;
}

#[tokio::test]
async fn arn_alias_and_reference_must_name_a_key() {
    let rows: &[Row] = &[
        (
            "the ARN of an alias",
            key!("{type: CUSTOMER_MANAGED_CMK, arn: 'arn:aws:kms:eu-west-1:111122223333:alias/orders'}"),
            Refused(WRITE_ARN),
        ),
        (
            "a line break after the ARN",
            key!("{type: CUSTOMER_MANAGED_CMK, arn: \"arn:aws:kms:eu-west-1:111122223333:key/1\\n\"}"),
            Refused(WRITE_ARN),
        ),
        ("an empty ARN", key!("{type: CUSTOMER_MANAGED_CMK, arn: ''}"), Refused("spec.key.arn")),
        (
            "an alias of AWS",
            key!("{type: CUSTOMER_MANAGED_CMK, alias: alias/aws/kinesis}"),
            Refused(WRITE_ALIAS),
        ),
        (
            "an alias without its prefix",
            key!("{type: CUSTOMER_MANAGED_CMK, alias: orders-key}"),
            Refused(WRITE_ALIAS),
        ),
        (
            "an alias without name",
            key!("{type: CUSTOMER_MANAGED_CMK, alias: alias/}"),
            Refused("spec.key.alias"),
        ),
        (
            "a reference to another version",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws/v1, kind: Key, name: orders}}"
            ),
            Refused("must be kms.services.k8s.aws (ACK) or kms.aws.m.upbound.io (Crossplane)"),
        ),
        (
            "a reference to an alias of ACK",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Alias, name: orders}}"
            ),
            Refused("must be Key"),
        ),
        (
            "a reference into another namespace",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key, name: orders, namespace: other}}"
            ),
            Refused(r#"unknown field "spec.key.objectRef.namespace""#),
        ),
        (
            "a reference without name",
            key!("{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key}}"),
            Refused("spec.key.objectRef.name: Required value"),
        ),
        (
            "a reference by a path",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key, name: ../../other/keys/orders}}"
            ),
            Refused(WRITE_OBJECT),
        ),
        (
            "a reference by a long name with dots",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key, name: team-a.orders.2026}}"
            ),
            Taken,
        ),
        (
            "a region that is longer than any",
            key!(
                "{type: CUSTOMER_MANAGED_CMK, arn: 'arn:aws:kms:abcdefghijkl-abcdefghijkl-abcdefg-1:111122223333:key/1'}"
            ),
            Refused(WRITE_ARN),
        ),
    ];
    judge(rows).await;
}
