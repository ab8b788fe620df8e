//! Policies: what two teams may do with each other's streams and keys, each with its namespace, its own user and the rights
//! that the definitions give to whoever may edit a namespace.

mod claims;
mod random;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::{Fault, PlantedKey, PlantedStream, Rule, Settings, Snapshot, StreamKey};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_operator::api::condition::ConditionType;
use stream_encryption_operator::api::policy::StreamEncryptionPolicy;
use stream_encryption_operator::model::ledger;

use crate::matrix::proxy::{Asked, Meet, When};
use crate::matrix::rig::proxied;
use crate::play::{
    ACCOUNT, Play, REGION, client, cluster, firehose, fresh_namespace, message, operators_kubeconfig, reason,
    tenant_of, truth,
};
use crate::process::{OperatorProcess, REASON, apply, eventually, field};

const START: &str = "StartDeliveryStreamEncryption";
const STOP: &str = "StopDeliveryStreamEncryption";
const DESCRIBE: &str = "DescribeDeliveryStream";
/// The account of somebody else.
pub(crate) const ELSEWHERE: &str = "444455556666";

/// A play without any policy, with a stream `orders`.
pub(crate) async fn team() -> Play {
    let five = SignedDuration::from_secs(5);
    let mut play = Play::start(Settings { enabling: five, disabling: five, ..Settings::default() }).await;
    play.aws.world().plant_stream(PlantedStream::default());
    play.policy = None;
    play.restart();
    play
}

/// A policy for the namespace of `play` alone, whatever other tests write.
pub(crate) fn policy(play: &Play, streams: &[&str], keys: &[&str]) -> Value {
    json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": play.namespace},
        "spec": {
            "namespaces": {"matchLabels": {"kubernetes.io/metadata.name": play.namespace}},
            "streams": streams,
            "keys": keys,
        },
    })
}

pub(crate) async fn allow(play: &Play, policy: &Value) {
    play.cluster.apply(&policy.to_string()).await.expect("a policy");
}

pub(crate) async fn forbid(play: &Play, name: &str) {
    let api: Api<StreamEncryptionPolicy> = Api::all(play.administrator.clone());
    api.delete(name, &DeleteParams::default()).await.expect("the policy goes");
}

fn orders() -> Value {
    json!({"stream": {"arn": firehose("orders")}, "key": {"type": "AWS_OWNED_CMK"}})
}

fn with_key(arn: &str) -> Value {
    json!({"stream": {"arn": firehose("orders")}, "key": {"type": "CUSTOMER_MANAGED_CMK", "arn": arn}})
}

/// What AWS got from the operator: everything but the question who it is itself.
pub(crate) fn asked_of_aws(play: &Play) -> Vec<String> {
    let world = play.aws.world();
    let calls = world.calls().iter().filter(|call| call.operation != "GetCallerIdentity");
    calls.map(|call| format!("{} {}", call.operation, call.target)).collect()
}

#[tokio::test]
async fn without_a_policy_aws_is_asked_of_nothing_and_with_one_the_stream_becomes_encrypted() {
    let play = team().await;
    play.apply("orders", &orders()).await;
    play.until_it_says("orders", "NotPermitted").await;
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(asked_of_aws(&play), Vec::<String>::new());
    let status = play.status("orders").await;
    assert_eq!(truth(&status, ConditionType::Stalled), "True");
    assert!(message(&status).contains("StreamEncryptionPolicy"), "{}", message(&status));

    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.calls(START, "orders"), 1);
}

#[tokio::test]
async fn what_a_policy_takes_away_is_not_used_any_more() {
    let play = team().await;
    allow(&play, &policy(&play, &["arn:aws:firehose:*:own:deliverystream/ord*"], &["AWS_OWNED_CMK"])).await;
    play.apply("orders", &orders()).await;
    play.until_it_says("orders", "Encrypted").await;
    forbid(&play, &play.namespace).await;
    let before = asked_of_aws(&play);
    play.aws.world().plant_stream(PlantedStream::default());
    play.visit("orders").await.expect("a visit");
    assert_eq!(reason(&play.status("orders").await), "NotPermitted");
    play.let_pass("orders", SignedDuration::from_hours(2)).await;
    assert_eq!(asked_of_aws(&play), before);
}

