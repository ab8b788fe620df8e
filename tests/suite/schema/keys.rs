//! Validation of `spec.key`.

use super::{Refused, Taken, judge};

const LEAVE_OUT: &str = "arn, alias and objectRef must not be set when type is AWS_OWNED_CMK";
const ONE_OF: &str = "exactly one of arn, alias, objectRef must be set when type is CUSTOMER_MANAGED_CMK";
const WRITE_ARN: &str =
    "must be the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/ID); use alias for an alias";
const WRITE_ALIAS: &str =
    "must be the alias of a customer managed key (alias/NAME); use type: AWS_OWNED_CMK for a key of AWS";
const WRITE_OBJECT: &str =
    "must be the name of a Key object: only a-z, 0-9, '-', '.', starting and ending with a letter or digit";

/// A spec with a key.
const KEY: &str = "{stream: {service: Firehose, name: orders}, key: ...}";
/// A spec with a key of a customer.
const CUSTOMER: &str = "{stream: {service: Firehose, name: orders}, key: {type: CUSTOMER_MANAGED_CMK, ...}}";
/// A spec with a reference to an object of ACK.
const ACK: &str = "{stream: {service: Firehose, name: orders}, key: {type: CUSTOMER_MANAGED_CMK, objectRef: {group: kms.services.k8s.aws, ...}}}";

#[tokio::test]
async fn key_is_named_in_exactly_one_way() {
    judge(
        KEY,
        &[
            ("the AWS-owned key", "{type: AWS_OWNED_CMK}", Taken),
            ("no type", "{alias: alias/orders}", Refused("spec.key.type: Required value")),
            (
                "a type that is none",
                "{type: AWS_MANAGED_CMK}",
                Refused(r#"supported values: "AWS_OWNED_CMK", "CUSTOMER_MANAGED_CMK""#),
            ),
            (
                "an ARN with the AWS-owned key",
                "{type: AWS_OWNED_CMK, arn: 'arn:aws:kms:eu-west-1:111122223333:key/1'}",
                Refused(LEAVE_OUT),
            ),
            (
                "an alias with the AWS-owned key",
                "{type: AWS_OWNED_CMK, alias: alias/orders}",
                Refused(LEAVE_OUT),
            ),
            (
                "a reference with the AWS-owned key",
                "{type: AWS_OWNED_CMK, objectRef: {group: kms.services.k8s.aws, kind: Key, name: orders}}",
                Refused(LEAVE_OUT),
            ),
            ("a customer managed key without name", "{type: CUSTOMER_MANAGED_CMK}", Refused(ONE_OF)),
            (
                "a field that does not exist",
                "{type: AWS_OWNED_CMK, id: '1'}",
                Refused(r#"unknown field "spec.key.id""#),
            ),
            ("a key as a text", "alias/orders", Refused("spec.key")),
        ],
    )
    .await;
    judge(
        CUSTOMER,
        &[
            (
                "a key by ARN",
                "arn: 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'",
                Taken,
            ),
            (
                "a multi-region key",
                "arn: 'arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab'",
                Taken,
            ),
            ("a key by alias", "alias: alias/orders", Taken),
            ("a key of ACK", "objectRef: {group: kms.services.k8s.aws, kind: Key, name: orders}", Taken),
            (
                "a customer managed key with two names",
                "arn: 'arn:aws:kms:eu-west-1:111122223333:key/1', alias: alias/orders",
                Refused(ONE_OF),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn arn_alias_and_reference_must_name_a_key() {
    judge(
        CUSTOMER,
        &[
            (
                "the ARN of an alias",
                "arn: 'arn:aws:kms:eu-west-1:111122223333:alias/orders'",
                Refused(WRITE_ARN),
            ),
            (
                "a line break after the ARN",
                "arn: \"arn:aws:kms:eu-west-1:111122223333:key/1\\n\"",
                Refused(WRITE_ARN),
            ),
            ("an empty ARN", "arn: ''", Refused("spec.key.arn")),
            ("an alias of AWS", "alias: alias/aws/kinesis", Refused(WRITE_ALIAS)),
            ("an alias without its prefix", "alias: orders-key", Refused(WRITE_ALIAS)),
            ("an alias without name", "alias: alias/", Refused("spec.key.alias")),
            (
                "a reference to another version",
                "objectRef: {group: kms.services.k8s.aws/v1, kind: Key, name: orders}",
                Refused("must be kms.services.k8s.aws (ACK) or kms.aws.m.upbound.io (Crossplane)"),
            ),
            (
                "a region that is longer than any",
                "arn: 'arn:aws:kms:abcdefghijkl-abcdefghijkl-abcdefg-1:111122223333:key/1'",
                Refused(WRITE_ARN),
            ),
        ],
    )
    .await;
    judge(
        ACK,
        &[
            ("a reference to an alias of ACK", "kind: Alias, name: orders", Refused("must be Key")),
            (
                "a reference into another namespace",
                "kind: Key, name: orders, namespace: other",
                Refused(r#"unknown field "spec.key.objectRef.namespace""#),
            ),
            ("a reference without name", "kind: Key", Refused("spec.key.objectRef.name: Required value")),
            ("a reference by a path", "kind: Key, name: ../../other/keys/orders", Refused(WRITE_OBJECT)),
            ("a reference by a long name with dots", "kind: Key, name: team-a.orders.2026", Taken),
        ],
    )
    .await;
}
