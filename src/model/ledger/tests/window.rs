//! The window's arithmetic over everything in a small domain: all sequences of a few calls at times from a small grid.
//!
//! Said in terms of the constants: what matters is the inequality between them, and that each edge is met exactly.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{empty, fault, plan};
use crate::api::ledger::{Action, Call, Outcome, StreamLedgerSpec, Target};
use crate::api::stream_encryption::Service;
use crate::model::backoff;
use crate::model::fault::Class;
use crate::model::key::Key;
use crate::model::ledger::{
    ARRIVAL, AWS_LIMIT, DAY, READ_LAG, Reservation, WINDOW, budget, check, corrections, counts_until, later,
    learn, may_arrive_until, record, reserve, stale_until, without_old_calls,
};
use crate::model::observation::Observation;
use crate::model::situation::{key, midnight, stream};

const OUTCOMES: [Outcome; 4] = [Outcome::Pending, Outcome::Accepted, Outcome::Refused, Outcome::Unknown];
const SERVICES: [Service; 2] = [Service::Firehose, Service::Kinesis];
const ACTIONS: [Action; 2] = [Action::Start, Action::Stop];
const MOMENT: SignedDuration = SignedDuration::from_micros(1);

fn target(action: Action) -> Target {
    match action {
        Action::Start => key(1).target(),
        Action::Stop => Target { action, key: None },
    }
}

fn planned(action: Action) -> Reservation {
    Reservation { target: target(action), wanted: target(action), ..plan() }
}

fn call(number: usize, at: Timestamp, action: Action, outcome: Outcome) -> Call {
    let (id, time, target) = (format!("{number}"), MicroTime(at), target(action));
    Call {
        id,
        target,
        time,
        outcome,
        code: None,
        correction: false,
        after_failure: false,
        confirmed: false,
        retry: None,
    }
}

/// Every sequence of `length` of these.
fn sequences<T: Copy>(of: &[T], length: usize) -> Vec<Vec<T>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all = all.iter().flat_map(|one| of.iter().map(|next| [&one[..], &[*next]].concat())).collect();
    }
    all
}

/// Times on both sides of every edge of the window that ends at midnight, two of them in the future.
fn times() -> [Timestamp; 6] {
    let end = midnight() - WINDOW;
    [end - MOMENT, end, end + MOMENT, midnight() - DAY, midnight(), midnight() + ARRIVAL]
}

/// Every ledger of up to three calls, in any order of their times.
fn every_ledger() -> Vec<Vec<Call>> {
    let kinds: Vec<_> =
        OUTCOMES.iter().flat_map(|outcome| ACTIONS.map(|action| (*outcome, action))).collect();
    let one: Vec<_> = times().iter().flat_map(|at| kinds.iter().map(|kind| (*at, *kind))).collect();
    let few = (0..=2).flat_map(|length| sequences(&one, length));
    // With three, the kinds that count alike are left out.
    let some: Vec<_> =
        one.iter().filter(|(_, (outcome, _))| *outcome != Outcome::Accepted).copied().collect();
    let three = sequences(&some, 3).into_iter().step_by(31);
    few.chain(three)
        .map(|calls| {
            let numbered = calls.into_iter().enumerate();
            numbered.map(|(n, (at, (outcome, action)))| call(n, at, action, outcome)).collect()
        })
        .collect()
}

/// What counts, said as simply as it can be.
fn counting(calls: &[Call], service: Service, action: Action, now: Timestamp) -> usize {
    let counts = |call: &&Call| {
        let ended = call.at() + WINDOW <= now;
        let of_this_kind = call.target.action == action && call.outcome != Outcome::Refused;
        !ended && (service == Service::Firehose || of_this_kind)
    };
    calls.iter().filter(counts).count()
}

#[test]
fn the_window_holds_whatever_lies_between_a_reservation_and_the_clock_of_aws() {
    // AWS takes a request whose date is up to 15 minutes from its own clock. The first call may arrive that much after its date,
    // and the one that follows be dated that much ahead.
    assert!(WINDOW - DAY >= ARRIVAL * 2);
    // AWS's old answers about a call that arrived in its last moment are over too, when another may be sent.
    assert!(WINDOW - DAY >= ARRIVAL * 2 + READ_LAG);
}

