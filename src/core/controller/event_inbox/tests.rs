//! Which resources an event wakes, what a reconcile takes from it, and what forged events can do.

use jiff::Timestamp;
use stream_encryption_api::ledger::Action;

use super::*;
use crate::model::ledger::external::MAX_EXTERNAL_CALLS;

const MINUTE: Duration = Duration::from_mins(1);
/// The age of an event that has just happened.
const NOW: Duration = Duration::ZERO;

fn stream(name: &str) -> StreamArn {
    format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{name}").parse().unwrap()
}

fn key(number: u8) -> KmsKeyId {
    KmsKeyId::Arn(format!("arn:aws:kms:eu-west-1:111122223333:key/{number}").parse().unwrap())
}

fn resource(name: &str) -> StreamEncryption {
    let resource = serde_json::json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
        "metadata": {"name": name, "namespace": "data", "uid": name},
        "spec": {"stream": {"arn": stream(name).to_string()}},
    });
    serde_json::from_value(resource).unwrap()
}

fn event(subject: Subject) -> AwsEvent {
    AwsEvent { scope: EventScope::of(&stream("orders")), time: Timestamp::UNIX_EPOCH, subject }
}

fn call(name: &str, number: usize) -> AwsEvent {
    let call = CallEvent {
        event_id: format!("event-{number}"),
        request_id: format!("request-{number}"),
        action: Action::Stop,
        time: Timestamp::UNIX_EPOCH + Duration::from_secs(number as u64),
        caller_type: None,
        code: None,
    };
    event(Subject::Call(stream(name), call))
}

/// An inbox with a resource for each of these streams. All of them depend on key 1 and on an alias.
fn inbox(names: &[&str]) -> EventInbox {
    let inbox = EventInbox::default();
    let alias = KmsKeyId::Alias("alias/orders".to_owned());
    for name in names {
        inbox.replace_dependencies(&resource(name), &stream(name), &[key(1), alias.clone()]);
    }
    inbox
}

/// Returns whether the events of a stream with a key of the same account arrive.
fn are_arriving(inbox: &EventInbox, now: Duration) -> bool {
    inbox.suffice_for(&resource("orders"), &stream("orders"), None, now, Duration::ZERO)
}

fn due(inbox: &EventInbox, subject: Subject) -> Vec<String> {
    let mut due: Vec<String> =
        inbox.receive(&event(subject), MINUTE, NOW).iter().map(ToString::to_string).collect();
    due.sort();
    due
}

#[test]
fn event_wakes_the_resources_that_depend_on_its_subject() {
    let fresh = || inbox(&["orders", "clicks"]);
    let KmsKeyId::Arn(one) = key(1) else { unreachable!() };
    let KmsKeyId::Arn(two) = key(2) else { unreachable!() };
    assert_eq!(due(&fresh(), Subject::Stream(stream("orders"))), ["data/orders"]);
    assert_eq!(due(&fresh(), Subject::Key(one)), ["data/clicks", "data/orders"]);
    assert_eq!(due(&fresh(), Subject::Alias("alias/orders".to_owned())), ["data/clicks", "data/orders"]);
    for other in [
        Subject::Stream(stream("payments")),
        Subject::Key(two),
        Subject::Alias("alias/other".to_owned()),
        Subject::Heartbeat,
    ] {
        assert!(due(&fresh(), other.clone()).is_empty(), "{other:?}");
    }
    let mut elsewhere = event(Subject::Alias("alias/orders".to_owned()));
    elsewhere.scope.region = "us-east-1".parse().unwrap();
    assert!(fresh().receive(&elsewhere, MINUTE, NOW).is_empty(), "an alias of another region");
}

