//! Calls of other callers: which events are counted, until when, and what a flood of them does.

use jiff::SignedDuration;
use proptest::prelude::*;
use stream_encryption_api::ledger::Outcome;

use super::*;
use crate::model::ledger::{budget, prune_expired, record_outcome, reserve, validate};
use crate::model::scenario::{ACCEPTED, aws_error, key, midnight, owner, stream};
use crate::model::{aws_error::Accepted, aws_error::ErrorKind, ledger, ledger::PlannedCall};

fn event(number: i64, action: Action, at: Timestamp) -> CallEvent {
    CallEvent {
        event_id: format!("event-{number}"),
        request_id: format!("request-{number}"),
        action,
        time: at,
        caller_type: Some("IAMUser".to_owned()),
        code: None,
    }
}

fn refused(number: i64, action: Action, code: &str) -> CallEvent {
    CallEvent { code: Some(code.to_owned()), ..event(number, action, midnight()) }
}

/// Returns the events of this many Starts, a minute apart, the last of which happened now.
fn starts(number: i64) -> Vec<CallEvent> {
    let at = |n: i64| midnight() - SignedDuration::from_mins(number - 1 - n);
    (0..number).map(|n| event(n, Action::Start, at(n))).collect()
}

fn empty(service: Service) -> StreamLedgerSpec {
    ledger::new(&stream(service), owner())
}

fn with(service: Service, events: &[CallEvent]) -> StreamLedgerSpec {
    record_events(&empty(service), events, midnight())
}

/// Returns the ledger with one Start of the operator, reserved at this time.
fn called(ledger: &StreamLedgerSpec, at: Timestamp) -> (StreamLedgerSpec, String) {
    let target = key(1).target();
    let plan = PlannedCall {
        desired_target: target.clone(),
        target,
        retry: None,
        correction: false,
        after_failure: false,
    };
    reserve(ledger, &plan, at)
}

/// Returns the ledger after these events have arrived one after the other.
fn recorded_in_turn(ledger: StreamLedgerSpec, events: &[CallEvent], now: Timestamp) -> StreamLedgerSpec {
    events.iter().fold(ledger, |ledger, event| record_events(&ledger, std::slice::from_ref(event), now))
}

fn used(ledger: &StreamLedgerSpec, action: Action, now: Timestamp) -> (u32, u32, u32) {
    let service = if ledger.stream_arn.contains("firehose") { Service::Firehose } else { Service::Kinesis };
    let budget = budget(ledger, service, action, 20, now);
    (budget.used, budget.external, budget.limit)
}

#[test]
fn twenty_calls_of_others_leave_five() {
    let ledger = with(Service::Firehose, &starts(20));
    assert_eq!(used(&ledger, Action::Start, midnight()), (20, 20, 25));
    let three = with(Service::Firehose, &starts(3));
    assert_eq!(used(&three, Action::Start, midnight()), (3, 3, 23), "the operator still has its 20");
    let full = with(Service::Firehose, &starts(25));
    let now = budget(&full, Service::Firehose, Action::Start, 20, midnight());
    assert!(!now.has_room());
    assert_eq!(now.next_available_time, Some(expires_at(&full.external_calls[0])));
    assert!(budget(&full, Service::Firehose, Action::Start, 20, now.next_available_time.unwrap()).has_room());
}

#[test]
fn policy_limits_own_calls_and_aws_limits_all() {
    let mut ledger = with(Service::Firehose, &starts(10));
    for second in 0..15 {
        let at = midnight() + SignedDuration::from_secs(second);
        let (reserved, id) = called(&ledger, at);
        ledger = record_outcome(&reserved, &id, Ok(&ACCEPTED), at);
        let room = budget(&ledger, Service::Firehose, Action::Start, 12, at).has_room();
        assert_eq!(room, second < 11, "12 own calls are permitted: {second}");
        let room = budget(&ledger, Service::Firehose, Action::Start, 20, at).has_room();
        assert_eq!(room, second < 14, "AWS allows 25 in all: {second}");
    }
}

