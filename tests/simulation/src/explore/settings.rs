//! The environments that are explored: one stream, two replicas, a few events of a plan, and the bounds of each.
//!
//! Each widens one thing: the faults of a call, pauses, clocks, caches, a change of mind, a deletion, another owner.
//! An environment says what may happen; it must never say what the operator does about it.

use jiff::SignedDuration;
use simulated_aws::world::{SameKey, Settings};
use stream_encryption_api::stream_encryption::{
    DeletionPolicy, Encryption, KeyReference, KeyType, Mode, Service, StreamEncryptionSpec, StreamReference,
    Verification,
};

use super::bounds::Bounds;
use super::fault::Fault;
use crate::generator::stream_arn;
use crate::keys;
use crate::plan::{Happening, Plan, PlannedStream, StreamKind};
use crate::policies::Allowed;
use crate::store::Name;

/// The longest time after its date for which AWS accepts a request, less a second: 15 minutes.
const LATEST: i64 = 15 * 60 - 1;

/// An environment that is explored.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What is explored.
    pub what: &'static str,
    pub plan: Plan,
    pub bounds: Bounds,
}

/// What a user asks for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Key(usize),
    AnyKey,
    Plaintext,
}

/// The number of choices of each kind in one run; one choice of all kinds together.
fn bounds(orders: u8, faults: u8, acts: u8) -> Bounds {
    Bounds { orders, most_faults: faults, acts, choices: 1, faults: &[], window: minutes(45) }
}

/// A Firehose stream in plaintext; a user asks for its encryption with key 0.
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
        clocks: vec![SignedDuration::ZERO; 2],
        latency: 0,
        drift_interval: SignedDuration::from_hours(12),
        max_calls,
        allow_disable: true,
        sessions: false,
        keys_are_mended: true,
        happenings: vec![(SignedDuration::from_secs(1), apply(&stream, "data", Wish::Key(0)))],
        streams: vec![stream],
    }
}

fn name(namespace: &str) -> Name {
    (namespace.to_owned(), "r0".to_owned())
}

