//! Single reconciles with one fault each, between fakes of the two ports.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::ledger::{Action, Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::{DeletionPolicy, StreamEncryption};

use super::kube_api::{ENCRYPTION_LEFT_ON, KubeError, ReadFrom};
use super::memory::LastReconcile;
use super::{Context, TermEnd, ledger_store, reconcile, reconcile_in_term};
use crate::model::aws_error::{ErrorKind, OPERATOR_PAUSED, RESPONSE_LATE};
use crate::model::aws_event::{AwsEvent, CallEvent, EventScope, Subject};
use crate::model::key::Key;
use crate::model::ledger;
use crate::model::observation::ReportedEncryption;
use crate::model::schedule;
use fakes::{Identity, Request, World, run};

mod another_stream;
mod clock_error;
mod external_calls;
mod fakes;
mod finalizers;
mod interrupted;
mod lagging_ledger;
mod ledger_gc;
mod lost_ledger;
mod test_record;
mod transitions;
mod unsent_call;

const ARN: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

/// Returns a resource that requests encryption with any key.
fn resource() -> StreamEncryption {
    serde_json::from_value(json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": "orders", "namespace": "data", "uid": "uid-1", "generation": 1},
        "spec": {"stream": {"arn": ARN}},
    }))
    .unwrap()
}

/// Returns a deleted resource whose finalizer is to disable encryption.
fn deleted() -> StreamEncryption {
    let mut resource = resource();
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    resource.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    resource.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    resource
}

#[test]
fn removal_without_permission_is_reported_once() {
    let world = World::new(deleted());
    world.state().policies.clear();
    // The cache still holds the resource after its finalizer was removed.
    let cached = world.state().resource.clone().unwrap();
    world.state().lagging = Some(cached.clone());
    let context = world.context();
    for _ in 0..3 {
        run(reconcile(&context, &cached)).unwrap();
    }
    let reasons: Vec<_> = world.state().events.iter().map(|(reason, _)| reason.clone()).collect();
    assert_eq!(reasons, [ENCRYPTION_LEFT_ON]);
    assert_eq!(world.count(Request::SetFinalizer), 1);
    assert_eq!(world.count(Request::WriteStatus), 0, "the resource no longer exists");
}

#[test]
fn unread_ledger_after_conflict_makes_observation_outdated() {
    for is_gone in [false, true] {
        let world = World::new(resource());
        world.before(Request::Start, |state| {
            let version = Some(state.next_version());
            // Another replica writes the ledger while the call is in flight.
            state.ledger.as_mut().unwrap().metadata.resource_version = version;
            Ok(())
        });
        world.before(Request::ReadLedger(ReadFrom::ApiServer), move |state| {
            state.ledger.take_if(|_| is_gone);
            if is_gone { Ok(()) } else { Err(KubeError::Unavailable("no answer".to_owned())) }
        });
        let context = world.context();
        let cached = world.state().resource.clone().unwrap();
        let wake = run(reconcile(&context, &cached)).unwrap();
        assert_eq!(world.count(Request::Start), 1);
        assert_eq!(world.count(Request::WriteStatus), 0, "the ledger may be newer than the observation");
        assert_eq!(wake, context.clock.now() + schedule::AFTER_CONFLICT);
    }
}

#[test]
fn rejected_finalizer_patch_is_an_error_if_ledger_is_invalid() {
    let world = World::new(deleted());
    world.state().policies.clear();
    let other = ARN.replace("orders", "clicks").parse().unwrap();
    let owner = ledger_store::resource_identity(&resource());
    world.state().ledger = Some(StreamLedger::new("orders", ledger::new(&other, owner)));
    let rejected = KubeError::Rejected("forbidden".to_owned());
    let error = rejected.clone();
    world.before(Request::SetFinalizer, move |_| Err(error));
    let cached = world.state().resource.clone().unwrap();
    assert_eq!(run(reconcile(&world.context(), &cached)), Err(rejected));
}

