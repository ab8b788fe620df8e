//! A scenario for tests of the model: the spec, observations, calls and responses, in the order of the method
//! calls.
//!
//! Every step uses the model's own functions, so that a test never has a ledger that the operator could not
//! have produced.

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::{Action, Owner, StreamLedgerSpec};
use stream_encryption_api::policy::{PolicyRole, StreamEncryptionPolicySpec};
use stream_encryption_api::stream_encryption::{Mode, Service};

use super::arn::{AwsAccount, StreamArn};
use super::aws_error::{Accepted, AwsError, ErrorKind};
use super::aws_event::CallEvent;
use super::decision::{Decision, DecisionInput, LastObservation, Ownership, Step, decide};
use super::desired::{DesiredEncryption, DesiredState};
use super::key::{Key, KeyProblem};
use super::ledger::{self, PlannedCall, external};
use super::observation::Observation;
use super::permission::{EffectivePolicy, Policy};
use super::service::{Operation, profile};

/// The operator's own account.
pub(super) const ACCOUNT: &str = "111122223333";

/// The last observation of the stream.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    NotYet,
    Failed(AwsError),
    At(Timestamp, Observation),
}

/// Everything on which a decision depends, owned.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) now: Timestamp,
    pub(super) stream: StreamArn,
    pub(super) desired: DesiredState,
    pub(super) permission: EffectivePolicy,
    pub(super) ownership: Ownership,
    pub(super) other_owner: Option<&'static str>,
    pub(super) ledger: StreamLedgerSpec,
    pub(super) sight: Sight,
    pub(super) active_key_problem: Option<KeyProblem>,
    pub(super) session_age: Option<SignedDuration>,
    pub(super) waiting: Option<(Reason, Timestamp)>,
    pub(super) drift_interval: SignedDuration,
    pub(super) expected_change: SignedDuration,
    pub(super) is_encryption_reported: bool,
}

/// Returns a stream of the operator's own account.
pub(super) fn stream(service: Service) -> StreamArn {
    let arn = match service {
        Service::Firehose => format!("arn:aws:firehose:eu-west-1:{ACCOUNT}:deliverystream/orders"),
        Service::Kinesis => format!("arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/orders"),
    };
    arn.parse().unwrap()
}

