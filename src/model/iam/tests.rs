//! Which feature needs which actions, on what, and that no policy says more than was asked for.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::Feature::{Disable, Encrypt, Verify};
use super::*;

const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";
const CLICKS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const KINESIS_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/aaaabbbb-12ab-34cd-56ef-1234567890ab";
const ANY_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/*";

fn scope<S: AsRef<str>>(streams: &[S], keys: &[S], kinesis_keys: &[S]) -> Scope {
    let streams = streams.iter().map(|stream| stream.as_ref().parse().unwrap()).collect();
    let parsed = |keys: &[S]| keys.iter().map(|key| key.as_ref().parse().unwrap()).collect();
    Scope::new(streams, parsed(keys), parsed(kinesis_keys)).unwrap()
}

/// What a policy allows, in order: each action with its resources.
fn allowed(policy: &Policy) -> Vec<(&str, Vec<&str>)> {
    let says_something = |it: &Statement| !it.action.is_empty() && !it.resource.is_empty();
    assert!(policy.statement.iter().all(says_something), "{policy:?}");
    let statements = policy.statement.iter();
    statements.flat_map(|it| it.action.iter().map(|action| (action, it.resource.iter().collect()))).collect()
}

/// The condition of the statement that allows `action`, as JSON.
fn condition(policy: &Policy, action: &str) -> serde_json::Value {
    let it = policy.statement.iter().find(|it| it.action.iter().any(|other| other == action)).expect(action);
    serde_json::to_value(&it.condition).unwrap()
}

/// A sentence; streams, keys and features; what is then allowed, on what.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [Feature],
    Vec<(&'static str, Vec<&'static str>)>,
);

fn exactly(rows: Vec<Row>) {
    for (sentence, streams, keys, features, expected) in rows {
        assert_eq!(allowed(&policy(&scope(streams, keys, &[]), features)), expected, "{sentence}");
    }
}

const LOOK_AND_START: [(&str, &str); 2] =
    [("firehose:DescribeDeliveryStream", ORDERS), ("firehose:StartDeliveryStreamEncryption", ORDERS)];

/// Actions that are each on one resource.
fn each_on_one(rights: &[(&'static str, &'static str)]) -> Vec<(&'static str, Vec<&'static str>)> {
    rights.iter().map(|(action, resource)| (*action, vec![*resource])).collect()
}

#[test]
fn to_encrypt_is_allowed_with_what_service_and_key_need_and_nothing_else() {
    let look_at_clicks = ("kinesis:DescribeStreamSummary", vec![CLICKS]);
    exactly(vec![
        (
            "Firehose with the AWS-owned key needs nothing of KMS",
            &[ORDERS],
            &[],
            &[Encrypt],
            each_on_one(&LOOK_AND_START),
        ),
        (
            "Firehose with a customer managed key reads it and lets Firehose use it",
            &[ORDERS],
            &[KEY],
            &[Encrypt],
            [
                each_on_one(&LOOK_AND_START),
                each_on_one(&[("kms:DescribeKey", KEY), ("kms:CreateGrant", KEY)]),
            ]
            .concat(),
        ),
        (
            "Kinesis with the AWS managed key needs nothing of KMS, but its Start is about a key that nobody has named",
            &[CLICKS],
            &[],
            &[Encrypt],
            vec![look_at_clicks.clone(), ("kinesis:StartStreamEncryption", vec![CLICKS, ANY_KEY])],
        ),
        (
            "Kinesis with a customer managed key starts with that key alone, and makes no grant",
            &[CLICKS],
            &[KEY],
            &[Encrypt],
            vec![
                look_at_clicks,
                ("kinesis:StartStreamEncryption", vec![CLICKS, KEY]),
                ("kms:DescribeKey", vec![KEY]),
            ],
        ),
    ]);
}

#[test]
fn to_turn_off_and_to_write_a_record_are_allowed_only_where_asked_for_and_with_nothing_else() {
    exactly(vec![
        (
            "to turn Firehose off needs no key",
            &[ORDERS],
            &[KEY],
            &[Disable],
            each_on_one(&[("firehose:StopDeliveryStreamEncryption", ORDERS)]),
        ),
        (
            "to turn Kinesis off needs stream and key",
            &[CLICKS],
            &[KEY],
            &[Disable],
            vec![("kinesis:StopStreamEncryption", vec![CLICKS, KEY])],
        ),
        (
            "a record for Firehose with its own key needs nothing of KMS",
            &[ORDERS],
            &[],
            &[Verify],
            each_on_one(&[("firehose:PutRecord", ORDERS)]),
        ),
        (
            "a record for Firehose with a customer managed key takes a data key, and Firehose asks for kms:Decrypt too",
            &[ORDERS],
            &[KEY],
            &[Verify],
            each_on_one(&[
                ("firehose:PutRecord", ORDERS),
                ("kms:GenerateDataKey", KEY),
                ("kms:Decrypt", KEY),
            ]),
        ),
        (
            "a record for Kinesis with the AWS managed key needs nothing of KMS",
            &[CLICKS],
            &[],
            &[Verify],
            each_on_one(&[("kinesis:PutRecord", CLICKS)]),
        ),
        (
            "a record for Kinesis with a customer managed key takes a data key",
            &[CLICKS],
            &[KEY],
            &[Verify],
            each_on_one(&[("kinesis:PutRecord", CLICKS), ("kms:GenerateDataKey", KEY)]),
        ),
        ("no feature allows nothing", &[ORDERS, CLICKS], &[KEY], &[], vec![]),
    ]);
}

#[test]
fn features_services_and_keys_add_up() {
    for streams in [&[ORDERS][..], &[CLICKS], &[ORDERS, CLICKS]] {
        for keys in [&[][..], &[KEY]] {
            let scope = scope(streams, keys, &[]);
            let alone = |feature| policy(&scope, &[feature]).statement;
            let sum = [alone(Encrypt), alone(Disable), alone(Verify)].concat();
            assert_eq!(policy(&scope, &[Verify, Disable, Encrypt]).statement, sum, "{streams:?} {keys:?}");
        }
    }
}

#[test]
fn every_operation_on_streams_and_keys_stands_in_the_table_once() {
    let calls: Vec<Operation> = RIGHTS
        .iter()
        .flat_map(|right| right.actions)
        .filter_map(|action| match action {
            Action::Call(operation) => Some(*operation),
            Action::ForUs(_) => None,
        })
        .collect();
    for operation in Operation::EACH {
        let times = calls.iter().filter(|other| **other == operation).count();
        // Who one is, everybody may ask; which roles may be assumed is said by `hub`.
        let is_of_sts = operation.iam_action().starts_with("sts:");
        assert_eq!(times, usize::from(!is_of_sts), "{operation:?}");
    }
}

#[test]
fn the_key_of_aws_for_kinesis_can_be_named_beside_customer_managed_ones_or_alone() {
    for (keys, named) in [(&[][..], vec![CLICKS, KINESIS_KEY]), (&[KEY], vec![CLICKS, KEY, KINESIS_KEY])] {
        let policy = policy(&scope(&[CLICKS], keys, &[KINESIS_KEY]), &[Encrypt, Disable, Verify]);
        for action in ["kinesis:StartStreamEncryption", "kinesis:StopStreamEncryption"] {
            assert!(allowed(&policy).contains(&(action, named.clone())), "{action}");
        }
        // It is AWS's: nothing else is done with it.
        let others = allowed(&policy).into_iter().filter(|(action, _)| action.starts_with("kms:"));
        assert!(others.map(|(_, on)| on).all(|on| on == [KEY]));
    }
}

/// `alias/aws/kinesis` is one key; a pattern would widen the policy to all keys of the account.
#[test]
fn what_is_named_as_the_key_of_aws_for_kinesis_is_one_key_of_the_streams_account_and_region() {
    let streams: Vec<scope::StreamPattern> = vec![CLICKS.parse().unwrap()];
    let other_account = KINESIS_KEY.replace("111122223333", "444455556666");
    let other_region = KINESIS_KEY.replace("eu-west-1", "us-east-1");
    for (key, good) in
        [(KINESIS_KEY, true), (ANY_KEY, false), (&*other_account, false), (&*other_region, false)]
    {
        let made = Scope::new(streams.clone(), vec![], vec![key.parse().unwrap()]);
        assert_eq!(made.is_ok(), good, "{key}: {made:?}");
    }
}

#[test]
fn a_refused_stream_is_told_by_the_part_that_is_wrong() {
    use crate::model::stream::Malformed;
    use scope::Refused::{Part, Stream};

    let refusal = |text: &str| text.parse::<scope::StreamPattern>().unwrap_err();
    assert!(matches!(refusal(&ORDERS.replace("111122223333", "1111")), Part(Malformed::Account(_))));
    assert!(matches!(refusal(&ORDERS.replace("eu-west-1", "Ireland")), Part(Malformed::Region(_))));
    assert!(matches!(refusal(&ORDERS.replace("arn:aws:", "arn:nowhere:")), Part(Malformed::Partition(_))));
    for whole in ["orders", "arn:aws:s3:::orders/x", &ORDERS.replace("deliverystream", "stream")] {
        assert!(matches!(refusal(whole), Stream(_)), "{whole}");
    }
}

#[test]
fn a_region_without_a_key_does_not_widen_another_one() {
    let tokyo = "arn:aws:kinesis:ap-northeast-1:111122223333:stream/clicks";
    let policy = policy(&scope(&[CLICKS, tokyo], &[KEY], &[]), &[Encrypt]);
    let any_of_tokyo = ANY_KEY.replace("eu-west-1", "ap-northeast-1");
    let on = vec![CLICKS, tokyo, KEY, &any_of_tokyo];
    assert!(allowed(&policy).contains(&("kinesis:StartStreamEncryption", on)));
}

#[test]
fn a_key_serves_only_the_service_that_has_streams_in_its_region() {
    let tokyo = "arn:aws:kinesis:ap-northeast-1:111122223333:stream/clicks";
    let tokyo_key = KEY.replace("eu-west-1", "ap-northeast-1");
    let policy = policy(&scope(&[ORDERS, tokyo], &[KEY, &tokyo_key], &[]), &[Encrypt]);
    assert!(allowed(&policy).contains(&("kms:DescribeKey", vec![KEY, &tokyo_key])));
    assert!(allowed(&policy).contains(&("kms:CreateGrant", vec![KEY])));
    assert!(allowed(&policy).contains(&("kinesis:StartStreamEncryption", vec![tokyo, &tokyo_key])));
}

#[test]
fn keys_are_used_only_as_the_services_use_them() {
    let firehose = policy(&scope(&[ORDERS], &[KEY], &[]), &[Encrypt, Verify]);
    let kinesis = policy(&scope(&[CLICKS], &[KEY], &[]), &[Encrypt, Verify]);
    let through = serde_json::json!({"StringEquals": {"kms:ViaService": "firehose.eu-west-1.amazonaws.com"}});
    let for_stream = serde_json::json!({"StringLike": {"kms:EncryptionContext:aws:kinesis:arn": CLICKS}});
    let for_aws = serde_json::json!({"Bool": {"kms:GrantIsForAWSResource": "true"}});
    assert_eq!(condition(&firehose, "kms:CreateGrant"), for_aws);
    assert_eq!(condition(&firehose, "kms:GenerateDataKey"), through);
    assert_eq!(condition(&firehose, "kms:Decrypt"), through);
    assert_eq!(condition(&kinesis, "kms:GenerateDataKey"), for_stream);
    // The operator's own question, which comes through no service.
    assert_eq!(condition(&firehose, "kms:DescribeKey"), serde_json::json!({}));
}

#[test]
fn in_china_either_name_of_firehose_will_do() {
    let orders = ORDERS.replace("aws:firehose:eu-west-1", "aws-cn:firehose:cn-north-1");
    let key = KEY.replace("aws:kms:eu-west-1", "aws-cn:kms:cn-north-1");
    let policy = policy(&scope(&[&orders], &[&key], &[]), &[Verify]);
    let names = ["firehose.cn-north-1.amazonaws.com", "firehose.cn-north-1.amazonaws.com.cn"];
    let either = serde_json::json!({"StringEquals": {"kms:ViaService": names}});
    assert_eq!(condition(&policy, "kms:Decrypt"), either);
}

#[test]
fn the_policy_of_a_key_names_the_role_and_has_the_statements_about_keys() {
    let role: RoleArn = "arn:aws:iam::444455556666:role/stream-encryption".parse().unwrap();
    let scope = scope(&[ORDERS, CLICKS], &[KEY], &[]);
    let own = policy(&scope, &[Encrypt, Verify]);
    let of_key = key_policy(&scope, &[Encrypt, Verify], &role);
    let about_keys = |it: &&Statement| it.action.iter().all(|action| action.starts_with("kms:"));
    assert_eq!(of_key.statement.len(), 4);
    for (key, own) in of_key.statement.iter().zip(own.statement.iter().filter(about_keys)) {
        assert_eq!((&key.action, &key.condition), (&own.action, &own.condition));
        assert_eq!(key.principal, Some(Principal::Role(role.to_string())));
        assert_eq!(key.resource.iter().collect::<Vec<_>>(), ["*"]);
    }
}

fn any_stream() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["orders", "clicks-*", "*", "a.b_c"]);
    (any::<bool>(), region(), name).prop_map(|(firehose, region, name)| {
        let (service, kind) = if firehose { ("firehose", "deliverystream") } else { ("kinesis", "stream") };
        format!("arn:aws:{service}:{region}:111122223333:{kind}/{name}")
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let account = prop::sample::select(vec!["111122223333", "444455556666"]);
    let id = prop::sample::select(vec!["*", "1234abcd", "mrk-5678"]);
    (region(), account, id)
        .prop_map(|(region, account, id)| format!("arn:aws:kms:{region}:{account}:key/{id}"))
}

fn region() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["eu-west-1", "us-east-1", "ap-northeast-1"])
}

/// The region in an ARN.
fn region_of(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_policy_reaches_beyond_the_streams_the_keys_and_the_features_that_were_asked_for(
        streams in prop::collection::vec(any_stream(), 1..5),
        keys in prop::collection::vec(any_key(), 0..4),
        asked in prop::sample::subsequence(vec![Encrypt, Disable, Verify], 0..=3),
    ) {
        let keys: Vec<String> =
            keys.into_iter().filter(|key| streams.iter().any(|it| region_of(it) == region_of(key))).collect();
        let policy = policy(&scope(&streams, &keys, &[]), &asked);
        let uses_kinesis = |region: &str| {
            streams.iter().any(|it| it.starts_with("arn:aws:kinesis:") && region_of(it) == region)
        };
        for (action, resources) in allowed(&policy) {
            let feature = RIGHTS.iter().find(|right| right.actions.iter().any(|it| it.name() == action));
            prop_assert!(asked.contains(&feature.unwrap().feature), "{} was not asked for", action);
            for resource in resources {
                let region = region_of(resource);
                let is_unnamed = resource == format!("arn:aws:kms:{region}:111122223333:key/*")
                    && action.starts_with("kinesis:")
                    && uses_kinesis(region)
                    && !keys.iter().any(|key| region_of(key) == region);
                let was_given = streams.iter().chain(&keys).any(|given| given == resource);
                prop_assert!(was_given || is_unnamed, "{} on {}", action, resource);
            }
            prop_assert!(!keys.is_empty() || !action.starts_with("kms:"), "{} without a key", action);
        }
        let sids: BTreeSet<&str> = policy.statement.iter().map(|it| it.sid).collect();
        prop_assert_eq!(sids.len(), policy.statement.len(), "IAM wants each Sid once");
        prop_assert!(sids.iter().all(|sid| sid.bytes().all(|b| b.is_ascii_alphanumeric())), "{:?}", sids);
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read(stream in any_stream(), key in any_key()) {
        prop_assert_eq!(stream.parse::<scope::StreamPattern>().unwrap().to_string(), stream);
        prop_assert_eq!(key.parse::<scope::KeyPattern>().unwrap().to_string(), key);
    }
}
