//! The one stream of the model, its keys, its owner, and what its user may ask for, in the product's own types.
//!
//! Made once and never changed. It decides nothing.

use std::sync::LazyLock;

use jiff::Timestamp;
use stream_encryption_api::ledger::{Action, Owner, Target};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{Mode, Service};
use stream_encryption_core::model::arn::{AwsAccount, StreamArn};
use stream_encryption_core::model::desired::{DesiredEncryption, DesiredState};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::permission::{EffectivePolicy, Policy};

/// What encrypts records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Nothing.
    Off,
    /// The key of AWS.
    Owned,
    /// Key 1.
    One,
    /// Key 2.
    Two,
    /// The key that somebody else likes.
    Foreign,
}

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Whatever key.
    Any,
    /// Key 1.
    One,
    /// Key 2.
    Two,
    /// Plaintext.
    Off,
}

static FIREHOSE: LazyLock<StreamArn> =
    LazyLock::new(|| parse("arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders"));
static KINESIS: LazyLock<StreamArn> =
    LazyLock::new(|| parse("arn:aws:kinesis:eu-west-1:111122223333:stream/orders"));
static KEYS: LazyLock<[Key; 3]> = LazyLock::new(|| {
    ["1", "2", "9"].map(|id| Key::Customer(parse(&format!("arn:aws:kms:eu-west-1:111122223333:key/{id}"))))
});
static INTENTS: LazyLock<[DesiredState; 4]> =
    LazyLock::new(|| [Wish::Any, Wish::One, Wish::Two, Wish::Off].map(asked));

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a well-formed ARN")
}

fn asked(wish: Wish) -> DesiredState {
    let wanted = match wish {
        Wish::Any => DesiredEncryption::AnyKey,
        Wish::One => DesiredEncryption::Key(KEYS[0].clone()),
        Wish::Two => DesiredEncryption::Key(KEYS[1].clone()),
        Wish::Off => DesiredEncryption::Off,
    };
    DesiredState {
        encryption: wanted,
        key_problem: None,
        mode: Mode::Enforce,
        suspended: false,
        disable_on_deletion: false,
        deleting: false,
        verify: false,
        verified: None,
        retry: None,
        key_reference: None,
    }
}

/// The stream.
pub(crate) fn stream(service: Service) -> &'static StreamArn {
    match service {
        Service::Firehose => &FIREHOSE,
        Service::Kinesis => &KINESIS,
    }
}

/// The resource that owns it.
pub(crate) fn owner() -> Owner {
    Owner { namespace: "data".into(), name: "orders".into(), uid: "1".into() }
}

/// What the administrator allows.
pub(crate) fn permission(limit: u32) -> EffectivePolicy {
    let spec = StreamEncryptionPolicySpec {
        allow_disable: true,
        max_calls_per_day: limit,
        ..StreamEncryptionPolicySpec::own_account()
    };
    let own = AwsAccount { account: FIREHOSE.account.clone(), partition: FIREHOSE.partition.clone() };
    EffectivePolicy::of(Policy::read(&spec).0.into_iter().collect(), own)
}

/// When every story begins.
pub(crate) fn beginning() -> Timestamp {
    parse("2026-01-01T00:00:00Z")
}

impl Encryption {
    /// The key; nothing for plaintext.
    pub(crate) fn key(self) -> Option<Key> {
        match self {
            Self::Off => None,
            Self::Owned => Some(Key::AwsOwned),
            Self::One => Some(KEYS[0].clone()),
            Self::Two => Some(KEYS[1].clone()),
            Self::Foreign => Some(KEYS[2].clone()),
        }
    }

    /// What a key is, as the ledger writes it.
    pub(crate) fn of(key: Option<&Key>) -> Self {
        let all = [Self::Off, Self::Owned, Self::One, Self::Two, Self::Foreign];
        all.into_iter().find(|one| one.key().as_ref() == key).expect("no other keys are in the model")
    }

    /// What a call leads to.
    pub(crate) fn after(target: &Target) -> Self {
        Self::of(target.key.as_ref().map(Key::of).as_ref())
    }

    /// The call that leads to it.
    pub(crate) fn action(self) -> Action {
        if self == Self::Off { Action::Stop } else { Action::Start }
    }
}

impl Wish {
    /// As the product has it.
    pub(crate) fn desired(self) -> &'static DesiredState {
        let at = match self {
            Self::Any => 0,
            Self::One => 1,
            Self::Two => 2,
            Self::Off => 3,
        };
        &INTENTS[at]
    }

    /// Whether this is what is asked for.
    pub(crate) fn is(self, encryption: Encryption) -> bool {
        match self {
            Self::Any => encryption != Encryption::Off,
            Self::One => encryption == Encryption::One,
            Self::Two => encryption == Encryption::Two,
            Self::Off => encryption == Encryption::Off,
        }
    }
}