#[test]
fn call_after_a_pause_is_not_reserved() {
    let world = World::new(resource());
    world.pause_after_permit(30);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    assert_eq!((world.count(Request::WriteLedger), world.count(Request::Start)), (0, 0));
}

#[test]
fn call_on_old_description_is_not_sent() {
    let world = World::new(resource());
    // Before the reservation, the description is 17 s old.
    world.pause_after_permit(12);
    world.pause_before(Request::ReadResource(ReadFrom::ApiServer), 5);
    world.pause_before(Request::WriteLedger, 4);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    assert_eq!(world.count(Request::Start), 0);
    let ledger = world.state().ledger.clone().unwrap();
    let [call] = &ledger.spec.calls[..] else { panic!("{:?}", ledger.spec.calls) };
    assert_eq!((call.outcome, call.code.as_deref()), (Outcome::Refused, Some(OPERATOR_PAUSED)));
}

#[test]
fn outcome_of_call_accepted_late_is_unknown() {
    for (pause, outcome, code) in [(15, Outcome::Accepted, None), (16, Outcome::Unknown, Some(RESPONSE_LATE))]
    {
        let world = World::new(resource());
        world.pause_before(Request::Start, pause);
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&world.context(), &cached)).unwrap();
        let ledger = world.state().ledger.clone().unwrap();
        let [call] = &ledger.spec.calls[..] else { panic!("{:?}", ledger.spec.calls) };
        assert_eq!((call.outcome, call.code.as_deref()), (outcome, code));
    }
}

#[test]
fn event_drift_corrected_is_published_if_call_was_sent() {
    for (pause, events) in [(0, vec!["DriftCorrected"]), (21, vec![])] {
        let world = World::new(resource());
        let context = world.context();
        let reconcile_after = |seconds| {
            world.state().elapsed += std::time::Duration::from_secs(seconds);
            let cached = world.state().resource.clone().unwrap();
            run(reconcile(&context, &cached)).unwrap();
        };
        reconcile_after(0);
        world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
        for _ in 0..4 {
            reconcile_after(60);
        }
        world.state().encryption = ReportedEncryption::Off;
        world.state().events.clear();
        world.pause_before(Request::WriteLedger, pause);
        reconcile_after(1200);
        let calls = world.state().ledger.clone().unwrap().spec.calls;
        assert!(calls.last().is_some_and(|call| call.correction), "{calls:?}");
        let reasons: Vec<_> = world.state().events.iter().map(|(reason, _)| reason.clone()).collect();
        assert!(reasons.iter().filter(|reason| *reason == "DriftCorrected").eq(&events), "{reasons:?}");
    }
}

/// The end of a term, and the flag that sets it.
fn term_end() -> (TermEnd, Arc<AtomicBool>) {
    let has_ended = Arc::new(AtomicBool::new(false));
    let flag = has_ended.clone();
    let end = TermEnd::new(move || {
        let flag = flag.clone();
        poll_fn(move |_| if flag.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending })
    });
    (end, has_ended)
}

/// Reconciles until the reconcile waits, ends the term after `meanwhile`, and requires that the reconcile ends.
fn end_term_while_waiting(world: &World, meanwhile: impl FnOnce()) {
    let cached = world.state().resource.clone().unwrap();
    let (context, (end, has_ended)) = (world.context(), term_end());
    let mut reconcile = pin!(reconcile_in_term(&context, &cached, &end));
    let mut poll = || reconcile.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    meanwhile();
    has_ended.store(true, Ordering::Relaxed);
    assert!(matches!(poll(), Poll::Ready(Ok(_))));
}