#[test]
fn event_of_own_request_is_not_counted() {
    let (reserved, id) = called(&empty(Service::Firehose), midnight());
    let accepted = Accepted { request_id: Some("request-7".to_owned()) };
    let own = record_outcome(&reserved, &id, Ok(&accepted), midnight());
    let at = midnight() + SignedDuration::from_secs(1);
    assert_eq!(record_events(&own, &[event(7, Action::Start, at)], at), own);
    let mut error = aws_error(ErrorKind::InUse, "ResourceInUseException");
    error.request_id = accepted.request_id;
    let own = record_outcome(&reserved, &id, Err(&error), midnight());
    assert_eq!(record_events(&own, &[refused(7, Action::Start, "ResourceInUseException")], at), own);
}

#[test]
fn call_without_a_response_is_matched_once() {
    let (reserved, id) = called(&empty(Service::Firehose), midnight());
    let lost = record_outcome(&reserved, &id, Err(&aws_error(ErrorKind::UnknownOutcome, "")), midnight());
    for ledger in [reserved, lost] {
        let at = |minutes| midnight() + SignedDuration::from_mins(minutes);
        let matched = record_events(&ledger, &[event(1, Action::Start, at(31))], at(32));
        assert_eq!(matched.calls[0].request_id.as_deref(), Some("request-1"));
        assert_eq!(matched.calls[0].outcome, ledger.calls[0].outcome, "an event is no proof");
        assert_eq!(matched.external_calls, []);
        let again = record_events(&matched, &[event(1, Action::Start, at(31))], at(32));
        assert_eq!(again, matched, "the same event again");
        let two = record_events(&matched, &[event(2, Action::Start, at(31))], at(32));
        assert_eq!(two.external_calls.len(), 1, "another call");
        for other in [event(3, Action::Stop, at(31)), event(3, Action::Start, at(32))] {
            let counted = record_events(&ledger, &[other], at(32));
            assert_eq!(
                (counted.external_calls.len(), &counted.calls),
                (1, &ledger.calls),
                "it cannot be its event"
            );
        }
    }
}

#[test]
fn refused_call_of_others_takes_no_unanswered_call() {
    let (reserved, id) = called(&empty(Service::Firehose), midnight());
    let lost = record_outcome(&reserved, &id, Err(&aws_error(ErrorKind::UnknownOutcome, "")), midnight());
    let others = refused(1, Action::Start, "ResourceInUseException");
    let own = event(2, Action::Start, midnight());
    for events in [[others.clone(), own.clone()], [own, others]] {
        assert_eq!(used(&record_events(&lost, &events, midnight()), Action::Start, midnight()), (1, 0, 20));
    }
}

#[test]
fn late_event_is_matched_with_the_call_before_it() {
    let after = |minutes| midnight() + SignedDuration::from_mins(minutes);
    let (ledger, _) = called(&empty(Service::Kinesis), midnight());
    let (ledger, _) = called(&ledger, after(21));
    // AWS received the first call after 12 minutes: nine minutes before the second one was reserved.
    let events = [event(1, Action::Start, after(12)), event(2, Action::Start, after(33))];
    assert_eq!(recorded_in_turn(ledger, &events, after(34)).external_calls, []);
}

#[test]
fn events_of_two_late_calls_are_matched_in_order() {
    let after = |minutes| midnight() + SignedDuration::from_mins(minutes);
    let (ledger, _) = called(&empty(Service::Kinesis), midnight());
    let (ledger, _) = called(&ledger, after(20));
    // AWS received the first call two minutes after the second one was reserved, and the second one 20 minutes late.
    let events = [event(1, Action::Start, after(22)), event(2, Action::Start, after(40))];
    assert_eq!(recorded_in_turn(ledger, &events, after(41)).external_calls, []);
}