/// T11: what was decided under a policy is not sent once it is gone.
#[tokio::test]
async fn what_a_policy_takes_away_while_a_visit_is_on_its_way_to_a_call_is_not_called() {
    let mut play = team().await;
    let proxy = proxied(&mut play).await;
    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    play.apply("orders", &orders()).await;
    // The first time it decides by them; the second time is just before the call.
    proxy.once(|asked| asked.path.contains("streamencryptionpolicies"), 1, Meet::Hold(When::Before));
    let takes_away = async {
        proxy.held(1).await;
        assert!(asked_of_aws(&play).iter().any(|call| call.starts_with(DESCRIBE)), "it has looked");
        forbid(&play, &play.namespace).await;
        proxy.release();
    };
    // A conflict, after which all is decided anew; or it took so long that it was decided anew by itself.
    let (_, ()) = tokio::join!(play.visit("orders"), takes_away);
    play.until_it_says("orders", "NotPermitted").await;
    assert_eq!(play.calls(START, "orders"), 0);
}

/// What was told and not answered may stand there all the same; nothing is looked at meanwhile that would lead to another word.
#[tokio::test]
async fn a_refusal_that_landed_unheard_is_taken_back_when_it_is_true_no_more() {
    let mut play = team().await;
    let proxy = proxied(&mut play).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "encryption": "Disabled"})).await;
    play.until_it_says("orders", "NotPermitted").await;

    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    proxy.once(Asked::is_status, 0, Meet::Cut(When::After));
    play.visit("orders").await.expect_err("it is not answered");
    assert_eq!(reason(&play.status("orders").await), "DisableNotPermitted");
    forbid(&play, &play.namespace).await;
    play.visit("orders").await.expect("a visit");
    assert_eq!(reason(&play.status("orders").await), "NotPermitted");
}

/// T2, T3, T5: whoever comes first to a stream that is not its own gets nothing of it.
#[tokio::test]
async fn a_team_without_a_policy_neither_claims_nor_changes_nor_exhausts_the_stream_of_another() {
    let data = team().await;
    let finance = data.beside().await;
    allow(&data, &policy(&data, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    for (name, more) in [
        ("a", json!({})),
        ("b", json!({"encryption": "Disabled"})),
        ("c", json!({"deletionPolicy": "Disable"})),
    ] {
        let mut spec = orders();
        spec.as_object_mut().expect("a spec").extend(more.as_object().expect("fields").clone());
        finance.apply(name, &spec).await;
        finance.until_it_says(name, "NotPermitted").await;
        finance.let_pass(name, SignedDuration::from_hours(1)).await;
        assert_eq!(finance.resource(name).await.expect("it").metadata.finalizers, None);
    }
    assert_eq!(asked_of_aws(&data), Vec::<String>::new());
    assert!(data.ledger(&firehose("orders")).await.is_none(), "nothing was claimed");

    data.apply("orders", &orders()).await;
    data.until_it_says("orders", "Encrypted").await;
    assert_eq!((data.calls(START, "orders"), data.calls(STOP, "orders")), (1, 0));
    finance.visit("a").await.expect("a visit");
    assert_eq!(reason(&finance.status("a").await), "NotPermitted");
}

/// T2: also in its own namespace nobody turns encryption off without leave.
#[tokio::test]
async fn encryption_is_turned_off_only_where_a_policy_says_so() {
    let play = team().await;
    play.aws.world().plant_stream(PlantedStream {
        state: Snapshot::enabled(StreamKey::AwsOwned),
        ..PlantedStream::default()
    });
    let mut policy = policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"]);
    allow(&play, &policy).await;
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "encryption": "Disabled"})).await;
    play.until_it_says("orders", "DisableNotPermitted").await;
    play.let_pass("orders", SignedDuration::from_hours(1)).await;
    assert_eq!(play.calls(STOP, "orders"), 0);
    policy["spec"]["allowDisable"] = json!(true);
    allow(&play, &policy).await;
    play.until_it_says("orders", "EncryptionDisabled").await;
    assert_eq!(play.calls(STOP, "orders"), 1);
}

