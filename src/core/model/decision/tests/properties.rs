//! Properties of `decide` over random input: it is total, makes no forbidden call, and wakes in time.
//!
//! Random event sequences, applied through the model's own functions, produce the ledgers; the last
//! observation is arbitrary.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;
use stream_encryption_api::stream_encryption::{Mode, Service};

use crate::model::aws_error::ErrorKind;
use crate::model::decision::{Decision, Ownership, PROPAGATION_DELAY, Step, budget};
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::ledger::{self, MAX_CLOCK_SKEW, PlannedCall};
use crate::model::observation::Observation;
use crate::model::scenario::{ACCOUNT, Scenario, Sight, allowed, aws_error, failed, key};

/// Longest wait other than the drift interval: for a key, and for AWS to answer.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

fn observation() -> impl Strategy<Value = Observation> {
    prop_oneof![
        1 => Just(Observation::Missing),
        1 => Just(Observation::OtherStream),
        1 => Just(Observation::Creating),
        1 => Just(Observation::Deleting),
        1 => Just(Observation::NotOperational("CREATING_FAILED".into())),
        1 => Just(Observation::Unrecognized("the stream status \"SUSPENDED\"".into())),
        1 => Just(Observation::NotEncryptable("MSKAsSource".into())),
        1 => Just(Observation::InProgress(None)),
        1 => Just(Observation::InProgress(Some(Action::Start))),
        1 => Just(Observation::InProgress(Some(Action::Stop))),
        4 => Just(Observation::Off),
        2 => Just(Observation::On(Key::AwsOwned)),
        4 => (1_u8..3).prop_map(|number| Observation::On(key(number))),
        2 => Just(failed(Action::Start)),
        1 => Just(failed(Action::Stop)),
    ]
}

fn desired_target() -> impl Strategy<Value = DesiredEncryption> {
    prop_oneof![
        1 => Just(DesiredEncryption::AnyKey),
        3 => (1_u8..3).prop_map(|number| DesiredEncryption::Key(key(number))),
        1 => Just(DesiredEncryption::Key(Key::AwsOwned)),
        1 => Just(DesiredEncryption::UnknownKey),
        1 => Just(DesiredEncryption::Off),
    ]
}

fn kind() -> impl Strategy<Value = ErrorKind> {
    prop::sample::select(ErrorKind::ALL.to_vec())
}

/// One event of a scenario.
#[derive(Clone, Debug)]
enum Event {
    Wait(i64),
    See(Observation),
    Want(DesiredEncryption),
    /// A call, if one is decided, and its outcome: none, accepted, or refused.
    Call(Option<Result<(), ErrorKind>>),
    /// Calls of an earlier run of the operator.
    Spend(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop_oneof![0_i64..40, 0_i64..1000, 0_i64..100_000].prop_map(Event::Wait),
        4 => observation().prop_map(Event::See),
        1 => desired_target().prop_map(Event::Want),
        4 => prop::option::of(prop_oneof![2 => Just(Ok(())), 1 => kind().prop_map(Err)]).prop_map(Event::Call),
        1 => (1_u32..21).prop_map(Event::Spend),
    ]
}

fn told(story: Scenario, event: Event) -> Scenario {
    match event {
        Event::Wait(seconds) => story.after(seconds),
        Event::See(observation) => story.sees(observation),
        Event::Want(desired_target) => story.wants(desired_target),
        Event::Spend(count) => story.spent(count),
        Event::Call(outcome) => {
            if !matches!(story.decide().step, Step::ChangeEncryption(_)) {
                return story;
            }
            match outcome {
                None => story.calls(),
                Some(Ok(())) => story.calls().accepted(),
                Some(Err(kind)) => story.calls().refused(kind, "Code"),
            }
        }
    }
}

fn switches() -> impl Strategy<Value = [bool; 8]> {
    // Each switch is mostly off, so that a call is decided often.
    prop::array::uniform8(prop::bool::weighted(0.1))
}

