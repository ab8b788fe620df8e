//! Policies: what two teams may do with each other's streams and keys. Each team has its own namespace, and a
//! user with the permissions that the definitions grant to namespace editors.

mod claims;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use simulated_aws::world::{Fault, PlantedKey, PlantedStream, Rule, Settings};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::policy::StreamEncryptionPolicy;
use stream_encryption_core::model::ledger;

use crate::harness::{
    ACCOUNT, Harness, REGION, client, cluster, firehose, fresh_namespace, message, operators_kubeconfig, spec,
};
use crate::matrix::scenario::{DESCRIBE, START, plant, stage};
use crate::permissions::tenant_of;
use crate::process::{OperatorProcess, REASON, apply, eventually, field};

/// An account of someone else.
pub(crate) const ELSEWHERE: &str = "444455556666";

/// A harness without any policy, with a stream `orders`.
pub(crate) async fn team() -> Harness {
    let mut harness = stage().await;
    harness.policy = None;
    harness.restart();
    harness
}

/// A policy for the namespace of `harness` alone, independent of other tests.
pub(crate) fn policy(harness: &Harness, streams: &[&str], keys: &[&str]) -> Value {
    json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": harness.namespace},
        "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": harness.namespace}},
            "streams": streams,
            "keys": keys,
        },
    })
}

pub(crate) async fn allow(harness: &Harness, policy: &Value) {
    harness.cluster.apply(&policy.to_string()).await.expect("a policy");
}

pub(crate) async fn forbid(harness: &Harness, name: &str) {
    let api: Api<StreamEncryptionPolicy> = Api::all(harness.administrator.clone());
    api.delete(name, &DeleteParams::default()).await.expect("the policy is deleted");
}

fn orders() -> Value {
    json!({"stream": {"arn": firehose("orders")}, "key": {"type": "AWS_OWNED_CMK"}})
}

/// The requests that AWS received from the operator, except `GetCallerIdentity`.
pub(crate) fn asked_of_aws(harness: &Harness) -> Vec<String> {
    let world = harness.aws.world();
    let calls = world.calls().iter().filter(|call| call.operation != "GetCallerIdentity");
    calls.map(|call| format!("{} {}", call.operation, call.target)).collect()
}