/// T1: ransom needs a key that its holder can take away.
#[tokio::test]
async fn a_stream_is_not_given_a_key_outside_the_policy_by_whatever_name() {
    let play = team().await;
    let (allowed, other, foreign) = {
        let mut world = play.aws.world();
        let foreign = PlantedKey { account: ELSEWHERE.to_owned(), ..PlantedKey::default() };
        let keys = (
            world.plant_key(PlantedKey::default()),
            world.plant_key(PlantedKey::default()),
            world.plant_key(foreign),
        );
        world.plant_alias("alias/orders", &keys.0);
        keys
    };
    let keys = [allowed.as_str(), "arn:aws:kms:*:own:alias/orders"];
    allow(&play, &policy(&play, &[&firehose("orders")], &keys)).await;
    for (name, key) in [
        ("of-another-account", json!({"type": "CUSTOMER_MANAGED_CMK", "arn": foreign})),
        ("of-the-same-account", json!({"type": "CUSTOMER_MANAGED_CMK", "arn": other})),
        ("by-another-alias", json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/finance"})),
        ("aws-owned", json!({"type": "AWS_OWNED_CMK"})),
    ] {
        play.apply(name, &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
        play.until_it_says(name, "NotPermitted").await;
        assert_eq!(asked_of_aws(&play), Vec::<String>::new(), "{name}");
    }
    play.apply("any-key", &json!({"stream": {"arn": firehose("orders")}})).await;
    play.until_it_says("any-key", "NotPermitted").await;

    let by_alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    play.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": by_alias})).await;
    play.until_it_says("orders", "Encrypted").await;
    // Whoever may point the alias elsewhere does not choose the key all the same.
    play.aws.world().plant_alias("alias/orders", &other);
    play.until_it_says("orders", "NotPermitted").await;
    let status = play.status("orders").await;
    assert_eq!(play.calls(START, "orders"), 1);
    assert!(
        !serde_json::to_string(&status).expect("JSON").contains(&other),
        "which key it is now is not told"
    );
}

/// T7: a refusal says nothing of what exists.
#[tokio::test]
async fn what_is_not_allowed_looks_the_same_whether_it_exists_or_not() {
    let play = team().await;
    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    let key = play.plant_key();
    let mut said = Vec::new();
    for (name, spec) in [
        ("stream-there", json!({"stream": {"service": "Firehose", "name": "payments"}})),
        ("stream-missing", json!({"stream": {"service": "Firehose", "name": "nothing"}})),
        ("key-there", with_key(&key)),
        ("key-missing", with_key(&key.replace("key/", "key/0"))),
    ] {
        play.aws
            .world()
            .plant_stream(PlantedStream { name: "payments".to_owned(), ..PlantedStream::default() });
        play.apply(name, &spec).await;
        play.until_it_says(name, "NotPermitted").await;
        said.push(message(&play.status(name).await));
    }
    assert_eq!(said[0], said[1]);
    assert_eq!(said[2], said[3]);
    assert_eq!(asked_of_aws(&play), Vec::<String>::new());
}

/// T6: a name alone is of the operator's own account, and which that is, is not for everybody.
#[tokio::test]
async fn operators_account_is_not_shown_without_a_permission() {
    let play = team().await;
    play.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    play.until_it_says("orders", "NotPermitted").await;
    let seen = play.kubectl(&["get", "strenc,events", "-o", "yaml"]).await;
    assert!(!seen.contains(ACCOUNT), "the operator's account is in\n{seen}");
    let stream = play.status("orders").await.stream.expect("the stream as it was written");
    assert_eq!((stream.name.as_str(), stream.region.as_str()), ("orders", REGION));

    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    play.until_it_says("orders", "Encrypted").await;
    assert_eq!(play.status("orders").await.stream.and_then(|stream| stream.arn), Some(firehose("orders")));
    forbid(&play, &play.namespace).await;
    play.until_it_says("orders", "NotPermitted").await;
    let status = play.status("orders").await;
    assert!(!serde_json::to_string(&status).expect("JSON").contains(ACCOUNT), "{status:?}");
}

/// T13: requests for it would go to the hosts of another partition.
#[tokio::test]
async fn stream_in_a_region_of_another_partition_is_not_requested() {
    let play = team().await;
    let policy = policy(&play, &["arn:*:firehose:*:own:deliverystream/*"], &["AWS_OWNED_CMK"]);
    allow(&play, &policy).await;
    for (name, region) in [("china", "cn-north-1"), ("government", "us-gov-west-1")] {
        let stream = json!({"service": "Firehose", "name": "orders", "region": region});
        play.apply(name, &json!({"stream": stream})).await;
        play.until_it_says(name, "SpecInvalid").await;
    }
    assert_eq!(asked_of_aws(&play), Vec::<String>::new());
}

/// T6: AWS's messages name accounts, roles and policies; a tenant reads our words and AWS's code.
#[tokio::test]
async fn no_message_of_aws_and_nothing_in_it_reaches_a_tenant() {
    let play = team().await;
    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    let secret = format!("User: arn:aws:sts::{ELSEWHERE}:assumed-role/secret-role/s is not authorized");
    for (operation, code) in [
        (DESCRIBE, "AccessDeniedException"),
        (START, "AccessDeniedException"),
        (START, "InvalidKMSResourceException"),
        (START, "LimitExceededException"),
        (START, "SomethingNew"),
    ] {
        let refuse = Fault::Refuse { code: code.to_owned(), message: secret.clone(), status: 400 };
        let rule = play.aws.world().script(Rule::always(refuse).on(operation));
        let spec = json!({"stream": {"arn": firehose("orders")}, "key": {"type": "AWS_OWNED_CMK"}});
        play.apply("orders", &spec).await;
        for _ in 0..5 {
            let wake = play.visit("orders").await.expect("a visit");
            play.aws.advance(wake.duration_since(play.aws.now()).max(SignedDuration::from_secs(1)));
        }
        let seen = play.kubectl(&["get", "strenc,events", "-o", "yaml"]).await;
        for word in [ELSEWHERE, "secret-role", "not authorized"] {
            assert!(!seen.contains(word), "{operation} {code}: a tenant reads {word:?} in\n{seen}");
        }
        play.aws.world().clear_fault(rule);
    }
}

/// T8: what the operator counts and says is nobody else's to write, and policies are not the tenants'.
#[tokio::test]
async fn who_may_edit_a_namespace_may_write_no_status_no_ledger_and_no_policy() {
    let play = team().await;
    allow(&play, &policy(&play, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    let own = &play.namespace;
    let tenant = tenant_of(own);
    let other = play.beside().await.namespace;
    let as_tenant = async |arguments: &[&str]| {
        let said = play.cluster.kubectl(&[&["--as", &tenant], arguments].concat()).await;
        said.map_err(|error| format!("{error:#}"))
    };
    play.apply("orders", &orders()).await;
    play.until_it_says("orders", "Encrypted").await;
    as_tenant(&["annotate", "strenc", "orders", "-n", own, "team=data"]).await.expect("what it may");

    let status = r#"{"status":{"calls":{"used":0,"limit":25}}}"#;
    let ledger = ledger::name(&firehose("orders").parse().expect("an ARN"));
    for forbidden in [
        &["patch", "strenc", "orders", "-n", own, "--subresource=status", "--type=merge", "-p", status][..],
        &["get", "streamledgers", "-n", own],
        &["delete", "streamledger", &ledger, "-n", own],
        &["get", "streamencryptionpolicies"],
        &["delete", "streamencryptionpolicy", own],
        &["get", "strenc", "-n", &other],
        &["delete", "strenc", "--all", "-n", &other],
    ] {
        let refused = as_tenant(forbidden).await.expect_err(&format!("{forbidden:?} is refused"));
        assert!(refused.contains("Forbidden") || refused.contains("forbidden"), "{forbidden:?}: {refused}");
    }
}

/// The same on the operator's own watches: what changes a policy, or the labels by which it selects, is felt at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_policy_or_of_a_namespaces_labels_is_felt_at_once() {
    let cluster = cluster().await;
    let namespace = fresh_namespace(cluster).await;
    let two = SignedDuration::from_secs(2);
    let settings = Settings { enabling: two, disabling: two, ..Settings::default() };
    let aws = SimulatedAws::start(simulated_aws::world::World::new(settings), Clock::Real)
        .await
        .expect("a simulated AWS");
    aws.world().plant_stream(PlantedStream::default());
    let kubeconfig = operators_kubeconfig(cluster).await;
    let url = aws.url();
    let environment =
        [("AWS_ENDPOINT_URL", url.as_str()), ("DEFAULT_POLICY", ""), ("DRIFT_INTERVAL_SECONDS", "3600")];
    let _operator = OperatorProcess::start(&kubeconfig, &namespace, &environment);
    apply(cluster, &namespace, "orders", &orders()).await;
    // Long before the next look for drift, also on a machine with much to do.
    let says = async |reason: &str| {
        eventually(reason, 120, async || field(cluster, &namespace, "orders", REASON).await == reason).await;
    };
    says("NotPermitted").await;

    let team = format!("{namespace}-team");
    let policy = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": team},
        "spec": {
            "namespaces": {"matchLabels": {"team": team}},
            "streams": [firehose("orders")],
            "keys": ["AWS_OWNED_CMK"],
        },
    });
    cluster.apply(&policy.to_string()).await.expect("a policy");
    let user: Client = client(cluster.kubeconfig()).await;
    let namespaces: Api<Namespace> = Api::all(user);
    let label = async |value: Value| {
        let patch = json!({"metadata": {"labels": {"team": value}}});
        namespaces.patch(&namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a label");
    };
    label(json!(team)).await;
    says("Encrypted").await;
    label(Value::Null).await;
    says("NotPermitted").await;
    label(json!(team)).await;
    says("Encrypted").await;
    cluster.kubectl(&["delete", "streamencryptionpolicy", &team]).await.expect("it goes");
    says("NotPermitted").await;
    let starts = aws.world().calls().iter().filter(|call| call.operation == START).count();
    assert_eq!(starts, 1);
}
