//! A stream's story for tests of the model: what was asked for, seen, called and answered, in that order.
//!
//! Every step goes through the model's own functions, so that a test never has a ledger that could not have come about.

use jiff::{SignedDuration, Timestamp};

use super::decision::{Decision, Input, Intent, Ownership, Seen, Step, Wanted, decide};
use super::fault::{Class, Fault, Operation};
use super::key::{Key, KeyProblem};
use super::ledger::{self, Reservation};
use super::observation::Observation;
use super::pattern::Own;
use super::permission::{Permission, Policy};
use super::stream::StreamArn;
use crate::api::condition::Reason;
use crate::api::ledger::{Action, Owner, StreamLedgerSpec};
use crate::api::policy::{PolicyRole, StreamEncryptionPolicySpec};
use crate::api::stream_encryption::{Drift, Service};

/// The operator's own account.
pub(super) const ACCOUNT: &str = "111122223333";

/// What was last seen of the stream.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    NotYet,
    Failed(Fault),
    At(Timestamp, Observation),
}

/// Everything that a decision depends on, owned.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    pub(super) now: Timestamp,
    pub(super) stream: StreamArn,
    pub(super) intent: Intent,
    pub(super) permission: Permission,
    pub(super) ownership: Ownership,
    pub(super) other_owner: Option<&'static str>,
    pub(super) ledger: StreamLedgerSpec,
    pub(super) sight: Sight,
    pub(super) active_key_problem: Option<KeyProblem>,
    pub(super) session_age: Option<SignedDuration>,
    pub(super) waiting: Option<(Reason, Timestamp)>,
    pub(super) drift_interval: SignedDuration,
}

/// A stream of the operator's own account.
pub(super) fn stream(service: Service) -> StreamArn {
    let arn = match service {
        Service::Firehose => format!("arn:aws:firehose:eu-west-1:{ACCOUNT}:deliverystream/orders"),
        Service::Kinesis => format!("arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/orders"),
    };
    arn.parse().unwrap()
}