#[test]
fn resource_is_noticed_until_a_reconcile_has_finished() {
    let inbox = inbox(&["orders", "clicks"]);
    let (orders, clicks) = (resource("orders"), resource("clicks"));
    assert_eq!(inbox.begin_notice(&orders), Notice::default());
    inbox.receive(&call("orders", 1), MINUTE, NOW);
    assert!(inbox.is_noticed(&orders) && !inbox.is_noticed(&clicks));
    let first = inbox.begin_notice(&orders);
    assert_eq!((first.calls().len(), first.must_describe), (1, false), "the ledger may know the call");
    // Another event arrives while the reconcile runs.
    inbox.receive(&event(Subject::Stream(stream("orders"))), MINUTE, NOW);
    inbox.receive(&call("orders", 2), MINUTE, NOW);
    inbox.finish_notice(&orders, &first, CallsOutcome::Entered);
    let second = inbox.begin_notice(&orders);
    assert!(second.must_describe && inbox.is_noticed(&orders));
    assert_eq!(second.calls().iter().map(|call| call.event_id.clone()).collect::<Vec<_>>(), ["event-2"]);
    inbox.finish_notice(&orders, &second, CallsOutcome::Entered);
    assert_eq!((inbox.begin_notice(&orders), inbox.is_noticed(&orders)), (Notice::default(), false));
    assert!(inbox.lock().calls.is_empty());
}

#[test]
fn queue_keeps_a_call_until_a_reconcile_has_finished() {
    let inbox = inbox(&["orders"]);
    let (managed, other) = (call("orders", 1), call("payments", 1));
    inbox.receive(&managed, MINUTE, NOW);
    inbox.receive(&other, MINUTE, NOW);
    assert!(inbox.holds(&managed) && !inbox.holds(&other), "no resource waits for the other call");
    assert!(inbox.receive(&managed, MINUTE, NOW).is_empty(), "the queue delivers it again");
    inbox.finish_notice(&resource("orders"), &inbox.begin_notice(&resource("orders")), CallsOutcome::Entered);
    assert!(!inbox.holds(&managed));
}

#[test]
fn flood_of_forged_calls_needs_little_memory() {
    let inbox = inbox(&["orders"]);
    for number in 0..10_000 {
        let other = format!("stream-{number}");
        inbox.receive(&call(&other, number), MINUTE, NOW);
        inbox.receive(&call("orders", number), MINUTE, NOW);
        let mut elsewhere = event(Subject::Heartbeat);
        elsewhere.scope.account = format!("{number:012}").parse().unwrap();
        inbox.receive(&elsewhere, MINUTE, NOW);
    }
    let state = inbox.lock();
    assert_eq!((state.calls.len(), state.resources.len(), state.arrivals.len()), (1, 1, 1));
    assert_eq!(state.calls.values().next().unwrap().len(), MAX_EXTERNAL_CALLS);
}

#[test]
fn flood_of_refused_calls_does_not_hide_an_accepted_one() {
    let inbox = inbox(&["orders"]);
    for number in 0..MAX_EXTERNAL_CALLS {
        let mut refused = call("orders", number);
        if let Subject::Call(_, call) = &mut refused.subject {
            call.code = Some("LimitExceededException".to_owned());
        }
        inbox.receive(&refused, MINUTE, NOW);
    }
    let accepted = call("orders", MAX_EXTERNAL_CALLS);
    inbox.receive(&accepted, MINUTE, NOW);
    assert!(inbox.holds(&accepted));
    assert_eq!(inbox.begin_notice(&resource("orders")).calls().len(), MAX_EXTERNAL_CALLS);
}

#[test]
fn latest_calls_are_held_while_the_ledger_is_invalid() {
    let inbox = inbox(&["orders"]);
    // The queue delivers them in any order.
    for number in (0..=MAX_EXTERNAL_CALLS).rev() {
        inbox.receive(&call("orders", number), MINUTE, NOW);
    }
    assert!(!inbox.holds(&call("orders", 0)));
    assert!((1..=MAX_EXTERNAL_CALLS).all(|number| inbox.holds(&call("orders", number))));
}

#[test]
fn changed_key_replaces_the_earlier_one() {
    let inbox = inbox(&["orders"]);
    let (KmsKeyId::Arn(one), KmsKeyId::Arn(two)) = (key(1), key(2)) else { unreachable!() };
    inbox.replace_dependencies(&resource("orders"), &stream("orders"), &[key(2)]);
    assert!(due(&inbox, Subject::Key(one)).is_empty());
    assert_eq!(due(&inbox, Subject::Key(two)), ["data/orders"]);
    assert!(inbox.is_noticed(&resource("orders")));
    inbox.replace_dependencies(&resource("orders"), &stream("orders"), &[]);
    assert!(inbox.is_noticed(&resource("orders")), "what was noticed remains");
    inbox.evict("data/orders");
    let state = inbox.lock();
    assert!(state.resources.is_empty() && state.by_subject.is_empty(), "a deleted resource");
    assert!(state.scopes.is_empty());
}

