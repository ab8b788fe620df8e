//! The checks of the operator itself: its Deployment, its leader, and its policies.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use stream_encryption_api::policy::StreamEncryptionPolicy;

use super::Check;
use crate::plugin::age::short;
use crate::plugin::cluster::{Cluster, readable};
use crate::plugin::operator_settings::OperatorSettings;

/// How old the last renewal of a lease may be: it is renewed every 10 seconds, and valid for 15.
const LEASE_AGE: SignedDuration = SignedDuration::from_secs(20);

/// Runs the checks.
pub(super) async fn all(
    cluster: &Cluster,
    settings: &anyhow::Result<Option<OperatorSettings>>,
) -> Vec<Check> {
    let default_policy = settings
        .as_ref()
        .is_ok_and(|settings| settings.as_ref().is_some_and(|settings| settings.default_policy.is_some()));
    vec![deployment(cluster, settings), leader(cluster).await, policies(cluster, default_policy).await]
}

fn deployment(cluster: &Cluster, settings: &anyhow::Result<Option<OperatorSettings>>) -> Check {
    let name = "operator";
    match settings {
        Err(error) => Check::not_checked(name, error.to_string()),
        Ok(None) => Check::warning(
            name,
            format!(
                "namespace {} has not exactly one Deployment of the operator",
                cluster.operator_namespace
            ),
            "Use --operator-namespace. If the operator runs outside of the cluster, or as several shards, ignore this.",
        ),
        Ok(Some(settings)) => {
            let (ready, wanted) = settings.replicas;
            let image = settings.image.as_deref().unwrap_or("unknown image");
            let message = format!("{ready} of {wanted} pods are ready, {image}");
            if ready < wanted {
                return Check::failed(
                    name,
                    message,
                    "See why: kubectl get pods,events -n NAMESPACE; docs/troubleshooting.md.",
                );
            }
            Check::good(name, message)
        }
    }
}

async fn leader(cluster: &Cluster) -> Check {
    let name = "leader";
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.operator_namespace);
    let leases = match api.list(&ListParams::default()).await {
        Ok(leases) => leases.items,
        Err(error) => return Check::not_checked(name, readable(error).to_string()),
    };
    let now = Timestamp::now();
    let mut holders = Vec::new();
    let mut stale = Vec::new();
    for lease in &leases {
        let Some(spec) = &lease.spec else { continue };
        let Some(holder) = spec.holder_identity.as_ref().filter(|holder| !holder.is_empty()) else {
            continue;
        };
        let age = spec.renew_time.as_ref().map(|at| now.duration_since(at.0));
        let described = format!("{holder} holds Lease {}", lease.name_any());
        match age {
            Some(age) if age <= LEASE_AGE => holders.push(described),
            Some(age) => stale.push(format!("{described}, renewed {} ago", short(age))),
            None => stale.push(described),
        }
    }
    match (holders.is_empty(), stale.is_empty()) {
        (_, false) => Check::failed(
            name,
            stale.join("; "),
            "No replica works: see the pods and their log; docs/runbooks/StreamEncryptionNoLeader.md.",
        ),
        (false, true) => Check::good(name, holders.join("; ")),
        (true, true) => Check::warning(
            name,
            format!("no Lease in namespace {}", cluster.operator_namespace),
            "No replica has become the leader yet, or leader election is off (leaderElection.enabled=false).",
        ),
    }
}

async fn policies(cluster: &Cluster, has_default: bool) -> Check {
    let name = "policies";
    let api: Api<DeserializeGuard<StreamEncryptionPolicy>> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default()).await {
        Ok(found) => policies_check(name, &found.items, has_default),
        Err(error) => Check::not_checked(name, readable(error).to_string()),
    }
}

fn policies_check(
    name: &'static str,
    found: &[DeserializeGuard<StreamEncryptionPolicy>],
    has_default: bool,
) -> Check {
    let refused: Vec<String> = found
        .iter()
        .filter(|policy| match &policy.0 {
            Ok(policy) => policy.status.as_ref().is_some_and(|status| {
                status.conditions.iter().any(|one| one.type_ == "Accepted" && one.status == "False")
            }),
            Err(_) => true,
        })
        .map(kube::ResourceExt::name_any)
        .collect();
    if !refused.is_empty() {
        return Check::failed(
            name,
            format!("{} allow less than they say: {}", refused.len(), refused.join(", ")),
            "See why: kubectl describe strencpol NAME",
        );
    }
    match (found.len(), has_default) {
        (0, false) => Check::warning(
            name,
            "there is none, and no default policy is known: without a policy, every resource is NotPermitted",
            "Adapt config/policies/data-team.yaml, and apply it; docs/policies.md.",
        ),
        (0, true) => Check::good(name, "the default policy"),
        (count, false) => Check::good(name, format!("{count} accepted")),
        (count, true) => Check::good(name, format!("{count} accepted, and the default policy")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn remedy_for_refused_policy_shows_its_message() {
        let policy = json!({
            "metadata": {"name": "data-team"},
            "spec": {"namespaceSelector": {}, "streams": ["orders"], "keys": []},
            "status": {"conditions": [{
                "type": "Accepted", "status": "False", "reason": "InvalidPattern", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        let policy = DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()));
        let check = policies_check("policies", &[policy], true);
        assert_eq!(check.remedy, "See why: kubectl describe strencpol NAME", "{check:?}");
    }
}
