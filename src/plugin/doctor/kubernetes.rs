//! The checks of the API server: its version, the definitions, and the operator's permissions.

use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use stream_encryption_api::crd;

use super::{Check, Health};
use crate::plugin::cluster::{Cluster, readable};
use crate::plugin::operator_settings::{OperatorSettings, Watched};

/// The oldest minor version of Kubernetes 1 that the operator supports.
const OLDEST_MINOR: u32 = 30;

/// The name of the operator's service account if no Deployment names it: the chart's and `config/`'s default.
const SERVICE_ACCOUNT: &str = "stream-encryption-operator";

/// Checks that the API server answers, and its version.
pub(super) async fn server(cluster: &Cluster) -> Check {
    let name = "API server";
    match cluster.client.apiserver_version().await {
        Err(error) => Check::failed(
            name,
            format!("{}: {}", cluster.server, readable(error)),
            "Check the kubeconfig, the context, and whether the API server is reachable.",
        ),
        Ok(version) => {
            let minor: Option<u32> = version.minor.trim_end_matches('+').parse().ok();
            let message = format!("{} at {}", version.git_version, cluster.server);
            match minor {
                Some(minor) if minor < OLDEST_MINOR => {
                    Check::failed(name, message, "The operator requires Kubernetes 1.30 or newer.")
                }
                _ => Check::good(name, message),
            }
        }
    }
}

/// Checks that the definitions are installed, established, and those of this version. Reads each by its name: a cluster may
/// have hundreds of other definitions, with megabytes of schemas.
pub(super) async fn definitions(client: &Client) -> Vec<Check> {
    let name = "CRDs";
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut checks = Vec::new();
    for (_, own) in crd::definitions() {
        let kind = own.name_any();
        let check = match api.get_opt(&kind).await {
            Err(error) => return vec![Check::not_checked(name, readable(error).to_string())],
            Ok(None) => Check::failed(
                name,
                format!("{kind} is not installed"),
                "Install the operator: docs/install.md.",
            ),
            Ok(Some(found)) if !is_established(&found) => Check::failed(
                name,
                format!("{kind} is not established"),
                "See its conditions: kubectl describe crd",
            ),
            Ok(Some(found)) if fields(&found) != fields(&own) => Check::warning(
                name,
                format!("{kind} is of another version than this program ({})", env!("CARGO_PKG_VERSION")),
                "Update the plugin or the CRDs, so that both have the same version.",
            ),
            Ok(Some(_)) => Check::good(name, kind),
        };
        checks.push(check);
    }
    if checks.iter().all(|check| check.result == Health::Good) {
        return vec![Check::good(name, format!("{} are installed, of this version", checks.len()))];
    }
    checks
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Returns every version of a definition with its fields. The API server adds defaults to a schema, but no field.
fn fields(definition: &CustomResourceDefinition) -> BTreeMap<String, Vec<String>> {
    let versions = definition.spec.versions.iter().map(|version| {
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let schema = schema.and_then(|schema| serde_json::to_value(schema).ok()).unwrap_or_default();
        let mut paths = Vec::new();
        collect(&schema, "", &mut paths);
        paths.sort();
        (version.name.clone(), paths)
    });
    versions.collect()
}

fn collect(schema: &serde_json::Value, path: &str, paths: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        collect(property, &path, paths);
        paths.push(path);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), paths);
    }
}

/// What the operator must be allowed, as `config/rbac` grants it: group, resource, verb, and whether in its own namespace
/// only. Not checked are keys, which only `key.objectRef` needs, and the lease, whose name depends on the installation: the
/// check of the leader shows that it can be held.
const REQUIRED: &[(&str, &str, &str, bool)] = &[
    ("streamencryption.dev", "streamencryptions", "get", false),
    ("streamencryption.dev", "streamencryptions", "list", false),
    ("streamencryption.dev", "streamencryptions", "watch", false),
    ("streamencryption.dev", "streamencryptions", "patch", false),
    ("streamencryption.dev", "streamencryptions/status", "patch", false),
    ("streamencryption.dev", "streamencryptionpolicies", "list", false),
    ("streamencryption.dev", "streamencryptionpolicies", "watch", false),
    ("streamencryption.dev", "streamencryptionpolicies/status", "patch", false),
    ("", "namespaces", "get", false),
    ("", "namespaces", "list", false),
    ("", "namespaces", "watch", false),
    ("events.k8s.io", "events", "create", false),
    ("events.k8s.io", "events", "patch", false),
    ("streamencryption.dev", "streamledgers", "get", true),
    ("streamencryption.dev", "streamledgers", "list", true),
    ("streamencryption.dev", "streamledgers", "watch", true),
    ("streamencryption.dev", "streamledgers", "create", true),
    ("streamencryption.dev", "streamledgers", "update", true),
    ("streamencryption.dev", "streamledgers", "delete", true),
    ("coordination.k8s.io", "leases", "create", true),
];