#[test]
fn silence_of_a_region_is_found_once() {
    let inbox = inbox(&["orders", "clicks"]);
    let scope = EventScope::of(&stream("orders"));
    assert!(!are_arriving(&inbox, MINUTE), "none has arrived yet");
    assert!(inbox.find_silent(SILENCE * 2).is_empty(), "silence is no news then");
    inbox.receive(&event(Subject::Heartbeat), MINUTE, NOW);
    let silent = MINUTE + SILENCE;
    let before = silent.checked_sub(Duration::from_secs(1)).unwrap();
    assert!(are_arriving(&inbox, before));
    assert!(inbox.find_silent(before).is_empty());
    assert!(!are_arriving(&inbox, silent));
    let found = inbox.find_silent(silent);
    assert_eq!((found.len(), found[0].silence, found[0].resources.len()), (1, Silence::Everything, 2));
    assert!(inbox.begin_notice(&resource("orders")).must_describe, "what happened meanwhile is unknown");
    assert!(inbox.find_silent(silent).is_empty());
    assert_eq!(inbox.ages(silent), [(scope.clone(), None)]);
    inbox.receive(&event(Subject::Heartbeat), silent, NOW);
    assert!(are_arriving(&inbox, silent + MINUTE));
    assert_eq!(inbox.ages(silent + MINUTE), [(scope, Some(MINUTE))]);
}

/// Heartbeats show that the queue works, and not that a trail logs calls.
#[test]
fn own_call_without_an_event_is_silence_despite_heartbeats() {
    let scope = EventScope::of(&stream("orders"));
    let made = MINUTE * 6;
    for (seen, age, is_silent) in [
        (None, NOW, true),
        (Some(Subject::Heartbeat), NOW, true),
        (Some(Subject::Stream(stream("clicks"))), NOW, false),
        (Some(call("orders", 1).subject), NOW, false),
        // The queue delivers again what happened before the call, even if the clocks differ.
        (Some(Subject::Stream(stream("clicks"))), made + SILENCE * 2, true),
    ] {
        let inbox = inbox(&["orders"]);
        let heartbeat = |at| inbox.receive(&event(Subject::Heartbeat), at, NOW);
        inbox.record_own_call(&scope, Duration::ZERO);
        heartbeat(MINUTE);
        heartbeat(MINUTE * 5);
        assert!(are_arriving(&inbox, MINUTE + SILENCE / 2), "no events were expected before");
        inbox.receive(&event(Subject::Stream(stream("clicks"))), MINUTE * 3, NOW);
        inbox.record_own_call(&scope, MINUTE * 2);
        assert!(are_arriving(&inbox, MINUTE * 2 + SILENCE), "its event arrived before AWS's response");
        inbox.record_own_call(&scope, made);
        inbox.record_own_call(&scope, made + MINUTE);
        if let Some(subject) = seen.clone() {
            inbox.receive(&event(subject), made + MINUTE, age);
        }
        heartbeat(made + SILENCE);
        let found = inbox.find_silent(made + SILENCE);
        let silences: Vec<_> = found.iter().map(|found| (found.silence, found.resources.len())).collect();
        assert_eq!(silences, if is_silent { vec![(Silence::OwnCall, 1)] } else { vec![] }, "{seen:?}");
        assert_eq!(are_arriving(&inbox, made + SILENCE), !is_silent);
        heartbeat(made + SILENCE + MINUTE);
        assert!(inbox.find_silent(made + SILENCE + MINUTE).is_empty(), "it is returned once");
        inbox.receive(&event(Subject::Stream(stream("clicks"))), made + SILENCE * 3, NOW);
        assert!(are_arriving(&inbox, made + SILENCE * 3), "an event ends it");
    }
}