#[test]
fn wait_for_permit_ends_with_the_term_without_a_call() {
    let world = World::new(resource());
    world.state().grants_permits = false;
    end_term_while_waiting(&world, || {
        assert_eq!(world.count(Request::Permit), 1);
        // Even a permit that is granted meanwhile leads to no call.
        world.state().grants_permits = true;
    });
    let sent = [Request::WriteLedger, Request::Start, Request::WriteStatus].map(|kind| world.count(kind));
    assert_eq!(sent, [0, 0, 0]);
}

#[test]
fn wait_for_identity_ends_with_the_term() {
    let world = World::new(resource());
    world.state().identity = Identity::Hangs;
    end_term_while_waiting(&world, || {});
}

#[test]
fn wait_for_the_active_key_ends_with_the_term_and_a_report() {
    let world = World::new(resource());
    world.state().encryption = ReportedEncryption::On(Key::Customer(KEY.parse().unwrap()));
    world.state().kms_hangs = true;
    end_term_while_waiting(&world, || {});
    assert_eq!(world.count(Request::WriteStatus), 1);
}

/// Returns a suspended resource. The policy of [`World::new`] contains the word `own`, so resolving the resource requires the
/// operator's identity.
fn suspended() -> StreamEncryption {
    let mut resource = resource();
    resource.spec.suspend = true;
    resource
}

#[test]
fn suspended_resource_gets_the_finalizer_if_policies_permit_disabling() {
    let mut resource = suspended();
    resource.spec.deletion_policy = DeletionPolicy::Disable;
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    assert_eq!(world.count(Request::SetFinalizer), 1);
    assert_eq!(world.count(Request::Describe), 0);
}

/// Reconciles the resource as it is stored, and returns the time of the next reconcile.
fn reconcile_stored(world: &World, context: &Context<World, World>) -> jiff::Timestamp {
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(context, &cached)).unwrap()
}

fn stop_by_others() -> AwsEvent {
    let stream = ARN.parse().unwrap();
    let call = CallEvent {
        event_id: "event-1".to_owned(),
        request_id: "request-1".to_owned(),
        action: Action::Stop,
        time: "2026-01-01T00:00:00Z".parse().unwrap(),
        caller_type: None,
        code: None,
    };
    AwsEvent { scope: EventScope::of(&stream), time: call.time, subject: Subject::Call(stream, call) }
}

#[test]
fn call_of_others_is_entered_while_the_resource_is_suspended() {
    let world = World::new(resource());
    let context = world.context();
    let reconciled = || reconcile_stored(&world, &context);
    reconciled();
    world.state().resource.as_mut().unwrap().spec.suspend = true;
    world.state().identity = Identity::Fails;
    let event = stop_by_others();
    assert_eq!(context.memory.events.receive(&event, world.state().elapsed, Duration::ZERO).len(), 1);
    reconciled();
    assert!(context.memory.events.holds(&event), "the resource cannot be resolved");
    world.state().identity = Identity::Known;
    let describes = world.count(Request::Describe);
    reconciled();
    assert!(!context.memory.events.holds(&event));
    let ledger = world.state().ledger.clone().unwrap();
    assert_eq!(ledger.spec.external_calls.len(), 1);
    assert_eq!(world.count(Request::Describe), describes);
}

#[test]
fn call_of_others_waits_until_the_ledger_can_be_written() {
    let world = World::new(resource());
    let context = world.context();
    let reconciled = || reconcile_stored(&world, &context);
    reconciled();
    let event = stop_by_others();
    let _ = context.memory.events.receive(&event, world.state().elapsed, Duration::ZERO);
    world.before(Request::WriteLedger, |_| Err(KubeError::Rejected("forbidden".to_owned())));
    reconciled();
    assert!(context.memory.events.holds(&event));
    reconciled();
    assert!(!context.memory.events.holds(&event));
}

