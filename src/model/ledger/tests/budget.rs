//! Never more calls than the limit in 24 hours on AWS's clock, and no wait that is longer than that needs.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{empty, fault, plan, seconds, with_call};
use crate::api::ledger::{Action, Call, Outcome, StreamLedgerSpec, Target};
use crate::api::stream_encryption::Service;
use crate::model::fault::Class;
use crate::model::key::Key;
use crate::model::ledger::{
    ARRIVAL, AWS_LIMIT, DAY, MOST_CALLS, Reservation, WINDOW, budget, counts_until, record, reserve,
};
use crate::model::situation::midnight;

/// A moment on AWS's clock at which the operator would like to call.
#[derive(Clone, Debug)]
struct Wish {
    /// How long after the last wish.
    gap: Gap,
    /// How far the operator's clock is ahead of AWS's, in seconds.
    ahead: i64,
    /// How late the request reaches AWS: 0 at once, 1 when its signature ends.
    lateness: f64,
    action: Action,
    /// What the operator hears.
    heard: Heard,
}

#[derive(Clone, Debug)]
enum Gap {
    Seconds(i64),
    /// While the budget is used up: exactly as long as it says.
    UntilFree,
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    Ok,
    Refusal,
    NoAnswer,
    Crash,
}

fn wish() -> impl Strategy<Value = Wish> {
    let skew = ARRIVAL.as_secs();
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
        prop::sample::select(vec![Heard::Ok, Heard::Refusal, Heard::NoAnswer, Heard::Crash]),
    )
        .prop_map(|(gap, ahead, lateness, action, heard)| Wish { gap, ahead, lateness, action, heard })
}

fn target(action: Action) -> Target {
    match action {
        Action::Start => Key::AwsOwned.target(),
        Action::Stop => Target { action, key: None },
    }
}

/// When AWS carried out calls, on its clock, if the operator calls whenever it wishes and the budget has room.
///
/// A request is dated with the operator's time, and AWS refuses it where its own clock is further than 15 minutes from that.
fn carried_out(service: Service, limit: u32, wishes: &[Wish]) -> Vec<(Timestamp, Action)> {
    let mut ledger = empty(service);
    let mut aws_now = midnight();
    let mut carried_out = Vec::new();
    for wish in wishes {
        let ahead = SignedDuration::from_secs(wish.ahead);
        aws_now += match wish.gap {
            Gap::Seconds(seconds) => SignedDuration::from_secs(seconds),
            Gap::UntilFree => {
                let now = budget(&ledger.calls, service, wish.action, limit, aws_now + ahead);
                let full = now.next_free.filter(|_| !now.has_room());
                full.map_or(SignedDuration::ZERO, |free| free.duration_since(aws_now + ahead))
            }
        };
        let now = aws_now + ahead;
        if !budget(&ledger.calls, service, wish.action, limit, now).has_room() {
            continue;
        }
        let plan = Reservation { target: target(wish.action), wanted: target(wish.action), ..plan() };
        let (reserved, id) = reserve(&ledger, &plan, now);
        let latest = (now + ARRIVAL).duration_since(aws_now);
        let at = aws_now + SignedDuration::from_secs_f64(latest.as_secs_f64() * wish.lateness);
        // Kinesis counts what it carried out; Firehose counts every call.
        if service == Service::Firehose || !matches!(wish.heard, Heard::Refusal) {
            carried_out.push((at, wish.action));
        }
        let (refused, unanswered) = (fault(Class::Denied, "Code"), fault(Class::UnknownOutcome, "Code"));
        ledger = match wish.heard {
            Heard::Ok => record(&reserved, &id, Ok(()), now),
            Heard::Refusal => record(&reserved, &id, Err(&refused), now),
            Heard::NoAnswer => record(&reserved, &id, Err(&unanswered), now),
            Heard::Crash => reserved,
        };
    }
    carried_out
}

