//! The arithmetic of the quota window over a complete small domain: all sequences of a few calls at times of
//! a small grid.
//!
//! The tests use the constants rather than their values: the inequalities between them matter, and that each
//! edge is met exactly.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use stream_encryption_api::ledger::{Action, Call, Outcome, StreamLedgerSpec, Target};
use stream_encryption_api::stream_encryption::Service;

use super::{ACCEPTED, aws_error, empty, of_calls, plan};
use crate::model::aws_error::ErrorKind;
use crate::model::key::Key;
use crate::model::ledger::{
    AWS_LIMIT, DAY, MAX_CLOCK_SKEW, MAX_IN_FLIGHT, PlannedCall, QUOTA_WINDOW, READ_LAG, apply_observation,
    budget, corrections, expires_at, in_flight_until, prune_expired, record_outcome, reserve, saturating_add,
    stale_until, validate,
};
use crate::model::observation::Observation;
use crate::model::scenario::{key, midnight, stream};
use crate::model::schedule;

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

fn planned(action: Action) -> PlannedCall {
    PlannedCall { target: target(action), desired_target: target(action), ..plan() }
}

fn call(number: usize, at: Timestamp, action: Action, outcome: Outcome) -> Call {
    let (id, time, target) = (format!("{number}"), MicroTime(at), target(action));
    Call {
        id,
        target,
        time,
        outcome,
        code: None,
        request_id: None,
        correction: false,
        after_failure: false,
        confirmed: false,
        retry: None,
    }
}

/// Returns every sequence of `length` of these values.
fn sequences<T: Copy>(of: &[T], length: usize) -> Vec<Vec<T>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all = all.iter().flat_map(|one| of.iter().map(|next| [&one[..], &[*next]].concat())).collect();
    }
    all
}

/// Returns times on both sides of every edge of the window that ends at midnight, two of them in the future.
fn times() -> [Timestamp; 6] {
    let end = midnight() - QUOTA_WINDOW;
    [end - MOMENT, end, end + MOMENT, midnight() - DAY, midnight(), midnight() + MAX_CLOCK_SKEW]
}

