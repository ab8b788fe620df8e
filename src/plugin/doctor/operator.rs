//! The checks of the operator itself: its Deployment, its leader, and its policies.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use stream_encryption_api::policy::{StreamEncryptionPolicy, StreamEncryptionPolicyStatus};
use stream_encryption_core::model::policy_status::{ACCEPTED, PolicyStatusInput, policy_status};

use super::{Check, Health};
use crate::kubernetes::policies::is_selected;
use crate::plugin::age::short;
use crate::plugin::cluster::{Cluster, readable};
use crate::plugin::operator_settings::OperatorSettings;

/// How old the last renewal of a lease may be: it is renewed every 5 seconds and valid for 30, and the person's clock may
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
    let mut checks = deployment_checks(&cluster.operator_namespace, deployments);
    checks.extend([leader(cluster, known).await, policies(cluster, known).await]);
    checks
}

const OPERATOR: &str = "operator";

/// Returns a check of each Deployment. Shards have several.
fn deployment_checks(namespace: &str, deployments: &anyhow::Result<Vec<OperatorSettings>>) -> Vec<Check> {
    match deployments.as_ref().map(Vec::as_slice) {
        Ok([]) => vec![Check::warning(
            OPERATOR,
            format!("namespace {namespace} has no Deployment of the operator"),
            "Use --operator-namespace. If the operator runs outside of the cluster, ignore this.",
        )],
        Ok(all) => all.iter().map(|one| deployment_check(namespace, one, all.len() > 1)).collect(),
        Err(error) => vec![Check::not_checked(OPERATOR, error.to_string())],
    }
}

/// Checks the pods of a Deployment. `is_one_of_several` is whether the message names it.
fn deployment_check(namespace: &str, settings: &OperatorSettings, is_one_of_several: bool) -> Check {
    let of =
        if is_one_of_several { format!(" of Deployment {}", settings.deployment) } else { String::new() };
    let (ready, wanted) = settings.replicas;
    let image = settings.image.as_deref().unwrap_or("unknown image");
    let rollout = match &settings.incomplete_rollout {
        Some(why) => format!("and the rollout of {image} is not complete: {why}"),
        None => image.to_owned(),
    };
    let message = format!("{ready} of {wanted} pods{of} are ready, {rollout}");
    if wanted == 0 {
        return Check::failed(
            OPERATOR,
            format!("the operator is stopped: {message}"),
            "Start it (docs/troubleshooting.md, Stop the operator). Until then, its streams are neither encrypted nor checked.",
        );
    }
    if ready < wanted || settings.incomplete_rollout.is_some() {
        return Check::failed(
            OPERATOR,
            message,
            format!("See why: kubectl get pods,events -n {namespace}; docs/troubleshooting.md."),
        );
    }
    Check::good(OPERATOR, message)
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
/// same namespace. Of Deployments whose settings are not known, one fresh Lease is enough.
fn leader_check(
    leases: &[Lease],
    deployments: &[OperatorSettings],
    namespace: &str,
    now: Timestamp,
) -> Check {
    let known = deployments.iter().filter(|settings| settings.unread.is_empty());
    let named: BTreeSet<&str> = known.clone().filter_map(|settings| settings.lease.as_deref()).collect();
    let is_known = !deployments.is_empty() && known.count() == deployments.len();
    if is_known && named.is_empty() {
        return Check::good(LEADER, "leader election is off");
    }
    let of_name = |name: &&str| match leases.iter().find(|lease| lease.name_any() == *name) {
        Some(lease) => holder(lease, now),
        None => (Health::Warning, format!("no Lease {name} in namespace {namespace}")),
    };
    let mut holders: Vec<(Health, String)> = named.iter().map(of_name).collect();
    if !is_known {
        let others = leases.iter().filter(|lease| !named.contains(lease.name_any().as_str()));
        let before = holders.len();
        holders.extend(others.map(|lease| holder(lease, now)).filter(|(health, _)| *health == Health::Good));
        if holders.len() == before {
            let other = if named.is_empty() { "" } else { "other " };
            let message = format!("no {other}Lease in namespace {namespace} was renewed lately");
            holders.push((Health::Warning, message));
        }
    }
    let words = |wanted: Health| {
        let these = holders.iter().filter(|(health, _)| *health == wanted);
        these.map(|(_, words)| words.as_str()).collect::<Vec<_>>().join("; ")
    };
    let (failed, warnings) = (words(Health::Failed), words(Health::Warning));
    if !failed.is_empty() {
        return Check::failed(
            LEADER,
            failed,
            "No replica of this Deployment works, or the clock of its node is wrong: see the pods and their log; docs/runbooks/StreamEncryptionNoLeader.md.",
        );
    }
    if !warnings.is_empty() {
        return Check::warning(
            LEADER,
            warnings,
            "No replica has become the leader yet, or leader election is off (leaderElection.enabled=false).",
        );
    }
    Check::good(LEADER, words(Health::Good))
}

/// Returns who holds a Lease: `Failed` if the last renewal is too old or too far in the future, and a warning without a
/// holder.
fn holder(lease: &Lease, now: Timestamp) -> (Health, String) {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_ref()).filter(|holder| !holder.is_empty());
    let Some(holder) = holder else {
        return (Health::Warning, format!("no replica holds Lease {}", lease.name_any()));
    };
    let described = format!("{holder} holds Lease {}", lease.name_any());
    match spec.and_then(|spec| spec.renew_time.as_ref()).map(|at| now.duration_since(at.0)) {
        Some(age) if age < LEASE_AHEAD => {
            let ahead = short(age.abs());
            (Health::Failed, format!("{described}, renewed {ahead} in the future by your clock"))
        }
        Some(age) if age <= LEASE_AGE => (Health::Good, described),
        Some(age) => (Health::Failed, format!("{described}, renewed {} ago", short(age))),
        None => (Health::Failed, described),
    }
}