#[test]
fn unacknowledged_status_does_not_delay_the_next_attempt() {
    let world = World::new(resource());
    world.state().identity = Identity::Fails;
    let (context, cached) = (world.context(), || world.state().resource.clone().unwrap());
    run(reconcile(&context, &cached())).unwrap();
    let now = context.clock.now();
    let last = context.memory.recall_with_expired("uid-1");
    context.memory.keep(&cached(), LastReconcile { unacknowledged_write: Some(now), ..last });
    let wake = run(reconcile(&context, &cached())).unwrap();
    assert_eq!(wake, now + schedule::poll_interval(now, now, schedule::POLL_AWS_ERROR));
}

#[test]
fn status_reports_no_outcome_that_the_ledger_lacks() {
    for (is_recorded, next_attempt) in [(true, true), (false, false)] {
        let world = World::new(resource());
        world.state().refuses_calls = true;
        // The reservation, then the outcome.
        world.before(Request::WriteLedger, |_| Ok(()));
        for _ in 0..3 {
            world.before(Request::WriteLedger, move |_| {
                if is_recorded { Ok(()) } else { Err(KubeError::Unavailable("no answer".to_owned())) }
            });
        }
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&world.context(), &cached)).unwrap();
        let status = world.state().resource.clone().unwrap().status.unwrap();
        assert_eq!(status.next_attempt_time.is_some(), next_attempt, "{status:?}");
    }
}

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/4b000000-0000-4000-8000-000000000001";

fn woken_by(context: &Context<World, World>, subject: Subject) -> usize {
    let scope = EventScope::of(&ARN.parse().unwrap());
    let event = AwsEvent { scope, time: context.clock.now(), subject };
    context.memory.events.receive(&event, context.clock.monotonic(), Duration::ZERO).len()
}

#[test]
fn heartbeats_alone_do_not_lengthen_the_interval_after_a_call() {
    for is_reported in [false, true] {
        let world = World::new(resource());
        let context = world.context();
        context.memory.events.register_from_status(&resource());
        let pass = |minutes| {
            world.state().elapsed += Duration::from_mins(minutes);
            woken_by(&context, Subject::Heartbeat);
        };
        pass(1);
        reconcile_stored(&world, &context);
        assert_eq!(world.count(Request::Start), 1);
        world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
        if is_reported {
            woken_by(&context, Subject::Stream(ARN.replace("orders", "clicks").parse().unwrap()));
        }
        pass(10);
        reconcile_stored(&world, &context);
        pass(10);
        let cached = world.state().resource.clone().unwrap();
        let wake = run(reconcile(&context, &cached)).unwrap();
        let minutes = if is_reported { 45..70 } else { 0..12 };
        let wait = wake.duration_since(context.clock.now()).as_mins();
        assert!(minutes.contains(&wait), "{is_reported}: {wait}");
    }
}

#[test]
fn active_key_that_kms_does_not_describe_wakes_its_resource() {
    let world = World::new(resource());
    world.state().encryption = ReportedEncryption::On(Key::Customer(KEY.parse().unwrap()));
    world.state().kms_error = Some(ErrorKind::Transient);
    let (context, cached) = (world.context(), world.state().resource.clone().unwrap());
    run(reconcile(&context, &cached)).unwrap();
    assert_eq!(world.count(Request::DescribeKey), 1);
    assert_eq!(woken_by(&context, Subject::Key(KEY.parse().unwrap())), 1);
}

#[test]
fn desired_key_that_kms_does_not_describe_is_requested_once() {
    let mut resource = resource();
    resource.spec.key =
        Some(serde_json::from_value(json!({"type": "CUSTOMER_MANAGED_CMK", "arn": KEY})).unwrap());
    let world = World::new(resource);
    world.state().encryption = ReportedEncryption::On(Key::Customer(KEY.parse().unwrap()));
    world.state().kms_error = Some(ErrorKind::Transient);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    assert_eq!(world.count(Request::DescribeKey), 1);
}

