//! Validation of a `StreamEncryptionPolicy`.

use serde_json::{Value, json};

use super::{ENCRYPTIONS, Refused, Taken, Verdict, encryption, judge_objects};

const POLICIES: &str = "/apis/streamencryption.dev/v1alpha1/streamencryptionpolicies";

fn policy(field: &str, value: &Value) -> Value {
    let mut spec = json!({
        "namespaceSelector": {"matchLabels": {"team": "data"}},
        "streams": ["arn:aws:firehose:eu-west-1:111122223333:deliverystream/data-*"],
        "keys": ["AWS_OWNED_CMK", "arn:aws:kms:eu-west-1:111122223333:key/*"],
    });
    spec[field] = value.clone();
    json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": "judged"}, "spec": spec,
    })
}

async fn judge(field: &str, rows: &[(&str, Value, Verdict)]) {
    let object = |(sentence, value, verdict): &(&str, Value, Verdict)| {
        (format!("{field}: {sentence}"), policy(field, value), *verdict)
    };
    judge_objects(POLICIES, rows.iter().map(object)).await;
}

#[tokio::test]
async fn stream_patterns_do_not_span_arn_parts() {
    let refused = || Refused("must be patterns of stream ARNs");
    judge(
        "streams",
        &[
            ("one stream", json!(["arn:aws:kinesis:eu-west-1:111122223333:stream/orders"]), Taken),
            ("all of the own account", json!(["arn:*:firehose:*:own:deliverystream/*"]), Taken),
            ("in China", json!(["arn:aws-cn:kinesis:cn-north-1:111122223333:stream/a*b"]), Taken),
            ("a hundred", json!(vec!["arn:aws:kinesis:*:own:stream/orders"; 100]), Taken),
            ("every account", json!(["arn:aws:kinesis:eu-west-1:*:stream/orders"]), refused()),
            ("a part of an account", json!(["arn:aws:kinesis:eu-west-1:1111*:stream/orders"]), refused()),
            ("every service", json!(["arn:aws:*:eu-west-1:own:stream/orders"]), refused()),
            ("some regions", json!(["arn:aws:kinesis:eu-*:own:stream/orders"]), refused()),
            (
                "the other service's streams",
                json!(["arn:aws:kinesis:*:own:deliverystream/orders"]),
                refused(),
            ),
            (
                "a consumer of a stream",
                json!(["arn:aws:kinesis:*:own:stream/orders/consumer/a:1"]),
                refused(),
            ),
            ("everything", json!(["*"]), refused()),
            ("one good and one bad", json!(["arn:aws:kinesis:*:own:stream/a", "arn:aws:s3:::a"]), refused()),
            ("none", json!([]), Refused("spec.streams")),
            (
                "too many",
                json!(vec!["arn:aws:kinesis:*:own:stream/orders"; 101]),
                Refused("spec.streams: Too many"),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn key_patterns_are_key_arns_alias_arns_or_aws_owned() {
    let refused = || Refused("must be AWS_OWNED_CMK or patterns of ARNs");
    judge(
        "keys",
        &[
            ("the AWS-owned key", json!(["AWS_OWNED_CMK"]), Taken),
            (
                "one key",
                json!(["arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]),
                Taken,
            ),
            ("keys of several regions", json!(["arn:aws:kms:*:own:key/mrk-*"]), Taken),
            ("aliases", json!(["arn:aws:kms:*:own:alias/data/*"]), Taken),
            ("every account", json!(["arn:aws:kms:*:*:key/*"]), refused()),
            ("keys and aliases at once", json!(["arn:aws:kms:*:own:*"]), refused()),
            ("an alias without its ARN", json!(["alias/orders"]), refused()),
            ("the type of a customer's key", json!(["CUSTOMER_MANAGED_CMK"]), refused()),
            ("none", json!([]), Refused("spec.keys")),
        ],
    )
    .await;
}

#[tokio::test]
async fn namespace_selector_is_required_and_valid() {
    let with_values = "values must be set for In and NotIn";
    let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]});
    judge(
        "namespaceSelector",
        &[
            ("all", json!({}), Taken),
            ("some", expression("In", &["data", "web"]), Taken),
            (
                "those without a label",
                json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}),
                Taken,
            ),
            ("not said", Value::Null, Refused("spec.namespaceSelector: Required value")),
            ("In of nothing", expression("In", &[]), Refused(with_values)),
            ("Exists of something", expression("Exists", &["data"]), Refused(with_values)),
            ("an unknown operator", expression("Matches", &["data"]), Refused("Unsupported value")),
            ("by their names", json!({"names": ["data"]}), Refused("unknown field")),
        ],
    )
    .await;
}

#[tokio::test]
async fn max_calls_per_day_is_between_1_and_25() {
    judge(
        "maxCallsPerDay",
        &[
            ("one", json!(1), Taken),
            ("all", json!(25), Taken),
            ("none", json!(0), Refused("spec.maxCallsPerDay")),
            ("more", json!(26), Refused("spec.maxCallsPerDay")),
        ],
    )
    .await;
}

#[tokio::test]
async fn resource_cannot_name_role_endpoint_or_namespace() {
    let fields = ["role", "roleArn", "endpoint", "endpointUrl", "externalID", "namespace", "account"];
    let object = |field: &'static str| {
        let mut spec = json!({"stream": {"service": "Kinesis", "name": "orders"}});
        spec[field] = json!("mine");
        (field, encryption("judged", &spec), Refused("unknown field"))
    };
    judge_objects(ENCRYPTIONS, fields.map(object)).await;
}

#[tokio::test]
async fn policy_role_is_an_iam_role_arn() {
    let arn = |arn: &str| json!({ "arn": arn });
    let role = "arn:aws:iam::111122223333:role/stream-encryption";
    let refused = || Refused("not an assumed-role session");
    let id = |id: &str| json!({"arn": role, "externalID": id});
    judge(
        "role",
        &[
            ("a role", arn(role), Taken),
            ("one with a path, in China", arn("arn:aws-cn:iam::111122223333:role/teams/data/a_b+1"), Taken),
            ("with an external id", id("of-the-data-team"), Taken),
            ("a session", arn("arn:aws:sts::111122223333:assumed-role/a/session"), refused()),
            ("a user", arn("arn:aws:iam::111122223333:user/a"), refused()),
            ("any role", arn("arn:aws:iam::111122223333:role/*"), refused()),
            ("own is no account here", arn("arn:aws:iam::own:role/a"), refused()),
            ("a name", arn("stream-encryption"), refused()),
            ("no path", arn("arn:aws:iam::111122223333:role//a"), refused()),
            ("an external id that STS does not take", id("a b"), Refused("must contain only a-z, A-Z, 0-9")),
            ("one that is too short", id("a"), Refused("spec.role.externalID")),
            ("only an external id", json!({"externalID": "abc"}), Refused("spec.role.arn: Required")),
        ],
    )
    .await;
}
