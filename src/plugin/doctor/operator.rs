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

/// How old the last renewal of a lease may be: it is renewed every 13 seconds and valid for 30, and the person's clock may
/// be a minute ahead.
const LEASE_AGE: SignedDuration = SignedDuration::from_secs(80);
/// How far the last renewal may lie in the future, because the person's clock is behind.
const LEASE_AHEAD: SignedDuration = SignedDuration::from_secs(-60);

/// Runs the checks. `deployments` are the settings of each Deployment of the operator.
pub(super) async fn all(
    cluster: &Cluster,
    deployments: &anyhow::Result<Vec<OperatorSettings>>,
) -> Vec<Check> {
    let known = deployments.as_ref().map(Vec::as_slice).unwrap_or_default();
    let has_default = known.iter().any(|settings| settings.default_policy.is_some());
    let operator = deployment_check(&cluster.operator_namespace, deployments);
    vec![operator, leader(cluster, known).await, policies(cluster, has_default).await]
}

fn deployment_check(namespace: &str, deployments: &anyhow::Result<Vec<OperatorSettings>>) -> Check {
    let name = "operator";
    let only = match deployments {
        Ok(all) => OperatorSettings::only(all),
        Err(error) => return Check::not_checked(name, error.to_string()),
    };
    match only {
        None => Check::warning(
            name,
            format!("namespace {namespace} has not exactly one Deployment of the operator"),
            "Use --operator-namespace. If the operator runs outside of the cluster, or as several shards, ignore this.",
        ),
        Some(settings) => {
            let (ready, wanted) = settings.replicas;
            let image = settings.image.as_deref().unwrap_or("unknown image");
            let message = format!("{ready} of {wanted} pods are ready, {image}");
            if wanted == 0 {
                return Check::failed(
                    name,
                    format!("the operator is stopped: {message}"),
                    "Start it (docs/troubleshooting.md, Stop the operator). Until then, streams are neither encrypted nor checked.",
                );
            }
            if ready < wanted {
                return Check::failed(
                    name,
                    message,
                    format!("See why: kubectl get pods,events -n {namespace}; docs/troubleshooting.md."),
                );
            }
            Check::good(name, message)
        }
    }
}

async fn leader(cluster: &Cluster, deployments: &[OperatorSettings]) -> Check {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.operator_namespace);
    match api.list(&ListParams::default()).await {
        Ok(leases) => leader_check(&leases.items, deployments, &cluster.operator_namespace, Timestamp::now()),
        Err(error) => Check::not_checked(LEADER, readable(error).to_string()),
    }
}

const LEADER: &str = "leader";

