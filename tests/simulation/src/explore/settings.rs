//! The environments that are explored: one stream, two replicas, a few operations of a plan, and the bounds
//! of each.
//!
//! Each has one focus: the faults of a call, pauses, clocks, caches, changes of the spec, a deletion, another
//! owner. An environment defines the possible events, never the reaction of the operator.

use jiff::SignedDuration;
use simulated_aws::world::{SameKey, Settings};
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyReference, KeyType, Mode, Service, StreamEncryptionSpec, StreamReference,
    Verification,
};

use super::bounds::Bounds;
use super::injected_fault::InjectedFault;
use crate::generator::stream_arn;
use crate::keys;
use crate::plan::{Operation, Plan, PlannedStream, StreamKind};
use crate::policies::Policy;
use crate::store::Name;

/// Maximum delay with which AWS still accepts a request: 15 minutes, less a second.
const MAX_CALL_DELAY: i64 = 15 * 60 - 1;

/// An environment that is explored.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// The events that are explored.
    pub description: &'static str,
    pub plan: Plan,
    pub bounds: Bounds,
}

/// The encryption that a user requests.
#[derive(Clone, Copy, Debug)]
enum DesiredEncryption {
    Key(usize),
    AnyKey,
    Plaintext,
}

/// The number of choices of each kind in one run; one choice of all kinds together.
fn bounds(orders: u8, faults: u8, early_operations: u8) -> Bounds {
    Bounds { orders, max_faults: faults, early_operations, choices: 1, faults: &[], window: minutes(45) }
}

/// A Firehose stream in plaintext; a user requests encryption with key 0.
fn plan(max_calls: u32) -> Plan {
    let stream = PlannedStream { service: Service::Firehose, name: "s0".to_owned(), kind: StreamKind::Plain };
    Plan {
        seed: 0,
        settings: Settings {
            enabling: SignedDuration::from_secs(10),
            disabling: SignedDuration::from_secs(10),
            same_key: SameKey::FailsLater,
            rate_limits: false,
            ..Settings::default()
        },
        replicas: 2,
        clock_errors: vec![SignedDuration::ZERO; 2],
        latency: 0,
        drift_interval: SignedDuration::from_hours(12),
        max_calls,
        allow_disable: true,
        sessions: false,
        keys_recover: true,
        operations: vec![(SignedDuration::from_secs(1), apply(&stream, "data", DesiredEncryption::Key(0)))],
        events: None,
        streams: vec![stream],
    }
}

/// Returns the name of the resource of a namespace.
fn name(namespace: &str) -> Name {
    (namespace.to_owned(), "r0".to_owned())
}

