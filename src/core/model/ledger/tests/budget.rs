//! Never more calls than the limit in 24 hours on AWS's clock, and no wait longer than necessary.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stream_encryption_api::ledger::{Action, Call, Outcome, StreamLedgerSpec, Target};
use stream_encryption_api::stream_encryption::Service;

use super::{ACCEPTED, aws_error, empty, of_calls, plan, seconds, with_call};
use crate::model::aws_error::{AwsError, ErrorKind, OPERATOR_PAUSED};
use crate::model::key::Key;
use crate::model::ledger::{
    AWS_LIMIT, DAY, MAX_CLOCK_SKEW, MAX_LEDGER_ENTRIES, PlannedCall, QUOTA_WINDOW, budget, expires_at,
    rebuilt_from_status, record_outcome, reserve, validate,
};
use crate::model::scenario::midnight;

/// A time on AWS's clock at which the operator wants to call.
#[derive(Clone, Debug)]
struct Wish {
    /// The time since the previous wish.
    gap: Gap,
    /// The lead of the operator's clock over AWS's, in seconds.
    ahead: i64,
    /// The delay until the request reaches AWS: 0 is none, 1 is the end of its signature.
    lateness: f64,
    action: Action,
    /// The response that the operator receives.
    heard: Heard,
}

#[derive(Clone, Debug)]
enum Gap {
    Seconds(i64),
    /// While the budget is used up: until exactly `next_available_time`.
    UntilFree,
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    Ok,
    Denial,
    NoAnswer,
    /// The operator did not send the request.
    Unsent,
    Crash,
}

fn wish() -> impl Strategy<Value = Wish> {
    let skew = MAX_CLOCK_SKEW.as_secs();
    (
        prop_oneof![
            8 => (0_i64..30).prop_map(Gap::Seconds),
            2 => (0_i64..7200).prop_map(Gap::Seconds),
            1 => (80_000_i64..90_000).prop_map(Gap::Seconds),
            4 => Just(Gap::UntilFree),
        ],
        prop_oneof![Just(skew), Just(-skew), -skew..=skew],
        prop_oneof![Just(0.0), Just(1.0), 0.0..1.0],
        prop_oneof![3 => Just(Action::Start), 1 => Just(Action::Stop)],
        prop::sample::select(vec![Heard::Ok, Heard::Denial, Heard::NoAnswer, Heard::Unsent, Heard::Crash]),
    )
        .prop_map(|(gap, ahead, lateness, action, heard)| Wish { gap, ahead, lateness, action, heard })
}

fn target(action: Action) -> Target {
    match action {
        Action::Start => Key::AwsOwned.target(),
        Action::Stop => Target { action, key: None },
    }
}

/// Returns the error of a call that the operator did not send.
fn unsent() -> AwsError {
    aws_error(ErrorKind::Transient, OPERATOR_PAUSED)
}

#[test]
fn unsent_calls_use_no_budget_and_delay_little() {
    for service in [Service::Firehose, Service::Kinesis] {
        let denied = with_call(&empty(service), seconds(0), Some(Err(&aws_error(ErrorKind::Denied, "x"))));
        let waits = |ledger: &StreamLedgerSpec, at| {
            let attempts = ledger.attempts.as_ref().unwrap();
            (attempts.count, attempts.not_before_time.0.duration_since(seconds(at)).as_secs())
        };
        assert_eq!(waits(&denied, 0), (1, 5 * 60));
        let mut ledger = denied;
        let expected = [30, 60, 120, 240, 480, 900, 900];
        for (n, wait) in expected.into_iter().enumerate() {
            let at = 1000 * (i64::try_from(n).unwrap() + 1);
            ledger = with_call(&ledger, seconds(at), Some(Err(&unsent())));
            assert_eq!(waits(&ledger, at), (1, wait), "the count is that of the attempts");
        }
        let used = budget(&ledger, service, Action::Start, 20, seconds(8000)).used;
        assert_eq!(used, u32::from(service == Service::Firehose), "only the denied call");
        let denied = with_call(&ledger, seconds(8000), Some(Err(&aws_error(ErrorKind::Denied, "x"))));
        assert_eq!(waits(&denied, 8000), (2, 10 * 60));
    }
}