/// Checks the Leases that the Deployments name. Those of other programs, and of Deployments that exist no more, are in the
/// same namespace.
fn leader_check(
    leases: &[Lease],
    deployments: &[OperatorSettings],
    namespace: &str,
    now: Timestamp,
) -> Check {
    let is_known = !deployments.is_empty() && deployments.iter().all(|settings| settings.unread.is_empty());
    let named: Vec<&str> = deployments.iter().filter_map(|settings| settings.lease.as_deref()).collect();
    if is_known && named.is_empty() {
        return Check::good(LEADER, "leader election is off");
    }
    let (mut fresh, mut stale, mut released) = (Vec::new(), Vec::new(), Vec::new());
    for lease in leases.iter().filter(|lease| !is_known || named.contains(&lease.name_any().as_str())) {
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_ref()).filter(|holder| !holder.is_empty());
        let Some(holder) = holder else {
            released.push(format!("no replica holds Lease {}", lease.name_any()));
            continue;
        };
        let described = format!("{holder} holds Lease {}", lease.name_any());
        match spec.and_then(|spec| spec.renew_time.as_ref()).map(|at| now.duration_since(at.0)) {
            Some(age) if age < LEASE_AHEAD => {
                stale.push(format!("{described}, renewed {} in the future by your clock", short(age.abs())));
            }
            Some(age) if age <= LEASE_AGE => fresh.push(described),
            Some(age) => stale.push(format!("{described}, renewed {} ago", short(age))),
            None => stale.push(described),
        }
    }
    if is_known && !stale.is_empty() {
        return Check::failed(
            LEADER,
            stale.join("; "),
            "No replica of this Deployment works, or the clock of its node is wrong: see the pods and their log; docs/runbooks/StreamEncryptionNoLeader.md.",
        );
    }
    let wanted = if is_known { named.len() } else { 1 };
    if fresh.len() >= wanted {
        return Check::good(LEADER, fresh.join("; "));
    }
    let message = match (is_known, fresh.is_empty()) {
        (true, _) if !released.is_empty() => released.join("; "),
        (true, true) => format!("no Lease {} in namespace {namespace}", named.join(", ")),
        (true, false) => format!("{}; the Lease of another Deployment is missing", fresh.join("; ")),
        (false, _) => format!("no Lease in namespace {namespace} was renewed lately"),
    };
    Check::warning(
        LEADER,
        message,
        "No replica has become the leader yet, or leader election is off (leaderElection.enabled=false).",
    )
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
    let is_seen = |policy: &&DeserializeGuard<StreamEncryptionPolicy>| {
        let status = policy.0.as_ref().ok().and_then(|policy| policy.status.as_ref());
        status.is_some_and(|status| status.conditions.iter().any(|one| one.type_ == "Accepted"))
    };
    let seen = found.iter().filter(is_seen).count();
    if seen < found.len() {
        return Check::warning(
            name,
            format!("the operator has not reported about {} of {} yet", found.len() - seen, found.len()),
            "If that lasts longer than a minute: does the operator run?",
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
    use crate::plugin::doctor::Health;

    fn lease(name: &str, age: i64) -> Lease {
        let renewed = (Timestamp::UNIX_EPOCH - SignedDuration::from_secs(age)).to_string();
        serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"holderIdentity": "pod-1", "renewTime": renewed}}))
        .unwrap()
    }

    fn leader_of(leases: &[Lease], names: &[Option<&str>]) -> Health {
        let settings = |name: Option<&str>| OperatorSettings {
            lease: name.map(str::to_owned),
            ..OperatorSettings::default()
        };
        let deployments: Vec<_> = names.iter().copied().map(settings).collect();
        leader_check(leases, &deployments, "system", Timestamp::UNIX_EPOCH).result
    }

    #[test]
    fn stopped_operator_fails() {
        let of = |replicas| vec![OperatorSettings { replicas, ..OperatorSettings::default() }];
        for (replicas, expected) in
            [((0, 0), Health::Failed), ((1, 2), Health::Failed), ((2, 2), Health::Good)]
        {
            assert_eq!(deployment_check("system", &Ok(of(replicas))).result, expected, "{replicas:?}");
        }
    }

    #[test]
    fn lease_without_a_holder_is_not_called_missing() {
        let lease = serde_json::from_value(json!({"metadata": {"name": "operator"}, "spec": {}})).unwrap();
        let settings = OperatorSettings { lease: Some("operator".to_owned()), ..OperatorSettings::default() };
        let check = leader_check(&[lease], &[settings], "system", Timestamp::UNIX_EPOCH);
        assert_eq!(check.message, "no replica holds Lease operator");
    }

    #[test]
    fn lease_of_another_program_does_not_fail() {
        let leases = [lease("operator", 5), lease("other", 3600)];
        assert_eq!(leader_of(&leases, &[Some("operator")]), Health::Good);
        // Without a Deployment, one fresh Lease is enough.
        assert_eq!(leader_of(&leases, &[]), Health::Good);
        assert_eq!(leader_of(&leases[1..], &[]), Health::Warning);
    }

    #[test]
    fn own_lease_fails_if_it_is_old_beyond_a_wrong_clock() {
        let of = |age| leader_of(&[lease("operator", age)], &[Some("operator")]);
        assert_eq!([of(-60), of(75), of(81)], [Health::Good, Health::Good, Health::Failed]);
        assert_eq!(of(-61), Health::Failed, "the clock of the leader is wrong");
        assert_eq!(leader_of(&[lease("a", 1), lease("b", 100)], &[Some("a"), Some("b")]), Health::Failed);
    }

    #[test]
    fn missing_lease_is_a_warning_unless_election_is_off() {
        assert_eq!(leader_of(&[lease("other", 1)], &[Some("operator")]), Health::Warning);
        assert_eq!(leader_of(&[], &[None]), Health::Good);
        assert_eq!(leader_of(&[lease("a", 1)], &[Some("a"), Some("b")]), Health::Warning);
    }

    #[test]
    fn policy_without_a_status_is_not_accepted() {
        let policy = json!({"metadata": {"name": "team"}, "spec": {"namespaceSelector": {}, "streams": [], "keys": []}});
        let policy = DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()));
        let check = policies_check("policies", &[policy], true);
        assert_eq!(check.result, Health::Warning, "{check:?}");
    }

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