async fn policies(cluster: &Cluster, deployments: &[OperatorSettings]) -> Check {
    let api: Api<DeserializeGuard<StreamEncryptionPolicy>> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default()).await {
        Ok(found) => policies_check(&found.items, deployments),
        Err(error) => Check::not_checked(POLICIES, readable(error).to_string()),
    }
}

const POLICIES: &str = "policies";

/// Checks the policies by their statuses. A status of an earlier spec does not count: an operator that watches a part of
/// the cluster writes no status, and leaves that of an earlier operator as it is. The spec itself then counts.
fn policies_check(
    found: &[DeserializeGuard<StreamEncryptionPolicy>],
    deployments: &[OperatorSettings],
) -> Check {
    let (mut refused, mut invalid, mut unreported) = (Vec::new(), Vec::new(), 0_usize);
    for policy in found {
        let name = policy.name_any();
        match &policy.0 {
            Ok(policy) => match reported(policy) {
                Some(accepted) if accepted.status == "False" => refused.push(name),
                Some(_) => {}
                None => {
                    unreported += 1;
                    invalid.extend(refusal(policy).map(|why| format!("{name} ({why})")));
                }
            },
            Err(error) => invalid.push(format!("{name} ({})", error.error)),
        }
    }
    if !refused.is_empty() || !invalid.is_empty() {
        let remedy = if refused.is_empty() {
            "Correct what the reasons name; docs/policies.md."
        } else {
            "See why: kubectl describe strencpol NAME"
        };
        let all = [refused, invalid].concat();
        return Check::failed(
            POLICIES,
            format!("{} allow less than they say: {}", all.len(), all.join(", ")),
            remedy,
        );
    }
    let count = found.len();
    let writes_statuses = |settings: &OperatorSettings| settings.watched.is_everything();
    if unreported > 0 && (deployments.is_empty() || deployments.iter().any(writes_statuses)) {
        return Check::warning(
            POLICIES,
            format!("the operator has not reported about {unreported} of {count} yet"),
            "If that lasts longer than a minute: does the operator run?",
        );
    }
    let (word, note) = match unreported {
        0 => ("accepted", String::new()),
        _ => (
            "valid",
            format!(
                "; the operator has not reported about {unreported} of {count}, because it watches only a part of the cluster"
            ),
        ),
    };
    let has_default = deployments.iter().any(|settings| settings.default_policy.is_some());
    match (count, has_default) {
        (0, false) => Check::warning(
            POLICIES,
            "there is none, and no default policy is known: without a policy, every resource is NotPermitted",
            "Adapt config/policies/data-team.yaml, and apply it; docs/policies.md.",
        ),
        (0, true) => Check::good(POLICIES, "the default policy"),
        (_, false) => Check::good(POLICIES, format!("{count} {word}{note}")),
        (_, true) => Check::good(POLICIES, format!("{count} {word}, and the default policy{note}")),
    }
}