#[test]
fn unsent_first_call_is_no_attempt() {
    let other = PlannedCall { target: target(Action::Stop), desired_target: target(Action::Stop), ..plan() };
    let mut ledger = empty(Service::Firehose);
    for at in 0..6 {
        let (reserved, id) = reserve(&ledger, &other, seconds(at));
        ledger = record_outcome(&reserved, &id, Err(&unsent()), seconds(at));
    }
    let wait = |ledger: &StreamLedgerSpec, at| {
        let attempts = ledger.attempts.as_ref().unwrap();
        (attempts.count, attempts.not_before_time.0.duration_since(seconds(at)).as_secs())
    };
    let first = with_call(&ledger, seconds(10), Some(Err(&unsent())));
    assert_eq!(wait(&first, 10), (0, 30), "those of another target do not count");
    let sent = with_call(&first, seconds(60), Some(Err(&aws_error(ErrorKind::Denied, "x"))));
    assert_eq!(wait(&sent, 60), (1, 300));
}

#[test]
fn rebuilt_ledger_has_no_new_budget_for_either_action() {
    for service in [Service::Firehose, Service::Kinesis] {
        let rebuilt = rebuilt_from_status(&empty(service), service, 3, midnight());
        for action in [Action::Start, Action::Stop] {
            assert_eq!(budget(&rebuilt, service, action, 20, midnight()).used, 3, "{service:?} {action:?}");
        }
        let stream = crate::model::scenario::stream(service);
        assert_eq!(validate(&rebuilt, &stream), Ok(()));
    }
}

/// Returns when AWS applied calls, on its clock, if the operator calls at every wish for which the budget has
/// room.
///
/// A request is dated with the operator's time, and AWS refuses it if its own clock differs by more than 15
/// minutes.
fn carried_out(service: Service, limit: u32, wishes: &[Wish]) -> Vec<(Timestamp, Action)> {
    let mut ledger = empty(service);
    let mut aws_now = midnight();
    let mut carried_out = Vec::new();
    for wish in wishes {
        let ahead = SignedDuration::from_secs(wish.ahead);
        aws_now += match wish.gap {
            Gap::Seconds(seconds) => SignedDuration::from_secs(seconds),
            Gap::UntilFree => {
                let now = budget(&ledger, service, wish.action, limit, aws_now + ahead);
                let full = now.next_available_time.filter(|_| !now.has_room());
                full.map_or(SignedDuration::ZERO, |free| free.duration_since(aws_now + ahead))
            }
        };
        let now = aws_now + ahead;
        if !budget(&ledger, service, wish.action, limit, now).has_room() {
            continue;
        }
        let plan = PlannedCall { target: target(wish.action), desired_target: target(wish.action), ..plan() };
        let (reserved, id) = reserve(&ledger, &plan, now);
        let latest = (now + MAX_CLOCK_SKEW).duration_since(aws_now);
        let at = aws_now + SignedDuration::from_secs_f64(latest.as_secs_f64() * wish.lateness);
        // Kinesis counts the calls that it applied; Firehose counts every call that it receives.
        let is_counted = match wish.heard {
            Heard::Unsent => false,
            Heard::Denial => service == Service::Firehose,
            Heard::Ok | Heard::NoAnswer | Heard::Crash => true,
        };
        if is_counted {
            carried_out.push((at, wish.action));
        }
        let (refused, unanswered) =
            (aws_error(ErrorKind::Denied, "Code"), aws_error(ErrorKind::UnknownOutcome, "Code"));
        ledger = match wish.heard {
            Heard::Ok => record_outcome(&reserved, &id, Ok(&ACCEPTED), now),
            Heard::Denial => record_outcome(&reserved, &id, Err(&refused), now),
            Heard::NoAnswer => record_outcome(&reserved, &id, Err(&unanswered), now),
            Heard::Unsent => record_outcome(&reserved, &id, Err(&unsent()), now),
            Heard::Crash => reserved,
        };
    }
    carried_out
}

