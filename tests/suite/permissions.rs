//! Users of the test cluster, and what they may do.
//!
//! The API server's authorizer receives roles and their bindings through watches, so a permission takes effect some time
//! after the response to `kubectl apply`, and on a busy machine much later. Whoever grants a permission waits here until it
//! has taken effect. Of all permissions, this module grants only those of a tenant and of a reader.

use std::path::PathBuf;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use test_cluster::TestCluster;

use crate::harness::{LEDGERS, client, config};
use crate::process::eventually;

/// The operator's own service account.
pub(crate) const OPERATOR: &str = "stream-encryption-operator";

/// The user who may edit a namespace. The user is not an administrator and is in no group.
pub(crate) fn tenant_of(namespace: &str) -> String {
    format!("tenant-of-{namespace}")
}

/// Allows that user what the role allows that the operator installs for namespace editors.
pub(crate) async fn allow_tenant(cluster: &TestCluster, namespace: &str) {
    let tenant = tenant_of(namespace);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "tenants", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "stream-encryption-operator-edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": tenant}],
    });
    cluster.apply(&binding.to_string()).await.expect("a user who may edit the namespace");
    until_permitted(cluster, &tenant, "patch streamencryptions", namespace).await;
}

/// A client with that user's permissions.
pub(crate) async fn tenant(cluster: &TestCluster, namespace: &str) -> Client {
    let mut config = config(cluster.kubeconfig()).await;
    config.auth_info.impersonate = Some(tenant_of(namespace));
    Client::try_from(config).expect("a client")
}

/// Creates a service account that may only read the resources of one namespace, and returns its kubeconfig.
pub(crate) async fn kubeconfig_of_reader(cluster: &TestCluster, namespace: &str) -> PathBuf {
    for line in [
        "create serviceaccount reader",
        "create role reader --verb=get,list --resource=streamencryptions.streamencryption.dev",
        &format!("create rolebinding reader --role=reader --serviceaccount={namespace}:reader"),
    ] {
        let words: Vec<&str> = line.split(' ').chain(["-n", namespace]).collect();
        cluster.kubectl(&words).await.expect("created");
    }
    until_permitted(cluster, &user_of(namespace, "reader"), "list streamencryptions", namespace).await;
    cluster.service_account_kubeconfig(namespace, "reader").await.expect("a token")
}

/// The name of a service account as the API server's authorizer knows it.
pub(crate) fn user_of(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// Waits until the operator's own account may write ledgers in this namespace.
pub(crate) async fn until_operator_may_write_ledgers(cluster: &TestCluster, namespace: &str) {
    until_permitted(cluster, &user_of(LEDGERS, OPERATOR), "update streamledgers", namespace).await;
}

/// Waits until the operator's own account may read the resources of all namespaces.
pub(crate) async fn until_operator_may_read(cluster: &TestCluster) {
    let all_namespaces = "";
    until_permitted(cluster, &user_of(LEDGERS, OPERATOR), "list streamencryptions", all_namespaces).await;
}

/// Waits until a user may do this in a namespace, or in all namespaces if its name is empty. `action` is a verb and a resource
/// type, in the form of `kubectl auth can-i`: `get leases.coordination.k8s.io/one`. The group of a type without one is that
/// of the operator.
pub(crate) async fn until_permitted(cluster: &TestCluster, user: &str, action: &str, namespace: &str) {
    let reviews: Api<SubjectAccessReview> = Api::all(client(cluster.kubeconfig()).await);
    let review = review(user, action, namespace);
    eventually(&format!("{user} may {action} in {namespace:?}"), async || {
        let answer = reviews.create(&PostParams::default(), &review).await.expect("a review");
        answer.status.is_some_and(|SubjectAccessReviewStatus { allowed, .. }| allowed)
    })
    .await;
}

/// Returns the question whether a user may do this.
fn review(user: &str, action: &str, namespace: &str) -> SubjectAccessReview {
    let (verb, object) = action.split_once(' ').expect("a verb and a resource type");
    let (kind, name) = object.split_once('/').map_or((object, None), |(kind, name)| (kind, Some(name)));
    let (resource, group) = kind.split_once('.').unwrap_or((kind, "streamencryption.dev"));
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        namespace: Some(namespace.to_owned()),
        resource: Some(resource.to_owned()),
        name: name.map(str::to_owned),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
