//! The finalizer: a reconcile that cannot add or remove it, and a deletion that must wait.

use std::time::Duration;

use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::policy::PolicyRole;
use stream_encryption_api::stream_encryption::DeletionPolicy;

use super::fakes::{Identity, Request, World, run};
use super::{ARN, deleted, reconcile_stored, resource};
use crate::controller::kube_api::{ENCRYPTION_LEFT_ON, FINALIZER_UPDATE_FAILED, KubeError, ReadFrom};
use crate::controller::reconcile;
use crate::model::key::Key;
use crate::model::observation::ReportedEncryption;

#[test]
fn stream_is_encrypted_although_its_finalizer_fails() {
    let mut added = resource();
    added.spec.deletion_policy = DeletionPolicy::Disable;
    let mut removed = deleted();
    removed.spec.deletion_policy = DeletionPolicy::Retain;
    removed.metadata.deletion_timestamp = None;
    let refusals = ["a webhook refuses it", "a webhook does not answer"].map(str::to_owned);
    let [refused, unanswered] = refusals;
    for (resource, refusal) in [
        (added.clone(), KubeError::Rejected(refused.clone())),
        (removed, KubeError::Rejected(refused)),
        (added, KubeError::Unavailable(unanswered)),
    ] {
        let world = World::new(resource);
        world.state().policies[0].allow_disable = true;
        let error = refusal.clone();
        world.before(Request::SetFinalizer, move |_| Err(error));
        let cached = world.state().resource.clone().unwrap();
        assert_eq!(run(reconcile(&world.context(), &cached)), Err(refusal));
        let sent = [Request::Start, Request::WriteStatus].map(|kind| world.count(kind));
        assert_eq!(sent, [1, 1]);
        let events = world.state().events.clone();
        assert!(events.iter().any(|(reason, _)| reason == FINALIZER_UPDATE_FAILED), "{events:?}");
    }
}

#[test]
fn failed_finalizer_is_an_error_if_the_account_is_unknown() {
    let mut resource = deleted();
    resource.spec.deletion_policy = DeletionPolicy::Retain;
    resource.metadata.deletion_timestamp = None;
    let world = World::new(resource);
    world.state().identity = Identity::Fails;
    let refusal = KubeError::Rejected("a webhook refuses it".to_owned());
    let context = world.context();
    for failures in 1..4 {
        let error = refusal.clone();
        world.before(Request::SetFinalizer, move |_| Err(error));
        let cached = world.state().resource.clone().unwrap();
        assert_eq!(run(reconcile(&context, &cached)), Err(refusal.clone()));
        assert_eq!(context.memory.count_failure("uid-1"), failures);
    }
    assert!(world.state().resource.clone().unwrap().status.is_some());
}

#[test]
fn refused_finalizer_is_retried_less_and_less_often() {
    let mut resource = resource();
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    let context = world.context();
    for failures in 1..4 {
        world.before(Request::SetFinalizer, |_| Err(KubeError::Rejected("no".to_owned())));
        let cached = world.state().resource.clone().unwrap();
        assert!(run(reconcile(&context, &cached)).is_err());
        assert_eq!(context.memory.count_failure("uid-1"), failures);
    }
}

#[test]
fn unconfirmed_removal_of_the_finalizer_is_reported_as_such() {
    let world = World::new(deleted());
    world.state().policies.clear();
    let context = world.context();
    for _ in 0..3 {
        world.before(Request::SetFinalizer, |_| Err(KubeError::Unavailable("no response".to_owned())));
        let cached = world.state().resource.clone().unwrap();
        assert!(run(reconcile(&context, &cached)).is_err());
    }
    let state = world.state();
    let of = |reason: &str| state.events.iter().filter(|(event, _)| event == reason).collect::<Vec<_>>();
    assert_eq!((of(FINALIZER_UPDATE_FAILED).len(), of("NotPermitted").len()), (3, 1));
    let [(_, note)] = of(ENCRYPTION_LEFT_ON)[..] else { panic!("{:?}", state.events) };
    assert!(note.contains("did not confirm"), "{note}");
}

/// An administrator changes the role in one policy after the other.
#[test]
fn finalizer_is_kept_while_policies_name_different_roles() {
    let mut resource = resource();
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    resource.metadata.finalizers = deleted().metadata.finalizers;
    let world = World::new(resource);
    let role = |name: &str| {
        Some(PolicyRole { arn: format!("arn:aws:iam::111122223333:role/{name}"), external_id: None })
    };
    let mut state = world.state();
    state.policies[0].allow_disable = true;
    let mut other = state.policies[0].clone();
    state.policies[0].role = role("new");
    other.role = role("old");
    state.policies.push(other);
    drop(state);
    reconcile_stored(&world, &world.context());
    let stored = world.state().resource.clone().unwrap();
    let ready = find(&stored.status.unwrap().conditions, ConditionType::Ready).unwrap().reason.clone();
    assert_eq!((ready.as_str(), world.count(Request::SetFinalizer)), ("ConflictingPolicyRoles", 0));
    assert!(stored.metadata.finalizers.is_some_and(|all| !all.is_empty()));
}