/// The last of these, in words.
const CREATE_LEASES: &str = "create leases";

/// The policies of the cluster, and their status.
const POLICIES: &str = "streamencryptionpolicies";
const POLICY_STATUS: &str = "streamencryptionpolicies/status";

/// Returns the requests that the operator must be allowed, in words and as they are reviewed. An operator that watches some
/// namespaces has its rights in each of them, reads only the labels of these namespaces, and writes no status of policies.
fn reviews(operator_namespace: &str, watched: &Watched) -> Vec<(String, ResourceAttributes)> {
    let mut reviews = Vec::new();
    for (group, resource, verb, own) in REQUIRED {
        if *resource == POLICY_STATUS && !watched.is_everything() {
            continue;
        }
        let (kind, subresource) = match resource.split_once('/') {
            Some((kind, subresource)) => (kind, Some(subresource.to_owned())),
            None => (*resource, None),
        };
        let words = format!("{verb} {resource}");
        let anywhere = ResourceAttributes {
            group: Some((*group).to_owned()),
            resource: Some(kind.to_owned()),
            subresource,
            verb: Some((*verb).to_owned()),
            ..ResourceAttributes::default()
        };
        if *own {
            let namespace = Some(operator_namespace.to_owned());
            reviews.push((words, ResourceAttributes { namespace, ..anywhere }));
        } else if watched.namespaces.is_empty() || kind == POLICIES {
            reviews.push((words, anywhere));
        } else {
            reviews.extend(watched.namespaces.iter().map(|one| {
                if kind == "namespaces" {
                    let name = Some(one.clone());
                    (format!("{words} {one}"), ResourceAttributes { name, ..anywhere.clone() })
                } else {
                    let namespace = Some(one.clone());
                    (
                        format!("{words} in namespace {one}"),
                        ResourceAttributes { namespace, ..anywhere.clone() },
                    )
                }
            }));
        }
    }
    reviews
}

/// Returns the name that the API server gives the operator.
fn user(operator_namespace: &str, settings: &OperatorSettings) -> String {
    let account = settings.service_account.as_deref().unwrap_or(SERVICE_ACCOUNT);
    format!("system:serviceaccount:{operator_namespace}:{account}")
}

/// Checks the permissions of the service account of each Deployment. Without a Deployment, checks those of an operator that
/// is installed with the defaults.
pub(super) async fn permissions(cluster: &Cluster, deployments: &[OperatorSettings]) -> Vec<Check> {
    let unknown = OperatorSettings::default();
    let deployments = if deployments.is_empty() { std::slice::from_ref(&unknown) } else { deployments };
    let mut checks = Vec::new();
    for settings in deployments {
        checks.push(Box::pin(permissions_of(cluster, settings)).await);
    }
    checks
}