#[test]
fn key_usable_is_unknown_while_kms_does_not_resolve_its_alias() {
    let mut resource = resource();
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    resource.spec.key = Some(serde_json::from_value(key).unwrap());
    let world = World::new(resource);
    world.state().kms_error = Some(ErrorKind::Transient);
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    let status = world.state().resource.clone().unwrap().status.unwrap();
    let usable = find(&status.conditions, ConditionType::KeyUsable).map(|one| one.status.as_str());
    assert_eq!(usable, Some("Unknown"), "{:?}", status.conditions);
}

#[test]
fn event_causes_one_describe_while_the_status_is_refused() {
    let world = World::new(resource());
    let (context, cached) = (world.context(), || world.state().resource.clone().unwrap());
    run(reconcile(&context, &cached())).unwrap();
    assert_eq!(woken_by(&context, Subject::Stream(ARN.parse().unwrap())), 1);
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    world.state().refuses_status = true;
    let before = world.count(Request::Describe);
    for _ in 0..3 {
        assert!(run(reconcile(&context, &cached())).is_err());
    }
    assert_eq!(world.count(Request::Describe), before + 1);
}

#[test]
fn rejected_status_is_not_expected_to_be_applied_later() {
    let world = World::new(resource());
    world.before(Request::WriteStatus, |_| Err(KubeError::Rejected("forbidden".to_owned())));
    let (context, cached) = (world.context(), world.state().resource.clone().unwrap());
    assert!(matches!(run(reconcile(&context, &cached)), Err(KubeError::Rejected(_))));
    assert_eq!(context.memory.recall_with_expired("uid-1").unacknowledged_write, None);
}

#[test]
fn call_of_others_is_entered_before_the_finalizer_is_removed() {
    let mut resource = deleted();
    resource.metadata.deletion_timestamp = None;
    let world = World::new(resource);
    world.state().policies[0].allow_disable = true;
    let (context, cached) = (world.context(), || world.state().resource.clone().unwrap());
    run(reconcile(&context, &cached())).unwrap();
    world.state().resource.as_mut().unwrap().metadata.deletion_timestamp =
        deleted().metadata.deletion_timestamp;
    world.state().policies.clear();
    let _ = context.memory.events.receive(&stop_by_others(), context.clock.monotonic(), Duration::ZERO);
    run(reconcile(&context, &cached())).unwrap();
    assert!(world.state().resource.is_none(), "the finalizer is removed");
    assert_eq!(world.state().ledger.clone().unwrap().spec.external_calls.len(), 1);
}

#[test]
fn call_is_released_if_another_client_keeps_the_deleted_resource() {
    let mut resource = resource();
    let world = World::new(resource.clone());
    let context = world.context();
    run(reconcile(&context, &resource)).unwrap();
    resource = world.state().resource.clone().unwrap();
    resource.metadata.deletion_timestamp = deleted().metadata.deletion_timestamp;
    resource.metadata.finalizers = Some(vec!["example.com/other".to_owned()]);
    world.state().resource = Some(resource.clone());
    let event = stop_by_others();
    let _ = context.memory.events.receive(&event, context.clock.monotonic(), Duration::ZERO);
    run(reconcile(&context, &resource)).unwrap();
    assert!(!context.memory.events.holds(&event));
}

#[test]
fn active_key_that_is_gone_is_reported_as_unusable() {
    let mut resource = resource();
    resource.spec.key =
        Some(serde_json::from_value(json!({"type": "CUSTOMER_MANAGED_CMK", "arn": KEY})).unwrap());
    let world = World::new(resource);
    world.state().encryption = ReportedEncryption::On(Key::Customer(KEY.parse().unwrap()));
    let cached = world.state().resource.clone().unwrap();
    run(reconcile(&world.context(), &cached)).unwrap();
    let status = world.state().resource.clone().unwrap().status.unwrap();
    let ready = find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.as_str());
    assert_eq!(ready, Some("KeyNotFound"), "{:?}", status.conditions);
    assert!(status.active_key_unusable_since_time.is_some());
}