/// Returns a world with a deleted resource, whose stream is in another account. The policy has no role of that account.
fn with_policy_that_lacks_its_role() -> World {
    let mut resource = deleted();
    resource.spec.stream.arn = Some(ARN.replace("111122223333", "444455556666"));
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    world.state().policies[0].streams = vec!["arn:*:firehose:*:444455556666:deliverystream/*".to_owned()];
    world.state().is_missing = true;
    world
}

#[test]
fn deleted_resource_stays_if_requests_reach_another_account() {
    let world = with_policy_that_lacks_its_role();
    reconcile_stored(&world, &world.context());
    let resource = world.state().resource.clone().expect("its stream may be encrypted");
    let ready = find(&resource.status.unwrap().conditions, ConditionType::Ready).unwrap().reason.clone();
    assert_eq!(ready, "StreamARNMismatch");
}

/// An administrator corrects the policy: the stream is described with the role before anything is decided about the deletion.
#[test]
fn answer_to_another_account_removes_no_finalizer() {
    let world = with_policy_that_lacks_its_role();
    let context = world.context();
    reconcile_stored(&world, &context);
    let role = PolicyRole { arn: "arn:aws:iam::444455556666:role/spoke".to_owned(), external_id: None };
    world.state().policies[0].role = Some(role);
    world.state().describe_fails = true;
    // The first of these reconciles only gives way to one that has a place for a Describe.
    for _ in 0..2 {
        reconcile_stored(&world, &context);
    }
    assert_eq!(world.count(Request::Describe), 2, "the second one is sent with the role");
    assert!(world.state().resource.is_some(), "its stream may be encrypted");
}

#[test]
fn policy_that_was_away_for_a_moment_costs_no_describe() {
    let world = World::new(resource());
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    let role = PolicyRole { arn: "arn:aws:iam::111122223333:role/streams".to_owned(), external_id: None };
    world.state().policies[0].role = Some(role);
    let context = world.context();
    let reason_after_reconcile = || {
        world.state().elapsed += Duration::from_secs(10);
        reconcile_stored(&world, &context);
        let status = world.state().resource.clone().unwrap().status.unwrap();
        find(&status.conditions, ConditionType::Ready).unwrap().reason.clone()
    };
    assert_eq!([reason_after_reconcile(), reason_after_reconcile()], ["Settling", "Encrypted"]);
    let policies = std::mem::take(&mut world.state().policies);
    assert_eq!(reason_after_reconcile(), "NotPermitted");
    world.state().policies = policies;
    assert_eq!((reason_after_reconcile().as_str(), world.count(Request::Describe)), ("Encrypted", 1));
}

/// The credentials were renewed for the Describe, and are of an account that has no such stream.
#[test]
fn renewed_credentials_remove_no_finalizer() {
    let world = World::new(deleted());
    world.state().policies[0].allow_disable = true;
    world.state().is_missing = true;
    world.before(Request::Describe, |state| {
        state.identity = Identity::Fails;
        Ok(())
    });
    let cached = world.state().resource.clone().unwrap();
    let _ = run(reconcile(&world.context(), &cached));
    assert_eq!(world.count(Request::Describe), 1);
    assert!(world.state().resource.is_some());
}

#[test]
fn removed_finalizer_prevents_the_stop() {
    let mut resource = deleted();
    resource.metadata.finalizers.get_or_insert_default().push("foregroundDeletion".to_owned());
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    let context = world.context();
    let cached = world.state().resource.clone().unwrap();
    // A user removes the finalizer while the reconcile waits for its permit.
    world.before(Request::Permit, |state| {
        state.resource.as_mut().unwrap().metadata.finalizers.as_mut().unwrap().remove(0);
        Ok(())
    });
    run(reconcile(&context, &cached)).unwrap();
    assert_eq!(world.count(Request::Permit), 1, "the Stop was planned");
    // Nothing is reserved, so nothing is sent.
    assert_eq!(world.count(Request::WriteLedger), 0);
}

#[test]
fn rejected_read_before_removal_ends_the_reconcile() {
    let world = World::new(deleted());
    world.state().policies[0].allow_disable = true;
    let rejected = KubeError::Rejected("forbidden".to_owned());
    let error = rejected.clone();
    world.before(Request::ReadResource(ReadFrom::ApiServer), move |_| Err(error));
    let cached = world.state().resource.clone().unwrap();
    assert_eq!(run(reconcile(&world.context(), &cached)), Err(rejected));
    assert_eq!(world.count(Request::SetFinalizer), 0);
}

#[test]
fn finalizer_that_only_the_cache_allows_is_not_added() {
    let mut resource = resource();
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    world.before(Request::ReadPolicies(ReadFrom::ApiServer), |state| {
        state.policies[0].allow_disable = false;
        Ok(())
    });
    let context = world.context();
    reconcile_stored(&world, &context);
    assert_eq!((world.count(Request::SetFinalizer), world.count(Request::Start)), (0, 0));
}