async fn permissions_of(cluster: &Cluster, settings: &OperatorSettings) -> Check {
    let name = "permissions";
    let api: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let user = user(&cluster.operator_namespace, settings);
    let is_known = settings.service_account.is_some() && settings.unread.is_empty();
    let mut reviews = reviews(&cluster.operator_namespace, &settings.watched);
    if is_known && settings.lease.is_none() {
        // Without leader election, no role allows it.
        reviews.retain(|(words, _)| words != CREATE_LEASES);
    }
    let count = reviews.len();
    let mut missing = Vec::new();
    for (words, attributes) in reviews {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => missing.push(words),
            Err(error) => return Check::not_checked(name, readable(error).to_string()),
        }
    }
    if missing.is_empty() {
        return Check::good(name, format!("{user} has all {count}"));
    }
    let remedy = if is_known {
        "Apply the roles of this version; docs/install.md."
    } else {
        "Expected with installScope: namespace, which grants them in the watched namespaces only, and with another service account. Otherwise apply the roles of this version."
    };
    Check::warning(name, format!("{user} is not allowed to {}", missing.join(", ")), remedy)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use serde_json::{Value, json};

    use super::*;

    /// A cluster may have hundreds of other definitions.
    #[tokio::test]
    async fn only_definitions_of_the_operator_are_read() {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let log = paths.clone();
        let server = Router::new().fallback(async move |uri: Uri| {
            let mut definitions = crd::definitions().into_iter().map(|(_, definition)| definition);
            let found = definitions.find(|one| uri.path().ends_with(&format!("/{}", one.name_any())));
            log.lock().unwrap().push(uri.path().to_owned());
            let Some(found) = found else { return (StatusCode::FORBIDDEN, "no list".to_owned()) };
            let mut found = serde_json::to_value(found).unwrap();
            found["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
            (StatusCode::OK, found.to_string())
        });
        let checks = definitions(&Client::new(server, "default")).await;
        assert!(matches!(&checks[..], [check] if check.result == Health::Good), "{checks:?}");
        assert_eq!(paths.lock().unwrap().len(), crd::definitions().len());
    }

    /// The groups of the keys that `key.objectRef` can name.
    const OPTIONAL: [&str; 2] = ["kms.services.k8s.aws", "kms.aws.m.upbound.io"];

    /// Returns what a role of `config/rbac` grants without the name of an object, except for keys.
    fn granted(role: &str, own: bool) -> Vec<(String, String, String, bool)> {
        let role: Value = serde_saphyr::from_str(role).unwrap();
        let words = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let mut found = Vec::new();
        for rule in role["rules"].as_array().unwrap() {
            if rule.get("resourceNames").is_some() {
                continue;
            }
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    let verbs = words(&rule["verbs"]).into_iter();
                    found.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb, own)));
                }
            }
        }
        found.retain(|(group, ..)| !OPTIONAL.contains(&group.as_str()));
        found
    }

    #[test]
    fn required_permissions_are_those_of_the_roles() {
        let cluster = granted(include_str!("../../../config/rbac/cluster_role.yaml"), false);
        let own = granted(include_str!("../../../config/rbac/role.yaml"), true);
        let mut granted = [cluster, own].concat();
        let mut required: Vec<_> = REQUIRED
            .iter()
            .map(|(group, resource, verb, own)| {
                ((*group).to_owned(), (*resource).to_owned(), (*verb).to_owned(), *own)
            })
            .collect();
        granted.sort();
        required.sort();
        assert_eq!(required, granted, "left: REQUIRED; right: config/rbac");
    }

    /// The chart grants these with `installScope: namespace`.
    #[test]
    fn rights_in_watched_namespaces_are_reviewed_in_each() {
        let namespaces = vec!["data".to_owned(), "web".to_owned()];
        let some = reviews("system", &Watched { namespaces, labels: None });
        let place = |words: &str| {
            let (_, found) = some.iter().find(|(one, _)| one == words).unwrap();
            (found.namespace.as_deref(), found.name.as_deref())
        };
        for namespace in ["data", "web"] {
            let patch = format!("patch streamencryptions/status in namespace {namespace}");
            assert_eq!(place(&patch), (Some(namespace), None));
            assert_eq!(place(&format!("list namespaces {namespace}")), (None, Some(namespace)));
        }
        assert_eq!(place("list streamencryptionpolicies"), (None, None));
        assert_eq!(place("create streamledgers"), (Some("system"), None));
        let has_status = |all: &[(String, ResourceAttributes)]| {
            all.iter().any(|(words, _)| words.contains("streamencryptionpolicies/status"))
        };
        let everything = reviews("system", &Watched::default());
        assert_eq!(everything.len(), REQUIRED.len());
        assert!(has_status(&everything) && !has_status(&some));
    }

    #[test]
    fn service_account_is_that_of_the_deployment() {
        let of = |name: Option<&str>| {
            let service_account = name.map(str::to_owned);
            user("system", &OperatorSettings { service_account, ..OperatorSettings::default() })
        };
        assert_eq!(of(Some("encryption")), "system:serviceaccount:system:encryption");
        assert_eq!(of(None), "system:serviceaccount:system:stream-encryption-operator");
    }
}