/// A customer managed key of the operator's own account.
pub(super) fn key(number: u8) -> Key {
    Key::Customer(format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/{number}").parse().unwrap())
}

/// The resource that owns the stream.
pub(super) fn owner() -> Owner {
    Owner { namespace: "data".into(), name: "orders".into(), uid: "1".into() }
}

/// An error of the last call.
pub(super) fn fault(class: Class, code: &str) -> Fault {
    let operation = Operation::StartDeliveryStreamEncryption;
    Fault { operation, class, code: Some(code.to_owned()), message: "AWS's words".into() }
}

/// Streams and keys of the operator's own account, which is this one.
pub(super) fn allowed(
    account: &str,
    partition: &str,
    allow_disable: bool,
    max_calls_per_day: u32,
) -> Permission {
    let spec = StreamEncryptionPolicySpec {
        allow_disable,
        max_calls_per_day,
        ..StreamEncryptionPolicySpec::own_account()
    };
    permission(account, partition, &[spec])
}

/// As [`allowed`] has it, by as many policies as there are roles.
pub(super) fn allowed_as(roles: &[&str]) -> Permission {
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

fn permission(account: &str, partition: &str, specs: &[StreamEncryptionPolicySpec]) -> Permission {
    let own = Own { account: account.parse().unwrap(), partition: partition.parse().unwrap() };
    Permission::of(specs.iter().filter_map(|spec| Policy::read(spec).0).collect(), own)
}

/// The day on which every story begins.
pub(super) fn midnight() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl Situation {
    /// Somebody asks for key 1, all is allowed, and nobody has looked yet.
    pub(super) fn of(service: Service) -> Self {
        let stream = stream(service);
        Self {
            now: midnight(),
            intent: Intent {
                wanted: Wanted::Key(key(1)),
                key_problem: None,
                drift: Drift::Correct,
                suspended: false,
                disable_on_deletion: false,
                deleting: false,
                verify: false,
                verified: None,
                retry: None,
                key_name: None,
            },
            permission: allowed(stream.account.as_str(), stream.partition.as_str(), true, 20),
            ownership: Ownership::Own,
            other_owner: None,
            ledger: ledger::new(&stream, owner()),
            sight: Sight::NotYet,
            active_key_problem: None,
            session_age: None,
            waiting: None,
            drift_interval: SignedDuration::from_mins(10),
            stream,
        }
    }

    /// Asks for something else.
    pub(super) fn wants(mut self, wanted: Wanted) -> Self {
        self.intent.wanted = wanted;
        self
    }

    /// Changes anything.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Time goes by.
    pub(super) fn after(mut self, seconds: i64) -> Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// Looks at the stream, and the ledger learns.
    pub(super) fn sees(mut self, observation: Observation) -> Self {
        let wanted = self.intent.wanted.target();
        let unusable = self.intent.key_problem.is_some();
        self.ledger = ledger::learn(&self.ledger, &observation, None, wanted.as_ref(), unusable, self.now);
        self.sight = Sight::At(self.now, observation);
        self
    }

    /// AWS cannot be asked.
    pub(super) fn cannot_see(mut self, class: Class) -> Self {
        let operation = Operation::look(self.stream.service);
        self.sight = Sight::Failed(Fault { operation, ..fault(class, "Code") });
        self
    }

    /// Makes the call that is decided; there must be one.
    pub(super) fn calls(mut self) -> Self {
        let Step::Call(reservation) = self.decide().step else { panic!("no call: {:?}", self.decide()) };
        self.ledger = ledger::reserve(&self.ledger, &reservation, self.now).0;
        self
    }

    /// AWS accepts the last call.
    pub(super) fn accepted(self) -> Self {
        self.answered(Ok(()))
    }

    /// AWS refuses the last call, or does not answer it.
    pub(super) fn refused(self, class: Class, code: &str) -> Self {
        self.answered(Err(&fault(class, code)))
    }

    fn answered(mut self, outcome: Result<(), &Fault>) -> Self {
        let id = self.ledger.calls.last().unwrap().id.clone();
        self.ledger = ledger::record(&self.ledger, &id, outcome, self.now);
        self
    }

    /// The stream is as it was asked for, and has settled.
    pub(super) fn converged(self) -> Self {
        let shown = match &self.intent.wanted {
            Wanted::Off => Observation::Off,
            Wanted::Key(key) => Observation::On(key.clone()),
            Wanted::AnyKey | Wanted::UnknownKey => Observation::On(Key::AwsOwned),
        };
        self.sees(shown.clone()).after(60).sees(shown)
    }

    /// Calls that others made in the operator's name: `count` Starts with key 9 that AWS accepted, now.
    pub(super) fn spent(mut self, count: u32) -> Self {
        let target = key(9).target();
        for _ in 0..count {
            let plan = Reservation {
                wanted: target.clone(),
                target: target.clone(),
                retry: None,
                correction: false,
                after_failure: false,
            };
            let (reserved, id) = ledger::reserve(&self.ledger, &plan, self.now);
            self.ledger = ledger::record(&reserved, &id, Ok(()), self.now);
        }
        self.ledger.attempts = None;
        self
    }

    /// The key asked for cannot be used.
    pub(super) fn key_is(mut self, problem: KeyProblem) -> Self {
        self.intent.key_problem = Some(problem);
        self
    }

    /// The key in force cannot be used any more.
    pub(super) fn active_key_is(mut self, problem: KeyProblem) -> Self {
        self.active_key_problem = Some(problem);
        self
    }

    /// The decision's input.
    pub(super) fn input(&self) -> Input<'_> {
        Input {
            now: self.now,
            stream: &self.stream,
            intent: &self.intent,
            permission: &self.permission,
            ownership: self.ownership,
            other_owner: self.other_owner,
            ledger: &self.ledger,
            seen: match &self.sight {
                Sight::NotYet => Seen::NotYet,
                Sight::Failed(fault) => Seen::Failed(fault),
                Sight::At(at, observation) => Seen::At(*at, observation),
            },
            active_key_problem: self.active_key_problem,
            session_age: self.session_age,
            waiting: self.waiting,
            drift_interval: self.drift_interval,
        }
    }

    /// The decision.
    pub(super) fn decide(&self) -> Decision {
        decide(&self.input())
    }
}

/// AWS shows that the last attempt failed.
pub(super) fn failed(action: Action) -> Observation {
    Observation::Failed { action, reason: "KMS_ACCESS_DENIED".into() }
}