/// Returns a customer managed key of the operator's own account.
pub(super) fn key(number: u8) -> Key {
    Key::Customer(format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/{number}").parse().unwrap())
}

/// Returns the resource that manages the stream.
pub(super) fn owner() -> Owner {
    Owner { namespace: "data".into(), name: "orders".into(), uid: "1".into() }
}

/// A response of AWS without a request id.
pub(super) const ACCEPTED: Accepted = Accepted { request_id: None };

/// Returns an error of the last call.
pub(super) fn aws_error(kind: ErrorKind, code: &str) -> AwsError {
    let operation = Operation::StartDeliveryStreamEncryption;
    AwsError { operation, kind, code: Some(code.to_owned()), message: "AWS's words".into(), request_id: None }
}

/// Returns a policy that allows the streams and keys of the operator's own account, which is `account`.
pub(super) fn allowed(
    account: &str,
    partition: &str,
    allow_disable: bool,
    max_calls_per_day: u32,
) -> EffectivePolicy {
    let spec = StreamEncryptionPolicySpec {
        allow_disable,
        max_calls_per_day,
        ..StreamEncryptionPolicySpec::own_account()
    };
    permission(account, partition, &[spec])
}

/// Returns policies like that of [`allowed`], one for each role.
pub(super) fn allowed_as(roles: &[&str]) -> EffectivePolicy {
    let specs: Vec<_> = roles
        .iter()
        .map(|role| StreamEncryptionPolicySpec {
            role: Some(PolicyRole { arn: format!("arn:aws:iam::{ACCOUNT}:role/{role}"), external_id: None }),
            allow_disable: true,
            ..StreamEncryptionPolicySpec::own_account()
        })
        .collect();
    permission(ACCOUNT, "aws", &specs)
}

fn permission(account: &str, partition: &str, specs: &[StreamEncryptionPolicySpec]) -> EffectivePolicy {
    let own = AwsAccount { account: account.parse().unwrap(), partition: partition.parse().unwrap() };
    EffectivePolicy::of(specs.iter().filter_map(|spec| Policy::read(spec).0).collect(), own)
}

/// Returns the start time of every scenario.
pub(super) fn midnight() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl Scenario {
    /// Creates a scenario: the spec names key 1, everything is allowed, and the stream has not been described
    /// yet.
    pub(super) fn of(service: Service) -> Self {
        let stream = stream(service);
        Self {
            now: midnight(),
            desired: DesiredState {
                encryption: DesiredEncryption::Key(key(1)),
                key_problem: None,
                mode: Mode::Enforce,
                suspended: false,
                disable_on_deletion: false,
                deleting: false,
                verify: false,
                verified: None,
                retry: None,
                key_reference: None,
            },
            permission: allowed(stream.account.as_str(), stream.partition.as_str(), true, 20),
            ownership: Ownership::Owned,
            other_owner: None,
            ledger: ledger::new(&stream, owner()),
            sight: Sight::NotYet,
            active_key_problem: None,
            session_age: None,
            waiting: None,
            drift_interval: SignedDuration::from_mins(10),
            expected_change: SignedDuration::ZERO,
            is_encryption_reported: true,
            stream,
        }
    }

    /// Changes the desired encryption.
    pub(super) fn wants(mut self, wanted: DesiredEncryption) -> Self {
        self.desired.encryption = wanted;
        self
    }

    /// Applies any change.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Advances the time.
    pub(super) fn after(mut self, seconds: i64) -> Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// Describes the stream and applies the observation to the ledger.
    pub(super) fn sees(mut self, observation: Observation) -> Self {
        let wanted = self.desired.encryption.target();
        let unusable = self.desired.key_problem.is_some();
        self.ledger =
            ledger::apply_observation(&self.ledger, &observation, None, wanted.as_ref(), unusable, self.now);
        self.sight = Sight::At(self.now, observation);
        self
    }

    /// Makes the Describe fail.
    pub(super) fn cannot_see(mut self, kind: ErrorKind) -> Self {
        let operation = profile(self.stream.service).describe;
        self.sight = Sight::Failed(AwsError { operation, ..aws_error(kind, "Code") });
        self
    }

    /// Makes the call that is decided. Panics if no call is decided.
    pub(super) fn calls(mut self) -> Self {
        let Step::ChangeEncryption(reservation) = self.decide().step else {
            panic!("no call: {:?}", self.decide())
        };
        self.ledger = ledger::reserve(&self.ledger, &reservation, self.now).0;
        self
    }

    /// Records that AWS accepted the last call.
    pub(super) fn accepted(self) -> Self {
        self.answered(Ok(()))
    }

    /// Records that AWS refused the last call, or did not respond.
    pub(super) fn refused(self, kind: ErrorKind, code: &str) -> Self {
        self.answered(Err(&aws_error(kind, code)))
    }

    fn answered(mut self, outcome: Result<(), &AwsError>) -> Self {
        let id = self.ledger.calls.last().unwrap().id.clone();
        self.ledger = ledger::record_outcome(&self.ledger, &id, outcome.map(|()| &ACCEPTED), self.now);
        self
    }

    /// Brings the stream to the desired encryption and lets it settle.
    pub(super) fn converged(self) -> Self {
        let shown = match &self.desired.encryption {
            DesiredEncryption::Off => Observation::Off,
            DesiredEncryption::Key(key) => Observation::On(key.clone()),
            DesiredEncryption::AnyKey | DesiredEncryption::UnknownKey => Observation::On(Key::AwsOwned),
        };
        self.sees(shown.clone()).after(60).sees(shown)
    }

    /// Adds this many Starts of other callers, as AWS's events report them, now.
    pub(super) fn spent_by_others(mut self, count: u32) -> Self {
        let event = |number: u32| CallEvent {
            event_id: format!("event-{number}"),
            request_id: format!("request-{number}"),
            action: Action::Start,
            time: self.now,
            caller_type: None,
            code: None,
        };
        let events: Vec<CallEvent> = (0..count).map(event).collect();
        self.ledger = external::record_events(&self.ledger, &events, self.now);
        self
    }

    /// Adds calls made for another spec: `count` Starts with key 9 that AWS accepted, now.
    pub(super) fn spent(mut self, count: u32) -> Self {
        let target = key(9).target();
        for _ in 0..count {
            let plan = PlannedCall {
                desired_target: target.clone(),
                target: target.clone(),
                retry: None,
                correction: false,
                after_failure: false,
            };
            let (reserved, id) = ledger::reserve(&self.ledger, &plan, self.now);
            self.ledger = ledger::record_outcome(&reserved, &id, Ok(&ACCEPTED), self.now);
        }
        self.ledger.attempts = None;
        self
    }

    /// Makes the desired key unusable.
    pub(super) fn key_is(mut self, problem: KeyProblem) -> Self {
        self.desired.key_problem = Some(problem);
        self
    }

    /// Makes the active key unusable.
    pub(super) fn active_key_is(mut self, problem: KeyProblem) -> Self {
        self.active_key_problem = Some(problem);
        self
    }

    /// Returns the input of the decision.
    pub(super) fn input(&self) -> DecisionInput<'_> {
        DecisionInput {
            now: self.now,
            stream: &self.stream,
            desired: &self.desired,
            permission: &self.permission,
            ownership: self.ownership,
            other_owner: self.other_owner,
            ledger: &self.ledger,
            last_observation: match &self.sight {
                Sight::NotYet => LastObservation::NotYet,
                Sight::Failed(error) => LastObservation::Failed(error),
                Sight::At(at, observation) => LastObservation::Described((*at).into(), observation),
            },
            active_key_problem: self.active_key_problem,
            session_age: self.session_age,
            last_reason: self.waiting,
            drift_interval: self.drift_interval,
            expected_change: self.expected_change,
            is_encryption_reported: self.is_encryption_reported,
        }
    }

    /// Returns the decision.
    pub(super) fn decide(&self) -> Decision {
        decide(&self.input())
    }
}

/// Returns an observation of a failed attempt.
pub(super) fn failed(action: Action) -> Observation {
    Observation::Failed { action, reason: "KMS_ACCESS_DENIED".into() }
}