/// T1: ransom needs a key that its holder can take away.
#[tokio::test]
async fn key_outside_the_policy_is_not_used_by_arn_or_alias() {
    let harness = team().await;
    let (allowed, other, foreign) = {
        let mut world = harness.aws.world();
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
    allow(&harness, &policy(&harness, &[&firehose("orders")], &keys)).await;
    for (name, key) in [
        ("of-another-account", json!({"type": "CUSTOMER_MANAGED_CMK", "arn": foreign})),
        ("of-the-same-account", json!({"type": "CUSTOMER_MANAGED_CMK", "arn": other})),
        ("by-another-alias", json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/finance"})),
        ("aws-owned", json!({"type": "AWS_OWNED_CMK"})),
    ] {
        harness.apply(name, &json!({"stream": {"arn": firehose("orders")}, "key": key})).await;
        harness.until_it_says(name, "NotPermitted").await;
        assert_eq!(asked_of_aws(&harness), Vec::<String>::new(), "{name}");
    }
    harness.apply("any-key", &json!({"stream": {"arn": firehose("orders")}})).await;
    harness.until_it_says("any-key", "NotPermitted").await;

    let by_alias = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    harness.apply("orders", &json!({"stream": {"arn": firehose("orders")}, "key": by_alias})).await;
    harness.until_it_says("orders", "Encrypted").await;
    // A user who may change the alias does not thereby choose the key.
    harness.aws.world().plant_alias("alias/orders", &other);
    harness.until_it_says("orders", "NotPermitted").await;
    let status = harness.status("orders").await;
    assert_eq!(harness.calls(START, "orders"), 1);
    assert!(!serde_json::to_string(&status).expect("JSON").contains(&other), "the new key is not reported");
}

/// T7: a refusal does not reveal what exists.
#[tokio::test]
async fn refusal_does_not_reveal_if_stream_or_key_exists() {
    let harness = team().await;
    allow(&harness, &policy(&harness, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    let key = harness.plant_key();
    let mut said = Vec::new();
    for (name, spec) in [
        ("stream-there", json!({"stream": {"service": "Firehose", "name": "payments"}})),
        ("stream-missing", json!({"stream": {"service": "Firehose", "name": "nothing"}})),
        ("key-there", spec(&firehose("orders"), Some(&key))),
        ("key-missing", spec(&firehose("orders"), Some(&key.replace("key/", "key/0")))),
    ] {
        plant(&harness, "payments");
        harness.apply(name, &spec).await;
        harness.until_it_says(name, "NotPermitted").await;
        said.push(message(&harness.status(name).await));
    }
    assert_eq!(said[0], said[1]);
    assert_eq!(said[2], said[3]);
    assert_eq!(asked_of_aws(&harness), Vec::<String>::new());
}

/// T6: a stream given by name alone is in the operator's own account, and not every tenant may know that
/// account.
#[tokio::test]
async fn operators_account_is_not_shown_without_a_permission() {
    let harness = team().await;
    harness.apply("orders", &json!({"stream": {"service": "Firehose", "name": "orders"}})).await;
    harness.until_it_says("orders", "NotPermitted").await;
    let seen = harness.kubectl(&["get", "strenc,events", "-o", "yaml"]).await;
    assert!(!seen.contains(ACCOUNT), "the operator's account is in\n{seen}");
    let stream = harness.status("orders").await.stream.expect("the stream as it was written");
    assert_eq!((stream.name.as_str(), stream.region.as_str()), ("orders", REGION));

    allow(&harness, &policy(&harness, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    harness.until_it_says("orders", "Encrypted").await;
    assert_eq!(harness.status("orders").await.stream.and_then(|stream| stream.arn), Some(firehose("orders")));
    forbid(&harness, &harness.namespace).await;
    harness.until_it_says("orders", "NotPermitted").await;
    let status = harness.status("orders").await;
    assert!(!serde_json::to_string(&status).expect("JSON").contains(ACCOUNT), "{status:?}");
}

/// T13: requests for it would go to the hosts of another partition.
#[tokio::test]
async fn stream_in_a_region_of_another_partition_is_not_requested() {
    let harness = team().await;
    let policy = policy(&harness, &["arn:*:firehose:*:own:deliverystream/*"], &["AWS_OWNED_CMK"]);
    allow(&harness, &policy).await;
    for (name, region) in [("china", "cn-north-1"), ("government", "us-gov-west-1")] {
        let stream = json!({"service": "Firehose", "name": "orders", "region": region});
        harness.apply(name, &json!({"stream": stream})).await;
        harness.until_it_says(name, "SpecInvalid").await;
    }
    assert_eq!(asked_of_aws(&harness), Vec::<String>::new());
}

/// T6: AWS's messages name accounts, roles and policies. A tenant sees only the operator's messages and AWS's
/// error code.
#[tokio::test]
async fn aws_error_message_is_not_shown_to_tenants() {
    let harness = team().await;
    allow(&harness, &policy(&harness, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    let secret = format!("User: arn:aws:sts::{ELSEWHERE}:assumed-role/secret-role/s is not authorized");
    for (operation, code) in [
        (DESCRIBE, "AccessDeniedException"),
        (START, "AccessDeniedException"),
        (START, "InvalidKMSResourceException"),
        (START, "LimitExceededException"),
        (START, "SomethingNew"),
    ] {
        let refuse = Fault::Refuse { code: code.to_owned(), message: secret.clone(), status: 400 };
        let rule = harness.aws.world().script(Rule::always(refuse).on(operation));
        let spec = json!({"stream": {"arn": firehose("orders")}, "key": {"type": "AWS_OWNED_CMK"}});
        harness.apply("orders", &spec).await;
        for _ in 0..5 {
            let wake = harness.visit("orders").await.expect("a reconcile");
            harness.aws.advance(wake.duration_since(harness.aws.now()).max(SignedDuration::from_secs(1)));
        }
        let seen = harness.kubectl(&["get", "strenc,events", "-o", "yaml"]).await;
        for word in [ELSEWHERE, "secret-role", "not authorized"] {
            assert!(!seen.contains(word), "{operation} {code}: a tenant reads {word:?} in\n{seen}");
        }
        harness.aws.world().clear_fault(rule);
    }
}

/// T8: only the operator writes statuses and ledgers, and tenants cannot write policies.
#[tokio::test]
async fn namespace_editor_cannot_write_status_ledger_or_policy() {
    let harness = team().await;
    allow(&harness, &policy(&harness, &[&firehose("orders")], &["AWS_OWNED_CMK"])).await;
    let own = &harness.namespace;
    let tenant = tenant_of(own);
    let other = harness.beside().await.namespace;
    let as_tenant = async |arguments: &[&str]| {
        let said = harness.cluster.kubectl(&[&["--as", &tenant], arguments].concat()).await;
        said.map_err(|error| format!("{error:#}"))
    };
    harness.apply("orders", &orders()).await;
    harness.until_it_says("orders", "Encrypted").await;
    as_tenant(&["annotate", "strenc", "orders", "-n", own, "team=data"]).await.expect("a permitted change");

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

/// The same with the operator's own watches: a change of a policy, or of the labels that it selects, takes
/// effect at once.
#[tokio::test(flavor = "multi_thread")]
async fn change_of_policy_or_namespace_labels_applies_at_once() {
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
    // Long before the next drift check, also on a busy machine.
    let says = async |reason: &str| {
        eventually(reason, async || field(cluster, &namespace, "orders", REASON).await == reason).await;
    };
    says("NotPermitted").await;
    let asked = aws.world().calls().iter().filter(|call| call.operation != "GetCallerIdentity").count();
    assert_eq!(asked, 0, "AWS is not asked about a stream that no policy allows");

    let team = format!("{namespace}-team");
    let policy = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryptionPolicy",
        "metadata": {"name": team},
        "spec": {
            "namespaceSelector": {"matchLabels": {"team": team}},
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
    cluster.kubectl(&["delete", "streamencryptionpolicy", &team]).await.expect("the policy is deleted");
    says("NotPermitted").await;
    let starts = aws.world().calls().iter().filter(|call| call.operation == START).count();
    assert_eq!(starts, 1);
}