/// The most calls in any 24 hours.
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
    fn firehose_never_gets_more_calls_than_the_limit_in_24_hours(
        limit in 1_u32..40,
        wishes in prop::collection::vec(wish(), 1..150),
    ) {
        let times = carried_out(Service::Firehose, limit, &wishes).into_iter().map(|(at, _)| at).collect();
        prop_assert!(most_in_a_day(times) <= limit.min(AWS_LIMIT) as usize);
    }

    #[test]
    fn kinesis_never_gets_more_starts_or_more_stops_than_the_limit_in_24_hours(
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
    fn a_full_budget_has_room_again_when_it_says_and_not_a_moment_earlier(
        ledger in any_ledger(), limit in 1_u32..30, firehose in prop::bool::ANY, start in prop::bool::ANY,
    ) {
        let service = if firehose { Service::Firehose } else { Service::Kinesis };
        let action = if start { Action::Start } else { Action::Stop };
        let at = |now| budget(&ledger.calls, service, action, limit, now);
        let now = at(midnight());
        if let Some(free) = now.next_free {
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
    fn every_call_of_firehose_costs_one_of_the_budget(ledger in any_ledger(), limit in 0_u32..30) {
        let used = |ledger: &StreamLedgerSpec, now| budget(&ledger.calls, Service::Firehose, Action::Start, limit, now).used;
        let mut ledger = ledger;
        ledger.calls.truncate(MOST_CALLS - 2);
        let before = used(&ledger, midnight());
        let (reserved, _) = reserve(&ledger, &plan(), midnight());
        prop_assert_eq!(used(&reserved, midnight()), before + 1);
    }
}

#[test]
fn the_wishes_do_reach_the_limit() {
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
fn a_call_counts_for_a_day_and_what_may_lie_between_its_reservation_and_aws() {
    let ledger = with_call(&empty(Service::Firehose), midnight(), Some(Ok(())));
    let used = |now| budget(&ledger.calls, Service::Firehose, Action::Start, 20, now).used;
    let moment = SignedDuration::from_nanos(1);
    assert_eq!(used(midnight() + DAY + ARRIVAL * 2), 1, "and a minute for what is read late");
    assert_eq!(used(midnight() + WINDOW - moment), 1);
    assert_eq!(used(midnight() + WINDOW), 0);
}

#[test]
fn firehose_counts_starts_and_stops_together_whatever_came_of_them() {
    let mut ledger = empty(Service::Firehose);
    for (n, outcome) in
        [Outcome::Pending, Outcome::Accepted, Outcome::Refused, Outcome::Unknown].into_iter().enumerate()
    {
        ledger = with_call(&ledger, midnight(), None);
        ledger.calls[n].outcome = outcome;
        ledger.calls[n].target = target(if n % 2 == 0 { Action::Start } else { Action::Stop });
    }
    for action in [Action::Start, Action::Stop] {
        assert_eq!(budget(&ledger.calls, Service::Firehose, action, 20, midnight()).used, 4);
    }
}

#[test]
fn kinesis_counts_starts_and_stops_apart_and_not_what_it_refused() {
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
    let used = |action| budget(&ledger.calls, Service::Kinesis, action, 20, midnight()).used;
    assert_eq!((used(Action::Start), used(Action::Stop)), (3, 1));
}

#[test]
fn no_setting_gets_past_the_limit_of_aws() {
    assert_eq!(budget(&[], Service::Firehose, Action::Start, 1000, midnight()).limit, AWS_LIMIT);
}

#[test]
fn a_call_from_the_future_counts_for_the_clock_may_have_been_set_back() {
    let ledger = with_call(&empty(Service::Firehose), seconds(7200), Some(Ok(())));
    let now = budget(&ledger.calls, Service::Firehose, Action::Start, 1, midnight());
    assert_eq!((now.used, now.next_free), (1, Some(seconds(7200) + WINDOW)));
}

#[test]
fn refused_calls_of_kinesis_count_for_nothing_until_the_ledger_is_full() {
    let refusal = fault(Class::InUse, "ResourceInUseException");
    let count = i64::try_from(MOST_CALLS).unwrap();
    let ledger = (0..count)
        .fold(empty(Service::Kinesis), |ledger, n| with_call(&ledger, seconds(n), Some(Err(&refusal))));
    let at = |calls: &[Call]| budget(calls, Service::Kinesis, Action::Start, 20, seconds(count));
    assert!(at(&ledger.calls[1..]).has_room(), "one less");
    let full = at(&ledger.calls);
    assert!(!full.has_room());
    assert_eq!(full.next_free, Some(counts_until(&ledger.calls[0])));
}

#[test]
fn a_full_ledger_has_room_when_an_entry_and_where_none_is_left_a_call_is_free_again() {
    let refusal = fault(Class::InUse, "ResourceInUseException");
    let refused = i64::try_from(MOST_CALLS).unwrap() - 1;
    let ledger = (0..refused)
        .fold(empty(Service::Kinesis), |ledger, n| with_call(&ledger, seconds(n), Some(Err(&refusal))));
    let full = with_call(&ledger, seconds(refused), Some(Ok(())));
    let free_at = |limit| budget(&full.calls, Service::Kinesis, Action::Start, limit, seconds(300)).next_free;
    assert_eq!(free_at(20), Some(counts_until(&full.calls[0])), "the oldest entry makes room");
    let accepted = full.calls.last().unwrap();
    assert_eq!(free_at(1), Some(counts_until(accepted)), "the only call that is allowed still counts");
}