/// Returns the operation that applies a resource with this encryption.
fn apply(stream: &PlannedStream, namespace: &str, desired: DesiredEncryption) -> Operation {
    let customer = |number| KeyReference {
        kind: KeyType::CustomerManaged,
        arn: Some(keys::arn(number)),
        alias: None,
        object_ref: None,
    };
    let spec = StreamEncryptionSpec {
        stream: StreamReference { arn: Some(stream_arn(stream)), ..Default::default() },
        key: if let DesiredEncryption::Key(number) = desired { Some(customer(number)) } else { None },
        encryption: if matches!(desired, DesiredEncryption::Plaintext) {
            Encryption::Disabled
        } else {
            Encryption::Enabled
        },
        mode: Mode::Enforce,
        deletion_policy: DeletionPolicy::Retain,
        suspend: false,
        verification: Verification::None,
    };
    Operation::Apply(name(namespace), Box::new(spec))
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// Returns a policy for one namespace.
fn policy_for(namespace: &str) -> Policy {
    Policy { namespace: Some(namespace.to_owned()), ..Policy::own_account(true) }
}

impl Plan {
    /// Returns the same plan with a stream of this service and kind.
    fn with_stream(mut self, service: Service, kind: StreamKind, desired: DesiredEncryption) -> Self {
        self.streams[0].service = service;
        self.streams[0].kind = kind;
        self.operations[0].1 = apply(&self.streams[0], "data", desired);
        self
    }

    /// Returns the same plan with a policy for another namespace only, from the start.
    fn initially_forbidden(mut self) -> Self {
        let forbids = Operation::Policies(vec![policy_for("other")]);
        self.operations.insert(0, (SignedDuration::from_millis(500), forbids));
        self
    }

    /// Returns the same plan with these operations at minutes 5, 10, 15, …
    fn then(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        let times = (1..).map(|number| minutes(5 * number));
        self.operations.extend(times.zip(operations));
        self
    }

    /// Returns the same plan with these later changes by the user.
    fn then_applies(self, desired: &[DesiredEncryption]) -> Self {
        let stream = self.streams[0].clone();
        self.then(desired.iter().map(|desired| apply(&stream, "data", *desired)))
    }
}

/// Returns every environment.
#[allow(clippy::too_many_lines, reason = "one entry for each environment")]
pub fn all() -> Vec<Setting> {
    let stream = plan(1).streams[0].clone();
    let encrypted = |service, desired| plan(2).with_stream(service, StreamKind::Encrypted, desired);
    vec![
        Setting {
            name: "call",
            description: "one call a day, and every fault of a call and of a write",
            plan: plan(1),
            bounds: Bounds {
                faults: &[
                    InjectedFault::Crash,
                    InjectedFault::ResponseLost,
                    InjectedFault::RequestLost,
                    InjectedFault::DelayedCall(MAX_CALL_DELAY),
                    InjectedFault::LimitExceeded,
                    InjectedFault::FailsLater,
                    InjectedFault::ImmediateCompletion,
                    InjectedFault::WriteRefused,
                    InjectedFault::WriteResponseLost,
                    InjectedFault::DelayedWrite(5),
                ],
                choices: 2,
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "orders",
            description: "the first reconciles of both replicas, in every order",
            plan: plan(2),
            bounds: Bounds { choices: 3, window: SignedDuration::from_secs(2), ..bounds(20, 0, 0) },
        },
        Setting {
            name: "attempts",
            description: "calls that fail or are refused, more than one a day, and crashes",
            plan: plan(3),
            bounds: Bounds {
                faults: &[
                    InjectedFault::FailsLater,
                    InjectedFault::LimitExceeded,
                    InjectedFault::ResponseLost,
                    InjectedFault::Crash,
                ],
                choices: 2,
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "describe",
            description: "stale and missing responses to a Describe, with lost responses to a call",
            plan: plan(2).then_applies(&[DesiredEncryption::Key(1)]),
            bounds: Bounds {
                faults: &[
                    InjectedFault::StaleRead(4),
                    InjectedFault::StaleRead(12),
                    InjectedFault::NoResponse,
                    InjectedFault::ResponseLost,
                ],
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "mind",
            description: "the user requests key 0, key 1, plaintext, any key, at any time",
            plan: plan(4).then_applies(&[
                DesiredEncryption::Key(1),
                DesiredEncryption::Plaintext,
                DesiredEncryption::AnyKey,
            ]),
            bounds: bounds(2, 0, 2),
        },
        Setting {
            name: "stop",
            description: "the stream is encrypted; the user requests plaintext, then a key again",
            plan: encrypted(Service::Firehose, DesiredEncryption::Plaintext)
                .then_applies(&[DesiredEncryption::Key(0)]),
            bounds: Bounds {
                faults: &[InjectedFault::Crash, InjectedFault::ResponseLost],
                ..bounds(1, 1, 1)
            },
        },
        Setting {
            name: "kinesis",
            description: "a Kinesis stream, encrypted with another key",
            plan: encrypted(Service::Kinesis, DesiredEncryption::Key(0))
                .then_applies(&[DesiredEncryption::Plaintext]),
            bounds: Bounds {
                faults: &[
                    InjectedFault::Crash,
                    InjectedFault::ResponseLost,
                    InjectedFault::DelayedCall(MAX_CALL_DELAY),
                    InjectedFault::LimitExceeded,
                    InjectedFault::FailsLater,
                ],
                ..bounds(1, 2, 1)
            },
        },
        Setting {
            name: "pause",
            description: "a process is paused for 11 s, 5 min or 20 min at any request",
            plan: plan(2).then_applies(&[DesiredEncryption::Plaintext]),
            bounds: Bounds {
                faults: &[
                    InjectedFault::PauseBefore(11),
                    InjectedFault::PauseAfter(11),
                    InjectedFault::PauseBefore(300),
                    InjectedFault::PauseAfter(300),
                    InjectedFault::PauseBefore(1200),
                    InjectedFault::PauseAfter(1200),
                ],
                ..bounds(1, 1, 1)
            },
        },
        Setting {
            name: "clocks",
            description: "one clock is 5 min behind, the other 5 min ahead",
            plan: Plan { clock_errors: vec![minutes(-5), minutes(5)], ..plan(1) },
            bounds: Bounds {
                faults: &[
                    InjectedFault::DelayedCall(MAX_CALL_DELAY),
                    InjectedFault::ResponseLost,
                    InjectedFault::FailsLater,
                    InjectedFault::Crash,
                ],
                choices: 2,
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "clock set",
            description: "a clock is set by two days in either direction at any request",
            plan: plan(2).then_applies(&[DesiredEncryption::Key(1)]),
            bounds: Bounds {
                faults: &[InjectedFault::ClockSet(48), InjectedFault::ClockSet(-48)],
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "caches",
            description: "a watch delivers a minute or an hour late, and a cache of the ledgers lacks the last change",
            plan: plan(3).initially_forbidden().then([
                apply(&stream, "data", DesiredEncryption::Key(1)),
                Operation::Policies(vec![policy_for("data")]),
                apply(&stream, "data", DesiredEncryption::Plaintext),
            ]),
            bounds: Bounds {
                faults: &[
                    InjectedFault::WatchLag(60),
                    InjectedFault::WatchLag(3600),
                    InjectedFault::StaleLedgerCache,
                ],
                ..bounds(1, 2, 1)
            },
        },
        Setting {
            name: "keys",
            description: "a key is disabled and enabled, at any time",
            plan: plan(4).then([
                apply(&stream, "data", DesiredEncryption::Key(1)),
                Operation::KeyDisabled(0, true),
                apply(&stream, "data", DesiredEncryption::Key(0)),
                Operation::KeyDisabled(1, true),
            ]),
            bounds: bounds(2, 0, 2),
        },
        Setting {
            name: "drift",
            description: "another caller calls Stop",
            plan: plan(2).then([Operation::ExternalStop(0), Operation::Retry(name("data"))]),
            bounds: Bounds {
                faults: &[InjectedFault::ResponseLost, InjectedFault::Crash],
                ..bounds(1, 1, 2)
            },
        },
        Setting {
            name: "deletion",
            description: "the resource is deleted and created again",
            plan: plan(1).then([
                Operation::Delete(name("data")),
                apply(&stream, "data", DesiredEncryption::Key(1)),
                Operation::Delete(name("data")),
            ]),
            bounds: Bounds {
                faults: &[InjectedFault::Crash, InjectedFault::WriteResponseLost],
                ..bounds(1, 1, 2)
            },
        },
        Setting {
            name: "owner",
            description: "two resources claim the stream; its owner is deleted",
            plan: plan(3).then([
                apply(&stream, "other", DesiredEncryption::Key(1)),
                Operation::Delete(name("data")),
                Operation::Retry(name("other")),
            ]),
            bounds: Bounds { faults: &[InjectedFault::WatchLag(60)], ..bounds(1, 1, 2) },
        },
        Setting {
            name: "policies",
            description: "an administrator revokes the stream, and gives it to another namespace",
            plan: plan(3).then([
                Operation::Policies(vec![policy_for("data")]),
                apply(&stream, "other", DesiredEncryption::Key(1)),
                Operation::Policies(vec![policy_for("other")]),
                Operation::Policies(vec![policy_for("data")]),
            ]),
            bounds: Bounds { faults: &[InjectedFault::WatchLag(60)], ..bounds(1, 1, 2) },
        },
    ]
}