#[test]
fn key_of_another_account_needs_the_events_of_that_account() {
    let (inbox, resource, stream) = (EventInbox::default(), resource("orders"), stream("orders"));
    let key: KmsKeyId = KmsKeyId::Arn("arn:aws:kms:eu-west-1:444455556666:key/1".parse().unwrap());
    let scope = EventScope { account: "444455556666".parse().unwrap(), ..EventScope::of(&stream) };
    let heartbeat = |scope, at| inbox.receive(&AwsEvent { scope, ..event(Subject::Heartbeat) }, at, NOW);
    let suffice = |at| inbox.suffice_for(&resource, &stream, None, at, Duration::ZERO);
    inbox.add_dependencies(&resource, &stream, &[]);
    heartbeat(EventScope::of(&stream), MINUTE);
    assert!(suffice(MINUTE), "no key is registered yet");
    assert!(
        !inbox.suffice_for(&resource, &stream, Some(&key), MINUTE, Duration::ZERO),
        "the spec names the key"
    );
    for round in 1..3 {
        let begin = MINUTE * 60 * round;
        inbox.add_dependencies(&resource, &stream, std::slice::from_ref(&key));
        heartbeat(EventScope::of(&stream), begin);
        assert!(!suffice(begin), "nothing reports a change of the key");
        heartbeat(scope.clone(), begin);
        assert!(suffice(begin) && inbox.find_silent(begin).is_empty());
        let later = begin + SILENCE;
        heartbeat(EventScope::of(&stream), later);
        let found = inbox.find_silent(later);
        assert_eq!(
            found.iter().map(|one| (&one.scope, one.resources.len())).collect::<Vec<_>>(),
            [(&scope, 1)]
        );
        assert_eq!(inbox.ages(later).len(), 2);
        assert!(!suffice(later));
        assert!(inbox.begin_notice(&resource).must_describe, "what happened meanwhile is unknown");
    }
    inbox.replace_dependencies(&resource, &stream, &[]);
    assert!(suffice(MINUTE * 120 + SILENCE), "the key is not used any more");
}

/// KMS may report the old state for some minutes, and the request after the event may fail.
#[test]
fn events_do_not_suffice_soon_after_a_change() {
    let KmsKeyId::Arn(key) = key(1) else { unreachable!() };
    for (subject, is_change) in [
        (Subject::Key(key), true),
        (Subject::Stream(stream("orders")), true),
        (call("orders", 1).subject, false),
    ] {
        let inbox = inbox(&["orders", "clicks"]);
        inbox.receive(&event(Subject::Heartbeat), MINUTE, NOW);
        inbox.receive(&event(subject.clone()), MINUTE, NOW);
        let suffice = |at| inbox.suffice_for(&resource("orders"), &stream("orders"), None, at, MINUTE * 5);
        assert_eq!(suffice(MINUTE * 5), !is_change, "{subject:?}");
        assert!(suffice(MINUTE * 6));
    }
}

/// A forged event can name any account. It must not raise the alert about lost events.
#[test]
fn region_without_resources_has_no_age() {
    let inbox = inbox(&["orders"]);
    let scope = EventScope { region: "us-east-1".parse().unwrap(), ..EventScope::of(&stream("orders")) };
    inbox.receive(&AwsEvent { scope, ..event(Subject::Heartbeat) }, MINUTE, NOW);
    assert!(inbox.ages(MINUTE).is_empty());
    inbox.receive(&event(Subject::Heartbeat), MINUTE, NOW);
    assert_eq!(inbox.ages(MINUTE * 2).len(), 1);
}

#[test]
fn change_of_keys_keeps_the_calls_of_the_stream() {
    let (inbox, stopped) = (inbox(&["orders"]), call("orders", 1));
    inbox.receive(&stopped, MINUTE, NOW);
    // A reconcile first knows only the desired key, then the active one, too.
    inbox.add_dependencies(&resource("orders"), &stream("orders"), &[key(2)]);
    inbox.replace_dependencies(&resource("orders"), &stream("orders"), &[key(2), key(3)]);
    assert!(inbox.holds(&stopped) && inbox.is_noticed(&resource("orders")));
    assert_eq!(inbox.begin_notice(&resource("orders")).calls().len(), 1);
    let KmsKeyId::Arn(before) = key(1) else { unreachable!() };
    assert!(due(&inbox, Subject::Key(before)).is_empty());
}