prop_compose! {
    fn situation()(
        service in prop_oneof![Just(Service::Firehose), Just(Service::Kinesis)],
        events in prop::collection::vec(event(), 0..12),
        last in desired_target(),
        [suspended, deleting, disable, forbidden, foreign, report, verify, unreadable] in switches(),
        ownership in prop_oneof![8 => Just(Ownership::Owned), 1 => Just(Ownership::Another), 1 => Just(Ownership::LedgerInvalid)],
        problem in prop::option::weighted(0.2, prop::sample::select(vec![
            KeyProblem::NotFound, KeyProblem::Disabled, KeyProblem::OtherRegion, KeyProblem::DescribeDenied,
        ])),
        sight in prop_oneof![8 => Just(None), 1 => Just(Some(Sight::NotYet)), 1 => kind().prop_map(|kind| Some(Sight::Failed(aws_error(kind, "Code"))))],
        session_minutes in prop::option::of(0_i64..500),
        drift_minutes in 10_i64..120,
        change_seconds in prop_oneof![Just(0_i64), 0..=60_i64],
        waiting in prop::option::of((prop::sample::select(Reason::ALL), -5000_i64..5000)),
        limit in 0_u32..30,
        back in prop_oneof![4 => Just(0_i64), 1 => 0_i64..10_000],
    ) -> Scenario {
        let mut s = events.into_iter().fold(Scenario::of(service), told).wants(last);
        s.desired.suspended = suspended;
        s.desired.deleting = deleting;
        s.desired.disable_on_deletion = disable;
        s.desired.verify = verify;
        s.desired.mode = if report { Mode::Observe } else { Mode::Enforce };
        s.desired.key_problem = problem;
        let account = if foreign { "444455556666" } else { ACCOUNT };
        s.permission = allowed(account, "aws", !forbidden, limit);
        s.ownership = if unreadable { Ownership::LedgerInvalid } else { ownership };
        s.sight = sight.unwrap_or(s.sight);
        s.session_age = session_minutes.map(SignedDuration::from_mins);
        s.drift_interval = SignedDuration::from_mins(drift_minutes);
        s.expected_change = SignedDuration::from_secs(change_seconds);
        s.waiting = waiting.map(|(reason, ago)| (reason, s.now - SignedDuration::from_secs(ago)));
        // The clock is set back.
        s.now -= SignedDuration::from_secs(back);
        s
    }
}