fn apply(stream: &PlannedStream, namespace: &str, wish: Wish) -> Happening {
    let customer = |number| KeyReference {
        kind: KeyType::CustomerManaged,
        arn: Some(keys::arn(number)),
        alias: None,
        object_ref: None,
    };
    let spec = StreamEncryptionSpec {
        stream: StreamReference { arn: Some(stream_arn(stream)), ..Default::default() },
        key: if let Wish::Key(number) = wish { Some(customer(number)) } else { None },
        encryption: if matches!(wish, Wish::Plaintext) { Encryption::Disabled } else { Encryption::Enabled },
        mode: Mode::Enforce,
        deletion_policy: DeletionPolicy::Retain,
        suspend: false,
        verification: Verification::None,
    };
    Happening::Apply(name(namespace), Box::new(spec))
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn of(namespace: &str) -> Allowed {
    Allowed { namespace: Some(namespace.to_owned()), ..Allowed::own_account(true) }
}

impl Plan {
    /// The same, with a stream of this service and kind.
    fn on(mut self, service: Service, kind: StreamKind, wish: Wish) -> Self {
        self.streams[0].service = service;
        self.streams[0].kind = kind;
        self.happenings[0].1 = apply(&self.streams[0], "data", wish);
        self
    }

    /// The same, with a policy for another namespace only, from the start.
    fn not_allowed_at_first(mut self) -> Self {
        let other = Happening::Policies(vec![of("other")]);
        self.happenings.insert(0, (SignedDuration::from_millis(500), other));
        self
    }

    /// The same, with these events at minutes 5, 10, 15, …
    fn then(mut self, events: impl IntoIterator<Item = Happening>) -> Self {
        let times = (1..).map(|number| minutes(5 * number));
        self.happenings.extend(times.zip(events));
        self
    }

    /// The same, and later the user asks for this.
    fn then_asks(self, wishes: &[Wish]) -> Self {
        let stream = self.streams[0].clone();
        self.then(wishes.iter().map(|wish| apply(&stream, "data", *wish)))
    }
}

/// Returns every environment.
#[allow(clippy::too_many_lines, reason = "one entry for each environment")]
pub fn all() -> Vec<Setting> {
    let stream = plan(1).streams[0].clone();
    let encrypted = |service, wish| plan(2).on(service, StreamKind::Encrypted, wish);
    vec![
        Setting {
            name: "call",
            what: "one call a day, and everything that can happen to a call and to a write",
            plan: plan(1),
            bounds: Bounds {
                faults: &[
                    Fault::Crash,
                    Fault::AnswerLost,
                    Fault::RequestLost,
                    Fault::Late(LATEST),
                    Fault::LimitExceeded,
                    Fault::Fails,
                    Fault::DoneAtOnce,
                    Fault::WriteRefused,
                    Fault::WriteUnheard,
                    Fault::WriteLate(5),
                ],
                choices: 2,
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "orders",
            what: "the first reconciles of both replicas, in every order",
            plan: plan(2),
            bounds: Bounds { choices: 3, window: SignedDuration::from_secs(2), ..bounds(20, 0, 0) },
        },
        Setting {
            name: "attempts",
            what: "calls that fail or are refused, more than one a day, and crashes",
            plan: plan(3),
            bounds: Bounds {
                faults: &[Fault::Fails, Fault::LimitExceeded, Fault::AnswerLost, Fault::Crash],
                choices: 2,
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "describe",
            what: "old and missing answers to a Describe, with lost answers to a call",
            plan: plan(2).then_asks(&[Wish::Key(1)]),
            bounds: Bounds {
                faults: &[Fault::OldAnswer(4), Fault::OldAnswer(12), Fault::NoAnswer, Fault::AnswerLost],
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "mind",
            what: "the user asks for key 0, key 1, plaintext, any key, at any time",
            plan: plan(4).then_asks(&[Wish::Key(1), Wish::Plaintext, Wish::AnyKey]),
            bounds: bounds(2, 0, 2),
        },
        Setting {
            name: "stop",
            what: "the stream is encrypted; the user asks for plaintext and changes his mind",
            plan: encrypted(Service::Firehose, Wish::Plaintext).then_asks(&[Wish::Key(0)]),
            bounds: Bounds { faults: &[Fault::Crash, Fault::AnswerLost], ..bounds(1, 1, 1) },
        },
        Setting {
            name: "kinesis",
            what: "a Kinesis stream, encrypted with another key",
            plan: encrypted(Service::Kinesis, Wish::Key(0)).then_asks(&[Wish::Plaintext]),
            bounds: Bounds {
                faults: &[
                    Fault::Crash,
                    Fault::AnswerLost,
                    Fault::Late(LATEST),
                    Fault::LimitExceeded,
                    Fault::Fails,
                ],
                ..bounds(1, 2, 1)
            },
        },
        Setting {
            name: "pause",
            what: "a process is paused for 11 s, 5 min or 20 min at any request",
            plan: plan(2).then_asks(&[Wish::Plaintext]),
            bounds: Bounds {
                faults: &[
                    Fault::PauseBefore(11),
                    Fault::PauseAfter(11),
                    Fault::PauseBefore(300),
                    Fault::PauseAfter(300),
                    Fault::PauseBefore(1200),
                    Fault::PauseAfter(1200),
                ],
                ..bounds(1, 1, 1)
            },
        },
        Setting {
            name: "clocks",
            what: "one clock is 5 min behind, the other 5 min ahead",
            plan: Plan { clocks: vec![minutes(-5), minutes(5)], ..plan(1) },
            bounds: Bounds {
                faults: &[Fault::Late(LATEST), Fault::AnswerLost, Fault::Fails, Fault::Crash],
                choices: 2,
                ..bounds(1, 2, 0)
            },
        },
        Setting {
            name: "clock set",
            what: "a clock is set by two days in either direction at any request",
            plan: plan(2).then_asks(&[Wish::Key(1)]),
            bounds: Bounds { faults: &[Fault::ClockSet(48), Fault::ClockSet(-48)], ..bounds(1, 2, 0) },
        },
        Setting {
            name: "caches",
            what: "a watch delivers a minute or an hour late, and a cache of the ledgers lacks the last change",
            plan: plan(3).not_allowed_at_first().then([
                apply(&stream, "data", Wish::Key(1)),
                Happening::Policies(vec![of("data")]),
                apply(&stream, "data", Wish::Plaintext),
            ]),
            bounds: Bounds {
                faults: &[Fault::WatchLags(60), Fault::WatchLags(3600), Fault::LedgerOutdated],
                ..bounds(1, 2, 1)
            },
        },
        Setting {
            name: "keys",
            what: "a key is disabled and enabled, in the middle of everything",
            plan: plan(4).then([
                apply(&stream, "data", Wish::Key(1)),
                Happening::KeyDisabled(0, true),
                apply(&stream, "data", Wish::Key(0)),
                Happening::KeyDisabled(1, true),
            ]),
            bounds: bounds(2, 0, 2),
        },
        Setting {
            name: "drift",
            what: "somebody else calls Stop",
            plan: plan(2).then([Happening::OutsiderStops(0), Happening::Retry(name("data"))]),
            bounds: Bounds { faults: &[Fault::AnswerLost, Fault::Crash], ..bounds(1, 1, 2) },
        },
        Setting {
            name: "deletion",
            what: "the resource is deleted and created again",
            plan: plan(1).then([
                Happening::Delete(name("data")),
                apply(&stream, "data", Wish::Key(1)),
                Happening::Delete(name("data")),
            ]),
            bounds: Bounds { faults: &[Fault::Crash, Fault::WriteUnheard], ..bounds(1, 1, 2) },
        },
        Setting {
            name: "owner",
            what: "two resources want the stream; its owner is deleted",
            plan: plan(3).then([
                apply(&stream, "other", Wish::Key(1)),
                Happening::Delete(name("data")),
                Happening::Retry(name("other")),
            ]),
            bounds: Bounds { faults: &[Fault::WatchLags(60)], ..bounds(1, 1, 2) },
        },
        Setting {
            name: "policies",
            what: "an administrator revokes the stream, and gives it to another namespace",
            plan: plan(3).then([
                Happening::Policies(vec![of("data")]),
                apply(&stream, "other", Wish::Key(1)),
                Happening::Policies(vec![of("other")]),
                Happening::Policies(vec![of("data")]),
            ]),
            bounds: Bounds { faults: &[Fault::WatchLags(60)], ..bounds(1, 1, 2) },
        },
    ]
}