#[test]
fn extension_keeps_what_the_resource_depended_on() {
    let (inbox, KmsKeyId::Arn(active)) = (inbox(&["orders"]), key(1)) else { unreachable!() };
    inbox.add_dependencies(&resource("orders"), &stream("orders"), &[key(2)]);
    assert_eq!(due(&inbox, Subject::Key(active)), ["data/orders"]);
}

/// The operator's default region may have changed. The status then names the stream of the earlier region, and the queue may
/// still hold an event about that stream.
#[test]
fn call_on_the_stream_of_an_earlier_spec_is_not_taken() {
    let inbox = inbox(&["orders"]);
    let orders = resource("orders");
    inbox.receive(&call("orders", 1), MINUTE, NOW);
    let mut notice = inbox.begin_notice(&orders);
    notice.keep_calls_of(&stream("payments"));
    assert!(notice.calls().is_empty());
    inbox.finish_notice(&orders, &notice, CallsOutcome::Entered);
    assert!(inbox.holds(&call("orders", 1)), "no ledger has it");
    inbox.replace_dependencies(&orders, &stream("payments"), &[]);
    assert!(!inbox.holds(&call("orders", 1)), "no resource has its stream");
}

#[test]
fn other_resource_of_a_stream_does_not_end_the_calls_of_its_owner() {
    let inbox = EventInbox::default();
    let (owner, other) = (resource("orders"), resource("rival"));
    for resource in [&owner, &other] {
        inbox.replace_dependencies(resource, &stream("orders"), &[]);
    }
    let stopped = call("orders", 1);
    assert_eq!(inbox.receive(&stopped, MINUTE, NOW).len(), 2);
    inbox.finish_notice(&other, &inbox.begin_notice(&other), CallsOutcome::MustNotEnter);
    assert!(inbox.holds(&stopped), "the owner has not entered it");
    assert_eq!(inbox.begin_notice(&owner).calls().len(), 1);
    inbox.finish_notice(&owner, &inbox.begin_notice(&owner), CallsOutcome::Entered);
    assert!(!inbox.holds(&stopped));
    // If no resource owns the ledger, the last one ends it.
    let again = call("orders", 2);
    inbox.receive(&again, MINUTE, NOW);
    inbox.finish_notice(&owner, &inbox.begin_notice(&owner), CallsOutcome::MustNotEnter);
    assert!(inbox.holds(&again));
    inbox.finish_notice(&other, &inbox.begin_notice(&other), CallsOutcome::MustNotEnter);
    assert!(!inbox.holds(&again));
}

#[test]
fn waiting_resource_is_not_woken_again() {
    let inbox = inbox(&["orders"]);
    let changed = || due(&inbox, Subject::Stream(stream("orders"))).len();
    assert_eq!((changed(), changed()), (1, 0), "it waits already");
    let notice = inbox.begin_notice(&resource("orders"));
    assert_eq!((changed(), changed()), (1, 0), "a reconcile has begun since");
    inbox.finish_notice(&resource("orders"), &notice, CallsOutcome::Entered);
    assert!(inbox.is_noticed(&resource("orders")), "of the later event");
}

#[test]
fn listed_resource_is_woken_before_its_first_reconcile() {
    let inbox = EventInbox::default();
    let mut orders = resource("orders");
    let key_arn = "arn:aws:kms:eu-west-1:111122223333:key/1";
    let status = serde_json::json!({"activeKey": {"type": "CUSTOMER_MANAGED_CMK", "arn": key_arn}});
    orders.status = Some(serde_json::from_value(status).unwrap());
    inbox.register_from_status(&orders);
    assert_eq!(inbox.receive(&call("orders", 1), MINUTE, NOW).len(), 1);
    inbox.finish_notice(&orders, &inbox.begin_notice(&orders), CallsOutcome::Entered);
    let KmsKeyId::Arn(active) = key(1) else { unreachable!() };
    assert_eq!(due(&inbox, Subject::Key(active)), ["data/orders"]);
}