/// Returns what the operator has reported about the present spec of a policy.
fn reported(policy: &StreamEncryptionPolicy) -> Option<&Condition> {
    let status = policy.status.as_ref()?;
    let is_current = status.observed_generation == policy.metadata.generation;
    status.conditions.iter().find(|condition| is_current && condition.type_ == ACCEPTED)
}

/// Returns why the operator does not accept the spec of a policy, in the operator's words; `None` if it accepts it.
fn refusal(policy: &StreamEncryptionPolicy) -> Option<String> {
    // Which namespaces the selector selects does not matter, only whether it is valid.
    let selected = is_selected(&policy.spec.namespace_selector, None).map(|_| Vec::new());
    let fleet = PolicyStatusInput { operator_account: None, streams: &[], now: Timestamp::UNIX_EPOCH };
    let before = StreamEncryptionPolicyStatus::default();
    let status = policy_status(&policy.spec, policy.metadata.generation, &selected, &before, &fleet);
    let mut conditions = status.conditions.into_iter();
    conditions.find(|condition| condition.status == "False").map(|condition| condition.message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::operator_settings::Watched;

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
            assert_eq!(deployment_checks("system", &Ok(of(replicas)))[0].result, expected, "{replicas:?}");
        }
        assert_eq!(deployment_checks("system", &Ok(Vec::new()))[0].result, Health::Warning);
    }

    /// By default, the pods of the earlier version run until those of the new one are ready.
    #[test]
    fn incomplete_rollout_fails_although_pods_are_ready() {
        let incomplete = "and the rollout of operator:2 is not complete: ";
        for ((observed, updated, unavailable), expected, rollout) in [
            ((2, 1, 1), Health::Failed, "1 of 2 pods have it; unavailable pods: 1"),
            ((2, 2, 1), Health::Failed, "2 of 2 pods have it; unavailable pods: 1"),
            ((1, 2, 0), Health::Failed, "Kubernetes has not processed the last change of the Deployment"),
            ((2, 2, 0), Health::Good, "operator:2"),
        ] {
            let deployment = json!({
                "metadata": {"name": "operator", "generation": 2},
                "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [
                    {"name": "operator", "image": "operator:2"},
                ]}}},
                "status": {"observedGeneration": observed, "replicas": 2 + unavailable, "readyReplicas": 2,
                    "updatedReplicas": updated, "unavailableReplicas": unavailable},
            });
            let settings = OperatorSettings::of(&serde_json::from_value(deployment).unwrap());
            let checks = deployment_checks("system", &Ok(vec![settings]));
            let start = if expected == Health::Failed { incomplete } else { "" };
            assert_eq!(checks[0].message, format!("2 of 2 pods are ready, {start}{rollout}"));
            assert_eq!(checks[0].result, expected, "{checks:?}");
        }
    }

    #[test]
    fn stopped_shard_fails_beside_one_that_runs() {
        let shard = |name: &str, replicas| OperatorSettings {
            deployment: name.to_owned(),
            replicas,
            ..OperatorSettings::default()
        };
        for (replicas, expected) in
            [((0, 0), Health::Failed), ((1, 2), Health::Failed), ((2, 2), Health::Good)]
        {
            let shards = Ok(vec![shard("shard-a", replicas), shard("shard-b", (2, 2))]);
            let checks = deployment_checks("system", &shards);
            let results: Vec<_> = checks.iter().map(|check| check.result).collect();
            assert_eq!(results, [expected, Health::Good], "{checks:?}");
            assert!(checks[0].message.contains("pods of Deployment shard-a are ready"), "{checks:?}");
        }
    }

    /// The settings of the other shard may be unknown.
    #[test]
    fn lease_of_each_shard_counts_beside_a_fresh_one() {
        let of_lease =
            |name: &str| OperatorSettings { lease: Some(name.to_owned()), ..OperatorSettings::default() };
        let unread = OperatorSettings { unread: vec!["envFrom".to_owned()], ..OperatorSettings::default() };
        let released: Lease = serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": {}})).unwrap();
        for (of_shard, expected) in [
            (lease("b", 5), Health::Good),
            (released, Health::Warning),
            (lease("absent", 100), Health::Warning),
            (lease("b", 100), Health::Failed),
        ] {
            let leases = [lease("a", 5), of_shard];
            for other in [of_lease("a"), unread.clone()] {
                let check = leader_check(&leases, &[other, of_lease("b")], "system", Timestamp::UNIX_EPOCH);
                assert_eq!(check.result, expected, "{check:?}");
            }
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
        let check = policies_check(&[policy], &[]);
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
        let check = policies_check(&[policy], &[]);
        assert_eq!(check.remedy, "See why: kubectl describe strencpol NAME", "{check:?}");
    }

    const CLICKS: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";

    /// Returns a policy of generation 2 for a stream. The status is the generation that it describes, and `Accepted`.
    fn policy(stream: &str, status: Option<(i64, &str)>) -> DeserializeGuard<StreamEncryptionPolicy> {
        let status = status.map(|(generation, accepted)| {
            json!({"observedGeneration": generation, "conditions": [{
                "type": "Accepted", "status": accepted, "reason": "Reported", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]})
        });
        let policy = json!({
            "metadata": {"name": "team", "generation": 2},
            "spec": {"namespaceSelector": {}, "streams": [stream], "keys": ["AWS_OWNED_CMK"]},
            "status": status,
        });
        DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()))
    }

    #[test]
    fn status_of_a_policy_counts_for_its_spec_only() {
        for (stream, status, expected) in [
            (CLICKS, Some((2, "True")), Health::Good),
            (CLICKS, Some((2, "False")), Health::Failed),
            (CLICKS, Some((1, "True")), Health::Warning),
            (CLICKS, Some((1, "False")), Health::Warning),
            ("orders", Some((1, "True")), Health::Failed),
            ("orders", None, Health::Failed),
        ] {
            let check = policies_check(&[policy(stream, status)], &[OperatorSettings::default()]);
            assert_eq!(check.result, expected, "{stream} {status:?}: {check:?}");
        }
    }

    #[test]
    fn policies_of_shards_are_judged_by_their_specs() {
        let watched = Watched { namespaces: vec!["data".to_owned()], ..Watched::default() };
        let shards = [OperatorSettings { watched, ..OperatorSettings::default() }];
        let valid = [policy(CLICKS, None), policy(CLICKS, Some((1, "False")))];
        let check = policies_check(&valid, &shards);
        let message = "2 valid; the operator has not reported about 2 of 2, because it watches only a part of the cluster";
        assert_eq!(
            (check.result, check.message.as_str(), check.remedy.as_ref()),
            (Health::Good, message, "")
        );
        let invalid = policies_check(&[policy("orders", None)], &shards);
        assert_eq!(invalid.result, Health::Failed);
        assert!(invalid.message.contains("team (") && invalid.message.contains("orders"), "{invalid:?}");
        // Another operator watches all, and writes the statuses.
        let all = [&shards[..], &[OperatorSettings::default()]].concat();
        assert_eq!(policies_check(&valid, &all).result, Health::Warning);
    }

    #[test]
    fn invalid_selector_without_a_status_fails() {
        let selector = json!({"matchExpressions": [{"key": "team", "operator": "In"}]});
        let policy = json!({"metadata": {"name": "team"},
            "spec": {"namespaceSelector": selector, "streams": [CLICKS], "keys": ["AWS_OWNED_CMK"]}});
        let policy = DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()));
        let check = policies_check(&[policy], &[]);
        assert!(check.result == Health::Failed && check.message.contains("namespaceSelector"), "{check:?}");
    }
}