/// Returns ledgers of up to three calls, in any order of their times.
fn every_ledger() -> Vec<Vec<Call>> {
    let kinds: Vec<_> =
        OUTCOMES.iter().flat_map(|outcome| ACTIONS.map(|action| (*outcome, action))).collect();
    let one: Vec<_> = times().iter().flat_map(|at| kinds.iter().map(|kind| (*at, *kind))).collect();
    let few = (0..=2).flat_map(|length| sequences(&one, length));
    // With three calls, outcomes that count alike are left out.
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

/// Returns the number of calls that count, by the simplest implementation.
fn counting(calls: &[Call], service: Service, action: Action, now: Timestamp) -> usize {
    let counts = |call: &&Call| {
        let ended = call.at() + QUOTA_WINDOW <= now;
        let of_this_kind = call.target.action == action && call.outcome != Outcome::Refused;
        !ended && (service == Service::Firehose || of_this_kind)
    };
    calls.iter().filter(counts).count()
}

#[test]
fn quota_window_covers_clock_skew_and_read_lag() {
    // AWS accepts a request whose date differs from its own clock by up to 15 minutes. The first call may
    // arrive that much after its date, and the next one may be dated that much ahead.
    assert!(QUOTA_WINDOW - DAY >= MAX_CLOCK_SKEW * 2);
    assert_eq!(QUOTA_WINDOW, DAY + MAX_IN_FLIGHT);
    // AWS's stale responses about a call that arrived at the last moment have ended too, when another may be
    // sent.
    assert!(MAX_IN_FLIGHT >= MAX_CLOCK_SKEW * 2 + READ_LAG);
}

#[test]
fn used_and_next_available_time_match_reference_count() {
    for calls in every_ledger() {
        let mut edges: Vec<Timestamp> = calls.iter().map(|call| call.at() + QUOTA_WINDOW).collect();
        edges.retain(|edge| *edge > midnight());
        edges.sort_unstable();
        for (service, action, limit) in SERVICES.iter().flat_map(|service| {
            ACTIONS.iter().flat_map(move |action| [1, 2, 3].map(|limit| (*service, *action, limit)))
        }) {
            let now = budget(&of_calls(&calls), service, action, limit, midnight());
            let used = counting(&calls, service, action, midnight());
            assert_eq!(now.used as usize, used, "{calls:?}");
            assert_eq!(now.has_room(), used < limit as usize);
            if now.has_room() {
                continue;
            }
            // The count changes at the edges only, so the first edge with room is the first time with room.
            let has_room = |at: &&Timestamp| counting(&calls, service, action, **at) < limit as usize;
            assert_eq!(
                now.next_available_time,
                edges.iter().find(has_room).copied(),
                "{service:?} {action:?} {calls:?}"
            );
        }
    }
}

/// Reserves a call at every time of the grid that has room; each call reaches AWS as late as possible.
struct Day {
    ledger: StreamLedgerSpec,
    /// The earliest and the latest time at which AWS has counted each call.
    arrived: Vec<(Timestamp, Timestamp, Action)>,
}

impl Day {
    /// Reserves a call when the operator's clock shows `now`; AWS's clock differs by at most 15 minutes.
    fn wishes(&mut self, service: Service, action: Action, limit: u32, now: Timestamp, outcome: Outcome) {
        if !budget(&self.ledger, service, action, limit, now).has_room() {
            return;
        }
        let (reserved, id) = reserve(&self.ledger, &planned(action), now);
        let unknown = aws_error(ErrorKind::UnknownOutcome, "InternalFailure");
        let refused = aws_error(ErrorKind::Denied, "AccessDeniedException");
        self.ledger = match outcome {
            Outcome::Pending => reserved,
            Outcome::Accepted => record_outcome(&reserved, &id, Ok(&ACCEPTED), now),
            Outcome::Refused => record_outcome(&reserved, &id, Err(&refused), now),
            Outcome::Unknown => record_outcome(&reserved, &id, Err(&unknown), now),
        };
        if service == Service::Firehose || outcome != Outcome::Refused {
            // AWS compares the operator's date with its own clock, so the difference is at most this.
            self.arrived.push((now - MAX_CLOCK_SKEW, now + MAX_CLOCK_SKEW, action));
        }
    }

    /// Returns whether more calls than the limit can have arrived within one of AWS's days: the first as
    /// late, the last as early as possible.
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
fn no_call_sequence_exceeds_limit_in_an_aws_day() {
    let from = midnight();
    // Time only advances; each value is the step to the next wish.
    let steps = [
        SignedDuration::ZERO,
        MAX_CLOCK_SKEW,
        DAY,
        QUOTA_WINDOW - MOMENT - DAY,
        QUOTA_WINDOW - MOMENT,
        QUOTA_WINDOW,
    ];
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
fn clock_set_back_frees_no_call() {
    // The clock may go back by any amount: a call reserved in the future counts until its own end.
    for back in [MOMENT, MAX_CLOCK_SKEW, DAY, QUOTA_WINDOW, QUOTA_WINDOW * 2] {
        for outcome in OUTCOMES {
            for (service, action) in SERVICES.iter().flat_map(|s| ACTIONS.map(|action| (*s, action))) {
                let calls = [call(0, midnight(), action, outcome)];
                let now = budget(&of_calls(&calls), service, action, 1, midnight() - back);
                let counts = service == Service::Firehose || outcome != Outcome::Refused;
                assert_eq!(now.has_room(), !counts);
                assert_eq!(now.next_available_time, counts.then_some(midnight() + QUOTA_WINDOW));
            }
        }
    }
}

#[test]
fn reservation_keeps_all_calls_and_has_unique_id() {
    for calls in every_ledger() {
        let ledger = StreamLedgerSpec { calls: calls.clone(), ..empty(Service::Firehose) };
        let (reserved, id) = reserve(&ledger, &plan(), midnight());
        let (last, kept) = reserved.calls.split_last().unwrap();
        assert_eq!(kept, calls);
        let counting: Vec<Call> = calls.into_iter().filter(|call| expires_at(call) > midnight()).collect();
        assert_eq!(prune_expired(&ledger, midnight()).calls, counting);
        assert_eq!((&last.id, last.at(), last.outcome), (&id, midnight(), Outcome::Pending));
        assert_eq!(validate(&reserved, &stream(Service::Firehose)), Ok(()));
    }
    // The same time repeatedly, forwards and backwards.
    for clock in sequences(&[0_i64, 1, 2], 6) {
        let ledger = clock.iter().fold(empty(Service::Firehose), |ledger, at| {
            reserve(&ledger, &plan(), midnight() + SignedDuration::from_millis(*at)).0
        });
        assert_eq!(validate(&ledger, &stream(Service::Firehose)), Ok(()), "{clock:?}");
        assert_eq!(ledger.calls.len(), clock.len());
    }
}

#[test]
fn outcome_changes_own_entry_and_attempts_of_last_only() {
    let classes = [ErrorKind::UnknownOutcome, ErrorKind::LimitReached, ErrorKind::InUse, ErrorKind::Denied];
    for kind in classes {
        let error = aws_error(kind, "Code");
        for (outcome, which) in
            [Ok(()), Err(&error)].into_iter().flat_map(|o| [0_usize, 1, 2].map(|which| (o, which)))
        {
            let mut ledger = empty(Service::Firehose);
            for n in 0..3 {
                ledger = reserve(&ledger, &plan(), midnight() + SignedDuration::from_mins(n)).0;
            }
            let id = ledger.calls[which].id.clone();
            let recorded = record_outcome(&ledger, &id, outcome.map(|()| &ACCEPTED), midnight() + DAY);
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
fn pending_call_is_awaited_until_it_cannot_arrive() {
    // Dated by one replica, and accepted by AWS at the last moment.
    let (ledger, _) = reserve(&empty(Service::Firehose), &plan(), midnight());
    let arrives = midnight() + MAX_CLOCK_SKEW;
    // By the clock of another replica, as far ahead as AWS accepts it.
    assert!(in_flight_until(&ledger).unwrap() >= arrives + MAX_CLOCK_SKEW);
}

#[test]
fn arithmetic_does_not_overflow_at_extreme_times() {
    let ends = [Timestamp::MIN, Timestamp::MIN + MOMENT, midnight(), Timestamp::MAX - MOMENT, Timestamp::MAX];
    let clocks = sequences(&ends, 3);
    for clock in &clocks {
        let [reserved_at, recorded_at, now] = clock[..] else { unreachable!() };
        let plan = PlannedCall { correction: true, ..planned(Action::Start) };
        let (ledger, id) = reserve(&empty(Service::Kinesis), &plan, reserved_at);
        let refused = aws_error(ErrorKind::LimitReached, "LimitExceededException");
        let ledger = record_outcome(&ledger, &id, Err(&refused), recorded_at);
        let updated = apply_observation(
            &ledger,
            &Observation::On(Key::AwsOwned),
            Some(now),
            Some(&plan.desired_target),
            true,
            recorded_at,
        );
        for (service, action) in SERVICES.iter().flat_map(|s| ACTIONS.map(|action| (*s, action))) {
            for limit in [0, 1, AWS_LIMIT, u32::MAX] {
                let budget = budget(&updated, service, action, limit, now);
                assert!(budget.limit <= AWS_LIMIT);
            }
        }
        let (again, _) = reserve(&updated, &plan, now);
        assert_eq!(validate(&again, &stream(Service::Kinesis)), Ok(()));
        let _ =
            (corrections(&again, now), in_flight_until(&again), stale_until(&again, &Observation::Off, now));
        let _ = schedule::poll_interval(reserved_at, now, (MOMENT, DAY));
        assert!(saturating_add(now, QUOTA_WINDOW) >= now);
        assert!(expires_at(&again.calls[0]) >= again.calls[0].at());
    }
    for count in [0, 1, 16, 17, u32::MAX] {
        assert!(schedule::after_attempt(count) <= schedule::MAX_RETRY_DELAY);
        assert!(schedule::after_refusal(count, ErrorKind::LimitReached) <= schedule::MAX_RETRY_DELAY);
    }
}