#[test]
fn used_is_what_counts_and_the_next_is_free_at_the_first_moment_with_room() {
    for calls in every_ledger() {
        let mut edges: Vec<Timestamp> = calls.iter().map(|call| call.at() + WINDOW).collect();
        edges.retain(|edge| *edge > midnight());
        edges.sort_unstable();
        for (service, action, limit) in SERVICES.iter().flat_map(|service| {
            ACTIONS.iter().flat_map(move |action| [1, 2, 3].map(|limit| (*service, *action, limit)))
        }) {
            let now = budget(&calls, service, action, limit, midnight());
            let used = counting(&calls, service, action, midnight());
            assert_eq!(now.used as usize, used, "{calls:?}");
            assert_eq!(now.has_room(), used < limit as usize);
            if now.has_room() {
                continue;
            }
            // Nothing changes between two edges, so the first of them with room is the first moment with room.
            let has_room = |at: &&Timestamp| counting(&calls, service, action, **at) < limit as usize;
            assert_eq!(
                now.next_free,
                edges.iter().find(has_room).copied(),
                "{service:?} {action:?} {calls:?}"
            );
        }
    }
}

/// Reserves at every time of the grid that has room, and lets AWS get each call as late as it can.
struct Day {
    ledger: StreamLedgerSpec,
    /// What AWS has counted, at the earliest and at the latest.
    arrived: Vec<(Timestamp, Timestamp, Action)>,
}

impl Day {
    /// The operator's clock shows `now`; AWS's, something within 15 minutes of it.
    fn wishes(&mut self, service: Service, action: Action, limit: u32, now: Timestamp, outcome: Outcome) {
        if !budget(&self.ledger.calls, service, action, limit, now).has_room() {
            return;
        }
        let (reserved, id) = reserve(&self.ledger, &planned(action), now);
        let unknown = fault(Class::UnknownOutcome, "InternalFailure");
        let refused = fault(Class::Denied, "AccessDeniedException");
        self.ledger = match outcome {
            Outcome::Pending => reserved,
            Outcome::Accepted => record(&reserved, &id, Ok(()), now),
            Outcome::Refused => record(&reserved, &id, Err(&refused), now),
            Outcome::Unknown => record(&reserved, &id, Err(&unknown), now),
        };
        if service == Service::Firehose || outcome != Outcome::Refused {
            // Dated by the operator's clock and held against AWS's: so far from it, and no further.
            self.arrived.push((now - ARRIVAL, now + ARRIVAL, action));
        }
    }

    /// Whether more than the limit can have arrived within one of AWS's days: the first as late, the last as early as can be.
    fn is_over(&self, service: Service, limit: u32) -> bool {
        let alike = |one: Action, other: Action| service == Service::Firehose || one == other;
        self.arrived.iter().enumerate().any(|(first, (_, latest, action))| {
            let after = &self.arrived[first + 1..];
            let within = after.iter().filter(|(earliest, _, other)| {
                alike(*action, *other) && earliest.duration_since(*latest) < DAY
            });
            within.count() >= limit as usize
        })
    }
}

#[test]
fn no_sequence_of_wishes_gets_more_than_the_limit_into_a_day_of_aws() {
    let from = midnight();
    // Time goes on; each is the step to the next wish.
    let steps = [SignedDuration::ZERO, ARRIVAL, DAY, WINDOW - MOMENT - DAY, WINDOW - MOMENT, WINDOW];
    let outcomes = sequences(&OUTCOMES, 4);
    for (index, gaps) in sequences(&steps, 4).iter().enumerate() {
        for (service, limit) in SERVICES.iter().flat_map(|service| [1, 2].map(|limit| (*service, limit))) {
            for outcomes in outcomes.iter().skip(index % 41).step_by(41) {
                let mut day = Day { ledger: empty(service), arrived: Vec::new() };
                let mut now = from;
                for (n, (gap, outcome)) in gaps.iter().zip(outcomes).enumerate() {
                    now += *gap;
                    let action = if n % 3 == 2 { Action::Stop } else { Action::Start };
                    day.wishes(service, action, limit, now, *outcome);
                }
                assert!(!day.is_over(service, limit), "{service:?} {limit} {gaps:?} {outcomes:?}");
            }
        }
    }
}

#[test]
fn no_step_of_the_clock_within_the_window_frees_a_call() {
    // Backwards as far as it likes: what was reserved in the future counts until its own end.
    for back in [MOMENT, ARRIVAL, DAY, WINDOW, WINDOW * 2] {
        for outcome in OUTCOMES {
            for (service, action) in SERVICES.iter().flat_map(|s| ACTIONS.map(|action| (*s, action))) {
                let calls = [call(0, midnight(), action, outcome)];
                let now = budget(&calls, service, action, 1, midnight() - back);
                let counts = service == Service::Firehose || outcome != Outcome::Refused;
                assert_eq!(now.has_room(), !counts);
                assert_eq!(now.next_free, counts.then_some(midnight() + WINDOW));
            }
        }
    }
}

