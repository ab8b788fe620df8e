//! Reconciles that are given up, or that the API server refuses a step of.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use stream_encryption_api::RETRY_ANNOTATION;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::ledger::{Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::{StreamEncryption, StreamEncryptionStatus, Verification};

use super::fakes::{RIVALS, Request, World, run};
use super::{ARN, KEY, reconcile_stored, resource, woken_by};
use crate::controller::kube_api::{KubeError, ReadFrom};
use crate::controller::memory::{LastReconcile, Remembered};
use crate::controller::{Context, ledger_store, reconcile};
use crate::model::aws_error::ErrorKind;
use crate::model::aws_event::Subject;
use crate::model::key::{Key, KeyMetadata, KeyState};
use crate::model::observation::ReportedEncryption;
use crate::model::{ledger, schedule};

/// Returns another resource, which owns the stream.
fn rival() -> StreamEncryption {
    let mut rival = resource();
    rival.metadata.namespace = Some(RIVALS.to_owned());
    rival.metadata.uid = Some("uid-2".to_owned());
    rival
}

/// Returns the metadata of a usable key.
fn enabled_key(arn: &str) -> KeyMetadata {
    KeyMetadata {
        arn: arn.parse().unwrap(),
        state: KeyState::Enabled,
        symmetric: true,
        encrypts: true,
        aws_managed: false,
    }
}

/// Creates a world whose ledger names `rival` as the owner, which no policy allows the stream.
fn world_with_rival() -> World {
    let world = World::new(resource());
    let stream = ARN.parse().unwrap();
    let spec = ledger::new(&stream, ledger_store::resource_identity(&rival()));
    let mut ledger = StreamLedger::new(&ledger::name(&stream), spec);
    ledger.metadata.resource_version = Some("0".to_owned());
    let mut state = world.state();
    state.ledger = Some(ledger);
    state.rival = Some(rival());
    state.denies_rival = true;
    drop(state);
    world
}

#[test]
fn stream_is_taken_over_only_while_its_owner_is_denied() {
    for (is_permitted_again, owner) in [(false, "uid-1"), (true, "uid-2")] {
        let world = world_with_rival();
        world.before(Request::Permit, move |state| {
            state.denies_rival = !is_permitted_again;
            Ok(())
        });
        reconcile_stored(&world, &world.context());
        assert_eq!(world.state().ledger.clone().unwrap().spec.owner.uid, owner);
        assert_eq!(world.count(Request::Start), usize::from(!is_permitted_again));
    }
}

#[test]
fn takeover_discards_what_is_remembered_for_earlier_owner() {
    let world = world_with_rival();
    let context = world.context();
    let remembered = Remembered {
        identity: 0,
        stream: Some((context.clock.moment(), None)),
        key: None,
        active_key_report: None,
        due: context.clock.now() + SignedDuration::from_hours(1),
        retry: None,
        deleting: false,
    };
    let last = LastReconcile { remembered: Some(remembered), ..LastReconcile::default() };
    context.memory.keep(&rival(), last);
    reconcile_stored(&world, &context);
    assert_eq!(world.state().ledger.clone().unwrap().spec.owner.uid, "uid-1");
    assert!(context.memory.recall_with_expired("uid-2").remembered.is_none());
}

#[test]
fn outcome_is_written_again_if_the_write_has_no_response() {
    for is_read_answered in [true, false] {
        let world = World::new(resource());
        world.state().refuses_calls = true;
        // The reservation, then the outcome.
        world.before(Request::WriteLedger, |_| Ok(()));
        world.before(Request::WriteLedger, |_| Err(KubeError::Unavailable("no answer".to_owned())));
        if !is_read_answered {
            let read = Request::ReadLedger(ReadFrom::ApiServer);
            world.before(read, |_| Err(KubeError::Unavailable("no answer".to_owned())));
        }
        reconcile_stored(&world, &world.context());
        let calls = world.state().ledger.clone().unwrap().spec.calls;
        assert_eq!(calls.iter().map(|call| call.outcome).collect::<Vec<_>>(), [Outcome::Refused]);
        let reads = world.count(Request::ReadLedger(ReadFrom::ApiServer));
        assert_eq!(reads, 1, "the change is applied to a fresh read, if there is one");
    }
}

