//! The actions and resources that each feature requires, and that no policy allows more than was requested.

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

/// Returns the permissions of a policy, in order: each action with its resources.
fn allowed(policy: &PolicyDocument) -> Vec<(&str, Vec<&str>)> {
    let says_something = |it: &Statement| !it.action.is_empty() && !it.resource.is_empty();
    assert!(policy.statement.iter().all(says_something), "{policy:?}");
    let statements = policy.statement.iter();
    statements.flat_map(|it| it.action.iter().map(|action| (action, it.resource.iter().collect()))).collect()
}

/// Returns the condition of the statement that allows `action`, as JSON.
fn condition(policy: &PolicyDocument, action: &str) -> serde_json::Value {
    let it = policy.statement.iter().find(|it| it.action.iter().any(|other| other == action)).expect(action);
    serde_json::to_value(&it.condition).unwrap()
}

/// A sentence; streams, keys and features; the expected actions and resources.
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

/// Returns actions that are each allowed on one resource.
fn each_on_one(rights: &[(&'static str, &'static str)]) -> Vec<(&'static str, Vec<&'static str>)> {
    rights.iter().map(|(action, resource)| (*action, vec![*resource])).collect()
}

#[test]
fn encrypt_policy_grants_only_required_actions() {
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
fn disable_and_verify_grant_only_required_actions() {
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
fn policy_of_all_features_is_sum_of_each() {
    for streams in [&[ORDERS][..], &[CLICKS], &[ORDERS, CLICKS]] {
        for keys in [&[][..], &[KEY]] {
            let scope = scope(streams, keys, &[]);
            let alone = |feature| policy(&scope, &[feature]).statement;
            let sum = [alone(Encrypt), alone(Disable), alone(Verify)].concat();
            assert_eq!(policy(&scope, &[Verify, Disable, Encrypt]).statement, sum, "{streams:?} {keys:?}");
        }
    }
}

/// With a condition on tags, AWS denies the Describe of a deleted stream, because that stream has no tags.
#[test]
fn statement_that_describes_allows_no_other_action() {
    let describes = |action: &str| action.contains(":Describe");
    for statement in policy(&scope(&[ORDERS, CLICKS], &[KEY], &[]), &[Encrypt, Disable, Verify]).statement {
        let is_about_describe = statement.action.iter().any(describes);
        assert!(!is_about_describe || statement.action.iter().all(describes), "{statement:?}");
    }
}

#[test]
fn every_stream_and_key_operation_is_in_table_once() {
    let calls: Vec<Operation> = PERMISSION_RULES
        .iter()
        // Allows `DescribeKey` on other keys.
        .filter(|right| right.on != ResourceScope::AwsManagedKeys)
        .flat_map(|right| right.actions)
        .filter_map(|action| match action {
            Action::Call(operation) => Some(*operation),
            Action::ForUs(_) => None,
        })
        .collect();
    for operation in Operation::ALL {
        let times = calls.iter().filter(|other| **other == operation).count();
        // `GetCallerIdentity` requires no permission; `hub` grants `AssumeRole`.
        let is_of_sts = operation.iam_action().starts_with("sts:");
        let is_of_operator =
            !is_of_sts && Operation::of_operator().any(|of_operator| of_operator == operation);
        assert_eq!(times, usize::from(is_of_operator), "{operation:?}");
    }
}

#[test]
fn kinesis_aws_managed_key_can_be_named_explicitly() {
    for (keys, named) in [(&[][..], vec![CLICKS, KINESIS_KEY]), (&[KEY], vec![CLICKS, KEY, KINESIS_KEY])] {
        let policy = policy(&scope(&[CLICKS], keys, &[KINESIS_KEY]), &[Encrypt, Disable, Verify]);
        for action in ["kinesis:StartStreamEncryption", "kinesis:StopStreamEncryption"] {
            assert!(allowed(&policy).contains(&(action, named.clone())), "{action}");
        }
        // The key belongs to AWS, so no other action is allowed on it than the one that recognizes it.
        let describe = ("kms:DescribeKey", vec![KINESIS_KEY]);
        assert!(allowed(&policy).contains(&describe));
        let is_other = |right: &(&str, Vec<&str>)| right.0.starts_with("kms:") && *right != describe;
        let others = allowed(&policy).into_iter().filter(is_other);
        assert!(others.map(|(_, on)| on).all(|on| on == [KEY]));
    }
}

/// `alias/aws/kinesis` is one key; a pattern would extend the policy to all keys of the account.
#[test]
fn kinesis_aws_managed_key_must_match_account_and_region() {
    let streams: Vec<scope::GrantedStreams> = vec![CLICKS.parse().unwrap()];
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
fn invalid_stream_error_names_invalid_part() {
    use scope::ScopeError::{Part, Stream};
    use stream_encryption_core::model::arn::ParseError;

    let refusal = |text: &str| text.parse::<scope::GrantedStreams>().unwrap_err();
    assert!(matches!(refusal(&ORDERS.replace("111122223333", "1111")), Part(ParseError::Account(_))));
    assert!(matches!(refusal(&ORDERS.replace("eu-west-1", "Ireland")), Part(ParseError::Region(_))));
    assert!(matches!(refusal(&ORDERS.replace("arn:aws:", "arn:nowhere:")), Part(ParseError::Partition(_))));
    for whole in ["orders", "arn:aws:s3:::orders/x", &ORDERS.replace("deliverystream", "stream")] {
        assert!(matches!(refusal(whole), Stream(_)), "{whole}");
    }
}

#[test]
fn region_without_key_does_not_widen_other_regions() {
    let tokyo = "arn:aws:kinesis:ap-northeast-1:111122223333:stream/clicks";
    let policy = policy(&scope(&[CLICKS, tokyo], &[KEY], &[]), &[Encrypt]);
    let any_of_tokyo = ANY_KEY.replace("eu-west-1", "ap-northeast-1");
    let on = vec![CLICKS, tokyo, KEY, &any_of_tokyo];
    assert!(allowed(&policy).contains(&("kinesis:StartStreamEncryption", on)));
}

#[test]
fn key_is_granted_only_for_services_in_its_region() {
    let tokyo = "arn:aws:kinesis:ap-northeast-1:111122223333:stream/clicks";
    let tokyo_key = KEY.replace("eu-west-1", "ap-northeast-1");
    let policy = policy(&scope(&[ORDERS, tokyo], &[KEY, &tokyo_key], &[]), &[Encrypt]);
    assert!(allowed(&policy).contains(&("kms:DescribeKey", vec![KEY, &tokyo_key])));
    assert!(allowed(&policy).contains(&("kms:CreateGrant", vec![KEY])));
    assert!(allowed(&policy).contains(&("kinesis:StartStreamEncryption", vec![tokyo, &tokyo_key])));
}

#[test]
fn key_permissions_are_conditioned_on_the_service() {
    let firehose = policy(&scope(&[ORDERS], &[KEY], &[]), &[Encrypt, Verify]);
    let kinesis = policy(&scope(&[CLICKS], &[KEY], &[]), &[Encrypt, Verify]);
    let through = serde_json::json!({"StringEquals": {"kms:ViaService": "firehose.eu-west-1.amazonaws.com"}});
    let for_stream = serde_json::json!({"StringLike": {"kms:EncryptionContext:aws:kinesis:arn": CLICKS}});
    let for_aws = serde_json::json!({"Bool": {"kms:GrantIsForAWSResource": "true"}});
    assert_eq!(condition(&firehose, "kms:CreateGrant"), for_aws);
    assert_eq!(condition(&firehose, "kms:GenerateDataKey"), through);
    assert_eq!(condition(&firehose, "kms:Decrypt"), through);
    assert_eq!(condition(&kinesis, "kms:GenerateDataKey"), for_stream);
    // The operator's own request, which comes through no service.
    assert_eq!(condition(&firehose, "kms:DescribeKey"), serde_json::json!({}));
}

#[test]
fn china_policy_allows_both_firehose_service_names() {
    let orders = ORDERS.replace("aws:firehose:eu-west-1", "aws-cn:firehose:cn-north-1");
    let key = KEY.replace("aws:kms:eu-west-1", "aws-cn:kms:cn-north-1");
    let policy = policy(&scope(&[&orders], &[&key], &[]), &[Verify]);
    let names = ["firehose.cn-north-1.amazonaws.com", "firehose.cn-north-1.amazonaws.com.cn"];
    let either = serde_json::json!({"StringEquals": {"kms:ViaService": names}});
    assert_eq!(condition(&policy, "kms:Decrypt"), either);
}

#[test]
fn key_policy_names_role_and_repeats_kms_statements() {
    let role: RoleArn = "arn:aws:iam::444455556666:role/stream-encryption".parse().unwrap();
    let scope = scope(&[ORDERS, CLICKS], &[KEY], &[]);
    let own = policy(&scope, &[Encrypt, Verify]);
    let of_key = key_policy(&scope, &[Encrypt, Verify], &role);
    let about_keys = |it: &&Statement| it.action.iter().all(|action| action.starts_with("kms:"));
    assert_eq!(of_key.statement.len(), 4);
    for (key, own) in of_key.statement.iter().zip(own.statement.iter().filter(about_keys)) {
        assert_eq!((&key.action, &key.condition), (&own.action, &own.condition));
        assert_eq!(key.principal, Some(DocumentPrincipal::Role(role.to_string())));
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

/// Returns the region in an ARN.
fn region_of(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn policy_never_exceeds_requested_streams_keys_and_features(
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
            let feature = PERMISSION_RULES.iter().find(|right| right.actions.iter().any(|it| it.name() == action));
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
    fn pattern_round_trips(stream in any_stream(), key in any_key()) {
        prop_assert_eq!(stream.parse::<scope::GrantedStreams>().unwrap().to_string(), stream);
        prop_assert_eq!(key.parse::<scope::GrantedKeys>().unwrap().to_string(), key);
    }
}