/// Returns the highest number of calls in any 24 hours.
fn most_in_a_day(mut times: Vec<Timestamp>) -> usize {
    times.sort_unstable();
    let in_day_from =
        |first: usize| times[first..].iter().take_while(|at| at.duration_since(times[first]) < DAY).count();
    (0..times.len()).map(in_day_from).max().unwrap_or(0)
}

fn any_ledger() -> impl Strategy<Value = StreamLedgerSpec> {
    let outcome =
        prop::sample::select(vec![Outcome::Pending, Outcome::Accepted, Outcome::Refused, Outcome::Unknown]);
    let call = (-100_000_i64..20_000, outcome, prop::bool::ANY);
    prop_oneof![prop::collection::vec(call.clone(), 0..60), prop::collection::vec(call, 190..230)].prop_map(
        |calls| {
            let mut ledger = empty(Service::Kinesis);
            for (at, outcome, start) in calls {
                let (with, _) = reserve(&empty(Service::Kinesis), &plan(), seconds(at));
                let action = if start { Action::Start } else { Action::Stop };
                ledger.calls.push(Call { outcome, target: target(action), ..with.calls[0].clone() });
            }
            ledger
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn firehose_calls_never_exceed_limit_in_24_hours(
        limit in 1_u32..40,
        wishes in prop::collection::vec(wish(), 1..150),
    ) {
        let times = carried_out(Service::Firehose, limit, &wishes).into_iter().map(|(at, _)| at).collect();
        prop_assert!(most_in_a_day(times) <= limit.min(AWS_LIMIT) as usize);
    }

    #[test]
    fn kinesis_starts_and_stops_never_exceed_limit_in_24_hours(
        limit in 1_u32..40,
        wishes in prop::collection::vec(wish(), 1..150),
    ) {
        let calls = carried_out(Service::Kinesis, limit, &wishes);
        for action in [Action::Start, Action::Stop] {
            let times = calls.iter().filter(|(_, which)| *which == action).map(|(at, _)| *at).collect();
            prop_assert!(most_in_a_day(times) <= limit.min(AWS_LIMIT) as usize, "{:?}", action);
        }
    }

    #[test]
    fn full_budget_has_room_exactly_at_next_available_time(
        ledger in any_ledger(), limit in 1_u32..30, firehose in prop::bool::ANY, start in prop::bool::ANY,
    ) {
        let service = if firehose { Service::Firehose } else { Service::Kinesis };
        let action = if start { Action::Start } else { Action::Stop };
        let at = |now| budget(&ledger, service, action, limit, now);
        let now = at(midnight());
        if let Some(free) = now.next_available_time {
            prop_assert!(free > midnight());
            let just_before = at(free - SignedDuration::from_nanos(1));
            prop_assert!(at(free).has_room());
            if now.has_room() {
                prop_assert_eq!(just_before.used, now.used);
                prop_assert!(at(free).used < now.used);
            } else {
                prop_assert!(!just_before.has_room(), "room before {}", free);
            }
        } else {
            prop_assert!(now.has_room() && now.used == 0);
        }
    }

    #[test]
    fn every_firehose_call_uses_one_of_the_budget(ledger in any_ledger(), limit in 0_u32..30) {
        let used = |ledger: &StreamLedgerSpec, now| budget(ledger, Service::Firehose, Action::Start, limit, now).used;
        let mut ledger = ledger;
        ledger.calls.truncate(MAX_LEDGER_ENTRIES as usize - 2);
        let before = used(&ledger, midnight());
        let (reserved, _) = reserve(&ledger, &plan(), midnight());
        prop_assert_eq!(used(&reserved, midnight()), before + 1);
    }
}

#[test]
fn random_wishes_often_reach_the_limit() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut full = 0;
    for _ in 0..100 {
        let wishes = prop::collection::vec(wish(), 150).new_tree(&mut runner).unwrap().current();
        let times = carried_out(Service::Firehose, 20, &wishes).into_iter().map(|(at, _)| at).collect();
        full += usize::from(most_in_a_day(times) == 20);
    }
    assert!(full > 50, "only {full} of 100 stories use the budget up: the property would prove little");
}

#[test]
fn call_counts_for_quota_window_and_no_longer() {
    let ledger = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let used = |now| budget(&ledger, Service::Firehose, Action::Start, 20, now).used;
    let moment = SignedDuration::from_nanos(1);
    assert_eq!(used(midnight() + DAY + MAX_CLOCK_SKEW * 2), 1, "and a minute for what is read late");
    assert_eq!(used(midnight() + QUOTA_WINDOW - moment), 1);
    assert_eq!(used(midnight() + QUOTA_WINDOW), 0);
}

#[test]
fn firehose_counts_starts_and_stops_of_any_outcome() {
    let mut ledger = empty(Service::Firehose);
    for (n, outcome) in
        [Outcome::Pending, Outcome::Accepted, Outcome::Refused, Outcome::Unknown].into_iter().enumerate()
    {
        ledger = with_call(&ledger, midnight(), None);
        ledger.calls[n].outcome = outcome;
        ledger.calls[n].target = target(if n % 2 == 0 { Action::Start } else { Action::Stop });
    }
    for action in [Action::Start, Action::Stop] {
        assert_eq!(budget(&ledger, Service::Firehose, action, 20, midnight()).used, 4);
    }
}

#[test]
fn kinesis_counts_starts_and_stops_separately_unless_refused() {
    let mut ledger = empty(Service::Kinesis);
    for (n, (outcome, action)) in [
        (Outcome::Pending, Action::Start),
        (Outcome::Accepted, Action::Start),
        (Outcome::Unknown, Action::Start),
        (Outcome::Refused, Action::Start),
        (Outcome::Accepted, Action::Stop),
        (Outcome::Refused, Action::Stop),
    ]
    .into_iter()
    .enumerate()
    {
        ledger = with_call(&ledger, midnight(), None);
        ledger.calls[n].outcome = outcome;
        ledger.calls[n].target = target(action);
    }
    let used = |action| budget(&ledger, Service::Kinesis, action, 20, midnight()).used;
    assert_eq!((used(Action::Start), used(Action::Stop)), (3, 1));
}

#[test]
fn limit_is_capped_at_aws_limit() {
    assert_eq!(
        budget(&empty(Service::Firehose), Service::Firehose, Action::Start, 1000, midnight()).limit,
        AWS_LIMIT
    );
}

#[test]
fn call_dated_in_the_future_counts() {
    let ledger = with_call(&empty(Service::Firehose), seconds(7200), Some(Ok(())));
    let now = budget(&ledger, Service::Firehose, Action::Start, 1, midnight());
    assert_eq!((now.used, now.next_available_time), (1, Some(seconds(7200) + QUOTA_WINDOW)));
}

#[test]
fn refused_kinesis_calls_count_only_when_ledger_is_full() {
    let refusal = aws_error(ErrorKind::InUse, "ResourceInUseException");
    let count = i64::from(MAX_LEDGER_ENTRIES);
    let ledger = (0..count)
        .fold(empty(Service::Kinesis), |ledger, n| with_call(&ledger, seconds(n), Some(Err(&refusal))));
    let at = |calls: &[Call]| budget(&of_calls(calls), Service::Kinesis, Action::Start, 20, seconds(count));
    assert!(at(&ledger.calls[1..]).has_room(), "one less");
    let full = at(&ledger.calls);
    assert!(!full.has_room());
    assert_eq!(full.next_available_time, Some(expires_at(&ledger.calls[0])));
}

#[test]
fn full_ledger_has_room_when_entry_and_budget_are_free() {
    let refusal = aws_error(ErrorKind::InUse, "ResourceInUseException");
    let refused = i64::from(MAX_LEDGER_ENTRIES) - 1;
    let ledger = (0..refused)
        .fold(empty(Service::Kinesis), |ledger, n| with_call(&ledger, seconds(n), Some(Err(&refusal))));
    let full = with_call(&ledger, seconds(refused), Some(Ok(())));
    let free_at =
        |limit| budget(&full, Service::Kinesis, Action::Start, limit, seconds(300)).next_available_time;
    assert_eq!(free_at(20), Some(expires_at(&full.calls[0])), "the oldest entry makes room");
    let accepted = full.calls.last().unwrap();
    assert_eq!(free_at(1), Some(expires_at(accepted)), "the only call that is allowed still counts");
}