#[test]
fn refused_status_write_leaves_the_cache_valid() {
    for (error, from) in [
        (KubeError::Rejected("forbidden".to_owned()), ReadFrom::Cache),
        (KubeError::Unavailable("no answer".to_owned()), ReadFrom::ApiServer),
    ] {
        let world = World::new(resource());
        let context = world.context();
        world.before(Request::WriteStatus, move |_| Err(error));
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&context, &cached)).unwrap_err();
        assert_eq!(context.memory.read_from(&cached), from);
        assert_eq!(world.count(Request::Start), 1, "no call depends on the status");
    }
}

#[test]
fn reconciles_given_up_in_succession_wait_longer_and_longer() {
    let world = World::new(resource());
    let context = world.context();
    let reconciled = || {
        let cached = world.state().resource.clone().unwrap();
        run(reconcile(&context, &cached)).unwrap().duration_since(context.clock.now())
    };
    let waits: Vec<_> = (0..6)
        .map(|_| {
            world.pause_in_checks(11);
            reconciled()
        })
        .collect();
    let failed = |count| schedule::after_kube_error("uid-1", count);
    let conflict = schedule::AFTER_CONFLICT;
    assert_eq!(waits, [conflict, conflict, failed(1), failed(2), failed(3), failed(4)]);
    assert_eq!(world.count(Request::Start), 0);
    reconciled();
    assert_eq!(world.count(Request::Start), 1);
    assert_eq!(context.memory.recall_with_expired("uid-1").failures, 0);
}

#[test]
fn early_describe_leads_to_no_test_record() {
    type Cause = fn(&World, &Context<World, World>);
    let causes: [(&str, Cause); 3] = [
        ("event of AWS", |_, context| {
            assert_eq!(woken_by(context, Subject::Stream(ARN.parse().unwrap())), 1);
        }),
        ("write of the ledger by another client", |world, _| {
            let mut state = world.state();
            let version = state.next_version();
            state.ledger.as_mut().unwrap().metadata.resource_version = Some(version);
        }),
        ("failed Describe", |world, context| {
            context.memory.record_interruption(&resource());
            world.state().describe_fails = true;
            reconcile_stored(world, context);
            world.state().describe_fails = false;
        }),
    ];
    for (name, cause) in causes {
        let mut resource = resource();
        resource.spec.verification = Verification::PutRecord;
        let world = World::new(resource);
        let mut context = world.context();
        context.config.drift_interval_with_events = Some(context.config.drift_interval);
        world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
        world.state().is_record_plaintext = true;
        reconcile_stored(&world, &context);
        status_after_a_minute(&world, &context);
        reconcile_stored(&world, &context);
        assert_eq!(world.count(Request::PutRecord), 1);
        // The poll interval begins with 5 seconds.
        let describes = world.count(Request::Describe);
        for _ in 0..4 {
            world.state().elapsed += Duration::from_secs(1);
            cause(&world, &context);
            for _ in 0..2 {
                reconcile_stored(&world, &context);
            }
        }
        assert!(world.count(Request::Describe) >= describes + 4, "{name}: it is described");
        assert_eq!(world.count(Request::PutRecord), 1, "{name}");
        world.state().elapsed += Duration::from_secs(2);
        reconcile_stored(&world, &context);
        assert_eq!(world.count(Request::PutRecord), 2, "{name} does not delay it either");
    }
}

/// Returns the status after another reconcile of the stored resource, a minute later.
fn status_after_a_minute(world: &World, context: &Context<World, World>) -> StreamEncryptionStatus {
    world.state().elapsed += Duration::from_mins(1);
    reconcile_stored(world, context);
    world.state().resource.clone().unwrap().status.unwrap()
}

