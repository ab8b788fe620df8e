//! Tests the optional admission policies as shipped. The chart and `config/admission` create the same
//! objects, only on request, and the chart fails on a cluster that does not support them.
//! `tests/suite/admission.rs` tests what the policies refuse.

use packages::objects::{NAMESPACE, RELEASE, by_name, name, of_kind, word};
use packages::programs::run_helm;
use packages::{CHART, text};
use serde_json::{Value, json};

use crate::stage::{chart, kustomized};

const KINDS: [&str; 2] = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];

/// Returns the admission objects of the chart with these values.
async fn made(values: Value) -> Vec<Value> {
    let mut objects = chart(values).await;
    objects.retain(|object| KINDS.contains(&word(&object["kind"])));
    objects
}

/// Returns the object of this kind that warns, or the one that refuses.
fn that<'a>(objects: &'a [Value], kind: &str, warns: bool) -> &'a Value {
    let mut found = of_kind(objects, kind).filter(|one| name(one).ends_with("-notice") == warns);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "two of {kind}");
    one
}

/// Returns the expression of a variable.
fn variable<'a>(objects: &'a [Value], name: &str) -> &'a str {
    let variables = that(objects, KINDS[0], false)["spec"]["variables"].as_array().expect("variables");
    word(&variables.iter().find(|one| one["name"] == name).expect("the variable")["expression"])
}

#[tokio::test(flavor = "multi_thread")]
async fn config_admission_matches_chart() {
    assert_eq!(made(json!({})).await, Vec::<Value>::new());
    let charts = made(json!({"admissionPolicy": {"enabled": true}})).await;
    assert_eq!(by_name(&charts), by_name(&kustomized("config/admission").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_policy_denies_and_the_other_warns() {
    let objects = made(json!({"admissionPolicy": {"enabled": true}})).await;
    for (warns, action) in [(false, "Deny"), (true, "Warn")] {
        let binding = that(&objects, KINDS[1], warns);
        assert_eq!(binding["spec"]["validationActions"], json!([action]));
        assert_eq!(binding["spec"]["policyName"], that(&objects, KINDS[0], warns)["metadata"]["name"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_allow_disable_follow_values() {
    let values =
        json!({"admissionPolicy": {"enabled": true, "accounts": ["012345678901"], "allowDisable": true}});
    let objects = made(values).await;
    assert_eq!(variable(&objects, "accounts"), r#"["012345678901"]"#);
    assert_eq!(variable(&objects, "allowDisable"), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_applies_only_in_selected_and_watched_namespaces() {
    let selector = async |mut values: Value| {
        values["admissionPolicy"]["enabled"] = json!(true);
        let objects = made(values).await;
        let [refuses, warns] = [false, true].map(|warns| {
            that(&objects, KINDS[1], warns)["spec"]["matchResources"]["namespaceSelector"].clone()
        });
        assert_eq!(refuses, warns);
        refuses
    };
    let team = json!({"matchLabels": {"team": "data"}});
    assert_eq!(selector(json!({})).await, Value::Null);
    assert_eq!(selector(json!({"admissionPolicy": {"namespaceSelector": team}})).await, team);
    let some = json!({"installScope": "namespace", "watchNamespaces": ["streams", "web"]});
    let watched =
        json!([{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["streams", "web"]}]);
    assert_eq!(selector(some.clone()).await, json!({"matchExpressions": watched}));
    let mut both = some;
    both["admissionPolicy"] = json!({"namespaceSelector": team});
    assert_eq!(selector(both).await, json!({"matchLabels": {"team": "data"}, "matchExpressions": watched}));
}

/// `helm install` passes the cluster's API versions to the chart. `helm template` has no cluster, and must
/// not fail.
#[tokio::test(flavor = "multi_thread")]
async fn chart_fails_if_cluster_lacks_admission_policies() {
    let template = async |served: &[&str]| {
        let mut arguments = vec!["template", RELEASE, CHART, "--namespace", NAMESPACE];
        arguments.extend(["--set", "admissionPolicy.enabled=true"]);
        arguments.extend(served.iter().flat_map(|kind| ["--api-versions", kind]));
        run_helm(&arguments, "", None).await
    };
    template(&[]).await.expect("without a cluster");
    let error = template(&["v1/Pod"]).await.expect_err("a cluster without it");
    assert!(
        format!("{error:#}").contains("leave it off, the operator refuses the same by itself"),
        "{error:#}"
    );
    let served = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";
    template(&["v1/Pod", served]).await.expect("a cluster with it");
}

/// The messages are the operator's own, after the name of the field.
#[tokio::test(flavor = "multi_thread")]
async fn messages_match_operator() {
    // The page lists the messages that are composed, the code those with other words in their middle.
    let words = text("docs/messages.md") + &text("src/core/model/message.rs");
    let objects = made(json!({"admissionPolicy": {"enabled": true}})).await;
    let rules = |warns| that(&objects, KINDS[0], warns)["spec"]["validations"].as_array().expect("rules");
    assert_eq!((rules(false).len(), rules(true).len()), (5, 2));
    for rule in rules(false).iter().chain(rules(true)).filter(|rule| rule["messageExpression"].is_null()) {
        let (field, message) = word(&rule["message"]).split_once(": ").expect("a field");
        assert!(field.starts_with("spec.") && words.contains(message), "{field}: {message}");
    }
}