/// Returns why a call would violate an invariant, from the input alone.
fn must_not_call(s: &Scenario) -> Option<&'static str> {
    let i = s.input();
    let Sight::At(_, observation) = &s.sight else { return Some("nothing was seen") };
    let attempts = s.ledger.attempts.as_ref();
    let target = s.desired.encryption.target();
    // Two clocks that AWS accepts do not differ so much: another clock, which AWS refused, dated the attempt.
    let is_dated_ahead = s.ledger.calls.last().is_some_and(|call| call.at() > s.now + MAX_CLOCK_SKEW * 2);
    let rules = [
        (s.desired.suspended, "suspended"),
        (s.ownership != Ownership::Owned, "not owned"),
        (s.permission.role_for(&s.stream).is_err(), "not permitted"),
        (
            s.permission.check_disable(&s.stream).is_err() && s.desired.encryption == DesiredEncryption::Off,
            "Stop is not permitted",
        ),
        (s.desired.mode == Mode::Observe, "mode: Observe"),
        (s.desired.key_problem.is_some(), "a key problem"),
        (target.is_none(), "the key is not known"),
        (
            !matches!(observation, Observation::Off | Observation::On(_) | Observation::Failed { .. }),
            "cannot be changed now",
        ),
        (
            s.ledger.calls.iter().any(|call| {
                use stream_encryption_api::ledger::Outcome::{Pending, Unknown};
                matches!(call.outcome, Pending | Unknown) && call.at() + MAX_CLOCK_SKEW > s.now
            }),
            "a call may still arrive",
        ),
        (
            attempts.is_some_and(|a| {
                s.now < a.not_before_time.0
                    && !is_dated_ahead
                    && Some(&a.target) == target.as_ref()
                    && !a.key_was_unusable
                    && (s.desired.retry.is_none() || s.desired.retry == a.retry)
            }),
            "backing off, and nothing changed",
        ),
        (!budget(&i).has_room(), "no budget"),
    ];
    rules.into_iter().find_map(|(broken, why)| broken.then_some(why))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn decide_is_deterministic(s in situation()) {
        prop_assert_eq!(s.decide(), s.clone().decide());
    }

    #[test]
    fn no_call_violates_an_invariant(s in situation()) {
        if let Step::ChangeEncryption(call) = s.decide().step {
            prop_assert_eq!(must_not_call(&s), None);
            prop_assert_eq!(call.target.action == Action::Stop, s.desired.encryption == DesiredEncryption::Off, "Stop only when asked");
            prop_assert_eq!(call.target.action == Action::Start, call.target.key.is_some(), "a Start has a key");
        }
    }

    #[test]
    fn wake_is_between_now_and_longest_wait(s in situation()) {
        let Decision { wake, describe_due, .. } = s.decide();
        let longest = s.drift_interval.max(LONGEST_WAIT);
        for at in [wake, describe_due] {
            prop_assert!(at >= s.now, "{} before {}", at, s.now);
            prop_assert!(at <= s.now + longest, "{} is later than {} after {}", at, longest, s.now);
        }
        prop_assert!(wake <= describe_due + PROPAGATION_DELAY, "awake at {}, after the look at {}", wake, describe_due);
    }

    #[test]
    fn next_attempt_is_in_the_future_and_step_is_wait(s in situation()) {
        let decision = s.decide();
        if let Some(at) = decision.next_attempt {
            prop_assert!(at > s.now);
            prop_assert_eq!(decision.step, Step::Wait);
        }
    }

    #[test]
    fn pending_call_is_not_repeated_for_15_minutes(
        s in situation(),
        later in prop::collection::vec((0_i64..450, prop::option::of(observation())), 1..8),
    ) {
        if let Step::ChangeEncryption(_) = s.decide().step {
            let mut story = s.calls();
            let reserved = story.now;
            for (seconds, last_observation) in later {
                story = story.after(seconds);
                if let Some(last_observation) = last_observation {
                    // Observed by a process that cannot write to the ledger.
                    story.sight = Sight::At(story.now, last_observation);
                }
                if story.now < reserved + MAX_CLOCK_SKEW {
                    prop_assert!(!matches!(story.decide().step, Step::ChangeEncryption(_)), "{} after", story.now.duration_since(reserved));
                }
            }
        }
    }

    #[test]
    fn call_is_made_once_quota_window_has_passed(s in situation()) {
        prop_assume!(s.desired.encryption != DesiredEncryption::UnknownKey);
        let mut s = s;
        s.desired.suspended = false;
        s.desired.mode = Mode::Enforce;
        s.desired.key_problem = None;
        s.permission = Scenario::of(s.stream.service).permission;
        s.ownership = Ownership::Owned;
        s.session_age = None;
        let differs = if s.desired.encryption == DesiredEncryption::Off { Observation::On(key(8)) } else { Observation::Off };
        // The clock may have been 10,000 seconds ahead.
        let s = s.after(10_000 + ledger::QUOTA_WINDOW.as_secs()).sees(differs);
        prop_assert!(matches!(s.decide().step, Step::ChangeEncryption(_)), "{:?}", s.decide());
    }

    #[test]
    fn stream_matching_spec_is_left_alone(s in situation()) {
        let Some(target) = s.desired.encryption.target() else { return Ok(()) };
        let shown = match (&s.desired.encryption, target.key) {
            (DesiredEncryption::Off, _) => Observation::Off,
            (_, Some(key)) => Observation::On(Key::of(&key)),
            (_, None) => Observation::On(Key::AwsOwned),
        };
        let s = s.after(60).sees(shown);
        prop_assert!(!matches!(s.decide().step, Step::ChangeEncryption(_)));
    }
}

#[test]
fn random_scenarios_cover_many_calls_and_reasons() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let decisions: Vec<Decision> =
        (0..2000).map(|_| situation().new_tree(&mut runner).unwrap().current().decide()).collect();
    let calls =
        decisions.iter().filter(|decision| matches!(decision.step, Step::ChangeEncryption(_))).count();
    let reasons: std::collections::BTreeSet<Reason> =
        decisions.iter().map(|decision| decision.reason).collect();
    assert!(calls > 50, "only {calls} calls: the properties would prove little");
    assert!(reasons.len() > 20, "only {reasons:?}");
}

#[test]
fn extreme_times_do_not_panic() {
    for now in [Timestamp::MIN, Timestamp::MAX] {
        for (_, mut situation, _) in super::rows(Service::Kinesis) {
            situation.now = now;
            situation.decide();
        }
    }
    let plan = PlannedCall {
        target: key(1).target(),
        desired_target: key(1).target(),
        retry: None,
        correction: true,
        after_failure: false,
    };
    let story = Scenario::of(Service::Firehose);
    let (reserved, _) = ledger::reserve(&story.ledger, &plan, Timestamp::MAX);
    assert_eq!(ledger::corrections(&reserved, story.now).len(), 1);
}