#[test]
fn ledger_that_lacks_an_observation_is_not_reported() {
    for restarts in [false, true] {
        let world = World::new(resource());
        let mut context = world.context();
        world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
        reconcile_stored(&world, &context);
        assert!(status_after_a_minute(&world, &context).active_key.is_some());
        world.state().encryption = ReportedEncryption::Off;
        world.before(Request::WriteLedger, |_| Err(KubeError::Rejected("no permission".to_owned())));
        world.state().elapsed += Duration::from_mins(20);
        let status = status_after_a_minute(&world, &context);
        assert_eq!(find(&status.conditions, ConditionType::Encrypted), None);
        // The ledger can be read again, and AWS does not answer.
        world.state().describe_fails = true;
        for _ in 0..2 {
            if restarts {
                context = world.context();
            }
            let status = status_after_a_minute(&world, &context);
            let encrypted = find(&status.conditions, ConditionType::Encrypted).unwrap();
            assert_eq!((encrypted.status.as_str(), status.active_key), ("Unknown", None));
        }
    }
}

/// Returns a world whose stream was encrypted when the operator last wrote its ledger, and is in plaintext now. This number of
/// writes of the ledger is not acknowledged. Two reconciles have failed because of that.
fn with_unwritten_plaintext(writes: usize) -> (World, Context<World, World>) {
    let world = World::new(resource());
    let context = world.context();
    let now = context.clock.now();
    world.state().stream_created = Some(now);
    world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
    reconcile_stored(&world, &context);
    assert!(status_after_a_minute(&world, &context).active_key.is_some());
    world.state().encryption = ReportedEncryption::Off;
    world.state().elapsed += Duration::from_mins(20);
    for _ in 0..writes {
        world.before(Request::WriteLedger, |_| Err(KubeError::Unavailable("webhook failed".to_owned())));
    }
    for _ in 0..2 {
        let cached = world.state().resource.clone().unwrap();
        assert!(matches!(run(reconcile(&context, &cached)), Err(KubeError::Unavailable(_))));
        world.state().elapsed += Duration::from_mins(1);
    }
    (world, context)
}

#[test]
fn ledger_whose_writes_keep_failing_is_reported() {
    let (world, context) = with_unwritten_plaintext(5);
    // It stays reported until a write succeeds.
    for write in 3..=5 {
        world.state().elapsed += Duration::from_mins(1);
        let cached = world.state().resource.clone().unwrap();
        let wake = run(reconcile(&context, &cached)).unwrap();
        assert!(wake <= context.clock.now() + schedule::after_kube_error("uid-1", write));
        let status = world.state().resource.clone().unwrap().status.unwrap();
        let ready = find(&status.conditions, ConditionType::Ready).unwrap();
        assert_eq!((ready.reason.as_str(), status.active_key), ("LedgerInvalid", None));
        assert_eq!(find(&status.conditions, ConditionType::Encrypted), None);
    }
    let status = status_after_a_minute(&world, &context);
    assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().reason, "Enabling");
    assert_eq!(world.count(Request::Start), 1);
}

#[test]
fn other_failures_do_not_make_a_ledger_invalid() {
    let world = World::new(resource());
    let context = world.context();
    for _ in 0..3 {
        context.memory.count_failure("uid-1");
    }
    world.before(Request::WriteLedger, |_| Err(KubeError::Unavailable("no answer".to_owned())));
    let cached = world.state().resource.clone().unwrap();
    assert!(matches!(run(reconcile(&context, &cached)), Err(KubeError::Unavailable(_))));
}

#[test]
fn failed_describe_does_not_end_the_count_of_failed_writes() {
    let (world, context) = with_unwritten_plaintext(3);
    world.state().describe_fails = true;
    status_after_a_minute(&world, &context);
    world.state().describe_fails = false;
    let status = status_after_a_minute(&world, &context);
    assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().reason, "LedgerInvalid");
}