#[test]
fn a_reservation_keeps_all_and_has_an_id_of_its_own_and_what_counts_no_more_goes_by_a_proven_time() {
    for calls in every_ledger() {
        let ledger = StreamLedgerSpec { calls: calls.clone(), ..empty(Service::Firehose) };
        let (reserved, id) = reserve(&ledger, &plan(), midnight());
        let (last, kept) = reserved.calls.split_last().unwrap();
        assert_eq!(kept, calls);
        let counting: Vec<Call> = calls.into_iter().filter(|call| counts_until(call) > midnight()).collect();
        assert_eq!(without_old_calls(&ledger, midnight()).calls, counting);
        assert_eq!((&last.id, last.at(), last.outcome), (&id, midnight(), Outcome::Pending));
        assert_eq!(check(&reserved, &stream(Service::Firehose)), Ok(()));
    }
    // The same moment again and again, forwards and backwards.
    for clock in sequences(&[0_i64, 1, 2], 6) {
        let ledger = clock.iter().fold(empty(Service::Firehose), |ledger, at| {
            reserve(&ledger, &plan(), midnight() + SignedDuration::from_millis(*at)).0
        });
        assert_eq!(check(&ledger, &stream(Service::Firehose)), Ok(()), "{clock:?}");
        assert_eq!(ledger.calls.len(), clock.len());
    }
}

#[test]
fn an_outcome_touches_its_own_entry_and_the_attempts_only_if_it_is_of_the_last() {
    let classes = [Class::UnknownOutcome, Class::LimitReached, Class::InUse, Class::Denied];
    for class in classes {
        let fault = fault(class, "Code");
        for (outcome, which) in
            [Ok(()), Err(&fault)].into_iter().flat_map(|o| [0_usize, 1, 2].map(|which| (o, which)))
        {
            let mut ledger = empty(Service::Firehose);
            for n in 0..3 {
                ledger = reserve(&ledger, &plan(), midnight() + SignedDuration::from_mins(n)).0;
            }
            let id = ledger.calls[which].id.clone();
            let recorded = record(&ledger, &id, outcome, midnight() + DAY);
            for n in 0..3 {
                assert_eq!(recorded.calls[n] == ledger.calls[n], n != which, "{n} of {which}: {outcome:?}");
            }
            let is_last = which == 2;
            assert_eq!(
                recorded.attempts != ledger.attempts,
                is_last && outcome.is_err(),
                "{which} {outcome:?}"
            );
            let rest = StreamLedgerSpec {
                calls: ledger.calls.clone(),
                attempts: ledger.attempts.clone(),
                ..recorded.clone()
            };
            assert_eq!(rest, ledger);
        }
    }
}

#[test]
fn a_call_without_an_outcome_is_waited_for_as_long_as_it_can_arrive_on_anybodys_clock() {
    // Dated by one replica, and accepted by AWS at the last moment.
    let (ledger, _) = reserve(&empty(Service::Firehose), &plan(), midnight());
    let arrives = midnight() + ARRIVAL;
    // By the clock of another replica, as far ahead as AWS takes it.
    assert!(may_arrive_until(&ledger).unwrap() >= arrives + ARRIVAL);
}

#[test]
fn nothing_overflows_at_either_end_of_time() {
    let ends = [Timestamp::MIN, Timestamp::MIN + MOMENT, midnight(), Timestamp::MAX - MOMENT, Timestamp::MAX];
    let clocks = sequences(&ends, 3);
    for clock in &clocks {
        let [reserved_at, recorded_at, now] = clock[..] else { unreachable!() };
        let plan = Reservation { correction: true, ..planned(Action::Start) };
        let (ledger, id) = reserve(&empty(Service::Kinesis), &plan, reserved_at);
        let refused = fault(Class::LimitReached, "LimitExceededException");
        let ledger = record(&ledger, &id, Err(&refused), recorded_at);
        let learned =
            learn(&ledger, &Observation::On(Key::AwsOwned), Some(now), Some(&plan.wanted), true, recorded_at);
        for (service, action) in SERVICES.iter().flat_map(|s| ACTIONS.map(|action| (*s, action))) {
            for limit in [0, 1, AWS_LIMIT, u32::MAX] {
                let budget = budget(&learned.calls, service, action, limit, now);
                assert!(budget.limit <= AWS_LIMIT);
            }
        }
        let (again, _) = reserve(&learned, &plan, now);
        assert_eq!(check(&again, &stream(Service::Kinesis)), Ok(()));
        let _ =
            (corrections(&again, now), may_arrive_until(&again), stale_until(&again, &Observation::Off, now));
        let _ = backoff::look_again(reserved_at, now, MOMENT, DAY);
        assert!(later(now, WINDOW) >= now);
        assert!(counts_until(&again.calls[0]) >= again.calls[0].at());
    }
    for count in [0, 1, 16, 17, u32::MAX] {
        assert!(backoff::after_attempt(count) <= backoff::LONGEST);
        assert!(backoff::after_refusal(count, Class::LimitReached) <= backoff::LONGEST);
    }
}