#[test]
fn external_call_counts_for_a_day_of_aws_clock() {
    let called_at = midnight() - SignedDuration::from_hours(3);
    let ledger = record_events(&empty(Service::Firehose), &[event(1, Action::Start, called_at)], midnight());
    let over = called_at + DAY + MAX_CLOCK_SKEW;
    let moment = SignedDuration::from_micros(1);
    assert_eq!(used(&ledger, Action::Start, over - moment).1, 1);
    assert_eq!(used(&ledger, Action::Start, over).1, 0);
    assert_eq!(prune_expired(&ledger, over - moment).external_calls.len(), 1);
    assert_eq!(prune_expired(&ledger, over).external_calls.len(), 0);
}

#[test]
fn event_with_an_impossible_time_is_left_out() {
    for (at, counted) in [
        (midnight() - DAY - MAX_CLOCK_SKEW, 0),
        (midnight() - DAY, 1),
        (midnight() + MAX_CLOCK_SKEW, 1),
        (midnight() + MAX_CLOCK_SKEW + SignedDuration::from_secs(1), 0),
        (Timestamp::MIN, 0),
        (Timestamp::MAX, 0),
    ] {
        assert_eq!(
            with(Service::Firehose, &[event(1, Action::Start, at)]).external_calls.len(),
            counted,
            "{at}"
        );
    }
}

#[test]
fn refused_external_call_does_not_count() {
    for code in [
        "ResourceInUseException",
        "InvalidKMSResourceException",
        "LimitExceededException",
        "ThrottlingException",
        "AccessDenied",
    ] {
        for service in [Service::Firehose, Service::Kinesis] {
            let ledger = with(service, &[refused(1, Action::Start, code)]);
            assert_eq!(used(&ledger, Action::Start, midnight()).1, 0, "{service:?} {code}");
        }
    }
}

#[test]
fn kinesis_counts_external_starts_and_stops_separately() {
    let events = [
        event(1, Action::Start, midnight()),
        event(2, Action::Stop, midnight()),
        event(3, Action::Stop, midnight()),
    ];
    for (service, start, stop) in [(Service::Firehose, 3, 3), (Service::Kinesis, 1, 2)] {
        let ledger = with(service, &events);
        assert_eq!(used(&ledger, Action::Start, midnight()).1, start, "{service:?}");
        assert_eq!(used(&ledger, Action::Stop, midnight()).1, stop, "{service:?}");
    }
}

#[test]
fn more_calls_than_aws_accepts_are_not_believed() {
    for number in [26, 64, 10_000] {
        let ledger = with(Service::Firehose, &starts(number));
        assert_eq!(used(&ledger, Action::Start, midnight()), (0, 0, 20), "{number}");
        assert!(ledger.external_calls.len() <= MAX_EXTERNAL_CALLS);
        assert_eq!(validate(&ledger, &stream(Service::Firehose)), Ok(()));
    }
    let mut two_days: Vec<CallEvent> = starts(25);
    two_days.push(event(99, Action::Start, midnight() - DAY - SignedDuration::from_mins(10)));
    let ledger = with(Service::Firehose, &two_days);
    assert_eq!(used(&ledger, Action::Start, midnight()).1, 26, "25 in any 24 hours of AWS are possible");
}

#[test]
fn flood_of_refused_calls_does_not_count() {
    let refusals: Vec<CallEvent> =
        (0..10_000).map(|n| refused(n, Action::Start, "ResourceInUseException")).collect();
    let accepted = event(20_000, Action::Start, midnight());
    for events in [[refusals.clone(), vec![accepted.clone()]].concat(), [vec![accepted], refusals].concat()] {
        let ledger = with(Service::Firehose, &events);
        assert_eq!(used(&ledger, Action::Start, midnight()), (1, 1, 21), "the accepted call alone");
        assert_eq!(ledger.external_calls.len(), MAX_EXTERNAL_CALLS);
    }
}

#[test]
fn denied_calls_do_not_displace_others() {
    let denied = |n| refused(n, Action::Start, "AccessDenied");
    let mut events = starts(20);
    events.extend((100..1100).map(denied));
    assert_eq!(used(&with(Service::Firehose, &events), Action::Start, midnight()), (20, 20, 25));
}

