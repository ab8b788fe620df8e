//! Tests RBAC: the permissions are the required ones. `install.rs` compares the ways to install.

use packages::objects::{NAMESPACE, name, of_kind, only, word};
use packages::text;
use serde_json::{Value, json};

use crate::stage::{chart, kustomized};

/// Returns the texts in a list.
fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(word).collect()
}

/// Returns every rule as (group, resource, verb).
fn granted(role: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    found.push((group.to_owned(), resource.to_owned(), verb.to_owned()));
                }
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn user_roles_have_same_aggregation_labels() {
    let aggregates = |objects: &[Value]| -> Vec<(String, Vec<String>)> {
        let mut found: Vec<_> = of_kind(objects, "ClusterRole")
            .map(|role| {
                let labels = role["metadata"]["labels"].as_object().into_iter().flatten();
                let to = labels.filter(|(key, value)| key.contains("/aggregate-to-") && *value == "true");
                (name(role), to.map(|(key, _)| key.clone()).collect())
            })
            .collect();
        found.sort();
        found
    };
    let charts = aggregates(&chart(json!({})).await);
    assert_eq!(charts, aggregates(&kustomized("config").await));
    let to = |role: &str| charts.iter().find(|(name, _)| name.ends_with(role)).expect("the role").1.len();
    assert_eq!((to("-operator"), to("-view"), to("-edit")), (0, 3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn view_and_edit_roles_grant_no_status_and_no_ledgers() {
    let objects = chart(json!({})).await;
    for (role, most) in [
        ("view", ["get", "list", "watch"].as_slice()),
        ("edit", &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]),
    ] {
        let role = of_kind(&objects, "ClusterRole")
            .find(|one| word(&one["metadata"]["name"]).ends_with(&format!("-{role}")))
            .expect("the role");
        let granted = granted(role);
        assert_eq!(granted.len(), most.len());
        for (group, resource, verb) in granted {
            assert_eq!((group.as_str(), resource.as_str()), ("streamencryption.dev", "streamencryptions"));
            assert!(most.contains(&verb.as_str()), "{verb}");
        }
    }
}

/// Every permission that the operator may need: a source file, and the text in it that requires the
/// permission. A permission is granted if and only if the text exists, because an unused permission helps
/// only the holder of a stolen token. The suite runs the operator with these permissions, and detects a
/// missing one.
const USED: [(&str, &str, &str, &str, &str); 29] = [
    ("", "namespaces", "get", "src/kubernetes/policies.rs", "api.get(namespace)"),
    ("", "namespaces", "list", "src/kubernetes/policies.rs", "fn namespace_events("),
    ("", "namespaces", "watch", "src/kubernetes/policies.rs", "fn namespace_events("),
    ("coordination.k8s.io", "leases", "create", "src/leader/lease_client.rs", "api.create("),
    ("coordination.k8s.io", "leases", "get", "src/leader/lease_client.rs", "api.get("),
    ("coordination.k8s.io", "leases", "patch", "src/leader/lease_client.rs", "api.patch("),
    ("events.k8s.io", "events", "create", "src/kubernetes/events.rs", "api.create("),
    ("events.k8s.io", "events", "patch", "src/kubernetes/events.rs", "api.patch("),
    ("kms.aws.m.upbound.io", "keys", "get", "src/kubernetes/keys.rs", "api.get(&reference.name)"),
    ("kms.aws.m.upbound.io", "keys", "list", "src/kubernetes/keys.rs", "fn changes("),
    ("kms.aws.m.upbound.io", "keys", "watch", "src/kubernetes/keys.rs", "fn changes("),
    ("kms.services.k8s.aws", "keys", "get", "src/kubernetes/keys.rs", "api.get(&reference.name)"),
    ("kms.services.k8s.aws", "keys", "list", "src/kubernetes/keys.rs", "fn changes("),
    ("kms.services.k8s.aws", "keys", "watch", "src/kubernetes/keys.rs", "fn changes("),
    (GROUP, "streamencryptionpolicies", "list", "src/kubernetes/policies.rs", "api.list("),
    (GROUP, "streamencryptionpolicies", "watch", "src/kubernetes/policies.rs", "fn events("),
    (GROUP, "streamencryptionpolicies/status", "patch", "src/kubernetes/policy_status.rs", "write_status::<"),
    (GROUP, "streamencryptions", "get", "src/kubernetes/resources.rs", "api.get(name)"),
    (GROUP, "streamencryptions", "list", "src/kubernetes/watches.rs", "fn resources("),
    (GROUP, "streamencryptions", "patch", "src/kubernetes/resources.rs", "requests.patch_metadata(name"),
    (GROUP, "streamencryptions", "watch", "src/kubernetes/watches.rs", "fn resources("),
    (GROUP, "streamencryptions/status", "patch", "src/kubernetes/resources.rs", "patch_subresource("),
    (GROUP, "streamencryptions/status", "update", "src/kubernetes/resources.rs", "replace_subresource("),
    (GROUP, "streamledgers", "create", "src/kubernetes/ledgers.rs", ".create(&as_operator()"),
    (GROUP, "streamledgers", "delete", "src/kubernetes/ledgers.rs", "api.delete("),
    (GROUP, "streamledgers", "get", "src/kubernetes/ledgers.rs", "api.get(name)"),
    (GROUP, "streamledgers", "list", "src/kubernetes/ledgers.rs", "api.list("),
    (GROUP, "streamledgers", "update", "src/kubernetes/ledgers.rs", ".replace(name, &as_operator()"),
    (GROUP, "streamledgers", "watch", "src/kubernetes/ledgers.rs", "fn events("),
];
const GROUP: &str = "streamencryption.dev";

#[tokio::test(flavor = "multi_thread")]
async fn every_granted_verb_is_used_by_operator() {
    let objects = kustomized("config").await;
    let roles = of_kind(&objects, "Role").chain(of_kind(&objects, "ClusterRole"));
    let operators = roles.filter(|role| name(role).ends_with("/stream-encryption-operator"));
    let mut found: Vec<_> = operators.flat_map(granted).collect();
    found.sort();
    let used: Vec<_> = USED
        .iter()
        .filter(|(.., file, words)| text(file).contains(words))
        .map(|(group, resource, verb, ..)| {
            (String::from(*group), String::from(*resource), String::from(*verb))
        })
        .collect();
    assert_eq!(found, used);
    // The operator must not access the leases of other controllers in its namespace.
    let of_roles = of_kind(&objects, "Role").flat_map(|role| role["rules"].as_array().expect("rules"));
    for rule in
        of_roles.filter(|rule| rule["resources"] == json!(["leases"]) && rule["verbs"] != json!(["create"]))
    {
        assert_eq!(rule["resourceNames"], json!(["stream-encryption-operator"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_scope_grants_cluster_wide_policy_reads_only() {
    let everywhere = chart(
        json!({"rbac": {"aggregateToView": false, "aggregateToEdit": false, "aggregateToAdmin": false}}),
    )
    .await;
    let one = chart(json!({"installScope": "namespace", "watchNamespaces": ["data", "web"]})).await;
    let cluster_wide: Vec<&str> = one
        .iter()
        .filter(|object| object["metadata"]["namespace"].is_null())
        .map(|object| word(&object["kind"]))
        .collect();
    let definition = "CustomResourceDefinition";
    assert_eq!(cluster_wide, [definition, definition, definition, "ClusterRole", "ClusterRoleBinding"]);

    let there = |kind: &str| {
        let [data, web] = ["data", "web"].map(|namespace| {
            let mut found = of_kind(&one, kind).filter(|role| role["metadata"]["namespace"] == namespace);
            let mut role = found.next().expect("a role in the watched namespace").clone();
            assert!(found.next().is_none(), "two in {namespace}");
            role["metadata"]["namespace"].take();
            role
        });
        assert_eq!(data, web);
        data
    };
    let role = there("Role");
    let policies = only(&one, "ClusterRole");
    let mut both = [granted(&role), granted(policies)].concat();
    both.sort();
    // These namespaces are only a part of what a policy applies to, so that operator reports no status of policies.
    let mut all = granted(only(&everywhere, "ClusterRole"));
    all.retain(|(_, resource, _)| resource != "streamencryptionpolicies/status");
    assert_eq!(both, all);
    let reads = |(_, resource, verb): &(String, String, String)| {
        ["streamencryptionpolicies", "namespaces"].contains(&resource.as_str())
            && ["get", "list", "watch"].contains(&verb.as_str())
    };
    assert!(granted(policies).iter().all(reads));
    let namespaces =
        policies["rules"].as_array().expect("rules").iter().find(|rule| rule["resources"][0] == "namespaces");
    assert_eq!(namespaces.expect("a rule")["resourceNames"], json!(["data", "web"]));
    let binding = there("RoleBinding");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["roleRef"]["kind"], "Role");
    assert_eq!(binding["subjects"][0]["namespace"], NAMESPACE);

    let own = |objects: &[Value]| {
        let found = of_kind(objects, "Role").find(|role| role["metadata"]["namespace"] == NAMESPACE).cloned();
        granted(&found.expect("a role in its own namespace"))
    };
    assert_eq!(own(&one), own(&everywhere));
}

/// Two releases in a namespace must not use the same Lease: only one of them would be active.
#[tokio::test(flavor = "multi_thread")]
async fn each_release_is_granted_the_lease_that_it_uses() {
    for (values, lease) in [
        (json!({}), "stream-encryption-operator"),
        (json!({"fullnameOverride": "shard-a", "watchLabelSelector": "shard=a"}), "shard-a"),
    ] {
        let objects = chart(values).await;
        let environment = &only(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"];
        let variables = environment.as_array().expect("variables");
        let used = variables.iter().find(|variable| variable["name"] == "LEASE_NAME").expect("the lease");
        assert_eq!(used["value"], lease);
        let rules = only(&objects, "Role")["rules"].as_array().expect("rules");
        let granted = rules.iter().find(|rule| rule["verbs"] == json!(["get", "patch"])).expect("a rule");
        assert_eq!(granted["resourceNames"], json!([lease]));
    }
}

/// An operator that selects resources by labels writes no status of policies.
#[tokio::test(flavor = "multi_thread")]
async fn label_shard_is_granted_no_policy_status() {
    let granted = async |values: Value| {
        let objects = chart(values).await;
        let role = of_kind(&objects, "ClusterRole").find(|role| name(role).ends_with("-operator")).cloned();
        granted(&role.expect("the operator's role"))
    };
    let mut all = granted(json!({})).await;
    all.retain(|(_, resource, _)| resource != "streamencryptionpolicies/status");
    assert_eq!(granted(json!({"watchLabelSelector": "shard=a"})).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_not_granted_without_leader_election() {
    let leases = async |values: Value| {
        let objects = chart(values).await;
        let roles: Vec<_> = of_kind(&objects, "Role").flat_map(granted).collect();
        roles
            .into_iter()
            .filter(|(_, resource, _)| resource == "leases")
            .map(|(_, _, verb)| verb)
            .collect::<Vec<_>>()
    };
    assert_eq!(leases(json!({})).await, ["create", "get", "patch"]);
    assert!(leases(json!({"leaderElection": {"enabled": false}})).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_binding_is_for_service_account_of_pods() {
    for values in [
        json!({}),
        json!({"serviceAccount": {"create": false, "name": "mine"}}),
        json!({"fullnameOverride": "x"}),
    ] {
        let objects = chart(values).await;
        let pods = &only(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"];
        let bindings: Vec<&Value> = objects.iter().filter(|object| object["subjects"].is_array()).collect();
        assert_eq!(bindings.len(), 2);
        for binding in bindings {
            assert_eq!(binding["subjects"][0]["name"], *pods, "{}", name(binding));
        }
    }
}