#[test]
fn plaintext_that_could_not_be_written_is_not_forgotten() {
    for (is_replaced, is_refused) in [(false, false), (false, true), (true, false)] {
        for is_enabled_again in [false, true] {
            let (world, context) = with_unwritten_plaintext(3);
            if is_replaced {
                let now = context.clock.now();
                world.state().stream_created = Some(now);
            }
            status_after_a_minute(&world, &context);
            let seen = context.clock.now();
            if is_refused {
                let refused = || KubeError::Rejected("no permission".to_owned());
                world.before(Request::ReadLedger(ReadFrom::Cache), move |_| Err(refused()));
                status_after_a_minute(&world, &context);
            }
            if is_enabled_again {
                world.state().encryption = ReportedEncryption::On(Key::AwsOwned);
            }
            world.state().elapsed += Duration::from_mins(20);
            status_after_a_minute(&world, &context);
            let status = status_after_a_minute(&world, &context);
            let known = world.state().ledger.clone().unwrap().spec.known_encryption.unwrap();
            let encrypted_since = status.encrypted_since_time.map(|since| since.0);
            if is_enabled_again {
                assert!(encrypted_since.is_some_and(|since| since > seen), "{encrypted_since:?} {seen}");
            } else {
                assert!(known.key.is_none() && known.since_time.0 <= seen, "{known:?} {seen}");
            }
        }
    }
}

#[test]
fn denied_resource_does_not_prolong_its_description() {
    let world = World::new(resource());
    let context = world.context();
    reconcile_stored(&world, &context);
    let policies = std::mem::take(&mut world.state().policies);
    world.state().elapsed += Duration::from_secs(1);
    reconcile_stored(&world, &context);
    assert_eq!(world.count(Request::Describe), 1);
    world.state().policies = policies;
    status_after_a_minute(&world, &context);
    assert_eq!(world.count(Request::Describe), 2, "an earlier description said that the stream changes");
}

#[test]
fn retry_is_handled_with_a_description_for_an_event() {
    let world = World::new(resource());
    let context = world.context();
    reconcile_stored(&world, &context);
    let annotation = (RETRY_ANNOTATION.to_owned(), "1".to_owned());
    world.state().resource.as_mut().unwrap().metadata.annotations = Some([annotation].into());
    assert_eq!(woken_by(&context, Subject::Stream(ARN.parse().unwrap())), 1);
    reconcile_stored(&world, &context);
    assert_eq!(world.count(Request::Describe), 2);
    let status = world.state().resource.clone().unwrap().status.unwrap();
    assert_eq!(status.last_handled_retry.as_deref(), Some("1"));
}

#[test]
fn alias_wakes_its_resource_while_kms_does_not_resolve_it() {
    let mut resource = resource();
    let key = json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"});
    resource.spec.key = Some(serde_json::from_value(key).unwrap());
    let world = World::new(resource);
    let mut context = world.context();
    context.config.drift_interval_with_events = Some(context.config.drift_interval);
    reconcile_stored(&world, &context);
    for error in [ErrorKind::Transient, ErrorKind::Denied] {
        world.state().kms_error = Some(error);
        world.state().elapsed += Duration::from_hours(1);
        let describes = world.count(Request::DescribeKey);
        reconcile_stored(&world, &context);
        assert_eq!(world.count(Request::DescribeKey), describes + 1);
        assert_eq!(woken_by(&context, Subject::Alias("alias/orders".parse().unwrap())), 1, "{error:?}");
        reconcile_stored(&world, &context);
    }
}

#[test]
fn stream_is_not_claimed_if_its_key_is_denied_meanwhile() {
    let mut resource = resource();
    resource.spec.key = Some(
        serde_json::from_value(json!({"type": "CUSTOMER_MANAGED_CMK", "alias": "alias/orders"})).unwrap(),
    );
    let world = World::new(resource);
    world.state().kms_key = Some(enabled_key(KEY));
    world.state().encryption = ReportedEncryption::On(Key::Customer(KEY.parse().unwrap()));
    world.before(Request::Describe, |state| {
        state.elapsed += Duration::from_secs(30);
        state.kms_key = Some(enabled_key(&KEY.replace("111122223333", "444455556666")));
        Ok(())
    });
    reconcile_stored(&world, &world.context());
    assert_eq!(world.count(Request::WriteLedger), 0);
}