#[test]
fn call_that_was_not_sent_or_is_rebuilt_absorbs_no_event() {
    let (reserved, id) = called(&empty(Service::Kinesis), midnight());
    let unsent = aws_error(ErrorKind::Transient, crate::model::aws_error::OPERATOR_PAUSED);
    let unsent = record_outcome(&reserved, &id, Err(&unsent), midnight());
    let rebuilt = ledger::rebuilt_from_status(&empty(Service::Kinesis), Service::Kinesis, 1, midnight());
    for before in [unsent, rebuilt] {
        let after = record_events(&before, &[event(1, Action::Start, midnight())], midnight());
        assert_eq!((after.external_calls.len(), &after.calls), (1, &before.calls));
    }
}

#[test]
fn server_error_may_have_used_the_limit() {
    for code in ["InternalFailure", "InternalServiceErrorException", "ServiceUnavailable"] {
        let ledger = with(Service::Kinesis, &[refused(1, Action::Start, code)]);
        assert_eq!(used(&ledger, Action::Start, midnight()).1, 1, "{code}");
    }
}

#[test]
fn server_errors_do_not_make_accepted_calls_forged() {
    let failed = |n| refused(n, Action::Start, "InternalFailure");
    let events = [starts(20), (100..110).map(failed).collect()].concat();
    let only_accepted = with(Service::Firehose, &events);
    assert_eq!(used(&only_accepted, Action::Start, midnight()), (20, 20, 25), "not all 30 can have counted");
    let events: Vec<_> = (100..130).map(failed).collect();
    assert_eq!(used(&with(Service::Firehose, &events), Action::Start, midnight()), (0, 0, 20));
}

#[test]
fn refusal_does_not_drop_call_of_others_in_its_entry() {
    let (reserved, id) = called(&empty(Service::Kinesis), midnight());
    let other = record_events(&reserved, &[event(1, Action::Start, midnight())], midnight());
    assert_eq!(other.external_calls.len(), 0, "the event was taken for the own call");
    let mut error = aws_error(ErrorKind::InUse, "ResourceInUseException");
    let own = other.calls[0].request_id.clone();
    for (request_id, counted) in [(Some("own".to_owned()), 1), (None, 1), (own, 0)] {
        error.request_id = request_id;
        let refused = record_outcome(&other, &id, Err(&error), midnight());
        assert_eq!(used(&refused, Action::Start, midnight()).0, counted);
    }
}

proptest! {
    #[test]
    fn order_and_repetition_of_events_change_nothing(
        minutes in prop::collection::vec((0_i64..1500, prop::bool::ANY), 0..20), seed in any::<u64>(),
    ) {
        let events: Vec<CallEvent> = minutes
            .iter()
            .zip(0..)
            .map(|((minutes, start), number)| {
                let action = if *start { Action::Start } else { Action::Stop };
                event(number, action, midnight() - SignedDuration::from_mins(*minutes))
            })
            .collect();
        let mut shuffled = [events.clone(), events.clone()].concat();
        let length = shuffled.len();
        for index in 0..length {
            let other = usize::try_from(seed.rotate_left(u32::try_from(index % 64).unwrap()) % (length as u64)).unwrap();
            shuffled.swap(index, other);
        }
        let (once, twice) = (with(Service::Firehose, &events), with(Service::Firehose, &shuffled));
        let sorted = |ledger: &StreamLedgerSpec| {
            let mut calls = ledger.external_calls.clone();
            calls.sort_by(|a, b| (a.time.0, &a.event_id).cmp(&(b.time.0, &b.event_id)));
            calls
        };
        prop_assert_eq!(sorted(&once), sorted(&twice));
        prop_assert!(twice.external_calls.is_sorted_by_key(|call| call.time.0));
        prop_assert_eq!(used(&once, Action::Start, midnight()), used(&twice, Action::Start, midnight()));
        prop_assert!(once.calls.iter().all(|call| call.outcome == Outcome::Pending), "no call is made up");
    }
}