#[test]
fn call_waits_while_no_ledger_can_be_written() {
    let inbox = inbox(&["orders"]);
    let (orders, stopped) = (resource("orders"), call("orders", 1));
    inbox.receive(&stopped, MINUTE, NOW);
    inbox.receive(&event(Subject::Stream(stream("orders"))), MINUTE, NOW);
    inbox.finish_notice(&orders, &inbox.begin_notice(&orders), CallsOutcome::NotEntered);
    assert!(inbox.holds(&stopped));
    let again = inbox.begin_notice(&orders);
    assert_eq!((again.calls().len(), again.must_describe), (1, false), "the stream has been described");
    inbox.finish_notice(&orders, &again, CallsOutcome::Entered);
    assert!(!inbox.holds(&stopped) && !inbox.is_noticed(&orders));
}

#[test]
fn other_resource_releases_the_calls_of_a_deleted_owner() {
    let inbox = EventInbox::default();
    let (owner, other) = (resource("orders"), resource("rival"));
    for resource in [&owner, &other] {
        inbox.replace_dependencies(resource, &stream("orders"), &[]);
    }
    let stopped = call("orders", 1);
    inbox.receive(&stopped, MINUTE, NOW);
    inbox.finish_notice(&other, &inbox.begin_notice(&other), CallsOutcome::MustNotEnter);
    inbox.evict("data/orders");
    assert!(inbox.holds(&stopped), "the other resource may take the stream over");
    inbox.finish_notice(&other, &inbox.begin_notice(&other), CallsOutcome::Entered);
    assert!(!inbox.holds(&stopped));
}

#[test]
fn new_term_begins_with_an_empty_inbox() {
    let inbox = inbox(&["orders"]);
    inbox.receive(&event(Subject::Heartbeat), MINUTE, NOW);
    inbox.clear();
    inbox.replace_dependencies(&resource("orders"), &stream("orders"), &[]);
    assert!(inbox.find_silent(MINUTE + SILENCE * 2).is_empty(), "an event of an earlier term is no arrival");
}

/// The queue delivers again what nobody has deleted. It must not hide that nothing new arrives.
#[test]
fn old_event_is_no_sign_that_events_arrive() {
    let inbox = inbox(&["orders"]);
    inbox.receive(&event(Subject::Heartbeat), MINUTE, NOW);
    let silent = MINUTE + SILENCE;
    assert!(inbox.receive(&event(Subject::Heartbeat), silent, SILENCE).is_empty());
    assert_eq!(inbox.find_silent(silent).len(), 1);
    inbox.receive(&event(Subject::Heartbeat), silent + MINUTE, SILENCE + MINUTE);
    assert!(inbox.find_silent(silent + MINUTE).is_empty(), "each loss is returned once");
}

/// The queue may deliver events while the operator waits for AWS's response to its call.
#[test]
fn only_an_event_since_the_call_can_report_it() {
    let scope = EventScope::of(&stream("orders"));
    let sent = MINUTE * 60;
    for (ages, is_silent) in [
        (&[NOW][..], false),
        // Older than the call, even if the clocks differ.
        (&[SILENCE * 2], true),
        (&[NOW, SILENCE * 2], false),
        (&[SILENCE * 2, NOW], false),
    ] {
        let inbox = inbox(&["orders"]);
        inbox.receive(&event(Subject::Heartbeat), sent, NOW);
        for (second, age) in (1..).zip(ages) {
            let arrived = sent + Duration::from_secs(second);
            inbox.receive(&event(Subject::Stream(stream("clicks"))), arrived, *age);
        }
        inbox.record_own_call(&scope, sent);
        inbox.receive(&event(Subject::Heartbeat), sent + SILENCE, NOW);
        assert_eq!(are_arriving(&inbox, sent + SILENCE), !is_silent, "{ages:?}");
    }
}

#[test]
fn region_without_resources_is_not_silent() {
    let inbox = inbox(&["orders"]);
    inbox.receive(&event(Subject::Heartbeat), MINUTE, NOW);
    inbox.evict("data/orders");
    assert_eq!(inbox.find_silent(MINUTE + SILENCE), []);
}
